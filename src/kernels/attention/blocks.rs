//! What one head of one sequence packs and multiplies: queries, keys, values, scores and the context.

use super::super::activation::exp;
use super::super::factors::Whole;
use super::super::product::{k_blocks, multiply_tile, pack_columns, pack_rows, Tile, K_BLOCK, ROW_STRIDE};
use super::super::quantization::Grid;
use super::super::scratch::Loan;
use super::super::simd::Simd;
use core::ops::Range;

/// One head's columns of some rows.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) start: *const f32,
    /// Distance between rows, in floats.
    pub(super) stride: usize,
}

/// The packed blocks of one head of one sequence, in a thread's buffers.
pub(super) struct Blocks {
    pub(super) tokens: usize,
    pub(super) head_dim: usize,
    /// A tile of queries, or of another left factor: for each block of head_dim, rows [`ROW_STRIDE`] apart.
    queries: *mut f32,
    /// Panels of keys, one key per column, each panel [`Blocks::key_depth`] deep.
    pub(super) keys: *mut f32,
    /// Panels of columns of the values, one key per row, each panel `tokens` deep.
    values: *mut f32,
    /// A tile of scores, then of weights: for each [`K_BLOCK`] keys, rows [`ROW_STRIDE`] apart, the layout of a
    /// product's left factor.
    scores: *mut f32,
    /// A tile of the context, before dividing by the sums of the weights.
    sums: *mut f32,
}

/// Where a product of a tile goes.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) start: *mut f32,
    /// Distance between rows.
    pub(super) stride: usize,
    /// Distance between [`K_BLOCK`]s of columns.
    pub(super) block_stride: usize,
}

/// `seen` in blocks of [`K_BLOCK`], a multiple of every level's panel, with their indices.
#[inline(always)]
fn token_blocks(seen: &Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let Range { start, end } = *seen;
    (start / K_BLOCK..end.div_ceil(K_BLOCK)).map(move |i| (i, start.max(i * K_BLOCK)..end.min((i + 1) * K_BLOCK)))
}

/// Every method needs the features of `S`, and pointers that are valid for the rows it takes, a stride apart.
impl Blocks {
    pub(super) fn reserve<S: Simd>(task: &mut Loan, tokens: usize, head_dim: usize) -> Blocks {
        let (panel, tile) = (2 * S::LANES, S::TILE_ROWS * ROW_STRIDE);
        Blocks {
            tokens,
            head_dim,
            queries: task.rows.reserve(k_blocks(head_dim, K_BLOCK).len() * tile),
            keys: task.panels.reserve(tokens.next_multiple_of(panel) * Self::key_depth::<S>(head_dim)),
            values: task.values.reserve(tokens * head_dim.next_multiple_of(panel)),
            scores: task.scores.reserve(tokens.div_ceil(K_BLOCK) * tile),
            sums: task.sums.reserve(S::TILE_ROWS * head_dim.next_multiple_of(panel)),
        }
    }

    /// Rows of a panel of keys: keys are transposed one square register block at a time.
    pub(super) fn key_depth<S: Simd>(head_dim: usize) -> usize {
        head_dim.next_multiple_of(S::LANES)
    }

    /// Packs `count` rows into the columns of panels.
    #[inline(always)]
    pub(super) unsafe fn pack_panels<S: Simd>(&self, rows: Rows, count: usize, panels: *mut f32) {
        let panel = 2 * S::LANES;
        for first in (0..count).step_by(panel) {
            let columns = (count - first).min(panel);
            for block in k_blocks(self.head_dim, K_BLOCK) {
                // SAFETY: rows from `first` on and the block's columns lie inside the operand; the blocks start at
                // multiples of 16, so their padding lies inside the panel.
                unsafe {
                    let to = panels.add(first * Self::key_depth::<S>(self.head_dim) + block.start * panel);
                    let from = rows.start.add(first * rows.stride + block.start);
                    pack_columns::<Whole<S>>(columns, block.len(), from, rows.stride, 0, |_| Grid::NONE, to);
                }
            }
        }
    }

