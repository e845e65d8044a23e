//! Calibration: makes scores mean what they say, for one checkpoint, from texts with gold labels.
//!
//! [`temperature`] finds the number to divide all logits by, [`thresholds`] the lowest score of each label if a text may
//! have several. [`Fitted`] is both, with what they do to the figures of the evaluation, measured on texts that they were
//! not fitted to. [`Calibration`] is the file with them, which says what it is for. Pure, except for reading that file.

mod file;
pub mod temperature;
pub mod thresholds;

pub use file::{Calibration, Settings, Subject, Unfit};

use crate::checkpoint::config::ScoreFunction;
use crate::evaluation::sample::Sample;
use crate::evaluation::text::side_by_side;
use crate::evaluation::view::{figure, Figure, Value, View};
use crate::evaluation::{classes, label_sets, reliability};
use crate::prediction::{Extent, Prediction, Problem};
use anyhow::{ensure, Result};
use std::fmt;

/// The parts of the texts, each of which is scored once with what was fitted to the others. Every fifth text is in the same
/// part, so that texts sorted by label are in all of them.
const FOLDS: usize = 5;
/// The fewest texts: two in each part.
const LEAST_TEXTS: usize = 2 * FOLDS;
/// With fewer texts than this, another sample would give quite another temperature: simulated with 200 texts of which 9 in
/// 10 are right, its standard deviation is 15 %.
const MANY_TEXTS: usize = 200;

/// What calibrates a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters {
    /// All logits are divided by it.
    pub temperature: f64,
    /// The lowest score of each label, in id order, if a text may have several.
    pub thresholds: Option<Vec<f32>>,
}

/// A calibration that was fitted, and what it does.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// Fitted to all texts.
    pub parameters: Parameters,
    /// The number of texts.
    pub texts: usize,
    /// How many of them have each label.
    pub support: Vec<u64>,
    /// The figures without calibration.
    pub before: Vec<Figure>,
    /// The same by cross-validation: each text with the parameters fitted to the other parts.
    pub after: Vec<Figure>,
    labels: Vec<String>,
    is_all_right: bool,
}

/// A problem that can be calibrated, and the scores that it must have.
pub fn score_function(problem: Problem) -> Option<ScoreFunction> {
    match problem {
        Problem::SingleLabel => Some(ScoreFunction::Softmax),
        Problem::MultiLabel => Some(ScoreFunction::Sigmoid),
        Problem::Value => None,
    }
}

impl Fitted {
    /// Fits to `sample`. `labels` are in id order.
    ///
    /// # Errors
    /// If there are too few texts, or a text has a value.
    pub fn new(sample: &Sample, labels: &[String], problem: Problem) -> Result<Fitted> {
        let texts = sample.len();
        ensure!(
            texts >= LEAST_TEXTS,
            "{texts} texts with gold labels are too few to calibrate by: there must be {LEAST_TEXTS} at least, and some \
             hundreds for a temperature that another sample would give too"
        );
        let Some(function) = score_function(problem) else { anyhow::bail!("a value has no calibration") };
        let fit = |includes: &dyn Fn(usize) -> bool| parameters(sample, function, includes);
        let none = Parameters { temperature: 1.0, thresholds: None };
        let mut sums = [Sums::new(sample, function), Sums::new(sample, function)];
        for fold in 0..FOLDS {
            let others = fit(&|text| text % FOLDS != fold);
            for text in (fold..texts).step_by(FOLDS) {
                sums[0].observe(sample, text, &none);
                sums[1].observe(sample, text, &others);
            }
        }
        let [before, after] = sums.map(|sums| sums.figures());
        let is_all_right = (0..texts).all(|text| is_right(sample, text, function));
        let parameters = fit(&|_| true);
        Ok(Fitted {
            parameters,
            texts,
            support: sample.support(),
            before,
            after,
            labels: labels.to_vec(),
            is_all_right,
        })
    }

    /// What the user should know about the texts.
    pub fn warnings(&self) -> Vec<String> {
        let temperature = self.parameters.temperature;
        let one_label = self.support.iter().filter(|count| **count > 0).count() < 2 && self.labels.len() > 1;
        let lowest = if self.is_all_right { "no text has a wrong label" } else { "hardly a text has a wrong label" };
        let warnings = [
            (temperature == temperature::LOWEST, format!(
                "{lowest}, so the lower the temperature, the likelier the gold labels: {temperature} is the lowest allowed, \
                 and makes nearly all scores 0 or 1; use more texts, and such that the model has not been trained with"
            )),
            (temperature == temperature::HIGHEST, format!(
                "the labels are worse than chance, so the higher the temperature, the likelier the gold labels: \
                 {temperature} is the highest allowed, and makes all scores nearly equal; check that the gold labels are \
                 those of this model"
            )),
            (one_label, "all texts have the same gold label: scores of the other labels are not calibrated by them".to_owned()),
            (self.texts < MANY_TEXTS, format!(
                "{} texts are few: from another sample the temperature would be another",
                self.texts
            )),
        ];
        warnings.into_iter().filter(|(applies, _)| *applies).map(|(_, warning)| warning).collect()
    }
}

