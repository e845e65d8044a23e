//! Faults once found by hard use: lost data, wrong data classified silently, options ignored.

use crate::harness::{builtin, Agnews};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SPORTS: &str = "The striker scored twice in the last ten minutes to win the derby.";
const WORLD: &str = "Peace talks between the two governments resumed in Geneva on Monday.";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// `-f` with the file of that name.
    fn classify(&self, name: &str) -> Agnews {
        builtin().arg("-f").arg(self.path(name))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

// Data loss

#[test]
#[cfg(unix)]
fn an_input_is_not_overwritten_through_standard_input_either() {
    let folder = Folder::new();
    let file = folder.write("in.txt", SPORTS);
    let (mut command, _home) = builtin().arg("-o").arg(&file).into_command();
    let output = command.stdin(fs::File::open(&file).unwrap()).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--output would overwrite standard input"));
    assert_eq!((folder.read("in.txt").as_str(), folder.names()), (SPORTS, vec!["in.txt".to_owned()]));
}

/// Leaves the `out.tsv.partial` of a run that failed at a second file, which does not exist.
fn interrupted(folder: &Folder) {
    folder.write("in.txt", format!("{SPORTS}\n").repeat(40));
    let run = folder.classify("in.txt").arg("-f").arg(folder.path("missing.txt")).arg("-o").arg(folder.path("out.tsv"));
    run.run().code_is(1).tells(&["out.tsv.partial", "the same command with --resume continues"]);
}

fn resumed(folder: &Folder) -> Agnews {
    let run = folder.classify("in.txt").arg("-f").arg(folder.path("missing.txt")).arg("-o").arg(folder.path("out.tsv"));
    run.arg("--resume")
}

#[test]
fn an_interrupted_run_is_not_started_again_by_accident() {
    let folder = Folder::new();
    interrupted(&folder);
    let before = folder.read("out.tsv.partial");
    let again = folder.classify("in.txt").arg("-o").arg(folder.path("out.tsv")).run().code_is(1);
    again.tells(&["holds 40 records of an interrupted run", "--resume", "delete"]);
    assert_eq!(folder.read("out.tsv.partial"), before);
}

#[test]
fn a_run_is_not_resumed_on_other_records() {
    let shuffled = format!("{}{WORLD}\n", format!("{SPORTS}\n").repeat(39));
    for (content, expected) in
        [(shuffled, "cannot resume: the input"), (format!("{SPORTS}\n"), "cannot resume: the input")]
    {
        let folder = Folder::new();
        interrupted(&folder);
        folder.write("missing.txt", "");
        folder.write("in.txt", content);
        resumed(&folder).run().code_is(1).tells(&[expected, "delete"]);
        assert!(!folder.path("out.tsv").exists());
        assert_eq!(folder.read("out.tsv.partial").lines().count(), 40, "the work is still there");
    }
}

#[test]
fn a_run_is_resumed_on_an_input_that_grew() {
    let folder = Folder::new();
    interrupted(&folder);
    folder.write("in.txt", format!("{}{WORLD}\n", format!("{SPORTS}\n").repeat(40)));
    folder.write("missing.txt", "");
    resumed(&folder).quiet_success();
    assert!(folder.read("out.tsv").ends_with("1\tSports\n0\tWorld\n"));
    assert_eq!(folder.names(), ["in.txt", "missing.txt", "out.tsv"]);
}

#[test]
fn a_run_is_not_resumed_with_other_weights_or_options() {
    let folder = Folder::new();
    let model = folder.path("model");
    fs::create_dir(&model).unwrap();
    for file in fs::read_dir(crate::harness::fixture("tiny")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), model.join(file.file_name())).unwrap();
    }
    folder.write("in.txt", format!("{SPORTS}\n"));
    let run = || {
        let inputs = ["-f".into(), folder.path("in.txt"), "-f".into(), folder.path("missing.txt")];
        crate::harness::agnews().arg("-m").arg(&model).args(inputs).arg("-o").arg(folder.path("out.tsv"))
    };
    run().run().code_is(1);
    run()
        .args(["--resume", "-k", "2"])
        .run()
        .code_is(1)
        .tells(&["--top-k was not set in the interrupted run, and is 2 now"]);
    folder.write("missing.txt", "");
    let weights = model.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    run().arg("--resume").run().code_is(1).tells(&["the checkpoint was", "SHA-256", "delete"]);
}

