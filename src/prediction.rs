//! From logits to predictions: scores and the order of the classes. Pure.

use crate::checkpoint::config::ScoreFunction;
use crate::tokenization::windows::TextRange;
use std::fmt;

/// What a checkpoint predicts for a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// One label of several.
    SingleLabel,
    /// Any number of labels.
    MultiLabel,
    /// A value: the model has one output.
    Value,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Problem::SingleLabel => "one label",
            Problem::MultiLabel => "any number of labels",
            Problem::Value => "a value",
        })
    }
}

/// The model's prediction for one text: a score for each class, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Every class, best score first; equal scores in id order.
    pub ranking: Vec<ScoredLabel>,
    /// Which part of the text it is about.
    pub extent: Extent,
}

/// Which part of its text a prediction is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// As much as the model takes: the text was longer, and the rest was left out.
    Truncated,
    /// All of it, in this many windows whose logits were pooled.
    Pooled(usize),
    /// One window of it.
    Window(TextRange),
}

/// One class and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredLabel {
    /// The class: an index into the classifier's labels.
    pub label_id: usize,
    /// A softmax or sigmoid probability, from 0 to 1, or the logit itself.
    pub score: f32,
    /// What the score is computed from. With labels of the user's own, the logit of entailment, or what it exceeds that of
    /// contradiction by.
    pub logit: f32,
}

impl Prediction {
    /// From one row of logits.
    pub fn from_logits(logits: &[f32], score_function: ScoreFunction, extent: Extent) -> Prediction {
        Prediction::ranked(scores(logits, score_function), logits, extent)
    }

    /// From a score for each class. Their logits rank them, of which two may differ although their scores both round to 1.
    pub(crate) fn ranked(scores: Vec<f32>, logits: &[f32], extent: Extent) -> Prediction {
        let scored = scores.into_iter().zip(logits).enumerate();
        let mut ranking: Vec<ScoredLabel> =
            scored.map(|(label_id, (score, &logit))| ScoredLabel { label_id, score, logit }).collect();
        ranking.sort_by(|a, b| b.logit.total_cmp(&a.logit));
        Prediction { ranking, extent }
    }

    /// The same logits, divided by `temperature` before they become scores. The order of the classes stays.
    pub fn at_temperature(mut self, temperature: f64, score_function: ScoreFunction) -> Prediction {
        let logits: Vec<f32> =
            self.ranking.iter().map(|scored| (f64::from(scored.logit) / temperature) as f32).collect();
        for (scored, score) in self.ranking.iter_mut().zip(scores(&logits, score_function)) {
            scored.score = score;
        }
        self
    }

    /// The best class.
    pub fn best(&self) -> ScoredLabel {
        self.ranking[0]
    }
}

fn scores(logits: &[f32], score_function: ScoreFunction) -> Vec<f32> {
    match score_function {
        ScoreFunction::Softmax => softmax(logits),
        ScoreFunction::Sigmoid => logits.iter().map(|&logit| sigmoid(logit)).collect(),
        ScoreFunction::Raw => logits.to_vec(),
    }
}

/// exp(x - max) / sum, in float64, without overflow.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    let exps: Vec<f64> = logits.iter().map(|&logit| (logit as f64 - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|exp| (exp / sum) as f32).collect()
}

/// The log odds of a class, ln(p / (1 - p)) with its score p as the probability, from one row of logits in float64,
/// so that they do not end where a score rounds to 1: with softmax the logit less the logarithm of the sum of the others'
/// exponentials, otherwise the logit itself. A model's only output has no others to be compared with: its logit.
pub(crate) fn log_odds(logits: &[f32], score_function: ScoreFunction, label_id: usize) -> f64 {
    let logit = f64::from(logits[label_id]);
    if score_function != ScoreFunction::Softmax || logits.len() == 1 {
        return logit;
    }
    let others = || logits.iter().enumerate().filter(|(id, _)| *id != label_id).map(|(_, &other)| f64::from(other));
    let max = others().fold(f64::NEG_INFINITY, f64::max);
    logit - max - others().map(|other| (other - max).exp()).sum::<f64>().ln()
}

