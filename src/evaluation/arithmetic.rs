//! The same texts in two dtypes: how many labels change, how much scores do, and how fast each is. Memory does not grow
//! with the number of texts.
//!
//! As JSON, one object with the `model`, `revision`, `data`, `dtype`, `command`, `date` and `agnews` of a report, and:
//!
//! | field | value |
//! |---|---|
//! | `dtypes` | the two; all arrays of two are in their order |
//! | `texts` | how many were classified in both |
//! | `texts_per_second` | with tokenization, without loading |
//! | `labels_changed` | texts with another label, or other labels; `null` for a number per text |
//! | `largest_score_change`, `mean_score_change` | of each text the largest change of the score of any label; over texts the largest and the mean |
//! | `figures` | with gold labels the figures of the report, an array of two for each; else `null` |
//! | `mcnemar` | with one gold label per text `p_value` and `chi_square`, as in the report; else `null` |
//! | `first_changes` | at most 20: `file`, `line`, `labels` (an array for each dtype), `text` |

use super::against::Comparison;
use super::report::{figures_as_json, About};
use super::text::side_by_side;
use super::view::{percent, Figure, View};
use super::worst::{EvaluatedText, KeptText};
use crate::prediction::{Prediction, Problem};
use serde_json::{json, Map, Value};
use std::fmt;
use std::time::Duration;

/// How many texts with changed labels are kept.
const KEPT: usize = 20;
/// How many of them are printed.
const PRINTED: usize = 5;

/// The comparison so far.
#[derive(Debug, Clone)]
pub struct DtypeComparison {
    dtypes: [String; 2],
    labels: Vec<String>,
    problem: Problem,
    texts: u64,
    /// The time that each took to classify them.
    times: [Duration; 2],
    changed: u64,
    largest: f64,
    /// Of each text's largest change.
    sum: f64,
    changes: Vec<Change>,
    /// The figures of both, if there are gold labels, and how often each is right.
    figures: Option<[Vec<Figure>; 2]>,
    against: Option<Comparison>,
}

/// A text with changed labels.
#[derive(Debug, Clone)]
struct Change {
    label_ids: [Vec<usize>; 2],
    text: KeptText,
}

impl DtypeComparison {
    /// `labels` are in id order.
    pub fn new(dtypes: [String; 2], labels: &[String], problem: Problem) -> DtypeComparison {
        DtypeComparison {
            dtypes,
            labels: labels.to_vec(),
            problem,
            texts: 0,
            times: [Duration::ZERO; 2],
            changed: 0,
            largest: 0.0,
            sum: 0.0,
            changes: Vec::new(),
            figures: None,
            against: None,
        }
    }

    /// Takes a text's predictions in both dtypes, and the ids of the labels that were decided.
    pub fn observe(&mut self, text: &EvaluatedText<'_>, predictions: [&Prediction; 2], label_ids: [Vec<usize>; 2]) {
        let mut scores = vec![0.0; predictions[0].ranking.len()];
        predictions[0].ranking.iter().for_each(|scored| scores[scored.label_id] = f64::from(scored.score));
        let changes =
            predictions[1].ranking.iter().map(|scored| (scores[scored.label_id] - f64::from(scored.score)).abs());
        let largest = changes.fold(0.0, f64::max);
        self.texts += 1;
        self.largest = self.largest.max(largest);
        self.sum += largest;
        let sorted = label_ids.clone().map(|mut ids| {
            ids.sort_unstable();
            ids
        });
        if sorted[0] != sorted[1] {
            self.changed += 1;
            if self.changes.len() < KEPT {
                self.changes.push(Change { label_ids, text: KeptText::of(text) });
            }
        }
    }

    /// Adds the time that texts took in each dtype.
    pub fn add_times(&mut self, times: [Duration; 2]) {
        self.times = [self.times[0] + times[0], self.times[1] + times[1]];
    }

    /// Takes the evaluations of both, the first of which has the comparison with the second.
    pub fn add_figures(&mut self, views: [View; 2]) {
        let [first, second] = views;
        self.against = first.against;
        self.figures = Some([first.figures, second.figures]);
    }