#[test]
fn a_failed_evaluation_does_not_suggest_refused_options() {
    let folder = Folder::new();
    folder.write("in.csv", format!("text,gold\n{SPORTS},1\n"));
    let run = folder.classify("in.csv").arg("-f").arg(folder.path("missing.csv")).args(["--label-field", "gold", "-o"]);
    let outcome = run.arg(folder.path("out.tsv")).run().code_is(1).tells(&["missing.csv"]);
    assert!(!outcome.stderr.contains("--resume"), "{}", outcome.stderr);
}

#[test]
#[cfg(unix)]
fn an_interrupt_says_how_to_continue() {
    let folder = Folder::new();
    let (mut command, _home) = builtin().arg("-o").arg(folder.path("out.tsv")).into_command();
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(format!("{SPORTS}\n").repeat(100).as_bytes()).unwrap();
    let began = Instant::now();
    while fs::metadata(folder.path("out.tsv.partial")).map_or(0, |file| file.len()) == 0 {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!(output.status.code(), Some(130));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("out.tsv.partial") && stderr.contains("--resume"), "{stderr}");
}

#[test]
fn a_report_is_written_even_if_nobody_reads_the_records() {
    let folder = Folder::new();
    let rows: String = (0..3_000).map(|_| format!("{SPORTS},Sports\n")).collect();
    folder.write("in.csv", format!("text,gold\n{rows}"));
    let (mut command, _home) =
        folder.classify("in.csv").args(["--label-field", "gold", "--report"]).arg(folder.path("r.json")).into_command();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_str(&folder.read("r.json")).unwrap();
    assert_eq!(report["evaluated"], 3_000);
}

// Wrong data classified silently

#[test]
fn files_that_hold_no_text_are_refused_by_name() {
    let folder = Folder::new();
    for (name, start, expected) in [
        ("a.xz", &b"\xfd7zXZ\0\0"[..], "xz -dc"),
        ("a.xlsx", b"PK\x03\x04\x14\0", "zip archive"),
        ("a.parquet", b"PAR1\x15\x04", "Parquet"),
        ("a.pdf", b"%PDF-1.7\n", "PDF"),
        ("a.bz2", b"BZh91AY&SY\x8b", "bzip2"),
    ] {
        folder.write(name, start);
        folder.classify(name).run().code_is(1).prints("").tells(&[name, expected]);
    }
}

