//! Numbers as points on a grid of 256, and back: the operands of eight-bit products.
//!
//! x is close to (place - zero) · step. The grid of a row of activations spans its minimum to its maximum and has a
//! point at 0, so no points are spent on values that do not occur (GELU returns hardly anything below 0): points 0 to
//! 255. The grid of an output's weights is symmetric about 0: points -127 to 127. This is the dynamic quantization of
//! ONNX Runtime and PyTorch, with one grid per row and per output.

use super::simd::Simd;

/// The grid of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    /// Distance between points. NaN if the row has a number that is not finite.
    pub(super) step: f32,
    /// The point of 0.
    pub(super) zero: f32,
    /// 1 / step.
    inverse: f32,
    /// The first point.
    first: f32,
    /// The last point.
    last: f32,
}

/// Below this, a step's inverse would overflow float32; also the step if all numbers are 0.
const LEAST_STEP: f32 = 1e-37;

impl Grid {
    /// For factors without grids.
    pub(super) const NONE: Grid = Grid { step: 1.0, zero: 0.0, inverse: 1.0, first: 0.0, last: 255.0 };

    /// The grid of a row of activations: points 0 to 255.
    ///
    /// # Safety
    /// The processor has the features of `S`; `row` is valid for `n` floats.
    #[inline(always)]
    pub(super) unsafe fn of_activations<S: Simd>(row: *const f32, n: usize) -> Grid {
        // SAFETY: the caller's contract.
        let (least, largest, poison) = unsafe { range::<S>(row, n) };
        // Divide first: the difference of two large numbers may overflow.
        let step = (largest / 255.0 - least / 255.0).max(LEAST_STEP);
        let inverse = 1.0 / step;
        let zero = (-least * inverse).round_ties_even().clamp(0.0, 255.0);
        Grid { step: step + poison, zero, inverse, first: 0.0, last: 255.0 }
    }

    /// The grid of one output's weights: points -127 to 127.
    ///
    /// # Safety
    /// The processor has the features of `S`; `row` is valid for `n` floats.
    #[inline(always)]
    pub(super) unsafe fn of_weights<S: Simd>(row: *const f32, n: usize) -> Grid {
        // SAFETY: the caller's contract.
        let (least, largest, poison) = unsafe { range::<S>(row, n) };
        let step = (largest.max(-least) / 127.0).max(LEAST_STEP);
        Grid { step: step + poison, zero: 0.0, inverse: 1.0 / step, first: -127.0, last: 127.0 }
    }

    /// Whether this is a grid of activations.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    pub(super) fn is_of_activations(self) -> bool {
        self.first == 0.0
    }

    /// The grid points, as integers, of a register of numbers: two roundings on every level, so all levels agree.
    ///
    /// # Safety
    /// The processor has the features of `S`.
    #[inline(always)]
    pub(super) unsafe fn places<S: Simd>(self, numbers: S::V) -> S::V {
        // SAFETY: the caller's contract.
        unsafe {
            let places = S::add(S::mul(numbers, S::splat(self.inverse)), S::splat(self.zero));
            // A NaN takes the last point: its grid's step is NaN, and so is every product.
            S::round(S::max(S::splat(self.first), S::min(places, S::splat(self.last))))
        }
    }

    /// The sum of a row's grid points. Exact below 2^24, which holds for rows of up to 130,000 weights.
    ///
    /// # Safety
    /// The processor has the features of `S`; `row` is valid for `n` floats.
    #[inline(always)]
    pub(super) unsafe fn sum<S: Simd>(self, row: *const f32, n: usize) -> f32 {
        // SAFETY: the caller's contract. Lanes after the last number are zero, whose point is 0 on a grid of weights.
        unsafe {
            let mut sum = S::splat(0.0);
            for first in (0..n).step_by(S::LANES) {
                let numbers = S::load_first(row.add(first), (n - first).min(S::LANES));
                sum = S::add(sum, self.places::<S>(numbers));
            }
            S::reduce_add(sum)
        }
    }
}

