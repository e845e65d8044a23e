//! A checkpoint's files: their names, their roles, and where they are, in a folder on disk or embedded in the binary.

use anyhow::{ensure, Context, Result};
use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The role of a file in a checkpoint, and whether it is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The configuration. Required.
    Config,
    /// Each file of this role is enough to tokenize; one is required.
    Tokenizer,
    /// Read in addition to the tokenizer if it exists.
    TokenizerExtra,
    /// Necessary if `vocab.json` is the only tokenizer.
    Merges,
    /// The tensors, or the index of their files. The first one in the table that exists is used.
    Weights(Format, Parts),
}

/// The format of a weights file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Safetensors,
    /// `torch.save`; the first bytes distinguish its two formats.
    Torch,
}

/// How many files hold the tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parts {
    One,
    /// Several, listed in an index.
    Shards,
}

/// What folders have that hold an adapter instead of a model.
pub(crate) const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The end of a sentence about such a folder.
pub(crate) const IS_ADAPTER: &str = "is a PEFT adapter (adapter_config.json), which does not work without its base \
                                     model: merge it into that model, save the result, and use that folder";

/// A name that a checkpoint's file can have.
#[derive(Debug)]
pub(crate) struct KnownFile {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
}

/// The tokenizer's settings. Optional, but the file must be known to be missing: without it a text may be tokenized
/// differently.
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// All files that agnews reads, in download order: the weights last, so a folder with weights has everything else.
static KNOWN: &[KnownFile] = &[
    KnownFile { name: "config.json", role: Role::Config },
    KnownFile { name: TOKENIZER_CONFIG, role: Role::TokenizerExtra },
    KnownFile { name: "special_tokens_map.json", role: Role::TokenizerExtra },
    KnownFile { name: "added_tokens.json", role: Role::TokenizerExtra },
    KnownFile { name: "merges.txt", role: Role::Merges },
    KnownFile { name: "tokenizer.json", role: Role::Tokenizer },
    KnownFile { name: "vocab.txt", role: Role::Tokenizer },
    KnownFile { name: "vocab.json", role: Role::Tokenizer },
    KnownFile { name: "sentencepiece.bpe.model", role: Role::Tokenizer },
    KnownFile { name: "spiece.model", role: Role::Tokenizer },
    KnownFile { name: "spm.model", role: Role::Tokenizer },
    KnownFile { name: "model.safetensors", role: Role::Weights(Format::Safetensors, Parts::One) },
    KnownFile { name: "model.safetensors.index.json", role: Role::Weights(Format::Safetensors, Parts::Shards) },
    KnownFile { name: "pytorch_model.bin", role: Role::Weights(Format::Torch, Parts::One) },
    KnownFile { name: "pytorch_model.bin.index.json", role: Role::Weights(Format::Torch, Parts::Shards) },
];

impl KnownFile {
    /// The files to read from a checkpoint with the files for which `has` is true: of the weights, only the best.
    pub(crate) fn of(has: impl Fn(&str) -> bool) -> Vec<&'static KnownFile> {
        let mut weights = false;
        let mut is_first =
            |file: &KnownFile| !matches!(file.role, Role::Weights(..)) || !std::mem::replace(&mut weights, true);
        KNOWN.iter().filter(|file| has(file.name) && is_first(file)).collect()
    }

    /// The names of all files with a matching role, best first.
    pub(crate) fn names(is_meant: impl Fn(Role) -> bool) -> Vec<&'static str> {
        KNOWN.iter().filter(|file| is_meant(file.role)).map(|file| file.name).collect()
    }

    /// Descriptions of what a checkpoint of `files` lacks.
    pub(crate) fn lacking(files: &[&KnownFile]) -> Vec<String> {
        let mut lacking = Vec::new();
        let has = |is_meant: fn(Role) -> bool| files.iter().any(|file| is_meant(file.role));
        if !has(|role| role == Role::Config) {
            lacking.push("config.json".to_string());
        }
        let tokenizers: Vec<&str> =
            files.iter().filter(|file| file.role == Role::Tokenizer).map(|file| file.name).collect();
        if tokenizers == ["vocab.json"] && !has(|role| role == Role::Merges) {
            lacking.push("merges.txt".to_string());
        }
        if tokenizers.is_empty() {
            lacking.push(format!("tokenizer: {}", KnownFile::names(|role| role == Role::Tokenizer).join(" or ")));
        }
        if !has(|role| matches!(role, Role::Weights(..))) {
            let names = KnownFile::names(|role| matches!(role, Role::Weights(_, Parts::One))).join(" or ");
            lacking.push(format!("weights that can be read: {names}"));
        }
        lacking
    }

    /// Maximum size in bytes: a longer file is not what its name says.
    pub(crate) fn max_size(&self) -> usize {
        match self.role {
            Role::Weights(_, Parts::One) => usize::MAX,
            // The vocabularies of the largest models, with 250,000 pieces and more, take 10 to 40 MB.
            Role::Tokenizer | Role::Merges => 128 << 20,
            // Enough for an index of a hundred thousand tensors, and for the names of tens of thousands of classes.
            _ => 16 << 20,
        }
    }

    /// The name as a path.
    pub(crate) fn path(&self) -> RepoPath {
        RepoPath(self.name.to_string())
    }

    /// Reads the whole file in `folder`.
    pub(crate) fn read(&self, folder: &Path) -> Result<Vec<u8>> {
        Ok(CheckpointFile::Path(folder.join(self.name)).read(self.max_size())?.into_owned())
    }

    /// Whether this is an index of weights.
    pub(crate) fn is_index(&self) -> bool {
        matches!(self.role, Role::Weights(_, Parts::Shards))
    }
}

