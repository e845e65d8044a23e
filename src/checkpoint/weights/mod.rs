//! The tensors of a checkpoint: found by name in one file or in shards, mapped, and converted on demand.
//!
//! Files are untrusted: they may be cut off, damaged or malicious. Every reader checks each number from the file before
//! using it, allocates no more than the file's size justifies, and names the file and the field in its errors.

mod float32s;
#[cfg(test)]
mod fuzz;
pub(crate) mod index;
mod mapped;
mod names;
mod pickle;
mod safetensors;
mod state_dict;
mod stored;
mod torch_legacy;
mod torch_zip;
mod zip_directory;

pub use float32s::Float32s;
pub use stored::StoredTensor;

use crate::checkpoint::files::{CheckpointFile, CheckpointFiles, Format, KnownFile, Parts, Role};
use anyhow::{bail, ensure, Context, Result};
use candle_core::{DType, Device, Tensor};
use mapped::FileBytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use stored::Placed;

/// All tensors of a checkpoint by their canonical names (those of BERT in transformers). Cheap to clone.
#[derive(Clone)]
pub struct Weights {
    shared: Arc<Shared>,
}

struct Shared {
    /// The chosen file, for messages: the index if there are shards.
    origin: String,
    files: Vec<FileBytes>,
    tensors: BTreeMap<String, Located>,
}

/// A tensor and its file.
struct Located {
    /// Index into `files`.
    file: usize,
    /// Its name in the file.
    stored_name: String,
    placed: Placed,
}

impl Weights {
    /// Opens the first that exists of `model.safetensors`, `model.safetensors.index.json` with its shards,
    /// `pytorch_model.bin` in either of PyTorch's formats, and `pytorch_model.bin.index.json` with its shards. The
    /// files are mapped, not read.
    ///
    /// # Errors
    /// If the checkpoint has none of these (the message lists what it has), or a file cannot be read or is damaged; the
    /// message names the file and the fault.
    pub fn open(files: &CheckpointFiles) -> Result<Weights> {
        let (file, format, parts) = choose(files)?;
        let mut shared = Shared { origin: file.to_string(), files: Vec::new(), tensors: BTreeMap::new() };
        match parts {
            Parts::One => shared.add(&file, format, None)?,
            Parts::Shards => {
                let shards = index::read(&file.content()?).with_context(|| format!("cannot read {file}"))?;
                for (shard, names) in shards {
                    let part = files.find(shard.as_str());
                    let part = part.with_context(|| format!("{file} names the shard {shard}, which does not exist"))?;
                    shared.add(&part, format, Some(names))?;
                }
            }
        }
        Ok(Weights { shared: Arc::new(shared) })
    }

    /// The bytes of each file, in the order of opening.
    pub fn files(&self) -> impl Iterator<Item = &[u8]> {
        self.shared.files.iter().map(|file| &**file)
    }

    /// The canonical names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shared.tensors.keys().map(String::as_str)
    }

    /// Whether a tensor with that canonical name exists.
    pub fn contains(&self, name: &str) -> bool {
        self.shared.tensors.contains_key(name)
    }

    /// The dimensions of a tensor, or `None` if there is no such tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shared.tensors.get(name).map(|located| located.placed.shape())
    }

    /// A tensor as its file stores it, or `None` if there is no such tensor.
    pub fn stored(&self, name: &str) -> Option<StoredTensor<'_>> {
        self.shared.tensors.get(name).map(|located| self.shared.view(located))
    }

    /// A tensor, converted to `dtype` on `device`.
    ///
    /// # Errors
    /// As for [`Weights::float32s`], or if the device fails.
    pub fn tensor(&self, shape: &[usize], name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let located = self.located(shape, name)?;
        let tensor = self.shared.view(located).to_tensor(dtype, device);
        tensor.with_context(|| format!("cannot use {}", self.shared.describe(located)))
    }

    /// The elements of a tensor as float32; in its file if it stores them so.
    ///
    /// # Errors
    /// If there is no such tensor, its shape is not `shape`, or it cannot be converted; the message names file and
    /// tensor.
    pub fn float32s(&self, shape: &[usize], name: &str) -> Result<Float32s> {
        let located = self.located(shape, name)?;
        Float32s::of(&self.shared, name).with_context(|| format!("cannot use {}", self.shared.describe(located)))
    }

    /// Checks that a tensor with that canonical name and shape exists.
    ///
    /// # Errors
    /// If there is none, or it has another shape; the message names the file, the tensor and both shapes.
    pub fn check_shape(&self, shape: &[usize], name: &str) -> Result<()> {
        self.located(shape, name).map(|_| ())
    }

    fn located(&self, shape: &[usize], name: &str) -> Result<&Located> {
        let located = self.shared.tensors.get(name);
        let located = located.with_context(|| format!("{} has no tensor {}", self.shared.origin, quoted(name)))?;
        let found = located.placed.shape();
        ensure!(
            found == shape,
            "{} has the shape {found:?}, but config.json asks for {shape:?}: the files do not belong together",
            self.shared.describe(located),
        );
        Ok(located)
    }
}

