//! Predictions to records, a file a format, each generic over [`io::Write`].

mod bars;
mod csv;
pub mod file;
mod jsonl;
mod tsv;

use crate::prediction::{Prediction, ScoredLabel};
use crate::source::Kept;
use std::borrow::Cow;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;

/// What records look like.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordOptions {
    /// Their form.
    pub format: RecordFormat,
    /// Whether a line with the names of the columns comes first, in TSV and CSV.
    pub header: bool,
    /// What stands in place of a class whose score is low.
    pub unsure: Option<Unsure>,
}

/// What a record looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordFormat {
    /// `id<TAB>label`, with the score where asked; with `top_k` the three repeated, best first.
    Tsv {
        /// Add the score to the best class.
        scores: bool,
        /// How many classes, all with scores.
        top_k: Option<NonZeroUsize>,
    },
    /// `id,label,score`; with `top_k` the three repeated, best first.
    Csv {
        /// How many classes.
        top_k: Option<NonZeroUsize>,
    },
    /// One JSON object.
    Jsonl {
        /// How many classes `scores` lists.
        top_k: Option<NonZeroUsize>,
        /// Add the text.
        with_text: bool,
    },
    /// For eyes: each of the K best classes with its score as a bar.
    Bars {
        /// How many classes.
        top_k: NonZeroUsize,
        /// Use colour.
        colour: bool,
    },
}

/// What stands in place of a class whose score is low: no id, and this name.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsure {
    /// Scores from here on are kept.
    pub min_score: f32,
    /// The label of the others; may be empty.
    pub name: String,
}

impl RecordFormat {
    /// What to show where standard output is a terminal: `--top-k` as bars, all else as it is.
    pub fn for_terminal(self, colour: bool) -> RecordFormat {
        match self {
            RecordFormat::Tsv { top_k: Some(top_k), .. } => RecordFormat::Bars { top_k, colour },
            other => other,
        }
    }
}

/// What one record tells.
#[derive(Debug, Clone, Copy, Default)]
pub struct Row<'a> {
    /// The text.
    pub text: &'a str,
    /// What the model says; `None` for a text that is empty or only white space, and for a malformed record.
    pub prediction: Option<&'a Prediction>,
    /// Why the record could not be read.
    pub malformed: Option<&'a str>,
    /// Fields of the input that are carried through.
    pub kept: Option<&'a Kept>,
}

/// One class as it is written.
struct Answer<'a> {
    /// `None` where the score is too low.
    label_id: Option<usize>,
    label: &'a str,
    score: f32,
}

/// The classes in id order, and what stands for those with too low a score.
struct Classes {
    labels: Vec<String>,
    unsure: Option<Unsure>,
}

impl Classes {
    fn answer(&self, scored: ScoredLabel) -> Answer<'_> {
        Answer { label_id: Some(scored.label_id), label: &self.labels[scored.label_id], score: scored.score }
    }

    /// The best class, or what stands for it.
    fn best(&self, prediction: &Prediction) -> Answer<'_> {
        let best = prediction.best();
        match &self.unsure {
            Some(unsure) if best.score < unsure.min_score => {
                Answer { label_id: None, label: &unsure.name, score: best.score }
            }
            _ => self.answer(best),
        }
    }

    /// The `top_k` best classes, or all where there are fewer, the first as [`Classes::best`] gives it.
    fn top<'a>(&'a self, prediction: &'a Prediction, top_k: usize) -> impl Iterator<Item = Answer<'a>> {
        let rest = prediction.ranking.iter().take(top_k).skip(1).map(|&scored| self.answer(scored));
        std::iter::once(self.best(prediction)).chain(rest)
    }
}

/// Writes records of one format.
pub struct RecordWriter<W: Write> {
    out: W,
    options: RecordOptions,
    classes: Classes,
    kept_names: Arc<[String]>,
}

impl<W: Write> RecordWriter<W> {
    /// `labels` are the classes in id order.
    pub fn new(out: W, options: RecordOptions, labels: &[String]) -> RecordWriter<W> {
        let classes = Classes { labels: labels.to_vec(), unsure: options.unsure.clone() };
        RecordWriter { out, options, classes, kept_names: Arc::from([]) }
    }

