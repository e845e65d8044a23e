//! What to read: arguments, standard input or files, and in which format.

use super::csv::CsvRows;
use super::fields::FieldSelection;
use super::json::JsonReader;
use super::lines::{LineReader, Separator};
use super::reader::RecordReader;
use super::table::TableReader;
use super::tsv::TsvRows;
use std::fmt;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

/// What to classify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inputs {
    /// Each string is one text, line breaks included.
    Texts(Vec<String>),
    /// Every record of each of them.
    Files(Vec<Input>),
}

/// Where records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The arguments of the command line, or the texts that a library user passes.
    Arguments,
    /// Standard input.
    Stdin,
    /// A file, by its path.
    File(PathBuf),
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Arguments => f.write_str("arguments"),
            Input::Stdin => f.write_str("standard input"),
            Input::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Inputs::Texts(_) => write!(f, "{}", Input::Arguments),
            Inputs::Files(files) => f.write_str(&files.iter().map(Input::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}

impl Inputs {
    /// The files to read; none if the texts are arguments.
    pub fn files(&self) -> &[Input] {
        match self {
            Inputs::Texts(_) => &[],
            Inputs::Files(files) => files,
        }
    }

    /// Whether a person types the texts.
    pub fn is_terminal(&self) -> bool {
        self.files().contains(&Input::Stdin) && io::stdin().is_terminal()
    }

    /// The number of bytes to read, if every input is a regular file.
    pub fn total_bytes(&self) -> Option<u64> {
        let Inputs::Files(files) = self else { return None };
        let size = |file: &Input| match file {
            Input::File(path) => path.metadata().ok().filter(|file| file.is_file()).map(|file| file.len()),
            Input::Stdin | Input::Arguments => None,
        };
        files.iter().map(size).sum()
    }
}

/// How the records of a file are separated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputFormat {
    /// One text per line, or per NUL-terminated string.
    Lines,
    /// Comma-separated values (RFC 4180).
    Csv,
    /// Tab-separated values, without quoting.
    Tsv,
    /// One JSON object per line.
    Jsonl,
    /// An array of JSON objects, or objects one after another.
    Json,
}

impl InputFormat {
    /// By the file's extension, after that of a compressed file is removed; lines for any other extension.
    pub fn of(input: &Input) -> InputFormat {
        let Input::File(path) = input else { return InputFormat::Lines };
        let extension = |path: &Path| path.extension().map(|extension| extension.to_ascii_lowercase());
        let is_packed = extension(path).is_some_and(|ending| ["gz", "zst"].iter().any(|packed| ending == *packed));
        let path = if is_packed { path.with_extension("") } else { path.clone() };
        match extension(&path).as_ref().and_then(|ending| ending.to_str()) {
            Some("csv") => InputFormat::Csv,
            Some("tsv") => InputFormat::Tsv,
            Some("jsonl" | "ndjson") => InputFormat::Jsonl,
            Some("json") => InputFormat::Json,
            _ => InputFormat::Lines,
        }
    }
}

/// How files are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOptions {
    /// The format of all files; `None` decides by extension.
    pub format: Option<InputFormat>,
    /// What ends a text in plain input.
    pub separator: Separator,
    /// Whether each text of plain input is two, with a tab between them.
    pub pairs: bool,
    /// What separates the fields of a CSV; `None` is a comma, and a header that suggests another character is refused.
    pub delimiter: Option<u8>,
    /// Which fields of structured records are used.
    pub fields: FieldSelection,
}

impl Default for ReadOptions {
    fn default() -> Self {
        ReadOptions {
            format: None,
            separator: Separator::LineBreak,
            pairs: false,
            delimiter: None,
            fields: FieldSelection::default(),
        }
    }
}

impl ReadOptions {
    /// The format in which `input` is read.
    pub fn format_of(&self, input: &Input) -> InputFormat {
        self.format.unwrap_or_else(|| InputFormat::of(input))
    }

    pub(super) fn reader(&self, input: &Input) -> Box<dyn RecordReader> {
        let fields = self.fields.clone();
        match self.format_of(input) {
            InputFormat::Lines => Box::new(LineReader::new(self.separator, self.pairs)),
            InputFormat::Csv => Box::new(TableReader::new(CsvRows::new(self.delimiter), fields)),
            InputFormat::Tsv => Box::new(TableReader::new(TsvRows::new(), fields)),
            InputFormat::Jsonl => Box::new(JsonReader::lines(fields)),
            InputFormat::Json => Box::new(JsonReader::values(fields)),
        }
    }
}
