//! From a file's bytes to UTF-8 text: gzip and Zstandard unpacked, UTF-16 decoded, a byte order mark removed, and
//! files that hold no text refused. All of it is decided by the first bytes, whatever the file's name.
//!
//! Formats: RFC 1952 (gzip), RFC 8878 (Zstandard). Both may hold several members, or frames, one after another.

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead, BufReader, Cursor, Read};

/// One read of a compressed or UTF-16 file.
const READ_BYTES: usize = 64 * 1024;

/// What the first bytes say of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signature {
    Gzip,
    Zstd,
    Utf8Mark,
    Utf16 {
        is_little_endian: bool,
    },
    /// Not text. Holds what it is, and what to do about it.
    Refused(&'static str, &'static str),
}

const SIGNATURES: &[(&[u8], Signature)] = &[
    (b"\x1f\x8b\x08", Signature::Gzip),
    (b"\x28\xb5\x2f\xfd", Signature::Zstd),
    (b"\xef\xbb\xbf", Signature::Utf8Mark),
    (b"\xff\xfe", Signature::Utf16 { is_little_endian: true }),
    (b"\xfe\xff", Signature::Utf16 { is_little_endian: false }),
    (b"\xfd7zXZ\0", Signature::Refused("xz data", "unpack it first, with `xz -dc`")),
    (
        b"PK\x03\x04",
        Signature::Refused("a zip archive or an office document", "extract it, or export it as CSV, first"),
    ),
    (b"7z\xbc\xaf\x27\x1c", Signature::Refused("a 7z archive", "extract it first")),
    (b"\x04\x22\x4d\x18", Signature::Refused("lz4 data", "unpack it first, with `lz4 -dc`")),
    (b"\x1f\x9d", Signature::Refused("compressed data", "unpack it first, with `uncompress -c`")),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Signature::Refused("an office document", "export it as CSV first")),
    (b"PAR1", Signature::Refused("a Parquet file", "export it as CSV or JSON Lines first, with DuckDB for example")),
    (b"Obj\x01", Signature::Refused("an Avro file", "export it as CSV or JSON Lines first")),
    (b"SQLite format 3\0", Signature::Refused("an SQLite database", "export the table as CSV first")),
    (b"%PDF-", Signature::Refused("a PDF document", "extract its text first, with `pdftotext`")),
    (b"BZh11AY&SY", BZIP2),
    (b"BZh21AY&SY", BZIP2),
    (b"BZh31AY&SY", BZIP2),
    (b"BZh41AY&SY", BZIP2),
    (b"BZh51AY&SY", BZIP2),
    (b"BZh61AY&SY", BZIP2),
    (b"BZh71AY&SY", BZIP2),
    (b"BZh81AY&SY", BZIP2),
    (b"BZh91AY&SY", BZIP2),
];

const BZIP2: Signature = Signature::Refused("bzip2 data", "unpack it first, with `bzip2 -dc`");

/// A Zstandard file may begin with a frame to skip, whose magic number is one of 16.
const ZSTD_SKIPPABLE_MAGIC: (std::ops::RangeInclusive<u8>, &[u8]) = (0x50..=0x5f, &[0x2a, 0x4d, 0x18]);

/// Where a tar archive says that it is one, and how.
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");

/// What a head says.
enum Told {
    It(Signature),
    Nothing,
    /// Too few bytes to tell.
    Unclear,
}

impl Signature {
    fn of(head: &[u8]) -> Told {
        if let Some((_, signature)) = SIGNATURES.iter().find(|(magic, _)| head.starts_with(magic)) {
            return Told::It(*signature);
        }
        let (skippable_first, skippable_rest) = ZSTD_SKIPPABLE_MAGIC;
        let rest = head.get(1..).unwrap_or_default();
        let may_be_skippable = head.first().is_none_or(|first| skippable_first.contains(first));
        if may_be_skippable && rest.starts_with(skippable_rest) {
            return Told::It(Signature::Zstd);
        }
        let is_start = SIGNATURES.iter().any(|(magic, _)| magic.starts_with(head));
        match is_start || may_be_skippable && skippable_rest.starts_with(rest) {
            true => Told::Unclear,
            false => Told::Nothing,
        }
    }
}

type Stream<'a> = Box<dyn Read + Send + 'a>;

/// The text of `stream` as UTF-8 (or bytes that claim to be). A read gives what has arrived.
///
/// # Errors
/// If the first bytes cannot be read, or are those of a file that holds no text. Reading fails later if compressed
/// data is damaged or cut.
pub(super) fn decoded<'a>(stream: impl Read + Send + 'a) -> io::Result<Stream<'a>> {
    let (signature, stream) = sniff(stream)?;
    match signature {
        Some(Signature::Gzip) => text(MultiGzDecoder::new(BufReader::with_capacity(READ_BYTES, stream))),
        Some(Signature::Zstd) => text(ZstdReader::new(BufReader::with_capacity(READ_BYTES, stream))),
        signature => text_after(signature, stream),
    }
}

/// What an unpacked stream holds: it has a signature of its own.
fn text<'a>(stream: impl Read + Send + 'a) -> io::Result<Stream<'a>> {
    let (signature, stream) = sniff(stream)?;
    text_after(signature, stream)
}

fn text_after<'a>(signature: Option<Signature>, mut stream: impl Read + Send + 'a) -> io::Result<Stream<'a>> {
    match signature {
        None => Ok(Box::new(TarGuard { stream, position: 0, seen: Vec::new() })),
        Some(Signature::Utf8Mark) => {
            stream.read_exact(&mut [0; 3])?;
            Ok(Box::new(stream))
        }
        Some(Signature::Utf16 { is_little_endian }) => {
            stream.read_exact(&mut [0; 2])?;
            Ok(Box::new(Utf16Reader { stream, is_little_endian, raw: Vec::new(), decoded: Cursor::default() }))
        }
        Some(Signature::Refused(what, remedy)) => Err(refused(what, remedy)),
        Some(Signature::Gzip | Signature::Zstd) => Err(refused("packed twice", "unpack it once first")),
    }
}

