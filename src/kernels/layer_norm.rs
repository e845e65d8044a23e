//! Layer norm of x + residual.

use super::simd::Simd;
use super::{Kernel, Level, Parallelism};
use core::ops::Range;

/// The parameters of a layer norm.
#[derive(Clone, Copy)]
pub struct LayerNorm<'a> {
    /// (hidden)
    pub weight: &'a [f32],
    /// (hidden)
    pub bias: &'a [f32],
    /// Added to the variance before taking the square root.
    pub eps: f32,
}

/// Rows per task: enough work to be worth handing to a thread.
const ROWS_OF_A_TASK: usize = 16;

/// (v - mean(v)) / sqrt(var(v) + eps) · weight + bias with v = x + residual, for each row of (rows, hidden). The
/// variance is biased, as in PyTorch: the mean of the squared distances from the mean.
///
/// # Panics
/// If the lengths of the slices disagree.
pub fn layer_norm(
    level: Level,
    parallelism: Parallelism,
    norm: LayerNorm,
    x: &[f32],
    residual: Option<&[f32]>,
) -> Vec<f32> {
    let mut y = x.to_vec();
    normalize(level, parallelism, norm, &mut y, residual);
    y
}

/// [`layer_norm`] in place.
pub(super) fn normalize(
    level: Level,
    parallelism: Parallelism,
    norm: LayerNorm,
    x: &mut [f32],
    residual: Option<&[f32]>,
) {
    let hidden = norm.weight.len();
    let rows = x.len() / hidden.max(1);
    assert_eq!(norm.bias.len(), hidden, "weight and bias of a layer norm have the same shape");
    assert_eq!(x.len(), rows * hidden, "the operand of a layer norm is (rows, hidden)");
    assert!(residual.is_none_or(|residual| residual.len() == x.len()), "the residual has the shape of the operand");
    assert!(level.is_supported(), "the processor does not support {level}");
    let call = Call { norm, x: x.as_mut_ptr(), residual: residual.map(<[f32]>::as_ptr) };
    parallelism.for_each(rows.div_ceil(ROWS_OF_A_TASK), |task| {
        let rows = task * ROWS_OF_A_TASK..((task + 1) * ROWS_OF_A_TASK).min(rows);
        // SAFETY: the level is supported; the pointers in `call` come from slices whose lengths were checked above and
        // which outlive the call. Each task writes its own rows.
        unsafe { level.run(Rows { call: &call, rows }) }
    });
}

struct Call<'a> {
    norm: LayerNorm<'a>,
    /// Operand and result.
    x: *mut f32,
    residual: Option<*const f32>,
}

// SAFETY: `residual` is only read, and tasks write disjoint rows of `x`.
unsafe impl Sync for Call<'_> {}

/// A task: some rows of a call.
struct Rows<'a> {
    call: &'a Call<'a>,
    rows: Range<usize>,
}

impl Kernel for Rows<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Call { norm, x, residual } = *self.call;
        let hidden = norm.weight.len();
        for row in self.rows {
            // SAFETY: the row lies inside the slices that the pointers were taken from.
            unsafe { norm_row::<S>(norm, x.add(row * hidden), residual.map(|residual| residual.add(row * hidden))) }
        }
    }
}

