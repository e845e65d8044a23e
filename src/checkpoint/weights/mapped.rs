//! The bytes of one weights file: embedded in the binary, or mapped from disk. The only place outside the kernels with
//! `unsafe` code.

use crate::checkpoint::files::CheckpointFile;
use anyhow::{ensure, Context, Result};
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;

/// The content of a file, never read as a whole: a tensor's pages are loaded when it is converted.
pub(super) struct FileBytes {
    /// For messages.
    pub(super) name: String,
    content: Content,
}

enum Content {
    Embedded(&'static [u8]),
    Mapped(Mmap),
}

impl FileBytes {
    /// Maps `file`, or takes its bytes from the binary.
    ///
    /// # Errors
    /// If the file cannot be opened or mapped, is empty, or is a Git LFS pointer; the message names it.
    pub(super) fn open(file: &CheckpointFile) -> Result<FileBytes> {
        let name = file.to_string();
        let content = match file {
            CheckpointFile::Embedded(_, bytes) => Content::Embedded(bytes),
            CheckpointFile::Path(path) => Content::Mapped(map(path).with_context(|| format!("cannot read {name}"))?),
        };
        let bytes = FileBytes { name, content };
        file.refuse_lfs_pointer(&bytes)?;
        Ok(bytes)
    }

    /// Releases the whole pages of `bytes`; a later read loads them from the file again.
    pub(super) fn release(&self, bytes: Range<usize>) {
        #[cfg(unix)]
        if let Content::Mapped(map) = &self.content {
            let start = bytes.start.next_multiple_of(LARGEST_PAGE);
            let end = bytes.end / LARGEST_PAGE * LARGEST_PAGE;
            if start < end {
                // SAFETY: the pages belong to a file and were never written to, so loading them again gives the same
                // content. A failure does no harm: the pages then stay in memory.
                let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
            }
        }
        #[cfg(not(unix))]
        let _ = bytes;
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.content {
            Content::Embedded(bytes) => bytes,
            Content::Mapped(map) => map,
        }
    }
}

/// A multiple of every page size in use, so a tensor's neighbours lose nothing.
#[cfg(unix)]
const LARGEST_PAGE: usize = 64 * 1024;

fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    ensure!(metadata.is_file(), "it is not a regular file");
    ensure!(metadata.len() > 0, "it is empty (0 bytes); download it again");
    // SAFETY: the map is only read, and lives as long as every slice of it. Nobody may write to the file meanwhile,
    // which cannot be enforced portably; Hugging Face's cache complies, as it replaces published files instead of
    // writing into them, and a replaced file stays intact under the map. If somebody does write into the file: every
    // offset and length was checked once against the length of this map and is kept outside it, and every bit pattern
    // is a valid number, so changed bytes mean other weights, not an access out of bounds. If the file is truncated,
    // the process dies with SIGBUS when it touches a page that is gone; that is the price of not reading hundreds of
    // megabytes up front.
    Ok(unsafe { Mmap::map(&file)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(content: &[u8]) -> Result<FileBytes> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, content).unwrap();
        FileBytes::open(&CheckpointFile::Path(path))
    }

    #[test]
    fn maps_what_the_file_holds() {
        assert_eq!(&open(b"abc").unwrap()[..], b"abc");
    }

    #[test]
    fn what_was_released_comes_back() {
        let content: Vec<u8> = (0..500_000u32).map(|i| (i / 7) as u8).collect();
        let bytes = open(&content).unwrap();
        for range in [0..content.len(), 10..20, 70_000..200_001, 5..5] {
            bytes.release(range);
            assert!(bytes[..] == content[..]);
        }
    }

    #[test]
    fn refuses_an_empty_file_and_a_pointer() {
        let message = format!("{:#}", open(b"").err().unwrap());
        assert!(message.contains("model.safetensors: it is empty"), "{message}");
        let message =
            format!("{:#}", open(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n").err().unwrap());
        assert!(message.contains("git lfs pull"), "{message}");
    }
}
