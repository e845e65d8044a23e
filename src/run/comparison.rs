//! Classifies the texts in a second dtype, and compares.

use super::evaluator::{evaluated, Evaluator};
use super::print;
use crate::classifier::Classifier;
use crate::decision::Decision;
use crate::evaluation::arithmetic::DtypeComparison;
use crate::evaluation::report::About;
use crate::evaluation::Evaluation;
use crate::options::ComparisonOptions;
use crate::output::file::WholeFile;
use crate::prediction::Prediction;
use crate::source::Window;
use anyhow::{ensure, Result};
use std::time::Duration;

/// The comparison of one run, if the user asked for one.
pub(super) struct Comparer {
    /// In the second dtype.
    pub(super) classifier: Classifier,
    comparison: DtypeComparison,
    /// Of the second dtype.
    evaluation: Option<Evaluation>,
}

/// The predictions for each record of a window, and what was decided by them.
pub(super) type Predicted<'a> = (&'a [Vec<Prediction>], &'a [Vec<Decision<'a>>]);

impl Comparer {
    /// `other` computes in the second dtype.
    pub(super) fn new(options: ComparisonOptions, other: Classifier) -> Comparer {
        Comparer {
            comparison: DtypeComparison::new(options.dtypes, other.labels(), other.problem()),
            evaluation: None,
            classifier: other,
        }
    }

    /// Prepares for the first text: `evaluator` is to compare its labels with those of the second dtype, and packing the
    /// weights is to take no time of either.
    pub(super) fn begin(&mut self, first: &Classifier, evaluator: Option<&mut Evaluator>) {
        if let Some(evaluator) = evaluator {
            self.evaluation = Some(evaluator.of_other_dtype(&self.classifier, self.comparison.dtype()));
        }
        first.warm_up();
        self.classifier.warm_up();
    }

    /// Compares a window's predictions, which took these times.
    ///
    /// # Errors
    /// None that the first dtype's evaluation has not had.
    pub(super) fn observe(
        &mut self,
        window: &Window,
        mut evaluator: Option<&mut Evaluator>,
        [first, second]: [Predicted<'_>; 2],
        times: [Duration; 2],
    ) -> Result<()> {
        self.comparison.add_times(times);
        let predictions = first.0.iter().zip(second.0);
        let decisions = first.1.iter().zip(second.1);
        for ((record, predictions), decisions) in window.records().zip(predictions).zip(decisions) {
            let ([this], [other]) = (&predictions.0[..], &predictions.1[..]) else { continue };
            let label_ids = [decisions.0[0].label_ids(), decisions.1[0].label_ids()];
            let text = evaluated(record);
            if let (Some(evaluation), Some(evaluator)) = (&mut self.evaluation, &mut evaluator) {
                // What is wrong with a gold label has been told for the first dtype.
                let _ = evaluation.observe(text, record.gold.as_deref().unwrap_or_default(), other, &label_ids[1]);
                evaluator.compare_with_label(record, this, &self.classifier.labels()[other.best().label_id])?;
            }
            self.comparison.observe(&text, [this, other], label_ids);
        }
        Ok(())
    }

    /// Prints the comparison and writes the file.
    ///
    /// # Errors
    /// If there was no text, as [`Evaluator::finished`], or if the output fails.
    pub(super) fn conclude(
        mut self,
        evaluator: Option<Evaluator>,
        file: Option<WholeFile>,
        about: &About,
    ) -> Result<()> {
        ensure!(self.comparison.texts() > 0, "there is nothing to compare: there is no text to classify");
        if let (Some(first), Some(second)) = (evaluator, self.evaluation) {
            self.comparison.add_figures([first.finished()?.view(), second.view()]);
        }
        print(self.comparison.to_string().as_bytes())?;
        if let Some(mut file) = file {
            file.write(self.comparison.to_json(about).as_bytes())?;
            file.publish()?;
        }
        Ok(())
    }
}
