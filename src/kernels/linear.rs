//! The linear layer, y = act(x · Wᵀ + b) + residual.
//!
//! The weights stay where they are and as they are, row-major (out, in), in a mapped file for instance. A few panels'
//! worth of their rows is turned into the layout that the product reads as it goes, in each call: a third of a cycle for
//! each weight, where a row of x costs a sixteenth (AVX-512). That is a tenth of the time at 50 rows and a fiftieth at
//! 250; in return there is no second copy of the model in memory, and no wait for one to be made.

use super::factors::{Factors, Precision};
use super::product::{k_blocks, pack_columns, pack_rows, row_tiles, tile, PANEL_BLOCK, ROW_STRIDE};
use super::scratch::Loan;
use super::simd::Simd;
use super::{Activation, Kernel, Level, Parallelism, ProductKernel};
use core::ops::Range;

/// The weights of a layer, and what follows the product.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    /// (out, in), row-major.
    pub weight: &'a [f32],
    /// (out)
    pub bias: &'a [f32],
    /// Applied to the biased sums.
    pub activation: Activation,
    /// Of the product; everything else is float32.
    pub precision: Precision,
}

/// Rows that go through a panel before the next block of rows: their sums stay in the second-level cache.
const MOST_ROWS: usize = 640;
/// Panels that a task takes at most.
const MOST_PANELS: usize = 4;

/// Rows that a task packs.
const ROWS_OF_A_TASK: usize = 64;
/// A cache line.
const FLOATS_OF_LINE: usize = 16;

/// Applies `layer` to `x`, (rows, in), and gives (rows, out); `residual`, of the result's shape, is added at the end.
///
/// # Panics
/// Where a slice's length disagrees with the others.
pub fn linear(level: Level, parallelism: Parallelism, layer: Linear, x: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
    let out = layer.bias.len();
    let k = layer.weight.len() / out.max(1);
    let rows = x.len() / k.max(1);
    assert_eq!(layer.weight.len(), out * k, "the weights of a linear layer are (out, in)");
    assert_eq!(x.len(), rows * k, "the operand of a linear layer is (rows, in)");
    assert!(residual.is_none_or(|residual| residual.len() == rows * out), "the residual has the shape of the result");
    assert!(level.is_supported(), "the processor has no {level}");
    let mut y = Vec::with_capacity(rows * out);
    if rows > 0 && out > 0 {
        let product =
            Product { rows, k, out, x: x.as_ptr(), layer, residual: residual.map(<[f32]>::as_ptr), y: y.as_mut_ptr() };
        // SAFETY: the level is supported; the pointers are those of slices whose lengths were checked above, and of
        // `y` with room for the result; they outlive the call.
        unsafe {
            match (level, layer.precision) {
                (Level::Portable, Precision::F32) => product.run_unpacked(parallelism),
                _ => product.run_packed(level, parallelism),
            }
        }
    }
    // SAFETY: every element of (rows, out) was written.
    unsafe { y.set_len(rows * out) }
    y
}

/// The operands of one call, or of a block of its rows.
#[derive(Clone, Copy)]
struct Product<'a> {
    rows: usize,
    k: usize,
    out: usize,
    /// (rows, k)
    x: *const f32,
    layer: Linear<'a>,
    /// (rows, out)
    residual: Option<*const f32>,
    /// (rows, out)
    y: *mut f32,
}

// SAFETY: `x` and `residual` are only read, and tasks write disjoint parts of `y`.
unsafe impl Sync for Product<'_> {}

