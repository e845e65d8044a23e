//! Compares predictions with the gold labels of the input.

use super::print;
use crate::classifier::Classifier;
use crate::decision::Decision;
use crate::evaluation::gold::UnknownGold;
use crate::evaluation::report::About;
use crate::evaluation::worst::EvaluatedText;
use crate::evaluation::{Evaluation, LeftOut, OtherFirstLabelId};
use crate::options::EvaluationOptions;
use crate::output::file::WholeFile;
use crate::prediction::{Prediction, Problem};
use crate::source::{Content, Record};
use anyhow::{bail, ensure, Result};
use std::io::{self, Write};

/// The evaluation of one run, if the user asked for one.
pub(super) struct Evaluator {
    evaluation: Evaluation,
    options: EvaluationOptions,
    report: Option<WholeFile>,
}

/// Opens the file for the report: a fault there is an error before a model is loaded.
///
/// # Errors
/// As [`WholeFile::create`].
pub(super) fn open_report(options: Option<&EvaluationOptions>) -> Result<Option<WholeFile>> {
    let report = options.and_then(|options| options.report.as_ref());
    report.map(|(path, _)| WholeFile::create(path)).transpose()
}

impl Evaluator {
    pub(super) fn new(options: EvaluationOptions, report: Option<WholeFile>, classifier: &Classifier) -> Evaluator {
        let (labels, first) = (classifier.labels(), options.first_label_id);
        let evaluation = match classifier.problem() {
            Problem::SingleLabel => Evaluation::of_classes(labels, first, classifier.score_function()),
            Problem::MultiLabel => Evaluation::of_label_sets(labels, first),
            Problem::Value => Evaluation::of_values(),
        };
        Evaluator { evaluation, options, report }
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
        let text = EvaluatedText { file: &record.origin.input, line: record.origin.line, text: record.content.text() };
        self.evaluation.observe(text, record.gold.as_deref().unwrap_or_default(), prediction, &decided)
    }

    /// Prints the evaluation and writes the report.
    ///
    /// # Errors
    /// If there is nothing to evaluate, the gold ids seem to count from another number, or the output fails.
    pub(super) fn conclude(self, about: &About) -> Result<()> {
        if let Some(likely) = self.evaluation.likely_first_label_id() {
            bail!(OtherFirstLabelId { given: self.options.first_label_id, likely });
        }
        ensure!(
            self.evaluation.metrics().evaluated() > 0,
            "there is nothing to evaluate: no record has both a text and a known gold label in {:?}",
            self.options.label_field
        );
        let view = self.evaluation.view();
        if self.options.to_stdout {
            print(view.to_string().as_bytes())?;
        } else {
            // A closed standard error is no reason to fail.
            let _ = write!(io::stderr(), "{view}");
        }
        if let (Some(mut file), Some((_, format))) = (self.report, &self.options.report) {
            file.write(format.render(&view, about).as_bytes())?;
            file.publish()?;
        }
        Ok(())
    }
}
