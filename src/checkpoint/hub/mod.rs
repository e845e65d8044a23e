//! The Hugging Face Hub: turns a model id and a revision into a folder on disk with the whole checkpoint.
//!
//! A checkpoint that is complete in the cache is used without a request. Otherwise one request lists the repository's
//! files with their hashes; missing files are downloaded, verified and only then published. The cache is shared with
//! Python's huggingface_hub: each can use the other's downloads.
//!
//! hf-hub provides names and URL paths; `transport.rs` explains why it does not download.

mod cache;
pub(crate) mod digest;
mod download;
mod error;
mod files;
mod listing;
mod names;
mod options;
mod proxies;
mod retry;
mod system;
mod transport;

pub use error::{HubError, HubErrorKind};
pub use names::{ModelId, Revision};
pub use options::{Endpoint, HubOptions, Patience, Token};
pub use proxies::ProxyRules;
pub use retry::RetryPolicy;

use crate::checkpoint::files::{RepoPath, Role, TOKENIZER_CONFIG};
use crate::checkpoint::weights::index;
use anyhow::{anyhow, ensure, Context, Result};
use cache::RepoCache;
use download::{Aborted, Download};
use error::{Asked, Failure};
use files::Holding;
use hf_hub::{Repo, RepoType};
use listing::{FileStatement, Listing};
use names::{BlobId, Commit};
use options::Environment;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;
use transport::Transport;

/// The checkpoint that is used by default.
pub const DEFAULT_MODEL_ID: &str = "textattack/bert-base-uncased-ag-news";

/// Revisions of the default checkpoint, best first. Its `main` has only a pickle in PyTorch's format of 2020; the pull
/// request of the Hub's conversion bot adds model.safetensors.
const DEFAULT_MODEL_REVISIONS: [&str; 2] = ["refs/pr/1", "main"];

/// Receives the progress of downloads, one file at a time. By default every method does nothing.
pub trait DownloadProgress {
    /// `file` of `total` bytes (if known) starts or resumes.
    fn start(&self, _file: &str, _total: Option<u64>) {}
    /// Number of bytes of the file on disk. Falls if a file has to start again.
    fn position(&self, _bytes: u64) {}
    /// The file's transfer has ended, successfully or not.
    fn finish(&self) {}
    /// A message for the user while nothing else seems to happen.
    fn message(&self, _text: &str) {}
}

/// Ignores progress.
impl DownloadProgress for () {}

/// Refuses a config.json, given with a name for it, if the checkpoint cannot be used.
pub type ConfigCheck = fn(&[u8], &str) -> Result<()>;

/// Finds or downloads models by id.
pub struct Hub<'a> {
    options: HubOptions,
    progress: &'a dyn DownloadProgress,
    check_config: ConfigCheck,
}

/// A checkpoint that is complete in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder with the files: `…/models--ORGANIZATION--NAME/snapshots/COMMIT`.
    pub folder: PathBuf,
    pub model_id: String,
    /// The revision that was found, as requested.
    pub revision: String,
    /// The commit of the revision.
    pub commit: String,
    /// The checkpoint's files, sorted by name.
    pub files: Vec<SnapshotFile>,
}

/// A file of a [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// The path below the snapshot's folder.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
}

/// Why a checkpoint is requested.
#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    /// To describe it: only config.json is fetched.
    Describe,
    /// To use it now: cached files are trusted, and a busy Hub is not waited for.
    Use,
    /// To use it later: cached files are verified, and a busy Hub is waited for.
    Keep,
}

impl Purpose {
    /// The longest wait that a server can request. The Hub counts requests in windows of five minutes.
    fn longest_asked(self) -> Duration {
        Duration::from_secs(if self == Purpose::Keep { 360 } else { 30 })
    }
}

/// What to find.
struct Wanted {
    model_id: ModelId,
    /// To try in this order; at least one.
    revisions: Vec<Revision>,
    cache: RepoCache,
}

impl<'a> Hub<'a> {
    /// Opens and reads nothing yet.
    pub fn new(options: HubOptions, progress: &'a dyn DownloadProgress) -> Hub<'a> {
        Hub { options, progress, check_config: |_, _| Ok(()) }
    }

    /// Refuses checkpoints whose config.json does not pass, before a byte of their weights is fetched.
    pub fn refusing(self, check_config: ConfigCheck) -> Hub<'a> {
        Hub { check_config, ..self }
    }

