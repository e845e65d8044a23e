//! A repository's folder in the cache, in the layout of Python's huggingface_hub.
//!
//! ```text
//! models--ORGANIZATION--NAME/
//!     blobs/HASH                 contents, each published whole by a rename
//!     blobs/HASH.RANDOM.incomplete   a partial download; never read as a checkpoint
//!     snapshots/COMMIT/FILE      symbolic links to ../../blobs/HASH
//!     refs/REVISION              the last known commit of a branch, a tag or a pull request
//!     .no_exist/COMMIT/FILE      an empty file: the commit is known to have no such file
//!     trees/COMMIT.json          all files of the commit (written by Python only)
//! .locks/models--ORGANIZATION--NAME/HASH.lock
//! ```

use super::error::disk_error;
use super::names::{BlobId, Commit, ModelId, Revision};
use super::system;
use super::DownloadProgress;
use crate::checkpoint::files::RepoPath;
use anyhow::{Context, Result};
use hf_hub::Repo;
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::io::ErrorKind::{AlreadyExists, NotFound, PermissionDenied, ReadOnlyFilesystem, Unsupported};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long another process may hold a lock before the user is told why the program waits.
const SILENT_WAIT: Duration = Duration::from_secs(1);
/// How often to retry a lock held by another process.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// A model's folder in the cache.
#[derive(Debug)]
pub(super) struct RepoCache {
    pub(super) folder: PathBuf,
    locks: PathBuf,
    /// Whether a snapshot's files are links to the blobs.
    links: bool,
}

/// A partially downloaded blob in a file that no other process writes to: its name is random, and the file itself is
/// locked, because the blob's lock is lost if somebody clears the folder of locks.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

impl RepoCache {
    pub(super) fn new(cache_dir: &Path, links: bool, model_id: &ModelId) -> RepoCache {
        let name = Repo::model(model_id.as_str().to_string()).folder_name();
        RepoCache { folder: cache_dir.join(&name), locks: cache_dir.join(".locks").join(name), links }
    }

    /// The cached commit of `revision`.
    pub(super) fn commit_of(&self, revision: &Revision) -> Option<Commit> {
        let noted = || Commit::parse(fs::read_to_string(self.reference(revision)).ok()?.trim());
        Commit::parse(revision.as_str()).or_else(noted)
    }

    fn reference(&self, revision: &Revision) -> PathBuf {
        revision.as_str().split('/').fold(self.folder.join("refs"), |path, part| path.join(part))
    }

    pub(super) fn snapshot(&self, commit: &Commit) -> PathBuf {
        self.folder.join("snapshots").join(commit.as_str())
    }

    pub(super) fn blob(&self, blob: &BlobId) -> PathBuf {
        self.folder.join("blobs").join(blob.as_str())
    }

    /// Makes a file at an unpredictable path with `make`, then renames it to `path`: others see all of it or nothing.
    /// Process ids would be predictable and repeat: in containers every process has id 1.
    fn place(&self, path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
        let made = self.folder.join(format!(".{}.tmp", random()));
        let placed = make(&made).and_then(|()| fs::rename(&made, path));
        placed.inspect_err(|_| drop(fs::remove_file(&made)))
    }

