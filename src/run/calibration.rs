//! Fits calibrations, and applies them to what is classified.

use super::{print, Calibrated, Loaded};
use crate::checkpoint::Fingerprint;
use crate::classifier::{Classifier, LongText, LongTextOptions};
use crate::evaluation::calibration::{self, Calibration, Fitted, Settings, Subject};
use crate::evaluation::report::About;
use crate::evaluation::Evaluation;
use crate::model::Backend;
use crate::output::file::WholeFile;
use crate::prediction::Problem;
use crate::progress::Progress;
use anyhow::{ensure, Context, Result};
use std::path::Path;

/// Scores that are no probabilities have nothing to mean.
///
/// # Errors
/// If the classifier gives a value, or logits, or probabilities that are not those of what it predicts.
pub(super) fn ensure_probabilities(classifier: &Classifier) -> Result<()> {
    let problem = classifier.problem();
    ensure!(
        problem != Problem::Value,
        "the checkpoint predicts {problem} for each text, and only probabilities are calibrated"
    );
    ensure!(
        calibration::score_function(problem) == Some(classifier.score_function()),
        "only probabilities are calibrated: by softmax if each text has one label, by sigmoid if it has any number of labels"
    );
    Ok(())
}

/// How the logits of `classifier` are computed.
pub(super) fn settings_of(classifier: &Classifier, long_text: LongTextOptions) -> Settings {
    let long_text = match long_text.how {
        LongText::Truncate => "long texts truncated".to_owned(),
        LongText::Mean => format!("the mean of the windows of long texts, which overlap by {}", long_text.stride),
        LongText::Max => format!("the largest of the windows of long texts, which overlap by {}", long_text.stride),
        LongText::Windows => format!("windows of long texts, which overlap by {}", long_text.stride),
    };
    let dtype = match classifier.backend() {
        Backend::Kernels { precision, .. } => precision.to_string(),
        Backend::Candle { dtype, .. } => dtype.as_str().to_owned(),
    };
    Settings { dtype, max_length: classifier.max_length(), long_text }
}

/// Calibrates what is loaded, and returns the thresholds. A later run that continues this one needs the same.
///
/// # Errors
/// If the calibration is not for it.
pub(super) fn apply(calibration: &Calibration, loaded: &mut Loaded, progress: &Progress) -> Result<Option<Vec<f32>>> {
    ensure_probabilities(&loaded.classifier)?;
    let calibrated = loaded.calibrated.as_ref().expect("a calibration needs to know what it is for");
    let parameters = calibration.parameters_for(&calibrated.subject)?;
    for difference in calibration.differences(&calibrated.settings) {
        progress.note(&format!("the calibration was fitted with {difference}: scores may be less exact"));
    }
    loaded.identity.push(("the calibration".to_owned(), format!("{parameters:?}")));
    loaded.classifiers().for_each(|classifier| classifier.set_temperature(parameters.temperature));
    Ok(parameters.thresholds)
}

/// Begins the file for a calibration.
///
/// # Errors
/// As [`WholeFile::create`], and if there is a file of that name that holds something else.
pub(super) fn create(path: &Path) -> Result<WholeFile> {
    if path.metadata().is_ok_and(|file| file.len() > 0) {
        Calibration::read(path).with_context(|| {
            format!("{} would be overwritten: choose another name for the calibration", path.display())
        })?;
    }
    WholeFile::create(path)
}

/// Fits a calibration, prints what it does, and writes it to `file`.
///
/// # Errors
/// If there are too few texts, or the output fails.
pub(super) fn fit(
    evaluation: &Evaluation,
    mut file: WholeFile,
    calibrated: Calibrated,
    problem: Problem,
    about: &About,
    progress: &Progress,
) -> Result<()> {
    let sample = evaluation.sample().expect("kept from the first text on");
    let fitted = Fitted::new(sample, &calibrated.subject.labels, problem)?;
    let calibration = Calibration::new(calibrated.subject, calibrated.settings, &fitted, about);
    file.write(calibration.to_json().as_bytes())?;
    file.publish()?;
    print(fitted.to_string().as_bytes())?;
    fitted.warnings().iter().for_each(|warning| progress.note(warning));
    Ok(())
}

/// What calibrations of `classifier` are for.
pub(super) fn subject_of(checkpoint: Fingerprint, classifier: &Classifier, hypothesis: Option<String>) -> Subject {
    Subject { checkpoint, problem: classifier.problem().to_string(), labels: classifier.labels().to_vec(), hypothesis }
}