fn refused(what: &str, remedy: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it is {what}, not text: {remedy}"))
}

/// A stream that begins with what has been read of it already.
type Rewound<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// Reads as much of the start as is needed to know what it is, and gives a stream that begins there again. If one
/// byte is enough, it does not wait for a second: that may never come.
fn sniff<R: Read>(mut stream: R) -> io::Result<(Option<Signature>, Rewound<R>)> {
    let mut head = Vec::new();
    let signature = loop {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) => break None,
            Ok(_) => head.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        match Signature::of(&head) {
            Told::It(signature) => break Some(signature),
            Told::Nothing => break None,
            Told::Unclear => {}
        }
    };
    Ok((signature, Cursor::new(head).chain(stream)))
}

/// Refuses a tar archive, which says what it is only behind the name of its first file.
struct TarGuard<R> {
    stream: R,
    position: usize,
    seen: Vec<u8>,
}

impl<R: Read> Read for TarGuard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        let (start, magic) = TAR_MAGIC;
        let end = start + magic.len();
        if self.position < end {
            let place = |position: usize| position.saturating_sub(self.position).min(read);
            self.seen.extend_from_slice(&buffer[place(start)..place(end)]);
            self.position += read;
            if self.seen == magic {
                return Err(refused("a tar archive", "extract it first"));
            }
        }
        Ok(read)
    }
}

/// UTF-16 to UTF-8. A unit without its other half becomes U+FFFD.
struct Utf16Reader<R> {
    stream: R,
    is_little_endian: bool,
    /// Bytes that are not decoded yet: at most half a unit and half a pair.
    raw: Vec<u8>,
    decoded: Cursor<Vec<u8>>,
}

impl<R: Read> Utf16Reader<R> {
    /// Decodes what one read gives; `false` at the end.
    fn refill(&mut self) -> io::Result<bool> {
        let mut buffer = vec![0; READ_BYTES];
        let read = self.stream.read(&mut buffer)?;
        self.raw.extend_from_slice(&buffer[..read]);
        let is_end = read == 0;
        let unit = |bytes: &[u8]| match self.is_little_endian {
            true => u16::from_le_bytes([bytes[0], bytes[1]]),
            false => u16::from_be_bytes([bytes[0], bytes[1]]),
        };
        let mut units: Vec<u16> = self.raw.chunks_exact(2).map(unit).collect();
        // The first half of a pair waits for the second.
        if !is_end && units.last().is_some_and(|unit| (0xd800..0xdc00).contains(unit)) {
            units.pop();
        }
        let rest = self.raw.split_off(2 * units.len());
        let text = char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER));
        let mut text: String = text.collect();
        if is_end && !rest.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        self.raw = if is_end { Vec::new() } else { rest };
        self.decoded = Cursor::new(text.into_bytes());
        Ok(!is_end || !self.decoded.get_ref().is_empty())
    }
}

impl<R: Read> Read for Utf16Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.decoded.read(buffer)?;
            if read > 0 || buffer.is_empty() || !self.refill()? {
                return Ok(read);
            }
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
        decoded(bytes)?.read_to_end(&mut all).map(|_| all)
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
        let mut stream = decoded(Endless(false)).unwrap();
        assert_eq!(stream.read(&mut [0; 10]).unwrap(), 1);
    }

    #[test]
    fn utf16_is_decoded_however_its_bytes_arrive() {
        struct ByteByByte<'a>(&'a [u8]);
        impl Read for ByteByByte<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.read(&mut buffer[..1])
            }
        }
        let text = "caf\u{e9} \u{1f600}\n\u{6771}\u{4eac}";
        let le: Vec<u8> = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
        for bytes in [&le, &be, &gzip(&le)] {
            assert_eq!(unpack(bytes).unwrap(), text.as_bytes());
            let mut all = Vec::new();
            decoded(ByteByByte(bytes)).unwrap().read_to_end(&mut all).unwrap();
            assert_eq!(all, text.as_bytes());
        }
        assert_eq!(unpack(b"\xff\xfea\0\x3d\xd8").unwrap(), "a\u{fffd}".as_bytes(), "half a pair");
        assert_eq!(unpack(b"\xff\xfea\0b").unwrap(), "a\u{fffd}".as_bytes(), "half a unit");
    }

    #[test]
    fn what_is_not_text_is_refused_by_name() {
        let tar = [&[b'n'; 100][..], &[0; 157], b"ustar\0", &[0; 250]].concat();
        let cases: [(&[u8], &str); 8] = [
            (b"\xfd7zXZ\0\0\x04", "xz -dc"),
            (b"BZh91AY&SY\x12", "bzip2 -dc"),
            (b"PK\x03\x04\x14", "zip archive"),
            (b"PAR1\x15", "Parquet"),
            (b"%PDF-1.7", "PDF"),
            (b"SQLite format 3\0", "SQLite"),
            (&tar, "tar archive"),
            (&gzip(&gzip(b"a")), "packed twice"),
        ];
        for (bytes, named) in cases {
            for packed in [bytes.to_vec(), gzip(bytes), zstd(bytes)] {
                let error = unpack(&packed).unwrap_err().to_string();
                assert!(error.contains(named) || error.contains("packed twice"), "{error}");
            }
        }
    }
}
