//! One layer of a transformer: self-attention and feed-forward, with their norms and residuals.
//!
//! A group of sequences goes through the whole layer before the next one, and its rows through everything after
//! attention in blocks, so the states in between stay in the second-level cache. More rows at once mean fewer passes
//! over the weights. On one level, results do not depend on either size.

use super::attention::{attend, Attention, Positions};
use super::layer_norm::{normalize, LayerNorm};
use super::linear::{Combined, Linear};
use super::operand::{Mode, Operand};
use super::product::row_tiles;
use super::scratch::{Left, Loan, Scratch};
use super::{Level, Parallelism};
use core::ops::Range;

/// The parameters of a layer. Its linear layers have one precision.
pub struct Layer<'a> {
    /// (hidden, hidden)
    pub query: Linear<'a>,
    /// (hidden, hidden)
    pub key: Linear<'a>,
    /// (hidden, hidden)
    pub value: Linear<'a>,
    /// (hidden, hidden)
    pub attention_output: Linear<'a>,
    /// (intermediate, hidden), with the activation.
    pub intermediate: Linear<'a>,
    /// (intermediate, hidden): multiplied with what the activation returns.
    pub gate: Option<Linear<'a>>,
    /// (hidden, intermediate)
    pub output: Linear<'a>,
    /// The layer norms.
    pub norms: Norms<'a>,
}

/// The layer norms of a layer.
#[derive(Clone, Copy)]
pub enum Norms<'a> {
    /// Of the sums of attention, or feed-forward, and its residual.
    After {
        /// Of attention.
        attention: LayerNorm<'a>,
        /// Of feed-forward.
        feed_forward: LayerNorm<'a>,
    },
    /// Of the inputs of attention and feed-forward.
    Before {
        /// Of attention; `None` leaves its input as it is.
        attention: Option<LayerNorm<'a>>,
        /// Of feed-forward.
        feed_forward: LayerNorm<'a>,
    },
}

/// Attention of one layer; see [`Attention`].
#[derive(Clone, Copy)]
pub struct SelfAttention<'a> {
    /// Attention heads.
    pub heads: usize,
    /// Start of each sequence among the tokens, and the end of the last.
    pub offsets: &'a [usize],
    /// Factor applied to scores before the softmax.
    pub scale: f32,
    /// How many tokens on either side a token attends to; `None` means all.
    pub window: Option<usize>,
    /// How scores depend on positions.
    pub positions: Positions<'a>,
}

/// Applies `layer` to `states`, (total_tokens, hidden). If `only_firsts`, only the first state of each sequence is
/// computed, and `states` becomes (sequences, hidden).
///
/// # Panics
/// If the shapes disagree, or packed weights are for another level or precision.
pub fn layer(
    level: Level,
    parallelism: Parallelism,
    layer: &Layer,
    attention: SelfAttention,
    only_firsts: bool,
    states: &mut Vec<f32>,
) {
    let mode = Mode { level, parallelism, precision: layer.query.precision };
    let hidden = layer.output.bias.len();
    let tokens = attention.offsets.last().copied().unwrap_or(0);
    assert_eq!(states.len(), tokens * hidden, "the states are (total_tokens, hidden)");
    let sequences = attention.offsets.len().saturating_sub(1);
    let mut firsts = vec![0.0; if only_firsts { sequences * hidden } else { 0 }];
    let mut call = Loan::for_call();
    for group in groups(attention.offsets, level.rows_of_layer(mode.precision)) {
        let pass = Pass { mode, layer, attention, hidden, sequences: group.clone() };
        let rows = attention.offsets[group.start] * hidden..attention.offsets[group.end] * hidden;
        match only_firsts {
            false => pass.all(&mut call, &mut states[rows]),
            true => pass.firsts(&mut call, &states[rows], &mut firsts[group.start * hidden..group.end * hidden]),
        }
    }
    if only_firsts {
        *states = firsts;
    }
}

