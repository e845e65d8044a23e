//! ELECTRA, <https://arxiv.org/abs/2003.10555>: BERT with a different embedding width and head.

use super::{classification_head, Activation, Architecture, Dimension, Embeddings, Fields, Result, Shape};
use serde::Deserialize;

#[derive(Deserialize)]
struct Own {
    embedding_size: Option<Dimension>,
}

pub(super) fn read(fields: &Fields) -> Result<Architecture> {
    let bert = fields.read::<Shape>()?.bert("electra")?;
    let size = fields.read::<Own>()?.embedding_size.map_or(128, |size| size.0);
    let projection = (size != bert.hidden_size).then_some("embeddings_project");
    Ok(Architecture {
        embeddings: Embeddings { size, projection, ..bert.embeddings },
        // Always exact GELU, regardless of hidden_act.
        head: classification_head(Activation::Gelu),
        ..bert
    })
}
