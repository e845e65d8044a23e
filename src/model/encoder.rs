//! The stack of transformer layers.

use super::attention::attention;
use super::cpu;
use super::layers::{LayerNorm, Linear};
use super::parameters::Parameters;
use super::Sequences;
use crate::checkpoint::config::Config;
use crate::kernels::{Activation, Level, Parallelism};
use candle_core::{Result, Tensor};
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
    level: Option<Level>,
}

struct FeedForward {
    intermediate: Linear,
    output: Linear,
    layer_norm: LayerNorm,
}

impl Encoder {
    pub(super) fn load(parameters: Parameters, config: &Config) -> Result<Self> {
        let layers = parameters.pp("layer");
        let layers = (0..config.num_hidden_layers).map(|i| Layer::load(layers.pp(i), config)).collect::<Result<_>>()?;
        Ok(Self { layers })
    }

    /// The linear layers, which hold nearly all of the parameters.
    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.layers.iter().flat_map(|Layer { attention, feed_forward }| {
            let Attention { query, key, value, output, .. } = attention;
            [query, key, value, output, &feed_forward.intermediate, &feed_forward.output]
        })
    }

    /// (total_tokens, hidden) to (total_tokens, hidden).
    pub(super) fn forward(
        &self,
        hidden_states: Tensor,
        sequences: &Sequences,
        parallelism: Parallelism,
    ) -> Result<Tensor> {
        self.layers.iter().try_fold(hidden_states, |hidden_states, layer| {
            let attended = layer.attention.forward(&hidden_states, sequences, parallelism)?;
            layer.feed_forward.forward(&attended, parallelism)
        })
    }
}

impl Layer {
    fn load(parameters: Parameters, config: &Config) -> Result<Self> {
        Ok(Self {
            attention: Attention::load(parameters.pp("attention"), config)?,
            feed_forward: FeedForward::load(parameters, config)?,
        })
    }
}

impl Attention {
    fn load(parameters: Parameters, config: &Config) -> Result<Self> {
        let square = |parameters: Parameters| Linear::load(parameters, config.hidden_size, config.hidden_size);
        let this = parameters.pp("self");
        Ok(Self {
            query: square(this.pp("query"))?,
            key: square(this.pp("key"))?,
            value: square(this.pp("value"))?,
            output: square(parameters.pp("output.dense"))?,
            layer_norm: LayerNorm::load(parameters.pp("output.LayerNorm"), config)?,
            heads: config.num_attention_heads,
            level: parameters.level(),
        })
    }

    fn forward(&self, hidden_states: &Tensor, sequences: &Sequences, parallelism: Parallelism) -> Result<Tensor> {
        let query = self.query.forward(hidden_states, parallelism)?;
        let key = self.key.forward(hidden_states, parallelism)?;
        let value = self.value.forward(hidden_states, parallelism)?;
        let context = match self.level {
            Some(level) => cpu::attention(level, parallelism, &query, &key, &value, self.heads, sequences.offsets)?,
            None => attention(&query, &key, &value, self.heads, sequences)?,
        };
        self.layer_norm.forward(&self.output.forward(&context, parallelism)?, hidden_states, parallelism)
    }
}

impl FeedForward {
    /// `parameters` are the layer's root: transformers keeps the two dense layers of this block there.
    fn load(parameters: Parameters, config: &Config) -> Result<Self> {
        Ok(Self {
            intermediate: Linear::load_activated(
                parameters.pp("intermediate.dense"),
                config.hidden_size,
                config.intermediate_size,
                activation(config.hidden_act),
            )?,
            output: Linear::load(parameters.pp("output.dense"), config.intermediate_size, config.hidden_size)?,
            layer_norm: LayerNorm::load(parameters.pp("output.LayerNorm"), config)?,
        })
    }

    fn forward(&self, hidden_states: &Tensor, parallelism: Parallelism) -> Result<Tensor> {
        let activated = self.intermediate.forward(hidden_states, parallelism)?;
        self.layer_norm.forward(&self.output.forward(&activated, parallelism)?, hidden_states, parallelism)
    }
}

fn activation(hidden_act: HiddenAct) -> Activation {
    match hidden_act {
        HiddenAct::Gelu => Activation::Gelu,
        HiddenAct::GeluApproximate => Activation::GeluTanh,
        HiddenAct::Relu => Activation::Relu,
    }
}
