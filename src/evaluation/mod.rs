//! Evaluation: compares predictions to gold labels in one streaming pass. Pure; only the caller writes files.
//!
//! [`Evaluation`] takes each record's gold label and prediction. There is one kind for each thing that a model can say
//! of a text, with its own sums and figures: one class ([`classes`]), a set of labels ([`label_sets`]), a number
//! ([`values`]). [`view`] gives every figure its name and its written form, once; `text` prints that view for a
//! terminal, and [`report`] renders it as JSON, SVG and HTML. [`gold`] reads gold labels, and [`worst`] keeps the most
//! confident mistakes; [`against`] compares with another run, and [`arithmetic`] two dtypes. [`calibration`] makes
//! scores mean what they say, and [`precision`] finds the score to ask for.

pub mod against;
pub mod arithmetic;
pub mod calibration;
pub mod classes;
pub mod gold;
pub mod label_sets;
pub mod precision;
pub mod reliability;
pub mod report;
pub mod sample;
pub mod shares;
mod text;
pub mod values;
pub mod view;
pub mod worst;

use crate::checkpoint::config::ScoreFunction;
use crate::prediction::{Prediction, ScoredLabel};
use against::Comparison;
use gold::{GoldLabels, UnknownGold};
use sample::Sample;
use std::fmt;
use view::View;
use worst::{EvaluatedText, WorstMistakes};

/// Why a record is left out, if the caller knows. [`Evaluation::observe`] finds the other reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// Its text is empty or white space: nothing was predicted.
    BlankText,
    /// It could not be read.
    MalformedRecord,
}

/// The gold ids seem to start at a different number, which would make all metrics wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherFirstLabelId {
    /// The number given by the user.
    pub given: i64,
    /// The number at which they seem to start.
    pub likely: i64,
}

impl fmt::Display for OtherFirstLabelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the gold labels seem to be ids that start at {}, not {}", self.likely, self.given)
    }
}

impl std::error::Error for OtherFirstLabelId {}

/// Another run has given a label that this model does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownLabel(String);

impl fmt::Display for UnknownLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its label {:?} is not one of this model's", self.0)
    }
}

impl std::error::Error for UnknownLabel {}

/// Number of records left out, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOutCounts {
    /// See [`LeftOut::BlankText`].
    pub blank_text: u64,
    /// See [`LeftOut::MalformedRecord`].
    pub malformed_record: u64,
    /// The gold label is empty.
    pub no_gold_label: u64,
    /// The gold label is not one of the model's.
    pub unknown_gold_label: u64,
}

impl LeftOutCounts {
    /// The total.
    pub fn total(&self) -> u64 {
        self.blank_text + self.malformed_record + self.no_gold_label + self.unknown_gold_label
    }
}

/// Everything observed so far, from which the metrics are computed.
#[derive(Debug, Clone)]
pub struct Evaluation {
    labels: Vec<String>,
    kind: Kind,
    left_out: LeftOutCounts,
    worst: WorstMistakes,
    against: Option<Comparison>,
    sample: Option<Sample>,
    scores: Option<precision::Scores>,
}

#[derive(Debug, Clone)]
enum Kind {
    Classes(GoldLabels, classes::Sums),
    LabelSets(GoldLabels, label_sets::Sums),
    Values(values::Pairs),
}

/// The metrics, by kind of evaluation.
#[derive(Debug, Clone, PartialEq)]
pub enum Metrics {
    /// One class per text.
    Classes(classes::Metrics),
    /// A set of labels per text.
    LabelSets(label_sets::Metrics),
    /// A number per text.
    Values(values::Metrics),
}

impl Evaluation {
    /// For a model that assigns one of `labels` (in id order) to each text. Gold ids start at `first_label_id`.
    ///
    /// Memory grows with the number of distinct pairs of gold and predicted class, not with the number of texts.
    pub fn of_classes(labels: &[String], first_label_id: i64, score_function: ScoreFunction) -> Evaluation {
        let gold = GoldLabels::new(labels, first_label_id);
        Evaluation::new(labels, Kind::Classes(gold, classes::Sums::new(labels.len(), score_function)))
    }

    /// For a model that assigns any number of `labels` (in id order) to each text. Gold ids start at `first_label_id`.
    pub fn of_label_sets(labels: &[String], first_label_id: i64) -> Evaluation {
        let gold = GoldLabels::new(labels, first_label_id);
        Evaluation::new(labels, Kind::LabelSets(gold, label_sets::Sums::new(labels.len())))
    }

