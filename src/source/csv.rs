//! CSV (RFC 4180): quoted fields may hold commas, quotes and line breaks; rows end with CRLF, LF or CR.
//!
//! As most readers of CSV do, this one skips lines without any character, and takes a quote inside an unquoted field
//! as it stands.

use super::fields::{FieldSelection, FieldValue};
use super::table::Table;
use super::{Record, RecordReader, MAX_RECORD_BYTES};
use anyhow::Result;
use csv_core::ReadRecordResult;
use std::sync::Arc;

/// Reads a CSV that is fed piece by piece.
pub(super) struct CsvReader {
    rows: RowReader,
    table: Table,
}

impl CsvReader {
    pub(super) fn new(selection: FieldSelection) -> CsvReader {
        CsvReader { rows: RowReader::new(MAX_RECORD_BYTES), table: Table::new(selection, FieldValue::Text) }
    }

    fn take_row(table: &mut Table, row: &Row<'_>, records: &mut Vec<Record>) -> Result<()> {
        let mut record = match row.fault {
            Some(fault) => Some(Record::malformed(fault)),
            None => table.record(&row.fields())?,
        };
        if let Some(record) = &mut record {
            record.place.line = row.first_line;
            if let (Some(reason), true) = (&mut record.malformed, row.last_line > row.first_line) {
                reason.push_str(&format!(" (it goes to line {}: is a quote unbalanced?)", row.last_line));
            }
        }
        records.extend(record);
        Ok(())
    }
}

impl RecordReader for CsvReader {
    fn feed(&mut self, bytes: &[u8], records: &mut Vec<Record>) -> Result<()> {
        self.rows.feed(bytes, &mut |row| CsvReader::take_row(&mut self.table, &row, records))
    }

    fn finish(&mut self, records: &mut Vec<Record>) -> Result<()> {
        self.rows.finish(&mut |row| CsvReader::take_row(&mut self.table, &row, records))
    }

    fn kept_names(&self) -> Option<&Arc<[String]>> {
        self.table.kept_names()
    }
}

/// The fields of one row, quotes resolved.
struct Row<'a> {
    /// The fields' bytes one behind the other.
    bytes: &'a [u8],
    /// The end of each field in `bytes`.
    ends: &'a [usize],
    fault: Option<&'static str>,
    first_line: u64,
    last_line: u64,
}

impl<'a> Row<'a> {
    fn fields(&self) -> Vec<&'a [u8]> {
        let mut start = 0;
        let field = |&end: &usize| &self.bytes[std::mem::replace(&mut start, end)..end];
        self.ends.iter().map(field).collect()
    }
}

/// Rows of a stream of bytes: drives csv-core's state machine, which holds nothing but its state.
struct RowReader {
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

type EachRow<'a> = dyn FnMut(Row<'_>) -> Result<()> + 'a;

