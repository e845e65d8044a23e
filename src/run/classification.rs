//! A run that classifies: for each window of records, predict, write, evaluate, tell.

use super::comparison::Comparer;
use super::evaluator::{open_file, Evaluator};
use super::faults::Faults;
use super::interrupt;
use super::records::{Output, RecordWriter};
use super::{calibration, load, Identifying, OutputError};
use crate::classifier::{Classifier, LongText};
use crate::decision::{Decider, Decision};
use crate::evaluation::calibration::Calibration;
use crate::evaluation::report::About;
use crate::options::{
    CheckpointOptions, ClassificationOptions, ComputingOptions, EvaluationOptions, ExplanationOptions, Incomplete,
    Verbosity,
};
use crate::output::file::Run;
use crate::prediction::Prediction;
use crate::progress::{Progress, WindowProgress};
use crate::source::{Content, Input, Inputs, Record, Source, Window, WindowLimits};
use crate::tokenization::TextOrPair;
use anyhow::{anyhow, Result};
use std::path::PathBuf;
use std::time::Instant;

/// Classifies what `task` says.
///
/// # Errors
/// Whatever stops the run; records classified before have been written and flushed. Also at the end of a run with
/// malformed records.
pub(super) fn classify(
    task: ClassificationOptions,
    checkpoint: CheckpointOptions,
    computing: ComputingOptions,
    verbosity: Verbosity,
) -> Result<()> {
    let mut progress = Progress::new(verbosity, task.shows_progress);
    note_inputs(&task.inputs, &progress);
    let output = Output::open(&task.destination)?;
    let calibration = task.calibration.as_deref().map(Calibration::read).transpose()?;
    let file = open_file(task.evaluation.as_ref(), task.comparison.as_ref())?;
    let total_bytes = task.inputs.total_bytes();
    // Only a run that another can continue has a use for them.
    let input_states = output.partial().map_or_else(Vec::new, |_| input_states(&task.inputs));
    let mut about = About {
        model: checkpoint.to_string(),
        data: task.inputs.to_string(),
        command: task.command,
        ..About::default()
    };
    // Nobody reads a file that is not complete yet, and its windows must not depend on timing.
    let limits = if task.explanation.is_some() { EXPLAINED_LIMITS } else { WindowLimits::default() };
    let limits = WindowLimits { waits: output.partial().is_some(), ..limits };
    let source = Source::open(task.inputs, task.reading, limits)?;
    let gives_windows = checkpoint.long_text.how == LongText::Windows;
    let is_fitted = task.evaluation.as_ref().is_some_and(EvaluationOptions::fits_calibration);
    let identifying = Identifying { run: output.partial().is_some(), calibrated: is_fitted || calibration.is_some() };
    let mut loaded = load(checkpoint, &computing, &progress, &identifying)?;
    let mut decision = task.decision;
    if let Some(calibration) = &calibration {
        decision.thresholds = calibration::apply(calibration, &mut loaded, &progress)?;
    }
    about.revision = loaded.revision.take().unwrap_or_default();
    about.dtype = loaded.classifiers().map(|one| one.arithmetic()).collect::<Vec<_>>().join(", ");
    about.date = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let classifier = loaded.classifier;
    let decider = Decider::new(classifier.labels(), classifier.problem(), decision)?;
    let settings = [loaded.identity, task.settings].concat();
    let partial = output.partial().map(PathBuf::from);
    let records = RecordWriter::new(output, task.records.writer(&decider)?, Run { settings, inputs: input_states })?;
    if let Some(memory) = records.memory() {
        classifier.recall(memory)?;
    }
    progress.start_files(total_bytes);
    let mut comparer = task.comparison.zip(loaded.compared).map(|(options, other)| Comparer::new(options, other));
    let mut evaluator = task.evaluation.map(|options| Evaluator::new(options, &classifier)).transpose()?;
    if let Some(comparer) = &mut comparer {
        comparer.begin(&classifier, evaluator.as_mut());
    }
    // What another run has classified cannot be evaluated.
    let resumable = partial.filter(|_| evaluator.is_none());
    interrupt::explain(resumable.clone())?;
    let faults = Faults::new(task.malformed);
    let explanation = task.explanation;
    let mut run = Pipeline {
        source,
        classifier,
        decider,
        explanation,
        records,
        evaluator,
        comparer,
        faults,
        progress,
        gives_windows,
    };
    let begin = Instant::now();
    let outcome = run.all_windows();
    run.progress.finish_files(begin.elapsed());
    run.faults.note(run.classifier.max_length(), &run.progress);
    run.tell_cascade();
    let outcome = outcome.and_then(|()| run.records.finish());
    if let Err(error) = outcome {
        return Err(explained(error, resumable));
    }
    match (run.comparer, run.evaluator) {
        (Some(comparer), evaluator) => comparer.conclude(evaluator, file, &about)?,
        (None, Some(evaluator)) => evaluator.conclude(file, &about, loaded.calibrated, &run.progress)?,
        (None, None) => {}
    }
    run.faults.conclude()
}

