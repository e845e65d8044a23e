//! The program's edge: parse, run, turn an error into a message and an exit code.

use agnews::checkpoint::hub::HubError;
use agnews::cli::CommandLine;
use agnews::options::{advice, Environment, Options, UsageError, Verbosity};
use agnews::run::{print, run, OutputError};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// musl's own allocator makes the program take 1.8 times as long.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How the program exits.
enum Exit {
    /// Every text has been classified, or the reader of our output had enough.
    Success = 0,
    /// Something failed.
    Failure = 1,
    /// The command line makes no sense.
    Usage = 2,
}

fn main() -> ExitCode {
    let command_line = match CommandLine::parse(std::env::args_os()) {
        Ok(command_line) => command_line,
        Err(error) => return help_or_refuse(&error),
    };
    let options = match Options::resolve(command_line, &Environment::of_process()) {
        Ok(options) => options,
        Err(error) => return fail(&error.into(), Verbosity::Normal),
    };
    let verbosity = options.verbosity;
    match run(options) {
        Ok(()) => Exit::Success.into(),
        Err(error) => fail(&error, verbosity),
    }
}

/// Prints help or the version to standard output, or says what is wrong with the command line in the style of all
/// other errors.
fn help_or_refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let help = error.render();
        let help = if std::io::stdout().is_terminal() { help.ansi().to_string() } else { help.to_string() };
        return match print(help.as_bytes()) {
            Ok(()) => Exit::Success.into(),
            Err(error) => fail(&error, Verbosity::Normal),
        };
    }
    let message = error.to_string();
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let _ = writeln!(std::io::stderr(), "agnews: error: {}", message.trim_end());
    Exit::Usage.into()
}

/// Prints the error to standard error: on one line, or with `--verbose` on a line per cause.
fn fail(error: &anyhow::Error, verbosity: Verbosity) -> ExitCode {
    if OutputError::is_closed_pipe_in(error) {
        return Exit::Success.into();
    }
    let is_usage = error.is::<UsageError>();
    let advice = advice::for_error(error).map_or_else(String::new, |advice| format!("; {advice}"));
    let mut stderr = std::io::stderr().lock();
    // Nothing is left to do if even standard error is closed.
    let _ = match verbosity {
        Verbosity::Verbose => {
            let causes = error.chain().skip(1).map(|cause| format!("\n  caused by: {cause}")).collect::<String>();
            writeln!(stderr, "agnews: error: {error}{advice}{causes}")
        }
        _ => writeln!(stderr, "agnews: error: {}{advice}", one_line(error)),
    };
    if is_usage {
        let _ = writeln!(stderr, "For more information, try '--help'.");
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
    parts.join(": ").replace(['\n', '\r'], " ")
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
