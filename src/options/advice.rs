//! What to do about an error, in the words of the command line. The library's errors say what is wrong; only this layer
//! knows options by name.

use super::Incomplete;
use crate::checkpoint::hub::{HubError, HubErrorKind};
use crate::classifier::CascadeError;
use crate::decision::DecisionError;
use crate::evaluation::calibration::Unfit;
use crate::evaluation::OtherFirstLabelId;
use crate::output::file::ResumeError;
use crate::prediction::Problem;
use crate::source::FieldError;
use std::path::Path;

/// What to do about `error`, if there is something to say beyond it.
pub fn for_error(error: &anyhow::Error) -> Option<String> {
    if let Some(Incomplete { partial }) = error.downcast_ref() {
        return Some(unfinished(partial));
    }
    if let Some(error) = error.downcast_ref() {
        return of_hub(error);
    }
    if let Some(OtherFirstLabelId { likely, .. }) = error.downcast_ref() {
        return Some(format!("try --first-label-id {likely}"));
    }
    if let Some(error) = error.downcast_ref() {
        return Some(of_decision(error).to_owned());
    }
    if let Some(error) = error.downcast_ref() {
        return Some(of_cascade(error).to_owned());
    }
    if error.is::<Unfit>() {
        return Some("fit one for this with --calibrate".to_owned());
    }
    error.downcast_ref().and_then(of_fields).or_else(|| error.downcast_ref().map(of_resuming))
}

fn of_hub(error: &HubError) -> Option<String> {
    let first = match error.kind {
        HubErrorKind::Offline => "run once without --offline (and without HF_HUB_OFFLINE) to download it; ",
        HubErrorKind::Unreachable => "",
        HubErrorKind::NoSuchRevision | HubErrorKind::Refused => return None,
    };
    Some(format!("{first}without the Hub there is the embedded model, `-m builtin`, or a checkpoint in a local folder, `-m ./FOLDER`"))
}

fn of_fields(error: &FieldError) -> Option<String> {
    match error {
        FieldError::TextUnclear(_) => Some("name it with --text-field".to_owned()),
        FieldError::DelimiterUnclear(_, delimiter) => {
            let delimiter = if *delimiter == '\t' { "tab".to_owned() } else { format!("{delimiter:?}") };
            Some(format!("give --delimiter {delimiter}, or choose the text with --text-field"))
        }
        FieldError::NotFound(..) | FieldError::Ambiguous(..) => None,
    }
}

fn of_decision(error: &DecisionError) -> &'static str {
    match error {
        DecisionError::Threshold(_) => "leave out --threshold",
        DecisionError::MinScore(Problem::MultiLabel) => "use --threshold instead of --min-score",
        DecisionError::MinScore(_) => "leave out --min-score",
        DecisionError::TopK => "leave out --top-k",
        DecisionError::NoLabels => "leave out --only and --count",
    }
}

fn of_cascade(error: &CascadeError) -> &'static str {
    match error {
        CascadeError::Backend(_) => "use --device cpu, without AGNEWS_CPU=candle, or another --dtype",
        CascadeError::Problem(_) | CascadeError::SeveralInputs => "use another --dtype",
    }
}

fn of_resuming(error: &ResumeError) -> String {
    let partial = error.partial().display();
    match error {
        ResumeError::Unfinished { .. } => {
            format!("continue it with --resume, or delete {partial} to start again")
        }
        _ => format!("to start again, delete {partial}"),
    }
}

/// What an unfinished run leaves, and how to go on.
pub fn unfinished(partial: &Path) -> String {
    format!("the records so far are in {}; the same command with --resume continues from there", partial.display())
}
