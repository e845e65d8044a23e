//! The linear layer, y = act(x · Wᵀ + b), optionally added to or multiplied with another operand.
//!
//! Weights may stay as they are stored, row-major (out, in), for example in a mapped file. Each call then packs a few
//! panels' worth of rows at a time into the layout that the product reads. This takes a third of a cycle per weight,
//! while a row of x takes a sixteenth (AVX-512, float32): a tenth of the time at 50 rows, a fiftieth at 250, and less
//! than copying the model for a single text. For more than one text it is better to pack the weights once: see
//! `weight.rs`.

use super::factors::{Factors, Precision};
use super::product::{pack_rows, row_tiles, Tile, PANEL_BLOCK, ROW_STRIDE};
use super::quantization::Grid;
use super::scratch::Loan;
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
    /// The same operand from float `start` on.
    fn from(self, start: usize) -> Self {
        match self {
            Combined::Alone => self,
            Combined::Plus(other) => Combined::Plus(&other[start..]),
            Combined::Times(other) => Combined::Times(&other[start..]),
        }
    }

    fn len(self) -> Option<usize> {
        match self {
            Combined::Alone => None,
            Combined::Plus(other) | Combined::Times(other) => Some(other.len()),
        }
    }
}

/// Rows that go through a panel before the next block of rows: their sums fit the second-level cache.
const MOST_ROWS: usize = 640;
/// Maximum number of panels per task.
const MOST_PANELS: usize = 4;

/// Rows packed per task.
const ROWS_OF_A_TASK: usize = 64;
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
    let out = layer.bias.len();
    let k = layer.in_dim(level);
    let rows = x.len() / k.max(1);
    assert_eq!(x.len(), rows * k, "the operand of a linear layer is (rows, in)");
    assert!(combined.len().is_none_or(|len| len == rows * out), "the other operand has the shape of the result");
    assert!(level.is_supported(), "the processor does not support {level}");
    if let (Precision::Int8, Weight::Stored(weight)) = (layer.precision, layer.weight) {
        // An output's grid depends on all of its weights.
        let packed = PackedWeight::new(level, layer.precision, out, weight);
        return linear(level, parallelism, Linear { weight: Weight::Packed(&packed), ..layer }, x, combined);
    }
    let mut y = Vec::with_capacity(rows * out);
    if rows > 0 && out > 0 {
        let product = Product { rows, k, out, x: x.as_ptr(), layer, combined, y: y.as_mut_ptr() };
        // SAFETY: the level is supported; the pointers come from slices whose lengths were checked above, and from `y`,
        // which has room for the result; they outlive the call.
        unsafe {
            match (level, layer.precision, layer.weight) {
                (Level::Portable, Precision::F32, Weight::Stored(weight)) => product.run_unpacked(weight, parallelism),
                _ => product.run_packed(level, parallelism),
            }
        }
    }
    // SAFETY: every element of (rows, out) was written.
    unsafe { y.set_len(rows * out) }
    y
}

/// The operands of one call, or of a block of its rows.
#[derive(Clone, Copy)]
struct Product<'a> {
    rows: usize,
    k: usize,
    out: usize,
    /// (rows, k)
    x: *const f32,
    layer: Linear<'a>,
    /// (rows, out)
    combined: Combined<'a>,
    /// (rows, out)
    y: *mut f32,
}

// SAFETY: `x` is only read, and tasks write disjoint parts of `y`.
unsafe impl Sync for Product<'_> {}

