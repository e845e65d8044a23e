//! The weights of a linear layer: as stored, or packed once into the layout that the product reads.
//!
//! Packed weights are a product's panels in order, each one block of K after another, as `product.rs` describes them.
//! Compared to stored float32 weights they take as much memory in float32 and bf16x3, half in bf16 and a quarter in
//! eight bits, and packing takes time. With stored weights, every product packs the blocks again as it goes.

use super::factors::{Factors, Precision};
use super::pages::Floats;
use super::product::{k_blocks, pack_columns, MAX_LANES};
use super::quantization::Grid;
use super::simd::Simd;
use super::{Level, ProductKernel};
use core::ops::Range;

/// The weights of a linear layer, (out, in).
#[derive(Clone, Copy)]
pub enum Weight<'a> {
    /// Row-major, for example in a mapped file.
    Stored(&'a [f32]),
    /// In the layout of the level they were packed for.
    Packed(&'a PackedWeight),
}

/// How the operands of a product are packed on a level and in a precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackedLayout {
    /// Numbers along k per lane.
    pub(super) depth: usize,
    /// Parts per number.
    pub(super) planes: usize,
    /// Columns of a panel.
    pub(super) panel_columns: usize,
    /// The rows of the left factor and of the sums are padded to a multiple of this.
    pub(super) row_granule: usize,
    /// Distance between the rows of a block of the left factor, in floats.
    pub(super) row_stride: usize,
    /// The longest block of K, in lanes of one part.
    k_block: usize,
}

impl PackedLayout {
    pub(super) fn new(level: Level, precision: Precision) -> PackedLayout {
        level.arithmetic(precision).layout
    }

    #[inline(always)]
    pub(super) fn of<F: Factors>() -> PackedLayout {
        PackedLayout {
            depth: F::DEPTH,
            planes: F::PLANES,
            panel_columns: 2 * F::S::LANES,
            row_granule: F::ROW_GRANULE,
            row_stride: F::ROW_STRIDE,
            k_block: F::K_BLOCK / F::PLANES,
        }
    }

    /// The blocks of K, in lanes.
    #[inline(always)]
    pub(super) fn blocks(&self, k: usize) -> impl ExactSizeIterator<Item = Range<usize>> + Clone {
        k_blocks(k.div_ceil(self.depth), self.k_block)
    }

    /// The numbers along k held by the lanes `block`.
    #[inline(always)]
    pub(super) fn numbers(&self, block: &Range<usize>, k: usize) -> Range<usize> {
        block.start * self.depth..(block.end * self.depth).min(k)
    }

    /// Floats of one part of a panel's block; the lanes are padded to whole registers.
    #[inline(always)]
    pub(super) fn block_plane(&self, block: &Range<usize>) -> usize {
        block.len().next_multiple_of(MAX_LANES) * self.panel_columns
    }

    /// Where a block starts in its panel, in floats.
    #[inline(always)]
    pub(super) fn block_start(&self, block: &Range<usize>) -> usize {
        block.start * self.panel_columns * self.planes
    }

    /// Floats of a panel.
    #[inline(always)]
    pub(super) fn panel(&self, k: usize) -> usize {
        k.div_ceil(self.depth).next_multiple_of(MAX_LANES) * self.panel_columns * self.planes
    }
}

/// Products of eight-bit integers, 255 · 127 at most, that fit a 32-bit sum.
const MOST_INTEGERS: usize = i32::MAX as usize / (255 * 127);

/// Weights in the layout that the product reads on one level, in one precision.
pub struct PackedWeight {
    pub(super) level: Level,
    pub(super) precision: Precision,
    pub(super) out: usize,
    pub(super) k: usize,
    lanes: Floats,
    /// The step of each output's grid, (out), if the precision uses grids.
    pub(super) steps: Vec<f32>,
    /// The sum of each output's grid points, (out), if the precision uses grids.
    pub(super) sums: Vec<f32>,
}

