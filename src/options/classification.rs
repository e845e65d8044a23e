//! What a command line that classifies means: what is read and how, what is written where, what is evaluated.

use super::environment::Environment;
use super::{positive, usage, UsageError};
use crate::cli::{self, Cli, CommandLine};
use crate::decision::{DecisionOptions, Unsure};
use crate::evaluation::report;
use crate::output::{file, Columns, Format, RecordOptions};
use crate::source::{FieldSelection, Input, InputFormat, Inputs, KeptFields, ReadOptions, Separator};
use clap::ValueEnum;
use same_file::Handle;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// From texts to records.
#[derive(Debug)]
pub struct ClassificationOptions {
    /// Where the texts come from.
    pub inputs: Inputs,
    /// How files are read.
    pub reading: ReadOptions,
    /// What happens at a malformed record.
    pub malformed: MalformedPolicy,
    /// How scores become labels.
    pub decision: DecisionOptions,
    /// Whether the labels are explained.
    pub explanation: Option<ExplanationOptions>,
    /// What the records look like.
    pub records: RecordOptions,
    /// Where they go.
    pub destination: Destination,
    /// A file with the calibration to use.
    pub calibration: Option<PathBuf>,
    /// What the predictions are compared with.
    pub evaluation: Option<EvaluationOptions>,
    /// How predictions in two dtypes are compared with each other.
    pub comparison: Option<ComparisonOptions>,
    /// Whether a progress bar would not tear records that scroll over the same terminal.
    pub shows_progress: bool,
    /// The options that the records depend on, as they were typed: what a run that continues another must repeat.
    pub settings: Vec<(String, String)>,
    /// The command line as a shell would take it, for the report.
    pub command: String,
}

/// What happens at a malformed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MalformedPolicy {
    /// An empty record stands in its place, and the run fails at its end.
    GoOn,
    /// The run ends there.
    Stop,
}

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, written whole or not at all.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether to continue an interrupted run.
        resume: bool,
    },
    /// Nowhere: only the evaluation is wanted.
    Nowhere,
}

/// What predictions are compared with.
#[derive(Debug)]
pub struct EvaluationOptions {
    /// The field with the gold label.
    pub label_field: String,
    /// The id of the first label in the gold labels.
    pub first_label_id: i64,
    /// The records of an earlier run, to compare with.
    pub against: Option<PathBuf>,
    /// The precision for which a minimum score is sought.
    pub target_precision: Option<f64>,
    /// What comes of it.
    pub result: EvaluationResult,
}

impl EvaluationOptions {
    /// Whether a calibration comes of it.
    pub fn fits_calibration(&self) -> bool {
        matches!(self.result, EvaluationResult::Calibration(_))
    }
}

/// What comes of an evaluation.
#[derive(Debug)]
pub enum EvaluationResult {
    /// Its figures.
    Figures {
        /// Whether they go to standard output, because no records do.
        to_stdout: bool,
        /// The file for them, and its format.
        report: Option<(PathBuf, report::Format)>,
    },
    /// A calibration, in this file.
    Calibration(PathBuf),
    /// A part of [`ComparisonOptions`].
    Comparison,
}

/// How two dtypes are compared.
#[derive(Debug)]
pub struct ComparisonOptions {
    /// Their names.
    pub dtypes: [String; 2],
    /// The file for the comparison as JSON.
    pub report: Option<PathBuf>,
}

/// How labels are explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExplanationOptions {
    /// How many of the strongest words are told; `None` tells all, in the order of the text.
    pub strongest: Option<NonZeroUsize>,
}

/// How many words are listed beside a marked text, unless the user says how many.
const LISTED_WORDS: usize = 12;

/// Options that do not change the records, or whose effect is part of the checkpoint's and the arithmetic's identity.
const WITHOUT_EFFECT_ON_RECORDS: [&str; 12] = [
    "--model",
    "--revision",
    "--offline",
    "--output",
    "--resume",
    "--color",
    "--device",
    "--dtype",
    "--threads",
    "--quiet",
    "--verbose",
    "--strict",
];

