//! One run of the program: read, classify, write, flush. The only place that sees all stages.

mod classification;

use crate::checkpoint::hub::{Hub, HubOptions};
use crate::checkpoint::{Checkpoint, CheckpointSpec};
use crate::classifier::{Classifier, ClassifierOptions};
use crate::cli::Cli;
use crate::options::{CheckpointOptions, ComputingOptions, Options, Task, Verbosity};
use crate::progress::Progress;
use anyhow::{bail, Context, Result};
use clap::CommandFactory;
use std::fmt;
use std::io::{self, Write};

/// Writing records failed. Apart from other errors, because a closed pipe there ends the program quietly.
#[derive(Debug)]
pub struct OutputError {
    target: String,
    error: io::Error,
}

impl OutputError {
    fn new(target: &str, error: io::Error) -> OutputError {
        OutputError { target: target.to_owned(), error }
    }

    fn stdout(error: io::Error) -> OutputError {
        OutputError::new("standard output", error)
    }

    /// Whether the reader of our output has gone, as `head` does when it has seen enough.
    pub fn is_closed_pipe(&self) -> bool {
        self.error.kind() == io::ErrorKind::BrokenPipe
    }
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write to {}", self.target)
    }
}

impl std::error::Error for OutputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Does what `options` say.
///
/// # Errors
/// Whatever stops the run; records of texts classified before have been written and flushed.
pub fn run(options: Options) -> Result<()> {
    if let Some(threads) = options.computing.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .build_global()
            .context("cannot start the threads that --threads asks for")?;
    }
    match options.task {
        Task::Classify(task) => {
            classification::classify(*task, options.checkpoint, options.computing, options.verbosity)
        }
        Task::Download => download(&options.checkpoint, options.verbosity),
        Task::Completions(shell) => print_completions(shell),
        Task::ManualPage => print_manual_page(),
    }
}

fn load(options: CheckpointOptions, computing: &ComputingOptions, progress: &Progress) -> Result<Classifier> {
    let checkpoint = Checkpoint::open(&options.spec, &hub(options.offline, progress))?;
    progress.detail(&format!("checkpoint: {checkpoint}"));
    let options = ClassifierOptions {
        backend: computing.backend,
        labels: options.labels,
        max_length: options.max_length,
        max_batch_tokens: computing.max_batch_tokens,
    };
    let classifier =
        Classifier::load(&checkpoint, &options).with_context(|| format!("cannot load the checkpoint {checkpoint}"))?;
    let backend = classifier.backend();
    progress.detail(&format!("computing: {backend}"));
    if backend.is_emulated() {
        progress.note(&format!(
            "this processor has no instructions for that arithmetic ({backend}): it is done in float32, and slower than \
             --dtype f32"
        ));
    }
    progress.detail(&format!(
        "labels: {}; longest text: {} tokens",
        classifier.labels().join(", "),
        classifier.max_length()
    ));
    Ok(classifier)
}

/// Brings the checkpoint into the cache and prints its folder: for images and clusters, which classify offline later.
fn download(options: &CheckpointOptions, verbosity: Verbosity) -> Result<()> {
    let CheckpointSpec::Hub { model_id, revision } = &options.spec else {
        bail!("--download is for checkpoints on the Hub")
    };
    let progress = Progress::new(verbosity, false);
    let snapshot = hub(options.offline, &progress).download(model_id, revision.as_deref())?;
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
    writeln!(io::stdout(), "{}", snapshot.folder.display()).map_err(|error| OutputError::stdout(error).into())
}

fn print_completions(shell: clap_complete::Shell) -> Result<()> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    // Rendered first: the generator panics where its output fails.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    io::stdout().write_all(&script).map_err(|error| OutputError::stdout(error).into())
}

fn print_manual_page() -> Result<()> {
    clap_mangen::Man::new(Cli::command()).render(&mut io::stdout()).map_err(|error| OutputError::stdout(error).into())
}

fn hub(offline: bool, progress: &Progress) -> Hub<'_> {
    Hub::new(HubOptions::from_env(&|name| std::env::var_os(name), offline), progress)
}

fn colour_allowed() -> bool {
    // https://no-color.org: any value but the empty one.
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
