//! `BertForSequenceClassification`, for inference: token ids in, logits out. The only place with tensors.
//!
//! Hidden states have the shape (total_tokens, hidden_size): the sequences of a batch stand one behind the other
//! without padding, so that every layer but attention is indifferent to where one ends. Attention alone takes the
//! offsets. Submodules are named as the parts of the model are in transformers' `modeling_bert.py`, from which the
//! formulas come.

mod attention;
mod device;
mod embeddings;
mod encoder;
mod head;
mod layers;

use crate::batching::Batch;
use crate::checkpoint::config::Config;
use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;
pub use device::DeviceChoice;
use embeddings::Embeddings;
use encoder::Encoder;
use head::{Classifier, Pooler};

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
}

/// A BERT encoder with a classification head on the pooled `[CLS]` state.
pub struct BertForSequenceClassification {
    embeddings: Embeddings,
    encoder: Encoder,
    pooler: Pooler,
    classifier: Classifier,
    device: Device,
}

impl BertForSequenceClassification {
    /// Takes the weights `bert.*` and `classifier.*` from `weights`, on its device and in its dtype.
    ///
    /// # Errors
    /// Where a tensor is missing or its shape disagrees with `config`.
    pub fn load(weights: VarBuilder, config: &Config, num_labels: usize) -> Result<Self> {
        let bert = weights.pp("bert");
        Ok(Self {
            embeddings: Embeddings::load(bert.pp("embeddings"), config)?,
            encoder: Encoder::load(bert.pp("encoder"), config)?,
            pooler: Pooler::load(bert.pp("pooler"), config)?,
            classifier: Classifier::load(weights.pp("classifier"), config, num_labels)?,
            device: weights.device().clone(),
        })
    }

    /// The logits of each sequence of `batch`, in its order: `num_labels` of them a sequence.
    ///
    /// # Errors
    /// Where the device fails, out of memory for instance.
    pub fn forward(&self, batch: &Batch) -> Result<Vec<Vec<f32>>> {
        let sequences = Sequences { offsets: &batch.offsets };
        let input_ids = Tensor::new(batch.input_ids.as_slice(), &self.device)?;
        let hidden_states = self.embeddings.forward(&input_ids, &sequences)?;
        let hidden_states = self.encoder.forward(hidden_states, &sequences)?;
        let pooled_output = self.pooler.forward(&hidden_states, &sequences)?;
        self.classifier.forward(&pooled_output)
    }
}
