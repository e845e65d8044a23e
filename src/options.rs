//! What the command line means: resolved once (flag, then environment, then default) and validated before anything
//! is loaded.

mod classification;

pub use classification::{ClassificationOptions, EvaluationOptions, MalformedPolicy, Target};

use crate::checkpoint::CheckpointSpec;
use crate::cli::{Cli, Dtype};
use crate::kernels::{Level, Precision};
use crate::model::DeviceChoice;
use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroUsize;

/// A command line that clap accepts but that makes no sense; ends the program with exit code 2.
#[derive(Debug)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// What one run is to do.
#[derive(Debug)]
pub struct Options {
    /// Whether to classify or only to fetch.
    pub task: Task,
    /// Which checkpoint, and how it is read.
    pub checkpoint: CheckpointOptions,
    /// Device, dtype, threads.
    pub computing: ComputingOptions,
    /// What is told on standard error.
    pub verbosity: Verbosity,
}

/// What the program does.
#[derive(Debug)]
pub enum Task {
    /// Classify texts and print records.
    Classify(Box<ClassificationOptions>),
    /// Bring the checkpoint into the cache and print its folder.
    Download,
    /// Print completions for a shell.
    Completions(clap_complete::Shell),
    /// Print the manual page.
    ManualPage,
}

/// Which checkpoint, and what overrides its own settings.
#[derive(Debug)]
pub struct CheckpointOptions {
    /// Where it comes from.
    pub spec: CheckpointSpec,
    /// `--offline`; the environment may say so too.
    pub offline: bool,
    /// `--labels`.
    pub labels: Option<Vec<String>>,
    /// `--max-length`, in tokens.
    pub max_length: Option<usize>,
}

/// How to compute.
#[derive(Debug)]
pub struct ComputingOptions {
    /// `--device`.
    pub device: DeviceChoice,
    /// The instruction set of the CPU kernels: the best that the processor has, up to `AGNEWS_CPU` where that is set.
    pub cpu_level: Level,
    /// `--dtype`.
    pub precision: Precision,
    /// `--threads`; without it one a core.
    pub threads: Option<NonZeroUsize>,
    /// `--max-batch-tokens`; without it as many as are fast.
    pub max_batch_tokens: Option<usize>,
}

/// What is told on standard error beside errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Nothing.
    Quiet,
    /// Progress on a terminal, and notes.
    Normal,
    /// What is loaded, and whole error chains.
    Verbose,
}

impl Options {
    /// Resolves the command line.
    ///
    /// # Errors
    /// [`UsageError`] where options contradict each other or a value is out of range; the message names the option.
    pub fn resolve(cli: Cli) -> Result<Options, UsageError> {
        let options = if cli.revision.is_some() { "--model and --revision" } else { "--model" };
        let spec = CheckpointSpec::parse(&cli.model, cli.revision.as_deref())
            .map_err(|fault| UsageError(format!("{fault} ({options})")))?;
        let task = match cli.download {
            true if !matches!(spec, CheckpointSpec::Hub { .. }) => {
                return usage(format!("--download is for checkpoints on the Hub, and {} is not one", cli.model))
            }
            true => Task::Download,
            false if cli.man => Task::ManualPage,
            false => match cli.completions {
                Some(shell) => Task::Completions(shell),
                None => Task::Classify(Box::new(classification::resolve(&cli)?)),
            },
        };
        if cli.labels.as_ref().is_some_and(|labels| labels.iter().any(String::is_empty)) {
            return usage("--labels has an empty name: give one for each class, with commas between");
        }
        let cpu_level = cpu_level(std::env::var_os("AGNEWS_CPU"))?;
        Ok(Options {
            task,
            checkpoint: CheckpointOptions {
                spec,
                offline: cli.offline,
                labels: cli.labels,
                max_length: positive("--max-length", cli.max_length)?.map(NonZeroUsize::get),
            },
            computing: ComputingOptions {
                device: cli.device.parse().map_err(UsageError)?,
                cpu_level,
                precision: match cli.dtype {
                    Dtype::Auto => Precision::exact_on(cpu_level),
                    Dtype::F32 => Precision::F32,
                    Dtype::Bf16x3 => Precision::Bf16x3,
                    Dtype::Bf16 => Precision::Bf16,
                    Dtype::Int8 => Precision::Int8,
                },
                threads: positive("--threads", cli.threads)?,
                max_batch_tokens: cli.max_batch_tokens.map(|tokens| tokens.max(1)),
            },
            verbosity: match (cli.quiet, cli.verbose) {
                (true, true) => return usage("--quiet and --verbose contradict each other: give one"),
                (true, false) => Verbosity::Quiet,
                (false, true) => Verbosity::Verbose,
                (false, false) => Verbosity::Normal,
            },
        })
    }
}

