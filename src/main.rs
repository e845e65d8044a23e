//! The program's edge: parse, run, turn an error into a message and an exit code.

use agnews::checkpoint::hub::{HubError, HubErrorKind};
use agnews::cli::Cli;
use agnews::options::{Options, UsageError, Verbosity};
use agnews::run::{run, OutputError};
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

/// How the program ends.
enum Exit {
    /// Every text has been classified, or the reader of our output had enough.
    Success = 0,
    /// Something failed while running.
    Failure = 1,
    /// The command line makes no sense; clap ends with the same code.
    Usage = 2,
}

fn main() -> ExitCode {
    let options = match Options::resolve(Cli::parse()) {
        Ok(options) => options,
        Err(error) => return fail(&error.into(), Verbosity::Normal),
    };
    let verbosity = options.verbosity;
    match run(options) {
        Ok(()) => Exit::Success.into(),
        Err(error) => fail(&error, verbosity),
    }
}

/// Tells the error on standard error: one line, or with `--verbose` a line a cause.
fn fail(error: &anyhow::Error, verbosity: Verbosity) -> ExitCode {
    if error.downcast_ref::<OutputError>().is_some_and(OutputError::is_closed_pipe) {
        return Exit::Success.into();
    }
    let is_usage = error.is::<UsageError>();
    let mut stderr = std::io::stderr().lock();
    // Nothing is left to do where even standard error is closed.
    let _ = match verbosity {
        Verbosity::Verbose => {
            let causes = error.chain().skip(1).map(|cause| format!("\n  caused by: {cause}")).collect::<String>();
            writeln!(stderr, "agnews: error: {error}{causes}{}", advice(error))
        }
        _ => writeln!(stderr, "agnews: error: {}{}", one_line(error), advice(error)),
    };
    if is_usage {
        let _ = writeln!(stderr, "Try `agnews --help`.");
    }
    if is_usage { Exit::Usage } else { Exit::Failure }.into()
}

/// The error and its causes, joined. An error of the Hub is a whole sentence: its causes are details for `--verbose`.
fn one_line(error: &anyhow::Error) -> String {
    let mut parts = Vec::new();
    for cause in error.chain() {
        parts.push(cause.to_string());
        if cause.is::<HubError>() {
            break;
        }
    }
    parts.join(": ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What this program can do instead of asking the Hub.
fn advice(error: &anyhow::Error) -> String {
    let hub_error = error.chain().find_map(|cause| cause.downcast_ref::<HubError>());
    let first = match hub_error.map(|error| error.kind) {
        Some(HubErrorKind::Offline) => "run once without --offline (and without HF_HUB_OFFLINE) to fetch it; ",
        Some(HubErrorKind::Unreachable) => "",
        _ => return String::new(),
    };
    format!(
        "; {first}without the Hub there is the embedded model, `-m builtin`, or a checkpoint in a local folder, `-m ./FOLDER`"
    )
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
