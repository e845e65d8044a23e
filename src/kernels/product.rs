//! The matrix product used by linear layers and attention: C (+)= A · B in blocks that stay in the caches.
//!
//! K is cut into blocks of at most [`K_BLOCK`], with AMX half of that. The rows of a block of A lie [`ROW_STRIDE`] floats
//! apart, an odd number of cache lines, so a register tile's rows never map to the same cache sets, whatever K is. A
//! block of one panel of B (two registers of columns) is contiguous, so it fits the first-level cache together with a
//! tile's rows of A. Each element of C is summed over k in an order that depends on K alone: a row's result is the same
//! to the bit in any batch.
//!
//! Here K counts packed lanes, each of which holds one or more numbers along k, depending on [`Factors`]. If numbers
//! have two parts, a block is half as long and holds the lanes of the first parts, then those of the second.

use super::factors::Factors;
use super::quantization::Grid;
use super::simd::Simd;
use core::ops::Range;

/// The longest block of K. 192 rows of a panel of 32 columns are 24 KiB of a 32 KiB first-level cache.
pub(super) const K_BLOCK: usize = 192;
/// Lanes whose products are added up in a register before their sum is added to C, for float32 sums that should be as
/// exact as possible. Rounding errors grow with the square root of a chain's length. On random weights (128 wide, 2
/// layers), which magnify them, logits are off by 2.5e-5 with chains of 192 and by 1.8e-5 with chains of 64 (root mean
/// square; PyTorch in float32 1.7e-5); on BERT-base by 5.5e-6. The cost is 1 to 2 % of the cycles in float32.
pub(super) const SHORT_CHAIN: usize = 64;
/// Distance between the rows of a packed block of A, in floats: an odd number of cache lines.
pub(super) const ROW_STRIDE: usize = row_stride(K_BLOCK);

/// [`ROW_STRIDE`] for blocks of another length.
pub(super) const fn row_stride(k_block: usize) -> usize {
    k_block + 16
}

/// Maximum size of one block of a panel in floats, including a transposed register block that extends past its end.
pub(super) const PANEL_BLOCK: usize = (K_BLOCK + MAX_LANES) * 2 * MAX_LANES;
/// The largest number of rows in any level's tile.
pub(super) const MOST_TILE_ROWS: usize = 14;
/// The widest register of any level.
pub(super) const MAX_LANES: usize = 16;

/// Cuts 0..k into as few blocks of at most `most` as possible, multiples of every register's lanes and of similar
/// length.
pub(super) fn k_blocks(k: usize, most: usize) -> impl ExactSizeIterator<Item = Range<usize>> + Clone {
    let count = k.div_ceil(most);
    let length = k.div_ceil(count.max(1)).next_multiple_of(MAX_LANES);
    (0..count).map(move |i| i * length..((i + 1) * length).min(k))
}

/// Cuts `rows` into as few tiles of at most `most` as possible. Their sizes differ by at most one row if `granule` is
/// 1; if rows cost as much as the next multiple of `granule`, all tiles but the last have the full size.
pub(super) fn row_tiles(
    rows: usize,
    most: usize,
    granule: usize,
) -> impl ExactSizeIterator<Item = Range<usize>> + Clone {
    let count = rows.div_ceil(most);
    let (length, longer) = if granule == 1 { (rows / count.max(1), rows % count.max(1)) } else { (most, 0) };
    (0..count).map(move |i| {
        let start = i * length + i.min(longer);
        start..(start + length + usize::from(i < longer)).min(rows)
    })
}

/// `rows` rows of two registers of C: the product of as many rows of a block of A, [`ROW_STRIDE`] apart, and a block of
/// a panel of B, `k` deep; added to C if `add`.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) rows: usize,
    pub(super) a: *const f32,
    pub(super) b: *const f32,
    /// In lanes.
    pub(super) k: usize,
    pub(super) c: *mut f32,
    /// Distance between rows of C, in floats.
    pub(super) c_stride: usize,
    pub(super) add: bool,
    /// What is read next, prefetched while multiplying: `ahead_step` floats per lane of the block.
    pub(super) ahead: *const f32,
    pub(super) ahead_step: usize,
}

/// Other work of a thread, done in shares between the steps of a product that leaves the vector registers idle.
pub(super) trait Meanwhile {
    /// Does one of `shares` equal shares of what is left; all of it if there is no other share.
    ///
    /// # Safety
    /// The processor has the features of `F`.
    unsafe fn share<F: Factors>(&mut self, shares: usize);
}

/// Multiplies one part of the factors.
///
/// # Safety
/// 1 ≤ `rows` ≤ `TILE_ROWS`; `a` is valid for `k` floats in each of the rows, `b` for 2 · LANES · `k`, `c` for
/// 2 · LANES in each of the rows `c_stride` apart.
#[inline(always)]
pub(super) unsafe fn multiply_tile<F: Factors + ?Sized>(tile: Tile) {
    macro_rules! of_rows {
        ($($n:literal)*) => {
            match tile.rows {
                // SAFETY: the caller's contract.
                $($n if $n <= F::S::TILE_ROWS => unsafe { F::S::multiply_rows::<F, $n>(tile) },)*
                rows => debug_assert!(false, "unexpected tile of {rows} rows"),
            }
        };
    }
    of_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}

