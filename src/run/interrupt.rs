//! Ctrl-C: what an interrupted run has left, and how to go on.

use crate::options::advice;
use anyhow::{Context, Result};
use std::io::Write;
use std::path::PathBuf;
use std::process;

/// 128 and the number of SIGINT, as shells report a program that a signal ended.
const INTERRUPTED: i32 = 130;

/// From here on, an interrupt ends the program with a word about the records in `partial`; without a file there is
/// nothing to say, and the system's own way of ending a program stays.
///
/// # Errors
/// If the system refuses a handler.
pub(super) fn explain(partial: Option<PathBuf>) -> Result<()> {
    let Some(partial) = partial else { return Ok(()) };
    let handler = move || {
        let has_records = partial.metadata().is_ok_and(|file| file.len() > 0);
        let message = match has_records {
            true => format!("interrupted; {}", advice::unfinished(&partial)),
            false => "interrupted before the first record".to_owned(),
        };
        let _ = writeln!(std::io::stderr(), "agnews: {message}");
        // Exits here and not in main, which may be seconds into a forward pass. Whatever is torn in the file lies behind
        // its last checkpoint, and is classified again.
        process::exit(INTERRUPTED)
    };
    ctrlc::set_handler(handler).context("cannot handle interrupts")
}
