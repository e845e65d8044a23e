//! The format that `torch.save` wrote before PyTorch 1.6, and still writes on request
//! (`_use_new_zipfile_serialization=False`): `_legacy_save` in PyTorch's `torch/serialization.py`.
//!
//! Five pickles in sequence: a magic number, the protocol version, information about the system that wrote the file,
//! the object, and the list of the storages' keys. Each storage follows, in the order of that list: its number of
//! elements in eight bytes, and the elements.

use super::pickle::{Pickle, Value};
use super::quoted;
use super::state_dict::{self, StorageId};
use super::stored::Placed;
use anyhow::{bail, ensure, Context, Result};
use std::collections::HashMap;
use std::ops::Range;

/// 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC_NUMBER: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

const PROTOCOL_VERSION: i64 = 1001;

/// The first opcode of every pickle of protocol 2 or later.
pub(super) const FIRST_BYTE: u8 = 0x80;

/// Where each tensor of the file is.
///
/// # Errors
/// If the file has another format, is cut off, or refers to anything that a state dict does not need.
pub(super) fn read(file: &[u8]) -> Result<Vec<(String, Placed)>> {
    let mut position = 0;
    check_header(file, &mut position)?;
    let object = next_pickle(file, &mut position).context("its state dict")?;
    let keys = next_pickle(file, &mut position).context("its list of storages")?;
    let storages = locate_storages(file, position, &object, &keys)?;
    state_dict::tensors(&object, file.len(), |id| {
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
        "it is a pickle, but was not written by torch.save: it lacks the magic number"
    );
    let version = next_pickle(file, position).context("its protocol version")?.root();
    ensure!(version == Value::Int(PROTOCOL_VERSION), "its protocol version is {version:?}, not {PROTOCOL_VERSION}");
    let system = next_pickle(file, position).context("its system information")?;
    ensure!(
        system.entry(system.root(), "little_endian") == Some(Value::Bool(true)),
        "little_endian is not true in its system information: \
         files from big-endian machines cannot be read, convert it to safetensors"
    );
    Ok(())
}

/// Where each storage is, by key. The first byte after `keys` is at `position`.
fn locate_storages<'a>(
    file: &[u8],
    mut position: usize,
    object: &Pickle<'a>,
    keys: &Pickle<'a>,
) -> Result<HashMap<&'a str, Range<usize>>> {
    let expected = expected_storages(object)?;
    let mut storages = HashMap::new();
    for key in keys.items(keys.root()).context("its list of storages is not a list")? {
        let Value::Text(key) = *key else { bail!("a key in its list of storages is not a string") };
        let id = expected
            .get(key)
            .with_context(|| format!("it lists storage {}, whose type its state dict does not contain", quoted(key)))?;
        let place = storage(file, position, id).with_context(|| format!("storage {}", quoted(key)))?;
        position = place.end;
        ensure!(storages.insert(key, place).is_none(), "it lists storage {} twice", quoted(key));
    }
    Ok(storages)
}

/// What the object says about each storage that it refers to, inside the state dict or elsewhere.
fn expected_storages<'a>(object: &Pickle<'a>) -> Result<HashMap<&'a str, StorageId<'a>>> {
    let mut expected = HashMap::new();
    for &id in object.persistent_ids() {
        let id = StorageId::read(object, id)?;
        let first = *expected.entry(id.key).or_insert(id);
        ensure!(
            (first.dtype, first.size) == (id.dtype, id.size),
            "it describes storage {} both as {} of {} bytes and as {} of {} bytes",
            quoted(id.key),
            first.dtype,
            first.size,
            id.dtype,
            id.size
        );
    }
    Ok(expected)
}

