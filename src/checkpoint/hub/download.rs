//! Downloads a blob: resumed if the connection breaks, verified before it is published.

use super::cache::Staged;
use super::error::{disk_error, Failure};
use super::names::BlobId;
use super::transport::{broken_body, text, Transport};
use crate::checkpoint::files::RepoPath;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use ureq::http::Response;
use ureq::Body;

/// How often content that turns out to be wrong is fetched again.
const MAX_WRONG: u32 = 3;

/// One file on its way into the cache.
pub(super) struct Download<'a> {
    pub(super) transport: &'a Transport<'a>,
    pub(super) url: &'a str,
    pub(super) file: &'a RepoPath,
    pub(super) blob: &'a BlobId,
    /// Size in bytes, if the Hub reported it.
    pub(super) size: Option<u64>,
    /// Where the bytes are written. Existing content is resumed.
    pub(super) staged: &'a Staged,
}

/// Why a download failed.
#[derive(Debug)]
pub(super) enum Aborted {
    /// The network or the server failed, after all tries.
    Failure(Failure),
    /// This machine failed; the message says how.
    Disk(anyhow::Error),
}

impl Download<'_> {
    /// Fills `staged` with the verified content.
    pub(super) fn run(&self) -> Result<(), Aborted> {
        for _ in 0..MAX_WRONG {
            self.transport.bar.start(self.file.as_str(), self.size);
            let filled = self.fill();
            self.transport.bar.finish();
            filled?;
            let as_stated = self.blob.matches(&self.staged.file).map_err(|error| self.disk(error, "verify"))?;
            if as_stated {
                return Ok(());
            }
            // There is no telling which bytes are wrong: perhaps those left by an earlier process.
            self.restart()?;
            self.transport.progress.message(&format!("{} arrived damaged: fetching it again", self.file));
        }
        Err(Aborted::Failure(Failure::senseless(format!(
            "its content differed from the Hub's hash {MAX_WRONG} times: a proxy or mirror on the way may change it; \
             try again later or on another network"
        ))))
    }

    /// Completes `staged`, over as many connections as necessary.
    fn fill(&self) -> Result<(), Aborted> {
        let mut furthest = self.length()?;
        let mut failures = 0;
        loop {
            let failure = match self.append() {
                Err(Aborted::Failure(failure)) if failure.is_transient() => failure,
                outcome => return outcome,
            };
            let reached = self.length()?;
            failures = if reached > furthest { 1 } else { failures + 1 };
            furthest = furthest.max(reached);
            if failures == 3 {
                self.transport.progress.message(&format!("{}: {failure}; trying again", self.file));
            }
            if !self.transport.pause(&self.transport.patience.downloads, failures, &failure) {
                return Err(Aborted::Failure(failure));
            }
        }
    }

    /// Downloads over one connection. `Ok` if the file has its full size.
    fn append(&self) -> Result<(), Aborted> {
        let mut position = self.length()?;
        if self.size == Some(position) {
            self.transport.bar.position(position);
            return Ok(());
        }
        if self.size.is_some_and(|size| position > size) {
            position = self.restart()?;
        }
        let response = match self.transport.open(self.url, position) {
            Ok(response) => response,
            Err(Failure::Status(refusal)) if refusal.code == 416 => {
                // The staged bytes are not the start of this file.
                self.restart()?;
                return Err(Aborted::Failure(Failure::broken("the server does not have this part of the file")));
            }
            Err(failure) => return Err(Aborted::Failure(failure)),
        };
        let (start, stated) = extent(&response);
        if start != Some(position) {
            position = self.restart()?;
        }
        let total = self.size.or(stated);
        self.transport.bar.position(position);
        self.copy(response, position, total)
    }

    /// Copies a body that starts at byte `position` of the file, up to `total` bytes of the file.
    fn copy(&self, response: Response<Body>, mut position: u64, total: Option<u64>) -> Result<(), Aborted> {
        let mut staged = &self.staged.file;
        staged.seek(SeekFrom::Start(position)).map_err(|error| self.disk(error, "store"))?;
        // Never past the file's end, even if the server sends more.
        let mut body =
            response.into_body().into_reader().take(total.map_or(u64::MAX, |total| total - position.min(total)));
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
            self.transport.bar.position(position);
        }
        match total {
            Some(total) if position < total => {
                Err(Aborted::Failure(Failure::broken("the connection ended before the end of the file")))
            }
            _ => Ok(()),
        }
    }

    fn length(&self) -> Result<u64, Aborted> {
        Ok(self.staged.file.metadata().map_err(|error| self.disk(error, "store"))?.len())
    }

    fn restart(&self) -> Result<u64, Aborted> {
        self.staged.file.set_len(0).map_err(|error| self.disk(error, "store"))?;
        Ok(0)
    }

    fn disk(&self, error: std::io::Error, doing: &str) -> Aborted {
        let size = match self.size {
            Some(size) if doing == "store" => format!(" ({} MB)", size.div_ceil(1_000_000)),
            _ => String::new(),
        };
        Aborted::Disk(disk_error(error, &format!("{doing} {}{size}", self.file), &self.staged.path))
    }
}

/// Where in the file the body starts, and the size of the whole file, according to the response's own headers.
fn extent(response: &Response<Body>) -> (Option<u64>, Option<u64>) {
    let header = |name| text(response.headers(), name).unwrap_or_default().trim();
    if response.status().as_u16() != 206 {
        return (Some(0), header("Content-Length").parse().ok());
    }
    let (range, size) = header("Content-Range").split_once('/').unwrap_or_default();
    let start = range.strip_prefix("bytes ").and_then(|range| range.split('-').next()?.parse().ok());
    (start, size.parse().ok())
}
