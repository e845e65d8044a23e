//! One blob from the network to the disk: resumed where the connection broke, verified before anyone may see it.

use super::error::{disk_error, Failure};
use super::names::{BlobId, RepoPath};
use super::transport::{broken_body, Transport};
use super::DownloadProgress;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use ureq::Response;
use url::Url;

/// How often a content that turns out to be wrong is fetched anew.
const MAX_WRONG: u32 = 3;

/// One file on its way into the cache.
pub(super) struct Download<'a> {
    pub(super) transport: &'a Transport,
    pub(super) url: &'a Url,
    pub(super) file: &'a RepoPath,
    pub(super) blob: &'a BlobId,
    /// Bytes, where the Hub has said so.
    pub(super) size: Option<u64>,
    /// Where the bytes gather. What another process has left there is taken up.
    pub(super) staged: &'a Path,
    pub(super) progress: &'a dyn DownloadProgress,
}

/// Why a download ended without its file.
#[derive(Debug)]
pub(super) enum Aborted {
    /// The network's or the server's fault, after all tries.
    Failure(Failure),
    /// The content is not what the Hub says it is, after all tries.
    Wrong { tries: u32 },
    /// This machine's fault, in words.
    Disk(anyhow::Error),
}

impl Download<'_> {
    /// Fills `staged` with the verified content.
    pub(super) fn run(&self) -> Result<(), Aborted> {
        for _ in 0..MAX_WRONG {
            self.fill()?;
            let as_stated = self.blob.matches(self.staged).map_err(|error| self.disk(error, "verify"))?;
            if as_stated {
                return Ok(());
            }
            // Nothing tells which bytes are wrong: perhaps those that an earlier process left.
            fs::remove_file(self.staged).map_err(|error| self.disk(error, "discard"))?;
            self.progress.message(&format!("{} arrived damaged: fetching it anew", self.file));
        }
        Err(Aborted::Wrong { tries: MAX_WRONG })
    }

    /// Brings `staged` to its full size, over as many connections as that takes.
    fn fill(&self) -> Result<(), Aborted> {
        let policy = &self.transport.patience.downloads;
        let mut staged = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.staged)
            .map_err(|error| self.disk(error, "store"))?;
        let mut furthest = staged.metadata().map_err(|error| self.disk(error, "store"))?.len();
        let mut failures = 0;
        self.progress.start(self.file.as_str(), self.size);
        loop {
            let failure = match self.append(&mut staged) {
                Err(Aborted::Failure(failure)) if failure.is_transient() => failure,
                outcome => {
                    self.progress.finish();
                    return outcome;
                }
            };
            let reached = staged.metadata().map_err(|error| self.disk(error, "store"))?.len();
            failures = if reached > furthest { 1 } else { failures + 1 };
            furthest = furthest.max(reached);
            let Some(wait) = policy.wait_after(failures, failure.retry_after()) else {
                self.progress.finish();
                return Err(Aborted::Failure(failure));
            };
            if failures == 3 {
                self.progress.message(&format!("{}: {failure}; trying again", self.file));
            }
            std::thread::sleep(wait);
        }
    }

    /// One connection's worth of bytes. `Ok` where the file is complete by its size.
    fn append(&self, staged: &mut File) -> Result<(), Aborted> {
        let mut position = staged.seek(SeekFrom::End(0)).map_err(|error| self.disk(error, "store"))?;
        if self.size == Some(position) {
            self.progress.position(position);
            return Ok(());
        }
        if self.size.is_some_and(|size| position > size) {
            position = self.restart(staged)?;
        }
        let response = match self.transport.open(self.url, position) {
            Ok(response) => response,
            Err(Failure::Status(refusal)) if refusal.code == 416 => {
                // What is staged is no beginning of this file.
                self.restart(staged)?;
                return Err(Aborted::Failure(Failure::broken("the server has no such part of the file")));
            }
            Err(failure) => return Err(Aborted::Failure(failure)),
        };
        if position > 0 && resumed_at(&response) != Some(position) {
            position = self.restart(staged)?;
        }
        let total = self.size.or_else(|| total(&response));
        self.progress.position(position);
        self.copy(response, staged, position, total)
    }

    /// Copies a body that begins at byte `position` of the file, up to `total` bytes of the whole.
    fn copy(
        &self,
        response: Response,
        staged: &mut File,
        mut position: u64,
        total: Option<u64>,
    ) -> Result<(), Aborted> {
        // No further than the file's end, whatever the server sends.
        let mut body = response.into_reader().take(total.map_or(u64::MAX, |total| total - position.min(total)));
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Aborted::Failure(broken_body(error))),
            };
            if read == 0 {
                break;
            }
            staged.write_all(&buffer[..read]).map_err(|error| self.disk(error, "store"))?;
            position += read as u64;
            self.progress.position(position);
        }
        match total {
            Some(total) if position < total => {
                Err(Aborted::Failure(Failure::broken("the connection ended before the file did")))
            }
            _ => Ok(()),
        }
    }

    fn restart(&self, staged: &mut File) -> Result<u64, Aborted> {
        let restart = staged.set_len(0).and_then(|()| staged.seek(SeekFrom::Start(0)));
        restart.map_err(|error| self.disk(error, "store"))
    }

    fn disk(&self, error: std::io::Error, doing: &str) -> Aborted {
        let size = match self.size {
            Some(size) if doing == "store" => format!(" ({} MB)", size.div_ceil(1_000_000)),
            _ => String::new(),
        };
        Aborted::Disk(disk_error(error, &format!("{doing} {}{size}", self.file), self.staged))
    }
}

/// The first byte of a part that the server was asked for, or `None` where it sends the whole.
fn resumed_at(response: &Response) -> Option<u64> {
    let range = response.header("Content-Range").filter(|_| response.status() == 206)?;
    range.trim().strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// The size of the whole file in bytes, as the answer's own headers state it.
fn total(response: &Response) -> Option<u64> {
    match response.header("Content-Range").filter(|_| response.status() == 206) {
        Some(range) => range.rsplit_once('/')?.1.trim().parse().ok(),
        None => response.header("Content-Length")?.trim().parse().ok(),
    }
}
