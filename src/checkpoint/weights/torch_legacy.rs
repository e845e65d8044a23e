//! The format that `torch.save` wrote before PyTorch 1.6, and writes on request
//! (`_use_new_zipfile_serialization=False`): PyTorch's `torch/serialization.py`, `_legacy_save`.
//!
//! Five pickles one after the other: a magic number, the protocol's version, the system that wrote the file, the
//! object, and the list of the storages' keys. Then in the order of that list each storage: the number of its elements
//! in eight bytes, and the elements.

use super::pickle::{Pickle, Value};
use super::quoted;
use super::state_dict::{self, StorageId};
use super::stored::Placed;
use anyhow::{bail, ensure, Context, Result};
use std::collections::hash_map::Entry;
use std::collections::HashMap;
use std::ops::Range;

/// 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC_NUMBER: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

const PROTOCOL_VERSION: i64 = 1001;

/// The first opcode of every pickle of protocol 2 or later.
pub(super) const FIRST_BYTE: u8 = 0x80;

/// Where each tensor of the file lies.
///
/// # Errors
/// Where the file is of another format, cut off, or refers to what a state dict does not need.
pub(super) fn read(file: &[u8]) -> Result<Vec<(String, Placed)>> {
    let mut position = 0;
    check_header(file, &mut position)?;
    let object = next_pickle(file, &mut position).context("its state dict")?;
    let keys = next_pickle(file, &mut position).context("its list of storages")?;
    let storages = locate_storages(file, position, &object, &keys)?;
    state_dict::tensors(&object, |id| {
        let place = storages.get(id.key).with_context(|| format!("storage {} is not in the file", quoted(id.key)))?;
        Ok(place.clone())
    })
}

fn next_pickle<'a>(file: &'a [u8], position: &mut usize) -> Result<Pickle<'a>> {
    let pickle = Pickle::read(&file[*position..])?;
    *position += pickle.length();
    Ok(pickle)
}

fn check_header(file: &[u8], position: &mut usize) -> Result<()> {
    let magic_number = next_pickle(file, position).context("its magic number")?;
    ensure!(
        magic_number.root() == Value::Long(&MAGIC_NUMBER),
        "it is a pickle, but none that torch.save wrote: it lacks the magic number"
    );
    let version = next_pickle(file, position).context("its protocol version")?.root();
    ensure!(version == Value::Int(PROTOCOL_VERSION), "its protocol version is not {PROTOCOL_VERSION} but {version:?}");
    let system = next_pickle(file, position).context("its system information")?;
    ensure!(
        system.entry(system.root(), "little_endian") == Some(Value::Bool(true)),
        "little_endian is not true in its system information: \
         files from big-endian machines cannot be read, convert it to safetensors"
    );
    Ok(())
}

/// Where each storage lies, by key: `position` is the file's first byte after `keys`.
fn locate_storages<'a>(
    file: &[u8],
    mut position: usize,
    object: &Pickle<'a>,
    keys: &Pickle<'a>,
) -> Result<HashMap<&'a str, Range<usize>>> {
    let expected = expected_storages(object)?;
    let mut storages = HashMap::new();
    for key in keys.items(keys.root()).context("its list of storages is no list")? {
        let Value::Text(key) = *key else { bail!("a key in its list of storages is no text") };
        let id = expected.get(key).with_context(|| {
            format!("it lists storage {}, of which its state dict does not tell the type", quoted(key))
        })?;
        let place = storage(file, position, id).with_context(|| format!("storage {}", quoted(key)))?;
        position = place.end;
        ensure!(storages.insert(key, place).is_none(), "it lists storage {} twice", quoted(key));
    }
    Ok(storages)
}

/// What the object says of each storage that it refers to, be it for the state dict or for something beside it.
fn expected_storages<'a>(object: &Pickle<'a>) -> Result<HashMap<&'a str, StorageId<'a>>> {
    let mut expected = HashMap::new();
    for &id in object.persistent_ids() {
        let id = StorageId::read(object, id)?;
        match expected.entry(id.key) {
            Entry::Vacant(place) => drop(place.insert(id)),
            Entry::Occupied(first) => {
                let first = first.get();
                ensure!(
                    (first.dtype, first.size) == (id.dtype, id.size),
                    "it gives storage {} as {} of {} bytes and as {} of {} bytes",
                    quoted(id.key),
                    first.dtype,
                    first.size,
                    id.dtype,
                    id.size
                );
            }
        }
    }
    Ok(expected)
}

/// The bytes of the storage whose number of elements is at `position`.
fn storage(file: &[u8], position: usize, id: &StorageId) -> Result<Range<usize>> {
    let rest = &file[position..];
    let (elements, data) = rest.split_first_chunk::<8>().context("the file is cut off before it; download it again")?;
    let elements = u64::from_le_bytes(*elements);
    let expected = id.size / (id.dtype.bitsize() / 8);
    ensure!(
        usize::try_from(elements) == Ok(expected),
        "it has {elements} elements, but the state dict says {expected}"
    );
    ensure!(
        id.size <= data.len(),
        "it takes {} bytes, but the file has {} more: it is cut off; download it again",
        id.size,
        data.len()
    );
    let start = position + 8;
    Ok(start..start + id.size)
}
