//! The CPU kernels as candle's custom operations: tensors in, a tensor out.

use super::Sequences;
use crate::kernels::{self, Level, Parallelism};
use candle_core::{bail, CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

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
    parallelism: Parallelism,
    layer: kernels::Linear<'a>,
}

impl CustomOp1 for LinearOp<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, in_dim) = layout.shape().dims2()?;
        let out_dim = self.layer.bias.len();
        let expected = self.layer.in_dim(self.level);
        if in_dim != expected {
            bail!("linear: {in_dim} columns, but the weights take {expected}");
        }
        let xs = elements(storage, layout, self.name())?;
        let ys = kernels::linear(self.level, self.parallelism, self.layer, xs, None);
        Ok((CpuStorage::F32(ys), (rows, out_dim).into()))
    }
}

/// See [`kernels::layer_norm`].
pub(super) fn layer_norm(
    level: Level,
    parallelism: Parallelism,
    norm: kernels::LayerNorm<'_>,
    xs: &Tensor,
    residual: &Tensor,
) -> Result<Tensor> {
    xs.apply_op2_no_bwd(residual, &LayerNormOp { level, parallelism, norm })
}

struct LayerNormOp<'a> {
    level: Level,
    parallelism: Parallelism,
    norm: kernels::LayerNorm<'a>,
}

impl CustomOp2 for LayerNormOp<'_> {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let shape = xs_layout.shape().clone();
        if shape.dims2()?.1 != self.norm.weight.len() || residual_layout.shape() != &shape {
            bail!("layer-norm: {shape:?} and {:?} for a width of {}", residual_layout.shape(), self.norm.weight.len());
        }
        let xs = elements(xs, xs_layout, self.name())?;
        let residual = elements(residual, residual_layout, self.name())?;
        let ys = kernels::layer_norm(self.level, self.parallelism, self.norm, xs, Some(residual));
        Ok((CpuStorage::F32(ys), shape))
    }
}

/// See [`kernels::attention`].
#[expect(clippy::too_many_arguments, reason = "three operands, how they are divided, and who works")]
pub(super) fn attention(
    level: Level,
    parallelism: Parallelism,
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
    queries: &Sequences,
    sequences: &Sequences,
) -> Result<Tensor> {
    let (query_offsets, offsets) = (queries.offsets, sequences.offsets);
    query.apply_op3_no_bwd(key, value, &AttentionOp { level, parallelism, heads, query_offsets, offsets })
}

struct AttentionOp<'a> {
    level: Level,
    parallelism: Parallelism,
    heads: usize,
    query_offsets: &'a [usize],
    offsets: &'a [usize],
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
        let shape = query_layout.shape().clone();
        let (queries, hidden) = shape.dims2()?;
        let key_shape = key_layout.shape();
        let (tokens, key_hidden) = key_shape.dims2()?;
        let is_one_width = key_hidden == hidden && value_layout.shape() == key_shape;
        let ends = [self.query_offsets.last(), self.offsets.last()];
        if !is_one_width || hidden % self.heads != 0 || ends != [Some(&queries), Some(&tokens)] {
            bail!("attention: {} heads, queries {shape:?}, keys {key_shape:?}, sequences end at {ends:?}", self.heads);
        }
        let operands = kernels::Attention {
            query: elements(query, query_layout, self.name())?,
            key: elements(key, key_layout, self.name())?,
            value: elements(value, value_layout, self.name())?,
            heads: self.heads,
            head_dim: hidden / self.heads,
            query_offsets: self.query_offsets,
            offsets: self.offsets,
        };
        Ok((CpuStorage::F32(kernels::attention(self.level, self.parallelism, operands)), shape))
    }
}
