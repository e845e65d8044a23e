//! A run that classifies: windows of records through the classifier, in order, into their records.

use super::{colour_allowed, load, OutputError};
use crate::checkpoint::CheckpointSpec;
use crate::classifier::Classifier;
use crate::evaluation::report::{self, About};
use crate::evaluation::{Evaluation, LeftOut};
use crate::options::{
    CheckpointOptions, ClassificationOptions, ComputingOptions, EvaluationOptions, MalformedPolicy, Target, Verbosity,
};
use crate::output::file::{RecordFile, Settings, WholeFile};
use crate::output::{RecordOptions, RecordWriter, Row};
use crate::prediction::Prediction;
use crate::progress::Progress;
use crate::source::{Chunk, Inputs, Record, Source, WindowLimits};
use anyhow::{bail, ensure, Result};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Records that are sorted by length and batched together, at most.
const WINDOW_RECORDS: usize = 2048;

/// Text of one window, likewise, in bytes.
const WINDOW_BYTES: usize = 4 << 20;

/// Malformed records told one by one; of the others only the number is.
const MALFORMED_TOLD: u64 = 10;

/// Does what `task` says.
///
/// # Errors
/// Whatever stops the run; records of texts classified before have been written and flushed. Also at the end of a run
/// with malformed records.
pub(super) fn classify(
    task: ClassificationOptions,
    checkpoint: CheckpointOptions,
    computing: ComputingOptions,
    verbosity: Verbosity,
) -> Result<()> {
    let is_terminal = task.target == Target::Stdout && io::stdout().is_terminal();
    let progress = Progress::new(verbosity, !is_terminal);
    if task.inputs.is_terminal() {
        progress.note("reading texts from the terminal, one a line; end with Ctrl-D");
    }
    let destination = Destination::open(&task, &checkpoint, &computing)?;
    let report = task.evaluation.as_ref().and_then(|evaluation| evaluation.report.as_ref());
    let report =
        report.map(|(path, format)| Ok::<_, anyhow::Error>((WholeFile::create(path)?, *format))).transpose()?;
    let total_bytes = task.inputs.total_bytes();
    let about = About {
        model: model_name(&checkpoint.spec),
        data: describe_inputs(&task.inputs),
        dtype: computing.precision.to_string(),
        ..About::default()
    };
    let limits = WindowLimits {
        max_records: WINDOW_RECORDS,
        max_bytes: WINDOW_BYTES,
        // Nobody reads a file that is not there yet, and a run that is resumed must find the same windows again.
        waits: destination.file.is_some(),
    };
    let mut source = Source::open(task.inputs, task.reading)?;
    let classifier = load(checkpoint, &computing, &progress)?;
    let mut options = task.records;
    if is_terminal {
        options.format = options.format.for_terminal(colour_allowed());
    }
    let mut sink = Sink::new(destination, options, &classifier, task.evaluation.as_ref(), task.malformed, progress)?;
    sink.progress.start_files(total_bytes);
    let outcome = classify_windows(&mut source, &classifier, limits, &mut sink);
    sink.progress.finish_files();
    sink.tell_counts(classifier.max_length());
    if let Err(error) = outcome {
        return Err(sink.explain(error));
    }
    let (evaluation, malformed) = sink.finish()?;
    if let (Some(evaluation), Some(options)) = (evaluation, &task.evaluation) {
        conclude(&evaluation, options, report, &about)?;
    }
    malformed.conclude()
}

fn model_name(spec: &CheckpointSpec) -> String {
    match spec {
        CheckpointSpec::Builtin => "builtin".to_owned(),
        CheckpointSpec::Folder(folder) => folder.display().to_string(),
        CheckpointSpec::Hub { model_id, revision: None } => model_id.clone(),
        CheckpointSpec::Hub { model_id, revision: Some(revision) } => format!("{model_id} at {revision}"),
    }
}