impl Product<'_> {
    /// Uses this project's own product.
    ///
    /// # Safety
    /// The processor supports the level; the pointers are valid for the shapes.
    unsafe fn run_packed(&self, level: Level, parallelism: Parallelism) {
        let Product { out, layer, .. } = *self;
        let layout = PackedLayout::new(level, layer.precision);
        let panels = out.div_ceil(layout.panel_columns);
        let width = panels_of_a_task(panels, parallelism) * layout.panel_columns;
        let mut call = Loan::for_call();
        for Range { start: first, end } in row_tiles(self.rows, MOST_ROWS, 1) {
            let rows = end - first;
            let room = rows.next_multiple_of(layout.row_granule);
            let packed = PackedRows {
                room,
                lanes: call.rows.reserve(layout.blocks(self.k).len() * room * ROW_STRIDE),
                grids: call.grids.reserve(2 * rows),
            };
            // SAFETY: the rows from `first` on lie inside the operands.
            let product = unsafe {
                let combined = self.combined.from(first * out);
                Product { rows, x: self.x.add(first * self.k), combined, y: self.y.add(first * out), ..*self }
            };
            parallelism.for_each(rows.div_ceil(ROWS_OF_A_TASK), |task| {
                let rows = task * ROWS_OF_A_TASK..((task + 1) * ROWS_OF_A_TASK).min(rows);
                // SAFETY: the caller's contract; `packed` has room for each block's rows; each task packs its own.
                unsafe { level.run_product(layer.precision, Rows { product: &product, packed: &packed, rows }) }
            });
            parallelism.for_each(out.div_ceil(width), |task| {
                let columns = task * width..((task + 1) * width).min(out);
                // SAFETY: the caller's contract; `packed` holds all rows; each task writes columns of its own.
                unsafe { level.run_product(layer.precision, Panels { product: &product, packed: &packed, columns }) }
            });
        }
    }

    /// Uses the gemm crate, which supports vector registers that have no level here.
    ///
    /// # Safety
    /// The pointers are valid for the shapes.
    unsafe fn run_unpacked(&self, weight: &[f32], parallelism: Parallelism) {
        let Product { rows, k, out, x, y, .. } = *self;
        let threads = match parallelism {
            Parallelism::Single => gemm::Parallelism::None,
            Parallelism::Pool => gemm::Parallelism::Rayon(0),
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
}

/// A task: one row of the result, which holds the sums.
struct Finish<'a> {
    product: &'a Product<'a>,
    row: usize,
}

impl Kernel for Finish<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let out = self.product.out;
        for column in (0..out).step_by(S::LANES) {
            let n = (out - column).min(S::LANES);
            // SAFETY: the caller's contract.
            unsafe {
                let sum = S::load_first(self.product.y.add(self.row * out + column), n);
                self.product.finish::<S>(self.row, column, n, sum);
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

/// The packed rows of a product: for each block of k, all rows, [`ROW_STRIDE`] apart.
struct PackedRows {
    /// Rows per block that there is room for.
    room: usize,
    lanes: *mut f32,
    /// The step of each row's grid and its grid point of 0, if the precision uses grids.
    grids: *mut f32,
}

// SAFETY: tasks write disjoint rows, and read them only when all have been written.
unsafe impl Sync for PackedRows {}

impl PackedRows {
    /// Where row `row` of block number `i` starts.
    #[inline(always)]
    fn row(&self, i: usize, row: usize) -> *mut f32 {
        self.lanes.wrapping_add((i * self.room + row) * ROW_STRIDE)
    }
}

/// A task: some rows of a product to pack.
struct Rows<'a> {
    product: &'a Product<'a>,
    packed: &'a PackedRows,
    rows: Range<usize>,
}

impl ProductKernel for Rows<'_> {
    #[inline(always)]
    unsafe fn run<F: Factors>(self) {
        let Product { k, x, .. } = *self.product;
        let layout = PackedLayout::of::<F>();
        let mut grids = [Grid::NONE; ROWS_OF_A_TASK];
        if F::ON_GRID {
            for (row, grid) in self.rows.clone().zip(&mut grids) {
                // SAFETY: the row lies inside x, and its grid inside the packed rows.
                unsafe {
                    *grid = Grid::of_activations::<F::S>(x.add(row * k), k);
                    self.packed.grids.add(2 * row).write(grid.step);
                    self.packed.grids.add(2 * row + 1).write(grid.zero);
                }
            }
        }
        for (i, block) in layout.blocks(k).enumerate() {
            let numbers = layout.numbers(&block, k);
            // SAFETY: the rows and the block's numbers lie inside x, the rows of the block inside the packed rows.
            unsafe {
                let from = x.add(self.rows.start * k + numbers.start);
                let to = self.packed.row(i, self.rows.start);
                pack_rows::<F>(self.rows.len(), numbers.len(), from, k, |row| grids[row], to);
            }
        }
    }
}

/// A task: a few neighbouring panels of a product's columns.
struct Panels<'a> {
    product: &'a Product<'a>,
    packed: &'a PackedRows,
    columns: Range<usize>,
}

/// A block of a task's panels, and what the thread reads next.
struct Block<'a> {
    /// Its index among the blocks of k.
    number: usize,
    /// In lanes.
    range: Range<usize>,
    weights: *const f32,
    /// From one panel to the next, in floats.
    panel_stride: usize,
    ahead: &'a Ahead,
}

