//! The most confident mistakes: the texts to look at first, since either the model or the gold label is wrong. Only the
//! worst few are kept, so memory does not grow with the number of texts.

use crate::prediction::ScoredLabel;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fmt;

/// How many mistakes are kept.
const KEPT: usize = 20;
/// How many characters of a text are kept.
const TEXT_CHARACTERS: usize = 200;

/// A text that is evaluated, and where it stands.
#[derive(Clone, Copy)]
pub struct EvaluatedText<'a> {
    /// The input that it is in.
    pub file: &'a dyn fmt::Display,
    /// Where it begins there: a line, or the number of an argument, counted from 1.
    pub line: u64,
    /// The text itself.
    pub text: &'a str,
}

/// Where a kept text stands, and its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptText {
    /// The name of its input.
    pub file: String,
    /// Where it begins there, counted from 1.
    pub line: u64,
    /// Its start: 200 characters, with `…` behind them if there are more.
    pub text: String,
}

impl KeptText {
    pub(super) fn of(text: &EvaluatedText<'_>) -> KeptText {
        let mut characters = text.text.trim().chars();
        let mut start: String = characters.by_ref().take(TEXT_CHARACTERS).collect();
        start.extend(characters.next().map(|_| '…'));
        KeptText { file: text.file.to_string(), line: text.line, text: start }
    }
}

/// A text with a wrong label.
#[derive(Debug, Clone, PartialEq)]
pub struct Mistake {
    /// The score of the wrong label.
    pub score: f32,
    /// The gold labels: one, or as many as the text has.
    pub gold: Vec<usize>,
    /// The label that the model gave.
    pub predicted: usize,
    /// The text.
    pub text: KeptText,
}

/// The most confident mistakes so far.
#[derive(Debug, Clone, Default)]
pub(super) struct WorstMistakes {
    seen: u64,
    /// The least confident is on top, to be the first to go.
    kept: BinaryHeap<Reverse<Ranked>>,
}

/// Ordered by score; of equal ones the first in the data is the greatest.
#[derive(Debug, Clone)]
struct Ranked {
    number: u64,
    mistake: Mistake,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Ranked) -> Ordering {
        self.mistake.score.total_cmp(&other.mistake.score).then(other.number.cmp(&self.number))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Ranked) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Ranked) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

impl WorstMistakes {
    /// Takes in a text with the labels that it was given, best first: the best of the wrong ones is its mistake.
    pub(super) fn observe(&mut self, text: &EvaluatedText<'_>, gold: &[usize], given: &[ScoredLabel]) {
        let wrong = given.iter().find(|scored| !gold.contains(&scored.label_id));
        let Some(&ScoredLabel { label_id: predicted, score, .. }) = wrong else { return };
        self.seen += 1;
        let is_full = self.kept.len() == KEPT;
        if is_full && self.kept.peek().is_some_and(|Reverse(least)| score.total_cmp(&least.mistake.score).is_le()) {
            return;
        }
        if is_full {
            self.kept.pop();
        }
        let mistake = Mistake { score, gold: gold.to_vec(), predicted, text: KeptText::of(text) };
        self.kept.push(Reverse(Ranked { number: self.seen, mistake }));
    }

    /// Most confident first.
    pub(super) fn mistakes(&self) -> Vec<Mistake> {
        self.kept.clone().into_sorted_vec().into_iter().map(|Reverse(ranked)| ranked.mistake).collect()
    }
}

/// What the tests take for a text that they do not look at.
#[cfg(test)]
pub(super) const TEXT: EvaluatedText<'static> = EvaluatedText { file: &"a.csv", line: 7, text: "a text" };

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(worst: &mut WorstMistakes, line: u64, score: f32) {
        let given = [(0, 1.0), (1, score)].map(|(label_id, score)| ScoredLabel { label_id, score, logit: score });
        worst.observe(&EvaluatedText { line, ..TEXT }, &[0], &given);
        worst.observe(&EvaluatedText { line, ..TEXT }, &[0, 1], &given);
    }

    #[test]
    fn the_most_confident_are_kept_in_order() {
        let mut worst = WorstMistakes::default();
        // 0, 7, 14, ... modulo 101: all numbers below 101 in a mixed order.
        (0..101).for_each(|line| observe(&mut worst, line, (line * 7 % 101) as f32 / 101.0));
        let scores: Vec<f32> = worst.mistakes().iter().map(|mistake| mistake.score).collect();
        let wanted: Vec<f32> = (81..101).rev().map(|score| score as f32 / 101.0).collect();
        assert_eq!(scores, wanted);
    }

    #[test]
    fn of_equal_scores_the_first_stay() {
        let mut worst = WorstMistakes::default();
        (0..50).for_each(|line| observe(&mut worst, line, 1.0));
        let lines: Vec<u64> = worst.mistakes().iter().map(|mistake| mistake.text.line).collect();
        assert_eq!(lines, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_long_text_is_kept_by_its_start() {
        let text = |text: &str| KeptText::of(&EvaluatedText { file: &"a", line: 1, text }).text;
        assert_eq!(text(" é\n"), "é");
        assert_eq!(text(&"é".repeat(200)), "é".repeat(200));
        assert_eq!(text(&"é".repeat(201)), format!("{}…", "é".repeat(200)));
    }
}