impl RowReader {
    fn new(limit: usize) -> RowReader {
        RowReader {
            machine: csv_core::Reader::new(),
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

    /// Gives every row that `input` completes.
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

    /// Gives the last row, where no line break ends it.
    fn finish(&mut self, each: &mut EachRow<'_>) -> Result<()> {
        if !self.is_inside {
            return Ok(());
        }
        // A line break ends every row but one that is inside quotes.
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
        let fault = if self.is_cut { Some("it is longer than 64 MiB") } else { fault };
        // What is left of a row beyond the limit are no fields.
        let fields = if self.is_cut { 0 } else { self.ends_length };
        let row = Row {
            bytes: &self.bytes[..self.bytes_length],
            ends: &self.ends[..fields],
            fault,
            first_line: self.first_line,
            last_line,
        };
        let given = each(row);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Kept, KeptFields};

    fn read(selection: FieldSelection, pieces: &[&[u8]]) -> Result<Vec<Record>> {
        let mut reader = CsvReader::new(selection);
        let mut records = Vec::new();
        for piece in pieces {
            reader.feed(piece, &mut records)?;
        }
        reader.finish(&mut records)?;
        Ok(records)
    }

    fn texts(csv: &str) -> Vec<String> {
        let whole = read(FieldSelection::default(), &[csv.as_bytes()]).unwrap();
        let bytes: Vec<&[u8]> = csv.as_bytes().chunks(1).collect();
        assert_eq!(read(FieldSelection::default(), &bytes).unwrap(), whole, "byte by byte");
        whole.iter().map(|record| record.malformed.clone().map_or(record.text.clone(), |m| format!("! {m}"))).collect()
    }

    #[test]
    fn rows_as_rfc_4180_has_them() {
        assert_eq!(texts("text\na\n"), ["a"]);
        assert_eq!(texts("text\r\n\"a, \"\"b\"\"\r\nc\"\r\nd"), ["a, \"b\"\r\nc", "d"]);
        assert_eq!(texts("id,text\n1,\"\"\n2,\n3, x \n"), ["", "", " x "]);
        assert_eq!(texts("id,text\n1,say \"no\"\n"), ["say \"no\""]);
        assert_eq!(texts("text\n\n\na\r\n\r\nb\n\n"), ["a", "b"], "lines without a character are no rows");
        assert_eq!(texts("text\n \n"), [" "]);
        assert_eq!(texts("id,text\r1,a\r2,b\r"), ["a", "b"]);
        assert!(texts("").is_empty() && texts("text").is_empty() && texts("text\n").is_empty());
    }

    #[test]
    fn malformed_rows_keep_their_places() {
        assert_eq!(
            texts("id,text\n1,a\n2\n3,b,c\n4,d\n"),
            ["a", "! it has 1 field, the header 2", "! it has 3 fields, the header 2", "d"]
        );
        assert_eq!(
            texts("id,text\n1,a\n2,\"b\n3,c\n"),
            ["a", "! a quote that opens one of its fields is never closed (it goes to line 5: is a quote unbalanced?)"]
        );
        assert_eq!(
            texts("id,text\n1,\"a\n2,b\n3,\"c\n4,d\n").last().unwrap(),
            "d",
            "a quote swallows what stands before the next one, and no more"
        );
    }

    #[test]
    fn fields_are_joined_kept_and_compared() {
        let selection = FieldSelection {
            text: vec!["title".into(), "3".into()],
            label: Some("id".into()),
            kept: KeptFields::One("body".into()),
            header: true,
        };
        let records = read(selection, &[b"id,title,body\n7,t,\xff\n"]).unwrap();
        let [record] = records.as_slice() else { panic!("{records:?}") };
        assert_eq!((record.text.as_str(), record.had_invalid_utf8, record.place.line), ("t \u{fffd}", true, 2));
        let kept = Kept { names: Arc::from(["body".to_owned()]), values: vec![FieldValue::Text("\u{fffd}".into())] };
        assert_eq!(record.fields.as_deref(), Some(&crate::source::Fields { gold: Some("7".into()), kept }));
    }

    #[test]
    fn without_a_header_columns_have_numbers() {
        let selection = |text: &str| FieldSelection {
            text: vec![text.into()],
            kept: KeptFields::All,
            header: false,
            ..FieldSelection::default()
        };
        let records = read(selection("2"), &[b"1,a\n2,b\n3\n"]).unwrap();
        assert_eq!(records.iter().map(|record| record.text.as_str()).collect::<Vec<_>>(), ["a", "b", ""]);
        assert_eq!(records[2].malformed.as_deref(), Some("it has 1 field, the first record 2"));
        assert_eq!(records[0].fields.as_ref().unwrap().kept.names.join(" "), "1 2");
        assert!(read(selection("text"), &[b"text,a\n"]).is_err());
    }

    #[test]
    fn a_missing_column_is_an_error_that_lists_those_there_are() {
        let error = read(FieldSelection::default(), &[b"a,b\n1,2\n"]).unwrap_err().to_string();
        assert!(error.contains("\"a\", \"b\""), "{error}");
    }

    #[test]
    fn a_row_beyond_the_limit_is_malformed_and_the_next_is_whole() {
        let csv = [b"a,\"".as_slice(), &b"x".repeat(100_000), b"\",", &b",".repeat(50_000), b"\nb,c\n"].concat();
        let mut rows = RowReader::new(10_000);
        let mut seen = Vec::new();
        for piece in csv.chunks(1_000) {
            rows.feed(piece, &mut |row| {
                seen.push((row.fault.is_some(), row.fields().len()));
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(seen, [(true, 0), (false, 2)]);
    }
}
