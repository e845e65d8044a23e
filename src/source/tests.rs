//! Tests of reading as a whole: formats, windows, files one after another.

use super::reader::{read_records, Message};
use super::*;
use anyhow::Result;
use std::io::{self, Read};
use std::sync::mpsc::sync_channel;
use std::sync::Arc;

/// Gives one of its parts per read.
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

fn options(format: InputFormat, fields: FieldSelection) -> ReadOptions {
    ReadOptions { format: Some(format), fields, ..ReadOptions::default() }
}

/// The parts that each read completes.
fn parts(options: &ReadOptions, pieces: &[&[u8]]) -> (Vec<Part>, Result<bool>) {
    let mut parts = Vec::new();
    let pieces = pieces.iter().map(|piece| piece.to_vec()).collect();
    let mut reader = options.reader(&Input::Stdin);
    let outcome = read_records(Parts(pieces), &Arc::new(Input::Stdin), &mut *reader, &mut |part, _| {
        parts.push(part);
        true
    });
    (parts, outcome)
}

pub(super) fn read(options: &ReadOptions, pieces: &[&[u8]]) -> Result<Vec<Record>> {
    let (parts, outcome) = parts(options, pieces);
    outcome.map(|_| parts.into_iter().flat_map(|part| part.records).collect())
}

/// The text of a record; `!` and the reason for a malformed one.
pub(super) fn show(record: &Record) -> String {
    match &record.content {
        Content::Malformed(reason) => format!("! {reason}"),
        content => content.text().to_owned(),
    }
}

/// What [`show`] says of each record, which is the same however the bytes arrive.
pub(super) fn texts(options: &ReadOptions, input: &str) -> Vec<String> {
    let whole = read(options, &[input.as_bytes()]).unwrap();
    let bytes: Vec<&[u8]> = input.as_bytes().chunks(1).collect();
    assert_eq!(read(options, &bytes).unwrap(), whole, "byte by byte");
    whole.iter().map(show).collect()
}

fn texts_per_read(format: InputFormat, pieces: &[&[u8]]) -> Vec<Vec<String>> {
    let (parts, outcome) = parts(&options(format, FieldSelection::default()), pieces);
    outcome.unwrap();
    let texts = parts.iter().map(|part| part.records.iter().map(show).collect());
    texts.filter(|texts: &Vec<String>| !texts.is_empty()).collect()
}

