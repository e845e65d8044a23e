//! AVX-512: 16 lanes, 32 registers.

use super::avx2::Avx2;
use super::simd::Simd;
use super::Kernel;
use core::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(super) struct Avx512;

/// The mask of the first `n` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    debug_assert!(n <= 16);
    ((1u32 << n) - 1) as __mmask16
}

/// Four floats of each of the rows 0, 4, 8 and 12, starting at `from`.
#[inline(always)]
unsafe fn load_quarters(from: *const f32, stride: usize) -> __m512 {
    // SAFETY: the caller has AVX-512 and the rows.
    unsafe {
        let v = _mm512_castps128_ps512(_mm_loadu_ps(from));
        let v = _mm512_mask_broadcast_f32x4(v, 0x00f0, _mm_loadu_ps(from.add(4 * stride)));
        let v = _mm512_mask_broadcast_f32x4(v, 0x0f00, _mm_loadu_ps(from.add(8 * stride)));
        _mm512_mask_broadcast_f32x4(v, 0xf000, _mm_loadu_ps(from.add(12 * stride)))
    }
}

#[expect(unsafe_op_in_unsafe_fn, reason = "one instruction per method; the trait's contract is the instructions' own")]
impl Simd for Avx512 {
    const LANES: usize = 16;
    const TILE_ROWS: usize = 14;
    type V = __m512;

    fn is_supported() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && Avx2::is_supported()
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn run<K: Kernel>(kernel: K) {
        kernel.run::<Self>()
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        _mm512_set1_ps(x)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        _mm512_loadu_ps(from)
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> __m512 {
        _mm512_maskz_loadu_ps(first(n), from)
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: __m512) {
        _mm512_storeu_ps(to, v)
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, v: __m512, n: usize) {
        _mm512_mask_storeu_ps(to, first(n), v)
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(a, b)
    }

    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        _mm512_sub_ps(a, b)
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }

    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        _mm512_div_ps(a, b)
    }

    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        _mm512_max_ps(a, b)
    }

    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        _mm512_min_ps(a, b)
    }

    #[inline(always)]
    unsafe fn select_less(a: __m512, b: __m512, then: __m512, otherwise: __m512) -> __m512 {
        _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), otherwise, then)
    }

    #[inline(always)]
    unsafe fn round(v: __m512) -> __m512 {
        _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v)
    }

    #[inline(always)]
    unsafe fn exp2_integral(v: __m512) -> __m512 {
        _mm512_scalef_ps(_mm512_set1_ps(1.0), v)
    }

    #[inline(always)]
    unsafe fn reduce_add(v: __m512) -> f32 {
        _mm512_reduce_add_ps(v)
    }

    #[inline(always)]
    unsafe fn reduce_max(v: __m512) -> f32 {
        _mm512_reduce_max_ps(v)
    }

    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        _mm_prefetch::<_MM_HINT_T1>(at.cast())
    }

    /// Four columns at a time: a register holds those columns of rows r, r + 4, r + 8 and r + 12, one row per quarter,
    /// so a 4 x 4 transpose inside the quarters leaves each column's 16 rows in order.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for column in [0, 4, 8, 12] {
            let from = from.add(column);
            let (a, b) = (load_quarters(from, from_stride), load_quarters(from.add(from_stride), from_stride));
            let from = from.add(2 * from_stride);
            let (c, d) = (load_quarters(from, from_stride), load_quarters(from.add(from_stride), from_stride));
            let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let to = to.add(column * to_stride);
            _mm512_storeu_ps(to, _mm512_shuffle_ps::<0x44>(ab_low, cd_low));
            _mm512_storeu_ps(to.add(to_stride), _mm512_shuffle_ps::<0xee>(ab_low, cd_low));
            _mm512_storeu_ps(to.add(2 * to_stride), _mm512_shuffle_ps::<0x44>(ab_high, cd_high));
            _mm512_storeu_ps(to.add(3 * to_stride), _mm512_shuffle_ps::<0xee>(ab_high, cd_high));
        }
    }
}
