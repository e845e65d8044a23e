//! Compares predictions with the gold labels of the input.

use crate::classifier::Classifier;
use crate::decision::Decision;
use crate::evaluation::gold::{GoldLabels, UnknownGoldLabel};
use crate::evaluation::report::About;
use crate::evaluation::{Evaluation, LeftOut};
use crate::options::EvaluationOptions;
use crate::output::file::WholeFile;
use crate::prediction::Prediction;
use crate::source::{Content, Record};
use anyhow::{ensure, Result};
use std::io::{self, Write};

/// The evaluation of one run, if the user asked for one.
pub(super) struct Evaluator {
    gold: GoldLabels,
    evaluation: Evaluation,
    options: EvaluationOptions,
    report: Option<WholeFile>,
}

/// Opens the file for the report: a fault there is told before a model is loaded.
///
/// # Errors
/// As [`WholeFile::create`].
pub(super) fn open_report(options: Option<&EvaluationOptions>) -> Result<Option<WholeFile>> {
    let report = options.and_then(|options| options.report.as_ref());
    report.map(|(path, _)| WholeFile::create(path)).transpose()
}

impl Evaluator {
    pub(super) fn new(options: EvaluationOptions, report: Option<WholeFile>, classifier: &Classifier) -> Evaluator {
        let labels = classifier.labels();
        Evaluator {
            gold: GoldLabels::new(labels, options.first_label_id),
            evaluation: Evaluation::new(labels, classifier.score_function()),
            options,
            report,
        }
    }

    /// The class that the record's gold label names: `None` if it has none.
    ///
    /// # Errors
    /// If the model has no such class.
    pub(super) fn gold(&self, record: &Record) -> Result<Option<usize>, UnknownGoldLabel> {
        let gold = record.gold.as_deref().unwrap_or_default();
        match gold.trim().is_empty() || matches!(record.content, Content::Malformed(_)) {
            true => Ok(None),
            false => self.gold.parse(gold).map(Some),
        }
    }

    /// Compares one record; the reason if its gold label is unknown.
    pub(super) fn observe(
        &mut self,
        record: &Record,
        prediction: Option<&Prediction>,
        _decision: Option<&Decision<'_>>,
    ) -> Option<UnknownGoldLabel> {
        let why = match (&record.content, prediction, self.gold(record)) {
            (Content::Malformed(_), ..) => LeftOut::MalformedRecord,
            (_, None, _) => LeftOut::BlankText,
            (_, _, Ok(None)) => LeftOut::NoGoldLabel,
            (_, _, Err(unknown)) => {
                self.evaluation.leave_out(LeftOut::UnknownGoldLabel);
                return Some(unknown);
            }
            (_, Some(prediction), Ok(Some(gold))) => {
                self.evaluation.observe(gold, prediction);
                return None;
            }
        };
        self.evaluation.leave_out(why);
        None
    }

    /// Prints the evaluation and writes the report.
    ///
    /// # Errors
    /// If there is nothing to evaluate, or the output fails.
    pub(super) fn conclude(self, about: &About) -> Result<()> {
        let metrics = self.evaluation.metrics();
        ensure!(
            metrics.evaluated > 0,
            "there is nothing to evaluate: no record has both a text and a known gold label in {:?}",
            self.options.label_field
        );
        if self.options.to_stdout {
            super::print(metrics.to_string().as_bytes())?;
        } else {
            // A closed standard error is no reason to fail.
            let _ = write!(io::stderr(), "{metrics}");
        }
        if let (Some(mut file), Some((_, format))) = (self.report, &self.options.report) {
            file.write(format.render(&metrics, about).as_bytes())?;
            file.publish()?;
        }
        Ok(())
    }
}
