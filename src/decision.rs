//! From scores to a decision: the label, the labels, or a value; or none, because a score is too low. Everything that
//! shows or compares a label uses this module. Pure.

use crate::explanation::Explanation;
use crate::prediction::{Extent, Prediction, Problem, ScoredLabel};
use std::fmt;
use std::num::NonZeroUsize;

/// The default minimum score of a label if a text may have several.
pub const DEFAULT_THRESHOLD: f32 = 0.5;

/// How scores become a decision.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DecisionOptions {
    /// How many of the best classes a decision lists; `None` lists only the label.
    pub top_k: Option<NonZeroUsize>,
    /// When the best score is too low, for checkpoints that assign one label to each text.
    pub unsure: Option<Unsure>,
    /// The minimum score of a label, for checkpoints that assign several labels to each text. `None`: as in `thresholds`.
    pub threshold: Option<f32>,
    /// The same for each label, in id order; [`DEFAULT_THRESHOLD`] if `None`.
    pub thresholds: Option<Vec<f32>>,
}

/// When a score is too low, and what then replaces the label.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsure {
    /// The minimum score.
    pub min_score: f32,
    /// The replacement for the label; may be empty.
    pub name: String,
}

/// An option that does not apply to what the checkpoint predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecisionError {
    /// A threshold for each label, but a text has one label, or a value.
    Threshold(Problem),
    /// A minimum for the best label's score, but a text has several labels, or a value.
    MinScore(Problem),
    /// A number of best labels, but there is one value.
    TopK,
    /// Texts chosen or counted by their labels, but each has a value.
    NoLabels,
}

impl fmt::Display for DecisionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecisionError::Threshold(problem) => {
                write!(f, "the checkpoint predicts {problem} for each text, so a threshold for labels does not apply")
            }
            DecisionError::MinScore(problem) => {
                write!(
                    f,
                    "the checkpoint predicts {problem} for each text, so a minimum for the best score does not apply"
                )
            }
            DecisionError::TopK => {
                f.write_str("the checkpoint predicts a value for each text, so there are no best labels")
            }
            DecisionError::NoLabels => {
                f.write_str("the checkpoint predicts a value for each text, so there are no labels to choose or count")
            }
        }
    }
}

impl std::error::Error for DecisionError {}

/// Makes decisions for the labels of one checkpoint.
#[derive(Debug, Clone)]
pub struct Decider {
    labels: Vec<String>,
    problem: Problem,
    options: DecisionOptions,
}

/// The decision for one text.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision<'a> {
    /// The answer itself.
    pub verdict: Verdict<'a>,
    /// The best classes, best first, whatever their scores; empty unless requested.
    pub top: Vec<Answer<'a>>,
    /// Which part of the text this is about.
    pub extent: Extent,
    /// Why the text has each label, in the order of [`Decision::explained_ids`]; empty unless requested.
    pub explanations: Vec<Explanation>,
}

/// The answer for one text.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict<'a> {
    /// One label, or what replaces it.
    Label(Answer<'a>),
    /// All labels that apply, best first; may be empty.
    Labels(Vec<Answer<'a>>),
    /// The model's only output.
    Value(f32),
}

/// One class and its score, or what replaces it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer<'a> {
    /// `None` if the score is too low for a label.
    pub label_id: Option<usize>,
    /// The class name, or what replaces it.
    pub label: &'a str,
    /// The score of the class.
    pub score: f32,
}

impl Decider {
    /// `labels` are the classes in id order.
    ///
    /// # Errors
    /// If an option does not apply to the problem.
    pub fn new(labels: &[String], problem: Problem, options: DecisionOptions) -> Result<Decider, DecisionError> {
        if options.threshold.is_some() && problem != Problem::MultiLabel {
            return Err(DecisionError::Threshold(problem));
        }
        if options.unsure.is_some() && problem != Problem::SingleLabel {
            return Err(DecisionError::MinScore(problem));
        }
        if options.top_k.is_some() && problem == Problem::Value {
            return Err(DecisionError::TopK);
        }
        Ok(Decider { labels: labels.to_vec(), problem, options })
    }

