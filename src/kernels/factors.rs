//! What a product multiplies: float32 numbers, bf16 numbers that they are rounded to or split into, or eight-bit
//! integers.

use super::linear::MOST_PANELS;
use super::peak;
use super::product::{self, Meanwhile, Tile, K_BLOCK, MAX_LANES, SHORT_CHAIN};
use super::quantization::Grid;
use super::simd::Simd;
use super::{Kernel, Level, ProductKernel};
use core::marker::PhantomData;
use half::bf16;
use std::fmt;

/// The arithmetic of a linear layer's product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Float32 factors.
    F32,
    /// Each factor is the sum of two bf16 numbers, a high and a low part. The products of two low parts, the smallest,
    /// are left out. Sums are float32.
    Bf16x3,
    /// Factors rounded to the nearest bf16 number, ties to even. Sums are float32.
    Bf16,
    /// Eight-bit integers on a grid: one per output for the weights, one per row for x. Sums are 32-bit integers.
    Int8,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Precision::F32 => "f32",
            Precision::Bf16x3 => "bf16x3",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        })
    }
}

impl Precision {
    /// All precisions, the most exact first.
    pub const ALL: [Precision; 4] = [Precision::F32, Precision::Bf16x3, Precision::Bf16, Precision::Int8];

    /// Whether the level has instructions for it. Other levels do the same arithmetic on float32 numbers, no faster.
    pub fn is_native_on(self, level: Level) -> bool {
        level.arithmetic(self).is_native
    }

    /// The fastest precision on a level whose logits agree with float32 to four decimal places.
    pub fn exact_on(level: Level) -> Precision {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Amx => Precision::Bf16x3,
            _ => Precision::F32,
        }
    }
}

/// How the factors of a product are packed into the lanes of a register, and how such registers are multiplied.
///
/// A packed lane is 32 bits wide and moved as a float32, regardless of what it holds. So is a sum.
///
/// # Safety
/// As for [`Simd`], with the features of this type.
pub(super) trait Factors {
    type S: Simd;
    /// Numbers along k per lane.
    const DEPTH: usize = 1;
    /// Parts per number, each packed into its own lanes.
    const PLANES: usize = 1;
    /// Lanes whose products are added up in a register before their sum is added to the rest.
    const CHAIN: usize = SHORT_CHAIN;
    /// Rows of a tile of the product.
    const TILE_ROWS: usize = Self::S::TILE_ROWS;
    /// Rows are always read and written in multiples of this.
    const ROW_GRANULE: usize = 1;
    /// The longest block of K, in lanes.
    const K_BLOCK: usize = K_BLOCK;
    /// Distance between the rows of a packed block of A, in floats: an odd number of cache lines.
    const ROW_STRIDE: usize = product::row_stride(Self::K_BLOCK);
    /// Distance from the lanes of the first parts to those of the second in a row of a packed block of A.
    const PLANE_STRIDE: usize = Self::K_BLOCK / 2;
    /// Panels of B that a tile of A is multiplied with before the next tile, and all tiles before the next panels.
    const PANELS_OF_A_PASS: usize = MOST_PANELS;
    /// Rows that go through a layer together: few, so that states stay in a cache, but the fewer they are, the more often
    /// weights are read again. The weights of a layer of BERT-base, 7 MB as eight-bit integers, come from the third-level
    /// cache at 5 GB/s for 96 rows.
    const ROWS_OF_LAYER: usize = if Self::ON_GRID { 96 } else { 384 };
    /// Whether products leave the vector registers time to do something else [`Meanwhile`].
    const LEAVES_TIME: bool = false;
    /// Whether a packed lane is the number itself.
    const AS_STORED: bool = false;
    /// Whether a number is packed as a point on a [`Grid`], so sums are sums of grid points.
    const ON_GRID: bool = false;
    /// Whether the instruction set multiplies such factors; otherwise they are multiplied as float32 numbers.
    const IS_NATIVE: bool = true;

    /// Whether the processor has the features of this type.
    fn is_supported() -> bool {
        Self::S::is_supported()
    }

    /// Runs `kernel` with these factors: every implementation that needs more features than its registers enables them
    /// for this function.
    ///
    /// # Safety
    /// As for the trait, and the kernel's own contract.
    unsafe fn run<K: ProductKernel>(kernel: K)
    where
        Self: Sized,
    {
        // SAFETY: the caller's contract.
        unsafe { Self::S::run(With::<Self, K>::new(kernel)) }
    }

