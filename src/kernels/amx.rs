//! Intel AMX: registers of 16 rows of 64 bytes, and instructions that multiply two of them. Each takes 16 cycles for 16
//! x 16 sums over 32 bf16 numbers or 64 eight-bit integers, eight times the throughput of AVX-512.
//!
//! Factors are laid out as for AVX-512: a tile of the left one is 16 rows of 16 lanes, a tile of the right one 16 lanes
//! of 16 columns. Two by two tiles of sums stay in registers over a block of K; the other four registers hold the
//! factors. The instructions are documented in volume 2 of Intel's Software Developer's Manual, the operating system's
//! part in the Linux kernel's `Documentation/arch/x86/xstate.rst`. They are written in assembly because their
//! intrinsics are not stable.

use super::factors::{Factors, With};
use super::product::{Tile, PLANE_STRIDE, ROW_STRIDE};
use super::quantization::Grid;
use super::simd::Simd;
use super::ProductKernel;
use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use core::marker::PhantomData;
use std::sync::OnceLock;

/// Rows and lanes of a tile.
const TILE: usize = 16;
/// Bytes of a float32, which is also the size of a sum and of a lane.
const WORD: usize = size_of::<f32>();
/// Floats of a cache line.
const LINE: usize = 16;
/// Bytes from one lane of a panel to the next.
const PANEL_STRIDE: usize = 2 * TILE * WORD;
/// Floats of a panel consumed by one step along K.
const STEP_OF_B: usize = TILE * 2 * TILE;

/// Whether the processor has AMX with both kinds of products, and the system lets this process use the registers.
fn is_supported() -> bool {
    static IS_SUPPORTED: OnceLock<bool> = OnceLock::new();
    *IS_SUPPORTED.get_or_init(|| has_instructions() && is_state_enabled() && is_permitted())
}

#[allow(unused_unsafe, reason = "cpuid is a safe function in newer compilers")]
fn has_instructions() -> bool {
    const BF16: u32 = 1 << 22;
    const TILES: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    const ALL: u32 = BF16 | TILES | INT8;
    // SAFETY: every x86-64 processor has the instruction; leaf 7 is only read if it exists.
    unsafe { __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & ALL == ALL }
}

