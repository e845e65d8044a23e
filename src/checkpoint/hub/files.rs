//! Which files of a repository make up a checkpoint, and whether a folder in the cache holds them all.

use super::cache::RepoCache;
use super::names::{printable, Commit, RepoPath};
use crate::checkpoint::files::TOKENIZER_FILES;
use std::collections::BTreeSet;
use std::path::Path;

const CONFIG: &str = "config.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// What the tokenizer reads beside, where it is there.
const TOKENIZER_EXTRAS: [&str; 3] = [TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json"];
/// The layouts of the weights, the preferred first: a file, or an index that names the files.
const WEIGHTS: [(&str, bool); 4] = [
    ("model.safetensors", false),
    ("model.safetensors.index.json", true),
    ("pytorch_model.bin", false),
    ("pytorch_model.bin.index.json", true),
];
/// The endings of weights in formats that are not read.
const FOREIGN_WEIGHTS: [&str; 12] = [
    ".msgpack",
    ".h5",
    ".onnx",
    ".ot",
    ".ckpt",
    ".pt",
    ".pth",
    ".bin",
    ".safetensors",
    ".gguf",
    ".tflite",
    ".index.json",
];

/// The files to fetch, in the order in which to fetch them: the small ones first, so that a folder that has
/// weights has all the rest.
#[derive(Debug, PartialEq)]
pub(super) struct Selection {
    pub(super) descriptions: Vec<RepoPath>,
    pub(super) weights: RepoPath,
    /// `weights` is an index; its shards are to be fetched, too.
    pub(super) sharded: bool,
    /// Optional files that the repository has not.
    pub(super) absent: Vec<RepoPath>,
}

/// How much of a checkpoint a folder in the cache holds.
#[derive(Debug, PartialEq)]
pub(super) enum Completeness {
    /// All of it.
    Whole,
    /// All that is indispensable; whether the repository has a tokenizer_config.json is not known.
    Unsure,
    /// What is missing, in words.
    Lacks(Vec<String>),
}

/// Chooses among `listed`, all files of a repository.
///
/// # Errors
/// A sentence's end (`has …`) that says what the repository lacks and what it has instead.
pub(super) fn select(listed: &BTreeSet<RepoPath>) -> Result<Selection, String> {
    let has = |name: &str| RepoPath::parse(name).filter(|path| listed.contains(path));
    let config = has(CONFIG).ok_or_else(|| {
        format!("has no config.json, so it is no checkpoint of transformers; it has {}", enumerate(listed.iter()))
    })?;
    if !TOKENIZER_FILES.iter().any(|names| names.iter().all(|name| has(name).is_some())) {
        return Err(format!("has neither tokenizer.json nor a vocabulary; it has {}", enumerate(listed.iter())));
    }
    let (weights, sharded) = WEIGHTS
        .iter()
        .find_map(|(name, sharded)| Some((has(name)?, *sharded)))
        .ok_or_else(|| missing_weights(listed))?;
    Ok(Selection {
        descriptions: std::iter::once(config).chain(tokenizer_files().filter_map(has)).collect(),
        weights,
        sharded,
        absent: RepoPath::parse(TOKENIZER_CONFIG).filter(|path| !listed.contains(path)).into_iter().collect(),
    })
}

/// All files that a tokenizer may be made of.
fn tokenizer_files() -> impl Iterator<Item = &'static str> {
    TOKENIZER_EXTRAS.into_iter().chain(TOKENIZER_FILES.iter().copied().flatten().copied())
}

fn missing_weights(listed: &BTreeSet<RepoPath>) -> String {
    let mut foreign =
        listed.iter().filter(|path| FOREIGN_WEIGHTS.iter().any(|ending| path.as_str().ends_with(ending))).peekable();
    let found = match foreign.peek() {
        Some(_) => format!("it has {}", enumerate(foreign)),
        None => "it has no weights at all".to_string(),
    };
    format!(
        "has no weights that can be read (model.safetensors or pytorch_model.bin); {found}: choose another \
         revision, or convert it with transformers' save_pretrained and give the folder"
    )
}

/// The names of the shards that an index (`model.safetensors.index.json` and its kind) lists.
///
/// # Errors
/// In words, where the index is none or a name in it would leave the checkpoint's folder.
pub(super) fn shards(index: &[u8]) -> Result<BTreeSet<RepoPath>, String> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(index).map_err(|error| format!("is no index of weights ({error})"))?;
    let shards: BTreeSet<RepoPath> = index
        .weight_map
        .values()
        .map(|name| {
            RepoPath::parse(name).ok_or_else(|| {
                format!("names the file “{}”, which is not inside the checkpoint's folder", printable(name))
            })
        })
        .collect::<Result<_, String>>()?;
    match shards.is_empty() {
        true => Err("names no file in its weight_map".to_string()),
        false => Ok(shards),
    }
}

