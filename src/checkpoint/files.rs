//! A checkpoint's files, wherever they lie: in a folder on disk or inside the binary.

use anyhow::{Context, Result};
use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

/// The files of the embedded model, as `-m builtin` loads them.
static BUILTIN: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("builtin/config.json")),
    ("tokenizer.json", include_bytes!("builtin/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("builtin/tokenizer_config.json")),
    ("model.safetensors", include_bytes!("builtin/model.safetensors")),
];

/// Where a checkpoint's files are read from. Both kinds go through the same loading code.
#[derive(Debug, Clone)]
pub enum CheckpointFiles {
    /// The model embedded in the binary.
    Builtin,
    /// A folder in the usual Hugging Face layout: a local one, or a snapshot in the Hub's cache.
    Folder(PathBuf),
}

/// One file of a checkpoint, found but not yet read.
#[derive(Debug, Clone)]
pub enum CheckpointFile {
    /// Bytes inside the binary, with the name that they have in the model's folder.
    Embedded(&'static str, &'static [u8]),
    /// A file on disk.
    Path(PathBuf),
}

impl CheckpointFiles {
    /// The file called `name`, or `None` where the checkpoint has none of that name.
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

    /// The names of all files there, sorted: for messages that say what a checkpoint has.
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
    /// The whole content.
    ///
    /// # Errors
    /// Where the file cannot be read; the message names it.
    pub fn read(&self) -> Result<Cow<'static, [u8]>> {
        match self {
            CheckpointFile::Embedded(_, bytes) => Ok(Cow::Borrowed(bytes)),
            CheckpointFile::Path(path) => {
                std::fs::read(path).map(Cow::Owned).with_context(|| format!("cannot read {}", path.display()))
            }
        }
    }

    /// The path on disk, or `None` for an embedded file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            CheckpointFile::Embedded(..) => None,
            CheckpointFile::Path(path) => Some(path),
        }
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
