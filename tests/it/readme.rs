//! Runs the README's examples: a command after `$ ` in a `console` block must print the lines below it.

use std::path::Path;
use std::process::Command;

/// A command and what it prints.
#[derive(Debug)]
struct Example {
    command: String,
    output: String,
}

/// The examples of all `console` blocks, in order.
fn examples(markdown: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut in_block = false;
    for line in markdown.lines() {
        if line.starts_with("```") {
            in_block = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| in_block) {
            examples.push(Example { command: command.to_owned(), output: String::new() });
        } else if in_block {
            let example = examples.last_mut().expect("a console block begins with a command");
            example.output.push_str(line);
            example.output.push('\n');
        }
    }
    examples
}

/// Whether two outputs are equal, ignoring the last digits of scores, which depend on the processor's arithmetic.
fn same_but_for_rounding(a: &str, b: &str) -> bool {
    let is_numeric = |c: char| c.is_ascii_digit() || c == '.';
    let (mut a, mut b) = (a, b);
    while !a.is_empty() && !b.is_empty() {
        let numbers = [a, b].map(|text| text.split(|c| !is_numeric(c)).next().unwrap_or(""));
        let values = numbers.map(|number| number.parse::<f64>());
        match values {
            [Ok(x), Ok(y)] if numbers.iter().all(|number| number.contains('.')) && (x - y).abs() < 2e-6 => {
                (a, b) = (&a[numbers[0].len()..], &b[numbers[1].len()..]);
            }
            _ => {
                let (x, y) = (a.chars().next(), b.chars().next());
                if x != y {
                    return false;
                }
                let length = x.map_or(0, char::len_utf8);
                (a, b) = (&a[length..], &b[length..]);
            }
        }
    }
    a.is_empty() && b.is_empty()
}

#[test]
fn only_rounding_may_differ() {
    assert!(same_but_for_rounding("1\tSports\t0.991500\n", "1\tSports\t0.991501\n"));
    assert!(!same_but_for_rounding("1\tSports\t0.991500\n", "1\tSports\t0.991600\n"));
    assert!(!same_but_for_rounding("1\tSports\n", "2\tSports\n"));
    assert!(!same_but_for_rounding("1\tSports\n", "1\tSports\nx"));
    assert!(!same_but_for_rounding("12\n", "13\n"));
}

#[test]
fn every_example_prints_what_the_readme_shows() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let examples = examples(&readme);
    assert!(examples.len() >= 8, "only {} examples found", examples.len());
    let binary = Path::new(env!("CARGO_BIN_EXE_agnews"));
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", binary.parent().unwrap().display());
    // One folder for all: an example may read a file written by an earlier one.
    let folder = tempfile::tempdir().unwrap();
    for example in &examples {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&example.command).current_dir(folder.path());
        // With AMX the default arithmetic is different, and changes more than the last digit shown.
        command.env_clear().env("PATH", &path).env("HOME", folder.path());
        if cfg!(target_arch = "x86_64") {
            command.env("AGNEWS_CPU", "avx512bf16");
        }
        // Standard error after standard output, as on a terminal.
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let is_same = same_but_for_rounding(&printed, &example.output);
        assert!(is_same, "README.md: $ {}\nprints\n{printed}\nshown is\n{}", example.command, example.output);
    }
}