#[test]
fn utf16_is_decoded() {
    let folder = Folder::new();
    let text = format!("{SPORTS}\r\n{WORLD}\r\n");
    let units = [0xfeff].into_iter().chain(text.encode_utf16());
    folder.write("a.txt", units.flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
    assert_eq!(folder.classify("a.txt").quiet_success(), "1\tSports\n0\tWorld\n");
}

#[test]
fn a_json_array_is_read_element_by_element() {
    let folder = Folder::new();
    folder.write("a.json", format!("[\n  {{\"text\": \"{SPORTS}\"}},\n  {{\"text\": \"{WORLD}\"}}\n]\n"));
    assert_eq!(folder.classify("a.json").quiet_success(), "1\tSports\n0\tWorld\n");
    folder.write("lines.json", format!("{{\"text\":\"{SPORTS}\"}}\n{{\"text\":\"{WORLD}\"}}\n"));
    assert_eq!(folder.classify("lines.json").quiet_success(), "1\tSports\n0\tWorld\n");
}

#[test]
fn a_csv_with_another_delimiter_is_not_taken_for_one_column() {
    let folder = Folder::new();
    folder.write("a.csv", format!("id;text\n1;{SPORTS}\n"));
    folder.classify("a.csv").run().code_is(1).prints("").tells(&["id;text", "--delimiter ';'", "--text-field"]);
    let read = folder.classify("a.csv").args(["--delimiter", ";", "--id-field", "id"]).quiet_success();
    assert_eq!(read, "1\t1\tSports\n");
    folder.write("tabs.csv", format!("id\ttext\n1\t{WORLD}\n"));
    folder.classify("tabs.csv").run().code_is(1).tells(&["--delimiter tab"]);
    assert_eq!(folder.classify("tabs.csv").args(["--delimiter", "tab"]).quiet_success(), "0\tWorld\n");
}

#[test]
fn duplicate_names_never_make_duplicate_keys() {
    let folder = Folder::new();
    folder.write("a.csv", format!("a,a,text\n1,2,{SPORTS}\n"));
    let json = folder.classify("a.csv").args(["--keep", "--format", "jsonl"]).quiet_success();
    assert!(json.starts_with("{\"a\":\"1\",\"a_2\":\"2\",\"text\":"), "{json}");
    folder.write("a.jsonl", format!("{{\"text\":\"{WORLD}\",\"text\":\"{SPORTS}\"}}\n"));
    let json = folder.classify("a.jsonl").args(["--keep", "--format", "jsonl"]).quiet_success();
    assert!(json.contains("\"label\":\"Sports\"") && json.matches("\"text\"").count() == 1, "{json}");
}

// Ignored options

#[test]
fn an_output_file_is_in_the_format_of_its_name() {
    let folder = Folder::new();
    folder.write("in.txt", SPORTS);
    let to = |name: &str| folder.classify("in.txt").arg("-o").arg(folder.path(name)).quiet_success();
    to("out.csv");
    assert!(folder.read("out.csv").starts_with("label_id,label,score\n1,Sports,0."));
    to("out.jsonl");
    assert!(folder.read("out.jsonl").starts_with("{\"label_id\":1,"));
    to("out.csv.gz");
    let mut text = String::new();
    let gzip = flate2::read::MultiGzDecoder::new(fs::File::open(folder.path("out.csv.gz")).unwrap());
    std::io::Read::read_to_string(&mut BufReader::new(gzip), &mut text).unwrap();
    assert_eq!(text, folder.read("out.csv"));
    to("out.tsv.zst");
    assert_eq!(
        folder
            .classify("out.tsv.zst")
            .args(["--no-header", "--text-field", "2", "--id-field", "1"])
            .quiet_success()
            .matches('\n')
            .count(),
        1
    );
}

#[test]
fn a_ragged_row_keeps_its_fields() {
    let folder = Folder::new();
    folder.write("a.csv", format!("id,text\n7\n8,{SPORTS}\n9,a,b\n"));
    let outcome = folder.classify("a.csv").args(["--keep", "--format", "csv"]).run().code_is(1);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!((lines[1], lines[3]), ("7,,,,", "9,a,,,"));
}

#[test]
fn a_json_record_without_the_id_is_one_malformed_record() {
    let folder = Folder::new();
    folder.write(
        "a.jsonl",
        format!("{{\"id\":1,\"text\":\"{SPORTS}\"}}\n{{\"text\":\"{SPORTS}\"}}\n{{\"id\":3,\"text\":\"{WORLD}\"}}\n"),
    );
    let outcome = folder.classify("a.jsonl").args(["--id-field", "id"]).run().code_is(1);
    outcome.prints("1\t1\tSports\n\t\t\n3\t0\tWorld\n").tells(&["line 2: it has no \"id\""]);
}

#[test]
fn the_chosen_field_may_have_another_name_in_the_next_file() {
    let folder = Folder::new();
    folder.write("a.csv", format!("id,text\n1,{SPORTS}\n"));
    folder.write("b.csv", format!("ident,text\n2,{WORLD}\n"));
    let both = folder.classify("a.csv").arg(folder.path("b.csv")).args(["--id-field", "1"]).quiet_success();
    assert_eq!(both, "1\t1\tSports\n2\t0\tWorld\n");
}

#[test]
fn a_tsv_may_start_with_an_empty_line() {
    let folder = Folder::new();
    folder.write("a.tsv", format!("\nid\ttext\n1\t{SPORTS}\n"));
    assert_eq!(folder.classify("a.tsv").quiet_success(), "1\tSports\n");
}

#[test]
fn spaces_in_file_names_are_kept() {
    let folder = Folder::new();
    folder.classify("two  spaces.txt").run().code_is(1).tells(&["two  spaces.txt"]);
}

#[test]
fn an_argument_that_is_a_file_is_noted() {
    let folder = Folder::new();
    let path = folder.write("lines.txt", SPORTS);
    let outcome = builtin().arg(&path).run().success();
    assert_eq!(outcome.stdout.lines().count(), 1);
    outcome.tells(&["its name is classified here", "use -f"]);
}

#[test]
#[cfg(target_os = "linux")]
fn help_that_cannot_be_printed_is_an_error() {
    for args in [&["--help"][..], &["--version"], &["--man"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (mut command, _home) = crate::harness::agnews().args(args).into_command();
        let output = command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to standard output"));
    }
}

#[test]
#[cfg(unix)]
fn a_closed_standard_output_is_an_error() {
    for call in ["-m builtin 'The striker scored.'", "--help"] {
        let shell = format!("exec {} {call} >&-", env!("CARGO_BIN_EXE_agnews"));
        let output = Command::new("sh").args(["-c", &shell]).env_clear().stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{call}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let quiet = Command::new("sh")
        .args(["-c", &format!("exec {} -m builtin 'The striker scored.' > /dev/null", env!("CARGO_BIN_EXE_agnews"))])
        .env_clear()
        .output()
        .unwrap();
    assert!(quiet.status.success(), "discarding the records on purpose is fine");
}

#[test]
fn new_faults_are_reported_after_a_resume() {
    let folder = Folder::new();
    folder.write("in.csv", "text\n".to_owned() + &"odd,row\n".repeat(20));
    let run =
        || folder.classify("in.csv").arg("-f").arg(folder.path("second.csv")).arg("-o").arg(folder.path("out.tsv"));
    run().run().code_is(1);
    folder.write("second.csv", "text\nanother,odd\n");
    let outcome = run().arg("--resume").run().code_is(1).tells(&["second.csv, line 2: it has 2 fields", "21 of 21"]);
    assert!(!outcome.stderr.contains("in.csv"), "the old ones were already reported\n{}", outcome.stderr);
}

// First results

/// The first records are printed long before the whole input is classified.
#[test]
fn the_first_records_come_before_the_rest_is_read() {
    let folder = Folder::new();
    folder.write("in.txt", format!("{SPORTS}\n").repeat(400));
    let (mut command, _home) = folder.classify("in.txt").arg("-o").arg(folder.path("out.tsv")).into_command();
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    // The state is deleted with the run, and window growth is tested in src/source; here only the records are checked.
    assert_eq!(folder.read("out.tsv"), "1\tSports\n".repeat(400));
}

// New features

#[test]
fn files_lines_and_texts_are_included_on_request() {
    let folder = Folder::new();
    folder.write("a.txt", format!("{SPORTS}\n\n"));
    folder.write("b.csv", format!("text\n\"{WORLD}\"\n"));
    let run = || folder.classify("a.txt").arg(folder.path("b.csv"));
    // As TSV writes the backslashes of Windows.
    let name = |name: &str| folder.path(name).display().to_string().replace('\\', "\\\\");
    assert_eq!(
        run().args(["-H", "-n"]).quiet_success(),
        format!("{0}\t1\t1\tSports\n{0}\t2\t\t\n{1}\t2\t0\tWorld\n", name("a.txt"), name("b.csv"))
    );
    let text = run().args(["--with-text", "-n"]).quiet_success();
    assert_eq!(text, format!("1\t1\tSports\t{SPORTS}\n2\t\t\t\n2\t0\tWorld\t{WORLD}\n"));
    let csv = run().args(["--with-text", "--format", "csv"]).quiet_success();
    assert!(csv.starts_with("label_id,label,score,text\n1,Sports,0."), "{csv}");
}

#[test]
fn only_and_count() {
    let folder = Folder::new();
    folder.write("a.txt", format!("{SPORTS}\n{WORLD}\n\n{SPORTS}\n"));
    let run = || folder.classify("a.txt");
    assert_eq!(run().args(["--only", "sports", "-n"]).quiet_success(), format!("1:{SPORTS}\n4:{SPORTS}\n"));
    assert_eq!(run().args(["--only", "World,Sci/Tech"]).quiet_success(), format!("{WORLD}\n"));
    run()
        .args(["--only", "Weather"])
        .run()
        .code_is(1)
        .tells(&["no label \"Weather\"", "World, Sports, Business, Sci/Tech"]);
    assert_eq!(
        run().arg("--count").quiet_success(),
        "0\tWorld\t1\n1\tSports\t2\n2\tBusiness\t0\n3\tSci/Tech\t0\n\t\t1\n"
    );
}

#[test]
fn the_model_can_come_from_the_environment() {
    let stdout = crate::harness::agnews().env("AGNEWS_MODEL", "builtin").arg(SPORTS).quiet_success();
    assert_eq!(stdout, "1\tSports\n");
}

#[test]
fn the_manual_has_sections_that_keep_their_lines() {
    let man = crate::harness::agnews().arg("--man").quiet_success();
    for section in ["EXIT STATUS", "ENVIRONMENT", "EXAMPLES"] {
        assert!(man.contains(&format!(".SH \"{section}\"")) || man.contains(&format!(".SH {section}")), "{section}");
    }
    assert!(man.contains("agnews \\-\\-scores < headlines.txt\n"), "{man}");
    let bash = crate::harness::agnews().args(["--completions", "bash"]).quiet_success();
    assert!(bash.contains("builtin") && bash.contains("cuda"));
}

#[test]
fn errors_of_the_command_line_look_like_all_others() {
    let outcome = crate::harness::agnews().arg("--no-such-option").run().code_is(2);
    assert!(outcome.stderr.starts_with("agnews: error: unexpected argument"), "{}", outcome.stderr);
}
