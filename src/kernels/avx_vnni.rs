//! AVX-VNNI: the instruction of AVX-512 VNNI on the registers of AVX2. Intel's processors for desktops and laptops have it
//! since 2021, without AVX-512.

use super::avx2::Avx2;
use super::factors::Factors;
use super::product::K_BLOCK;
use super::quantization::Grid;
use super::simd::Simd;
use super::ProductKernel;
use core::arch::x86_64::*;

/// Four grid points per lane, as in `avx512_vnni`.
pub(super) struct Quads;

#[expect(unsafe_op_in_unsafe_fn, reason = "the trait's contract is the instructions' own")]
impl Factors for Quads {
    type S = Avx2;
    const DEPTH: usize = 4;
    // Integer addition is exact.
    const CHAIN: usize = K_BLOCK;
    const ON_GRID: bool = true;

    fn is_supported() -> bool {
        is_x86_feature_detected!("avxvnni") && Avx2::is_supported()
    }

    #[target_feature(enable = "avxvnni,avx2,fma")]
    unsafe fn run<K: ProductKernel>(kernel: K) {
        kernel.run::<Self>()
    }

    #[inline(always)]
    unsafe fn multiply_add(a: __m256, b: __m256, sums: __m256) -> __m256 {
        let (a, b, sums) = (_mm256_castps_si256(a), _mm256_castps_si256(b), _mm256_castps_si256(sums));
        _mm256_castsi256_ps(_mm256_dpbusd_avx_epi32(sums, a, b))
    }

    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)))
    }

    /// Lanes after the last number hold the grid point of 0.
    #[inline(always)]
    unsafe fn pack(from: *const f32, n: usize, _plane: usize, grid: Grid) -> __m256 {
        let lower = _mm256_packs_epi32(eight(from, n, 0, grid), eight(from, n, 8, grid));
        let upper = _mm256_packs_epi32(eight(from, n, 16, grid), eight(from, n, 24, grid));
        // Both kinds of packing work on the halves of a register: now each has four points of every eight.
        let bytes = _mm256_packus_epi16(lower, upper);
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(bytes, order))
    }

    #[inline(always)]
    unsafe fn without_zero(sums: __m256, zero: f32, column_sums: __m256) -> __m256 {
        let of_zero = _mm256_mullo_epi32(_mm256_set1_epi32(zero as i32), _mm256_cvtps_epi32(column_sums));
        _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_castps_si256(sums), of_zero))
    }
}

/// The grid points of eight of `n` numbers, from number `first` on: the lowest bytes of integers of either sign.
#[inline(always)]
unsafe fn eight(from: *const f32, n: usize, first: usize, grid: Grid) -> __m256i {
    // SAFETY: the caller has AVX2 and `n` numbers.
    unsafe {
        let numbers = Avx2::load_first(from.wrapping_add(first), n.saturating_sub(first).min(8));
        _mm256_and_si256(_mm256_cvtps_epi32(grid.places::<Avx2>(numbers)), _mm256_set1_epi32(0xff))
    }
}