impl PackedWeight {
    /// Whether products are faster with packed weights. The gemm crate packs them in its own way, each time.
    pub fn is_of_use(level: Level, precision: Precision) -> bool {
        (level, precision) != (Level::Portable, Precision::F32)
    }

    /// Packs `weight`, (out, in) row-major.
    ///
    /// # Panics
    /// If the length of `weight` is not a multiple of `out`, the processor does not support the level, or the weights of
    /// an output are more than eight-bit products can add up.
    pub fn new(level: Level, precision: Precision, out: usize, weight: &[f32]) -> PackedWeight {
        assert!(level.is_supported(), "the processor does not support {level}");
        let k = weight.len() / out.max(1);
        assert_eq!(weight.len(), out * k, "the weights of a linear layer are (out, in)");
        let layout = PackedLayout::new(level, precision);
        assert!(precision != Precision::Int8 || k <= MOST_INTEGERS, "a sum of {k} integers does not fit 32 bits");
        let lanes = Floats::zeros(out.div_ceil(layout.panel_columns) * layout.panel(k));
        let mut packed = PackedWeight { level, precision, out, k, lanes, steps: Vec::new(), sums: Vec::new() };
        // SAFETY: the level is supported; the weights' length was checked.
        unsafe { level.run_product(precision, Pack { weight, packed: &mut packed }) }
        packed
    }

    /// Where panel number `panel` starts.
    #[inline(always)]
    pub(super) fn panel(&self, layout: &PackedLayout, panel: usize) -> *const f32 {
        self.lanes.as_ptr().wrapping_add(panel * layout.panel(self.k))
    }
}

struct Pack<'a> {
    weight: &'a [f32],
    packed: &'a mut PackedWeight,
}

impl ProductKernel for Pack<'_> {
    #[inline(always)]
    unsafe fn run<F: Factors>(self) {
        let Pack { weight, packed } = self;
        let (out, k) = (packed.out, packed.k);
        let layout = PackedLayout::of::<F>();
        for first in (0..out).step_by(layout.panel_columns) {
            let columns = (out - first).min(layout.panel_columns);
            let rows = weight[first * k..].as_ptr();
            let mut grids = [Grid::NONE; 2 * MAX_LANES];
            if F::ON_GRID {
                for (column, grid) in grids.iter_mut().enumerate().take(columns) {
                    // SAFETY: the caller's contract; the row is a row of the weights.
                    let sum = unsafe {
                        *grid = Grid::of_weights::<F::S>(rows.add(column * k), k);
                        grid.sum::<F::S>(rows.add(column * k), k)
                    };
                    packed.steps.push(grid.step);
                    packed.sums.push(sum);
                }
            }
            let panel = packed.lanes.as_mut_ptr().wrapping_add(first / layout.panel_columns * layout.panel(k));
            for block in layout.blocks(k) {
                // SAFETY: the caller's contract; the panel has room for the block according to `panel`.
                unsafe {
                    let to = panel.add(layout.block_start(&block));
                    pack_block::<F>(columns, layout.numbers(&block, k), rows, k, |column| grids[column], to);
                }
            }
        }
    }
}

/// Packs all parts of the numbers `numbers` of `columns` rows of weights into a panel's block; a row has `k` numbers.
///
/// # Safety
/// The processor has the features of `F`; `rows` is valid for the rows, `to` for one [`PackedLayout::block_plane`] per
/// part.
#[inline(always)]
pub(super) unsafe fn pack_block<F: Factors>(
    columns: usize,
    numbers: Range<usize>,
    rows: *const f32,
    k: usize,
    grids: impl Fn(usize) -> Grid + Copy,
    to: *mut f32,
) {
    let layout = PackedLayout::of::<F>();
    let plane_floats = layout.block_plane(&(0..numbers.len().div_ceil(F::DEPTH)));
    for plane in 0..F::PLANES {
        // SAFETY: the caller's contract.
        unsafe {
            let (from, to) = (rows.add(numbers.start), to.add(plane * plane_floats));
            pack_columns::<F>(columns, numbers.len(), from, k, plane, grids, to);
        }
    }
}
