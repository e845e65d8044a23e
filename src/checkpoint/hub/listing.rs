//! The Hub's description of a repository at a revision: its commit, its files, their sizes and hashes.

use super::names::{printable, BlobId, Commit};
use crate::checkpoint::files::RepoPath;
use serde_json::Value;
use std::collections::BTreeMap;

/// The response to `GET /api/models/{id}/revision/{revision}?blobs=true`.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: Commit,
    files: BTreeMap<RepoPath, FileStatement>,
}

/// A file's entry in a listing.
#[derive(Debug, Clone, Default)]
pub(super) struct FileStatement {
    /// Size in bytes.
    pub(super) size: Option<u64>,
    pub(super) blob: Option<BlobId>,
}

impl Listing {
    /// Parses the JSON response. Skips files whose names could lead out of a folder: no file of a checkpoint has such a
    /// name.
    ///
    /// # Errors
    /// A message, if the response is not a listing.
    pub(super) fn parse(json: &[u8]) -> Result<Listing, String> {
        let answer: Value =
            serde_json::from_slice(json).map_err(|error| format!("its response is not a Hub listing ({error})"))?;
        let sha = answer["sha"].as_str().unwrap_or_default();
        let commit = Commit::parse(sha)
            .ok_or_else(|| format!("it reports the commit “{}”, which is not a commit hash", printable(sha)))?;
        let files = answer["siblings"].as_array().into_iter().flatten();
        let files = files.filter_map(|file| Some((RepoPath::parse(file["rfilename"].as_str()?)?, statement(file))));
        Ok(Listing { commit, files: files.collect() })
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &RepoPath> {
        self.files.keys()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.paths().any(|path| path.as_str() == name)
    }

    /// `None` if the repository has no such file.
    pub(super) fn statement(&self, path: &RepoPath) -> Option<&FileStatement> {
        self.files.get(path)
    }
}

/// The name of a file in large-file storage is its SHA-256; its `blobId` is the hash of a pointer to it.
fn statement(file: &Value) -> FileStatement {
    let lfs = &file["lfs"];
    let hash = if lfs.is_object() { &lfs["sha256"] } else { &file["blobId"] };
    FileStatement {
        size: lfs["size"].as_u64().or(file["size"].as_u64()),
        blob: hash.as_str().and_then(BlobId::from_etag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_and_sizes_come_with_the_names() {
        let (commit, sha256, git) = ("c".repeat(40), "5".repeat(64), "9".repeat(40));
        let json = format!(
            r#"{{"sha": "{commit}", "gated": false, "siblings": [
                {{"rfilename": "config.json", "size": 7, "blobId": "{git}"}},
                {{"rfilename": "model.safetensors", "size": 9, "blobId": "{git}",
                  "lfs": {{"sha256": "{sha256}", "size": 9, "pointerSize": 134}}}},
                {{"rfilename": "vocab.txt"}},
                {{"rfilename": "../../evil"}}]}}"#
        );
        let listing = Listing::parse(json.as_bytes()).unwrap();
        assert_eq!(listing.commit.as_str(), commit);
        assert_eq!(listing.paths().count(), 3);
        let statement = |name: &str| listing.statement(&RepoPath::parse(name).unwrap()).unwrap().clone();
        assert_eq!(statement("config.json").blob, Some(BlobId::Git(git)));
        assert_eq!(statement("model.safetensors").blob, Some(BlobId::Sha256(sha256)));
        assert_eq!(statement("model.safetensors").size, Some(9));
        assert!(statement("vocab.txt").blob.is_none());
    }

    #[test]
    fn a_portal_page_is_not_a_listing() {
        assert!(Listing::parse(b"<html>Please log in to the Wi-Fi</html>").is_err());
        assert!(Listing::parse(br#"{"sha": "../../x", "siblings": []}"#).is_err());
        assert!(Listing::parse(b"").is_err());
    }
}
