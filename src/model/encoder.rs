//! The stack of transformer layers described by an [`Architecture`].

use super::attention::{attention, Attend};
use super::backend::Backend;
use super::cpu;
use super::layers::{Combined, LayerNorm, Linear};
use super::parameters::Parameters;
use super::positions::{LayerVectors, PassTables, PositionTables};
use super::Sequences;
use crate::checkpoint::config::{self, Architecture, NormPlacement, Pooling};
use crate::kernels::Parallelism;
use candle_core::{Result, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

pub(super) struct Encoder {
    steps: Vec<Step>,
    /// After the last layer, if norms come before attention and feed-forward.
    last_norm: Option<LayerNorm>,
    pooling: Pooling,
    tables: PositionTables,
    rotary_bases: Vec<f64>,
    heads: usize,
    backend: Backend,
}

/// One step through the stack; several steps may share a layer.
struct Step {
    layer: Arc<Layer>,
    window: Option<usize>,
    rotary_base: Option<f64>,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    vectors: LayerVectors,
    attention_output: Linear,
    /// After attention, or before it if `norms_before`.
    attention_norm: Option<LayerNorm>,
    intermediate: Linear,
    gate: Option<Linear>,
    output: Linear,
    output_norm: LayerNorm,
    norms_before: bool,
}

/// What a step needs apart from the hidden states.
struct Pass<'a> {
    encoder: &'a Encoder,
    step: &'a Step,
    tables: &'a PassTables,
    sequences: &'a Sequences<'a>,
    /// The sequences of the states that need queries, and the indices of these states; `None` if all do.
    firsts: Option<(&'a Sequences<'a>, &'a Tensor)>,
    parallelism: Parallelism,
}

impl Encoder {
    /// `parameters` are the encoder's.
    pub(super) fn load(parameters: &Parameters, architecture: &Architecture) -> Result<Self> {
        let mut loaded: HashMap<&str, Arc<Layer>> = HashMap::new();
        let mut steps = Vec::with_capacity(architecture.layers.len());
        let mut rotary_bases = Vec::new();
        for step in &architecture.layers {
            let layer = match loaded.get(step.name.as_str()) {
                Some(layer) => layer.clone(),
                None => Arc::new(Layer::load(&parameters.pp(&step.name), architecture, step)?),
            };
            loaded.insert(&step.name, layer.clone());
            rotary_bases.extend(step.rotary_base.filter(|base| !rotary_bases.contains(base)));
            steps.push(Step { layer, window: step.window, rotary_base: step.rotary_base });
        }
        let last_norm = match architecture.norm_placement {
            NormPlacement::After => None,
            NormPlacement::Before { last } => {
                Some(LayerNorm::load(parameters, last, architecture.hidden_size, architecture.norm)?)
            }
        };
        Ok(Self {
            steps,
            last_norm,
            pooling: architecture.head.pooling,
            tables: PositionTables::load(parameters, architecture)?,
            rotary_bases,
            heads: architecture.heads,
            backend: parameters.backend().clone(),
        })
    }

    /// The linear layers, which hold nearly all of the parameters. Those of a shared layer are repeated for each use.
    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.steps.iter().flat_map(|step| step.layer.linears())
    }

    /// (total_tokens, hidden) to (sequences, hidden): what the head reads of each sequence.
    pub(super) fn forward(
        &self,
        mut hidden_states: Tensor,
        sequences: &Sequences,
        parallelism: Parallelism,
    ) -> Result<Tensor> {
        let tables = self.tables.of_pass(sequences.longest(), &self.rotary_bases)?;
        let starts = Tensor::new(sequences.starts(), hidden_states.device())?;
        let first_of_each: Vec<usize> = (0..sequences.offsets.len()).collect();
        let firsts = Sequences { offsets: &first_of_each };
        for (i, step) in self.steps.iter().enumerate() {
            // In the last layer only the first tokens need queries if the head reads nothing else; all tokens still
            // have keys.
            let only_firsts = i + 1 == self.steps.len() && self.pooling == Pooling::First;
            let firsts = only_firsts.then_some((&firsts, &starts));
            let pass = Pass { encoder: self, step, tables: &tables, sequences, firsts, parallelism };
            hidden_states = step.layer.forward(hidden_states, &pass)?;
        }
        if let Some(norm) = &self.last_norm {
            hidden_states = norm.forward(&hidden_states, None, parallelism)?;
        }
        match self.pooling {
            Pooling::First => Ok(hidden_states),
            Pooling::Mean => mean_of_each(&hidden_states, sequences),
        }
    }
}

/// (total_tokens, hidden) to (sequences, hidden).
fn mean_of_each(hidden_states: &Tensor, sequences: &Sequences) -> Result<Tensor> {
    let means = sequences.offsets.windows(2).map(|pair| hidden_states.narrow(0, pair[0], pair[1] - pair[0])?.mean(0));
    Tensor::stack(&means.collect::<Result<Vec<_>>>()?, 0)
}

