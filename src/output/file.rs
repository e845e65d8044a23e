//! Files that are written whole or not at all: first under another name, beside the one they get at the end.
//!
//! Records go to `FILE.partial`, which outlives an interrupted run, so that the next one can continue it.
//! `FILE.partial.state` says what the run was asked for and how far it came: a JSON object per line, first the run
//! ([`Run`]), then a [`Reached`] for each portion of records that was written.

use anyhow::{bail, ensure, Context, Result};
use flate2::write::GzEncoder;
use ruzstd::encoding::{compress_to_vec, CompressionLevel};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A file that appears under its name when it is published, and not before.
pub struct WholeFile {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    /// Whether dropping leaves the file: it has its name by then, or is to be continued.
    is_kept: bool,
}

impl WholeFile {
    /// Begins the file that is to be `path`, and locks out other processes until it is published or dropped.
    ///
    /// # Errors
    /// If the folder cannot be written to, `path` is not a regular file, or another process is writing it.
    pub fn create(path: &Path) -> Result<WholeFile> {
        let file = WholeFile::open(path)?;
        file.file.set_len(0).with_context(|| format!("cannot write {}", file.partial.display()))?;
        Ok(file)
    }

    /// As [`WholeFile::create`], but keeps what an interrupted run has left.
    fn open(path: &Path) -> Result<WholeFile> {
        // A link stays one: what it points to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if let Ok(metadata) = fs::metadata(&path) {
            ensure!(
                metadata.is_file(),
                "cannot write {}: it is not a regular file, so it cannot be replaced as a whole; redirect standard \
                 output to it instead",
                path.display()
            );
        }
        let partial = with_suffix(&path, ".partial");
        let file = open_locked(&partial)?;
        Ok(WholeFile { path, partial, file, is_kept: false })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).with_context(|| format!("cannot write {}", self.partial.display()))
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// If the file cannot be written to the disk, or renamed.
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

/// All names under which a [`WholeFile`] that is to be `path` is written.
pub fn names_of_whole(path: &Path) -> Vec<PathBuf> {
    ["", ".partial"].map(|suffix| with_suffix(path, suffix)).to_vec()
}

/// All names under which a [`ResumableFile`] that is to be `path` and its state are written.
pub fn names_of_resumable(path: &Path) -> Vec<PathBuf> {
    ["", ".partial", ".partial.state", ".partial.state.new"].map(|suffix| with_suffix(path, suffix)).to_vec()
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
            Err(TryLockError::WouldBlock) => {
                bail!("another run is writing {}: wait until it has ended", path.display())
            }
            // Not every file system has locks; without them only this check is lost.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What two runs must have in common for the second to continue the first: names and values for people.
    pub settings: Vec<(String, String)>,
    /// The state of the inputs when the run began: told if they have changed, but not compared, since only the part that
    /// was read matters, and [`Reached::digest`] covers that.
    pub inputs: Vec<String>,
}

impl Run {
    /// The first setting that differs: its name, and both values.
    fn difference(&self, other: &Run) -> Option<(String, String, String)> {
        let value = |run: &Run, name: &str| {
            let setting = run.settings.iter().find(|(other, _)| other == name);
            setting.map_or_else(|| "not set".to_owned(), |(_, value)| value.clone())
        };
        let names = self.settings.iter().chain(&other.settings).map(|(name, _)| name);
        let values = names.map(|name| (name.clone(), value(self, name), value(other, name)));
        values.into_iter().find(|(_, before, now)| before != now)
    }
}

/// How far a run came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Records written.
    pub records: u64,
    /// Where the last of them ends in the file.
    pub bytes: u64,
    /// Identifies the records of the input that were classified for them.
    pub digest: String,
    /// What the classifier had learned from them, if it learns and can say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<serde_json::Value>,
}