/// Resolves the part of the command line that is about records.
pub(super) fn resolve(
    CommandLine { cli, given, typed }: &CommandLine,
    environment: &Environment,
) -> Result<ClassificationOptions, UsageError> {
    let inputs = inputs(&cli.texts, &cli.files)?;
    let reading = reading(cli)?;
    let comparison = comparison(cli)?;
    let evaluation = evaluation(cli)?;
    let destination = destination(cli)?;
    let records = records(cli, typed, &destination, environment)?;
    check_fields(cli, &inputs, &reading, &records)?;
    let others = [&cli.against, &cli.calibration].into_iter().flatten().cloned().map(Input::File);
    let read: Vec<Input> = inputs.files().iter().cloned().chain(others).collect();
    check_files(&read, &destination, &[("--report", &cli.report), ("--calibrate", &cli.calibrate)])?;
    let is_terminal = destination == Destination::Stdout && environment.terminal_width.is_some();
    let depend = |(name, _): &&(String, String)| !WITHOUT_EFFECT_ON_RECORDS.contains(&name.as_str());
    Ok(ClassificationOptions {
        malformed: if cli.strict { MalformedPolicy::Stop } else { MalformedPolicy::GoOn },
        decision: decision(cli)?,
        explanation: explanation(cli)?,
        shows_progress: !is_terminal,
        settings: given.iter().filter(depend).cloned().collect(),
        command: typed.clone(),
        calibration: cli.calibration.clone(),
        destination,
        evaluation,
        comparison,
        inputs,
        reading,
        records,
    })
}

fn inputs(texts: &[String], files: &[PathBuf]) -> Result<Inputs, UsageError> {
    if !files.is_empty() {
        let inputs: Vec<Input> = files.iter().map(|path| input(path)).collect();
        return match inputs.iter().filter(|input| **input == Input::Stdin).count() {
            0 | 1 => Ok(Inputs::Files(inputs)),
            _ => usage("--file - may be given only once: standard input can be read only once"),
        };
    }
    match texts {
        [] => Ok(Inputs::Files(vec![Input::Stdin])),
        [only] if only == "-" => Ok(Inputs::Files(vec![Input::Stdin])),
        texts if texts.iter().any(|text| text == "-") => usage("`-` (standard input) cannot be combined with texts"),
        texts => Ok(Inputs::Texts(texts.to_vec())),
    }
}

fn input(path: &Path) -> Input {
    match path.as_os_str() == "-" {
        true => Input::Stdin,
        false => Input::File(path.to_owned()),
    }
}

fn reading(cli: &Cli) -> Result<ReadOptions, UsageError> {
    if cli.text_field.iter().any(String::is_empty) {
        return usage("--text-field has an empty name: separate names with single commas");
    }
    let kept = match &cli.id_field {
        _ if cli.keep => KeptFields::All,
        Some(name) => KeptFields::One(name.clone()),
        None => KeptFields::None,
    };
    Ok(ReadOptions {
        format: cli.input_format.map(|format| match format {
            cli::InputFormat::Lines => InputFormat::Lines,
            cli::InputFormat::Csv => InputFormat::Csv,
            cli::InputFormat::Tsv => InputFormat::Tsv,
            cli::InputFormat::Jsonl => InputFormat::Jsonl,
            cli::InputFormat::Json => InputFormat::Json,
        }),
        separator: if cli.null { Separator::Nul } else { Separator::LineBreak },
        pairs: cli.pairs,
        delimiter: cli.delimiter.as_deref().map(delimiter).transpose()?,
        fields: FieldSelection {
            text: cli.text_field.clone(),
            text_pair: cli.pair_field.clone(),
            label: cli.label_field.clone(),
            kept,
            header: !cli.no_header,
        },
    })
}