impl Pass<'_> {
    /// The states that need queries.
    fn queried(&self, hidden_states: &Tensor) -> Result<Tensor> {
        match self.firsts {
            None => Ok(hidden_states.clone()),
            Some((_, starts)) => hidden_states.index_select(starts, 0),
        }
    }
}

impl Layer {
    /// `parameters` are the layer's.
    fn load(parameters: &Parameters, architecture: &Architecture, step: &config::Layer) -> Result<Self> {
        let Architecture { hidden_size: hidden, intermediate_size, activation, parts, norm, .. } = *architecture;
        let square = |part| Linear::load(parameters, part, hidden, hidden);
        let layer_norm = |name| LayerNorm::load(parameters, name, hidden, norm);
        let norms_before = architecture.norm_placement != NormPlacement::After;
        let has_attention_norm = step.has_attention_norm || !norms_before;
        let gate = parts.gate.map(|part| Linear::load(parameters, part, hidden, intermediate_size));
        Ok(Self {
            query: square(parts.query)?,
            key: square(parts.key)?,
            value: square(parts.value)?,
            vectors: LayerVectors::load(parameters, architecture)?,
            attention_output: square(parts.attention_output)?,
            attention_norm: has_attention_norm.then(|| layer_norm(parts.attention_norm)).transpose()?,
            intermediate: Linear::load_activated(
                parameters,
                parts.intermediate,
                hidden,
                intermediate_size,
                activation,
            )?,
            gate: gate.transpose()?,
            output: Linear::load(parameters, parts.output, intermediate_size, hidden)?,
            output_norm: layer_norm(parts.output_norm)?,
            norms_before,
        })
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        let Layer { query, key, value, attention_output, intermediate, output, gate, vectors, .. } = self;
        [query, key, value, attention_output, intermediate, output].into_iter().chain(gate).chain(vectors.linears())
    }

    /// (total_tokens, hidden) to (queries, hidden).
    fn forward(&self, hidden_states: Tensor, pass: &Pass) -> Result<Tensor> {
        let parallelism = pass.parallelism;
        let queried = pass.queried(&hidden_states)?;
        if self.norms_before {
            let (queries, keys) = match &self.attention_norm {
                None => (queried.clone(), hidden_states),
                Some(norm) => {
                    let normed = norm.forward(&hidden_states, None, parallelism)?;
                    (pass.queried(&normed)?, normed)
                }
            };
            let context = self.attend(&queries, &keys, pass)?;
            let attended = self.attention_output.forward_combined(&context, Combined::Plus(&queried), parallelism)?;
            let normed = self.output_norm.forward(&attended, None, parallelism)?;
            let activated = self.activated(&normed, parallelism)?;
            self.output.forward_combined(&activated, Combined::Plus(&attended), parallelism)
        } else {
            let context = self.attend(&queried, &hidden_states, pass)?;
            let mut attended = self.attention_output.forward(&context, parallelism)?;
            if let Some(norm) = &self.attention_norm {
                attended = norm.forward(&attended, Some(&queried), parallelism)?;
            }
            let fed = self.output.forward(&self.activated(&attended, parallelism)?, parallelism)?;
            self.output_norm.forward(&fed, Some(&attended), parallelism)
        }
    }

    /// Attention from the states `queried` to `hidden_states`.
    fn attend(&self, queried: &Tensor, hidden_states: &Tensor, pass: &Pass) -> Result<Tensor> {
        let Pass { encoder, step, tables, sequences, firsts, parallelism } = *pass;
        let query = self.query.forward(queried, parallelism)?;
        let key = self.key.forward(hidden_states, parallelism)?;
        let value = self.value.forward(hidden_states, parallelism)?;
        let vectors = encoder.tables.vectors(&self.vectors, tables, &self.key, &self.query, parallelism)?;
        let attend = Attend {
            heads: encoder.heads,
            scale: encoder.tables.scale(),
            window: step.window,
            positions: tables.positions(step.rotary_base, vectors.as_deref()),
            queries: firsts.map_or(sequences, |(firsts, _)| firsts),
            sequences,
        };
        match encoder.backend {
            Backend::Kernels { level, .. } => cpu::attention(level, parallelism, &query, &key, &value, &attend),
            Backend::Candle { .. } => attention(&query, &key, &value, &attend),
        }
    }

    /// The first half of the feed-forward layer.
    fn activated(&self, xs: &Tensor, parallelism: Parallelism) -> Result<Tensor> {
        let activated = self.intermediate.forward(xs, parallelism)?;
        match &self.gate {
            None => Ok(activated),
            Some(gate) => gate.forward_combined(xs, Combined::Times(&activated), parallelism),
        }
    }
}