/// Why an interrupted run cannot be continued, or replaced.
#[derive(Debug)]
pub enum ResumeError {
    /// The file of an interrupted run is in the way of a new one.
    Unfinished {
        /// `FILE.partial`.
        partial: PathBuf,
        /// The records in it.
        records: u64,
    },
    /// What the interrupted run was asked for is not known.
    Unknown(PathBuf),
    /// The interrupted run was asked for something else.
    Different {
        /// `FILE.partial`.
        partial: PathBuf,
        /// What differs.
        name: String,
        /// The interrupted run's value.
        before: String,
        /// This run's value.
        now: String,
    },
    /// The input no longer begins with the records that were classified.
    InputChanged {
        /// `FILE.partial`.
        partial: PathBuf,
        /// The inputs as they were.
        before: Vec<String>,
        /// The inputs as they are.
        now: Vec<String>,
    },
}

impl fmt::Display for ResumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResumeError::Unfinished { partial, records: 1 } => {
                write!(f, "{} holds 1 record of an interrupted run", partial.display())
            }
            ResumeError::Unfinished { partial, records } => {
                write!(f, "{} holds {records} records of an interrupted run", partial.display())
            }
            ResumeError::Unknown(partial) => {
                let state = with_suffix(partial, ".state");
                write!(f, "cannot resume: {} does not say what the interrupted run was asked for", state.display())
            }
            ResumeError::Different { name, before, now, .. } => {
                write!(f, "cannot resume: {name} was {before} in the interrupted run, and is {now} now")
            }
            ResumeError::InputChanged { before, now, .. } if before != now => write!(
                f,
                "cannot resume: the input has changed since the interrupted run: it was {}, and is {} now",
                before.join(", "),
                now.join(", ")
            ),
            ResumeError::InputChanged { .. } => {
                f.write_str("cannot resume: the input does not begin with the records that were classified before")
            }
        }
    }
}

impl std::error::Error for ResumeError {}

impl ResumeError {
    /// The file that is in the way.
    pub fn partial(&self) -> &Path {
        match self {
            ResumeError::Unfinished { partial, .. }
            | ResumeError::Unknown(partial)
            | ResumeError::Different { partial, .. }
            | ResumeError::InputChanged { partial, .. } => partial,
        }
    }
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

impl Packing {
    fn of(path: &Path) -> Packing {
        match path.extension().map(|extension| extension.to_ascii_lowercase()) {
            Some(extension) if extension == "gz" => Packing::Gzip,
            Some(extension) if extension == "zst" => Packing::Zstd,
            _ => Packing::None,
        }
    }

    /// A member or frame of its own: files of either kind may hold several, so that one can end at every checkpoint.
    fn pack(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Packing::None => bytes.to_vec(),
            Packing::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
                let packed = encoder.write_all(bytes).and_then(|()| encoder.finish());
                packed.expect("writing to a vector does not fail")
            }
            Packing::Zstd => compress_to_vec(bytes, CompressionLevel::Fastest),
        }
    }
}

/// A file of records that a later run can continue.
pub struct ResumableFile {
    file: WholeFile,
    packing: Packing,
    state_path: PathBuf,
    /// What the interrupted run was asked for, if there was one.
    before: Option<Run>,
    /// How far the file is complete.
    reached: Reached,
    is_published: bool,
}

impl ResumableFile {
    /// Opens the file, with `resume` to continue what an interrupted run has left, if it left anything.
    ///
    /// # Errors
    /// As [`WholeFile::create`]; [`ResumeError`] if there are records of an interrupted run and `resume` is false, or
    /// the state of the run is lost.
    pub fn open(path: &Path, resume: bool) -> Result<ResumableFile> {
        let mut file = WholeFile::open(path)?;
        file.is_kept = true;
        let state_path = with_suffix(&file.partial, ".state");
        let mut file = ResumableFile {
            packing: Packing::of(path),
            state_path,
            file,
            before: None,
            reached: Reached::default(),
            is_published: false,
        };
        if !file.has_content() {
            return Ok(file);
        }
        let state = read_state(&file.state_path, file.length());
        let partial = file.file.partial.clone();
        match state {
            _ if !resume => {
                let records = state.map_or(0, |(_, reached)| reached.records);
                bail!(ResumeError::Unfinished { partial, records })
            }
            Some((before, reached)) => {
                file.before = Some(before);
                // A header without a record is written again.
                if reached.records > 0 {
                    file.reached = reached;
                }
                Ok(file)
            }
            None => bail!(ResumeError::Unknown(partial)),
        }
    }