/// The minimum, 0 or below; the maximum, 0 or above; and 0, or NaN if a number is not finite. Registers alternate between
/// two chains, as each operation takes several cycles.
#[inline(always)]
unsafe fn range<S: Simd>(row: *const f32, n: usize) -> (f32, f32, f32) {
    // SAFETY: the caller's contract.
    unsafe {
        let zero = S::splat(0.0);
        let (mut least, mut largest, mut poison) = ([zero; 2], [zero; 2], [zero; 2]);
        for first in (0..n).step_by(2 * S::LANES) {
            for chain in 0..2 {
                let start = first + chain * S::LANES;
                let numbers = S::load_first(row.wrapping_add(start), n.saturating_sub(start).min(S::LANES));
                least[chain] = S::min(numbers, least[chain]);
                largest[chain] = S::max(numbers, largest[chain]);
                poison[chain] = S::mul_add(numbers, zero, poison[chain]);
            }
        }
        let least = S::sub(zero, S::min(least[0], least[1]));
        let (largest, poison) = (S::max(largest[0], largest[1]), S::add(poison[0], poison[1]));
        (-S::reduce_max(least), S::reduce_max(largest), S::reduce_add(poison))
    }
}

#[cfg(test)]
mod tests {
    use super::super::portable::Portable;
    use super::super::reference::Random;
    use super::*;

    fn places(grid: Grid, numbers: &[f32]) -> Vec<f32> {
        // SAFETY: `Portable` needs no feature.
        let register = |&x: &f32| unsafe { grid.places::<Portable>(Portable::splat(x)) };
        numbers.iter().map(|x| register(x)[0]).collect()
    }

    #[test]
    fn every_number_is_within_half_a_step_of_its_place() {
        let mut random = Random::new(1);
        for (shift, scale) in [(0.0, 1.0), (0.9, 1.0), (-5.0, 0.1), (3.0, 1e-30), (-0.17, 1e30)] {
            let mut numbers = random.floats(301, scale);
            numbers.iter_mut().for_each(|x| *x += shift * scale);
            // SAFETY: `Portable` needs no feature; the pointers come from the numbers.
            let grids = unsafe {
                let (row, n) = (numbers.as_ptr(), numbers.len());
                [Grid::of_activations::<Portable>(row, n), Grid::of_weights::<Portable>(row, n)]
            };
            for (grid, span) in grids.into_iter().zip([0.0..=255.0, -127.0..=127.0]) {
                for (x, place) in numbers.iter().zip(places(grid, &numbers)) {
                    assert!(span.contains(&place) && place.fract() == 0.0, "{x} is at {place} of {grid:?}");
                    let back = (place - grid.zero) * grid.step;
                    assert!((back - x).abs() <= 0.51 * grid.step, "{x} is at {place} of {grid:?}, which is {back}");
                }
                assert_eq!(places(grid, &[0.0]), [grid.zero], "0 is on the grid");
            }
        }
    }

    #[test]
    fn zeros_have_a_grid_and_a_number_that_is_not_finite_makes_its_own_nan() {
        for (numbers, is_sound) in [
            (&[0.0; 9][..], true),
            (&[1e-45, -1e-45], true),
            (&[f32::MAX, f32::MIN], true),
            (&[1.0, f32::NAN, 2.0], false),
            (&[f32::INFINITY], false),
            (&[0.0, f32::NEG_INFINITY], false),
        ] {
            // SAFETY: as above.
            let grids = unsafe {
                let (row, n) = (numbers.as_ptr(), numbers.len());
                [Grid::of_activations::<Portable>(row, n), Grid::of_weights::<Portable>(row, n)]
            };
            for grid in grids {
                assert_eq!(grid.step.is_finite(), is_sound, "{numbers:?}: {grid:?}");
                assert!(places(grid, numbers).iter().all(|place| (-127.0..=255.0).contains(place)), "{numbers:?}");
            }
        }
    }
}