    #[inline(always)]
    pub(super) unsafe fn pack_values<S: Simd>(&self, values: *const f32, stride: usize) {
        for column in (0..self.head_dim).step_by(S::LANES) {
            let n = (self.head_dim - column).min(S::LANES);
            let (panel, half) = (column / (2 * S::LANES), column / S::LANES % 2);
            for token in 0..self.tokens {
                // SAFETY: n columns from `column` on lie inside the operand, a register inside the panel's row.
                unsafe {
                    let to = self.values.add((panel * self.tokens + token) * 2 * S::LANES + half * S::LANES);
                    S::store(to, S::load_first(values.add(token * stride + column), n));
                }
            }
        }
        if self.head_dim.div_ceil(S::LANES) % 2 == 1 {
            // The last panel's right half may have no column; it is multiplied anyway.
            let panel = self.head_dim / (2 * S::LANES);
            for token in 0..self.tokens {
                // SAFETY: a register inside the panel's row.
                unsafe {
                    let to = self.values.add((panel * self.tokens + token) * 2 * S::LANES + S::LANES);
                    S::store(to, S::splat(0.0));
                }
            }
        }
    }

    /// Packs a tile of queries, or of another left factor.
    #[inline(always)]
    pub(super) unsafe fn pack_left<S: Simd>(&self, rows: Rows, count: usize) {
        for (i, block) in k_blocks(self.head_dim, K_BLOCK).enumerate() {
            // SAFETY: the rows and the block's columns lie inside the operand, and a tile has room for them.
            unsafe {
                let to = self.queries.add(i * S::TILE_ROWS * ROW_STRIDE);
                let from = rows.start.add(block.start);
                pack_rows::<Whole<S>>(count, block.len(), from, rows.stride, |_| Grid::NONE, to);
            }
        }
    }

    /// Multiplies the packed tile with the columns of the panels that contain some of `columns`.
    #[inline(always)]
    pub(super) unsafe fn multiply<S: Simd>(
        &self,
        rows: usize,
        panels: *const f32,
        columns: &Range<usize>,
        to: Product,
    ) {
        let panel = 2 * S::LANES;
        for (i, block) in k_blocks(self.head_dim, K_BLOCK).enumerate() {
            for first in (columns.start / panel * panel..columns.end).step_by(panel) {
                // SAFETY: the panels and the result have room for whole panels, as K_BLOCK is a multiple of their width.
                unsafe {
                    let a = self.queries.add(i * S::TILE_ROWS * ROW_STRIDE);
                    let b = panels.add(first * Self::key_depth::<S>(self.head_dim) + block.start * panel);
                    let c = to.start.add(first / K_BLOCK * to.block_stride + first % K_BLOCK);
                    let (k, c_stride, add) = (block.len(), to.stride, i > 0);
                    multiply_tile::<Whole<S>>(Tile { rows, a, b, k, c, c_stride, add, ahead: a, ahead_step: 0 });
                }
            }
        }
    }

    /// Computes the packed tile's scores for the visible keys.
    #[inline(always)]
    pub(super) unsafe fn score<S: Simd>(&self, rows: usize, seen: &Range<usize>) {
        let to = Product { start: self.scores, stride: ROW_STRIDE, block_stride: S::TILE_ROWS * ROW_STRIDE };
        // SAFETY: a tile of scores has room for whole panels.
        unsafe { self.multiply::<S>(rows, self.keys, seen, to) }
    }

    /// Adds the terms of the keys to a row's scores; the term of key 0 is at `terms`.
    #[inline(always)]
    pub(super) unsafe fn add<S: Simd>(&self, row: usize, terms: *const f32, seen: &Range<usize>) {
        for (i, block) in token_blocks(seen) {
            for key in block.step_by(S::LANES) {
                // SAFETY: the row's scores are padded to whole registers; no term past the last visible key is read.
                unsafe {
                    let score = self.scores.add((i * S::TILE_ROWS + row) * ROW_STRIDE + key % K_BLOCK);
                    let term = match seen.end - key {
                        n if n < S::LANES => S::load_first(terms.wrapping_add(key), n),
                        _ => S::load(terms.wrapping_add(key)),
                    };
                    S::store(score, S::add(S::load(score), term));
                }
            }
        }
    }

