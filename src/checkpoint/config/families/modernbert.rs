//! ModernBERT, <https://arxiv.org/abs/2412.13663>: pre-norm, rotary positions, local and global attention, a gated
//! feed-forward layer, no biases.

use super::{
    Act, Architecture, Dimension, Distances, Embeddings, Epsilon, Fields, Head, Layer, LayerParts, Layers, Norm,
    NormPlacement, Part, Pooling, Result,
};
use anyhow::ensure;
use serde::Deserialize;

#[derive(Deserialize)]
struct Own {
    vocab_size: Dimension,
    hidden_size: Dimension,
    num_hidden_layers: Layers,
    num_attention_heads: Dimension,
    intermediate_size: Dimension,
    max_position_embeddings: Dimension,
    #[serde(default)]
    hidden_activation: Act,
    norm_eps: Option<Epsilon>,
    #[serde(default)]
    norm_bias: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    local_attention: Option<Dimension>,
    // transformers 4
    global_attn_every_n_layers: Option<Layers>,
    global_rope_theta: Option<f64>,
    local_rope_theta: Option<f64>,
    // transformers 5
    layer_types: Option<Vec<LayerType>>,
    rope_parameters: Option<RopeParameters>,
    #[serde(rename = "rope_scaling")]
    rope_scaling: Option<serde_json::Value>,
    #[serde(default)]
    classifier_pooling: ClassifierPooling,
    #[serde(default)]
    classifier_bias: bool,
    #[serde(default)]
    classifier_activation: Act,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "snake_case")]
enum LayerType {
    FullAttention,
    SlidingAttention,
}

#[derive(Deserialize, Default)]
struct RopeParameters {
    full_attention: Option<Rope>,
    sliding_attention: Option<Rope>,
}

#[derive(Deserialize)]
struct Rope {
    #[serde(rename = "rope_type", default)]
    _rope_type: RopeType,
    rope_theta: Option<f64>,
}

/// The only supported kind.
#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum RopeType {
    #[default]
    Default,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum ClassifierPooling {
    #[default]
    Cls,
    Mean,
}

impl Own {
    /// For each layer, whether it attends to all tokens.
    fn are_global(&self) -> Result<Vec<bool>> {
        let count = self.num_hidden_layers.0;
        match &self.layer_types {
            Some(types) => {
                ensure!(
                    types.len() == count,
                    "layer_types has {} entries, but num_hidden_layers is {count}",
                    types.len()
                );
                Ok(types.iter().map(|&it| it == LayerType::FullAttention).collect())
            }
            None => {
                let every = self.global_attn_every_n_layers.map_or(3, |every| every.0);
                Ok((0..count).map(|i| i % every == 0).collect())
            }
        }
    }

    /// The rotary bases, global and local.
    fn rotary_bases(&self) -> Result<(f64, f64)> {
        ensure!(self.rope_scaling.is_none(), "rope_scaling is not supported");
        let rope = self.rope_parameters.as_ref();
        let of = |rope: Option<&Rope>, older: Option<f64>, default| {
            rope.and_then(|it| it.rope_theta).or(older).unwrap_or(default)
        };
        let global = of(rope.and_then(|it| it.full_attention.as_ref()), self.global_rope_theta, 160_000.0);
        let local = of(rope.and_then(|it| it.sliding_attention.as_ref()), self.local_rope_theta, 10_000.0);
        for (name, base) in [("global_rope_theta", global), ("local_rope_theta", local)] {
            ensure!(base.is_finite() && base >= 1.0, "{name} (or rope_theta) is {base}, not a number of at least 1");
        }
        Ok((global, local))
    }
}

pub(super) fn read(fields: &Fields) -> Result<Architecture> {
    let own = fields.read::<Own>()?;
    let (hidden_size, heads) = (own.hidden_size.0, own.num_attention_heads.0);
    ensure!(
        hidden_size % (2 * heads) == 0,
        "hidden_size {hidden_size} divided by num_attention_heads {heads} is not even, which rotary positions need"
    );
    let (global, local) = own.rotary_bases()?;
    let window = own.local_attention.map_or(128, |window| window.0) / 2;
    let layers = own.are_global()?.into_iter().enumerate().map(|(i, is_global)| Layer {
        name: format!("layers.{i}"),
        window: (!is_global).then_some(window),
        rotary_base: Some(if is_global { global } else { local }),
        has_attention_norm: i > 0,
    });
    let attention = |name, index, of| Part { name, index, of, bias: own.attention_bias };
    let mlp = |name, index, of| Part { name, index, of, bias: own.mlp_bias };
    Ok(Architecture {
        prefix: "model",
        vocab_size: own.vocab_size.0,
        hidden_size,
        heads,
        intermediate_size: own.intermediate_size.0,
        max_length: own.max_position_embeddings.0,
        activation: own.hidden_activation.0,
        norm: Norm { eps: own.norm_eps.map_or(1e-5, |eps| eps.0), bias: own.norm_bias },
        embeddings: Embeddings {
            size: hidden_size,
            words: "embeddings.tok_embeddings",
            positions: None,
            token_types: None,
            norm: "embeddings.norm",
            projection: None,
        },
        layers: layers.collect(),
        parts: LayerParts {
            query: attention("attn.Wqkv", 0, 3),
            key: attention("attn.Wqkv", 1, 3),
            value: attention("attn.Wqkv", 2, 3),
            attention_output: attention("attn.Wo", 0, 1),
            attention_norm: "attn_norm",
            intermediate: mlp("mlp.Wi", 0, 2),
            gate: Some(mlp("mlp.Wi", 1, 2)),
            output: mlp("mlp.Wo", 0, 1),
            output_norm: "mlp_norm",
        },
        norm_placement: NormPlacement::Before { last: "final_norm" },
        distances: Distances::None,
        head: Head {
            pooling: match own.classifier_pooling {
                ClassifierPooling::Cls => Pooling::First,
                ClassifierPooling::Mean => Pooling::Mean,
            },
            dense: Part { name: "head.dense", index: 0, of: 1, bias: own.classifier_bias },
            dense_is_in_encoder: false,
            activation: own.classifier_activation.0,
            norm: Some("head.norm"),
            output: "classifier",
        },
    })
}
