//! An evaluation as text for a terminal of 80 columns.

use super::metrics::{ClassScores, Metrics};
use super::LeftOutCounts;
use std::fmt;

/// Columns of the terminal that the tables aim at.
const TERMINAL_WIDTH: usize = 80;
/// The longest label name in a row's head, in characters.
const ROW_LABEL_WIDTH: usize = 24;
/// More classes than this do not get a confusion matrix but a list of confused pairs.
const MATRIX_CLASSES: usize = 12;
/// How many pairs that list has.
const CONFUSED_PAIRS: usize = 10;
/// What stands for an undefined figure.
const UNDEFINED: &str = "–";

impl fmt::Display for Metrics {
    /// Several lines, each ended: the headline, one line a class, the confusion matrix (above 12 classes: the most
    /// confused pairs). Columns are aligned by characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_headline(f, self)?;
        writeln!(f)?;
        write_classes(f, self)?;
        writeln!(f)?;
        if self.classes.len() <= MATRIX_CLASSES {
            write_matrix(f, self)
        } else {
            write_confused_pairs(f, self)
        }
    }
}

fn write_headline(f: &mut fmt::Formatter<'_>, metrics: &Metrics) -> fmt::Result {
    let texts = if metrics.evaluated == 1 { "text" } else { "texts" };
    match metrics.accuracy {
        Some(share) => writeln!(
            f,
            "accuracy {} (95 % interval {:.2}–{}), {} {texts} evaluated",
            percent(share.value),
            share.low * 100.0,
            percent(share.high),
            metrics.evaluated
        )?,
        None => writeln!(f, "accuracy {UNDEFINED}, no text evaluated")?,
    }
    if metrics.left_out.total() > 0 {
        writeln!(f, "left out: {}", left_out(&metrics.left_out))?;
    }
    writeln!(
        f,
        "log loss {}, expected calibration error {}",
        metrics.log_loss.map_or(UNDEFINED.to_owned(), |loss| format!("{loss:.4}")),
        metrics.calibration.expected_error.map_or(UNDEFINED.to_owned(), percent)
    )
}

/// As `5 (2 blank, 2 malformed, 1 without a gold label)`; reasons that did not occur are not named.
pub(super) fn left_out(counts: &LeftOutCounts) -> String {
    let reasons = [
        (counts.blank_text, "blank"),
        (counts.malformed_record, "malformed"),
        (counts.no_gold_label, "without a gold label"),
        (counts.unknown_gold_label, "with an unknown gold label"),
    ];
    let named: Vec<String> =
        reasons.iter().filter(|(count, _)| *count > 0).map(|(count, reason)| format!("{count} {reason}")).collect();
    if named.is_empty() {
        return "0".to_owned();
    }
    format!("{} ({})", counts.total(), named.join(", "))
}

fn write_classes(f: &mut fmt::Formatter<'_>, metrics: &Metrics) -> fmt::Result {
    const MACRO_AVERAGE: &str = "macro average";
    let longest = metrics.classes.iter().map(|class| class.label.chars().count()).max().unwrap_or(0);
    let head = longest.clamp(MACRO_AVERAGE.len(), ROW_LABEL_WIDTH);
    writeln!(f, "{:head$}  {:>9}  {:>9}  {:>9}  {:>9}", "class", "precision", "recall", "F1", "support")?;
    let mut row = |label: &str, scores: Option<ClassScores>, support: u64| {
        let cell = |of: fn(&ClassScores) -> f64| scores.as_ref().map_or(UNDEFINED.to_owned(), |s| percent(of(s)));
        let (precision, recall, f1) = (cell(|s| s.precision), cell(|s| s.recall), cell(|s| s.f1));
        let label = shorten(label, head);
        writeln!(f, "{label:head$}  {precision:>9}  {recall:>9}  {f1:>9}  {support:>9}")
    };
    for class in &metrics.classes {
        row(&class.label, class.scores, class.support)?;
    }
    row(MACRO_AVERAGE, metrics.macro_average, metrics.evaluated)
}

fn write_matrix(f: &mut fmt::Formatter<'_>, metrics: &Metrics) -> fmt::Result {
    const CORNER: &str = "gold \\ predicted";
    let classes = metrics.classes.len();
    let longest = metrics.classes.iter().map(|class| class.label.chars().count()).max().unwrap_or(0);
    let digits = metrics.confusion.cells().map(|(_, _, count)| count.to_string().len()).max().unwrap_or(1);
    let head = longest.clamp(CORNER.len(), ROW_LABEL_WIDTH);
    // The room that is left for each column, two spaces between them; names give way, numbers do not.
    let room = ((TERMINAL_WIDTH - head) / classes.max(1)).saturating_sub(2);
    let width = longest.min(room).max(digits).max(3);

    write!(f, "{CORNER:head$}")?;
    for class in &metrics.classes {
        write!(f, "  {:>width$}", shorten(&class.label, width))?;
    }
    writeln!(f)?;
    for (gold, class) in metrics.classes.iter().enumerate() {
        write!(f, "{:head$}", shorten(&class.label, head))?;
        for predicted in 0..classes {
            write!(f, "  {:>width$}", metrics.confusion.count(gold, predicted))?;
        }
        writeln!(f)?;
    }
    Ok(())
}

