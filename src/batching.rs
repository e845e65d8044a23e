//! Groups encodings into batches: sorted by length, limited by a token budget, each sequence with its original
//! position. Pure.

use crate::tokenization::Encoding;
use std::borrow::Borrow;

/// The limits of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Total tokens of all sequences; a longer sequence is a batch of its own.
    pub max_batch_tokens: usize,
}

/// Sequences that go through the model together, concatenated without padding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The index of each sequence in the slice of encodings.
    pub positions: Vec<usize>,
    /// Token ids of all sequences, `offsets.last()` of them.
    pub input_ids: Vec<u32>,
    /// The token types; empty if all are 0.
    pub token_type_ids: Vec<u32>,
    /// Start of each sequence in `input_ids`, and the end of the last: one more entry than there are sequences.
    pub offsets: Vec<usize>,
}

impl Batch {
    fn new() -> Batch {
        Batch { offsets: vec![0], ..Batch::default() }
    }

    fn push(&mut self, position: usize, encoding: &Encoding) {
        self.positions.push(position);
        if !encoding.token_type_ids.is_empty() {
            self.token_type_ids.resize(self.input_ids.len(), 0);
            self.token_type_ids.extend_from_slice(&encoding.token_type_ids);
        }
        self.input_ids.extend_from_slice(&encoding.input_ids);
        if !self.token_type_ids.is_empty() {
            self.token_type_ids.resize(self.input_ids.len(), 0);
        }
        self.offsets.push(self.input_ids.len());
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are no sequences.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The lengths of the sequences, in tokens.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        self.offsets.windows(2).map(|pair| pair[1] - pair[0])
    }
}

/// Groups `encodings` into batches, longest first: sequences of a batch have similar lengths, and the last batches,
/// which threads share at the end, are cheap.
pub fn batches<E: Borrow<Encoding>>(encodings: &[E], limits: BatchLimits) -> Vec<Batch> {
    let length = |position: usize| encodings[position].borrow().input_ids.len();
    let mut order: Vec<usize> = (0..encodings.len()).collect();
    order.sort_by_key(|&position| (std::cmp::Reverse(length(position)), position));
    let mut batches: Vec<Batch> = Vec::new();
    for position in order {
        let encoding = encodings[position].borrow();
        match batches.last_mut() {
            Some(batch) if batch.input_ids.len() + length(position) <= limits.max_batch_tokens => {
                batch.push(position, encoding)
            }
            _ => {
                let mut batch = Batch::new();
                batch.push(position, encoding);
                batches.push(batch);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(lengths: &[usize], max_batch_tokens: usize) -> Vec<Batch> {
        let encode = |(i, &n): (usize, &usize)| Encoding { input_ids: vec![i as u32; n], ..Encoding::default() };
        let encodings: Vec<Encoding> = lengths.iter().enumerate().map(encode).collect();
        batches(&encodings, BatchLimits { max_batch_tokens })
    }

    #[test]
    fn token_types_stay_with_their_tokens() {
        let encoding =
            |types: &[u32]| Encoding { input_ids: vec![7; 3], token_type_ids: types.to_vec(), ..Encoding::default() };
        let encodings = [encoding(&[]), encoding(&[0, 1, 1]), encoding(&[])];
        let batches = batches(&encodings, BatchLimits { max_batch_tokens: 100 });
        assert_eq!(batches[0].token_type_ids, [0, 0, 0, 0, 1, 1, 0, 0, 0]);
        assert!(cut(&[3, 2], 100)[0].token_type_ids.is_empty());
    }

    #[test]
    fn every_sequence_is_in_one_batch_whole_and_at_its_place() {
        let lengths = [3, 9, 2, 2, 40, 5, 5, 1];
        for budget in [1, 7, 10, 1000] {
            let batches = cut(&lengths, budget);
            let mut seen = vec![0; lengths.len()];
            for batch in &batches {
                assert!(batch.input_ids.len() <= budget || batch.len() == 1);
                for (i, &position) in batch.positions.iter().enumerate() {
                    seen[position] += 1;
                    let ids = &batch.input_ids[batch.offsets[i]..batch.offsets[i + 1]];
                    assert_eq!(ids, vec![position as u32; lengths[position]]);
                }
            }
            assert_eq!(seen, vec![1; lengths.len()], "budget {budget}");
        }
    }

    #[test]
    fn longest_first_and_equal_lengths_keep_their_order() {
        let batches = cut(&[2, 4, 2, 4], 100);
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].positions, [1, 3, 0, 2]);
        assert_eq!(batches[0].lengths().collect::<Vec<_>>(), [4, 4, 2, 2]);
    }

    #[test]
    fn nothing_gives_no_batch() {
        assert!(cut(&[], 10).is_empty());
    }
}
