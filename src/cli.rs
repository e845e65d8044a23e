//! What was typed: the command line as clap reads it, and nothing of what it means (see `options`).

use crate::checkpoint::hub::DEFAULT_MODEL_ID;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// Classify text with a BERT checkpoint: arguments, lines of standard input, or files.
///
/// Prints one record a text on standard output, in order: by default the class id, a tab and the label.
#[derive(Debug, Parser)]
#[command(name = "agnews", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    /// Texts to classify, each argument one; without any, or with `-`, the lines of standard input
    #[arg(value_name = "TEXT", conflicts_with = "files")]
    pub texts: Vec<String>,

    /// Classify every line of FILE (`-` is standard input); may be given several times
    #[arg(short, long = "file", value_name = "FILE", help_heading = "Input")]
    pub files: Vec<PathBuf>,

    /// Format of the files and of standard input; by default what the file's name ends with (.csv .tsv .jsonl .ndjson,
    /// with .gz or .zst behind), else lines. gzip and Zstandard are told by the first bytes, whatever the name
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "texts", help_heading = "Input")]
    pub input_format: Option<InputFormat>,

    /// The fields that make the text, joined with a space: header names, 1-based numbers, or JSON keys (dotted for
    /// nested ones); by default `text`, else the only field there is
    #[arg(
        long,
        value_name = "NAME[,NAME...]",
        value_delimiter = ',',
        conflicts_with = "texts",
        help_heading = "Input"
    )]
    pub text_field: Vec<String>,

    /// CSV and TSV have no header line, neither the input nor the output
    #[arg(long, help_heading = "Input")]
    pub no_header: bool,

    /// Texts of plain input end with a NUL byte, not with a line break
    #[arg(short = '0', long, conflicts_with = "texts", help_heading = "Input")]
    pub null: bool,

    /// Stop at the first malformed record, instead of giving an empty one in its place and going on
    #[arg(long, help_heading = "Input")]
    pub strict: bool,

    /// Checkpoint: a Hugging Face Hub id, a local folder, or `builtin` for the embedded model
    #[arg(short, long, value_name = "MODEL", default_value = DEFAULT_MODEL_ID, help_heading = "Checkpoint")]
    pub model: String,

    /// Branch, tag, commit or refs/pr/N of the Hub's repository
    #[arg(long, value_name = "REVISION", help_heading = "Checkpoint")]
    pub revision: Option<String>,

    /// Never use the network: only what is in the cache (also: HF_HUB_OFFLINE=1)
    #[arg(long, help_heading = "Checkpoint")]
    pub offline: bool,

    /// Name the classes, in id order, instead of the names in config.json
    #[arg(long, value_name = "A,B,...", value_delimiter = ',', help_heading = "Checkpoint")]
    pub labels: Option<Vec<String>>,

    /// Longest text in tokens, the two special ones included; longer ones are truncated; by default the model decides
    #[arg(long, value_name = "TOKENS", help_heading = "Checkpoint")]
    pub max_length: Option<usize>,

    /// Fetch the checkpoint into the cache, verify it, print its folder, and end
    #[arg(long, conflicts_with_all = ["texts", "files"], help_heading = "Checkpoint")]
    pub download: bool,

    /// Add the score (softmax probability) to each record
    #[arg(long, help_heading = "Output")]
    pub scores: bool,

    /// Give the K best classes of each text, best first, with their scores
    #[arg(short = 'k', long, value_name = "K", help_heading = "Output")]
    pub top_k: Option<usize>,

    /// Form of the records
    #[arg(long, value_enum, default_value_t = Format::Tsv, help_heading = "Output")]
    pub format: Format,

    /// Add the text to each record (with --format jsonl)
    #[arg(long, help_heading = "Output")]
    pub with_text: bool,

    /// Carry the input's own fields through: CSV and TSV columns, JSON keys; the prediction comes behind them
    #[arg(long, conflicts_with_all = ["texts", "id_field"], help_heading = "Output")]
    pub keep: bool,

    /// Carry one field through, as the first of each record
    #[arg(long, value_name = "NAME", conflicts_with = "texts", help_heading = "Output")]
    pub id_field: Option<String>,

    /// Give no class where the best score is below P
    #[arg(long, value_name = "P", help_heading = "Output")]
    pub min_score: Option<f32>,

    /// The label of texts below --min-score, instead of an empty one
    #[arg(long, value_name = "NAME", requires = "min_score", help_heading = "Output")]
    pub unsure: Option<String>,

    /// Write the records to FILE, whole or not at all: to FILE.partial first
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,

    /// Go on where an interrupted run with the same --output and options stopped
    #[arg(long, requires = "output", help_heading = "Output")]
    pub resume: bool,

    /// Compare with the gold labels in this field (names in any case, or ids), and tell accuracy, precision, recall, F1,
    /// confusions and calibration on standard error at the end
    #[arg(long, value_name = "NAME", conflicts_with = "texts", help_heading = "Evaluation")]
    pub label_field: Option<String>,

    /// The id of the first class in the gold labels: 1 for AG News' own files
    #[arg(long, value_name = "N", default_value_t = 0, requires = "label_field", help_heading = "Evaluation")]
    pub first_label_id: i64,

    /// Write the evaluation to FILE, which ends with .json, .svg or .html
    #[arg(long, value_name = "FILE", requires = "label_field", help_heading = "Evaluation")]
    pub report: Option<PathBuf>,

    /// Print no records, only the evaluation
    #[arg(long, requires = "label_field", conflicts_with = "output", help_heading = "Evaluation")]
    pub no_results: bool,

    /// Where to compute: auto, cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "DEVICE", default_value = "auto", help_heading = "Computing")]
    pub device: String,

    /// Arithmetic of the forward pass
    #[arg(long, value_enum, default_value_t = Dtype::Auto, help_heading = "Computing")]
    pub dtype: Dtype,

    /// CPU threads [default: one for each core]
    #[arg(long, value_name = "N", help_heading = "Computing")]
    pub threads: Option<usize>,

    /// Tokens that go through the model together [default: 384 on a CPU, for each thread, 8192 on a GPU]
    #[arg(long, value_name = "N", help_heading = "Computing")]
    pub max_batch_tokens: Option<usize>,

    /// No progress, no notes on standard error; errors are still told
    #[arg(short, long)]
    pub quiet: bool,

    /// Print completions for SHELL and end
    #[arg(long, value_enum, value_name = "SHELL", exclusive = true)]
    pub completions: Option<clap_complete::Shell>,

    /// Print the manual page (roff) and end
    #[arg(long, exclusive = true)]
    pub man: bool,

    /// Say what is loaded, and show every cause of an error on a line of its own
    #[arg(short, long)]
    pub verbose: bool,
}

