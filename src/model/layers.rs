//! The linear layer and the layer norm: the two operations that do nearly all of the arithmetic, and where the CPU
//! kernels plug in.

use super::backend::Backend;
use super::cpu;
use super::parameters::{Elements, Parameters};
use crate::checkpoint::config::{Norm, Part};
use crate::kernels::{self, Activation, Level, PackedWeight, Parallelism, Precision, Weight};
use candle_core::{Module, Result, Tensor};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// act(x · Wᵀ + b), with W of the shape (out, in).
pub(super) struct Linear {
    weights: LinearWeights,
    activation: Activation,
}

enum LinearWeights {
    Candle(candle_nn::Linear),
    Kernel(KernelWeights),
}

/// What the kernels read.
struct KernelWeights {
    level: Level,
    precision: Precision,
    weight: Mutex<KernelWeight>,
    bias: Elements,
}

/// Weights as the checkpoint stores them, or packed.
#[derive(Clone)]
enum KernelWeight {
    Stored(Elements),
    Packed(Arc<PackedWeight>),
}

/// A layer that the kernels may use while its weights are packed.
pub(super) struct KernelLinear<'a> {
    weights: &'a KernelWeights,
    weight: KernelWeight,
    activation: Activation,
}

impl KernelLinear<'_> {
    pub(super) fn borrow(&self) -> kernels::Linear<'_> {
        let weight = match &self.weight {
            KernelWeight::Stored(stored) => Weight::Stored(stored),
            KernelWeight::Packed(packed) => Weight::Packed(packed),
        };
        let KernelWeights { precision, bias, .. } = self.weights;
        kernels::Linear { weight, bias, activation: self.activation, precision: *precision }
    }
}

impl KernelWeights {
    fn lock(&self) -> MutexGuard<'_, KernelWeight> {
        // Either state is valid: packed weights replace stored ones only when they are complete.
        self.weight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Packs the weights, unless they already are, and releases the stored ones.
    fn pack(&self) {
        let mut weight = self.lock();
        if let KernelWeight::Stored(stored) = &*weight {
            let packed = PackedWeight::new(self.level, self.precision, self.bias.len(), stored);
            stored.release();
            *weight = KernelWeight::Packed(packed.into());
        }
    }
}

impl Linear {
    /// The layer `part`, named below `parameters`.
    pub(super) fn load(parameters: &Parameters, part: Part, in_dim: usize, out_dim: usize) -> Result<Self> {
        Self::load_activated(parameters, part, in_dim, out_dim, Activation::Identity)
    }

    /// A layer followed by `activation`.
    pub(super) fn load_activated(
        parameters: &Parameters,
        part: Part,
        in_dim: usize,
        out_dim: usize,
        activation: Activation,
    ) -> Result<Self> {
        let parameters = parameters.pp(part.name);
        let weights = match *parameters.backend() {
            Backend::Kernels { level, precision } => LinearWeights::Kernel(KernelWeights {
                level,
                precision,
                weight: Mutex::new(KernelWeight::Stored(parameters.part_elements(
                    part,
                    &[out_dim, in_dim],
                    "weight",
                )?)),
                bias: match part.bias {
                    true => parameters.part_elements(part, &[out_dim], "bias")?,
                    false => vec![0.0; out_dim].into(),
                },
            }),
            Backend::Candle { .. } => {
                let weight = parameters.part_tensor(part, &[out_dim, in_dim], "weight")?;
                let bias = part.bias.then(|| parameters.part_tensor(part, &[out_dim], "bias")).transpose()?;
                LinearWeights::Candle(candle_nn::Linear::new(weight, bias))
            }
        };
        Ok(Self { weights, activation })
    }

    /// (rows, in) to (rows, out).
    pub(super) fn forward(&self, xs: &Tensor, parallelism: Parallelism) -> Result<Tensor> {
        match &self.weights {
            LinearWeights::Candle(linear) => activate(self.activation, linear.forward(xs)?),
            LinearWeights::Kernel(weights) => cpu::linear(weights.level, parallelism, self.for_kernels().borrow(), xs),
        }
    }

    /// What the kernels take.
    ///
    /// # Panics
    /// If candle computes this layer.
    pub(super) fn for_kernels(&self) -> KernelLinear<'_> {
        match &self.weights {
            LinearWeights::Candle(_) => unreachable!("only layers of the kernels are given to them"),
            LinearWeights::Kernel(weights) => {
                KernelLinear { weights, weight: weights.lock().clone(), activation: self.activation }
            }
        }
    }

    /// Packs the weights for the kernels if that makes products faster. Runs on one thread; others may wait for it.
    pub(super) fn pack(&self) {
        if let LinearWeights::Kernel(weights) = &self.weights {
            if PackedWeight::is_of_use(weights.level, weights.precision) {
                weights.pack();
            }
        }
    }
}

/// Does with candle's operations what the kernels do as they store a sum.
fn activate(activation: Activation, xs: Tensor) -> Result<Tensor> {
    match activation {
        Activation::Identity => Ok(xs),
        Activation::Gelu => xs.gelu_erf(),
        Activation::GeluTanh => xs.gelu(),
        Activation::Relu => xs.relu(),
        Activation::Tanh => xs.tanh(),
    }
}

/// Layer norm over the last dimension.
pub(super) struct LayerNorm {
    weights: LayerNormWeights,
    eps: f32,
}

enum LayerNormWeights {
    Candle { weight: Tensor, bias: Tensor },
    Kernel { level: Level, weight: Elements, bias: Elements },
}

impl LayerNorm {
    /// The norm called `name`, of `size` columns.
    pub(super) fn load(parameters: &Parameters, name: &str, size: usize, norm: Norm) -> Result<Self> {
        let parameters = parameters.pp(name);
        let weights = match *parameters.backend() {
            Backend::Kernels { level, .. } => LayerNormWeights::Kernel {
                level,
                weight: parameters.float32s(&[size], "weight")?.into(),
                bias: match norm.bias {
                    true => parameters.float32s(&[size], "bias")?.into(),
                    false => vec![0.0; size].into(),
                },
            },
            Backend::Candle { .. } => {
                let weight = parameters.tensor(size, "weight")?;
                let bias = if norm.bias { parameters.tensor(size, "bias")? } else { weight.zeros_like()? };
                LayerNormWeights::Candle { weight, bias }
            }
        };
        Ok(Self { weights, eps: norm.eps as f32 })
    }

    /// The norm of `xs` or `xs + residual`, (rows, size).
    pub(super) fn forward(&self, xs: &Tensor, residual: Option<&Tensor>, parallelism: Parallelism) -> Result<Tensor> {
        match &self.weights {
            LayerNormWeights::Candle { weight, bias } => match residual {
                Some(residual) => candle_nn::ops::layer_norm(&(xs + residual)?, weight, bias, self.eps),
                None => candle_nn::ops::layer_norm(xs, weight, bias, self.eps),
            },
            LayerNormWeights::Kernel { level, .. } => {
                cpu::layer_norm(*level, parallelism, self.for_kernels(), xs, residual)
            }
        }
    }

    /// What the kernels take.
    ///
    /// # Panics
    /// If candle computes this norm.
    pub(super) fn for_kernels(&self) -> kernels::LayerNorm<'_> {
        match &self.weights {
            LayerNormWeights::Candle { .. } => unreachable!("only norms of the kernels are given to them"),
            LayerNormWeights::Kernel { weight, bias, .. } => kernels::LayerNorm { weight, bias, eps: self.eps },
        }
    }
}
