//! Self-attention over packed sequences: softmax(q · kᵀ · scale) · v, a sequence and a head at a time.

use super::activation::exp;
use super::factors::Whole;
use super::product::{
    k_blocks, multiply_tile, pack_columns, pack_rows, row_tiles, Tile, K_BLOCK, MOST_TILE_ROWS, ROW_STRIDE,
};
use super::quantization::Grid;
use super::scratch::Loan;
use super::simd::Simd;
use super::{Kernel, Level, Parallelism};
use core::ops::Range;

/// Queries, keys and values of a batch, and where its sequences lie in them. Not every token has to ask.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    /// What the asking tokens ask for, (queries, heads * head_dim).
    pub query: &'a [f32],
    /// What each token is asked by, (total_tokens, heads * head_dim).
    pub key: &'a [f32],
    /// What each token answers, (total_tokens, heads * head_dim).
    pub value: &'a [f32],
    /// Attention heads.
    pub heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// Start of each sequence among the queries, and the end of the last.
    pub query_offsets: &'a [usize],
    /// Start of each sequence among the tokens, and the end of the last.
    pub offsets: &'a [usize],
}

/// softmax(q · kᵀ / sqrt(head_dim)) · v, (queries, heads * head_dim); each query attends to the tokens of its own sequence.
///
/// # Panics
/// Where a slice's length disagrees with the others, or offsets do not ascend from 0 to the number of rows.
pub fn attention(level: Level, parallelism: Parallelism, operands: Attention) -> Vec<f32> {
    let Attention { query, key, value, heads, head_dim, query_offsets, offsets } = operands;
    let rows = |offsets: &[usize]| offsets.last().copied().unwrap_or(0);
    let expected = rows(query_offsets) * heads * head_dim;
    assert_eq!(query.len(), expected, "queries of the offsets' number");
    assert_eq!([key.len(), value.len()], [rows(offsets) * heads * head_dim; 2], "keys and values of one shape");
    for offsets in [query_offsets, offsets] {
        assert!(offsets.first().is_none_or(|&first| first == 0) && offsets.is_sorted(), "offsets ascend from 0");
    }
    assert_eq!(query_offsets.len(), offsets.len(), "every sequence has its queries");
    assert!(level.is_supported(), "the processor has no {level}");
    let sequences = offsets.len().saturating_sub(1);
    let mut context = Vec::with_capacity(expected);
    let call = Call { operands, context: context.as_mut_ptr() };
    parallelism.for_each(sequences * heads, |task| {
        let (sequence, head) = (task / heads, task % heads);
        let tokens = offsets[sequence]..offsets[sequence + 1];
        let queries = query_offsets[sequence]..query_offsets[sequence + 1];
        // SAFETY: the level is supported; the pointer in `call` is that of `context`, which has room for `expected`
        // floats and outlives the call; each task writes rows and columns of its own.
        unsafe { level.run(Head { call: &call, queries, tokens, head }) }
    });
    // SAFETY: every query is in a sequence, and every column in a head.
    unsafe { context.set_len(expected) }
    context
}

struct Call<'a> {
    operands: Attention<'a>,
    context: *mut f32,
}

// SAFETY: tasks write disjoint parts of `context`.
unsafe impl Sync for Call<'_> {}

/// One head of one sequence: a task.
struct Head<'a> {
    call: &'a Call<'a>,
    queries: Range<usize>,
    tokens: Range<usize>,
    head: usize,
}

impl Kernel for Head<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Attention { query, key, value, head_dim, .. } = self.call.operands;
        let stride = self.row_stride();
        let mut task = Loan::for_task();
        // SAFETY: the head's part of the operands is valid, as `attention` has checked, and of the context its own; the
        // blocks are reserved for this sequence.
        unsafe {
            if self.tokens.is_empty() {
                return self.attend_to_nothing();
            }
            let blocks = Blocks::reserve::<S>(&mut task, self.tokens.len(), head_dim);
            blocks.pack_keys::<S>(key.as_ptr().add(self.start(self.tokens.start)), stride);
            blocks.pack_values::<S>(value.as_ptr().add(self.start(self.tokens.start)), stride);
            for rows in row_tiles(self.queries.len(), S::TILE_ROWS, 1) {
                let start = self.start(self.queries.start + rows.start);
                blocks.score::<S>(rows.len(), query.as_ptr().add(start), stride);
                let mut scales = [0.0; MOST_TILE_ROWS];
                for (row, scale) in scales.iter_mut().take(rows.len()).enumerate() {
                    *scale = 1.0 / blocks.weigh::<S>(row);
                }
                blocks.mix::<S>(rows.len());
                blocks.store::<S>(&scales[..rows.len()], self.call.context.add(start), stride);
            }
        }
    }
}