/// The stages of a run, joined.
struct Pipeline {
    source: Source,
    classifier: Classifier,
    decider: Decider,
    explanation: Option<ExplanationOptions>,
    records: RecordWriter,
    evaluator: Option<Evaluator>,
    comparer: Option<Comparer>,
    faults: Faults,
    progress: Progress,
    /// Whether each window of a long text has a record of its own.
    gives_windows: bool,
}

impl Pipeline {
    fn all_windows(&mut self) -> Result<()> {
        while let Some(mut window) = self.source.next_window()? {
            self.refuse_uncut(&mut window);
            let done = self.records.already_written(&window)?;
            self.relearn(&window, done)?;
            self.faults.count(window.records().take(done));
            let told = self.progress.window(window.len() as u64, window.bytes);
            told.advance(done as u64, &self.progress);
            window.drop_first(done);
            let long = if self.gives_windows { window.split_long() } else { None };
            self.one_window(window, &told)?;
            if let Some(long) = long {
                self.one_window(long, &told)?;
            }
            told.finish(&self.progress);
        }
        Ok(())
    }

    /// Lets the classifier learn from the records that an interrupted run has written, if that run did not keep what it
    /// had learned from them.
    fn relearn(&self, window: &Window, done: usize) -> Result<()> {
        if done == 0 || self.records.memory().is_some() {
            return Ok(());
        }
        self.classifier.relearn(&window.records().take(done).filter_map(text_of).collect::<Vec<_>>())
    }

    /// Says what a cascade has done, and what its audit has found, even if notes are not wanted and it found a wrong label.
    fn tell_cascade(&self) {
        match self.classifier.cascade_report() {
            Some(report) if report.audited_differed > 0 => self.progress.fault(&report.to_string()),
            Some(report) => self.progress.note(&report.to_string()),
            None => {}
        }
    }

    /// A text that the tokenizer can take neither at once nor in pieces is malformed.
    fn refuse_uncut(&self, window: &mut Window) {
        for record in window.records_mut() {
            if let Content::Text(text) = &record.content {
                if let Some(reason) = self.classifier.refusal(text) {
                    record.content = Content::Malformed(reason);
                }
            }
        }
    }