impl Product<'_> {
    /// By this project's own product.
    ///
    /// # Safety
    /// The processor supports the level; the pointers are valid for the shapes.
    unsafe fn run_packed(&self, level: Level, parallelism: Parallelism) {
        let Product { out, layer, .. } = *self;
        let precision = layer.precision;
        let panels = out.div_ceil(level.panel_columns());
        let width = panels_of_a_task(panels, parallelism) * level.panel_columns();
        let blocks = k_blocks(self.k.div_ceil(level.depth(precision))).len();
        let mut call = Loan::for_call();
        for Range { start: first, end } in row_tiles(self.rows, MOST_ROWS) {
            let rows = end - first;
            let packed = Packed { lanes: call.rows.reserve(blocks * rows * ROW_STRIDE) };
            // SAFETY: the rows from `first` on lie inside the operands.
            let product = unsafe {
                let residual = self.residual.map(|residual| residual.add(first * out));
                Product { rows, x: self.x.add(first * self.k), residual, y: self.y.add(first * out), ..*self }
            };
            parallelism.for_each(rows.div_ceil(ROWS_OF_A_TASK), |task| {
                let rows = task * ROWS_OF_A_TASK..((task + 1) * ROWS_OF_A_TASK).min(rows);
                // SAFETY: the caller's contract; `packed` has room for each block's rows; each task packs its own.
                unsafe { level.run_product(precision, Rows { product: &product, packed: &packed, rows }) }
            });
            parallelism.for_each(out.div_ceil(width), |task| {
                let columns = task * width..((task + 1) * width).min(out);
                // SAFETY: the caller's contract; `packed` holds all rows; each task writes columns of its own.
                unsafe { level.run_product(precision, Panels { product: &product, packed: &packed, columns }) }
            });
        }
    }

    /// By the gemm crate, which knows registers that this project has no level for.
    ///
    /// # Safety
    /// The pointers are valid for the shapes.
    unsafe fn run_unpacked(&self, parallelism: Parallelism) {
        let Product { rows, k, out, x, layer, y, .. } = *self;
        let threads = match parallelism {
            Parallelism::Single => gemm::Parallelism::None,
            Parallelism::Pool => gemm::Parallelism::Rayon(0),
        };
        let (k_stride, out_stride) = (k as isize, out as isize);
        let weight = layer.weight.as_ptr();
        // SAFETY: the shapes and strides are those of (rows, out), (rows, k) and of the transpose of (out, k).
        unsafe {
            gemm::gemm(
                rows, out, k, y, 1, out_stride, false, x, 1, k_stride, weight, k_stride, 1, 0.0, 1.0, false, false,
                false, threads,
            )
        }
        parallelism.for_each(rows, |row| {
            // SAFETY: the processor runs the portable level; each task writes a row of its own, which holds the sums.
            unsafe { Level::Portable.run(Finish { product: self, row }) }
        });
    }
}

/// A row whose sums stand in the place of the result: a task.
struct Finish<'a> {
    product: &'a Product<'a>,
    row: usize,
}

impl Kernel for Finish<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's contract.
        unsafe {
            let sums = self.product.y.add(self.row * self.product.out);
            self.product.finish_row::<S>(self.row, 0..self.product.out, sums);
        }
    }
}

/// How many neighbouring panels a thread takes at once: the more, the fewer times it reads all of x, as long as there are
/// tasks enough for all threads to end together.
fn panels_of_a_task(panels: usize, parallelism: Parallelism) -> usize {
    match parallelism.threads() {
        1 => MOST_PANELS,
        threads => (panels / (2 * threads)).clamp(1, MOST_PANELS),
    }
}

/// The packed rows of a product: for each block of k, all rows [`ROW_STRIDE`] apart.
struct Packed {
    lanes: *mut f32,
}

// SAFETY: tasks write disjoint rows, and read them only when all have been written.
unsafe impl Sync for Packed {}

/// Some rows of a product to be packed: a task.
struct Rows<'a> {
    product: &'a Product<'a>,
    packed: &'a Packed,
    rows: Range<usize>,
}

impl ProductKernel for Rows<'_> {
    #[inline(always)]
    unsafe fn run<F: Factors>(self) {
        let Product { rows, k, x, .. } = *self.product;
        for (i, block) in k_blocks(k.div_ceil(F::DEPTH)).enumerate() {
            let numbers = numbers::<F>(&block, k);
            // SAFETY: the rows and the block's numbers lie inside x, the rows of the block inside what is packed.
            unsafe {
                let from = x.add(self.rows.start * k + numbers.start);
                let to = self.packed.lanes.add((i * rows + self.rows.start) * ROW_STRIDE);
                pack_rows::<F>(self.rows.len(), numbers.len(), from, k, to);
            }
        }
    }
}

/// The numbers along k that the lanes `block` hold.
#[inline(always)]
fn numbers<F: Factors>(block: &Range<usize>, k: usize) -> Range<usize> {
    block.start * F::DEPTH..(block.end * F::DEPTH).min(k)
}