    /// The name of the second dtype.
    pub fn dtype(&self) -> &str {
        &self.dtypes[1]
    }

    /// The number of texts so far.
    pub fn texts(&self) -> u64 {
        self.texts
    }

    /// As JSON, with a line break at the end.
    pub fn to_json(&self, about: &About) -> String {
        let mut object: Map<String, Value> = about.as_json();
        let change = |Change { label_ids, text }: &Change| {
            let labels = label_ids.each_ref().map(|ids| ids.iter().map(|&id| &self.labels[id]).collect::<Vec<_>>());
            json!({ "file": text.file, "line": text.line, "labels": labels, "text": text.text })
        };
        let test = self.against.as_ref().map(|against| against.agreement.mcnemar());
        let fields = json!({
            "dtypes": self.dtypes,
            "texts": self.texts,
            "texts_per_second": self.speeds(),
            "labels_changed": (self.problem != Problem::Value).then_some(self.changed),
            "largest_score_change": self.largest,
            "mean_score_change": self.mean(),
            "figures": self.figures.as_ref().map(|figures| {
                let [first, mut second] = figures.each_ref().map(|figures| figures_as_json(figures));
                let pair = |(key, value)| (String::clone(&key), json!([value, second.remove(&key)]));
                first.into_iter().map(pair).collect::<Map<_, _>>()
            }),
            "mcnemar": test.map(|test| json!({ "p_value": test.p_value, "chi_square": test.chi_square })),
            "first_changes": self.changes.iter().map(change).collect::<Vec<_>>(),
        });
        let Value::Object(fields) = fields else { unreachable!("written as an object") };
        object.extend(fields);
        format!("{:#}\n", Value::Object(object))
    }

    fn speeds(&self) -> [f64; 2] {
        self.times.map(|time| self.texts as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE))
    }

    fn mean(&self) -> f64 {
        self.sum / self.texts.max(1) as f64
    }

    /// The figures that tell something of one of them.
    fn pairs(&self) -> impl Iterator<Item = [&Figure; 2]> {
        let figures = self.figures.iter().flat_map(|[first, second]| first.iter().zip(second));
        let figures = figures.filter(|(first, second)| first.is_telling || second.is_telling);
        let is_of_data = |key| ["evaluated", "left_out"].contains(&key);
        figures.filter(move |(first, _)| !is_of_data(first.key)).map(|(first, second)| [first, second])
    }
}

impl fmt::Display for DtypeComparison {
    /// Several lines, each ended.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = View::of_labels(&self.labels);
        let speeds = ("texts per second".to_owned(), self.speeds().map(|speed| format!("{speed:.1}")));
        let figures =
            self.pairs().map(|pair| (pair[0].name.to_owned(), pair.map(|figure| view.written(&figure.value))));
        let dtypes = self.dtypes.each_ref().map(String::as_str);
        side_by_side(f, dtypes, std::iter::once(speeds).chain(figures))?;
        writeln!(f)?;
        if self.problem != Problem::Value {
            let share = percent(self.changed as f64 / self.texts.max(1) as f64);
            writeln!(f, "labels changed        {} of {} ({share})", self.changed, self.texts)?;
        }
        writeln!(f, "largest score change  {:.6}", self.largest)?;
        writeln!(f, "mean score change     {:.6}", self.mean())?;
        if let Some(against) = &self.against {
            writeln!(f, "McNemar's test        {}", against.test())?;
        }
        if !self.changes.is_empty() {
            writeln!(f, "\nfirst texts with another label:")?;
        }
        for Change { label_ids, text } in self.changes.iter().take(PRINTED) {
            let [first, second] = label_ids.each_ref().map(|ids| view.names(ids));
            writeln!(f, "{}: {first} in {}, {second} in {}", text.place(), dtypes[0], dtypes[1])?;
            writeln!(f, "  {}", super::text::line(&text.start()))?;
        }
        Ok(())
    }
}
