//! Writes records to their destination, and continues what an interrupted run has left.

use super::stdout::print;
use crate::checkpoint::hub::digest::hex;
use crate::decision::Decision;
use crate::options::Destination;
use crate::output::file::{Reached, ResumableFile, ResumeError, Run};
use crate::output::{RecordFormat, Row};
use crate::source::{Content, FieldValue, Kept, Part, Record, Schema, Window};
use anyhow::{bail, Result};
use ring::digest::{Context, SHA256};
use std::path::Path;
use std::sync::Arc;

const TO_MEMORY: &str = "writing to a vector does not fail";

/// Where records go, open but without a format.
pub(super) enum Output {
    Stdout,
    File(Box<ResumableFile>),
    Nowhere,
}

impl Output {
    /// # Errors
    /// As [`ResumableFile::open`].
    pub(super) fn open(destination: &Destination) -> Result<Output> {
        Ok(match destination {
            Destination::Stdout => Output::Stdout,
            Destination::File { path, resume } => Output::File(Box::new(ResumableFile::open(path, *resume)?)),
            Destination::Nowhere => Output::Nowhere,
        })
    }

    /// The file under the name that it has until it is whole.
    pub(super) fn partial(&self) -> Option<&Path> {
        match self {
            Output::File(file) => Some(file.partial()),
            Output::Stdout | Output::Nowhere => None,
        }
    }
}

/// Writes records in one format to one destination.
pub(super) struct RecordWriter {
    output: Output,
    format: Box<dyn RecordFormat>,
    run: Run,
    /// What the records so far carry; `None` before the first.
    schema: Option<Arc<Schema>>,
    /// Records of the input so far.
    position: u64,
    digest: Digest,
    /// What the classifier that wrote the records of an interrupted run had learned from them.
    memory: Option<serde_json::Value>,
    /// A window's records, which go to the destination together.
    buffer: Vec<u8>,
}

impl RecordWriter {
    /// # Errors
    /// As [`ResumableFile::begin`].
    pub(super) fn new(mut output: Output, format: Box<dyn RecordFormat>, run: Run) -> Result<RecordWriter> {
        if let Output::File(file) = &mut output {
            file.begin(&run)?;
        }
        let memory = match &output {
            Output::File(file) => file.reached().memory.clone(),
            Output::Stdout | Output::Nowhere => None,
        };
        Ok(RecordWriter {
            output,
            format,
            run,
            schema: None,
            position: 0,
            digest: Digest::default(),
            memory,
            buffer: Vec::new(),
        })
    }

    /// What the classifier that wrote the records of an interrupted run had learned from them, if it was kept.
    pub(super) fn memory(&self) -> Option<&serde_json::Value> {
        self.memory.as_ref()
    }

    /// How many of the window's first records an interrupted run has written; they are not classified again.
    ///
    /// # Errors
    /// [`ResumeError::InputChanged`] if they are not the records that were classified then.
    pub(super) fn already_written(&mut self, window: &Window) -> Result<usize> {
        let Output::File(file) = &self.output else { return Ok(0) };
        let reached = file.reached().clone();
        let count = reached.records.saturating_sub(self.position).min(window.len() as u64);
        if count == 0 || self.position >= reached.records {
            return Ok(0);
        }
        window.records().take(count as usize).for_each(|record| self.digest.update(record));
        self.position += count;
        if self.position == reached.records && self.digest.to_hex() != reached.digest {
            bail!(file.input_changed(&self.run));
        }
        Ok(count as usize)
    }

