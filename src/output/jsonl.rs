//! JSON Lines: one object per record.

use super::{input_name, Columns, RecordFormat, Row};
use crate::decision::{Answer, Decider, Verdict};
use crate::explanation::{Explanation, Span};
use crate::prediction::{Extent, Problem};
use crate::source::{Content, FieldValue, Kept, Schema};
use serde::Serialize;
use std::io::{self, Write};

/// Writes objects: `file` and `line`, `start` and `end` of a window, the input's fields, then the answer (`label_id`, `label` and `score`; or `labels`,
/// an array of such objects; or `value`), and if they apply `words` (in each object of `labels` if there is one), `scores`, `truncated` or
/// `windows`, `text`, `text_pair`, `error`. A blank text has nulls. Scores are written with the fewest digits that read
/// back as the same float32.
pub(super) struct Jsonl {
    columns: Columns,
    problem: Problem,
    has_scores: bool,
    /// Of the input's columns; objects bring names of their own.
    kept_names: Vec<String>,
}

#[derive(Serialize)]
struct Entry<'a> {
    label_id: Option<usize>,
    label: &'a str,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<Vec<Word<'a>>>,
}

impl<'a> From<Answer<'a>> for Entry<'a> {
    fn from(answer: Answer<'a>) -> Entry<'a> {
        Entry { label_id: answer.label_id, label: answer.label, score: answer.score, words: None }
    }
}

/// A part of the text, from `start` to `end` in code points, and what the label owes to it.
#[derive(Serialize)]
struct Word<'a> {
    text: &'a str,
    start: usize,
    end: usize,
    value: f64,
}

fn words<'a>(text: &'a str, explanation: &Explanation) -> Vec<Word<'a>> {
    let word = |span: &Span| Word {
        text: &text[span.range.bytes.clone()],
        start: span.range.chars.start,
        end: span.range.chars.end,
        // More digits would be those of the arithmetic.
        value: (f64::from(span.value) * 1e4).round() / 1e4,
    };
    explanation.spans.iter().map(word).collect()
}

/// Keys that this format writes itself, beside those of the answer. The input's fields of the same name are renamed in
/// every record, not only in those that happen to have both.
const OWN_KEYS: [&str; 5] = ["words", "scores", "truncated", "windows", "error"];

/// The keys of the answer.
fn answer_keys(problem: Problem, columns: Columns) -> &'static [&'static str] {
    match problem {
        Problem::SingleLabel if columns.without_score => &["label_id", "label"],
        Problem::SingleLabel => &["label_id", "label", "score"],
        Problem::MultiLabel => &["labels"],
        Problem::Value => &["value"],
    }
}

impl Jsonl {
    pub(super) fn new(columns: Columns, decider: &Decider) -> Jsonl {
        let (problem, has_scores) = (decider.problem(), decider.top_k().is_some());
        Jsonl { columns, problem, has_scores, kept_names: Vec::new() }
    }

    /// The names under which these fields are written, each another one.
    fn output_names(&self, names: &[&str]) -> Vec<String> {
        let Columns { text, text_pair, filename, line_number, window, .. } = self.columns;
        let asked = [
            (text, "text"),
            (text_pair, "text_pair"),
            (filename, "file"),
            (line_number, "line"),
            (window, "start"),
            (window, "end"),
        ];
        let is_asked = |key: &str| asked.iter().any(|(is_asked, own)| *is_asked && *own == key);
        let is_own = |key: &str| {
            OWN_KEYS.contains(&key) || answer_keys(self.problem, self.columns).contains(&key) || is_asked(key)
        };
        let mut written: Vec<String> = Vec::with_capacity(names.len());
        for name in names {
            let name = input_name(name, names, is_own);
            let numbered = (2..).map(|number| format!("{name}_{number}"));
            let is_free = |key: &String| !written.contains(key) && (*key == name || !names.contains(&key.as_str()));
            let free = std::iter::once(name.clone().into_owned()).chain(numbered).find(is_free);
            written.push(free.expect("there are endlessly many numbers"));
        }
        written
    }
}

impl RecordFormat for Jsonl {
    fn begin(&mut self, _out: &mut dyn Write, schema: &Schema, _is_start: bool) -> io::Result<()> {
        self.kept_names = self.output_names(&schema.names().iter().map(String::as_str).collect::<Vec<_>>());
        Ok(())
    }

