//! Self-attention over packed sequences: softmax((q · kᵀ + position terms) · scale) · v, one sequence and head at a
//! time.
//!
//! Families differ in variants of this one kernel. A window bounds the loops over the keys. A bias is added to a row of
//! scores. Disentangled attention has two more products, of queries and keys with one vector per distance. Neighbouring
//! keys have neighbouring distances, so a row of scores needs the product of a tile of queries and a run of these
//! vectors, shifted by the query's position.

mod blocks;
mod positions;
#[cfg(test)]
mod tests;

use super::product::{row_tiles, MOST_TILE_ROWS};
use super::scratch::Loan;
use super::simd::Simd;
use super::{Kernel, Level, Parallelism};
use blocks::{Blocks, Rows};
use core::ops::Range;
use positions::{Products, Rotation, Terms};

/// Queries, keys and values of a batch, and where its sequences lie in them. Not every token needs a query: the queries
/// of a sequence are those of its first tokens.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    /// (queries, heads * head_dim)
    pub query: &'a [f32],
    /// (total_tokens, heads * head_dim)
    pub key: &'a [f32],
    /// (total_tokens, heads * head_dim)
    pub value: &'a [f32],
    /// Attention heads.
    pub heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// Start of each sequence among the queries, and the end of the last.
    pub query_offsets: &'a [usize],
    /// Start of each sequence among the tokens, and the end of the last.
    pub offsets: &'a [usize],
    /// Factor applied to scores before the softmax: 1 / sqrt(head_dim) if they are only the product of queries and
    /// keys.
    pub scale: f32,
    /// How many tokens on either side a token attends to; `None` means all.
    pub window: Option<usize>,
    /// How scores depend on positions.
    pub positions: Positions<'a>,
}

/// How attention uses the tokens' positions. A table of distances has some `reach`, at least the length of the longest
/// sequence, and an entry for each distance from 1 - reach to reach - 1.
#[derive(Clone, Copy)]
pub enum Positions<'a> {
    /// Not at all.
    None,
    /// Rotates queries and keys: the pairs `(x[i], x[i + head_dim / 2])` by the angle whose cosine and sine are at
    /// (position, i) in these tables. <https://arxiv.org/abs/2104.09864>
    Rotary {
        /// (positions, head_dim / 2)
        cos: &'a [f32],
        /// (positions, head_dim / 2)
        sin: &'a [f32],
    },
    /// Adds a bias per head and distance key - query to a score: (heads, 2 * reach - 1).
    Bias(&'a [f32]),
    /// Adds two products to a score. <https://arxiv.org/abs/2006.03654>
    Disentangled {
        /// Of the query and the vector of the distance key - query, (2 * reach - 1, heads * head_dim).
        key: Option<&'a [f32]>,
        /// Of the key and the vector of the distance query - key, (2 * reach - 1, heads * head_dim).
        query: Option<&'a [f32]>,
    },
}

/// See [`Attention`]: (queries, heads * head_dim); each query attends to the tokens of its own sequence.
///
/// # Panics
/// If the lengths of the slices disagree, or offsets do not ascend from 0 to the number of rows.
pub fn attention(level: Level, parallelism: Parallelism, operands: Attention) -> Vec<f32> {
    let mut context = vec![0.0; operands.query.len()];
    attend(level, parallelism, operands, &mut context);
    context
}

