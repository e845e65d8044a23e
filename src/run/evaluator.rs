//! Compares predictions with the gold labels of the input.

use super::{calibration, print, Calibrated};
use crate::classifier::Classifier;
use crate::decision::Decision;
use crate::evaluation::gold::UnknownGold;
use crate::evaluation::report::About;
use crate::evaluation::worst::EvaluatedText;
use crate::evaluation::{Evaluation, LeftOut, OtherFirstLabelId};
use crate::options::{ComparisonOptions, EvaluationOptions, EvaluationResult};
use crate::output::file::WholeFile;
use crate::prediction::{Prediction, Problem};
use crate::progress::Progress;
use crate::source::predictions::Predictions;
use crate::source::{Content, Record};
use anyhow::{bail, ensure, Context, Result};
use std::io::{self, Write};

/// The evaluation of one run, if the user asked for one.
pub(super) struct Evaluator {
    evaluation: Evaluation,
    options: EvaluationOptions,
    problem: Problem,
    /// The records of an earlier run, one for each record of the input.
    earlier: Option<Predictions>,
}

/// Opens the file for what comes of the evaluation or the comparison: a fault there is an error before a model is loaded.
///
/// # Errors
/// As [`WholeFile::create`], and [`calibration::create`].
pub(super) fn open_file(
    evaluation: Option<&EvaluationOptions>,
    comparison: Option<&ComparisonOptions>,
) -> Result<Option<WholeFile>> {
    match evaluation.map(|options| &options.result) {
        Some(EvaluationResult::Calibration(path)) => calibration::create(path).map(Some),
        Some(EvaluationResult::Figures { report: Some((path, _)), .. }) => WholeFile::create(path).map(Some),
        _ => comparison.and_then(|options| options.report.as_deref()).map(WholeFile::create).transpose(),
    }
}

/// An evaluation of what `classifier` predicts.
fn evaluation_of(classifier: &Classifier, first_label_id: i64) -> Evaluation {
    let labels = classifier.labels();
    match classifier.problem() {
        Problem::SingleLabel => Evaluation::of_classes(labels, first_label_id, classifier.score_function()),
        Problem::MultiLabel => Evaluation::of_label_sets(labels, first_label_id),
        Problem::Value => Evaluation::of_values(),
    }
}

impl Evaluator {
    /// # Errors
    /// If there is an earlier run to compare with, and it cannot be opened or texts do not have one label each; if the
    /// scores are no probabilities, but are to be calibrated or to reach a precision.
    pub(super) fn new(options: EvaluationOptions, classifier: &Classifier) -> Result<Evaluator> {
        let problem = classifier.problem();
        let mut evaluation = evaluation_of(classifier, options.first_label_id);
        if options.fits_calibration() {
            calibration::ensure_probabilities(classifier)?;
            evaluation.keep_sample();
        }
        if let Some(target) = options.target_precision {
            ensure!(
                problem == Problem::SingleLabel,
                "a minimum score is sought if each text has one label, but this checkpoint gives each text {problem}"
            );
            calibration::ensure_probabilities(classifier)?;
            evaluation.seek_precision(target);
        }
        let earlier = options.against.as_deref().map(Predictions::open).transpose()?;
        if let Some(path) = &options.against {
            ensure!(
                problem == Problem::SingleLabel,
                "runs are compared if each text has one label, but this checkpoint gives each text {problem}"
            );
            evaluation.compare_with(path.display().to_string());
        }
        Ok(Evaluator { evaluation, options, problem, earlier })
    }

    /// Checks a record's gold label without counting it.
    ///
    /// # Errors
    /// If the model has no such label.
    pub(super) fn check(&mut self, record: &Record) -> Result<(), UnknownGold> {
        match record.content {
            Content::Text(_) | Content::Pair(..) => self.evaluation.check(record.gold.as_deref().unwrap_or_default()),
            Content::Blank(_) | Content::Malformed(_) => Ok(()),
        }
    }

    /// Compares one record.
    ///
    /// # Errors
    /// If the model has no such label as the record's gold label.
    pub(super) fn observe(
        &mut self,
        record: &Record,
        prediction: Option<&Prediction>,
        decision: Option<&Decision<'_>>,
    ) -> Result<(), UnknownGold> {
        let Some(prediction) = prediction else {
            self.evaluation.leave_out(match record.content {
                Content::Malformed(_) => LeftOut::MalformedRecord,
                Content::Text(_) | Content::Pair(..) | Content::Blank(_) => LeftOut::BlankText,
            });
            return Ok(());
        };
        let decided = decision.map_or_else(Vec::new, |decision| decision.label_ids());
        self.evaluation.observe(evaluated(record), record.gold.as_deref().unwrap_or_default(), prediction, &decided)
    }

