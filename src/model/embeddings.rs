//! Token ids to the first hidden states: word, position and token type embeddings, normalized, and projected if they
//! are narrower than the hidden states.

use super::backend::Backend;
use super::layers::{LayerNorm, Linear};
use super::parameters::Parameters;
use crate::batching::Batch;
use crate::checkpoint::config::{AbsolutePositions, Architecture, Part};
use crate::checkpoint::weights::Weights;
use crate::kernels::Parallelism;
use candle_core::{bail, Device, Error, Result, Tensor};

pub(super) struct Embeddings {
    /// (vocab_size, size)
    words: Table,
    additions: Option<Additions>,
    layer_norm: LayerNorm,
    projection: Option<Linear>,
}

/// What is added to the word embedding.
struct Additions {
    /// (token types * rows, size): for each token type, all position embeddings plus that of the token type.
    table: Tensor,
    /// Positions that have a row; 1 if the model has no position embeddings.
    rows: usize,
    types: usize,
    positions: Option<AbsolutePositions>,
}

/// One embedding per row.
enum Table {
    Candle(Tensor),
    /// The rows in the checkpoint's file, converted on demand: most of a vocabulary is never used.
    Stored {
        weights: Weights,
        name: String,
    },
}

impl Table {
    /// The table in its file. Checks the shape, and converts the first row to check that it holds numbers.
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
                let stored = weights.stored(name).expect("the tensor existed when the table was loaded");
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

impl Additions {
    /// `parameters` are the embeddings'.
    fn load(parameters: &Parameters, architecture: &Architecture) -> Result<Option<Self>> {
        let embeddings = &architecture.embeddings;
        let table = |name: &str, rows| parameters.pp(name).tensor((rows, embeddings.size), "weight");
        let positions = embeddings.positions;
        let position_table = positions.map(|it| table("embeddings.position_embeddings", it.rows)).transpose()?;
        let type_table =
            embeddings.token_types.map(|types| table("embeddings.token_type_embeddings", types)).transpose()?;
        let table = match (position_table, type_table) {
            (None, None) => return Ok(None),
            (Some(one), None) | (None, Some(one)) => one,
            (Some(positions), Some(types)) => {
                types.unsqueeze(1)?.broadcast_add(&positions.unsqueeze(0)?)?.flatten(0, 1)?
            }
        };
        let rows = positions.map_or(1, |positions| positions.rows);
        Ok(Some(Self { table, rows, types: embeddings.token_types.unwrap_or(1), positions }))
    }

    /// The table rows for the tokens of a batch, (total_tokens).
    fn rows(&self, batch: &Batch) -> Result<Vec<u32>> {
        let mut rows = Vec::with_capacity(batch.input_ids.len());
        for tokens in batch.offsets.windows(2).map(|pair| pair[0]..pair[1]) {
            let mut next = self.positions.map_or(0, |positions| positions.first);
            for token in tokens {
                let token_type = match self.types {
                    1 => 0,
                    _ => batch.token_type_ids.get(token).map_or(0, |&token_type| token_type as usize),
                };
                let position = match self.positions {
                    None => 0,
                    Some(positions) if positions.padding_id == Some(batch.input_ids[token]) => positions.first - 1,
                    Some(_) => {
                        next += 1;
                        next - 1
                    }
                };
                if token_type >= self.types || position >= self.rows {
                    bail!(
                        "token type {token_type} at position {position} has no embedding: there are {} token types and \
                         {} positions",
                        self.types,
                        self.rows
                    );
                }
                rows.push((token_type * self.rows + position) as u32);
            }
        }
        Ok(rows)
    }
}

impl Embeddings {
    /// `parameters` are the encoder's.
    pub(super) fn load(parameters: &Parameters, architecture: &Architecture) -> Result<Self> {
        let embeddings = &architecture.embeddings;
        let (vocab_size, size) = (architecture.vocab_size, embeddings.size);
        let words = parameters.pp(embeddings.words);
        let words = match parameters.backend() {
            Backend::Kernels { .. } if words.is_contiguous("weight") => Table::stored(&words, vocab_size, size)?,
            _ => Table::Candle(words.tensor((vocab_size, size), "weight")?),
        };
        let projection =
            embeddings.projection.map(|name| Linear::load(parameters, Part::new(name), size, architecture.hidden_size));
        Ok(Self {
            words,
            additions: Additions::load(parameters, architecture)?,
            layer_norm: LayerNorm::load(parameters, embeddings.norm, size, architecture.norm)?,
            projection: projection.transpose()?,
        })
    }

    /// The linear layers.
    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.projection.iter()
    }

    /// (total_tokens, hidden)
    pub(super) fn forward(&self, batch: &Batch, device: &Device, parallelism: Parallelism) -> Result<Tensor> {
        let words = self.words.select(&batch.input_ids, device)?;
        let added = match &self.additions {
            None => None,
            Some(additions) => Some(additions.table.index_select(&Tensor::new(additions.rows(batch)?, device)?, 0)?),
        };
        let embedded = self.layer_norm.forward(&words, added.as_ref(), parallelism)?;
        match &self.projection {
            None => Ok(embedded),
            Some(projection) => projection.forward(&embedded, parallelism),
        }
    }
}