/// `cap` is the value of `AGNEWS_CPU`; an empty one counts as none.
fn cpu_level(cap: Option<OsString>) -> Result<Level, UsageError> {
    match cap.filter(|cap| !cap.is_empty()) {
        None => Ok(Level::detect()),
        Some(cap) => match cap.to_string_lossy().parse() {
            Ok(cap) => Ok(Level::best_up_to(cap)),
            Err(error) => usage(format!("AGNEWS_CPU={error}")),
        },
    }
}

fn usage<T>(message: impl Into<String>) -> Result<T, UsageError> {
    Err(UsageError(message.into()))
}

fn positive(option: &str, value: Option<usize>) -> Result<Option<NonZeroUsize>, UsageError> {
    match value {
        Some(0) => usage(format!("{option} must be at least 1")),
        value => Ok(value.and_then(NonZeroUsize::new)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::RecordFormat;
    use crate::source::{Input, InputFormat, Inputs, KeptFields};
    use clap::Parser;

    fn resolve(args: &[&str]) -> Result<Options, String> {
        let cli = Cli::try_parse_from(["agnews"].iter().chain(args)).map_err(|e| e.to_string())?;
        Options::resolve(cli).map_err(|e| e.to_string())
    }

    fn inputs_of(args: &[&str]) -> Inputs {
        match resolve(args).unwrap().task {
            Task::Classify(options) => options.inputs,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn three_ways_in() {
        assert!(matches!(inputs_of(&["a", ""]), Inputs::Texts(texts) if texts == ["a", ""]));
        assert!(matches!(inputs_of(&[]), Inputs::Files(files) if files == [Input::Stdin]));
        assert!(matches!(inputs_of(&["-"]), Inputs::Files(files) if files == [Input::Stdin]));
        let files = inputs_of(&["-f", "x", "-f", "-"]);
        assert!(matches!(files, Inputs::Files(files) if files == [Input::File("x".into()), Input::Stdin]));
    }

    #[test]
    fn contradictions_are_usage_errors_that_name_the_option() {
        for (args, named) in [
            (&["text", "-f", "x"][..], "--file"),
            (&["text", "-"], "`-`"),
            (&["-k", "0"], "--top-k"),
            (&["--threads", "0"], "--threads"),
            (&["--max-length", "0"], "--max-length"),
            (&["--with-text"], "--format jsonl"),
            (&["-q", "-v"], "--quiet"),
            (&["--labels", "a,,b"], "--labels"),
            (&["-m", "builtin", "--revision", "main"], "--revision"),
            (&["-m", "a/b/c"], "a/b/c"),
            (&["-m", "a/b", "--revision", "../x"], "../x"),
            (&["-m", ""], "--model"),
            (&["-m", "builtin", "--download"], "--download"),
            (&["--download", "text"], "--download"),
            (&["--with-text", "--format", "csv"], "--format jsonl"),
            (&["-f", "x.txt", "--text-field", "a"], "--input-format"),
            (&["--keep"], "--input-format"),
            (&["-f", "x.jsonl", "--keep"], "--format jsonl"),
            (&["-f", "x.csv", "--keep", "--id-field", "a"], "--id-field"),
            (&["-f", "x.csv", "--null"], "--null"),
            (&["-f", "x.csv", "--text-field", "a,,b"], "--text-field"),
            (&["text", "--text-field", "a"], "--text-field"),
            (&["text", "--null"], "--null"),
            (&["--min-score", "1.5"], "--min-score"),
            (&["--min-score", "NaN"], "--min-score"),
            (&["--unsure", "?"], "--min-score"),
            (&["--resume"], "--output"),
            (&["-f", "x.csv", "-o", "x.csv"], "x.csv"),
            (&["-f", "x.csv", "-o", "y", "--resume", "--label-field", "a"], "--label-field"),
            (&["-f", "x.csv", "--no-results"], "--label-field"),
            (&["-f", "x.csv", "--report", "r.json"], "--label-field"),
            (&["-f", "x.csv", "--label-field", "a", "--report", "r.pdf"], ".html"),
            (&["--completions", "tcsh"], "tcsh"),
            (&["--man", "text"], "--man"),
            (&["--device", "gpu"], "gpu"),
            (&["--device", "cuda:x"], "cuda:x"),
        ] {
            let error = resolve(args).expect_err(&args.join(" "));
            assert!(error.contains(named), "{args:?}: {error}");
        }
    }

    fn classification(args: &[&str]) -> ClassificationOptions {
        match resolve(args).unwrap().task {
            Task::Classify(options) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_format_is_told_by_the_extension_unless_it_is_given() {
        let reading = classification(&[]).reading;
        for (name, format) in [
            ("a.csv", InputFormat::Csv),
            ("a.CSV.gz", InputFormat::Csv),
            ("a.tsv.zst", InputFormat::Tsv),
            ("a.jsonl", InputFormat::Jsonl),
            ("a.ndjson.GZ", InputFormat::Jsonl),
            ("a.gz", InputFormat::Lines),
            ("csv", InputFormat::Lines),
            ("a.csv.txt", InputFormat::Lines),
            ("a.json", InputFormat::Lines),
        ] {
            assert_eq!(reading.format_of(&Input::File(name.into())), format, "{name}");
        }
        assert_eq!(reading.format_of(&Input::Stdin), InputFormat::Lines);
        let reading = classification(&["--input-format", "tsv"]).reading;
        assert_eq!(reading.format_of(&Input::Stdin), InputFormat::Tsv);
        assert_eq!(reading.format_of(&Input::File("a.csv".into())), InputFormat::Tsv);
    }

    #[test]
    fn tables_that_carry_columns_carry_their_names() {
        let header = |args: &[&str]| classification(&[&["-f", "x.csv"], args].concat()).records.header;
        assert!(!header(&[]) && !header(&["--id-field", "a"]) && header(&["--keep"]));
        assert!(header(&["--format", "csv"]) && !header(&["--format", "csv", "--no-header"]));
        assert!(!header(&["--keep", "--no-header"]));
    }

    #[test]
    fn fields_and_targets() {
        let options =
            classification(&["-f", "x.jsonl", "--keep", "--format", "jsonl", "--text-field", "a,b.c", "-o", "y"]);
        assert_eq!(options.reading.fields.text, ["a", "b.c"]);
        assert_eq!(options.reading.fields.kept, KeptFields::All);
        assert_eq!(options.records.format, RecordFormat::Jsonl { top_k: None, with_text: false });
        assert_eq!(options.target, Target::File { path: "y".into(), resume: false });
        assert_eq!(classification(&["-o", "-"]).target, Target::Stdout);
    }

    #[test]
    fn the_environment_caps_the_cpu_kernels() {
        assert_eq!(cpu_level(None).unwrap(), Level::detect());
        assert_eq!(cpu_level(Some("".into())).unwrap(), Level::detect());
        assert_eq!(cpu_level(Some("portable".into())).unwrap(), Level::Portable);
        assert!(cpu_level(Some("avx512".into())).unwrap() <= Level::detect());
        assert!(cpu_level(Some("mmx".into())).unwrap_err().to_string().starts_with("AGNEWS_CPU=mmx"));
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