/// A few neighbouring panels of columns of a product: a task.
struct Panels<'a> {
    product: &'a Product<'a>,
    packed: &'a Packed,
    columns: Range<usize>,
}

impl ProductKernel for Panels<'_> {
    #[inline(always)]
    unsafe fn run<F: Factors>(self) {
        let panels = self.columns.len().div_ceil(2 * F::S::LANES);
        let mut task = Loan::for_task();
        let weights = task.panels.reserve(panels * PANEL_BLOCK);
        let sums = task.sums.reserve(self.product.rows * panels * 2 * F::S::LANES);
        let lanes = self.product.k.div_ceil(F::DEPTH);
        for (i, block) in k_blocks(lanes).enumerate() {
            // SAFETY: the caller's contract; the buffers have room for `panels` panels and all rows.
            unsafe {
                self.pack::<F>(&block, weights);
                self.multiply::<F>(i, &block, weights, sums);
                if block.end == lanes {
                    self.finish::<F>(sums);
                }
            }
        }
    }
}

impl Panels<'_> {
    /// Packs a block of the panels' weights.
    ///
    /// # Safety
    /// That of [`Panels`] as a kernel; `to` is valid for a [`PANEL_BLOCK`] a panel.
    #[inline(always)]
    unsafe fn pack<F: Factors>(&self, block: &Range<usize>, to: *mut f32) {
        let Product { k, layer, .. } = *self.product;
        let numbers = numbers::<F>(block, k);
        for (panel, first) in self.columns.clone().step_by(2 * F::S::LANES).enumerate() {
            let columns = (self.columns.end - first).min(2 * F::S::LANES);
            // SAFETY: the columns are rows of the weights, the block a range of their k.
            unsafe {
                let weight = layer.weight.as_ptr().add(first * k + numbers.start);
                pack_columns::<F>(columns, numbers.len(), weight, k, to.add(panel * PANEL_BLOCK));
            }
        }
    }

    /// Adds the products of block number `i` to the sums. A tile of x is multiplied by all panels before the next tile,
    /// which is fetched meanwhile, as is the next block of weights.
    ///
    /// # Safety
    /// That of [`Panels`] as a kernel; `weights` holds the block, and `sums` has room for all rows.
    #[inline(always)]
    unsafe fn multiply<F: Factors>(&self, i: usize, block: &Range<usize>, weights: *const f32, sums: *mut f32) {
        let rows = self.product.rows;
        let panels = self.columns.len().div_ceil(2 * F::S::LANES);
        let stride = panels * 2 * F::S::LANES;
        let tiles = row_tiles(rows, F::S::TILE_ROWS);
        let weights_ahead = self.next_block::<F>(block);
        let steps = tiles.len() * panels;
        for (t, tile_rows) in tiles.enumerate() {
            // SAFETY: block and rows lie inside the packed x; the tile's sums and panels inside the buffers.
            unsafe {
                let x = self.packed.lanes.cast_const().add((i * rows + tile_rows.start) * ROW_STRIDE);
                let sums = sums.add(tile_rows.start * stride);
                let next_rows = x.wrapping_add(tile_rows.len() * ROW_STRIDE);
                let rows_ahead = Ahead::new(next_rows, ROW_STRIDE, tile_rows.len(), block.len());
                for panel in 0..panels {
                    rows_ahead.prefetch::<F::S>(panel, panels);
                    weights_ahead.prefetch::<F::S>(t * panels + panel, steps);
                    let (weights, sums) = (weights.add(panel * PANEL_BLOCK), sums.add(panel * 2 * F::S::LANES));
                    tile::<F>(tile_rows.len(), x, weights, block.len(), sums, stride, i > 0);
                }
            }
        }
    }

    /// Takes the final sums to the result.
    ///
    /// # Safety
    /// That of [`Panels`] as a kernel; `sums` holds all rows.
    #[inline(always)]
    unsafe fn finish<F: Factors>(&self, sums: *const f32) {
        let stride = self.columns.len().next_multiple_of(2 * F::S::LANES);
        for row in 0..self.product.rows {
            // SAFETY: the row lies inside the result and the sums.
            unsafe { self.product.finish_row::<F::S>(row, self.columns.clone(), sums.add(row * stride)) }
        }
    }

    /// What is packed after `block`: the next block of k of these columns, or the first of the columns behind them,
    /// which this thread most likely takes next.
    #[inline(always)]
    fn next_block<F: Factors>(&self, block: &Range<usize>) -> Ahead {
        let Product { k, out, layer, .. } = *self.product;
        let numbers = numbers::<F>(block, k);
        let (first, start) = if numbers.end < k { (self.columns.start, numbers.end) } else { (self.columns.end, 0) };
        let from = layer.weight.as_ptr().wrapping_add(first * k + start);
        Ahead::new(from, k, self.columns.len().min(out - first), numbers.len())
    }
}

