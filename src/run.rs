//! One run of the program. The only place that sees all stages.
//!
//! `classification` joins them; beside it, `records` writes, `evaluator` compares with gold labels, `calibration` fits
//! scores to them, `comparison` classifies in a second dtype, `faults` reports and counts what is wrong with the input,
//! `interrupt` explains what Ctrl-C leaves behind, and `stdout` is the way to standard output.

mod calibration;
mod classification;
mod comparison;
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
use crate::evaluation::calibration::{Settings, Subject};
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
    /// In the dtype to compare with.
    compared: Option<Classifier>,
    calibrated: Option<Calibrated>,
    /// The revision and commit of a checkpoint from the Hub.
    revision: Option<String>,
    identity: Vec<(String, String)>,
}

impl Loaded {
    fn classifiers(&mut self) -> impl Iterator<Item = &mut Classifier> {
        [Some(&mut self.classifier), self.compared.as_mut()].into_iter().flatten()
    }
}

/// What a calibration is for, or fitted to.
struct Calibrated {
    subject: Subject,
    settings: Settings,
}

/// What is to be known beside the classifier. Either may take reading the whole checkpoint.
struct Identifying {
    /// For a run that continues this one.
    run: bool,
    /// For a calibration.
    calibrated: bool,
}

fn load(
    options: CheckpointOptions,
    computing: &ComputingOptions,
    progress: &Progress,
    identifying: &Identifying,
) -> Result<Loaded> {
    let checkpoint = Checkpoint::open(&options.spec, &hub(options.hub, progress))?;
    progress.detail(&format!("checkpoint: {checkpoint}"));
    let long_text = options.long_text;
    let hypothesis = options.zero_shot.as_ref().map(|options| options.hypothesis.clone());
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
    let classifier = load_classifier(&checkpoint, &options, progress)?;
    let compared = computing.compared.map(|backend| ClassifierOptions { backend, ..options.clone() });
    let compared = compared.map(|options| load_classifier(&checkpoint, &options, progress)).transpose()?;
    progress.detail(&format!(
        "labels: {}; longest text: {} tokens",
        classifier.labels().join(", "),
        classifier.max_length()
    ));
    let identity = match identifying.run {
        true => vec![
            ("agnews".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("the checkpoint".to_owned(), checkpoint.identity()?),
            ("the arithmetic".to_owned(), classifier.arithmetic()),
        ],
        false => Vec::new(),
    };
    let calibrated = match identifying.calibrated {
        true => Some(Calibrated {
            subject: calibration::subject_of(checkpoint.fingerprint()?, &classifier, hypothesis),
            settings: calibration::settings_of(&classifier, long_text),
        }),
        false => None,
    };
    Ok(Loaded { classifier, compared, calibrated, revision: checkpoint.revision, identity })
}

fn load_classifier(checkpoint: &Checkpoint, options: &ClassifierOptions, progress: &Progress) -> Result<Classifier> {
    let classifier =
        Classifier::load(checkpoint, options).with_context(|| format!("cannot load the checkpoint {checkpoint}"))?;
    let arithmetic = classifier.arithmetic();
    progress.detail(&format!("computing: {arithmetic}"));
    if classifier.is_emulated() {
        progress.note(&format!(
            "this processor has no instructions for that arithmetic ({arithmetic}): it is done in float32, more slowly than \
             float32 itself"
        ));
    }
    Ok(classifier)
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