    /// Says which fields of the input each record carries, and writes the header where the format has one and
    /// `is_first`: where nothing has been written before.
    ///
    /// # Errors
    /// Where the output fails.
    pub fn begin(&mut self, kept_names: Arc<[String]>, is_first: bool) -> io::Result<()> {
        self.kept_names = kept_names;
        if !self.options.header || !is_first {
            return Ok(());
        }
        let Some((scores, class_count)) = self.shape() else { return Ok(()) };
        let columns = columns(&self.kept_names, scores, class_count);
        match self.options.format {
            RecordFormat::Csv { .. } => csv::write_header(&mut self.out, &columns),
            _ => tsv::write_header(&mut self.out, &columns),
        }
    }

    /// Names of the fields that each record carries.
    pub fn kept_names(&self) -> &[String] {
        &self.kept_names
    }

    /// Whether all records must carry the same fields, because they are rows of one table.
    pub fn is_table(&self) -> bool {
        self.shape().is_some()
    }

    /// Of a table: whether it has scores, and how many classes a row names.
    fn shape(&self) -> Option<(bool, usize)> {
        let class_count = |top_k: Option<NonZeroUsize>| top_k.map_or(1, |k| k.get().min(self.classes.labels.len()));
        match self.options.format {
            RecordFormat::Tsv { scores, top_k } => Some((scores || top_k.is_some(), class_count(top_k))),
            RecordFormat::Csv { top_k } => Some((true, class_count(top_k))),
            RecordFormat::Jsonl { .. } | RecordFormat::Bars { .. } => None,
        }
    }

    /// One record. Without a prediction its fields are empty.
    ///
    /// # Errors
    /// Where the output fails.
    pub fn write(&mut self, row: Row<'_>) -> io::Result<()> {
        let (scores, class_count) = self.shape().unwrap_or_default();
        let (out, classes, kept) = (&mut self.out, &self.classes, self.kept_names.len());
        match self.options.format {
            RecordFormat::Tsv { .. } => tsv::write(out, classes, kept, scores, class_count, row),
            RecordFormat::Csv { .. } => csv::write(out, classes, kept, class_count, row),
            RecordFormat::Jsonl { top_k, with_text } => {
                jsonl::write(out, classes, top_k.map(NonZeroUsize::get), with_text, row)
            }
            RecordFormat::Bars { top_k, colour } => {
                bars::write(out, &classes.labels, top_k.get(), colour, row.text, row.prediction)
            }
        }
    }

    /// Hands everything written so far on.
    ///
    /// # Errors
    /// Where the output fails.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Names of the columns of a table: the input's, then those of the best class, then `label_id_2` and so on.
fn columns(kept_names: &[String], scores: bool, class_count: usize) -> Vec<String> {
    let own = (1..=class_count).flat_map(|place| {
        let names = &PREDICTION_NAMES[..if scores { 3 } else { 2 }];
        names.iter().map(move |name| if place == 1 { (*name).to_owned() } else { format!("{name}_{place}") })
    });
    let own: Vec<String> = own.collect();
    let is_own = |name: &str| own.iter().any(|own| own == name);
    kept_names.iter().map(|name| input_name(name, kept_names, is_own).into_owned()).chain(own.clone()).collect()
}

/// What a prediction is written under.
const PREDICTION_NAMES: [&str; 3] = ["label_id", "label", "score"];

/// The name under which a field of the input is carried through: its own, with `input_` before it where the prediction
/// is written under that name. `others` are the input's names, which the new name must differ from.
fn input_name<'a>(name: &'a str, others: &[String], is_reserved: impl Fn(&str) -> bool) -> Cow<'a, str> {
    let mut name = Cow::Borrowed(name);
    while is_reserved(&name) || matches!(name, Cow::Owned(_)) && others.iter().any(|other| *other == name) {
        name = Cow::Owned(format!("input_{name}"));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_the_input_never_hide_the_prediction() {
        let names = ["id", "label", "input_label", "label_id_2", "labels"].map(String::from);
        assert_eq!(
            columns(&names, true, 2),
            "id input_input_label input_label input_label_id_2 labels label_id label score label_id_2 label_2 score_2"
                .split(' ')
                .collect::<Vec<_>>()
        );
        assert_eq!(columns(&[], false, 1), ["label_id", "label"]);
    }
}
