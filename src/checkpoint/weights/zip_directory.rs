//! The directory of a zip archive whose entries are stored without compression, so they can be mapped in place.
//!
//! Uses rawzip rather than the zip crate that candle uses, which reserves memory for counts claimed by the file and
//! searches all of a damaged file for another directory. rawzip allocates nothing, and leaves it to the caller to
//! decide which entries are allowed.

use super::quoted;
use anyhow::{ensure, Context, Result};
use rawzip::{CompressionMethod, ZipArchive, ZipFileHeaderRecord, ZipSliceArchive};
use std::collections::HashMap;
use std::ops::Range;

/// The start of an archive: the first entry's local header.
pub(super) const FIRST_BYTES: &[u8] = b"PK\x03\x04";

/// Where each entry's bytes are, by name.
pub(super) type Directory = HashMap<String, Range<usize>>;

/// Reads the directory.
///
/// # Errors
/// If the archive is cut off or contradicts itself, or an entry is compressed or encrypted.
pub(super) fn read(file: &[u8]) -> Result<Directory> {
    let archive = ZipArchive::from_slice(file);
    let archive = archive.context("its zip directory is missing: the file is cut off or damaged; download it again")?;
    let mut headers = archive.entries();
    let mut entries = HashMap::new();
    let damaged = "its zip directory is damaged or cut off; download it again";
    while let Some(header) = headers.next_entry().context(damaged)? {
        let name =
            std::str::from_utf8(header.file_path().as_bytes()).context("a name in its zip directory is not UTF-8")?;
        let data = place(&archive, &header).with_context(|| format!("entry {} of its zip archive", quoted(name)))?;
        ensure!(entries.insert(name.to_owned(), data).is_none(), "its zip directory lists {} twice", quoted(name));
    }
    ensure!(entries.len() as u64 == archive.entries_hint(), "{damaged}");
    Ok(entries)
}

/// Where the data of an entry is in the file.
fn place(archive: &ZipSliceArchive<&[u8]>, header: &ZipFileHeaderRecord) -> Result<Range<usize>> {
    ensure!(!header.flags().is_encrypted(), "it is encrypted");
    let method = header.compression_method();
    ensure!(method == CompressionMethod::STORE, "it is compressed ({method:?}); torch.save never does that");
    let (size, compressed) = (header.uncompressed_size_hint(), header.compressed_size_hint());
    ensure!(size == compressed, "it has two sizes, {size} and {compressed}");
    let entry = archive.get_entry(header.wayfinder());
    let entry = entry.context("it is not in the file, which is damaged or cut off; download it again")?;
    let (start, end) = entry.compressed_data_range();
    let is_there = end <= archive.directory_offset()
        && entry.local_header().file_path().as_bytes() == header.file_path().as_bytes();
    ensure!(is_there, "it overlaps another entry or the directory: the file is damaged; download it again");
    Ok(start as usize..end as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive with one entry, `a` with the content `data`, in zip's first version.
    const ONE: &[u8] = b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\x04\0\0\0\x04\0\0\0\x01\0\0\0adata\
        PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\x04\0\0\0\x04\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0a\
        PK\x05\x06\0\0\0\0\x01\0\x01\0\x2f\0\0\0\x23\0\0\0\0\0";
    const CENTRAL: usize = 35;
    const LAST: usize = 35 + 47;

    #[test]
    fn finds_an_entry() {
        assert_eq!(read(ONE).unwrap(), HashMap::from([("a".to_owned(), 31..35)]));
        let commented = [&ONE[..ONE.len() - 2], b"\x05\0hello"].concat();
        assert_eq!(read(&commented).unwrap(), HashMap::from([("a".to_owned(), 31..35)]));
    }

    #[test]
    fn refuses_archives_that_lie() {
        for (at, bytes, expected) in [
            (CENTRAL + 8, &[1u8][..], "entry \"a\" of its zip archive: it is encrypted"),
            (CENTRAL + 10, &[8], "it is compressed (CompressionMethod::DEFLATE)"),
            (CENTRAL + 20, &[5], "it has two sizes, 4 and 5"),
            (CENTRAL + 20, &[5, 0, 0, 0, 5], "it overlaps another entry or the directory"),
            (CENTRAL + 20, &[0xfe, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff], "it is not in the file"),
            // A size that claims to be in a zip64 field, which is missing.
            (CENTRAL + 20, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "it is not in the file"),
            (CENTRAL + 42, &[1], "it is not in the file"),
            (CENTRAL + 42, &[0xff, 0xff], "it is not in the file"),
            (CENTRAL + 28, &[2], "its zip directory is damaged or cut off"),
            (CENTRAL + 28, &[0xff, 0xff], "its zip directory is damaged or cut off"),
            (CENTRAL, b"X", "its zip directory is damaged"),
            (30, b"b", "it overlaps another entry or the directory"),
            (26, &[0xff, 0xff], "it is not in the file"),
            (LAST, b"X", "its zip directory is missing"),
            (LAST + 10, &[2], "its zip directory is damaged or cut off"),
            (LAST + 10, &[0xff, 0xff], "its zip directory is damaged or cut off"),
            (LAST + 16, &[0xff, 0xff, 0xff, 0xff], "its zip directory is missing"),
        ] {
            let mut file = ONE.to_vec();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            let message = format!("{:#}", read(&file).unwrap_err());
            assert!(message.contains(expected), "{at}: {message}\nlacks {expected}");
        }
    }

    #[test]
    fn refuses_an_entry_listed_twice() {
        let central = &ONE[CENTRAL..LAST];
        let end = b"PK\x05\x06\0\0\0\0\x02\0\x02\0\x5e\0\0\0\x23\0\0\0\0\0";
        let file = [&ONE[..LAST], central, end].concat();
        assert!(format!("{:#}", read(&file).unwrap_err()).contains("lists \"a\" twice"));
    }

    #[test]
    fn follows_64_bit_records_within_the_file_only() {
        let record = |count: u64, size: u64, start: u64| {
            let head = [&b"PK\x06\x06"[..], &44u64.to_le_bytes(), &[0; 12]].concat();
            let numbers = [count, count, size, start].map(u64::to_le_bytes).concat();
            let locator = [&b"PK\x06\x07\0\0\0\0"[..], &(LAST as u64).to_le_bytes(), b"\x01\0\0\0"].concat();
            let end = b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0";
            [&ONE[..LAST], &head, &numbers, &locator, end].concat()
        };
        assert_eq!(read(&record(1, 47, 35)).unwrap(), HashMap::from([("a".to_owned(), 31..35)]));
        for (count, size, start) in
            [(u64::MAX, 47, 35), (2, 47, 35), (1, 47, u64::MAX), (1, u64::MAX, u64::MAX), (1 << 40, 1 << 50, 1 << 41)]
        {
            assert!(read(&record(count, size, start)).is_err());
        }
        let mut elsewhere = record(1, 47, 35);
        let locator = elsewhere.len() - 22 - 20;
        elsewhere[locator + 8..locator + 16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(format!("{:#}", read(&elsewhere).unwrap_err()).contains("its zip directory is missing"));
    }
}
