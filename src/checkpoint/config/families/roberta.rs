//! RoBERTa, <https://arxiv.org/abs/1907.11692>, XLM-RoBERTa and CamemBERT: BERT with positions that start after the
//! padding token's row, and a different head.

use super::{
    classification_head, positions_after_padding, Activation, Architecture, Embeddings, Fields, Result, Shape,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Own {
    pad_token_id: Option<u16>,
}

pub(super) fn read(fields: &Fields) -> Result<Architecture> {
    let bert = fields.read::<Shape>()?.bert("roberta")?;
    let padding_id = fields.read::<Own>()?.pad_token_id.unwrap_or(1);
    let (positions, max_length) = positions_after_padding(bert.max_length, padding_id.into())?;
    Ok(Architecture {
        max_length,
        embeddings: Embeddings { positions: Some(positions), ..bert.embeddings },
        head: classification_head(Activation::Tanh),
        ..bert
    })
}