    /// The classes in id order.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What is predicted for each text.
    pub fn problem(&self) -> Problem {
        self.problem
    }

    /// The number of classes that each decision lists.
    pub fn top_k(&self) -> Option<usize> {
        self.options.top_k.map(|k| k.get().min(self.labels.len()))
    }

    /// What replaces the label of a low score.
    pub fn unsure_name(&self) -> Option<&str> {
        self.options.unsure.as_ref().map(|unsure| unsure.name.as_str())
    }

    /// The minimum score of one of several labels.
    fn threshold(&self, label_id: usize) -> f32 {
        let of_label = self.options.thresholds.as_ref().map(|thresholds| thresholds[label_id]);
        self.options.threshold.or(of_label).unwrap_or(DEFAULT_THRESHOLD)
    }

    /// Decides.
    pub fn decide(&self, prediction: &Prediction) -> Decision<'_> {
        let answer = |scored: ScoredLabel| Answer {
            label_id: Some(scored.label_id),
            label: &self.labels[scored.label_id],
            score: scored.score,
        };
        let ranked = || prediction.ranking.iter().copied();
        let best = prediction.best();
        let verdict = match (self.problem, &self.options.unsure) {
            (Problem::Value, _) => Verdict::Value(best.score),
            (Problem::MultiLabel, _) => {
                let is_given = |scored: &ScoredLabel| scored.score >= self.threshold(scored.label_id);
                Verdict::Labels(ranked().filter(is_given).map(answer).collect())
            }
            (Problem::SingleLabel, Some(unsure)) if best.score < unsure.min_score => {
                Verdict::Label(Answer { label_id: None, label: &unsure.name, score: best.score })
            }
            (Problem::SingleLabel, _) => Verdict::Label(answer(best)),
        };
        let top = ranked().take(self.top_k().unwrap_or(0)).map(answer).collect();
        Decision { verdict, top, extent: prediction.extent.clone(), explanations: Vec::new() }
    }
}

impl<'a> Decision<'a> {
    /// The list of the best classes for display: the label or its replacement, then the others.
    pub fn answers(&self) -> impl Iterator<Item = Answer<'a>> + '_ {
        let first = match &self.verdict {
            Verdict::Label(answer) => Some(*answer),
            Verdict::Labels(_) | Verdict::Value(_) => None,
        };
        first.into_iter().chain(self.top.iter().skip(usize::from(first.is_some())).copied())
    }

    /// The ids of the text's labels.
    pub fn label_ids(&self) -> Vec<usize> {
        match &self.verdict {
            Verdict::Label(answer) => answer.label_id.into_iter().collect(),
            Verdict::Labels(answers) => answers.iter().filter_map(|answer| answer.label_id).collect(),
            Verdict::Value(_) => Vec::new(),
        }
    }

