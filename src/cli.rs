//! What was typed: the command line as clap reads it, and nothing of what it means (see `options`).

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// Classify text with a transformer checkpoint: arguments, lines of standard input, or files.
///
/// Prints one record per text to standard output, in the order of the input: by default the label id, a tab and the
/// label.
#[derive(Debug, Parser)]
#[command(
    name = "agnews",
    version,
    max_term_width = 100,
    args_override_self = true,
    after_help = AFTER_HELP,
    after_long_help = AFTER_LONG_HELP
)]
pub struct Cli {
    /// Texts to classify, one per argument; without any, or with `-`, the lines of standard input
    #[arg(value_name = "TEXT", conflicts_with = "files", value_hint = clap::ValueHint::Other)]
    pub texts: Vec<String>,

    /// Classify each line or record of FILE; `-` is standard input
    #[arg(short, long = "file", value_name = "FILE", num_args = 1.., value_hint = clap::ValueHint::FilePath, help_heading = "Input")]
    pub files: Vec<PathBuf>,

    /// Input format [default: by extension (.csv .tsv .jsonl .ndjson .json, also with .gz or .zst), else lines]
    ///
    /// Compressed input (gzip, Zstandard) and UTF-16 are recognized by their first bytes, whatever the name.
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "texts", help_heading = "Input")]
    pub input_format: Option<InputFormat>,

    /// Fields that make up the text, joined with a space [default: `text`, or the only field]
    ///
    /// A field is a header name, a 1-based column number, or a JSON key, dotted to reach into objects.
    #[arg(
        long,
        value_name = "NAME[,NAME...]",
        value_delimiter = ',',
        num_args = 1,
        action = clap::ArgAction::Set,
        conflicts_with = "texts",
        help_heading = "Input"
    )]
    pub text_field: Vec<String>,

    /// Field with the second text of each pair, for checkpoints that judge two texts together
    #[arg(long, value_name = "NAME", conflicts_with = "texts", help_heading = "Input", hide_short_help = true)]
    pub pair_field: Option<String>,

    /// Lines are pairs of texts with a tab between them
    #[arg(long, conflicts_with = "texts", help_heading = "Input", hide_short_help = true)]
    pub pairs: bool,

    /// Field delimiter of CSV input: one character, or `tab` [default: ,]
    #[arg(long, value_name = "CHAR", conflicts_with = "texts", help_heading = "Input", hide_short_help = true)]
    pub delimiter: Option<String>,

    /// CSV and TSV, in and out, have no header line
    #[arg(long, help_heading = "Input", hide_short_help = true)]
    pub no_header: bool,

    /// Texts of plain input end with a NUL byte instead of a line break
    #[arg(short = '0', long, conflicts_with = "texts", help_heading = "Input", hide_short_help = true)]
    pub null: bool,

    /// Stop at the first malformed record instead of printing an empty record in its place
    #[arg(long, help_heading = "Input", hide_short_help = true)]
    pub strict: bool,

    /// Checkpoint: a Hugging Face Hub id, a local folder, or `builtin` for the embedded model
    ///
    /// The default is textattack/bert-base-uncased-ag-news, or the value of AGNEWS_MODEL.
    #[arg(short, long, value_name = "MODEL", value_parser = Suggested(&["builtin"]), hide_possible_values = true, help_heading = "Checkpoint")]
    pub model: Option<String>,

    /// Branch, tag, commit or refs/pr/N of the Hub repository
    #[arg(long, value_name = "REVISION", help_heading = "Checkpoint", hide_short_help = true)]
    pub revision: Option<String>,

    /// Use only what is in the cache, never the network
    #[arg(long, help_heading = "Checkpoint")]
    pub offline: bool,

    /// Names for the labels, in id order, instead of those in config.json
    #[arg(long, value_name = "A,B,...", value_delimiter = ',', num_args = 1, action = clap::ArgAction::Set, help_heading = "Checkpoint", hide_short_help = true)]
    pub labels: Option<Vec<String>>,

    /// Truncate texts to this many tokens, special tokens included [default: the model's limit]
    #[arg(long, value_name = "TOKENS", help_heading = "Checkpoint", hide_short_help = true)]
    pub max_length: Option<usize>,

    /// What to do with a text longer than the model takes
    ///
    /// With mean and max, it is cut into windows of as many tokens as the model takes, each logit is averaged over the
    /// windows, or the largest taken, and the scores follow from these logits.
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        default_value_t = LongText::Truncate,
        conflicts_with_all = ["pairs", "pair_field"],
        help_heading = "Checkpoint",
        hide_short_help = true
    )]
    pub long_text: LongText,

    /// Tokens that a window has in common with the one before it [default: 0]
    #[arg(long, value_name = "TOKENS", help_heading = "Checkpoint", hide_short_help = true)]
    pub stride: Option<usize>,

    /// Print what the checkpoint is (family, size, labels, longest text), and exit
    #[arg(long, conflicts_with_all = ["texts", "files", "download"], help_heading = "Checkpoint", hide_short_help = true)]
    pub info: bool,

    /// Download and verify the checkpoint, print its folder, and exit
    #[arg(long, conflicts_with_all = ["texts", "files"], help_heading = "Checkpoint", hide_short_help = true)]
    pub download: bool,

    /// Classify into labels of your own, with a checkpoint trained for natural language inference
    #[arg(
        long,
        value_name = "A,B,...",
        value_delimiter = ',',
        num_args = 1,
        action = clap::ArgAction::Set,
        conflicts_with_all = ["labels", "pairs", "pair_field", "score_function"],
        help_heading = "Zero-shot"
    )]
    pub zero_shot: Option<Vec<String>>,

    /// Hypothesis to test for each label, which replaces `{}`
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "This example is {}.",
        requires = "zero_shot",
        help_heading = "Zero-shot",
        hide_short_help = true
    )]
    pub hypothesis: String,

    /// Let a text have several of the labels
    #[arg(long, requires = "zero_shot", help_heading = "Zero-shot", hide_short_help = true)]
    pub multi_label: bool,

    /// Add the score (probability) to each record
    #[arg(short, long, help_heading = "Output")]
    pub scores: bool,

    /// Print the K best labels of each text with their scores, best first
    #[arg(short = 'k', long, value_name = "K", help_heading = "Output")]
    pub top_k: Option<usize>,

    /// Output format [default: by the extension of --output, else tsv]
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = "Output")]
    pub format: Option<Format>,

    /// Add the text to each record
    #[arg(long, help_heading = "Output")]
    pub with_text: bool,

    /// Add the name of the input file to each record
    #[arg(short = 'H', long, help_heading = "Output")]
    pub with_filename: bool,

    /// Add the line number in the input to each record
    #[arg(short = 'n', long, help_heading = "Output")]
    pub line_number: bool,

    /// Copy all input fields to the output, followed by the prediction
    #[arg(long, conflicts_with = "id_field", help_heading = "Output")]
    pub keep: bool,

    /// Copy one input field to the output, before the prediction
    #[arg(long, value_name = "NAME", help_heading = "Output", hide_short_help = true)]
    pub id_field: Option<String>,

    /// Print no label for texts whose best score is below P
    #[arg(long, value_name = "P", help_heading = "Output")]
    pub min_score: Option<f32>,

    /// Label for texts below --min-score, instead of an empty one
    #[arg(long, value_name = "NAME", requires = "min_score", help_heading = "Output", hide_short_help = true)]
    pub unsure: Option<String>,

    /// Lowest score with which a text has a label, if the checkpoint gives several per text [default: 0.5]
    #[arg(long, value_name = "P", help_heading = "Output", hide_short_help = true)]
    pub threshold: Option<f32>,

    /// Use the calibration that --calibrate has written to FILE for this checkpoint
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Output", hide_short_help = true)]
    pub calibration: Option<PathBuf>,

    /// How logits become scores [default: what the checkpoint was trained for]
    #[arg(long, value_enum, value_name = "FUNCTION", help_heading = "Output", hide_short_help = true)]
    pub score_function: Option<ScoreFunction>,

    /// Print a record for each window of a long text, with the range of characters that it covers
    ///
    /// `start` and `end` count Unicode code points, as Python does. Windows are those of --long-text, and overlap by
    /// --stride tokens.
    #[arg(
        long,
        conflicts_with_all = ["long_text", "pairs", "pair_field", "keep", "count", "label_field"],
        help_heading = "Output",
        hide_short_help = true
    )]
    pub windows: bool,

    /// Add the words that hold up the label; with N, only the N strongest
    ///
    /// Each word has as its value what the log odds of the label lose if the text lacks it. The text is marked on a
    /// terminal and in a page (-o FILE.html); other formats list the words. Each text is classified about as many
    /// times as it has words, at most some 200 times.
    #[arg(
        long,
        value_name = "N",
        num_args = 0..=1,
        require_equals = true,
        conflicts_with_all = ["pairs", "pair_field", "windows", "only", "count", "no_results"],
        help_heading = "Output"
    )]
    pub explain: Option<Option<usize>>,

    /// Print only the texts with this label, instead of records; may be repeated
    #[arg(
        long,
        value_name = "LABEL",
        value_delimiter = ',',
        conflicts_with_all = ["format", "scores", "top_k", "with_text", "keep", "id_field"],
        help_heading = "Output"
    )]
    pub only: Vec<String>,

    /// Print how many texts have each label, instead of records
    #[arg(
        short,
        long,
        conflicts_with_all = ["format", "scores", "top_k", "with_text", "with_filename", "line_number", "keep", "id_field", "only", "resume"],
        help_heading = "Output"
    )]
    pub count: bool,

    /// Write to FILE, which appears only when it is complete; .gz and .zst are compressed
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Output")]
    pub output: Option<PathBuf>,

    /// Continue an interrupted run with the same --output and options
    #[arg(long, requires = "output", help_heading = "Output")]
    pub resume: bool,

    /// When to use color
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Color::Auto, help_heading = "Output", hide_short_help = true)]
    pub color: Color,

    /// Compare with the gold labels in this field, and print accuracy, F1, confusions and calibration
    ///
    /// Gold labels are names in any case, or ids. The evaluation goes to standard error, after the records, or to
    /// standard output with --no-results.
    #[arg(long, value_name = "NAME", help_heading = "Evaluation")]
    pub label_field: Option<String>,

    /// Id of the first label in the gold labels: 1 for AG News' own files [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Evaluation", hide_short_help = true)]
    pub first_label_id: Option<i64>,

    /// Write the evaluation to FILE, which ends in .json, .svg or .html
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Evaluation")]
    pub report: Option<PathBuf>,

    /// Compare with an earlier run on the same texts, which wrote FILE with --format jsonl
    ///
    /// Counts the texts that both runs got right, only one, or none, and tells by McNemar's test whether the difference
    /// could be chance.
    #[arg(
        long,
        value_name = "FILE",
        value_hint = clap::ValueHint::FilePath,
        help_heading = "Evaluation",
        hide_short_help = true
    )]
    pub against: Option<PathBuf>,

    /// Find the lowest --min-score with which this share of the labels is right, for example 0.95
    ///
    /// It is the lowest score for which the lower bound of the 95 % interval is not below the share.
    #[arg(long, value_name = "SHARE", help_heading = "Evaluation", hide_short_help = true)]
    pub target_precision: Option<f64>,

    /// Fit a calibration to the gold labels, write it to FILE, which ends in .json, and print what it does
    ///
    /// It is a temperature that makes the scores as high as they should be, and with several labels per text a threshold for
    /// each. The texts are those of -f, and the gold labels those of --label-field.
    #[arg(
        long,
        value_name = "FILE",
        value_hint = clap::ValueHint::FilePath,
        conflicts_with_all = ["output", "report", "against", "target_precision", "calibration", "count", "only", "explain"],
        help_heading = "Evaluation"
    )]
    pub calibrate: Option<PathBuf>,

    /// Classify in two dtypes, and print how labels and scores differ and how fast each is, instead of records
    ///
    /// With --label-field also the figures of both, and McNemar's test. --report FILE.json writes it as JSON.
    #[arg(
        long,
        value_enum,
        value_name = "DTYPE,DTYPE",
        value_delimiter = ',',
        num_args = 1,
        action = clap::ArgAction::Set,
        conflicts_with_all = ["dtype", "output", "against", "target_precision", "calibrate", "windows", "count", "only", "explain"],
        help_heading = "Evaluation"
    )]
    pub compare: Vec<Dtype>,

    /// Print the evaluation to standard output, and no records
    #[arg(long, conflicts_with = "output", help_heading = "Evaluation")]
    pub no_results: bool,

    /// Where to compute: auto, cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = Suggested(&["auto", "cpu", "cuda", "metal"]), hide_possible_values = true, help_heading = "Computing", hide_short_help = true)]
    pub device: String,

    /// Arithmetic of the matrix products
    #[arg(long, value_enum, default_value_t = Dtype::Auto, help_heading = "Computing")]
    pub dtype: Dtype,

    /// CPU threads [default: one per core]
    #[arg(long, value_name = "N", help_heading = "Computing")]
    pub threads: Option<usize>,

    /// Tokens per batch [default: 384 on a CPU, 1024 with AMX, for each thread; 8192 on a GPU]
    #[arg(long, value_name = "N", help_heading = "Computing", hide_short_help = true)]
    pub max_batch_tokens: Option<usize>,

    /// Print no progress and no notes to standard error, only errors
    #[arg(short, long, overrides_with = "verbose", help_heading = "General")]
    pub quiet: bool,

    /// Say what is loaded, and print each cause of an error on a line of its own
    #[arg(short, long, overrides_with = "quiet", help_heading = "General")]
    pub verbose: bool,

    /// Print completions for SHELL and exit
    #[arg(long, value_enum, value_name = "SHELL", exclusive = true, hide_short_help = true, help_heading = "General")]
    pub completions: Option<clap_complete::Shell>,

    /// Print the manual page and exit
    #[arg(long, exclusive = true, hide_short_help = true, help_heading = "General")]
    pub man: bool,
}

