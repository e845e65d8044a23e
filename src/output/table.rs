//! TSV and CSV: a row per record, in columns that all records share.

use super::{input_name, words, Columns, RecordFormat, RecordOptions, Row};
use crate::decision::{Answer, Decider, Decision, Verdict};
use crate::explanation::{Explanation, Span};
use crate::prediction::Problem;
use crate::source::{FieldValue, Kept, Schema};
use std::borrow::Cow;
use std::io::{self, Write};

/// How cells become a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Tabs between cells; tabs, line breaks and backslashes in them are escaped with a backslash.
    Tsv,
    /// RFC 4180, lines ending with LF.
    Csv,
}

/// What stands between the input's fields and the text.
enum AnswerCells {
    /// Id, label and score of this many classes.
    Classes(usize),
    /// Ids, labels and scores of all labels that apply, each list in a cell.
    Lists,
    /// The value.
    Value,
}

/// What separates the items of a list in a cell.
const LIST_SEPARATOR: &str = "|";

/// Writes rows.
pub(super) struct Table {
    dialect: Dialect,
    columns: Columns,
    has_header: bool,
    answers: AnswerCells,
    /// How many columns are the input's own.
    kept_count: usize,
}

impl Table {
    pub(super) fn new(dialect: Dialect, options: &RecordOptions, decider: &Decider) -> Table {
        let score = options.columns.score || dialect == Dialect::Csv || decider.top_k().is_some();
        let score = score && !options.columns.without_score;
        Table {
            dialect,
            columns: Columns { score, ..options.columns },
            has_header: options.header,
            answers: match (decider.problem(), decider.top_k()) {
                (Problem::Value, _) => AnswerCells::Value,
                (Problem::MultiLabel, None) => AnswerCells::Lists,
                (_, top_k) => AnswerCells::Classes(top_k.unwrap_or(1)),
            },
            kept_count: 0,
        }
    }

    /// The names of the columns: file and line, the input's, those of the label, `label_id_2` and so on, the text.
    fn header(&self, kept_names: &[String]) -> Vec<String> {
        let Columns { filename, line_number, window, .. } = self.columns;
        let place = [(filename, "file"), (line_number, "line"), (window, "start"), (window, "end")];
        let place = place.into_iter().filter(|(is_asked, _)| *is_asked).map(|(_, name)| name.to_owned());
        let names: &[&str] = if self.columns.score { &["label_id", "label", "score"] } else { &["label_id", "label"] };
        let ranked = |rank: usize| {
            names.iter().map(move |name| if rank == 1 { (*name).to_owned() } else { format!("{name}_{rank}") })
        };
        let mut own: Vec<String> = match self.answers {
            AnswerCells::Classes(count) => (1..=count).flat_map(ranked).collect(),
            AnswerCells::Lists => ranked(1).collect(),
            AnswerCells::Value => vec!["value".to_owned()],
        };
        let texts = [(self.columns.words, "words"), (self.columns.text, "text"), (self.columns.text_pair, "text_pair")];
        own.extend(texts.into_iter().filter(|(is_asked, _)| *is_asked).map(|(_, name)| name.to_owned()));
        let place: Vec<String> = place.collect();
        let others: Vec<&str> = kept_names.iter().map(String::as_str).collect();
        let is_own = |name: &str| place.iter().chain(&own).any(|own| own == name);
        let kept = others.iter().map(|name| input_name(name, &others, is_own).into_owned()).collect();
        [place.clone(), kept, own].concat()
    }
}

impl RecordFormat for Table {
    fn begin(&mut self, out: &mut dyn Write, schema: &Schema, is_start: bool) -> io::Result<()> {
        self.kept_count = schema.names().len();
        if !(is_start && self.has_header) {
            return Ok(());
        }
        let mut row = RowWriter::new(self.dialect, out);
        for name in self.header(schema.names()) {
            row.cell(&name)?;
        }
        row.end()
    }

