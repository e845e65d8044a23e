//! Position terms of queries, keys and scores: rotations, biases, and products with vectors of distances.

use super::super::product::{row_tiles, K_BLOCK, MOST_TILE_ROWS};
use super::super::scratch::Loan;
use super::super::simd::Simd;
use super::blocks::{Blocks, Product, Rows};
use super::Positions;
use core::ops::Range;

/// Where rotated keys and queries are written.
pub(super) struct Rotation<'a> {
    tables: Option<(&'a [f32], &'a [f32])>,
    keys: *mut f32,
    queries: *mut f32,
    head_dim: usize,
}

impl<'a> Rotation<'a> {
    pub(super) fn reserve(task: &mut Loan, positions: Positions<'a>, tokens: usize, head_dim: usize) -> Rotation<'a> {
        match positions {
            Positions::Rotary { cos, sin } => {
                let keys = tokens * head_dim;
                let rotated = task.rotated.reserve(keys + MOST_TILE_ROWS * head_dim);
                Rotation { tables: Some((cos, sin)), keys: rotated, queries: rotated.wrapping_add(keys), head_dim }
            }
            _ => Rotation { tables: None, keys: core::ptr::null_mut(), queries: core::ptr::null_mut(), head_dim },
        }
    }
}

/// Every method needs the features of `S`, and valid rows.
impl Rotation<'_> {
    #[inline(always)]
    pub(super) unsafe fn keys<S: Simd>(&self, keys: Rows, tokens: usize) -> Rows {
        // SAFETY: the caller's contract.
        unsafe { self.rotate::<S>(keys, &(0..tokens), self.keys) }
    }

    #[inline(always)]
    pub(super) unsafe fn queries<S: Simd>(&self, queries: Rows, positions: &Range<usize>) -> Rows {
        // SAFETY: the caller's contract.
        unsafe { self.rotate::<S>(queries, positions, self.queries) }
    }

    /// The rows at these positions, rotated.
    #[inline(always)]
    unsafe fn rotate<S: Simd>(&self, rows: Rows, positions: &Range<usize>, to: *mut f32) -> Rows {
        let Some((cos, sin)) = self.tables else { return rows };
        let half = self.head_dim / 2;
        for (row, position) in positions.clone().enumerate() {
            for column in (0..half).step_by(S::LANES) {
                let n = (half - column).min(S::LANES);
                // SAFETY: the columns lie inside both halves of the row, and the position inside the tables.
                unsafe {
                    let (from, to) = (rows.start.add(row * rows.stride + column), to.add(row * self.head_dim + column));
                    let (x, y) = (S::load_first(from, n), S::load_first(from.add(half), n));
                    let cos = S::load_first(cos.as_ptr().add(position * half + column), n);
                    let sin = S::load_first(sin.as_ptr().add(position * half + column), n);
                    S::store_first(to, S::sub(S::mul(x, cos), S::mul(y, sin)), n);
                    S::store_first(to.add(half), S::mul_add(y, cos, S::mul(x, sin)), n);
                }
            }
        }
        Rows { start: to, stride: self.head_dim }
    }
}

/// What is added to scores.
pub(super) enum Terms {
    None,
    /// The bias at distance 0.
    Bias {
        middle: *const f32,
    },
    Products(Products),
}

/// Every method needs the features of `S`.
impl Terms {
    /// Multiplies the tile of queries that was packed last.
    #[inline(always)]
    pub(super) unsafe fn multiply<S: Simd>(&self, blocks: &Blocks, rows: &Range<usize>) {
        if let Terms::Products(products) = self {
            // SAFETY: the caller's contract.
            unsafe { products.of_queries::<S>(blocks, rows) }
        }
    }

    /// Adds to the scores of the query at `position`.
    #[inline(always)]
    pub(super) unsafe fn add<S: Simd>(&self, blocks: &Blocks, row: usize, position: usize, seen: &Range<usize>) {
        // SAFETY: the terms of all keys of the sequence are contiguous.
        unsafe {
            match self {
                Terms::None => {}
                Terms::Bias { middle } => blocks.add::<S>(row, middle.sub(position), seen),
                Terms::Products(products) => {
                    if products.has_vectors {
                        let terms = products.terms.add(row * products.stride + blocks.tokens - 1 - position);
                        blocks.add::<S>(row, terms, seen);
                    }
                    if products.has_keys {
                        blocks.add::<S>(row, products.of_keys.add(position * products.keys_stride), seen);
                    }
                }
            }
        }
    }
}

