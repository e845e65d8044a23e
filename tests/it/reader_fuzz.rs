//! Feeds arbitrary input to the readers: whatever the bytes and however they arrive, the result is a number of records,
//! the right one if the input is well formed, and never a panic.
//!
//! `AGNEWS_FUZZ_CASES` sets the number of cases per test; the default takes seconds.

use crate::random::{self, Random};
use crate::structured::{gzip, zstd};
use agnews::source::{
    Content, FieldSelection, Input, InputFormat, Inputs, KeptFields, ReadOptions, Record, Source, WindowLimits,
};
use std::path::Path;

/// A 64th of the library's own fuzz cases: each case here writes a file.
fn cases() -> u64 {
    random::cases().div_ceil(64)
}

/// A text made of pieces that are special in some format.
fn text(random: &mut Random) -> String {
    const PIECES: [&str; 22] = [
        "a", "striker", " ", ",", "\"", "\"\"", "\n", "\r\n", "\r", "\t", "\\", "\\n", "{", "}", "[", ":", "é", "日本",
        "\u{feff}", "\0", "😀", "\u{2028}",
    ];
    (0..random.below(8)).map(|_| *random.pick(&PIECES)).collect()
}

fn bytes(random: &mut Random) -> Vec<u8> {
    const PIECES: [&[u8]; 20] = [
        b"text",
        b"text,label\n",
        b"\"",
        b"\n",
        b"\r\n",
        b",",
        b"\t",
        b"{\"text\":",
        b"\"a\"}",
        b"}\n",
        b"\xff",
        b"\xc3",
        b"\x1f\x8b\x08",
        b"\x28\xb5\x2f\xfd",
        b"\xef\xbb\xbf",
        b"\0",
        b"P*M\x18",
        b"null",
        b"1e999",
        b"\\ud800",
    ];
    let mut bytes = Vec::new();
    for _ in 0..random.below(40) {
        match random.below(3) {
            0 => bytes.push(random.next() as u8),
            _ => bytes.extend_from_slice(random.pick::<&[u8]>(&PIECES)),
        }
    }
    bytes
}

/// All records of a file, and the error that ended reading, if any. Windows are small, to test their edges.
fn read(path: &Path, options: &ReadOptions) -> (Vec<Record>, Option<String>) {
    let limits = WindowLimits { first_records: 2, max_records: 7, max_bytes: 100, waits: false };
    let mut records = Vec::new();
    let opened = Source::open(Inputs::Files(vec![Input::File(path.to_owned())]), options.clone(), limits);
    let mut source = opened.expect("the file is there");
    loop {
        match source.next_window() {
            Ok(Some(window)) => {
                assert!(window.len() <= 7);
                records.extend(window.parts.into_iter().flat_map(|part| part.records));
            }
            Ok(None) => return (records, None),
            Err(error) => {
                let message = format!("{error:#}");
                assert!(!message.contains("reading thread"), "{message}");
                assert!(matches!(source.next_window(), Ok(None)), "an error is the end");
                return (records, Some(message));
            }
        }
    }
}

fn options(format: InputFormat, fields: FieldSelection) -> ReadOptions {
    ReadOptions { format: Some(format), fields, ..ReadOptions::default() }
}

fn packed(random: &mut Random, bytes: &[u8]) -> Vec<u8> {
    match random.below(4) {
        0 => gzip(bytes),
        1 => zstd(bytes),
        // Two members, cut anywhere.
        2 => {
            let (first, second) = bytes.split_at(random.below(bytes.len() + 1));
            [gzip(first), gzip(second)].concat()
        }
        _ => bytes.to_vec(),
    }
}

/// A CSV file with these rows. Fields are quoted if necessary, and otherwise at random.
fn write_csv(random: &mut Random, rows: &[[String; 2]]) -> String {
    let end = *random.pick(&["\n", "\r\n"]);
    let field = |random: &mut Random, text: &str| {
        let must = text.contains(['"', ',', '\n', '\r']) || text.is_empty() || text.starts_with('\u{feff}');
        match must || random.below(3) == 0 {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text.to_owned(),
        }
    };
    let mut csv = format!("id,text{end}");
    for [id, text] in rows {
        let line = [field(random, id), field(random, text)].join(",");
        csv.push_str(&(line + end));
    }
    csv
}