    fn record(&mut self, out: &mut dyn Write, row: Row<'_>) -> io::Result<()> {
        let Row { record, decision } = row;
        let (text, explanations) = (row.text(), decision.map_or(&[][..], |decision| &decision.explanations));
        let mut object = Object { out, is_empty: true };
        if self.columns.filename {
            object.field("file", &record.origin.input.to_string())?;
        }
        if self.columns.line_number {
            object.field("line", &record.origin.line)?;
        }
        if self.columns.window {
            object.field("start", &row.window().map(|range| range.chars.start))?;
            object.field("end", &row.window().map(|range| range.chars.end))?;
        }
        match &record.kept {
            Kept::Row(values) => object.kept(&self.kept_names, values.iter())?,
            Kept::Object(fields) => {
                let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
                object.kept(&self.output_names(&names), fields.iter().map(|(_, value)| value))?;
            }
        }
        match decision.map(|decision| &decision.verdict) {
            Some(Verdict::Label(answer)) => {
                object.field("label_id", &answer.label_id)?;
                // Without a name for it, the label of a low score is null.
                object.field("label", &Some(answer.label).filter(|label| !label.is_empty()))?;
                if !self.columns.without_score {
                    object.field("score", &answer.score)?;
                }
            }
            Some(Verdict::Labels(answers)) => {
                let mut entries = entries(answers);
                for (entry, explanation) in entries.iter_mut().zip(explanations) {
                    entry.words = Some(words(text, explanation));
                }
                object.field("labels", &entries)?;
            }
            Some(Verdict::Value(value)) => object.field("value", value)?,
            None => answer_keys(self.problem, self.columns).iter().try_for_each(|key| object.field(key, &()))?,
        }
        if self.columns.words && self.problem != Problem::MultiLabel {
            object.field("words", &explanations.first().map(|explanation| words(text, explanation)))?;
        }
        if self.has_scores {
            object.field("scores", &decision.map(|decision| entries(&decision.top)))?;
        }
        match decision.map(|decision| &decision.extent) {
            Some(Extent::Truncated) => object.field("truncated", &true)?,
            Some(Extent::Pooled(windows)) => object.field("windows", windows)?,
            Some(Extent::Whole | Extent::Window(_)) | None => {}
        }
        if self.columns.text {
            object.field("text", row.text())?;
        }
        if self.columns.text_pair {
            object.field("text_pair", &record.content.text_pair())?;
        }
        if let Content::Malformed(reason) = &record.content {
            object.field("error", reason)?;
        }
        object.end()
    }
}

fn entries<'a>(answers: &[Answer<'a>]) -> Vec<Entry<'a>> {
    answers.iter().copied().map(Entry::from).collect()
}

/// An object that is being written.
struct Object<'a> {
    out: &'a mut dyn Write,
    is_empty: bool,
}