    /// For a model whose one output is a number. Rank correlation needs all values: memory grows by 16 bytes per text.
    pub fn of_values() -> Evaluation {
        Evaluation::new(&[], Kind::Values(values::Pairs::default()))
    }

    fn new(labels: &[String], kind: Kind) -> Evaluation {
        Evaluation {
            labels: labels.to_vec(),
            kind,
            left_out: LeftOutCounts::default(),
            worst: WorstMistakes::default(),
            against: None,
            sample: None,
            scores: None,
        }
    }

    /// Keeps logits and gold labels of the texts to come, for [`Evaluation::sample`].
    pub fn keep_sample(&mut self) {
        self.sample = Some(Sample::new(self.labels.len()));
    }

    /// The texts with known gold labels since [`Evaluation::keep_sample`].
    pub fn sample(&self) -> Option<&Sample> {
        self.sample.as_ref()
    }

    /// Keeps the best scores of the texts to come, and finds the lowest for this precision. For one class per text.
    pub fn seek_precision(&mut self, target: f64) {
        self.scores = Some(precision::Scores::new(target));
    }

    /// Compares one prediction to `gold`, the gold label as written in the data. A blank one is counted as left out.
    ///
    /// `decided` are the ids of the labels assigned to the text. With one class per text that is the best one, or
    /// nothing if its score was too low: accuracy still counts the best class, coverage and selective accuracy count
    /// what was decided. If the model has one output, the prediction's only score is the value, and `decided` is
    /// ignored.
    ///
    /// `text` is shown if it is among the most confident mistakes.
    ///
    /// # Errors
    /// If the model has no such label. The record is counted as left out for that reason; it is not malformed.
    pub fn observe(
        &mut self,
        text: EvaluatedText<'_>,
        gold: &str,
        prediction: &Prediction,
        decided: &[usize],
    ) -> Result<(), UnknownGold> {
        if gold.trim().is_empty() {
            self.left_out.no_gold_label += 1;
            return Ok(());
        }
        let outcome = match &mut self.kind {
            Kind::Classes(labels, sums) => labels.parse(gold).map(|gold| {
                let best = prediction.best();
                sums.observe(gold, prediction, !decided.is_empty());
                self.worst.observe(&text, &[gold], &[best]);
                self.sample.iter_mut().for_each(|sample| sample.push(prediction, &[gold]));
                self.scores.iter_mut().for_each(|scores| scores.observe(best.score, best.label_id == gold));
            }),
            Kind::LabelSets(labels, sums) => labels.parse_set(gold).map(|gold| {
                sums.observe(&gold, decided);
                self.sample.iter_mut().for_each(|sample| sample.push(prediction, &gold));
                let is_decided = |scored: &&ScoredLabel| decided.contains(&scored.label_id);
                let decided: Vec<ScoredLabel> = prediction.ranking.iter().filter(is_decided).copied().collect();
                self.worst.observe(&text, &gold, &decided);
            }),
            Kind::Values(pairs) => {
                gold::parse_value(gold).map(|gold| pairs.observe(gold, f64::from(prediction.best().score)))
            }
        };
        self.left_out.unknown_gold_label += u64::from(outcome.is_err());
        outcome
    }

    /// Compares with another run, which is called `name`; [`Evaluation::observe_other`] takes its labels. For one class per
    /// text.
    pub fn compare_with(&mut self, name: String) {
        self.against = Some(Comparison::new(name));
    }

    /// Takes the label that the other run gave to a text: `None` if it gave none, which is wrong. To be called for each
    /// text that [`Evaluation::observe`] takes; one without a known gold label is not compared.
    ///
    /// # Errors
    /// If the model has no such label.
    pub fn observe_other(
        &mut self,
        text: EvaluatedText<'_>,
        gold: &str,
        prediction: &Prediction,
        other: Option<&str>,
    ) -> Result<(), UnknownLabel> {
        let (Kind::Classes(labels, _), Some(against)) = (&self.kind, &mut self.against) else { return Ok(()) };
        let other = other.map(|label| labels.named(label).ok_or_else(|| UnknownLabel(label.to_owned()))).transpose()?;
        if let Some(gold) = labels.known(gold) {
            against.observe(&text, gold, prediction.best().label_id, other);
        }
        Ok(())
    }

