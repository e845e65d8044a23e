//! The linear layer and the layer norm: the two operations that nearly all of the arithmetic goes through, and the
//! seam below which the CPU brings its own kernels.

use super::backend::Backend;
use super::cpu;
use super::parameters::Parameters;
use crate::checkpoint::config::Config;
use crate::checkpoint::weights::Float32s;
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
    bias: Float32s,
}

/// Weights where the checkpoint has them, or packed.
#[derive(Clone)]
enum KernelWeight {
    Stored(Float32s),
    Packed(Arc<PackedWeight>),
}

impl KernelWeights {
    fn lock(&self) -> MutexGuard<'_, KernelWeight> {
        // Either state is whole: the second takes the place of the first when it is.
        self.weight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Packs the weights, unless they are, and lets go of the stored ones.
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
        let weights = match *parameters.backend() {
            Backend::Kernels { level, precision } => LinearWeights::Kernel(KernelWeights {
                level,
                precision,
                weight: Mutex::new(KernelWeight::Stored(parameters.float32s(&[out_dim, in_dim], "weight")?)),
                bias: parameters.float32s(&[out_dim], "bias")?,
            }),
            Backend::Candle { .. } => {
                let weight = parameters.tensor((out_dim, in_dim), "weight")?;
                LinearWeights::Candle(candle_nn::Linear::new(weight, Some(parameters.tensor(out_dim, "bias")?)))
            }
        };
        Ok(Self { weights, activation })
    }

    /// (rows, in) to (rows, out).
    pub(super) fn forward(&self, xs: &Tensor, parallelism: Parallelism) -> Result<Tensor> {
        match &self.weights {
            LinearWeights::Candle(linear) => activate(self.activation, linear.forward(xs)?),
            LinearWeights::Kernel(weights) => {
                let weight = weights.lock().clone();
                let weight = match &weight {
                    KernelWeight::Stored(stored) => Weight::Stored(stored),
                    KernelWeight::Packed(packed) => Weight::Packed(packed),
                };
                let (activation, precision) = (self.activation, weights.precision);
                let layer = kernels::Linear { weight, bias: &weights.bias, activation, precision };
                cpu::linear(weights.level, parallelism, layer, xs)
            }
        }
    }

    /// Packs the weights for the kernels, where that makes products faster. Takes one thread, for which others may wait.
    pub(super) fn pack(&self) {
        if let LinearWeights::Kernel(weights) = &self.weights {
            if PackedWeight::is_of_use(weights.level, weights.precision) {
                weights.pack();
            }
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
        let weights = match *parameters.backend() {
            Backend::Kernels { level, .. } => LayerNormWeights::Kernel {
                level,
                weight: parameters.float32s(&[hidden], "weight")?,
                bias: parameters.float32s(&[hidden], "bias")?,
            },
            Backend::Candle { .. } => LayerNormWeights::Candle {
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
