//! CSV (RFC 4180): quoted fields may hold commas, quotes and line breaks; rows end with CRLF, LF or CR.
//!
//! Like most readers of CSV, this one skips empty lines, and takes a quote inside an unquoted field as it stands.

use super::reader::{MAX_RECORD_BYTES, TOO_LONG};
use super::record::FieldValue;
use super::table::{EachRow, Row, Rows};
use anyhow::Result;
use csv_core::ReadRecordResult;

/// The rows of a CSV that is fed piece by piece: drives csv-core's state machine, which holds nothing but its state.
pub(super) struct CsvRows {
    has_given_delimiter: bool,
    machine: csv_core::Reader,
    limit: usize,
    bytes: Vec<u8>,
    bytes_length: usize,
    ends: Vec<usize>,
    ends_length: usize,
    is_inside: bool,
    is_cut: bool,
    line: u64,
    first_line: u64,
}

/// Room for a row of this many bytes at first.
const FIRST_BYTES: usize = 1024;

/// Room for a row of this many fields at first.
const FIRST_ENDS: usize = 16;

impl CsvRows {
    /// `delimiter` separates fields; `None` is a comma.
    pub(super) fn new(delimiter: Option<u8>) -> CsvRows {
        CsvRows::with_limit(delimiter, MAX_RECORD_BYTES)
    }

    fn with_limit(delimiter: Option<u8>, limit: usize) -> CsvRows {
        CsvRows {
            has_given_delimiter: delimiter.is_some(),
            machine: csv_core::ReaderBuilder::new().delimiter(delimiter.unwrap_or(b',')).build(),
            limit,
            bytes: vec![0; FIRST_BYTES],
            bytes_length: 0,
            ends: vec![0; FIRST_ENDS],
            ends_length: 0,
            is_inside: false,
            is_cut: false,
            line: 1,
            first_line: 1,
        }
    }

    fn skip_line_breaks<'a>(&mut self, input: &'a [u8]) -> &'a [u8] {
        let length = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.line += input[..length].iter().filter(|&&byte| byte == b'\n').count() as u64;
        &input[length..]
    }

    /// One step: whether a row is whole now, and how many bytes were read.
    fn advance(&mut self, input: &[u8]) -> (bool, usize) {
        let bytes = &mut self.bytes[self.bytes_length..];
        let ends = &mut self.ends[self.ends_length..];
        let (result, read, written, ended) = self.machine.read_record(input, bytes, ends);
        self.bytes_length += written;
        self.ends_length += ended;
        match result {
            ReadRecordResult::OutputFull => self.make_room(),
            ReadRecordResult::OutputEndsFull => self.make_room(),
            ReadRecordResult::InputEmpty | ReadRecordResult::End => {}
            ReadRecordResult::Record => return (true, read),
        }
        (false, read)
    }

    /// Grows what is full; a row beyond the limit is read to its end, but not held.
    fn make_room(&mut self) {
        let held = self.bytes_length + self.ends_length * size_of::<usize>();
        if held > self.limit || self.is_cut {
            self.is_cut = true;
            self.bytes_length = 0;
            self.ends_length = 0;
            return;
        }
        if self.bytes_length == self.bytes.len() {
            self.bytes.resize(2 * self.bytes.len(), 0);
        }
        if self.ends_length == self.ends.len() {
            self.ends.resize(2 * self.ends.len(), 0);
        }
    }

    fn give(&mut self, last_line: u64, fault: Option<&'static str>, each: &mut EachRow<'_>) -> Result<()> {
        // What is left of a row beyond the limit is not fields.
        let ends = if self.is_cut { &[] } else { &self.ends[..self.ends_length] };
        let mut start = 0;
        let fields = ends.iter().map(|&end| &self.bytes[std::mem::replace(&mut start, end)..end]).collect();
        let fault = if self.is_cut { Some(TOO_LONG) } else { fault };
        let given = each(Row { fields, fault, first_line: self.first_line, last_line });
        self.bytes_length = 0;
        self.ends_length = 0;
        self.is_inside = false;
        if std::mem::take(&mut self.is_cut) {
            self.bytes = vec![0; FIRST_BYTES];
            self.ends = vec![0; FIRST_ENDS];
        }
        given
    }
}

impl Rows for CsvRows {
    const VALUE: fn(String) -> FieldValue = FieldValue::Text;

    fn feed(&mut self, mut input: &[u8], each: &mut EachRow<'_>) -> Result<()> {
        loop {
            if !self.is_inside {
                input = self.skip_line_breaks(input);
            }
            // The machine takes an empty input for the end of the file.
            if input.is_empty() {
                return Ok(());
            }
            if !self.is_inside {
                self.is_inside = true;
                self.first_line = self.line;
            }
            let (is_whole, read) = self.advance(input);
            let row = &input[..read];
            input = &input[read..];
            self.line += memchr::memchr_iter(b'\n', row).count() as u64;
            if is_whole {
                let last_line = self.line - u64::from(row.ends_with(b"\n"));
                self.give(last_line, None, each)?;
            }
        }
    }

    fn finish(&mut self, each: &mut EachRow<'_>) -> Result<()> {
        if !self.is_inside {
            return Ok(());
        }
        // A line break ends every row but one inside quotes.
        let is_whole = loop {
            match self.advance(b"\n") {
                (is_whole, 1) => break is_whole,
                // Nothing read: the machine wanted more room first.
                _ => continue,
            }
        };
        let fault = (!is_whole).then_some("a quote that opens one of its fields is never closed");
        self.give(self.line, fault, each)
    }

