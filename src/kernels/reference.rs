//! The reference that every kernel is tested against: textbook formulas in float64, and random operands.

use super::{Attention, LayerNorm, Level, Positions, Precision};

/// Random operands, the same in every run.
pub(super) struct Random(fastrand::Rng);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(fastrand::Rng::with_seed(seed))
    }

    /// `n` numbers between -`scale` and `scale`.
    pub(super) fn floats(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| (2.0 * self.0.f32() - 1.0) * scale).collect()
    }

    /// An integer from `least` to `most`.
    pub(super) fn size(&mut self, least: usize, most: usize) -> usize {
        self.0.usize(least..=most)
    }
}

/// The levels that this processor supports.
pub(super) fn levels() -> impl Iterator<Item = Level> {
    Level::ALL.into_iter().filter(|level| level.is_supported())
}

/// Every precision on each of these levels.
pub(super) fn levels_and_precisions() -> impl Iterator<Item = (Level, Precision)> {
    levels().flat_map(|level| Precision::ALL.map(|precision| (level, precision)))
}

/// erf by its Taylor series below 3 and the continued fraction of erfc above, accurate to about 1e-15.
pub(super) fn erf(x: f64) -> f64 {
    if x < 0.0 {
        return -erf(-x);
    }
    let scale = core::f64::consts::FRAC_2_SQRT_PI;
    if x < 3.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            term *= -x * x / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        return scale * sum;
    }
    let fraction = (1..60).rev().fold(x, |rest, n| x + n as f64 / 2.0 / rest);
    1.0 - scale / 2.0 * (-x * x).exp() / fraction
}

pub(super) fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x * core::f64::consts::FRAC_1_SQRT_2))
}

/// x · Wᵀ + b, and for each element the sum of its terms' magnitudes, to which rounding errors are proportional.
pub(super) fn linear(x: &[f32], weight: &[f32], bias: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let k = weight.len() / bias.len();
    let element = |row: &[f32], j: usize| {
        let terms = row.iter().zip(&weight[j * k..]).map(|(&x, &w)| f64::from(x) * f64::from(w));
        let bias = f64::from(bias[j]);
        terms.fold((bias, bias.abs()), |(sum, size), term| (sum + term, size + term.abs()))
    };
    let rows = x.chunks_exact(k);
    rows.flat_map(|row| (0..bias.len()).map(move |j| (row, j))).map(|(row, j)| element(row, j)).unzip()
}

/// Moves the numbers of each row of `k` to the nearest point of its grid: from the minimum to the maximum, including 0,
/// if `last` is 255; symmetric about 0 if it is 127.
pub(super) fn on_grids(numbers: &[f32], k: usize, last: u8) -> Vec<f32> {
    let move_row = |row: &[f32]| {
        let least = row.iter().copied().fold(0.0, f32::min);
        let largest = row.iter().copied().fold(0.0, f32::max);
        let (step, zero) = match last {
            255 => {
                let step = largest / 255.0 - least / 255.0;
                (step, (-least * (1.0 / step)).round_ties_even())
            }
            _ => (largest.max(-least) / f32::from(last), 0.0),
        };
        let places = row.iter().map(|x| (x * (1.0 / step) + zero).round_ties_even().min(f32::from(last)) - zero);
        places.map(|place| place * step).collect::<Vec<f32>>()
    };
    numbers.chunks_exact(k).flat_map(move_row).collect()
}

/// Layer norm of each row.
pub(super) fn layer_norm(norm: LayerNorm, x: &[f32]) -> Vec<f64> {
    let hidden = norm.weight.len();
    let rows = x.chunks_exact(hidden).map(|row| row.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>());
    let normalized = rows.flat_map(|row| {
        let mean = row.iter().sum::<f64>() / hidden as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / hidden as f64;
        let deviation = (variance + f64::from(norm.eps)).sqrt();
        row.into_iter().map(move |x| (x - mean) / deviation)
    });
    let parameters = norm.weight.iter().zip(norm.bias).cycle();
    normalized.zip(parameters).map(|(x, (&weight, &bias))| x * f64::from(weight) + f64::from(bias)).collect()
}

