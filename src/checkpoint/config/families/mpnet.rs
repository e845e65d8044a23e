//! MPNet, <https://arxiv.org/abs/2004.09297>: BERT with a distance bias on scores, no token types, and RoBERTa's
//! positions and head.

use super::{
    classification_head, positions_after_padding, Activation, Architecture, Distances, Embeddings, Fields, LayerParts,
    Part, Result, Shape,
};

/// Hard-coded in transformers, regardless of `pad_token_id` and `relative_attention_num_buckets`.
const PADDING_ID: usize = 1;
const BUCKETS: usize = 32;
const MAX_DISTANCE: usize = 128;

pub(super) fn read(fields: &Fields) -> Result<Architecture> {
    let bert = fields.read::<Shape>()?.bert("mpnet")?;
    let (positions, max_length) = positions_after_padding(bert.max_length, PADDING_ID)?;
    Ok(Architecture {
        max_length,
        embeddings: Embeddings { positions: Some(positions), token_types: None, ..bert.embeddings },
        parts: LayerParts {
            query: Part::new("attention.attn.q"),
            key: Part::new("attention.attn.k"),
            value: Part::new("attention.attn.v"),
            attention_output: Part::new("attention.attn.o"),
            attention_norm: "attention.LayerNorm",
            ..bert.parts
        },
        distances: Distances::Bias {
            table: "encoder.relative_attention_bias",
            buckets: BUCKETS,
            max_distance: MAX_DISTANCE,
        },
        head: classification_head(Activation::Tanh),
        ..bert
    })
}