    /// Adds the products of the lanes to `sums`.
    unsafe fn multiply_add(
        a: <Self::S as Simd>::V,
        b: <Self::S as Simd>::V,
        sums: <Self::S as Simd>::V,
    ) -> <Self::S as Simd>::V;

    /// [`Factors::multiply_add`] with lane `LANE` of `a` in every lane, for instructions that read a single lane.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn multiply_add_lane<const LANE: i32>(
        a: <Self::S as Simd>::V,
        b: <Self::S as Simd>::V,
        sums: <Self::S as Simd>::V,
    ) -> <Self::S as Simd>::V {
        // SAFETY: the caller's contract.
        unsafe { Self::multiply_add(Self::S::broadcast::<LANE>(a), b, sums) }
    }

    /// The sum of two sums.
    #[inline(always)]
    unsafe fn add(a: <Self::S as Simd>::V, b: <Self::S as Simd>::V) -> <Self::S as Simd>::V {
        // SAFETY: the caller's contract.
        unsafe { Self::S::add(a, b) }
    }

    /// Packs part `plane` of the first `n` numbers, n ≤ LANES · DEPTH, into a register; the rest is zero.
    unsafe fn pack(from: *const f32, n: usize, plane: usize, grid: Grid) -> <Self::S as Simd>::V;

    /// Writes the columns of a square of packed lanes, one row per column of B, in the order that the product reads: that
    /// of [`Simd::transpose`].
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller's contract.
        unsafe { Self::S::transpose(from, from_stride, to, to_stride) }
    }

    /// Turns sums of grid points into sums of numbers: `zero` is the left factor's grid point of 0, `column_sums` are
    /// the sums of the right factor's grid points. Only called if [`Factors::ON_GRID`].
    #[inline(always)]
    unsafe fn without_zero(
        sums: <Self::S as Simd>::V,
        zero: f32,
        column_sums: <Self::S as Simd>::V,
    ) -> <Self::S as Simd>::V {
        // SAFETY: the caller's contract.
        unsafe { Self::S::sub(sums, Self::S::mul(Self::S::splat(zero), column_sums)) }
    }

    /// Prepares the thread for multiplying tiles; [`Factors::end`] undoes it.
    #[inline(always)]
    unsafe fn begin() {}

    /// Undoes [`Factors::begin`].
    #[inline(always)]
    unsafe fn end() {}

    /// Multiplies and adds registers without touching memory, and returns the number of operations.
    #[inline(always)]
    unsafe fn saturate(rounds: usize) -> usize {
        // SAFETY: the caller's contract.
        unsafe { peak::of_registers::<Self>(rounds) }
    }

    /// Multiplies all parts of the factors: the second parts lie [`Factors::PLANE_STRIDE`] after the first in A and
    /// `b_plane` in B. Does all of `meanwhile` before it writes to C if [`Factors::LEAVES_TIME`], nothing of it otherwise.
    ///
    /// # Safety
    /// As for [`product::multiply_tile`] for every part; A has rows and C has room up to the next multiple of
    /// [`Factors::ROW_GRANULE`].
    #[inline(always)]
    unsafe fn multiply_tile<M: Meanwhile>(tile: Tile, b_plane: usize, _meanwhile: &mut M) {
        // SAFETY: the caller's contract.
        unsafe {
            if Self::PLANES == 2 {
                Self::multiply_part(Tile { a: tile.a.add(Self::PLANE_STRIDE), ..tile });
                Self::multiply_part(Tile { b: tile.b.add(b_plane), add: true, ..tile });
            }
            Self::multiply_part(Tile { add: tile.add || Self::PLANES == 2, ..tile });
        }
    }

    /// Multiplies one part of the factors.
    ///
    /// # Safety
    /// As for [`Factors::multiply_tile`].
    #[inline(always)]
    unsafe fn multiply_part(tile: Tile) {
        // SAFETY: the caller's contract.
        unsafe { product::multiply_tile::<Self>(tile) }
    }
}

/// A kernel with its factors, to run where the features of others, which include theirs, are enabled.
pub(super) struct With<F, K>(K, PhantomData<F>);

impl<F, K> With<F, K> {
    pub(super) fn new(kernel: K) -> With<F, K> {
        With(kernel, PhantomData)
    }
}

impl<F: Factors, K: ProductKernel> Kernel for With<F, K> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's contract.
        unsafe { self.0.run::<F>() }
    }
}

