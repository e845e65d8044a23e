//! The linear layer, y = act(x · Wᵀ + b), optionally added to or multiplied with another operand.
//!
//! The loop nest of one call, with the sizes of AVX-512 (a panel is 32 columns, a tile 14 rows, a block [`K_BLOCK`]
//! lanes):
//!
//! ```text
//! for each task: up to 4 neighbouring panels of W             one thread; 4 blocks of panels are 96 KiB: second level
//!   for each block of K
//!     for each pass: all of the task's panels
//!       for each tile of x                                    14 rows of a block are 11 KiB: first level
//!         for each of the pass's panels                       a block of one panel is 24 KiB: streams to the first level
//!           prefetch a share of the panels' next blocks
//!           sums of the tile += tile of x · block of panel    28 registers of sums
//!           after the last block of K: finish the tile        scale, bias, activation, other operand; store or pack
//! ```
//!
//! With AMX a tile is 32 rows, a block 96 lanes, and a pass two panels. It is the panels that stay in the first-level
//! cache, 24 KiB for all of x, while tiles of x (12 KiB) and of sums (4 KiB) stream to it: a product takes so few cycles
//! that otherwise it would wait for the panels. A tile is finished while the next one is multiplied, as products leave
//! the vector registers alone. The sums go through the cache once per block, so a block should not be shorter.
//!
//! [`K_BLOCK`]: super::product::K_BLOCK
//!
//! Weights may stay as they are stored, row-major (out, in), for example in a mapped file. Each call then packs a task's
//! block of weights before multiplying it. This takes a third of a cycle per weight, while a row of x takes a sixteenth
//! (AVX-512, float32): a tenth of the time at 50 rows, a fiftieth at 250, and less than copying the model for a single
//! text. For more than one text it is better to pack the weights once: see `weight.rs`.

use super::factors::{Factors, Precision};
use super::operand::{Mode, Operand};
use super::product::{row_tiles, Meanwhile, Tile, PANEL_BLOCK};
use super::quantization::Grid;
use super::scratch::{Buffer, Left, Loan};
use super::simd::Simd;
use super::weight::{pack_block, PackedLayout, PackedWeight, Weight};
use super::{Activation, Kernel, Level, Parallelism, ProductKernel};
use core::ops::Range;

/// The weights of a layer, and what follows the product.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    /// (out, in)
    pub weight: Weight<'a>,
    /// (out)
    pub bias: &'a [f32],
    /// Applied to the biased sums.
    pub activation: Activation,
    /// Precision of the product; everything else is float32.
    pub precision: Precision,
}

/// What a layer's result is combined with as it is stored, (rows, out).
#[derive(Clone, Copy)]
pub enum Combined<'a> {
    /// With nothing.
    Alone,
    /// Added: a residual.
    Plus(&'a [f32]),
    /// Multiplied: the result is a gate.
    Times(&'a [f32]),
}

impl Combined<'_> {
    /// Rows `rows` of the operand, each of `out` numbers.
    fn rows(self, rows: &Range<usize>, out: usize) -> Self {
        match self {
            Combined::Alone => self,
            Combined::Plus(other) => Combined::Plus(&other[rows.start * out..rows.end * out]),
            Combined::Times(other) => Combined::Times(&other[rows.start * out..rows.end * out]),
        }
    }

    fn len(self) -> Option<usize> {
        match self {
            Combined::Alone => None,
            Combined::Plus(other) | Combined::Times(other) => Some(other.len()),
        }
    }
}

/// Rows that are packed at once, and go through a task's panels together.
const MOST_ROWS: usize = 640;
/// Maximum number of panels per task.
pub(super) const MOST_PANELS: usize = 4;
/// A cache line.
const FLOATS_OF_LINE: usize = 16;

impl Linear<'_> {
    /// Numbers in a row of x.
    ///
    /// # Panics
    /// If the weights do not fit the bias, or packed ones the level or the precision.
    pub fn in_dim(&self, level: Level) -> usize {
        let out = self.bias.len();
        match self.weight {
            Weight::Stored(weight) => {
                let k = weight.len() / out.max(1);
                assert_eq!(weight.len(), out * k, "the weights of a linear layer are (out, in)");
                k
            }
            Weight::Packed(packed) => {
                let fits = (packed.out, packed.level, packed.precision) == (out, level, self.precision);
                assert!(fits, "the weights were packed for this level and precision");
                packed.k
            }
        }
    }
}

