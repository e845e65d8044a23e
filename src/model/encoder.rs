//! The stack of transformer layers.

use super::attention::attention;
use super::layers::{LayerNorm, Linear};
use super::Sequences;
use crate::checkpoint::config::Config;
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::HiddenAct;

pub(super) struct Encoder {
    layers: Vec<Layer>,
}

struct Layer {
    attention: Attention,
    feed_forward: FeedForward,
}

struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    layer_norm: LayerNorm,
    heads: usize,
}

struct FeedForward {
    intermediate: Linear,
    hidden_act: HiddenAct,
    output: Linear,
    layer_norm: LayerNorm,
}

impl Encoder {
    pub(super) fn load(weights: VarBuilder, config: &Config) -> Result<Self> {
        let layers = weights.pp("layer");
        let layers = (0..config.num_hidden_layers).map(|i| Layer::load(layers.pp(i), config)).collect::<Result<_>>()?;
        Ok(Self { layers })
    }

    /// (total_tokens, hidden) to (total_tokens, hidden).
    pub(super) fn forward(&self, hidden_states: Tensor, sequences: &Sequences) -> Result<Tensor> {
        self.layers.iter().try_fold(hidden_states, |hidden_states, layer| {
            let attended = layer.attention.forward(&hidden_states, sequences)?;
            layer.feed_forward.forward(&attended)
        })
    }
}

impl Layer {
    fn load(weights: VarBuilder, config: &Config) -> Result<Self> {
        Ok(Self {
            attention: Attention::load(weights.pp("attention"), config)?,
            feed_forward: FeedForward::load(weights, config)?,
        })
    }
}

impl Attention {
    fn load(weights: VarBuilder, config: &Config) -> Result<Self> {
        let square = |weights: VarBuilder| Linear::load(weights, config.hidden_size, config.hidden_size);
        let this = weights.pp("self");
        Ok(Self {
            query: square(this.pp("query"))?,
            key: square(this.pp("key"))?,
            value: square(this.pp("value"))?,
            output: square(weights.pp("output.dense"))?,
            layer_norm: LayerNorm::load(weights.pp("output.LayerNorm"), config)?,
            heads: config.num_attention_heads,
        })
    }

    fn forward(&self, hidden_states: &Tensor, sequences: &Sequences) -> Result<Tensor> {
        let query = self.query.forward(hidden_states)?;
        let key = self.key.forward(hidden_states)?;
        let value = self.value.forward(hidden_states)?;
        let context = attention(&query, &key, &value, self.heads, sequences)?;
        self.layer_norm.forward_residual(&self.output.forward(&context)?, hidden_states)
    }
}

impl FeedForward {
    /// `weights` is the layer's root: transformers keeps the two dense layers of this block there.
    fn load(weights: VarBuilder, config: &Config) -> Result<Self> {
        Ok(Self {
            intermediate: Linear::load(weights.pp("intermediate.dense"), config.hidden_size, config.intermediate_size)?,
            hidden_act: config.hidden_act,
            output: Linear::load(weights.pp("output.dense"), config.intermediate_size, config.hidden_size)?,
            layer_norm: LayerNorm::load(weights.pp("output.LayerNorm"), config)?,
        })
    }

    fn forward(&self, hidden_states: &Tensor) -> Result<Tensor> {
        let activated = self.activate(&self.intermediate.forward(hidden_states)?)?;
        self.layer_norm.forward_residual(&self.output.forward(&activated)?, hidden_states)
    }

    fn activate(&self, xs: &Tensor) -> Result<Tensor> {
        match self.hidden_act {
            HiddenAct::Gelu => xs.gelu_erf(),
            HiddenAct::GeluApproximate => xs.gelu(),
            HiddenAct::Relu => xs.relu(),
        }
    }
}
