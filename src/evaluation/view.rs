//! The metrics prepared for display: the only place that defines their names, keys and formats.
//!
//! A [`View`] has the same few parts for every kind of evaluation: single figures, tables of figures, the confusion
//! matrix and the bins of the reliability diagram. `text`, JSON, SVG and HTML each define the look of a part,
//! independent of its content.

use super::against::{Comparison, McNemar};
use super::precision::MinScore;
use super::reliability::Bin;
use super::shares::{LabelScores, PerLabel, Share};
use super::worst::{KeptText, Mistake};
use super::{classes, label_sets, values, LeftOutCounts, Metrics};
pub(super) use crate::theme::plain;

/// Shown for an undefined figure.
const UNDEFINED: &str = "–";
/// With more classes than this there is no full matrix: it would be millions of zeros.
const MATRIX_CLASSES: usize = 1000;

/// Everything in a report about the metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The model's labels in id order, as in the checkpoint; [`View::name`] prepares them for display.
    pub labels: Vec<String>,
    /// Single figures, most important first.
    pub figures: Vec<Figure>,
    /// Precision, recall and F1 of each label.
    pub labels_table: Option<Table>,
    /// The mistakes that occur, most frequent first.
    pub mistakes: Option<Table>,
    /// Counts by gold and predicted class. `None` also above 1000 classes.
    pub matrix: Option<Matrix>,
    /// The bins of the reliability diagram.
    pub bins: Option<Vec<Bin>>,
    /// The most confident mistakes, most confident first.
    pub worst: Vec<Mistake>,
    /// The comparison with another run.
    pub against: Option<Comparison>,
}

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Its name in JSON.
    pub key: &'static str,
    /// Its name for people, in lower case.
    pub name: &'static str,
    /// The figure.
    pub value: Value,
    /// `false` if it repeats another figure here (such as the coverage if every text got an answer): it is written for
    /// programs, but not shown to people.
    pub is_telling: bool,
}

/// A figure, or a cell of a table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A label, by its id.
    Label(usize),
    /// A count.
    Count(u64),
    /// From 0 to 1; shown in percent.
    Share(Option<f64>),
    /// A share with its interval.
    Estimate(Option<Share>),
    /// Any other number.
    Number(Option<f64>),
    /// Numbers of records by reason.
    LeftOut(LeftOutCounts),
    /// A score to ask for, with all its digits, so that it includes the text that has it. `None`: there is none.
    MinScore(Option<f32>),
}

/// A table of figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its name in JSON.
    pub key: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// Key and name of each column.
    pub columns: &'static [(&'static str, &'static str)],
    /// A value for each column.
    pub rows: Vec<Vec<Value>>,
    /// Summary rows at the bottom: key, name, and a value for each column but the first.
    pub averages: Vec<(&'static str, &'static str, Vec<Value>)>,
}

/// The confusion matrix, in id order.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Counts, indexed by gold label and predicted label.
    pub counts: Vec<Vec<u64>>,
    /// The F1 of each class.
    pub f1: Vec<Value>,
}