/// Products with the vectors of distances. Distance d of a sequence is at index d + tokens - 1.
pub(super) struct Products {
    /// Panels of vectors, one distance per column.
    vectors: *mut f32,
    has_vectors: bool,
    /// A tile's products with all distances, one row per query.
    terms: *mut f32,
    /// Distance between the rows of `terms`.
    stride: usize,
    /// The products of keys with the vectors of their distances from each query: one query per row, one key per column.
    of_keys: *mut f32,
    keys_stride: usize,
    has_keys: bool,
}

/// Every method needs the features of `S`, and valid vectors and keys.
impl Products {
    pub(super) fn reserve<S: Simd>(task: &mut Loan, tokens: usize, head_dim: usize, queries: usize) -> Products {
        let panel = 2 * S::LANES;
        // A register may start LANES before the first distance and end LANES after the last.
        let stride = (2 * tokens).next_multiple_of(panel) + 2 * panel;
        let keys_stride = tokens.next_multiple_of(S::LANES);
        Products {
            vectors: task.vectors.reserve((2 * tokens - 1).next_multiple_of(panel) * Blocks::key_depth::<S>(head_dim)),
            has_vectors: false,
            terms: task.terms.reserve(S::TILE_ROWS.max(S::LANES) * stride),
            stride,
            of_keys: task.key_terms.reserve(queries.next_multiple_of(S::LANES) * keys_stride),
            keys_stride,
            has_keys: false,
        }
    }

    #[inline(always)]
    pub(super) unsafe fn pack_vectors<S: Simd>(&mut self, blocks: &Blocks, vectors: Rows) {
        self.has_vectors = true;
        // SAFETY: the caller's contract.
        unsafe { blocks.pack_panels::<S>(vectors, 2 * blocks.tokens - 1, self.vectors) }
    }

    /// The products of a tile of queries with the distances to all keys.
    #[inline(always)]
    unsafe fn of_queries<S: Simd>(&self, blocks: &Blocks, rows: &Range<usize>) {
        if self.has_vectors {
            let distances = blocks.tokens - rows.end..2 * blocks.tokens - 1 - rows.start;
            let to = Product { start: self.terms, stride: self.stride, block_stride: K_BLOCK };
            // SAFETY: a row has room for all distances.
            unsafe { blocks.multiply::<S>(rows.len(), self.vectors, &distances, to) }
        }
    }

    /// The products of all keys with their distances from all queries, LANES keys at a time. A key's row is shifted by
    /// its position, so reading a square of rows with a stride one shorter and transposing it gives one row per query.
    #[inline(always)]
    pub(super) unsafe fn of_keys<S: Simd>(&mut self, blocks: &Blocks, vectors: Rows, keys: Rows, queries: usize) {
        let tokens = blocks.tokens;
        self.has_keys = true;
        // SAFETY: the caller's contract; rows of products start LANES after the start of their reserved memory, because
        // squares extend beyond the sequence, in columns and rows that are never read.
        unsafe {
            blocks.pack_panels::<S>(vectors, 2 * tokens - 1, self.vectors);
            let products = self.terms.add(S::LANES);
            for first in (0..tokens).step_by(S::LANES) {
                let end = (first + S::LANES).min(tokens);
                for rows in row_tiles(end - first, S::TILE_ROWS, 1) {
                    let keys = Rows { start: keys.start.add((first + rows.start) * keys.stride), ..keys };
                    blocks.pack_left::<S>(keys, rows.len());
                    let distances = tokens - first - rows.end..queries + tokens - 1 - first - rows.start;
                    let start = products.add(rows.start * self.stride);
                    let to = Product { start, stride: self.stride, block_stride: K_BLOCK };
                    blocks.multiply::<S>(rows.len(), self.vectors, &distances, to);
                }
                for query in (0..queries).step_by(S::LANES) {
                    let from = products.add(query + tokens - 1).sub(first);
                    let to = self.of_keys.add(query * self.keys_stride + first);
                    S::transpose(from, self.stride - 1, to, self.keys_stride);
                }
            }
        }
    }
}
