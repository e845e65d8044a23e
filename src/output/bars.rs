//! The K best classes for eyes, on a terminal: the text, then a bar for each score.

use crate::prediction::Prediction;
use anstyle::{AnsiColor, Style};
use std::io::{self, Write};

/// Cells of a full bar.
const BAR_CELLS: usize = 30;

/// Characters of the text that head its bars.
const HEAD_CHARS: usize = 72;

pub(super) fn write(
    out: &mut impl Write,
    labels: &[String],
    top_k: usize,
    colour: bool,
    text: &str,
    prediction: Option<&Prediction>,
) -> io::Result<()> {
    let style = |style: Style| if colour { style } else { Style::new() };
    let bold = style(Style::new().bold());
    writeln!(out, "{bold}{}{bold:#}", head(text))?;
    let Some(prediction) = prediction else { return writeln!(out, "  (blank: no class)") };
    let shown = &prediction.ranking[..top_k.min(prediction.ranking.len())];
    let width = shown.iter().map(|scored| labels[scored.label_id].chars().count()).max().unwrap_or(0);
    for (place, scored) in shown.iter().enumerate() {
        let bar = style(if place == 0 { AnsiColor::Green.on_default() } else { Style::new().dimmed() });
        let cells = (scored.score * BAR_CELLS as f32).round() as usize;
        let label = head(&labels[scored.label_id]);
        writeln!(
            out,
            "  {} {label:width$} {bar}{:BAR_CELLS$}{bar:#} {:5.1} %",
            scored.label_id,
            "█".repeat(cells),
            scored.score * 100.0
        )?;
    }
    Ok(())
}

/// The start of a text, with nothing in it that a terminal would act on.
fn head(text: &str) -> String {
    let mut shown: String = text.chars().take(HEAD_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(HEAD_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prediction::ScoredLabel;

    fn render(colour: bool, text: &str, prediction: Option<&Prediction>) -> String {
        let mut out = Vec::new();
        write(&mut out, &["World".into(), "Sport".into()], 2, colour, text, prediction).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn prediction() -> Prediction {
        let ranking = vec![ScoredLabel { label_id: 1, score: 0.9 }, ScoredLabel { label_id: 0, score: 0.1 }];
        Prediction { ranking, truncated: false }
    }

    #[test]
    fn bars_are_as_long_as_their_scores() {
        let shown = render(false, "x", Some(&prediction()));
        let cells: Vec<usize> = shown.lines().skip(1).map(|line| line.matches('█').count()).collect();
        assert_eq!(cells, [27, 3]);
        assert!(shown.contains(" 90.0 %") && !shown.contains('\u{1b}'));
    }

    #[test]
    fn colour_only_where_asked_and_no_escape_of_the_text_reaches_the_terminal() {
        assert!(render(true, "x", Some(&prediction())).contains("\u{1b}["));
        assert!(!render(false, "\u{1b}[31mred\u{7}", None).contains('\u{1b}'));
    }
}
