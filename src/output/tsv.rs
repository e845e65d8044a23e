//! Tab-separated records.

use crate::prediction::{Prediction, ScoredLabel};
use std::borrow::Cow;
use std::io::{self, Write};

/// `id<TAB>label[<TAB>score]`.
pub(super) fn write_best(
    out: &mut impl Write,
    labels: &[String],
    scores: bool,
    prediction: Option<&Prediction>,
) -> io::Result<()> {
    match prediction.map(Prediction::best) {
        Some(best) if scores => write_scored(out, labels, best)?,
        Some(best) => write!(out, "{}\t{}", best.label_id, escape(&labels[best.label_id]))?,
        None => out.write_all(if scores { b"\t\t" } else { b"\t" })?,
    }
    out.write_all(b"\n")
}

/// `id<TAB>label<TAB>score` for each of the `top_k` best classes, or for all where there are fewer.
pub(super) fn write_top_k(
    out: &mut impl Write,
    labels: &[String],
    top_k: usize,
    prediction: Option<&Prediction>,
) -> io::Result<()> {
    for place in 0..top_k.min(labels.len()) {
        if place > 0 {
            out.write_all(b"\t")?;
        }
        match prediction {
            Some(prediction) => write_scored(out, labels, prediction.ranking[place])?,
            None => out.write_all(b"\t\t")?,
        }
    }
    out.write_all(b"\n")
}

fn write_scored(out: &mut impl Write, labels: &[String], scored: ScoredLabel) -> io::Result<()> {
    write!(out, "{}\t{}\t{:.6}", scored.label_id, escape(&labels[scored.label_id]), scored.score)
}

/// Backslash escapes for what would break a record: names of classes come from a file or the command line.
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
    use crate::output::{RecordFormat, RecordWriter};
    use crate::prediction::ScoredLabel;
    use std::num::NonZeroUsize;

    fn prediction() -> Prediction {
        let scored = |label_id, score| ScoredLabel { label_id, score };
        Prediction { ranking: vec![scored(1, 0.75), scored(0, 0.1500001), scored(2, 0.0999999)], truncated: false }
    }

    fn write(scores: bool, top_k: usize, prediction: Option<&Prediction>) -> String {
        let labels = ["a", "b\tc", "d"].map(String::from);
        let mut out = Vec::new();
        let format = RecordFormat::Tsv { scores, top_k: NonZeroUsize::new(top_k) };
        RecordWriter::new(&mut out, format, &labels).write("text", prediction).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_and_their_order() {
        let prediction = prediction();
        assert_eq!(write(false, 0, Some(&prediction)), "1\tb\\tc\n");
        assert_eq!(write(true, 0, Some(&prediction)), "1\tb\\tc\t0.750000\n");
        assert_eq!(write(false, 2, Some(&prediction)), "1\tb\\tc\t0.750000\t0\ta\t0.150000\n");
    }

    #[test]
    fn a_blank_text_has_as_many_fields_all_empty() {
        for (scores, top_k) in [(false, 0), (true, 0), (false, 1), (false, 2), (false, 9)] {
            let full = write(scores, top_k, Some(&prediction()));
            let blank = write(scores, top_k, None);
            assert_eq!(full.matches('\t').count(), blank.matches('\t').count());
            assert!(blank.trim_end_matches('\n').chars().all(|c| c == '\t'));
        }
    }
}