    /// The ids of what there is to explain: the text's labels, or the only output.
    pub fn explained_ids(&self) -> Vec<usize> {
        match self.verdict {
            Verdict::Value(_) => vec![0],
            Verdict::Label(_) | Verdict::Labels(_) => self.label_ids(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decider(problem: Problem, top_k: usize, min_score: Option<f32>, threshold: Option<f32>) -> Decider {
        let unsure = min_score.map(|min_score| Unsure { min_score, name: "?".into() });
        let options = DecisionOptions { top_k: NonZeroUsize::new(top_k), unsure, threshold, thresholds: None };
        Decider::new(&["no", "yes"].map(String::from), problem, options).unwrap()
    }

    fn single(top_k: usize, min_score: Option<f32>) -> Decider {
        decider(Problem::SingleLabel, top_k, min_score, None)
    }

    fn prediction() -> Prediction {
        let ranking =
            [(1, 0.7), (0, 0.3)].map(|(label_id, score)| ScoredLabel { label_id, score, logit: score }).to_vec();
        Prediction { ranking, extent: Extent::Truncated }
    }

    fn show(answer: Answer<'_>) -> String {
        format!("{:?} {} {}", answer.label_id, answer.label, answer.score)
    }

    fn shown(decider: &Decider) -> Vec<String> {
        decider.decide(&prediction()).answers().map(show).collect()
    }

    #[test]
    fn the_best_class_is_the_label_unless_its_score_is_too_low() {
        assert_eq!(shown(&single(0, None)), ["Some(1) yes 0.7"]);
        assert_eq!(shown(&single(0, Some(0.7))), ["Some(1) yes 0.7"]);
        assert_eq!(shown(&single(0, Some(0.75))), ["None ? 0.7"]);
        assert!(single(0, Some(0.75)).decide(&prediction()).label_ids().is_empty());
    }

    #[test]
    fn the_best_classes_are_listed_when_asked_for_and_as_many_as_there_are() {
        assert_eq!(shown(&single(1, None)), ["Some(1) yes 0.7"]);
        assert_eq!(shown(&single(9, Some(0.9))), ["None ? 0.7", "Some(0) no 0.3"]);
        let decider = single(9, Some(0.9));
        assert_eq!(decider.decide(&prediction()).top[0].label, "yes", "the list itself is not censored");
        assert_eq!(decider.top_k(), Some(2));
    }

    #[test]
    fn labels_are_those_at_or_above_the_threshold() {
        let label_ids = |threshold| decider(Problem::MultiLabel, 0, None, threshold).decide(&prediction()).label_ids();
        assert_eq!(label_ids(None), [1]);
        assert_eq!(label_ids(Some(0.3)), [1, 0]);
        assert!(label_ids(Some(0.71)).is_empty());
        let all = decider(Problem::MultiLabel, 2, None, Some(0.9));
        assert_eq!(shown(&all), ["Some(1) yes 0.7", "Some(0) no 0.3"], "the best labels do not depend on it");
    }

    #[test]
    fn each_label_may_have_a_threshold_of_its_own() {
        let label_ids = |threshold, thresholds: [f32; 2]| {
            let options =
                DecisionOptions { threshold, thresholds: Some(thresholds.to_vec()), ..DecisionOptions::default() };
            let decider = Decider::new(&["no", "yes"].map(String::from), Problem::MultiLabel, options).unwrap();
            decider.decide(&prediction()).label_ids()
        };
        assert_eq!(label_ids(None, [0.3, 0.8]), [0]);
        assert_eq!(label_ids(None, [0.31, 0.7]), [1]);
        assert_eq!(label_ids(Some(0.1), [0.31, 0.8]), [1, 0], "one that the user gives goes before them");
    }

    #[test]
    fn a_value_is_the_only_score() {
        let decider = decider(Problem::Value, 0, None, None);
        assert_eq!(decider.decide(&prediction()).verdict, Verdict::Value(0.7));
    }

    #[test]
    fn options_that_do_not_apply_are_errors() {
        let new = |problem, options| Decider::new(&["a".to_owned()], problem, options).err();
        let threshold = || DecisionOptions { threshold: Some(0.5), ..DecisionOptions::default() };
        let unsure =
            || DecisionOptions { unsure: Some(Unsure { min_score: 0.5, name: "".into() }), ..Default::default() };
        let top_k = || DecisionOptions { top_k: NonZeroUsize::new(2), ..Default::default() };
        assert!(new(Problem::SingleLabel, threshold()).is_some() && new(Problem::Value, threshold()).is_some());
        assert!(new(Problem::MultiLabel, unsure()).is_some() && new(Problem::Value, unsure()).is_some());
        assert_eq!(new(Problem::Value, top_k()), Some(DecisionError::TopK));
        assert_eq!(new(Problem::MultiLabel, top_k()), None);
    }
}
