//! The stack of transformer layers.

use super::attention::attention;
use super::backend::Backend;
use super::cpu;
use super::layers::{LayerNorm, Linear};
use super::parameters::Parameters;
use super::Sequences;
use crate::checkpoint::config::Config;
use crate::kernels::{Activation, Parallelism};
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
    backend: Backend,
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

    /// (total_tokens, hidden) to (sequences, hidden), the last hidden state of each sequence's first token.
    pub(super) fn forward(
        &self,
        mut hidden_states: Tensor,
        sequences: &Sequences,
        parallelism: Parallelism,
    ) -> Result<Tensor> {
        let starts = Tensor::new(sequences.starts(), hidden_states.device())?;
        let first_of_each: Vec<usize> = (0..sequences.offsets.len()).collect();
        let firsts = Sequences { offsets: &first_of_each };
        for (i, layer) in self.layers.iter().enumerate() {
            // Behind the last layer nobody asks for the other tokens, who are still asked in it.
            let is_last = i + 1 == self.layers.len();
            let (asking, queries) = match is_last {
                true => (hidden_states.index_select(&starts, 0)?, &firsts),
                false => (hidden_states.clone(), sequences),
            };
            let attended = layer.attention.forward(&asking, queries, &hidden_states, sequences, parallelism)?;
            hidden_states = layer.feed_forward.forward(&attended, parallelism)?;
        }
        Ok(hidden_states)
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
            backend: parameters.backend().clone(),
        })
    }

    /// The states `asking`, whose sequences are `queries`, after they have attended to `hidden_states`, whose sequences are
    /// `sequences`.
    fn forward(
        &self,
        asking: &Tensor,
        queries: &Sequences,
        hidden_states: &Tensor,
        sequences: &Sequences,
        parallelism: Parallelism,
    ) -> Result<Tensor> {
        let query = self.query.forward(asking, parallelism)?;
        let key = self.key.forward(hidden_states, parallelism)?;
        let value = self.value.forward(hidden_states, parallelism)?;
        let context = match self.backend {
            Backend::Kernels { level, .. } => {
                cpu::attention(level, parallelism, &query, &key, &value, self.heads, queries, sequences)?
            }
            Backend::Candle { .. } => attention(&query, &key, &value, self.heads, queries, sequences)?,
        };
        self.layer_norm.forward(&self.output.forward(&context, parallelism)?, asking, parallelism)
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