    fn record(&mut self, out: &mut dyn Write, source: Row<'_>) -> io::Result<()> {
        let Row { record, decision } = source;
        let mut row = RowWriter::new(self.dialect, out);
        if self.columns.filename {
            row.cell(&record.origin.input.to_string())?;
        }
        if self.columns.line_number {
            row.cell(&record.origin.line.to_string())?;
        }
        if self.columns.window {
            let range = source.window().map(|range| [range.chars.start, range.chars.end].map(|at| at.to_string()));
            range.unwrap_or_default().iter().try_for_each(|place| row.cell(place))?;
        }
        for place in 0..self.kept_count {
            let value = match &record.kept {
                Kept::Row(values) => values.get(place),
                Kept::Object(_) => None,
            };
            match value {
                Some(value) => row.kept(value)?,
                None => row.cell("")?,
            }
        }
        self.answer_cells(&mut row, decision)?;
        if self.columns.words {
            let explanations = decision.map_or(&[][..], |decision| &decision.explanations);
            let cells: Vec<String> = explanations.iter().map(|one| self.words(source.text(), one)).collect();
            row.cell(&cells.join(LIST_SEPARATOR))?;
        }
        if self.columns.text {
            row.cell(source.text())?;
        }
        if self.columns.text_pair {
            row.cell(record.content.text_pair())?;
        }
        row.end()
    }

    fn takes_any_schema(&self) -> bool {
        false
    }
}

impl Table {
    fn answer_cells(&self, row: &mut RowWriter<'_>, decision: Option<&Decision<'_>>) -> io::Result<()> {
        match (&self.answers, decision.map(|decision| &decision.verdict)) {
            (AnswerCells::Classes(count), _) => {
                let mut answers = decision.into_iter().flat_map(|decision| decision.answers());
                (0..*count).try_for_each(|_| self.class(row, answers.next().as_slice()))
            }
            (AnswerCells::Lists, Some(Verdict::Labels(answers))) => self.class(row, answers),
            (AnswerCells::Lists, _) => self.class(row, &[]),
            (AnswerCells::Value, Some(Verdict::Value(value))) => row.cell(&self.number(*value)),
            (AnswerCells::Value, _) => row.cell(""),
        }
    }

    /// Id, label and score, of several labels as lists.
    fn class(&self, row: &mut RowWriter<'_>, answers: &[Answer<'_>]) -> io::Result<()> {
        let list =
            |cell: &dyn Fn(&Answer<'_>) -> String| answers.iter().map(cell).collect::<Vec<_>>().join(LIST_SEPARATOR);
        row.cell(&list(&|answer| answer.label_id.map_or_else(String::new, |id| id.to_string())))?;
        row.cell(&list(&|answer| answer.label.to_owned()))?;
        match self.columns.score {
            true => row.cell(&list(&|answer| self.number(answer.score))),
            false => Ok(()),
        }
    }

    /// `word:value` of each span, with spaces between them. Of a span of several words, the first and the last.
    fn words(&self, text: &str, explanation: &Explanation) -> String {
        let word = |span: &Span| match self.dialect {
            Dialect::Tsv => format!("{}:{:.2}", words::name(text, span), span.value),
            Dialect::Csv => format!("{}:{}", words::name(text, span), span.value),
        };
        explanation.spans.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    /// TSV is for people too: six decimal places; CSV for programs: the fewest digits that read back as the same
    /// float32.
    fn number(&self, number: f32) -> String {
        match self.dialect {
            Dialect::Tsv => format!("{number:.6}"),
            Dialect::Csv => number.to_string(),
        }
    }
}

/// One row that is being written.
struct RowWriter<'a> {
    dialect: Dialect,
    out: &'a mut dyn Write,
    csv: csv_core::Writer,
    is_first: bool,
}

