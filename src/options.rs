//! What the command line means: resolved once (flag, then environment, then default) and validated before anything
//! is loaded. Options end here: no other layer knows a flag by name, or reads the environment.

pub mod advice;
mod cascade;
mod classification;
mod environment;

pub use classification::{
    ClassificationOptions, ComparisonOptions, Destination, EvaluationOptions, EvaluationResult, ExplanationOptions,
    MalformedPolicy,
};
pub use environment::Environment;

use crate::checkpoint::config::ScoreFunction;
use crate::checkpoint::hub::{HubOptions, DEFAULT_MODEL_ID};
use crate::checkpoint::CheckpointSpec;
use crate::classifier::{LongText, LongTextOptions};
use crate::cli::{self, Cli, CommandLine, Dtype};
use crate::kernels::{Level, Precision};
use crate::model::{BackendChoice, CpuChoice};
use crate::zero_shot::ZeroShotOptions;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// The most threads: a larger number is a slip, and would only exhaust the system.
const MAX_THREADS: usize = 1024;

/// A command line that clap accepts but that makes no sense; the program exits with code 2.
#[derive(Debug)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// A run has failed, and the records that it had written are in a file that a later run can continue.
#[derive(Debug)]
pub struct Incomplete {
    /// The file.
    pub partial: PathBuf,
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the run is not complete")
    }
}

impl std::error::Error for Incomplete {}

/// What one run is to do.
#[derive(Debug)]
pub struct Options {
    /// Whether to classify, or what else.
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
    /// Say what the checkpoint is.
    Info,
    /// Download the checkpoint into the cache and print its folder.
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
    /// How the Hub is reached.
    pub hub: HubOptions,
    /// `--labels`.
    pub labels: Option<Vec<String>>,
    /// `--max-length`, in tokens.
    pub max_length: Option<usize>,
    /// `--score-function`.
    pub score_function: Option<ScoreFunction>,
    /// `--zero-shot`.
    pub zero_shot: Option<ZeroShotOptions>,
    /// `--long-text`, `--windows` and `--stride`.
    pub long_text: LongTextOptions,
}

impl fmt::Display for CheckpointOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.spec {
            CheckpointSpec::Builtin => f.write_str("builtin"),
            CheckpointSpec::Folder(folder) => write!(f, "{}", folder.display()),
            CheckpointSpec::Hub { model_id, revision: None } => f.write_str(model_id),
            CheckpointSpec::Hub { model_id, revision: Some(revision) } => write!(f, "{model_id} at {revision}"),
        }
    }
}

/// How to compute.
#[derive(Debug)]
pub struct ComputingOptions {
    /// `--device`, `AGNEWS_CPU` and `--dtype`, or the first of `--compare`.
    pub backend: BackendChoice,
    /// `--dtype cascade`.
    pub cascade: bool,
    /// The second of `--compare`.
    pub compared: Option<BackendChoice>,
    /// `--threads`; one per core without it.
    pub threads: Option<NonZeroUsize>,
    /// `--max-batch-tokens`; as many as are fast without it.
    pub max_batch_tokens: Option<usize>,
}