/// Attention, one token and head at a time; every token has a query.
pub(super) fn attention(operands: Attention) -> Vec<f64> {
    let Attention { query, heads, head_dim, offsets, scale, window, .. } = operands;
    let at = |operand: &[f32], token: usize, column: usize| f64::from(operand[token * heads * head_dim + column]);
    let mut context = Vec::with_capacity(query.len());
    for tokens in offsets.windows(2).map(|pair| pair[0]..pair[1]) {
        for (token, head) in tokens.clone().flat_map(|token| (0..heads).map(move |head| (token, head))) {
            let columns = head * head_dim..(head + 1) * head_dim;
            let visible = tokens.clone().filter(|other| window.is_none_or(|window| other.abs_diff(token) <= window));
            let scores: Vec<f64> = visible
                .clone()
                .map(|other| score(&operands, head, (token, token - tokens.start), (other, other - tokens.start)))
                .map(|score| score * f64::from(scale))
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let mixed = |i| {
                visible.clone().zip(&weights).map(|(other, weight)| weight * at(operands.value, other, i)).sum::<f64>()
            };
            context.extend(columns.clone().map(|i| mixed(i) / sum));
        }
    }
    context
}

/// The score of a query and a key, each given by its row and its position.
fn score(operands: &Attention, head: usize, query: (usize, usize), key: (usize, usize)) -> f64 {
    let Attention { heads, head_dim, .. } = *operands;
    let vector = |table: &[f32], row: usize| -> Vec<f64> {
        table[(row * heads + head) * head_dim..][..head_dim].iter().map(|&x| f64::from(x)).collect()
    };
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    // The entry of a distance in a table of odd length.
    let place = |length: usize, to: usize, from: usize| length / 2 + to - from;
    let (q, k) = (vector(operands.query, query.0), vector(operands.key, key.0));
    match operands.positions {
        Positions::None => product(&q, &k),
        Positions::Rotary { cos, sin } => product(&rotate(&q, query.1, cos, sin), &rotate(&k, key.1, cos, sin)),
        Positions::Bias(bias) => {
            let length = bias.len() / heads;
            product(&q, &k) + f64::from(bias[head * length + place(length, key.1, query.1)])
        }
        Positions::Disentangled { key: of_query, query: of_key } => {
            let entry = |table: &[f32], to, from| vector(table, place(table.len() / heads / head_dim, to, from));
            let c2p = of_query.map_or(0.0, |table| product(&q, &entry(table, key.1, query.1)));
            let p2c = of_key.map_or(0.0, |table| product(&k, &entry(table, query.1, key.1)));
            product(&q, &k) + c2p + p2c
        }
    }
}

fn rotate(x: &[f64], position: usize, cos: &[f32], sin: &[f32]) -> Vec<f64> {
    let half = x.len() / 2;
    let angle = |i: usize| (f64::from(cos[position * half + i]), f64::from(sin[position * half + i]));
    let first = (0..half).map(|i| x[i] * angle(i).0 - x[i + half] * angle(i).1);
    let second = (0..half).map(|i| x[i + half] * angle(i).0 + x[i] * angle(i).1);
    first.chain(second).collect()
}

/// Panics if `got` is further from `truth` than `tolerance` times `size`.
pub(super) fn assert_close(got: &[f32], truth: &[f64], size: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), truth.len(), "{what}");
    for (i, ((&got, &truth), &size)) in got.iter().zip(truth).zip(size).enumerate() {
        let error = (f64::from(got) - truth).abs();
        assert!(error <= tolerance * size, "{what}: element {i} is {got}, not {truth}, off by {error:.1e}");
    }
}

#[test]
fn erf_matches_the_tables() {
    // Abramowitz and Stegun, table 7.1.
    for (x, value) in [(0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0), (3.1, 0.999_988_351_3)] {
        assert!((erf(x) - value).abs() < 1e-10, "erf({x}) = {}", erf(x));
        assert_eq!(erf(-x), -erf(x));
    }
}
