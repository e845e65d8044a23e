//! One JSON object a line.

use super::{input_name, Answer, Classes, Row};
use crate::source::{FieldValue, Kept};
use serde::Serialize;
use std::io::{self, Write};

#[derive(Serialize)]
struct Entry<'a> {
    label_id: Option<usize>,
    label: &'a str,
    score: f32,
}

impl<'a> From<Answer<'a>> for Entry<'a> {
    fn from(answer: Answer<'a>) -> Entry<'a> {
        Entry { label_id: answer.label_id, label: answer.label, score: answer.score }
    }
}

/// Keys that this format writes itself. Those of the input are called otherwise, in every record: not only where the
/// record happens to have both.
const OWN_KEYS: [&str; 6] = ["label_id", "label", "score", "scores", "truncated", "error"];

/// The fields carried through, then `label_id`, `label`, `score`, and where they apply `scores`, `truncated`, `text`,
/// `error`. Blank texts have nulls. Scores are written with the fewest digits that read back as the same float32.
pub(super) fn write(
    out: &mut impl Write,
    classes: &Classes,
    top_k: Option<usize>,
    with_text: bool,
    row: Row<'_>,
) -> io::Result<()> {
    let mut object = Object { out, is_empty: true };
    if let Some(kept) = row.kept {
        object.kept(kept, with_text)?;
    }
    let best = row.prediction.map(|prediction| classes.best(prediction));
    object.field("label_id", &best.as_ref().map(|best| best.label_id))?;
    // No id and no name: the score is too low, and nothing was to stand for it.
    let label = best.as_ref().map(|best| best.label).filter(|label| !label.is_empty());
    object.field("label", &label)?;
    object.field("score", &best.as_ref().map(|best| best.score))?;
    if let Some(k) = top_k {
        let entries = |ranking: &[crate::prediction::ScoredLabel]| {
            ranking.iter().take(k).map(|&scored| Entry::from(classes.answer(scored))).collect::<Vec<_>>()
        };
        object.field("scores", &row.prediction.map(|prediction| entries(&prediction.ranking)))?;
    }
    if row.prediction.is_some_and(|prediction| prediction.truncated) {
        object.field("truncated", &true)?;
    }
    if with_text {
        object.field("text", &row.text)?;
    }
    if let Some(reason) = row.malformed {
        object.field("error", &reason)?;
    }
    object.end()
}

/// An object that is being written.
struct Object<W: Write> {
    out: W,
    is_empty: bool,
}

impl<W: Write> Object<W> {
    fn key(&mut self, key: &str) -> io::Result<()> {
        self.out.write_all(if std::mem::take(&mut self.is_empty) { b"{" } else { b"," })?;
        serde_json::to_writer(&mut self.out, key)?;
        self.out.write_all(b":")
    }

    fn field(&mut self, key: &str, value: &impl Serialize) -> io::Result<()> {
        self.key(key)?;
        Ok(serde_json::to_writer(&mut self.out, value)?)
    }

    fn kept(&mut self, kept: &Kept, with_text: bool) -> io::Result<()> {
        let is_reserved = |key: &str| OWN_KEYS.contains(&key) || with_text && key == "text";
        for (name, value) in kept.names.iter().zip(&kept.values) {
            self.key(&input_name(name, &kept.names, is_reserved))?;
            match value {
                FieldValue::Json(json) => self.out.write_all(json.as_bytes())?,
                FieldValue::Text(text) | FieldValue::Tsv(text) => serde_json::to_writer(&mut self.out, text)?,
            }
        }
        Ok(())
    }

    fn end(mut self) -> io::Result<()> {
        self.out.write_all(b"}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{RecordFormat, RecordOptions, RecordWriter, Unsure};
    use crate::prediction::{Prediction, ScoredLabel};
    use std::num::NonZeroUsize;

    fn line_of(top_k: usize, with_text: bool, unsure: Option<Unsure>, row: Row<'_>) -> String {
        let format = RecordFormat::Jsonl { top_k: NonZeroUsize::new(top_k), with_text };
        let options = RecordOptions { format, header: true, unsure };
        let mut out = Vec::new();
        RecordWriter::new(&mut out, options, &["no", "yes"].map(String::from)).write(row).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn line(top_k: usize, text: &str, with_text: bool, prediction: Option<&Prediction>) -> String {
        line_of(top_k, with_text, None, Row { text, prediction, ..Row::default() })
    }

    fn prediction(truncated: bool) -> Prediction {
        let ranking = vec![ScoredLabel { label_id: 1, score: 0.7 }, ScoredLabel { label_id: 0, score: 0.3 }];
        Prediction { ranking, truncated }
    }

    #[test]
    fn keys_are_there_where_asked_for() {
        assert_eq!(line(0, "x", false, Some(&prediction(false))), "{\"label_id\":1,\"label\":\"yes\",\"score\":0.7}\n");
        assert_eq!(
            line(5, "x", false, Some(&prediction(true))),
            "{\"label_id\":1,\"label\":\"yes\",\"score\":0.7,\"scores\":[{\"label_id\":1,\"label\":\"yes\",\"score\":0.7},\
             {\"label_id\":0,\"label\":\"no\",\"score\":0.3}],\"truncated\":true}\n"
        );
    }

    #[test]
    fn the_text_is_escaped_and_reads_back() {
        let text = "tab\tline\r\nquote\"\\ nul\0 \u{2028} é";
        let line = line(0, text, true, Some(&prediction(false)));
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.contains('\t') && !line.contains('\r'));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["text"], text);
    }

    #[test]
    fn blank_texts_have_nulls() {
        assert_eq!(
            line(1, "", true, None),
            "{\"label_id\":null,\"label\":null,\"score\":null,\"scores\":null,\"text\":\"\"}\n"
        );
    }

    #[test]
    fn fields_of_the_input_are_carried_and_never_hide_the_prediction() {
        let names = ["label", "n", "input_label", "text"].map(String::from).as_slice().into();
        let values = vec![
            FieldValue::Json("\"gold\"".into()),
            FieldValue::Json("1.50".into()),
            FieldValue::Text("a\nb".into()),
            FieldValue::Tsv("t".into()),
        ];
        let kept = Kept { names, values };
        let row = Row { text: "t", prediction: Some(&prediction(false)), malformed: None, kept: Some(&kept) };
        assert_eq!(
            line_of(0, false, None, row),
            "{\"input_input_label\":\"gold\",\"n\":1.50,\"input_label\":\"a\\nb\",\"text\":\"t\",\
             \"label_id\":1,\"label\":\"yes\",\"score\":0.7}\n"
        );
        assert!(line_of(0, true, None, row).contains("\"input_text\":\"t\","));
    }

    #[test]
    fn a_low_score_has_no_class_and_a_malformed_record_its_reason() {
        let row = Row { prediction: Some(&prediction(false)), ..Row::default() };
        let unsure = |name: &str| Some(Unsure { min_score: 0.71, name: name.into() });
        assert_eq!(line_of(0, false, unsure(""), row), "{\"label_id\":null,\"label\":null,\"score\":0.7}\n");
        assert_eq!(line_of(0, false, unsure("?"), row), "{\"label_id\":null,\"label\":\"?\",\"score\":0.7}\n");
        let row = Row { malformed: Some("it is \"bad\""), ..Row::default() };
        assert_eq!(
            line_of(0, false, None, row),
            "{\"label_id\":null,\"label\":null,\"score\":null,\"error\":\"it is \\\"bad\\\"\"}\n"
        );
    }
}
