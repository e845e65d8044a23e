//! Where texts come from: arguments, standard input, files; records of lines, CSV, TSV or JSON Lines, also compressed,
//! read ahead in a thread of its own.

mod compression;
mod csv;
mod fields;
mod jsonl;
mod lines;
mod table;
mod tsv;

pub use fields::{FieldSelection, FieldValue, Fields, Kept, KeptFields};
pub use lines::Separator;

use anyhow::{anyhow, Context, Result};
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender, TryRecvError};
use std::sync::Arc;
use std::thread;

/// One read of a file; also about how much text a chunk holds.
const READ_BYTES: usize = 64 * 1024;

/// Chunks that may wait for the classifier. Reading is far faster: a few keep it busy, and memory stays flat.
const CHUNKS_AHEAD: usize = 4;

/// Most bytes of one record of CSV, TSV or JSON Lines: a quote that is never closed must not swallow all memory.
const MAX_RECORD_BYTES: usize = 64 << 20;

const TOO_LONG: &str = "it is longer than 64 MiB";

/// What to classify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inputs {
    /// Each a text as it stands, line breaks and all.
    Texts(Vec<String>),
    /// Each line of each of them.
    Files(Vec<Input>),
}

/// A stream of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file by its path.
    File(PathBuf),
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Stdin => f.write_str("standard input"),
            Input::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Inputs {
    /// Whether a person types the texts.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Inputs::Files(files) if files.contains(&Input::Stdin)) && io::stdin().is_terminal()
    }

    /// Bytes to read in all, where every input is a regular file.
    pub fn total_bytes(&self) -> Option<u64> {
        let Inputs::Files(files) = self else { return None };
        files
            .iter()
            .map(|file| match file {
                Input::Stdin => None,
                Input::File(path) => {
                    path.metadata().ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len())
                }
            })
            .sum()
    }
}

/// How the records of a file are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputFormat {
    /// Each line, or what stands between NUL bytes, is a text.
    Lines,
    /// Comma-separated values, RFC 4180.
    Csv,
    /// Tab-separated values, without quoting.
    Tsv,
    /// A JSON object a line.
    Jsonl,
}

impl InputFormat {
    /// By the file's extension, that of a compressed file left aside; lines where it says nothing.
    pub fn of(input: &Input) -> InputFormat {
        let Input::File(path) = input else { return InputFormat::Lines };
        let extension = |path: &Path| path.extension().map(|extension| extension.to_ascii_lowercase());
        let is_packed = extension(path).is_some_and(|ending| ["gz", "zst"].iter().any(|packed| ending == *packed));
        let path = if is_packed { path.with_extension("") } else { path.clone() };
        match extension(&path).as_ref().and_then(|ending| ending.to_str()) {
            Some("csv") => InputFormat::Csv,
            Some("tsv") => InputFormat::Tsv,
            Some("jsonl" | "ndjson") => InputFormat::Jsonl,
            _ => InputFormat::Lines,
        }
    }
}

/// How files are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadOptions {
    /// The format of all of them; `None` is by extension.
    pub format: Option<InputFormat>,
    /// What ends a text of plain input.
    pub separator: Separator,
    /// Which fields of structured records are taken.
    pub fields: FieldSelection,
}

impl ReadOptions {
    /// The format in which `input` is read.
    pub fn format_of(&self, input: &Input) -> InputFormat {
        self.format.unwrap_or_else(|| InputFormat::of(input))
    }

    fn reader(&self, input: &Input) -> Box<dyn RecordReader> {
        let fields = self.fields.clone();
        match self.format_of(input) {
            InputFormat::Lines => Box::new(TextReader(lines::LineSplitter::new(self.separator, usize::MAX))),
            InputFormat::Csv => Box::new(csv::CsvReader::new(fields)),
            InputFormat::Tsv => Box::new(tsv::TsvReader::new(fields)),
            InputFormat::Jsonl => Box::new(jsonl::JsonlReader::new(fields)),
        }
    }
}

/// One text in its place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The text; what was no UTF-8 stands replaced by U+FFFD. Empty where the record is malformed.
    pub text: String,
    /// Whether anything was replaced.
    pub had_invalid_utf8: bool,
    /// Why the record cannot be read, as a clause about "it".
    pub malformed: Option<String>,
    /// Where the record begins.
    pub place: Place,
    /// What a structured record has beside its text.
    pub fields: Option<Box<Fields>>,
}

