//! The tables through which attention uses positions: rotations, biases and vectors of distances.
//!
//! Like in the attention kernel, tables of distances have one entry for each distance from 1 - reach to reach - 1,
//! where reach is at least the length of the longest sequence.

use super::attention::Positions;
use super::backend::Backend;
use super::layers::{LayerNorm, Linear};
use super::parameters::Parameters;
use crate::checkpoint::config::{Architecture, Disentangled, Distances};
use crate::kernels::Parallelism;
use candle_core::{Result, Tensor};
use std::sync::{Arc, Mutex, PoisonError};

/// What all layers share.
pub(super) struct PositionTables {
    backend: Backend,
    heads: usize,
    head_dim: usize,
    distances: DistanceTables,
}

enum DistanceTables {
    None,
    Bias {
        /// (buckets, heads)
        table: Vec<f32>,
        buckets: usize,
        max_distance: usize,
    },
    Disentangled {
        /// (2 * span, hidden), normalized
        table: Tensor,
        span: usize,
        max_distance: Option<usize>,
        scale: f32,
    },
}

/// The tables of one pass, long enough for its sequences.
pub(super) struct PassTables {
    longest: usize,
    /// Cosines and sines for each base.
    rotations: Vec<(f64, Tensor, Tensor)>,
    bias: Option<Tensor>,
}

/// A layer's projections of the vectors of distances, if it has any.
pub(super) struct LayerVectors {
    key: Option<Projection>,
    query: Option<Projection>,
    /// Computed for the longest sequence so far: every pass needs the same values.
    made: Mutex<Option<Arc<Vectors>>>,
}

enum Projection {
    /// The projection for the layer's keys or queries.
    Shared,
    Own(Linear),
}

/// Vectors of distances, (2 * reach - 1, hidden).
pub(super) struct Vectors {
    reach: usize,
    key: Option<Tensor>,
    query: Option<Tensor>,
}

impl PositionTables {
    /// `parameters` are the encoder's.
    pub(super) fn load(parameters: &Parameters, architecture: &Architecture) -> Result<Self> {
        let (heads, hidden) = (architecture.heads, architecture.hidden_size);
        let head_dim = hidden / heads;
        let distances = match &architecture.distances {
            Distances::None => DistanceTables::None,
            Distances::Bias { table, buckets, max_distance } => DistanceTables::Bias {
                table: parameters.pp(table).float32s(&[*buckets, heads], "weight")?.to_vec(),
                buckets: *buckets,
                max_distance: *max_distance,
            },
            Distances::Disentangled(Disentangled { table, norm, span, max_distance, key, query }) => {
                let table = parameters.pp(table).tensor((2 * span, hidden), "weight")?;
                let table = match norm {
                    None => table,
                    Some(norm) => LayerNorm::load(parameters, norm, hidden, architecture.norm)?.forward(
                        &table,
                        None,
                        Parallelism::Single,
                    )?,
                };
                let products = 1 + usize::from(key.is_some()) + usize::from(query.is_some());
                let scale = 1.0 / ((head_dim * products) as f32).sqrt();
                DistanceTables::Disentangled { table, span: *span, max_distance: *max_distance, scale }
            }
        };
        Ok(Self { backend: parameters.backend().clone(), heads, head_dim, distances })
    }

    /// Factor applied to scores.
    pub(super) fn scale(&self) -> f32 {
        match self.distances {
            DistanceTables::Disentangled { scale, .. } => scale,
            _ => 1.0 / (self.head_dim as f32).sqrt(),
        }
    }

