//! gzip and Zstandard streams unpacked on the way, told by their first bytes; a byte order mark left out.
//!
//! Formats: RFC 1952 (gzip), RFC 8878 (Zstandard). Both may hold several members, or frames, one behind the other.

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead, BufReader, Cursor, Read};

/// One read of a compressed file.
const PACKED_READ_BYTES: usize = 64 * 1024;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b, 0x08];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const UTF8_BOM: &[u8] = &[0xef, 0xbb, 0xbf];

/// A Zstandard file may begin with a frame to skip, whose magic number is one of 16.
const ZSTD_SKIPPABLE_MAGIC: (std::ops::RangeInclusive<u8>, &[u8]) = (0x50..=0x5f, &[0x2a, 0x4d, 0x18]);

/// What the first bytes say of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Gzip,
    Zstd,
    None,
    /// Too few bytes to tell.
    Unclear,
}

/// The bytes of `stream`, unpacked where it is compressed, without a byte order mark. A read gives what has arrived.
///
/// # Errors
/// Where the first bytes cannot be read. Reading fails later where compressed data is damaged or cut.
pub(super) fn unpacked<'a>(stream: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let (packing, stream) = sniff(stream, |head| match Packing::of(head) {
        Packing::Unclear => None,
        packing => Some(packing),
    })?;
    match packing.unwrap_or(Packing::None) {
        Packing::Gzip => without_bom(MultiGzDecoder::new(BufReader::with_capacity(PACKED_READ_BYTES, stream))),
        Packing::Zstd => without_bom(ZstdReader::new(BufReader::with_capacity(PACKED_READ_BYTES, stream))),
        Packing::None | Packing::Unclear => without_bom(stream),
    }
}

fn without_bom<'a>(stream: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let (has_bom, mut stream) = sniff(stream, |head| match head.starts_with(UTF8_BOM) {
        true => Some(true),
        false => (!UTF8_BOM.starts_with(head)).then_some(false),
    })?;
    if has_bom == Some(true) {
        stream.read_exact(&mut [0; UTF8_BOM.len()])?;
    }
    Ok(Box::new(stream))
}

/// A stream that begins with what has been read of it already.
type Rewound<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// Reads as much of the start as `tell` needs to know what it is, and gives a stream that begins there again.
/// `None` where the stream ended first. What is clear after one byte waits for no second one: it may never come.
fn sniff<R: Read, T>(mut stream: R, mut tell: impl FnMut(&[u8]) -> Option<T>) -> io::Result<(Option<T>, Rewound<R>)> {
    let mut head = Vec::new();
    let mut told = None;
    while told.is_none() {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => head.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        told = tell(&head);
    }
    Ok((told, Cursor::new(head).chain(stream)))
}

impl Packing {
    fn of(head: &[u8]) -> Packing {
        let (skippable_first, skippable_rest) = ZSTD_SKIPPABLE_MAGIC;
        let is_skippable = head.first().is_some_and(|first| skippable_first.contains(first));
        let rest = head.get(1..).unwrap_or_default();
        if head.starts_with(GZIP_MAGIC) {
            Packing::Gzip
        } else if head.starts_with(ZSTD_MAGIC) || is_skippable && rest.starts_with(skippable_rest) {
            Packing::Zstd
        } else if GZIP_MAGIC.starts_with(head)
            || ZSTD_MAGIC.starts_with(head)
            || is_skippable && skippable_rest.starts_with(rest)
        {
            Packing::Unclear
        } else {
            Packing::None
        }
    }
}

/// Frame after frame of a Zstandard stream.
struct ZstdReader<R> {
    source: R,
    frame: FrameDecoder,
    is_inside_frame: bool,
}

impl<R: BufRead> ZstdReader<R> {
    fn new(source: R) -> ZstdReader<R> {
        ZstdReader { source, frame: FrameDecoder::new(), is_inside_frame: false }
    }

    /// Begins the next frame that holds data; `false` at the end of the stream.
    fn begin_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.frame.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut (&mut self.source).take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(damaged("the file ends inside a frame"));
                    }
                }
                Err(error) => return Err(damaged(error)),
            }
        }
        Ok(false)
    }

    fn end_frame(&mut self) -> io::Result<()> {
        self.is_inside_frame = false;
        match (self.frame.get_checksum_from_data(), self.frame.get_calculated_checksum()) {
            (Some(stored), Some(calculated)) if stored != calculated => Err(damaged("a checksum does not match")),
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.is_inside_frame {
                if !self.begin_frame()? {
                    return Ok(0);
                }
                self.is_inside_frame = true;
            }
            // Behind the last block everything can be collected, before it what no later block can refer to.
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                self.frame.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1)).map_err(damaged)?;
            }
            let read = self.frame.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            self.end_frame()?;
        }
    }
}

fn damaged(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the Zstandard data cannot be unpacked: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::write::GzEncoder;
    use flate2::Compression;
    use ruzstd::encoding::{compress_to_vec, CompressionLevel};
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    fn unpack(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        unpacked(bytes)?.read_to_end(&mut all).map(|_| all)
    }

    #[test]
    fn every_packing_gives_the_same_bytes() {
        let text = b"first line\nsecond line\n".repeat(20_000);
        for packed in [text.clone(), gzip(&text), zstd(&text)] {
            assert!(unpack(&packed).unwrap() == text);
        }
    }

    #[test]
    fn members_and_frames_are_joined_and_skippable_frames_skipped() {
        assert_eq!(unpack(&[gzip(b"a\n"), gzip(b""), gzip(b"b\n")].concat()).unwrap(), b"a\nb\n");
        let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
        let frames = [skippable.clone(), zstd(b"a\n"), skippable.clone(), zstd(b""), zstd(b"b\n"), skippable].concat();
        assert_eq!(unpack(&frames).unwrap(), b"a\nb\n");
    }

    #[test]
    fn a_byte_order_mark_is_left_out_also_inside() {
        for packed in [b"\xef\xbb\xbfa".to_vec(), gzip(b"\xef\xbb\xbfa"), zstd(b"\xef\xbb\xbfa")] {
            assert_eq!(unpack(&packed).unwrap(), b"a");
        }
        assert_eq!(unpack(b"a\xef\xbb\xbf").unwrap(), b"a\xef\xbb\xbf");
    }

    #[test]
    fn what_only_begins_like_a_magic_number_is_text() {
        for text in [&b""[..], b"(", b"\x1f\x8b", b"\x1f\x8b\x09", b"\xef\xbb", b"P*M", b"PK", b"\x28\xb5\x2f"] {
            assert_eq!(unpack(text).unwrap(), text);
        }
    }

    #[test]
    fn cut_or_damaged_data_is_an_error_behind_what_was_whole() {
        let text = b"first line\nsecond line\n".repeat(20_000);
        for packed in [gzip(&text), zstd(&text)] {
            for end in [packed.len() - 1, packed.len() / 2, 5] {
                assert!(unpack(&packed[..end]).is_err());
            }
            let mut damaged = packed.clone();
            let middle = packed.len() / 2;
            damaged[middle] ^= 0x55;
            assert!(unpack(&damaged).is_err());
        }
    }

    #[test]
    fn the_first_byte_is_given_on_before_a_second_has_come() {
        struct Endless(bool);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                assert!(!std::mem::replace(&mut self.0, true), "read again although one byte is enough to tell");
                buffer[0] = b'a';
                Ok(1)
            }
        }
        let mut stream = unpacked(Endless(false)).unwrap();
        assert_eq!(stream.read(&mut [0; 10]).unwrap(), 1);
    }
}
