//! One run of the program: read, classify, write, flush. The only place that sees all stages.

use crate::checkpoint::hub::{Hub, HubOptions};
use crate::checkpoint::{Checkpoint, CheckpointSpec};
use crate::classifier::{Classifier, ClassifierOptions};
use crate::options::{CheckpointOptions, ComputingOptions, Options, Task, Verbosity};
use crate::output::{RecordFormat, RecordWriter};
use crate::prediction::Prediction;
use crate::progress::Progress;
use crate::source::{Chunk, Inputs, Source};
use anyhow::{bail, Context, Result};
use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Write};

/// Records that are sorted by length and batched together, at most; one chunk may exceed it.
const WINDOW_RECORDS: usize = 2048;

/// Text of one window, likewise, in bytes.
const WINDOW_BYTES: u64 = 4 << 20;

/// Standard output failed. Apart from other errors, because a closed pipe there ends the program quietly.
#[derive(Debug)]
pub struct OutputError(io::Error);

impl OutputError {
    /// Whether the reader of our output has gone, as `head` does when it has seen enough.
    pub fn is_closed_pipe(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot write to standard output")
    }
}

impl std::error::Error for OutputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
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
        Task::Classify { inputs, format } => {
            classify(inputs, format, options.checkpoint, options.computing, options.verbosity)
        }
        Task::Download => download(&options.checkpoint, options.verbosity),
    }
}

fn classify(
    inputs: Inputs,
    format: RecordFormat,
    checkpoint: CheckpointOptions,
    computing: ComputingOptions,
    verbosity: Verbosity,
) -> Result<()> {
    let stdout = io::stdout().lock();
    let is_terminal = stdout.is_terminal();
    let progress = Progress::new(verbosity, !is_terminal);
    if inputs.is_terminal() {
        progress.note("reading texts from the terminal, one a line; end with Ctrl-D");
    }
    let total_bytes = inputs.total_bytes();
    let mut source = Source::open(inputs)?;
    let classifier = load(checkpoint, &computing, &progress)?;
    let format = if is_terminal { format.for_terminal(colour_allowed()) } else { format };
    let out = BufWriter::with_capacity(64 * 1024, stdout);
    let mut sink =
        Sink { records: RecordWriter::new(out, format, classifier.labels()), progress, counts: Counts::default() };
    sink.progress.start_files(total_bytes);
    let outcome = classify_windows(&mut source, &classifier, &mut sink);
    sink.finish(classifier.max_length());
    outcome
}

fn classify_windows<W: Write>(source: &mut Source, classifier: &Classifier, sink: &mut Sink<W>) -> Result<()> {
    while let Some(window) = source.next_window(WINDOW_RECORDS, WINDOW_BYTES)? {
        let texts: Vec<&str> = window.records.iter().map(|record| record.text.as_str()).collect();
        let predictions = classifier.classify(&texts)?;
        sink.write(&window, &predictions)?;
    }
    Ok(())
}

/// Where predictions go, and what is counted on the way.
struct Sink<W: Write> {
    records: RecordWriter<W>,
    progress: Progress,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    truncated: u64,
    invalid_utf8: u64,
}

impl<W: Write> Sink<W> {
    /// Writes the window's records and flushes: whoever waits for them has them before the next read.
    fn write(&mut self, window: &Chunk, predictions: &[Option<Prediction>]) -> Result<(), OutputError> {
        for (record, prediction) in window.records.iter().zip(predictions) {
            self.records.write(&record.text, prediction.as_ref()).map_err(OutputError)?;
            self.counts.truncated += u64::from(prediction.as_ref().is_some_and(|prediction| prediction.truncated));
            self.counts.invalid_utf8 += u64::from(record.had_invalid_utf8);
        }
        self.records.flush().map_err(OutputError)?;
        self.progress.advance(window.records.len() as u64, window.bytes);
        Ok(())
    }

    fn finish(&mut self, max_length: usize) {
        self.progress.finish_files();
        let Counts { truncated, invalid_utf8 } = self.counts;
        if truncated > 0 {
            let texts = if truncated == 1 { "1 text was".into() } else { format!("{truncated} texts were") };
            self.progress.note(&format!("{texts} longer than {max_length} tokens, and classified by the start"));
        }
        if invalid_utf8 > 0 {
            let lines = if invalid_utf8 == 1 { "1 line was".into() } else { format!("{invalid_utf8} lines were") };
            self.progress.note(&format!("{lines} not valid UTF-8; the bytes at fault were read as U+FFFD"));
        }
    }
}

fn load(options: CheckpointOptions, computing: &ComputingOptions, progress: &Progress) -> Result<Classifier> {
    let checkpoint = Checkpoint::open(&options.spec, &hub(options.offline, progress))?;
    progress.detail(&format!("checkpoint: {checkpoint}"));
    let options = ClassifierOptions {
        device: computing.device,
        cpu_level: computing.cpu_level,
        labels: options.labels,
        max_length: options.max_length,
        max_batch_tokens: computing.max_batch_tokens,
    };
    let classifier =
        Classifier::load(&checkpoint, &options).with_context(|| format!("cannot load the checkpoint {checkpoint}"))?;
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
    writeln!(io::stdout(), "{}", snapshot.folder.display()).map_err(|error| OutputError(error).into())
}

fn hub(offline: bool, progress: &Progress) -> Hub<'_> {
    Hub::new(HubOptions::from_env(&|name| std::env::var_os(name), offline), progress)
}

fn colour_allowed() -> bool {
    // https://no-color.org: any value but the empty one.
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