impl<'a> RowWriter<'a> {
    fn new(dialect: Dialect, out: &'a mut dyn Write) -> RowWriter<'a> {
        let csv = csv_core::WriterBuilder::new().terminator(csv_core::Terminator::Any(b'\n')).build();
        RowWriter { dialect, out, csv, is_first: true }
    }

    fn cell(&mut self, text: &str) -> io::Result<()> {
        self.raw_cell(&match self.dialect {
            Dialect::Tsv => escape(text),
            Dialect::Csv => Cow::Borrowed(text),
        })
    }

    /// A field of a TSV stays as it stands there: it holds no tab and no line feed.
    fn kept(&mut self, value: &FieldValue) -> io::Result<()> {
        match (self.dialect, value) {
            (Dialect::Tsv, FieldValue::Tsv(field)) => self.raw_cell(&field.replace('\r', "\\r")),
            (_, value) => self.cell(&value.as_text()),
        }
    }

    fn raw_cell(&mut self, mut text: &str) -> io::Result<()> {
        let is_first = std::mem::take(&mut self.is_first);
        match self.dialect {
            Dialect::Tsv => {
                self.out.write_all(if is_first { b"" } else { b"\t" })?;
                self.out.write_all(text.as_bytes())
            }
            Dialect::Csv => {
                if !is_first {
                    self.csv(|csv, out| csv.delimiter(out))?;
                }
                self.csv(|csv, out| {
                    let (result, read, written) = csv.field(text.as_bytes(), out);
                    text = &text[read..];
                    (result, written)
                })
            }
        }
    }

    fn end(mut self) -> io::Result<()> {
        match self.dialect {
            Dialect::Tsv => self.out.write_all(b"\n"),
            Dialect::Csv => self.csv(|csv, out| csv.terminator(out)),
        }
    }

    /// Repeats a step of csv-core's writer until it has found room for all of its output.
    fn csv(
        &mut self,
        mut step: impl FnMut(&mut csv_core::Writer, &mut [u8]) -> (csv_core::WriteResult, usize),
    ) -> io::Result<()> {
        let mut buffer = [0; 1024];
        loop {
            let (result, written) = step(&mut self.csv, &mut buffer);
            self.out.write_all(&buffer[..written])?;
            if result == csv_core::WriteResult::InputEmpty {
                return Ok(());
            }
        }
    }
}

impl FieldValue {
    /// The text of a field: of a JSON string what it says, of null nothing, of any other JSON value its JSON.
    fn as_text(&self) -> Cow<'_, str> {
        match self {
            FieldValue::Text(text) | FieldValue::Tsv(text) => Cow::Borrowed(text),
            FieldValue::Json(json) if json == "null" => Cow::Borrowed(""),
            FieldValue::Json(json) => match serde_json::from_str::<String>(json) {
                Ok(text) => Cow::Owned(text),
                Err(_) => Cow::Borrowed(json),
            },
        }
    }
}

