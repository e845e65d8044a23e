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
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', help_heading = "Checkpoint")]
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

    /// Where to compute: auto, cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "DEVICE", default_value = "auto", help_heading = "Computing")]
    pub device: String,

    /// Arithmetic of the forward pass
    #[arg(long, value_enum, default_value_t = Dtype::F32, help_heading = "Computing")]
    pub dtype: Dtype,

    /// CPU threads [default: one for each core]
    #[arg(long, value_name = "N", help_heading = "Computing")]
    pub threads: Option<usize>,

    /// Tokens that go through the model together
    #[arg(long, value_name = "N", default_value_t = 1024, help_heading = "Computing")]
    pub max_batch_tokens: usize,

    /// No progress, no notes on standard error; errors are still told
    #[arg(short, long)]
    pub quiet: bool,

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
}

/// Arithmetic of the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 32-bit floating point throughout
    F32,
}

const AFTER_HELP: &str = "\
Exit codes: 0 all texts classified; 1 a failure while running; 2 a usage error.

Examples:
  agnews -m builtin \"Peace talks resumed on Monday.\"
  cat headlines.txt | agnews --scores
  agnews -f headlines.txt --format jsonl --with-text > predictions.jsonl";