    /// How far an interrupted run came.
    pub fn reached(&self) -> &Reached {
        &self.reached
    }

    /// Begins, or continues behind the last checkpoint: whatever was written after it is classified again.
    ///
    /// # Errors
    /// [`ResumeError::Different`] if the interrupted run was asked for something else; if a file cannot be written.
    pub fn begin(&mut self, run: &Run) -> Result<()> {
        if let Some((name, before, now)) = self.before.as_ref().and_then(|before| before.difference(run)) {
            bail!(ResumeError::Different { partial: self.file.partial.clone(), name, before, now });
        }
        // Written anew also by a run that continues: the last line may be torn.
        let mut state = to_line(self.before.as_ref().unwrap_or(run));
        if self.reached.records > 0 {
            state += &to_line(&self.reached);
        }
        // In one step: a kill in between must not lose the state of hours of work.
        let new = with_suffix(&self.state_path, ".new");
        fs::write(&new, state)
            .and_then(|()| fs::rename(&new, &self.state_path))
            .with_context(|| format!("cannot write {}", self.state_path.display()))?;
        let end = self.reached.bytes;
        let mut file = &self.file.file;
        file.set_len(end)
            .and_then(|()| file.seek(SeekFrom::Start(end)))
            .with_context(|| format!("cannot write {}", self.file.partial.display()))?;
        Ok(())
    }

    /// The error for an input that does not begin with the records of the interrupted run.
    pub fn input_changed(&self, now: &Run) -> ResumeError {
        let before = self.before.as_ref().map(|run| run.inputs.clone()).unwrap_or_default();
        ResumeError::InputChanged { partial: self.file.partial.clone(), before, now: now.inputs.clone() }
    }

    /// Appends `bytes`, after which the file has reached `reached`, whose own `bytes` do not count, and says so in the state.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn append(&mut self, bytes: &[u8], reached: Reached) -> Result<()> {
        let packed = if bytes.is_empty() { Vec::new() } else { self.packing.pack(bytes) };
        self.file.write(&packed)?;
        self.reached = Reached { bytes: self.reached.bytes + packed.len() as u64, ..reached };
        let state = OpenOptions::new().append(true).open(&self.state_path);
        state
            .and_then(|mut state| state.write_all(to_line(&self.reached).as_bytes()))
            .with_context(|| format!("cannot write {}", self.state_path.display()))
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// As [`WholeFile::publish`].
    pub fn publish(mut self) -> Result<()> {
        if !self.has_content() {
            self.file.write(&self.packing.pack(b""))?;
        }
        self.file.publish()?;
        self.is_published = true;
        // It is of use only beside a partial file.
        let _ = fs::remove_file(&self.state_path);
        Ok(())
    }

    /// The file under its first name.
    pub fn partial(&self) -> &Path {
        &self.file.partial
    }

    /// Whether there is anything to continue.
    pub fn has_content(&self) -> bool {
        self.length() > 0
    }

    fn length(&self) -> u64 {
        self.file.file.metadata().map_or(0, |metadata| metadata.len())
    }
}

impl Drop for ResumableFile {
    fn drop(&mut self) {
        // There is nothing to continue.
        if !self.is_published && !self.has_content() {
            self.file.is_kept = false;
            let _ = fs::remove_file(&self.state_path);
        }
    }
}

fn to_line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers and strings have a JSON form") + "\n"
}