/// Cuts the sequences into groups of at most `most` tokens, or of a single longer sequence.
fn groups(offsets: &[usize], most: usize) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = 0;
    core::iter::from_fn(move || {
        let first = start;
        while start + 1 < offsets.len() && (start == first || offsets[start + 1] - offsets[first] <= most) {
            start += 1;
        }
        (start > first).then_some(first..start)
    })
}

/// A group of sequences on its way through a layer.
struct Pass<'a> {
    mode: Mode<'a>,
    layer: &'a Layer<'a>,
    attention: SelfAttention<'a>,
    hidden: usize,
    sequences: Range<usize>,
}

impl Pass<'_> {
    /// All states of the group, in place.
    fn all(&self, call: &mut Scratch, states: &mut [f32]) {
        let offsets: Vec<usize> = self.offsets().collect();
        let Scratch { left, normed, query, key, value, context, .. } = call;
        let [query, key, value, context] = [query, key, value, context].map(|buffer| buffer.floats(states.len()));
        let normed = normed.floats(states.len());
        let x = self.input(states, normed, left);
        for (linear, y) in [(self.layer.query, &mut *query), (self.layer.key, key), (self.layer.value, value)] {
            x.multiply(self.mode, linear, Combined::Alone, y);
        }
        self.attend(&offsets, [query, key, value], &offsets, context);
        let rows_of_layer = self.mode.level.rows_of_layer(self.mode.precision);
        for rows in row_tiles(states.len() / self.hidden, rows_of_layer, 1) {
            let rows = rows.start * self.hidden..rows.end * self.hidden;
            self.after_attention(call, rows.clone(), &mut states[rows]);
        }
    }

    /// The first state of each of the group's sequences, whose other tokens need no query.
    fn firsts(&self, call: &mut Scratch, states: &[f32], firsts: &mut [f32]) {
        let offsets: Vec<usize> = self.offsets().collect();
        let query_offsets: Vec<usize> = (0..offsets.len()).collect();
        let Scratch { left, normed, query, key, value, context, .. } = call;
        let [key, value] = [key, value].map(|buffer| buffer.floats(states.len()));
        let [query, context] = [query, context].map(|buffer| buffer.floats(firsts.len()));
        let normed = normed.floats(states.len());
        let first = |first: usize| first * self.hidden..(first + 1) * self.hidden;
        let gather = |from: &[f32], to: &mut [f32]| {
            for (to, &start) in to.chunks_exact_mut(self.hidden).zip(&offsets) {
                to.copy_from_slice(&from[first(start)]);
            }
        };
        let x = self.input(states, normed, left);
        x.multiply(self.mode, self.layer.key, Combined::Alone, key);
        x.multiply(self.mode, self.layer.value, Combined::Alone, value);
        let is_normed = matches!(self.layer.norms, Norms::Before { attention: Some(_), .. });
        gather(if is_normed { normed } else { states }, firsts);
        let x = Operand::pack(self.mode, self.hidden, firsts, left);
        x.multiply(self.mode, self.layer.query, Combined::Alone, query);
        self.attend(&query_offsets, [query, key, value], &offsets, context);
        gather(states, firsts);
        self.after_attention(call, 0..firsts.len(), firsts);
    }

    /// The group's offsets from its first token.
    fn offsets(&self) -> impl Iterator<Item = usize> + '_ {
        let offsets = &self.attention.offsets[self.sequences.start..=self.sequences.end];
        offsets.iter().map(|offset| offset - offsets[0])
    }

    /// What queries, keys and values are computed from. `normed` is filled if there is a norm before attention.
    fn input<'a>(&self, states: &'a [f32], normed: &'a mut [f32], left: &'a mut Left) -> Operand<'a> {
        match self.layer.norms {
            Norms::Before { attention: Some(norm), .. } => {
                normed.copy_from_slice(states);
                Operand::normalize(self.mode, norm, normed, None, left)
            }
            _ => Operand::pack(self.mode, self.hidden, states, left),
        }
    }

    fn attend(
        &self,
        query_offsets: &[usize],
        [query, key, value]: [&[f32]; 3],
        offsets: &[usize],
        context: &mut [f32],
    ) {
        let SelfAttention { heads, scale, window, positions, .. } = self.attention;
        let head_dim = self.hidden / heads;
        let operands =
            Attention { query, key, value, heads, head_dim, query_offsets, offsets, scale, window, positions };
        attend(self.mode.level, self.mode.parallelism, operands, context);
    }

    /// The rest of the layer, for the rows whose context is at `rows` and whose states are `states`.
    fn after_attention(&self, call: &mut Scratch, rows: Range<usize>, states: &mut [f32]) {
        let Pass { mode, layer, hidden, .. } = *self;
        let Scratch { left, next, normed, context, attended, intermediate, gated, .. } = call;
        let attended = attended.floats(states.len());
        let x = Operand::pack(mode, hidden, &context.floats(rows.end)[rows], left);
        let fed = match layer.norms {
            Norms::After { attention, .. } => {
                x.multiply(mode, layer.attention_output, Combined::Alone, attended);
                Operand::normalize(mode, attention, attended, Some(states), left)
            }
            Norms::Before { feed_forward, .. } => {
                x.multiply(mode, layer.attention_output, Combined::Plus(states), attended);
                let normed = normed.floats(states.len());
                normed.copy_from_slice(attended);
                Operand::normalize(mode, feed_forward, normed, None, left)
            }
        };
        let x = match layer.gate {
            None => fed.multiply_and_pack(mode, layer.intermediate, Combined::Alone, intermediate, next),
            Some(gate) => {
                let activated = intermediate.floats(states.len() / hidden * gate.bias.len());
                fed.multiply(mode, layer.intermediate, Combined::Alone, activated);
                fed.multiply_and_pack(mode, gate, Combined::Times(activated), gated, next)
            }
        };
        match layer.norms {
            Norms::After { feed_forward, .. } => {
                x.multiply(mode, layer.output, Combined::Alone, states);
                normalize(mode.level, mode.parallelism, feed_forward, states, Some(attended));
            }
            Norms::Before { .. } => x.multiply(mode, layer.output, Combined::Plus(attended), states),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{levels_and_precisions, Random};
    use super::super::{attention, layer_norm, linear, Activation, PackedWeight, Team, Weight};
    use super::*;

    #[test]
    fn sequences_are_grouped_in_order() {
        let cut = |offsets: &[usize], most| groups(offsets, most).collect::<Vec<_>>();
        assert_eq!(cut(&[0, 3, 5, 15, 16, 20], 8), [0..2, 2..3, 3..5]);
        assert_eq!(cut(&[0, 0, 9], 8), [0..1, 1..2]);
        assert!(cut(&[0], 8).is_empty() && cut(&[], 8).is_empty());
    }

    const HIDDEN: usize = 48;
    const INTERMEDIATE: usize = 80;
    const HEADS: usize = 3;

    /// The operations of a layer, one by one and for all rows.
    fn one_by_one(level: Level, layer: &Layer, attention_of: SelfAttention, only_firsts: bool, x: &[f32]) -> Vec<f32> {
        let single = Parallelism::Single;
        let apply = |layer: Linear, x: &[f32]| linear(level, single, layer, x, Combined::Alone);
        let norm = |norm, x: &[f32], residual| layer_norm(level, single, norm, x, residual);
        let SelfAttention { heads, offsets, scale, window, positions } = attention_of;
        let firsts: Vec<usize> = (0..offsets.len()).collect();
        let query_offsets = if only_firsts { &firsts } else { offsets };
        let queried = |x: &[f32]| match only_firsts {
            false => x.to_vec(),
            true => {
                let starts = &offsets[..offsets.len() - 1];
                starts.iter().flat_map(|&start| x[start * HIDDEN..(start + 1) * HIDDEN].to_vec()).collect()
            }
        };
        let input = match layer.norms {
            Norms::Before { attention: Some(of), .. } => norm(of, x, None),
            _ => x.to_vec(),
        };
        let operands = Attention {
            query: &apply(layer.query, &queried(&input)),
            key: &apply(layer.key, &input),
            value: &apply(layer.value, &input),
            heads,
            head_dim: HIDDEN / heads,
            query_offsets,
            offsets,
            scale,
            window,
            positions,
        };
        let context = attention(level, single, operands);
        let x = queried(x);
        let (attended, input) = match layer.norms {
            Norms::After { attention, .. } => {
                let attended = norm(attention, &apply(layer.attention_output, &context), Some(&x));
                (attended.clone(), attended)
            }
            Norms::Before { feed_forward, .. } => {
                let attended = linear(level, single, layer.attention_output, &context, Combined::Plus(&x));
                (attended.clone(), norm(feed_forward, &attended, None))
            }
        };
        let mut activated = apply(layer.intermediate, &input);
        if let Some(gate) = layer.gate {
            activated = linear(level, single, gate, &input, Combined::Times(&activated));
        }
        match layer.norms {
            Norms::After { feed_forward, .. } => norm(feed_forward, &apply(layer.output, &activated), Some(&attended)),
            Norms::Before { .. } => linear(level, single, layer.output, &activated, Combined::Plus(&attended)),
        }
    }

    /// Groups, blocks of rows, shared packed rows and teams change no bit.
    #[test]
    fn a_layer_is_its_operations_one_by_one() {
        let mut random = Random::new(9);
        let weights = |random: &mut Random, out, k| (random.floats(out * k, 0.3), random.floats(out, 0.3));
        let square = [0; 4].map(|_| weights(&mut random, HIDDEN, HIDDEN));
        let wide = [0; 2].map(|_| weights(&mut random, INTERMEDIATE, HIDDEN));
        let narrow = weights(&mut random, HIDDEN, INTERMEDIATE);
        let (weight, bias) = (random.floats(HIDDEN, 1.0), random.floats(HIDDEN, 1.0));
        let norm = LayerNorm { weight: &weight, bias: &bias, eps: 1e-12 };
        // More tokens than go through a layer at once, in groups and in long sequences.
        let offsets = [0, 30, 31, 90, 130, 540, 545, 1645, 1650];
        let states = random.floats(1650 * HIDDEN, 1.0);
        for (level, precision) in levels_and_precisions() {
            if !PackedWeight::is_of_use(level, precision) {
                // The gemm crate sums in several ways, depending on the number of rows.
                continue;
            }
            let of = |(weight, bias): &(Vec<f32>, Vec<f32>)| PackedWeight::new(level, precision, bias.len(), weight);
            let (packed_square, packed_wide, packed_narrow) =
                (square.each_ref().map(of), wide.each_ref().map(of), of(&narrow));
            let linear_with =
                |weight, bias, activation| Linear { weight: Weight::Packed(weight), bias, activation, precision };
            for (norms, gate) in [
                (Norms::After { attention: norm, feed_forward: norm }, false),
                (Norms::Before { attention: Some(norm), feed_forward: norm }, true),
                (Norms::Before { attention: None, feed_forward: norm }, false),
            ] {
                let plain = Activation::Identity;
                let layer = Layer {
                    query: linear_with(&packed_square[0], &square[0].1, plain),
                    key: linear_with(&packed_square[1], &square[1].1, plain),
                    value: linear_with(&packed_square[2], &square[2].1, plain),
                    attention_output: linear_with(&packed_square[3], &square[3].1, plain),
                    intermediate: linear_with(&packed_wide[0], &wide[0].1, Activation::Gelu),
                    gate: gate.then(|| linear_with(&packed_wide[1], &wide[1].1, plain)),
                    output: linear_with(&packed_narrow, &narrow.1, plain),
                    norms,
                };
                let attention = SelfAttention {
                    heads: HEADS,
                    offsets: &offsets,
                    scale: 0.25,
                    window: Some(100),
                    positions: Positions::None,
                };
                for only_firsts in [false, true] {
                    let expected = one_by_one(level, &layer, attention, only_firsts, &states);
                    let run = |parallelism: Parallelism| {
                        let mut states = states.clone();
                        super::layer(level, parallelism, &layer, attention, only_firsts, &mut states);
                        states
                    };
                    assert_eq!(run(Parallelism::Single), expected, "{level}, {precision}");
                    assert_eq!(Team::with(run), expected, "{level}, {precision}, in a team");
                }
            }
        }
    }
}
