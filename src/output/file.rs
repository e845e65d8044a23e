//! Files that are written whole or not at all: under another name first, beside the one they get at the end.
//!
//! Records go to `FILE.partial`, which outlives an interrupted run, so that the next one can go on from its last
//! complete record; `FILE.partial.options` says what the run was asked for, so that it goes on only with the same.

use super::{RecordFormat, RecordOptions};
use anyhow::{bail, ensure, Context, Result};
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A file that appears under its name when it is published, and not before.
pub struct WholeFile {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    /// Whether dropping leaves the file: it has its name by then, or is to be gone on with.
    is_kept: bool,
}

impl WholeFile {
    /// Begins the file that is to be `path`, and no other process can until it is published or dropped.
    ///
    /// # Errors
    /// Where the folder cannot be written to, `path` is no regular file, or another process is writing it.
    pub fn create(path: &Path) -> Result<WholeFile> {
        let file = WholeFile::open(path)?;
        file.file.set_len(0).with_context(|| format!("cannot write {}", file.partial.display()))?;
        Ok(file)
    }

    /// As [`WholeFile::create`], with what is there of it from an interrupted run.
    fn open(path: &Path) -> Result<WholeFile> {
        // A link stays one: what it points to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if let Ok(metadata) = fs::metadata(&path) {
            ensure!(
                metadata.is_file(),
                "cannot write {}: it is no regular file, and only such a one can be replaced as a whole; \
                 redirect standard output to it",
                path.display()
            );
        }
        let partial = with_suffix(&path, ".partial");
        let file = open_locked(&partial)?;
        Ok(WholeFile { path, partial, file, is_kept: false })
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).with_context(|| format!("cannot write {}", self.partial.display()))
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// Where the file cannot be written to the disk, or renamed.
    pub fn publish(&mut self) -> Result<()> {
        let published = self.file.sync_all().and_then(|()| {
            if let Ok(before) = fs::metadata(&self.path) {
                fs::set_permissions(&self.partial, before.permissions())?;
            }
            fs::rename(&self.partial, &self.path)
        });
        published.with_context(|| format!("cannot write {}", self.path.display()))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Opens the file, which may be there already, for this process alone.
fn open_locked(path: &Path) -> Result<File> {
    loop {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => bail!("another run is writing {}: wait for its end", path.display()),
            // Not every file system has locks; without them all works but this check.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // The run that had the lock may have renamed the file in between.
        if is_still_at(&file, path) {
            return Ok(file);
        }
    }
}

#[cfg(unix)]
fn is_still_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(opened), Ok(named)) => (opened.dev(), opened.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_still_at(_file: &File, path: &Path) -> bool {
    path.exists()
}

/// What a run was asked for, as far as its records depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings(pub Vec<(&'static str, String)>);

impl Settings {
    fn to_json(&self) -> String {
        let object: Map<String, Value> =
            self.0.iter().map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str()))).collect();
        format!("{:#}\n", Value::Object(object))
    }

    /// # Errors
    /// Where the run that wrote `path` was asked for something else.
    fn check(&self, path: &Path) -> Result<()> {
        let advice = "start again without --resume";
        let json = fs::read_to_string(path).with_context(|| format!("cannot read {}: {advice}", path.display()))?;
        let before: Value = serde_json::from_str(&json).with_context(|| {
            format!("{} does not say what the interrupted run was asked for: {advice}", path.display())
        })?;
        for (name, value) in &self.0 {
            ensure!(
                before.get(name).and_then(Value::as_str) == Some(value),
                "cannot resume: the interrupted run had another {name} ({}, now {value}); {advice}",
                before.get(name).and_then(Value::as_str).unwrap_or("none")
            );
        }
        Ok(())
    }
}

/// A file of records.
pub struct RecordFile {
    file: WholeFile,
    settings: PathBuf,
    counter: RecordCounter,
    complete: u64,
    is_published: bool,
}

impl RecordFile {
    /// Begins the file, or with `resume` goes on with what an interrupted run left of it, if it left anything.
    ///
    /// # Errors
    /// As [`WholeFile::create`], and where the interrupted run was asked for something else.
    pub fn open(path: &Path, options: &RecordOptions, settings: &Settings, resume: bool) -> Result<RecordFile> {
        let mut file = WholeFile::open(path)?;
        file.is_kept = true;
        let partial = file.partial.clone();
        let mut file = RecordFile {
            settings: with_suffix(&partial, ".options"),
            file,
            counter: RecordCounter::new(options),
            complete: 0,
            is_published: false,
        };
        if resume && file.has_content() {
            settings.check(&file.settings)?;
            file.complete =
                file.counter.clone().scan(&file.file.file, u64::MAX).with_context(|| cannot_read(&partial))?.0;
        } else {
            file.file.file.set_len(0).with_context(|| format!("cannot write {}", partial.display()))?;
            fs::write(&file.settings, settings.to_json())
                .with_context(|| format!("cannot write {}", file.settings.display()))?;
        }
        Ok(file)
    }

    /// Records that an interrupted run has left.
    pub fn complete_records(&self) -> u64 {
        self.complete
    }

    /// Cuts the file behind its first `records`, or before its header where there are to be none.
    ///
    /// # Errors
    /// Where the file cannot be read or cut.
    pub fn keep_only(&mut self, records: u64) -> Result<()> {
        let mut file = &self.file.file;
        let end = match records {
            0 => 0,
            _ => self.counter.clone().scan(file, records).with_context(|| cannot_read(&self.file.partial))?.1,
        };
        file.set_len(end)
            .and_then(|()| file.seek(SeekFrom::Start(end)))
            .with_context(|| format!("cannot write {}", self.file.partial.display()))?;
        self.complete = records;
        Ok(())
    }