    fn one_window(&mut self, mut window: Window, told: &WindowProgress) -> Result<()> {
        let fault = self.first_fault(&window);
        if let Some((place, _)) = fault {
            window.truncate(place);
        }
        let progress = &self.progress;
        let begin = Instant::now();
        // Explaining a text takes far longer than predicting it.
        let told_now = Some(told).filter(|_| self.explanation.is_none());
        let on_batch = |texts: usize| told_now.into_iter().for_each(|told| told.advance(texts as u64, progress));
        let is_alone = window.len() == 1;
        let mut ahead = Ahead { window: &window, decider: &self.decider, records: &mut self.records, written: 0 };
        let mut so_far = |of_one: &[Prediction]| if is_alone { ahead.write(of_one) } else { Ok(()) };
        let predictions = predict(&self.classifier, self.gives_windows, &window, &on_batch, &mut so_far)?;
        let written = ahead.written;
        let time = begin.elapsed();
        let decider = &self.decider;
        let decide = |of_one: &Vec<Prediction>| of_one.iter().skip(written).map(|one| decider.decide(one)).collect();
        let mut decisions: Vec<Vec<Decision<'_>>> = predictions.iter().map(decide).collect();
        if let Some(options) = self.explanation {
            self.explain(options, &window, &mut decisions, told)?;
        }
        match self.records.write(&window, &decisions, self.classifier.memory()) {
            // The figures are still wanted.
            Err(error) if OutputError::is_closed_pipe_in(&error) && self.evaluator.is_some() => self.records.close(),
            outcome => outcome?,
        }
        for ((record, prediction), decision) in window.records().zip(&predictions).zip(&decisions) {
            let evaluator = self.evaluator.as_mut();
            let outcome = evaluator.map(|evaluator| evaluator.observe(record, prediction.first(), decision.first()));
            let unknown = outcome.and_then(Result::err);
            if let Some(evaluator) = &mut self.evaluator {
                evaluator.compare(record, prediction.first())?;
            }
            self.faults.tell(record, prediction, unknown.as_ref(), &self.progress);
        }
        if let Some(comparer) = &mut self.comparer {
            let begin = Instant::now();
            let others = predict(&comparer.classifier, self.gives_windows, &window, &|_| {}, &mut |_| Ok(()))?;
            let times = [time, begin.elapsed()];
            let other_decisions: Vec<Vec<Decision<'_>>> = others.iter().map(decide).collect();
            let both = [(&predictions[..], &decisions[..]), (&others[..], &other_decisions[..])];
            comparer.observe(&window, self.evaluator.as_mut(), both, times)?;
        }
        fault.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Gives each decision the words that hold up its labels.
    fn explain(
        &self,
        options: ExplanationOptions,
        window: &Window,
        decisions: &mut [Vec<Decision<'_>>],
        told: &WindowProgress,
    ) -> Result<()> {
        let decided = window.records().zip(decisions.iter()).flat_map(|(record, of_one)| {
            of_one.iter().map(|decision| (record.content.text(), decision.explained_ids()))
        });
        let texts: Vec<(&str, Vec<usize>)> = decided.collect();
        let progress = &self.progress;
        let explained = self.classifier.explain(&texts, &|texts| told.advance(texts as u64, progress))?;
        progress.count_variants(explained.variants as u64);
        for (decision, mut explanations) in decisions.iter_mut().flatten().zip(explained.explanations) {
            if let Some(count) = options.strongest {
                explanations.iter_mut().for_each(|explanation| explanation.keep_strongest(count.get()));
            }
            decision.explanations = explanations;
        }
        Ok(())
    }

    /// The place of the first faulty record, and what is wrong with it, if the run is to stop there.
    fn first_fault(&mut self, window: &Window) -> Option<(usize, anyhow::Error)> {
        if !self.faults.is_strict() {
            return None;
        }
        window.records().enumerate().find_map(|(place, record)| {
            let unknown = self.evaluator.as_mut().and_then(|evaluator| evaluator.check(record).err());
            let fault = match (&record.content, unknown) {
                (Content::Malformed(reason), _) => reason.clone(),
                (_, Some(unknown)) => unknown.to_string(),
                (_, None) => return None,
            };
            Some((place, anyhow!("{}: {fault}", record.origin)))
        })
    }
}

/// Writes the records of a lone text's windows while others are still to be classified.
struct Ahead<'a> {
    window: &'a Window,
    decider: &'a Decider,
    records: &'a mut RecordWriter,
    /// How many have been written.
    written: usize,
}

impl Ahead<'_> {
    /// Windows whose records are written together.
    const TOGETHER: usize = 16;