    /// Takes the earlier run's record of the same text, if there is one to compare with.
    ///
    /// # Errors
    /// If it has no more records, its record is of another text, or its label is not one of the model's.
    pub(super) fn compare(&mut self, record: &Record, prediction: Option<&Prediction>) -> Result<()> {
        let Some(earlier) = &mut self.earlier else { return Ok(()) };
        let Some(other) = earlier.next_record()? else {
            bail!("{}: the records end here, but there is one more text: {}", earlier.place(), record.origin)
        };
        let is_same = other.text.as_ref().is_none_or(|text| text == record.content.text());
        ensure!(is_same, "{}: its text is not that of {}", earlier.place(), record.origin);
        let Some(prediction) = prediction else { return Ok(()) };
        // A name that stands for a score that was too low has no id, and is no label.
        let label = other.label.as_deref().filter(|_| other.label_id.is_some());
        let gold = record.gold.as_deref().unwrap_or_default();
        let outcome = self.evaluation.observe_other(evaluated(record), gold, prediction, label);
        outcome.with_context(|| earlier.place())
    }

    /// Compares with the labels that `other` gives, whose evaluation it returns.
    pub(super) fn of_other_dtype(&mut self, other: &Classifier, dtype: &str) -> Evaluation {
        if self.problem == Problem::SingleLabel {
            self.evaluation.compare_with(dtype.to_owned());
        }
        evaluation_of(other, self.options.first_label_id)
    }

    /// Takes the label of a text in another dtype.
    ///
    /// # Errors
    /// As [`Evaluation::observe_other`].
    pub(super) fn compare_with_label(&mut self, record: &Record, prediction: &Prediction, label: &str) -> Result<()> {
        let gold = record.gold.as_deref().unwrap_or_default();
        Ok(self.evaluation.observe_other(evaluated(record), gold, prediction, Some(label))?)
    }

    /// The whole evaluation.
    ///
    /// # Errors
    /// If there is nothing to evaluate, or the gold ids seem to count from another number.
    pub(super) fn finished(mut self) -> Result<Evaluation> {
        self.check_end()?;
        Ok(self.evaluation)
    }

    fn check_end(&mut self) -> Result<()> {
        if let Some(earlier) = &mut self.earlier {
            ensure!(earlier.next_record()?.is_none(), "{}: there is no text for this record", earlier.place());
        }
        if let Some(likely) = self.evaluation.likely_first_label_id() {
            bail!(OtherFirstLabelId { given: self.options.first_label_id, likely });
        }
        ensure!(
            self.evaluation.metrics().evaluated() > 0,
            "there is nothing to evaluate: no record has both a text and a known gold label in {:?}",
            self.options.label_field
        );
        Ok(())
    }

    /// Prints the evaluation and writes the report; or fits a calibration, of what is `calibrated`.
    ///
    /// # Errors
    /// As [`Evaluator::finished`] and [`calibration::fit`], and if the output fails.
    pub(super) fn conclude(
        mut self,
        file: Option<WholeFile>,
        about: &About,
        calibrated: Option<Calibrated>,
        progress: &Progress,
    ) -> Result<()> {
        self.check_end()?;
        let (to_stdout, report) = match (&self.options.result, file, calibrated) {
            (EvaluationResult::Figures { to_stdout, report }, file, _) => (*to_stdout, file.zip(report.as_ref())),
            (EvaluationResult::Calibration(_), Some(file), Some(calibrated)) => {
                return calibration::fit(&self.evaluation, file, calibrated, self.problem, about, progress)
            }
            _ => return Ok(()),
        };
        let view = self.evaluation.view();
        if to_stdout {
            print(view.to_string().as_bytes())?;
        } else {
            // A closed standard error is no reason to fail.
            let _ = write!(io::stderr(), "{view}");
        }
        if let Some((mut file, (_, format))) = report {
            file.write(format.render(&view, about).as_bytes())?;
            file.publish()?;
        }
        Ok(())
    }
}

pub(super) fn evaluated(record: &Record) -> EvaluatedText<'_> {
    EvaluatedText { file: &record.origin.input, line: record.origin.line, text: record.content.text() }
}
