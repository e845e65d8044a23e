//! One JSON object a line.

use crate::prediction::{Prediction, ScoredLabel};
use serde::Serialize;
use std::io::{self, Write};

/// A record, in the order of its keys. Blank texts have nulls.
#[derive(Serialize)]
struct Object<'a> {
    label_id: Option<usize>,
    label: Option<&'a str>,
    score: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scores: Option<Option<Vec<Entry<'a>>>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

#[derive(Serialize)]
struct Entry<'a> {
    label_id: usize,
    label: &'a str,
    score: f32,
}

/// Scores are written with the fewest digits that read back as the same float32.
pub(super) fn write(
    out: &mut impl Write,
    labels: &[String],
    top_k: Option<usize>,
    text: Option<&str>,
    prediction: Option<&Prediction>,
) -> io::Result<()> {
    let entry = |scored: &ScoredLabel| Entry {
        label_id: scored.label_id,
        label: &labels[scored.label_id],
        score: scored.score,
    };
    let best = prediction.map(|prediction| entry(&prediction.best()));
    let object = Object {
        label_id: best.as_ref().map(|best| best.label_id),
        label: best.as_ref().map(|best| best.label),
        score: best.as_ref().map(|best| best.score),
        scores: top_k.map(|k| prediction.map(|prediction| prediction.ranking.iter().take(k).map(entry).collect())),
        truncated: prediction.is_some_and(|prediction| prediction.truncated),
        text,
    };
    serde_json::to_writer(&mut *out, &object)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{RecordFormat, RecordWriter};
    use std::num::NonZeroUsize;

    fn line(top_k: usize, text: &str, with_text: bool, prediction: Option<&Prediction>) -> String {
        let labels = ["no", "yes"].map(String::from);
        let mut out = Vec::new();
        let format = RecordFormat::Jsonl { top_k: NonZeroUsize::new(top_k), with_text };
        RecordWriter::new(&mut out, format, &labels).write(text, prediction).unwrap();
        String::from_utf8(out).unwrap()
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
}
