//! One repository's folder in the cache, laid out as Python's huggingface_hub lays it out.
//!
//! ```text
//! models--ORGANIZATION--NAME/
//!     blobs/HASH                 contents, each published whole by a rename
//!     blobs/HASH.incomplete      a content that is still arriving; never read as a checkpoint
//!     snapshots/COMMIT/FILE      symbolic links to ../../blobs/HASH
//!     refs/REVISION              the commit that a branch, a tag or a pull request stood at
//!     .no_exist/COMMIT/FILE      an empty file: the commit is known to have no such file
//!     trees/COMMIT.json          all files of the commit (written by Python only)
//! .locks/models--ORGANIZATION--NAME/HASH.lock
//! ```

use super::error::disk_error;
use super::names::{BlobId, Commit, ModelId, RepoPath, Revision};
use super::DownloadProgress;
use anyhow::{Context, Result};
use hf_hub::Repo;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long another process may hold a lock before the user is told why nothing happens.
const SILENT_WAIT: Duration = Duration::from_secs(1);

/// The cache's folder of one model.
#[derive(Debug)]
pub(super) struct RepoCache {
    folder: PathBuf,
    locks: PathBuf,
}

/// Held while one blob is downloaded; the file system gives it up when the process dies.
#[derive(Debug)]
pub(super) struct BlobLock {
    _file: File,
}

impl RepoCache {
    pub(super) fn new(cache_dir: &Path, model_id: &ModelId) -> RepoCache {
        let name = Repo::model(model_id.as_str().to_string()).folder_name();
        RepoCache { folder: cache_dir.join(&name), locks: cache_dir.join(".locks").join(name) }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The commit that `revision` is known to stand for.
    pub(super) fn commit_of(&self, revision: &Revision) -> Option<Commit> {
        revision.as_commit().or_else(|| Commit::parse(fs::read_to_string(self.reference(revision)).ok()?.trim()))
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

    pub(super) fn staged(&self, blob: &BlobId) -> PathBuf {
        self.folder.join("blobs").join(format!("{}.incomplete", blob.as_str()))
    }

    /// Whether Python or we have noted that `commit` has no `file`.
    pub(super) fn is_known_missing(&self, commit: &Commit, file: &RepoPath) -> bool {
        file.below(&self.folder.join(".no_exist").join(commit.as_str())).is_file()
    }

    /// Notes that `commit` has no `file`. It is a note, so a cache that cannot be written is no error.
    pub(super) fn note_missing(&self, commit: &Commit, file: &RepoPath) {
        let path = file.below(&self.folder.join(".no_exist").join(commit.as_str()));
        if !path.is_file() {
            let _ = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(&path));
        }
    }

    /// The files of `commit` and their sizes in bytes, where Python has stored the listing.
    pub(super) fn tree(&self, commit: &Commit) -> Option<Vec<(RepoPath, u64)>> {
        #[derive(serde::Deserialize)]
        struct Tree {
            format_version: u64,
            files: std::collections::BTreeMap<String, TreeEntry>,
        }
        #[derive(serde::Deserialize)]
        struct TreeEntry {
            size: u64,
            lfs_size: Option<u64>,
        }
        let path = self.folder.join("trees").join(format!("{}.json", commit.as_str()));
        let tree: Tree = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let entry =
            |(path, entry): (String, TreeEntry)| Some((RepoPath::parse(&path)?, entry.lfs_size.unwrap_or(entry.size)));
        (tree.format_version == 1).then(|| tree.files.into_iter().filter_map(entry).collect())
    }

    /// Waits until no other process, Python's client included, downloads `blob`.
    pub(super) fn lock(&self, blob: &BlobId, file: &RepoPath, progress: &dyn DownloadProgress) -> Result<BlobLock> {
        let path = self.locks.join(format!("{}.lock", blob.as_str()));
        let fault = |error| disk_error(error, "create a lock for the download", &path);
        fs::create_dir_all(&self.locks).map_err(|error| disk_error(error, "create the cache's folder", &self.locks))?;
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(fault)?;
        let started = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                // Some network file systems know no locks. The hash still decides what is published.
                Err(TryLockError::Error(error)) if is_unsupported(&error) => break,
                Err(TryLockError::Error(error)) => return Err(fault(error)),
                Err(TryLockError::WouldBlock) if started.elapsed() < SILENT_WAIT => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    progress.message(&format!("waiting for another process that downloads {file}"));
                    lock.lock().map_err(fault)?;
                    break;
                }
            }
        }
        Ok(BlobLock { _file: lock })
    }

    /// Creates the folder in which `blob` will gather and stay.
    pub(super) fn make_room(&self, blob: &BlobId) -> Result<()> {
        let path = self.blob(blob);
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).map_err(|error| disk_error(error, "create the cache's folder", &path))
    }

    /// Makes the staged content of `blob`, which has been verified, a whole one, once and for all.
    pub(super) fn publish(&self, blob: &BlobId) -> Result<()> {
        let staged = self.staged(blob);
        let publish = || {
            // The bytes first: after a power cut a name must not stand for bytes that were never written.
            File::options().write(true).open(&staged)?.sync_all()?;
            fs::rename(&staged, self.blob(blob))
        };
        publish().map_err(|error| disk_error(error, "store a downloaded file", &staged))
    }

    /// Lets `file` of `commit` show the content of `blob`.
    pub(super) fn link(&self, commit: &Commit, file: &RepoPath, blob: &BlobId) -> Result<()> {
        let pointer = file.below(&self.snapshot(commit));
        let fault = |error| disk_error(error, "store a downloaded file", &pointer);
        if let Some(folder) = pointer.parent() {
            fs::create_dir_all(folder).map_err(fault)?;
        }
        let mut target = PathBuf::from("../".repeat(file.depth() + 2));
        target.push("blobs");
        target.push(blob.as_str());
        let staged = pointer.with_file_name(format!(".{}.{}", blob.as_str(), std::process::id()));
        match symlink(&target, &staged) {
            Ok(()) => fs::rename(&staged, &pointer).map_err(fault),
            // Where the system knows no links the content itself moves there, as with Python's client.
            Err(_) => fs::rename(self.blob(blob), &pointer).map_err(fault),
        }
    }

    /// Notes that `revision` stands for `commit`.
    ///
    /// # Errors
    /// Where the note cannot be written, except in a cache that is read-only: its files are there all the same.
    pub(super) fn write_reference(&self, revision: &Revision, commit: &Commit) -> Result<()> {
        if revision.as_str() == commit.as_str() || self.commit_of(revision).as_ref() == Some(commit) {
            return Ok(());
        }
        let reference = self.reference(revision);
        let write = || {
            let folder = reference.parent().unwrap_or(&self.folder);
            fs::create_dir_all(folder)?;
            let staged = folder.join(format!(".{}.{}.tmp", commit.as_str(), std::process::id()));
            fs::write(&staged, commit.as_str())?;
            fs::rename(&staged, &reference)
        };
        match write() {
            Err(error) if !matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
                Err(disk_error(error, &format!("note the commit of revision {revision}"), &reference))
            }
            _ => Ok(()),
        }
    }

    /// Deletes `path` where it is a file that must not be used.
    pub(super) fn discard(&self, path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot delete the damaged file {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Whether the file system has no locks: `ENOLCK`, `ENOSYS` and `EOPNOTSUPP` by their numbers on Linux and macOS.
fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == ErrorKind::Unsupported || cfg!(unix) && matches!(error.raw_os_error(), Some(37 | 38 | 77 | 78 | 95))
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_target: &Path, _link: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}
