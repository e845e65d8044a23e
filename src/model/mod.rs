//! `BertForSequenceClassification`, for inference: token ids in, logits out. The only place with tensors.
//!
//! Hidden states have the shape (total_tokens, hidden_size): the sequences of a batch stand one behind the other
//! without padding, so that every layer but attention is indifferent to where one ends. Attention alone takes the
//! offsets. The head reads each sequence's first state and no other, so the last layer computes no other. Submodules are
//! named as the parts of the model are in transformers' `modeling_bert.py`, from which the formulas come.

mod attention;
mod backend;
mod cpu;
mod device;
mod embeddings;
mod encoder;
mod head;
mod layers;
mod parameters;

use crate::batching::Batch;
use crate::checkpoint::config::Config;
use crate::checkpoint::weights::Weights;
use crate::kernels::Parallelism;
pub use backend::{Backend, BackendChoice, CpuChoice};
use candle_core::Result;
pub use device::DeviceChoice;
use embeddings::Embeddings;
use encoder::Encoder;
use head::{Classifier, Pooler};
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

/// A BERT encoder with a classification head on the pooled `[CLS]` state.
pub struct BertForSequenceClassification {
    embeddings: Embeddings,
    encoder: Encoder,
    pooler: Pooler,
    classifier: Classifier,
    backend: Backend,
    is_warm: AtomicBool,
}

impl BertForSequenceClassification {
    /// Takes the parameters `bert.*` and `classifier.*` from `weights` to `backend`. For the kernels the
    /// large parameters stay in the checkpoint's mapped file if it holds them as float32.
    ///
    /// # Errors
    /// Where a tensor is missing or its shape disagrees with `config`.
    pub fn load(weights: &Weights, config: &Config, num_labels: usize, backend: Backend) -> Result<Self> {
        let parameters = Parameters::new(weights, &backend);
        let bert = parameters.pp("bert");
        Ok(Self {
            embeddings: Embeddings::load(bert.pp("embeddings"), config)?,
            encoder: Encoder::load(bert.pp("encoder"), config)?,
            pooler: Pooler::load(bert.pp("pooler").in_f32(), config)?,
            classifier: Classifier::load(parameters.pp("classifier").in_f32(), config, num_labels)?,
            backend,
            is_warm: AtomicBool::new(false),
        })
    }

    /// Makes all passes to come faster, where there is a way, in less time than a pass over a few texts: the kernels' weights
    /// are packed once, rather than in each pass. Does nothing the second time.
    pub fn warm_up(&self) {
        // Not a `Once`: a thread of the pool that waits for others here may take work that comes here too.
        if !self.is_warm.load(Ordering::Relaxed) {
            self.encoder.linears().collect::<Vec<_>>().into_par_iter().for_each(Linear::pack);
            self.is_warm.store(true, Ordering::Relaxed);
        }
    }

    /// The logits of each sequence of `batch`, in its order: `num_labels` of them a sequence. `parallelism` says who
    /// does the kernels' work; candle's own operations have threads of their own.
    ///
    /// # Errors
    /// Where the device fails, out of memory for instance.
    pub fn forward(&self, batch: &Batch, parallelism: Parallelism) -> Result<Vec<Vec<f32>>> {
        let sequences = Sequences { offsets: &batch.offsets };
        let hidden_states =
            self.embeddings.forward(&batch.input_ids, &sequences, self.backend.device(), parallelism)?;
        let first_states = self.encoder.forward(hidden_states, &sequences, parallelism)?;
        let pooled_output = self.pooler.forward(&first_states, parallelism)?;
        self.classifier.forward(&pooled_output, parallelism)
    }
}