    fn doubtful_delimiters(&self) -> &'static [u8] {
        if self.has_given_delimiter {
            b""
        } else {
            b";\t|"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::{read as read_pieces, show, texts as texts_of};
    use crate::source::{FieldSelection, InputFormat, Kept, KeptFields, ReadOptions, Record};

    fn options(fields: FieldSelection) -> ReadOptions {
        ReadOptions { format: Some(InputFormat::Csv), fields, ..ReadOptions::default() }
    }

    fn read(fields: FieldSelection, csv: &[u8]) -> Result<Vec<Record>> {
        read_pieces(&options(fields), &[csv])
    }

    fn texts(csv: &str) -> Vec<String> {
        texts_of(&options(FieldSelection::default()), csv)
    }

    #[test]
    fn rows_as_rfc_4180_has_them() {
        assert_eq!(texts("text\na\n"), ["a"]);
        assert_eq!(texts("text\r\n\"a, \"\"b\"\"\r\nc\"\r\nd"), ["a, \"b\"\r\nc", "d"]);
        assert_eq!(texts("id,text\n1,\"\"\n2,\n3, x \n"), ["", "", " x "]);
        assert_eq!(texts("id,text\n1,say \"no\"\n"), ["say \"no\""]);
        assert_eq!(texts("text\n\n\na\r\n\r\nb\n\n"), ["a", "b"], "empty lines are no rows");
        assert_eq!(texts("text\n \n"), [" "]);
        assert_eq!(texts("id,text\r1,a\r2,b\r"), ["a", "b"]);
        assert!(texts("").is_empty() && texts("text").is_empty() && texts("text\n").is_empty());
    }

    #[test]
    fn malformed_rows_keep_their_places() {
        assert_eq!(
            texts("id,text\n1,a\n2\n3,b,c\n4,d\n"),
            ["a", "! it has 1 field, the header has 2", "! it has 3 fields, the header has 2", "d"]
        );
        assert_eq!(
            texts("id,text\n1,a\n2,\"b\n3,c\n"),
            ["a", "! a quote that opens one of its fields is never closed (it goes to line 5: is a quote unbalanced?)"]
        );
        assert_eq!(
            texts("id,text\n1,\"a\n2,b\n3,\"c\n4,d\n").last().unwrap(),
            "d",
            "a quote swallows what comes before the next one, and no more"
        );
    }

    #[test]
    fn a_header_that_cannot_be_read_is_an_error() {
        let error = read(FieldSelection::default(), b"\"text\na\n").unwrap_err();
        assert!(format!("{error:#}").contains("line 1: a quote that opens"), "{error:#}");
    }

    #[test]
    fn other_delimiters() {
        let fields = FieldSelection::default();
        let options = ReadOptions { delimiter: Some(b';'), ..options(fields) };
        assert_eq!(texts_of(&options, "id;text\n1;\"a;b\"\n2;c,d\n"), ["a;b", "c,d"]);
        let error = read(FieldSelection::default(), b"id;text\n1;a\n").unwrap_err();
        assert!(format!("{error:#}").contains("separated by ';'"), "{error:#}");
    }

    #[test]
    fn fields_are_joined_kept_and_compared() {
        let selection = FieldSelection {
            text: vec!["title".into(), "3".into()],
            label: Some("id".into()),
            kept: KeptFields::One("body".into()),
            ..FieldSelection::default()
        };
        let records = read(selection, b"id,title,body\n7,t,\xff\n").unwrap();
        let [record] = records.as_slice() else { panic!("{records:?}") };
        assert_eq!((show(record).as_str(), record.was_invalid_utf8, record.origin.line), ("t \u{fffd}", true, 2));
        assert_eq!(record.kept, Kept::Row(vec![FieldValue::Text("\u{fffd}".into())]));
        assert_eq!(record.gold.as_deref(), Some("7"));
    }

    #[test]
    fn a_ragged_row_keeps_the_fields_that_it_has() {
        let selection = FieldSelection { kept: KeptFields::All, ..FieldSelection::default() };
        let records = read(selection, b"id,text\n1\n2,a,b\n").unwrap();
        let row = |values: [&str; 2]| Kept::Row(values.map(|value| FieldValue::Text(value.into())).to_vec());
        assert_eq!([&records[0].kept, &records[1].kept], [&row(["1", ""]), &row(["2", "a"])]);
    }

    #[test]
    fn without_a_header_columns_have_numbers() {
        let selection = |text: &str| FieldSelection {
            text: vec![text.into()],
            kept: KeptFields::All,
            header: false,
            ..FieldSelection::default()
        };
        let records = read(selection("2"), b"1,a\n2,b\n3\n").unwrap();
        let shown: Vec<String> = records.iter().map(show).collect();
        assert_eq!(shown, ["a", "b", "! it has 1 field, the first record has 2"]);
        assert!(read(selection("text"), b"text,a\n").is_err());
    }

    #[test]
    fn a_missing_column_is_an_error_that_lists_those_there_are() {
        let error = format!("{:#}", read(FieldSelection::default(), b"a,b\n1,2\n").unwrap_err());
        assert!(error.contains("\"a\", \"b\""), "{error}");
    }

    #[test]
    fn a_row_beyond_the_limit_is_malformed_and_the_next_is_whole() {
        let csv = [b"a,\"".as_slice(), &b"x".repeat(100_000), b"\",", &b",".repeat(50_000), b"\nb,c\n"].concat();
        let mut rows = CsvRows::with_limit(None, 10_000);
        let mut seen = Vec::new();
        for piece in csv.chunks(1_000) {
            rows.feed(piece, &mut |row| {
                seen.push((row.fault.is_some(), row.fields.len()));
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(seen, [(true, 0), (false, 2)]);
    }
}