/// What is printed to standard error beside errors.
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
    /// [`UsageError`] if options contradict each other or a value is out of range; the message names the option.
    pub fn resolve(command_line: CommandLine, environment: &Environment) -> Result<Options, UsageError> {
        let cli = &command_line.cli;
        cascade::check(cli)?;
        let model = cli.model.clone().or_else(|| environment.text("AGNEWS_MODEL"));
        let model = model.unwrap_or_else(|| DEFAULT_MODEL_ID.to_owned());
        let asked = if cli.revision.is_some() { "--model and --revision" } else { "--model" };
        let spec = CheckpointSpec::parse(&model, cli.revision.as_deref())
            .map_err(|fault| UsageError(format!("{fault} ({asked})")))?;
        let task = match cli.completions {
            _ if cli.man => Task::ManualPage,
            Some(shell) => Task::Completions(shell),
            None if cli.download && !matches!(spec, CheckpointSpec::Hub { .. }) => {
                return usage(format!("--download is for checkpoints on the Hub, and {model} is not one"))
            }
            None if cli.download => Task::Download,
            None if cli.info => Task::Info,
            None => Task::Classify(Box::new(classification::resolve(&command_line, environment)?)),
        };
        Ok(Options {
            task,
            computing: computing(cli, environment)?,
            verbosity: verbosity(cli),
            checkpoint: CheckpointOptions {
                spec,
                hub: HubOptions::from_env(&|name| environment.get(name), cli.offline),
                labels: labels("--labels", cli.labels.clone())?,
                max_length: positive("--max-length", cli.max_length)?.map(NonZeroUsize::get),
                score_function: cli.score_function.map(|function| match function {
                    cli::ScoreFunction::Softmax => ScoreFunction::Softmax,
                    cli::ScoreFunction::Sigmoid => ScoreFunction::Sigmoid,
                    cli::ScoreFunction::None => ScoreFunction::Raw,
                }),
                zero_shot: zero_shot(cli)?,
                long_text: long_text(cli)?,
            },
        })
    }
}

fn computing(cli: &Cli, environment: &Environment) -> Result<ComputingOptions, UsageError> {
    let threads = positive("--threads", cli.threads)?;
    if threads.is_some_and(|threads| threads.get() > MAX_THREADS) {
        return usage(format!("--threads must be from 1 to {MAX_THREADS}"));
    }
    let (dtype, compared) = match *cli.compare {
        [] => (cli.dtype, None),
        [first, second] if first != second => (first, Some(second)),
        _ => return usage("--compare needs two different dtypes, with a comma between them"),
    };
    if cli.compare.contains(&Dtype::Cascade) {
        return usage(
            "--compare compares scores, and a cascade gives labels only; its error is told at the end of its run",
        );
    }
    let backend = BackendChoice {
        device: cli.device.parse().map_err(|error| UsageError(format!("--device: {error}")))?,
        cpu: cpu_choice(environment.text("AGNEWS_CPU"))?,
        precision: precision(dtype),
    };
    Ok(ComputingOptions {
        backend,
        cascade: dtype == Dtype::Cascade,
        compared: compared.map(|dtype| BackendChoice { precision: precision(dtype), ..backend }),
        threads,
        max_batch_tokens: positive("--max-batch-tokens", cli.max_batch_tokens)?.map(NonZeroUsize::get),
    })
}

fn precision(dtype: Dtype) -> Option<Precision> {
    match dtype {
        // A cascade goes from int8 to the default.
        Dtype::Auto | Dtype::Cascade => None,
        Dtype::F32 => Some(Precision::F32),
        Dtype::Bf16x3 => Some(Precision::Bf16x3),
        Dtype::Bf16 => Some(Precision::Bf16),
        Dtype::Int8 => Some(Precision::Int8),
    }
}

fn verbosity(cli: &Cli) -> Verbosity {
    match (cli.quiet, cli.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, true) => Verbosity::Verbose,
        (false, false) => Verbosity::Normal,
    }
}

/// The names that `option` gives to labels, each another one.
fn labels(option: &str, labels: Option<Vec<String>>) -> Result<Option<Vec<String>>, UsageError> {
    for (place, label) in labels.iter().flatten().enumerate() {
        if label.is_empty() {
            return usage(format!("{option} has an empty name: give one name per label, separated by commas"));
        }
        if labels.iter().flatten().take(place).any(|other| other == label) {
            return usage(format!("{option} names {label:?} twice: each label needs a name of its own"));
        }
    }
    Ok(labels)
}

