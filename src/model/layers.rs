//! The linear layer and the layer norm: the two operations that nearly all of the arithmetic goes through, and the
//! seam below which a device may bring its own.

use crate::checkpoint::config::Config;
use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;

/// x · Wᵀ + b, with W of the shape (out, in).
pub(super) struct Linear(candle_nn::Linear);

impl Linear {
    pub(super) fn load(weights: VarBuilder, in_dim: usize, out_dim: usize) -> Result<Self> {
        let weight = weights.get((out_dim, in_dim), "weight")?;
        let bias = weights.get(out_dim, "bias")?;
        Ok(Self(candle_nn::Linear::new(weight, Some(bias))))
    }

    /// (rows, in) to (rows, out).
    pub(super) fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.0.forward(xs)
    }
}

/// Layer norm over the hidden dimension.
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    pub(super) fn load(weights: VarBuilder, config: &Config) -> Result<Self> {
        let weight = weights.get(config.hidden_size, "weight")?;
        let bias = weights.get(config.hidden_size, "bias")?;
        Ok(Self { weight, bias, eps: config.layer_norm_eps as f32 })
    }

    /// (rows, hidden) to (rows, hidden).
    pub(super) fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        candle_nn::ops::layer_norm(xs, &self.weight, &self.bias, self.eps)
    }

    /// The norm of `xs + residual`.
    pub(super) fn forward_residual(&self, xs: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.forward(&(xs + residual)?)
    }
}