    /// The checkpoint `model_id` at `revision`, downloaded unless the cache has all of it.
    ///
    /// The default revision is `main`. For the default checkpoint it is `refs/pr/1`, then `main`: the first one that is
    /// complete in the cache, otherwise the first one that the Hub has.
    ///
    /// # Errors
    /// A [`HubError`] if the Hub or the network fails, otherwise a message that names the file.
    pub fn snapshot(&self, model_id: &str, revision: Option<&str>) -> Result<Snapshot> {
        let wanted = self.wanted(model_id, revision)?;
        let mut in_doubt = None;
        for (revision, commit) in wanted.cached() {
            let held = files::look(&wanted.cache, &commit);
            if !held.lacks.is_empty() {
                continue;
            }
            let is_certain = held.is_certain;
            let snapshot = wanted.snapshot(revision, &commit, held);
            if is_certain {
                return Ok(snapshot);
            }
            in_doubt.get_or_insert(snapshot);
        }
        match (self.fetch(&wanted, Purpose::Use), in_doubt) {
            (Err(error), Some(snapshot))
                if matches!(kind(&error), Some(HubErrorKind::Unreachable | HubErrorKind::Offline)) =>
            {
                Ok(snapshot)
            }
            (fetched, _) => fetched,
        }
    }

    /// The folder with config.json, which may lack everything else: in the cache, or fetched from the Hub.
    ///
    /// # Errors
    /// As [`Hub::snapshot`].
    pub fn config(&self, model_id: &str, revision: Option<&str>) -> Result<PathBuf> {
        let wanted = self.wanted(model_id, revision)?;
        let mut cached = wanted.cached().map(|(_, commit)| wanted.cache.snapshot(&commit));
        match cached.find(|folder| folder.join("config.json").is_file()) {
            Some(folder) => Ok(folder),
            None => Ok(self.fetch(&wanted, Purpose::Describe)?.folder),
        }
    }

    /// Like [`Hub::snapshot`], but always asks the Hub for the revision's newest commit, and verifies the hashes of
    /// cached files. Offline, verifies the cached files.
    ///
    /// # Errors
    /// As for [`Hub::snapshot`].
    pub fn download(&self, model_id: &str, revision: Option<&str>) -> Result<Snapshot> {
        if !self.options.offline {
            return self.fetch(&self.wanted(model_id, revision)?, Purpose::Keep);
        }
        let snapshot = self.snapshot(model_id, revision)?;
        for file in &snapshot.files {
            let path = snapshot.folder.join(&file.name);
            let is_sound = is_as_named(&path).with_context(|| format!("cannot verify {}", path.display()))?;
            ensure!(
                is_sound,
                "{} is damaged: its hash differs from its name in the cache; fetch it again with the \
                 network allowed",
                path.display()
            );
        }
        Ok(snapshot)
    }

    /// The validated id, the revisions to try, and the cache.
    fn wanted(&self, model_id: &str, revision: Option<&str>) -> Result<Wanted> {
        let model_id = ModelId::parse(model_id)?;
        let revisions = match revision {
            Some(revision) => vec![revision],
            None if model_id.as_str() == DEFAULT_MODEL_ID => DEFAULT_MODEL_REVISIONS.to_vec(),
            None => vec!["main"],
        };
        let revisions = revisions.into_iter().map(Revision::parse).collect::<Result<_>>()?;
        let cache = RepoCache::new(&self.options.cache_dir, self.options.links, &model_id);
        Ok(Wanted { model_id, revisions, cache })
    }

    /// Fetches what `purpose` needs of the first revision that the Hub has.
    fn fetch(&self, wanted: &Wanted, purpose: Purpose) -> Result<Snapshot> {
        if self.options.offline {
            return Err(wanted.explain_offline().into());
        }
        let transport = &Transport::new(&self.options, purpose.longest_asked(), self.progress)?;
        let fetch = |revision| {
            let asked = Asked { endpoint: &self.options.endpoint, model_id: &wanted.model_id, revision, file: None };
            let fetch = Fetch { cache: &wanted.cache, asked, transport, purpose, check_config: self.check_config };
            let commit = fetch.run()?;
            Ok(wanted.snapshot(revision, &commit, files::look(&wanted.cache, &commit)))
        };
        let (last, before) = wanted.revisions.split_last().expect("at least one revision is requested");
        for revision in before {
            match fetch(revision) {
                Err(error) if kind(&error) == Some(HubErrorKind::NoSuchRevision) => {}
                outcome => return outcome,
            }
        }
        fetch(last)
    }
}

