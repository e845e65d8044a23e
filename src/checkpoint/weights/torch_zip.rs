//! The format that `torch.save` writes since PyTorch 1.6: an uncompressed zip archive with a single folder that holds
//! the pickled object in `data.pkl` and the elements of each storage in `data/KEY`. `_save` in PyTorch's
//! `torch/serialization.py`.
//!
//! candle's `PthTensors` (0.11.1) is not used: it refuses strided views, copies instead of mapping, and on a hostile
//! file allocates whatever length is claimed, copies shared values without limit, or panics.

use super::pickle::Pickle;
use super::quoted;
use super::state_dict::{self, StorageId};
use super::stored::Placed;
use super::zip_directory::{self, Directory};
use anyhow::{ensure, Context, Result};
use std::ops::Range;

/// The pickled object's name in the archive's folder.
const OBJECT: &str = "data.pkl";

/// Where each tensor of the file is.
///
/// # Errors
/// If the archive is damaged, was not written by `torch.save`, or refers to anything that a state dict does not need.
pub(super) fn read(file: &[u8]) -> Result<Vec<(String, Placed)>> {
    let directory = zip_directory::read(file)?;
    let folder = folder(&directory)?;
    check_byte_order(file, &directory, folder)?;
    let object = directory.get(&format!("{folder}{OBJECT}")).expect("the folder is the one with this entry");
    let object = Pickle::read(&file[object.clone()]).with_context(|| format!("{folder}{OBJECT}"))?;
    state_dict::tensors(&object, file.len(), |id| storage(&directory, folder, id))
}

/// The folder's name with a trailing slash. PyTorch derives it from the file's name; readers must accept any.
fn folder(directory: &Directory) -> Result<&str> {
    let is_folder = |folder: &&str| folder.is_empty() || folder.ends_with('/');
    let mut folders = directory.keys().filter_map(|name| name.strip_suffix(OBJECT)).filter(is_folder);
    let folder = folders
        .next()
        .with_context(|| format!("it is a zip archive without {OBJECT}, so torch.save did not write it"))?;
    ensure!(folders.next().is_none(), "it is a zip archive with more than one {OBJECT}");
    Ok(folder)
}

/// PyTorch 2.1 and later state the byte order; for older files little-endian is assumed.
fn check_byte_order(file: &[u8], directory: &Directory, folder: &str) -> Result<()> {
    let Some(place) = directory.get(&format!("{folder}byteorder")) else { return Ok(()) };
    ensure!(
        &file[place.clone()] == b"little",
        "byteorder is not `little`: files from big-endian machines cannot be read, convert it to safetensors"
    );
    Ok(())
}

fn storage(directory: &Directory, folder: &str, id: &StorageId) -> Result<Range<usize>> {
    let name = format!("{folder}data/{}", id.key);
    let place = directory.get(&name).with_context(|| format!("the zip archive has no entry {}", quoted(&name)))?;
    Ok(place.clone())
}