/// What was typed, and which options were given.
#[derive(Debug)]
pub struct CommandLine {
    /// The options with their values.
    pub cli: Cli,
    /// The options that were typed, with what was typed for them, in the order of the help.
    pub given: Vec<(String, String)>,
    /// All of it, quoted for a shell.
    pub typed: String,
}

impl CommandLine {
    /// Parses `args`, the first of which is the name of the program.
    ///
    /// # Errors
    /// If clap refuses them, or they ask for help or the version.
    pub fn parse(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<CommandLine, clap::Error> {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let command = Cli::command();
        let matches = command.clone().try_get_matches_from(&args)?;
        let given = given(&command, &matches);
        let words = args.iter().skip(1).map(|arg| quoted(&arg.to_string_lossy()));
        let typed = std::iter::once("agnews".to_owned()).chain(words).collect::<Vec<_>>().join(" ");
        Ok(CommandLine { cli: Cli::from_arg_matches(&matches)?, given, typed })
    }
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./,:=@+%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

fn given(command: &clap::Command, matches: &ArgMatches) -> Vec<(String, String)> {
    let is_typed = |id: &str| matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine);
    let options = command.get_arguments().filter(|arg| is_typed(arg.get_id().as_str()));
    let value = |arg: &clap::Arg| {
        let name = arg.get_long().map(|long| format!("--{long}"))?;
        let values = matches.get_raw(arg.get_id().as_str()).filter(|_| arg.get_action().takes_values());
        let values: Vec<_> = values.into_iter().flatten().map(|value| value.to_string_lossy()).collect();
        Some((name, if values.is_empty() { "on".to_owned() } else { values.join(",") }))
    };
    options.filter_map(value).collect()
}

/// Any string; completions offer these.
#[derive(Clone)]
struct Suggested(&'static [&'static str]);

