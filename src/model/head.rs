//! What stands on the encoder: the pooler and the classifier.

use super::layers::Linear;
use super::Sequences;
use crate::checkpoint::config::Config;
use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

/// tanh of a dense layer over each sequence's first hidden state, that of `[CLS]`.
pub(super) struct Pooler {
    dense: Linear,
}

/// Pooled output to logits.
pub(super) struct Classifier {
    dense: Linear,
}

impl Pooler {
    pub(super) fn load(weights: VarBuilder, config: &Config) -> Result<Self> {
        Ok(Self { dense: Linear::load(weights.pp("dense"), config.hidden_size, config.hidden_size)? })
    }

    /// (total_tokens, hidden) to (sequences, hidden).
    pub(super) fn forward(&self, hidden_states: &Tensor, sequences: &Sequences) -> Result<Tensor> {
        let starts = &sequences.offsets[..sequences.offsets.len() - 1];
        let starts: Vec<u32> = starts.iter().map(|&offset| offset as u32).collect();
        let first = hidden_states.index_select(&Tensor::new(starts, hidden_states.device())?, 0)?;
        self.dense.forward(&first)?.tanh()
    }
}

impl Classifier {
    pub(super) fn load(weights: VarBuilder, config: &Config, num_labels: usize) -> Result<Self> {
        Ok(Self { dense: Linear::load(weights, config.hidden_size, num_labels)? })
    }

    /// (sequences, hidden) to a row of logits for each sequence.
    pub(super) fn forward(&self, pooled_output: &Tensor) -> Result<Vec<Vec<f32>>> {
        self.dense.forward(pooled_output)?.to_dtype(DType::F32)?.to_vec2()
    }
}
