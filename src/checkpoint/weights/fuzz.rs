//! Damaged and hostile files for every reader: valid files, mutated at random from a seed, and files made by hand.
//!
//! A reader may refuse a file or give tensors, all of which are then converted; it must not panic, overflow the
//! stack, or ask for more memory than there is. `AGNEWS_FUZZ_CASES` sets the number of mutated files of each format
//! (default 20,000), `AGNEWS_FUZZ_SEED` the first seed; a failure names the seed of its case.

use super::pickle::Pickle;
use super::state_dict::{self, StorageId};
use super::stored::Placed;
use super::{index, read, zip_directory, Format};
use anyhow::ensure;
use candle_core::{DType, Device};
use std::panic::{catch_unwind, AssertUnwindSafe};

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

/// Opens `file` and converts all of its tensors; whether it was read.
fn exercise(file: &[u8], format: Format) -> bool {
    let tensors = read(file, format);
    tensors.as_deref().into_iter().flatten().for_each(|(_, placed)| convert(placed, file));
    tensors.is_ok()
}

/// Converts a tensor of `file`, which may fail, as for integers.
fn convert(placed: &Placed, file: &[u8]) {
    let view = placed.view(file);
    assert!(view.c_order().len() <= file.len(), "a tensor larger than its file: {placed:?}");
    if let Ok(tensor) = view.to_tensor(DType::F32, &Device::Cpu) {
        assert_eq!(tensor.dims(), view.shape);
    }
}

/// Reads `pickle` as the state dict of an archive in which every storage is there, up to the length of [`STORAGES`].
fn exercise_pickle(pickle: &[u8]) -> bool {
    let Ok(pickle) = Pickle::read(pickle) else { return false };
    let locate = |id: &StorageId| {
        ensure!(id.size <= STORAGES.len(), "not in the archive");
        Ok(0..id.size)
    };
    let tensors = state_dict::tensors(&pickle, locate);
    tensors.as_deref().into_iter().flatten().for_each(|(_, placed)| convert(placed, &STORAGES));
    tensors.is_ok()
}

/// Stands for the storages of a pickle without its archive.
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

/// xorshift64*: <https://doi.org/10.1145/2845077>.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        // Neighbouring seeds must not give neighbouring numbers.
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit.max(1)
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

/// Numbers at the edges of what a field of a file may be.
const EDGES: [u64; 20] = [
    0,
    1,
    2,
    7,
    8,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    1 << 40,
    1 << 61,
    1 << 62,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Bytes that mean something in a pickle, a zip directory or JSON.
const MEANINGFUL: &[u8] =
    b"\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x8d\x93\x94\x95.()[]{}tlaeduscbQRqrhjJKMNGXUT0123456789-\",:PK\n";

/// A mutated copy of one of `seeds`: half of the time one change, else up to eight, each of a random kind.
fn mutate(seeds: &[&[u8]], random: &mut Random) -> Vec<u8> {
    let mut file = random.pick(seeds).to_vec();
    let changes = random.pick(&[1, 8]);
    for _ in 0..1 + random.below(changes) {
        // Most fields are near one of the ends: headers in front, directories behind.
        let at = match random.below(3) {
            0 => random.below(file.len().min(200)),
            1 => file.len().saturating_sub(1 + random.below(1200)),
            _ => random.below(file.len()),
        };
        change(&mut file, at, seeds, random);
        if file.is_empty() {
            break;
        }
    }
    file
}

fn change(file: &mut Vec<u8>, at: usize, seeds: &[&[u8]], random: &mut Random) {
    let rest = file.len() - at;
    match random.below(10) {
        0 => file[at] ^= 1 << random.below(8),
        1 => file[at] = random.next() as u8,
        2 => file[at] = random.pick(MEANINGFUL),
        3 => file.truncate(at),
        // A length, a count or an offset of 1, 2, 4 or 8 bytes, little-endian: an edge or near the file's own length.
        4 | 5 => {
            let near = (file.len() as u64).wrapping_add_signed(random.below(17) as i64 - 8);
            let number = if random.below(4) == 0 { near } else { random.pick(&EDGES) };
            let width = random.pick(&[1, 2, 4, 8]).min(rest);
            file[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
        }
        // A run of digits, as JSON has numbers.
        6 => {
            let Some(start) = file[at..].iter().position(u8::is_ascii_digit).map(|start| at + start) else { return };
            let length = file[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            let number = random.pick(&EDGES).to_string();
            file.splice(start..start + length, number.bytes());
        }
        // A piece of this or another file in place of, or between, what is there.
        7 => {
            let source = random.pick(seeds);
            let start = random.below(source.len());
            let length = random.below((source.len() - start).min(64)) + 1;
            let replaced = random.below(rest.min(64));
            file.splice(at..at + replaced, source[start..(start + length).min(source.len())].iter().copied());
        }
        8 => {
            let end = at + random.below(rest.min(16));
            file.drain(at..end);
        }
        // An instruction or a record many times over.
        _ => {
            let piece = file[at..at + random.below(rest.min(8))].to_vec();
            let copies = piece.repeat(1 + random.below(64));
            file.splice(at..at, copies);
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Mutates `seeds` and gives each result to `exercise`, which must take some of them: were all refused at the door,
/// nothing behind it would be tested.
fn fuzz(seeds: &[&[u8]], exercise: impl Fn(&[u8]) -> bool) {
    let first_seed = setting("AGNEWS_FUZZ_SEED", 0);
    let cases = setting("AGNEWS_FUZZ_CASES", 20_000);
    let mut accepted = 0;
    for seed in (0..cases).map(|case| first_seed.wrapping_add(case)) {
        let file = mutate(seeds, &mut Random::new(seed));
        match catch_unwind(AssertUnwindSafe(|| exercise(&file))) {
            Ok(was_read) => accepted += u64::from(was_read),
            Err(_) => panic!("the file of AGNEWS_FUZZ_SEED={seed} made the reader panic"),
        }
    }
    assert!(accepted >= cases / 50, "only {accepted} of {cases} files were read");
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