    /// Checks a gold label without counting it.
    ///
    /// # Errors
    /// As for [`Evaluation::observe`].
    pub fn check(&mut self, gold: &str) -> Result<(), UnknownGold> {
        match &mut self.kind {
            _ if gold.trim().is_empty() => Ok(()),
            Kind::Classes(labels, _) => labels.parse(gold).map(drop),
            Kind::LabelSets(labels, _) => labels.parse_set(gold).map(drop),
            Kind::Values(_) => gold::parse_value(gold).map(drop),
        }
    }

    /// Counts one record that cannot be evaluated.
    pub fn leave_out(&mut self, why: LeftOut) {
        match why {
            LeftOut::BlankText => self.left_out.blank_text += 1,
            LeftOut::MalformedRecord => self.left_out.malformed_record += 1,
        }
    }

    /// Number of records left out so far.
    pub fn left_out(&self) -> LeftOutCounts {
        self.left_out
    }

    /// The number at which the gold ids seem to start, if it is not the given one: some ids are then unknown to the
    /// model, and all would be valid when starting at this number. Only 0 and 1 are considered.
    pub fn likely_first_label_id(&self) -> Option<i64> {
        match &self.kind {
            Kind::Classes(labels, _) | Kind::LabelSets(labels, _) => labels.likely_first_label_id(),
            Kind::Values(_) => None,
        }
    }

    /// The metrics so far.
    pub fn metrics(&self) -> Metrics {
        match &self.kind {
            Kind::Classes(_, sums) => Metrics::Classes(sums.metrics()),
            Kind::LabelSets(_, sums) => Metrics::LabelSets(sums.metrics()),
            Kind::Values(pairs) => Metrics::Values(pairs.metrics()),
        }
    }

    /// The metrics prepared for display.
    pub fn view(&self) -> View {
        let mut view = View::new(&self.metrics(), &self.labels, self.left_out);
        view.worst = self.worst.mistakes();
        view.against = self.against.clone();
        if let Some(scores) = &self.scores {
            view.add_min_score(scores.min_score());
        }
        view
    }
}

impl Metrics {
    /// Texts with both a prediction and a gold label.
    pub fn evaluated(&self) -> u64 {
        match self {
            Metrics::Classes(metrics) => metrics.evaluated,
            Metrics::LabelSets(metrics) => metrics.evaluated,
            Metrics::Values(metrics) => metrics.evaluated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::worst::TEXT;
    use crate::prediction::Extent;

    fn labels() -> Vec<String> {
        ["World", "Sports"].map(str::to_owned).to_vec()
    }

    fn prediction() -> Prediction {
        Prediction::from_logits(&[0.0, 2.0], ScoreFunction::Softmax, Extent::Whole)
    }

    #[test]
    fn what_cannot_be_compared_is_counted_by_reason() {
        let mut evaluation = Evaluation::of_classes(&labels(), 0, ScoreFunction::Softmax);
        evaluation.leave_out(LeftOut::BlankText);
        evaluation.leave_out(LeftOut::MalformedRecord);
        evaluation.observe(TEXT, " ", &prediction(), &[1]).unwrap();
        evaluation.observe(TEXT, "", &prediction(), &[1]).unwrap();
        assert!(evaluation.observe(TEXT, "Cooking", &prediction(), &[1]).is_err());
        evaluation.observe(TEXT, "sports", &prediction(), &[1]).unwrap();
        let expected = LeftOutCounts { blank_text: 1, malformed_record: 1, no_gold_label: 2, unknown_gold_label: 1 };
        assert_eq!((evaluation.left_out(), expected.total()), (expected, 5));
        assert_eq!(evaluation.metrics().evaluated(), 1);
    }

    #[test]
    fn each_kind_reads_its_own_gold() {
        let mut sets = Evaluation::of_label_sets(&labels(), 0);
        sets.observe(TEXT, "[\"world\", 1]", &prediction(), &[0, 1]).unwrap();
        let Metrics::LabelSets(metrics) = sets.metrics() else { panic!("label sets") };
        assert_eq!(metrics.subset_accuracy.unwrap().value, 1.0);

        let mut values = Evaluation::of_values();
        let one = Prediction {
            ranking: vec![crate::prediction::ScoredLabel { label_id: 0, score: 0.5, logit: 0.5 }],
            extent: Extent::Whole,
        };
        values.observe(TEXT, "1.5", &one, &[]).unwrap();
        assert!(values.observe(TEXT, "good", &one, &[]).unwrap_err().to_string().contains("not a number"));
        let Metrics::Values(metrics) = values.metrics() else { panic!("values") };
        assert_eq!((metrics.mean_squared_error, metrics.pearson), (Some(1.0), None));
    }
}