/// Backslash escapes for what would break a row: labels come from a file or the command line, the input's fields from
/// anywhere.
pub(super) fn escape(field: &str) -> Cow<'_, str> {
    if !field.contains(['\t', '\n', '\r', '\\']) {
        return Cow::Borrowed(field);
    }
    let mut escaped = String::with_capacity(field.len() + 4);
    for c in field.chars() {
        match c {
            '\t' => escaped.push_str("\\t"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\\' => escaped.push_str("\\\\"),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::{decider, decider_for, prediction, record, written};
    use crate::output::Format;

    fn options(format: Format, columns: Columns) -> RecordOptions {
        RecordOptions { format, header: true, columns }
    }

    fn rows(format: Format, top_k: usize, columns: Columns, schema: &Schema, kept: Vec<FieldValue>) -> String {
        let decider = decider(&["no", "yes, \"indeed\"", "tab\t"], top_k, None);
        let records = [record("a text", Kept::Row(kept)), record("", Kept::default())];
        let predictions = [Some(prediction(&[(1, 0.75), (2, 0.150_000_1), (0, 0.0999999)])), None];
        written(&options(format, columns), &decider, schema, &records, &predictions)
    }

    fn plain(format: Format, top_k: usize, columns: Columns) -> String {
        rows(format, top_k, columns, &Schema::Columns(Vec::new()), Vec::new())
    }

    #[test]
    fn cells_and_their_order() {
        let score = Columns { score: true, ..Columns::default() };
        assert_eq!(plain(Format::Tsv, 0, Columns::default()), "label_id\tlabel\n1\tyes, \"indeed\"\n\t\n");
        assert_eq!(plain(Format::Tsv, 0, score), "label_id\tlabel\tscore\n1\tyes, \"indeed\"\t0.750000\n\t\t\n");
        assert_eq!(
            plain(Format::Tsv, 2, Columns::default()),
            "label_id\tlabel\tscore\tlabel_id_2\tlabel_2\tscore_2\n\
             1\tyes, \"indeed\"\t0.750000\t2\ttab\\t\t0.150000\n\t\t\t\t\t\n"
        );
        assert_eq!(
            plain(Format::Csv, 0, Columns::default()),
            "label_id,label,score\n1,\"yes, \"\"indeed\"\"\",0.75\n,,\n"
        );
    }

    #[test]
    fn place_and_text_stand_at_the_ends() {
        let columns = Columns { filename: true, line_number: true, text: true, ..Columns::default() };
        assert_eq!(
            plain(Format::Tsv, 0, columns),
            "file\tline\tlabel_id\tlabel\ttext\na.txt\t7\t1\tyes, \"indeed\"\ta text\na.txt\t7\t\t\t\n"
        );
    }

    #[test]
    fn kept_fields_come_first_and_stay_on_their_line() {
        let schema = Schema::Columns(["x\ty", "label", "z", "w"].map(String::from).to_vec());
        let values = vec![
            FieldValue::Text("tab\tand\nline, back\\slash".into()),
            FieldValue::Tsv("back\\slash \"quoted\r".into()),
            FieldValue::Json("\"a\\nb\"".into()),
            FieldValue::Json("null".into()),
        ];
        assert_eq!(
            rows(Format::Tsv, 0, Columns::default(), &schema, values.clone()),
            "x\\ty\tinput_label\tz\tw\tlabel_id\tlabel\n\
             tab\\tand\\nline, back\\\\slash\tback\\slash \"quoted\\r\ta\\nb\t\t1\tyes, \"indeed\"\n\t\t\t\t\t\n"
        );
        assert_eq!(
            rows(Format::Csv, 0, Columns::default(), &schema, values),
            "x\ty,input_label,z,w,label_id,label,score\n\"tab\tand\nline, back\\slash\",\
             \"back\\slash \"\"quoted\r\",\"a\nb\",,1,\"yes, \"\"indeed\"\"\",0.75\n,,,,,,\n"
        );
    }

    #[test]
    fn several_labels_are_lists_and_a_value_is_a_column() {
        let records = [record("a", Kept::default()), record("b", Kept::default()), record("", Kept::default())];
        let predictions = [Some(prediction(&[(1, 0.75), (0, 0.5)])), Some(prediction(&[(1, 0.25), (0, 0.125)])), None];
        let schema = Schema::Columns(Vec::new());
        let of = |problem, format, columns, top_k| {
            let decider = decider_for(problem, &["no", "yes"], top_k);
            written(&options(format, columns), &decider, &schema, &records, &predictions)
        };
        let plain = Columns::default();
        assert_eq!(of(Problem::MultiLabel, Format::Tsv, plain, 0), "label_id\tlabel\n1|0\tyes|no\n\t\n\t\n");
        assert_eq!(
            of(Problem::MultiLabel, Format::Csv, plain, 0),
            "label_id,label,score\n1|0,yes|no,0.75|0.5\n,,\n,,\n"
        );
        let top = of(Problem::MultiLabel, Format::Csv, plain, 1);
        assert_eq!(top, "label_id,label,score\n1,yes,0.75\n1,yes,0.25\n,,\n");
        assert_eq!(of(Problem::Value, Format::Csv, plain, 0), "value\n0.75\n0.25\n\"\"\n");
        assert_eq!(of(Problem::Value, Format::Tsv, plain, 0), "value\n0.750000\n0.250000\n\n");
    }

    #[test]
    fn columns_of_the_input_never_hide_the_label() {
        let names = ["id", "label", "input_label", "label_id_2", "labels"].map(String::from);
        let table = |top_k, score| {
            let columns = Columns { score, ..Columns::default() };
            Table::new(Dialect::Tsv, &options(Format::Tsv, columns), &decider(&["a", "b", "c"], top_k, None))
        };
        assert_eq!(
            table(2, false).header(&names).join(" "),
            "id input_input_label input_label input_label_id_2 labels label_id label score label_id_2 label_2 score_2"
        );
        assert_eq!(table(0, false).header(&[]), ["label_id", "label"]);
    }

    #[test]
    fn long_cells_are_whole() {
        let columns = Columns { text: true, ..Columns::default() };
        let text = "\"a,\" ".repeat(5_000);
        let records = [record(&text, Kept::default())];
        let decider = decider(&["no", "yes"], 0, None);
        let options = options(Format::Csv, columns);
        let csv = written(&options, &decider, &Schema::Columns(Vec::new()), &records, &[Some(prediction(&[(0, 1.0)]))]);
        assert!(csv.ends_with(&format!("0,no,1,\"{}\"\n", text.replace('"', "\"\""))));
    }
}
