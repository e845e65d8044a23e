//! An encoder with a classification head, for inference: token ids in, logits out. The only place with tensors.
//!
//! The model is built from an [`Architecture`], which the checkpoint's family makes of `config.json`; no family is known by
//! name here. Hidden states have the shape (total_tokens, hidden_size): the sequences of a batch stand one behind the other
//! without padding, so that every layer but attention is indifferent to where one ends. Attention alone takes the offsets.
//! If the head reads each sequence's first state and no other, the last layer computes no other.

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
use crate::kernels::Parallelism;
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

/// Where each sequence of a packed batch begins and ends, as attention needs it.
struct Sequences<'a> {
    /// One more than there are sequences; the first is 0, the last the number of tokens.
    offsets: &'a [usize],
}

impl Sequences<'_> {
    fn lengths(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.offsets.windows(2).map(|pair| pair[1] - pair[0])
    }

    fn longest(&self) -> usize {
        self.lengths().max().unwrap_or(0)
    }

    /// Where each sequence begins among the tokens: its `[CLS]`.
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
    /// Takes the parameters from `weights` to `backend`. For the kernels the large ones stay in the checkpoint's mapped
    /// file if it holds them as float32.
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

    /// Makes all passes to come faster, if there is a way, in less time than a pass over a few texts: the kernels' weights
    /// are packed once, rather than in each pass. Does nothing the second time.
    pub fn warm_up(&self) {
        // Not a `Once`: a thread of the pool that waits for others here may take work that comes here too.
        if !self.is_warm.load(Ordering::Relaxed) {
            let linears = self.embeddings.linears().chain(self.encoder.linears());
            linears.collect::<Vec<_>>().into_par_iter().for_each(Linear::pack);
            self.is_warm.store(true, Ordering::Relaxed);
        }
    }

    /// The logits of each sequence of `batch`, in its order: `num_labels` of them for each. `parallelism` says who does the
    /// kernels' work; candle's own operations have threads of their own.
    ///
    /// # Errors
    /// If an id, token type or position has no embedding, or the device fails, out of memory for instance.
    pub fn forward(&self, batch: &Batch, parallelism: Parallelism) -> Result<Vec<Vec<f32>>> {
        let sequences = Sequences { offsets: &batch.offsets };
        let hidden_states = self.embeddings.forward(batch, self.backend.device(), parallelism)?;
        let pooled = self.encoder.forward(hidden_states, &sequences, parallelism)?;
        self.head.forward(&pooled, parallelism)
    }
}
