//! The matrix products of Armv8.6: instructions that multiply a square of two rows and two lanes of A with two lanes and
//! two columns of B, twice the products of a dot product's instruction. They are written in assembly because their
//! intrinsics are not stable.
//!
//! A square is a register: two lanes of one row or column, then two lanes of the next. B is packed in squares; the rows
//! of A are packed as for the other levels, and made into squares as they are loaded: 1 instruction for 4 products.
#![allow(clippy::needless_range_loop, reason = "as in `neon`")]

use super::factors::Factors;
use super::neon::{add_integers, integers_without_zero, lower_halves, pack_bytes, store_sums, upper_halves, Neon};
use super::peak;
use super::product::{Tile, K_BLOCK, ROW_STRIDE, SHORT_CHAIN};
use super::quantization::Grid;
use super::simd::Simd;
use super::ProductKernel;
use core::arch::aarch64::*;
use core::arch::asm;
use std::arch::is_aarch64_feature_detected;

/// Four grid points per lane, neighbours along k, the first in the lowest byte: unsigned in the left factor, signed in
/// the right one. Sums are 32-bit integers.
pub(super) struct Quads;

/// Two bf16 numbers per lane, neighbours along k, the first in the lower half: rounded, or split into two parts. The
/// instructions treat denormals as zero and round sums to odd.
pub(super) struct Pairs<const PLANES: usize>;

/// What both kinds of factors have in common.
macro_rules! squares {
    ($feature:tt, $multiply_add:ident) => {
        const ROW_GRANULE: usize = 2;

        fn is_supported() -> bool {
            is_aarch64_feature_detected!($feature) && Neon::is_supported()
        }

        /// Of squares.
        #[inline(always)]
        unsafe fn multiply_add(a: float32x4_t, b: float32x4_t, sums: float32x4_t) -> float32x4_t {
            $multiply_add(a, b, sums)
        }

        #[inline(always)]
        unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
            to_squares(from, from_stride, to, to_stride)
        }

        #[inline(always)]
        unsafe fn multiply_part(tile: Tile) {
            match tile.rows.div_ceil(2) {
                1 => multiply_squares::<Self, 1>(tile),
                2 => multiply_squares::<Self, 2>(tile),
                3 => multiply_squares::<Self, 3>(tile),
                _ => multiply_squares::<Self, 4>(tile),
            }
        }

        #[inline(always)]
        unsafe fn saturate(rounds: usize) -> usize {
            // Four sums of two lanes each, rather than of one.
            2 * peak::of_registers::<Self>(rounds)
        }
    };
}

#[expect(unsafe_op_in_unsafe_fn, reason = "the trait's contract is the instructions' own")]
impl Factors for Quads {
    type S = Neon;
    const DEPTH: usize = 4;
    // Integer addition is exact.
    const CHAIN: usize = K_BLOCK;
    const ON_GRID: bool = true;

    squares!("i8mm", usmmla);

    #[target_feature(enable = "i8mm,neon")]
    unsafe fn run<K: ProductKernel>(kernel: K) {
        kernel.run::<Self>()
    }

    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        add_integers(a, b)
    }

    #[inline(always)]
    unsafe fn pack(from: *const f32, n: usize, _plane: usize, grid: Grid) -> float32x4_t {
        pack_bytes(from, n, grid, 0.0)
    }

    #[inline(always)]
    unsafe fn without_zero(sums: float32x4_t, zero: f32, column_sums: float32x4_t) -> float32x4_t {
        integers_without_zero(sums, zero, column_sums)
    }
}

#[expect(unsafe_op_in_unsafe_fn, reason = "the trait's contract is the instructions' own")]
impl<const PLANES: usize> Factors for Pairs<PLANES> {
    type S = Neon;
    const DEPTH: usize = 2;
    const PLANES: usize = PLANES;
    // Compared to the error of a single part, the rounding of sums does not matter.
    const CHAIN: usize = if PLANES == 1 { K_BLOCK } else { SHORT_CHAIN };

    squares!("bf16", bfmmla);

    #[target_feature(enable = "bf16,neon")]
    unsafe fn run<K: ProductKernel>(kernel: K) {
        kernel.run::<Self>()
    }

    #[inline(always)]
    unsafe fn pack(from: *const f32, n: usize, plane: usize, _grid: Grid) -> float32x4_t {
        let first = Neon::load_first(from, n.min(4));
        let second = Neon::load_first(from.wrapping_add(4), n.saturating_sub(4));
        let high = round_to_bf16(first, second);
        match plane {
            0 => high,
            _ => {
                // What rounding removes, exactly.
                let high = vreinterpretq_u16_f32(high);
                let first_high = vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(high)));
                let second_high = vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_high_u16(high)));
                round_to_bf16(vsubq_f32(first, first_high), vsubq_f32(second, second_high))
            }
        }
    }
}

