//! An encoder with a classification head, for inference: token ids in, logits out. The only module with tensors.
//!
//! The model is built from an [`Architecture`], which the checkpoint's family derives from `config.json`; nothing here
//! depends on a family's name. Hidden states have the shape (total_tokens, hidden_size): the sequences of a batch are
//! concatenated without padding. Only attention needs the offsets. If the head reads only each sequence's first state,
//! the last layer computes only these.

mod attention;
mod backend;
mod cpu;
mod device;
mod embeddings;
mod encoder;
mod head;
mod layers;
mod parameters;
mod positions;

use crate::batching::Batch;
use crate::checkpoint::config::Architecture;
use crate::checkpoint::weights::Weights;
use crate::kernels::{Parallelism, Team};
pub use backend::{Backend, BackendChoice, CpuChoice};
use candle_core::Result;
pub use device::DeviceChoice;
use embeddings::Embeddings;
use encoder::Encoder;
use head::Head;
use layers::Linear;
use parameters::Parameters;
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where each sequence of a packed batch starts and ends, for attention.
struct Sequences<'a> {
    /// One more entry than there are sequences; the first is 0, the last is the number of tokens.
    offsets: &'a [usize],
}

impl Sequences<'_> {
    fn lengths(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.offsets.windows(2).map(|pair| pair[1] - pair[0])
    }

    fn longest(&self) -> usize {
        self.lengths().max().unwrap_or(0)
    }

    /// Where each sequence starts among the tokens: its `[CLS]`.
    fn starts(&self) -> Vec<u32> {
        self.offsets[..self.offsets.len() - 1].iter().map(|&offset| offset as u32).collect()
    }
}

/// An encoder with a classification head.
pub struct SequenceClassifier {
    embeddings: Embeddings,
    encoder: Encoder,
    head: Head,
    backend: Backend,
    is_warm: AtomicBool,
}

impl SequenceClassifier {
    /// Loads the parameters from `weights` to `backend`. For the kernels, large parameters stay in the checkpoint's
    /// mapped file if it stores them as float32.
    ///
    /// # Errors
    /// If a tensor is missing or its shape disagrees with `architecture`.
    pub fn load(weights: &Weights, architecture: &Architecture, num_labels: usize, backend: Backend) -> Result<Self> {
        let root = Parameters::new(weights, &backend);
        let encoder = root.encoder(architecture.prefix, architecture.embeddings.words);
        Ok(Self {
            embeddings: Embeddings::load(&encoder, architecture)?,
            encoder: Encoder::load(&encoder, architecture)?,
            head: Head::load(&root.in_f32(), &encoder.in_f32(), architecture, num_labels)?,
            backend,
            is_warm: AtomicBool::new(false),
        })
    }

    /// Packs the kernels' weights once rather than in each pass, if that makes passes faster. It takes less time than a
    /// pass over a few texts. Further calls do nothing.
    pub fn warm_up(&self) {
        // Not a `Once`: a pool thread that waits here may pick up work that calls this again.
        if !self.is_warm.load(Ordering::Relaxed) {
            let linears = self.embeddings.linears().chain(self.encoder.linears());
            linears.collect::<Vec<_>>().into_par_iter().for_each(Linear::pack);
            self.is_warm.store(true, Ordering::Relaxed);
        }
    }

    /// The logits of each sequence of `batch`, in order: `num_labels` of them for each. `parallelism` applies to the
    /// kernels; candle's own operations use their own threads.
    ///
    /// # Errors
    /// If an id, token type or position has no embedding, or the device fails, for example by running out of memory.
    pub fn forward(&self, batch: &Batch, parallelism: Parallelism) -> Result<Vec<Vec<f32>>> {
        match (&self.backend, parallelism) {
            (Backend::Kernels { .. }, Parallelism::Pool) => Team::with(|team| self.forward_with(batch, team)),
            _ => self.forward_with(batch, parallelism),
        }
    }

    fn forward_with(&self, batch: &Batch, parallelism: Parallelism) -> Result<Vec<Vec<f32>>> {
        let sequences = Sequences { offsets: &batch.offsets };
        let hidden_states = self.embeddings.forward(batch, self.backend.device(), parallelism)?;
        let pooled = self.encoder.forward(hidden_states, &sequences, parallelism)?;
        self.head.forward(&pooled, parallelism)
    }
}
