//! The linear layer and the layer norm: the two operations that nearly all of the arithmetic goes through, and the
//! seam below which the CPU brings its own kernels.

use super::cpu;
use super::parameters::Parameters;
use crate::checkpoint::config::Config;
use crate::checkpoint::weights::Float32s;
use crate::kernels::{self, Activation, Level, PackedWeight, Parallelism, Precision, Weight};
use candle_core::{Module, Result, Tensor};
use std::sync::OnceLock;

/// act(x · Wᵀ + b), with W of the shape (out, in).
pub(super) struct Linear {
    weights: LinearWeights,
    activation: Activation,
    precision: Precision,
}

enum LinearWeights {
    Candle(candle_nn::Linear),
    Kernel(KernelWeights),
}

/// What the kernels read: the weights where the checkpoint has them, and packed as soon as they have been.
struct KernelWeights {
    level: Level,
    weight: Float32s,
    packed: OnceLock<PackedWeight>,
    bias: Float32s,
}

impl Linear {
    pub(super) fn load(parameters: Parameters, in_dim: usize, out_dim: usize) -> Result<Self> {
        Self::load_activated(parameters, in_dim, out_dim, Activation::Identity)
    }

    /// A layer whose result goes through `activation`.
    pub(super) fn load_activated(
        parameters: Parameters,
        in_dim: usize,
        out_dim: usize,
        activation: Activation,
    ) -> Result<Self> {
        let weights = match parameters.level() {
            Some(level) => LinearWeights::Kernel(KernelWeights {
                level,
                weight: parameters.float32s(&[out_dim, in_dim], "weight")?,
                packed: OnceLock::new(),
                bias: parameters.float32s(&[out_dim], "bias")?,
            }),
            None => {
                let weight = parameters.tensor((out_dim, in_dim), "weight")?;
                LinearWeights::Candle(candle_nn::Linear::new(weight, Some(parameters.tensor(out_dim, "bias")?)))
            }
        };
        Ok(Self { weights, activation, precision: parameters.precision() })
    }

    /// (rows, in) to (rows, out).
    pub(super) fn forward(&self, xs: &Tensor, parallelism: Parallelism) -> Result<Tensor> {
        match &self.weights {
            LinearWeights::Candle(linear) => activate(self.activation, linear.forward(xs)?),
            LinearWeights::Kernel(KernelWeights { level, weight, packed, bias }) => {
                let weight = packed.get().map_or(Weight::Stored(weight), Weight::Packed);
                let layer = kernels::Linear { weight, bias, activation: self.activation, precision: self.precision };
                cpu::linear(*level, parallelism, layer, xs)
            }
        }
    }

    /// Packs the weights for the kernels, where that makes them smaller and the products faster; float32 gains little from
    /// a second copy. Takes one thread, and the others of a pool may wait for it without harm.
    pub(super) fn pack(&self) {
        if let (LinearWeights::Kernel(KernelWeights { level, weight, packed, bias }), true) =
            (&self.weights, self.precision != Precision::F32)
        {
            packed.get_or_init(|| {
                let packed = PackedWeight::new(*level, self.precision, bias.len(), weight);
                weight.release();
                packed
            });
        }
    }
}

/// What the kernels do as they store a sum, by candle's operations.
fn activate(activation: Activation, xs: Tensor) -> Result<Tensor> {
    match activation {
        Activation::Identity => Ok(xs),
        Activation::Gelu => xs.gelu_erf(),
        Activation::GeluTanh => xs.gelu(),
        Activation::Relu => xs.relu(),
    }
}

/// Layer norm over the hidden dimension.
pub(super) struct LayerNorm {
    weights: LayerNormWeights,
    eps: f32,
}

enum LayerNormWeights {
    Candle { weight: Tensor, bias: Tensor },
    Kernel { level: Level, weight: Float32s, bias: Float32s },
}

impl LayerNorm {
    pub(super) fn load(parameters: Parameters, config: &Config) -> Result<Self> {
        let hidden = config.hidden_size;
        let weights = match parameters.level() {
            Some(level) => LayerNormWeights::Kernel {
                level,
                weight: parameters.float32s(&[hidden], "weight")?,
                bias: parameters.float32s(&[hidden], "bias")?,
            },
            None => LayerNormWeights::Candle {
                weight: parameters.tensor(hidden, "weight")?,
                bias: parameters.tensor(hidden, "bias")?,
            },
        };
        Ok(Self { weights, eps: config.layer_norm_eps as f32 })
    }

    /// The norm of `xs + residual`, both (rows, hidden).
    pub(super) fn forward(&self, xs: &Tensor, residual: &Tensor, parallelism: Parallelism) -> Result<Tensor> {
        match &self.weights {
            LayerNormWeights::Candle { weight, bias } => {
                candle_nn::ops::layer_norm(&(xs + residual)?, weight, bias, self.eps)
            }
            LayerNormWeights::Kernel { level, weight, bias } => {
                let norm = kernels::LayerNorm { weight, bias, eps: self.eps };
                cpu::layer_norm(*level, parallelism, norm, xs, residual)
            }
        }
    }
}