const LABEL_COLUMNS: &[(&str, &str)] = &[
    ("label", "label"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("f1", "F1"),
    ("support", "support"),
    ("predicted", "predicted"),
];
const MISTAKE_COLUMNS: &[(&str, &str)] = &[("gold", "gold"), ("predicted", "predicted"), ("count", "texts")];
const BIN_COLUMNS: &[(&str, &str)] = &[
    ("low", "score above"),
    ("high", "up to"),
    ("count", "texts"),
    ("mean_score", "mean score"),
    ("accuracy", "accuracy"),
];

impl View {
    pub(super) fn new(metrics: &Metrics, labels: &[String], left_out: LeftOutCounts) -> View {
        let mut view = match metrics {
            Metrics::Classes(metrics) => of_classes(metrics, labels.len()),
            Metrics::LabelSets(metrics) => of_label_sets(metrics),
            Metrics::Values(metrics) => of_values(metrics),
        };
        view.labels = labels.to_vec();
        view.figures.push(figure("evaluated", "texts evaluated", Value::Count(metrics.evaluated())));
        let is_telling = left_out.total() > 0;
        let left_out = figure("left_out", "records left out", Value::LeftOut(left_out));
        view.figures.push(Figure { is_telling, ..left_out });
        view
    }

    /// Only the names of the labels.
    pub(super) fn of_labels(labels: &[String]) -> View {
        View { labels: labels.to_vec(), ..View::empty() }
    }

    /// Adds what to ask for to get a precision.
    pub(super) fn add_min_score(&mut self, found: MinScore) {
        let is_found = found.min_score.is_some();
        let and_then = |key, name, value| Figure { is_telling: is_found, ..figure(key, name, value) };
        self.figures.extend([
            figure("target_precision", "wished precision", Value::Share(Some(found.target))),
            figure("min_score", "minimum score for it", Value::MinScore(found.min_score)),
            and_then("min_score_coverage", "coverage with it", Value::Share(found.coverage)),
            and_then("min_score_precision", "precision with it", Value::Estimate(found.precision)),
        ]);
    }

    /// The figures shown to people.
    pub fn telling_figures(&self) -> impl Iterator<Item = &Figure> {
        self.figures.iter().filter(|figure| figure.is_telling)
    }

    /// A label's name without characters that could control a terminal or are not allowed in markup: it comes from a
    /// checkpoint.
    pub fn name(&self, id: usize) -> String {
        plain(&self.labels[id])
    }

    /// The names of some labels, `–` if there are none.
    pub fn names(&self, ids: &[usize]) -> String {
        match ids {
            [] => UNDEFINED.to_owned(),
            ids => ids.iter().map(|&id| self.name(id)).collect::<Vec<_>>().join(", "),
        }
    }

    /// A value to be read.
    pub fn written(&self, value: &Value) -> String {
        match *value {
            Value::Label(id) => self.name(id),
            Value::Count(count) => count.to_string(),
            Value::Share(share) => share.map_or(UNDEFINED.to_owned(), percent),
            Value::Estimate(share) => self.written(&Value::Share(share.map(|share| share.value))),
            Value::Number(number) => number.map_or(UNDEFINED.to_owned(), |number| format!("{number:.4}")),
            Value::LeftOut(counts) => counts.total().to_string(),
            Value::MinScore(score) => score.map_or(UNDEFINED.to_owned(), |score| score.to_string()),
        }
    }

    /// The bins of the reliability diagram as a table.
    pub fn bins_table(&self) -> Option<Table> {
        let row = |bin: &Bin| {
            let shares = [Some(bin.low), Some(bin.high), bin.mean_score, bin.accuracy].map(Value::Share);
            let [low, high, mean_score, accuracy] = shares;
            vec![low, high, Value::Count(bin.count), mean_score, accuracy]
        };
        let rows = self.bins.as_ref()?.iter().map(row).collect();
        Some(Table {
            key: "calibration_bins",
            name: "Calibration by top score",
            columns: BIN_COLUMNS,
            rows,
            averages: vec![],
        })
    }
}

impl Value {
    /// Details of a figure: its interval or its reasons. Empty if there are none.
    pub fn detail(&self) -> String {
        match self {
            Value::Estimate(Some(share)) => format!("95 % interval {:.2}–{}", share.low * 100.0, percent(share.high)),
            Value::LeftOut(counts) => {
                let named = counts.reasons().into_iter().filter(|(_, _, count)| *count > 0);
                named.map(|(_, reason, count)| format!("{count} {reason}")).collect::<Vec<_>>().join(", ")
            }
            Value::MinScore(None) => "no score reaches it on these texts".to_owned(),
            _ => String::new(),
        }
    }
}

impl LeftOutCounts {
    /// Key, description and number of each reason.
    pub fn reasons(&self) -> [(&'static str, &'static str, u64); 4] {
        [
            ("blank_text", "blank", self.blank_text),
            ("malformed_record", "malformed", self.malformed_record),
            ("no_gold_label", "without a gold label", self.no_gold_label),
            ("unknown_gold_label", "with an unknown gold label", self.unknown_gold_label),
        ]
    }
}

impl Comparison {
    /// Key, name and value of each number of texts.
    pub fn counts(&self) -> [(&'static str, &'static str, u64); 5] {
        [
            ("both_right", "both right", self.agreement.both_right),
            ("only_this_right", "only this run right", self.agreement.only_this),
            ("only_other_right", "only the other right", self.agreement.only_other),
            ("both_wrong", "both wrong", self.agreement.both_wrong),
            ("labels_differ", "labels differ", self.differing),
        ]
    }

    /// The outcome of McNemar's test in words.
    pub fn test(&self) -> String {
        let McNemar { p_value, chi_square } = self.agreement.mcnemar();
        let p_value = if p_value < 0.0001 { "p < 0.0001".to_owned() } else { format!("p = {p_value:.4}") };
        match chi_square {
            Some(chi_square) => format!("{p_value} (chi-square {chi_square:.2}, with continuity correction)"),
            None => format!("{p_value} (exact)"),
        }
    }

    /// What the other run is called, on one line.
    pub fn name(&self) -> String {
        plain(&self.other)
    }
}

impl KeptText {
    /// Where the text stands, on one line.
    pub fn place(&self) -> String {
        plain(&format!("{}:{}", self.file, self.line))
    }

    /// Its start on one line.
    pub fn start(&self) -> String {
        plain(&self.text)
    }
}

impl Matrix {
    /// The number of texts with a gold label.
    pub fn support(&self, gold: usize) -> u64 {
        self.counts[gold].iter().sum()
    }

    /// A cell's share of the gold label's texts; 0 if there are none.
    pub fn share(&self, gold: usize, predicted: usize) -> f64 {
        self.counts[gold][predicted] as f64 / self.support(gold).max(1) as f64
    }
}

fn of_classes(metrics: &classes::Metrics, labels: usize) -> View {
    let per_class = &metrics.per_class;
    let is_selective = metrics.coverage.is_some_and(|coverage| coverage < 1.0);
    let selective = |key, name, value| Figure { is_telling: is_selective, ..figure(key, name, value) };
    let f1 = |id: usize| Value::Share(per_class.scores.get(id).map(|scores| scores.f1));
    let mistake = |(gold, predicted, count)| vec![Value::Label(gold), Value::Label(predicted), Value::Count(count)];
    let reliability = metrics.reliability.as_ref();
    let expected_error = reliability.and_then(|reliability| reliability.expected_error);
    View {
        labels: Vec::new(),
        figures: vec![
            figure("accuracy", "accuracy", Value::Estimate(metrics.accuracy)),
            selective("coverage", "coverage", Value::Share(metrics.coverage)),
            selective("selective_accuracy", "selective accuracy", Value::Estimate(metrics.selective_accuracy)),
            figure("macro_f1", "macro F1", Value::Share(per_class.macro_average.map(|average| average.f1))),
            figure("log_loss", "log loss", Value::Number(metrics.log_loss)),
            figure("expected_calibration_error", "expected calibration error", Value::Share(expected_error)),
        ],
        labels_table: Some(labels_table(per_class, false)),
        mistakes: Some(Table {
            key: "mistakes",
            name: "Most frequent mistakes",
            columns: MISTAKE_COLUMNS,
            rows: metrics.confusion.mistakes().into_iter().map(mistake).collect(),
            averages: vec![],
        }),
        matrix: (labels <= MATRIX_CLASSES)
            .then(|| Matrix { counts: full_matrix(&metrics.confusion, labels), f1: (0..labels).map(f1).collect() }),
        bins: reliability.map(|reliability| reliability.bins.clone()),
        worst: Vec::new(),
        against: None,
    }
}

fn full_matrix(confusion: &classes::ConfusionMatrix, labels: usize) -> Vec<Vec<u64>> {
    let mut counts = vec![vec![0; labels]; labels];
    confusion.cells().for_each(|(gold, predicted, count)| counts[gold][predicted] = count);
    counts
}

fn of_label_sets(metrics: &label_sets::Metrics) -> View {
    let per_label = &metrics.per_label;
    let f1 = |average: Option<LabelScores>| Value::Share(average.map(|average| average.f1));
    View {
        figures: vec![
            figure("micro_f1", "micro F1", f1(per_label.micro_average)),
            figure("macro_f1", "macro F1", f1(per_label.macro_average)),
            figure("subset_accuracy", "subset accuracy", Value::Estimate(metrics.subset_accuracy)),
            figure("hamming_loss", "Hamming loss", Value::Number(metrics.hamming_loss)),
        ],
        labels_table: Some(labels_table(per_label, true)),
        ..View::empty()
    }
}

fn of_values(metrics: &values::Metrics) -> View {
    let figures = vec![
        figure("pearson", "Pearson correlation", Value::Number(metrics.pearson)),
        figure("spearman", "Spearman correlation", Value::Number(metrics.spearman)),
        figure("mean_squared_error", "mean squared error", Value::Number(metrics.mean_squared_error)),
    ];
    View { figures, ..View::empty() }
}

impl View {
    fn empty() -> View {
        View {
            labels: vec![],
            figures: vec![],
            labels_table: None,
            mistakes: None,
            matrix: None,
            bins: None,
            worst: vec![],
            against: None,
        }
    }
}

pub(super) fn figure(key: &'static str, name: &'static str, value: Value) -> Figure {
    Figure { key, name, value, is_telling: true }
}

fn labels_table(per_label: &PerLabel, with_micro: bool) -> Table {
    let scores = |scores: Option<LabelScores>| {
        let shares = scores.map_or([None; 3], |s| [Some(s.precision), Some(s.recall), Some(s.f1)]);
        shares.map(Value::Share).to_vec()
    };
    let row = |(id, counts): (usize, &super::shares::LabelCounts)| {
        let figures = scores(per_label.scores.get(id).copied());
        let counts = [counts.support, counts.predicted].map(Value::Count);
        [vec![Value::Label(id)], figures, counts.to_vec()].concat()
    };
    let sums = |of: fn(&super::shares::LabelCounts) -> u64| Value::Count(per_label.counts.iter().map(of).sum());
    let average = |key, name, average| {
        (key, name, [scores(average), vec![sums(|counts| counts.support), sums(|counts| counts.predicted)]].concat())
    };
    let micro = with_micro.then(|| average("micro_average", "micro average", per_label.micro_average));
    Table {
        key: "classes",
        name: if with_micro { "Labels" } else { "Classes" },
        columns: LABEL_COLUMNS,
        rows: per_label.counts.iter().enumerate().map(row).collect(),
        averages: micro
            .into_iter()
            .chain([average("macro_average", "macro average", per_label.macro_average)])
            .collect(),
    }
}

/// A share as `93.10 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_steer_the_terminal_or_break_markup() {
        assert_eq!(plain("a\x1b[2Jb\nc\0\u{ffff}\u{85}é\u{202e}f\u{202c}"), "a�[2Jb c���é�f\u{202c}");
    }

    #[test]
    fn figures_that_repeat_others_are_for_programs_only() {
        let names = |view: &View| view.telling_figures().map(|figure| figure.key).collect::<Vec<_>>();
        let mut evaluation = crate::evaluation::Evaluation::of_classes(
            &["a".to_owned(), "b".to_owned()],
            0,
            crate::checkpoint::config::ScoreFunction::Softmax,
        );
        let prediction = crate::prediction::Prediction::from_logits(
            &[1.0, 0.0],
            crate::checkpoint::config::ScoreFunction::Softmax,
            crate::prediction::Extent::Whole,
        );
        evaluation.observe(crate::evaluation::worst::TEXT, "a", &prediction, &[0]).unwrap();
        assert!(!names(&evaluation.view()).contains(&"coverage"));
        assert!(!names(&evaluation.view()).contains(&"left_out"));
        evaluation.observe(crate::evaluation::worst::TEXT, "a", &prediction, &[]).unwrap();
        evaluation.leave_out(crate::evaluation::LeftOut::BlankText);
        let view = evaluation.view();
        assert_eq!(view.figures[1].key, "coverage");
        assert_eq!(view.written(&view.figures[1].value), "50.00 %");
        assert!(names(&view).contains(&"selective_accuracy") && names(&view).contains(&"left_out"));
        assert_eq!(view.figures.last().unwrap().value.detail(), "1 blank");
    }
}
