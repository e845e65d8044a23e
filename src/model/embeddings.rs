//! Token ids to the first hidden states: word piece + position + token type, normalized.

use super::backend::Backend;
use super::layers::LayerNorm;
use super::parameters::Parameters;
use super::Sequences;
use crate::checkpoint::config::Config;
use crate::checkpoint::weights::Weights;
use crate::kernels::Parallelism;
use candle_core::{bail, Device, Error, Result, Tensor};

pub(super) struct Embeddings {
    /// (vocab_size, hidden)
    word_embeddings: Table,
    /// (max_position_embeddings, hidden), the embedding of token type 0 already added: one text is one segment.
    position_embeddings: Tensor,
    layer_norm: LayerNorm,
}

/// An embedding a row.
enum Table {
    Candle(Tensor),
    /// The rows in the checkpoint's file, converted when asked for: most of a vocabulary never is.
    Stored {
        weights: Weights,
        name: String,
    },
}

impl Table {
    /// The table in its file, whose shape is checked here, and by its first row that it holds numbers.
    fn stored(parameters: &Parameters, rows: usize, width: usize) -> Result<Table> {
        let (weights, name) = parameters.stored((rows, width), "weight")?;
        let table = Table::Stored { weights, name };
        table.select(&[0], &Device::Cpu)?;
        Ok(table)
    }

    /// The rows `ids`, (ids, width).
    fn select(&self, ids: &[u32], device: &Device) -> Result<Tensor> {
        match self {
            Table::Candle(table) => table.index_select(&Tensor::new(ids, device)?, 0),
            Table::Stored { weights, name } => {
                let stored = weights.stored(name).expect("the tensor was there when the table was loaded");
                let (rows, width) = (stored.shape[0], stored.shape[1]);
                let mut selected = Vec::with_capacity(ids.len() * width);
                for id in ids.iter().map(|&id| id as usize) {
                    if id >= rows {
                        bail!("token id {id} is past the end of a vocabulary of {rows}");
                    }
                    let row = id * width..(id + 1) * width;
                    stored
                        .extend_float32s(row, &mut selected)
                        .map_err(|error| Error::Msg(format!("{name}: {error}")))?;
                }
                Tensor::from_vec(selected, (ids.len(), width), device)
            }
        }
    }
}

impl Embeddings {
    pub(super) fn load(parameters: Parameters, config: &Config) -> Result<Self> {
        let (words, hidden) = (parameters.pp("word_embeddings"), config.hidden_size);
        let table = |name: &str, rows: usize| parameters.pp(name).tensor((rows, hidden), "weight");
        let token_type = table("token_type_embeddings", config.type_vocab_size)?.narrow(0, 0, 1)?;
        let word_embeddings = match parameters.backend() {
            Backend::Kernels { .. } if words.is_contiguous("weight") => {
                Table::stored(&words, config.vocab_size, hidden)?
            }
            _ => Table::Candle(words.tensor((config.vocab_size, hidden), "weight")?),
        };
        Ok(Self {
            word_embeddings,
            position_embeddings: table("position_embeddings", config.max_position_embeddings)?
                .broadcast_add(&token_type)?,
            layer_norm: LayerNorm::load(parameters.pp("LayerNorm"), config)?,
        })
    }

    /// (total_tokens) ids to (total_tokens, hidden).
    pub(super) fn forward(
        &self,
        input_ids: &[u32],
        sequences: &Sequences,
        device: &Device,
        parallelism: Parallelism,
    ) -> Result<Tensor> {
        let position_ids: Vec<u32> = sequences.lengths().flat_map(|length| 0..length as u32).collect();
        let words = self.word_embeddings.select(input_ids, device)?;
        let positions = self.position_embeddings.index_select(&Tensor::new(position_ids, device)?, 0)?;
        self.layer_norm.forward(&words, &positions, parallelism)
    }
}