impl TypedValueParser for Suggested {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(PossibleValue::new)))
    }
}

/// The form of the records on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tab-separated: id, label and, if asked for, the score
    Tsv,
    /// Comma-separated with a header line: label_id, label, score
    Csv,
    /// One JSON object per line: label_id, label, score
    Jsonl,
    /// A page with each text and the words that hold up its label; needs --explain
    Html,
}

/// How logits become scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScoreFunction {
    /// Probabilities that sum to 1 over the labels
    Softmax,
    /// A probability for each label on its own
    Sigmoid,
    /// The logits themselves
    None,
}

/// What to do with a text longer than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LongText {
    /// Classify its beginning
    Truncate,
    /// Classify all of it in windows, by the mean of each logit
    Mean,
    /// Classify all of it in windows, by the largest of each logit
    Max,
}

/// The form of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// One text per line
    Lines,
    /// Comma-separated values (RFC 4180) with a header line
    Csv,
    /// Tab-separated values with a header line, without quoting
    Tsv,
    /// One JSON object per line
    Jsonl,
    /// An array of JSON objects
    Json,
}

/// When to use color.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Arithmetic of the matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// The fastest that agrees with float32 to four decimal places: bf16x3 with AMX, else f32
    Auto,
    /// 32-bit floating point
    F32,
    /// Each number as the sum of two bf16 numbers: fast with AMX only
    Bf16x3,
    /// bf16: faster with AVX-512 BF16 or AMX, logits within about 0.01
    Bf16,
    /// 8-bit integers: fastest with AVX-512 VNNI or AMX, logits within about 0.1; CPU only
    Int8,
    /// int8, and f32 (bf16x3 with AMX) for texts of which int8 is not sure: labels, but no scores; CPU only
    Cascade,
}