fn delimiter(typed: &str) -> Result<u8, UsageError> {
    match typed.as_bytes() {
        b"tab" | b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n') => Ok(*byte),
        _ => usage(format!("--delimiter {typed:?}: expected one ASCII character other than a quote, or `tab`")),
    }
}

/// Checks that the inputs have what the options speak of: plain lines have no fields, objects no columns.
fn check_fields(cli: &Cli, inputs: &Inputs, reading: &ReadOptions, records: &RecordOptions) -> Result<(), UsageError> {
    let asked = [
        (!cli.text_field.is_empty(), "--text-field"),
        (cli.pair_field.is_some(), "--pair-field"),
        (cli.label_field.is_some(), "--label-field"),
        (cli.keep, "--keep"),
        (cli.id_field.is_some(), "--id-field"),
    ];
    let asked = asked.iter().find(|(is_asked, _)| *is_asked).map(|(_, option)| option);
    if let (Inputs::Texts(_), Some(option)) = (inputs, asked) {
        return usage(format!("{option} is for files and standard input: texts given as arguments have no fields"));
    }
    let is_table = matches!(records.format, Format::Tsv | Format::Csv);
    for input in inputs.files() {
        match (reading.format_of(input), asked) {
            (InputFormat::Lines, Some(option)) => {
                return usage(format!(
                    "{option} needs records with fields, but {input} is read as plain lines: give its format with \
                     --input-format csv, tsv, jsonl or json"
                ))
            }
            (InputFormat::Lines, None) => {}
            (_, _) if reading.pairs => {
                return usage(format!(
                    "--pairs is for plain lines, but {input} has fields: name the second with --pair-field"
                ))
            }
            (_, _) if reading.separator == Separator::Nul => {
                return usage(format!("--null is for plain texts, but {input} is read as records with fields"))
            }
            (InputFormat::Jsonl | InputFormat::Json, _) if reading.fields.kept == KeptFields::All && is_table => {
                return usage(format!(
                    "--keep needs --format jsonl for the objects of {input}: their keys may differ, but a table has \
                     fixed columns (--id-field copies one field)"
                ))
            }
            _ => {}
        }
    }
    Ok(())
}

fn decision(cli: &Cli) -> Result<DecisionOptions, UsageError> {
    if cli.min_score.is_some_and(|min_score| !(0.0..=1.0).contains(&min_score)) {
        return usage("--min-score must be from 0 to 1");
    }
    if cli.threshold.is_some_and(|threshold| threshold.is_nan()) {
        return usage("--threshold must be a number");
    }
    let unsure = |min_score| Unsure { min_score, name: cli.unsure.clone().unwrap_or_default() };
    Ok(DecisionOptions {
        top_k: positive("--top-k", cli.top_k)?,
        unsure: cli.min_score.map(unsure),
        threshold: cli.threshold,
        thresholds: None,
    })
}

fn explanation(cli: &Cli) -> Result<Option<ExplanationOptions>, UsageError> {
    let options = |strongest| Ok(ExplanationOptions { strongest: positive("--explain", strongest)? });
    cli.explain.map(options).transpose()
}

