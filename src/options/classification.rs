//! What a command line that classifies means: what is read and how, what is written where, what is evaluated.

use super::{positive, usage, UsageError};
use crate::cli::{self, Cli, Format};
use crate::evaluation::report;
use crate::output::{RecordFormat, RecordOptions, Unsure};
use crate::source::{FieldSelection, Input, InputFormat, Inputs, KeptFields, ReadOptions, Separator};
use std::path::{Path, PathBuf};

/// From texts to records.
#[derive(Debug)]
pub struct ClassificationOptions {
    /// Where the texts come from.
    pub inputs: Inputs,
    /// How files are read.
    pub reading: ReadOptions,
    /// What happens at a record that cannot be read.
    pub malformed: MalformedPolicy,
    /// What the records look like.
    pub records: RecordOptions,
    /// Where they go.
    pub target: Target,
    /// What the predictions are compared with.
    pub evaluation: Option<EvaluationOptions>,
}

/// What happens at a record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MalformedPolicy {
    /// It gets an empty record in its place, and the run fails at its end.
    GoOn,
    /// The run ends there.
    Stop,
}

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, written whole or not at all.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether to go on where an interrupted run stopped.
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
    /// The id of the first class in the gold labels.
    pub first_label_id: i64,
    /// The file for the evaluation, and its format.
    pub report: Option<(PathBuf, report::Format)>,
}

/// Resolves the part of the command line that is about records.
pub(super) fn resolve(cli: &Cli) -> Result<ClassificationOptions, UsageError> {
    let inputs = inputs(&cli.texts, &cli.files)?;
    let reading = reading(cli)?;
    let records = records(cli)?;
    check_fields(&inputs, &reading, &records)?;
    Ok(ClassificationOptions {
        malformed: if cli.strict { MalformedPolicy::Stop } else { MalformedPolicy::GoOn },
        target: target(cli, &inputs)?,
        evaluation: evaluation(cli)?,
        inputs,
        reading,
        records,
    })
}

fn inputs(texts: &[String], files: &[PathBuf]) -> Result<Inputs, UsageError> {
    if !files.is_empty() {
        return Ok(Inputs::Files(files.iter().map(|path| input(path)).collect()));
    }
    match texts {
        [] => Ok(Inputs::Files(vec![Input::Stdin])),
        [only] if only == "-" => Ok(Inputs::Files(vec![Input::Stdin])),
        texts if texts.iter().any(|text| text == "-") => {
            usage("`-` (standard input) cannot stand among texts: give it alone, or write the text another way")
        }
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
        return usage("--text-field has an empty name: give names with commas between");
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
        }),
        separator: if cli.null { Separator::Nul } else { Separator::LineBreak },
        fields: FieldSelection {
            text: cli.text_field.clone(),
            label: cli.label_field.clone(),
            kept,
            header: !cli.no_header,
        },
    })
}

/// Whether the inputs have what the options speak of: plain lines have no fields, objects no columns.
fn check_fields(inputs: &Inputs, reading: &ReadOptions, records: &RecordOptions) -> Result<(), UsageError> {
    let Inputs::Files(files) = inputs else { return Ok(()) };
    let fields = &reading.fields;
    let asked = [
        (!fields.text.is_empty(), "--text-field"),
        (fields.label.is_some(), "--label-field"),
        (fields.kept == KeptFields::All, "--keep"),
        (matches!(fields.kept, KeptFields::One(_)), "--id-field"),
    ];
    let asked = asked.iter().find(|(is_asked, _)| *is_asked).map(|(_, option)| option);
    let is_table = !matches!(records.format, RecordFormat::Jsonl { .. });
    for input in files {
        match (reading.format_of(input), asked) {
            (InputFormat::Lines, Some(option)) => {
                return usage(format!(
                    "{option} is for records with fields, and {input} is read as plain lines: \
                     say what it is with --input-format csv, tsv or jsonl"
                ))
            }
            (InputFormat::Lines, None) => {}
            (_, _) if reading.separator == Separator::Nul => {
                return usage(format!("--null is for plain texts, and {input} is read as records with fields"))
            }
            (InputFormat::Jsonl, _) if fields.kept == KeptFields::All && is_table => {
                return usage(format!(
                    "--keep of the objects of {input} needs --format jsonl: their keys may differ, and a table has \
                     fixed columns (--id-field carries one field through)"
                ))
            }
            _ => {}
        }
    }
    Ok(())
}

fn records(cli: &Cli) -> Result<RecordOptions, UsageError> {
    let top_k = positive("--top-k", cli.top_k)?;
    let format = match cli.format {
        Format::Tsv | Format::Csv if cli.with_text => {
            return usage("--with-text needs --format jsonl: a tab or a line break in the text would break the columns")
        }
        Format::Tsv => RecordFormat::Tsv { scores: cli.scores, top_k },
        Format::Csv => RecordFormat::Csv { top_k },
        Format::Jsonl => RecordFormat::Jsonl { top_k, with_text: cli.with_text },
    };
    if cli.min_score.is_some_and(|min_score| !(0.0..=1.0).contains(&min_score)) {
        return usage("--min-score is a share: from 0 to 1");
    }
    let unsure = |min_score| Unsure { min_score, name: cli.unsure.clone().unwrap_or_default() };
    // A TSV of ids and labels has no header, so that it stands line for line beside its input. One that carries the
    // input's columns carries their names too.
    let header = !cli.no_header && (cli.format == Format::Csv || cli.keep);
    Ok(RecordOptions { format, header, unsure: cli.min_score.map(unsure) })
}

fn target(cli: &Cli, inputs: &Inputs) -> Result<Target, UsageError> {
    if cli.no_results {
        return Ok(Target::Nowhere);
    }
    let Some(path) = cli.output.as_ref().filter(|path| path.as_os_str() != "-") else { return Ok(Target::Stdout) };
    if cli.resume && cli.label_field.is_some() {
        return usage(
            "--resume cannot evaluate what another run has classified: leave --label-field out, and evaluate with \
             --no-results",
        );
    }
    if matches!(inputs, Inputs::Files(files) if files.contains(&Input::File(path.clone()))) {
        return usage(format!("--output {} is also an input: give it another name", path.display()));
    }
    Ok(Target::File { path: path.clone(), resume: cli.resume })
}

fn evaluation(cli: &Cli) -> Result<Option<EvaluationOptions>, UsageError> {
    let Some(label_field) = &cli.label_field else { return Ok(None) };
    let report = cli.report.as_ref().map(|path| match report::Format::of(path) {
        Ok(format) => Ok((path.clone(), format)),
        Err(error) => usage(format!("--report: {error}")),
    });
    Ok(Some(EvaluationOptions {
        label_field: label_field.clone(),
        first_label_id: cli.first_label_id,
        report: report.transpose()?,
    }))
}
