//! The classification head: a dense layer, its activation, sometimes a norm, and the layer that computes the logits.

use super::layers::{LayerNorm, Linear};
use super::parameters::Parameters;
use crate::checkpoint::config::{Architecture, Part};
use crate::kernels::Parallelism;
use candle_core::{DType, Result, Tensor};

pub(super) struct Head {
    dense: Linear,
    norm: Option<LayerNorm>,
    output: Linear,
}

impl Head {
    /// `root` holds all parameters of the checkpoint, `encoder` those of the encoder.
    pub(super) fn load(
        root: &Parameters,
        encoder: &Parameters,
        architecture: &Architecture,
        num_labels: usize,
    ) -> Result<Self> {
        let (head, hidden) = (architecture.head, architecture.hidden_size);
        let parameters = if head.dense_is_in_encoder { encoder } else { root };
        Ok(Self {
            dense: Linear::load_activated(parameters, head.dense, hidden, hidden, head.activation)?,
            norm: head.norm.map(|name| LayerNorm::load(root, name, hidden, architecture.norm)).transpose()?,
            output: Linear::load(root, Part::new(head.output), hidden, num_labels)?,
        })
    }

    /// (sequences, hidden) to (sequences, labels): one row of logits per sequence.
    pub(super) fn forward(&self, pooled: &Tensor, parallelism: Parallelism) -> Result<Vec<Vec<f32>>> {
        let mut states = self.dense.forward(pooled, parallelism)?;
        if let Some(norm) = &self.norm {
            states = norm.forward(&states, None, parallelism)?;
        }
        self.output.forward(&states, parallelism)?.to_dtype(DType::F32)?.to_vec2()
    }
}
