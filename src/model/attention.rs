//! Self-attention over packed sequences: its parameters, and the implementation with candle's operations. Each token
//! attends to the tokens of its own sequence.

use super::Sequences;
use candle_core::{DType, Result, Tensor, D};

/// The parameters of attention, apart from queries, keys and values.
pub(super) struct Attend<'a> {
    pub(super) heads: usize,
    /// Factor applied to scores.
    pub(super) scale: f32,
    /// How many tokens on either side a token attends to; `None` means all.
    pub(super) window: Option<usize>,
    pub(super) positions: Positions<'a>,
    /// The sequences of the queries, which belong to the first tokens of each sequence.
    pub(super) queries: &'a Sequences<'a>,
    pub(super) sequences: &'a Sequences<'a>,
}

/// See [`crate::kernels::Positions`].
#[derive(Clone, Copy)]
pub(super) enum Positions<'a> {
    None,
    Rotary { cos: &'a Tensor, sin: &'a Tensor },
    Bias(&'a Tensor),
    Disentangled { key: Option<&'a Tensor>, query: Option<&'a Tensor> },
}

impl<'a> Positions<'a> {
    /// The tables, in the order of their names.
    pub(super) fn tables(&self) -> [Option<&'a Tensor>; 2] {
        match *self {
            Positions::None => [None, None],
            Positions::Rotary { cos, sin } => [Some(cos), Some(sin)],
            Positions::Bias(bias) => [Some(bias), None],
            Positions::Disentangled { key, query } => [key, query],
        }
    }
}

/// softmax((q · kᵀ + position terms) · scale) · v, one head and sequence at a time.
///
/// `query` and the result have the shape (queries, heads * head_dim), `key` and `value` (total_tokens, heads * head_dim).
pub(super) fn attention(query: &Tensor, key: &Tensor, value: &Tensor, attend: &Attend) -> Result<Tensor> {
    let (queries, padding) = (Padding::of(attend.queries), Padding::of(attend.sequences));
    let mut query = queries.pad(query, attend.heads)?;
    let mut key = padding.pad(key, attend.heads)?;
    let value = padding.pad(value, attend.heads)?;
    if let Positions::Rotary { cos, sin } = attend.positions {
        let rotate = |xs: &Tensor| {
            let rows = xs.dim(2)?;
            candle_nn::rotary_emb::rope(xs, &cos.narrow(0, 0, rows)?, &sin.narrow(0, 0, rows)?)
        };
        (query, key) = (rotate(&query)?, rotate(&key)?);
    }
    let scores = query.matmul(&key.t()?)?;
    let scores = match attend.positions {
        Positions::None | Positions::Rotary { .. } => scores,
        Positions::Bias(bias) => scores.broadcast_add(&biases(bias, &scores)?)?,
        Positions::Disentangled { key: of_query, query: of_key } => {
            disentangled(scores, &query, of_query, &key, of_key)?
        }
    };
    let scores = (scores * f64::from(attend.scale))?;
    let scores = padding.mask(hide(scores, attend.window)?)?;
    let probabilities = candle_nn::ops::softmax_last_dim(&scores)?;
    queries.unpad(&probabilities.matmul(&value)?)
}

/// For each query and key, the entry at `place(query, key)` in a table of 2 * `reach` - 1 distances: (queries, keys).
fn entries(queries: usize, keys: usize, reach: usize, distance: impl Fn(usize, usize) -> isize) -> Vec<u32> {
    let entry = |query, key| (reach as isize - 1 + distance(query, key)) as u32;
    (0..queries)
        .flat_map(|query| (0..keys).map(move |key| (query, key)))
        .map(|(query, key)| entry(query, key))
        .collect()
}

/// (heads, 2 * reach - 1) to (1, heads, queries, keys), for scores of (batch, heads, queries, keys).
fn biases(bias: &Tensor, scores: &Tensor) -> Result<Tensor> {
    let (_, heads, queries, keys) = scores.dims4()?;
    let entries = entries(queries, keys, bias.dim(1)?.div_ceil(2), |query, key| key as isize - query as isize);
    bias.index_select(&Tensor::new(entries, bias.device())?, 1)?.reshape((1, heads, queries, keys))
}

/// Scores of (batch, heads, queries, keys) plus the two products of DeBERTa.
fn disentangled(
    mut scores: Tensor,
    query: &Tensor,
    of_query: Option<&Tensor>,
    key: &Tensor,
    of_key: Option<&Tensor>,
) -> Result<Tensor> {
    let (_, _, queries, keys) = scores.dims4()?;
    if let Some(vectors) = of_query {
        let gathered = gather(query, vectors, keys, |query, key| key as isize - query as isize)?;
        scores = (scores + gathered)?;
    }
    if let Some(vectors) = of_key {
        let gathered = gather(key, vectors, queries, |key, query| query as isize - key as isize)?;
        scores = (scores + gathered.transpose(2, 3)?)?;
    }
    Ok(scores)
}

/// The products of `xs`, (batch, heads, rows, head_dim), with the vectors of the distances to `columns` others: (batch,
/// heads, rows, columns).
fn gather(xs: &Tensor, vectors: &Tensor, columns: usize, distance: impl Fn(usize, usize) -> isize) -> Result<Tensor> {
    let (batch, heads, rows, head_dim) = xs.dims4()?;
    let distances = vectors.dim(0)?;
    let vectors = vectors.reshape((distances, heads, head_dim))?.permute((1, 2, 0))?.contiguous()?;
    let products = xs.broadcast_matmul(&vectors.unsqueeze(0)?)?;
    let entries = Tensor::new(entries(rows, columns, distances.div_ceil(2), distance), xs.device())?;
    let entries = entries.reshape((1, 1, rows, columns))?.broadcast_as((batch, heads, rows, columns))?.contiguous()?;
    products.contiguous()?.gather(&entries, D::Minus1)
}