/// Applies `layer` to `x`, (rows, in), and returns (rows, out), `combined` with an operand of the same shape.
///
/// # Panics
/// If the lengths of the slices disagree, or packed weights are for another level or precision.
pub fn linear(level: Level, parallelism: Parallelism, layer: Linear, x: &[f32], combined: Combined) -> Vec<f32> {
    let (out, k) = (layer.bias.len(), layer.in_dim(level));
    let rows = x.len() / k.max(1);
    assert_eq!(x.len(), rows * k, "the operand of a linear layer is (rows, in)");
    assert!(combined.len().is_none_or(|len| len == rows * out), "the other operand has the shape of the result");
    let mode = Mode { level, parallelism, precision: layer.precision };
    let mut y = vec![0.0; rows * out];
    let mut call = Loan::for_call();
    for rows in row_tiles(rows, MOST_ROWS, 1) {
        let x = Operand::pack(mode, k, &x[rows.start * k..rows.end * k], &mut call.left);
        x.multiply(mode, layer, combined.rows(&rows, out), &mut y[rows.start * out..rows.end * out]);
    }
    y
}

impl Operand<'_> {
    /// Applies `layer` to these rows: `y` is (rows, out), and so is what it is combined with.
    ///
    /// # Panics
    /// If the lengths disagree, or the layer is for another level or precision.
    pub(super) fn multiply(&self, mode: Mode, layer: Linear, combined: Combined, y: &mut [f32]) {
        assert_eq!(y.len(), self.rows * layer.bias.len(), "the result of a linear layer is (rows, out)");
        self.multiply_to(mode, layer, combined, Destination::Rows(y.as_mut_ptr()));
    }

    /// Applies `layer` to these rows and packs the result for the layer that follows. It is packed tile by tile, unless
    /// that needs whole rows, which are then written to `y`.
    ///
    /// # Panics
    /// As for [`Operand::multiply`].
    pub(super) fn multiply_and_pack<'a>(
        &self,
        mode: Mode,
        layer: Linear,
        combined: Combined,
        y: &'a mut Buffer,
        left: &'a mut Left,
    ) -> Operand<'a> {
        let out = layer.bias.len();
        if Operand::needs_whole_rows(mode) {
            let y = y.floats(self.rows * out);
            self.multiply(mode, layer, combined, y);
            return Operand::pack(mode, out, y, left);
        }
        let packed = Operand::reserve(mode, out, core::ptr::null(), self.rows * out, left);
        self.multiply_to(mode, layer, combined, Destination::Packed(&packed));
        packed
    }

    fn multiply_to(&self, mode: Mode, layer: Linear, combined: Combined, to: Destination) {
        let Mode { level, parallelism, precision } = mode;
        let out = layer.bias.len();
        assert_eq!((layer.in_dim(level), layer.precision), (self.k, precision), "rows and layer fit together");
        let len = self.rows * out;
        assert!(combined.len().is_none_or(|other| other == len), "the other operand has the shape of the result");
        if len == 0 {
            return;
        }
        match (layer.weight, PackedWeight::is_of_use(level, precision)) {
            (Weight::Stored(weight), true) if precision == Precision::Int8 => {
                // An output's grid depends on all of its weights.
                let packed = PackedWeight::new(level, precision, out, weight);
                let layer = Linear { weight: Weight::Packed(&packed), ..layer };
                Product { x: self, layer, combined, to }.run(level, parallelism)
            }
            (Weight::Stored(weight), false) => {
                Product { x: self, layer, combined, to }.run_unpacked(weight, parallelism)
            }
            (Weight::Packed(_), false) => unreachable!("the gemm crate packs weights itself"),
            (_, true) => Product { x: self, layer, combined, to }.run(level, parallelism),
        }
    }
}

/// Where a result goes. Its memory has room for the whole result, and outlives the product.
#[derive(Clone, Copy)]
enum Destination<'a> {
    /// (rows, out)
    Rows(*mut f32),
    /// The left factor of the next layer.
    Packed(&'a Operand<'a>),
}

/// The operands of one call. Their shapes agree, and the processor supports the level that they are packed for.
#[derive(Clone, Copy)]
struct Product<'a> {
    x: &'a Operand<'a>,
    layer: Linear<'a>,
    /// (rows, out)
    combined: Combined<'a>,
    to: Destination<'a>,
}

