//! Evaluation: predictions against gold labels, counted as they stream by. Pure, but for [`report`], which writes files.
//!
//! [`Evaluation`] holds counts and sums alone, so its memory does not grow with the number of texts; [`metrics`] turns
//! them into the figures, `table` into text for a terminal, [`report`] into files. [`gold`] reads the gold labels.

pub mod gold;
pub mod metrics;
pub mod report;
mod table;

use crate::checkpoint::config::ScoreFunction;
use crate::prediction::Prediction;
use metrics::Metrics;
use std::collections::BTreeMap;

/// The bins of the reliability diagram and of the expected calibration error, as in Guo et al. 2017.
pub const CALIBRATION_BINS: usize = 15;

/// Why a record has no part in the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// Its text is empty or white space: nothing was predicted.
    BlankText,
    /// It could not be read.
    MalformedRecord,
    /// Its gold label is empty.
    NoGoldLabel,
    /// Its gold label is none of the model's.
    UnknownGoldLabel,
}

/// How many records were left out, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOutCounts {
    /// See [`LeftOut::BlankText`].
    pub blank_text: u64,
    /// See [`LeftOut::MalformedRecord`].
    pub malformed_record: u64,
    /// See [`LeftOut::NoGoldLabel`].
    pub no_gold_label: u64,
    /// See [`LeftOut::UnknownGoldLabel`].
    pub unknown_gold_label: u64,
}

impl LeftOutCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.blank_text + self.malformed_record + self.no_gold_label + self.unknown_gold_label
    }
}

/// What has been seen of one bin of top scores.
#[derive(Debug, Clone, Copy, Default)]
struct ScoreBin {
    count: u64,
    correct: u64,
    score_sum: f64,
}

/// The sums from which every figure follows.
#[derive(Debug, Clone)]
pub struct Evaluation {
    labels: Vec<String>,
    score_function: ScoreFunction,
    /// (gold, predicted) to how many. Only the pairs that occur: a checkpoint may have tens of thousands of classes,
    /// whose full matrix would not fit in memory.
    confusion: BTreeMap<(usize, usize), u64>,
    negative_log_likelihood: f64,
    bins: [ScoreBin; CALIBRATION_BINS],
    left_out: LeftOutCounts,
}

impl Evaluation {
    /// Nothing seen yet, for a classifier with these labels in id order.
    pub fn new(labels: &[String], score_function: ScoreFunction) -> Evaluation {
        Evaluation {
            labels: labels.to_vec(),
            score_function,
            confusion: BTreeMap::new(),
            negative_log_likelihood: 0.0,
            bins: [ScoreBin::default(); CALIBRATION_BINS],
            left_out: LeftOutCounts::default(),
        }
    }

    /// Counts one text whose class is `gold`, an index into the labels (as [`gold::GoldLabels::parse`] gives it).
    ///
    /// The prediction's best class is what counts as predicted. A score that is not a number counts as 0.
    pub fn observe(&mut self, gold: usize, prediction: &Prediction) {
        debug_assert!(gold < self.labels.len(), "gold label {gold} of {}", self.labels.len());
        let best = prediction.best();
        *self.confusion.entry((gold, best.label_id)).or_insert(0) += 1;

        let gold_score = prediction.ranking.iter().find(|scored| scored.label_id == gold).map_or(0.0, |s| s.score);
        self.negative_log_likelihood -= f64::from(clip(gold_score)).ln();

        let top_score = if best.score.is_nan() { 0.0 } else { best.score };
        let bin = &mut self.bins[bin_of(top_score)];
        bin.count += 1;
        bin.correct += u64::from(best.label_id == gold);
        bin.score_sum += f64::from(top_score);
    }

    /// Counts one record that cannot be evaluated.
    pub fn leave_out(&mut self, why: LeftOut) {
        match why {
            LeftOut::BlankText => self.left_out.blank_text += 1,
            LeftOut::MalformedRecord => self.left_out.malformed_record += 1,
            LeftOut::NoGoldLabel => self.left_out.no_gold_label += 1,
            LeftOut::UnknownGoldLabel => self.left_out.unknown_gold_label += 1,
        }
    }

    /// The figures of all that was observed so far.
    pub fn metrics(&self) -> Metrics {
        Metrics::of(self)
    }
}

/// Into [eps, 1 - eps], where eps is the spacing of float32 numbers at 1: the rule of scikit-learn's `log_loss` for
/// float32 probabilities. One confident mistake then costs 15.9 and not infinity.
fn clip(score: f32) -> f32 {
    if score.is_nan() {
        return f32::EPSILON;
    }
    score.clamp(f32::EPSILON, 1.0 - f32::EPSILON)
}

/// The bin of a top score: bin m of M holds the scores in ((m - 1) / M, m / M], and the first one 0 as well.
///
/// The product is exact in float64 (24 bits times 4), so a score at a bin's edge never falls on the wrong side.
fn bin_of(score: f32) -> usize {
    let place = (f64::from(score) * CALIBRATION_BINS as f64).ceil();
    (place as usize).clamp(1, CALIBRATION_BINS) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_closed_on_the_right() {
        assert_eq!(bin_of(0.0), 0);
        assert_eq!(bin_of(1e-9), 0);
        assert_eq!(bin_of(0.2), 3, "0.2 in float32 lies above 3/15");
        assert_eq!(bin_of(0.5), 7);
        assert_eq!(bin_of(0.6), 9, "0.6 in float32 lies above 9/15");
        assert_eq!(bin_of(1.0 - f32::EPSILON), 14);
        assert_eq!(bin_of(1.0), 14);
    }

    #[test]
    fn scores_are_clipped_as_scikit_learn_clips_float32() {
        assert_eq!(clip(0.0), 2f32.powi(-23));
        assert_eq!(clip(1.0), 1.0 - 2f32.powi(-23));
        assert_eq!(clip(0.25), 0.25);
        assert_eq!(clip(f32::NAN), 2f32.powi(-23));
    }
}
