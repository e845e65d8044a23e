//! The CPU kernels as custom operations of candle: tensors in, one tensor out.

use super::attention::{Attend, Positions};
use super::layers::Combined;
use crate::kernels::{self, Level, Parallelism};
use candle_core::{bail, CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor};
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
    with: Combined,
) -> Result<Tensor> {
    let is_gate = matches!(with, Combined::Times(_));
    let op = LinearOp { level, parallelism, layer, is_gate };
    match with {
        Combined::Alone => xs.apply_op1_no_bwd(&op),
        Combined::Plus(other) | Combined::Times(other) => xs.apply_op2_no_bwd(other, &op),
    }
}

struct LinearOp<'a> {
    level: Level,
    parallelism: Parallelism,
    layer: kernels::Linear<'a>,
    /// Whether the second operand is multiplied rather than added.
    is_gate: bool,
}

impl LinearOp<'_> {
    fn run(
        &self,
        xs: &CpuStorage,
        layout: &Layout,
        other: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, in_dim) = layout.shape().dims2()?;
        let shape = Shape::from((rows, self.layer.bias.len()));
        let expected = self.layer.in_dim(self.level);
        if in_dim != expected {
            bail!("linear: {in_dim} columns, but the weights take {expected}");
        }
        let combined = match other {
            None => kernels::Combined::Alone,
            Some((_, layout)) if *layout.shape() != shape => {
                bail!("linear: {:?} cannot be combined with {shape:?}", layout.shape())
            }
            Some((other, layout)) if self.is_gate => kernels::Combined::Times(elements(other, layout, "linear")?),
            Some((other, layout)) => kernels::Combined::Plus(elements(other, layout, "linear")?),
        };
        let ys = kernels::linear(self.level, self.parallelism, self.layer, elements(xs, layout, "linear")?, combined);
        Ok((CpuStorage::F32(ys), shape))
    }
}

impl CustomOp1 for LinearOp<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run(xs, layout, None)
    }
}

impl CustomOp2 for LinearOp<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        layout: &Layout,
        other: &CpuStorage,
        other_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run(xs, layout, Some((other, other_layout)))
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
    parallelism: Parallelism,
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

/// See [`kernels::attention`].
pub(super) fn attention(
    level: Level,
    parallelism: Parallelism,
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    attend: &Attend,
) -> Result<Tensor> {
    query.apply_op3_no_bwd(key, value, &AttentionOp { level, parallelism, attend })
}

struct AttentionOp<'a> {
    level: Level,
    parallelism: Parallelism,
    attend: &'a Attend<'a>,
}

impl CustomOp3 for AttentionOp<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        query: &CpuStorage,
        query_layout: &Layout,
        key: &CpuStorage,
        key_layout: &Layout,
        value: &CpuStorage,
        value_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let Attend { heads, scale, window, queries, sequences, .. } = *self.attend;
        let shape = query_layout.shape().clone();
        let (rows, hidden) = shape.dims2()?;
        let key_shape = key_layout.shape();
        let (tokens, key_hidden) = key_shape.dims2()?;
        let is_one_width = key_hidden == hidden && value_layout.shape() == key_shape;
        let ends = [queries.offsets.last(), sequences.offsets.last()];
        if !is_one_width || hidden % heads != 0 || ends != [Some(&rows), Some(&tokens)] {
            bail!("attention: {heads} heads, queries {shape:?}, keys {key_shape:?}, sequences end at {ends:?}");
        }
        let (query, key) = (elements(query, query_layout, "attention")?, elements(key, key_layout, "attention")?);
        let value = elements(value, value_layout, "attention")?;
        let tables = self.attend.positions.tables().map(|table| table.map(Tensor::storage_and_layout));
        let positions = match (self.attend.positions, table(&tables[0])?, table(&tables[1])?) {
            (Positions::Rotary { .. }, Some(cos), Some(sin)) => kernels::Positions::Rotary { cos, sin },
            (Positions::Bias(_), Some(bias), _) => kernels::Positions::Bias(bias),
            (Positions::Disentangled { .. }, key, query) => kernels::Positions::Disentangled { key, query },
            _ => kernels::Positions::None,
        };
        let operands = kernels::Attention {
            query,
            key,
            value,
            heads,
            head_dim: hidden / heads,
            query_offsets: queries.offsets,
            offsets: sequences.offsets,
            scale,
            window,
            positions,
        };
        Ok((CpuStorage::F32(kernels::attention(self.level, self.parallelism, operands)), shape))
    }
}

/// The elements of a tensor that is read during an operation.
fn table<'a>(read: &'a Option<(impl Deref<Target = Storage>, &Layout)>) -> Result<Option<&'a [f32]>> {
    let Some((storage, layout)) = read else { return Ok(None) };
    match &**storage {
        Storage::Cpu(storage) => elements(storage, layout, "attention").map(Some),
        _ => bail!("attention: a table is not in the CPU's memory"),
    }
}