/// Form of the records on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Fields with tabs between: id, label and, where asked for, the score
    Tsv,
    /// One JSON object a line: label_id, label, score
    Jsonl,
    /// Comma-separated values with a header line: label_id, label, score
    Csv,
}

/// Form of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// Each line a text
    Lines,
    /// Comma-separated values (RFC 4180) with a header line
    Csv,
    /// Tab-separated values with a header line, without quoting
    Tsv,
    /// One JSON object a line
    Jsonl,
}

/// Arithmetic of the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// The fastest whose logits agree with float32's to four decimal places: bf16x3 where the CPU has AMX, else f32
    Auto,
    /// 32-bit floating point throughout
    F32,
    /// The large matrix products split each number into two bf16 numbers and add in 32 bits: fast with AMX only
    Bf16x3,
    /// They multiply bf16 numbers and add in 32 bits: faster with AVX-512 BF16 or AMX, logits within about a hundredth
    Bf16,
    /// They multiply 8-bit integers: the fastest with AVX-512 VNNI or AMX, logits within about a tenth; CPU only
    Int8,
}

const AFTER_HELP: &str = "\
Exit codes: 0 all texts classified; 1 a failure while running; 2 a usage error.

Environment: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_OFFLINE and the
usual proxy variables as Python's huggingface_hub reads them; NO_COLOR; AGNEWS_CPU caps the
instruction set of the CPU kernels (portable, avx2, avx512, avx512vnni, avx512bf16, amx).

Examples:
  agnews -m builtin \"Peace talks resumed on Monday.\"
  cat headlines.txt | agnews --scores
  agnews -f headlines.txt --format jsonl --with-text > predictions.jsonl
  agnews -f articles.csv.gz --text-field title,body --keep --format csv -o labelled.csv
  agnews -f test.csv --text-field title,description --label-field class_index --first-label-id 1 --no-results";
