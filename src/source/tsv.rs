//! TSV as IANA registers it (text/tab-separated-values): fields with tabs between, rows with line breaks between,
//! and no quoting. A quote is a character like any other, as in `"We won," he said`.

use super::fields::{FieldSelection, FieldValue};
use super::lines::{Line, LineSplitter, Separator};
use super::table::Table;
use super::{Record, RecordReader, MAX_RECORD_BYTES, TOO_LONG};
use anyhow::Result;
use std::sync::Arc;

/// Reads a TSV that is fed piece by piece.
pub(super) struct TsvReader {
    lines: LineSplitter,
    table: Table,
}

impl TsvReader {
    pub(super) fn new(selection: FieldSelection) -> TsvReader {
        let lines = LineSplitter::new(Separator::LineBreak, MAX_RECORD_BYTES);
        TsvReader { lines, table: Table::new(selection, FieldValue::Tsv) }
    }
}

/// A line without any character is a blank record in its place, as in plain text.
fn record(table: &mut Table, line: &Line<'_>) -> Result<Option<Record>> {
    let record = if line.is_cut {
        Some(Record::malformed(TOO_LONG))
    } else if line.bytes.is_empty() && table.kept_names().is_some() && !table.is_single_column() {
        Some(Record::default())
    } else {
        table.record(&line.bytes.split(|&byte| byte == b'\t').collect::<Vec<_>>())?
    };
    Ok(record.map(|record| record.at_line(line.number)))
}

impl RecordReader for TsvReader {
    fn feed(&mut self, bytes: &[u8], records: &mut Vec<Record>) -> Result<()> {
        let mut outcome = Ok(());
        self.lines.feed(bytes, &mut |line| {
            if outcome.is_ok() {
                outcome = record(&mut self.table, &line).map(|record| records.extend(record));
            }
        });
        outcome
    }

    fn finish(&mut self, records: &mut Vec<Record>) -> Result<()> {
        let mut outcome = Ok(());
        self.lines.finish(&mut |line| outcome = record(&mut self.table, &line).map(|record| records.extend(record)));
        outcome
    }

    fn kept_names(&self) -> Option<&Arc<[String]>> {
        self.table.kept_names()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::KeptFields;

    fn read(tsv: &str) -> Vec<Record> {
        let mut reader = TsvReader::new(FieldSelection { kept: KeptFields::All, ..FieldSelection::default() });
        let mut records = Vec::new();
        reader.feed(tsv.as_bytes(), &mut records).unwrap();
        reader.finish(&mut records).unwrap();
        records
    }

    #[test]
    fn quotes_and_backslashes_are_characters() {
        let records = read("id\ttext\r\n1\t\"We won,\" he said\r\n2\tC:\\new\n");
        let texts: Vec<&str> = records.iter().map(|record| record.text.as_str()).collect();
        assert_eq!(texts, ["\"We won,\" he said", "C:\\new"]);
        assert_eq!(records[1].fields.as_ref().unwrap().kept.values[1], FieldValue::Tsv("C:\\new".into()));
    }

    #[test]
    fn every_line_keeps_its_place() {
        let records = read("id\ttext\n1\ta\n\n2\n3\tb");
        let lines: Vec<u64> = records.iter().map(|record| record.place.line).collect();
        assert_eq!(lines, [2, 3, 4, 5]);
        assert_eq!(records[1].text, "");
        assert!(records[1].malformed.is_none() && records[2].malformed.is_some());
        assert_eq!(read("text\na\n\nb\n")[1].fields.as_ref().unwrap().kept.values.len(), 1);
    }
}