/// Scores with -inf at keys outside a query's window. Padding rows may end up without any key; their softmax is NaN and
/// never read.
fn hide(scores: Tensor, window: Option<usize>) -> Result<Tensor> {
    let Some(window) = window else { return Ok(scores) };
    let (_, _, queries, keys) = scores.dims4()?;
    let pairs = (0..queries).flat_map(|query| (0..keys).map(move |key| (query, key)));
    let mask: Vec<f32> =
        pairs.map(|(query, key)| if query.abs_diff(key) <= window { 0.0 } else { f32::NEG_INFINITY }).collect();
    let mask = Tensor::from_vec(mask, (1, 1, queries, keys), scores.device())?;
    scores.broadcast_add(&mask.to_dtype(scores.dtype())?)
}

/// How packed sequences map to a padded batch, which candle's batched matrix products need.
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

    /// Whether all sequences have the same length, so packed and padded are the same.
    fn is_even(&self) -> bool {
        self.total_tokens == self.batch * self.longest
    }

    /// (total_tokens, heads * head_dim) to (batch, heads, longest, head_dim). Padding rows repeat the first token;
    /// [`Padding::mask`] hides them.
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
    /// keys, at least one, so no row is all -inf, in any dtype.
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

    /// For each padded row, the packed row that it repeats.
    fn packed_rows(&self) -> Vec<u32> {
        let mut rows = Vec::with_capacity(self.batch * self.longest);
        let mut start = 0;
        for &length in &self.lengths {
            rows.extend((0..self.longest).map(|i| (start + if i < length { i } else { 0 }) as u32));
            start += length;
        }
        rows
    }

    /// For each packed row, its padded row.
    fn padded_rows(&self) -> Vec<u32> {
        let rows = self.lengths.iter().enumerate();
        rows.flat_map(|(i, &length)| (0..length).map(move |j| (i * self.longest + j) as u32)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{self, Level, Parallelism};
    use candle_core::Device;

    fn random(rows: usize, columns: usize) -> Tensor {
        Tensor::randn(0f32, 1.0, (rows, columns), &Device::Cpu).unwrap()
    }

    fn floats(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn with_kernels(query: &Tensor, key: &Tensor, value: &Tensor, attend: &Attend) -> Vec<f32> {
        let Attend { heads, scale, window, queries, sequences, .. } = *attend;
        let tables = attend.positions.tables().map(|table| table.map(floats));
        let positions = match (attend.positions, &tables) {
            (Positions::Rotary { .. }, [Some(cos), Some(sin)]) => kernels::Positions::Rotary { cos, sin },
            (Positions::Bias(_), [Some(bias), _]) => kernels::Positions::Bias(bias),
            (Positions::Disentangled { .. }, [key, query]) => {
                kernels::Positions::Disentangled { key: key.as_deref(), query: query.as_deref() }
            }
            _ => kernels::Positions::None,
        };
        let operands = kernels::Attention {
            query: &floats(query),
            key: &floats(key),
            value: &floats(value),
            heads,
            head_dim: query.dim(1).unwrap() / heads,
            query_offsets: queries.offsets,
            offsets: sequences.offsets,
            scale,
            window,
            positions,
        };
        kernels::attention(Level::detect(), Parallelism::Single, operands)
    }

    /// Compares a GPU to the kernels, on sequences of equal and different lengths, with queries for all tokens and for
    /// the first ones only.
    fn agree(window: Option<usize>, positions: Positions) {
        let (heads, hidden, scale) = (3, 24, 0.3);
        for offsets in [&[0, 5, 10, 15][..], &[0, 4, 5, 12, 14]] {
            let sequences = Sequences { offsets };
            let tokens = offsets[offsets.len() - 1];
            let firsts: Vec<usize> = (0..offsets.len()).collect();
            let starts = Tensor::new(sequences.starts(), &Device::Cpu).unwrap();
            let (query, key, value) = (random(tokens, hidden), random(tokens, hidden), random(tokens, hidden));
            let first_query = query.index_select(&starts, 0).unwrap();
            for (query, queries) in [(&query, &sequences), (&first_query, &Sequences { offsets: &firsts })] {
                let attend = Attend { heads, scale, window, positions, queries, sequences: &sequences };
                let candles = attention(query, &key, &value, &attend).unwrap();
                assert_eq!(candles.dims(), query.dims());
                let kernels = Tensor::from_vec(with_kernels(query, &key, &value, &attend), query.dims(), &Device::Cpu);
                let difference = (candles - kernels.unwrap()).unwrap().abs().unwrap().max_all().unwrap();
                assert!(difference.to_scalar::<f32>().unwrap() < 4e-6, "{offsets:?}: {difference}");
            }
        }
    }

    #[test]
    fn candles_operations_agree_with_the_kernels() {
        let (cos, sin) = (random(9, 4), random(9, 4));
        let bias = random(3, 15);
        let (key, query) = (random(15, 24), random(15, 24));
        for window in [None, Some(2)] {
            for positions in [
                Positions::None,
                Positions::Rotary { cos: &cos, sin: &sin },
                Positions::Bias(&bias),
                Positions::Disentangled { key: Some(&key), query: Some(&query) },
                Positions::Disentangled { key: None, query: Some(&query) },
                Positions::Disentangled { key: Some(&key), query: None },
            ] {
                agree(window, positions);
            }
        }
    }
}
