//! Token ids to the first hidden states: word piece + position + token type, normalized.

use super::layers::LayerNorm;
use super::Sequences;
use crate::checkpoint::config::Config;
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

pub(super) struct Embeddings {
    /// (vocab_size, hidden)
    word_embeddings: Tensor,
    /// (max_position_embeddings, hidden), the embedding of token type 0 already added: one text is one segment.
    position_embeddings: Tensor,
    layer_norm: LayerNorm,
}

impl Embeddings {
    pub(super) fn load(weights: VarBuilder, config: &Config) -> Result<Self> {
        let table = |name: &str, rows: usize| weights.pp(name).get((rows, config.hidden_size), "weight");
        let token_type = table("token_type_embeddings", config.type_vocab_size)?.narrow(0, 0, 1)?;
        Ok(Self {
            word_embeddings: table("word_embeddings", config.vocab_size)?,
            position_embeddings: table("position_embeddings", config.max_position_embeddings)?
                .broadcast_add(&token_type)?,
            layer_norm: LayerNorm::load(weights.pp("LayerNorm"), config)?,
        })
    }

    /// (total_tokens) ids to (total_tokens, hidden).
    pub(super) fn forward(&self, input_ids: &Tensor, sequences: &Sequences) -> Result<Tensor> {
        let position_ids: Vec<u32> = sequences.lengths().flat_map(|length| 0..length as u32).collect();
        let position_ids = Tensor::new(position_ids, input_ids.device())?;
        let words = self.word_embeddings.index_select(input_ids, 0)?;
        let positions = self.position_embeddings.index_select(&position_ids, 0)?;
        self.layer_norm.forward_residual(&words, &positions)
    }
}
