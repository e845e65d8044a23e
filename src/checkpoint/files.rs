//! A checkpoint's files, wherever they lie: in a folder on disk or inside the binary.

use anyhow::{ensure, Context, Result};
use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The files of the embedded model, as `-m builtin` loads them.
static BUILTIN: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("builtin/config.json")),
    ("tokenizer.json", include_bytes!("builtin/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("builtin/tokenizer_config.json")),
    ("model.safetensors", include_bytes!("builtin/model.safetensors")),
];

/// The files that a tokenizer is made of, the preferred first: one of these sets is enough.
pub const TOKENIZER_FILES: [&[&str]; 6] = [
    &["tokenizer.json"],
    &["vocab.txt"],
    &["vocab.json", "merges.txt"],
    &["sentencepiece.bpe.model"],
    &["spiece.model"],
    &["spm.model"],
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
    /// The file called `name`, or `None` if the checkpoint has none of that name.
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
    /// The whole content, for a file that is small by nature: a damaged or hostile one must not fill the memory.
    ///
    /// # Errors
    /// If the file cannot be read, is longer than `limit` bytes, or is a Git LFS pointer; the message names it.
    pub fn read(&self, limit: usize) -> Result<Cow<'static, [u8]>> {
        let path = match self {
            CheckpointFile::Embedded(_, bytes) => return Ok(Cow::Borrowed(bytes)),
            CheckpointFile::Path(path) => path,
        };
        let mut bytes = Vec::new();
        // One byte more than allowed tells that there is more, whatever the metadata say.
        let most = limit as u64 + 1;
        let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
        read.with_context(|| format!("cannot read {self}"))?;
        ensure!(bytes.len() <= limit, "{self} is longer than {} MB, too long for what it should be", limit >> 20);
        self.refuse_lfs_pointer(&bytes)?;
        Ok(Cow::Owned(bytes))
    }

    /// Refuses, if `content` is that of the file, the stand-in for a large file in a repository cloned without
    /// Git LFS.
    pub(super) fn refuse_lfs_pointer(&self, content: &[u8]) -> Result<()> {
        ensure!(
            !content.starts_with(b"version https://git-lfs.github.com/spec/"),
            "{self} is not the file itself but a Git LFS pointer to it: \
             run `git lfs pull` in its folder, or download the file again"
        );
        Ok(())
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
