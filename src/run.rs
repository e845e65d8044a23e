//! One run of the program. The only place that sees all stages.
//!
//! `classification` joins them; beside it, `records` writes, `evaluator` compares with gold labels, `faults` reports and
//! counts what is wrong with the input, `interrupt` explains what Ctrl-C leaves behind, and `stdout` is the way to standard
//! output.

mod classification;
mod evaluator;
mod faults;
mod info;
mod interrupt;
mod manual;
mod records;
mod stdout;

pub use stdout::{print, OutputError};

use crate::checkpoint::config::Config;
use crate::checkpoint::hub::{Hub, HubOptions};
use crate::checkpoint::{Checkpoint, CheckpointSpec};
use crate::classifier::{Classifier, ClassifierOptions};
use crate::cli::Cli;
use crate::options::{CheckpointOptions, ComputingOptions, Options, Task, Verbosity};
use crate::progress::Progress;
use anyhow::{bail, Context, Result};
use clap::CommandFactory;

/// Does what `options` say.
///
/// # Errors
/// Whatever stops the run; records of texts classified before have been written and flushed.
pub fn run(options: Options) -> Result<()> {
    if let Some(threads) = options.computing.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build_global();
        pool.with_context(|| format!("cannot start {threads} threads"))?;
    }
    match options.task {
        Task::Classify(task) => {
            classification::classify(*task, options.checkpoint, options.computing, options.verbosity)
        }
        Task::Info => info::print_info(options.checkpoint, &options.computing, options.verbosity),
        Task::Download => download(&options.checkpoint, options.verbosity),
        Task::Completions(shell) => print_completions(shell),
        Task::ManualPage => print(&manual::page()),
    }
}

/// A classifier, and what identifies it and its arithmetic to a later run that continues this one.
struct Loaded {
    classifier: Classifier,
    /// The revision and commit of a checkpoint from the Hub.
    revision: Option<String>,
    identity: Vec<(String, String)>,
}

/// `identifies` asks for the identity, which may take reading the whole checkpoint.
fn load(
    options: CheckpointOptions,
    computing: &ComputingOptions,
    progress: &Progress,
    identifies: bool,
) -> Result<Loaded> {
    let checkpoint = Checkpoint::open(&options.spec, &hub(options.hub, progress))?;
    progress.detail(&format!("checkpoint: {checkpoint}"));
    let options = ClassifierOptions {
        backend: computing.backend,
        cascade: computing.cascade,
        labels: options.labels,
        max_length: options.max_length,
        max_batch_tokens: computing.max_batch_tokens,
        score_function: options.score_function,
        zero_shot: options.zero_shot,
        long_text: options.long_text,
    };
    let classifier =
        Classifier::load(&checkpoint, &options).with_context(|| format!("cannot load the checkpoint {checkpoint}"))?;
    let arithmetic = classifier.arithmetic();
    progress.detail(&format!("computing: {arithmetic}"));
    if classifier.is_emulated() {
        progress.note(&format!(
            "this processor has no instructions for that arithmetic ({arithmetic}): it is done in float32, more slowly than \
             float32 itself"
        ));
    }
    progress.detail(&format!(
        "labels: {}; longest text: {} tokens",
        classifier.labels().join(", "),
        classifier.max_length()
    ));
    let identity = match identifies {
        true => vec![
            ("agnews".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("the checkpoint".to_owned(), checkpoint.identity()?),
            ("the arithmetic".to_owned(), arithmetic),
        ],
        false => Vec::new(),
    };
    Ok(Loaded { classifier, revision: checkpoint.revision, identity })
}

/// The Hub, which refuses what cannot be run before its weights are fetched.
fn hub(options: HubOptions, progress: &Progress) -> Hub<'_> {
    Hub::new(options, progress).refusing(|json, origin| Config::parse(json, origin).map(drop))
}

/// Fetches the checkpoint into the cache and prints its folder: for images and clusters, which classify offline later.
fn download(options: &CheckpointOptions, verbosity: Verbosity) -> Result<()> {
    let CheckpointSpec::Hub { model_id, revision } = &options.spec else {
        bail!("only a checkpoint on the Hub can be downloaded")
    };
    let progress = Progress::new(verbosity, false);
    let snapshot = hub(options.hub.clone(), &progress).download(model_id, revision.as_deref())?;
    for file in &snapshot.files {
        progress.detail(&format!("{}: {} bytes", file.name, file.size));
    }
    let bytes: u64 = snapshot.files.iter().map(|file| file.size).sum();
    progress.note(&format!(
        "{model_id} at revision {} (commit {}): {} files, {bytes} bytes, verified",
        snapshot.revision,
        snapshot.commit,
        snapshot.files.len()
    ));
    print(format!("{}\n", snapshot.folder.display()).as_bytes())
}

fn print_completions(shell: clap_complete::Shell) -> Result<()> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    // Rendered first: the generator panics if its output fails.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    print(&script)
}
