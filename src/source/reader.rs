//! The reading thread: files one after another, each record passed on as soon as its last byte is there.

use super::decoding;
use super::inputs::{Input, ReadOptions};
use super::record::{Draft, Schema};
use super::windows::Part;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::Arc;
use std::thread;

/// One read of a file; also about how much text a message holds.
const READ_BYTES: usize = 64 * 1024;

/// Messages that may wait for the classifier. Reading is far faster: a few keep it busy, and memory stays flat.
pub(super) const MESSAGES_AHEAD: usize = 4;

/// The longest record of CSV, TSV or JSON, in bytes: a quote that is never closed must not fill the memory.
pub(super) const MAX_RECORD_BYTES: usize = 64 << 20;

pub(super) const TOO_LONG: &str = "it is longer than 64 MiB";

/// Turns a stream that is fed piece by piece into records. One implementation per format.
pub(super) trait RecordReader {
    /// Adds the records that `bytes` completes.
    ///
    /// # Errors
    /// If the fields asked for do not exist at all.
    fn feed(&mut self, bytes: &[u8], records: &mut Vec<Draft>) -> Result<()>;

    /// Adds the last record, if nothing has ended it.
    ///
    /// # Errors
    /// As [`RecordReader::feed`].
    fn finish(&mut self, records: &mut Vec<Draft>) -> Result<()>;

    /// What the records carry to the output, once the stream has shown it.
    fn schema(&self) -> Option<Schema>;
}

/// What the reading thread says. If it dies, it says nothing of an end, so that this is not taken for one.
pub(super) enum Message {
    /// Records of one file that arrived together, and the bytes read for them.
    Records { part: Part, bytes: u64 },
    /// The last message.
    End(Result<()>),
}

type Stream = Box<dyn Read + Send>;

/// Starts the reading thread.
///
/// # Errors
/// If the first file cannot be opened.
pub(super) fn start(files: Vec<Input>, options: ReadOptions, sender: SyncSender<Message>) -> Result<()> {
    let first = files.first().map(open).transpose()?;
    thread::Builder::new()
        .name("reader".into())
        .spawn(move || read_files(files, first, &options, &sender))
        .context("cannot start the reading thread")?;
    Ok(())
}

fn open(input: &Input) -> Result<Stream> {
    match input {
        Input::Arguments => Ok(Box::new(io::empty())),
        Input::Stdin => Ok(Box::new(io::stdin())),
        Input::File(path) => match File::open(path) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) => Err(error).with_context(|| format!("cannot open {}", path.display())),
        },
    }
}

/// Ends early if the receiver is gone: nobody wants the rest.
fn read_files(files: Vec<Input>, mut first: Option<Stream>, options: &ReadOptions, sender: &SyncSender<Message>) {
    for input in files {
        let input = Arc::new(input);
        let stream = first.take().map_or_else(|| open(&input), Ok);
        let mut emit = |part, bytes| sender.send(Message::Records { part, bytes }).is_ok();
        let read = stream.and_then(|stream| {
            let mut reader = options.reader(&input);
            read_records(stream, &input, &mut *reader, &mut emit).with_context(|| format!("cannot read {input}"))
        });
        match read {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                let _ = sender.send(Message::End(Err(error)));
                return;
            }
        }
    }
    let _ = sender.send(Message::End(Ok(())));
}

/// Reads all records, and gives those that one read completes to `emit` at once, until `emit` returns `false`.
/// Returns whether it came to the end.
pub(super) fn read_records(
    stream: impl Read + Send,
    input: &Arc<Input>,
    reader: &mut dyn RecordReader,
    emit: &mut dyn FnMut(Part, u64) -> bool,
) -> Result<bool> {
    let bytes_read = Arc::new(AtomicU64::new(0));
    let mut stream = decoding::decoded(Counted { stream, bytes: bytes_read.clone() })?;
    let mut buffer = vec![0; READ_BYTES];
    let mut schema: Option<Arc<Schema>> = None;
    loop {
        let length = match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            length => length,
        };
        let mut drafts = Vec::new();
        let outcome = match &length {
            Ok(0) => reader.finish(&mut drafts),
            Ok(length) => reader.feed(&buffer[..*length], &mut drafts),
            Err(_) => Ok(()),
        };
        // Records that were whole before a fault are passed on first.
        let is_first = schema.is_none();
        schema = schema.or_else(|| reader.schema().map(Arc::new));
        let is_wanted = match &schema {
            Some(schema) if is_first || !drafts.is_empty() => {
                let records = drafts.into_iter().map(|draft| draft.from(input)).collect();
                emit(Part { schema: schema.clone(), records }, bytes_read.swap(0, Ordering::Relaxed))
            }
            _ => true,
        };
        outcome?;
        if length? == 0 || !is_wanted {
            return Ok(is_wanted);
        }
    }
}

/// Counts what is read of a file, for the progress bar.
struct Counted<R> {
    stream: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
