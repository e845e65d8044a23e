//! The words that hold up each label, for a person at a terminal: the text with these words marked, then the label and
//! the words with their values.
//!
//! Blue words hold up the label and orange, underlined ones speak against it, bold if they are among the strongest.
//! Without colour they have signs: `[++word]`, `[+word]`, `[-word]`, `[--word]`.

use super::terminal::{no_label, shortened, TerminalStyle};
use super::words::{marks, name, pieces, Mark};
use super::{RecordFormat, Row};
use crate::decision::{Answer, Verdict};
use crate::source::Schema;
use crate::theme::plain;
use anstyle::{Ansi256Color, Style};
use std::io::{self, Write};
use unicode_width::UnicodeWidthStr;

/// The level from which a word is among the strongest.
const STRONG: usize = 3;

/// The most cells that a word takes in the list.
const WORD_CELLS: usize = 32;

/// Writes marked texts.
pub(super) struct Marked {
    style: TerminalStyle,
    /// How many words are listed.
    listed: usize,
}

impl Marked {
    pub(super) fn new(style: TerminalStyle, listed: usize) -> Marked {
        Marked { style, listed }
    }

    fn text(&self, out: &mut dyn Write, text: &str, marks: &[Mark<'_>]) -> io::Result<()> {
        for (piece, mark) in pieces(text, marks) {
            // Control characters would act on the terminal.
            let piece = plain(piece);
            match mark {
                None => write!(out, "{piece}")?,
                Some(mark) if self.style.colour => {
                    let style = style(&mark);
                    write!(out, "{style}{piece}{style:#}")?;
                }
                Some(mark) => write!(out, "[{}{piece}]", sign(&mark))?,
            }
        }
        writeln!(out)
    }

    /// Label and score, then the marked words with their values, in as many lines as they need.
    fn list(&self, out: &mut dyn Write, head: &str, text: &str, marks: &[Mark<'_>]) -> io::Result<()> {
        write!(out, "  {head}")?;
        let mut used = 2 + head.width();
        for mark in marks.iter().take(self.listed) {
            let word = shortened(&name(text, mark.span), WORD_CELLS.min(self.style.width.saturating_sub(12)));
            let value = format!("{:+.2}", mark.span.value);
            let width = 2 + word.width() + 1 + value.len();
            if used + width > self.style.width {
                write!(out, "\n  ")?;
                used = 2;
            }
            let style = if self.style.colour { style(mark) } else { Style::new() };
            write!(out, "  {style}{word}{style:#} {value}")?;
            used += width;
        }
        writeln!(out)
    }
}

impl RecordFormat for Marked {
    fn begin(&mut self, _out: &mut dyn Write, _schema: &Schema, _is_start: bool) -> io::Result<()> {
        Ok(())
    }

    fn record(&mut self, out: &mut dyn Write, row: Row<'_>) -> io::Result<()> {
        let text = row.text();
        let Some(decision) = row.decision else {
            self.text(out, text, &[])?;
            return writeln!(out, "  {}", no_label(&row.record.content));
        };
        let heads: Vec<String> = match &decision.verdict {
            Verdict::Label(answer) => vec![head(answer)],
            Verdict::Labels(answers) => answers.iter().map(head).collect(),
            Verdict::Value(value) => vec![format!("{value:.4}")],
        };
        for (place, head) in heads.iter().enumerate() {
            let marks = decision.explanations.get(place).map_or_else(Vec::new, marks);
            self.text(out, text, &marks)?;
            self.list(out, head, text, &marks)?;
        }
        if heads.is_empty() {
            self.text(out, text, &[])?;
            writeln!(out, "  (no label)")?;
        }
        let others: Vec<String> = decision.top.iter().skip(heads.len()).map(head).collect();
        match others.is_empty() {
            true => Ok(()),
            false => writeln!(out, "  {}", others.join("  ")),
        }
    }
}

fn head(answer: &Answer<'_>) -> String {
    let label = match answer.label_id {
        Some(id) => format!("{id} {}", answer.label),
        None if answer.label.is_empty() => "(no label)".to_owned(),
        None => answer.label.to_owned(),
    };
    format!("{} {:.1} %", plain(&label), answer.score * 100.0)
}

/// The colours are those of the cube of 216, which no terminal's theme changes, so each is legible on its own background.
fn style(mark: &Mark<'_>) -> Style {
    let (text, background) = match (mark.supports(), mark.level >= STRONG) {
        (true, true) => (231, 25),
        (true, false) => (16, 153),
        (false, true) => (231, 130),
        (false, false) => (16, 223),
    };
    let style = Style::new().fg_color(Some(Ansi256Color(text).into())).bg_color(Some(Ansi256Color(background).into()));
    let style = if mark.supports() { style } else { style.underline() };
    if mark.level >= STRONG {
        style.bold()
    } else {
        style
    }
}

fn sign(mark: &Mark<'_>) -> &'static str {
    match (mark.supports(), mark.level >= STRONG) {
        (true, true) => "++",
        (true, false) => "+",
        (false, true) => "--",
        (false, false) => "-",
    }
}

#[cfg(test)]
mod tests {
    use crate::output::testing::{decider, decider_for, explained, prediction, written_explained};
    use crate::output::{Columns, Format, RecordOptions, TerminalStyle};
    use crate::prediction::Problem;
    use unicode_width::UnicodeWidthStr;

    const STYLE: TerminalStyle = TerminalStyle { width: 80, colour: false, blocks: true };

    fn render(style: TerminalStyle, text: &str, values: &[f32]) -> String {
        let options =
            RecordOptions { format: Format::Marked { style, listed: 40 }, header: false, columns: Columns::default() };
        let case = explained(text, prediction(&[(1, 0.9), (0, 0.1)]), &[(1, values)]);
        written_explained(&options, &decider(&["World", "Sport"], 0, None), &[case])
    }

    #[test]
    fn without_colour_signs_mark_the_words() {
        let shown = render(STYLE, "He won, not lost it", &[0.01, 2.0, 0.7, -0.8, -1.5, 0.0]);
        let expected =
            "He [++won][+,] [-not] [--lost] it\n  1 Sport 90.0 %  won +2.00  lost -1.50  not -0.80  , +0.70\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn with_colour_the_text_stays_as_it_is_and_no_escape_of_its_own_reaches_the_terminal() {
        let shown = render(TerminalStyle { colour: true, ..STYLE }, "won \u{1b}[31mlost", &[2.0, 0.0, 0.0, -2.0]);
        assert!(shown.contains("\u{1b}[1m") && shown.contains("\u{1b}[4m") && shown.contains("38;5;231"), "{shown:?}");
        assert!(!shown.contains("\u{1b}[31m") && shown.contains('\u{fffd}'), "{shown:?}");
        let plain = anstyle_stripped(&shown);
        assert!(plain.starts_with("won \u{fffd}[31mlost\n"), "{plain:?}");
    }

    fn anstyle_stripped(text: &str) -> String {
        let mut plain = String::new();
        let mut parts = text.split('\u{1b}');
        plain.push_str(parts.next().unwrap());
        parts.for_each(|part| plain.push_str(part.split_once('m').unwrap().1));
        plain
    }

    #[test]
    fn the_list_fits_the_terminal() {
        let text = "striker ".repeat(30) + &"x".repeat(300);
        for width in [24, 40, 80] {
            let shown = render(TerminalStyle { width, ..STYLE }, &text, &[-1.5; 31]);
            let list: Vec<&str> = shown.lines().skip(1).collect();
            assert!(list.len() > 3 && list.iter().all(|line| line.width() <= width), "{width}: {shown}");
        }
    }

    #[test]
    fn each_label_and_a_value_and_none_at_all() {
        let options = RecordOptions {
            format: Format::Marked { style: STYLE, listed: 1 },
            header: false,
            columns: Columns::default(),
        };
        let several = decider_for(Problem::MultiLabel, &["joy", "fear"], 0);
        let both = explained("a b", prediction(&[(1, 0.9), (0, 0.8)]), &[(1, &[1.0, 0.0]), (0, &[0.0, -1.0])]);
        let none = explained("a b", prediction(&[(1, 0.4), (0, 0.3)]), &[]);
        assert_eq!(
            written_explained(&options, &several, &[both, none]),
            "[++a] b\n  1 fear 90.0 %  a +1.00\na [--b]\n  0 joy 80.0 %  b -1.00\na b\n  (no label)\n"
        );
        let value = explained("a b", prediction(&[(0, 1.25)]), &[(0, &[1.0, 0.0])]);
        let one = decider_for(Problem::Value, &["x"], 0);
        assert_eq!(written_explained(&options, &one, &[value]), "[++a] b\n  1.2500  a +1.00\n");
        let unsure = explained("a b", prediction(&[(1, 0.6), (0, 0.4)]), &[]);
        let decider = decider(&["no", "yes"], 0, Some(0.7));
        assert_eq!(written_explained(&options, &decider, &[unsure]), "a b\n  ? 60.0 %\n");
    }
}