// SAFETY: tasks write disjoint parts of the destination.
unsafe impl Sync for Product<'_> {}

impl Product<'_> {
    /// Uses this project's own product.
    fn run(&self, level: Level, parallelism: Parallelism) {
        let out = self.layer.bias.len();
        let panel = PackedLayout::new(level, self.layer.precision).panel_columns;
        let width = panels_of_a_task(out.div_ceil(panel), parallelism) * panel;
        parallelism.for_each(out.div_ceil(width), |task| {
            let columns = task * width..((task + 1) * width).min(out);
            // SAFETY: the level is supported, and the operands fit; each task writes columns of its own.
            unsafe { level.run_product(self.layer.precision, Panels { product: self, columns }) }
        });
    }

    /// Uses the gemm crate, which supports vector registers that have no level here.
    fn run_unpacked(&self, weight: &[f32], parallelism: Parallelism) {
        let Operand { rows, k, numbers: x, .. } = *self.x;
        let (out, y) = (self.layer.bias.len(), self.rows());
        let threads = match parallelism {
            Parallelism::Single => gemm::Parallelism::None,
            Parallelism::Pool | Parallelism::Team(_) => gemm::Parallelism::Rayon(0),
        };
        let (k_stride, out_stride) = (k as isize, out as isize);
        let weight = weight.as_ptr();
        // SAFETY: the shapes and strides are those of (rows, out), (rows, k) and of the transpose of (out, k).
        unsafe {
            gemm::gemm(
                rows, out, k, y, 1, out_stride, false, x, 1, k_stride, weight, k_stride, 1, 0.0, 1.0, false, false,
                false, threads,
            )
        }
        parallelism.for_each(rows, |row| {
            // SAFETY: every processor supports the portable level; each task writes its own row, which holds the sums.
            unsafe { Level::Portable.run(Finish { product: self, row }) }
        });
    }

    /// The result, (rows, out).
    fn rows(&self) -> *mut f32 {
        match self.to {
            Destination::Rows(y) => y,
            Destination::Packed(_) => unreachable!("rows are packed only if the weights are"),
        }
    }

    /// The result, from the final sums of `n` columns of a row.
    ///
    /// # Safety
    /// The processor has the features of `S`; row and columns lie inside the result.
    #[inline(always)]
    unsafe fn result<S: Simd>(&self, row: usize, column: usize, n: usize, sums: S::V, bias: S::V) -> S::V {
        let place = row * self.layer.bias.len() + column;
        // SAFETY: the caller's contract.
        unsafe {
            let v = self.layer.activation.apply::<S>(self.layer.precision, S::add(sums, bias));
            match self.combined {
                Combined::Alone => v,
                Combined::Plus(residual) => S::add(v, S::load_first(residual.as_ptr().add(place), n)),
                Combined::Times(factor) => S::mul(v, S::load_first(factor.as_ptr().add(place), n)),
            }
        }
    }
}

/// A task: one row of the result, which holds the sums.
struct Finish<'a> {
    product: &'a Product<'a>,
    row: usize,
}

impl Kernel for Finish<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let bias = self.product.layer.bias;
        for column in (0..bias.len()).step_by(S::LANES) {
            let n = (bias.len() - column).min(S::LANES);
            // SAFETY: the caller's contract.
            unsafe {
                let y = self.product.rows().add(self.row * bias.len() + column);
                let bias = S::load_first(bias.as_ptr().add(column), n);
                S::store_first(y, self.product.result::<S>(self.row, column, n, S::load_first(y, n), bias), n);
            }
        }
    }
}

/// How many neighbouring panels a thread takes at once. More panels mean fewer passes over x, but there must be enough
/// tasks for all threads to finish together.
fn panels_of_a_task(panels: usize, parallelism: Parallelism) -> usize {
    match parallelism.threads() {
        1 => MOST_PANELS,
        threads => (panels / (2 * threads)).clamp(1, MOST_PANELS),
    }
}

/// A task: a few neighbouring panels of a product's columns.
struct Panels<'a> {
    product: &'a Product<'a>,
    columns: Range<usize>,
}