/// [`attention`] into `context`.
pub(super) fn attend(level: Level, parallelism: Parallelism, operands: Attention, context: &mut [f32]) {
    let Attention { query, key, value, heads, head_dim, query_offsets, offsets, .. } = operands;
    let rows = |offsets: &[usize]| offsets.last().copied().unwrap_or(0);
    let expected = rows(query_offsets) * heads * head_dim;
    assert_eq!([query.len(), context.len()], [expected; 2], "the offsets give the number of queries");
    assert_eq!([key.len(), value.len()], [rows(offsets) * heads * head_dim; 2], "keys and values have the same shape");
    for offsets in [query_offsets, offsets] {
        assert!(offsets.first().is_none_or(|&first| first == 0) && offsets.is_sorted(), "offsets ascend from 0");
    }
    assert_eq!(query_offsets.len(), offsets.len(), "every sequence has its queries");
    check_positions(&operands);
    assert!(level.is_supported(), "the processor does not support {level}");
    let sequences = offsets.len().saturating_sub(1);
    let call = Call { operands, context: context.as_mut_ptr() };
    parallelism.for_each(sequences * heads, |task| {
        let (sequence, head) = (task / heads, task % heads);
        let tokens = offsets[sequence]..offsets[sequence + 1];
        let queries = query_offsets[sequence]..query_offsets[sequence + 1];
        // SAFETY: the level is supported; the pointer in `call` comes from `context`, which has room for all queries and
        // outlives the call; each task writes its own rows and columns.
        unsafe { level.run(Head { call: &call, queries, tokens, head }) }
    });
}

/// Checks that the tables cover the longest sequence.
fn check_positions(operands: &Attention) {
    let Attention { heads, head_dim, query_offsets, offsets, positions, .. } = *operands;
    let longest = offsets.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    match positions {
        Positions::None => {}
        Positions::Rotary { cos, sin } => {
            assert!(head_dim % 2 == 0 && cos.len() == sin.len(), "a cosine and a sine for each pair of columns");
            assert!(cos.len() >= longest * head_dim / 2, "a rotation for each position");
        }
        Positions::Bias(bias) => assert!(reach(bias, heads) >= longest, "a bias for each distance"),
        Positions::Disentangled { key, query } => {
            for table in [key, query].into_iter().flatten() {
                assert!(reach(table, heads * head_dim) >= longest, "a vector for each distance");
            }
        }
    }
    if operands.window.is_some() || !matches!(positions, Positions::None) {
        let lengths = |offsets: &'_ [usize]| offsets.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<usize>>();
        let pairs = lengths(query_offsets).into_iter().zip(lengths(offsets));
        assert!(pairs.into_iter().all(|(queries, tokens)| queries <= tokens), "queries are those of tokens");
    }
}

/// The reach of a table with `width` numbers per distance.
fn reach(table: &[f32], width: usize) -> usize {
    assert!(
        table.len().is_multiple_of(width) && table.len() / width % 2 == 1,
        "a table of distances has an odd number of entries"
    );
    (table.len() / width).div_ceil(2)
}

struct Call<'a> {
    operands: Attention<'a>,
    context: *mut f32,
}

// SAFETY: tasks write disjoint parts of `context`.
unsafe impl Sync for Call<'_> {}

/// A task: one head of one sequence.
struct Head<'a> {
    call: &'a Call<'a>,
    queries: Range<usize>,
    tokens: Range<usize>,
    head: usize,
}

