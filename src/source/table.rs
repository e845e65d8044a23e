//! Rows of a CSV or TSV to records: which column is which, and whether a row has as many as the others.

use super::fields::{find_column, text_columns, FieldSelection, KeptFields};
use super::reader::RecordReader;
use super::record::{Draft, FieldValue, Kept, Schema, Text};
use anyhow::{bail, Result};

/// One row, its fields decoded from the format but not from UTF-8.
pub(super) struct Row<'a> {
    /// None for an empty line.
    pub(super) fields: Vec<&'a [u8]>,
    /// Why the row cannot be read, as a clause about "it".
    pub(super) fault: Option<&'static str>,
    pub(super) first_line: u64,
    pub(super) last_line: u64,
}

/// Takes one row; an error ends the reading.
pub(super) type EachRow<'a> = dyn FnMut(Row<'_>) -> Result<()> + 'a;

/// Cuts a stream that is fed piece by piece into rows: what CSV and TSV differ in.
pub(super) trait Rows {
    /// Gives every row that `bytes` completes.
    fn feed(&mut self, bytes: &[u8], each: &mut EachRow<'_>) -> Result<()>;

    /// Gives the last row, if nothing has ended it.
    fn finish(&mut self, each: &mut EachRow<'_>) -> Result<()>;

    /// What a field copied to the output is.
    const VALUE: fn(String) -> FieldValue;

    /// Characters that make a header of one column look as if another delimiter was meant.
    fn doubtful_delimiters(&self) -> &'static [u8];
}

/// Reads a table, whose columns are known from its first row on.
pub(super) struct TableReader<R> {
    rows: R,
    selection: FieldSelection,
    columns: Option<Columns>,
}

struct Columns {
    width: usize,
    has_header: bool,
    text: Vec<usize>,
    text_pair: Option<usize>,
    label: Option<usize>,
    kept: Vec<usize>,
    schema: Schema,
}

impl<R: Rows> TableReader<R> {
    pub(super) fn new(rows: R, selection: FieldSelection) -> TableReader<R> {
        TableReader { rows, selection, columns: None }
    }

    /// Feeds the rows through `step`, which is one of the two of [`Rows`].
    fn read(
        &mut self,
        records: &mut Vec<Draft>,
        step: impl FnOnce(&mut R, &mut EachRow<'_>) -> Result<()>,
    ) -> Result<()> {
        let TableReader { rows, selection, columns } = self;
        let doubtful_delimiters = rows.doubtful_delimiters();
        step(rows, &mut |row| {
            let columns = match columns {
                Some(columns) => columns,
                // A table may begin with empty lines.
                None if row.fields.is_empty() && row.fault.is_none() => return Ok(()),
                None => {
                    let found = columns.insert(Columns::resolve(selection, &row, doubtful_delimiters)?);
                    if found.has_header {
                        return Ok(());
                    }
                    found
                }
            };
            records.push(columns.draft(&row, R::VALUE));
            Ok(())
        })
    }
}

impl<R: Rows> RecordReader for TableReader<R> {
    fn feed(&mut self, bytes: &[u8], records: &mut Vec<Draft>) -> Result<()> {
        self.read(records, |rows, each| rows.feed(bytes, each))
    }

    fn finish(&mut self, records: &mut Vec<Draft>) -> Result<()> {
        self.read(records, |rows, each| rows.finish(each))
    }

    fn schema(&self) -> Option<Schema> {
        self.columns.as_ref().map(|columns| columns.schema.clone())
    }
}

impl Columns {
    /// # Errors
    /// If the first row cannot be read, or lacks a field that was asked for.
    fn resolve(selection: &FieldSelection, first_row: &Row<'_>, doubtful_delimiters: &[u8]) -> Result<Columns> {
        if let Some(fault) = first_row.fault {
            bail!("line {}: {fault}", first_row.first_line);
        }
        let width = first_row.fields.len();
        let name = |name: &&[u8]| String::from_utf8_lossy(name).into_owned();
        let names: Option<Vec<String>> = selection.header.then(|| first_row.fields.iter().map(name).collect());
        let names = names.as_deref();
        let find = |wanted: &String| find_column(wanted, names, width);
        let column_name = |&place: &usize| names.map_or_else(|| (place + 1).to_string(), |names| names[place].clone());
        let (kept, schema) = match &selection.kept {
            KeptFields::None => (Vec::new(), Schema::Columns(Vec::new())),
            KeptFields::One(wanted) => {
                let place = find(wanted)?;
                (vec![place], Schema::Chosen(column_name(&place)))
            }
            KeptFields::All => ((0..width).collect(), Schema::Columns((0..width).map(|n| column_name(&n)).collect())),
        };
        Ok(Columns {
            width,
            has_header: selection.header,
            text: text_columns(&selection.text, names, width, doubtful_delimiters)?,
            text_pair: selection.text_pair.as_ref().map(find).transpose()?,
            label: selection.label.as_ref().map(find).transpose()?,
            kept,
            schema,
        })
    }

    fn draft(&self, row: &Row<'_>, value: fn(String) -> FieldValue) -> Draft {
        let field = |place: usize| row.fields.get(place).copied().unwrap_or_default();
        let decoded = |place: usize| String::from_utf8_lossy(field(place)).into_owned();
        let draft = match (row.fault, row.fields.len()) {
            (Some(fault), _) => Draft::malformed(row.first_line, fault.to_owned() + &row.extent()),
            (None, 0) => Draft::blank(row.first_line),
            (None, width) if width == self.width => {
                let text = Text::join(self.text.iter().map(|&place| field(place)));
                match self.text_pair {
                    Some(place) => Draft::pair(row.first_line, text, Text::from_bytes(field(place))),
                    None => Draft::text(row.first_line, text),
                }
            }
            (None, width) => {
                let other = if self.has_header { "the header" } else { "the first record" };
                let reason = format!("it has {}, {other} has {}{}", fields(width), self.width, row.extent());
                Draft::malformed(row.first_line, reason)
            }
        };
        // A row of another width is still copied as far as it goes, so that it can be found and mended.
        let kept = Kept::Row(self.kept.iter().map(|&place| value(decoded(place))).collect());
        Draft { gold: self.label.map(decoded), kept, ..draft }
    }
}

impl Row<'_> {
    /// What to add to a fault of a row that goes over several lines.
    fn extent(&self) -> String {
        match self.last_line > self.first_line {
            true => format!(" (it goes to line {}: is a quote unbalanced?)", self.last_line),
            false => String::new(),
        }
    }
}

fn fields(count: usize) -> String {
    if count == 1 {
        "1 field".into()
    } else {
        format!("{count} fields")
    }
}
