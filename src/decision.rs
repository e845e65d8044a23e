//! Scores to a decision: the label, or none because the score is too low, and the best classes besides. Everything
//! that shows or compares a label takes it from here. Pure.

use crate::prediction::{Prediction, ScoredLabel};
use std::num::NonZeroUsize;

/// How scores become a decision.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DecisionOptions {
    /// How many of the best classes a decision lists; `None` lists none beside the label.
    pub top_k: Option<NonZeroUsize>,
    /// When a score is too low for its label.
    pub unsure: Option<Unsure>,
}

/// When a score is too low, and what replaces the label then.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsure {
    /// The lowest score that keeps its label.
    pub min_score: f32,
    /// What stands in place of the label; may be empty.
    pub name: String,
}

/// Makes decisions for the labels of one checkpoint.
#[derive(Debug, Clone)]
pub struct Decider {
    labels: Vec<String>,
    options: DecisionOptions,
}

/// What is said of one text.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision<'a> {
    /// The label.
    pub answer: Answer<'a>,
    /// The best classes, best first, whatever their scores; empty unless they were asked for.
    pub top: Vec<Answer<'a>>,
    /// Whether the text was longer than the model takes, so that its end had no part in this.
    pub truncated: bool,
}

/// One class and its score, or what replaces it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer<'a> {
    /// `None` if the score is too low for a label.
    pub label_id: Option<usize>,
    /// The class name, or what replaces it.
    pub label: &'a str,
    /// From 0 to 1.
    pub score: f32,
}

impl Decider {
    /// `labels` are the classes in id order.
    pub fn new(labels: &[String], options: DecisionOptions) -> Decider {
        Decider { labels: labels.to_vec(), options }
    }

    /// The classes in id order.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The number of classes that each decision lists.
    pub fn top_k(&self) -> Option<usize> {
        self.options.top_k.map(|k| k.get().min(self.labels.len()))
    }

    /// What replaces the label of a low score.
    pub fn unsure_name(&self) -> Option<&str> {
        self.options.unsure.as_ref().map(|unsure| unsure.name.as_str())
    }

    /// Decides.
    pub fn decide(&self, prediction: &Prediction) -> Decision<'_> {
        let answer = |scored: ScoredLabel| Answer {
            label_id: Some(scored.label_id),
            label: &self.labels[scored.label_id],
            score: scored.score,
        };
        let best = prediction.best();
        let best = match &self.options.unsure {
            Some(unsure) if best.score < unsure.min_score => {
                Answer { label_id: None, label: &unsure.name, score: best.score }
            }
            _ => answer(best),
        };
        let top = prediction.ranking.iter().take(self.top_k().unwrap_or(0)).copied().map(answer).collect();
        Decision { answer: best, top, truncated: prediction.truncated }
    }
}

impl<'a> Decision<'a> {
    /// What a table shows: the label, then the rest of the best classes.
    pub fn answers(&self) -> impl Iterator<Item = Answer<'a>> + '_ {
        std::iter::once(self.answer).chain(self.top.iter().skip(1).copied())
    }

    /// Whether there is a label.
    pub fn is_sure(&self) -> bool {
        self.answer.label_id.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decider(top_k: usize, min_score: Option<f32>) -> Decider {
        let unsure = min_score.map(|min_score| Unsure { min_score, name: "?".into() });
        Decider::new(&["no", "yes"].map(String::from), DecisionOptions { top_k: NonZeroUsize::new(top_k), unsure })
    }

    fn prediction() -> Prediction {
        let ranking = vec![ScoredLabel { label_id: 1, score: 0.7 }, ScoredLabel { label_id: 0, score: 0.3 }];
        Prediction { ranking, truncated: true }
    }

    fn shown(decider: &Decider) -> Vec<String> {
        let prediction = prediction();
        let decision = decider.decide(&prediction);
        let show = |answer: Answer<'_>| format!("{:?} {} {}", answer.label_id, answer.label, answer.score);
        decision.answers().map(show).collect()
    }

    #[test]
    fn the_best_class_is_the_label_unless_its_score_is_too_low() {
        assert_eq!(shown(&decider(0, None)), ["Some(1) yes 0.7"]);
        assert_eq!(shown(&decider(0, Some(0.7))), ["Some(1) yes 0.7"]);
        assert_eq!(shown(&decider(0, Some(0.75))), ["None ? 0.7"]);
    }

    #[test]
    fn the_best_classes_are_listed_when_asked_for_and_as_many_as_there_are() {
        assert_eq!(shown(&decider(1, None)), ["Some(1) yes 0.7"]);
        assert_eq!(shown(&decider(9, Some(0.9))), ["None ? 0.7", "Some(0) no 0.3"]);
        let decider = decider(9, Some(0.9));
        let prediction = prediction();
        assert_eq!(decider.decide(&prediction).top[0].label, "yes", "the list itself is not censored");
        assert_eq!(decider.top_k(), Some(2));
    }
}