impl Kernel for Head<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Attention { query, key, value, head_dim, scale, positions, .. } = self.call.operands;
        let stride = self.row_stride();
        let mut task = Loan::for_task();
        // SAFETY: `attention` has checked the operands; the task writes only its own head's part of the context, and
        // the blocks are reserved for this sequence.
        unsafe {
            if self.tokens.is_empty() {
                return self.attend_to_nothing();
            }
            let blocks = Blocks::reserve::<S>(&mut task, self.tokens.len(), head_dim);
            let keys = Rows { start: key.as_ptr().add(self.start(self.tokens.start)), stride };
            let rotation = Rotation::reserve(&mut task, positions, self.tokens.len(), head_dim);
            let keys = rotation.keys::<S>(keys, self.tokens.len());
            blocks.pack_panels::<S>(keys, self.tokens.len(), blocks.keys);
            blocks.pack_values::<S>(value.as_ptr().add(self.start(self.tokens.start)), stride);
            let terms = self.terms::<S>(&blocks, &mut task, keys);
            for rows in row_tiles(self.queries.len(), S::TILE_ROWS, 1) {
                let seen = self.seen::<S>(&rows);
                let start = self.start(self.queries.start + rows.start);
                let queries = rotation.queries::<S>(Rows { start: query.as_ptr().add(start), stride }, &rows);
                blocks.pack_left::<S>(queries, rows.len());
                blocks.score::<S>(rows.len(), &seen);
                terms.multiply::<S>(&blocks, &rows);
                let mut scales = [0.0; MOST_TILE_ROWS];
                for (row, weights_scale) in scales.iter_mut().take(rows.len()).enumerate() {
                    terms.add::<S>(&blocks, row, rows.start + row, &seen);
                    blocks.hide(S::TILE_ROWS, row, self.visible(rows.start + row), &seen);
                    *weights_scale = 1.0 / blocks.weigh::<S>(row, &seen, scale);
                }
                blocks.mix::<S>(rows.len(), &seen);
                blocks.store::<S>(&scales[..rows.len()], self.call.context.add(start), stride);
            }
        }
    }
}

impl Head<'_> {
    /// Distance between rows, in floats.
    fn row_stride(&self) -> usize {
        self.call.operands.heads * self.call.operands.head_dim
    }

    /// Where the head's columns of a row start.
    fn start(&self, row: usize) -> usize {
        row * self.row_stride() + self.head * self.call.operands.head_dim
    }

    /// The keys that the query at `position` attends to.
    #[inline(always)]
    fn visible(&self, position: usize) -> Range<usize> {
        match self.call.operands.window {
            None => 0..self.tokens.len(),
            Some(window) => {
                position.saturating_sub(window)
                    ..position.saturating_add(window).saturating_add(1).min(self.tokens.len())
            }
        }
    }

    /// The keys that any of these queries attends to, starting at a panel.
    #[inline(always)]
    fn seen<S: Simd>(&self, rows: &Range<usize>) -> Range<usize> {
        let start = self.visible(rows.start).start;
        start - start % (2 * S::LANES)..self.visible(rows.end - 1).end
    }

    /// The position terms of this head's scores.
    ///
    /// # Safety
    /// As for [`Head`] as a kernel.
    #[inline(always)]
    unsafe fn terms<S: Simd>(&self, blocks: &Blocks, task: &mut Loan, keys: Rows) -> Terms {
        let Attention { heads, positions, .. } = self.call.operands;
        let tokens = self.tokens.len();
        match positions {
            Positions::None | Positions::Rotary { .. } => Terms::None,
            Positions::Bias(bias) => {
                let reach = reach(bias, heads);
                Terms::Bias { middle: bias[self.head * (2 * reach - 1) + reach - 1..].as_ptr() }
            }
            Positions::Disentangled { key, query } => {
                let mut products = Products::reserve::<S>(task, tokens, blocks.head_dim, self.queries.len());
                let vectors = |table: &[f32]| Rows {
                    start: table.as_ptr().wrapping_add(self.start(reach(table, self.row_stride()) - tokens)),
                    stride: self.row_stride(),
                };
                // SAFETY: the table has a vector for each distance in this sequence.
                unsafe {
                    if let Some(table) = query {
                        products.of_keys::<S>(blocks, vectors(table), keys, self.queries.len());
                    }
                    if let Some(table) = key {
                        products.pack_vectors::<S>(blocks, vectors(table));
                    }
                }
                Terms::Products(products)
            }
        }
    }

    /// Zeros the context of queries in a sequence without tokens.
    ///
    /// # Safety
    /// As for [`Head`] as a kernel.
    #[inline(always)]
    unsafe fn attend_to_nothing(&self) {
        for query in self.queries.clone() {
            // SAFETY: the head's columns of a row of the context.
            unsafe { self.call.context.add(self.start(query)).write_bytes(0, self.call.operands.head_dim) }
        }
    }
}
