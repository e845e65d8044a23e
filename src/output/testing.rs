//! What the tests of the formats have in common.

use super::{RecordOptions, Row};
use crate::decision::{Decider, DecisionOptions, Unsure};
use crate::explanation::{words, Explanation, Span};
use crate::prediction::{Extent, Prediction, Problem, ScoredLabel};
use crate::source::{Content, Input, Kept, Origin, Record, Schema};
use crate::tokenization::windows::TextRange;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

pub(super) fn decider(labels: &[&str], top_k: usize, min_score: Option<f32>) -> Decider {
    let labels: Vec<String> = labels.iter().map(|label| label.to_string()).collect();
    let unsure = min_score.map(|min_score| Unsure { min_score, name: "?".into() });
    let options = DecisionOptions { top_k: NonZeroUsize::new(top_k), unsure, ..DecisionOptions::default() };
    Decider::new(&labels, Problem::SingleLabel, options).unwrap()
}

pub(super) fn decider_for(problem: Problem, labels: &[&str], top_k: usize) -> Decider {
    let labels: Vec<String> = labels.iter().map(|label| label.to_string()).collect();
    let options = DecisionOptions { top_k: NonZeroUsize::new(top_k), ..DecisionOptions::default() };
    Decider::new(&labels, problem, options).unwrap()
}

pub(super) fn prediction(ranking: &[(usize, f32)]) -> Prediction {
    let ranking = ranking.iter().map(|&(label_id, score)| ScoredLabel { label_id, score, logit: score }).collect();
    Prediction { ranking, extent: Extent::Whole }
}

pub(super) fn record(text: &str, kept: Kept) -> Record {
    let origin = Origin { input: Arc::new(Input::File("a.txt".into())), line: 7 };
    Record { content: Content::of_text(text.to_owned()), origin, gold: None, kept, was_invalid_utf8: false }
}

pub(super) fn malformed(reason: &str) -> Record {
    Record { content: Content::Malformed(reason.to_owned()), ..record("", Kept::default()) }
}

/// What these values explain, one for each word of `text`.
pub(super) fn explanation(text: &str, label_id: usize, values: &[f32]) -> Explanation {
    let words: Vec<_> = words(text).collect();
    assert_eq!(words.len(), values.len(), "{text:?}");
    let span = |(bytes, &value): (Range<usize>, &f32)| {
        let chars = text[..bytes.start].chars().count()..text[..bytes.end].chars().count();
        Span { range: TextRange { bytes, chars }, value }
    };
    Explanation { label_id, spans: words.into_iter().zip(values).map(span).collect() }
}

/// A record with its prediction and explanations.
pub(super) type Explained = (Record, Option<Prediction>, Vec<Explanation>);

/// A record of `text` whose labels are explained by these values of its words.
pub(super) fn explained(text: &str, prediction: Prediction, values: &[(usize, &[f32])]) -> Explained {
    let explanations = values.iter().map(|(label_id, values)| explanation(text, *label_id, values)).collect();
    (record(text, Kept::default()), Some(prediction), explanations)
}

/// The whole output for these records.
pub(super) fn written_explained(options: &RecordOptions, decider: &Decider, cases: &[Explained]) -> String {
    let mut out = Vec::new();
    let mut format = options.writer(decider).unwrap();
    format.begin(&mut out, &Schema::Columns(Vec::new()), true).unwrap();
    for (record, prediction, explanations) in cases {
        let mut decision = prediction.as_ref().map(|prediction| decider.decide(prediction));
        if let Some(decision) = &mut decision {
            decision.explanations.clone_from(explanations);
        }
        format.record(&mut out, Row { record, decision: decision.as_ref() }).unwrap();
    }
    format.end(&mut out).unwrap();
    String::from_utf8(out).unwrap()
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
