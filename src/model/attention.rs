//! Self-attention over packed sequences by candle's operations: each token attends to the tokens of its own sequence.

use super::Sequences;
use candle_core::{DType, Result, Tensor};

/// softmax(q · kᵀ / sqrt(head_dim)) · v, a head and a sequence at a time.
///
/// `query` and the result have the shape (queries, heads * head_dim), divided by `queries`; `key` and `value`
/// (total_tokens, heads * head_dim), divided by `sequences`.
pub(super) fn attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
    queries: &Sequences,
    sequences: &Sequences,
) -> Result<Tensor> {
    let (query_padding, padding) = (Padding::of(queries), Padding::of(sequences));
    let query = query_padding.pad(query, heads)?;
    let key = padding.pad(key, heads)?;
    let value = padding.pad(value, heads)?;
    let scale = 1.0 / (query.dim(3)? as f64).sqrt();
    let scores = (query.matmul(&key.t()?)? * scale)?;
    let scores = padding.mask(scores)?;
    let probabilities = candle_nn::ops::softmax_last_dim(&scores)?;
    query_padding.unpad(&probabilities.matmul(&value)?)
}

/// How packed sequences lie in a padded batch: what candle's batched matrix products take.
struct Padding {
    batch: usize,
    longest: usize,
    lengths: Vec<usize>,
    total_tokens: usize,
}

impl Padding {
    fn of(sequences: &Sequences) -> Padding {
        let lengths: Vec<usize> = sequences.lengths().collect();
        Padding { batch: lengths.len(), longest: sequences.longest(), total_tokens: lengths.iter().sum(), lengths }
    }

    /// Whether all sequences are of one length, so that packed and padded are the same.
    fn is_even(&self) -> bool {
        self.total_tokens == self.batch * self.longest
    }

    /// (total_tokens, heads * head_dim) to (batch, heads, longest, head_dim). Padding rows repeat the first token;
    /// [`Padding::mask`] keeps them from being attended to.
    fn pad(&self, xs: &Tensor, heads: usize) -> Result<Tensor> {
        let xs = match self.is_even() {
            true => xs.clone(),
            false => xs.index_select(&Tensor::new(self.packed_rows(), xs.device())?, 0)?,
        };
        let head_dim = xs.dim(1)? / heads;
        xs.reshape((self.batch, self.longest, heads, head_dim))?.transpose(1, 2)?.contiguous()
    }

    /// (batch, heads, longest, head_dim) to (total_tokens, heads * head_dim).
    fn unpad(&self, xs: &Tensor) -> Result<Tensor> {
        let (batch, heads, longest, head_dim) = xs.dims4()?;
        let xs = xs.transpose(1, 2)?.reshape((batch * longest, heads * head_dim))?;
        match self.is_even() {
            true => Ok(xs),
            false => xs.index_select(&Tensor::new(self.padded_rows(), xs.device())?, 0),
        }
    }

    /// Scores of (batch, heads, queries, longest) with -inf at the padding keys. Every row keeps its own sequence's
    /// keys, at least one, so that no softmax is of -inf alone, in any dtype.
    fn mask(&self, scores: Tensor) -> Result<Tensor> {
        if self.is_even() {
            return Ok(scores);
        }
        let mask: Vec<f32> = self
            .lengths
            .iter()
            .flat_map(|&length| (0..self.longest).map(move |key| if key < length { 0.0 } else { f32::NEG_INFINITY }))
            .collect();
        let mask = Tensor::from_vec(mask, (self.batch, 1, 1, self.longest), scores.device())?.to_dtype(DType::F32)?;
        scores.broadcast_add(&mask.to_dtype(scores.dtype())?)
    }

    /// For each padded row, the packed row that it shows.
    fn packed_rows(&self) -> Vec<u32> {
        let mut rows = Vec::with_capacity(self.batch * self.longest);
        let mut start = 0;
        for &length in &self.lengths {
            rows.extend((0..self.longest).map(|i| (start + if i < length { i } else { 0 }) as u32));
            start += length;
        }
        rows
    }

    /// For each packed row, the padded row that shows it.
    fn padded_rows(&self) -> Vec<u32> {
        let rows = self.lengths.iter().enumerate();
        rows.flat_map(|(i, &length)| (0..length).map(move |j| (i * self.longest + j) as u32)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::cpu;
    use super::*;
    use crate::kernels::{Level, Parallelism};
    use candle_core::Device;

    /// What a GPU computes against what the kernels do, on sequences of one length and of several, all tokens asking and
    /// the first ones alone.
    #[test]
    fn candles_operations_agree_with_the_kernels() {
        let (heads, hidden) = (3, 24);
        for offsets in [&[0, 5, 10, 15][..], &[0, 4, 5, 12, 14]] {
            let sequences = Sequences { offsets };
            let tokens = offsets[offsets.len() - 1];
            let firsts: Vec<usize> = (0..offsets.len()).collect();
            let starts = Tensor::new(sequences.starts(), &Device::Cpu).unwrap();
            let random = || Tensor::randn(0f32, 1.0, (tokens, hidden), &Device::Cpu).unwrap();
            let (query, key, value) = (random(), random(), random());
            let first_query = query.index_select(&starts, 0).unwrap();
            for (query, queries) in [(&query, &sequences), (&first_query, &Sequences { offsets: &firsts })] {
                let candles = attention(query, &key, &value, heads, queries, &sequences).unwrap();
                let level = Level::detect();
                let kernels =
                    cpu::attention(level, Parallelism::Single, query, &key, &value, heads, queries, &sequences);
                let kernels = kernels.unwrap();
                assert_eq!(candles.dims(), kernels.dims());
                let difference = (candles - kernels).unwrap().abs().unwrap().max_all().unwrap();
                assert!(difference.to_scalar::<f32>().unwrap() < 2e-6, "{offsets:?}: {difference}");
            }
        }
    }
}
