//! AVX-512 with VNNI: an instruction that multiplies four pairs of eight-bit integers per lane, four times the
//! throughput of float32, and adds them up exactly.

use super::avx512::Avx512;
use super::factors::Factors;
use super::product::K_BLOCK;
use super::quantization::Grid;
use super::simd::Simd;
use super::ProductKernel;
use core::arch::x86_64::*;

/// Four grid points per lane, neighbours along k, the first in the lowest byte: unsigned in the left factor, signed in
/// the right one. Sums are 32-bit integers, with room for 66,000 products of the largest values.
pub(super) struct Quads;

#[expect(unsafe_op_in_unsafe_fn, reason = "the trait's contract is the instructions' own")]
impl Factors for Quads {
    type S = Avx512;
    const DEPTH: usize = 4;
    // Integer addition is exact.
    const CHAIN: usize = K_BLOCK;
    const ON_GRID: bool = true;

    fn is_supported() -> bool {
        is_x86_feature_detected!("avx512vnni") && Avx512::is_supported()
    }

    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn run<K: ProductKernel>(kernel: K) {
        kernel.run::<Self>()
    }

    #[inline(always)]
    unsafe fn multiply_add(a: __m512, b: __m512, sums: __m512) -> __m512 {
        let (a, b, sums) = (_mm512_castps_si512(a), _mm512_castps_si512(b), _mm512_castps_si512(sums));
        _mm512_castsi512_ps(_mm512_dpbusd_epi32(sums, a, b))
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)))
    }

    /// Lanes after the last number hold the grid point of 0.
    #[inline(always)]
    unsafe fn pack(from: *const f32, n: usize, _plane: usize, grid: Grid) -> __m512 {
        let lower = _mm256_set_m128i(sixteen(from, n, 16, grid), sixteen(from, n, 0, grid));
        let upper = _mm256_set_m128i(sixteen(from, n, 48, grid), sixteen(from, n, 32, grid));
        _mm512_castsi512_ps(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(lower), upper))
    }

    #[inline(always)]
    unsafe fn without_zero(sums: __m512, zero: f32, column_sums: __m512) -> __m512 {
        let of_zero = _mm512_mullo_epi32(_mm512_set1_epi32(zero as i32), _mm512_cvtps_epi32(column_sums));
        _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_castps_si512(sums), of_zero))
    }
}

/// The grid points of 16 of `n` numbers, from number `first` on.
#[inline(always)]
unsafe fn sixteen(from: *const f32, n: usize, first: usize, grid: Grid) -> __m128i {
    // SAFETY: the caller has AVX-512 and `n` numbers.
    unsafe {
        let numbers = Avx512::load_first(from.wrapping_add(first), n.saturating_sub(first).min(16));
        // An integer of either sign; its lowest byte is the grid point.
        _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(grid.places::<Avx512>(numbers)))
    }
}