/// Looks at the snapshot of `commit` in the cache. Nothing is opened but an index of weights and Python's listing.
pub(super) fn completeness(cache: &RepoCache, commit: &Commit) -> Completeness {
    let folder = cache.snapshot(commit);
    let has = |name: &str| folder.join(name).is_file();
    let mut lacks = Vec::new();
    if !has(CONFIG) {
        lacks.push(CONFIG.to_string());
    }
    if !TOKENIZER_FILES.iter().any(|names| names.iter().all(|name| has(name))) {
        lacks.push("tokenizer.json or a vocabulary".to_string());
    }
    lacks.extend(lacking_weights(&folder));
    let tree = cache.tree(commit);
    if let Some(tree) = &tree {
        let wanted = |path: &RepoPath| tokenizer_files().any(|name| name == path.as_str());
        lacks.extend(
            tree.iter()
                .filter(|(path, size)| differs(&folder, path, *size, wanted(path)))
                .map(|(path, _)| path.to_string()),
        );
    }
    if !lacks.is_empty() {
        return Completeness::Lacks(lacks);
    }
    let known = |path: RepoPath| tree.is_some() || cache.is_known_missing(commit, &path);
    match has(TOKENIZER_CONFIG) || RepoPath::parse(TOKENIZER_CONFIG).is_some_and(known) {
        true => Completeness::Whole,
        false => Completeness::Unsure,
    }
}

/// Whether a file that a listing tells of has another size in `folder`, or is not there although it is `wanted`.
fn differs(folder: &Path, path: &RepoPath, size: u64, wanted: bool) -> bool {
    match path.below(folder).metadata() {
        Ok(metadata) => metadata.len() != size,
        Err(_) => wanted,
    }
}

fn lacking_weights(folder: &Path) -> Vec<String> {
    let Some((name, sharded)) = WEIGHTS.iter().find(|(name, _)| folder.join(name).is_file()) else {
        return vec!["the weights (model.safetensors or pytorch_model.bin)".to_string()];
    };
    if !sharded {
        return Vec::new();
    }
    let index = std::fs::read(folder.join(name)).map_err(|error| format!("cannot be read ({error})"));
    match index.and_then(|index| shards(&index)) {
        Ok(shards) => shards.iter().filter(|shard| !shard.below(folder).is_file()).map(RepoPath::to_string).collect(),
        Err(fault) => vec![format!("a sound {name} (it {fault})")],
    }
}

/// The checkpoint's files that lie in `folder`, sorted.
pub(super) fn present(folder: &Path) -> Vec<RepoPath> {
    let single = std::iter::once(CONFIG)
        .chain(tokenizer_files())
        .chain(WEIGHTS.iter().map(|(name, _)| *name).find(|name| folder.join(name).is_file()))
        .filter_map(RepoPath::parse);
    let weights = WEIGHTS.iter().find(|(name, _)| folder.join(name).is_file());
    let shards = weights
        .filter(|(_, sharded)| *sharded)
        .and_then(|(name, _)| shards(&std::fs::read(folder.join(name)).ok()?).ok())
        .unwrap_or_default();
    let mut present: Vec<RepoPath> = single.chain(shards).filter(|path| path.below(folder).is_file()).collect();
    present.sort();
    present
}

/// The first few names, and how many more there are.
fn enumerate<'a>(paths: impl Iterator<Item = &'a RepoPath>) -> String {
    let names: Vec<String> = paths.map(RepoPath::to_string).collect();
    match names.len() {
        0 => "no files".to_string(),
        1..=8 => names.join(", "),
        more => format!("{} and {} more", names[..8].join(", "), more - 8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(names: &[&str]) -> BTreeSet<RepoPath> {
        names.iter().map(|name| RepoPath::parse(name).unwrap()).collect()
    }

    #[test]
    fn safetensors_come_before_pickles_and_files_before_indexes() {
        let mut names = vec!["config.json", "vocab.txt"];
        for (name, sharded) in WEIGHTS.iter().rev() {
            names.push(name);
            let selection = select(&listing(&names)).unwrap();
            assert_eq!((selection.weights.as_str(), selection.sharded), (*name, *sharded));
        }
    }

    #[test]
    fn the_files_of_every_tokenizer_are_fetched() {
        for names in TOKENIZER_FILES {
            let selection = select(&listing(&[names, &["config.json", "model.safetensors"]].concat())).unwrap();
            let fetched: Vec<&str> = selection.descriptions.iter().map(RepoPath::as_str).collect();
            assert!(names.iter().all(|name| fetched.contains(name)), "{fetched:?}");
        }
    }

    #[test]
    fn an_unreadable_repository_says_what_it_has() {
        let fault = select(&listing(&["config.json", "vocab.txt", "flax_model.msgpack", "tf_model.h5", "README.md"]));
        let fault = fault.unwrap_err();
        assert!(fault.contains("it has flax_model.msgpack, tf_model.h5:"), "{fault}");
        let fault = select(&listing(&["vocab.txt", "model.safetensors"])).unwrap_err();
        assert!(fault.contains("has no config.json"), "{fault}");
        let fault = select(&listing(&["config.json", "model.safetensors", "vocab.json"])).unwrap_err();
        assert!(fault.contains("has neither tokenizer.json nor a vocabulary; it has config.json"), "{fault}");
        let fault = select(&listing(&["config.json", "vocab.txt"])).unwrap_err();
        assert!(fault.contains("it has no weights at all"), "{fault}");
    }

    #[test]
    fn an_index_cannot_name_files_elsewhere() {
        let shard = |name: &str| shards(format!("{{\"weight_map\": {{\"a\": {name:?}}}}}").as_bytes());
        assert_eq!(shard("model-1.safetensors").unwrap(), listing(&["model-1.safetensors"]));
        for name in ["../../x", "/etc/passwd", "a\\b", "C:x", ""] {
            assert!(shard(name).unwrap_err().contains("not inside"), "{name}");
        }
        assert!(shards(b"{}").is_err());
        assert!(shards(b"{\"weight_map\": {}}").is_err());
        assert!(shards(b"").is_err());
    }
}