fn records(
    cli: &Cli,
    typed: &str,
    destination: &Destination,
    environment: &Environment,
) -> Result<RecordOptions, UsageError> {
    let columns = Columns {
        filename: cli.with_filename,
        line_number: cli.line_number,
        score: cli.scores,
        without_score: cli.dtype == cli::Dtype::Cascade,
        text: cli.with_text,
        window: cli.windows,
        text_pair: cli.with_text && (cli.pairs || cli.pair_field.is_some()),
        words: cli.explain.is_some(),
    };
    let Columns { without_score, words, .. } = columns;
    let shown = Columns { score: cli.scores, without_score, words, ..Columns::default() };
    let is_plain = !cli.keep && cli.id_field.is_none() && columns == shown;
    let listed = cli.explain.flatten().unwrap_or(LISTED_WORDS);
    let page = || Format::Page { command: typed.to_owned(), listed };
    let style = environment.terminal_style(cli.color).filter(|_| is_plain && *destination == Destination::Stdout);
    let format = match (cli.format, destination, style) {
        _ if cli.count => Format::Count,
        _ if !cli.only.is_empty() => Format::Only { labels: cli.only.clone(), null: cli.null },
        (Some(cli::Format::Html), ..) => page(),
        (Some(cli::Format::Tsv), ..) => Format::Tsv,
        (Some(cli::Format::Csv), ..) => Format::Csv,
        (Some(cli::Format::Jsonl), ..) => Format::Jsonl,
        (None, Destination::File { path, .. }, _) if columns.words && is_page(path) => page(),
        (None, Destination::File { path, .. }, _) => by_extension(path),
        (None, _, Some(style)) if columns.words => Format::Marked { style, listed },
        (None, _, Some(style)) if cli.top_k.is_some() => Format::Bars(style),
        (None, ..) => Format::Tsv,
    };
    if matches!(format, Format::Page { .. }) {
        check_page(cli)?;
    }
    // A TSV of ids and labels has no header, so that it stands line by line beside its input. One with the input's columns
    // has their names too.
    let header = !cli.no_header && (format == Format::Csv || cli.keep);
    Ok(RecordOptions { format, header, columns })
}

/// A page shows texts, labels and words, and nothing else.
fn check_page(cli: &Cli) -> Result<(), UsageError> {
    let unfit = [(cli.keep, "--keep"), (cli.id_field.is_some(), "--id-field"), (cli.top_k.is_some(), "--top-k")];
    match unfit.iter().find(|(is_given, _)| *is_given) {
        _ if cli.explain.is_none() => {
            usage("--format html is a page with the words that hold up each label: add --explain")
        }
        Some((_, option)) => {
            usage(format!("{option} needs a format with fields: a page shows texts, labels and words"))
        }
        None => Ok(()),
    }
}

fn is_page(path: &Path) -> bool {
    let name = path.to_string_lossy().to_lowercase();
    [".html", ".html.gz", ".html.zst"].iter().any(|extension| name.ends_with(extension))
}

/// The format that a file's extension names, as for input.
fn by_extension(path: &Path) -> Format {
    match InputFormat::of(&Input::File(path.to_owned())) {
        InputFormat::Csv => Format::Csv,
        InputFormat::Jsonl | InputFormat::Json => Format::Jsonl,
        InputFormat::Tsv | InputFormat::Lines => Format::Tsv,
    }
}

fn destination(cli: &Cli) -> Result<Destination, UsageError> {
    if cli.no_results || cli.calibrate.is_some() || !cli.compare.is_empty() {
        return Ok(Destination::Nowhere);
    }
    let Some(path) = cli.output.as_ref().filter(|path| path.as_os_str() != "-") else {
        return match cli.resume {
            true => usage("--resume needs --output with the name of a file"),
            false => Ok(Destination::Stdout),
        };
    };
    if cli.resume && cli.label_field.is_some() {
        return usage(
            "--resume cannot evaluate what another run has classified: leave out --label-field, and evaluate with \
             --no-results afterwards",
        );
    }
    Ok(Destination::File { path: path.clone(), resume: cli.resume })
}