/// The best weights file that exists.
fn choose(files: &CheckpointFiles) -> Result<(CheckpointFile, Format, Parts)> {
    let names = files.names();
    // Decided by name alone: if it is not a file, falling back to the next one could load other weights.
    for known in KnownFile::of(|name| names.iter().any(|present| present == name)) {
        let Role::Weights(format, parts) = known.role else { continue };
        let file = files.find(known.name).with_context(|| {
            format!("{files} has a {} that is not a file but a folder or a broken link", known.name)
        })?;
        return Ok((file, format, parts));
    }
    let wanted = KnownFile::names(|role| matches!(role, Role::Weights(..))).join(", ");
    let present = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    bail!("{files} has no weights that agnews can read ({wanted}); it has {present}")
}

/// Where each tensor of a file is.
fn read(bytes: &[u8], format: Format) -> Result<Vec<(String, Placed)>> {
    match format {
        Format::Safetensors => safetensors::read(bytes),
        Format::Torch if bytes.starts_with(zip_directory::FIRST_BYTES) => torch_zip::read(bytes),
        Format::Torch if bytes.first() == Some(&torch_legacy::FIRST_BYTE) => torch_legacy::read(bytes),
        Format::Torch => {
            bail!("it was not written by torch.save: it starts neither like a zip archive nor like a pickle")
        }
    }
}

impl Shared {
    /// Adds the tensors of `file` under their canonical names: all of them, or those that the index assigns to it.
    fn add(&mut self, file: &CheckpointFile, format: Format, assigned: Option<Vec<String>>) -> Result<()> {
        let bytes = FileBytes::open(file)?;
        let mut tensors = read(&bytes, format).with_context(|| format!("cannot read {file}"))?;
        if let Some(names) = assigned {
            let mut found: HashMap<String, Placed> = tensors.into_iter().collect();
            let take = |name: String| {
                let placed = found.remove(&name).with_context(|| {
                    format!("{file} lacks tensor {}, which {} says is in it", quoted(&name), self.origin)
                })?;
                Ok((name, placed))
            };
            tensors = names.into_iter().map(take).collect::<Result<_>>()?;
        }
        for (stored_name, placed) in tensors {
            let Some(name) = names::canonical(&stored_name) else { continue };
            if let Some(first) = self.tensors.get(&name) {
                let (first, second) = (quoted(&first.stored_name), quoted(&stored_name));
                bail!("{} has both {first} and {second}, two names of one tensor", self.origin);
            }
            self.tensors.insert(name, Located { file: self.files.len(), stored_name, placed });
        }
        self.files.push(bytes);
        Ok(())
    }

    fn view<'a>(&'a self, located: &'a Located) -> StoredTensor<'a> {
        located.placed.view(&self.files[located.file])
    }

    fn describe(&self, located: &Located) -> String {
        format!("tensor {} of {}", quoted(&located.stored_name), self.files[located.file].name)
    }
}

/// A name from a file, for a message: with control characters escaped, and cut to one line.
fn quoted(name: &str) -> String {
    const LONGEST: usize = 100;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}… ({} bytes)", &name[..end], name.len()),
        None => format!("{name:?}"),
    }
}
