//! The left factor of linear layers: rows of numbers, normalized first if a layer norm comes before the layers, and
//! packed once for all layers that they go through.

use super::factors::{Factors, Precision};
use super::layer_norm::{norm_row, LayerNorm};
use super::product::pack_rows;
use super::quantization::Grid;
use super::scratch::Left;
use super::weight::{PackedLayout, PackedWeight};
use super::{Level, Parallelism, ProductKernel};
use core::marker::PhantomData;
use core::ops::Range;

/// How a product is computed.
#[derive(Clone, Copy)]
pub(super) struct Mode<'a> {
    pub(super) level: Level,
    pub(super) parallelism: Parallelism<'a>,
    pub(super) precision: Precision,
}

/// Rows per task: a layer norm of BERT-base takes a microsecond for as many.
const ROWS_OF_A_TASK: usize = 8;

/// Packed rows.
pub(super) struct Operand<'a> {
    pub(super) rows: usize,
    /// Numbers of a row.
    pub(super) k: usize,
    /// The same rows before packing, (rows, k).
    pub(super) numbers: *const f32,
    /// Rows per block of k that there is room for: a multiple of what the product reads at once.
    pub(super) room: usize,
    /// For each block of k, all rows, `stride` apart.
    lanes: *mut f32,
    stride: usize,
    /// The step of each row's grid and its grid point of 0, if the precision uses grids.
    grids: *mut f32,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: tasks write disjoint rows while they pack, and only read them later.
unsafe impl Sync for Operand<'_> {}

impl<'a> Operand<'a> {
    /// Packs `numbers`, rows of `k`.
    pub(super) fn pack(mode: Mode, k: usize, numbers: &'a [f32], left: &'a mut Left) -> Operand<'a> {
        let operand = Operand::reserve(mode, k, numbers.as_ptr(), numbers.len(), left);
        operand.prepare(mode, None);
        operand
    }

    /// Normalizes `numbers` + `residual` in place, rows of the norm's size, and packs them.
    pub(super) fn normalize(
        mode: Mode,
        norm: LayerNorm,
        numbers: &'a mut [f32],
        residual: Option<&[f32]>,
        left: &'a mut Left,
    ) -> Operand<'a> {
        assert_eq!(norm.bias.len(), norm.weight.len(), "weight and bias of a layer norm have the same shape");
        assert!(residual.is_none_or(|residual| residual.len() == numbers.len()), "the residual has the rows' shape");
        let (n, numbers) = (numbers.len(), numbers.as_mut_ptr());
        let before = Before { norm, numbers, residual: residual.map(<[f32]>::as_ptr) };
        let operand = Operand::reserve(mode, norm.weight.len(), numbers, n, left);
        operand.prepare(mode, Some(before));
        operand
    }

    /// Whether rows are packed only once they are complete: a row's grid depends on all of its numbers.
    pub(super) fn needs_whole_rows(mode: Mode) -> bool {
        !is_packed(mode) || mode.precision == Precision::Int8
    }

    /// Reserves room for `n` numbers, rows of `k`. `numbers` are only read if rows are not packed.
    pub(super) fn reserve(mode: Mode, k: usize, numbers: *const f32, n: usize, left: &'a mut Left) -> Operand<'a> {
        assert!(mode.level.is_supported(), "the processor does not support {}", mode.level);
        let rows = n / k.max(1);
        assert_eq!(n, rows * k, "the operand of a linear layer is (rows, in)");
        let layout = PackedLayout::new(mode.level, mode.precision);
        let room = rows.next_multiple_of(layout.row_granule);
        let lanes = match is_packed(mode) {
            true => left.lanes.reserve(layout.blocks(k).len() * room * layout.row_stride),
            false => core::ptr::null_mut(),
        };
        let (stride, grids) = (layout.row_stride, left.grids.reserve(2 * rows));
        Operand { rows, k, numbers, room, lanes, stride, grids, borrowed: PhantomData }
    }

    fn prepare(&self, mode: Mode, before: Option<Before>) {
        mode.parallelism.for_each(self.rows.div_ceil(ROWS_OF_A_TASK), |task| {
            let rows = task * ROWS_OF_A_TASK..((task + 1) * ROWS_OF_A_TASK).min(self.rows);
            let rows = Rows { operand: self, before: before.as_ref(), is_packed: is_packed(mode), rows };
            // SAFETY: the level is supported; the buffers have room for all rows, the norm's operands have their shape,
            // and each task reads and writes rows of its own.
            unsafe { mode.level.run_product(mode.precision, rows) }
        });
    }

    /// Packs columns `columns` of rows `rows`, which start at `from`, `stride` apart.
    ///
    /// # Safety
    /// The processor has the features of `F`, for which the operand was reserved; the columns start at a panel's and end
    /// at its or the row's end; no other thread uses them.
    #[inline(always)]
    pub(super) unsafe fn put<F: Factors>(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        from: *const f32,
        stride: usize,
    ) {
        let layout = PackedLayout::of::<F>();
        for (i, block) in layout.blocks(self.k).enumerate() {
            let numbers = layout.numbers(&block, self.k);
            let (start, end) = (numbers.start.max(columns.start), numbers.end.min(columns.end));
            if start < end {
                // SAFETY: the caller's contract. A block starts at a multiple of every register's lanes, so these columns
                // fill whole registers, but for the last of a row.
                unsafe {
                    let to = self.row(i, rows.start).add((start - numbers.start) / F::DEPTH);
                    let from = from.add(start - columns.start);
                    pack_rows::<F>(rows.len(), end - start, from, stride, |_| Grid::NONE, to);
                }
            }
        }
    }

    /// Where row `row` of block number `i` starts.
    #[inline(always)]
    pub(super) fn row(&self, i: usize, row: usize) -> *mut f32 {
        self.lanes.wrapping_add((i * self.room + row) * self.stride)
    }

    /// The step of a row's grid, and its grid point of 0.
    ///
    /// # Safety
    /// The precision uses grids, and the row exists.
    #[inline(always)]
    pub(super) unsafe fn grid(&self, row: usize) -> (f32, f32) {
        // SAFETY: the caller's contract.
        unsafe { (*self.grids.add(2 * row), *self.grids.add(2 * row + 1)) }
    }
}