/// Where a record begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Which of the inputs, counted from 0.
    pub input: usize,
    /// Which of its lines, or of the arguments, counted from 1.
    pub line: u64,
}

impl Record {
    fn malformed(reason: impl Into<String>) -> Record {
        Record { malformed: Some(reason.into()), ..Record::default() }
    }

    fn at_line(mut self, line: u64) -> Record {
        self.place.line = line;
        self
    }
}

/// Decoded bytes.
struct Text {
    text: String,
    had_invalid_utf8: bool,
}

impl Text {
    fn from_bytes(bytes: &[u8]) -> Text {
        match std::str::from_utf8(bytes) {
            Ok(text) => Text { text: text.to_owned(), had_invalid_utf8: false },
            Err(_) => Text { text: String::from_utf8_lossy(bytes).into_owned(), had_invalid_utf8: true },
        }
    }

    fn join(&mut self, other: Text) {
        self.text.push(' ');
        self.text.push_str(&other.text);
        self.had_invalid_utf8 |= other.had_invalid_utf8;
    }
}

impl From<Text> for Record {
    fn from(text: Text) -> Record {
        Record { text: text.text, had_invalid_utf8: text.had_invalid_utf8, ..Record::default() }
    }
}

/// Makes records of a stream that is fed piece by piece: each as soon as its last byte is there.
trait RecordReader {
    /// Adds the records that `bytes` completes.
    ///
    /// # Errors
    /// Where the fields asked for are not there at all.
    fn feed(&mut self, bytes: &[u8], records: &mut Vec<Record>) -> Result<()>;

    /// Adds the last record, where nothing ends it.
    ///
    /// # Errors
    /// As [`RecordReader::feed`].
    fn finish(&mut self, records: &mut Vec<Record>) -> Result<()>;

    /// Names of the fields carried through, once they are known.
    fn kept_names(&self) -> Option<&Arc<[String]>> {
        None
    }
}

/// Plain input: each line a text.
struct TextReader(lines::LineSplitter);

impl RecordReader for TextReader {
    fn feed(&mut self, bytes: &[u8], records: &mut Vec<Record>) -> Result<()> {
        self.0.feed(bytes, &mut |line| records.push(Record::from(Text::from_bytes(line.bytes)).at_line(line.number)));
        Ok(())
    }

    fn finish(&mut self, records: &mut Vec<Record>) -> Result<()> {
        self.0.finish(&mut |line| records.push(Record::from(Text::from_bytes(line.bytes)).at_line(line.number)));
        Ok(())
    }
}

/// Records that arrived together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// In the order of the input.
    pub records: Vec<Record>,
    /// Bytes read for them, as they are in the file.
    pub bytes: u64,
    /// Names of the fields carried through, of the first file that tells them.
    pub kept_names: Option<Arc<[String]>>,
}

/// How much goes through the classifier together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits {
    /// Records at most.
    pub max_records: usize,
    /// Bytes of text; the record that reaches them is the last.
    pub max_bytes: usize,
    /// Whether to wait until the limits are reached, rather than to give what has arrived: windows then depend on the
    /// input alone, not on the moment.
    pub waits: bool,
}

/// Records as they arrive, in order.
pub struct Source {
    names: Vec<String>,
    messages: Receiver<Message>,
    waiting: VecDeque<Record>,
    /// Bytes read but not reported yet.
    bytes: u64,
    kept_names: Option<Arc<[String]>>,
    end: Option<Result<()>>,
}

/// What the reading thread says. A thread that dies says nothing of an end, and that is told from one.
enum Message {
    Chunk(Chunk),
    End(Result<()>),
}