    /// All but the last of `predictions`, if these are many: a text whose records have all been written would seem blank.
    fn write(&mut self, predictions: &[Prediction]) -> Result<()> {
        let end = predictions.len() - 1;
        if end - self.written < Ahead::TOGETHER {
            return Ok(());
        }
        let decisions = predictions[self.written..end].iter().map(|one| self.decider.decide(one)).collect();
        self.written = end;
        self.records.write_ahead(self.window, decisions)
    }
}

/// The predictions for each record, in order: one, one for each window of its text, or none. `so_far` gets those of a text
/// whenever one more of its windows has been classified.
fn predict(
    classifier: &Classifier,
    gives_windows: bool,
    window: &Window,
    on_batch: &(dyn Fn(usize) + Sync),
    so_far: &mut dyn FnMut(&[Prediction]) -> Result<()>,
) -> Result<Vec<Vec<Prediction>>> {
    let texts: Vec<TextOrPair<'_>> = window.records().filter_map(text_of).collect();
    let predictions = match gives_windows {
        true => {
            let mut predictions = vec![Vec::new(); texts.len()];
            classifier.predict_windows(&texts, on_batch, &mut |text, prediction| {
                predictions[text].push(prediction);
                so_far(&predictions[text])
            })?;
            predictions
        }
        false => classifier.predict(&texts, on_batch)?.into_iter().map(|one| vec![one]).collect(),
    };
    let mut predictions = predictions.into_iter();
    let of_record = |record| text_of(record).and_then(|_| predictions.next()).unwrap_or_default();
    Ok(window.records().map(of_record).collect())
}

/// A text that is explained is as much work as some fifty others, so fewer make a window.
const EXPLAINED_LIMITS: WindowLimits =
    WindowLimits { first_records: 4, max_records: 32, max_bytes: 4 << 20, waits: false };

/// What there is to classify in a record.
fn text_of(record: &Record) -> Option<TextOrPair<'_>> {
    match &record.content {
        Content::Text(text) => Some(TextOrPair::Text(text)),
        Content::Pair(text, text_pair) => Some(TextOrPair::Pair(text, text_pair)),
        Content::Blank(_) | Content::Malformed(_) => None,
    }
}

fn note_inputs(inputs: &Inputs, progress: &Progress) {
    if inputs.is_terminal() {
        progress.note("reading texts from the terminal, one per line; press Ctrl-D to finish");
    }
    if let Inputs::Texts(texts) = inputs {
        if let Some(name) = texts.iter().find(|text| std::path::Path::new(text).is_file()) {
            progress.note(&format!(
                "{name} is a file, but its name is classified here; to classify its lines, use -f {name}"
            ));
        }
    }
}

/// Size and time of each file, for a message if they have changed.
fn input_states(inputs: &Inputs) -> Vec<String> {
    let state = |input: &Input| match input {
        Input::File(path) => match path.metadata().and_then(|file| Ok((file.len(), file.modified()?))) {
            Ok((bytes, modified)) => {
                let modified = jiff::Timestamp::try_from(modified).map_or_else(|_| "?".into(), |time| time.to_string());
                format!("{input} ({bytes} bytes, modified {modified})")
            }
            Err(_) => input.to_string(),
        },
        Input::Stdin | Input::Arguments => input.to_string(),
    };
    inputs.files().iter().map(state).collect()
}

/// Says where the records are that were written before the run failed.
fn explained(error: anyhow::Error, partial: Option<PathBuf>) -> anyhow::Error {
    let is_new = super::records::is_resumable(&error);
    match partial.filter(|partial| is_new && partial.metadata().is_ok_and(|file| file.len() > 0)) {
        Some(partial) => error.context(Incomplete { partial }),
        None => error,
    }
}
