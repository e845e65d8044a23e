//! The tensors of a checkpoint: found by name in one file or in shards, mapped, and converted when they are asked for.
//!
//! A file is untrusted: it may be cut off, damaged or made to harm. Every reader checks each number that it takes from
//! the file before it is used, allocates no more than the file's own size justifies, and names file and field in
//! its errors.

mod mapped;
mod names;
mod safetensors;
mod stored;

pub use stored::StoredTensor;

use crate::checkpoint::files::{CheckpointFile, CheckpointFiles};
use anyhow::{anyhow, bail, ensure, Context, Result};
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use mapped::FileBytes;
use std::collections::btree_map::Entry;
use std::collections::BTreeMap;
use std::sync::Arc;
use stored::Placed;

/// The name of a file that holds all tensors in the safetensors format.
const SAFETENSORS: &str = "model.safetensors";

/// All tensors of a checkpoint by their canonical names (see [`names::canonical`]). Cheap to clone.
#[derive(Clone)]
pub struct Weights {
    shared: Arc<Shared>,
}

struct Shared {
    /// The file that was chosen, for messages: the index where there are shards.
    origin: String,
    files: Vec<FileBytes>,
    tensors: BTreeMap<String, Located>,
}

/// A tensor and the file that it is in.
struct Located {
    /// Index into `files`.
    file: usize,
    /// Its name there.
    stored_name: String,
    placed: Placed,
}

impl Weights {
    /// Opens `model.safetensors`.
    ///
    /// # Errors
    /// Where the checkpoint has none of these (the message lists what it has), or a file cannot be read.
    pub fn open(files: &CheckpointFiles) -> Result<Weights> {
        match files.find(SAFETENSORS) {
            Some(file) => Weights::from_file(&file),
            None => bail!("{files} has no {SAFETENSORS}; it has {}", files.names().join(", ")),
        }
    }

    fn from_file(file: &CheckpointFile) -> Result<Weights> {
        let bytes = FileBytes::open(file)?;
        let tensors = safetensors::read(&bytes).with_context(|| format!("cannot read {file}"))?;
        let mut shared = Shared { origin: file.to_string(), files: vec![bytes], tensors: BTreeMap::new() };
        for (name, placed) in tensors {
            shared.add(name, placed, 0)?;
        }
        Ok(Weights { shared: Arc::new(shared) })
    }

    /// The canonical names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shared.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of that canonical name.
    pub fn contains(&self, name: &str) -> bool {
        self.shared.tensors.contains_key(name)
    }

    /// The dimensions of a tensor, or `None` where there is none of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shared.tensors.get(name).map(|located| located.placed.shape())
    }

    /// A tensor as its file stores it, or `None` where there is none of that name.
    pub fn stored(&self, name: &str) -> Option<StoredTensor<'_>> {
        self.shared.tensors.get(name).map(|located| self.shared.view(located))
    }

    /// The tensors for candle's modules, converted to `dtype` on `device` when they are asked for. An error of its
    /// `get` names file and tensor and, where they differ, the shape asked for and the one found.
    pub fn var_builder(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), dtype, device.clone())
    }

    fn located(&self, name: &str) -> Result<&Located> {
        let shared = &self.shared;
        shared.tensors.get(name).ok_or_else(|| anyhow!("{} has no tensor {}", shared.origin, quoted(name)))
    }

    fn tensor(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let located = self.located(name)?;
        let tensor = self.shared.view(located).to_tensor(dtype, device);
        tensor.with_context(|| format!("cannot use {}", self.shared.describe(located)))
    }

    fn tensor_of_shape(&self, shape: &Shape, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let located = self.located(name)?;
        let found = located.placed.shape();
        ensure!(
            found == shape.dims(),
            "{} has the shape {found:?}, but config.json asks for {:?}: the files do not belong together",
            self.shared.describe(located),
            shape.dims()
        );
        self.tensor(name, dtype, device)
    }
}

impl Shared {
    /// Files the tensor `stored_name` of file `file` under its canonical name.
    fn add(&mut self, stored_name: String, placed: Placed, file: usize) -> Result<()> {
        let Some(name) = names::canonical(&stored_name) else { return Ok(()) };
        match self.tensors.entry(name) {
            Entry::Occupied(first) => bail!(
                "{} has both {} and {}, two names of one tensor",
                self.origin,
                quoted(&first.get().stored_name),
                quoted(&stored_name)
            ),
            Entry::Vacant(place) => place.insert(Located { file, stored_name, placed }),
        };
        Ok(())
    }

    fn view<'a>(&'a self, located: &'a Located) -> StoredTensor<'a> {
        located.placed.view(&self.files[located.file])
    }

    fn describe(&self, located: &Located) -> String {
        format!("tensor {} of {}", quoted(&located.stored_name), self.files[located.file].name())
    }
}

impl SimpleBackend for Weights {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor, candle_core::Error> {
        self.tensor_of_shape(&shape, name, dtype, device).map_err(into_candle)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor, candle_core::Error> {
        self.tensor(name, dtype, device).map_err(into_candle)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.contains(name)
    }
}

/// candle's trait takes its own error type; the whole chain of causes becomes its message.
fn into_candle(error: anyhow::Error) -> candle_core::Error {
    candle_core::Error::Msg(format!("{error:#}"))
}

/// A name from a file, for a message: control characters escaped, and not longer than a line.
fn quoted(name: &str) -> String {
    const LONGEST: usize = 100;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}… ({} bytes)", &name[..end], name.len()),
        None => format!("{name:?}"),
    }
}
