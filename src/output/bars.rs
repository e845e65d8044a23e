//! The best classes for a person at a terminal: the text, then a bar for each score.

use super::terminal::{no_label, shortened, TerminalStyle};
use super::{RecordFormat, Row};
use crate::decision::{Answer, Decision};
use crate::source::Schema;
use anstyle::{AnsiColor, Style};
use std::io::{self, Write};
use unicode_width::UnicodeWidthStr;

/// The length of a full bar, in cells, if the terminal is wide enough.
const BAR_CELLS: usize = 30;

/// The most cells that a label takes.
const LABEL_CELLS: usize = 32;

/// Writes bars.
pub(super) struct Bars(TerminalStyle);

impl Bars {
    pub(super) fn new(style: TerminalStyle) -> Bars {
        Bars(style)
    }

    fn bars(&self, out: &mut dyn Write, decision: &Decision<'_>) -> io::Result<()> {
        let rows: Vec<Answer<'_>> = decision.answers().collect();
        let id = |answer: &Answer<'_>| answer.label_id.map_or_else(String::new, |id| id.to_string());
        let id_width = rows.iter().map(|answer| id(answer).len()).max().unwrap_or(0);
        // Two cells before the id, one between all columns, and ` 100.0 %` at the end.
        let around = 2 + id_width + 1 + 1 + 8;
        let label_width = rows.iter().map(|answer| answer.label.width()).max().unwrap_or(0).min(LABEL_CELLS);
        let label_width = label_width.min(self.0.width.saturating_sub(around).max(4));
        let bar_width = self.0.width.saturating_sub(around + label_width).min(BAR_CELLS);
        for (rank, answer) in rows.iter().enumerate() {
            let style = self.0.style(if rank == 0 { AnsiColor::Green.on_default() } else { Style::new().dimmed() });
            let label = shortened(answer.label, label_width);
            let padding = " ".repeat(label_width - label.width());
            let cells = (answer.score * bar_width as f32).round() as usize;
            let bar = if self.0.blocks { "█" } else { "#" }.repeat(cells.min(bar_width));
            let score = answer.score * 100.0;
            let id = id(answer);
            writeln!(out, "  {id:>id_width$} {label}{padding} {style}{bar:bar_width$}{style:#} {score:5.1} %")?;
        }
        Ok(())
    }
}

impl RecordFormat for Bars {
    fn begin(&mut self, _out: &mut dyn Write, _schema: &Schema, _is_start: bool) -> io::Result<()> {
        Ok(())
    }

    fn record(&mut self, out: &mut dyn Write, Row { record, decision }: Row<'_>) -> io::Result<()> {
        let bold = self.0.style(Style::new().bold());
        writeln!(out, "{bold}{}{bold:#}", shortened(record.content.text(), self.0.width))?;
        match decision {
            Some(decision) => self.bars(out, decision),
            None => writeln!(out, "  {}", no_label(&record.content)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::output::testing::{decider, prediction, record, written};
    use crate::output::{Columns, Format, RecordOptions, TerminalStyle};
    use crate::prediction::Prediction;
    use crate::source::{Kept, Schema};
    use unicode_width::UnicodeWidthStr;

    const STYLE: TerminalStyle = TerminalStyle { width: 80, colour: false, blocks: true };

    fn render(
        style: TerminalStyle,
        labels: &[&str],
        min_score: Option<f32>,
        text: &str,
        prediction: Option<Prediction>,
    ) -> String {
        let options = RecordOptions { format: Format::Bars(style), header: true, columns: Columns::default() };
        let records = [record(text, Kept::default())];
        written(&options, &decider(labels, 20, min_score), &Schema::Columns(Vec::new()), &records, &[prediction])
    }

    fn two() -> Option<Prediction> {
        Some(prediction(&[(1, 0.9), (0, 0.1)]))
    }

    #[test]
    fn bars_are_as_long_as_their_scores() {
        let shown = render(STYLE, &["World", "Sport"], None, "x", two());
        let cells: Vec<usize> = shown.lines().skip(1).map(|line| line.matches('█').count()).collect();
        assert_eq!(cells, [27, 3]);
        assert!(shown.contains(" 90.0 %") && !shown.contains('\u{1b}'));
    }

    #[test]
    fn colour_and_blocks_only_if_the_terminal_has_them_and_no_escape_of_the_text_reaches_it() {
        assert!(render(TerminalStyle { colour: true, ..STYLE }, &["a", "b"], None, "x", two()).contains("\u{1b}["));
        assert!(!render(STYLE, &["a", "b"], None, "\u{1b}[31mred\u{7}", None).contains('\u{1b}'));
        let ascii = render(TerminalStyle { blocks: false, ..STYLE }, &["a", "b"], None, "x", two());
        assert!(ascii.is_ascii() && ascii.contains("###"), "{ascii}");
    }

    #[test]
    fn columns_line_up_for_many_classes_and_wide_labels_at_any_width() {
        let labels: Vec<String> = (0..12).map(|n| if n % 2 == 0 { "東京".repeat(n) } else { "x".repeat(n) }).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let scores: Vec<(usize, f32)> = (0..12).rev().map(|id| (id, id as f32 / 100.0)).collect();
        for width in [24, 40, 80, 200] {
            let style = TerminalStyle { width, ..STYLE };
            let shown = render(style, &labels, None, &"long ".repeat(100), Some(prediction(&scores)));
            let widths: Vec<usize> = shown.lines().map(UnicodeWidthStr::width).collect();
            assert!(widths.iter().all(|&cells| cells <= width), "{width}: {shown}");
            assert!(widths[1..].iter().all(|cells| *cells == widths[1]), "{width}: {shown}");
        }
    }

    #[test]
    fn a_low_score_is_named_as_everywhere() {
        let shown = render(STYLE, &["World", "Sport"], Some(0.95), "x", two());
        assert!(shown.lines().nth(1).unwrap().trim_start().starts_with("? "), "{shown}");
    }
}