fn zero_shot(cli: &Cli) -> Result<Option<ZeroShotOptions>, UsageError> {
    let trimmed = cli.zero_shot.as_ref().map(|labels| labels.iter().map(|label| label.trim().to_owned()).collect());
    let Some(labels) = labels("--zero-shot", trimmed)? else { return Ok(None) };
    if !cli.hypothesis.contains("{}") {
        return usage("--hypothesis needs `{}`, which each label replaces");
    }
    Ok(Some(ZeroShotOptions { labels, hypothesis: cli.hypothesis.clone(), multi_label: cli.multi_label }))
}

fn long_text(cli: &Cli) -> Result<LongTextOptions, UsageError> {
    let how = match cli.long_text {
        _ if cli.windows => LongText::Windows,
        cli::LongText::Truncate => LongText::Truncate,
        cli::LongText::Mean => LongText::Mean,
        cli::LongText::Max => LongText::Max,
    };
    match (how, cli.stride) {
        (LongText::Truncate, Some(_)) => usage("--stride needs --long-text mean, --long-text max or --windows"),
        (how, stride) => Ok(LongTextOptions { how, stride: stride.unwrap_or(0) }),
    }
}

fn cpu_choice(value: Option<String>) -> Result<CpuChoice, UsageError> {
    match value {
        None => Ok(CpuChoice::Kernels(Level::detect())),
        Some(value) => value.parse().or_else(|error| usage(format!("AGNEWS_CPU={error}"))),
    }
}

fn usage<T>(message: impl Into<String>) -> Result<T, UsageError> {
    Err(UsageError(message.into()))
}

