//! Plain Rust for every processor: an array of eight lanes, which the compiler maps to the target's vector registers.

use super::simd::Simd;
use super::Kernel;

#[derive(Clone, Copy)]
pub(super) struct Portable;

const LANES: usize = 8;
type V = [f32; LANES];

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    core::array::from_fn(|i| f(a[i], b[i]))
}

#[expect(unsafe_op_in_unsafe_fn, reason = "one instruction per method; the trait's contract is the instructions' own")]
impl Simd for Portable {
    const LANES: usize = LANES;
    // Three rows of two registers of eight lanes are twelve registers of four.
    const TILE_ROWS: usize = 3;
    type V = V;

    fn is_supported() -> bool {
        true
    }

    unsafe fn run<K: Kernel>(kernel: K) {
        kernel.run::<Self>()
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> V {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> V {
        from.cast::<V>().read_unaligned()
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> V {
        core::array::from_fn(|i| if i < n { *from.add(i) } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: V) {
        to.cast::<V>().write_unaligned(v)
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, v: V, n: usize) {
        for (i, x) in v.into_iter().take(n).enumerate() {
            *to.add(i) = x
        }
    }

    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn div(a: V, b: V) -> V {
        zip(a, b, |a, b| a / b)
    }

    /// `f32::mul_add` only if the target has the instruction; otherwise it would be a call into the C library.
    #[inline(always)]
    unsafe fn mul_add(a: V, b: V, c: V) -> V {
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            core::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        } else {
            core::array::from_fn(|i| a[i] * b[i] + c[i])
        }
    }

    #[inline(always)]
    unsafe fn max(a: V, b: V) -> V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn min(a: V, b: V) -> V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    unsafe fn select_less(a: V, b: V, then: V, otherwise: V) -> V {
        core::array::from_fn(|i| if a[i] < b[i] { then[i] } else { otherwise[i] })
    }

    /// Adding 1.5 · 2^23 leaves no bits after the point, so the sum is rounded to the nearest integer, ties to even.
    #[inline(always)]
    unsafe fn round(v: V) -> V {
        const SHIFT: f32 = 12_582_912.0;
        v.map(|x| (x + SHIFT) - SHIFT)
    }

    #[inline(always)]
    unsafe fn exp2_integral(v: V) -> V {
        v.map(|x| f32::from_bits(((x as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    unsafe fn reduce_add(v: V) -> f32 {
        let half: [f32; 4] = core::array::from_fn(|i| v[i] + v[i + 4]);
        (half[0] + half[2]) + (half[1] + half[3])
    }

    #[inline(always)]
    unsafe fn reduce_max(v: V) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn prefetch(_at: *const f32) {}

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for column in 0..LANES {
            for row in 0..LANES {
                *to.add(column * to_stride + row) = *from.add(row * from_stride + column)
            }
        }
    }
}