/// Refuses to write to a file that is read, under whatever name, or to one file twice. Nothing is opened for writing yet.
fn check_files(
    read: &[Input],
    destination: &Destination,
    whole: &[(&'static str, &Option<PathBuf>)],
) -> Result<(), UsageError> {
    let mut written: Vec<(&str, PathBuf)> = Vec::new();
    if let Destination::File { path, .. } = destination {
        written.extend(file::names_of_resumable(path).into_iter().map(|name| ("--output", name)));
    }
    for (option, path) in whole {
        let names = path.iter().flat_map(|path| file::names_of_whole(path));
        written.extend(names.map(|name| (*option, name)));
    }
    let read = read.iter().filter_map(|input| {
        let handle = match input {
            Input::Stdin => Handle::stdin(),
            Input::File(path) => Handle::from_path(path),
            Input::Arguments => return None,
        };
        Some((input.to_string(), handle.ok()?))
    });
    let mut taken: Vec<(String, Handle)> = read.collect();
    for (option, path) in written {
        let Ok(handle) = Handle::from_path(&path) else { continue };
        if let Some((name, _)) = taken.iter().find(|(_, other)| *other == handle) {
            return usage(format!("{option} would overwrite {name} with {}: choose another name", path.display()));
        }
        taken.push((path.display().to_string(), handle));
    }
    let same_new = |(_, other): &&(&str, &Option<PathBuf>)| match destination {
        Destination::File { path, .. } => other.as_ref() == Some(path),
        Destination::Stdout | Destination::Nowhere => false,
    };
    match whole.iter().find(same_new) {
        Some((option, _)) => usage(format!("--output and {option} name the same file")),
        None => Ok(()),
    }
}

fn comparison(cli: &Cli) -> Result<Option<ComparisonOptions>, UsageError> {
    let [first, second] = *cli.compare else { return Ok(None) };
    let is_json = |path: &PathBuf| matches!(report::Format::of(path), Ok(report::Format::Json));
    if !cli.report.iter().all(is_json) {
        return usage("--report of --compare is JSON: the name must end in .json");
    }
    let name = |dtype: cli::Dtype| {
        let value = dtype.to_possible_value().expect("no dtype is hidden");
        value.get_name().to_owned()
    };
    Ok(Some(ComparisonOptions { dtypes: [name(first), name(second)], report: cli.report.clone() }))
}

fn evaluation(cli: &Cli) -> Result<Option<EvaluationOptions>, UsageError> {
    let is_compared = !cli.compare.is_empty();
    let needing = [
        (cli.report.is_some() && !is_compared, "--report"),
        (cli.calibrate.is_some(), "--calibrate"),
        (cli.target_precision.is_some(), "--target-precision"),
        (cli.no_results, "--no-results"),
        (cli.against.is_some(), "--against"),
        (cli.first_label_id.is_some(), "--first-label-id"),
    ];
    let Some(label_field) = &cli.label_field else {
        return match needing.iter().find(|(is_given, _)| *is_given) {
            Some((_, option)) => usage(format!("{option} needs --label-field, the field with the gold labels")),
            None => Ok(None),
        };
    };
    if cli.target_precision.is_some_and(|share| !(0.0..1.0).contains(&share)) {
        return usage(
            "--target-precision must be from 0 to 1, and below 1: no number of texts shows that all are right",
        );
    }
    Ok(Some(EvaluationOptions {
        label_field: label_field.clone(),
        first_label_id: cli.first_label_id.unwrap_or(0),
        against: cli.against.clone(),
        target_precision: cli.target_precision,
        result: match &cli.calibrate {
            Some(path) => EvaluationResult::Calibration(calibration_file(path)?),
            None if is_compared => EvaluationResult::Comparison,
            None => EvaluationResult::Figures { to_stdout: cli.no_results, report: report(cli)? },
        },
    }))
}

fn report(cli: &Cli) -> Result<Option<(PathBuf, report::Format)>, UsageError> {
    let report = cli.report.as_ref().map(|path| match report::Format::of(path) {
        Ok(format) => Ok((path.clone(), format)),
        Err(error) => usage(format!("--report: {error}")),
    });
    report.transpose()
}

/// Whoever takes it for the name of the labelled texts is told, and loses none.
fn calibration_file(path: &Path) -> Result<PathBuf, UsageError> {
    match matches!(report::Format::of(path), Ok(report::Format::Json)) {
        true => Ok(path.to_owned()),
        false => usage(format!(
            "--calibrate writes the calibration to {}, and the name must end in .json; the texts with gold labels are read \
             with -f",
            path.display()
        )),
    }
}