    /// Removes the scores of keys that the tile sees but this row does not from the softmax.
    #[inline(always)]
    pub(super) unsafe fn hide(&self, tile_rows: usize, row: usize, visible: Range<usize>, seen: &Range<usize>) {
        for key in (seen.start..visible.start).chain(visible.end..seen.end) {
            // SAFETY: the row's scores lie inside the tile.
            unsafe {
                let block = self.scores.add((key / K_BLOCK * tile_rows + row) * ROW_STRIDE);
                *block.add(key % K_BLOCK) = f32::NEG_INFINITY;
            }
        }
    }

    /// Turns a row's scores into weights, e^((score - largest) · scale), and returns their sum.
    #[inline(always)]
    pub(super) unsafe fn weigh<S: Simd>(&self, row: usize, seen: &Range<usize>, scale: f32) -> f32 {
        let tile_floats = S::TILE_ROWS * ROW_STRIDE;
        // SAFETY: the row's blocks of scores, padded to whole registers, lie inside the tile.
        unsafe {
            let scores = self.scores.add(row * ROW_STRIDE);
            let last = scores.add((seen.end - 1) / K_BLOCK * tile_floats);
            let first_padding = (seen.end - 1) % K_BLOCK + 1;
            for padding in first_padding..first_padding.next_multiple_of(S::LANES) {
                *last.add(padding) = f32::NEG_INFINITY;
            }
            let mut largest = S::splat(f32::NEG_INFINITY);
            for (i, block) in token_blocks(seen) {
                for j in block.step_by(S::LANES) {
                    largest = S::max(largest, S::load(scores.add(i * tile_floats + j % K_BLOCK)));
                }
            }
            let largest = S::splat(S::reduce_max(largest));
            let scale = S::splat(scale);
            let mut sum = S::splat(0.0);
            for (i, block) in token_blocks(seen) {
                for j in block.step_by(S::LANES) {
                    let score = scores.add(i * tile_floats + j % K_BLOCK);
                    let weight = exp::<S>(S::mul(S::sub(S::load(score), largest), scale));
                    S::store(score, weight);
                    sum = S::add(sum, weight);
                }
            }
            S::reduce_add(sum)
        }
    }

    /// The weighted sums of the values.
    #[inline(always)]
    pub(super) unsafe fn mix<S: Simd>(&self, rows: usize, seen: &Range<usize>) {
        let panel = 2 * S::LANES;
        let stride = self.head_dim.next_multiple_of(panel);
        for column in (0..self.head_dim).step_by(panel) {
            for (i, block) in token_blocks(seen) {
                // SAFETY: the tiles and the panel were written for these rows, tokens and columns.
                unsafe {
                    let weights = self.scores.add(i * S::TILE_ROWS * ROW_STRIDE + block.start % K_BLOCK);
                    let values = self.values.add(column * self.tokens + block.start * panel);
                    let (k, c, add) = (block.len(), self.sums.add(column), block.start > seen.start);
                    multiply_tile::<Whole<S>>(Tile {
                        rows,
                        a: weights,
                        b: values,
                        k,
                        c,
                        c_stride: stride,
                        add,
                        ahead: weights,
                        ahead_step: 0,
                    });
                }
            }
        }
    }

    /// Writes the context, one row for each of `scales`.
    #[inline(always)]
    pub(super) unsafe fn store<S: Simd>(&self, scales: &[f32], context: *mut f32, stride: usize) {
        let sums_stride = self.head_dim.next_multiple_of(2 * S::LANES);
        for (row, &scale) in scales.iter().enumerate() {
            for column in (0..self.head_dim).step_by(S::LANES) {
                // SAFETY: the row is one of the tile's, the columns are the head's own.
                unsafe {
                    let sum = S::load(self.sums.add(row * sums_stride + column));
                    let n = (self.head_dim - column).min(S::LANES);
                    S::store_first(context.add(row * stride + column), S::mul(sum, S::splat(scale)), n);
                }
            }
        }
    }
}