#[test]
fn what_has_arrived_is_given_at_once_in_every_format() {
    let lines = texts_per_read(InputFormat::Lines, &[b"a\nb", b"c\n", b"d"]);
    assert_eq!(lines, [vec!["a"], vec!["bc"], vec!["d"]]);
    let csv = texts_per_read(InputFormat::Csv, &[b"id,text\r\n1,a\r\n2,\"b", b"\"\"\r\nc\"\r\n", b"3,d"]);
    assert_eq!(csv, [vec!["a"], vec!["b\"\r\nc"], vec!["d"]]);
    let tsv = texts_per_read(InputFormat::Tsv, &[b"id\ttext\n1\ta\n2\t\"b", b"\n", b"3\td"]);
    assert_eq!(tsv, [vec!["a"], vec!["\"b"], vec!["d"]]);
    let jsonl = texts_per_read(InputFormat::Jsonl, &[br#"{"text":"a"}"#, b"\n{\"text\"", b":\"b\"}\n"]);
    assert_eq!(jsonl, [vec!["a"], vec!["b"]]);
    let json = texts_per_read(InputFormat::Json, &[br#"[{"text":"a"}"#, b",{\"text\"", b":\"b\"}", b"]"]);
    assert_eq!(json, [vec!["a"], vec!["b"]]);
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
    let outcome = read_records(Failing(false), &Arc::new(Input::Stdin), &mut *reader, &mut |part, _| {
        records += part.records.len();
        true
    });
    assert_eq!((records, outcome.is_err()), (1, true));
}

#[test]
fn invalid_utf8_is_replaced_and_marked() {
    let records = read(&ReadOptions::default(), &[b"caf\xe9 ol\xc3\xa9\nfine\n"]).unwrap();
    assert_eq!(show(&records[0]), "caf\u{fffd} ol\u{e9}");
    assert_eq!([records[0].was_invalid_utf8, records[1].was_invalid_utf8], [true, false]);
}

#[test]
fn reading_stops_when_nobody_wants_more() {
    let mut seen = 0;
    let mut reader = ReadOptions::default().reader(&Input::Stdin);
    let parts = Parts(vec![b"a\n".to_vec(), b"b\n".to_vec()]);
    let ended = read_records(parts, &Arc::new(Input::Stdin), &mut *reader, &mut |_, _| {
        seen += 1;
        false
    });
    assert_eq!((seen, ended.unwrap()), (1, false));
}

fn limits(max_records: usize, max_bytes: usize) -> WindowLimits {
    WindowLimits { first_records: max_records, max_records, max_bytes, waits: true }
}

fn written(folder: &tempfile::TempDir, name: &str, content: &[u8]) -> Input {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    Input::File(path)
}

fn source(files: Vec<Input>, limits: WindowLimits) -> Source {
    Source::open(Inputs::Files(files), ReadOptions::default(), limits).unwrap()
}

fn window_sizes(mut source: Source) -> Vec<usize> {
    std::iter::from_fn(|| source.next_window().unwrap()).map(|window| window.len()).collect()
}

#[test]
fn windows_depend_on_the_input_alone_if_they_wait() {
    let folder = tempfile::tempdir().unwrap();
    let first = written(&folder, "a.txt", "x\n".repeat(200_000).as_bytes());
    let second = written(&folder, "b.txt", "yyyy\n".repeat(1_000).as_bytes());
    let windows = window_sizes(source(vec![first, second], limits(3_000, 3_600)));
    // 66 whole windows of the first file; then 2,000 bytes of it with 400 records of the second.
    assert_eq!(windows[..66], [3_000; 66]);
    assert_eq!(windows[66..], [2_400, 600]);
}

#[test]
fn windows_grow_so_that_the_first_answers_come_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(&folder, "a.txt", "x\n".repeat(1_000).as_bytes());
    let limits = WindowLimits { max_records: 200, waits: true, ..WindowLimits::default() };
    assert_eq!(window_sizes(source(vec![file], limits)), [16, 32, 64, 128, 200, 200, 200, 160]);
}

#[test]
fn windows_lose_records_at_either_end() {
    let folder = tempfile::tempdir().unwrap();
    let first = written(&folder, "a.txt", b"1\n2\n3\n");
    let second = written(&folder, "b.txt", b"4\n5\n");
    let files = vec![first, second];
    let window = || source(files.clone(), limits(10, 100)).next_window().unwrap().unwrap();
    let left = |window: Window| window.records().map(show).collect::<String>();
    for count in 0..=5 {
        let (mut start, mut end) = (window(), window());
        start.truncate(count);
        end.drop_first(count);
        assert_eq!((left(start), left(end)), ("12345"[..count].into(), "12345"[count..].into()));
    }
}

#[test]
fn records_know_their_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let first = written(&folder, "a.csv", b"text\n\n\"one\ntwo\"\n\nthree\n");
    let second = written(&folder, "b.txt", b"four");
    let window = source(vec![first, second], limits(10, 1_000)).next_window().unwrap().unwrap();
    let origins: Vec<String> = window.records().map(|record| record.origin.to_string()).collect();
    let expected = ["a.csv, line 3", "a.csv, line 6", "b.txt, line 1"];
    assert!(origins.iter().zip(expected).all(|(origin, end)| origin.ends_with(end)), "{origins:?}");
    let texts = Inputs::Texts(vec!["a".into(), "b".into()]);
    let mut source = Source::open(texts, ReadOptions::default(), limits(10, 100)).unwrap();
    let window = source.next_window().unwrap().unwrap();
    assert_eq!(window.records().nth(1).unwrap().origin.to_string(), "text 2");
}

#[test]
fn a_file_without_records_still_tells_its_schema() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(&folder, "a.csv", b"id,text\n");
    let fields = FieldSelection { kept: KeptFields::All, ..FieldSelection::default() };
    let options = ReadOptions { fields, ..ReadOptions::default() };
    let mut source = Source::open(Inputs::Files(vec![file]), options, limits(10, 100)).unwrap();
    let window = source.next_window().unwrap().unwrap();
    assert!(window.is_empty());
    assert_eq!(*window.parts[0].schema, Schema::Columns(vec!["id".into(), "text".into()]));
    assert!(source.next_window().unwrap().is_none());
}

#[test]
fn a_failing_second_file_is_an_error_after_the_first_ones_records() {
    let folder = tempfile::tempdir().unwrap();
    let first = written(&folder, "a.txt", b"one\ntwo\n");
    let missing = folder.path().join("missing.txt");
    let mut source = source(vec![first, Input::File(missing)], limits(100, 1 << 20));
    assert_eq!(source.next_window().unwrap().unwrap().len(), 2);
    let error = source.next_window().unwrap_err();
    assert!(error.to_string().contains("missing.txt"), "{error}");
    assert!(source.next_window().unwrap().is_none(), "and then it is over");
}

#[test]
fn a_missing_first_file_is_an_error_at_once() {
    let inputs = Inputs::Files(vec![Input::File("/nonexistent/x".into())]);
    assert!(Source::open(inputs, ReadOptions::default(), WindowLimits::default()).is_err());
}

#[test]
fn a_reading_thread_that_dies_is_not_the_end_of_the_input() {
    let (sender, messages) = sync_channel::<Message>(1);
    drop(sender);
    let mut source = Source::of_messages(messages, limits(1, 1));
    assert!(source.next_window().unwrap_err().to_string().contains("reading thread"));
}