impl ProductKernel for Panels<'_> {
    #[inline(always)]
    unsafe fn run<F: Factors>(self) {
        let layout = PackedLayout::of::<F>();
        let panels = self.columns.len().div_ceil(layout.panel_columns);
        let mut task = Loan::for_task();
        let sums = task.sums.reserve(self.packed.room * panels * layout.panel_columns);
        // SAFETY: the caller's contract; the buffers have room for `panels` panels and all rows; `begin` and `end` are
        // paired.
        unsafe {
            F::begin();
            for (number, range) in layout.blocks(self.product.k).enumerate() {
                let ahead = self.next_block(&layout, &range);
                let (weights, panel_stride) = match self.product.layer.weight {
                    Weight::Stored(weight) => {
                        let to = task.panels.reserve(panels * PANEL_BLOCK);
                        self.pack::<F>(weight, &range, to);
                        (to.cast_const(), PANEL_BLOCK)
                    }
                    Weight::Packed(packed) => {
                        let panel = packed.panel(&layout, self.columns.start / layout.panel_columns);
                        (panel.add(layout.block_start(&range)), layout.panel(self.product.k))
                    }
                };
                self.multiply::<F>(Block { number, range, weights, panel_stride, ahead: &ahead }, sums);
            }
            F::end();
            self.finish::<F>(sums);
        }
    }
}

impl Panels<'_> {
    /// Packs a block of the panels' weights.
    ///
    /// As for [`Panels`] as a kernel; `to` is valid for one [`PANEL_BLOCK`] per panel. That of [`Panels`] as a kernel;
    /// `to` is valid for a [`PANEL_BLOCK`] a panel.
    #[inline(always)]
    unsafe fn pack<F: Factors>(&self, weight: &[f32], block: &Range<usize>, to: *mut f32) {
        let k = self.product.k;
        let layout = PackedLayout::of::<F>();
        for (panel, first) in self.columns.clone().step_by(layout.panel_columns).enumerate() {
            let columns = (self.columns.end - first).min(layout.panel_columns);
            // SAFETY: the columns are rows of the weights, the block a range of their k.
            unsafe {
                let rows = weight.as_ptr().add(first * k);
                let to = to.add(panel * PANEL_BLOCK);
                pack_block::<F>(columns, layout.numbers(block, k), rows, k, |_| Grid::NONE, to);
            }
        }
    }

    /// Adds a block's products to the sums. A tile of x is multiplied with all panels before moving on to the next
    /// tile, which is prefetched meanwhile, as is the next block of weights.
    ///
    /// # Safety
    /// As for [`Panels`] as a kernel; `block` is one of the panels, and `sums` has room for all rows.
    #[inline(always)]
    unsafe fn multiply<F: Factors>(&self, block: Block, sums: *mut f32) {
        let layout = PackedLayout::of::<F>();
        let panels = self.columns.len().div_ceil(layout.panel_columns);
        let stride = panels * layout.panel_columns;
        let tiles = row_tiles(self.product.rows, F::TILE_ROWS, F::ROW_GRANULE);
        let steps = tiles.len() * panels;
        let plane = layout.block_plane(&block.range);
        for (t, tile_rows) in tiles.enumerate() {
            // SAFETY: block and rows lie inside the packed x; the tile's sums and panels inside the buffers.
            unsafe {
                let x = self.packed.row(block.number, tile_rows.start).cast_const();
                let sums = sums.add(tile_rows.start * stride);
                let next_rows = x.wrapping_add(tile_rows.len() * ROW_STRIDE);
                let rows_ahead = Ahead::new(next_rows, ROW_STRIDE, tile_rows.len(), block.range.len() * F::PLANES);
                for panel in 0..panels {
                    rows_ahead.prefetch::<F::S>(panel, panels);
                    block.ahead.prefetch::<F::S>(t * panels + panel, steps);
                    let weights = block.weights.add(panel * block.panel_stride);
                    let sums = sums.add(panel * layout.panel_columns);
                    let (rows, k, add) = (tile_rows.len(), block.range.len(), block.number > 0);
                    F::multiply_tile(Tile { rows, a: x, b: weights, k, c: sums, c_stride: stride, add }, plane);
                }
            }
        }
    }

    /// Writes the final sums to the result.
    ///
    /// # Safety
    /// As for [`Panels`] as a kernel; `sums` holds all rows.
    #[inline(always)]
    unsafe fn finish<F: Factors>(&self, sums: *const f32) {
        let stride = self.columns.len().next_multiple_of(2 * F::S::LANES);
        let first = self.columns.start;
        for row in 0..self.product.rows {
            for column in self.columns.clone().step_by(F::S::LANES) {
                let n = (self.columns.end - column).min(F::S::LANES);
                // SAFETY: the row lies inside the result and the sums, as do the columns.
                unsafe {
                    let mut sum = F::S::load(sums.add(row * stride + column - first));
                    if F::ON_GRID {
                        sum = self.off_grid::<F>(row, column, n, sum);
                    }
                    self.product.finish::<F::S>(row, column, n, sum);
                }
            }
        }
    }

    /// Turns sums of grid points into sums of numbers.
    ///
    /// # Safety
    /// As for [`Panels`] as a kernel; `n` columns from `column` on are columns of the product.
    #[inline(always)]
    unsafe fn off_grid<F: Factors>(
        &self,
        row: usize,
        column: usize,
        n: usize,
        sums: <F::S as Simd>::V,
    ) -> <F::S as Simd>::V {
        let Weight::Packed(weight) = self.product.layer.weight else {
            unreachable!("weights on a grid are packed before the product");
        };
        // SAFETY: the caller's contract; every row's grid was written.
        unsafe {
            let (step, zero) = (*self.packed.grids.add(2 * row), *self.packed.grids.add(2 * row + 1));
            let column_sums = F::S::load_first(weight.sums.as_ptr().add(column), n);
            let steps = F::S::load_first(weight.steps.as_ptr().add(column), n);
            let places = F::without_zero(sums, zero, column_sums);
            F::S::mul(F::S::mul(places, steps), F::S::splat(step))
        }
    }

    /// What is read after `block`: the next block of k of these columns, or the first block of the following columns,
    /// which this thread most likely takes next.
    #[inline(always)]
    fn next_block(&self, layout: &PackedLayout, block: &Range<usize>) -> Ahead {
        let Product { k, out, layer, .. } = *self.product;
        let numbers = layout.numbers(block, k);
        let is_last = numbers.end == k;
        let first = if is_last { self.columns.end } else { self.columns.start };
        let columns = self.columns.len().min(out - first);
        match layer.weight {
            Weight::Stored(weight) => {
                let start = if is_last { 0 } else { numbers.end };
                Ahead::new(weight.as_ptr().wrapping_add(first * k + start), k, columns, numbers.len())
            }
            Weight::Packed(packed) => {
                let start = if is_last { 0 } else { layout.block_start(&(block.end..block.end)) };
                let from = packed.panel(layout, first / layout.panel_columns).wrapping_add(start);
                let panels = columns.div_ceil(layout.panel_columns);
                Ahead::new(from, layout.panel(k), panels, layout.block_plane(block) * layout.planes)
            }
        }
    }
}