/// For types that hold a text which has been checked: it can be read as it is.
macro_rules! checked_text {
    ($($Text:ident),+) => {$(
        impl $Text {
            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $Text {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}
pub(crate) use checked_text;

/// A file's path inside a repository or a checkpoint's folder, with `/` as separator.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RepoPath(String);

checked_text!(RepoPath);

impl RepoPath {
    /// `None` if joining `path` to a folder could lead outside that folder on any system.
    pub(crate) fn parse(path: &str) -> Option<RepoPath> {
        let part_is_sound = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= 255;
        let sound = path.len() <= 1024
            && !path.chars().any(|c| c.is_control() || c == '\\' || c == ':')
            && path.split('/').all(part_is_sound);
        sound.then(|| RepoPath(path.to_string()))
    }

    /// The path of this file below `folder`.
    pub(crate) fn below(&self, folder: &Path) -> PathBuf {
        self.0.split('/').fold(folder.to_path_buf(), |path, part| path.join(part))
    }
}

/// The files of the embedded model.
static BUILTIN: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("builtin/config.json")),
    ("tokenizer.json", include_bytes!("builtin/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("builtin/tokenizer_config.json")),
    ("model.safetensors", include_bytes!("builtin/model.safetensors")),
];

/// Where a checkpoint's files are read from. Both variants use the same loading code.
#[derive(Debug, Clone)]
pub enum CheckpointFiles {
    /// The model embedded in the binary.
    Builtin,
    /// A folder in the usual Hugging Face layout: a local folder, or a snapshot in the Hub's cache.
    Folder(PathBuf),
}

/// One file of a checkpoint, found but not yet read.
#[derive(Debug, Clone)]
pub enum CheckpointFile {
    /// Bytes inside the binary, and their file name.
    Embedded(&'static str, &'static [u8]),
    /// A file on disk.
    Path(PathBuf),
}

impl CheckpointFiles {
    /// The file called `name`, or `None` if the checkpoint has no such file.
    pub fn find(&self, name: &str) -> Option<CheckpointFile> {
        match self {
            CheckpointFiles::Builtin => {
                let (name, bytes) = BUILTIN.iter().find(|(embedded, _)| *embedded == name)?;
                Some(CheckpointFile::Embedded(name, bytes))
            }
            CheckpointFiles::Folder(folder) => {
                let path = folder.join(name);
                path.is_file().then_some(CheckpointFile::Path(path))
            }
        }
    }

    /// The names of all files, sorted, for messages that say what a checkpoint has.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = match self {
            CheckpointFiles::Builtin => BUILTIN.iter().map(|(name, _)| name.to_string()).collect(),
            CheckpointFiles::Folder(folder) => std::fs::read_dir(folder)
                .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
                .unwrap_or_default(),
        };
        names.sort();
        names
    }
}

impl fmt::Display for CheckpointFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointFiles::Builtin => f.write_str("the embedded model"),
            CheckpointFiles::Folder(folder) => write!(f, "{}", folder.display()),
        }
    }
}

