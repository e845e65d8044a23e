//! CSV, TSV, JSON Lines and compressed files, in and out.

use crate::harness::{builtin, Agnews};
use flate2::write::GzEncoder;
use ruzstd::encoding::{compress_to_vec, CompressionLevel};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

const SPORTS: &str = "The striker scored twice in the last ten minutes to win the derby.";
const WORLD: &str = "Peace talks between the two governments resumed in Geneva on Monday.";
const BUSINESS: &str = "Shares of the carmaker fell nine percent after it cut its profit forecast.";

/// A file in its own folder.
struct Written {
    path: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

fn written(name: &str, content: impl AsRef<[u8]>) -> Written {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    Written { path, _folder: folder }
}

fn classify(file: &Written) -> Agnews {
    builtin().arg("-f").arg(&file.path)
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// The same three texts in every format, the second over two lines if possible.
fn csv() -> String {
    format!("\u{feff}id,text\r\n7,\"{SPORTS}\"\r\n8,\"Peace talks between the \"\"two\"\" governments\r\nresumed, in Geneva.\"\r\n9,{BUSINESS}\r\n")
}

fn jsonl() -> String {
    format!(
        "{{\"id\":7,\"text\":\"{SPORTS}\"}}\n{{\"id\":8,\"text\":\"{WORLD}\"}}\n{{\"id\":9,\"text\":\"{BUSINESS}\"}}\n"
    )
}

#[test]
fn the_format_comes_from_the_name_or_the_option() {
    let expected = "1\tSports\n0\tWorld\n2\tBusiness\n";
    let tsv = format!("id\ttext\n7\t{SPORTS}\n8\t{WORLD}\n9\t{BUSINESS}\n");
    for (name, content) in [("a.csv", csv()), ("a.tsv", tsv), ("a.jsonl", jsonl()), ("a.ndjson", jsonl())] {
        assert_eq!(classify(&written(name, &content)).quiet_success(), expected, "{name}");
        for (ending, packed) in [("gz", gzip(content.as_bytes())), ("zst", zstd(content.as_bytes()))] {
            assert_eq!(classify(&written(&format!("{name}.{ending}"), packed)).quiet_success(), expected, "{name}");
        }
    }
    for packed in [csv().into_bytes(), gzip(csv().as_bytes()), zstd(csv().as_bytes())] {
        assert_eq!(builtin().args(["--input-format", "csv"]).stdin(packed).quiet_success(), expected);
    }
    let lines = gzip(format!("{SPORTS}\n{WORLD}\n{BUSINESS}\n").as_bytes());
    assert_eq!(builtin().stdin(lines).quiet_success(), expected);
    assert_eq!(classify(&written("plain.gz", format!("{SPORTS}\n"))).quiet_success(), "1\tSports\n");
}

#[test]
fn text_fields_are_named_numbered_and_joined() {
    let csv = format!("1,title,text\nx,{SPORTS},\ny,,{WORLD}\n");
    let of = |fields: &str| classify(&written("a.csv", &csv)).args(["--text-field", fields]).quiet_success();
    assert_eq!(of("title,text"), "1\tSports\n0\tWorld\n");
    assert_eq!(of("3,2"), "1\tSports\n0\tWorld\n");
    assert_eq!(of("title"), "1\tSports\n\t\n");
    let outcome = classify(&written("a.csv", &csv)).args(["--text-field", "body"]).run().code_is(1).prints("");
    outcome.tells(&["a.csv", "no column \"body\"", "\"1\", \"title\", \"text\""]);
    let outcome = classify(&written("a.csv", "a,b\n1,2\n")).run().code_is(1).prints("");
    outcome.tells(&["--text-field", "\"a\", \"b\""]);

    let nested = written("a.jsonl", format!("{{\"doc\":{{\"body\":\"{SPORTS}\"}},\"n\":1}}\n"));
    assert_eq!(classify(&nested).args(["--text-field", "doc.body"]).quiet_success(), "1\tSports\n");
    classify(&nested).run().code_is(1).tells(&["--text-field", "\"doc\", \"n\""]);

    let bare = format!("{SPORTS}\n{WORLD}\n");
    let records = classify(&written("a.tsv", &bare)).arg("--no-header").quiet_success();
    assert_eq!(records, "1\tSports\n0\tWorld\n");
    assert_eq!(classify(&written("a.tsv", &bare)).quiet_success(), "0\tWorld\n", "the first line is the only header");
}

#[test]
fn columns_are_found_in_each_file() {
    let first = written("a.csv", format!("id,text\n1,{SPORTS}\n"));
    let second = written("b.csv", format!("text,other\n{WORLD},1\n"));
    let both = || classify(&first).arg("-f").arg(&second.path);
    assert_eq!(both().quiet_success(), "1\tSports\n0\tWorld\n");
    let kept = both().args(["--keep", "--format", "jsonl"]).quiet_success();
    assert!(kept.lines().nth(1).unwrap().starts_with("{\"text\":\"Peace") && kept.contains("\"other\":\"1\""));
    let outcome = both().args(["--keep", "--format", "csv"]).run().code_is(1);
    let expected = format!("id,text,label_id,label,score\n1,{SPORTS},1,Sports,");
    assert!(outcome.stdout.starts_with(&expected) && outcome.stdout.lines().count() == 2, "{}", outcome.stdout);
    outcome.tells(&["b.csv", "one table"]);
}

#[test]
fn a_malformed_record_keeps_its_position_and_fails_the_run() {
    let csv = format!("id,text\n1,{SPORTS}\n2\n3,{WORLD}\n4,a,b\n");
    let outcome = classify(&written("a.csv", &csv)).run().code_is(1).prints("1\tSports\n\t\n0\tWorld\n\t\n");
    let outcome = outcome.tells(&["a.csv, line 3: it has 1 field, the header has 2", "a.csv, line 5: it has 3 fields"]);
    outcome.tells(&["error: 2 of 4 records are malformed"]);

    let jsonl = format!("{{\"text\":\"{SPORTS}\"}}\nnonsense\n{{\"text\":[]}}\n\n{{\"text\":\"{WORLD}\"}}\n");
    let jsonl = written("a.jsonl", jsonl);
    let outcome = classify(&jsonl).args(["--format", "jsonl"]).run().code_is(1);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines.len(), 5);
    assert!(
        lines[1].starts_with("{\"label_id\":null,\"label\":null,\"score\":null,\"error\":\"it is not a JSON object")
    );
    assert_eq!(
        lines[2],
        "{\"label_id\":null,\"label\":null,\"score\":null,\"error\":\"its \\\"text\\\" is neither a string nor a number\"}"
    );
    assert_eq!(lines[3], "{\"label_id\":null,\"label\":null,\"score\":null}", "a blank line is not an error");
    outcome.tells(&["a.jsonl, line 2: it is not a JSON object", "2 of 5"]);

    let outcome = classify(&jsonl).arg("--strict").run().code_is(1).prints("1\tSports\n");
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    outcome.tells(&["a.jsonl, line 2: it is not a JSON object"]);
}

#[test]
fn ten_of_many_malformed_records_are_reported() {
    let outcome = classify(&written("a.jsonl", "nonsense\n".repeat(50))).arg("--quiet").run().code_is(1);
    assert_eq!(outcome.stdout, "\t\n".repeat(50));
    assert_eq!(outcome.stderr.lines().count(), 12, "{}", outcome.stderr);
    outcome.tells(&["line 10: ", "only counted", "50 of 50 records are malformed"]);
}

#[test]
fn damaged_compressed_data_is_an_error_after_its_intact_part() {
    let lines = format!("{SPORTS}\n").repeat(3);
    for (packed, name) in [(gzip(lines.as_bytes()), "a.gz"), (zstd(lines.as_bytes()), "a.zst")] {
        let cut = written(name, &packed[..packed.len() - 2]);
        classify(&cut).run().code_is(1).tells(&["cannot read", name]);
        let two = written(name, [packed.clone(), packed[..packed.len() - 2].to_vec()].concat());
        let outcome = classify(&two).run().code_is(1).tells(&["cannot read", name]);
        assert!(outcome.stdout.starts_with(&"1\tSports\n".repeat(3)), "{}", outcome.stdout);
    }
}

#[test]
fn fields_are_carried_through() {
    let file = written("a.csv", csv());
    let keep = |format: &str| classify(&file).args(["--keep", "--format", format]).quiet_success();
    let csv_out = keep("csv");
    assert!(csv_out.starts_with("id,text,label_id,label,score\n7,The striker"), "{csv_out}");
    assert!(
        csv_out.contains("\n8,\"Peace talks between the \"\"two\"\" governments\r\nresumed, in Geneva.\",0,World,0.")
    );
    let tsv_out = keep("tsv");
    assert!(tsv_out.starts_with("id\ttext\tlabel_id\tlabel\n7\tThe striker"), "{tsv_out}");
    assert!(tsv_out.contains("\n8\tPeace talks between the \"two\" governments\\r\\nresumed, in Geneva.\t0\tWorld\n"));
    assert!(keep("jsonl").starts_with("{\"id\":\"7\",\"text\":\"The striker"));

    let id = |format: &str| classify(&file).args(["--id-field", "id", "--format", format]).quiet_success();
    assert_eq!(id("tsv"), "7\t1\tSports\n8\t0\tWorld\n9\t2\tBusiness\n");
    assert!(id("csv").starts_with("id,label_id,label,score\n7,1,Sports,0.8"));
    assert!(id("jsonl").starts_with("{\"id\":\"7\",\"label_id\":1,"));
    let bare = written("a.csv", format!("7,{SPORTS}\n"));
    let bare = classify(&bare)
        .args(["--no-header", "--text-field", "2", "--id-field", "1", "--format", "csv"])
        .quiet_success();
    assert!(bare.starts_with("7,1,Sports,0.8"), "{bare}");

    let jsonl = format!("{{\"label\":\"gold\",\"text\":\"{SPORTS}\",\"n\":1.50,\"deep\":{{\"k\":[1, 2]}}}}\n");
    let jsonl = written("a.jsonl", jsonl);
    let kept = classify(&jsonl).args(["--keep", "--format", "jsonl"]).quiet_success();
    let expected =
        format!("{{\"input_label\":\"gold\",\"text\":\"{SPORTS}\",\"n\":1.50,\"deep\":{{\"k\":[1,2]}},\"label_id\":1,");
    assert!(kept.starts_with(&expected), "{kept}");
    assert_eq!(classify(&jsonl).args(["--id-field", "deep.k"]).quiet_success(), "[1,2]\t1\tSports\n");
}

/// A table classified again, with its own output as the input, is not damaged.
#[test]
fn kept_tsv_columns_stay_byte_for_byte() {
    let rows = format!("path\ttext\nC:\\new\\\\x\t\"{WORLD}\n\\N\t{WORLD}\n");
    let kept = classify(&written("a.tsv", &rows)).arg("--keep").quiet_success();
    let expected = format!("path\ttext\tlabel_id\tlabel\nC:\\new\\\\x\t\"{WORLD}\t0\tWorld\n\\N\t{WORLD}\t0\tWorld\n");
    assert_eq!(kept, expected);
}

#[test]
fn a_header_without_rows_is_carried_too() {
    let keep = |content: &str| classify(&written("a.csv", content)).args(["--keep", "--format", "csv"]).quiet_success();
    assert_eq!(keep("id,text\n"), "id,text,label_id,label,score\n");
    assert_eq!(keep("id,text"), "id,text,label_id,label,score\n");
    assert_eq!(keep(""), "label_id,label,score\n");
    assert_eq!(builtin().args(["--format", "csv"]).stdin("").quiet_success(), "label_id,label,score\n");
}

#[test]
fn a_low_score_gets_no_class() {
    let unclear = "Chip maker posts record profit on demand for phones";
    let min = |args: &[&str]| builtin().args(["--min-score", "0.7"]).args(args).args([unclear, SPORTS]).quiet_success();
    assert_eq!(min(&[]), "\t\n1\tSports\n");
    assert_eq!(min(&["--unsure", "?"]), "\t?\n1\tSports\n");
    assert!(min(&["--scores"]).starts_with("\t\t0.5"));
    assert!(min(&["-k", "2", "--unsure", "?"]).starts_with("\t?\t0.5"));
    assert!(min(&["--format", "jsonl"]).starts_with("{\"label_id\":null,\"label\":null,\"score\":0.5"));
}

#[test]
fn nul_bytes_may_separate_texts() {
    let stdin = format!("{SPORTS}\nsecond line\0{WORLD}\0\0{BUSINESS}");
    let records = builtin().arg("--null").stdin(stdin).quiet_success();
    assert_eq!(records, "1\tSports\n0\tWorld\n\t\n2\tBusiness\n");
}

/// In every format, input from a pipe is answered before more arrives.
#[test]
fn a_record_is_answered_while_the_pipe_stays_open() {
    let gzip_member = |line: &str| gzip(line.as_bytes());
    let plain = |line: &str| line.as_bytes().to_vec();
    type Pack<'a> = &'a dyn Fn(&str) -> Vec<u8>;
    let csv: [String; 3] = [format!("text\n\"{SPORTS}\"\n"), format!("\"{WORLD}\"\n"), format!("{BUSINESS}\n")];
    let jsonl = [SPORTS, WORLD, BUSINESS].map(|text| format!("{{\"text\":\"{text}\"}}\n"));
    let cases: [(&str, &[String; 3], Pack<'_>); 4] =
        [("csv", &csv, &plain), ("jsonl", &jsonl, &plain), ("csv", &csv, &gzip_member), ("jsonl", &jsonl, &zstd_frame)];
    for (format, pieces, pack) in cases {
        let (mut command, _home) = builtin().args(["--input-format", format]).into_command();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        for (piece, expected) in pieces.iter().zip(["1\tSports\n", "0\tWorld\n", "2\tBusiness\n"]) {
            stdin.write_all(&pack(piece)).unwrap();
            stdin.flush().unwrap();
            // Blocks forever if the program waits for more input; the test would then hang.
            let mut record = String::new();
            stdout.read_line(&mut record).unwrap();
            assert_eq!(record, expected, "{format}");
        }
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }
}

fn zstd_frame(text: &str) -> Vec<u8> {
    zstd(text.as_bytes())
}

#[test]
fn fields_of_plain_lines_are_a_usage_error_that_names_the_solution() {
    builtin().args(["--text-field", "a"]).run().code_is(2).tells(&["standard input", "--input-format"]);
    let jsonl = written("a.jsonl", "{\"text\":\"a\"}\n");
    classify(&jsonl).arg("--keep").run().code_is(2).tells(&["--format jsonl"]);
}

#[test]
fn many_windows_of_csv_keep_their_order() {
    let mut csv = String::from("n,text\n");
    let mut expected = String::new();
    for n in 0..5_000 {
        // Words rather than sentences, because only the order is tested.
        let text = ["striker derby goal", "peace talks Geneva", "shares profit forecast"][n % 3];
        csv.push_str(&format!("{n},\"{text}\"\n"));
        expected.push_str(&format!("{n}\t"));
        expected.push_str(["1\tSports\n", "0\tWorld\n", "2\tBusiness\n"][n % 3]);
    }
    let records = classify(&written("a.csv.gz", gzip(csv.as_bytes()))).args(["--id-field", "n"]).quiet_success();
    assert!(records == expected, "{}", records.lines().zip(expected.lines()).find(|(a, b)| a != b).unwrap().0);
}