    /// Writes behind what is there.
    ///
    /// # Errors
    /// Where the system has no handle left.
    pub fn writer(&self) -> Result<File> {
        self.file.file.try_clone().with_context(|| format!("cannot write {}", self.file.partial.display()))
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// As [`WholeFile::publish`].
    pub fn publish(mut self) -> Result<()> {
        self.file.publish()?;
        self.is_published = true;
        // Only of use beside a partial file.
        let _ = fs::remove_file(&self.settings);
        Ok(())
    }

    /// Leaves the file as it is, for a run that resumes this one: its path, unless there is nothing in it.
    pub fn abandon(self) -> Option<PathBuf> {
        self.has_content().then(|| self.file.partial.clone())
    }

    fn has_content(&self) -> bool {
        self.file.file.metadata().is_ok_and(|metadata| metadata.len() > 0)
    }
}

impl Drop for RecordFile {
    fn drop(&mut self) {
        // There is nothing to go on with.
        if !self.is_published && !self.has_content() {
            self.file.is_kept = false;
            let _ = fs::remove_file(&self.settings);
        }
    }
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

/// Counts records that this program wrote: lines, in CSV those outside quotes.
#[derive(Clone)]
struct RecordCounter {
    has_quotes: bool,
    has_header: bool,
}

impl RecordCounter {
    fn new(options: &RecordOptions) -> RecordCounter {
        RecordCounter {
            has_quotes: matches!(options.format, RecordFormat::Csv { .. }),
            has_header: options.header && !matches!(options.format, RecordFormat::Jsonl { .. }),
        }
    }

    /// Complete records, at most `limit`, and where the last of them ends.
    fn scan(&self, mut file: &File, limit: u64) -> io::Result<(u64, u64)> {
        file.seek(SeekFrom::Start(0))?;
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let (mut lines, mut end, mut position, mut is_quoted) = (0, 0, 0, false);
        let limit = limit.saturating_add(u64::from(self.has_header));
        let mut buffer = [0; 1 << 16];
        while lines < limit {
            let length = reader.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            for (place, byte) in (1..).zip(&buffer[..length]) {
                match byte {
                    b'"' if self.has_quotes => is_quoted = !is_quoted,
                    b'\n' if !is_quoted && lines < limit => {
                        lines += 1;
                        end = position + place;
                    }
                    _ => {}
                }
            }
            position += length as u64;
        }
        Ok((lines.saturating_sub(u64::from(self.has_header)), end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(format: RecordFormat, header: bool) -> RecordOptions {
        RecordOptions { format, header, unsure: None }
    }

    const CSV: RecordFormat = RecordFormat::Csv { top_k: None };
    const TSV: RecordFormat = RecordFormat::Tsv { scores: false, top_k: None };

    fn settings(value: &str) -> Settings {
        Settings(vec![("model", value.to_owned())])
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        fs::write(&path, "before").unwrap();
        let mut file = WholeFile::create(&path).unwrap();
        file.write(b"after").unwrap();
        assert!(WholeFile::create(&path).err().unwrap().to_string().contains("another run"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        file.publish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        drop(WholeFile::create(&path).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn complete_records_are_counted_and_torn_ones_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let cases = [
            (options(TSV, false), "0\ta\n1\tb\n2", 2, "0\ta\n"),
            (options(TSV, true), "id\tlabel\n0\ta\n1\tb\n", 2, "id\tlabel\n0\ta\n"),
            (
                options(CSV, true),
                "id,label\n\"two\nlines\",a\n\"\"\"\n\",b\n\"torn\n",
                2,
                "id,label\n\"two\nlines\",a\n",
            ),
            (options(CSV, true), "id,la", 0, ""),
            (
                options(RecordFormat::Jsonl { top_k: None, with_text: false }, true),
                "{\"a\":\"\\\"\"}\n{",
                1,
                "{\"a\":\"\\\"\"}\n",
            ),
        ];
        for (options, content, complete, first) in cases {
            let mut file = RecordFile::open(&path, &options, &settings("m"), false).unwrap();
            file.writer().unwrap().write_all(content.as_bytes()).unwrap();
            assert!(file.abandon().is_some());
            file = RecordFile::open(&path, &options, &settings("m"), true).unwrap();
            assert_eq!(file.complete_records(), complete, "{content:?}");
            file.keep_only(complete.min(1)).unwrap();
            file.writer().unwrap().write_all(b"next\n").unwrap();
            file.publish().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{first}next\n"));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn only_the_same_run_is_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let options = options(TSV, false);
        let file = RecordFile::open(&path, &options, &settings("m"), true).unwrap();
        file.writer().unwrap().write_all(b"0\ta\n").unwrap();
        assert_eq!(file.abandon(), Some(with_suffix(&path, ".partial")));
        let error = RecordFile::open(&path, &options, &settings("n"), true).err().unwrap().to_string();
        assert!(error.contains("another model (m, now n)"), "{error}");
        fs::remove_file(folder.path().join("out.partial.options")).unwrap();
        let error = RecordFile::open(&path, &options, &settings("m"), true).err().unwrap().to_string();
        assert!(error.contains("without --resume"), "{error}");
        let file = RecordFile::open(&path, &options, &settings("n"), false).unwrap();
        assert_eq!(file.complete_records(), 0, "without resuming it begins anew");
        assert_eq!(file.abandon(), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left of a run that wrote nothing");
    }

    #[test]
    #[cfg(unix)]
    fn devices_are_refused_and_links_kept() {
        assert!(WholeFile::create(Path::new("/dev/null")).err().unwrap().to_string().contains("no regular file"));
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let mut file = WholeFile::create(&link).unwrap();
        file.write(b"x").unwrap();
        file.publish().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), "x");
    }
}
