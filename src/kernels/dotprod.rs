//! The dot products of Armv8.2: an instruction that multiplies four pairs of eight-bit integers per lane, four times the
//! throughput of float32, and adds them up exactly. It is written in assembly because its intrinsic is not stable.

use super::factors::Factors;
use super::neon::{add_integers, integers_without_zero, pack_bytes, Neon};
use super::product::K_BLOCK;
use super::quantization::Grid;
use super::simd::Simd;
use super::ProductKernel;
use core::arch::aarch64::*;
use core::arch::asm;
use std::arch::is_aarch64_feature_detected;

/// Four grid points per lane, neighbours along k, the first in the lowest byte. The instruction takes signed factors, so
/// the points of activations, 0 to 255, are stored less [`OFFSET`]. Sums are 32-bit integers.
pub(super) struct Quads;

const OFFSET: f32 = 128.0;

#[expect(unsafe_op_in_unsafe_fn, reason = "the trait's contract is the instructions' own")]
impl Factors for Quads {
    type S = Neon;
    const DEPTH: usize = 4;
    // Integer addition is exact.
    const CHAIN: usize = K_BLOCK;
    const ON_GRID: bool = true;

    fn is_supported() -> bool {
        is_aarch64_feature_detected!("dotprod") && Neon::is_supported()
    }

    #[target_feature(enable = "dotprod,neon")]
    unsafe fn run<K: ProductKernel>(kernel: K) {
        kernel.run::<Self>()
    }

    #[inline(always)]
    unsafe fn multiply_add(a: float32x4_t, b: float32x4_t, sums: float32x4_t) -> float32x4_t {
        sdot(a, b, sums)
    }

    #[inline(always)]
    unsafe fn multiply_add_lane<const LANE: i32>(a: float32x4_t, b: float32x4_t, sums: float32x4_t) -> float32x4_t {
        sdot_lane::<LANE>(a, b, sums)
    }

    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        add_integers(a, b)
    }

    #[inline(always)]
    unsafe fn pack(from: *const f32, n: usize, _plane: usize, grid: Grid) -> float32x4_t {
        pack_bytes(from, n, grid, if grid.is_of_activations() { OFFSET } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn without_zero(sums: float32x4_t, zero: f32, column_sums: float32x4_t) -> float32x4_t {
        integers_without_zero(sums, zero - OFFSET, column_sums)
    }
}

#[inline]
#[target_feature(enable = "dotprod,neon")]
unsafe fn sdot(a: float32x4_t, b: float32x4_t, mut sums: float32x4_t) -> float32x4_t {
    // SAFETY: it only uses registers, and the caller has the instruction.
    unsafe {
        asm!("sdot {sums:v}.4s, {b:v}.16b, {a:v}.16b", sums = inout(vreg) sums, b = in(vreg) b, a = in(vreg) a,
             options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// With lane `LANE` of `a` in place of every lane.
#[inline]
#[target_feature(enable = "dotprod,neon")]
unsafe fn sdot_lane<const LANE: i32>(a: float32x4_t, b: float32x4_t, mut sums: float32x4_t) -> float32x4_t {
    // SAFETY: as above.
    unsafe {
        asm!("sdot {sums:v}.4s, {b:v}.16b, {a:v}.4b[{lane}]", sums = inout(vreg) sums, b = in(vreg) b, a = in(vreg) a,
             lane = const LANE, options(pure, nomem, nostack, preserves_flags));
    }
    sums
}