/// [`multiply_tile`] for `ROWS` rows, whose sums stay in registers over a chain.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "the compiler unrolls these loops in every build")]
pub(super) unsafe fn multiply_rows<F: Factors + ?Sized, const ROWS: usize>(tile: Tile) {
    let Tile { a, b, k, c, c_stride, add, ahead, ahead_step, .. } = tile;
    // SAFETY: the caller's contract covers every row below `ROWS` and every step below `k`.
    unsafe {
        for first in (0..k).step_by(F::CHAIN) {
            let end = (first + F::CHAIN).min(k);
            let mut sums = [[F::S::splat(0.0); 2]; ROWS];
            for step in first..end {
                F::S::prefetch(ahead.wrapping_add(step * ahead_step));
                let b = b.add(step * 2 * F::S::LANES);
                let (left, right) = (F::S::load(b), F::S::load(b.add(F::S::LANES)));
                for row in 0..ROWS {
                    let x = F::S::splat(*a.add(row * ROW_STRIDE + step));
                    sums[row][0] = F::multiply_add(x, left, sums[row][0]);
                    sums[row][1] = F::multiply_add(x, right, sums[row][1]);
                }
            }
            let add = add || first > 0;
            // An iterator over the sums by value would write them to memory first, unless the compiler sees through it.
            for row in 0..ROWS {
                for half in 0..2 {
                    let (c, sum) = (c.add(row * c_stride + half * F::S::LANES), sums[row][half]);
                    F::S::store(c, if add { F::add(F::S::load(c), sum) } else { sum });
                }
            }
        }
    }
}

/// Packs `length` numbers of each of `rows` rows of a row-major matrix, each row on its grid, into a block of A.
///
/// # Safety
/// `from` is valid for `length` ≤ [`Factors::K_BLOCK`] / PLANES · DEPTH floats in each row, `from_stride` apart, `to`
/// for [`Factors::ROW_STRIDE`] in each row.
#[inline(always)]
pub(super) unsafe fn pack_rows<F: Factors>(
    rows: usize,
    length: usize,
    from: *const f32,
    from_stride: usize,
    grids: impl Fn(usize) -> Grid,
    to: *mut f32,
) {
    let step = F::S::LANES * F::DEPTH;
    for row in 0..rows {
        let grid = grids(row);
        for plane in 0..F::PLANES {
            for (i, first) in (0..length).step_by(step).enumerate() {
                // SAFETY: the caller's contract; a block and a register fit a row of the block.
                unsafe {
                    let from = from.add(row * from_stride + first);
                    let packed = F::pack(from, (length - first).min(step), plane, grid);
                    F::S::store(to.add(row * F::ROW_STRIDE + plane * F::PLANE_STRIDE + i * F::S::LANES), packed);
                }
            }
        }
    }
}

/// Packs part `plane` of the first `n` numbers of each of `rows` rows and writes their lanes' columns as rows, like
/// [`Simd::transpose`]; missing rows and lanes, up to LANES of each, are zero.
///
/// # Safety
/// `rows` ≤ LANES and `n` ≤ LANES · DEPTH; `from` is valid for the rows, `to` for LANES rows of LANES floats.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two matrices and the step in between")]
unsafe fn pack_square<F: Factors>(
    rows: usize,
    n: usize,
    from: *const f32,
    from_stride: usize,
    plane: usize,
    grids: impl Fn(usize) -> Grid,
    to: *mut f32,
    to_stride: usize,
) {
    let mut square = [0f32; MAX_LANES * MAX_LANES];
    // SAFETY: the caller's contract; the square has LANES rows of LANES lanes.
    unsafe {
        for row in 0..rows {
            let packed = F::pack(from.add(row * from_stride), n, plane, grids(row));
            F::S::store(square.as_mut_ptr().add(row * F::S::LANES), packed);
        }
        F::transpose(square.as_ptr(), F::S::LANES, to, to_stride);
    }
}

/// Packs part `plane` of `length` numbers of each of `columns` rows of a row-major matrix, each row on its grid, into
/// the columns of a block of a panel of B; missing columns, up to 2 · LANES, are zero.
///
/// # Safety
/// `columns` ≤ 2 · LANES; `from` is valid for `length` floats in each row, `from_stride` apart, `to` for 2 · LANES ·
/// `length` / DEPTH, rounded up to whole registers.
#[inline(always)]
pub(super) unsafe fn pack_columns<F: Factors>(
    columns: usize,
    length: usize,
    from: *const f32,
    from_stride: usize,
    plane: usize,
    grids: impl Fn(usize) -> Grid,
    to: *mut f32,
) {
    let (lanes, whole) = (F::S::LANES, F::S::LANES * F::DEPTH);
    for half in 0..2 {
        let present = columns.saturating_sub(half * lanes).min(lanes);
        let grids = |row: usize| grids(half * lanes + row);
        for (i, first) in (0..length).step_by(whole).enumerate() {
            let steps = (length - first).min(whole);
            // SAFETY: the `present` rows and `steps` numbers lie inside the caller's matrix; LANES rows of a half panel
            // from row i · LANES on lie inside the block.
            unsafe {
                let to = to.add((i * 2 * lanes + half) * lanes);
                let from = from.wrapping_add(half * lanes * from_stride + first);
                // Handle a whole square separately, so the compiler knows its size.
                if present < lanes || steps < whole {
                    pack_square::<F>(present, steps, from, from_stride, plane, grids, to, 2 * lanes);
                } else if F::AS_STORED {
                    F::S::transpose(from, from_stride, to, 2 * lanes);
                } else {
                    pack_square::<F>(lanes, whole, from, from_stride, plane, grids, to, 2 * lanes);
                }
            }
        }
    }
}
