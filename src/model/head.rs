//! What stands on the encoder: the pooler and the classifier.

use super::layers::Linear;
use super::parameters::Parameters;
use crate::checkpoint::config::Config;
use crate::kernels::Parallelism;
use candle_core::{DType, Result, Tensor};

/// tanh of a dense layer over each sequence's first hidden state, that of `[CLS]`.
pub(super) struct Pooler {
    dense: Linear,
}

/// Pooled output to logits.
pub(super) struct Classifier {
    dense: Linear,
}

impl Pooler {
    pub(super) fn load(parameters: Parameters, config: &Config) -> Result<Self> {
        Ok(Self { dense: Linear::load(parameters.pp("dense"), config.hidden_size, config.hidden_size)? })
    }

    /// (sequences, hidden) to (sequences, hidden).
    pub(super) fn forward(&self, first_states: &Tensor, parallelism: Parallelism) -> Result<Tensor> {
        self.dense.forward(first_states, parallelism)?.tanh()
    }
}

impl Classifier {
    pub(super) fn load(parameters: Parameters, config: &Config, num_labels: usize) -> Result<Self> {
        Ok(Self { dense: Linear::load(parameters, config.hidden_size, num_labels)? })
    }

    /// (sequences, hidden) to a row of logits for each sequence.
    pub(super) fn forward(&self, pooled_output: &Tensor, parallelism: Parallelism) -> Result<Vec<Vec<f32>>> {
        self.dense.forward(pooled_output, parallelism)?.to_dtype(DType::F32)?.to_vec2()
    }
}
