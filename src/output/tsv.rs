//! Tab-separated records.

use super::{Answer, Classes, Row};
use crate::source::FieldValue;
use std::borrow::Cow;
use std::io::{self, Write};

pub(super) fn write_header(out: &mut impl Write, columns: &[String]) -> io::Result<()> {
    let columns: Vec<Cow<'_, str>> = columns.iter().map(|column| escape(column)).collect();
    writeln!(out, "{}", columns.join("\t"))
}

/// The `kept` fields carried through, then `id<TAB>label[<TAB>score]` of `class_count` classes.
pub(super) fn write(
    out: &mut impl Write,
    classes: &Classes,
    kept: usize,
    scores: bool,
    class_count: usize,
    row: Row<'_>,
) -> io::Result<()> {
    for place in 0..kept {
        if let Some(value) = row.kept.and_then(|kept| kept.values.get(place)) {
            write_kept(out, value)?;
        }
        out.write_all(b"\t")?;
    }
    match row.prediction {
        None => write!(out, "{}", "\t".repeat(if scores { 3 } else { 2 } * class_count - 1))?,
        Some(prediction) => {
            for (place, answer) in classes.top(prediction, class_count).enumerate() {
                if place > 0 {
                    out.write_all(b"\t")?;
                }
                write_answer(out, &answer, scores)?;
            }
        }
    }
    out.write_all(b"\n")
}

fn write_answer(out: &mut impl Write, answer: &Answer<'_>, scores: bool) -> io::Result<()> {
    if let Some(id) = answer.label_id {
        write!(out, "{id}")?;
    }
    write!(out, "\t{}", escape(answer.label))?;
    if scores {
        write!(out, "\t{:.6}", answer.score)?;
    }
    Ok(())
}

/// A field of a TSV stays as it stands there: it has no tab or line feed in it.
fn write_kept(out: &mut impl Write, value: &FieldValue) -> io::Result<()> {
    match value {
        FieldValue::Tsv(field) if !field.contains('\r') => out.write_all(field.as_bytes()),
        FieldValue::Tsv(field) => out.write_all(field.replace('\r', "\\r").as_bytes()),
        other => out.write_all(escape(&other.as_text()).as_bytes()),
    }
}

/// Backslash escapes for what would break a record: names of classes come from a file or the command line, fields
/// that are carried through from anywhere.
fn escape(field: &str) -> Cow<'_, str> {
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
    use crate::output::{RecordFormat, RecordOptions, RecordWriter, Unsure};
    use crate::prediction::{Prediction, ScoredLabel};
    use crate::source::Kept;
    use std::num::NonZeroUsize;
    use std::sync::Arc;

    fn prediction() -> Prediction {
        let scored = |label_id, score| ScoredLabel { label_id, score };
        Prediction { ranking: vec![scored(1, 0.75), scored(0, 0.1500001), scored(2, 0.0999999)], truncated: false }
    }

    fn writer(out: &mut Vec<u8>, scores: bool, top_k: usize, min_score: f32) -> RecordWriter<&mut Vec<u8>> {
        let options = RecordOptions {
            format: RecordFormat::Tsv { scores, top_k: NonZeroUsize::new(top_k) },
            header: true,
            unsure: Some(Unsure { min_score, name: "not\tsure".into() }),
        };
        RecordWriter::new(out, options, &["a", "b\tc", "d"].map(String::from))
    }

    fn write(scores: bool, top_k: usize, min_score: f32, prediction: Option<&Prediction>) -> String {
        let mut out = Vec::new();
        let row = Row { text: "text", prediction, ..Row::default() };
        writer(&mut out, scores, top_k, min_score).write(row).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_and_their_order() {
        let prediction = prediction();
        assert_eq!(write(false, 0, 0.0, Some(&prediction)), "1\tb\\tc\n");
        assert_eq!(write(true, 0, 0.0, Some(&prediction)), "1\tb\\tc\t0.750000\n");
        assert_eq!(write(false, 2, 0.0, Some(&prediction)), "1\tb\\tc\t0.750000\t0\ta\t0.150000\n");
        assert_eq!(write(true, 0, 0.8, Some(&prediction)), "\tnot\\tsure\t0.750000\n");
    }

    #[test]
    fn a_blank_text_has_as_many_fields_all_empty() {
        for (scores, top_k) in [(false, 0), (true, 0), (false, 1), (false, 2), (false, 9)] {
            let full = write(scores, top_k, 0.0, Some(&prediction()));
            let blank = write(scores, top_k, 0.0, None);
            assert_eq!(full.matches('\t').count(), blank.matches('\t').count());
            assert!(blank.trim_end_matches('\n').chars().all(|c| c == '\t'));
        }
    }

    #[test]
    fn kept_fields_come_first_and_stay_on_their_line() {
        let names: Arc<[String]> = Arc::from(["x\ty".to_owned(), "label".to_owned(), "z".to_owned()]);
        let values = vec![
            FieldValue::Text("tab\tand\nline, back\\slash".into()),
            FieldValue::Tsv("back\\slash \"quoted\r".into()),
            FieldValue::Json("\"a\\nb\"".into()),
        ];
        let kept = Kept { names: names.clone(), values };
        let mut out = Vec::new();
        let mut writer = writer(&mut out, false, 0, 0.0);
        writer.begin(names, true).unwrap();
        writer.write(Row { prediction: Some(&prediction()), kept: Some(&kept), ..Row::default() }).unwrap();
        writer.write(Row::default()).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "x\\ty\tinput_label\tz\tlabel_id\tlabel\n\
             tab\\tand\\nline, back\\\\slash\tback\\slash \"quoted\\r\ta\\nb\t1\tb\\tc\n\t\t\t\t\n"
        );
    }
}
