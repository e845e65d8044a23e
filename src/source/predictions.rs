//! The labels of an earlier run, from its JSON Lines: one record after the other, so memory does not grow with them.

use anyhow::{bail, Context, Result};
use serde::Deserialize;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// The records of an earlier run, in order.
pub struct Predictions {
    path: PathBuf,
    lines: BufReader<File>,
    line: u64,
    buffer: String,
}

/// What an earlier run said of one text.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
pub struct EarlierRecord {
    /// The label, `None` for a blank or malformed text and for one without a label.
    pub label: Option<String>,
    /// The id of the label; `None` also if the label is a name for a score that was too low.
    pub label_id: Option<usize>,
    /// The text, if the run wrote it.
    pub text: Option<String>,
}

impl Predictions {
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path) -> Result<Predictions> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Predictions { path: path.to_owned(), lines: BufReader::new(file), line: 0, buffer: String::new() })
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is no record of one label. The message names file and line.
    pub fn next_record(&mut self) -> Result<Option<EarlierRecord>> {
        self.buffer.clear();
        let read = self.lines.read_line(&mut self.buffer);
        if read.with_context(|| format!("cannot read {}", self.path.display()))? == 0 {
            return Ok(None);
        }
        self.line += 1;
        let place = format!("{}, line {}", self.path.display(), self.line);
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&self.buffer).with_context(|| format!("{place}: it is not a JSON object"))?;
        if !object.contains_key("label_id") || !object.contains_key("label") {
            bail!("{place}: it has no \"label_id\" and \"label\", as records of one label have");
        }
        let record = serde_json::from_value(object.into());
        record.map(Some).with_context(|| format!("{place}: its label is not that of a record"))
    }

    /// The file and the line of the last record.
    pub fn place(&self) -> String {
        format!("{}, line {}", self.path.display(), self.line)
    }
}
