//! What does not go with `--dtype cascade`: whatever depends on scores, since a score would be of int8 for some texts and of
//! float32 for the others; and whatever sends a text through the model more than once.

use super::{usage, UsageError};
use crate::cli::{self, Cli, Dtype};

/// # Errors
/// If an option does not go with a cascade; the message names it.
pub(super) fn check(cli: &Cli) -> Result<(), UsageError> {
    if cli.dtype != Dtype::Cascade {
        return Ok(());
    }
    let needing_scores = [
        (cli.scores, "--scores"),
        (cli.top_k.is_some(), "--top-k"),
        (cli.min_score.is_some(), "--min-score"),
        (cli.threshold.is_some(), "--threshold"),
        (cli.score_function.is_some(), "--score-function"),
        (cli.calibration.is_some(), "--calibration"),
        (cli.label_field.is_some(), "--label-field"),
    ];
    if let Some((_, option)) = needing_scores.iter().find(|(is_given, _)| *is_given) {
        return usage(format!(
            "{option} needs scores, and --dtype cascade gives labels only: a score would be int8's for some texts and \
             float32's for others; use another --dtype"
        ));
    }
    let in_several_inputs = [
        (cli.zero_shot.is_some(), "--zero-shot"),
        (cli.long_text != cli::LongText::Truncate, "--long-text"),
        (cli.windows, "--windows"),
        (cli.explain.is_some(), "--explain"),
    ];
    match in_several_inputs.iter().find(|(is_given, _)| *is_given) {
        Some((_, option)) => usage(format!(
            "--dtype cascade takes each text through the model once, and {option} does so several times; use another --dtype"
        )),
        None => Ok(()),
    }
}