/// Whether the operating system saves the tiles' configuration and data when it switches threads.
fn is_state_enabled() -> bool {
    const TILE_STATE: u64 = 3 << 17;
    /// # Safety
    /// The system has enabled XSAVE.
    #[target_feature(enable = "xsave")]
    unsafe fn enabled_state() -> u64 {
        // SAFETY: the caller's contract.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: the standard library only reports AVX if the system has enabled XSAVE.
    is_x86_feature_detected!("avx") && unsafe { enabled_state() } & TILE_STATE == TILE_STATE
}

/// Requests the registers from Linux, which grants them per process and only on demand: their 8 KiB would overflow the
/// signal stacks of programs that do not expect them.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: the request takes two numbers and changes nothing but this permission.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// Other systems grant the registers differently; none has been tested.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes per row of each tile.
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Eight tiles of the largest size.
static WHOLE_TILES: TileConfig = {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        row_bytes[tile] = (TILE * WORD) as u16;
        rows[tile] = TILE as u8;
        tile += 1;
    }
    TileConfig { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
};

/// An AMX instruction: what it multiplies, in the layout of the same factors on AVX-512.
pub(super) trait TileFactors: Factors {
    /// `b_low` points to the second parts of B.
    ///
    /// # Safety
    /// As for [`Factors::multiply_tile`], between [`Factors::begin`] and [`Factors::end`].
    unsafe fn multiply_tile(tile: Tile, b_low: *const f32);
    /// Multiplies whatever the tiles hold, 4 · `rounds` times.
    ///
    /// # Safety
    /// As above.
    unsafe fn multiply_registers(rounds: usize);
}

/// The factors `F`, multiplied with tiles.
pub(super) struct Tiles<F>(PhantomData<F>);

#[expect(unsafe_op_in_unsafe_fn, reason = "the trait's contract is the instructions' own")]
impl<F: TileFactors> Factors for Tiles<F> {
    type S = F::S;
    const DEPTH: usize = F::DEPTH;
    const PLANES: usize = F::PLANES;
    const ON_GRID: bool = F::ON_GRID;
    const TILE_ROWS: usize = 2 * TILE;
    const ROW_GRANULE: usize = TILE;

    fn is_supported() -> bool {
        is_supported() && F::is_supported()
    }

    unsafe fn run<K: ProductKernel>(kernel: K) {
        // The instructions are assembly, which needs no feature of the compiler's.
        F::run(With::<Self, K>::new(kernel))
    }

    #[inline(always)]
    unsafe fn multiply_add(a: <F::S as Simd>::V, b: <F::S as Simd>::V, sums: <F::S as Simd>::V) -> <F::S as Simd>::V {
        F::multiply_add(a, b, sums)
    }

    #[inline(always)]
    unsafe fn add(a: <F::S as Simd>::V, b: <F::S as Simd>::V) -> <F::S as Simd>::V {
        F::add(a, b)
    }

    #[inline(always)]
    unsafe fn pack(from: *const f32, n: usize, plane: usize, grid: Grid) -> <F::S as Simd>::V {
        F::pack(from, n, plane, grid)
    }

    #[inline(always)]
    unsafe fn without_zero(sums: <F::S as Simd>::V, zero: f32, column_sums: <F::S as Simd>::V) -> <F::S as Simd>::V {
        F::without_zero(sums, zero, column_sums)
    }

    #[inline(always)]
    unsafe fn begin() {
        asm!("ldtilecfg [{}]", in(reg) &WHOLE_TILES, options(nostack, readonly, preserves_flags));
    }

    #[inline(always)]
    unsafe fn end() {
        // While a thread holds tiles, every context switch has to save them.
        asm!("tilerelease", options(nostack, nomem, preserves_flags));
    }

    #[inline(always)]
    unsafe fn multiply_tile(tile: Tile, b_plane: usize) {
        for line in (0..tile.k * tile.ahead_step).step_by(LINE) {
            <F::S as Simd>::prefetch(tile.ahead.wrapping_add(line));
        }
        <F as TileFactors>::multiply_tile(tile, tile.b.wrapping_add(b_plane))
    }

    #[inline(always)]
    unsafe fn saturate(rounds: usize) -> usize {
        F::multiply_registers(rounds);
        // 16 x 16 sums of 16 lanes each.
        2 * 4 * rounds * TILE * TILE * TILE * F::DEPTH
    }
}

/// The lines of assembly for one tile of the product; `$tdp` is the multiplying instruction.
macro_rules! lines {
    (products of 16 rows, $tdp:literal) => {
        concat!($tdp, " tmm0, tmm4, tmm6\n", $tdp, " tmm1, tmm4, tmm7\n")
    };
    (products of 32 rows, $tdp:literal) => {
        concat!(
            $tdp, " tmm0, tmm4, tmm6\n", $tdp, " tmm1, tmm4, tmm7\n",
            $tdp, " tmm2, tmm5, tmm6\n", $tdp, " tmm3, tmm5, tmm7\n"
        )
    };
    (load first parts of a, 16 rows) => { "tileloadd tmm4, [{a} + {a_stride}]\n" };
    (load first parts of a, 32 rows) => {
        "tileloadd tmm4, [{a} + {a_stride}]\ntileloadd tmm5, [{a} + {a_stride} + {rows}]\n"
    };
    (load second parts of a, 16 rows) => { "tileloadd tmm4, [{a} + {a_stride} + {plane}]\n" };
    (load second parts of a, 32 rows) => {
        "tileloadd tmm4, [{a} + {a_stride} + {plane}]\ntileloadd tmm5, [{a} + {a_stride} + {plane} + {rows}]\n"
    };
    (load $b:literal) => {
        concat!("tileloadd tmm6, [{", $b, "} + {b_stride}]\ntileloadd tmm7, [{", $b, "} + {b_stride} + 64]\n")
    };
    (step of one parts, $rows:tt, $tdp:literal) => {
        concat!(
            lines!(load first parts of a, $rows rows), lines!(load "b"), lines!(products of $rows rows, $tdp)
        )
    };
    // Two loads serve three products: the low parts of a, then the high parts with both parts of b.
    (step of two parts, $rows:tt, $tdp:literal) => {
        concat!(
            lines!(load second parts of a, $rows rows), lines!(load "b"), lines!(products of $rows rows, $tdp),
            lines!(load first parts of a, $rows rows), lines!(products of $rows rows, $tdp),
            lines!(load "b_low"), lines!(products of $rows rows, $tdp),
            "add {b_low}, {step_of_b}\n"
        )
    };
    (clear sums of 16 rows) => { "tilezero tmm0\ntilezero tmm1\n" };
    (clear sums of 32 rows) => { "tilezero tmm0\ntilezero tmm1\ntilezero tmm2\ntilezero tmm3\n" };
    (load sums of 16 rows) => { "tileloadd tmm0, [{c} + {c_stride}]\ntileloadd tmm1, [{c} + {c_stride} + 64]\n" };
    (load sums of 32 rows) => {
        concat!(
            lines!(load sums of 16 rows),
            "tileloadd tmm2, [{c2} + {c_stride}]\ntileloadd tmm3, [{c2} + {c_stride} + 64]\n"
        )
    };
    (store sums of 16 rows) => { "tilestored [{c} + {c_stride}], tmm0\ntilestored [{c} + {c_stride} + 64], tmm1\n" };
    (store sums of 32 rows) => {
        concat!(
            lines!(store sums of 16 rows),
            "tilestored [{c2} + {c_stride}], tmm2\ntilestored [{c2} + {c_stride} + 64], tmm3\n"
        )
    };
}

/// One tile of the product: load or clear the sums, loop over the steps of K, store the sums.
macro_rules! multiply {
    ($tile:ident, $b_low:ident, $parts:tt, $rows:tt, $tdp:literal) => {
        asm!(
            concat!(
                "test {add}, {add}\n", "jnz 2f\n",
                lines!(clear sums of $rows rows),
                "jmp 3f\n", "2:\n",
                lines!(load sums of $rows rows),
                "3:\n",
                lines!(step of $parts parts, $rows, $tdp),
                "add {a}, 64\n", "add {b}, {step_of_b}\n", "dec {steps}\n", "jnz 3b\n",
                lines!(store sums of $rows rows),
                // Not every variant uses every operand.
                "/* {b_low} {c2} {plane} {rows} */"
            ),
            a = inout(reg) $tile.a => _,
            a_stride = in(reg) ROW_STRIDE * WORD,
            rows = const TILE * ROW_STRIDE * WORD,
            plane = const PLANE_STRIDE * WORD,
            b = inout(reg) $tile.b => _,
            b_low = inout(reg) $b_low => _,
            b_stride = in(reg) PANEL_STRIDE,
            step_of_b = const STEP_OF_B * WORD,
            steps = inout(reg) $tile.k.div_ceil(TILE) => _,
            c = in(reg) $tile.c,
            c2 = in(reg) $tile.c.wrapping_add(TILE * $tile.c_stride),
            c_stride = in(reg) $tile.c_stride * WORD,
            add = in(reg) usize::from($tile.add),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// Multiplies registers and nothing else.
macro_rules! saturate {
    ($rounds:ident, $tdp:literal) => {
        asm!(
            concat!(
                "tilezero tmm4\n", "tilezero tmm5\n", "tilezero tmm6\n", "tilezero tmm7\n",
                lines!(clear sums of 32 rows),
                "2:\n", lines!(products of 32 rows, $tdp), "dec {rounds}\n", "jnz 2b\n"
            ),
            rounds = inout(reg) $rounds.max(1) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, nomem),
        )
    };
}

macro_rules! tile_factors {
    ($factors:ty, $parts:tt parts, $tdp:literal) => {
        #[expect(unsafe_op_in_unsafe_fn, reason = "the trait's contract is the instructions' own")]
        impl TileFactors for $factors {
            #[inline(always)]
            unsafe fn multiply_tile(tile: Tile, b_low: *const f32) {
                debug_assert!(tile.k > 0, "the loop over the steps of K runs at least once");
                match tile.rows > TILE {
                    true => multiply!(tile, b_low, $parts, 32, $tdp),
                    false => multiply!(tile, b_low, $parts, 16, $tdp),
                }
            }

            #[inline(always)]
            unsafe fn multiply_registers(rounds: usize) {
                saturate!(rounds, $tdp)
            }
        }
    };
}

tile_factors!(super::avx512_bf16::Pairs<1>, one parts, "tdpbf16ps");
tile_factors!(super::avx512_bf16::Pairs<2>, two parts, "tdpbf16ps");
tile_factors!(super::avx512_vnni::Quads, one parts, "tdpbusd");