/// The run, and the last checkpoint within `length` bytes: a crash of the system can lose the end of the file, and tear
/// the last line of the state.
fn read_state(path: &Path, length: u64) -> Option<(Run, Reached)> {
    let mut lines = BufReader::new(File::open(path).ok()?).lines();
    let run = serde_json::from_str(&lines.next()?.ok()?).ok()?;
    let checkpoints = lines.map_while(|line| serde_json::from_str::<Reached>(&line.ok()?).ok());
    Some((run, checkpoints.filter(|reached| reached.bytes <= length).last().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn run(model: &str) -> Run {
        Run { settings: vec![("the model".into(), model.into())], inputs: vec!["a.csv (5 bytes)".into()] }
    }

    fn reached(records: u64, digest: &str) -> Reached {
        Reached { records, digest: digest.to_owned(), ..Reached::default() }
    }

    fn begun(path: &Path, resume: bool) -> ResumableFile {
        let mut file = ResumableFile::open(path, resume).unwrap();
        file.begin(&run("m")).unwrap();
        file
    }

    fn message(outcome: Result<ResumableFile>) -> String {
        outcome.err().unwrap().to_string()
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
    fn what_was_written_after_the_last_checkpoint_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut file = begun(&path, false);
        file.append(b"header\n1\n2\n", reached(2, "abc")).unwrap();
        file.file.write(b"3\ntor").unwrap();
        drop(file);
        fs::OpenOptions::new()
            .append(true)
            .open(folder.path().join("out.partial.state"))
            .and_then(|mut state| state.write_all(b"{\"records\":3,\"byt"))
            .unwrap();
        let mut file = begun(&path, true);
        assert_eq!(*file.reached(), Reached { bytes: 11, ..reached(2, "abc") });
        file.append(b"3\n", reached(3, "def")).unwrap();
        file.publish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "header\n1\n2\n3\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_file_that_lost_its_end_is_continued_from_an_earlier_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut file = begun(&path, false);
        file.append(b"1\n", reached(1, "a")).unwrap();
        file.append(b"2\n", reached(2, "b")).unwrap();
        file.file.file.set_len(3).unwrap();
        drop(file);
        let mut file = begun(&path, true);
        assert_eq!(file.reached().records, 1);
        file.append(b"2\n", reached(2, "b")).unwrap();
        file.publish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n");
    }

    #[test]
    fn an_interrupted_run_is_neither_overwritten_nor_mixed_with_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut file = begun(&path, true);
        file.append(b"0\ta\n", reached(1, "abc")).unwrap();
        drop(file);
        let partial = with_suffix(&path, ".partial");
        assert_eq!(
            message(ResumableFile::open(&path, false)),
            format!("{} holds 1 record of an interrupted run", partial.display())
        );
        let mut file = ResumableFile::open(&path, true).unwrap();
        let error = file.begin(&run("n")).unwrap_err().to_string();
        assert_eq!(error, "cannot resume: the model was m in the interrupted run, and is n now");
        drop(file);
        assert_eq!(fs::read_to_string(&partial).unwrap(), "0\ta\n", "a refusal leaves the file alone");
        fs::write(with_suffix(&partial, ".state"), "nonsense").unwrap();
        assert!(message(ResumableFile::open(&path, true)).contains("out.partial.state does not say"));
        assert!(message(ResumableFile::open(&path, false)).contains("0 records"));
    }

    #[test]
    fn a_run_that_wrote_nothing_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        drop(begun(&folder.path().join("out"), false));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn files_are_compressed_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let gz = folder.path().join("out.tsv.gz");
        let mut file = begun(&gz, false);
        file.append(b"1\n", reached(1, "")).unwrap();
        drop(file);
        let mut file = begun(&gz, true);
        file.append(b"2\n", reached(2, "")).unwrap();
        file.publish().unwrap();
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(File::open(&gz).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "1\n2\n");
        let zst = folder.path().join("out.zst");
        begun(&zst, false).publish().unwrap();
        assert!(fs::read(&zst).unwrap().starts_with(b"\x28\xb5\x2f\xfd"), "an empty file is a whole frame too");
    }

    #[test]
    #[cfg(unix)]
    fn devices_are_refused_and_links_kept() {
        assert!(WholeFile::create(Path::new("/dev/null")).err().unwrap().to_string().contains("not a regular file"));
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
