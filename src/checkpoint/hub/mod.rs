//! The Hugging Face Hub: from a model id and a revision to a folder on disk that holds the whole checkpoint.
//!
//! A checkpoint that is whole in the cache is used without a request. Otherwise one request lists the
//! repository's files with their hashes, and what is missing is downloaded, verified and only then published. The
//! cache is the one of Python's huggingface_hub: each can use what the other has downloaded.
//!
//! hf-hub gives the names and the URLs; see `transport.rs` for why the bytes do not come through it.

mod cache;
mod digest;
mod download;
mod error;
mod files;
mod listing;
mod names;
mod options;
mod proxies;
mod retry;
mod transport;

pub use error::{HubError, HubErrorKind};
pub use names::{ModelId, Revision};
pub use options::{HubOptions, Patience, Token};
pub use proxies::ProxyRules;
pub use retry::RetryPolicy;

use anyhow::{anyhow, Context, Result};
use cache::RepoCache;
use download::{Aborted, Download};
use error::{other_ways, Asked, Failure};
use files::Completeness;
use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};
use listing::{FileStatement, Listing};
use names::{BlobId, Commit, RepoPath};
use std::path::{Path, PathBuf};
use transport::Transport;
use url::Url;

/// The checkpoint that is used where none is named.
pub const DEFAULT_MODEL_ID: &str = "textattack/bert-base-uncased-ag-news";

/// Where the default checkpoint is looked for, best first. Its `main` holds nothing but a pickle in PyTorch's
/// format of 2020; the pull request of the Hub's conversion bot adds model.safetensors.
const DEFAULT_MODEL_REVISIONS: [&str; 2] = ["refs/pr/1", "main"];

/// Hears how downloads go. One file at a time is on its way.
pub trait DownloadProgress {
    /// `file` of `total` bytes (where known) begins or goes on.
    fn start(&self, file: &str, total: Option<u64>);
    /// So many bytes of the file are on disk. The number falls where a file has to start anew.
    fn position(&self, bytes: u64);
    /// The file's transfer has ended, well or badly.
    fn finish(&self);
    /// A sentence for the user while nothing else seems to happen.
    fn message(&self, text: &str);
}

/// Tells nobody.
impl DownloadProgress for () {
    fn start(&self, _file: &str, _total: Option<u64>) {}
    fn position(&self, _bytes: u64) {}
    fn finish(&self) {}
    fn message(&self, _text: &str) {}
}

/// The way from model ids to folders.
pub struct Hub<'a> {
    options: HubOptions,
    progress: &'a dyn DownloadProgress,
}

/// A checkpoint that lies whole in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder that holds the files: `…/models--ORGANIZATION--NAME/snapshots/COMMIT`.
    pub folder: PathBuf,
    pub model_id: String,
    /// The revision that was found, as it was asked for.
    pub revision: String,
    /// The commit that the revision stood for.
    pub commit: String,
    /// The checkpoint's files, sorted by name.
    pub files: Vec<SnapshotFile>,
}

/// A file of a [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// The path below the snapshot's folder.
    pub name: String,
    /// Bytes.
    pub size: u64,
}

/// How far what is in the cache already is trusted.
#[derive(Clone, Copy, PartialEq)]
enum Trust {
    /// Files are there whole or not at all.
    Cache,
    /// Their hashes are computed once more.
    Nothing,
}

