//! Records in the portions that go through the classifier together.

use super::inputs::{Input, Inputs, ReadOptions};
use super::reader::{self, Message};
use super::record::{Draft, Record, Schema, Text};
use anyhow::{anyhow, Result};
use std::collections::VecDeque;
use std::sync::mpsc::{sync_channel, Receiver, TryRecvError};
use std::sync::Arc;

/// How much goes through the classifier together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits {
    /// Records in the first window. Each further one may hold twice as many, so that the first answers come at once
    /// and later windows are large enough to keep all cores busy.
    pub first_records: usize,
    /// Records in any window.
    pub max_records: usize,
    /// Bytes of text; the record that reaches them is the last.
    pub max_bytes: usize,
    /// Whether to wait until a window is full, instead of giving what has arrived. Windows then depend on the input
    /// alone, not on timing.
    pub waits: bool,
}

impl Default for WindowLimits {
    fn default() -> Self {
        WindowLimits { first_records: 16, max_records: 2048, max_bytes: 4 << 20, waits: false }
    }
}

/// A text of as many bytes has some hundred windows of the models' usual length.
const LONG_BYTES: usize = 256 << 10;

/// Records that go through the classifier together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// In the order of the input.
    pub parts: Vec<Part>,
    /// Bytes read for them, as they are in the file.
    pub bytes: u64,
}

/// Consecutive records of one file. A file without records has an empty part, which still tells its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What the records carry to the output; one allocation per file.
    pub schema: Arc<Schema>,
    /// In the order of the input.
    pub records: Vec<Record>,
}

impl Window {
    /// All records, in order.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.parts.iter().flat_map(|part| &part.records)
    }

    /// All records, in order, to change them.
    pub fn records_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.parts.iter_mut().flat_map(|part| &mut part.records)
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.records.len()).sum()
    }

    /// Whether there is no record; a schema may be told all the same.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the last record out if its text is long and there are others: what a long text takes, these need not wait for.
    pub fn split_long(&mut self) -> Option<Window> {
        let part = self.parts.last()?;
        let is_long = part.records.last()?.content.text().len() >= LONG_BYTES;
        if !is_long || self.len() == 1 {
            return None;
        }
        let part = self.parts.last_mut()?;
        let last = part.records.split_off(part.records.len() - 1);
        Some(Window { parts: vec![Part { schema: part.schema.clone(), records: last }], bytes: 0 })
    }

    /// Keeps the first `count` records.
    pub fn truncate(&mut self, mut count: usize) {
        for part in &mut self.parts {
            part.records.truncate(count);
            count -= part.records.len();
        }
    }

    /// Drops the first `count` records.
    pub fn drop_first(&mut self, mut count: usize) {
        for part in &mut self.parts {
            let dropped = count.min(part.records.len());
            part.records.drain(..dropped);
            count -= dropped;
        }
    }
}

/// Records as they arrive, in order.
pub struct Source {
    messages: Receiver<Message>,
    limits: WindowLimits,
    /// Records that the next window may hold.
    next_records: usize,
    waiting: VecDeque<Part>,
    /// Bytes read but not told yet.
    bytes: u64,
    end: Option<Result<()>>,
}

impl Source {
    /// Starts reading in a thread of its own. The first file is opened here, so that a wrong name is an error before
    /// a model is loaded.
    ///
    /// # Errors
    /// If the first file cannot be opened. A later one that cannot is an error of [`Source::next_window`] at its turn.
    pub fn open(inputs: Inputs, options: ReadOptions, limits: WindowLimits) -> Result<Source> {
        let (sender, messages) = sync_channel(reader::MESSAGES_AHEAD);
        let mut source = Source::of_messages(messages, limits);
        match inputs {
            Inputs::Texts(texts) => {
                source.waiting.push_back(part_of_arguments(texts));
                source.end = Some(Ok(()));
            }
            Inputs::Files(files) => reader::start(files, options, sender)?,
        }
        Ok(source)
    }

    pub(super) fn of_messages(messages: Receiver<Message>, limits: WindowLimits) -> Source {
        let next_records = limits.first_records.clamp(1, limits.max_records);
        Source { messages, limits, next_records, waiting: VecDeque::new(), bytes: 0, end: None }
    }

    /// The next records, at least one unless only a schema is left to tell; `None` at the end.
    ///
    /// # Errors
    /// If a file cannot be opened or read. All records before the fault have been given.
    pub fn next_window(&mut self) -> Result<Option<Window>> {
        let mut fitting = self.fitting();
        while !fitting.is_full && self.receive() {
            fitting = self.fitting();
        }
        if !self.waiting.is_empty() {
            return Ok(Some(self.take(fitting.records)));
        }
        match self.end.replace(Ok(())) {
            Some(Err(error)) => Err(error),
            _ => Ok(None),
        }
    }

    /// Takes in one message; `false` if there is none to wait for, or no wish to wait.
    fn receive(&mut self) -> bool {
        if self.end.is_some() {
            return false;
        }
        let has_records = self.waiting.iter().any(|part| !part.records.is_empty());
        let message = match self.limits.waits || !has_records {
            true => self.messages.recv().map_err(|_| TryRecvError::Disconnected),
            false => self.messages.try_recv(),
        };
        match message {
            Ok(Message::Records { part, bytes }) => {
                self.bytes += bytes;
                self.push(part);
            }
            Ok(Message::End(end)) => self.end = Some(end),
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => {
                self.end = Some(Err(anyhow!("the reading thread failed: please report this, with the input")));
            }
        }
        true
    }

    fn push(&mut self, part: Part) {
        match self.waiting.back_mut() {
            Some(last) if Arc::ptr_eq(&last.schema, &part.schema) => last.records.extend(part.records),
            _ => self.waiting.push_back(part),
        }
    }

    fn fitting(&self) -> Fitting {
        let (mut records, mut bytes) = (0, 0);
        for record in self.waiting.iter().flat_map(|part| &part.records) {
            records += 1;
            bytes += record.content.text().len();
            if records >= self.next_records || bytes >= self.limits.max_bytes {
                return Fitting { records, is_full: true };
            }
        }
        Fitting { records, is_full: false }
    }

    fn take(&mut self, mut records: usize) -> Window {
        let mut window = Window { parts: Vec::new(), bytes: std::mem::take(&mut self.bytes) };
        while let Some(mut part) = self.waiting.pop_front() {
            let rest = part.records.split_off(records.min(part.records.len()));
            records -= part.records.len();
            if !rest.is_empty() {
                self.waiting.push_front(Part { schema: part.schema.clone(), records: rest });
                window.parts.extend((!part.records.is_empty()).then_some(part));
                break;
            }
            window.parts.push(part);
        }
        self.next_records = (2 * self.next_records).min(self.limits.max_records);
        window
    }
}

/// How many of the waiting records the next window holds.
struct Fitting {
    records: usize,
    is_full: bool,
}

fn part_of_arguments(texts: Vec<String>) -> Part {
    let input = Arc::new(Input::Arguments);
    let draft = |(line, text)| Draft::text(line, Text { text, was_invalid_utf8: false }).from(&input);
    Part { schema: Arc::new(Schema::Columns(Vec::new())), records: (1..).zip(texts).map(draft).collect() }
}
