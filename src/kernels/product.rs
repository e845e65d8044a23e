//! The matrix product under the linear layers and the attention: C (+)= A · B in blocks that stay in the caches.
//!
//! K is cut into blocks of at most [`K_BLOCK`]. Of A, a block's rows lie [`ROW_STRIDE`] floats apart, so that a register
//! tile's rows never fall into the same cache sets, whatever K is. Of B, a block of one panel (two registers of
//! columns) lies with its columns side by side, so that it fits the first-level cache beside a tile's rows of A. Each
//! element of C is summed over k in one order that depends on K alone: a row gives the same bits in any batch.

use super::simd::Simd;
use core::ops::Range;

/// Longest block of K. 192 rows of a panel of 32 columns are 24 KiB of a 32 KiB first-level cache.
pub(super) const K_BLOCK: usize = 192;
/// Products that are added one to the other in a register before their sum is added to C. Rounding errors grow with the
/// square root of a chain's length. On random weights (128 wide, 2 layers), which magnify them, logits are off by
/// 2.5e-5 with chains of 192 and by 1.8e-5 with chains of 64 (root mean square; PyTorch in float32 1.7e-5); on
/// BERT-base by 5.5e-6. That costs one or two cycles in a hundred.
const CHAIN: usize = 64;
/// From one row of a packed block of A to the next, in floats: an odd number of cache lines.
pub(super) const ROW_STRIDE: usize = K_BLOCK + 16;
/// Floats that one block of a panel may take: the block, and a transposed register block that ends past its end.
pub(super) const PANEL_BLOCK: usize = (K_BLOCK + MAX_LANES) * 2 * MAX_LANES;
/// The most rows that any level's tile has.
pub(super) const MOST_TILE_ROWS: usize = 14;
/// The widest register of any level.
const MAX_LANES: usize = 16;

/// Cuts 0..k into as few blocks of at most [`K_BLOCK`] as will do, of nearly one length.
pub(super) fn k_blocks(k: usize) -> impl ExactSizeIterator<Item = Range<usize>> + Clone {
    let count = k.div_ceil(K_BLOCK);
    let length = k.div_ceil(count.max(1)).next_multiple_of(MAX_LANES);
    (0..count).map(move |i| i * length..((i + 1) * length).min(k))
}

/// Cuts `rows` into as few tiles of at most `most` rows as will do, none more than a row longer than another.
pub(super) fn row_tiles(rows: usize, most: usize) -> impl ExactSizeIterator<Item = Range<usize>> + Clone {
    let count = rows.div_ceil(most);
    let (length, longer) = (rows / count.max(1), rows % count.max(1));
    (0..count).map(move |i| {
        let start = i * length + i.min(longer);
        start..start + length + usize::from(i < longer)
    })
}

/// `rows` rows of two registers of C: the product of as many rows of a block of A, [`ROW_STRIDE`] apart, and of a
/// block of a panel of B, `k` deep; added to what C holds where `add`.
///
/// # Safety
/// 1 ≤ `rows` ≤ `S::TILE_ROWS`; `a` is valid for `k` floats in each of the rows, `b` for 2 · LANES · `k`, `c` for
/// 2 · LANES in each of the rows `c_stride` apart.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd>(
    rows: usize,
    a: *const f32,
    b: *const f32,
    k: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    macro_rules! of_rows {
        ($($n:literal)*) => {
            match rows {
                // SAFETY: the caller's contract.
                $($n if $n <= S::TILE_ROWS => unsafe { tile_of::<S, $n>(a, b, k, c, c_stride, add) },)*
                _ => debug_assert!(false, "a tile of {rows} rows"),
            }
        };
    }
    of_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}

/// [`tile`] of `ROWS` rows, whose sums stay in registers over the whole block.
#[inline(always)]
unsafe fn tile_of<S: Simd, const ROWS: usize>(
    a: *const f32,
    b: *const f32,
    k: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    // SAFETY: the caller's contract covers every row below `ROWS` and every step below `k`.
    unsafe {
        for first in (0..k).step_by(CHAIN) {
            let end = (first + CHAIN).min(k);
            let mut sums = [[S::splat(0.0); 2]; ROWS];
            for step in first..end {
                let b = b.add(step * 2 * S::LANES);
                let (left, right) = (S::load(b), S::load(b.add(S::LANES)));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = S::splat(*a.add(row * ROW_STRIDE + step));
                    sums[0] = S::mul_add(x, left, sums[0]);
                    sums[1] = S::mul_add(x, right, sums[1]);
                }
            }
            let add = add || first > 0;
            for (row, sums) in sums.into_iter().enumerate() {
                for (half, sum) in sums.into_iter().enumerate() {
                    let c = c.add(row * c_stride + half * S::LANES);
                    S::store(c, if add { S::add(S::load(c), sum) } else { sum });
                }
            }
        }
    }
}

/// Copies columns `block` of `rows` rows of a row-major matrix into a block of A.
///
/// # Safety
/// `from` is valid for `length` ≤ [`K_BLOCK`] floats in each row, `from_stride` apart, `to` for as many,
/// [`ROW_STRIDE`] apart.
#[inline(always)]
pub(super) unsafe fn pack_rows(rows: usize, length: usize, from: *const f32, from_stride: usize, to: *mut f32) {
    for row in 0..rows {
        // SAFETY: the caller's contract; the two are different allocations.
        unsafe { core::ptr::copy_nonoverlapping(from.add(row * from_stride), to.add(row * ROW_STRIDE), length) }
    }
}

/// Turns `columns` rows of a row-major matrix into the columns of a block of a panel of B, `length` deep; zeros stand in
/// the columns that are missing from 2 · LANES.
///
/// # Safety
/// `columns` ≤ 2 · LANES and `length` ≤ [`K_BLOCK`]; `from` is valid for `length` floats in each row, `from_stride`
/// apart, `to` for [`PANEL_BLOCK`].
#[inline(always)]
pub(super) unsafe fn pack_transposed<S: Simd>(
    columns: usize,
    length: usize,
    from: *const f32,
    from_stride: usize,
    to: *mut f32,
) {
    for half in 0..2 {
        let first = half * S::LANES;
        let present = columns.saturating_sub(first).min(S::LANES);
        for step in (0..length).step_by(S::LANES) {
            let steps = (length - step).min(S::LANES);
            // SAFETY: the block's `present` rows and `steps` columns lie inside the caller's matrix; LANES rows of LANES
            // floats from `step` on lie inside PANEL_BLOCK.
            unsafe {
                let to = to.add(step * 2 * S::LANES + first);
                let from = from.wrapping_add(first * from_stride + step);
                if present == S::LANES && steps == S::LANES {
                    S::transpose(from, from_stride, to, 2 * S::LANES);
                } else {
                    let mut whole = [0f32; MAX_LANES * MAX_LANES];
                    for row in 0..present {
                        let row_to = whole.as_mut_ptr().add(row * S::LANES);
                        core::ptr::copy_nonoverlapping(from.add(row * from_stride), row_to, steps);
                    }
                    S::transpose(whole.as_ptr(), S::LANES, to, 2 * S::LANES);
                }
            }
        }
    }
}
