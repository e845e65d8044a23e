//! DistilBERT, <https://arxiv.org/abs/1910.01108>: BERT without token types, with its own tensor names.

use super::{
    Act, Activation, Architecture, Dimension, Embeddings, Epsilon, Fields, Head, Layer, LayerParts, Layers, Part,
    Result, Shape,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Own {
    vocab_size: Dimension,
    dim: Dimension,
    n_layers: Layers,
    n_heads: Dimension,
    hidden_dim: Dimension,
    #[serde(default)]
    activation: Act,
    max_position_embeddings: Dimension,
}

pub(super) fn read(fields: &Fields) -> Result<Architecture> {
    let own = fields.read::<Own>()?;
    let bert = Shape {
        vocab_size: own.vocab_size,
        hidden_size: own.dim,
        num_hidden_layers: own.n_layers,
        num_attention_heads: own.n_heads,
        intermediate_size: own.hidden_dim,
        hidden_act: own.activation,
        // Hard-coded in transformers.
        layer_norm_eps: Some(Epsilon(1e-12)),
        max_position_embeddings: own.max_position_embeddings,
        type_vocab_size: None,
        _position_embedding_type: None,
        is_decoder: None,
    }
    .bert("distilbert")?;
    let layers = (0..bert.layers.len()).map(|i| Layer::plain(format!("transformer.layer.{i}")));
    Ok(Architecture {
        embeddings: Embeddings { token_types: None, ..bert.embeddings },
        layers: layers.collect(),
        parts: LayerParts {
            query: Part::new("attention.q_lin"),
            key: Part::new("attention.k_lin"),
            value: Part::new("attention.v_lin"),
            attention_output: Part::new("attention.out_lin"),
            attention_norm: "sa_layer_norm",
            intermediate: Part::new("ffn.lin1"),
            gate: None,
            output: Part::new("ffn.lin2"),
            output_norm: "output_layer_norm",
        },
        head: Head {
            dense: Part::new("pre_classifier"),
            dense_is_in_encoder: false,
            activation: Activation::Relu,
            ..bert.head
        },
        ..bert
    })
}
