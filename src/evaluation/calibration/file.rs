//! A calibration in a file: JSON, for one checkpoint and its labels.
//!
//! | field | value |
//! |---|---|
//! | `agnews_calibration` | 1: the version of this format |
//! | `model` | the Hub id, the folder as it was given, or `builtin` |
//! | `commit` | of a checkpoint from the Hub, else `null` |
//! | `sha256` | of any other: over all files that are read; else `null` |
//! | `problem` | `one label` or `any number of labels` |
//! | `labels` | in id order |
//! | `hypothesis` | for labels of the user's own, else `null` |
//! | `dtype`, `max_length`, `long_text` | how the logits were computed: scores from others are similar, and a note says so |
//! | `temperature` | all logits are divided by it |
//! | `thresholds` | the lowest score of each label, in id order; `null` if a text has one label |
//! | `texts`, `support` | how many texts it was fitted to, and how many have each label |
//! | `before`, `after` | figures as in the report of the evaluation, without it and, by cross-validation, with it |
//! | `data`, `agnews`, `date` | where it comes from |

use super::{Fitted, Parameters};
use crate::checkpoint::Fingerprint;
use crate::evaluation::report::{figures_as_json, About};
use crate::prediction::Problem;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The version of the format.
const VERSION: u64 = 1;
/// A file of a hundred thousand labels is smaller.
const MAX_FILE_SIZE: u64 = 64 << 20;

/// What is calibrated. Scores of anything else would be changed to no purpose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// The checkpoint.
    #[serde(flatten)]
    pub checkpoint: Fingerprint,
    /// What it predicts.
    pub problem: String,
    /// The names of its labels, in id order.
    pub labels: Vec<String>,
    /// The hypothesis for labels of the user's own.
    pub hypothesis: Option<String>,
}

/// How its logits were computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The arithmetic.
    pub dtype: String,
    /// The longest text, in tokens.
    pub max_length: usize,
    /// What happened to longer ones.
    pub long_text: String,
}

/// A calibration, and what it is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    agnews_calibration: u64,
    /// What is calibrated.
    #[serde(flatten)]
    pub subject: Subject,
    /// How its logits were computed.
    #[serde(flatten)]
    pub settings: Settings,
    temperature: f64,
    thresholds: Option<Vec<f32>>,
    /// For people.
    #[serde(flatten)]
    about: Map<String, Value>,
}

/// A calibration is not for what is to be calibrated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit(String);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

impl Calibration {
    /// The file's content for what was fitted.
    pub fn new(subject: Subject, settings: Settings, fitted: &Fitted, about: &About) -> Calibration {
        let Parameters { temperature, thresholds } = fitted.parameters.clone();
        let about: [(&str, Value); 7] = [
            ("texts", fitted.texts.into()),
            ("support", fitted.support.clone().into()),
            ("before", figures_as_json(&fitted.before).into()),
            ("after", figures_as_json(&fitted.after).into()),
            ("data", about.data.as_str().into()),
            ("agnews", env!("CARGO_PKG_VERSION").into()),
            ("date", about.date.as_str().into()),
        ];
        let about = about.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Calibration { agnews_calibration: VERSION, subject, settings, temperature, thresholds, about }
    }

    /// As JSON, with a line break at the end.
    pub fn to_json(&self) -> String {
        let json = serde_json::to_string_pretty(self).expect("strings and finite numbers");
        json + "\n"
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, or is not a calibration.
    pub fn read(path: &Path) -> Result<Calibration> {
        let mut json = Vec::new();
        let file = File::open(path).and_then(|file| file.take(MAX_FILE_SIZE).read_to_end(&mut json));
        file.with_context(|| format!("cannot read {}", path.display()))?;
        parse(&json).with_context(|| format!("{} is not a calibration", path.display()))
    }

    /// What calibrates `subject`.
    ///
    /// # Errors
    /// If it is another than that of the file.
    pub fn parameters_for(&self, subject: &Subject) -> Result<Parameters, Unfit> {
        let ours = &self.subject;
        let unfit = |is: &str, not: &str| Err(Unfit(format!("the calibration is for {is}, not for {not}")));
        if !ours.checkpoint.is_same(&subject.checkpoint) {
            return unfit(&ours.checkpoint.to_string(), &subject.checkpoint.to_string());
        }
        if ours.labels != subject.labels {
            return unfit(&named("the labels", &ours.labels), &shown(&subject.labels));
        }
        if ours.problem != subject.problem {
            return unfit(&format!("{} per text", ours.problem), &subject.problem);
        }
        if ours.hypothesis != subject.hypothesis {
            let hypothesis = |subject: &Subject| match &subject.hypothesis {
                Some(hypothesis) => format!("the hypothesis {hypothesis:?}"),
                None => "labels of the checkpoint".to_owned(),
            };
            return unfit(&hypothesis(ours), &hypothesis(subject));
        }
        Ok(Parameters { temperature: self.temperature, thresholds: self.thresholds.clone() })
    }

    /// In what the computation of logits differs, in words.
    pub fn differences(&self, settings: &Settings) -> Vec<String> {
        let ours = &self.settings;
        let lengths =
            [ours.max_length, settings.max_length].map(|length| format!("at most {length} tokens per window"));
        let pairs =
            [(&ours.dtype, &settings.dtype), (&ours.long_text, &settings.long_text), (&lengths[0], &lengths[1])];
        let different = pairs.into_iter().filter(|(ours, theirs)| ours != theirs);
        different.map(|(ours, theirs)| format!("{ours}, not {theirs}")).collect()
    }
}

fn named(what: &str, labels: &[String]) -> String {
    format!("{what} {}", shown(labels))
}

/// The labels, or the first of very many.
fn shown(labels: &[String]) -> String {
    const SHOWN: usize = 12;
    let more = if labels.len() > SHOWN { format!(", … ({})", labels.len()) } else { String::new() };
    labels.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ") + &more
}

fn parse(json: &[u8]) -> Result<Calibration> {
    let value: Value = serde_json::from_slice(json)?;
    let version = value.get("agnews_calibration").context("it has no \"agnews_calibration\"")?;
    anyhow::ensure!(*version == VERSION, "its format has the version {version}, and this program reads {VERSION}");
    let calibration: Calibration = serde_path_to_error::deserialize(value)?;
    let Calibration { temperature, thresholds, subject, .. } = &calibration;
    anyhow::ensure!(
        temperature.is_finite() && *temperature > 0.0,
        "its temperature is {temperature}, not a positive number"
    );
    let is_several = subject.problem == Problem::MultiLabel.to_string();
    anyhow::ensure!(
        thresholds.is_some() == is_several,
        "only several labels per text have thresholds, and all of them"
    );
    let count = thresholds.as_ref().map_or(subject.labels.len(), Vec::len);
    anyhow::ensure!(count == subject.labels.len(), "it has {count} thresholds for {} labels", subject.labels.len());
    Ok(calibration)
}
