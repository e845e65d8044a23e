//! TSV as IANA registers it (text/tab-separated-values): fields separated by tabs, rows by line breaks, no quoting.
//! A quote is a character like any other, as in `"We won," he said`.

use super::lines::{Line, LineSplitter, Separator};
use super::reader::{MAX_RECORD_BYTES, TOO_LONG};
use super::record::FieldValue;
use super::table::{EachRow, Row, Rows};
use anyhow::Result;

/// The rows of a TSV that is fed piece by piece.
pub(super) struct TsvRows(LineSplitter);

impl TsvRows {
    pub(super) fn new() -> TsvRows {
        TsvRows(LineSplitter::new(Separator::LineBreak, MAX_RECORD_BYTES))
    }
}

impl Rows for TsvRows {
    const VALUE: fn(String) -> FieldValue = FieldValue::Tsv;

    fn feed(&mut self, bytes: &[u8], each: &mut EachRow<'_>) -> Result<()> {
        self.0.feed(bytes, &mut |line| each(row(&line)))
    }

    fn finish(&mut self, each: &mut EachRow<'_>) -> Result<()> {
        self.0.finish(&mut |line| each(row(&line)))
    }

    fn doubtful_delimiters(&self) -> &'static [u8] {
        b",;|"
    }
}

/// An empty line has no fields: a blank record in its place, as in plain input.
fn row<'a>(line: &Line<'a>) -> Row<'a> {
    let fields = match line.bytes.is_empty() {
        true => Vec::new(),
        false => line.bytes.split(|&byte| byte == b'\t').collect(),
    };
    let fault = line.is_cut.then_some(TOO_LONG);
    Row { fields, fault, first_line: line.number, last_line: line.number }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::{read as read_pieces, show, texts as texts_of};
    use crate::source::{FieldSelection, InputFormat, Kept, KeptFields, ReadOptions, Record};

    fn options() -> ReadOptions {
        let fields = FieldSelection { kept: KeptFields::All, ..FieldSelection::default() };
        ReadOptions { format: Some(InputFormat::Tsv), fields, ..ReadOptions::default() }
    }

    fn read(tsv: &str) -> Vec<Record> {
        read_pieces(&options(), &[tsv.as_bytes()]).unwrap()
    }

    #[test]
    fn quotes_and_backslashes_are_characters() {
        let records = read("id\ttext\r\n1\t\"We won,\" he said\r\n2\tC:\\new\n");
        assert_eq!(records.iter().map(show).collect::<Vec<_>>(), ["\"We won,\" he said", "C:\\new"]);
        assert_eq!(records[1].kept, Kept::Row(["2", "C:\\new"].map(|value| FieldValue::Tsv(value.into())).to_vec()));
    }

    #[test]
    fn every_line_keeps_its_place() {
        let records = read("id\ttext\n1\ta\n\n2\n3\tb");
        assert_eq!(records.iter().map(|record| record.origin.line).collect::<Vec<_>>(), [2, 3, 4, 5]);
        assert_eq!(records.iter().map(show).collect::<Vec<_>>(), ["a", "", "! it has 1 field, the header has 2", "b"]);
        assert_eq!(read("text\na\n\nb\n")[1].kept, Kept::Row(vec![FieldValue::Tsv(String::new())]));
    }

    #[test]
    fn empty_lines_before_the_header_are_skipped() {
        assert_eq!(texts_of(&options(), "\n\r\nid\ttext\n1\ta\n"), ["a"]);
    }
}