fn write_confused_pairs(f: &mut fmt::Formatter<'_>, metrics: &Metrics) -> fmt::Result {
    let pairs = metrics.confusion.most_confused(CONFUSED_PAIRS);
    if pairs.is_empty() {
        return writeln!(f, "no text was predicted as another class");
    }
    let head = ROW_LABEL_WIDTH;
    writeln!(f, "most confused: {:>9}  {:head$}  predicted", "texts", "gold")?;
    for (gold, predicted, count) in pairs {
        let (gold, predicted) = (&metrics.classes[gold].label, &metrics.classes[predicted].label);
        writeln!(f, "{count:>24}  {:head$}  {}", shorten(gold, head), shorten(predicted, head))?;
    }
    Ok(())
}

/// A share as `93.10 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// At most `width` characters, the last one `…` where more were there. Control characters, which could steer the
/// terminal, become `�`: names of classes come from a checkpoint.
fn shorten(label: &str, width: usize) -> String {
    let mut shown: String =
        label.chars().take(width).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if label.chars().nth(width).is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::config::ScoreFunction;
    use crate::evaluation::{Evaluation, LeftOut};
    use crate::prediction::Prediction;

    fn observe(evaluation: &mut Evaluation, classes: usize, gold: usize, predicted: usize, times: usize) {
        let mut logits = vec![0.0f32; classes];
        logits[predicted] = 2.0;
        for _ in 0..times {
            evaluation.observe(gold, &Prediction::from_logits(&logits, ScoreFunction::Softmax, false));
        }
    }

    fn evaluation(labels: &[&str]) -> Evaluation {
        Evaluation::new(&labels.iter().map(|&label| label.to_owned()).collect::<Vec<_>>(), ScoreFunction::Softmax)
    }

    #[test]
    fn headline_classes_and_matrix() {
        let mut evaluation = evaluation(&["World", "Sports"]);
        observe(&mut evaluation, 2, 0, 0, 70);
        observe(&mut evaluation, 2, 0, 1, 5);
        observe(&mut evaluation, 2, 1, 1, 25);
        evaluation.leave_out(LeftOut::BlankText);
        evaluation.leave_out(LeftOut::NoGoldLabel);
        let expected = "\
accuracy 95.00 % (95 % interval 88.82–97.85 %), 100 texts evaluated
left out: 2 (1 blank, 1 without a gold label)
log loss 0.2269, expected calibration error 6.92 %

class          precision     recall         F1    support
World           100.00 %    93.33 %    96.55 %         75
Sports           83.33 %   100.00 %    90.91 %         25
macro average    91.67 %    96.67 %    93.73 %        100

gold \\ predicted   World  Sports
World                 70       5
Sports                 0      25
";
        assert_eq!(evaluation.metrics().to_string(), expected);
    }

    #[test]
    fn nothing_evaluated_prints_dashes() {
        let text = evaluation(&["a", "b"]).metrics().to_string();
        assert!(
            text.starts_with("accuracy –, no text evaluated\nlog loss –, expected calibration error –\n"),
            "{text}"
        );
        assert!(!text.contains("NaN"), "{text}");
    }

    #[test]
    fn six_long_names_fit_80_columns_and_stay_aligned() {
        let names: Vec<String> =
            ["é", "ß", "ø", "ł", "ж", "中"].iter().map(|c| format!("{c} request about an order's delivery")).collect();
        let mut evaluation = evaluation(&names.iter().map(String::as_str).collect::<Vec<_>>());
        observe(&mut evaluation, 6, 5, 0, 12_345);
        let text = evaluation.metrics().to_string();
        let matrix: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("gold")).collect();
        assert_eq!(matrix.len(), 7, "{text}");
        for line in &matrix {
            assert_eq!(line.chars().count(), matrix[0].chars().count(), "{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn many_classes_get_the_most_confused_pairs() {
        let names: Vec<String> = (0..40).map(|id| format!("intent number {id}")).collect();
        let mut evaluation = evaluation(&names.iter().map(String::as_str).collect::<Vec<_>>());
        observe(&mut evaluation, 40, 3, 3, 2);
        assert!(evaluation.metrics().to_string().ends_with("\n\nno text was predicted as another class\n"));
        observe(&mut evaluation, 40, 3, 17, 9);
        observe(&mut evaluation, 40, 8, 39, 11);
        let text = evaluation.metrics().to_string();
        let tail: Vec<&str> = text.lines().rev().take(2).collect();
        assert_eq!(tail[1].split_whitespace().collect::<Vec<_>>().join(" "), "11 intent number 8 intent number 39");
        assert_eq!(tail[0].split_whitespace().collect::<Vec<_>>().join(" "), "9 intent number 3 intent number 17");
        assert!(!text.contains('\\'), "no matrix");
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(shorten("a\x1b[2Jb\nc", 20), "a�[2Jb�c");
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(shorten("abcd", 4), "abcd");
    }
}
