//! A model with its batches: encodings in, logits out. Equal encodings are computed once.

use crate::batching::{batches, Batch, BatchLimits};
use crate::checkpoint::Checkpoint;
use crate::kernels::{Parallelism, Precision};
use crate::model::{Backend, SequenceClassifier};
use crate::tokenization::Encoding;
use anyhow::{ensure, Context, Result};
use rayon::prelude::*;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// With fewer batches per thread, some threads would be idle for a long time at the end.
const BATCHES_OF_A_THREAD: usize = 4;

/// Tokens per batch for one core: enough rows to make use of a panel of weights, few enough to keep the widest
/// activations (4 x 768 numbers per token in BERT-base) in a cache. Of 256, 384, 512, 768, 1024 and 2048, the first two
/// were a few percent faster than the rest; smaller batches also mean less waiting at the end.
const CPU_BATCH_TOKENS: usize = 384;
/// Tokens per batch for a GPU, which has thousands of cores to keep busy.
const GPU_BATCH_TOKENS: usize = 8192;

/// Tokens per batch for what computes.
fn batch_tokens(backend: &Backend) -> usize {
    match backend {
        Backend::Kernels { level, .. } => level.batch_tokens(),
        _ if backend.device().is_cpu() => CPU_BATCH_TOKENS,
        _ => GPU_BATCH_TOKENS,
    }
}

/// A model, ready to compute.
pub(super) struct Network {
    model: SequenceClassifier,
    backend: Backend,
    batch_limits: BatchLimits,
    /// Whether the model has been used, or is about to be.
    has_run: AtomicBool,
}

impl Network {
    /// Loads the checkpoint's model to `backend`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape than config.json says.
    pub(super) fn load(
        checkpoint: &Checkpoint,
        num_labels: usize,
        backend: Backend,
        max_batch_tokens: Option<usize>,
    ) -> Result<Network> {
        let architecture = &checkpoint.config.architecture;
        let model = SequenceClassifier::load(&checkpoint.weights, architecture, num_labels, backend.clone())
            .with_context(|| format!("cannot build the model from {}", checkpoint.files))?;
        let batch_limits = BatchLimits { max_batch_tokens: max_batch_tokens.unwrap_or(batch_tokens(&backend)) };
        Ok(Network { model, backend, batch_limits, has_run: AtomicBool::new(false) })
    }

    /// What computes.
    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Prepares the weights for many texts.
    pub(super) fn warm_up(&self) {
        self.has_run.store(true, Ordering::Relaxed);
        self.model.warm_up();
    }

    /// The logits of each encoding, in order: one per class. `on_batch` is called from any thread with the number of
    /// encodings that are done.
    ///
    /// # Errors
    /// If the device fails, or a logit is not a finite number.
    pub(super) fn logits<E: Borrow<Encoding>>(
        &self,
        encodings: &[E],
        on_batch: &(dyn Fn(usize) + Sync),
    ) -> Result<Vec<Vec<f32>>> {
        let Distinct { encodings: distinct, places } = Distinct::of(encodings);
        let batches = batches(&distinct, self.batch_limits);
        // Enter the pool once rather than for each of the model's operations.
        let rows = rayon::scope(|_| self.forward_all(&batches, on_batch))?;
        let mut logits = vec![Vec::new(); distinct.len()];
        for (&position, row) in batches.iter().flat_map(|batch| &batch.positions).zip(rows.into_iter().flatten()) {
            ensure!(
                row.iter().all(|logit| logit.is_finite()),
                "the model computed logits that are not finite ({row:?}): its weights are damaged"
            );
            logits[position] = row;
        }
        if distinct.len() == encodings.len() {
            return Ok(logits);
        }
        on_batch(encodings.len() - distinct.len());
        Ok(places.into_iter().map(|place| logits[place].clone()).collect())
    }

    /// The logits of each batch. If there are enough batches, each thread takes its own, which keeps a core's data in
    /// its cache; otherwise the threads share the work of each operation. candle runs one batch at a time and
    /// parallelizes it itself.
    fn forward_all(&self, batches: &[Batch], on_batch: &(dyn Fn(usize) + Sync)) -> Result<Vec<Vec<Vec<f32>>>> {
        let forward = |batch: &Batch, parallelism| {
            let logits = self.model.forward(batch, parallelism).context("the forward pass failed")?;
            on_batch(batch.len());
            Ok(logits)
        };
        // Packing costs more than it gains for a single text; integers need it anyway, as their grids depend on whole
        // rows.
        let is_first = !self.has_run.swap(true, Ordering::Relaxed);
        if batches.len() > 1 || !is_first || matches!(self.backend, Backend::Kernels { precision: Precision::Int8, .. })
        {
            self.model.warm_up();
        }
        let is_ours = matches!(self.backend, Backend::Kernels { .. });
        match is_ours && batches.len() >= rayon::current_num_threads() * BATCHES_OF_A_THREAD {
            true => batches.par_iter().with_max_len(1).map(|batch| forward(batch, Parallelism::Single)).collect(),
            false => batches.iter().map(|batch| forward(batch, Parallelism::Pool)).collect(),
        }
    }
}

/// The encodings of which no two are the same to the model.
struct Distinct<'a> {
    /// In the order in which each first occurs.
    encodings: Vec<&'a Encoding>,
    /// For each of all encodings, its place among the distinct ones.
    places: Vec<usize>,
}

impl<'a> Distinct<'a> {
    fn of<E: Borrow<Encoding>>(all: &'a [E]) -> Distinct<'a> {
        let mut found: HashMap<(&[u32], &[u32]), usize> = HashMap::with_capacity(all.len());
        let mut distinct = Distinct { encodings: Vec::with_capacity(all.len()), places: Vec::with_capacity(all.len()) };
        for encoding in all.iter().map(Borrow::borrow) {
            let place = *found.entry((&encoding.input_ids, &encoding.token_type_ids)).or_insert_with(|| {
                distinct.encodings.push(encoding);
                distinct.encodings.len() - 1
            });
            distinct.places.push(place);
        }
        distinct
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(input_ids: &[u32], token_type_ids: &[u32], truncated: bool) -> Encoding {
        Encoding { input_ids: input_ids.to_vec(), token_type_ids: token_type_ids.to_vec(), truncated }
    }

    #[test]
    fn encodings_are_the_same_if_ids_and_types_are() {
        let all = [
            encoding(&[1, 2], &[], false),
            encoding(&[1, 2], &[0, 1], false),
            encoding(&[1, 2], &[], true),
            encoding(&[1], &[], false),
            encoding(&[1, 2], &[0, 1], false),
        ];
        let Distinct { encodings, places } = Distinct::of(&all);
        assert_eq!(encodings, [&all[0], &all[1], &all[3]]);
        assert_eq!(places, [0, 1, 0, 2, 1]);
    }
}