impl CheckpointFile {
    /// The whole content of a small file, such as config.json.
    ///
    /// # Errors
    /// If the file cannot be read, is longer than a file of its name may be, or is a Git LFS pointer; the message names
    /// it.
    pub fn content(&self) -> Result<Cow<'static, [u8]>> {
        let path = match self {
            CheckpointFile::Embedded(name, _) => Path::new(name),
            CheckpointFile::Path(path) => path,
        };
        let known = KNOWN.iter().find(|known| path.ends_with(known.name));
        let known = known.with_context(|| format!("{self} is not a file that agnews reads"))?;
        self.read(known.max_size())
    }

    /// The whole content. The limit in bytes keeps a damaged or hostile file from filling the memory.
    fn read(&self, limit: usize) -> Result<Cow<'static, [u8]>> {
        let path = match self {
            CheckpointFile::Embedded(_, bytes) => return Ok(Cow::Borrowed(bytes)),
            CheckpointFile::Path(path) => path,
        };
        let mut bytes = Vec::new();
        // Reading one more byte than allowed detects longer files, whatever the metadata say.
        let most = (limit as u64).saturating_add(1);
        let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
        read.with_context(|| format!("cannot read {self}"))?;
        ensure!(bytes.len() <= limit, "{self} is longer than {} MB, too long for such a file", limit >> 20);
        self.refuse_lfs_pointer(&bytes)?;
        Ok(Cow::Owned(bytes))
    }

    /// Refuses a Git LFS pointer, which a repository cloned without Git LFS has instead of a large file.
    pub(super) fn refuse_lfs_pointer(&self, content: &[u8]) -> Result<()> {
        ensure!(
            !content.starts_with(b"version https://git-lfs.github.com/spec/"),
            "{self} is not the file itself but a Git LFS pointer to it: \
             run `git lfs pull` in its folder, or download the file again"
        );
        Ok(())
    }
}

impl fmt::Display for CheckpointFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointFile::Embedded(name, _) => write!(f, "the embedded {name}"),
            CheckpointFile::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8], limit: usize) -> Result<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, content).unwrap();
        Ok(CheckpointFile::Path(path).read(limit)?.into_owned())
    }

    #[test]
    fn the_best_weights_are_read_alone() {
        let weights = KnownFile::names(|role| matches!(role, Role::Weights(..)));
        for from in 0..weights.len() {
            let files = KnownFile::of(|name| weights[from..].contains(&name) || name == "vocab.txt");
            let names: Vec<_> = files.iter().map(|file| file.name).collect();
            assert_eq!(names, ["vocab.txt", weights[from]]);
            assert_eq!(KnownFile::lacking(&files), ["config.json"]);
        }
        let lacking = KnownFile::lacking(&KnownFile::of(|name| name == "config.json"));
        assert_eq!(
            lacking,
            ["tokenizer: tokenizer.json or vocab.txt or vocab.json or sentencepiece.bpe.model or spiece.model or spm.model", "weights that can be read: model.safetensors or pytorch_model.bin"]
        );
    }

    #[test]
    fn a_vocabulary_of_byte_pairs_needs_its_merges() {
        let lacking = |tokenizers: &[&str]| {
            let names = [tokenizers, &["config.json", "model.safetensors"]].concat();
            KnownFile::lacking(&KnownFile::of(|name| names.contains(&name)))
        };
        assert_eq!(lacking(&["vocab.json"]), ["merges.txt"]);
        assert!(lacking(&["vocab.json", "merges.txt"]).is_empty());
        assert!(lacking(&["vocab.json", "tokenizer.json"]).is_empty());
    }

    #[test]
    fn paths_of_files_stay_in_their_folder() {
        for path in ["config.json", "onnx/model.onnx", "model-00001-of-00002.safetensors", "..x", "a..b"] {
            assert!(RepoPath::parse(path).is_some(), "{path}");
        }
        for path in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a\\..\\b", "C:evil", "a\0b", ".", "a/.", "\n"] {
            assert!(RepoPath::parse(path).is_none(), "{path:?}");
        }
    }

    #[test]
    fn reads_up_to_the_limit() {
        assert_eq!(read(b"{}", 2).unwrap(), b"{}");
        let message = read(&[b' '; (1 << 20) + 1], 1 << 20).unwrap_err().to_string();
        assert!(message.contains("config.json is longer than 1 MB"), "{message}");
    }

    #[test]
    fn refuses_a_git_lfs_pointer() {
        let message =
            read(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", 1000).unwrap_err().to_string();
        assert!(message.contains("config.json") && message.contains("git lfs pull"), "{message}");
    }
}
