//! The metrics of a model that assigns one class to each text. Shares and scores are from 0 to 1; a metric that is
//! undefined because nothing was evaluated is `None`, never NaN.

use super::reliability::{self, Reliability};
use super::shares::{LabelCounts, PerLabel, Share};
use crate::checkpoint::config::ScoreFunction;
use crate::prediction::Prediction;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The observations so far.
#[derive(Debug, Clone)]
pub(super) struct Sums {
    labels: usize,
    score_function: ScoreFunction,
    confusion: ConfusionMatrix,
    negative_log_likelihood: f64,
    reliability: reliability::Sums,
    answered: u64,
    answered_correctly: u64,
}

/// All metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// Texts with both a prediction and a gold label.
    pub evaluated: u64,
    /// The share of texts whose best class is the gold one, even if its score was too low for an answer.
    pub accuracy: Option<Share>,
    /// The share of texts that got a class.
    pub coverage: Option<f64>,
    /// The accuracy among the texts that got a class. `None`: there is no such text.
    pub selective_accuracy: Option<Share>,
    /// Precision, recall and F1.
    pub per_class: PerLabel,
    /// How often each gold label got each prediction.
    pub confusion: ConfusionMatrix,
    /// The mean of -ln(score of the gold label), in nats. Also `None` for a model whose scores do not sum to 1.
    pub log_loss: Option<f64>,
    /// How well the top scores match the accuracy. `None` for logits, which are not probabilities.
    pub reliability: Option<Reliability>,
}

/// Counts by gold and predicted class. Only pairs that occur are stored: a checkpoint may have tens of thousands of
/// classes, whose full matrix would not fit in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConfusionMatrix {
    counts: BTreeMap<(usize, usize), u64>,
}

impl Sums {
    pub(super) fn new(labels: usize, score_function: ScoreFunction) -> Sums {
        Sums {
            labels,
            score_function,
            confusion: ConfusionMatrix::default(),
            negative_log_likelihood: 0.0,
            reliability: reliability::Sums::new(),
            answered: 0,
            answered_correctly: 0,
        }
    }

    /// Counts one text with the class `gold`, an index into the labels.
    pub(super) fn observe(&mut self, gold: usize, prediction: &Prediction, is_answered: bool) {
        debug_assert!(gold < self.labels, "gold label {gold} is out of range: there are {}", self.labels);
        let best = prediction.best();
        let is_correct = best.label_id == gold;
        *self.confusion.counts.entry((gold, best.label_id)).or_insert(0) += 1;
        self.answered += u64::from(is_answered);
        self.answered_correctly += u64::from(is_answered && is_correct);
        let gold_score = prediction.ranking.iter().find(|scored| scored.label_id == gold).map_or(0.0, |s| s.score);
        self.negative_log_likelihood -= f64::from(clip(gold_score)).ln();
        self.reliability.observe(best.score, is_correct);
    }

    pub(super) fn metrics(&self) -> Metrics {
        let evaluated = self.confusion.total();
        let is_distribution = self.score_function == ScoreFunction::Softmax;
        let mean = |sum: f64| (evaluated > 0).then(|| sum / evaluated as f64);
        Metrics {
            evaluated,
            accuracy: Share::of(self.confusion.correct(), evaluated),
            coverage: mean(self.answered as f64),
            selective_accuracy: Share::of(self.answered_correctly, self.answered),
            per_class: PerLabel::of(self.confusion.label_counts(self.labels), evaluated),
            confusion: self.confusion.clone(),
            log_loss: mean(self.negative_log_likelihood).filter(|_| is_distribution),
            reliability: (self.score_function != ScoreFunction::Raw).then(|| self.reliability.reliability()),
        }
    }
}

impl ConfusionMatrix {
    /// Number of texts with the gold label `gold` and the best class `predicted`.
    pub fn count(&self, gold: usize, predicted: usize) -> u64 {
        self.counts.get(&(gold, predicted)).copied().unwrap_or(0)
    }

    /// Every pair that occurs, as (gold, predicted, count), in id order.
    pub fn cells(&self) -> impl Iterator<Item = (usize, usize, u64)> + '_ {
        self.counts.iter().map(|(&(gold, predicted), &count)| (gold, predicted, count))
    }

    /// The mistakes that occur, as (gold, predicted, count), most frequent first, ties in id order.
    pub fn mistakes(&self) -> Vec<(usize, usize, u64)> {
        let mut mistakes: Vec<_> = self.cells().filter(|(gold, predicted, _)| gold != predicted).collect();
        mistakes.sort_by_key(|&(_, _, count)| Reverse(count));
        mistakes
    }

    fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    fn correct(&self) -> u64 {
        self.cells().filter(|(gold, predicted, _)| gold == predicted).map(|(_, _, count)| count).sum()
    }

    fn label_counts(&self, labels: usize) -> Vec<LabelCounts> {
        let mut counts = vec![LabelCounts::default(); labels];
        for (gold, predicted, count) in self.cells() {
            counts[gold].support += count;
            counts[predicted].predicted += count;
            counts[gold].hits += if gold == predicted { count } else { 0 };
        }
        counts
    }
}