    /// Writes the window's records, one for each of their decisions, and flushes: whoever waits for them has them before the
    /// next read. `memory` is what the classifier has learned by the end of the window.
    ///
    /// # Errors
    /// If the output fails, or a table would get rows with different columns. What came before is written.
    pub(super) fn write(
        &mut self,
        window: &Window,
        decisions: &[Vec<Decision<'_>>],
        memory: Option<serde_json::Value>,
    ) -> Result<()> {
        let mut decisions = decisions.iter();
        for part in &window.parts {
            if let Err(error) = self.begin(part) {
                self.commit(None)?;
                return Err(error);
            }
            for record in &part.records {
                let decisions = decisions.next().expect("there is an entry for each record");
                // A blank or malformed record has none, and one record all the same.
                let blank = decisions.is_empty().then_some(None);
                for decision in decisions.iter().map(Some).chain(blank) {
                    self.format.record(&mut self.buffer, Row { record, decision }).expect(TO_MEMORY);
                }
                self.position += 1;
                // Nobody resumes what has gone down a pipe.
                if matches!(self.output, Output::File(_)) {
                    self.digest.update(record);
                }
            }
        }
        self.commit(memory)
    }

    /// Writes some of the records of the only text in the window, before [`RecordWriter::write`] writes the last. In a
    /// file they count with that one only.
    ///
    /// # Errors
    /// As [`RecordWriter::write`].
    pub(super) fn write_ahead(&mut self, window: &Window, decisions: Vec<Decision<'_>>) -> Result<()> {
        for part in &window.parts {
            self.begin(part)?;
            for record in &part.records {
                for decision in &decisions {
                    self.format.record(&mut self.buffer, Row { record, decision: Some(decision) }).expect(TO_MEMORY);
                }
            }
        }
        match self.output {
            Output::File(_) => Ok(()),
            Output::Stdout | Output::Nowhere => self.commit(None),
        }
    }

    fn begin(&mut self, part: &Part) -> Result<()> {
        if self.schema.as_ref().is_some_and(|schema| Arc::ptr_eq(schema, &part.schema)) {
            return Ok(());
        }
        if let (Some(before), Some(first), false) = (&self.schema, part.records.first(), self.format.takes_any_schema())
        {
            if !fit_one_table(before, &part.schema) {
                bail!(
                    "{}: the columns of this file are {:?}, those of the files before are {:?}: one table cannot hold both",
                    first.origin,
                    part.schema.names(),
                    before.names()
                );
            }
        }
        let is_resumed = matches!(&self.output, Output::File(file) if file.reached().records > 0);
        let is_start = self.schema.is_none() && self.position == 0 && !is_resumed;
        self.format.begin(&mut self.buffer, &part.schema, is_start).expect(TO_MEMORY);
        self.schema = Some(part.schema.clone());
        Ok(())
    }

    fn commit(&mut self, memory: Option<serde_json::Value>) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        match &mut self.output {
            Output::Stdout => print(&buffer)?,
            // A window of blank texts may have nothing to write, and counts all the same; one that was written before
            // does not.
            Output::File(file) if buffer.is_empty() && self.position <= file.reached().records => {}
            Output::File(file) => {
                let (records, digest) = (self.position, self.digest.to_hex());
                file.append(&buffer, Reached { records, digest, memory, ..Reached::default() })?
            }
            Output::Nowhere => {}
        }
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    /// Writes no more records: nobody reads them.
    pub(super) fn close(&mut self) {
        self.output = Output::Nowhere;
        self.buffer.clear();
    }

    /// Ends the output; a file gets its name.
    ///
    /// # Errors
    /// If the output fails, or the input has fewer records than an interrupted run had classified.
    pub(super) fn finish(mut self) -> Result<()> {
        if let Output::File(file) = &self.output {
            if file.reached().records > self.position {
                bail!(file.input_changed(&self.run));
            }
        }
        if self.schema.is_none() {
            let schema = Arc::new(Schema::Columns(Vec::new()));
            self.begin(&Part { schema, records: Vec::new() })?;
        }
        self.format.end(&mut self.buffer).expect(TO_MEMORY);
        self.commit(None)?;
        match self.output {
            Output::File(file) => file.publish(),
            Output::Stdout | Output::Nowhere => Ok(()),
        }
    }
}

fn fit_one_table(first: &Schema, other: &Schema) -> bool {
    // Whatever the files call the field that the user chose, it is the same one.
    matches!((first, other), (Schema::Chosen(_), Schema::Chosen(_))) || first.names() == other.names()
}

/// Identifies a sequence of records: SHA-256 over what is classified and what is copied.
struct Digest(Context);

impl Default for Digest {
    fn default() -> Self {
        Digest(Context::new(&SHA256))
    }
}

impl Digest {
    fn update(&mut self, record: &Record) {
        match &record.content {
            Content::Text(text) | Content::Blank(text) => self.field(b't', text),
            Content::Pair(text, text_pair) => {
                self.field(b't', text);
                self.field(b'p', text_pair);
            }
            Content::Malformed(_) => self.field(b'm', ""),
        }
        match &record.kept {
            Kept::Row(values) => values.iter().for_each(|value| self.value(value)),
            Kept::Object(fields) => fields.iter().for_each(|(name, value)| {
                self.field(b'n', name);
                self.value(value);
            }),
        }
    }

    fn value(&mut self, value: &FieldValue) {
        match value {
            FieldValue::Text(value) | FieldValue::Tsv(value) | FieldValue::Json(value) => self.field(b'v', value),
        }
    }

    /// With its length, so that no two sequences of fields are the same bytes.
    fn field(&mut self, kind: u8, text: &str) {
        self.0.update(&[kind]);
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    fn to_hex(&self) -> String {
        hex(&self.0.clone().finish())
    }
}

/// Tells records written before a failure from those of an unfinished file, for advice on how to go on.
pub(super) fn is_resumable(error: &anyhow::Error) -> bool {
    !error.chain().any(|cause| cause.is::<ResumeError>())
}