#[test]
fn well_formed_files_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case");
    for case in 0..cases() {
        let random = &mut Random::new(case);
        let rows: Vec<[String; 2]> = (0..random.below(30)).map(|_| [text(random), text(random)]).collect();
        let fields = FieldSelection { kept: KeptFields::All, label: Some("id".into()), ..FieldSelection::default() };
        let (format, content) = match random.below(3) {
            0 => (InputFormat::Csv, write_csv(random, &rows)),
            1 => (InputFormat::Jsonl, {
                rows.iter().map(|[id, text]| serde_json::json!({"id": id, "text": text}).to_string() + "\n").collect()
            }),
            _ => (InputFormat::Tsv, {
                let line = |[id, text]: &[String; 2]| [id, text].map(|field| field.replace(['\t', '\n', '\r'], "_"));
                let lines = rows.iter().map(|row| line(row).join("\t") + "\n");
                std::iter::once("id\ttext\n".to_owned()).chain(lines).collect()
            }),
        };
        std::fs::write(&path, packed(random, content.as_bytes())).unwrap();
        let (records, error) = read(&path, &options(format, fields));
        assert_eq!(error, None, "case {case}");
        assert_eq!(records.len(), rows.len(), "case {case}: {content:?}");
        for (record, [id, text]) in records.iter().zip(&rows) {
            assert!(!matches!(record.content, Content::Malformed(_)), "case {case}: {content:?}");
            if format == InputFormat::Tsv {
                continue;
            }
            assert_eq!(record.content.text(), text, "case {case}: {content:?}");
            assert_eq!(record.gold.as_ref(), Some(id), "case {case}");
        }
    }
}

#[test]
fn arbitrary_bytes_give_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case");
    for case in 0..cases() {
        let random = &mut Random::new(case ^ 0x5eed);
        let bytes = bytes(random);
        let content = packed(random, &bytes);
        std::fs::write(&path, &content).unwrap();
        let fields = FieldSelection {
            text: if random.below(2) == 0 { Vec::new() } else { vec!["1".into()] },
            kept: random.pick(&[KeptFields::None, KeptFields::All, KeptFields::One("1".into())]).clone(),
            text_pair: if random.below(4) == 0 { Some("2".into()) } else { None },
            label: None,
            header: random.below(2) == 0,
        };
        let format = *random.pick(&[
            InputFormat::Lines,
            InputFormat::Csv,
            InputFormat::Tsv,
            InputFormat::Jsonl,
            InputFormat::Json,
        ]);
        let (records, error) = read(&path, &options(format, fields));
        // Lines and JSON Lines give one record per line, whatever is in it.
        let is_plain = content == bytes && !starts_like_an_archive(&bytes);
        if is_plain && error.is_none() && matches!(format, InputFormat::Lines | InputFormat::Jsonl) {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
            let breaks = bytes.iter().filter(|&&byte| byte == b'\n').count();
            let is_open = !bytes.is_empty() && !bytes.ends_with(b"\n");
            assert_eq!(records.len(), breaks + usize::from(is_open), "case {case}: {bytes:?}");
        }
    }
}

fn starts_like_an_archive(bytes: &[u8]) -> bool {
    let starts: [&[u8]; 3] = [b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"P*M\x18"];
    starts.iter().any(|start| bytes.starts_with(start)) || bytes.get(1..4) == Some(b"*M\x18")
}

#[test]
fn damaged_archives_give_records_and_sometimes_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case");
    for case in 0..cases() {
        let random = &mut Random::new(case ^ 0xbad);
        let text: String = (0..random.below(400)).map(|n| format!("line {n} {}\n", n * n % 97)).collect();
        let mut content = if random.below(2) == 0 { gzip(text.as_bytes()) } else { zstd(text.as_bytes()) };
        for _ in 0..=random.below(3) {
            match random.below(3) {
                0 => content.truncate(random.below(content.len() + 1)),
                1 if !content.is_empty() => {
                    let place = random.below(content.len());
                    content[place] ^= 1 << random.below(8);
                }
                _ => {
                    let place = random.below(content.len() + 1);
                    content.splice(place..place, bytes(random));
                }
            }
        }
        std::fs::write(&path, &content).unwrap();
        let (records, _) = read(&path, &options(InputFormat::Lines, FieldSelection::default()));
        assert!(records.len() < 1_000_000, "case {case}");
    }
}
