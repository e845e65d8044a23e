//! `--output`: all or nothing, and resumed to the same bytes. Completions and the manual page.

use crate::harness::{agnews, builtin, Agnews};
use crate::random::Random;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const WORDS: [&str; 12] = [
    "striker",
    "derby",
    "peace",
    "talks",
    "Geneva",
    "shares",
    "profit",
    "forecast",
    "telescope",
    "planet",
    "chip",
    "minister",
];

/// Lines of various lengths, some blank, all different; the number at the start is not in the model's vocabulary.
fn lines(count: usize) -> String {
    let mut random = Random::new(7);
    let mut text = String::new();
    for line in 0..count {
        if line % 50 != 3 {
            text.push_str(&line.to_string());
            for _ in 0..line % 5 {
                text.push(' ');
                text.push_str(random.pick::<&str>(&WORDS));
            }
        }
        text.push('\n');
    }
    text
}

struct Run {
    folder: tempfile::TempDir,
    options: Vec<String>,
}

impl Run {
    /// Classifies a CSV file of `count` records, each with a line break in its text.
    fn new(count: usize, options: &[&str]) -> Run {
        let folder = tempfile::tempdir().unwrap();
        let rows: String = lines(count).lines().map(|line| format!("\"{line}\n\"\"quoted\"\"\"\n")).collect();
        std::fs::write(folder.path().join("in.csv"), format!("text\n{rows}")).unwrap();
        Run { folder, options: options.iter().map(|option| option.to_string()).collect() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn to(&self, output: &Path) -> Agnews {
        builtin().arg("-f").arg(self.path("in.csv")).args(&self.options).arg("-o").arg(output)
    }
}

#[test]
fn records_go_to_the_file_and_nothing_else_is_left() {
    let run = Run::new(5, &["--scores"]);
    let out = run.path("out.tsv");
    assert_eq!(run.to(&out).quiet_success(), "");
    assert_eq!(std::fs::read_to_string(&out).unwrap().lines().count(), 5);
    assert_eq!(std::fs::read_dir(run.folder.path()).unwrap().count(), 2);
}

#[test]
fn a_failed_run_leaves_the_file_unchanged_and_can_be_resumed() {
    let run = Run::new(5, &[]);
    let (out, second) = (run.path("out.tsv"), run.path("second.csv"));
    std::fs::write(&out, "before").unwrap();
    let two = |resume: &[&str]| run.to(&out).arg("-f").arg(&second).args(resume);
    two(&[]).run().code_is(1).tells(&["second.csv", "out.tsv.partial", "--resume"]);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "before");
    assert_eq!(std::fs::read_to_string(run.path("out.tsv.partial")).unwrap().lines().count(), 5);
    run.to(&out).args(["--resume"]).run().code_is(1).tells(&[
        "--file was",
        "second.csv in the interrupted run",
        "delete",
    ]);
    std::fs::write(&second, "text\nThe striker scored.\n").unwrap();
    assert_eq!(two(&["--resume"]).quiet_success(), "");
    let resumed = std::fs::read_to_string(&out).unwrap();
    two(&[]).quiet_success();
    assert_eq!(resumed, std::fs::read_to_string(&out).unwrap());
    assert_eq!(resumed.lines().count(), 6);
    assert_eq!(std::fs::read_dir(run.folder.path()).unwrap().count(), 3);
}

#[test]
fn a_run_that_classified_nothing_leaves_nothing() {
    let run = Run::new(5, &["--text-field", "body"]);
    run.to(&run.path("out.tsv")).run().code_is(1).tells(&["no column \"body\""]);
    agnews().args(["-m", "./nowhere", "-o"]).arg(run.path("out.tsv")).stdin("a\n").run().code_is(1);
    assert_eq!(std::fs::read_dir(run.folder.path()).unwrap().count(), 1);
}

#[test]
fn malformed_records_are_in_the_file_and_fail_the_run() {
    let run = Run::new(2, &[]);
    std::fs::write(run.path("in.csv"), "text,id\nstriker derby,1\nodd\nstriker derby,2\n").unwrap();
    let out = run.path("out.tsv");
    run.to(&out).run().code_is(1).tells(&["line 3", "1 of 3 records is malformed"]);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "1\tSports\n\t\n1\tSports\n");
}

/// The process is killed at arbitrary times, its output torn in the middle of a record, and resumed each time: the
/// result is the same to the byte as that of one undisturbed run.
#[test]
fn a_killed_run_is_resumed_to_the_same_bytes() {
    for format in [&["--format", "jsonl", "-k", "4"][..], &["--format", "csv", "--keep"]] {
        let run = Run::new(3_000, format);
        let (whole, out) = (run.path("whole"), run.path("out"));
        let started = Instant::now();
        run.to(&whole).quiet_success();
        let duration = started.elapsed();
        let expected = std::fs::read(&whole).unwrap();
        let partial = run.path("out.partial");
        let mut kills = 0;
        let mut random = Random::new(u64::from(std::process::id()));
        loop {
            let (mut command, _home) = run.to(&out).arg("--resume").into_command();
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let share = 0.2 + 0.6 * random.below(1000) as f64 / 1000.0;
            std::thread::sleep(duration.mul_f64(share));
            if kills == 3 || child.try_wait().unwrap().is_some() {
                assert!(child.wait().unwrap().success());
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            // A write torn in two by the kill or a full disk.
            if let Ok(metadata) = std::fs::metadata(&partial) {
                let torn = std::fs::OpenOptions::new().write(true).open(&partial).unwrap();
                torn.set_len(metadata.len().saturating_sub(random.below(40) as u64)).unwrap();
            }
        }
        assert!(kills > 0, "the run was over before it could be killed");
        assert!(std::fs::read(&out).unwrap() == expected, "{format:?}: other bytes after {kills} kills");
        assert!(!partial.exists() && !run.path("out.partial.state").exists());
    }
}

#[test]
fn two_runs_do_not_write_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.tsv");
    let (mut command, _home) = builtin().arg("-o").arg(&out).into_command();
    let mut first = command.stdin(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while !folder.path().join("out.tsv.partial.state").exists() {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    builtin().arg("-o").arg(&out).stdin("striker\n").run().code_is(1).tells(&["another run is writing"]);
    drop(first.stdin.take());
    assert!(first.wait().unwrap().success());
}

#[test]
#[cfg(unix)]
fn devices_are_not_replaced() {
    builtin().args(["-o", "/dev/null", "text"]).run().code_is(1).tells(&["/dev/null", "not a regular file"]);
    let stdout = builtin().args(["-o", "-", "The striker scored twice in the derby."]).quiet_success();
    assert_eq!(stdout, "1\tSports\n");
}

#[test]
fn completions_and_the_manual_page_name_every_option() {
    let man = agnews().arg("--man").quiet_success();
    assert!(man.starts_with(".ie \\n(.g .ds Aq") && man.contains(".TH agnews 1"), "{}", &man[..200.min(man.len())]);
    for shell in ["bash", "zsh", "fish"] {
        let script = agnews().args(["--completions", shell]).quiet_success();
        for option in ["text-field", "label-field", "min-score", "resume", "download", "null"] {
            assert!(script.contains(option), "{shell}: {option}");
            assert!(man.replace("\\-", "-").contains(&format!("--{option}")), "{option}");
        }
    }
}