/// Some rows of memory that are needed next: fetched while others are multiplied, as the processor would not foresee
/// so many short ones.
struct Ahead {
    from: *const f32,
    stride: usize,
    rows: usize,
    /// Cache lines of a row.
    lines: usize,
}

impl Ahead {
    /// The first `length` floats of each row.
    #[inline(always)]
    fn new(from: *const f32, stride: usize, rows: usize, length: usize) -> Ahead {
        Ahead { from, stride, rows, lines: length.div_ceil(FLOATS_OF_LINE) }
    }

    /// Fetches the share of step `step` of `steps`.
    #[inline(always)]
    unsafe fn prefetch<S: Simd>(&self, step: usize, steps: usize) {
        for row in self.rows * step / steps..self.rows * (step + 1) / steps {
            for line in 0..self.lines {
                // SAFETY: a prefetch may be of any address.
                unsafe { S::prefetch(self.from.wrapping_add(row * self.stride + line * FLOATS_OF_LINE)) }
            }
        }
    }
}

impl Product<'_> {
    /// Takes the final sums of some columns of a row to the result.
    ///
    /// # Safety
    /// The processor has the features of `S`; row and columns lie inside the result; `sums` holds the columns' sums.
    #[inline(always)]
    unsafe fn finish_row<S: Simd>(&self, row: usize, columns: Range<usize>, sums: *const f32) {
        for column in columns.clone().step_by(S::LANES) {
            let n = (columns.end - column).min(S::LANES);
            // SAFETY: the caller's contract.
            unsafe {
                let sum = S::load_first(sums.add(column - columns.start), n);
                let bias = S::load_first(self.layer.bias.as_ptr().add(column), n);
                let mut v = self.layer.activation.apply::<S>(S::add(sum, bias));
                if let Some(residual) = self.residual {
                    v = S::add(v, S::load_first(residual.add(row * self.out + column), n));
                }
                S::store_first(self.y.add(row * self.out + column), v, n);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::factors::round_to_bf16;
    use super::super::reference::{self, assert_close, levels, Random};
    use super::*;

    /// Sums of float32 products in blocks: a few roundings of 6e-8 of the terms' magnitude.
    const TOLERANCE: f64 = 4e-7;

    const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

    /// What a product of that precision multiplies.
    fn factors(numbers: &[f32], precision: Precision) -> Vec<f32> {
        match precision {
            Precision::F32 => numbers.to_vec(),
            Precision::Bf16 => numbers.iter().map(|&x| round_to_bf16(x)).collect(),
        }
    }

    fn check(random: &mut Random, rows: usize, k: usize, out: usize, scale: f32) {
        let (x, weight) = (random.floats(rows * k, scale), random.floats(out * k, 1.0));
        let (bias, residual) = (random.floats(out, scale), random.floats(rows * out, scale));
        for precision in PRECISIONS {
            let (mut truth, mut size) = reference::linear(&factors(&x, precision), &factors(&weight, precision), &bias);
            for ((truth, size), &residual) in truth.iter_mut().zip(&mut size).zip(&residual) {
                *truth += f64::from(residual);
                *size += f64::from(residual).abs();
            }
            let layer = Linear { weight: &weight, bias: &bias, activation: Activation::Identity, precision };
            for level in levels() {
                let what = format!("{level}, {precision:?}, {rows} rows, {k} to {out}");
                let y = linear(level, Parallelism::Single, layer, &x, Some(&residual));
                assert_close(&y, &truth, &size, TOLERANCE, &what);
                assert_eq!(linear(level, Parallelism::Pool, layer, &x, Some(&residual)), y, "{what}, in parallel");
            }
        }
    }

    #[test]
    fn random_shapes_give_the_product() {
        let mut random = Random::new(1);
        for _ in 0..40 {
            let (rows, k, out) = (random.size(1, 70), random.size(1, 420), random.size(1, 150));
            check(&mut random, rows, k, out, 1.0);
        }
    }

    #[test]
    fn shapes_at_the_edges_give_the_product() {
        let mut random = Random::new(2);
        for (rows, k, out) in [
            (1, 1, 1),
            (1, 768, 4),
            (14, 192, 32),
            (15, 193, 33),
            (28, 384, 64),
            (512, 50, 20),
            (505, 16, 16),
            (6, 40, 129),
        ] {
            check(&mut random, rows, k, out, 1.0);
        }
    }

    #[test]
    fn large_and_denormal_values_give_the_product() {
        let mut random = Random::new(3);
        check(&mut random, 9, 100, 40, 1e30);
        // The products are denormal, below 2^-126; their sums stay exact to the last bit there is.
        let (x, weight, bias) = (random.floats(5 * 20, 1e-20), random.floats(7 * 20, 1e-20), vec![0.0; 7]);
        let (truth, _) = reference::linear(&x, &weight, &bias);
        let one_bit = vec![f64::from(f32::from_bits(1)); truth.len()];
        for level in levels() {
            let layer =
                Linear { weight: &weight, bias: &bias, activation: Activation::Identity, precision: Precision::F32 };
            let y = linear(level, Parallelism::Single, layer, &x, None);
            assert_close(&y, &truth, &one_bit, 20.0, &level.to_string());
        }
    }

    #[test]
    fn infinities_and_nan_stay_in_their_rows() {
        let mut random = Random::new(4);
        let (k, out) = (50, 37);
        let (weight, bias) = (random.floats(out * k, 1.0), random.floats(out, 1.0));
        let mut x = random.floats(17 * k, 1.0);
        for (level, precision) in levels().flat_map(|level| PRECISIONS.map(|precision| (level, precision))) {
            let layer = Linear { weight: &weight, bias: &bias, activation: Activation::Gelu, precision };
            let clean = linear(level, Parallelism::Single, layer, &x, None);
            x[3 * k + 5] = f32::NEG_INFINITY;
            x[16 * k + 49] = f32::NAN;
            let y = linear(level, Parallelism::Single, layer, &x, None);
            for row in 0..17 {
                let row_y = &y[row * out..(row + 1) * out];
                match row {
                    3 => assert!(row_y.iter().all(|y| !y.is_finite()), "{level}"),
                    16 => assert!(row_y.iter().all(|y| y.is_nan()), "{level}"),
                    _ => assert_eq!(row_y, &clean[row * out..(row + 1) * out], "{level}"),
                }
            }
            x[3 * k + 5] = 0.5;
            x[16 * k + 49] = 0.5;
        }
    }

    #[test]
    fn a_row_gives_the_same_bits_in_any_batch() {
        let mut random = Random::new(5);
        let (rows, k, out) = (61, 401, 70);
        let (x, weight, bias) = (random.floats(rows * k, 1.0), random.floats(out * k, 1.0), random.floats(out, 1.0));
        for (level, precision) in levels().flat_map(|level| PRECISIONS.map(|precision| (level, precision))) {
            if (level, precision) == (Level::Portable, Precision::F32) {
                // The gemm crate has several ways to sum, and takes its choice by the number of rows.
                continue;
            }
            let layer = Linear { weight: &weight, bias: &bias, activation: Activation::Gelu, precision };
            let batch = linear(level, Parallelism::Single, layer, &x, None);
            for (first, last) in [(0, 1), (60, 61), (3, 18), (7, 36)] {
                let part = linear(level, Parallelism::Single, layer, &x[first * k..last * k], None);
                assert_eq!(part, batch[first * out..last * out], "{level}, {precision:?}, rows {first} to {last}");
            }
        }
    }

    #[test]
    fn nothing_gives_nothing() {
        for level in levels() {
            let layer = Linear {
                weight: &[1.0; 6],
                bias: &[0.0; 2],
                activation: Activation::Identity,
                precision: Precision::F32,
            };
            assert!(linear(level, Parallelism::Pool, layer, &[], None).is_empty());
        }
    }
}