impl Head<'_> {
    /// From one row to the next, in floats.
    fn row_stride(&self) -> usize {
        self.call.operands.heads * self.call.operands.head_dim
    }

    /// Where the head's columns of a row begin.
    fn start(&self, row: usize) -> usize {
        row * self.row_stride() + self.head * self.call.operands.head_dim
    }

    /// Queries of a sequence without tokens: a sum over nothing.
    ///
    /// # Safety
    /// That of [`Head`] as a kernel.
    #[inline(always)]
    unsafe fn attend_to_nothing(&self) {
        for query in self.queries.clone() {
            // SAFETY: the head's columns of a row of the context.
            unsafe { self.call.context.add(self.start(query)).write_bytes(0, self.call.operands.head_dim) }
        }
    }
}

/// The packed blocks of one head of one sequence, in a thread's buffers.
struct Blocks {
    tokens: usize,
    head_dim: usize,
    /// A tile of queries: for each block of head_dim, rows [`ROW_STRIDE`] apart.
    queries: *mut f32,
    /// Panels of keys, a key a column, each panel as deep as [`Blocks::key_depth`].
    keys: *mut f32,
    /// Panels of columns of the values, a key a row, each panel `tokens` deep.
    values: *mut f32,
    /// A tile of scores, then of weights: for each [`K_BLOCK`] keys, rows [`ROW_STRIDE`] apart, as a product reads its
    /// left factor.
    scores: *mut f32,
    /// A tile of the context, before it is divided by the sums of the weights.
    sums: *mut f32,
}