    /// The tables for sequences of up to `longest` tokens and layers with these rotary bases.
    pub(super) fn of_pass(&self, longest: usize, rotary_bases: &[f64]) -> Result<PassTables> {
        let rotations = rotary_bases.iter().map(|&base| {
            let (cos, sin) = rotation(base, self.head_dim, longest);
            let tensor = |table| {
                let table = Tensor::from_vec(table, (longest, self.head_dim / 2), self.backend.device())?;
                table.to_dtype(self.backend.dtype())
            };
            Ok((base, tensor(cos)?, tensor(sin)?))
        });
        let bias = match &self.distances {
            DistanceTables::Bias { table, buckets, max_distance } => {
                let bucket = |distance: isize| exponential_bucket(distance, *buckets, *max_distance);
                let entries = (0..self.heads).flat_map(|head| distances(longest).map(move |distance| (head, distance)));
                // Divided, because the kernel also scales biases, which the model does not.
                let entries =
                    entries.map(|(head, distance)| table[bucket(distance) * self.heads + head] / self.scale());
                let shape = (self.heads, 2 * longest - 1);
                let table = Tensor::from_vec(entries.collect::<Vec<f32>>(), shape, self.backend.device())?;
                Some(table.to_dtype(self.backend.dtype())?)
            }
            _ => None,
        };
        Ok(PassTables { longest, rotations: rotations.collect::<Result<_>>()?, bias })
    }

    /// The layer's vectors for the sequences of a pass. `key` and `query` are the layer's own projections.
    pub(super) fn vectors(
        &self,
        layer: &LayerVectors,
        pass: &PassTables,
        key: &Linear,
        query: &Linear,
        parallelism: Parallelism,
    ) -> Result<Option<Arc<Vectors>>> {
        let DistanceTables::Disentangled { table, span, max_distance, .. } = &self.distances else { return Ok(None) };
        // Not locked while computing: a waiting pool thread may pick up work that calls this again.
        let lock = || layer.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = lock().as_ref().filter(|made| made.reach >= pass.longest) {
            return Ok(Some(made.clone()));
        }
        // Rounded up to a power of two, so there are few lengths to compute.
        let reach = pass.longest.next_power_of_two();
        let row = |distance: isize| logarithmic_bucket(distance, *span, *max_distance);
        let (first, last) = (row(1 - reach as isize), row(reach as isize - 1));
        let used = table.narrow(0, first, last - first + 1)?;
        let project = |projection: &Option<Projection>, shared: &Linear, sign: isize| -> Result<Option<Tensor>> {
            let Some(projection) = projection else { return Ok(None) };
            let linear = match projection {
                Projection::Shared => shared,
                Projection::Own(linear) => linear,
            };
            let rows: Vec<u32> = distances(reach).map(|distance| (row(sign * distance) - first) as u32).collect();
            linear.forward(&used, parallelism)?.index_select(&Tensor::new(rows, table.device())?, 0).map(Some)
        };
        // The model counts distances as query - key, the table for queries as key - query.
        let (key, query) = (project(&layer.key, key, -1)?, project(&layer.query, query, 1)?);
        let made = Arc::new(Vectors { reach, key, query });
        *lock() = Some(made.clone());
        Ok(Some(made))
    }
}

impl PassTables {
    /// What attention in a layer needs.
    pub(super) fn positions<'a>(&'a self, rotary_base: Option<f64>, vectors: Option<&'a Vectors>) -> Positions<'a> {
        let rotation = self.rotations.iter().find(|(base, ..)| Some(*base) == rotary_base);
        match (rotation, &self.bias, vectors) {
            (Some((_, cos, sin)), ..) => Positions::Rotary { cos, sin },
            (_, Some(bias), _) => Positions::Bias(bias),
            (.., Some(vectors)) => Positions::Disentangled { key: vectors.key.as_ref(), query: vectors.query.as_ref() },
            _ => Positions::None,
        }
    }
}