/// # Errors
/// If the value is 0.
fn positive(option: &str, value: Option<usize>) -> Result<Option<NonZeroUsize>, UsageError> {
    match value {
        Some(0) => usage(format!("{option} must be at least 1")),
        value => Ok(value.and_then(NonZeroUsize::new)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;
    use crate::source::{Input, InputFormat, Inputs, KeptFields};

    fn resolve(args: &[&str]) -> Result<Options, String> {
        resolve_in(&Environment::of_variables(&[]), args)
    }

    fn resolve_in(environment: &Environment, args: &[&str]) -> Result<Options, String> {
        let command_line = CommandLine::parse(["agnews"].iter().chain(args)).map_err(|error| error.to_string())?;
        Options::resolve(command_line, environment).map_err(|error| error.to_string())
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
            (&["--labels", "a,,b"], "--labels"),
            (&["-m", "builtin", "--revision", "main"], "--revision"),
            (&["-m", "a/b/c"], "a/b/c"),
            (&["-m", "a/b", "--revision", "../x"], "../x"),
            (&["-m", ""], "--model"),
            (&["-m", "builtin", "--download"], "--download"),
            (&["--download", "text"], "--download"),
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
            (&["-f", "x.csv", "-o", "y.html", "--report", "y.html", "--label-field", "a"], "--report"),
            (&["-f", "-", "-f", "-"], "--file -"),
            (&["text", "--keep"], "--keep"),
            (&["text", "--id-field", "a"], "--id-field"),
            (&["text", "--label-field", "a"], "--label-field"),
            (&["text", "--report", "r.json"], "--label-field"),
            (&["text", "--calibrate", "c.json"], "--label-field"),
            (&["text", "--target-precision", "0.9"], "--label-field"),
            (&["-f", "x.csv", "--label-field", "a", "--target-precision", "95"], "from 0 to 1"),
            (&["-f", "x.csv", "--label-field", "a", "--calibrate", "x.csv"], "are read with -f"),
            (&["-f", "x.csv", "--label-field", "a", "--calibrate", "c.json", "-o", "y"], "--output"),
            (&["text", "--compare", "f32"], "two different dtypes"),
            (&["text", "--compare", "f32,f32"], "two different dtypes"),
            (&["text", "--compare", "f32,int8,bf16"], "two different dtypes"),
            (&["text", "--compare", "f32,int4"], "int4"),
            (&["text", "--compare", "f32,int8", "--dtype", "f32"], "--dtype"),
            (&["text", "--compare", "f32,int8", "--report", "r.html"], ".json"),
            (&["text", "--no-results"], "--label-field"),
            (&["text", "--first-label-id", "1"], "--label-field"),
            (&["--max-batch-tokens", "0"], "--max-batch-tokens"),
            (&["--threads", "100000"], "1024"),
            (&["--labels", "a,b,a"], "twice"),
            (&["-f", "x.csv", "--delimiter", "ab"], "--delimiter"),
            (&["-o", "-", "--resume"], "--output"),
            (&["--count", "--only", "a"], "--only"),
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
            ("a.json", InputFormat::Json),
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
    fn fields_and_destinations() {
        let options =
            classification(&["-f", "x.jsonl", "--keep", "--format", "jsonl", "--text-field", "a,b.c", "-o", "y"]);
        assert_eq!(options.reading.fields.text, ["a", "b.c"]);
        assert_eq!(options.reading.fields.kept, KeptFields::All);
        assert_eq!(options.records.format, Format::Jsonl);
        assert_eq!(options.destination, Destination::File { path: "y".into(), resume: false });
        assert_eq!(classification(&["-o", "-"]).destination, Destination::Stdout);
    }

    #[test]
    fn the_environment_chooses_what_serves_the_cpu() {
        assert_eq!(cpu_choice(None).unwrap(), CpuChoice::Kernels(Level::detect()));
        assert_eq!(cpu_choice(Some("portable".into())).unwrap(), CpuChoice::Kernels(Level::Portable));
        assert_eq!(cpu_choice(Some("candle".into())).unwrap(), CpuChoice::Candle);
        assert!(cpu_choice(Some("mmx".into())).unwrap_err().to_string().starts_with("AGNEWS_CPU=mmx"));
    }

    #[test]
    fn an_output_file_is_in_the_format_of_its_name_unless_one_is_given() {
        let format = |args: &[&str]| classification(&[&["-o"], args].concat()).records.format;
        assert_eq!(format(&["x.csv"]), Format::Csv);
        assert_eq!(format(&["x.jsonl.gz"]), Format::Jsonl);
        assert_eq!(format(&["x.txt"]), Format::Tsv);
        assert_eq!(format(&["x.csv", "--format", "jsonl"]), Format::Jsonl);
        assert_eq!(format(&["x.html"]), Format::Tsv);
        let command = "agnews -o x.HTML.zst --explain".to_owned();
        assert_eq!(format(&["x.HTML.zst", "--explain"]), Format::Page { command, listed: 12 });
    }

    #[test]
    fn bars_are_for_a_terminal_and_for_nothing_that_they_cannot_show() {
        let format = |variables: &[(&str, &str)], args: &[&str]| {
            let mut environment = Environment::of_variables(variables);
            environment.terminal_width = Some(70);
            match resolve_in(&environment, &[&["-k", "2"], args].concat()).unwrap().task {
                Task::Classify(options) => options.records.format,
                other => panic!("{other:?}"),
            }
        };
        let bars = |colour, blocks| Format::Bars(crate::output::TerminalStyle { width: 70, colour, blocks });
        let utf8 = ("LANG", "en_US.UTF-8");
        assert_eq!(format(&[utf8], &["text"]), bars(true, true));
        assert_eq!(format(&[utf8, ("LC_ALL", "C")], &["text"]), bars(true, false));
        assert_eq!(format(&[], &["text"]), bars(true, cfg!(windows)));
        assert_eq!(format(&[utf8, ("NO_COLOR", "1")], &["text"]), bars(false, true));
        assert_eq!(format(&[utf8, ("TERM", "dumb")], &["text"]), bars(false, true));
        assert_eq!(format(&[utf8, ("NO_COLOR", "1")], &["text", "--color", "always"]), bars(true, true));
        assert_eq!(format(&[utf8], &["text", "--color", "never"]), bars(false, true));
        for args in [&["text", "--format", "tsv"][..], &["text", "--with-text"], &["-f", "x.csv", "--id-field", "a"]] {
            assert_eq!(format(&[utf8], args), Format::Tsv, "{args:?}");
        }
        let marked = Format::Marked {
            style: crate::output::TerminalStyle { width: 70, colour: false, blocks: true },
            listed: 12,
        };
        assert_eq!(format(&[utf8, ("NO_COLOR", "1")], &["text", "--explain"]), marked);
        assert_eq!(format(&[utf8], &["text", "--explain", "--format", "jsonl"]), Format::Jsonl);
        assert_eq!(format(&[utf8], &["text", "--explain=2", "-n"]), Format::Tsv);
        assert_eq!(classification(&["-k", "2", "text"]).records.format, Format::Tsv, "not a terminal");
    }

    #[test]
    fn the_model_is_that_of_the_option_then_of_the_environment() {
        let model = |variables: &[(&str, &str)], args: &[&str]| {
            resolve_in(&Environment::of_variables(variables), args).unwrap().checkpoint.to_string()
        };
        assert_eq!(model(&[], &[]), DEFAULT_MODEL_ID);
        assert_eq!(model(&[("AGNEWS_MODEL", "builtin")], &[]), "builtin");
        assert_eq!(model(&[("AGNEWS_MODEL", "builtin")], &["-m", "a/b"]), "a/b");
    }

    #[test]
    fn the_last_of_repeated_options_wins() {
        let options =
            resolve(&["-m", "a/b", "-m", "builtin", "-k", "1", "-k", "3", "-q", "-v", "--scores", "--scores"]);
        let options = options.unwrap();
        assert_eq!((options.checkpoint.to_string().as_str(), options.verbosity), ("builtin", Verbosity::Verbose));
        assert_eq!(classification(&["-k", "1", "-k", "3"]).decision.top_k.unwrap().get(), 3);
        let fields = classification(&["-f", "x.csv", "--text-field", "a,b", "--text-field", "c"]).reading.fields;
        assert_eq!(fields.text, ["c"]);
    }

    #[test]
    fn settings_are_the_typed_options_that_records_depend_on() {
        let options =
            classification(&["-f", "a.csv", "b.csv", "--scores", "-q", "-k", "2", "-o", "x", "--dtype", "f32"]);
        let settings: Vec<String> = options.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
        assert_eq!(settings, ["--file a.csv,b.csv", "--scores on", "--top-k 2"]);
    }

    #[test]
    #[cfg(unix)]
    fn no_input_is_overwritten_under_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for name in ["in.csv", "z.partial"] {
            std::fs::write(path(name), "text\na\n").unwrap();
        }
        std::os::unix::fs::symlink(path("in.csv"), path("link")).unwrap();
        std::fs::hard_link(path("in.csv"), path("hard.html")).unwrap();
        let other =
            format!("{}/../{}/in.csv", folder.path().display(), folder.path().file_name().unwrap().to_str().unwrap());
        for (input, output) in [
            ("in.csv", path("in.csv")),
            ("in.csv", path("link")),
            ("in.csv", path("hard.html")),
            ("in.csv", other),
            ("link", path("in.csv")),
            ("z.partial", path("z")),
        ] {
            let args = ["--input-format", "csv", "-f", &path(input), "-o", &output].map(String::from);
            let error = resolve(&args.each_ref().map(String::as_str)).unwrap_err();
            assert!(error.contains("--output would overwrite"), "{input} {output}: {error}");
        }
        let (input, report) = (path("in.csv"), path("hard.html"));
        let error = resolve(&["-f", &input, "--label-field", "a", "--report", &report]).unwrap_err();
        assert!(error.contains("--report would overwrite"), "{error}");
        let (input, earlier) = (path("z.partial"), path("in.csv"));
        let args =
            ["--input-format", "csv", "-f", &input, "--label-field", "a", "--against", &earlier, "--report", &report];
        let error = resolve(&args).unwrap_err();
        assert!(error.contains("--report would overwrite"), "{error}");
        assert!(resolve(&["-f", &path("in.csv"), "-o", &path("new")]).is_ok());
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
