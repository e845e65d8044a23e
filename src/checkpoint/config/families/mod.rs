//! The model families. Each file says what the family's `config.json` means and how its tensors are named; a new family
//! is a file and a line in [`FAMILIES`]. Formulas, names and defaults come from transformers' `modeling_*.py` and
//! `configuration_*.py`.

mod albert;
mod bert;
mod deberta_v2;
mod distilbert;
mod electra;
mod modernbert;
mod mpnet;
mod roberta;

use super::architecture::{
    AbsolutePositions, Architecture, Distances, Embeddings, Head, Layer, LayerParts, Norm, NormPlacement, Part, Pooling,
};
use super::fields::{Act, Dimension, Epsilon, Fields, Layers};
use crate::kernels::Activation;
use anyhow::{ensure, Result};
use serde::Deserialize;

/// A supported `model_type`.
pub(super) struct Family {
    /// Its name in `config.json`.
    pub(super) model_type: &'static str,
    /// Turns its `config.json` into an architecture.
    pub(super) read: fn(&Fields) -> Result<Architecture>,
}

/// The supported families.
pub(super) const FAMILIES: &[Family] = &[
    Family { model_type: "albert", read: albert::read },
    Family { model_type: "bert", read: bert::read },
    Family { model_type: "camembert", read: roberta::read },
    Family { model_type: "deberta-v2", read: deberta_v2::read },
    Family { model_type: "distilbert", read: distilbert::read },
    Family { model_type: "electra", read: electra::read },
    Family { model_type: "modernbert", read: modernbert::read },
    Family { model_type: "mpnet", read: mpnet::read },
    Family { model_type: "roberta", read: roberta::read },
    Family { model_type: "xlm-roberta", read: roberta::read },
];

/// The sizes, under the names used by most families.
#[derive(Deserialize)]
struct Shape {
    vocab_size: Dimension,
    hidden_size: Dimension,
    num_hidden_layers: Layers,
    num_attention_heads: Dimension,
    intermediate_size: Dimension,
    #[serde(default)]
    hidden_act: Act,
    layer_norm_eps: Option<Epsilon>,
    max_position_embeddings: Dimension,
    type_vocab_size: Option<u64>,
    #[serde(rename = "position_embedding_type")]
    _position_embedding_type: Option<PositionEmbedding>,
    is_decoder: Option<bool>,
}

/// The only supported kind.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum PositionEmbedding {
    Absolute,
}

/// Maximum number of token types: models have 2, sometimes 4.
const MOST_TOKEN_TYPES: u64 = 64;

impl Shape {
    /// BERT's architecture, on which most others are based.
    fn bert(self, prefix: &'static str) -> Result<Architecture> {
        ensure!(self.is_decoder != Some(true), "is_decoder is true: only encoders are supported");
        let (hidden_size, max_length) = (self.hidden_size.0, self.max_position_embeddings.0);
        let token_types = self.type_vocab_size.unwrap_or(2);
        ensure!(
            (1..=MOST_TOKEN_TYPES).contains(&token_types),
            "type_vocab_size is {token_types}, not a whole number from 1 to {MOST_TOKEN_TYPES}"
        );
        Ok(Architecture {
            prefix,
            vocab_size: self.vocab_size.0,
            hidden_size,
            heads: self.num_attention_heads.0,
            intermediate_size: self.intermediate_size.0,
            max_length,
            activation: self.hidden_act.0,
            norm: Norm { eps: self.layer_norm_eps.map_or(1e-12, |eps| eps.0), bias: true },
            embeddings: Embeddings {
                size: hidden_size,
                words: "embeddings.word_embeddings",
                positions: Some(AbsolutePositions { rows: max_length, first: 0, padding_id: None }),
                token_types: Some(token_types as usize),
                norm: "embeddings.LayerNorm",
                projection: None,
            },
            layers: (0..self.num_hidden_layers.0).map(|i| Layer::plain(format!("encoder.layer.{i}"))).collect(),
            parts: LayerParts {
                query: Part::new("attention.self.query"),
                key: Part::new("attention.self.key"),
                value: Part::new("attention.self.value"),
                attention_output: Part::new("attention.output.dense"),
                attention_norm: "attention.output.LayerNorm",
                intermediate: Part::new("intermediate.dense"),
                gate: None,
                output: Part::new("output.dense"),
                output_norm: "output.LayerNorm",
            },
            norm_placement: NormPlacement::After,
            distances: Distances::None,
            head: Head {
                pooling: Pooling::First,
                dense: Part::new("pooler.dense"),
                dense_is_in_encoder: true,
                activation: Activation::Tanh,
                norm: None,
                output: "classifier",
            },
        })
    }
}

/// The head of most families since BERT: dense, activation and output under one name.
const fn classification_head(activation: Activation) -> Head {
    Head {
        pooling: Pooling::First,
        dense: Part::new("classifier.dense"),
        dense_is_in_encoder: false,
        activation,
        norm: None,
        output: "classifier.out_proj",
    }
}

/// Positions that count from the row after the padding token's, as in fairseq.
fn positions_after_padding(rows: usize, padding_id: usize) -> Result<(AbsolutePositions, usize)> {
    let first = padding_id + 1;
    ensure!(
        rows > first,
        "max_position_embeddings is {rows}, which leaves no position after pad_token_id {padding_id}"
    );
    Ok((AbsolutePositions { rows, first, padding_id: Some(padding_id as u32) }, rows - first))
}
