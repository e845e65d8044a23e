//! The directory of a zip archive whose entries are stored without compression, so that they can be mapped in place.
//! Format: PKWARE's APPNOTE.TXT, sections 4.3.6 to 4.5.3.
//!
//! Own code rather than the zip crate: all that is needed is where an entry's bytes lie, and the crate reserves memory
//! by counts that the file claims, and searches the whole of a damaged file for another directory.

use super::quoted;
use anyhow::{bail, ensure, Context, Result};
use std::collections::HashMap;
use std::ops::Range;

/// How an archive begins: the first entry's local header.
pub(super) const FIRST_BYTES: &[u8] = LOCAL_HEADER;

const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
const CENTRAL_HEADER: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const END_64_LOCATOR: &[u8] = b"PK\x06\x07";

/// Bytes of the record at the end, before its comment.
const END_SIZE: usize = 22;
/// Bytes of the record in front of it that tells where the 64-bit record is.
const END_64_LOCATOR_SIZE: usize = 20;
/// Bytes of an entry in the directory, before its name.
const CENTRAL_HEADER_SIZE: usize = 46;
/// Bytes of the header in front of an entry's data, before its name.
const LOCAL_HEADER_SIZE: usize = 30;

/// Where an entry's bytes lie, by name.
pub(super) type Directory<'a> = HashMap<&'a str, Range<usize>>;

/// Reads the directory.
///
/// # Errors
/// Where the archive is cut off or contradicts itself, or an entry is compressed or encrypted.
pub(super) fn read(file: &[u8]) -> Result<Directory<'_>> {
    let (directory, count) = locate(file)?;
    let mut rest = Record { bytes: &file[directory.clone()] };
    let mut entries = HashMap::new();
    for _ in 0..count {
        let (name, data) = entry(file, directory.start, &mut rest)?;
        ensure!(entries.insert(name, data).is_none(), "its zip directory lists {} twice", quoted(name));
    }
    Ok(entries)
}

/// The bytes of the directory, and how many entries it claims to have.
fn locate(file: &[u8]) -> Result<(Range<usize>, u64)> {
    let end_start =
        end_record(file).context("its zip directory is missing: the file is cut off or damaged; download it again")?;
    let mut end = Record { bytes: &file[end_start + 10..] };
    let (mut count, mut size, mut start) = (end.u16()?.into(), end.u32()?.into(), end.u32()?.into());
    let mut limit = end_start;
    if let Some(end_64_start) = end_record_64(file, end_start)? {
        let mut end = Record { bytes: &file[end_64_start + 32..] };
        (count, size, start) = (end.u64()?, end.u64()?, end.u64()?);
        limit = end_64_start;
    }
    let range = usize::try_from(start).ok().zip(usize::try_from(size).ok());
    let range =
        range.and_then(|(start, size)| Some(start..start.checked_add(size)?)).filter(|range| range.end <= limit);
    let range = range.with_context(|| {
        format!("its zip directory of {size} bytes at byte {start} leaves the file; download it again")
    })?;
    Ok((range, count))
}

/// The position of the last record: at the very end but for a comment.
fn end_record(file: &[u8]) -> Option<usize> {
    let last = file.len().checked_sub(END_SIZE)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    (first..=last).rev().find(|&start| {
        let comment = u16::from_le_bytes([file[start + 20], file[start + 21]]);
        file[start..].starts_with(END) && start + END_SIZE + usize::from(comment) == file.len()
    })
}

/// The position of the record with 64-bit numbers, where there is one; it counts then.
fn end_record_64(file: &[u8], end_start: usize) -> Result<Option<usize>> {
    let Some(locator) = end_start.checked_sub(END_64_LOCATOR_SIZE).map(|start| &file[start..end_start]) else {
        return Ok(None);
    };
    if !locator.starts_with(END_64_LOCATOR) {
        return Ok(None);
    }
    let start = Record { bytes: &locator[8..] }.u64()?;
    let start = usize::try_from(start).ok().filter(|&start| {
        start < end_start && file[start..end_start].starts_with(END_64) && end_start - start >= 56 + END_64_LOCATOR_SIZE
    });
    start.map(Some).context("the zip64 record of its directory is missing: the file is damaged; download it again")
}

/// Reads an entry of the directory, which begins at `directory_start`, and finds its data.
fn entry<'a>(file: &'a [u8], directory_start: usize, rest: &mut Record<'a>) -> Result<(&'a str, Range<usize>)> {
    let mut header = Record { bytes: rest.take(CENTRAL_HEADER_SIZE)? };
    ensure!(header.take(4)? == CENTRAL_HEADER, "an entry of its zip directory is damaged");
    header.take(4)?;
    let (flags, method) = (header.u16()?, header.u16()?);
    header.take(8)?;
    let (compressed, size) = (header.u32()?, header.u32()?);
    let (name_length, extra_length, comment_length) = (header.u16()?, header.u16()?, header.u16()?);
    header.take(8)?;
    let offset = header.u32()?;
    let name =
        std::str::from_utf8(rest.take(name_length.into())?).context("a name in its zip directory is not UTF-8")?;
    let extra = rest.take(extra_length.into())?;
    rest.take(comment_length.into())?;
    let place = || -> Result<Range<usize>> {
        ensure!(flags & 1 == 0, "it is encrypted");
        ensure!(method == 0, "it is compressed (method {method}); torch.save never does that");
        let [size, compressed, offset] = wide([size, compressed, offset], extra)?;
        ensure!(size == compressed, "it has two sizes, {size} and {compressed}");
        data(&file[..directory_start], name, offset, size).context("it is damaged or cut off; download the file again")
    };
    let data = place().with_context(|| format!("entry {} of its zip archive", quoted(name)))?;
    Ok((name, data))
}

