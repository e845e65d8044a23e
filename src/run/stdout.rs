//! Standard output: everything that is written there goes through here, so that a failure is noticed.

use anyhow::Result;
use std::fmt;
use std::io::{self, Write};

/// Writing to standard output failed. A type of its own, because a closed pipe there ends the program quietly.
#[derive(Debug)]
pub struct OutputError(io::Error);

impl OutputError {
    /// Whether the reader of our output has gone, as `head` does when it has seen enough.
    pub fn is_closed_pipe_in(error: &anyhow::Error) -> bool {
        error.downcast_ref::<OutputError>().is_some_and(|output| output.0.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot write to standard output")
    }
}

impl std::error::Error for OutputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Writes `bytes` and flushes.
///
/// # Errors
/// [`OutputError`] if standard output is closed, or fails.
pub fn print(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = match descriptor::was_open() {
        true => stdout.write_all(bytes).and_then(|()| stdout.flush()),
        false => Err(io::Error::other("it is closed")),
    };
    Ok(written.map_err(OutputError)?)
}

/// Before `main`, Rust opens /dev/null in place of a closed standard output, and records would be lost without a word:
/// so this is asked earlier still.
#[cfg(unix)]
mod descriptor {
    use std::sync::atomic::{AtomicBool, Ordering};

    static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

    #[ctor::ctor(unsafe)]
    fn ask() {
        let is_open = rustix::io::fcntl_getfd(rustix::stdio::stdout()).is_ok();
        WAS_CLOSED.store(!is_open, Ordering::Relaxed);
    }

    pub(super) fn was_open() -> bool {
        !WAS_CLOSED.load(Ordering::Relaxed)
    }
}

#[cfg(not(unix))]
mod descriptor {
    pub(super) fn was_open() -> bool {
        true
    }
}