impl LayerVectors {
    /// `parameters` are the layer's.
    pub(super) fn load(parameters: &Parameters, architecture: &Architecture) -> Result<Self> {
        let hidden = architecture.hidden_size;
        let (key, query) = match &architecture.distances {
            Distances::Disentangled(Disentangled { key, query, .. }) => (*key, *query),
            _ => (None, None),
        };
        let parts = architecture.parts;
        let load = |part: Option<crate::checkpoint::config::Part>, shared: &str| {
            part.map(|part| match part.name == shared {
                true => Ok(Projection::Shared),
                false => Linear::load(parameters, part, hidden, hidden).map(Projection::Own),
            })
            .transpose()
        };
        Ok(Self { key: load(key, parts.key.name)?, query: load(query, parts.query.name)?, made: Mutex::default() })
    }

    /// The linear layers that belong to no other part.
    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        [&self.key, &self.query].into_iter().filter_map(|projection| match projection {
            Some(Projection::Own(linear)) => Some(linear),
            _ => None,
        })
    }
}

/// The distances from 1 - reach to reach - 1.
fn distances(reach: usize) -> impl Iterator<Item = isize> {
    let reach = reach as isize;
    1 - reach..reach
}

/// The cosines and sines of position / base^(2 i / head_dim), (positions, head_dim / 2), in float32 as in transformers;
/// candle-transformers' ModernBERT has the same formula, but private.
fn rotation(base: f64, head_dim: usize, positions: usize) -> (Vec<f32>, Vec<f32>) {
    let frequency = |i: usize| 1.0 / (base as f32).powf((2 * i) as f32 / head_dim as f32);
    let frequencies: Vec<f32> = (0..head_dim / 2).map(frequency).collect();
    let angles =
        (0..positions).flat_map(|position| frequencies.iter().map(move |frequency| position as f32 * frequency));
    angles.map(|angle| (angle.cos(), angle.sin())).unzip()
}

/// The bucket of the distance key - query as in T5 and MPNet: each direction has half of the buckets. The first half of
/// these holds one distance each, the rest grow with the logarithm. `relative_position_bucket` in modeling_mpnet.py.
fn exponential_bucket(distance: isize, buckets: usize, max_distance: usize) -> usize {
    let half = buckets / 2;
    let direction = if distance > 0 { half } else { 0 };
    let (exact, distance) = (half / 2, distance.unsigned_abs());
    if distance < exact {
        return direction + distance;
    }
    let growth = (distance as f32 / exact as f32).ln() / (max_distance as f32 / exact as f32).ln();
    direction + (exact + (growth * (half - exact) as f32) as usize).min(half - 1)
}

/// The row of the table of 2 * span vectors for the distance query - key: `make_log_bucket_position` in
/// modeling_deberta_v2.py, also in float32 (candle-transformers' own function takes whole tensors).
fn logarithmic_bucket(distance: isize, span: usize, max_distance: Option<usize>) -> usize {
    let (mid, length) = ((span / 2) as f32, distance.unsigned_abs() as f32);
    let bucket = match max_distance {
        Some(max_distance) if length > mid => {
            let growth = (length / mid).ln() / ((max_distance - 1) as f32 / mid).ln();
            ((growth * (mid - 1.0)).ceil() + mid) as isize * distance.signum()
        }
        _ => distance,
    };
    (bucket + span as isize).clamp(0, 2 * span as isize - 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values from transformers 5.24.
    #[test]
    fn buckets_are_those_of_transformers() {
        let mpnet = |distance| exponential_bucket(distance, 32, 128);
        assert_eq!([0, -1, -7, -8, -20, -127, -1000].map(mpnet), [0, 1, 7, 8, 10, 15, 15]);
        assert_eq!([1, 7, 8, 20, 128].map(mpnet), [17, 23, 24, 26, 31]);
        let deberta = |distance| logarithmic_bucket(distance, 256, Some(512));
        assert_eq!([0, 1, -1, 127, 128, -128].map(deberta), [256, 257, 255, 383, 384, 128]);
        assert_eq!([129, 200, 511, 512, 5000, -511, -5000].map(deberta), [385, 425, 511, 511, 511, 1, 0]);
        assert_eq!([3, -600, 600].map(|distance| logarithmic_bucket(distance, 512, None)), [515, 0, 1023]);
    }
}