/// Replaces the numbers that do not fit into 32 bits by those of the zip64 field in `extra`.
fn wide(narrow: [u32; 3], extra: &[u8]) -> Result<[u64; 3]> {
    const ZIP64: u16 = 1;
    let mut field = Record { bytes: &[] };
    let mut rest = Record { bytes: extra };
    while rest.bytes.len() >= 4 {
        let (id, length) = (rest.u16()?, rest.u16()?);
        let bytes = rest.take(length.into())?;
        if id == ZIP64 {
            field = Record { bytes };
        }
    }
    let mut numbers = narrow.map(u64::from);
    for number in &mut numbers {
        if *number == u64::from(u32::MAX) {
            *number = field.u64()?;
        }
    }
    Ok(numbers)
}

/// The `size` bytes after the local header at `offset`, which must be that of `name`. `entries` is the file up to its
/// directory.
fn data(entries: &[u8], name: &str, offset: u64, size: u64) -> Result<Range<usize>> {
    let outside = || format!("it lies at byte {offset}, of which there are {}", entries.len());
    let offset = usize::try_from(offset).ok().filter(|&offset| offset <= entries.len()).with_context(outside)?;
    let mut rest = Record { bytes: &entries[offset..] };
    let mut header = Record { bytes: rest.take(LOCAL_HEADER_SIZE)? };
    ensure!(header.take(4)? == LOCAL_HEADER, "there is no entry at byte {offset}");
    header.take(22)?;
    let (name_length, extra_length) = (header.u16()?, header.u16()?);
    ensure!(rest.take(name_length.into())? == name.as_bytes(), "the entry at byte {offset} has another name");
    rest.take(extra_length.into())?;
    let start = entries.len() - rest.bytes.len();
    let size = usize::try_from(size).ok().filter(|&size| size <= rest.bytes.len());
    let Some(size) = size else { bail!("it leaves the archive: {} bytes are left for it", rest.bytes.len()) };
    Ok(start..start + size)
}

/// Little-endian fields, read one after the other.
struct Record<'a> {
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length).context("its zip directory is cut off")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes as asked for"))
    }

    fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive with one entry, `a` with the content `data`, of zip's first version.
    const ONE: &[u8] = b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\x04\0\0\0\x04\0\0\0\x01\0\0\0adata\
        PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\x04\0\0\0\x04\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0a\
        PK\x05\x06\0\0\0\0\x01\0\x01\0\x2f\0\0\0\x23\0\0\0\0\0";
    const CENTRAL: usize = 35;
    const LAST: usize = 35 + 47;

    #[test]
    fn finds_an_entry() {
        assert_eq!(read(ONE).unwrap(), HashMap::from([("a", 31..35)]));
        let commented = [&ONE[..ONE.len() - 2], b"\x05\0hello"].concat();
        assert_eq!(read(&commented).unwrap(), HashMap::from([("a", 31..35)]));
    }

    #[test]
    fn refuses_archives_that_lie() {
        for (at, bytes, expected) in [
            (CENTRAL + 8, &[1u8][..], "entry \"a\" of its zip archive: it is encrypted"),
            (CENTRAL + 10, &[8], "it is compressed (method 8)"),
            (CENTRAL + 20, &[5], "it has two sizes, 4 and 5"),
            (CENTRAL + 20, &[5, 0, 0, 0, 5], "leaves the archive: 4 bytes are left"),
            (CENTRAL + 20, &[0xfe, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff], "leaves the archive"),
            // A size that is said to be in a zip64 field which is not there.
            (CENTRAL + 20, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "its zip directory is cut off"),
            (CENTRAL + 42, &[1], "there is no entry at byte 1"),
            (CENTRAL + 42, &[0xff, 0xff], "it lies at byte 65535, of which there are 35"),
            (CENTRAL + 28, &[2], "its zip directory is cut off"),
            (CENTRAL + 28, &[0xff, 0xff], "its zip directory is cut off"),
            (CENTRAL, b"X", "an entry of its zip directory is damaged"),
            (30, b"b", "the entry at byte 0 has another name"),
            (26, &[0xff, 0xff], "its zip directory is cut off"),
            (LAST, b"X", "its zip directory is missing"),
            (LAST + 10, &[2], "its zip directory is cut off"),
            (LAST + 10, &[0xff, 0xff], "its zip directory is cut off"),
            (LAST + 12, &[0xff, 0xff], "its zip directory of 65535 bytes at byte 35 leaves the file"),
            (LAST + 16, &[0xff, 0xff, 0xff, 0xff], "leaves the file"),
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
            let head = [&b"PK\x06\x06"[..], &44u64.to_le_bytes(), &[0; 20]].concat();
            let numbers = [count, size, start].map(u64::to_le_bytes).concat();
            let locator = [&b"PK\x06\x07\0\0\0\0"[..], &(LAST as u64).to_le_bytes(), b"\x01\0\0\0"].concat();
            let end = b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0";
            [&ONE[..LAST], &head, &numbers, &locator, end].concat()
        };
        assert_eq!(read(&record(1, 47, 35)).unwrap(), HashMap::from([("a", 31..35)]));
        for (count, size, start) in [
            (u64::MAX, 47, 35),
            (1, u64::MAX, 35),
            (1, 47, u64::MAX),
            (1, u64::MAX, u64::MAX),
            (1 << 40, 1 << 50, 1 << 41),
        ] {
            assert!(read(&record(count, size, start)).is_err());
        }
        let mut elsewhere = record(1, 47, 35);
        let locator = elsewhere.len() - END_SIZE - END_64_LOCATOR_SIZE;
        elsewhere[locator + 8..locator + 16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(format!("{:#}", read(&elsewhere).unwrap_err()).contains("the zip64 record of its directory is missing"));
    }
}