impl ProductKernel for Panels<'_> {
    #[inline(always)]
    unsafe fn run<F: Factors>(self) {
        let Operand { rows, k, room, .. } = *self.product.x;
        let layout = PackedLayout::of::<F>();
        let panels = self.columns.len().div_ceil(layout.panel_columns);
        // One cache line more than the columns need, or the rows of a tile would map to few cache sets.
        let stride = panels * layout.panel_columns + FLOATS_OF_LINE;
        let tiles = row_tiles(rows, F::TILE_ROWS, F::ROW_GRANULE);
        let blocks = layout.blocks(k);
        let mut task = Loan::for_task();
        // With a single block of K, a tile's sums are finished before those of the next are written.
        let sums_rows = if blocks.len() == 1 { 0 } else { 1 };
        let sums = task.sums.reserve(room * stride);
        let mut finished = Finished { panels: &self, rows: 0..0, first: 0, sums, stride };
        // SAFETY: the caller's contract; tiles, panels and blocks lie inside x, the weights and the sums; `begin` and
        // `end` are paired.
        unsafe {
            F::begin();
            for (number, block) in blocks.clone().enumerate() {
                let mut ahead = self.next_block(&layout, &block, tiles.len() * panels);
                let (weights, panel_stride) = self.block::<F>(&block, &mut task);
                for pass in (0..panels).step_by(F::PANELS_OF_A_PASS) {
                    for tile in tiles.clone() {
                        let (rows, k, a) = (tile.len(), block.len(), self.product.x.row(number, tile.start));
                        let sums = sums.add(sums_rows * tile.start * stride);
                        for panel in pass..panels.min(pass + F::PANELS_OF_A_PASS) {
                            let (ahead, ahead_step) = match self.product.layer.weight {
                                Weight::Packed(_) => ahead.take_share(block.len()),
                                Weight::Stored(_) => ahead.prefetch_share::<F::S>(a),
                            };
                            let (b, c) = (weights.add(panel * panel_stride), sums.add(panel * layout.panel_columns));
                            let tile_of_sums =
                                Tile { rows, a, b, k, c, c_stride: stride, add: number > 0, ahead, ahead_step };
                            F::multiply_tile(tile_of_sums, layout.block_plane(&block), &mut finished);
                            if number + 1 == blocks.len() {
                                let first = self.columns.start + panel * layout.panel_columns;
                                finished = Finished { rows: tile.clone(), first, sums: c, ..finished };
                                if !F::LEAVES_TIME {
                                    finished.share::<F>(1);
                                }
                            }
                        }
                    }
                }
            }
            if F::LEAVES_TIME {
                finished.share::<F>(1);
            }
            F::end();
        }
    }
}

