//! NEON: 4 lanes, 32 registers. Products read one lane of a register of A, so four steps along K need one load per row
//! and no broadcasts: a broadcast from memory takes as long as a product. The loops over rows are over indices, because
//! the sums stay in registers only if all of a loop's body is inlined, and the adapters of iterators may not be.
#![allow(clippy::needless_range_loop, reason = "as above")]

use super::factors::Factors;
use super::product::{Tile, ROW_STRIDE};
use super::quantization::Grid;
use super::simd::Simd;
use super::Kernel;
use core::arch::aarch64::*;
use core::arch::asm;
use std::arch::is_aarch64_feature_detected;

#[derive(Clone, Copy)]
pub(super) struct Neon;

#[expect(unsafe_op_in_unsafe_fn, reason = "one instruction per method; the trait's contract is the instructions' own")]
impl Simd for Neon {
    const LANES: usize = 4;
    // Eight rows have 16 registers of sums and 8 of A; that leaves 8 for B.
    const TILE_ROWS: usize = 8;
    type V = float32x4_t;

    fn is_supported() -> bool {
        is_aarch64_feature_detected!("neon")
    }

    #[target_feature(enable = "neon")]
    unsafe fn run<K: Kernel>(kernel: K) {
        kernel.run::<Self>()
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> float32x4_t {
        vdupq_n_f32(x)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        vld1q_f32(from)
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> float32x4_t {
        let zero = vdupq_n_f32(0.0);
        match n {
            0 => zero,
            1 => vld1q_lane_f32::<0>(from, zero),
            2 => vcombine_f32(vld1_f32(from), vget_low_f32(zero)),
            3 => vld1q_lane_f32::<2>(from.add(2), vcombine_f32(vld1_f32(from), vget_low_f32(zero))),
            _ => vld1q_f32(from),
        }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: float32x4_t) {
        vst1q_f32(to, v)
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, v: float32x4_t, n: usize) {
        match n {
            0 => {}
            1 => vst1q_lane_f32::<0>(to, v),
            2 => vst1_f32(to, vget_low_f32(v)),
            3 => {
                vst1_f32(to, vget_low_f32(v));
                vst1q_lane_f32::<2>(to.add(2), v)
            }
            _ => vst1q_f32(to, v),
        }
    }

    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vaddq_f32(a, b)
    }

    #[inline(always)]
    unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vsubq_f32(a, b)
    }

    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vmulq_f32(a, b)
    }

    #[inline(always)]
    unsafe fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vdivq_f32(a, b)
    }

    #[inline(always)]
    unsafe fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        vfmaq_f32(c, a, b)
    }

    /// The instruction for it would return NaN if either is NaN.
    #[inline(always)]
    unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vbslq_f32(vcgtq_f32(a, b), a, b)
    }

    #[inline(always)]
    unsafe fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vbslq_f32(vcltq_f32(a, b), a, b)
    }

    #[inline(always)]
    unsafe fn select_less(a: float32x4_t, b: float32x4_t, then: float32x4_t, otherwise: float32x4_t) -> float32x4_t {
        vbslq_f32(vcltq_f32(a, b), then, otherwise)
    }

    #[inline(always)]
    unsafe fn round(v: float32x4_t) -> float32x4_t {
        vrndnq_f32(v)
    }

    #[inline(always)]
    unsafe fn exp2_integral(v: float32x4_t) -> float32x4_t {
        let biased = vaddq_s32(vcvtq_s32_f32(v), vdupq_n_s32(127));
        vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
    }

    #[inline(always)]
    unsafe fn reduce_add(v: float32x4_t) -> f32 {
        vaddvq_f32(v)
    }

    #[inline(always)]
    unsafe fn reduce_max(v: float32x4_t) -> f32 {
        vmaxvq_f32(v)
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        asm!("prfm pldl2keep, [{}]", in(reg) at, options(nostack, nomem, preserves_flags));
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        let (a, b) = (vld1q_f32(from), vld1q_f32(from.add(from_stride)));
        let from = from.add(2 * from_stride);
        let (c, d) = (vld1q_f32(from), vld1q_f32(from.add(from_stride)));
        let (ab_even, ab_odd) = (vtrn1q_f32(a, b), vtrn2q_f32(a, b));
        let (cd_even, cd_odd) = (vtrn1q_f32(c, d), vtrn2q_f32(c, d));
        vst1q_f32(to, lower_halves(ab_even, cd_even));
        vst1q_f32(to.add(to_stride), lower_halves(ab_odd, cd_odd));
        vst1q_f32(to.add(2 * to_stride), upper_halves(ab_even, cd_even));
        vst1q_f32(to.add(3 * to_stride), upper_halves(ab_odd, cd_odd));
    }

    #[inline(always)]
    unsafe fn broadcast<const LANE: i32>(v: float32x4_t) -> float32x4_t {
        vdupq_laneq_f32::<LANE>(v)
    }

    #[inline(always)]
    unsafe fn multiply_rows<F: Factors<S = Neon> + ?Sized, const ROWS: usize>(tile: Tile) {
        let Tile { a, b, k, c, c_stride, add, .. } = tile;
        for first in (0..k).step_by(F::CHAIN) {
            let end = (first + F::CHAIN).min(k);
            let whole = end - (end - first) % 4;
            let mut sums = [[vdupq_n_f32(0.0); 2]; ROWS];
            for step in (first..whole).step_by(4) {
                let mut x = [vdupq_n_f32(0.0); ROWS];
                for row in 0..ROWS {
                    x[row] = vld1q_f32(a.add(row * ROW_STRIDE + step));
                }
                multiply_lane::<F, 0, ROWS>(&x, b.add(step * 8), &mut sums);
                multiply_lane::<F, 1, ROWS>(&x, b.add(step * 8 + 8), &mut sums);
                multiply_lane::<F, 2, ROWS>(&x, b.add(step * 8 + 16), &mut sums);
                multiply_lane::<F, 3, ROWS>(&x, b.add(step * 8 + 24), &mut sums);
            }
            // A of attention may end within a register, and B there is not padded.
            for step in whole..end {
                let mut x = [vdupq_n_f32(0.0); ROWS];
                for row in 0..ROWS {
                    x[row] = vld1q_dup_f32(a.add(row * ROW_STRIDE + step));
                }
                multiply_lane::<F, 0, ROWS>(&x, b.add(step * 8), &mut sums);
            }
            store_sums::<F, ROWS>(&sums, c, c_stride, add || first > 0);
        }
    }
}

