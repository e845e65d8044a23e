//! A stream of bytes cut into lines, or at NUL bytes, as it arrives.

/// What ends a text of plain input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Separator {
    /// LF or CRLF.
    #[default]
    LineBreak,
    /// A NUL byte; line breaks are part of the text.
    Nul,
}

/// One line without its end.
pub(super) struct Line<'a> {
    pub(super) bytes: &'a [u8],
    /// Counted from 1.
    pub(super) number: u64,
    /// Whether it was longer than the splitter's limit, and its end is left out.
    pub(super) is_cut: bool,
}

/// Splits a stream that is fed piece by piece.
pub(super) struct LineSplitter {
    separator: Separator,
    /// Most bytes of one line that are held.
    limit: usize,
    /// The start of a line whose end has not come.
    partial: Vec<u8>,
    is_cut: bool,
    lines: u64,
}

impl LineSplitter {
    pub(super) fn new(separator: Separator, limit: usize) -> LineSplitter {
        LineSplitter { separator, limit, partial: Vec::new(), is_cut: false, lines: 0 }
    }

    /// Gives every line that `bytes` completes to `each`.
    pub(super) fn feed(&mut self, bytes: &[u8], each: &mut dyn FnMut(Line<'_>)) {
        let end_byte = match self.separator {
            Separator::LineBreak => b'\n',
            Separator::Nul => 0,
        };
        let mut start = 0;
        for end in memchr::memchr_iter(end_byte, bytes) {
            let rest = &bytes[start..end];
            start = end + 1;
            if self.partial.is_empty() && rest.len() <= self.limit {
                self.give(rest, each);
            } else {
                self.hold(rest);
                let line = std::mem::take(&mut self.partial);
                self.give(&line, each);
                // Its room serves the next partial line.
                self.partial = line;
                self.partial.clear();
            }
        }
        self.hold(&bytes[start..]);
    }

    /// Gives the last line, where nothing ends it.
    pub(super) fn finish(&mut self, each: &mut dyn FnMut(Line<'_>)) {
        let line = std::mem::take(&mut self.partial);
        if !line.is_empty() {
            self.lines += 1;
            each(Line { bytes: &line, number: self.lines, is_cut: self.is_cut });
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        let room = self.limit - self.partial.len();
        self.is_cut |= bytes.len() > room;
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn give(&mut self, line: &[u8], each: &mut dyn FnMut(Line<'_>)) {
        self.lines += 1;
        let bytes = match self.separator {
            Separator::LineBreak => line.strip_suffix(b"\r").unwrap_or(line),
            Separator::Nul => line,
        };
        each(Line { bytes, number: self.lines, is_cut: std::mem::take(&mut self.is_cut) });
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
            let mut lines = Vec::new();
            splitter.feed(piece.as_bytes(), &mut |line| lines.push(show(&line)));
            given.push(lines);
        }
        let mut last = Vec::new();
        splitter.finish(&mut |line| last.push(show(&line)));
        given.push(last);
        given
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
