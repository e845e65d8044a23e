//! What the tests of the formats have in common.

use super::{RecordOptions, Row};
use crate::decision::{Decider, DecisionOptions, Unsure};
use crate::prediction::{Extent, Prediction, Problem, ScoredLabel};
use crate::source::{Content, Input, Kept, Origin, Record, Schema};
use std::num::NonZeroUsize;
use std::sync::Arc;

pub(super) fn decider(labels: &[&str], top_k: usize, min_score: Option<f32>) -> Decider {
    let labels: Vec<String> = labels.iter().map(|label| label.to_string()).collect();
    let unsure = min_score.map(|min_score| Unsure { min_score, name: "?".into() });
    let options = DecisionOptions { top_k: NonZeroUsize::new(top_k), unsure, threshold: None };
    Decider::new(&labels, Problem::SingleLabel, options).unwrap()
}

pub(super) fn decider_for(problem: Problem, labels: &[&str], top_k: usize) -> Decider {
    let labels: Vec<String> = labels.iter().map(|label| label.to_string()).collect();
    let options = DecisionOptions { top_k: NonZeroUsize::new(top_k), ..DecisionOptions::default() };
    Decider::new(&labels, problem, options).unwrap()
}

pub(super) fn prediction(ranking: &[(usize, f32)]) -> Prediction {
    let ranking = ranking.iter().map(|&(label_id, score)| ScoredLabel { label_id, score }).collect();
    Prediction { ranking, extent: Extent::Whole }
}

pub(super) fn record(text: &str, kept: Kept) -> Record {
    let origin = Origin { input: Arc::new(Input::File("a.txt".into())), line: 7 };
    Record { content: Content::of_text(text.to_owned()), origin, gold: None, kept, was_invalid_utf8: false }
}

pub(super) fn malformed(reason: &str) -> Record {
    Record { content: Content::Malformed(reason.to_owned()), ..record("", Kept::default()) }
}

/// The whole output for these records.
pub(super) fn written(
    options: &RecordOptions,
    decider: &Decider,
    schema: &Schema,
    records: &[Record],
    predictions: &[Option<Prediction>],
) -> String {
    let mut out = Vec::new();
    let mut format = options.writer(decider).unwrap();
    format.begin(&mut out, schema, true).unwrap();
    for (record, prediction) in records.iter().zip(predictions) {
        let decision = prediction.as_ref().map(|prediction| decider.decide(prediction));
        format.record(&mut out, Row { record, decision: decision.as_ref() }).unwrap();
    }
    format.end(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}
