//! From a pickle written by `torch.save` to the tensors of its state dict.

use super::pickle::{Global, Pickle, Value};
use super::quoted;
use super::stored::Placed;
use anyhow::{bail, ensure, Context, Result};
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::ops::Range;

/// Keys under which training scripts save the state dict together with other things.
const WRAPPERS: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// Maximum total size of all tensors, in multiples of the file's size. Names that share a storage, such as tied
/// weights, make it larger than the file, and each may be copied in memory; a file in which thousands share one is
/// malicious.
const MAX_SHARING: usize = 8;

/// Maximum number of wrappers around a tensor, such as a parameter or a class with attributes.
const MAX_WRAPPINGS: usize = 4;

/// A storage, the memory behind tensors, as a pickle refers to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct StorageId<'a> {
    /// The storage's name in its file.
    pub(super) key: &'a str,
    pub(super) dtype: Dtype,
    /// Bytes of the whole storage.
    pub(super) size: usize,
    /// The bytes referred to: all, except for a view of a storage, which only the old format has.
    view: (usize, usize),
}

impl<'a> StorageId<'a> {
    /// Reads a persistent id: `('storage', class, key, location, elements)`, in the old format followed by `None` or
    /// the view's `(key, offset, elements)`.
    ///
    /// # Errors
    /// If it is something else, or its size is negative or exceeds the address space.
    pub(super) fn read(pickle: &Pickle<'a>, id: Value<'a>) -> Result<StorageId<'a>> {
        let (class, key, elements, view) = match pickle.items(id) {
            Some(&[Value::Text("storage"), class, key, _, elements]) => (class, key, elements, Value::None),
            Some(&[Value::Text("storage"), class, key, _, elements, view]) => (class, key, elements, view),
            Some([Value::Text("module"), ..]) => {
                bail!("it holds a whole model as a Python object: save only the model's state_dict()")
            }
            _ => bail!("it refers to an object outside its pickle that is not a storage"),
        };
        let (Value::Global(Global::Storage(dtype)), Value::Text(key)) = (class, key) else {
            bail!("the reference to a storage has no class or no key");
        };
        let element_size = dtype.bitsize() / 8;
        let bytes = |elements: Value| {
            let elements = elements.int().and_then(|elements| usize::try_from(elements).ok());
            elements.and_then(|elements| elements.checked_mul(element_size))
        };
        let size = bytes(elements).with_context(|| format!("storage {} has no valid size", quoted(key)))?;
        let view = match (view, pickle.items(view)) {
            (Value::None, _) => Some((0, size)),
            (_, Some(&[_, offset, elements])) => bytes(offset).zip(bytes(elements)),
            _ => None,
        };
        let view = view.filter(|(offset, length)| offset.checked_add(*length).is_some_and(|end| end <= size));
        let view = view.with_context(|| format!("a view exceeds its storage {}", quoted(key)))?;
        Ok(StorageId { key, dtype, size, view })
    }

    /// The part of the file referred to, if the whole storage is at `storage`.
    fn place(&self, storage: Range<usize>) -> Range<usize> {
        let (offset, length) = self.view;
        storage.start + offset..storage.start + offset + length
    }
}

/// The tensors of the state dict that `pickle` holds, itself or under one of [`WRAPPERS`]. `locate` returns where a
/// whole storage of [`StorageId::size`] bytes is in the file, which has `file_size` bytes.
///
/// # Errors
/// If there is no state dict, a tensor is not as PyTorch writes it (the message names the tensor), or all tensors
/// together are more than [`MAX_SHARING`] times as large as the file.
pub(super) fn tensors<'a>(
    pickle: &Pickle<'a>,
    file_size: usize,
    mut locate: impl FnMut(&StorageId<'a>) -> Result<Range<usize>>,
) -> Result<Vec<(String, Placed)>> {
    let mut by_name: BTreeMap<&str, Value> = BTreeMap::new();
    for (key, value) in state_dict(pickle)? {
        // Anything that is not a tensor is irrelevant here: a step count, a version.
        if let (Value::Text(name), Value::Call(_)) = (key, value) {
            by_name.insert(name, value);
        }
    }
    let mut left = file_size.saturating_mul(MAX_SHARING);
    let place = |(name, value): (&str, Value<'a>)| {
        let placed = tensor(pickle, value, &mut locate).with_context(|| format!("tensor {}", quoted(name)))?;
        left = left.checked_sub(placed.size()).with_context(|| {
            format!("its tensors share storages and are more than {MAX_SHARING} times as large as the file")
        })?;
        Ok((name.to_owned(), placed))
    };
    by_name.into_iter().map(place).collect()
}

fn state_dict<'a>(pickle: &Pickle<'a>) -> Result<Vec<(Value<'a>, Value<'a>)>> {
    let root = pickle.root();
    let wrapped = WRAPPERS.iter().filter_map(|key| pickle.entry(root, key));
    let mut dicts = std::iter::once(root).chain(wrapped).filter_map(|value| pickle.entries(value));
    dicts
        .find(|entries| entries.iter().any(|(_, value)| matches!(value, Value::Call(_))))
        .with_context(|| format!("it has no named tensors, neither at the top nor under {}", WRAPPERS.join(", ")))
}

fn tensor<'a>(
    pickle: &Pickle<'a>,
    value: Value<'a>,
    locate: &mut impl FnMut(&StorageId<'a>) -> Result<Range<usize>>,
) -> Result<Placed> {
    let arguments = rebuild_arguments(pickle, value)?;
    let &[storage, offset, shape, strides, ..] = arguments else {
        bail!("it has {} arguments, too few to rebuild a tensor", arguments.len());
    };
    let id = pickle.persistent_id(storage).context("it has no storage")?;
    let id = StorageId::read(pickle, id)?;
    let shape = integers(pickle, shape).context("its shape is not a tuple of integers")?;
    let strides = integers(pickle, strides).context("its strides are not a tuple of integers")?;
    let offset = offset.int().context("its storage offset is not an integer")?;
    let storage = locate(&id)?;
    let (found, key) = (storage.len(), quoted(id.key));
    ensure!(found == id.size, "storage {key} has {found} bytes in the file, but {} in the state dict", id.size);
    Placed::strided(id.dtype, &shape, &strides, offset, id.place(storage))
}

/// The arguments of `_rebuild_tensor`, without any wrappers.
fn rebuild_arguments<'p, 'a>(pickle: &'p Pickle<'a>, value: Value<'a>) -> Result<&'p [Value<'a>]> {
    let mut call = pickle.call(value);
    for _ in 0..MAX_WRAPPINGS {
        call = match call {
            Some((Global::RebuildTensor, arguments)) => return Ok(arguments),
            Some((Global::RebuildParameter, &[tensor, ..])) => pickle.call(tensor),
            Some((Global::RebuildFromType, &[Value::Global(function), _, arguments, ..])) => {
                pickle.items(arguments).map(|arguments| (function, arguments))
            }
            _ => None,
        };
    }
    bail!("it is not a tensor as PyTorch saves one")
}

fn integers(pickle: &Pickle, value: Value) -> Option<Vec<i64>> {
    pickle.items(value)?.iter().map(|item| item.int()).collect()
}