    fn no_exist(&self, commit: &Commit, file: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit.as_str()).join(file)
    }

    /// Whether Python or this program has noted that `commit` has no `file`.
    pub(super) fn is_known_missing(&self, commit: &Commit, file: &str) -> bool {
        self.no_exist(commit, file).is_file()
    }

    /// Notes that `commit` has no `file`. If the cache is not writable, this is not an error.
    pub(super) fn note_missing(&self, commit: &Commit, file: &str) {
        if !self.is_known_missing(commit, file) {
            let _ = self.place(&self.no_exist(commit, file), |path| fs::write(path, ""));
        }
    }

    /// All files of `commit` and their sizes in bytes, if Python has stored the listing.
    pub(super) fn tree(&self, commit: &Commit) -> Option<BTreeMap<RepoPath, u64>> {
        let path = self.folder.join("trees").join(format!("{}.json", commit.as_str()));
        let tree: serde_json::Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let files = tree["files"].as_object().filter(|_| tree["format_version"] == 1)?;
        let size = |entry: &serde_json::Value| entry["lfs_size"].as_u64().or(entry["size"].as_u64());
        Some(files.iter().filter_map(|(path, entry)| Some((RepoPath::parse(path)?, size(entry)?))).collect())
    }

    /// Waits until no other process, including Python's client, downloads `blob`. The returned lock keeps others out
    /// until it is dropped or the process exits; without file system locks, returns `None`.
    pub(super) fn lock(&self, blob: &BlobId, file: &RepoPath, progress: &dyn DownloadProgress) -> Result<Option<File>> {
        let path = self.locks.join(format!("{}.lock", blob.as_str()));
        let fault = |error| disk_error(error, "create a lock for the download", &path);
        fs::create_dir_all(&self.locks).map_err(|error| disk_error(error, "create the cache's folder", &self.locks))?;
        let started = Instant::now();
        let mut told = false;
        loop {
            // Reopened each time: the file may have been deleted, and a lock on a deleted file keeps nobody out.
            let lock = match open_lock(&path) {
                // Deleted between the two ways to open it.
                Err(error) if error.kind() == NotFound && started.elapsed() < SILENT_WAIT => continue,
                opened => opened.map_err(fault)?,
            };
            match lock.try_lock() {
                Ok(()) if system::is_unlinked(&lock) => {}
                Ok(()) => return Ok(Some(lock)),
                // Some network file systems do not support locks. The hash still decides what is published.
                Err(TryLockError::Error(error)) if system::is_unsupported(&error) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(fault(error)),
                Err(TryLockError::WouldBlock) => {
                    if !told && started.elapsed() >= SILENT_WAIT {
                        progress.message(&format!("waiting for another process to download {file}"));
                        told = true;
                    }
                    std::thread::sleep(LOCK_POLL);
                }
            }
        }
    }

    /// A file for the content of `blob`: one left by a process that no longer runs, or a new one.
    pub(super) fn stage(&self, blob: &BlobId) -> Result<Staged> {
        let folder = self.folder.join("blobs");
        let fault = |error| disk_error(error, "create the cache's folder", &folder);
        fs::create_dir_all(&folder).map_err(fault)?;
        let entries = fs::read_dir(&folder).map_err(fault)?.flatten();
        let mut free = entries
            .filter(|entry| entry.file_name().to_str().is_some_and(|name| is_staged_name(name, blob)))
            .filter_map(|entry| Staged::take_up(entry.path()));
        if let Some(staged) = free.next() {
            free.try_for_each(|other| self.discard(&other.path))?;
            return Ok(staged);
        }
        loop {
            let path = folder.join(format!("{}.{}.incomplete", blob.as_str(), random()));
            let file = File::options().create_new(true).read(true).write(true).open(&path);
            let file = file.map_err(|error| disk_error(error, "store a download", &path))?;
            // Another process may have taken it before it was locked; file systems without locks do not lock anything.
            if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
                return Ok(Staged { path, file });
            }
        }
    }

    /// Publishes the verified content of `blob`.
    pub(super) fn publish(&self, blob: &BlobId, staged: &Staged) -> Result<()> {
        // Sync first: after a power failure no name may refer to bytes that were never written.
        let outcome = staged.file.sync_all().and_then(|()| fs::rename(&staged.path, self.blob(blob)));
        outcome.map_err(|error| disk_error(error, "store a downloaded file", &staged.path))
    }

    /// Makes `file` of `commit` show the content of `blob`. Systems without links store the content itself there, like
    /// Python's client: moved if no other snapshot can have it yet (`is_new`), otherwise copied.
    pub(super) fn link(&self, commit: &Commit, file: &RepoPath, blob: &BlobId, is_new: bool) -> Result<()> {
        let (pointer, whole) = (file.below(&self.snapshot(commit)), self.blob(blob));
        let depth = file.as_str().matches('/').count() + 2;
        // Part by part: Windows does not follow a link whose target contains `/`.
        let target: PathBuf = std::iter::repeat_n("..", depth).chain(["blobs", blob.as_str()]).collect();
        let link = |path: &Path| if self.links { system::symlink(&target, path) } else { Err(Unsupported.into()) };
        let shown = match self.place(&pointer, link) {
            Err(error) if system::is_unsupported(&error) && is_new => fs::rename(&whole, &pointer),
            Err(error) if system::is_unsupported(&error) => {
                self.place(&pointer, |path| fs::copy(&whole, path).map(|_| ()))
            }
            shown => shown,
        };
        shown.map_err(|error| disk_error(error, "store a downloaded file", &pointer))
    }

    /// Notes the commit of `revision`.
    ///
    /// # Errors
    /// If the note cannot be written, unless the cache is read-only: its files are still there.
    pub(super) fn write_reference(&self, revision: &Revision, commit: &Commit) -> Result<()> {
        if revision.as_str() == commit.as_str() || self.commit_of(revision).as_ref() == Some(commit) {
            return Ok(());
        }
        let reference = self.reference(revision);
        match self.place(&reference, |path| fs::write(path, commit.as_str())) {
            Err(error) if !matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) => {
                Err(disk_error(error, &format!("note the commit of revision {revision}"), &reference))
            }
            _ => Ok(()),
        }
    }

    /// Deletes `path` if it exists, so it is not used.
    pub(super) fn discard(&self, path: &Path) -> Result<()> {
        let removed = fs::remove_file(path).or_else(|e| if e.kind() == NotFound { Ok(()) } else { Err(e) });
        removed.with_context(|| format!("cannot delete {}", path.display()))
    }
}