impl<'a> Hub<'a> {
    /// Nothing is opened or read yet.
    pub fn new(options: HubOptions, progress: &'a dyn DownloadProgress) -> Hub<'a> {
        Hub { options, progress }
    }

    /// The checkpoint `model_id` at `revision`, downloaded where the cache does not hold it whole.
    ///
    /// Without a revision that is `main`, but for the default checkpoint `refs/pr/1`, then `main`: first whichever
    /// of them is whole in the cache, then whichever the Hub has.
    ///
    /// # Errors
    /// A [`HubError`] for what the Hub or the network refuses; else a sentence that names the file.
    pub fn snapshot(&self, model_id: &str, revision: Option<&str>) -> Result<Snapshot> {
        let (model_id, revisions) = parse(model_id, revision)?;
        let cache = RepoCache::new(&self.options.cache_dir, &model_id);
        let mut unsure = None;
        for revision in &revisions {
            let Some(commit) = cache.commit_of(revision) else { continue };
            match files::completeness(&cache, &commit) {
                Completeness::Whole => return self.cached(&cache, &model_id, revision, &commit),
                Completeness::Unsure => unsure = unsure.or(Some((revision, commit))),
                Completeness::Lacks(_) => {}
            }
        }
        let fetched = match self.options.offline {
            true => Err(self.explain_offline(&cache, &model_id, &revisions).into()),
            false => self.fetch_first(&cache, &model_id, &revisions, Trust::Cache),
        };
        match (fetched, unsure) {
            (Err(error), Some((revision, commit))) if is_unreachable(&error) => {
                self.cached(&cache, &model_id, revision, &commit)
            }
            (fetched, _) => fetched,
        }
    }

    /// Like [`Hub::snapshot`], but the Hub is asked for the revision's newest commit whatever the cache holds, and
    /// the hashes of files that are there already are verified. Offline, the cached files are verified.
    ///
    /// # Errors
    /// As [`Hub::snapshot`].
    pub fn download(&self, model_id: &str, revision: Option<&str>) -> Result<Snapshot> {
        if !self.options.offline {
            let (model_id, revisions) = parse(model_id, revision)?;
            let cache = RepoCache::new(&self.options.cache_dir, &model_id);
            return self.fetch_first(&cache, &model_id, &revisions, Trust::Nothing);
        }
        let snapshot = self.snapshot(model_id, revision)?;
        for file in &snapshot.files {
            let path = snapshot.folder.join(&file.name);
            if !is_as_named(&path).with_context(|| format!("cannot verify {}", path.display()))? {
                return Err(anyhow!(
                    "{} is damaged: its content has another hash than its name in the cache says; \
                     run the same command without --offline to fetch it anew",
                    path.display()
                ));
            }
        }
        Ok(snapshot)
    }

    fn cached(&self, cache: &RepoCache, model_id: &ModelId, revision: &Revision, commit: &Commit) -> Result<Snapshot> {
        let folder = cache.snapshot(commit);
        let mut files = Vec::new();
        for path in files::present(&folder) {
            let on_disk = path.below(&folder);
            let metadata = on_disk.metadata().with_context(|| format!("cannot read {}", on_disk.display()))?;
            files.push(SnapshotFile { name: path.as_str().to_string(), size: metadata.len() });
        }
        Ok(Snapshot {
            folder,
            model_id: model_id.to_string(),
            revision: revision.to_string(),
            commit: commit.as_str().to_string(),
            files,
        })
    }

    /// Fetches the first of `revisions` that the Hub has.
    fn fetch_first(
        &self,
        cache: &RepoCache,
        model_id: &ModelId,
        revisions: &[Revision],
        trust: Trust,
    ) -> Result<Snapshot> {
        let (last, before) = revisions.split_last().expect("a model is asked for at one revision at least");
        for revision in before {
            match self.fetch(cache, model_id, revision, trust) {
                Err(error) if kind(&error) == Some(HubErrorKind::NoSuchRevision) => {}
                outcome => return outcome,
            }
        }
        self.fetch(cache, model_id, last, trust)
    }

    fn fetch(&self, cache: &RepoCache, model_id: &ModelId, revision: &Revision, trust: Trust) -> Result<Snapshot> {
        let endpoint = Url::parse(&self.options.endpoint)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some())
            .ok_or_else(|| {
                anyhow!("HF_ENDPOINT is “{}”, which is no http(s) URL", names::printable(&self.options.endpoint))
            })?;
        let shown = shown(&endpoint);
        let asked =
            Asked { endpoint: &shown, model_id, revision, file: None, with_token: self.options.token.is_some() };
        let transport = Transport::new(endpoint, &self.options).map_err(|failure| asked.explain(failure))?;
        let fetch =
            Fetch { cache, asked, transport: &transport, api: hub_api(&self.options)?, trust, progress: self.progress };
        let commit = fetch.run()?;
        self.cached(cache, model_id, revision, &commit)
    }

