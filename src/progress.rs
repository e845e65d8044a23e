//! What is told on standard error while the program works: progress bars on a terminal, and notes.

use crate::checkpoint::hub::DownloadProgress;
use crate::options::Verbosity;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Standard error, as far as it is not for errors.
pub struct Progress {
    verbosity: Verbosity,
    shows_files: bool,
    bar: ProgressBar,
    lines: AtomicU64,
    download: Mutex<ProgressBar>,
}

impl Progress {
    /// `shows_files` is false where results scroll over the same terminal, which a bar would tear.
    pub fn new(verbosity: Verbosity, shows_files: bool) -> Progress {
        Progress {
            verbosity,
            shows_files,
            bar: ProgressBar::hidden(),
            lines: AtomicU64::new(0),
            download: Mutex::new(ProgressBar::hidden()),
        }
    }

    /// Begins the bar of a run over files of `total_bytes` together, where that is known.
    pub fn start_files(&mut self, total_bytes: Option<u64>) {
        if !self.shows_files || self.verbosity == Verbosity::Quiet {
            return;
        }
        let (length, template) = match total_bytes {
            Some(bytes) => (Some(bytes), "{bar:30} {percent:>3} %  {msg}  {eta} left"),
            None => (None, "{spinner} {msg}  {elapsed}"),
        };
        // Hidden where standard error is no terminal; a few draws a second cost nothing.
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr_with_hz(5));
        bar.set_style(ProgressStyle::with_template(template).expect("the templates are constants"));
        self.bar = bar;
    }

    /// Some lines are done.
    pub fn advance(&self, lines: u64, bytes: u64) {
        let lines = lines + self.lines.fetch_add(lines, Ordering::Relaxed);
        self.bar.inc(bytes);
        let seconds = self.bar.elapsed().as_secs_f64().max(1e-3);
        self.bar.set_message(format!("{lines} lines  {:.0} lines/s", lines as f64 / seconds));
    }

    /// Takes the bar away.
    pub fn finish_files(&mut self) {
        self.bar.finish_and_clear();
    }

    /// A line that a user should see once.
    pub fn note(&self, text: &str) {
        if self.verbosity != Verbosity::Quiet {
            self.line(text);
        }
    }

    /// A line about a fault in the input: told also where notes are not.
    pub fn fault(&self, text: &str) {
        self.line(text);
    }

    /// A line for `--verbose`.
    pub fn detail(&self, text: &str) {
        if self.verbosity == Verbosity::Verbose {
            self.line(text);
        }
    }

    fn download(&self) -> MutexGuard<'_, ProgressBar> {
        self.download.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, text: &str) {
        // A closed standard error is no reason to stop classifying.
        self.bar.suspend(|| {
            let _ = writeln!(io::stderr(), "agnews: {text}");
        });
    }
}

impl DownloadProgress for Progress {
    fn start(&self, file: &str, total: Option<u64>) {
        if self.verbosity == Verbosity::Quiet {
            return;
        }
        let template = match total {
            Some(_) => "{msg} {bar:30} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left",
            None => "{msg} {spinner} {bytes}  {bytes_per_sec}",
        };
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(5));
        bar.set_style(ProgressStyle::with_template(template).expect("the templates are constants"));
        bar.set_message(file.to_owned());
        *self.download() = bar;
    }

    fn position(&self, bytes: u64) {
        self.download().set_position(bytes);
    }

    fn finish(&self) {
        self.download().finish_and_clear();
    }

    fn message(&self, text: &str) {
        self.download().suspend(|| self.note(text));
    }
}