/// The bytes of the storage whose number of elements is at `position`.
fn storage(file: &[u8], position: usize, id: &StorageId) -> Result<Range<usize>> {
    let rest = &file[position..];
    let (elements, data) = rest.split_first_chunk::<8>().context("the file ends before it; download it again")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of the old format, built without PyTorch so that each part can be wrong.
    struct LegacyFile {
        version: &'static [u8],
        system: &'static [u8],
        object: Vec<u8>,
        keys: Vec<u8>,
        data: Vec<u8>,
    }

    /// A state dict with the tensor `w`, as protocol 2 writes it. `storage` is the class name and the number of
    /// elements; offset, shape and strides follow. Numbers are already pickled.
    fn object(class: &str, elements: &[u8], offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
        let storage =
            [b"(X\x07\0\0\0storagectorch\n", class.as_bytes(), b"\nX\x01\0\0\0kX\x03\0\0\0cpu", elements, b"NtQ"]
                .concat();
        let tensor = [b"ctorch._utils\n_rebuild_tensor_v2\n(", &*storage, offset, shape, strides, b"\x89NtR"].concat();
        [b"\x80\x02}X\x01\0\0\0w", &*tensor, b"s."].concat()
    }

    fn file() -> LegacyFile {
        LegacyFile {
            version: b"\x80\x02M\xe9\x03.",
            system: b"\x80\x02}X\x0d\0\0\0little_endian\x88s.",
            object: object("FloatStorage", b"K\x04", b"K\0", b"K\x02K\x02\x86", b"K\x02K\x01\x86"),
            keys: b"\x80\x02]X\x01\0\0\0ka.".to_vec(),
            data: [&4u64.to_le_bytes()[..], &[7; 16]].concat(),
        }
    }

    impl LegacyFile {
        fn bytes(&self) -> Vec<u8> {
            let magic_number = [b"\x80\x02\x8a\x0a", &MAGIC_NUMBER[..], b"."].concat();
            [&*magic_number, self.version, self.system, &self.object, &self.keys, &self.data].concat()
        }
    }

    #[test]
    fn reads_a_tensor_in_place() {
        let file = file().bytes();
        let tensors = read(&file).unwrap();
        assert_eq!(tensors[0].0, "w");
        assert_eq!(tensors[0].1.shape(), [2, 2]);
        assert_eq!(tensors[0].1.view(&file).bytes, [7; 16]);
    }

    #[track_caller]
    fn refuses(file: LegacyFile, expected: &str) {
        let message = format!("{:#}", read(&file.bytes()).unwrap_err());
        assert!(message.contains(expected), "{message}\nlacks {expected}");
    }

    #[test]
    fn refuses_other_files() {
        let message = format!("{:#}", read(b"\x80\x02K\x01.").unwrap_err());
        assert!(message.contains("was not written by torch.save"), "{message}");
        refuses(LegacyFile { version: b"\x80\x02K\x02.", ..file() }, ", not 1001");
        let system = b"\x80\x02}X\x0d\0\0\0little_endian\x89s.";
        refuses(LegacyFile { system, ..file() }, "big-endian");
        refuses(LegacyFile { object: b"\x80\x02cos\nsystem\n.".to_vec(), ..file() }, "it refers to os.system");
        refuses(
            LegacyFile { object: b"\x80\x02}.".to_vec(), keys: b"].".to_vec(), ..file() },
            "it has no named tensors",
        );
        // A dictionary that contains itself under one of the wrapper names.
        let cyclic = b"}q\0X\x0a\0\0\0state_dicth\0s.".to_vec();
        refuses(LegacyFile { object: cyclic, keys: b"].".to_vec(), ..file() }, "it has no named tensors");
    }

    #[test]
    fn refuses_missing_storages() {
        let keys = |bytes: &[u8]| LegacyFile { keys: bytes.to_vec(), ..file() };
        refuses(keys(b"]."), "tensor \"w\": storage \"k\" is not in the file");
        refuses(keys(b"N."), "its list of storages is not a list");
        refuses(keys(b"]K\x01a."), "is not a string");
        refuses(keys(b"]X\x01\0\0\0ja."), "it lists storage \"j\", whose type");
        let twice = [file().data, file().data].concat();
        refuses(LegacyFile { data: twice, ..keys(b"](X\x01\0\0\0kX\x01\0\0\0ke.") }, "it lists storage \"k\" twice");
        refuses(LegacyFile { data: vec![1; 7], ..file() }, "storage \"k\": the file ends before it");
        let data = [&5u64.to_le_bytes()[..], &[7; 20]].concat();
        refuses(LegacyFile { data, ..file() }, "it has 5 elements, but the state dict says 4");
        let data = [&4u64.to_le_bytes()[..], &[7; 15]].concat();
        refuses(LegacyFile { data, ..file() }, "it takes 16 bytes, but the file has 15 more");
    }

    #[test]
    fn refuses_impossible_sizes() {
        let sized = |elements: &[u8]| {
            let object = object("FloatStorage", elements, b"K\0", b"K\x02\x85", b"K\x01\x85");
            LegacyFile { object, ..file() }
        };
        refuses(sized(b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"), "storage \"k\" has no valid size");
        refuses(sized(b"\x8a\x09\0\0\0\0\0\0\0\0\x01"), "storage \"k\" has no valid size");
        refuses(sized(b"J\xff\xff\xff\xff"), "storage \"k\" has no valid size");
        refuses(sized(b"N"), "storage \"k\" has no valid size");
        let huge = LegacyFile { data: (1u64 << 40).to_le_bytes().to_vec(), ..sized(b"\x8a\x06\0\0\0\0\0\x01") };
        refuses(huge, "it takes 4398046511104 bytes, but the file has 0 more");
        let view = |offset: &[u8], shape: &[u8], strides: &[u8]| LegacyFile {
            object: object("FloatStorage", b"K\x04", offset, shape, strides),
            ..file()
        };
        refuses(
            view(b"K\x01", b"K\x04\x85", b"K\x01\x85"),
            "tensor \"w\": its shape [4] with strides [1] from element 1",
        );
        refuses(view(b"K\0", b"K\x04\x85", b"J\xff\xff\xff\xff\x85"), "tensor \"w\": its strides [-1] are negative");
        refuses(view(b"K\0", b"K\x04", b"K\x01\x85"), "tensor \"w\": its shape is not a tuple of integers");
        refuses(view(b"N", b"K\x04\x85", b"K\x01\x85"), "tensor \"w\": its storage offset is not an integer");
    }

    #[test]
    fn refuses_tensors_that_share_a_storage_to_fill_the_memory() {
        // The same 64 KB under more and more names: each would need a copy, because the format aligns nothing.
        let with_names = |names: usize| {
            let one = object("FloatStorage", b"M\x00\x40", b"K\0", b"M\x00\x40\x85", b"K\x01\x85");
            // The part between the dictionary's opcode with the one-byte name `w` and the final `s.`.
            let tensor = &one[b"\x80\x02}X\x01\0\0\0w".len()..one.len() - 2];
            let entry = |name: usize| [&b"X\x04\0\0\0"[..], format!("{name:04}").as_bytes(), tensor, b"s"].concat();
            let entries: Vec<u8> = (0..names).flat_map(entry).collect();
            let object = [b"\x80\x02}", &*entries, b"."].concat();
            let data = [&0x4000u64.to_le_bytes()[..], &[7; 4 * 0x4000]].concat();
            LegacyFile { object, data, ..file() }
        };
        assert_eq!(read(&with_names(8).bytes()).unwrap().len(), 8);
        refuses(with_names(100), "more than 8 times as large as the file");
    }

    #[test]
    fn refuses_one_storage_of_two_types() {
        let float = object("FloatStorage", b"K\x04", b"K\0", b"K\x04\x85", b"K\x01\x85");
        let half = object("HalfStorage", b"K\x04", b"K\0", b"K\x04\x85", b"K\x01\x85");
        // Both dictionaries in one tuple.
        let object = [&float[..float.len() - 1], &half[2..half.len() - 1], b"\x86."].concat();
        refuses(
            LegacyFile { object, ..file() },
            "it describes storage \"k\" both as F32 of 16 bytes and as F16 of 8 bytes",
        );
    }
}