/// Rows of memory that are needed next. They are prefetched explicitly because the hardware prefetcher does not detect
/// this many short rows.
struct Ahead {
    from: *const f32,
    stride: usize,
    rows: usize,
    /// Cache lines of a row.
    lines: usize,
}

impl Ahead {
    /// The first `length` floats of each row.
    #[inline(always)]
    fn new(from: *const f32, stride: usize, rows: usize, length: usize) -> Ahead {
        Ahead { from, stride, rows, lines: length.div_ceil(FLOATS_OF_LINE) }
    }

    /// Prefetches the share of step `step` of `steps`.
    #[inline(always)]
    unsafe fn prefetch<S: Simd>(&self, step: usize, steps: usize) {
        let all = self.rows * self.lines;
        let (first, end) = (all * step / steps, all * (step + 1) / steps);
        let (mut row, mut line) = (first / self.lines.max(1), first % self.lines.max(1));
        for _ in first..end {
            // SAFETY: any address may be prefetched.
            unsafe { S::prefetch(self.from.wrapping_add(row * self.stride + line * FLOATS_OF_LINE)) }
            line += 1;
            if line == self.lines {
                (row, line) = (row + 1, 0);
            }
        }
    }
}

impl Product<'_> {
    /// Writes the final sums of `n` columns of a row to the result.
    ///
    /// # Safety
    /// The processor has the features of `S`; row and columns lie inside the result.
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, row: usize, column: usize, n: usize, sums: S::V) {
        // SAFETY: the caller's contract.
        unsafe {
            let bias = S::load_first(self.layer.bias.as_ptr().add(column), n);
            let mut v = self.layer.activation.apply::<S>(S::add(sums, bias));
            let other = row * self.out + column;
            match self.combined {
                Combined::Alone => {}
                Combined::Plus(residual) => v = S::add(v, S::load_first(residual.as_ptr().add(other), n)),
                Combined::Times(factor) => v = S::mul(v, S::load_first(factor.as_ptr().add(other), n)),
            }
            S::store_first(self.y.add(row * self.out + column), v, n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::factors::round_to_bf16;
    use super::super::reference::{self, assert_close, levels, Random};
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
        for (level, precision) in levels().flat_map(|level| Precision::ALL.map(|precision| (level, precision))) {
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
        for (level, precision) in levels().flat_map(|level| Precision::ALL.map(|precision| (level, precision))) {
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
        for (level, precision) in levels().flat_map(|level| Precision::ALL.map(|precision| (level, precision))) {
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