/// One row in place: `y` becomes y + residual, then the distances from the mean, then the norm. A row stays in the
/// first-level cache.
///
/// # Safety
/// The processor has the features of `S`; the pointers are valid for `norm.weight.len()` floats.
#[inline(always)]
pub(super) unsafe fn norm_row<S: Simd>(norm: LayerNorm, y: *mut f32, residual: Option<*const f32>) {
    let hidden = norm.weight.len();
    // SAFETY: every vector starts below `hidden`, and no more than `hidden - i` of its lanes are touched.
    unsafe {
        let mut sum = S::splat(0.0);
        for i in (0..hidden).step_by(S::LANES) {
            let n = (hidden - i).min(S::LANES);
            let mut v = S::load_first(y.add(i), n);
            if let Some(residual) = residual {
                v = S::add(v, S::load_first(residual.add(i), n));
            }
            S::store_first(y.add(i), v, n);
            sum = S::add(sum, v);
        }
        let mean = S::splat(S::reduce_add(sum) / hidden as f32);
        let (mut distances, mut squares) = (S::splat(0.0), S::splat(0.0));
        for i in (0..hidden).step_by(S::LANES) {
            let n = (hidden - i).min(S::LANES);
            S::store_first(y.add(i), S::sub(S::load_first(y.add(i), n), mean), n);
            // Read back with the lanes past the end of the row set to zero.
            let distance = S::load_first(y.add(i), n);
            distances = S::add(distances, distance);
            squares = S::mul_add(distance, distance, squares);
        }
        // What rounding left in the mean: nothing, unless the mean is large compared to the distances.
        let rest = S::reduce_add(distances) / hidden as f32;
        let variance = (S::reduce_add(squares) / hidden as f32 - rest * rest).max(0.0);
        let scale = S::splat(1.0 / (variance + norm.eps).sqrt());
        for i in (0..hidden).step_by(S::LANES) {
            let n = (hidden - i).min(S::LANES);
            let weight = S::load_first(norm.weight.as_ptr().add(i), n);
            let bias = S::load_first(norm.bias.as_ptr().add(i), n);
            let normal = S::mul(S::sub(S::load_first(y.add(i), n), S::splat(rest)), scale);
            S::store_first(y.add(i), S::mul_add(normal, weight, bias), n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{assert_close, layer_norm as truth, levels, Random};
    use super::*;

    fn check(rows: usize, hidden: usize, scale: f32, offset: f32, tolerance: f64) {
        let mut random = Random::new((rows * hidden) as u64);
        let x: Vec<f32> = random.floats(rows * hidden, scale).iter().map(|x| x + offset).collect();
        let residual = random.floats(rows * hidden, scale);
        let (weight, bias) = (random.floats(hidden, 2.0), random.floats(hidden, 1.0));
        let norm = LayerNorm { weight: &weight, bias: &bias, eps: 1e-12 };
        let sums: Vec<f32> = x.iter().zip(&residual).map(|(x, residual)| x + residual).collect();
        let truth = truth(norm, &sums);
        let size = vec![1.0; truth.len()];
        for level in levels() {
            for parallelism in [Parallelism::Single, Parallelism::Pool] {
                let what = format!("{level}, {rows} rows of {hidden}");
                let y = layer_norm(level, parallelism, norm, &x, Some(&residual));
                assert_close(&y, &truth, &size, tolerance, &what);
                let y = layer_norm(level, parallelism, norm, &sums, None);
                assert_close(&y, &truth, &size, tolerance, &what);
            }
        }
    }

    #[test]
    fn rows_of_any_width_are_normalized() {
        for (rows, hidden) in [(1, 2), (1, 768), (37, 384), (3, 13), (100, 33), (2, 1024), (5, 312), (512, 16)] {
            check(rows, hidden, 1.0, 0.0, 2e-6);
        }
    }

    #[test]
    fn a_mean_far_from_zero_costs_nothing() {
        check(4, 768, 1.0, 1000.0, 2e-6);
    }

    #[test]
    fn large_and_tiny_values_are_normalized() {
        check(3, 100, 1e15, 0.0, 2e-6);
        // A variance of 1e-12 is about the size of eps; below it, denormals vanish.
        check(3, 100, 1e-6, 0.0, 2e-6);
        check(3, 100, 1e-40, 0.0, 2e-6);
    }

    #[test]
    fn a_row_of_equal_values_gives_the_bias() {
        for level in levels() {
            let bias = [0.5, -1.0, 2.0];
            let norm = LayerNorm { weight: &[3.0; 3], bias: &bias, eps: 1e-12 };
            assert_eq!(layer_norm(level, Parallelism::Single, norm, &[4.0; 3], None), bias, "{level}");
        }
    }

    #[test]
    fn nan_stays_in_its_row() {
        for level in levels() {
            let x = [1.0, f32::NAN, 2.0, 1.0, 2.0, 3.0];
            let norm = LayerNorm { weight: &[1.0; 3], bias: &[0.0; 3], eps: 1e-12 };
            let y = layer_norm(level, Parallelism::Single, norm, &x, None);
            assert!(y[..3].iter().all(|y| y.is_nan()) && y[3..].iter().all(|y| y.is_finite()), "{level}: {y:?}");
        }
    }
}
