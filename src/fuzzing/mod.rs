//! Damaged and hostile files for testing every reader: valid files, mutated at random from a seed.
//!
//! `AGNEWS_FUZZ_CASES` sets the number of mutated files per reader (default 20,000), `AGNEWS_FUZZ_SEED` the first seed;
//! a failure reports the seed of its case.

pub(crate) mod random;

use random::{cases, setting, Random};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Edge cases for numeric fields.
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

/// Bytes with a meaning in a pickle, a zip directory or JSON.
const MEANINGFUL: &[u8] =
    b"\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x8d\x93\x94\x95.()[]{}tlaeduscbQRqrhjJKMNGXUT0123456789-\",:PK\n";

/// Values of every JSON type.
const VALUES: [&str; 10] =
    ["null", "true", "-1", "0.5", "1e30", "18446744073709551616", "\"\"", "\"[UNK]\"", "[]", "{}"];

/// A mutated copy of one of `seeds`: half of the time one change, otherwise up to eight, each of a random kind.
fn mutate(seeds: &[&[u8]], random: &mut Random) -> Vec<u8> {
    let mut file = random.pick(seeds).to_vec();
    let changes = *random.pick(&[1, 8]);
    for _ in 0..1 + random.below(changes) {
        // Most fields are near one of the ends: headers at the start, directories at the end.
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
    match random.below(11) {
        0 => file[at] ^= 1 << random.below(8),
        1 => file[at] = random.next() as u8,
        2 => file[at] = *random.pick(MEANINGFUL),
        3 => file.truncate(at),
        // A length, a count or an offset of 1, 2, 4 or 8 bytes, little-endian: an edge case or close to the file's own
        // length.
        4 | 5 => {
            let near = (file.len() as u64).wrapping_add_signed(random.below(17) as i64 - 8);
            let number = if random.below(4) == 0 { near } else { *random.pick(&EDGES) };
            let width = *random.pick(&[1, 2, 4, 8]).min(&rest);
            file[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
        }
        // A run of digits, like a number in JSON.
        6 => {
            let Some(start) = file[at..].iter().position(u8::is_ascii_digit).map(|start| at + start) else { return };
            let length = file[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            let number = random.pick(&EDGES).to_string();
            file.splice(start..start + length, number.bytes());
        }
        // Replaces or inserts a piece of this or another file.
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
        // A JSON value, up to the end of its field.
        9 => {
            let Some(start) = file[at..].iter().position(|&byte| byte == b':').map(|colon| at + colon + 1) else {
                return;
            };
            let length = file[start..].iter().take_while(|byte| !b",]}\n".contains(byte)).count();
            file.splice(start..start + length, random.pick(&VALUES).bytes());
        }
        // An instruction or a record repeated many times.
        _ => {
            let piece = file[at..at + random.below(rest.min(8))].to_vec();
            let copies = piece.repeat(1 + random.below(64));
            file.splice(at..at, copies);
        }
    }
}

/// Mutates `seeds` and passes each result to `exercise`, which returns whether it accepted the file, and must not
/// panic, overflow the stack or request more memory than there is. It must accept at least 1 % of the files: if all
/// were rejected immediately, nothing else would be tested.
pub(crate) fn fuzz(seeds: &[&[u8]], exercise: impl Fn(&[u8]) -> bool) {
    let first_seed = setting("AGNEWS_FUZZ_SEED", 0);
    let cases = cases();
    let mut accepted = 0;
    for seed in (0..cases).map(|case| first_seed.wrapping_add(case)) {
        let file = mutate(seeds, &mut Random::new(seed));
        match catch_unwind(AssertUnwindSafe(|| exercise(&file))) {
            Ok(was_read) => accepted += u64::from(was_read),
            Err(_) => panic!("the file for AGNEWS_FUZZ_SEED={seed} made the reader panic"),
        }
    }
    assert!(accepted >= cases / 100, "only {accepted} of {cases} files were read");
}
