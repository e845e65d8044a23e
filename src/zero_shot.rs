//! Classification with the user's own labels: a checkpoint trained for natural language inference scores how well a
//! text entails "This example is sports." (Yin et al. 2019, <https://arxiv.org/abs/1909.00161>). Scores are those of
//! transformers' zero-shot-classification pipeline. Pure.

use crate::checkpoint::config::ScoreFunction;
use crate::prediction::{log_odds, softmax, Extent, Prediction, Problem};
use std::fmt;

/// What to classify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZeroShotOptions {
    /// The candidate labels.
    pub labels: Vec<String>,
    /// The hypothesis, with `{}` as the placeholder for the label.
    pub hypothesis: String,
    /// Whether a text may have several labels.
    pub multi_label: bool,
}

/// The checkpoint has no label for entailment. Holds its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotInference(Vec<String>);

impl fmt::Display for NotInference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "labels of your own need a checkpoint trained for natural language inference, with a label that starts \
             with \"entail\"; this one has {}",
            self.0.join(", ")
        )
    }
}

impl std::error::Error for NotInference {}

/// Turns the logits of a text with each hypothesis into scores of the candidate labels.
#[derive(Debug, Clone)]
pub struct ZeroShot {
    hypotheses: Vec<String>,
    labels: Vec<String>,
    entailment: usize,
    contradiction: usize,
    multi_label: bool,
}

impl ZeroShot {
    /// `checkpoint_labels` are the labels of the inference checkpoint, in id order.
    ///
    /// # Errors
    /// If none of them means entailment.
    pub fn new(options: &ZeroShotOptions, checkpoint_labels: &[String]) -> Result<ZeroShot, NotInference> {
        let is_entailment = |label: &String| label.to_lowercase().starts_with("entail");
        let entailment = checkpoint_labels.iter().position(is_entailment);
        let entailment = entailment.ok_or_else(|| NotInference(checkpoint_labels.to_vec()))?;
        Ok(ZeroShot {
            hypotheses: options.labels.iter().map(|label| options.hypothesis.replace("{}", label)).collect(),
            labels: options.labels.clone(),
            entailment,
            // As in the pipeline: the first class, or the last one if entailment is the first.
            contradiction: if entailment == 0 { checkpoint_labels.len() - 1 } else { 0 },
            multi_label: options.multi_label || options.labels.len() == 1,
        })
    }

    /// One hypothesis per candidate label.
    pub fn hypotheses(&self) -> &[String] {
        &self.hypotheses
    }

    /// The candidate labels.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What is predicted for each text.
    pub fn problem(&self) -> Problem {
        if self.multi_label {
            Problem::MultiLabel
        } else {
            Problem::SingleLabel
        }
    }

    /// What [`ZeroShot::prediction`] applies to the logits that it ranks by: the softmax of two is the sigmoid of their
    /// difference.
    pub fn score_function(&self) -> ScoreFunction {
        match self.multi_label {
            true => ScoreFunction::Sigmoid,
            false => ScoreFunction::Softmax,
        }
    }

    /// The scores for one text. `logits` has a row for each hypothesis, with a logit for each of the checkpoint's labels.
    pub fn prediction(&self, logits: &[Vec<f32>], extent: Extent) -> Prediction {
        let entailment = |row: &Vec<f32>| row[self.entailment];
        if !self.multi_label {
            let order: Vec<f32> = logits.iter().map(entailment).collect();
            return Prediction::ranked(softmax(&order), &order, extent);
        }
        let scores = logits.iter().map(|row| softmax(&[row[self.contradiction], entailment(row)])[1]).collect();
        let order: Vec<f32> = logits.iter().map(|row| entailment(row) - row[self.contradiction]).collect();
        Prediction::ranked(scores, &order, extent)
    }

    /// The log odds of a label's score for one text, from the same logits.
    pub(crate) fn log_odds(&self, logits: &[Vec<f32>], label_id: usize) -> f64 {
        if self.multi_label {
            let row = &logits[label_id];
            return log_odds(&[row[self.contradiction], row[self.entailment]], ScoreFunction::Softmax, 1);
        }
        let entailments: Vec<f32> = logits.iter().map(|row| row[self.entailment]).collect();
        log_odds(&entailments, ScoreFunction::Softmax, label_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zero_shot(checkpoint: &[&str], labels: &[&str], multi_label: bool) -> Result<ZeroShot, NotInference> {
        let strings = |labels: &[&str]| labels.iter().map(|label| label.to_string()).collect::<Vec<_>>();
        let options = ZeroShotOptions { labels: strings(labels), hypothesis: "This is about {}.".into(), multi_label };
        ZeroShot::new(&options, &strings(checkpoint))
    }

    const NLI: [&str; 3] = ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"];

    #[test]
    fn one_label_is_a_softmax_over_the_entailments() {
        let zero_shot = zero_shot(&NLI, &["sports", "war"], false).unwrap();
        assert_eq!(zero_shot.hypotheses(), ["This is about sports.", "This is about war."]);
        let prediction = zero_shot.prediction(&[vec![0.0, 9.0, 1.0], vec![5.0, 0.0, 2.0]], Extent::Whole);
        assert_eq!(prediction.best().label_id, 1);
        // e^2 / (e^1 + e^2)
        assert!((prediction.best().score - 0.731_058_6).abs() < 1e-6);
    }

    #[test]
    fn several_labels_are_entailment_against_contradiction() {
        for (checkpoint, rows) in [
            (NLI, [vec![1.0, 9.0, 1.0], vec![0.0, 9.0, 2.0]]),
            (["entailment", "neutral", "not"], [vec![1.0, 9.0, 1.0], vec![2.0, 9.0, 0.0]]),
        ] {
            let zero_shot = zero_shot(&checkpoint, &["a", "b"], true).unwrap();
            let prediction = zero_shot.prediction(&rows, Extent::Truncated);
            let scores: Vec<f32> = prediction.ranking.iter().map(|scored| scored.score).collect();
            assert_eq!(prediction.best().label_id, 1);
            assert!((scores[0] - 0.880_797).abs() < 1e-6 && scores[1] == 0.5, "{scores:?}");
        }
        assert_eq!(zero_shot(&NLI, &["only"], false).unwrap().problem(), Problem::MultiLabel);
    }

    #[test]
    fn log_odds_are_those_of_the_scores() {
        for multi_label in [false, true] {
            let zero_shot = zero_shot(&NLI, &["a", "b", "c"], multi_label).unwrap();
            let rows = [vec![1.0, 9.0, 1.5], vec![0.0, 9.0, 2.0], vec![0.5, 0.0, -1.0]];
            for scored in zero_shot.prediction(&rows, Extent::Whole).ranking {
                let score = f64::from(scored.score);
                let log_odds = zero_shot.log_odds(&rows, scored.label_id);
                assert!((log_odds - (score / (1.0 - score)).ln()).abs() < 1e-6, "{scored:?}: {log_odds}");
            }
        }
    }

    #[test]
    fn a_checkpoint_of_another_kind_is_refused() {
        let error = zero_shot(&["World", "Sports"], &["a"], false).unwrap_err().to_string();
        assert!(error.contains("World, Sports"), "{error}");
    }
}