/// The gemm crate, which multiplies float32 on the portable level, takes rows as they are.
fn is_packed(mode: Mode) -> bool {
    PackedWeight::is_of_use(mode.level, mode.precision)
}

/// What is done to rows before they are packed.
struct Before<'a> {
    norm: LayerNorm<'a>,
    /// Operand and result.
    numbers: *mut f32,
    residual: Option<*const f32>,
}

// SAFETY: tasks take disjoint rows.
unsafe impl Sync for Before<'_> {}

/// A task: some rows. Each is normalized, measured and packed while it is in the first-level cache.
struct Rows<'a> {
    operand: &'a Operand<'a>,
    before: Option<&'a Before<'a>>,
    is_packed: bool,
    rows: Range<usize>,
}

impl ProductKernel for Rows<'_> {
    #[inline(always)]
    unsafe fn run<F: Factors>(self) {
        let Rows { operand, before, is_packed, rows } = self;
        let (layout, k) = (PackedLayout::of::<F>(), operand.k);
        for row in rows {
            // SAFETY: the row lies inside the numbers, the residual, the grids, and each block of the lanes.
            unsafe {
                if let Some(before) = before {
                    let numbers = before.numbers.add(row * k);
                    let residual = before.residual.map(|residual| residual.add(row * k));
                    norm_row::<F::S>(before.norm, numbers, residual);
                }
                if !is_packed {
                    continue;
                }
                let numbers = operand.numbers.add(row * k);
                let mut grid = Grid::NONE;
                if F::ON_GRID {
                    grid = Grid::of_activations::<F::S>(numbers, k);
                    operand.grids.add(2 * row).write(grid.step);
                    operand.grids.add(2 * row + 1).write(grid.zero);
                }
                for (i, block) in layout.blocks(k).enumerate() {
                    let block = layout.numbers(&block, k);
                    pack_rows::<F>(1, block.len(), numbers.add(block.start), k, |_| grid, operand.row(i, row));
                }
            }
        }
    }
}
