//! DeBERTa-v2 and v3, <https://arxiv.org/abs/2006.03654>: BERT with disentangled attention instead of position embeddings.

use super::super::architecture::Disentangled;
use super::{
    Act, Architecture, Dimension, Distances, Embeddings, Epsilon, Fields, Head, LayerParts, Part, Result, Shape,
};
use anyhow::{ensure, Context};
use serde::Deserialize;

#[derive(Deserialize)]
struct Own {
    embedding_size: Option<Dimension>,
    layer_norm_eps: Option<Epsilon>,
    #[serde(default)]
    type_vocab_size: u16,
    position_biased_input: Option<bool>,
    #[serde(default)]
    relative_attention: bool,
    max_relative_positions: Option<i32>,
    position_buckets: Option<i32>,
    pos_att_type: Option<Kinds>,
    #[serde(default)]
    share_att_key: bool,
    #[serde(default)]
    norm_rel_ebd: String,
    conv_kernel_size: Option<i32>,
    attention_head_size: Option<Dimension>,
    pooler_hidden_size: Option<Dimension>,
    #[serde(default)]
    pooler_hidden_act: Act,
}

/// `["p2c", "c2p"]` or `"p2c|c2p"`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Kinds {
    List(Vec<String>),
    Joined(String),
}

impl Kinds {
    fn contain(&self, kind: &str) -> bool {
        match self {
            Kinds::List(kinds) => kinds.iter().any(|it| it == kind),
            Kinds::Joined(kinds) => kinds.to_lowercase().split('|').any(|it| it.trim() == kind),
        }
    }
}

pub(super) fn read(fields: &Fields) -> Result<Architecture> {
    let own = fields.read::<Own>()?;
    // 0 means something else in the same field.
    let shape = Shape { type_vocab_size: Some(own.type_vocab_size.max(1).into()), ..fields.read::<Shape>()? };
    let bert = shape.bert("deberta")?;
    let hidden = bert.hidden_size;
    for (name, size, only) in [
        ("embedding_size", own.embedding_size, hidden),
        ("pooler_hidden_size", own.pooler_hidden_size, hidden),
        ("attention_head_size", own.attention_head_size, hidden / bert.heads.min(hidden)),
    ] {
        ensure!(size.is_none_or(|size| size.0 == only), "{name} is not {only}, the only supported value");
    }
    ensure!(own.conv_kernel_size.unwrap_or(0) <= 0, "conv_kernel_size: encoders with a convolution are not supported");
    let positions = bert.embeddings.positions.filter(|_| own.position_biased_input.unwrap_or(true));
    Ok(Architecture {
        norm: super::Norm { eps: own.layer_norm_eps.map_or(1e-7, |eps| eps.0), bias: true },
        embeddings: Embeddings {
            positions,
            token_types: bert.embeddings.token_types.filter(|_| own.type_vocab_size > 0),
            ..bert.embeddings
        },
        parts: LayerParts {
            query: Part::new("attention.self.query_proj"),
            key: Part::new("attention.self.key_proj"),
            value: Part::new("attention.self.value_proj"),
            ..bert.parts
        },
        distances: distances(&own, bert.max_length)?,
        head: Head {
            dense: Part::new("pooler.dense"),
            dense_is_in_encoder: false,
            activation: own.pooler_hidden_act.0,
            ..bert.head
        },
        ..bert
    })
}

fn distances(own: &Own, max_length: usize) -> Result<Distances> {
    let has = |kind| own.pos_att_type.as_ref().is_some_and(|kinds| kinds.contain(kind));
    if !own.relative_attention {
        // Scores would be scaled for products that do not exist.
        ensure!(!has("c2p") && !has("p2c"), "pos_att_type is set, but relative_attention is not true");
        return Ok(Distances::None);
    }
    // Below 1 they mean "not set".
    let positive = |number: Option<i32>| number.filter(|&number| number > 0).map(|number| number as usize);
    let max_distance = positive(own.max_relative_positions).unwrap_or(max_length);
    let buckets = positive(own.position_buckets);
    let span =
        Dimension::check(buckets.unwrap_or(max_distance)).context("position_buckets or max_relative_positions")?;
    ensure!(buckets.is_none_or(|buckets| buckets >= 4), "position_buckets is below 4");
    ensure!(
        buckets.is_none_or(|buckets| max_distance > buckets / 2 + 1),
        "max_relative_positions is {max_distance}, too few for the position_buckets"
    );
    let projection =
        |kind, shared, own_name| has(kind).then(|| Part::new(if own.share_att_key { shared } else { own_name }));
    Ok(Distances::Disentangled(Disentangled {
        table: "encoder.rel_embeddings",
        norm: own
            .norm_rel_ebd
            .to_lowercase()
            .split('|')
            .any(|it| it.trim() == "layer_norm")
            .then_some("encoder.LayerNorm"),
        span,
        max_distance: buckets.map(|_| max_distance),
        key: projection("c2p", "attention.self.key_proj", "attention.self.pos_key_proj"),
        query: projection("p2c", "attention.self.query_proj", "attention.self.pos_query_proj"),
    }))
}