impl Staged {
    /// Opens a file left by a process that no longer runs. `None` if some process may still write to it, or it is not a
    /// plain file with a single name: a link could redirect our writes anywhere.
    fn take_up(path: PathBuf) -> Option<Staged> {
        let named = fs::symlink_metadata(&path).ok().filter(|named| named.is_file())?;
        let file = File::options().read(true).write(true).open(&path).ok()?;
        let is_only_name = system::is_only_name(&named, &file.metadata().ok()?);
        // Without locks nobody can tell whether it is in use, so it stays.
        (is_only_name && file.try_lock().is_ok()).then_some(Staged { path, file })
    }
}

/// Whether `name` belongs to a file that [`RepoCache::stage`] makes for `blob`. Python's files have other random parts
/// and are left alone: Python would not notice that we write to them.
fn is_staged_name(name: &str, blob: &BlobId) -> bool {
    let random = name.strip_prefix(blob.as_str()).and_then(|rest| rest.strip_prefix('.')?.strip_suffix(".incomplete"));
    random.is_some_and(|random| random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// 16 hexadecimal digits, different each time.
fn random() -> String {
    // Its key comes from the system's random numbers, and changes each time.
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// Opens a lock file that everybody sharing the cache may lock. Locking only needs read access.
fn open_lock(path: &Path) -> io::Result<File> {
    match File::options().create_new(true).write(true).open(path) {
        Err(error) if error.kind() == AlreadyExists => match File::options().write(true).open(path) {
            Err(error) if error.kind() == PermissionDenied => File::open(path),
            opened => opened,
        },
        created => created.inspect(system::let_others_lock),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_note_one_reference_at_once() {
        // Threads share a process id, as processes in different containers may.
        let folder = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(folder.path(), true, &ModelId::parse("org/name").unwrap());
        let revision = Revision::parse("refs/pr/1").unwrap();
        let commits = ["a", "b"].map(|digit| Commit::parse(&digit.repeat(40)).unwrap());
        fs::create_dir_all(&cache.folder).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..200).for_each(|i| cache.write_reference(&revision, &commits[i % 2]).unwrap()));
            }
        });
        assert!(commits.contains(&cache.commit_of(&revision).unwrap()));
        let left: Vec<_> = fs::read_dir(&cache.folder).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["refs"]);
    }
}
