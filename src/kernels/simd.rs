//! One register of float32 lanes: the kernels are written in terms of it, so one source serves every instruction set.

use super::factors::Factors;
use super::product::{self, Tile};
use super::Kernel;

/// A vector register of an instruction set and its operations.
///
/// Every method is inlined into a function that has the instruction set's features enabled ([`Simd::run`], [`Factors::run`]); trait
/// methods cannot enable features themselves. For the same reason everything generic over `Simd` is
/// `#[inline(always)]`: a body outside such a function would be compiled without the features.
///
/// # Safety
/// Calling any method needs a processor with the instruction set's features. Pointers must be valid for the lanes that
/// are read or written; alignment does not matter.
pub(super) trait Simd: Copy {
    /// Lanes per register.
    const LANES: usize;
    /// Rows of a matrix product's register tile, each two registers wide. Together with two registers of the other
    /// operand and one broadcast, they fit the register file.
    const TILE_ROWS: usize;
    /// A register.
    type V: Copy;

    /// Whether the processor has the instruction set's features.
    fn is_supported() -> bool;

    /// Runs `kernel` with this instruction set: every implementation that needs features enables them for this function.
    ///
    /// # Safety
    /// As for the trait, and the kernel's own contract.
    unsafe fn run<K: Kernel>(kernel: K);

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    /// Loads the first `n` lanes (n ≤ LANES). The others are zero and not read.
    unsafe fn load_first(from: *const f32, n: usize) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    /// Stores the first `n` lanes (n ≤ LANES); memory after them is untouched.
    unsafe fn store_first(to: *mut f32, v: Self::V, n: usize);

    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// a · b + c, rounded once if the instruction set can.
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` if either is NaN. Clamps keep a NaN by passing it second.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` if either is NaN.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// `then` if a < b, otherwise `otherwise`, including if either is NaN.
    unsafe fn select_less(a: Self::V, b: Self::V, then: Self::V, otherwise: Self::V) -> Self::V;
    /// The nearest integer, ties to even; |v| < 2^22.
    unsafe fn round(v: Self::V) -> Self::V;
    /// 2^v for integral v from -126 to 128; 2^128 is infinity.
    unsafe fn exp2_integral(v: Self::V) -> Self::V;

    /// The sum of the lanes.
    unsafe fn reduce_add(v: Self::V) -> f32;
    /// The largest lane.
    unsafe fn reduce_max(v: Self::V) -> f32;

    /// Prefetches the cache line at an address into the second-level cache; any address will do.
    unsafe fn prefetch(at: *const f32);

    /// Writes a LANES x LANES block's columns as rows: `to[c * to_stride + r] = from[r * from_stride + c]`.
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize);

    /// A register with lane `LANE` of `v` in every lane.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn broadcast<const LANE: i32>(v: Self::V) -> Self::V {
        let mut lanes = [0f32; product::MAX_LANES];
        // SAFETY: the caller's contract; the array has at least as many lanes as a register.
        unsafe {
            Self::store(lanes.as_mut_ptr(), v);
            Self::splat(lanes[LANE as usize])
        }
    }

    /// [`product::multiply_tile`] for a tile of `ROWS` rows.
    ///
    /// # Safety
    /// As for that function.
    #[inline(always)]
    unsafe fn multiply_rows<F: Factors<S = Self> + ?Sized, const ROWS: usize>(tile: Tile) {
        // SAFETY: the caller's contract.
        unsafe { product::multiply_rows::<F, ROWS>(tile) }
    }
}