impl Wanted {
    /// The revisions whose commits the cache knows.
    fn cached(&self) -> impl Iterator<Item = (&Revision, Commit)> {
        self.revisions.iter().filter_map(|revision| Some((revision, self.cache.commit_of(revision)?)))
    }

    fn snapshot(&self, revision: &Revision, commit: &Commit, held: Holding) -> Snapshot {
        let (model_id, revision) = (self.model_id.to_string(), revision.to_string());
        let (folder, commit) = (self.cache.snapshot(commit), commit.to_string());
        Snapshot { folder, model_id, revision, commit, files: held.files }
    }

    fn explain_offline(&self) -> HubError {
        let lack = match self.cached().next() {
            None => format!("it is not in the cache ({})", self.cache.folder.display()),
            Some((revision, commit)) => {
                let lacks = files::look(&self.cache, &commit).lacks;
                let lacks = if lacks.is_empty() { TOKENIZER_CONFIG.to_string() } else { lacks.join(", ") };
                format!("at revision {revision} the cache lacks {lacks} ({})", self.cache.snapshot(&commit).display())
            }
        };
        let revision = self.revisions.iter().map(Revision::as_str).collect::<Vec<_>>().join(" or ");
        let sentence = format!("cannot load {} (revision {revision}) offline: {lack}", self.model_id);
        HubError { kind: HubErrorKind::Offline, sentence }
    }
}

/// A checkpoint that is being downloaded into the cache.
struct Fetch<'a> {
    cache: &'a RepoCache,
    asked: Asked<'a>,
    transport: &'a Transport<'a>,
    purpose: Purpose,
    check_config: ConfigCheck,
}

