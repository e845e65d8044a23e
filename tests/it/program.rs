//! The program from a user's point of view: inputs, records, errors and exit codes.

use crate::harness::{agnews, builtin, fixture};
use serde_json::Value;
use std::path::Path;

const SPORTS: &str = "The striker scored twice in the last ten minutes to win the derby.";
const WORLD: &str = "Peace talks between the two governments resumed in Geneva on Monday.";
const BUSINESS: &str = "Shares of the carmaker fell nine percent after it cut its profit forecast.";

#[test]
fn arguments_lines_and_files_give_the_same_records() {
    let expected = "1\tSports\n0\tWorld\n2\tBusiness\n";
    let lines = format!("{SPORTS}\n{WORLD}\r\n{BUSINESS}");
    builtin().args([SPORTS, WORLD, BUSINESS]).run().success().prints(expected);
    builtin().stdin(&lines).run().success().prints(expected);
    builtin().arg("-").stdin(&lines).run().success().prints(expected);
    builtin().args(["-f", "-"]).stdin(&lines).run().success().prints(expected);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lines.txt");
    std::fs::write(&path, &lines).unwrap();
    assert_eq!(builtin().arg("-f").arg(&path).quiet_success(), expected);
    let twice = builtin().arg("-f").arg(&path).arg("--file").arg(&path).quiet_success();
    assert_eq!(twice, expected.repeat(2));
}

#[test]
fn no_text_gives_no_records() {
    assert_eq!(builtin().stdin("").quiet_success(), "");
}

#[test]
fn blank_lines_keep_their_position() {
    let stdin = format!("{SPORTS}\n\n \t \n{WORLD}\n");
    let records = |args: &[&str]| builtin().args(args).stdin(&stdin).quiet_success();
    assert_eq!(records(&[]), "1\tSports\n\t\n\t\n0\tWorld\n");
    assert_eq!(records(&["--scores"]).lines().nth(1), Some("\t\t"));
    assert_eq!(records(&["-k", "2"]).lines().nth(2), Some("\t\t\t\t\t"));
    let json = records(&["--format", "jsonl"]);
    assert_eq!(json.lines().nth(1), Some(r#"{"label_id":null,"label":null,"score":null}"#));
}

#[test]
fn hostile_lines_keep_their_position() {
    let mut stdin = Vec::new();
    let long = "word and 東京 ".repeat(700_000);
    for line in [b"\0\0\0", &b"\xff\xfe broken \xc3"[..], long.as_bytes(), &[b'a'; 10_000_000], b"tab\there\rand CR"] {
        stdin.extend_from_slice(SPORTS.as_bytes());
        stdin.push(b'\n');
        stdin.extend_from_slice(line);
        stdin.extend_from_slice(b"\r\n");
    }
    let outcome = builtin().stdin(&stdin).run().success();
    let outcome = outcome.tells(&["1 text was longer than 512 tokens", "1 text was not valid UTF-8"]);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines.len(), 10);
    assert!(lines.iter().step_by(2).all(|line| *line == "1\tSports"), "{lines:?}");
    assert!(lines.iter().all(|line| line.split('\t').count() == 2), "{lines:?}");
    builtin().arg("--quiet").stdin(&stdin).quiet_success();
}

#[test]
fn scores_are_probabilities_best_first() {
    let stdout = builtin().args(["-k", "9", "--format", "jsonl", WORLD]).quiet_success();
    let record: Value = serde_json::from_str(&stdout).unwrap();
    let scores: Vec<f64> = record["scores"].as_array().unwrap().iter().map(|s| s["score"].as_f64().unwrap()).collect();
    assert_eq!(scores.len(), 4, "a K above the number of classes lists all of them");
    assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-6);
    assert!(scores.windows(2).all(|pair| pair[0] >= pair[1]));
    assert_eq!(record["score"], record["scores"][0]["score"]);

    let tsv = builtin().args(["-k", "2", WORLD]).quiet_success();
    let fields: Vec<&str> = tsv.trim_end().split('\t').collect();
    assert_eq!(fields.len(), 6);
    assert_eq!(&fields[..2], ["0", "World"]);
    assert_eq!(fields[2], format!("{:.6}", scores[0]));
}

