//! Plain input: a stream of bytes cut into lines, or at NUL bytes, as it arrives.

use super::reader::RecordReader;
use super::record::{Draft, Schema, Text};
use anyhow::Result;

/// What ends a text of plain input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Separator {
    /// LF or CRLF.
    #[default]
    LineBreak,
    /// A NUL byte; line breaks are part of the text.
    Nul,
}

/// Reads one text per line, or two with a tab between them.
pub(super) struct LineReader {
    lines: LineSplitter,
    are_pairs: bool,
}

impl LineReader {
    pub(super) fn new(separator: Separator, are_pairs: bool) -> LineReader {
        LineReader { lines: LineSplitter::new(separator, usize::MAX), are_pairs }
    }
}

impl RecordReader for LineReader {
    fn feed(&mut self, bytes: &[u8], records: &mut Vec<Draft>) -> Result<()> {
        let LineReader { lines, are_pairs } = self;
        lines.feed(bytes, &mut |line| {
            records.push(draft(&line, *are_pairs));
            Ok(())
        })
    }

    fn finish(&mut self, records: &mut Vec<Draft>) -> Result<()> {
        let LineReader { lines, are_pairs } = self;
        lines.finish(&mut |line| {
            records.push(draft(&line, *are_pairs));
            Ok(())
        })
    }

    fn schema(&self) -> Option<Schema> {
        Some(Schema::Columns(Vec::new()))
    }
}

fn draft(line: &Line<'_>, is_pair: bool) -> Draft {
    let text = Text::from_bytes(line.bytes);
    if !is_pair || text.text.trim().is_empty() {
        return Draft::text(line.number, text);
    }
    match memchr::memchr(b'\t', line.bytes) {
        Some(tab) => {
            let (first, second) = (&line.bytes[..tab], &line.bytes[tab + 1..]);
            Draft::pair(line.number, Text::from_bytes(first), Text::from_bytes(second))
        }
        None => Draft::malformed(line.number, "it has no second text, which a tab would separate from the first"),
    }
}

/// One line without its end.
pub(super) struct Line<'a> {
    pub(super) bytes: &'a [u8],
    /// Counted from 1.
    pub(super) number: u64,
    /// Whether it was longer than the splitter's limit, and lacks its end.
    pub(super) is_cut: bool,
}

/// Takes one line; an error ends the reading.
pub(super) type EachLine<'a> = dyn FnMut(Line<'_>) -> Result<()> + 'a;

/// The most bytes whose allocation outlives the line that they held.
const KEPT_BYTES: usize = 1 << 20;

/// Splits a stream that is fed piece by piece.
pub(super) struct LineSplitter {
    separator: Separator,
    /// The most bytes of one line that are held.
    limit: usize,
    /// The start of a line whose end has not come yet.
    partial: Vec<u8>,
    is_cut: bool,
    lines: u64,
}

impl LineSplitter {
    pub(super) fn new(separator: Separator, limit: usize) -> LineSplitter {
        LineSplitter { separator, limit, partial: Vec::new(), is_cut: false, lines: 0 }
    }

    /// Gives every line that `bytes` completes to `each`.
    pub(super) fn feed(&mut self, bytes: &[u8], each: &mut EachLine<'_>) -> Result<()> {
        let end_byte = match self.separator {
            Separator::LineBreak => b'\n',
            Separator::Nul => 0,
        };
        let mut start = 0;
        for end in memchr::memchr_iter(end_byte, bytes) {
            let rest = &bytes[start..end];
            start = end + 1;
            if self.partial.is_empty() && rest.len() <= self.limit {
                self.give(rest, each)?;
            } else {
                self.hold(rest);
                let mut line = std::mem::take(&mut self.partial);
                self.give(&line, each)?;
                // Its allocation serves the next partial line, unless it would hold as much as the longest line for good.
                line.clear();
                line.shrink_to(KEPT_BYTES);
                self.partial = line;
            }
        }
        self.hold(&bytes[start..]);
        Ok(())
    }

    /// Gives the last line, if nothing has ended it.
    pub(super) fn finish(&mut self, each: &mut EachLine<'_>) -> Result<()> {
        let line = std::mem::take(&mut self.partial);
        if line.is_empty() {
            return Ok(());
        }
        self.lines += 1;
        each(Line { bytes: &line, number: self.lines, is_cut: self.is_cut })
    }

    fn hold(&mut self, bytes: &[u8]) {
        let room = self.limit - self.partial.len();
        self.is_cut |= bytes.len() > room;
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn give(&mut self, line: &[u8], each: &mut EachLine<'_>) -> Result<()> {
        self.lines += 1;
        let bytes = match self.separator {
            Separator::LineBreak => line.strip_suffix(b"\r").unwrap_or(line),
            Separator::Nul => line,
        };
        each(Line { bytes, number: self.lines, is_cut: std::mem::take(&mut self.is_cut) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that each piece completes, and at last what is left.
    fn split(separator: Separator, limit: usize, pieces: &[&str]) -> Vec<Vec<String>> {
        let mut splitter = LineSplitter::new(separator, limit);
        let mut given = Vec::new();
        for piece in pieces {
            given.push(collect(|each| splitter.feed(piece.as_bytes(), each)));
        }
        given.push(collect(|each| splitter.finish(each)));
        given
    }

    fn collect(give: impl FnOnce(&mut EachLine<'_>) -> Result<()>) -> Vec<String> {
        let mut lines = Vec::new();
        let outcome = give(&mut |line| {
            lines.push(show(&line));
            Ok(())
        });
        outcome.unwrap();
        lines
    }

    fn show(line: &Line<'_>) -> String {
        format!("{}{}", String::from_utf8_lossy(line.bytes), if line.is_cut { "…" } else { "" })
    }

    fn lines(text: &str) -> Vec<String> {
        split(Separator::LineBreak, usize::MAX, &[text]).concat()
    }

    #[test]
    fn every_line_keeps_its_place() {
        assert_eq!(lines("a\n\nb\r\n \nc"), ["a", "", "b", " ", "c"]);
        assert_eq!(lines("a\n"), ["a"]);
        assert_eq!(lines("\n"), [""]);
        assert!(lines("").is_empty());
        assert_eq!(lines("a\rb\r\r\n"), ["a\rb\r"]);
        assert_eq!(lines("a\0b\n"), ["a\0b"]);
    }

    #[test]
    fn lines_split_over_pieces_are_joined() {
        let given = split(Separator::LineBreak, usize::MAX, &["a\nb", "c\r", "\nd\n", "e"]);
        assert_eq!(given, [vec!["a"], vec![], vec!["bc", "d"], vec![], vec!["e"]]);
    }

    #[test]
    fn nul_separates_texts_with_line_breaks() {
        let given = split(Separator::Nul, usize::MAX, &["a\nb\r", "\0\0c"]);
        assert_eq!(given.concat(), ["a\nb\r", "", "c"]);
    }

    #[test]
    fn a_line_beyond_the_limit_is_cut_and_the_next_is_whole() {
        for pieces in [&["abcdef\ngh\n"][..], &["ab", "cd", "ef", "\ngh\n"], &["abcde", "f\ng", "h\n"]] {
            assert_eq!(split(Separator::LineBreak, 4, pieces).concat(), ["abcd…", "gh"], "{pieces:?}");
        }
        assert_eq!(split(Separator::LineBreak, 4, &["abcd\nabcde"]).concat(), ["abcd", "abcd…"]);
    }
}