fn describe_inputs(inputs: &Inputs) -> String {
    match inputs {
        Inputs::Texts(_) => "arguments".to_owned(),
        Inputs::Files(files) => files.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn classify_windows(source: &mut Source, classifier: &Classifier, limits: WindowLimits, sink: &mut Sink) -> Result<()> {
    while let Some(window) = source.next_window(limits)? {
        if sink.has_already(&window)? {
            continue;
        }
        let texts: Vec<&str> = window.records.iter().map(|record| record.text.as_str()).collect();
        let told = Told::default();
        let predictions =
            classifier.classify_observed(&texts, &|texts| told.tell(texts as u64, &window, &sink.progress))?;
        sink.write(&window, &predictions, source)?;
        told.tell(window.records.len() as u64 - told.records(), &window, &sink.progress);
    }
    sink.begin(source.kept_names().cloned())
}

/// How many records of a window the progress bar has been told of: as its batches are done, so that the bar moves
/// while a slow model works on a large window.
#[derive(Default)]
struct Told(AtomicU64);

impl Told {
    fn records(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Tells of `records` more, and of their share in the window's bytes.
    fn tell(&self, records: u64, window: &Chunk, progress: &Progress) {
        let before = self.0.fetch_add(records, Ordering::Relaxed);
        let bytes_of = |records: u64| window.bytes * records / (window.records.len() as u64).max(1);
        progress.advance(records, bytes_of(before + records) - bytes_of(before));
    }
}

/// Tells the evaluation on standard error, and writes it to its file.
fn conclude(
    evaluation: &Evaluation,
    options: &EvaluationOptions,
    report: Option<(WholeFile, report::Format)>,
    about: &About,
) -> Result<()> {
    ensure!(
        evaluation.metrics().evaluated() > 0,
        "there is nothing to evaluate: no record has both a text and a known gold label in {:?}",
        options.label_field
    );
    // A closed standard error is no reason to fail.
    let view = evaluation.view();
    let _ = write!(io::stderr(), "{view}");
    if let Some((mut file, format)) = report {
        file.write(format.render(&view, about).as_bytes())?;
        file.publish()?;
    }
    Ok(())
}

/// Where records go.
struct Destination {
    name: String,
    out: Box<dyn Write>,
    /// Where they go to a file: the file, which takes its name when it is whole.
    file: Option<RecordFile>,
}

impl Destination {
    fn open(
        task: &ClassificationOptions,
        checkpoint: &CheckpointOptions,
        computing: &ComputingOptions,
    ) -> Result<Destination> {
        Ok(match &task.target {
            Target::Stdout => {
                Destination { name: "standard output".into(), out: Box::new(io::stdout().lock()), file: None }
            }
            Target::Nowhere => Destination { name: "nowhere".into(), out: Box::new(io::sink()), file: None },
            Target::File { path, resume } => {
                let settings = settings(task, checkpoint, computing);
                let file = RecordFile::open(path, &task.records, &settings, *resume)?;
                Destination { name: path.display().to_string(), out: Box::new(file.writer()?), file: Some(file) }
            }
        })
    }
}

/// What two runs must have in common for the second to go on where the first stopped.
fn settings(task: &ClassificationOptions, checkpoint: &CheckpointOptions, computing: &ComputingOptions) -> Settings {
    Settings(vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("model", model_name(&checkpoint.spec)),
        ("labels", format!("{:?}", checkpoint.labels)),
        ("max-length", format!("{:?}", checkpoint.max_length)),
        ("dtype", format!("{:?}", computing.precision)),
        ("cpu-level", computing.cpu_level.to_string()),
        ("max-batch-tokens", format!("{:?}", computing.max_batch_tokens)),
        ("inputs", format!("{:?}", task.inputs)),
        ("reading", format!("{:?}", task.reading)),
        ("records", format!("{:?}", task.records)),
    ])
}

/// Where predictions go, and what is counted on the way.
struct Sink {
    records: RecordWriter<BufWriter<Box<dyn Write>>>,
    target: String,
    file: Option<RecordFile>,
    has_begun: bool,
    /// Records of the input so far.
    position: u64,
    evaluation: Option<Evaluation>,
    min_score: f32,
    malformed: Malformed,
    counts: Counts,
    progress: Progress,
}

#[derive(Default)]
struct Counts {
    truncated: u64,
    invalid_utf8: u64,
}

/// Records that could not be read, or compared.
struct Malformed {
    policy: MalformedPolicy,
    count: u64,
    records: u64,
}

impl Sink {
    fn new(
        destination: Destination,
        options: RecordOptions,
        classifier: &Classifier,
        evaluation: Option<&EvaluationOptions>,
        policy: MalformedPolicy,
        progress: Progress,
    ) -> Result<Sink> {
        let labels = classifier.labels();
        let evaluation = evaluation
            .map(|options| Evaluation::of_classes(labels, options.first_label_id, classifier.score_function()));
        let min_score = options.unsure.as_ref().map_or(0.0, |unsure| unsure.min_score);
        let out = BufWriter::with_capacity(64 * 1024, destination.out);
        Ok(Sink {
            records: RecordWriter::new(out, options, labels),
            target: destination.name,
            file: destination.file,
            has_begun: false,
            position: 0,
            evaluation,
            min_score,
            malformed: Malformed { policy, count: 0, records: 0 },
            counts: Counts::default(),
            progress,
        })
    }

    /// Whether the run that this one resumes has written the whole window; it is not classified again then.
    fn has_already(&mut self, window: &Chunk) -> Result<bool> {
        let end = self.position + window.records.len() as u64;
        if self.file.as_ref().is_none_or(|file| end > file.complete_records()) {
            return Ok(false);
        }
        // Told by the run before; the exit code is still to say so.
        self.malformed.count += window.records.iter().filter(|record| record.malformed.is_some()).count() as u64;
        self.advance(window);
        Told::default().tell(window.records.len() as u64, window, &self.progress);
        Ok(true)
    }

    /// Writes the header, before the first record or where there is none.
    fn begin(&mut self, kept_names: Option<Arc<[String]>>) -> Result<()> {
        if std::mem::replace(&mut self.has_begun, true) {
            return Ok(());
        }
        if let Some(file) = &mut self.file {
            file.keep_only(self.position)?;
        }
        let is_first = self.position == 0;
        self.output(|records| records.begin(kept_names.unwrap_or_else(|| Arc::from([])), is_first))?;
        self.output(RecordWriter::flush)
    }

    /// Writes the window's records and flushes: whoever waits for them has them before the next read.
    fn write(&mut self, window: &Chunk, predictions: &[Option<Prediction>], source: &Source) -> Result<()> {
        self.begin(window.kept_names.clone())?;
        for (record, prediction) in window.records.iter().zip(predictions) {
            if let Err(error) = self.write_record(record, prediction.as_ref(), source) {
                // What came before it is whole.
                self.output(RecordWriter::flush)?;
                return Err(error);
            }
        }
        self.output(RecordWriter::flush)?;
        self.advance(window);
        Ok(())
    }

    fn advance(&mut self, window: &Chunk) {
        let records = window.records.len() as u64;
        self.position += records;
        self.malformed.records += records;
    }

    fn write_record(&mut self, record: &Record, prediction: Option<&Prediction>, source: &Source) -> Result<()> {
        if let Some(reason) = &record.malformed {
            self.malformed.tell(&source.describe(record.place), reason, &self.progress)?;
        }
        let fields = record.fields.as_deref();
        let kept = fields.map(|fields| &fields.kept);
        if let Some(kept) = kept.filter(|kept| self.records.is_table() && *kept.names != *self.records.kept_names()) {
            bail!(
                "{}: the columns of this file are called {:?}, those of the files before {:?}: one table cannot hold both",
                source.describe(record.place),
                kept.names,
                self.records.kept_names()
            );
        }
        if let Some(reason) = self.evaluate(record, prediction) {
            self.malformed.tell(&source.describe(record.place), &reason, &self.progress)?;
        }
        self.counts.truncated += u64::from(prediction.is_some_and(|prediction| prediction.truncated));
        self.counts.invalid_utf8 += u64::from(record.had_invalid_utf8);
        let row = Row { text: &record.text, prediction, malformed: record.malformed.as_deref(), kept };
        self.output(|records| records.write(row))
    }

    /// Compares with the gold label, if that is asked for. Returns the reason if the model does not have that label.
    fn evaluate(&mut self, record: &Record, prediction: Option<&Prediction>) -> Option<String> {
        let evaluation = self.evaluation.as_mut()?;
        match prediction {
            _ if record.malformed.is_some() => evaluation.leave_out(LeftOut::MalformedRecord),
            None => evaluation.leave_out(LeftOut::BlankText),
            Some(prediction) => {
                let gold = record.fields.as_ref().and_then(|fields| fields.gold.as_deref()).unwrap_or("");
                let best = prediction.best();
                let decided = [best.label_id];
                let decided = if best.score < self.min_score { &[] } else { &decided[..] };
                return evaluation.observe(gold, prediction, decided).err().map(|unknown| unknown.to_string());
            }
        }
        None
    }

    fn output(
        &mut self,
        write: impl FnOnce(&mut RecordWriter<BufWriter<Box<dyn Write>>>) -> io::Result<()>,
    ) -> Result<()> {
        write(&mut self.records).map_err(|error| OutputError::new(&self.target, error).into())
    }

    fn tell_counts(&self, max_length: usize) {
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

    /// Says where the records are that were written before the run failed.
    fn explain(self, error: anyhow::Error) -> anyhow::Error {
        match self.file.and_then(RecordFile::abandon) {
            Some(partial) => error.context(format!(
                "the run is not complete; the records so far are in {}, and the same command with --resume goes on from \
                 there",
                partial.display()
            )),
            None => error,
        }
    }

    /// Gives the file its name.
    fn finish(self) -> Result<(Option<Evaluation>, Malformed)> {
        let Sink { file, position, evaluation, malformed, target, .. } = self;
        if let Some(file) = file {
            ensure!(
                file.complete_records() <= position,
                "{target} cannot be resumed: {} records were written before, and the input has only {position} now",
                file.complete_records()
            );
            file.publish()?;
        }
        Ok((evaluation, malformed))
    }
}

impl Malformed {
    /// Tells one on standard error, unless there have been many.
    ///
    /// # Errors
    /// With `--strict`: the reason.
    fn tell(&mut self, place: &str, reason: &str, progress: &Progress) -> Result<()> {
        if self.policy == MalformedPolicy::Stop {
            bail!("{place}: {reason}");
        }
        self.count += 1;
        match self.count {
            ..=MALFORMED_TOLD => progress.fault(&format!("{place}: {reason}")),
            count if count == MALFORMED_TOLD + 1 => progress.fault("further malformed records are only counted"),
            _ => {}
        }
        Ok(())
    }

    /// # Errors
    /// Where there was any.
    fn conclude(&self) -> Result<()> {
        match (self.count, self.records) {
            (0, _) => Ok(()),
            (1, 1) => bail!("the only record is malformed"),
            (1, all) => bail!("1 of {all} records is malformed; the others are done"),
            (count, all) => bail!("{count} of {all} records are malformed; the others are done"),
        }
    }
}