/// Clips to [eps, 1 - eps], with eps the spacing of float32 numbers at 1, as scikit-learn's `log_loss` does for float32
/// probabilities. One confident mistake then costs 15.9 instead of infinity.
pub(super) fn clip(score: f32) -> f32 {
    if score.is_nan() {
        return f32::EPSILON;
    }
    score.clamp(f32::EPSILON, 1.0 - f32::EPSILON)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::shares::LabelScores;
    use crate::prediction::Extent;

    fn predicted(logits: &[f32]) -> Prediction {
        Prediction::from_logits(logits, ScoreFunction::Softmax, Extent::Whole)
    }

    fn expected_error(metrics: &Metrics) -> Option<f64> {
        metrics.reliability.as_ref().and_then(|reliability| reliability.expected_error)
    }

    #[test]
    fn nothing_evaluated_is_undefined_not_nan() {
        let metrics = Sums::new(2, ScoreFunction::Softmax).metrics();
        assert_eq!((metrics.evaluated, metrics.accuracy, metrics.coverage), (0, None, None));
        assert_eq!((metrics.log_loss, expected_error(&metrics)), (None, None));
        assert_eq!((metrics.selective_accuracy, metrics.per_class.macro_average), (None, None));
        assert!(metrics.per_class.scores.is_empty());
        assert!(metrics.reliability.unwrap().bins.iter().all(|bin| bin.mean_score.is_none() && bin.accuracy.is_none()));
    }

    #[test]
    fn a_single_class_is_always_right() {
        let mut sums = Sums::new(1, ScoreFunction::Softmax);
        sums.observe(0, &predicted(&[0.0]), true);
        let metrics = sums.metrics();
        assert_eq!(metrics.per_class.macro_average, Some(LabelScores { precision: 1.0, recall: 1.0, f1: 1.0 }));
        assert_eq!(metrics.accuracy.unwrap().value, 1.0);
        assert_eq!(expected_error(&metrics), Some(0.0));
    }

    #[test]
    fn all_wrong() {
        let mut sums = Sums::new(2, ScoreFunction::Softmax);
        sums.observe(0, &predicted(&[-40.0, 40.0]), true);
        sums.observe(1, &predicted(&[40.0, -40.0]), true);
        let metrics = sums.metrics();
        assert_eq!(metrics.accuracy.unwrap().value, 0.0);
        assert_eq!(metrics.per_class.macro_average, Some(LabelScores { precision: 0.0, recall: 0.0, f1: 0.0 }));
        assert_eq!(expected_error(&metrics), Some(1.0));
        let worst = 23.0 * std::f64::consts::LN_2; // -ln 2^-23
        assert!((metrics.log_loss.unwrap() - worst).abs() < 1e-12);
    }

    #[test]
    fn unanswered_texts_count_in_accuracy_but_not_in_selective_accuracy() {
        let mut sums = Sums::new(2, ScoreFunction::Softmax);
        sums.observe(0, &predicted(&[2.0, 0.0]), true);
        sums.observe(0, &predicted(&[3.0, 0.0]), true);
        sums.observe(1, &predicted(&[2.0, 0.0]), true);
        sums.observe(1, &predicted(&[0.1, 0.0]), false);
        let metrics = sums.metrics();
        assert_eq!(metrics.accuracy.unwrap().value, 0.5);
        assert_eq!(metrics.coverage, Some(0.75));
        assert_eq!(metrics.selective_accuracy, Share::of(2, 3));
    }

    #[test]
    fn independent_scores_have_no_log_loss() {
        let mut sums = Sums::new(2, ScoreFunction::Sigmoid);
        sums.observe(0, &Prediction::from_logits(&[3.0, 2.0], ScoreFunction::Sigmoid, Extent::Whole), true);
        let metrics = sums.metrics();
        assert_eq!(metrics.log_loss, None);
        assert!(expected_error(&metrics).is_some());
    }

    #[test]
    fn logits_are_not_probabilities() {
        let mut sums = Sums::new(2, ScoreFunction::Raw);
        sums.observe(0, &Prediction::from_logits(&[3.0, 2.0], ScoreFunction::Raw, Extent::Whole), true);
        let metrics = sums.metrics();
        assert_eq!((metrics.log_loss, metrics.reliability), (None, None));
    }

    #[test]
    fn mistakes_come_most_frequent_first() {
        let counts = BTreeMap::from([((0, 0), 9), ((0, 1), 2), ((1, 0), 5), ((2, 1), 2)]);
        assert_eq!(ConfusionMatrix { counts }.mistakes(), [(1, 0, 5), (0, 1, 2), (2, 1, 2)]);
    }

    #[test]
    fn a_model_gone_wrong_gives_numbers_all_the_same() {
        let mut sums = Sums::new(2, ScoreFunction::Softmax);
        sums.observe(0, &predicted(&[f32::NAN, 1.0]), true);
        let metrics = sums.metrics();
        assert!(metrics.log_loss.unwrap().is_finite());
        assert!(expected_error(&metrics).unwrap().is_finite());
    }

    #[test]
    fn scores_are_clipped_as_scikit_learn_clips_float32() {
        assert_eq!(clip(0.0), 2f32.powi(-23));
        assert_eq!(clip(1.0), 1.0 - 2f32.powi(-23));
        assert_eq!(clip(0.25), 0.25);
        assert_eq!(clip(f32::NAN), 2f32.powi(-23));
    }
}