impl Source {
    /// Starts reading. The first file is opened here, so that a wrong name is told before a model is loaded.
    ///
    /// # Errors
    /// Where the first file cannot be opened; later ones are told by [`Source::next_window`] when their turn comes.
    pub fn open(inputs: Inputs, options: ReadOptions) -> Result<Source> {
        let (sender, messages) = sync_channel(CHUNKS_AHEAD);
        let mut source =
            Source { names: Vec::new(), messages, waiting: VecDeque::new(), bytes: 0, kept_names: None, end: None };
        match inputs {
            Inputs::Texts(texts) => {
                let records =
                    (1..).zip(texts).map(|(number, text)| Record { text, ..Record::default() }.at_line(number));
                source.waiting = records.collect();
                source.end = Some(Ok(()));
            }
            Inputs::Files(files) => {
                source.names = files.iter().map(Input::to_string).collect();
                let first = files.first().map(open).transpose()?;
                thread::Builder::new()
                    .name("reader".into())
                    .spawn(move || read_files(&files, first, &options, &sender))
                    .context("cannot start the reading thread")?;
            }
        }
        Ok(source)
    }

    /// Names of the fields carried through, of the first file that tells them.
    pub fn kept_names(&self) -> Option<&Arc<[String]>> {
        self.kept_names.as_ref()
    }

    /// The place for a message: the file and the line.
    pub fn describe(&self, place: Place) -> String {
        match self.names.get(place.input) {
            Some(name) => format!("{name}, line {}", place.line),
            None => format!("text {}", place.line),
        }
    }

    /// The next records, as many as `limits` allow, at least one. `None` is the end.
    ///
    /// # Errors
    /// Where a file cannot be opened or read; all records before were given.
    pub fn next_window(&mut self, limits: WindowLimits) -> Result<Option<Chunk>> {
        loop {
            let fitting = limits.fitting(&self.waiting);
            if fitting.is_full || !self.receive(limits.waits) {
                return match (fitting.records, self.end.take_if(|_| fitting.records == 0)) {
                    (0, Some(Err(error))) => {
                        self.end = Some(Ok(()));
                        Err(error)
                    }
                    (0, _) => {
                        self.end = Some(Ok(()));
                        Ok(None)
                    }
                    (records, _) => Ok(Some(self.take(records))),
                };
            }
        }
    }

    /// Takes a message in; `false` where there is no use in waiting for one, or no wish to.
    fn receive(&mut self, waits: bool) -> bool {
        if self.end.is_some() {
            return false;
        }
        let message = match waits || self.waiting.is_empty() {
            true => self.messages.recv().map_err(|_| TryRecvError::Disconnected),
            false => self.messages.try_recv(),
        };
        match message {
            Ok(Message::Chunk(chunk)) => {
                self.waiting.extend(chunk.records);
                self.bytes += chunk.bytes;
                self.kept_names = self.kept_names.take().or(chunk.kept_names);
            }
            Ok(Message::End(end)) => self.end = Some(end),
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => {
                self.end = Some(Err(anyhow!("the reading thread failed: please report this, with the input")));
            }
        }
        true
    }

    fn take(&mut self, records: usize) -> Chunk {
        Chunk {
            records: self.waiting.drain(..records).collect(),
            bytes: std::mem::take(&mut self.bytes),
            kept_names: self.kept_names.clone(),
        }
    }
}

/// How many records fit a window.
struct Fitting {
    records: usize,
    is_full: bool,
}

impl WindowLimits {
    fn fitting(&self, waiting: &VecDeque<Record>) -> Fitting {
        let mut bytes = 0;
        for (place, record) in waiting.iter().enumerate() {
            bytes += record.text.len();
            if place + 1 >= self.max_records || bytes >= self.max_bytes {
                return Fitting { records: place + 1, is_full: true };
            }
        }
        Fitting { records: waiting.len(), is_full: false }
    }
}

type Stream = Box<dyn Read + Send>;

fn open(input: &Input) -> Result<Stream> {
    match input {
        Input::Stdin => Ok(Box::new(io::stdin())),
        Input::File(path) => match File::open(path) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) => Err(error).with_context(|| format!("cannot open {}", path.display())),
        },
    }
}