impl<F: Factors, K: ProductKernel> ProductKernel for With<F, K> {
    #[inline(always)]
    unsafe fn run<Others: Factors>(self) {
        // SAFETY: the caller's contract.
        unsafe { self.0.run::<F>() }
    }
}

/// Float32 factors.
pub(super) struct Whole<S>(PhantomData<S>);

#[expect(unsafe_op_in_unsafe_fn, reason = "the trait's contract is the calls' own")]
impl<S: Simd> Factors for Whole<S> {
    type S = S;
    const AS_STORED: bool = true;

    #[inline(always)]
    unsafe fn multiply_add(a: S::V, b: S::V, sums: S::V) -> S::V {
        S::mul_add(a, b, sums)
    }

    #[inline(always)]
    unsafe fn pack(from: *const f32, n: usize, _plane: usize, _grid: Grid) -> S::V {
        S::load_first(from, n)
    }
}

/// Factors rounded to one bf16 number or split into two, stored as float32, for processors that cannot multiply bf16:
/// the same factors, no faster than float32.
pub(super) struct Rounded<S, const PLANES: usize>(PhantomData<S>);

#[expect(unsafe_op_in_unsafe_fn, reason = "the trait's contract is the calls' own")]
impl<S: Simd, const PLANES: usize> Factors for Rounded<S, PLANES> {
    type S = S;
    const PLANES: usize = PLANES;
    const CHAIN: usize = if PLANES == 1 { K_BLOCK } else { SHORT_CHAIN };
    const IS_NATIVE: bool = false;

    #[inline(always)]
    unsafe fn multiply_add(a: S::V, b: S::V, sums: S::V) -> S::V {
        S::mul_add(a, b, sums)
    }

    #[inline(always)]
    unsafe fn pack(from: *const f32, n: usize, plane: usize, _grid: Grid) -> S::V {
        map::<S>(from, n, |x| {
            let high = round_to_bf16(x);
            if plane == 0 {
                high
            } else {
                round_to_bf16(x - high)
            }
        })
    }
}

/// Grid points stored as float32, for processors that cannot multiply eight-bit integers: the same points, no faster
/// than float32. Sums beyond 2^24 are rounded.
pub(super) struct Placed<S>(PhantomData<S>);

#[expect(unsafe_op_in_unsafe_fn, reason = "the trait's contract is the calls' own")]
impl<S: Simd> Factors for Placed<S> {
    type S = S;
    const CHAIN: usize = K_BLOCK;
    const ON_GRID: bool = true;
    const IS_NATIVE: bool = false;

    #[inline(always)]
    unsafe fn multiply_add(a: S::V, b: S::V, sums: S::V) -> S::V {
        S::mul_add(a, b, sums)
    }

    #[inline(always)]
    unsafe fn pack(from: *const f32, n: usize, _plane: usize, grid: Grid) -> S::V {
        // The zeros after the numbers meet zeros in the other factor.
        grid.places::<S>(S::load_first(from, n))
    }
}

/// Loads the first `n` numbers into a register, each passed through `f`.
#[inline(always)]
unsafe fn map<S: Simd>(from: *const f32, n: usize, f: impl Fn(f32) -> f32) -> S::V {
    let mut lanes = [0f32; MAX_LANES];
    // SAFETY: the caller's contract; the array has at least as many lanes as a register.
    unsafe {
        S::store(lanes.as_mut_ptr(), S::load_first(from, n));
        for lane in &mut lanes {
            *lane = f(*lane);
        }
        S::load(lanes.as_ptr())
    }
}

/// The nearest bf16 number, ties to even.
#[inline(always)]
pub(super) fn round_to_bf16(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_to_the_nearest_bf16() {
        for (x, rounded) in [
            (0x3f80_0000, 0x3f80_0000),
            (0x3f80_7fff, 0x3f80_0000),
            (0x3f80_8000, 0x3f80_0000),
            (0x3f80_8001, 0x3f81_0000),
            (0x3f81_8000, 0x3f82_0000),
            (0xbf81_8000, 0xbf82_0000),
            (0x7f7f_ffff, 0x7f80_0000),
            (0xff80_0000, 0xff80_0000),
            (0x7fff_ffff, 0x7fff_0000),
            (0x7f80_0001, 0x7fc0_0000),
            (0x8000_0000, 0x8000_0000),
        ] {
            assert_eq!(round_to_bf16(f32::from_bits(x)).to_bits(), rounded, "{x:x}");
        }
    }
}
