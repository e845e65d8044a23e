//! How many texts got each label.

use super::{RecordFormat, Row};
use crate::decision::{Decider, Verdict};
use crate::source::Schema;
use std::io::{self, Write};

/// Writes `id<TAB>label<TAB>count` at the end, for each label in id order; then, if there were any, texts whose score
/// was too low, and records without a label, whose names are as empty as in the other formats.
pub(super) struct Count {
    labels: Vec<(String, u64)>,
    unsure_name: String,
    unsure: u64,
    without: u64,
}

impl Count {
    pub(super) fn new(decider: &Decider) -> Count {
        Count {
            labels: decider.labels().iter().map(|label| (label.clone(), 0)).collect(),
            unsure_name: decider.unsure_name().unwrap_or_default().to_owned(),
            unsure: 0,
            without: 0,
        }
    }
}

impl RecordFormat for Count {
    fn begin(&mut self, _out: &mut dyn Write, _schema: &Schema, _is_start: bool) -> io::Result<()> {
        Ok(())
    }

    fn record(&mut self, _out: &mut dyn Write, row: Row<'_>) -> io::Result<()> {
        let label_ids = row.decision.map_or_else(Vec::new, |decision| decision.label_ids());
        label_ids.iter().for_each(|&label_id| self.labels[label_id].1 += 1);
        match row.decision.map(|decision| &decision.verdict) {
            Some(Verdict::Label(_)) if label_ids.is_empty() => self.unsure += 1,
            _ if label_ids.is_empty() => self.without += 1,
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        for (id, (label, count)) in self.labels.iter().enumerate() {
            writeln!(out, "{id}\t{}\t{count}", super::table::escape(label))?;
        }
        if self.unsure > 0 {
            writeln!(out, "\t{}\t{}", super::table::escape(&self.unsure_name), self.unsure)?;
        }
        if self.without > 0 {
            writeln!(out, "\t\t{}", self.without)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::output::testing::{decider, prediction, record, written};
    use crate::output::{Columns, Format, RecordOptions};
    use crate::source::{Kept, Schema};

    #[test]
    fn every_record_is_counted_once() {
        let options = RecordOptions { format: Format::Count, header: true, columns: Columns::default() };
        let records: Vec<_> = (0..5).map(|_| record("x", Kept::default())).collect();
        let best = |id, score| Some(prediction(&[(id, score)]));
        let predictions = [best(1, 0.9), best(1, 0.8), best(0, 0.9), best(0, 0.2), None];
        let decider = decider(&["no", "yes", "maybe"], 0, Some(0.5));
        let counts = written(&options, &decider, &Schema::Columns(Vec::new()), &records, &predictions);
        assert_eq!(counts, "0\tno\t1\n1\tyes\t2\n2\tmaybe\t0\n\t?\t1\n\t\t1\n");
    }
}