/// The reading thread. It ends early when the receiver is gone: nobody wants the rest.
fn read_files(files: &[Input], mut first: Option<Stream>, options: &ReadOptions, sender: &SyncSender<Message>) {
    for (place, input) in files.iter().enumerate() {
        let stream = first.take().map_or_else(|| open(input), Ok);
        let emit = |mut chunk: Chunk| {
            chunk.records.iter_mut().for_each(|record| record.place.input = place);
            sender.send(Message::Chunk(chunk)).is_ok()
        };
        let read = stream.and_then(|stream| {
            read_records(stream, &mut *options.reader(input), emit).with_context(|| format!("cannot read {input}"))
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

/// Reads all records, and gives those that one read completed to `emit` at once; stops where that says `false`.
/// Whether it came to the end.
fn read_records(
    stream: impl Read + Send,
    reader: &mut dyn RecordReader,
    mut emit: impl FnMut(Chunk) -> bool,
) -> Result<bool> {
    let packed_bytes = Arc::new(AtomicU64::new(0));
    let mut stream = compression::unpacked(Counted { stream, bytes: packed_bytes.clone() })?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let length = match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            length => length,
        };
        let mut records = Vec::new();
        let outcome = match &length {
            Ok(0) => reader.finish(&mut records),
            Ok(length) => reader.feed(&buffer[..*length], &mut records),
            Err(_) => Ok(()),
        };
        // What was whole before a fault is given first.
        let chunk =
            Chunk { records, bytes: packed_bytes.swap(0, Ordering::Relaxed), kept_names: reader.kept_names().cloned() };
        let is_wanted = chunk.is_empty() || emit(chunk);
        outcome?;
        if length? == 0 || !is_wanted {
            return Ok(is_wanted);
        }
    }
}

impl Chunk {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.kept_names.is_none()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its parts one a read.
    struct Parts(Vec<Vec<u8>>);

    impl Read for Parts {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(part) = self.0.first_mut() else { return Ok(0) };
            let length = part.len().min(buffer.len());
            buffer[..length].copy_from_slice(&part[..length]);
            part.drain(..length);
            if part.is_empty() {
                self.0.remove(0);
            }
            Ok(length)
        }
    }

    /// Texts of the records that each read completes; `!` before what is malformed.
    fn chunks(format: InputFormat, fields: FieldSelection, parts: &[&[u8]]) -> Vec<Vec<String>> {
        let options = ReadOptions { format: Some(format), fields, ..ReadOptions::default() };
        let mut reader = options.reader(&Input::Stdin);
        let mut chunks = Vec::new();
        let parts = parts.iter().map(|part| part.to_vec()).collect();
        read_records(Parts(parts), &mut *reader, |chunk| {
            let texts: Vec<String> = chunk.records.iter().map(show).collect();
            chunks.extend((!texts.is_empty()).then_some(texts));
            true
        })
        .unwrap();
        chunks
    }

    fn show(record: &Record) -> String {
        match &record.malformed {
            Some(reason) => format!("!{}: {reason}", record.place.line),
            None => record.text.clone(),
        }
    }

    #[test]
    fn what_has_arrived_is_given_at_once_in_every_format() {
        let fields = FieldSelection::default;
        let lines = chunks(InputFormat::Lines, fields(), &[b"a\nb", b"c\n", b"d"]);
        assert_eq!(lines, [vec!["a"], vec!["bc"], vec!["d"]]);
        let csv = chunks(InputFormat::Csv, fields(), &[b"id,text\r\n1,a\r\n2,\"b", b"\"\"\r\nc\"\r\n", b"3,d"]);
        assert_eq!(csv, [vec!["a"], vec!["b\"\r\nc"], vec!["d"]]);
        let tsv = chunks(InputFormat::Tsv, fields(), &[b"id\ttext\n1\ta\n2\t\"b", b"\n", b"3\td"]);
        assert_eq!(tsv, [vec!["a"], vec!["\"b"], vec!["d"]]);
        let jsonl = chunks(InputFormat::Jsonl, fields(), &[br#"{"text":"a"}"#, b"\n{\"text\"", b":\"b\"}\n"]);
        assert_eq!(jsonl, [vec!["a"], vec!["b"]]);
    }

    #[test]
    fn what_was_whole_comes_before_a_fault() {
        struct Failing(bool);
        impl Read for Failing {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(io::Error::other("the disk is gone"));
                }
                buffer[0] = b'\n';
                Ok(1)
            }
        }
        let mut reader = ReadOptions::default().reader(&Input::Stdin);
        let mut records = 0;
        let outcome = read_records(Failing(false), &mut *reader, |chunk| {
            records += chunk.records.len();
            true
        });
        assert_eq!((records, outcome.is_err()), (1, true));
    }

    #[test]
    fn invalid_utf8_is_replaced_and_marked() {
        let text = Text::from_bytes(b"caf\xe9 ol\xc3\xa9");
        assert_eq!((text.text.as_str(), text.had_invalid_utf8), ("caf\u{fffd} ol\u{e9}", true));
    }

    #[test]
    fn reading_stops_when_nobody_wants_more() {
        let mut seen = 0;
        let mut reader = ReadOptions::default().reader(&Input::Stdin);
        let ended = read_records(Parts(vec![b"a\n".to_vec(), b"b\n".to_vec()]), &mut *reader, |_| {
            seen += 1;
            false
        });
        assert_eq!((seen, ended.unwrap()), (1, false));
    }

    fn limits(max_records: usize, max_bytes: usize) -> WindowLimits {
        WindowLimits { max_records, max_bytes, waits: true }
    }

    fn written(folder: &tempfile::TempDir, name: &str, content: &[u8]) -> Input {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        Input::File(path)
    }

    #[test]
    fn windows_depend_on_the_input_alone_where_they_wait() {
        let folder = tempfile::tempdir().unwrap();
        let first = written(&folder, "a.txt", "x\n".repeat(200_000).as_bytes());
        let second = written(&folder, "b.txt", "yyyy\n".repeat(1_000).as_bytes());
        let mut source = Source::open(Inputs::Files(vec![first, second]), ReadOptions::default()).unwrap();
        let mut windows = Vec::new();
        while let Some(window) = source.next_window(limits(3_000, 3_600)).unwrap() {
            windows.push(window.records.len());
        }
        // 66 whole windows of the first file; then 2,000 bytes of it with 400 records of the second.
        assert_eq!(windows[..66], [3_000; 66]);
        assert_eq!(windows[66..], [2_400, 600]);
    }

    #[test]
    fn records_know_their_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let first = written(&folder, "a.csv", b"text\n\n\"one\ntwo\"\n\nthree\n");
        let second = written(&folder, "b.txt", b"four");
        let mut source = Source::open(Inputs::Files(vec![first, second]), ReadOptions::default()).unwrap();
        let window = source.next_window(limits(10, 1_000)).unwrap().unwrap();
        let places: Vec<String> = window.records.iter().map(|record| source.describe(record.place)).collect();
        let expected = ["a.csv, line 3", "a.csv, line 6", "b.txt, line 1"];
        assert!(places.iter().zip(expected).all(|(place, end)| place.ends_with(end)), "{places:?}");
    }

    #[test]
    fn a_failing_second_file_is_told_after_the_first_ones_records() {
        let folder = tempfile::tempdir().unwrap();
        let first = written(&folder, "a.txt", b"one\ntwo\n");
        let missing = folder.path().join("missing.txt");
        let inputs = Inputs::Files(vec![first, Input::File(missing)]);
        let mut source = Source::open(inputs, ReadOptions::default()).unwrap();
        let window = source.next_window(limits(100, 1 << 20)).unwrap().unwrap();
        assert_eq!(window.records.len(), 2);
        let error = source.next_window(limits(100, 1 << 20)).unwrap_err();
        assert!(error.to_string().contains("missing.txt"), "{error}");
        assert!(source.next_window(limits(100, 1 << 20)).unwrap().is_none(), "and then it is over");
    }

    #[test]
    fn a_missing_first_file_is_told_at_once() {
        let inputs = Inputs::Files(vec![Input::File("/nonexistent/x".into())]);
        assert!(Source::open(inputs, ReadOptions::default()).is_err());
    }

    #[test]
    fn a_reading_thread_that_dies_is_no_end_of_the_input() {
        let (sender, messages) = sync_channel(1);
        drop(sender);
        let mut source = Source::open(Inputs::Texts(Vec::new()), ReadOptions::default()).unwrap();
        (source.messages, source.end) = (messages, None);
        assert!(source.next_window(limits(1, 1)).unwrap_err().to_string().contains("reading thread"));
    }
}