/// Every method needs the features of `S`, and pointers that are valid for the rows that it takes, a stride apart.
impl Blocks {
    fn reserve<S: Simd>(task: &mut Loan, tokens: usize, head_dim: usize) -> Blocks {
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

    /// Rows that a panel of keys takes: keys are transposed a square register block at a time.
    fn key_depth<S: Simd>(head_dim: usize) -> usize {
        head_dim.next_multiple_of(S::LANES)
    }

    /// The tokens in blocks of [`K_BLOCK`], a multiple of every level's panel.
    fn token_blocks(&self) -> impl Iterator<Item = Range<usize>> {
        let tokens = self.tokens;
        (0..tokens).step_by(K_BLOCK).map(move |start| start..(start + K_BLOCK).min(tokens))
    }

    #[inline(always)]
    unsafe fn pack_keys<S: Simd>(&self, keys: *const f32, stride: usize) {
        let panel = 2 * S::LANES;
        for first in (0..self.tokens).step_by(panel) {
            let columns = (self.tokens - first).min(panel);
            for block in k_blocks(self.head_dim, K_BLOCK) {
                // SAFETY: keys from `first` on and the block's columns lie inside the operand; the blocks begin at
                // multiples of 16, so that what they are padded with lies inside the panel.
                unsafe {
                    let to = self.keys.add(first * Self::key_depth::<S>(self.head_dim) + block.start * panel);
                    let from = keys.add(first * stride + block.start);
                    pack_columns::<Whole<S>>(columns, block.len(), from, stride, 0, |_| Grid::NONE, to);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn pack_values<S: Simd>(&self, values: *const f32, stride: usize) {
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
            // The last panel's right half has no column; it is multiplied all the same.
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

    /// Scores of `rows` queries for every key.
    #[inline(always)]
    unsafe fn score<S: Simd>(&self, rows: usize, queries: *const f32, stride: usize) {
        let (panel, tile_floats) = (2 * S::LANES, S::TILE_ROWS * ROW_STRIDE);
        for (i, block) in k_blocks(self.head_dim, K_BLOCK).enumerate() {
            // SAFETY: the rows and the block's columns lie inside the operand; a tile of queries has room for them, a
            // tile of scores for whole panels, as K_BLOCK is a multiple of their width.
            unsafe {
                let packed = self.queries.add(i * tile_floats);
                pack_rows::<Whole<S>>(rows, block.len(), queries.add(block.start), stride, |_| Grid::NONE, packed);
                for first in (0..self.tokens).step_by(panel) {
                    let keys = self.keys.add(first * Self::key_depth::<S>(self.head_dim) + block.start * panel);
                    let scores = self.scores.add(first / K_BLOCK * tile_floats + first % K_BLOCK);
                    let (k, c_stride, add) = (block.len(), ROW_STRIDE, i > 0);
                    multiply_tile::<Whole<S>>(Tile { rows, a: packed, b: keys, k, c: scores, c_stride, add });
                }
            }
        }
    }

    /// Turns a row's scores into weights, e^((score - largest) / sqrt(head_dim)), and returns their sum.
    #[inline(always)]
    unsafe fn weigh<S: Simd>(&self, row: usize) -> f32 {
        let tile_floats = S::TILE_ROWS * ROW_STRIDE;
        // SAFETY: the row's blocks of scores, padded to whole registers, lie inside the tile.
        unsafe {
            let scores = self.scores.add(row * ROW_STRIDE);
            let last = scores.add((self.tokens - 1) / K_BLOCK * tile_floats);
            for padding in (self.tokens - 1) % K_BLOCK + 1..((self.tokens - 1) % K_BLOCK + 1).next_multiple_of(S::LANES)
            {
                *last.add(padding) = f32::NEG_INFINITY;
            }
            let mut largest = S::splat(f32::NEG_INFINITY);
            for (i, block) in self.token_blocks().enumerate() {
                for j in (0..block.len()).step_by(S::LANES) {
                    largest = S::max(largest, S::load(scores.add(i * tile_floats + j)));
                }
            }
            let largest = S::splat(S::reduce_max(largest));
            let scale = S::splat(1.0 / (self.head_dim as f32).sqrt());
            let mut sum = S::splat(0.0);
            for (i, block) in self.token_blocks().enumerate() {
                for j in (0..block.len()).step_by(S::LANES) {
                    let score = scores.add(i * tile_floats + j);
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
    unsafe fn mix<S: Simd>(&self, rows: usize) {
        let panel = 2 * S::LANES;
        let stride = self.head_dim.next_multiple_of(panel);
        for column in (0..self.head_dim).step_by(panel) {
            for (i, block) in self.token_blocks().enumerate() {
                // SAFETY: the tiles and the panel were written for these rows, tokens and columns.
                unsafe {
                    let weights = self.scores.add(i * S::TILE_ROWS * ROW_STRIDE);
                    let values = self.values.add(column * self.tokens + block.start * panel);
                    let (k, c, add) = (block.len(), self.sums.add(column), i > 0);
                    multiply_tile::<Whole<S>>(Tile { rows, a: weights, b: values, k, c, c_stride: stride, add });
                }
            }
        }
    }

    /// Writes the context, a row of it for each of `scales`.
    #[inline(always)]
    unsafe fn store<S: Simd>(&self, scales: &[f32], context: *mut f32, stride: usize) {
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

#[cfg(test)]
mod tests {
    use super::super::reference::{assert_close, attention as truth, levels, Random};
    use super::*;

    fn offsets(lengths: &[usize]) -> Vec<usize> {
        let ends = lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        std::iter::once(0).chain(ends).collect()
    }

    /// Operands in which every token asks.
    fn of<'a>(query: &'a [f32], key: &'a [f32], value: &'a [f32], heads: usize, offsets: &'a [usize]) -> Attention<'a> {
        let head_dim = query.len() / heads / offsets.last().unwrap().max(&1);
        Attention { query, key, value, heads, head_dim, query_offsets: offsets, offsets }
    }

    /// Queries of `scale` make scores as far apart; values are below 1, and so is what they are mixed to.
    fn check(lengths: &[usize], heads: usize, head_dim: usize, scale: f32, tolerance: f64) {
        let mut random = Random::new((lengths.len() * heads * head_dim) as u64);
        let offsets = offsets(lengths);
        let hidden = heads * head_dim;
        let floats = offsets[lengths.len()] * hidden;
        let (query, key) = (random.floats(floats, scale), random.floats(floats, 1.0));
        let value = random.floats(floats, 1.0);
        let operands = of(&query, &key, &value, heads, &offsets);
        let truth = truth(operands);
        let size = vec![1.0; truth.len()];
        // The first token of each sequence asks, and no other.
        let firsts = |rows: &[f32]| {
            offsets[..lengths.len()].iter().flat_map(|&i| rows[i * hidden..][..hidden].to_vec()).collect::<Vec<f32>>()
        };
        let (first_query, first_offsets) = (firsts(&query), (0..=lengths.len()).collect::<Vec<usize>>());
        let of_firsts = Attention { query: &first_query, query_offsets: &first_offsets, ..operands };
        for level in levels() {
            let what = format!("{level}, lengths {lengths:?}, {heads} heads of {head_dim}");
            let context = attention(level, Parallelism::Single, operands);
            assert_close(&context, &truth, &size, tolerance, &what);
            assert_eq!(attention(level, Parallelism::Pool, operands), context, "{what}, in parallel");
            assert_eq!(attention(level, Parallelism::Single, of_firsts), firsts(&context), "{what}, first tokens");
        }
    }

    #[test]
    fn sequences_of_mixed_lengths_attend_to_themselves() {
        check(&[2, 512, 3, 17, 64, 1, 193, 192], 2, 64, 2.0, 2e-6);
        check(&[5, 31, 32, 33, 100], 12, 32, 2.0, 2e-6);
    }

    #[test]
    fn heads_of_any_width_are_served() {
        for head_dim in [1, 7, 16, 24, 33, 48, 80, 96, 128, 200] {
            check(&[1, 9, 40, 20], 3, head_dim, 1.0, 2e-6);
        }
    }

    #[test]
    fn scores_far_apart_leave_the_largest() {
        // Scores up to 1e4: a rounding of one shifts a weight by 1e-3.
        check(&[20, 50], 2, 64, 2_000.0, 5e-3);
    }

    #[test]
    fn a_sequence_gives_the_same_bits_in_any_batch() {
        let mut random = Random::new(7);
        let (heads, head_dim) = (3, 20);
        let hidden = heads * head_dim;
        let offsets = offsets(&[40, 7, 61]);
        let (query, key) = (random.floats(108 * hidden, 1.0), random.floats(108 * hidden, 1.0));
        let operands = of(&query, &key, &key, heads, &offsets);
        for level in levels() {
            let batch = attention(level, Parallelism::Single, operands);
            for pair in offsets.windows(2) {
                let part = pair[0] * hidden..pair[1] * hidden;
                let (query, key) = (&query[part.clone()], &key[part.clone()]);
                let alone = [0, pair[1] - pair[0]];
                let operands = of(query, key, key, heads, &alone);
                assert_eq!(attention(level, Parallelism::Single, operands), batch[part], "{level}");
            }
        }
    }

    #[test]
    fn a_key_scored_minus_infinity_has_no_weight() {
        let (query, mut key) = ([1.0; 6], [0.25, 0.5, 0.0, 0.0, 0.25, 0.5]);
        key[2] = f32::NEG_INFINITY;
        let value = [1.0, 2.0, 1e30, 1e30, 3.0, 4.0];
        let operands = of(&query, &key, &value, 1, &[0, 3]);
        for level in levels() {
            for row in attention(level, Parallelism::Single, operands).chunks(2) {
                assert_eq!(row, [2.0, 3.0], "{level}");
            }
        }
    }

    #[test]
    fn nan_and_infinity_stay_in_their_sequence() {
        let (query, mut key) = ([1.0; 8], [0.5; 8]);
        for bad in [f32::NAN, f32::INFINITY] {
            key[1] = bad;
            let operands = of(&query, &key, &query, 1, &[0, 2, 4]);
            for level in levels() {
                let context = attention(level, Parallelism::Single, operands);
                assert!(context[..4].iter().all(|x| x.is_nan()), "{level}: {context:?}");
                assert_eq!(context[4..], [1.0; 4], "{level}");
            }
        }
    }

    #[test]
    fn empty_batches_and_sequences_give_nothing() {
        for level in levels() {
            let operands = Attention { head_dim: 4, ..of(&[], &[], &[], 2, &[0, 0]) };
            assert!(attention(level, Parallelism::Single, operands).is_empty());
            let no_batch = Attention { query_offsets: &[], offsets: &[], ..operands };
            assert!(attention(level, Parallelism::Pool, no_batch).is_empty());
            let to_nothing = Attention { query: &[1.0; 8], query_offsets: &[0, 1], ..operands };
            assert_eq!(attention(level, Parallelism::Pool, to_nothing), [0.0; 8], "{level}");
        }
    }
}