impl Panels<'_> {
    /// Where a block of the first panel starts, and the distance to the next panel. Packs the weights if they are not.
    ///
    /// # Safety
    /// As for [`Panels`] as a kernel.
    #[inline(always)]
    unsafe fn block<F: Factors>(&self, block: &Range<usize>, task: &mut Loan) -> (*const f32, usize) {
        let (k, layout) = (self.product.x.k, PackedLayout::of::<F>());
        let weight = match self.product.layer.weight {
            Weight::Packed(packed) => {
                let panel = packed.panel(&layout, self.columns.start / layout.panel_columns);
                return (panel.wrapping_add(layout.block_start(block)), layout.panel(k));
            }
            Weight::Stored(weight) => weight,
        };
        let to = task.panels.reserve(self.columns.len().div_ceil(layout.panel_columns) * PANEL_BLOCK);
        for (panel, first) in self.columns.clone().step_by(layout.panel_columns).enumerate() {
            let columns = (self.columns.end - first).min(layout.panel_columns);
            // SAFETY: the columns are rows of the weights, the block a range of their k; a panel has a PANEL_BLOCK.
            unsafe {
                let (rows, to) = (weight.as_ptr().add(first * k), to.add(panel * PANEL_BLOCK));
                pack_block::<F>(columns, layout.numbers(block, k), rows, k, |_| Grid::NONE, to);
            }
        }
        (to, PANEL_BLOCK)
    }

    /// Writes the results of a tile whose final sums are `sums`, of the panel that starts at column `first`. The sums
    /// are lost.
    ///
    /// # Safety
    /// As for [`Panels`] as a kernel; the sums of these rows are `stride` apart.
    #[inline(always)]
    unsafe fn finish<F: Factors>(&self, rows: Range<usize>, first: usize, sums: *mut f32, stride: usize) {
        let layer = &self.product.layer;
        let end = self.columns.end.min(first + 2 * F::S::LANES);
        let (y, y_stride) = match self.product.to {
            Destination::Rows(y) => (y.wrapping_add(rows.start * layer.bias.len() + first), layer.bias.len()),
            Destination::Packed(_) => (sums, stride),
        };
        for column in (first..end).step_by(F::S::LANES) {
            let n = (end - column).min(F::S::LANES);
            // SAFETY: the rows and columns lie inside the result and the sums, the columns inside bias and grids.
            unsafe {
                let zeros = F::S::splat(0.0);
                let bias = F::S::load_first(layer.bias.as_ptr().add(column), n);
                let (steps, column_sums) = match layer.weight {
                    Weight::Packed(weight) if F::ON_GRID => (
                        F::S::load_first(weight.steps.as_ptr().add(column), n),
                        F::S::load_first(weight.sums.as_ptr().add(column), n),
                    ),
                    _ => (zeros, zeros),
                };
                for (i, row) in rows.clone().enumerate() {
                    let mut sum = F::S::load(sums.add(i * stride + column - first));
                    if F::ON_GRID {
                        // From sums of grid points to sums of numbers.
                        let (step, zero) = self.product.x.grid(row);
                        let places = F::without_zero(sum, zero, column_sums);
                        sum = F::S::mul(F::S::mul(places, steps), F::S::splat(step));
                    }
                    let result = self.product.result::<F::S>(row, column, n, sum, bias);
                    F::S::store_first(y.add(i * y_stride + column - first), result, n);
                }
            }
        }
        if let Destination::Packed(operand) = self.product.to {
            // SAFETY: the operand has room for the result, and the sums are results now.
            unsafe { operand.put::<F>(rows, first..end, sums, stride) }
        }
    }

    /// What is read after `block`, in `steps` shares: the next block of k of these columns, or the first block of the
    /// following columns, which this thread most likely takes next.
    #[inline(always)]
    fn next_block(&self, layout: &PackedLayout, block: &Range<usize>, steps: usize) -> Ahead {
        let (k, out) = (self.product.x.k, self.product.layer.bias.len());
        let numbers = layout.numbers(block, k);
        let is_last = numbers.end == k;
        let first = if is_last { self.columns.end } else { self.columns.start };
        let columns = self.columns.len().min(out - first);
        match self.product.layer.weight {
            Weight::Stored(weight) => {
                let start = if is_last { 0 } else { numbers.end };
                Ahead::new(weight.as_ptr().wrapping_add(first * k + start), k, columns, numbers.len(), steps)
            }
            Weight::Packed(packed) => {
                let start = if is_last { 0 } else { layout.block_start(&(block.end..block.end)) };
                let from = packed.panel(layout, first / layout.panel_columns).wrapping_add(start);
                let panels = columns.div_ceil(layout.panel_columns);
                Ahead::new(from, layout.panel(k), panels, layout.block_plane(block) * layout.planes, steps)
            }
        }
    }
}

/// Final sums of a tile, to be written to the result.
struct Finished<'a> {
    panels: &'a Panels<'a>,
    rows: Range<usize>,
    /// The first column.
    first: usize,
    sums: *mut f32,
    /// Distance between rows of the sums.
    stride: usize,
}

impl Meanwhile for Finished<'_> {
    #[inline(always)]
    unsafe fn share<F: Factors>(&mut self, shares: usize) {
        let (start, count) = (self.rows.start, self.rows.len().div_ceil(shares));
        if count > 0 {
            // SAFETY: the caller's contract; these are rows of the tile.
            unsafe {
                self.panels.finish::<F>(start..start + count, self.first, self.sums, self.stride);
                self.sums = self.sums.add(count * self.stride);
            }
            self.rows.start += count;
        }
    }
}

/// Rows of memory that are needed next, in equal shares. They are prefetched explicitly because the hardware prefetcher
/// does not detect this many short rows.
struct Ahead {
    /// The next line.
    at: *const f32,
    stride: usize,
    /// Rows that are left, this one included.
    rows: usize,
    /// Lines of a row.
    lines: usize,
    /// Lines that are left of this row.
    left: usize,
    /// Lines per share.
    share: usize,
}

impl Ahead {
    /// The first `length` floats of each row.
    #[inline(always)]
    fn new(from: *const f32, stride: usize, rows: usize, length: usize, shares: usize) -> Ahead {
        let lines = length.div_ceil(FLOATS_OF_LINE);
        Ahead { at: from, stride, rows, lines, left: lines, share: (rows * lines).div_ceil(shares) }
    }

