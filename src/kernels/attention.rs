//! Self-attention over packed sequences: softmax((q · kᵀ + what the positions add) · scale) · v, a sequence and a head
//! at a time.
//!
//! What families do otherwise is a variant of the one kernel. A window bounds the loops over the keys. A bias is added to a
//! row of scores. Disentangled attention has two more products, of queries and keys with a vector for each distance; as
//! neighbouring keys have neighbouring distances, the product of a tile of queries and a run of these vectors is what a
//! row of scores needs, shifted by the query's position.

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

/// Queries, keys and values of a batch, and where its sequences lie in them. Not every token has to ask: the queries of a
/// sequence are those of its first tokens.
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
    /// What scores are multiplied by before the softmax: 1 / sqrt(head_dim) for a product of queries and keys alone.
    pub scale: f32,
    /// How many tokens on either side a token attends to; `None` means all.
    pub window: Option<usize>,
    /// What scores depend on beside queries and keys.
    pub positions: Positions<'a>,
}

/// How attention knows the tokens' positions. A table of distances is made for some `reach`, at least the length of the
/// longest sequence, and has an entry for each distance from 1 - reach to reach - 1.
#[derive(Clone, Copy)]
pub enum Positions<'a> {
    /// Not at all.
    None,
    /// Queries and keys are rotated: the pairs (x[i], x[i + head_dim / 2]) by the angle whose cosine and sine these tables
    /// have at (position, i). <https://arxiv.org/abs/2104.09864>
    Rotary {
        /// (positions, head_dim / 2)
        cos: &'a [f32],
        /// (positions, head_dim / 2)
        sin: &'a [f32],
    },
    /// To a score is added the number of its head and of the distance key - query: (heads, 2 * reach - 1).
    Bias(&'a [f32]),
    /// To a score are added two products. <https://arxiv.org/abs/2006.03654>
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
/// If a slice's length disagrees with the others, or offsets do not ascend from 0 to the number of rows.
pub fn attention(level: Level, parallelism: Parallelism, operands: Attention) -> Vec<f32> {
    let Attention { query, key, value, heads, head_dim, query_offsets, offsets, .. } = operands;
    let rows = |offsets: &[usize]| offsets.last().copied().unwrap_or(0);
    let expected = rows(query_offsets) * heads * head_dim;
    assert_eq!(query.len(), expected, "queries of the offsets' number");
    assert_eq!([key.len(), value.len()], [rows(offsets) * heads * head_dim; 2], "keys and values of one shape");
    for offsets in [query_offsets, offsets] {
        assert!(offsets.first().is_none_or(|&first| first == 0) && offsets.is_sorted(), "offsets ascend from 0");
    }
    assert_eq!(query_offsets.len(), offsets.len(), "every sequence has its queries");
    check_positions(&operands);
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

/// Checks that the tables reach as far as the sequences are long.
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

/// The reach of a table with `width` numbers for each distance.
fn reach(table: &[f32], width: usize) -> usize {
    assert!(table.len() % width == 0 && table.len() / width % 2 == 1, "a table of distances has an odd number of them");
    (table.len() / width).div_ceil(2)
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
        let Attention { query, key, value, head_dim, scale, positions, .. } = self.call.operands;
        let stride = self.row_stride();
        let mut task = Loan::for_task();
        // SAFETY: the head's part of the operands is valid, as `attention` has checked, and of the context its own; the
        // blocks are reserved for this sequence.
        unsafe {
            if self.tokens.is_empty() {
                return self.attend_to_nothing();
            }
            let blocks = Blocks::reserve::<S>(&mut task, self.tokens.len(), head_dim);
            let keys = Rows { start: key.as_ptr().add(self.start(self.tokens.start)), stride };
            let rotation = blocks.rotation(&mut task, positions);
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
    /// From one row to the next, in floats.
    fn row_stride(&self) -> usize {
        self.call.operands.heads * self.call.operands.head_dim
    }

    /// Where the head's columns of a row begin.
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

    /// The keys that any of these queries attends to, from the start of a panel on.
    #[inline(always)]
    fn seen<S: Simd>(&self, rows: &Range<usize>) -> Range<usize> {
        let start = self.visible(rows.start).start;
        start - start % (2 * S::LANES)..self.visible(rows.end - 1).end
    }

    /// What is added to the scores of this head.
    ///
    /// # Safety
    /// That of [`Head`] as a kernel.
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

/// One head's columns of some rows.
#[derive(Clone, Copy)]
struct Rows {
    start: *const f32,
    /// From one row to the next, in floats.
    stride: usize,
}

/// Where rotated keys and queries go, if they are rotated.
struct Rotation<'a> {
    tables: Option<(&'a [f32], &'a [f32])>,
    keys: *mut f32,
    queries: *mut f32,
    head_dim: usize,
}

/// Every method needs the features of `S`, and rows that are valid.
impl Rotation<'_> {
    #[inline(always)]
    unsafe fn keys<S: Simd>(&self, keys: Rows, tokens: usize) -> Rows {
        // SAFETY: the caller's contract.
        unsafe { self.rotate::<S>(keys, &(0..tokens), self.keys) }
    }

    #[inline(always)]
    unsafe fn queries<S: Simd>(&self, queries: Rows, positions: &Range<usize>) -> Rows {
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
enum Terms {
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
    unsafe fn multiply<S: Simd>(&self, blocks: &Blocks, rows: &Range<usize>) {
        if let Terms::Products(products) = self {
            // SAFETY: the caller's contract.
            unsafe { products.of_queries::<S>(blocks, rows) }
        }
    }

    /// Adds to a row of scores, that of the query at `position`.
    #[inline(always)]
    unsafe fn add<S: Simd>(&self, blocks: &Blocks, row: usize, position: usize, seen: &Range<usize>) {
        // SAFETY: the terms of all keys of the sequence lie one after the other.
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

/// The products with the vectors of distances. A distance d of a sequence stands at d + tokens - 1.
struct Products {
    /// Panels of vectors, a distance a column.
    vectors: *mut f32,
    has_vectors: bool,
    /// Rows of a tile's products with all distances.
    terms: *mut f32,
    /// From one row of `terms` to the next.
    stride: usize,
    /// The keys' products with their distance from each query: a query a row, a key a column.
    of_keys: *mut f32,
    keys_stride: usize,
    has_keys: bool,
}

/// Every method needs the features of `S`, and vectors and keys that are valid.
impl Products {
    fn reserve<S: Simd>(task: &mut Loan, tokens: usize, head_dim: usize, queries: usize) -> Products {
        let panel = 2 * S::LANES;
        // A register may begin LANES before the first distance and end as far behind the last.
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
    unsafe fn pack_vectors<S: Simd>(&mut self, blocks: &Blocks, vectors: Rows) {
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

    /// The products of all keys with their distances from all queries, LANES keys at a time. The rows of a key are shifted
    /// by its position, so that a square of them with a stride one shorter than theirs, transposed, has a query a row.
    #[inline(always)]
    unsafe fn of_keys<S: Simd>(&mut self, blocks: &Blocks, vectors: Rows, keys: Rows, queries: usize) {
        let tokens = blocks.tokens;
        self.has_keys = true;
        // SAFETY: the caller's contract; rows of products begin LANES behind the start of what is reserved for them, as
        // squares do that reach beyond the sequence, in columns and rows that nobody reads.
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

/// The packed blocks of one head of one sequence, in a thread's buffers.
struct Blocks {
    tokens: usize,
    head_dim: usize,
    /// A tile of queries, or of another left factor: for each block of head_dim, rows [`ROW_STRIDE`] apart.
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

/// Where a product of a tile goes.
#[derive(Clone, Copy)]
struct Product {
    start: *mut f32,
    /// From one row to the next.
    stride: usize,
    /// From one [`K_BLOCK`] of columns to the next.
    block_stride: usize,
}

/// `seen` in blocks of [`K_BLOCK`], a multiple of every level's panel, with their numbers.
#[inline(always)]
fn token_blocks(seen: &Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let Range { start, end } = *seen;
    (start / K_BLOCK..end.div_ceil(K_BLOCK)).map(move |i| (i, start.max(i * K_BLOCK)..end.min((i + 1) * K_BLOCK)))
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

    fn rotation<'a>(&self, task: &mut Loan, positions: Positions<'a>) -> Rotation<'a> {
        let (keys, head_dim) = (self.tokens * self.head_dim, self.head_dim);
        match positions {
            Positions::Rotary { cos, sin } => {
                let rotated = task.rotated.reserve(keys + MOST_TILE_ROWS * head_dim);
                Rotation { tables: Some((cos, sin)), keys: rotated, queries: rotated.wrapping_add(keys), head_dim }
            }
            _ => Rotation { tables: None, keys: core::ptr::null_mut(), queries: core::ptr::null_mut(), head_dim },
        }
    }

    /// Rows that a panel of keys takes: keys are transposed a square register block at a time.
    fn key_depth<S: Simd>(head_dim: usize) -> usize {
        head_dim.next_multiple_of(S::LANES)
    }

    /// Packs `count` rows into the columns of panels.
    #[inline(always)]
    unsafe fn pack_panels<S: Simd>(&self, rows: Rows, count: usize, panels: *mut f32) {
        let panel = 2 * S::LANES;
        for first in (0..count).step_by(panel) {
            let columns = (count - first).min(panel);
            for block in k_blocks(self.head_dim, K_BLOCK) {
                // SAFETY: rows from `first` on and the block's columns lie inside the operand; the blocks begin at
                // multiples of 16, so that what they are padded with lies inside the panel.
                unsafe {
                    let to = panels.add(first * Self::key_depth::<S>(self.head_dim) + block.start * panel);
                    let from = rows.start.add(first * rows.stride + block.start);
                    pack_columns::<Whole<S>>(columns, block.len(), from, rows.stride, 0, |_| Grid::NONE, to);
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

    /// Packs a tile of queries, or of another left factor.
    #[inline(always)]
    unsafe fn pack_left<S: Simd>(&self, rows: Rows, count: usize) {
        for (i, block) in k_blocks(self.head_dim, K_BLOCK).enumerate() {
            // SAFETY: the rows and the block's columns lie inside the operand, and a tile has room for them.
            unsafe {
                let to = self.queries.add(i * S::TILE_ROWS * ROW_STRIDE);
                let from = rows.start.add(block.start);
                pack_rows::<Whole<S>>(count, block.len(), from, rows.stride, |_| Grid::NONE, to);
            }
        }
    }

    /// The packed tile's products with the columns of the panels that have some of `columns`.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&self, rows: usize, panels: *const f32, columns: &Range<usize>, to: Product) {
        let panel = 2 * S::LANES;
        for (i, block) in k_blocks(self.head_dim, K_BLOCK).enumerate() {
            for first in (columns.start / panel * panel..columns.end).step_by(panel) {
                // SAFETY: the panels and the result have room for whole panels, as K_BLOCK is a multiple of their width.
                unsafe {
                    let a = self.queries.add(i * S::TILE_ROWS * ROW_STRIDE);
                    let b = panels.add(first * Self::key_depth::<S>(self.head_dim) + block.start * panel);
                    let c = to.start.add(first / K_BLOCK * to.block_stride + first % K_BLOCK);
                    let (k, c_stride, add) = (block.len(), to.stride, i > 0);
                    multiply_tile::<Whole<S>>(Tile { rows, a, b, k, c, c_stride, add });
                }
            }
        }
    }

    /// Scores of the packed tile for the keys that are seen.
    #[inline(always)]
    unsafe fn score<S: Simd>(&self, rows: usize, seen: &Range<usize>) {
        let to = Product { start: self.scores, stride: ROW_STRIDE, block_stride: S::TILE_ROWS * ROW_STRIDE };
        // SAFETY: a tile of scores has room for whole panels.
        unsafe { self.multiply::<S>(rows, self.keys, seen, to) }
    }

    /// Adds to a row's scores the terms of their keys; that of key 0 stands at `terms`.
    #[inline(always)]
    unsafe fn add<S: Simd>(&self, row: usize, terms: *const f32, seen: &Range<usize>) {
        for (i, block) in token_blocks(seen) {
            for key in block.step_by(S::LANES) {
                // SAFETY: the row's scores are padded to whole registers; no term behind those that are seen is read.
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

    /// Takes the scores of keys that are seen, but not visible to this row, out of the softmax.
    #[inline(always)]
    unsafe fn hide(&self, tile_rows: usize, row: usize, visible: Range<usize>, seen: &Range<usize>) {
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
    unsafe fn weigh<S: Simd>(&self, row: usize, seen: &Range<usize>, scale: f32) -> f32 {
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
    unsafe fn mix<S: Simd>(&self, rows: usize, seen: &Range<usize>) {
        let panel = 2 * S::LANES;
        let stride = self.head_dim.next_multiple_of(panel);
        for column in (0..self.head_dim).step_by(panel) {
            for (i, block) in token_blocks(seen) {
                // SAFETY: the tiles and the panel were written for these rows, tokens and columns.
                unsafe {
                    let weights = self.scores.add(i * S::TILE_ROWS * ROW_STRIDE + block.start % K_BLOCK);
                    let values = self.values.add(column * self.tokens + block.start * panel);
                    let (k, c, add) = (block.len(), self.sums.add(column), block.start > seen.start);
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
        Attention {
            query,
            key,
            value,
            heads,
            head_dim,
            query_offsets: offsets,
            offsets,
            scale: 1.0 / (head_dim as f32).sqrt(),
            window: None,
            positions: Positions::None,
        }
    }

    /// Queries of `scale` make scores as far apart; values are below 1, and so is what they are mixed to.
    fn check(lengths: &[usize], heads: usize, head_dim: usize, scale: f32, tolerance: f64) {
        check_variant(lengths, heads, head_dim, scale, tolerance, |operands| operands)
    }

    /// `vary` changes the operands of plain attention.
    fn check_variant(
        lengths: &[usize],
        heads: usize,
        head_dim: usize,
        scale: f32,
        tolerance: f64,
        vary: impl for<'b> Fn(Attention<'b>) -> Attention<'b>,
    ) {
        let mut random = Random::new((lengths.len() * heads * head_dim) as u64);
        let offsets = offsets(lengths);
        let hidden = heads * head_dim;
        let floats = offsets[lengths.len()] * hidden;
        let (query, key) = (random.floats(floats, scale), random.floats(floats, 1.0));
        let value = random.floats(floats, 1.0);
        let operands = vary(Attention { head_dim, ..of(&query, &key, &value, heads, &offsets) });
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
    fn a_window_hides_what_is_further_away() {
        for window in [0, 1, 5, 64, 1000] {
            for lengths in [&[1, 2, 40, 7][..], &[500, 193]] {
                check_variant(lengths, 2, 24, 2.0, 2e-6, |operands| Attention { window: Some(window), ..operands });
            }
        }
    }

    #[test]
    fn rotary_positions_turn_queries_and_keys() {
        for (lengths, head_dim) in [(&[1, 5, 40][..], 64), (&[210], 6), (&[33, 2], 34)] {
            let angles: Vec<f32> = (0..210 * head_dim / 2).map(|i| i as f32 * 0.37).collect();
            let cos: Vec<f32> = angles.iter().map(|angle| angle.cos()).collect();
            let sin: Vec<f32> = angles.iter().map(|angle| angle.sin()).collect();
            let positions = Positions::Rotary { cos: &cos, sin: &sin };
            for window in [None, Some(3)] {
                check_tables(lengths, 2, head_dim, positions, window);
            }
        }
    }

    #[test]
    fn biases_are_added_by_distance() {
        for (lengths, reach) in [(&[1, 5, 40][..], 40), (&[210, 3], 256)] {
            let bias = Random::new(3).floats(3 * (2 * reach - 1), 4.0);
            for window in [None, Some(20)] {
                check_tables(lengths, 3, 16, Positions::Bias(&bias), window);
            }
        }
    }

    #[test]
    fn disentangled_positions_add_two_products() {
        let (heads, mut random) = (3, Random::new(5));
        for (lengths, reach, head_dim) in
            [(&[1, 2, 3, 17][..], 17, 8), (&[40, 64, 13], 64, 20), (&[210, 100], 256, 64), (&[16, 32, 8], 33, 200)]
        {
            let tables = [(); 2].map(|()| random.floats((2 * reach - 1) * heads * head_dim, 1.0));
            let [key, query] = [0, 1].map(|i| Some(&tables[i][..]));
            for (key, query) in [(key, query), (key, None), (None, query), (None, None)] {
                check_tables(lengths, heads, head_dim, Positions::Disentangled { key, query }, None);
            }
        }
    }

    /// Attention whose tables outlive the operands.
    fn check_tables(lengths: &[usize], heads: usize, head_dim: usize, positions: Positions, window: Option<usize>) {
        let (offsets, mut random) = (offsets(lengths), Random::new(head_dim as u64));
        let floats = offsets[lengths.len()] * heads * head_dim;
        let [query, key, value] = [(); 3].map(|()| random.floats(floats, 1.0));
        let operands = Attention { positions, window, ..of(&query, &key, &value, heads, &offsets) };
        let truth = truth(operands);
        let firsts: Vec<usize> = (0..=lengths.len()).collect();
        let hidden = heads * head_dim;
        for level in levels() {
            let what = format!("{level}, lengths {lengths:?}, {heads} heads of {head_dim}, window {window:?}");
            let context = attention(level, Parallelism::Single, operands);
            assert_close(&context, &truth, &vec![1.0; truth.len()], 4e-6, &what);
            assert_eq!(attention(level, Parallelism::Pool, operands), context, "{what}, in parallel");
            let first = |rows: &[f32]| {
                offsets[..lengths.len()]
                    .iter()
                    .flat_map(|&i| rows[i * hidden..][..hidden].to_vec())
                    .collect::<Vec<f32>>()
            };
            let query = first(&query);
            let of_firsts = Attention { query: &query, query_offsets: &firsts, ..operands };
            assert_eq!(attention(level, Parallelism::Single, of_firsts), first(&context), "{what}, first tokens");
            // Alone, the last sequence gives the same bits.
            let last = offsets[lengths.len() - 1] * hidden..;
            let alone = [0, lengths[lengths.len() - 1]];
            let alone = Attention {
                query: &operands.query[last.clone()],
                key: &key[last.clone()],
                value: &value[last.clone()],
                query_offsets: &alone,
                offsets: &alone,
                ..operands
            };
            assert_eq!(attention(level, Parallelism::Single, alone), context[last], "{what}, alone");
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