fn parameters(sample: &Sample, function: ScoreFunction, includes: &dyn Fn(usize) -> bool) -> Parameters {
    let temperature = temperature::fit(sample, function, includes);
    let threshold = |id: usize| {
        let texts = (0..sample.len()).filter(|&text| includes(text));
        let scored = texts.map(|text| {
            let (logits, gold) = sample.text(text);
            (score(logits[id], temperature), gold[id])
        });
        thresholds::best(scored.collect())
    };
    let thresholds = (function == ScoreFunction::Sigmoid).then(|| (0..sample.labels()).map(threshold).collect());
    Parameters { temperature, thresholds }
}

/// As a classifier computes it.
fn score(logit: f32, temperature: f64) -> f32 {
    let prediction = Prediction::from_logits(&[logit], ScoreFunction::Sigmoid, Extent::Whole);
    prediction.at_temperature(temperature, ScoreFunction::Sigmoid).best().score
}

/// Whether the gold labels are those with the highest logits, or with positive ones.
fn is_right(sample: &Sample, text: usize, function: ScoreFunction) -> bool {
    let (logits, gold) = sample.text(text);
    let limit = match function {
        ScoreFunction::Sigmoid => 0.0,
        _ => logits.iter().copied().fold(f32::NEG_INFINITY, f32::max),
    };
    logits.iter().zip(gold).all(|(logit, is_gold)| (*logit >= limit) == *is_gold)
}

/// The figures of the evaluation so far.
enum Sums {
    Classes(classes::Sums),
    LabelSets { sums: label_sets::Sums, pairs: reliability::Sums, loss: f64 },
}

impl Sums {
    fn new(sample: &Sample, function: ScoreFunction) -> Sums {
        match function {
            ScoreFunction::Sigmoid => Sums::LabelSets {
                sums: label_sets::Sums::new(sample.labels()),
                pairs: reliability::Sums::new(),
                loss: 0.0,
            },
            function => Sums::Classes(classes::Sums::new(sample.labels(), function)),
        }
    }

    fn observe(&mut self, sample: &Sample, text: usize, parameters: &Parameters) {
        let (logits, is_gold) = sample.text(text);
        let gold: Vec<usize> = (0..logits.len()).filter(|&id| is_gold[id]).collect();
        match self {
            Sums::Classes(sums) => {
                let prediction = Prediction::from_logits(logits, ScoreFunction::Softmax, Extent::Whole);
                let prediction = prediction.at_temperature(parameters.temperature, ScoreFunction::Softmax);
                sums.observe(gold[0], &prediction, true);
            }
            Sums::LabelSets { sums, pairs, loss } => {
                let scores: Vec<f32> = logits.iter().map(|logit| score(*logit, parameters.temperature)).collect();
                let threshold = |id: usize| parameters.thresholds.as_ref().map_or(0.5, |thresholds| thresholds[id]);
                let given: Vec<usize> = (0..scores.len()).filter(|&id| scores[id] >= threshold(id)).collect();
                sums.observe(&gold, &given);
                for (&score, &is_gold) in scores.iter().zip(is_gold) {
                    pairs.observe(score, is_gold);
                    *loss -= f64::from(classes::clip(if is_gold { score } else { 1.0 - score })).ln();
                }
            }
        }
    }

    fn figures(self) -> Vec<Figure> {
        match self {
            Sums::Classes(sums) => {
                let metrics = sums.metrics();
                let error = metrics.reliability.and_then(|reliability| reliability.expected_error);
                vec![
                    figure("log_loss", "log loss", Value::Number(metrics.log_loss)),
                    figure("expected_calibration_error", "expected calibration error", Value::Share(error)),
                    figure("accuracy", "accuracy", Value::Estimate(metrics.accuracy)),
                ]
            }
            Sums::LabelSets { sums, pairs, loss } => {
                let (metrics, reliability) = (sums.metrics(), pairs.reliability());
                let pairs: u64 = reliability.bins.iter().map(|bin| bin.count).sum();
                let (micro, macro_) = (metrics.per_label.micro_average, metrics.per_label.macro_average);
                vec![
                    figure("log_loss", "log loss of a label", Value::Number(Some(loss / pairs as f64))),
                    figure(
                        "expected_calibration_error",
                        "expected calibration error",
                        Value::Share(reliability.expected_error),
                    ),
                    figure("micro_f1", "micro F1", Value::Share(micro.map(|average| average.f1))),
                    figure("macro_f1", "macro F1", Value::Share(macro_.map(|average| average.f1))),
                    figure("subset_accuracy", "subset accuracy", Value::Estimate(metrics.subset_accuracy)),
                ]
            }
        }
    }
}

impl fmt::Display for Fitted {
    /// Several lines, each ended.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = View::of_labels(&self.labels);
        writeln!(f, "temperature  {:.4}\n", self.parameters.temperature)?;
        let rows = self.before.iter().zip(&self.after);
        let rows =
            rows.map(|(before, after)| (before.name.to_owned(), [before, after].map(|it| view.written(&it.value))));
        side_by_side(f, ["before", "after"], rows)?;
        writeln!(f, "\nafter: {} texts in {FOLDS} parts, each scored with what was fitted to the others", self.texts)?;
        let Some(thresholds) = &self.parameters.thresholds else { return Ok(()) };
        let rows = thresholds.iter().zip(&self.support).enumerate();
        let rows = rows.map(|(id, (threshold, texts))| (view.name(id), [format!("{threshold:.4}"), texts.to_string()]));
        writeln!(f)?;
        side_by_side(f, ["threshold", "texts"], rows)
    }
}
