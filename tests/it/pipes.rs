//! The program in a pipeline: input is answered as it arrives, and a closed pipe ends the program.

use crate::harness::builtin;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

#[test]
fn a_line_is_answered_while_the_pipe_stays_open() {
    let (mut command, _home) = builtin().into_command();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for text in ["The striker scored twice in the derby.", "", "The striker won the match in the last minute."] {
        writeln!(stdin, "{text}").unwrap();
        // Blocks forever if the program waits for more input; the test would then hang.
        let mut record = String::new();
        stdout.read_line(&mut record).unwrap();
        assert_eq!(record, if text.is_empty() { "\t\n" } else { "1\tSports\n" });
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let (mut command, _home) = builtin().into_command();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        // Far more than a pipe can hold: the program must exit by itself, and then writing fails.
        (0..20_000).try_for_each(|_| writeln!(stdin, "The striker scored twice in the derby."))
    });
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert!(feeder.join().unwrap().is_err(), "the program read everything although nobody listened");
    assert_eq!(first, "1\tSports\n");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

/// A full disk is not a closed pipe: it is reported.
#[test]
#[cfg(target_os = "linux")]
fn output_that_cannot_be_written_is_an_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (mut command, _home) = builtin().arg("The striker scored.").into_command();
    let output = command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to standard output"));
}
