//! Predictions to records on standard output, a file a format, each generic over [`io::Write`].

mod bars;
mod jsonl;
mod tsv;

use crate::prediction::Prediction;
use std::io::{self, Write};
use std::num::NonZeroUsize;

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

impl RecordFormat {
    /// What to show where standard output is a terminal: `--top-k` as bars, all else as it is.
    pub fn for_terminal(self, colour: bool) -> RecordFormat {
        match self {
            RecordFormat::Tsv { top_k: Some(top_k), .. } => RecordFormat::Bars { top_k, colour },
            other => other,
        }
    }
}

/// Writes records of one format.
pub struct RecordWriter<W: Write> {
    out: W,
    format: RecordFormat,
    labels: Vec<String>,
}

impl<W: Write> RecordWriter<W> {
    /// `labels` are the classes in id order.
    pub fn new(out: W, format: RecordFormat, labels: &[String]) -> RecordWriter<W> {
        RecordWriter { out, format, labels: labels.to_vec() }
    }

    /// One record; a text that is empty or only white space has no prediction, and a record with empty fields.
    ///
    /// # Errors
    /// Where the output fails.
    pub fn write(&mut self, text: &str, prediction: Option<&Prediction>) -> io::Result<()> {
        let (out, labels) = (&mut self.out, self.labels.as_slice());
        match self.format {
            RecordFormat::Tsv { scores, top_k: None } => tsv::write_best(out, labels, scores, prediction),
            RecordFormat::Tsv { top_k: Some(k), .. } => tsv::write_top_k(out, labels, k.get(), prediction),
            RecordFormat::Jsonl { top_k, with_text } => {
                jsonl::write(out, labels, top_k.map(NonZeroUsize::get), with_text.then_some(text), prediction)
            }
            RecordFormat::Bars { top_k, colour } => bars::write(out, labels, top_k.get(), colour, text, prediction),
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