/// Adds the products of lane `LANE` of each row with a row of B to the sums.
#[inline(always)]
unsafe fn multiply_lane<F: Factors<S = Neon> + ?Sized, const LANE: i32, const ROWS: usize>(
    x: &[float32x4_t; ROWS],
    b: *const f32,
    sums: &mut [[float32x4_t; 2]; ROWS],
) {
    // SAFETY: the caller has the features of `F` and eight floats of B.
    unsafe {
        let (left, right) = (Neon::load(b), Neon::load(b.add(4)));
        for row in 0..ROWS {
            sums[row][0] = F::multiply_add_lane::<LANE>(x[row], left, sums[row][0]);
            sums[row][1] = F::multiply_add_lane::<LANE>(x[row], right, sums[row][1]);
        }
    }
}

/// Writes the sums of `ROWS` rows to C, or adds them to it.
///
/// # Safety
/// The processor has the features of `F`; `c` is valid for eight floats in each of the rows.
#[inline(always)]
pub(super) unsafe fn store_sums<F: Factors<S = Neon> + ?Sized, const ROWS: usize>(
    sums: &[[float32x4_t; 2]; ROWS],
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    for row in 0..ROWS {
        for half in 0..2 {
            // SAFETY: the caller's contract.
            unsafe {
                let (c, sum) = (c.add(row * c_stride + half * 4), sums[row][half]);
                Neon::store(c, if add { F::add(Neon::load(c), sum) } else { sum });
            }
        }
    }
}

/// The lower half of `a`, then that of `b`.
#[inline(always)]
pub(super) unsafe fn lower_halves(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: every processor of this architecture has NEON.
    unsafe { vreinterpretq_f32_f64(vzip1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b))) }
}

/// The upper half of `a`, then that of `b`.
#[inline(always)]
pub(super) unsafe fn upper_halves(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: every processor of this architecture has NEON.
    unsafe { vreinterpretq_f32_f64(vzip2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b))) }
}

/// Packs the grid points, minus `offset`, of the first `n` ≤ 16 numbers as bytes, four per lane, neighbours along k.
/// Lanes after the last number hold the grid point of 0.
///
/// # Safety
/// `from` is valid for `n` floats.
#[inline(always)]
pub(super) unsafe fn pack_bytes(from: *const f32, n: usize, grid: Grid, offset: f32) -> float32x4_t {
    // SAFETY: the caller's contract; each quarter reads its part of the `n` numbers.
    unsafe {
        let lower = vcombine_s16(four(from, n, 0, grid, offset), four(from, n, 4, grid, offset));
        let upper = vcombine_s16(four(from, n, 8, grid, offset), four(from, n, 12, grid, offset));
        // The lowest byte of an integer of either sign.
        vreinterpretq_f32_s8(vcombine_s8(vmovn_s16(lower), vmovn_s16(upper)))
    }
}

/// The grid points, minus `offset`, of four of `n` numbers, from number `first` on.
#[inline(always)]
unsafe fn four(from: *const f32, n: usize, first: usize, grid: Grid, offset: f32) -> int16x4_t {
    // SAFETY: the caller has `n` numbers.
    unsafe {
        let numbers = Neon::load_first(from.wrapping_add(first), n.saturating_sub(first).min(4));
        vmovn_s32(vcvtq_s32_f32(Neon::sub(grid.places::<Neon>(numbers), Neon::splat(offset))))
    }
}

/// The sum of two registers of integer sums.
#[inline(always)]
pub(super) unsafe fn add_integers(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: every processor of this architecture has NEON.
    unsafe { vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a), vreinterpretq_s32_f32(b))) }
}

/// [`Factors::without_zero`] of integer sums.
#[inline(always)]
pub(super) unsafe fn integers_without_zero(sums: float32x4_t, zero: f32, column_sums: float32x4_t) -> float32x4_t {
    // SAFETY: every processor of this architecture has NEON.
    unsafe {
        let column_sums = vcvtq_s32_f32(column_sums);
        vcvtq_f32_s32(vmlsq_s32(vreinterpretq_s32_f32(sums), vdupq_n_s32(zero as i32), column_sums))
    }
}
