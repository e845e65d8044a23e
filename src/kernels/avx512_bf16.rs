//! AVX-512 with its bf16 extension: the registers of AVX-512, and an instruction that multiplies two pairs of bf16
//! numbers per lane, twice the throughput of float32.

use super::avx512::Avx512;
use super::factors::Factors;
use super::product::{K_BLOCK, SHORT_CHAIN};
use super::quantization::Grid;
use super::simd::Simd;
use super::ProductKernel;
use core::arch::x86_64::*;
use core::mem::transmute;

/// Two bf16 numbers per lane, neighbours along k, the first in the lower half: rounded, or split into two parts. The
/// instructions treat denormals as zero.
pub(super) struct Pairs<const PLANES: usize>;

#[expect(unsafe_op_in_unsafe_fn, reason = "the trait's contract is the instructions' own")]
impl<const PLANES: usize> Factors for Pairs<PLANES> {
    type S = Avx512;
    const DEPTH: usize = 2;
    const PLANES: usize = PLANES;
    // Compared to the error of a single part, the rounding of sums does not matter.
    const CHAIN: usize = if PLANES == 1 { K_BLOCK } else { SHORT_CHAIN };

    fn is_supported() -> bool {
        is_x86_feature_detected!("avx512bf16") && Avx512::is_supported()
    }

    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn run<K: ProductKernel>(kernel: K) {
        kernel.run::<Self>()
    }

    #[inline(always)]
    unsafe fn multiply_add(a: __m512, b: __m512, sums: __m512) -> __m512 {
        // The registers have the same size, and every bit pattern is a bf16 number.
        _mm512_dpbf16_ps(sums, transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b))
    }

    #[inline(always)]
    unsafe fn pack(from: *const f32, n: usize, plane: usize, _grid: Grid) -> __m512 {
        let mut first = Avx512::load_first(from, n.min(16));
        let mut second = Avx512::load_first(from.wrapping_add(16), n.saturating_sub(16));
        if plane > 0 {
            (first, second) = (rest(first), rest(second));
        }
        transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(second, first))
    }
}

/// What rounding to bf16 removes, exactly.
#[inline(always)]
unsafe fn rest(numbers: __m512) -> __m512 {
    // SAFETY: the caller has AVX-512 BF16.
    unsafe { _mm512_sub_ps(numbers, _mm512_cvtpbh_ps(_mm512_cvtneps_pbh(numbers))) }
}
