//! Rows of a CSV or TSV to records: which column is which, and whether a row has as many as the others.

use super::fields::{default_text_column, find_column, FieldSelection, FieldValue, Fields, Kept, KeptFields};
use super::{Record, Text};
use anyhow::Result;
use std::sync::Arc;

/// The columns of one file, known from its first row on.
pub(super) struct Table {
    selection: FieldSelection,
    value: fn(String) -> FieldValue,
    columns: Option<Columns>,
}

struct Columns {
    width: usize,
    has_header: bool,
    text: Vec<usize>,
    label: Option<usize>,
    kept: Vec<usize>,
    kept_names: Arc<[String]>,
}

impl Table {
    /// `value` says what a field that is carried through is: of a CSV or of a TSV.
    pub(super) fn new(selection: FieldSelection, value: fn(String) -> FieldValue) -> Table {
        Table { selection, value, columns: None }
    }

    /// Names of the fields carried through, once the first row has been read.
    pub(super) fn kept_names(&self) -> Option<&Arc<[String]>> {
        self.columns.as_ref().map(|columns| &columns.kept_names)
    }

    /// Whether there is a first row, and it has one column only.
    pub(super) fn is_single_column(&self) -> bool {
        self.columns.as_ref().is_some_and(|columns| columns.width == 1)
    }

    /// The record of a row; `None` for the header.
    ///
    /// # Errors
    /// For the first row, where a field asked for is not there.
    pub(super) fn record(&mut self, row: &[&[u8]]) -> Result<Option<Record>> {
        match &self.columns {
            Some(columns) => Ok(Some(columns.record(row, self.value))),
            None => {
                let columns = Columns::resolve(&self.selection, row)?;
                let record = (!columns.has_header).then(|| columns.record(row, self.value));
                self.columns = Some(columns);
                Ok(record)
            }
        }
    }
}

impl Columns {
    fn resolve(selection: &FieldSelection, first_row: &[&[u8]]) -> Result<Columns> {
        let width = first_row.len();
        let names: Option<Vec<String>> =
            selection.header.then(|| first_row.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect());
        let names = names.as_deref();
        let find = |wanted: &String| find_column(wanted, names, width);
        let text = match selection.text.as_slice() {
            [] => vec![default_text_column(names, width)?],
            wanted => wanted.iter().map(find).collect::<Result<_>>()?,
        };
        let kept: Vec<usize> = match &selection.kept {
            KeptFields::None => Vec::new(),
            KeptFields::One(wanted) => vec![find(wanted)?],
            KeptFields::All => (0..width).collect(),
        };
        let name = |&place: &usize| names.map_or_else(|| (place + 1).to_string(), |names| names[place].clone());
        Ok(Columns {
            width,
            has_header: selection.header,
            text,
            label: selection.label.as_ref().map(find).transpose()?,
            kept_names: kept.iter().map(name).collect(),
            kept,
        })
    }

    fn record(&self, row: &[&[u8]], value: fn(String) -> FieldValue) -> Record {
        if row.len() != self.width {
            let other = if self.has_header { "header" } else { "first record" };
            return Record::malformed(format!("it has {}, the {other} {}", fields(row.len()), self.width));
        }
        let mut text = Text::from_bytes(row[self.text[0]]);
        for &place in &self.text[1..] {
            text.join(Text::from_bytes(row[place]));
        }
        let decoded = |place: usize| String::from_utf8_lossy(row[place]).into_owned();
        let fields = (self.label.is_some() || !self.kept.is_empty()).then(|| {
            let values = self.kept.iter().map(|&place| value(decoded(place))).collect();
            let kept = Kept { names: self.kept_names.clone(), values };
            Box::new(Fields { gold: self.label.map(decoded), kept })
        });
        Record { fields, ..Record::from(text) }
    }
}

fn fields(count: usize) -> String {
    if count == 1 {
        "1 field".into()
    } else {
        format!("{count} fields")
    }
}