impl Fetch<'_> {
    /// Downloads all files of the revision into the cache, the weights last, then notes the revision's commit.
    fn run(&self) -> Result<Commit> {
        let Asked { model_id, revision, .. } = self.asked;
        let listing = self.list()?;
        let commit = &listing.commit;
        let folder = self.cache.snapshot(commit);
        let selection = files::select(&listing).map_err(|lack| anyhow!("{model_id} at revision {revision} {lack}"))?;
        for file in &selection {
            self.obtain(&listing, &file.path(), file.max_size())?;
            if file.role == Role::Config {
                if self.purpose == Purpose::Describe {
                    // Without a note of the commit, with which the cache would seem to have a checkpoint.
                    return Ok(listing.commit);
                }
                let origin = format!("config.json of {model_id} at revision {revision}");
                (self.check_config)(&file.read(&folder)?, &origin)?;
            }
            if file.is_index() {
                let shards = file.read(&folder).and_then(|json| index::read(&json));
                for shard in shards.with_context(|| format!("cannot read {} of {model_id}", file.name))?.keys() {
                    self.obtain(&listing, shard, usize::MAX)?;
                }
            }
        }
        if !listing.has(TOKENIZER_CONFIG) {
            self.cache.note_missing(commit, TOKENIZER_CONFIG);
        }
        if let Some(before) = self.cache.commit_of(revision).filter(|before| before != commit) {
            let moved = format!("{revision} of {model_id} has moved from commit {before} to {commit}");
            self.transport.progress.message(&moved);
        }
        self.cache.write_reference(revision, commit)?;
        Ok(listing.commit)
    }

    fn list(&self) -> Result<Listing> {
        let repo = self.repo(self.asked.revision.as_str());
        let url = format!("{}/api/{}?blobs=true", self.asked.endpoint.as_str(), repo.api_url());
        let answer = self.transport.document(&url).map_err(|failure| self.asked.explain(failure))?;
        Ok(Listing::parse(&answer).map_err(|fault| self.asked.explain(Failure::senseless(fault)))?)
    }

    /// The repository at a revision, for hf-hub, which only escapes the slash.
    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.asked.model_id.to_string(), RepoType::Model, names::escaped(revision))
    }

    /// Downloads `file`, of at most `max_size` bytes, into the snapshot.
    fn obtain(&self, listing: &Listing, file: &RepoPath, max_size: usize) -> Result<()> {
        let asked = Asked { file: Some(file.as_str()), ..self.asked };
        let commit = &listing.commit;
        let stated = listing.statement(file).ok_or_else(|| {
            anyhow!("{} has no file {file} at revision {}, although its index names it", asked.model_id, asked.revision)
        })?;
        let repo = self.repo(commit.as_str());
        let (endpoint, path) = (asked.endpoint.as_str(), names::escaped_path(file));
        let url = format!("{endpoint}/{}/resolve/{}/{path}", repo.url(), repo.url_revision());
        let (blob, size) = self.identify(stated, &url).map_err(|failure| asked.explain(failure))?;
        ensure!(
            size.is_none_or(|size| size <= max_size as u64),
            "{file} of {} has {} MB on the Hub, too many for such a file",
            asked.model_id,
            size.unwrap_or_default() >> 20
        );
        let pointer = file.below(&self.cache.snapshot(commit));
        if self.is_sound(&pointer, &blob, size)? {
            return Ok(());
        }
        let _lock = self.cache.lock(&blob, file, self.transport.progress)?;
        // Another process may have downloaded it meanwhile; without links there is only the snapshot's file.
        if self.is_sound(&pointer, &blob, size)? {
            return Ok(());
        }
        if pointer.exists() {
            self.transport.progress.message(&format!("{} is damaged: fetching it again", pointer.display()));
            self.cache.discard(&pointer)?;
        }
        let whole = self.cache.blob(&blob);
        let is_new = !self.is_sound(&whole, &blob, size)?;
        if is_new {
            self.cache.discard(&whole)?;
            let staged = self.cache.stage(&blob)?;
            let download = Download { transport: self.transport, url: &url, file, blob: &blob, size, staged: &staged };
            download.run().map_err(|aborted| match aborted {
                Aborted::Failure(failure) => asked.explain(failure).into(),
                Aborted::Disk(error) => error,
            })?;
            self.cache.publish(&blob, &staged)?;
        }
        self.cache.link(commit, file, &blob, is_new)
    }

    /// The name and the size of the content at `url`: from the listing, or, if it only has names (as on a mirror), from
    /// the file's own headers.
    fn identify(&self, stated: &FileStatement, url: &str) -> Result<(BlobId, Option<u64>), Failure> {
        if let Some(blob) = &stated.blob {
            return Ok((blob.clone(), stated.size));
        }
        let (etag, size) = self.transport.stated(url)?;
        let etag = etag.ok_or_else(|| Failure::senseless("the server sent no etag"))?;
        let blob = BlobId::from_etag(&etag).ok_or_else(|| {
            Failure::senseless(format!(
                "the server sent the etag “{}”, which cannot be a blob's name",
                names::printable(&etag)
            ))
        })?;
        Ok((blob, size.or(stated.size)))
    }

    /// Whether the file at `path` exists and can stay.
    fn is_sound(&self, path: &Path, blob: &BlobId, size: Option<u64>) -> Result<bool> {
        let Ok(metadata) = path.metadata() else { return Ok(false) };
        if !metadata.is_file() || size.is_some_and(|size| size != metadata.len()) {
            return Ok(false);
        }
        match self.purpose {
            Purpose::Describe | Purpose::Use => Ok(true),
            Purpose::Keep => File::open(path)
                .and_then(|file| blob.matches(&file))
                .with_context(|| format!("cannot verify {}", path.display())),
        }
    }
}

/// Whether a cached file's content matches the hash in the name of its blob. Only the first link counts: Python may
/// have made the blob itself a link into a store with another kind of hash.
fn is_as_named(path: &Path) -> std::io::Result<bool> {
    let target = std::fs::read_link(path).ok();
    let name = target.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()).and_then(BlobId::from_etag);
    name.map_or(Ok(true), |blob| blob.matches(&File::open(path)?))
}

fn kind(error: &anyhow::Error) -> Option<HubErrorKind> {
    error.downcast_ref::<HubError>().map(|error| error.kind)
}
