//! ALBERT, <https://arxiv.org/abs/1909.11942>: BERT with narrower embeddings, and layers that share their parameters.

use super::{
    Act, Activation, Architecture, Dimension, Embeddings, Fields, Head, Layer, LayerParts, Layers, Part, Result, Shape,
};
use anyhow::ensure;
use serde::Deserialize;

#[derive(Deserialize)]
struct Own {
    embedding_size: Option<Dimension>,
    num_hidden_groups: Option<Layers>,
    inner_group_num: Option<Layers>,
    hidden_act: Option<Act>,
}

const MOST_STEPS: usize = 1024;

pub(super) fn read(fields: &Fields) -> Result<Architecture> {
    let bert = fields.read::<Shape>()?.bert("albert")?;
    let own = fields.read::<Own>()?;
    let (steps, groups) = (bert.layers.len(), own.num_hidden_groups.map_or(1, |groups| groups.0));
    let inner = own.inner_group_num.map_or(1, |inner| inner.0);
    ensure!(groups <= steps, "num_hidden_groups is {groups}, more than the {steps} layers of num_hidden_layers");
    ensure!(steps * inner <= MOST_STEPS, "inner_group_num is {inner}: more than {MOST_STEPS} layers are not supported");
    let name = |group, layer| format!("encoder.albert_layer_groups.{group}.albert_layers.{layer}");
    let layers =
        (0..steps).flat_map(|step| (0..inner).map(move |layer| Layer::plain(name(step * groups / steps, layer))));
    Ok(Architecture {
        activation: own.hidden_act.map_or(Activation::GeluTanh, |act| act.0),
        embeddings: Embeddings {
            size: own.embedding_size.map_or(128, |size| size.0),
            projection: Some("encoder.embedding_hidden_mapping_in"),
            ..bert.embeddings
        },
        layers: layers.collect(),
        parts: LayerParts {
            query: Part::new("attention.query"),
            key: Part::new("attention.key"),
            value: Part::new("attention.value"),
            attention_output: Part::new("attention.dense"),
            attention_norm: "attention.LayerNorm",
            intermediate: Part::new("ffn"),
            gate: None,
            output: Part::new("ffn_output"),
            output_norm: "full_layer_layer_norm",
        },
        head: Head { dense: Part::new("pooler"), ..bert.head },
        ..bert
    })
}
