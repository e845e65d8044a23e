//! Which files of a repository make up a checkpoint, and whether a cached snapshot has them all.

use super::cache::RepoCache;
use super::listing::Listing;
use super::names::Commit;
use super::SnapshotFile;
use crate::checkpoint::files::{KnownFile, RepoPath, Role, ADAPTER_CONFIG, IS_ADAPTER, TOKENIZER_CONFIG};
use crate::checkpoint::weights::index;

/// What a cached snapshot has of a checkpoint.
#[derive(Debug)]
pub(super) struct Holding {
    /// The checkpoint's files that exist, including the shards of its weights, sorted by name.
    pub(super) files: Vec<SnapshotFile>,
    /// Descriptions of what is missing.
    pub(super) lacks: Vec<String>,
    /// Whether the repository is known to have no further file that would be read. Only tokenizer_config.json can be in
    /// doubt.
    pub(super) is_certain: bool,
}

/// Selects the files to fetch from those of a repository, in order.
///
/// # Errors
/// The end of a sentence (`has …`) that says what the repository lacks and what it has instead.
pub(super) fn select(listing: &Listing) -> Result<Vec<&'static KnownFile>, String> {
    let files = KnownFile::of(|name| listing.has(name));
    let lacking = KnownFile::lacking(&files);
    if lacking.is_empty() {
        return Ok(files);
    }
    if listing.has(ADAPTER_CONFIG) {
        return Err(IS_ADAPTER.to_string());
    }
    let listed: Vec<String> = listing.paths().map(RepoPath::to_string).collect();
    let found = match listed.len() {
        0 => "no files".to_string(),
        1..=8 => listed.join(", "),
        more => format!("{} and {} more", listed[..8].join(", "), more - 8),
    };
    Err(format!(
        "has no {}; it has {found}: choose another revision, or convert it with transformers' save_pretrained and use \
         that folder",
        lacking.join(" and no ")
    ))
}

/// Examines the cached snapshot of `commit`. Opens only an index of weights and the listing that Python may have
/// stored, which names all files of the repository, downloaded or not.
pub(super) fn look(cache: &RepoCache, commit: &Commit) -> Holding {
    let folder = cache.snapshot(commit);
    let known = KnownFile::of(|name| folder.join(name).is_file());
    let mut lacks = KnownFile::lacking(&known);
    let mut paths: Vec<RepoPath> = known.iter().map(|file| file.path()).collect();
    if let Some(index) = known.iter().find(|file| file.is_index()) {
        match index.read(&folder).and_then(|json| index::read(&json)) {
            Ok(shards) => paths.extend(shards.into_keys()),
            Err(error) => lacks.push(format!("a valid {} ({error:#})", index.name)),
        }
    }
    let listing = cache.tree(commit);
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let listed = listing.as_ref().and_then(|listing| listing.get(&path));
        match path.below(&folder).metadata() {
            Ok(found) if found.is_file() && listed.is_none_or(|size| *size == found.len()) => {
                files.push(SnapshotFile { name: path.to_string(), size: found.len() });
            }
            _ => lacks.push(path.to_string()),
        }
    }
    let is_there = |name: &str| known.iter().any(|file| file.name == name);
    if let Some(listing) = &listing {
        let settings = KnownFile::names(|role| role == Role::TokenizerExtra);
        let listed = |name: &&str| listing.keys().any(|path| path.as_str() == *name);
        lacks.extend(settings.into_iter().filter(|name| !is_there(name)).filter(listed).map(str::to_string));
    }
    let is_certain =
        listing.is_some() || is_there(TOKENIZER_CONFIG) || cache.is_known_missing(commit, TOKENIZER_CONFIG);
    Holding { files, lacks, is_certain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_repository_says_what_it_has() {
        let fault = |names: &[&str]| {
            let siblings: Vec<_> = names.iter().map(|name| serde_json::json!({ "rfilename": name })).collect();
            let listing = serde_json::json!({ "sha": "0".repeat(40), "siblings": siblings });
            select(&Listing::parse(listing.to_string().as_bytes()).unwrap()).unwrap_err()
        };
        let flax = fault(&["config.json", "vocab.txt", "flax_model.msgpack"]);
        let expected = "has no weights that can be read: model.safetensors or pytorch_model.bin; \
                        it has config.json, flax_model.msgpack, vocab.txt: choose";
        assert!(flax.starts_with(expected), "{flax}");
        let nothing = fault(&[]);
        assert!(
            nothing.starts_with("has no config.json and no tokenizer: tokenizer.json or vocab.txt or"),
            "{nothing}"
        );
        let many: Vec<String> = (0..12).map(|i| format!("{i:02}.onnx")).collect();
        let many = fault(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(many.contains("it has 00.onnx, ") && many.contains("07.onnx and 4 more:"), "{many}");
    }
}