    fn explain_offline(&self, cache: &RepoCache, model_id: &ModelId, revisions: &[Revision]) -> HubError {
        let known = revisions.iter().find_map(|revision| Some((revision, cache.commit_of(revision)?)));
        let lack = match &known {
            None => format!("it is not in the cache ({})", cache.folder().display()),
            Some((revision, commit)) => match files::completeness(cache, commit) {
                Completeness::Lacks(lacks) => format!(
                    "at revision {revision} the cache lacks {} ({})",
                    lacks.join(", "),
                    cache.snapshot(commit).display()
                ),
                _ => format!("it is not whole in the cache ({})", cache.folder().display()),
            },
        };
        let revision = revisions.iter().map(Revision::as_str).collect::<Vec<_>>().join(" or ");
        HubError::new(
            HubErrorKind::Offline,
            format!(
                "cannot load {model_id} (revision {revision}) offline: {lack}; run once without --offline (and \
                 without HF_HUB_OFFLINE) to fetch it; {}",
                other_ways()
            ),
        )
    }
}

/// One checkpoint on its way into the cache.
struct Fetch<'a> {
    cache: &'a RepoCache,
    asked: Asked<'a>,
    transport: &'a Transport,
    api: Api,
    trust: Trust,
    progress: &'a dyn DownloadProgress,
}

impl Fetch<'_> {
    /// Brings all files of the revision into the cache, the weights last and the reference at the very end.
    fn run(&self) -> Result<Commit> {
        let listing = self.list()?;
        let commit = &listing.commit;
        let selection = files::select(&listing.paths())
            .map_err(|lack| anyhow!("{} at revision {} {lack}", self.asked.model_id, self.asked.revision))?;
        for file in &selection.descriptions {
            self.obtain(&listing, file)?;
        }
        let weights = self.obtain(&listing, &selection.weights)?;
        if selection.sharded {
            let index = std::fs::read(&weights).with_context(|| format!("cannot read {}", weights.display()))?;
            let shards = files::shards(&index)
                .map_err(|fault| anyhow!("{} of {} {fault}", selection.weights, self.asked.model_id))?;
            for shard in &shards {
                self.obtain(&listing, shard)?;
            }
        }
        for absent in &selection.absent {
            self.cache.note_missing(commit, absent);
        }
        self.cache.write_reference(self.asked.revision, commit)?;
        Ok(listing.commit)
    }

    fn list(&self) -> Result<Listing> {
        let repo = self.repo(self.asked.revision.as_str());
        let request = self.api.repo(repo).info_request().query("blobs", "true");
        let url = request.request_url().context("the Hub's URL is malformed")?;
        let answer = self.transport.document(url.as_url()).map_err(|failure| self.asked.explain(failure))?;
        Ok(Listing::parse(&answer).map_err(|fault| self.asked.explain(Failure::senseless(fault)))?)
    }

    /// The repository at a revision for hf-hub, which would escape no more than the slash.
    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.asked.model_id.to_string(), RepoType::Model, names::escaped(revision))
    }

    /// The path of `file` in the snapshot, where it is whole when this returns.
    fn obtain(&self, listing: &Listing, file: &RepoPath) -> Result<PathBuf> {
        let asked = Asked { file: Some(file.as_str()), ..self.asked };
        let commit = &listing.commit;
        let stated = listing.statement(file).ok_or_else(|| {
            anyhow!("{} has no file {file} at revision {}, although its index names it", asked.model_id, asked.revision)
        })?;
        let url = Url::parse(&self.api.repo(self.repo(commit.as_str())).url(&file.escaped()))
            .with_context(|| format!("the URL of {file} is malformed"))?;
        let (blob, size) = self.identify(stated, &url).map_err(|failure| asked.explain(failure))?;

        let pointer = file.below(&self.cache.snapshot(commit));
        if self.is_sound(&pointer, &blob, size)? {
            return Ok(pointer);
        }
        let _lock = self.cache.lock(&blob, file, self.progress)?;
        let whole = self.cache.blob(&blob);
        if !self.is_sound(&whole, &blob, size)? {
            self.cache.make_room(&blob)?;
            let staged = self.cache.staged(&blob);
            let download = Download {
                transport: self.transport,
                url: &url,
                file,
                blob: &blob,
                size,
                staged: &staged,
                progress: self.progress,
            };
            download.run().map_err(|aborted| self.explain(&asked, aborted))?;
            self.cache.publish(&blob)?;
        }
        self.cache.link(commit, file, &blob)?;
        Ok(pointer)
    }

    /// The name and the size of the content behind `url`: from the listing, else (a mirror may list names
    /// alone) from the file's own headers.
    fn identify(&self, stated: &FileStatement, url: &Url) -> Result<(BlobId, Option<u64>), Failure> {
        if let Some(blob) = &stated.blob {
            return Ok((blob.clone(), stated.size));
        }
        let headers = self.transport.stated(url)?;
        let etag = headers.etag.ok_or_else(|| Failure::senseless("the server states no etag"))?;
        let blob = BlobId::from_etag(&etag).ok_or_else(|| {
            Failure::senseless(format!("the server states the etag “{}”, which names no blob", names::printable(&etag)))
        })?;
        Ok((blob, headers.size.or(stated.size)))
    }

    /// Whether the file at `path` can stay. One that cannot is deleted.
    fn is_sound(&self, path: &Path, blob: &BlobId, size: Option<u64>) -> Result<bool> {
        let Ok(metadata) = path.metadata() else { return Ok(false) };
        let sound = metadata.is_file()
            && size.is_none_or(|size| size == metadata.len())
            && (self.trust == Trust::Cache
                || blob.matches(path).with_context(|| format!("cannot verify {}", path.display()))?);
        if !sound {
            self.progress.message(&format!("{} is damaged: fetching it anew", path.display()));
            self.cache.discard(path)?;
        }
        Ok(sound)
    }

    fn explain(&self, asked: &Asked<'_>, aborted: Aborted) -> anyhow::Error {
        match aborted {
            Aborted::Failure(failure) => asked.explain(failure).into(),
            Aborted::Disk(error) => error,
            Aborted::Wrong { tries } => anyhow!(
                "{} of {} arrived {tries} times with another content than the Hub's hash says: a proxy or mirror \
                 between here and {} may change it; try again later or over another network; {}",
                asked.file.map(names::printable).unwrap_or_default(),
                asked.model_id,
                asked.endpoint,
                other_ways()
            ),
        }
    }
}