/// The codes with which the program exits, for the help and the manual.
pub const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "All texts were classified."),
    ("1", "Something failed, or a record was malformed; what was classified before has been printed."),
    ("2", "The command line is wrong."),
    ("130", "The run was interrupted while writing to a file."),
];

/// The environment variables that are read, for the manual.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    ("AGNEWS_MODEL", "The checkpoint to use without -m."),
    (
        "AGNEWS_CPU",
        "The best instruction set to use on the CPU: portable, avx2, avxvnni, avx512, avx512vnni, avx512bf16 or amx on \
         x86-64; portable, neon, dotprod or i8mm on ARM; or candle, for candle's own operations.",
    ),
    ("HF_HOME, HF_HUB_CACHE", "Where the cache is."),
    ("HF_TOKEN, HF_TOKEN_PATH", "The token for private checkpoints, or the file with it."),
    ("HF_ENDPOINT", "The address of the Hub, for a mirror."),
    ("HF_HUB_OFFLINE", "If 1, the same as --offline."),
    ("HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY", "The proxy for downloads, and the hosts to reach without it."),
    ("NO_COLOR, TERM", "No color if NO_COLOR is set or TERM is dumb."),
];

/// Commands and what they are for, for the help and the manual.
pub const EXAMPLES: &[(&str, &str)] = &[
    ("agnews -m builtin \"Peace talks resumed on Monday.\"", "Classify a sentence with the embedded model."),
    ("agnews --scores < headlines.txt", "Classify the lines of standard input."),
    ("agnews -f articles.csv.gz --text-field title,body --keep -o labelled.csv", "Add the label to each row of a CSV."),
    ("agnews -m builtin --only Sports -H -n -f *.txt", "Search files for texts about sports."),
    ("agnews -m builtin --explain -f headlines.txt -o why.html", "See which words hold up the labels."),
    ("agnews -f test.csv --label-field class --no-results", "Evaluate on gold labels."),
    (
        "agnews -m MoritzLaurer/deberta-v3-base-zeroshot-v2.0 --zero-shot sports,politics,cooking < lines.txt",
        "Classify into labels of your own.",
    ),
];

const AFTER_HELP: &str = "\
Examples:
  agnews -m builtin \"Peace talks resumed on Monday.\"
  agnews --scores < headlines.txt
  agnews -f articles.csv.gz --text-field title,body --keep -o labelled.csv

-h shows the common options, --help all of them.";

const AFTER_LONG_HELP: &str = "\
Exit status: 0 if all texts were classified, 1 if something failed or a record was malformed, 2 if the
command line is wrong, 130 if a run that writes to a file was interrupted.

Environment: AGNEWS_MODEL is the default checkpoint; AGNEWS_CPU caps the instruction set (portable; avx2,
avxvnni, avx512, avx512vnni, avx512bf16, amx; on ARM neon, dotprod, i8mm) or chooses candle; HF_HOME,
HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_OFFLINE and the proxy variables mean what they
mean to Python's huggingface_hub.

Examples:
  agnews -m builtin \"Peace talks resumed on Monday.\"
  agnews --scores < headlines.txt
  agnews -f articles.csv.gz --text-field title,body --keep -o labelled.csv
  agnews -m builtin --only Sports -H -n -f *.txt
  agnews -m builtin --explain -f headlines.txt -o why.html
  agnews -f test.csv --label-field class --no-results";
