//! Comma-separated records as RFC 4180 quotes them, lines ending with LF.

use super::{Classes, Row};
use crate::source::FieldValue;
use std::borrow::Cow;
use std::io::{self, Write};

pub(super) fn write_header(out: &mut impl Write, columns: &[String]) -> io::Result<()> {
    for (place, column) in columns.iter().enumerate() {
        if place > 0 {
            out.write_all(b",")?;
        }
        write_field(out, column)?;
    }
    out.write_all(b"\n")
}

/// The `kept` fields carried through, then `id,label,score` of `class_count` classes. Scores are written with the
/// fewest digits that read back as the same float32.
pub(super) fn write(
    out: &mut impl Write,
    classes: &Classes,
    kept: usize,
    class_count: usize,
    row: Row<'_>,
) -> io::Result<()> {
    for place in 0..kept {
        if let Some(value) = row.kept.and_then(|kept| kept.values.get(place)) {
            write_field(out, &value.as_text())?;
        }
        out.write_all(b",")?;
    }
    match row.prediction {
        None => write!(out, "{}", ",".repeat(3 * class_count - 1))?,
        Some(prediction) => {
            for (place, answer) in classes.top(prediction, class_count).enumerate() {
                if place > 0 {
                    out.write_all(b",")?;
                }
                if let Some(id) = answer.label_id {
                    write!(out, "{id}")?;
                }
                out.write_all(b",")?;
                write_field(out, answer.label)?;
                write!(out, ",{}", answer.score)?;
            }
        }
    }
    out.write_all(b"\n")
}

fn write_field(out: &mut impl Write, field: &str) -> io::Result<()> {
    match field.contains([',', '"', '\n', '\r']) {
        true => write!(out, "\"{}\"", field.replace('"', "\"\"")),
        false => out.write_all(field.as_bytes()),
    }
}

impl FieldValue {
    /// The text of a field: of a JSON string what it says, of null nothing, of other JSON values their JSON.
    pub(super) fn as_text(&self) -> Cow<'_, str> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{RecordFormat, RecordOptions, RecordWriter, Unsure};
    use crate::prediction::{Prediction, ScoredLabel};
    use crate::source::Kept;
    use std::num::NonZeroUsize;
    use std::sync::Arc;

    fn prediction() -> Prediction {
        let ranking = vec![ScoredLabel { label_id: 1, score: 0.7 }, ScoredLabel { label_id: 0, score: 0.3 }];
        Prediction { ranking, truncated: false }
    }

    fn written(top_k: usize, min_score: f32, kept: &[(&str, FieldValue)], prediction: Option<&Prediction>) -> String {
        let options = RecordOptions {
            format: RecordFormat::Csv { top_k: NonZeroUsize::new(top_k) },
            header: true,
            unsure: Some(Unsure { min_score, name: "?".into() }),
        };
        let names: Arc<[String]> = kept.iter().map(|(name, _)| name.to_string()).collect();
        let kept = Kept { names: names.clone(), values: kept.iter().map(|(_, value)| value.clone()).collect() };
        let mut out = Vec::new();
        let mut writer = RecordWriter::new(&mut out, options, &["no".into(), "yes, \"indeed\"".into()]);
        writer.begin(names, true).unwrap();
        writer.write(Row { text: "text", prediction, malformed: None, kept: Some(&kept) }).unwrap();
        writer.write(Row::default()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(
            written(0, 0.0, &[], Some(&prediction())),
            "label_id,label,score\n1,\"yes, \"\"indeed\"\"\",0.7\n,,\n"
        );
        let kept = [
            ("a,b", FieldValue::Text("two\nlines\r".into())),
            ("score", FieldValue::Json("\"x\\ty\"".into())),
            ("c", FieldValue::Json("[1,2]".into())),
            ("d", FieldValue::Json("null".into())),
        ];
        assert_eq!(
            written(2, 0.0, &kept, Some(&prediction())),
            "\"a,b\",input_score,c,d,label_id,label,score,label_id_2,label_2,score_2\n\
             \"two\nlines\r\",x\ty,\"[1,2]\",,1,\"yes, \"\"indeed\"\"\",0.7,0,no,0.3\n,,,,,,,,,\n"
        );
    }

    #[test]
    fn a_low_score_stands_without_its_class() {
        assert!(written(0, 0.7, &[], Some(&prediction())).contains("\n1,"));
        assert!(written(0, 0.75, &[], Some(&prediction())).contains("\n,?,0.7\n"));
        assert!(written(2, 0.75, &[], Some(&prediction())).contains("\n,?,0.7,0,no,0.3\n"));
    }
}
