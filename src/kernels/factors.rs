//! What a product multiplies: float32 numbers as they are, or rounded to bf16. Sums are float32 always.

use super::product::MAX_LANES;
use super::simd::Simd;
use core::marker::PhantomData;

/// The arithmetic of a linear layer's product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Float32 factors.
    F32,
    /// Factors rounded to bf16, to the nearest, ties to even; the products are added up in float32.
    Bf16,
}

/// How the factors of a product stand in the lanes of a register, and how registers of them are multiplied.
///
/// A packed lane is 32 bits wide and is moved about as a float32, whatever it holds.
///
/// # Safety
/// As for [`Simd`], with the features of this type.
pub(super) trait Factors {
    type S: Simd;
    /// Numbers along k in one lane.
    const DEPTH: usize;

    /// The lanes' products, added to `sums`.
    unsafe fn multiply_add(
        a: <Self::S as Simd>::V,
        b: <Self::S as Simd>::V,
        sums: <Self::S as Simd>::V,
    ) -> <Self::S as Simd>::V;

    /// A packed register of the first `n` numbers from memory, n ≤ LANES · DEPTH; zeros behind them.
    unsafe fn pack(from: *const f32, n: usize) -> <Self::S as Simd>::V;

    /// Packs LANES rows of LANES · DEPTH numbers and writes their lanes' columns as rows, as [`Simd::transpose`] does.
    #[inline(always)]
    unsafe fn pack_transposed(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        let lanes = Self::S::LANES;
        let mut square = [0f32; MAX_LANES * MAX_LANES];
        for row in 0..lanes {
            // SAFETY: the caller's contract; the square has LANES rows of LANES lanes.
            unsafe {
                let packed = Self::pack(from.add(row * from_stride), lanes * Self::DEPTH);
                Self::S::store(square.as_mut_ptr().add(row * lanes), packed);
            }
        }
        // SAFETY: as above.
        unsafe { Self::S::transpose(square.as_ptr(), lanes, to, to_stride) }
    }
}

/// Float32 factors.
pub(super) struct Whole<S>(PhantomData<S>);

#[expect(unsafe_op_in_unsafe_fn, reason = "the trait's contract is that of the calls")]
impl<S: Simd> Factors for Whole<S> {
    type S = S;
    const DEPTH: usize = 1;

    #[inline(always)]
    unsafe fn multiply_add(a: S::V, b: S::V, sums: S::V) -> S::V {
        S::mul_add(a, b, sums)
    }

    #[inline(always)]
    unsafe fn pack(from: *const f32, n: usize) -> S::V {
        S::load_first(from, n)
    }

    #[inline(always)]
    unsafe fn pack_transposed(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        S::transpose(from, from_stride, to, to_stride)
    }
}

/// Factors rounded to bf16 that stay float32 numbers, for processors that cannot multiply bf16: the same factors, and no
/// faster than float32.
pub(super) struct Rounded<S>(PhantomData<S>);

#[expect(unsafe_op_in_unsafe_fn, reason = "the trait's contract is that of the calls")]
impl<S: Simd> Factors for Rounded<S> {
    type S = S;
    const DEPTH: usize = 1;

    #[inline(always)]
    unsafe fn multiply_add(a: S::V, b: S::V, sums: S::V) -> S::V {
        S::mul_add(a, b, sums)
    }

    #[inline(always)]
    unsafe fn pack(from: *const f32, n: usize) -> S::V {
        let mut lanes = [0f32; MAX_LANES];
        S::store(lanes.as_mut_ptr(), S::load_first(from, n));
        for lane in &mut lanes {
            *lane = round_to_bf16(*lane);
        }
        S::load(lanes.as_ptr())
    }
}

/// The nearest number that has the first 16 bits of a float32 only, ties to even.
#[inline(always)]
pub(super) fn round_to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    if x.is_nan() {
        // Rounding could carry its fraction away and leave an infinity.
        return f32::from_bits((bits | 0x0040_0000) & 0xffff_0000);
    }
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
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
