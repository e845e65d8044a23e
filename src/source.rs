//! Where texts come from: arguments, standard input, files, each line a record, read ahead in a thread of its own.

use anyhow::{Context, Result};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::thread;

/// One read of a file; also about how much text a chunk holds.
const READ_BYTES: usize = 256 * 1024;

/// Chunks that may wait for the classifier. Reading is far faster: a few keep it busy, and memory stays flat.
const CHUNKS_AHEAD: usize = 4;

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

/// One text in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The text; what was no UTF-8 stands replaced by U+FFFD.
    pub text: String,
    /// Whether anything was replaced.
    pub had_invalid_utf8: bool,
}

impl Record {
    fn from_bytes(bytes: &[u8]) -> Record {
        match std::str::from_utf8(bytes) {
            Ok(text) => Record { text: text.to_owned(), had_invalid_utf8: false },
            Err(_) => Record { text: String::from_utf8_lossy(bytes).into_owned(), had_invalid_utf8: true },
        }
    }
}

/// Records that arrived together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// In the order of the input.
    pub records: Vec<Record>,
    /// Bytes read for them.
    pub bytes: u64,
}

/// Records as they arrive, in order.
pub struct Source {
    chunks: Receiver<Result<Chunk>>,
}

impl Source {
    /// Starts reading. The first file is opened here, so that a wrong name is told before a model is loaded.
    ///
    /// # Errors
    /// Where the first file cannot be opened; later ones are told by [`Source::next_window`] when their turn comes.
    pub fn open(inputs: Inputs) -> Result<Source> {
        let (sender, chunks) = sync_channel(CHUNKS_AHEAD);
        match inputs {
            Inputs::Texts(texts) => {
                let records = texts.into_iter().map(|text| Record { text, had_invalid_utf8: false }).collect();
                // The receiver lives below, and the channel has room: this neither fails nor blocks.
                let _ = sender.send(Ok(Chunk { records, bytes: 0 }));
            }
            Inputs::Files(files) => {
                let first = files.first().map(open).transpose()?;
                thread::Builder::new()
                    .name("reader".into())
                    .spawn(move || read_files(&files, first, &sender))
                    .context("cannot start the reading thread")?;
            }
        }
        Ok(Source { chunks })
    }

    /// Waits for records and gives all that have arrived by then, but no more than it takes to exceed `max_records`
    /// or `max_bytes`. `None` is the end.
    ///
    /// # Errors
    /// Where a file cannot be opened or read; all records before were given.
    pub fn next_window(&mut self, max_records: usize, max_bytes: u64) -> Result<Option<Chunk>> {
        let Ok(first) = self.chunks.recv() else { return Ok(None) };
        let mut window = first?;
        while window.records.len() < max_records && window.bytes < max_bytes {
            match self.chunks.try_recv() {
                Ok(Ok(chunk)) => {
                    window.records.extend(chunk.records);
                    window.bytes += chunk.bytes;
                }
                Ok(Err(error)) => {
                    // Told after what is already here has been classified.
                    let (sender, chunks) = sync_channel(1);
                    let _ = sender.send(Err(error));
                    self.chunks = chunks;
                    break;
                }
                Err(_) => break,
            }
        }
        Ok(Some(window))
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
fn read_files(files: &[Input], mut first: Option<Stream>, sender: &SyncSender<Result<Chunk>>) {
    for input in files {
        let stream = first.take().map_or_else(|| open(input), Ok);
        let read = stream.and_then(|stream| {
            read_lines(stream, |chunk| sender.send(Ok(chunk)).is_ok()).with_context(|| format!("cannot read {input}"))
        });
        match read {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                let _ = sender.send(Err(error));
                return;
            }
        }
    }
}

/// Reads all lines, and gives those that one read completed to `emit` at once; stops where that says `false`.
/// Whether it came to the end.
fn read_lines(stream: impl Read, mut emit: impl FnMut(Chunk) -> bool) -> io::Result<bool> {
    let mut reader = BufReader::with_capacity(READ_BYTES, stream);
    let mut lines = LineSplitter::default();
    loop {
        let read = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        let length = read.len();
        let records = match length {
            0 => lines.finish().into_iter().collect(),
            _ => lines.feed(read),
        };
        reader.consume(length);
        let is_wanted = records.is_empty() || emit(Chunk { records, bytes: lines.take_bytes() });
        if length == 0 || !is_wanted {
            return Ok(is_wanted);
        }
    }
}

/// Splits a stream of bytes into lines: at LF or CRLF, a byte order mark at the very start left out.
#[derive(Default)]
struct LineSplitter {
    /// The start of a line whose end has not come.
    partial: Vec<u8>,
    bytes: u64,
    has_begun: bool,
}

impl LineSplitter {
    /// The lines that `bytes` completes.
    fn feed(&mut self, bytes: &[u8]) -> Vec<Record> {
        self.bytes += bytes.len() as u64;
        let mut records = Vec::new();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = &bytes[start..end];
            start = end + 1;
            if self.partial.is_empty() {
                records.push(self.record(line.strip_suffix(b"\r").unwrap_or(line)));
            } else {
                self.partial.extend_from_slice(line);
                let line = std::mem::take(&mut self.partial);
                records.push(self.record(line.strip_suffix(b"\r").unwrap_or(&line)));
            }
        }
        self.partial.extend_from_slice(&bytes[start..]);
        records
    }