impl Object<'_> {
    fn key(&mut self, key: &str) -> io::Result<()> {
        self.out.write_all(if std::mem::take(&mut self.is_empty) { b"{" } else { b"," })?;
        serde_json::to_writer(&mut self.out, key)?;
        self.out.write_all(b":")
    }

    fn field(&mut self, key: &str, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
        self.key(key)?;
        Ok(serde_json::to_writer(&mut self.out, value)?)
    }

    fn kept<'v>(&mut self, names: &[String], values: impl Iterator<Item = &'v FieldValue>) -> io::Result<()> {
        for (name, value) in names.iter().zip(values) {
            self.key(name)?;
            match value {
                FieldValue::Json(json) => self.out.write_all(json.as_bytes())?,
                FieldValue::Text(text) | FieldValue::Tsv(text) => serde_json::to_writer(&mut self.out, text)?,
            }
        }
        Ok(())
    }

    fn end(self) -> io::Result<()> {
        self.out.write_all(b"}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::{
        decider, decider_for, explained, malformed, prediction, record, written, written_explained,
    };
    use crate::output::{Format, RecordOptions};
    use crate::prediction::Prediction;
    use crate::source::Record;

    fn line_of(
        top_k: usize,
        columns: Columns,
        schema: &Schema,
        record: Record,
        prediction: Option<Prediction>,
    ) -> String {
        let options = RecordOptions { format: Format::Jsonl, header: true, columns };
        written(&options, &decider(&["no", "yes"], top_k, None), schema, &[record], &[prediction])
    }

    fn line(top_k: usize, columns: Columns, text: &str, prediction: Option<Prediction>) -> String {
        line_of(top_k, columns, &Schema::Columns(Vec::new()), record(text, Kept::default()), prediction)
    }

    fn yes() -> Option<Prediction> {
        Some(prediction(&[(1, 0.7), (0, 0.3)]))
    }

    const TEXT: Columns = Columns {
        text: true,
        text_pair: false,
        filename: false,
        line_number: false,
        window: false,
        score: false,
        without_score: false,
        words: false,
    };

    #[test]
    fn keys_are_there_if_asked_for() {
        let expected = "{\"label_id\":1,\"label\":\"yes\",\"score\":0.7}\n";
        assert_eq!(line(0, Columns::default(), "x", yes()), expected);
        let truncated = Some(Prediction { extent: Extent::Truncated, ..yes().unwrap() });
        assert_eq!(
            line(5, Columns::default(), "x", truncated),
            "{\"label_id\":1,\"label\":\"yes\",\"score\":0.7,\"scores\":[{\"label_id\":1,\"label\":\"yes\",\"score\":0.7},\
             {\"label_id\":0,\"label\":\"no\",\"score\":0.3}],\"truncated\":true}\n"
        );
        let place = Columns { filename: true, line_number: true, ..TEXT };
        assert!(line(0, place, "x", yes()).starts_with("{\"file\":\"a.txt\",\"line\":7,\"label_id\":1"));
    }

    #[test]
    fn blank_and_malformed_records_have_nulls() {
        let nulls = "{\"label_id\":null,\"label\":null,\"score\":null,\"scores\":null,\"text\":\"\"}\n";
        assert_eq!(line(2, TEXT, "", None), nulls);
        let schema = Schema::Columns(Vec::new());
        assert_eq!(
            line_of(0, Columns::default(), &schema, malformed("it is \"bad\""), None),
            "{\"label_id\":null,\"label\":null,\"score\":null,\"error\":\"it is \\\"bad\\\"\"}\n"
        );
    }

    #[test]
    fn scores_read_back_as_the_same_float() {
        for score in [0.1f32 + 0.2, 1.0 / 3.0, 1e-7, f32::MIN_POSITIVE, 0.99999994] {
            let json: serde_json::Value =
                serde_json::from_str(&line(0, Columns::default(), "x", Some(prediction(&[(1, score)])))).unwrap();
            assert_eq!(json["score"].as_f64().unwrap() as f32, score);
        }
    }

    #[test]
    fn no_key_occurs_twice() {
        let names = ["a", "a", "label", "text", "a_2", "input_text"].map(String::from).to_vec();
        let values = (0..6).map(|n| FieldValue::Text(n.to_string())).collect();
        let record = record("x", Kept::Row(values));
        let line = line_of(0, TEXT, &Schema::Columns(names), record, yes());
        assert!(
            line.starts_with(
                "{\"a\":\"0\",\"a_3\":\"1\",\"input_label\":\"2\",\"input_input_text\":\"3\",\"a_2\":\"4\",\
                 \"input_text\":\"5\",\"label_id\":1,"
            ),
            "{line}"
        );
    }

    #[test]
    fn several_labels_are_an_array_and_a_value_is_a_number() {
        let options = RecordOptions { format: Format::Jsonl, header: true, columns: Columns::default() };
        let of = |problem, prediction| {
            let record = record("x", Kept::Row(vec![FieldValue::Text("mine".into())]));
            let schema = Schema::Columns(vec!["label".into()]);
            written(&options, &decider_for(problem, &["no", "yes"], 0), &schema, &[record], &[prediction])
        };
        let label = "{\"label\":\"mine\",\"labels\":[{\"label_id\":1,\"label\":\"yes\",\"score\":0.7}]}\n";
        assert_eq!(of(Problem::MultiLabel, yes()), label);
        assert_eq!(of(Problem::MultiLabel, None), "{\"label\":\"mine\",\"labels\":null}\n");
        assert_eq!(of(Problem::Value, yes()), "{\"label\":\"mine\",\"value\":0.7}\n");
    }

    #[test]
    fn words_stand_with_their_label() {
        let columns = Columns { words: true, ..Columns::default() };
        let options = RecordOptions { format: Format::Jsonl, header: true, columns };
        let of = |decider, values: &[(usize, &[f32])]| {
            let case = explained("é to", prediction(&[(1, 0.7), (0, 0.3)]), values);
            written_explained(&options, &decider, &[case])
        };
        let words = "\"words\":[{\"text\":\"é\",\"start\":0,\"end\":1,\"value\":1.2346},\
                     {\"text\":\"to\",\"start\":2,\"end\":4,\"value\":-0.5}]";
        let values = [(1, &[1.23456, -0.5][..])];
        let yes = "\"label_id\":1,\"label\":\"yes\",\"score\":0.7,";
        assert_eq!(of(decider(&["no", "yes"], 0, None), &values), format!("{{{yes}{words}}}\n"));
        let several = decider_for(Problem::MultiLabel, &["no", "yes"], 0);
        assert_eq!(of(several, &values), format!("{{\"labels\":[{{{yes}{words}}}]}}\n"));
        let value = decider_for(Problem::Value, &["x", "y"], 0);
        assert_eq!(of(value, &values), format!("{{\"value\":0.7,{words}}}\n"));
    }

    #[test]
    fn objects_bring_their_own_names() {
        let fields =
            vec![("id".to_owned(), FieldValue::Json("7".into())), ("score".to_owned(), FieldValue::Json("[1]".into()))];
        let line = line_of(0, Columns::default(), &Schema::Objects, record("x", Kept::Object(fields)), yes());
        assert!(line.starts_with("{\"id\":7,\"input_score\":[1],\"label_id\":1,"), "{line}");
    }
}
