//! The metrics of a model that assigns any number of labels to each text: scikit-learn's for indicator matrices.

use super::shares::{LabelCounts, PerLabel, Share};

/// The observations so far.
#[derive(Debug, Clone)]
pub(super) struct Sums {
    counts: Vec<LabelCounts>,
    exact: u64,
    evaluated: u64,
}

/// All metrics. Shares are from 0 to 1; a metric that is undefined because nothing was evaluated is `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// Texts with both a prediction and gold labels.
    pub evaluated: u64,
    /// The share of texts whose predicted labels are exactly the gold ones: `accuracy_score` for indicator matrices.
    pub subset_accuracy: Option<Share>,
    /// The share of wrong decisions among all pairs of text and label: `hamming_loss`.
    pub hamming_loss: Option<f64>,
    /// Precision, recall and F1.
    pub per_label: PerLabel,
}

impl Sums {
    pub(super) fn new(labels: usize) -> Sums {
        Sums { counts: vec![LabelCounts::default(); labels], exact: 0, evaluated: 0 }
    }

    /// Counts one text. Both arguments are label ids in any order, in which duplicates count once; either may be empty.
    pub(super) fn observe(&mut self, gold: &[usize], predicted: &[usize]) {
        let mut gold = gold.to_vec();
        let mut predicted = predicted.to_vec();
        for ids in [&mut gold, &mut predicted] {
            ids.sort_unstable();
            ids.dedup();
        }
        for &id in &gold {
            self.counts[id].support += 1;
            self.counts[id].hits += u64::from(predicted.binary_search(&id).is_ok());
        }
        for &id in &predicted {
            self.counts[id].predicted += 1;
        }
        self.exact += u64::from(gold == predicted);
        self.evaluated += 1;
    }

    pub(super) fn metrics(&self) -> Metrics {
        let wrong: u64 = self.counts.iter().map(|label| label.support + label.predicted - 2 * label.hits).sum();
        let decided = self.evaluated * self.counts.len() as u64;
        Metrics {
            evaluated: self.evaluated,
            subset_accuracy: Share::of(self.exact, self.evaluated),
            hamming_loss: (decided > 0).then(|| wrong as f64 / decided as f64),
            per_label: PerLabel::of(self.counts.clone(), self.evaluated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_repetition_do_not_matter_and_no_label_is_a_set_too() {
        let mut sums = Sums::new(3);
        sums.observe(&[2, 0, 2], &[0, 2]);
        sums.observe(&[], &[]);
        sums.observe(&[1], &[]);
        let metrics = sums.metrics();
        assert_eq!(metrics.subset_accuracy, Share::of(2, 3));
        assert_eq!(metrics.hamming_loss, Some(1.0 / 9.0));
        assert_eq!(metrics.per_label.counts[2], LabelCounts { hits: 1, support: 1, predicted: 1 });
        assert_eq!(Sums::new(3).metrics().per_label.micro_average, None);
    }
}