    /// The last line, where no line break ends it.
    fn finish(&mut self) -> Option<Record> {
        let line = std::mem::take(&mut self.partial);
        (!line.is_empty()).then(|| self.record(&line))
    }

    fn record(&mut self, line: &[u8]) -> Record {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        let line = if is_first { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        Record::from_bytes(line)
    }

    /// Bytes fed since the last call.
    fn take_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its parts one a read.
    struct Parts(Vec<&'static [u8]>);

    impl Read for Parts {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let part = self.0.remove(0);
            buffer[..part.len()].copy_from_slice(part);
            Ok(part.len())
        }
    }

    fn chunks(parts: &[&'static [u8]]) -> Vec<Vec<String>> {
        let mut chunks = Vec::new();
        read_lines(Parts(parts.to_vec()), |chunk| {
            chunks.push(chunk.records.into_iter().map(|record| record.text).collect());
            true
        })
        .unwrap();
        chunks
    }

    fn lines(bytes: &'static [u8]) -> Vec<String> {
        chunks(&[bytes]).concat()
    }

    #[test]
    fn every_line_keeps_its_place() {
        assert_eq!(lines(b"a\n\nb\r\n \nc"), ["a", "", "b", " ", "c"]);
        assert_eq!(lines(b"a\n"), ["a"]);
        assert_eq!(lines(b"\n"), [""]);
        assert!(lines(b"").is_empty());
        assert_eq!(lines(b"a\rb\r\r\n"), ["a\rb\r"]);
        assert_eq!(lines(b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n"), ["a", "\u{feff}b"]);
        assert_eq!(lines(b"a\0b\n"), ["a\0b"]);
    }

    #[test]
    fn what_has_arrived_is_given_at_once_and_split_lines_are_joined() {
        assert_eq!(chunks(&[b"a\nb", b"c\r", b"\nd\n", b"e"]), [vec!["a"], vec!["bc", "d"], vec!["e"]]);
    }

    #[test]
    fn invalid_utf8_is_replaced_and_marked() {
        let record = Record::from_bytes(b"caf\xe9 ol\xc3\xa9");
        assert_eq!((record.text.as_str(), record.had_invalid_utf8), ("caf\u{fffd} ol\u{e9}", true));
    }

    #[test]
    fn reading_stops_when_nobody_wants_more() {
        let mut seen = 0;
        let ended = read_lines(Parts(vec![b"a\n", b"b\n"]), |_| {
            seen += 1;
            false
        });
        assert_eq!((seen, ended.unwrap()), (1, false));
    }

    #[test]
    fn a_failing_second_file_is_told_after_the_first_ones_records() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let missing = folder.path().join("missing.txt");
        let mut source = Source::open(Inputs::Files(vec![Input::File(path), Input::File(missing)])).unwrap();
        let window = source.next_window(100, 1 << 20).unwrap().unwrap();
        assert_eq!(window.records.len(), 2);
        let error = source.next_window(100, 1 << 20).unwrap_err();
        assert!(error.to_string().contains("missing.txt"), "{error}");
    }

    #[test]
    fn a_missing_first_file_is_told_at_once() {
        assert!(Source::open(Inputs::Files(vec![Input::File("/nonexistent/x".into())])).is_err());
    }
}
