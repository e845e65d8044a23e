//! Intel AMX: registers of 16 rows of 64 bytes, and instructions that multiply two of them. Each takes 16 cycles for 16
//! x 16 sums over 32 bf16 numbers or 64 eight-bit integers, eight times the throughput of AVX-512.
//!
//! Factors are laid out as for AVX-512: a tile of the left one is 16 rows of 16 lanes, a tile of the right one 16 lanes
//! of 16 columns. Two by two tiles of sums stay in registers over a block of K; the other four registers hold the
//! factors. A step takes 64 cycles, and loads its four tiles in 32 if they are in the first-level cache.
//!
//! The instructions are documented in volume 2 of Intel's Software Developer's Manual, the operating system's part in
//! the Linux kernel's `Documentation/arch/x86/xstate.rst`. They are written in assembly because their intrinsics are
//! not stable. Tiles keep their contents from one instruction to the next, as the compiler has no other use for them.

use super::avx512_bf16::Pairs;
use super::avx512_vnni::Quads;
use super::factors::{Factors, With};
use super::product::{Meanwhile, Tile};
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

/// One instruction on tiles. The compiler is told that any of them may change.
macro_rules! instruction {
    ($($text_and_operands:tt)*) => {
        asm!(
            $($text_and_operands)*,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags),
        )
    };
}

/// Fills tile `T` with 16 rows, `stride` floats apart.
#[inline(always)]
unsafe fn load<const T: u8>(from: *const f32, stride: usize) {
    // SAFETY: the caller has AMX, configured tiles and the rows.
    unsafe {
        instruction!("tileloadd tmm{t}, [{from} + {stride}]", t = const T, from = in(reg) from, stride = in(reg) stride * WORD)
    }
}

/// Writes the 16 rows of tile `T`.
#[inline(always)]
unsafe fn store<const T: u8>(to: *mut f32, stride: usize) {
    // SAFETY: as above.
    unsafe {
        instruction!("tilestored [{to} + {stride}], tmm{t}", t = const T, to = in(reg) to, stride = in(reg) stride * WORD)
    }
}

#[inline(always)]
unsafe fn clear<const T: u8>() {
    // SAFETY: as above.
    unsafe { instruction!("tilezero tmm{t}", t = const T) }
}

/// Factors that an AMX instruction multiplies, in the layout that they have on AVX-512.
pub(super) trait TileFactors: Factors {
    /// Adds the products of tiles `A` and `B` to tile `C`.
    ///
    /// # Safety
    /// The processor has AMX; between [`Factors::begin`] and [`Factors::end`].
    unsafe fn multiply<const C: u8, const A: u8, const B: u8>();
}

impl<const PLANES: usize> TileFactors for Pairs<PLANES> {
    #[inline(always)]
    unsafe fn multiply<const C: u8, const A: u8, const B: u8>() {
        // SAFETY: the caller's contract.
        unsafe { instruction!("tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B) }
    }
}

impl TileFactors for Quads {
    #[inline(always)]
    unsafe fn multiply<const C: u8, const A: u8, const B: u8>() {
        // SAFETY: the caller's contract.
        unsafe { instruction!("tdpbusd tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B) }
    }
}

/// The factors `F`, multiplied with tiles.
pub(super) struct Tiles<F>(PhantomData<F>);

impl<F: TileFactors> Tiles<F> {
    /// Adds the products of one step to the sums, tiles 0 and 1, and if `is_tall` tiles 2 and 3: 16 lanes of rows of A
    /// and of two registers of columns of B. Each load stands before the first product that needs it, so it runs under
    /// the products before.
    #[inline(always)]
    unsafe fn step(a: *const f32, b: *const f32, is_tall: bool) {
        // SAFETY: the caller has AMX, configured tiles, the rows and the panel.
        unsafe {
            load::<4>(a, Self::ROW_STRIDE);
            load::<6>(b, 2 * TILE);
            F::multiply::<0, 4, 6>();
            load::<7>(b.add(TILE), 2 * TILE);
            F::multiply::<1, 4, 7>();
            if is_tall {
                load::<5>(a.add(TILE * Self::ROW_STRIDE), Self::ROW_STRIDE);
                F::multiply::<2, 5, 6>();
                F::multiply::<3, 5, 7>();
            }
        }
    }
}

#[expect(unsafe_op_in_unsafe_fn, reason = "the trait's contract is the instructions' own")]
impl<F: TileFactors> Factors for Tiles<F> {
    type S = F::S;
    const DEPTH: usize = F::DEPTH;
    const PLANES: usize = F::PLANES;
    const ON_GRID: bool = F::ON_GRID;
    const TILE_ROWS: usize = 2 * TILE;
    const ROW_GRANULE: usize = TILE;
    const K_BLOCK: usize = 96;
    const PANELS_OF_A_PASS: usize = 2;
    // Weights that are read again cost more than states that leave the cache: a core at its peak would read 21 bytes a
    // cycle for 96 rows of integers. For these rows it reads 1 and 2 bytes, and packed rows of 768 numbers and the sums of
    // a task still fit the 2 MiB of the second-level cache.
    const ROWS_OF_LAYER: usize = match (F::ON_GRID, F::PLANES) {
        (true, _) => 1024,
        (false, 1) => 512,
        (false, _) => F::ROWS_OF_LAYER,
    };
    const LEAVES_TIME: bool = true;

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
    unsafe fn multiply_tile<M: Meanwhile>(tile: Tile, b_plane: usize, meanwhile: &mut M) {
        let Tile { rows, a, b, k, c, c_stride, add, ahead, ahead_step } = tile;
        let is_tall = rows > TILE;
        let lower = c.wrapping_add(TILE * c_stride);
        if add {
            load::<0>(c, c_stride);
            load::<1>(c.add(TILE), c_stride);
            if is_tall {
                load::<2>(lower, c_stride);
                load::<3>(lower.add(TILE), c_stride);
            }
        } else {
            clear::<0>();
            clear::<1>();
            clear::<2>();
            clear::<3>();
        }
        // The smallest products first.
        let parts = [(Self::PLANE_STRIDE, 0), (0, b_plane), (0, 0)];
        let parts = &parts[if F::PLANES == 2 { 0 } else { 2 }..];
        let mut left = k.div_ceil(TILE) * parts.len();
        for step in 0..k.div_ceil(TILE) {
            // A step takes as many lanes as a line has floats.
            for line in step * ahead_step..(step + 1) * ahead_step {
                <F::S as Simd>::prefetch(ahead.wrapping_add(line * TILE));
            }
            for (a_part, b_part) in parts {
                Self::step(a.add(a_part + step * TILE), b.add(b_part + step * 2 * TILE * TILE), is_tall);
                meanwhile.share::<Self>(left);
                left -= 1;
            }
        }
        store::<0>(c, c_stride);
        store::<1>(c.add(TILE), c_stride);
        if is_tall {
            store::<2>(lower, c_stride);
            store::<3>(lower.add(TILE), c_stride);
        }
    }

    #[inline(always)]
    unsafe fn saturate(rounds: usize) -> usize {
        for _ in 0..rounds {
            F::multiply::<0, 4, 6>();
            F::multiply::<1, 4, 7>();
            F::multiply::<2, 5, 6>();
            F::multiply::<3, 5, 7>();
        }
        // 16 x 16 sums of 16 lanes each.
        2 * 4 * rounds * TILE * TILE * TILE * F::DEPTH
    }
}
