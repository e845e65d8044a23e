//! Output to standard error while the program works: progress bars on a terminal, and notes.

use crate::checkpoint::hub::DownloadProgress;
use crate::options::Verbosity;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Standard error, except for errors.
pub struct Progress {
    verbosity: Verbosity,
    shows_files: bool,
    bar: ProgressBar,
    records: AtomicU64,
    /// Texts that were classified to explain others.
    variants: AtomicU64,
    download: Mutex<ProgressBar>,
}

impl Progress {
    /// `shows_files` is false if records scroll over the same terminal, which a bar would break up.
    pub fn new(verbosity: Verbosity, shows_files: bool) -> Progress {
        Progress {
            verbosity,
            shows_files,
            bar: ProgressBar::hidden(),
            records: AtomicU64::new(0),
            variants: AtomicU64::new(0),
            download: Mutex::new(ProgressBar::hidden()),
        }
    }

    /// Starts the bar of a run over files with `total_bytes` in total, if known.
    pub fn start_files(&mut self, total_bytes: Option<u64>) {
        if !self.shows_files || self.verbosity == Verbosity::Quiet {
            return;
        }
        let (length, template) = match total_bytes {
            Some(bytes) => (Some(bytes), "{bar:30} {percent:>3} %  {msg}  {eta} left"),
            None => (None, "{spinner} {msg}  {elapsed}"),
        };
        // Hidden if standard error is not a terminal; a few updates per second cost nothing.
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr_with_hz(5));
        bar.set_style(ProgressStyle::with_template(template).expect("the templates are constants"));
        self.bar = bar;
    }

    /// Starts a window of `records`, for which `bytes` were read.
    pub fn window(&self, records: u64, bytes: u64) -> WindowProgress {
        WindowProgress { records, bytes, told: AtomicU64::new(0) }
    }

    fn advance(&self, records: u64, bytes: u64) {
        let records = records + self.records.fetch_add(records, Ordering::Relaxed);
        self.bar.inc(bytes);
        let seconds = self.bar.elapsed().as_secs_f64().max(1e-3);
        self.bar.set_message(format!("{records} records  {:.0}/s", records as f64 / seconds));
    }

    /// Counts texts that were classified to explain others.
    pub fn count_variants(&self, variants: u64) {
        self.variants.fetch_add(variants, Ordering::Relaxed);
    }

    /// Removes the bar; on a terminal, a summary remains.
    pub fn finish_files(&mut self, elapsed: Duration) {
        self.bar.finish_and_clear();
        let records = *self.records.get_mut();
        if self.shows_files && records > 1 && io::stderr().is_terminal() {
            let seconds = elapsed.as_secs_f64();
            let pace = |count: u64| count as f64 / seconds.max(1e-3);
            self.note(&format!("{records} records in {seconds:.1} s ({:.0}/s)", pace(records)));
            let variants = *self.variants.get_mut();
            if variants > 0 {
                self.note(&format!(
                    "to explain them, {variants} texts were classified: {:.0} for each record ({:.0}/s)",
                    variants as f64 / records as f64,
                    pace(variants)
                ));
            }
        }
    }

    /// A line shown once to the user.
    pub fn note(&self, text: &str) {
        if self.verbosity != Verbosity::Quiet {
            self.line(text);
        }
    }

    /// A line about a fault in the input, printed even if notes are not.
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

/// How much of a window the bar already shows. It is updated after each batch, so it moves even if a slow model works
/// on a large window.
pub struct WindowProgress {
    records: u64,
    bytes: u64,
    told: AtomicU64,
}

impl WindowProgress {
    /// Adds `records` finished records.
    pub fn advance(&self, records: u64, progress: &Progress) {
        let before = self.told.fetch_add(records, Ordering::Relaxed);
        let bytes_of = |records: u64| self.bytes * records / self.records.max(1);
        progress.advance(records, bytes_of(before + records) - bytes_of(before));
    }

    /// Adds the rest: blank records are in no batch.
    pub fn finish(&self, progress: &Progress) {
        self.advance(self.records - self.told.load(Ordering::Relaxed), progress);
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