fn sigmoid(logit: f32) -> f32 {
    (1.0 / (1.0 + (-(logit as f64)).exp())) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_of_known_logits() {
        let prediction = Prediction::from_logits(&[1.0, 3.0, 2.0], ScoreFunction::Softmax, Extent::Whole);
        let ids: Vec<usize> = prediction.ranking.iter().map(|scored| scored.label_id).collect();
        assert_eq!(ids, [1, 2, 0]);
        // exp(1)/(exp(1)+exp(2)+exp(3)) and so on
        let expected = [0.665_240_96, 0.244_728_48, 0.090_030_57];
        for (scored, expected) in prediction.ranking.iter().zip(expected) {
            assert!((scored.score - expected).abs() < 1e-7, "{scored:?}");
        }
    }

    #[test]
    fn extreme_logits_stay_finite_and_ordered() {
        let prediction = Prediction::from_logits(&[-1e30, 1e30, 3e30], ScoreFunction::Softmax, Extent::Whole);
        assert_eq!(prediction.best(), ScoredLabel { label_id: 2, score: 1.0, logit: 3e30 });
        assert!(prediction.ranking.iter().all(|scored| scored.score.is_finite()));
        let close = Prediction::from_logits(&[100.0, 0.0, 100.0], ScoreFunction::Softmax, Extent::Whole);
        assert_eq!(close.best().label_id, 0, "equal scores keep the id order, as argmax does");
    }

    #[test]
    fn log_odds_are_those_of_the_score_and_go_on_where_it_is_1() {
        let logits = [1.0, 3.0, 2.0];
        for function in [ScoreFunction::Softmax, ScoreFunction::Sigmoid] {
            for scored in Prediction::from_logits(&logits, function, Extent::Whole).ranking {
                let score = f64::from(scored.score);
                let log_odds = log_odds(&logits, function, scored.label_id);
                assert!((log_odds - (score / (1.0 - score)).ln()).abs() < 1e-6, "{function:?} {scored:?}: {log_odds}");
            }
        }
        // 80 - ln(e^0 + e^0)
        assert!((log_odds(&[80.0, 0.0, 0.0], ScoreFunction::Softmax, 0) - 79.306_852_819).abs() < 1e-9);
        assert_eq!(log_odds(&[3e38, -3e38], ScoreFunction::Softmax, 0), 2.0 * f64::from(3e38f32));
        assert_eq!(log_odds(&[-1.5], ScoreFunction::Softmax, 0), -1.5);
        assert_eq!(log_odds(&[0.5, 0.25], ScoreFunction::Raw, 1), 0.25);
    }

    #[test]
    fn a_temperature_changes_scores_but_not_their_order() {
        let prediction = Prediction::from_logits(&[1.0, 3.0, 2.0], ScoreFunction::Softmax, Extent::Whole);
        let same = prediction.clone().at_temperature(1.0, ScoreFunction::Softmax);
        assert_eq!(same, prediction);
        let warm = prediction.at_temperature(2.0, ScoreFunction::Softmax);
        let wanted = Prediction::from_logits(&[0.5, 1.5, 1.0], ScoreFunction::Softmax, Extent::Whole);
        for (scored, wanted) in warm.ranking.iter().zip(&wanted.ranking) {
            assert_eq!((scored.label_id, scored.score), (wanted.label_id, wanted.score));
            assert_eq!(scored.logit, 2.0 * wanted.logit, "the model's own logits stay");
        }
        // One unit in the last place apart, which is lost when both are divided.
        let close = Prediction::from_logits(&[1.0 - f32::EPSILON / 2.0, 1.0], ScoreFunction::Softmax, Extent::Whole);
        assert_eq!(close.at_temperature(1e-3, ScoreFunction::Softmax).best().label_id, 1);
    }

    #[test]
    fn sigmoid_scores_stand_alone() {
        let prediction = Prediction::from_logits(&[0.0, 2.0], ScoreFunction::Sigmoid, Extent::Truncated);
        assert!((prediction.ranking[0].score - 0.880_797_1).abs() < 1e-6);
        assert_eq!(prediction.ranking[1].score, 0.5);
        assert_eq!(prediction.extent, Extent::Truncated);
    }
}