#[test]
fn jsonl_carries_the_text_and_the_truncation() {
    let text = format!("quote \" tab \t line\nend {}", "and so on ".repeat(300));
    let outcome = builtin().args(["--format", "jsonl", "--with-text", &text]).run().success();
    let record: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(record["text"], text);
    assert_eq!(record["truncated"], true);
    let outcome = builtin().args(["--format", "jsonl", "--max-length", "5", SPORTS, "ok"]).run().success();
    let outcome = outcome.tells(&["1 text was longer than 5 tokens"]);
    assert!(outcome.stdout.lines().next().unwrap().contains("\"truncated\":true"));
    assert!(!outcome.stdout.lines().nth(1).unwrap().contains("truncated"));
}

#[test]
fn a_local_folder_is_a_checkpoint() {
    let stdout = agnews().arg("-m").arg(fixture("tiny")).args([WORLD]).quiet_success();
    assert!(stdout.contains("\tLABEL_"), "{stdout}");
    let named = agnews().arg("-m").arg(fixture("tiny")).args(["--labels", "x,y,z", WORLD]).quiet_success();
    assert!(named.trim_end().ends_with(['x', 'y', 'z']), "{named}");
}

#[test]
fn options_that_do_not_fit_the_checkpoint_are_errors_with_the_reason() {
    builtin().args(["--labels", "a,b", SPORTS]).run().code_is(1).tells(&["2 label names", "has 4"]);
    builtin().args(["--max-length", "513", SPORTS]).run().code_is(1).tells(&["513 tokens", "512"]);
    builtin().args(["--max-length", "2", SPORTS]).run().code_is(1).tells(&["no room for text"]);
    agnews().args(["-m", "./nowhere", SPORTS]).run().code_is(1).tells(&["./nowhere"]).prints("");
}

#[test]
fn usage_errors_exit_with_two() {
    for args in [
        &["--format", "xml"][..],
        &["--no-such-option"],
        &["text", "-f", "file"],
        &["-k", "0", "text"],
        &["--keep", "text"],
        &["-m", "builtin", "--revision", "main", "text"],
    ] {
        let outcome = agnews().args(args).run().code_is(2).prints("");
        assert!(!outcome.stderr.is_empty());
    }
    agnews().arg("--help").run().success();
    agnews().arg("--version").run().success().prints(&format!("agnews {}\n", env!("CARGO_PKG_VERSION")));
}

/// The system's words for a file that does not exist. Windows has others if its folder does not exist either.
fn no_such_file(path: impl AsRef<Path>) -> String {
    std::fs::metadata(path).unwrap_err().to_string()
}

#[test]
fn an_unreadable_second_file_keeps_the_first_files_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lines.txt");
    std::fs::write(&path, format!("{SPORTS}\n{WORLD}\n")).unwrap();
    let missing = folder.path().join("missing.txt");
    let files = [path.to_str().unwrap(), "-f", missing.to_str().unwrap(), "-f", path.to_str().unwrap()];
    let outcome = builtin().arg("-f").args(files).run().code_is(1).prints("1\tSports\n0\tWorld\n");
    outcome.tells(&["cannot open", "missing.txt", &no_such_file(&missing)]);
    let outcome = builtin().arg("-f").args([path.as_path(), "-f".as_ref(), folder.path()]).run().code_is(1);
    // Windows does not even open a folder.
    let words: &[&str] = if cfg!(windows) { &["cannot open"] } else { &["cannot read", "directory"] };
    outcome.prints("1\tSports\n0\tWorld\n").tells(words);
}

#[test]
fn errors_are_one_line_and_verbose_shows_the_chain() {
    let outcome = builtin().args(["-f", "/nonexistent/file"]).run().code_is(1).tells(&["/nonexistent/file"]);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    builtin()
        .args(["-v", "-f", "/nonexistent/file"])
        .run()
        .code_is(1)
        .tells(&[&format!("\n  caused by: {}", no_such_file("/nonexistent/file"))]);
}

#[test]
fn threads_do_not_change_the_records() {
    let stdin = [SPORTS, WORLD, BUSINESS].join("\n").repeat(5);
    let records = |threads: &str| builtin().args(["--scores", "--threads", threads]).stdin(&stdin).quiet_success();
    assert_eq!(records("1"), records("3"));
}
