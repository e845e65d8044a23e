//! Decisions to records, one file per format behind one trait, [`RecordFormat`]; and files that are written whole or
//! not at all, in [`mod@file`].

mod bars;
mod count;
pub mod file;
mod jsonl;
mod marked;
mod only;
mod page;
mod table;
mod terminal;
#[cfg(test)]
mod testing;
mod words;

pub use only::UnknownLabel;
pub use terminal::TerminalStyle;

use crate::decision::{Decider, Decision, DecisionError};
use crate::prediction::{Extent, Problem};
use crate::source::{Record, Schema};
use crate::tokenization::windows::TextRange;
use std::borrow::Cow;
use std::io::{self, Write};

/// What records look like.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordOptions {
    /// Their form.
    pub format: Format,
    /// Whether a line with the names of the columns comes first, in TSV and CSV.
    pub header: bool,
    /// Which parts of a record are written beside the label.
    pub columns: Columns,
}

/// The form of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// Tab-separated values: id and label, and the score if asked for.
    Tsv,
    /// Comma-separated values: id, label and score.
    Csv,
    /// One JSON object per line.
    Jsonl,
    /// For a person at a terminal: the best classes with their scores as bars.
    Bars(TerminalStyle),
    /// For a person at a terminal: each text with the words that hold up its labels marked.
    Marked {
        /// What the terminal can show.
        style: TerminalStyle,
        /// How many of the marked words are listed with their values.
        listed: usize,
    },
    /// The same as an HTML page, which loads and runs nothing.
    Page {
        /// The command line that made it.
        command: String,
        /// How many of the marked words are listed with their values.
        listed: usize,
    },
    /// The texts that got one of these labels, named as on the command line; ended by NUL bytes if `null`.
    Only {
        /// Labels or their ids.
        labels: Vec<String>,
        /// Whether a NUL byte ends a text, rather than a line break.
        null: bool,
    },
    /// How many texts got each label.
    Count,
}

/// The optional parts of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Columns {
    /// The name of the input.
    pub filename: bool,
    /// The line in the input.
    pub line_number: bool,
    /// The range of characters that a record of one window is about.
    pub window: bool,
    /// The score of the label. CSV and JSON always have it.
    pub score: bool,
    /// Nor do CSV and JSON have a score: it would be of one arithmetic for some texts, of another for the rest.
    pub without_score: bool,
    /// The text.
    pub text: bool,
    /// The second text of a pair.
    pub text_pair: bool,
    /// The words that hold up the label.
    pub words: bool,
}

/// What one record is made of.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The record of the input.
    pub record: &'a Record,
    /// `None` for a blank or malformed record.
    pub decision: Option<&'a Decision<'a>>,
}

impl Row<'_> {
    /// The window that the record is about, if it is not about the whole text.
    fn window(&self) -> Option<&TextRange> {
        match &self.decision?.extent {
            Extent::Window(range) => Some(range),
            Extent::Whole | Extent::Truncated | Extent::Pooled(_) => None,
        }
    }

    /// The text, or the window's part of it.
    fn text(&self) -> &str {
        let text = self.record.content.text();
        self.window().map_or(text, |range| &text[range.bytes.clone()])
    }
}

/// Writes records in one format.
pub trait RecordFormat {
    /// Learns what the next records carry, before the first record of each file; writes the header the first time
    /// if `is_start` says that nothing has been written before.
    ///
    /// # Errors
    /// If the output fails.
    fn begin(&mut self, out: &mut dyn Write, schema: &Schema, is_start: bool) -> io::Result<()>;

    /// Writes one record.
    ///
    /// # Errors
    /// If the output fails.
    fn record(&mut self, out: &mut dyn Write, row: Row<'_>) -> io::Result<()>;

    /// Writes what comes after the last record.
    ///
    /// # Errors
    /// If the output fails.
    fn end(&mut self, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }

    /// Whether records that carry other fields than those before can follow them.
    fn takes_any_schema(&self) -> bool {
        true
    }
}

impl RecordOptions {
    /// The writer of this format for the labels and options of `decider`.
    ///
    /// # Errors
    /// [`UnknownLabel`] if a label that is to be looked for does not exist; [`DecisionError::NoLabels`] if labels are to be
    /// looked for or counted, but the checkpoint gives values.
    pub fn writer(&self, decider: &Decider) -> anyhow::Result<Box<dyn RecordFormat>> {
        let is_by_label = matches!(self.format, Format::Only { .. } | Format::Count);
        if is_by_label && decider.problem() == Problem::Value {
            return Err(DecisionError::NoLabels.into());
        }
        Ok(match &self.format {
            Format::Tsv => Box::new(table::Table::new(table::Dialect::Tsv, self, decider)),
            Format::Csv => Box::new(table::Table::new(table::Dialect::Csv, self, decider)),
            Format::Jsonl => Box::new(jsonl::Jsonl::new(self.columns, decider)),
            Format::Bars(style) => Box::new(bars::Bars::new(*style)),
            Format::Marked { style, listed } => Box::new(marked::Marked::new(*style, *listed)),
            Format::Page { command, listed } => Box::new(page::Page::new(command.clone(), *listed, self.columns)),
            Format::Only { labels, null } => Box::new(only::Only::new(labels, *null, self.columns, decider.labels())?),
            Format::Count => Box::new(count::Count::new(decider)),
        })
    }
}

/// The name under which a field of the input is written: its own, or with `input_` before it if the record has a field
/// of that name of its own. `others` are the input's names, from which the new name must differ.
fn input_name<'a>(name: &'a str, others: &[&str], is_reserved: impl Fn(&str) -> bool) -> Cow<'a, str> {
    let mut name = Cow::Borrowed(name);
    while is_reserved(&name) || matches!(name, Cow::Owned(_)) && others.iter().any(|other| *other == name) {
        name = Cow::Owned(format!("input_{name}"));
    }
    name
}