    /// Takes up to `most` lines that follow each other: the first, and how many.
    #[inline(always)]
    fn take(&mut self, most: usize) -> (*const f32, usize) {
        let (at, run) = (self.at, most.min(self.left));
        if self.rows == 0 {
            return (at, 0);
        }
        self.left -= run;
        self.at = at.wrapping_add(run * FLOATS_OF_LINE);
        if self.left == 0 {
            self.at = self.at.wrapping_sub(self.lines * FLOATS_OF_LINE).wrapping_add(self.stride);
            (self.rows, self.left) = (self.rows - 1, self.lines);
        }
        (at, run)
    }

    /// A share, at the end of a row less than that, for a tile with `k` steps: its start, and floats per step. A burst
    /// would fill the processor's queue of loads, and the product would wait.
    #[inline(always)]
    fn take_share(&mut self, k: usize) -> (*const f32, usize) {
        let (at, lines) = self.take(self.share);
        (at, (lines * FLOATS_OF_LINE).div_ceil(k))
    }

    /// Prefetches a share of many short rows at once, and leaves nothing but `here` for the steps of a tile.
    #[inline(always)]
    unsafe fn prefetch_share<S: Simd>(&mut self, here: *const f32) -> (*const f32, usize) {
        let mut left = self.share;
        while left > 0 && self.rows > 0 {
            let (at, run) = self.take(left);
            for line in 0..run {
                // SAFETY: any address may be prefetched.
                unsafe { S::prefetch(at.wrapping_add(line * FLOATS_OF_LINE)) }
            }
            left -= run;
        }
        (here, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::factors::round_to_bf16;
    use super::super::reference::{self, assert_close, levels, levels_and_precisions, Random};
    use super::*;

    /// Sums of float32 products in blocks: off by a few roundings of 6e-8 of the terms' magnitude.
    const TOLERANCE: f64 = 4e-7;

    /// The exact product for that precision, and the magnitude of each element's terms.
    fn truth(x: &[f32], weight: &[f32], bias: &[f32], precision: Precision) -> (Vec<f64>, Vec<f64>) {
        let k = weight.len() / bias.len();
        let high = |numbers: &[f32]| numbers.iter().map(|&x| round_to_bf16(x)).collect::<Vec<f32>>();
        let low = |numbers: &[f32]| numbers.iter().map(|&x| round_to_bf16(x - round_to_bf16(x))).collect::<Vec<f32>>();
        match precision {
            Precision::F32 => reference::linear(x, weight, bias),
            Precision::Bf16 => reference::linear(&high(x), &high(weight), bias),
            Precision::Bf16x3 => {
                let no_bias = vec![0.0; bias.len()];
                let (mut truth, size) = reference::linear(&high(x), &high(weight), bias);
                for (x, weight) in [(high(x), low(weight)), (low(x), high(weight))] {
                    let more = reference::linear(&x, &weight, &no_bias).0;
                    truth.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
                }
                (truth, size)
            }
            Precision::Int8 => {
                reference::linear(&reference::on_grids(x, k, 255), &reference::on_grids(weight, k, 127), bias)
            }
        }
    }

    fn check(random: &mut Random, rows: usize, k: usize, out: usize, scale: f32) {
        let (x, weight) = (random.floats(rows * k, scale), random.floats(out * k, 1.0));
        let (bias, residual) = (random.floats(out, scale), random.floats(rows * out, scale));
        for precision in Precision::ALL {
            let (mut truth, mut size) = truth(&x, &weight, &bias, precision);
            for ((truth, size), &residual) in truth.iter_mut().zip(&mut size).zip(&residual) {
                *truth += f64::from(residual);
                *size += f64::from(residual).abs();
            }
            let layer =
                Linear { weight: Weight::Stored(&weight), bias: &bias, activation: Activation::Identity, precision };
            for level in levels() {
                let what = format!("{level}, {precision:?}, {rows} rows, {k} to {out}");
                let y = linear(level, Parallelism::Single, layer, &x, Combined::Plus(&residual));
                assert_close(&y, &truth, &size, TOLERANCE, &what);
                assert_eq!(
                    linear(level, Parallelism::Pool, layer, &x, Combined::Plus(&residual)),
                    y,
                    "{what}, in parallel"
                );
                if (level, precision) == (Level::Portable, Precision::F32) {
                    // The portable level passes stored weights to the gemm crate.
                    continue;
                }
                let packed = PackedWeight::new(level, precision, out, &weight);
                let layer = Linear { weight: Weight::Packed(&packed), ..layer };
                assert_eq!(
                    linear(level, Parallelism::Single, layer, &x, Combined::Plus(&residual)),
                    y,
                    "{what}, packed"
                );
            }
        }
    }

    /// A gate equals the product times the other operand, to the bit, packed or not.
    #[test]
    fn a_result_is_multiplied_by_its_gate() {
        let mut random = Random::new(8);
        let (rows, k, out) = (37, 70, 45);
        let (x, weight, bias) = (random.floats(rows * k, 1.0), random.floats(out * k, 1.0), random.floats(out, 1.0));
        let factor = random.floats(rows * out, 1.0);
        for (level, precision) in levels_and_precisions() {
            let weight = Weight::Stored(&weight);
            let layer = Linear { weight, bias: &bias, activation: Activation::Gelu, precision };
            let alone = linear(level, Parallelism::Single, layer, &x, Combined::Alone);
            let expected: Vec<f32> = alone.iter().zip(&factor).map(|(y, factor)| y * factor).collect();
            for parallelism in [Parallelism::Single, Parallelism::Pool] {
                let gated = linear(level, parallelism, layer, &x, Combined::Times(&factor));
                assert_eq!(gated, expected, "{level}, {precision}");
            }
        }
    }

    #[test]
    fn three_products_of_bf16_are_close_to_float32() {
        let mut random = Random::new(6);
        let (rows, k, out) = (7, 500, 40);
        let (x, weight, bias) = (random.floats(rows * k, 1.0), random.floats(out * k, 1.0), vec![0.0; out]);
        let (truth, size) = reference::linear(&x, &weight, &bias);
        for level in levels() {
            let layer = Linear {
                weight: Weight::Stored(&weight),
                bias: &bias,
                activation: Activation::Identity,
                precision: Precision::Bf16x3,
            };
            let y = linear(level, Parallelism::Single, layer, &x, Combined::Alone);
            // Each factor is off by at most 2^-18 of itself, and the product of two low parts is 2^-18 of the whole.
            assert_close(&y, &truth, &size, 3.0 / f64::from(1 << 18), &level.to_string());
        }
    }

    #[test]
    fn random_shapes_give_the_product() {
        let mut random = Random::new(1);
        for _ in 0..40 {
            let (rows, k, out) = (random.size(1, 70), random.size(1, 420), random.size(1, 150));
            check(&mut random, rows, k, out, 1.0);
        }
    }

    #[test]
    fn shapes_at_the_edges_give_the_product() {
        let mut random = Random::new(2);
        for (rows, k, out) in [
            (1, 1, 1),
            (1, 768, 4),
            (14, 192, 32),
            (15, 193, 33),
            (28, 384, 64),
            (512, 50, 20),
            (505, 16, 16),
            (6, 40, 129),
        ] {
            check(&mut random, rows, k, out, 1.0);
        }
    }

    #[test]
    fn large_and_denormal_values_give_the_product() {
        let mut random = Random::new(3);
        check(&mut random, 9, 100, 40, 1e30);
        // The products are denormal, below 2^-126; their sums stay exact to the last bit.
        let (x, weight, bias) = (random.floats(5 * 20, 1e-20), random.floats(7 * 20, 1e-20), vec![0.0; 7]);
        let (truth, _) = reference::linear(&x, &weight, &bias);
        let one_bit = vec![f64::from(f32::from_bits(1)); truth.len()];
        for level in levels() {
            let layer = Linear {
                weight: Weight::Stored(&weight),
                bias: &bias,
                activation: Activation::Identity,
                precision: Precision::F32,
            };
            let y = linear(level, Parallelism::Single, layer, &x, Combined::Alone);
            assert_close(&y, &truth, &one_bit, 20.0, &level.to_string());
        }
    }

    #[test]
    fn infinities_and_nan_stay_in_their_rows() {
        let mut random = Random::new(4);
        let (k, out) = (50, 37);
        let (weight, bias) = (random.floats(out * k, 1.0), random.floats(out, 1.0));
        let mut x = random.floats(17 * k, 1.0);
        for (level, precision) in levels_and_precisions() {
            let layer =
                Linear { weight: Weight::Stored(&weight), bias: &bias, activation: Activation::Gelu, precision };
            let clean = linear(level, Parallelism::Single, layer, &x, Combined::Alone);
            x[3 * k + 5] = f32::NEG_INFINITY;
            x[16 * k + 49] = f32::NAN;
            let y = linear(level, Parallelism::Single, layer, &x, Combined::Alone);
            for row in 0..17 {
                let row_y = &y[row * out..(row + 1) * out];
                match row {
                    3 => assert!(row_y.iter().all(|y| !y.is_finite()), "{level}"),
                    16 => assert!(row_y.iter().all(|y| y.is_nan()), "{level}"),
                    _ => assert_eq!(row_y, &clean[row * out..(row + 1) * out], "{level}"),
                }
            }
            x[3 * k + 5] = 0.5;
            x[16 * k + 49] = 0.5;
        }
    }

    #[test]
    fn a_row_gives_the_same_bits_in_any_batch() {
        let mut random = Random::new(5);
        let (rows, k, out) = (61, 401, 70);
        let (x, weight, bias) = (random.floats(rows * k, 1.0), random.floats(out * k, 1.0), random.floats(out, 1.0));
        for (level, precision) in levels_and_precisions() {
            if (level, precision) == (Level::Portable, Precision::F32) {
                // The gemm crate sums in several ways, depending on the number of rows.
                continue;
            }
            let layer =
                Linear { weight: Weight::Stored(&weight), bias: &bias, activation: Activation::Gelu, precision };
            let batch = linear(level, Parallelism::Single, layer, &x, Combined::Alone);
            for (first, last) in [(0, 1), (60, 61), (3, 18), (7, 36)] {
                let part = linear(level, Parallelism::Single, layer, &x[first * k..last * k], Combined::Alone);
                assert_eq!(part, batch[first * out..last * out], "{level}, {precision:?}, rows {first} to {last}");
            }
        }
    }

    /// The columns of a tile may belong to two blocks of the next product, and the last be fewer than a register's.
    #[test]
    fn tiles_are_packed_as_whole_rows_are() {
        let mut random = Random::new(6);
        let shapes = [(1, 7, 5), (3, 64, 427), (47, 33, 1040)].into_iter();
        let shapes: Vec<_> =
            shapes.chain((0..4).map(|_| (random.size(1, 40), random.size(1, 300), random.size(1, 900)))).collect();
        for (rows, k, out) in shapes {
            let (x, other) = (random.floats(rows * k, 1.0), random.floats(rows * out, 1.0));
            let (weight, bias) = (random.floats(out * k, 1.0), random.floats(out, 1.0));
            let (next_weight, next_bias) = (random.floats(19 * out, 1.0), random.floats(19, 1.0));
            for (level, precision) in levels_and_precisions() {
                let mode = Mode { level, parallelism: Parallelism::Single, precision };
                let layer =
                    |weight, bias, activation| Linear { weight: Weight::Stored(weight), bias, activation, precision };
                let first = layer(&weight, &bias, Activation::Gelu);
                let next = |x: Operand| {
                    let mut y = vec![0.0; rows * 19];
                    x.multiply(mode, layer(&next_weight, &next_bias, Activation::Identity), Combined::Alone, &mut y);
                    y
                };
                for combined in [Combined::Alone, Combined::Times(&other)] {
                    let [mut left, mut of_rows, mut of_tiles] = [(); 3].map(|()| Left::default());
                    // Lanes that are left as they were would show.
                    of_tiles.lanes.floats(2 * rows.next_multiple_of(32) * (out + 1000)).fill(f32::NAN);
                    let x = Operand::pack(mode, k, &x, &mut left);
                    let (mut y, mut buffer) = (vec![0.0; rows * out], Buffer::default());
                    x.multiply(mode, first, combined, &mut y);
                    let expected = next(Operand::pack(mode, out, &y, &mut of_rows));
                    let packed = x.multiply_and_pack(mode, first, combined, &mut buffer, &mut of_tiles);
                    assert_eq!(next(packed), expected, "{level}, {precision}, {rows} rows, {k} to {out}");
                }
            }
        }
    }

    #[test]
    fn nothing_gives_nothing() {
        for level in levels() {
            let layer = Linear {
                weight: Weight::Stored(&[1.0; 6]),
                bias: &[0.0; 2],
                activation: Activation::Identity,
                precision: Precision::F32,
            };
            assert!(linear(level, Parallelism::Pool, layer, &[], Combined::Alone).is_empty());
        }
    }
}
