//! The stack of transformer layers described by an [`Architecture`].

use super::attention::{attention, Attend};
use super::backend::Backend;
use super::cpu;
use super::layers::{KernelLinear, LayerNorm, Linear};
use super::parameters::Parameters;
use super::positions::{LayerVectors, PassTables, PositionTables, Vectors};
use super::Sequences;
use crate::checkpoint::config::{self, Architecture, NormPlacement, Pooling};
use crate::kernels::{self, Level, Parallelism};
use candle_core::{Device, Result, Tensor};
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

/// Hidden states, (rows, hidden), where the backend computes.
enum States {
    Tensor(Tensor),
    /// Those of the kernels.
    Floats {
        floats: Vec<f32>,
        hidden: usize,
        level: Level,
    },
}

impl States {
    fn of(tensor: Tensor, backend: &Backend) -> Result<States> {
        match *backend {
            Backend::Candle { .. } => Ok(States::Tensor(tensor)),
            Backend::Kernels { level, .. } => {
                Ok(States::Floats { hidden: tensor.dim(1)?, floats: tensor.flatten_all()?.to_vec1()?, level })
            }
        }
    }

    fn into_tensor(self) -> Result<Tensor> {
        match self {
            States::Tensor(tensor) => Ok(tensor),
            States::Floats { floats, hidden, .. } => {
                let rows = floats.len() / hidden;
                Tensor::from_vec(floats, (rows, hidden), &Device::Cpu)
            }
        }
    }
}

/// What a step needs apart from the hidden states.
struct Pass<'a> {
    encoder: &'a Encoder,
    step: &'a Step,
    tables: &'a PassTables,
    sequences: &'a Sequences<'a>,
    /// The sequences of the states that need queries, and the indices of these states; `None` if all do.
    firsts: Option<(&'a Sequences<'a>, &'a Tensor)>,
    parallelism: Parallelism<'a>,
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
        hidden_states: Tensor,
        sequences: &Sequences,
        parallelism: Parallelism,
    ) -> Result<Tensor> {
        let tables = self.tables.of_pass(sequences.longest(), &self.rotary_bases)?;
        let starts = Tensor::new(sequences.starts(), hidden_states.device())?;
        let first_of_each: Vec<usize> = (0..sequences.offsets.len()).collect();
        let firsts = Sequences { offsets: &first_of_each };
        let mut states = States::of(hidden_states, &self.backend)?;
        for (i, step) in self.steps.iter().enumerate() {
            // In the last layer only the first tokens need queries if the head reads nothing else; all tokens still
            // have keys.
            let only_firsts = i + 1 == self.steps.len() && self.pooling == Pooling::First;
            let firsts = only_firsts.then_some((&firsts, &starts));
            let pass = Pass { encoder: self, step, tables: &tables, sequences, firsts, parallelism };
            states = step.layer.forward(states, &pass)?;
        }
        let mut hidden_states = states.into_tensor()?;
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
    fn forward(&self, states: States, pass: &Pass) -> Result<States> {
        let vectors = self.vectors(pass)?;
        let attend = Attend {
            heads: pass.encoder.heads,
            scale: pass.encoder.tables.scale(),
            window: pass.step.window,
            positions: pass.tables.positions(pass.step.rotary_base, vectors.as_deref()),
            queries: pass.firsts.map_or(pass.sequences, |(firsts, _)| firsts),
            sequences: pass.sequences,
        };
        match states {
            States::Tensor(states) => self.forward_tensor(&states, pass, &attend).map(States::Tensor),
            States::Floats { mut floats, hidden, level } => {
                self.forward_floats(&mut floats, level, pass, &attend)?;
                Ok(States::Floats { floats, hidden, level })
            }
        }
    }

    fn vectors(&self, pass: &Pass) -> Result<Option<Arc<Vectors>>> {
        let Pass { encoder, tables, parallelism, .. } = *pass;
        encoder.tables.vectors(&self.vectors, tables, &self.key, &self.query, parallelism)
    }

    /// With the kernels, in place.
    fn forward_floats(&self, states: &mut Vec<f32>, level: Level, pass: &Pass, attend: &Attend) -> Result<()> {
        let Layer { query, key, value, attention_output, intermediate, output, .. } = self;
        let linears = [query, key, value, attention_output, intermediate, output].map(Linear::for_kernels);
        let [query, key, value, attention_output, intermediate, output] = linears.each_ref().map(KernelLinear::borrow);
        let gate = self.gate.as_ref().map(Linear::for_kernels);
        let attention = self.attention_norm.as_ref().map(LayerNorm::for_kernels);
        let feed_forward = self.output_norm.for_kernels();
        let layer = kernels::Layer {
            query,
            key,
            value,
            attention_output,
            intermediate,
            gate: gate.as_ref().map(KernelLinear::borrow),
            output,
            norms: match (self.norms_before, attention) {
                (false, Some(attention)) => kernels::Norms::After { attention, feed_forward },
                (_, attention) => kernels::Norms::Before { attention, feed_forward },
            },
        };
        cpu::layer(level, pass.parallelism, &layer, attend, pass.firsts.is_some(), states)
    }

    /// With candle's operations: what [`kernels::layer`] does.
    fn forward_tensor(&self, states: &Tensor, pass: &Pass, attend: &Attend) -> Result<Tensor> {
        let linear = |linear: &Linear, xs: &Tensor| linear.forward(xs, pass.parallelism);
        let norm = |norm: &LayerNorm, xs: &Tensor| norm.forward(xs, None, pass.parallelism);
        let attention_norm = |xs: &Tensor| self.attention_norm.as_ref().map_or(Ok(xs.clone()), |it| norm(it, xs));
        let input = if self.norms_before { attention_norm(states)? } else { states.clone() };
        let query = linear(&self.query, &pass.queried(&input)?)?;
        let context = attention(&query, &linear(&self.key, &input)?, &linear(&self.value, &input)?, attend)?;
        let attended = (linear(&self.attention_output, &context)? + pass.queried(states)?)?;
        let (attended, input) = match self.norms_before {
            true => (attended.clone(), norm(&self.output_norm, &attended)?),
            false => {
                let attended = attention_norm(&attended)?;
                (attended.clone(), attended)
            }
        };
        let mut activated = linear(&self.intermediate, &input)?;
        if let Some(gate) = &self.gate {
            activated = (activated * linear(gate, &input)?)?;
        }
        let fed = (linear(&self.output, &activated)? + attended)?;
        if self.norms_before {
            Ok(fed)
        } else {
            norm(&self.output_norm, &fed)
        }
    }
}