/// The checked id, and the revisions to try in turn.
fn parse(model_id: &str, revision: Option<&str>) -> Result<(ModelId, Vec<Revision>)> {
    let model_id = ModelId::parse(model_id)?;
    let revisions = match revision {
        Some(revision) => vec![revision],
        None if model_id.as_str() == DEFAULT_MODEL_ID => DEFAULT_MODEL_REVISIONS.to_vec(),
        None => vec!["main"],
    };
    Ok((model_id, revisions.into_iter().map(Revision::parse).collect::<Result<_>>()?))
}

/// hf-hub's client, asked for URLs only: it gets no token.
fn hub_api(options: &HubOptions) -> Result<Api> {
    ApiBuilder::from_cache(Cache::new(options.cache_dir.clone()))
        .with_endpoint(options.endpoint.clone())
        .with_token(None)
        .with_progress(false)
        .build()
        .context("cannot set up the Hub's client")
}

/// The endpoint without the credentials that its URL may carry.
fn shown(endpoint: &Url) -> String {
    let mut shown = endpoint.clone();
    let _ = shown.set_username("").and_then(|()| shown.set_password(None));
    shown.as_str().trim_end_matches('/').to_string()
}

/// Whether a cached file's content has the hash that the blob behind its link is named by. Only the first link
/// counts: Python may have made the blob itself a link, into a store whose names are hashes of another kind.
fn is_as_named(path: &Path) -> std::io::Result<bool> {
    let target = std::fs::read_link(path).ok();
    let name = target.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()).and_then(BlobId::from_etag);
    name.map_or(Ok(true), |blob| blob.matches(path))
}

fn kind(error: &anyhow::Error) -> Option<HubErrorKind> {
    error.downcast_ref::<HubError>().map(|error| error.kind)
}

fn is_unreachable(error: &anyhow::Error) -> bool {
    matches!(kind(error), Some(HubErrorKind::Unreachable | HubErrorKind::Offline))
}
