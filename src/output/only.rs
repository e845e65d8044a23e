//! The texts of some labels and nothing else: a search by meaning.

use super::{Columns, RecordFormat, Row};
use crate::source::Schema;
use std::fmt;
use std::io::{self, Write};

/// Writes the texts that got one of the labels.
pub(super) struct Only {
    label_ids: Vec<usize>,
    null: bool,
    columns: Columns,
}

/// A label that the checkpoint does not have.
#[derive(Debug)]
pub struct UnknownLabel {
    wanted: String,
    labels: Vec<String>,
}

impl fmt::Display for UnknownLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no label {:?}: the labels are {}", self.wanted, self.labels.join(", "))
    }
}

impl std::error::Error for UnknownLabel {}

impl Only {
    /// `wanted` are names in any case, or ids.
    pub(super) fn new(
        wanted: &[String],
        null: bool,
        columns: Columns,
        labels: &[String],
    ) -> Result<Only, UnknownLabel> {
        let find = |wanted: &String| {
            let same = |label: &String| label.to_lowercase() == wanted.to_lowercase();
            let id = labels.iter().position(|label| label == wanted).or_else(|| labels.iter().position(same));
            id.or_else(|| wanted.parse().ok().filter(|id| *id < labels.len()))
                .ok_or_else(|| UnknownLabel { wanted: wanted.clone(), labels: labels.to_vec() })
        };
        Ok(Only { label_ids: wanted.iter().map(find).collect::<Result<_, _>>()?, null, columns })
    }
}

impl RecordFormat for Only {
    fn begin(&mut self, _out: &mut dyn Write, _schema: &Schema, _is_start: bool) -> io::Result<()> {
        Ok(())
    }

    fn record(&mut self, out: &mut dyn Write, row: Row<'_>) -> io::Result<()> {
        let Row { record, decision } = row;
        let label_ids = decision.map_or_else(Vec::new, |decision| decision.label_ids());
        if !label_ids.iter().any(|id| self.label_ids.contains(id)) {
            return Ok(());
        }
        if self.columns.filename {
            write!(out, "{}:", record.origin.input)?;
        }
        if self.columns.line_number {
            write!(out, "{}:", record.origin.line)?;
        }
        let text = row.text();
        match self.null {
            true => write!(out, "{text}\0"),
            // One line per text, as far as whoever reads this can tell.
            false => writeln!(out, "{}", text.replace(['\n', '\r'], " ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::{decider, prediction, record, written};
    use crate::output::{Format, RecordOptions};
    use crate::source::Kept;

    fn only(labels: &[&str], null: bool, columns: Columns) -> String {
        let labels = labels.iter().map(|label| label.to_string()).collect();
        let options = RecordOptions { format: Format::Only { labels, null }, header: true, columns };
        let records = ["first", "two\nlines", "", "third"].map(|text| record(text, Kept::default()));
        let best = |id| Some(prediction(&[(id, 0.9)]));
        let decider = decider(&["World", "Sports", "0"], 0, None);
        written(&options, &decider, &Schema::Columns(Vec::new()), &records, &[best(0), best(1), None, best(2)])
    }

    #[test]
    fn texts_of_the_labels_in_order() {
        assert_eq!(only(&["sports"], false, Columns::default()), "two lines\n");
        assert_eq!(only(&["SPORTS", "World"], true, Columns::default()), "first\0two\nlines\0");
        assert_eq!(only(&["0"], false, Columns::default()), "third\n", "a name goes before an id");
        let place = Columns { filename: true, line_number: true, ..Columns::default() };
        assert_eq!(only(&["1"], false, place), "a.txt:7:two lines\n");
    }

    #[test]
    fn an_unknown_label_is_an_error_that_lists_the_labels() {
        let error = Only::new(&["x".into()], false, Columns::default(), &["World".into()]).err().unwrap();
        assert_eq!(error.to_string(), "there is no label \"x\": the labels are World");
    }
}
