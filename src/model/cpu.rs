//! What connects candle's tensors to the CPU kernels, which take slices.

use super::attention::{Attend, Positions};
use crate::kernels::{self, Level, Parallelism};
use candle_core::{bail, CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Storage, Tensor};
use std::ops::Deref;

/// The elements of a contiguous float32 tensor.
fn elements<'a>(storage: &'a CpuStorage, layout: &Layout, operation: &str) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("{operation}: the operand is not contiguous"),
    }
}

/// See [`kernels::linear`].
pub(super) fn linear(
    level: Level,
    parallelism: Parallelism,
    layer: kernels::Linear<'_>,
    xs: &Tensor,
) -> Result<Tensor> {
    xs.apply_op1_no_bwd(&LinearOp { level, parallelism, layer })
}

struct LinearOp<'a> {
    level: Level,
    parallelism: Parallelism<'a>,
    layer: kernels::Linear<'a>,
}

impl CustomOp1 for LinearOp<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, in_dim) = layout.shape().dims2()?;
        let expected = self.layer.in_dim(self.level);
        if in_dim != expected {
            bail!("linear: {in_dim} columns, but the weights take {expected}");
        }
        let xs = elements(xs, layout, "linear")?;
        let ys = kernels::linear(self.level, self.parallelism, self.layer, xs, kernels::Combined::Alone);
        Ok((CpuStorage::F32(ys), Shape::from((rows, self.layer.bias.len()))))
    }
}

/// See [`kernels::layer_norm`].
pub(super) fn layer_norm(
    level: Level,
    parallelism: Parallelism,
    norm: kernels::LayerNorm<'_>,
    xs: &Tensor,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let op = LayerNormOp { level, parallelism, norm };
    match residual {
        None => xs.apply_op1_no_bwd(&op),
        Some(residual) => xs.apply_op2_no_bwd(residual, &op),
    }
}

struct LayerNormOp<'a> {
    level: Level,
    parallelism: Parallelism<'a>,
    norm: kernels::LayerNorm<'a>,
}

impl LayerNormOp<'_> {
    fn run(
        &self,
        xs: &CpuStorage,
        layout: &Layout,
        residual: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        let shape = layout.shape().clone();
        let width = self.norm.weight.len();
        if shape.dims2()?.1 != width || residual.is_some_and(|(_, layout)| *layout.shape() != shape) {
            bail!("layer-norm: {shape:?} and {:?} for a width of {width}", residual.map(|(_, layout)| layout.shape()));
        }
        let residual = residual.map(|(residual, layout)| elements(residual, layout, "layer-norm")).transpose()?;
        let xs = elements(xs, layout, "layer-norm")?;
        let ys = kernels::layer_norm(self.level, self.parallelism, self.norm, xs, residual);
        Ok((CpuStorage::F32(ys), shape))
    }
}

impl CustomOp1 for LayerNormOp<'_> {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run(xs, layout, None)
    }
}

impl CustomOp2 for LayerNormOp<'_> {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run(xs, layout, Some((residual, residual_layout)))
    }
}

/// See [`kernels::layer`]: the new states, (total_tokens, hidden), or (sequences, hidden) if `only_firsts`.
pub(super) fn layer(
    level: Level,
    parallelism: Parallelism,
    layer: &kernels::Layer,
    attend: &Attend,
    only_firsts: bool,
    states: &mut Vec<f32>,
) -> Result<()> {
    let Attend { heads, scale, window, sequences, .. } = *attend;
    let tables = attend.positions.tables().map(|table| table.map(Tensor::storage_and_layout));
    let positions = match (attend.positions, table(&tables[0])?, table(&tables[1])?) {
        (Positions::Rotary { .. }, Some(cos), Some(sin)) => kernels::Positions::Rotary { cos, sin },
        (Positions::Bias(_), Some(bias), _) => kernels::Positions::Bias(bias),
        (Positions::Disentangled { .. }, key, query) => kernels::Positions::Disentangled { key, query },
        _ => kernels::Positions::None,
    };
    let attention = kernels::SelfAttention { heads, offsets: sequences.offsets, scale, window, positions };
    kernels::layer(level, parallelism, layer, attention, only_firsts, states);
    Ok(())
}

/// The elements of a tensor that is read during an operation.
fn table<'a>(read: &'a Option<(impl Deref<Target = Storage>, &Layout)>) -> Result<Option<&'a [f32]>> {
    let Some((storage, layout)) = read else { return Ok(None) };
    match &**storage {
        Storage::Cpu(storage) => elements(storage, layout, "attention").map(Some),
        _ => bail!("attention: a table is not in the CPU's memory"),
    }
}