/// Writes four columns of B, four lanes of each, as squares of two lanes and two columns: the first two lanes of columns
/// 0 and 1, then of 2 and 3, then the other two lanes. [`multiply_squares`] meets them in the order of memory.
///
/// # Safety
/// As for [`Simd::transpose`].
#[inline(always)]
unsafe fn to_squares(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        let column = |i: usize| Neon::load(from.add(i * from_stride));
        let (a, b, c, d) = (column(0), column(1), column(2), column(3));
        Neon::store(to, lower_halves(a, b));
        Neon::store(to.add(to_stride), lower_halves(c, d));
        Neon::store(to.add(2 * to_stride), upper_halves(a, b));
        Neon::store(to.add(3 * to_stride), upper_halves(c, d));
    }
}

/// Multiplies `PAIRS` pairs of rows, whose sums stay in registers over a chain.
///
/// # Safety
/// As for [`Factors::multiply_tile`]; A and B are padded with zeros to whole registers of lanes.
#[inline(always)]
unsafe fn multiply_squares<F: Factors<S = Neon>, const PAIRS: usize>(tile: Tile) {
    let Tile { a, b, k, c, c_stride, add, .. } = tile;
    // SAFETY: the caller's contract covers every row of the pairs and every step below `k`, rounded up to four.
    unsafe {
        for first in (0..k).step_by(F::CHAIN) {
            // Squares of columns 0 and 1, 4 and 5, 2 and 3, 6 and 7: the halves of a panel are packed one by one.
            let mut sums = [[vdupq_n_f32(0.0); 4]; PAIRS];
            for step in (first..(first + F::CHAIN).min(k)).step_by(4) {
                let mut x = [[vdupq_n_f32(0.0); 2]; PAIRS];
                for pair in 0..PAIRS {
                    let a = a.add(2 * pair * ROW_STRIDE + step);
                    let (upper, lower) = (Neon::load(a), Neon::load(a.add(ROW_STRIDE)));
                    x[pair] = [lower_halves(upper, lower), upper_halves(upper, lower)];
                }
                for lanes in 0..2 {
                    for columns in 0..4 {
                        let b = Neon::load(b.add((step + 2 * lanes) * 8 + columns * 4));
                        for pair in 0..PAIRS {
                            sums[pair][columns] = F::multiply_add(x[pair][lanes], b, sums[pair][columns]);
                        }
                    }
                }
            }
            for pair in 0..PAIRS {
                let [s01, s45, s23, s67] = sums[pair];
                let rows = [
                    [lower_halves(s01, s23), lower_halves(s45, s67)],
                    [upper_halves(s01, s23), upper_halves(s45, s67)],
                ];
                store_sums::<F, 2>(&rows, c.add(2 * pair * c_stride), c_stride, add || first > 0);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "i8mm,neon")]
unsafe fn usmmla(a: float32x4_t, b: float32x4_t, mut sums: float32x4_t) -> float32x4_t {
    // SAFETY: it only uses registers, and the caller has the instruction.
    unsafe {
        asm!("usmmla {sums:v}.4s, {a:v}.16b, {b:v}.16b", sums = inout(vreg) sums, a = in(vreg) a, b = in(vreg) b,
             options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

#[inline]
#[target_feature(enable = "bf16,neon")]
unsafe fn bfmmla(a: float32x4_t, b: float32x4_t, mut sums: float32x4_t) -> float32x4_t {
    // SAFETY: as above.
    unsafe {
        asm!("bfmmla {sums:v}.4s, {a:v}.8h, {b:v}.8h", sums = inout(vreg) sums, a = in(vreg) a, b = in(vreg) b,
             options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// Eight numbers rounded to the nearest bf16 number, ties to even.
#[inline]
#[target_feature(enable = "bf16,neon")]
unsafe fn round_to_bf16(first: float32x4_t, second: float32x4_t) -> float32x4_t {
    let rounded: float32x4_t;
    // SAFETY: as above.
    unsafe {
        asm!("bfcvtn {rounded:v}.4h, {first:v}.4s", "bfcvtn2 {rounded:v}.8h, {second:v}.4s",
             rounded = out(vreg) rounded, first = in(vreg) first, second = in(vreg) second,
             options(pure, nomem, nostack, preserves_flags));
    }
    rounded
}
