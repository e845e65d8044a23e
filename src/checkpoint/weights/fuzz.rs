//! Mutated files for every reader of tensors. A reader may refuse a file or return tensors, which are then all
//! converted.

use super::pickle::Pickle;
use super::state_dict::{self, StorageId};
use super::stored::Placed;
use super::{index, read, zip_directory, Format};
use crate::fuzzing::fuzz;
use anyhow::ensure;
use candle_core::{DType, Device};

macro_rules! fixtures {
    ($($name:literal),+ $(,)?) => {
        [$(include_bytes!(concat!("../../../tests/fixtures/weights/", $name)).as_slice()),+]
    };
}

const SAFETENSORS: [&[u8]; 2] = fixtures!["mixed.safetensors", "model-00002-of-00002.safetensors"];

const ZIPS: [&[u8]; 7] = fixtures![
    "zip-protocol2.bin",
    "zip-protocol4.bin",
    "zip-parameters.bin",
    "zip-attributes.bin",
    "zip-wrapped.bin",
    "zip-other-folder.bin",
    "refused-compressed.bin",
];

const LEGACY: [&[u8]; 6] = fixtures![
    "legacy-protocol2.bin",
    "legacy-protocol4.bin",
    "legacy-python2.bin",
    "legacy-parameters.bin",
    "legacy-wrapped.bin",
    "legacy-storage-views.bin",
];

const INDEXES: [&[u8]; 2] = [
    br#"{"metadata":{"total_size":8},"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}}"#,
    br#"{"weight_map":{"bert.pooler.dense.bias":"pytorch_model-00001-of-00002.bin"}}"#,
];

/// Opens `file` and converts all of its tensors; returns whether it could be read.
fn exercise(file: &[u8], format: Format) -> bool {
    let tensors = read(file, format);
    tensors.as_deref().into_iter().flatten().for_each(|(_, placed)| convert(placed, file));
    tensors.is_ok()
}

/// Converts a tensor of `file`, which may fail, for example for integers.
fn convert(placed: &Placed, file: &[u8]) {
    let view = placed.view(file);
    assert!(view.c_order().len() <= file.len(), "a tensor larger than its file: {placed:?}");
    if let Ok(tensor) = view.to_tensor(DType::F32, &Device::Cpu) {
        assert_eq!(tensor.dims(), view.shape);
    }
}

/// Reads `pickle` as the state dict of an archive in which every storage exists, up to the length of [`STORAGES`].
fn exercise_pickle(pickle: &[u8]) -> bool {
    let Ok(pickle) = Pickle::read(pickle) else { return false };
    let locate = |id: &StorageId| {
        ensure!(id.size <= STORAGES.len(), "not in the archive");
        Ok(0..id.size)
    };
    let tensors = state_dict::tensors(&pickle, STORAGES.len(), locate);
    tensors.as_deref().into_iter().flatten().for_each(|(_, placed)| convert(placed, &STORAGES));
    tensors.is_ok()
}

/// Replaces the storages of a pickle without its archive.
static STORAGES: [u8; 4096] = [1; 4096];

/// The pickles of the archives.
fn pickles() -> Vec<&'static [u8]> {
    let pickle = |zip: &&'static [u8]| {
        let directory = zip_directory::read(zip).unwrap();
        let (_, place) = directory.iter().find(|(name, _)| name.ends_with("data.pkl")).unwrap();
        &zip[place.clone()]
    };
    ZIPS[..6].iter().map(pickle).collect()
}

#[test]
fn mutated_safetensors() {
    fuzz(&SAFETENSORS, |file| exercise(file, Format::Safetensors));
}

#[test]
fn mutated_zip_archives() {
    fuzz(&ZIPS, |file| exercise(file, Format::Torch));
}

#[test]
fn mutated_pickles() {
    fuzz(&pickles(), exercise_pickle);
}

#[test]
fn mutated_files_of_the_old_format() {
    fuzz(&LEGACY, |file| exercise(file, Format::Torch));
}

#[test]
fn mutated_indexes() {
    fuzz(&INDEXES, |json| index::read(json).is_ok());
}

#[test]
fn the_seeds_themselves_are_read() {
    for file in SAFETENSORS {
        assert!(read(file, Format::Safetensors).is_ok());
    }
    for file in ZIPS.iter().take(6).chain(&LEGACY) {
        assert!(read(file, Format::Torch).is_ok());
    }
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    for (file, format) in [
        (SAFETENSORS[0], Format::Safetensors),
        (ZIPS[0], Format::Torch),
        (ZIPS[5], Format::Torch),
        (LEGACY[0], Format::Torch),
    ] {
        for length in 0..file.len() {
            assert!(read(&file[..length], format).is_err(), "{format:?}, {length} of {} bytes", file.len());
        }
    }
}
