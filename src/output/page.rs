//! The words that hold up each label as an HTML page: one block per text, written as the texts come, so that memory does
//! not grow with them and an interrupted run can be continued. The page loads and runs nothing.

use super::words::{marks, name, pieces, Mark};
use super::{Columns, RecordFormat, Row};
use crate::decision::{Answer, Decision, Verdict};
use crate::explanation::Explanation;
use crate::source::{Content, Schema};
use crate::theme::{page_style, plain};
use maud::{html, Markup, PreEscaped, DOCTYPE};
use std::io::{self, Write};

const TITLE: &str = "The words behind the labels";

/// Writes the page.
pub(super) struct Page {
    command: String,
    /// How many words are listed.
    listed: usize,
    columns: Columns,
}

impl Page {
    pub(super) fn new(command: String, listed: usize, columns: Columns) -> Page {
        Page { command, listed, columns }
    }

    fn head(&self) -> Markup {
        html! {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (TITLE) }
                style { (PreEscaped(page_style())) (PreEscaped(include_str!("page.css"))) }
            }
        }
    }

    fn introduction(&self) -> Markup {
        html! {
            h1 { (TITLE) }
            p.note {
                "A word’s value is what the log odds of the label lose if the text lacks the word. Words that hold up the "
                "label: " (shades(true)) "; words that speak against it: " (shades(false)) ". They are compared with the "
                "strongest word of the text (or with 0.2), and not marked below 15 % of that."
            }
            p.note { code { (plain(&self.command)) } }
        }
    }

    fn place(&self, row: &Row<'_>) -> String {
        let origin = &row.record.origin;
        let parts = [
            self.columns.filename.then(|| origin.input.to_string()),
            self.columns.line_number.then(|| origin.line.to_string()),
        ];
        plain(&parts.into_iter().flatten().collect::<Vec<_>>().join(":"))
    }

    fn block(&self, row: &Row<'_>) -> Markup {
        html! {
            article {
                @match row.decision {
                    Some(decision) => { (self.decided(row, decision)) },
                    None => {
                        (self.heading(row, "no label", ""))
                        p.text dir="auto" { (plain(row.text())) }
                        p.note {
                            @match &row.record.content {
                                Content::Malformed(reason) => { (plain(reason)) },
                                _ => { "blank" },
                            }
                        }
                    }
                }
            }
        }
    }

    fn decided(&self, row: &Row<'_>, decision: &Decision<'_>) -> Markup {
        let percent = |answer: &Answer<'_>| format!("{:.1} %", answer.score * 100.0);
        let heads: Vec<(&str, String)> = match &decision.verdict {
            Verdict::Label(answer) => vec![(answer.label, percent(answer))],
            Verdict::Labels(answers) => answers.iter().map(|answer| (answer.label, percent(answer))).collect(),
            Verdict::Value(value) => vec![("", format!("{value:.4}"))],
        };
        html! {
            @for (place, (label, score)) in heads.iter().enumerate() {
                (self.heading(row, label, score))
                @match decision.explanations.get(place) {
                    Some(explanation) => { (self.explained(row.text(), explanation)) },
                    None => { p.text dir="auto" { (plain(row.text())) } },
                }
            }
            @if heads.is_empty() {
                (self.heading(row, "no label", ""))
                p.text dir="auto" { (plain(row.text())) }
            }
        }
    }

    fn heading(&self, row: &Row<'_>, label: &str, score: &str) -> Markup {
        html! { h2 { (plain(label)) " " span.score { (score) } " " span.place { (self.place(row)) } } }
    }

    fn explained(&self, text: &str, explanation: &Explanation) -> Markup {
        let marks = marks(explanation);
        html! {
            p.text dir="auto" {
                @for (piece, mark) in pieces(text, &marks) {
                    @match mark {
                        Some(mark) => { (marked(&mark, &plain(piece))) },
                        None => { (plain(piece)) },
                    }
                }
            }
            @if !marks.is_empty() {
                ul.words {
                    @for mark in marks.iter().take(self.listed) {
                        li { bdi { (plain(&name(text, mark.span))) } " " b { (value(mark)) } }
                    }
                }
            }
        }
    }
}

fn marked(mark: &Mark<'_>, piece: &str) -> Markup {
    html! { mark class=(class(mark.supports(), mark.level)) title=(value(mark)) { (piece) } }
}

/// Underlined too, for those who cannot tell the colours apart: solid if it holds up the label, dotted if it does not.
fn class(supports: bool, level: usize) -> String {
    let ramp = if supports { "right" } else { "against wrong" };
    format!("{ramp}{level}")
}

/// What each level looks like, weakest first.
fn shades(supports: bool) -> Markup {
    html! {
        @for (place, word) in ["weak", "to", "very", "strong"].iter().enumerate() {
            @if place > 0 { " " }
            mark class=(class(supports, place + 1)) { (word) }
        }
    }
}

fn value(mark: &Mark<'_>) -> String {
    format!("{:+.2}", mark.span.value).replace('-', "−")
}

impl RecordFormat for Page {
    fn begin(&mut self, out: &mut dyn Write, _schema: &Schema, is_start: bool) -> io::Result<()> {
        if !is_start {
            return Ok(());
        }
        // What the page ends with closes these.
        write!(out, "{}<html lang=\"en\">{}", DOCTYPE.into_string(), self.head().into_string())?;
        writeln!(out, "<body><main>{}", self.introduction().into_string())
    }

    fn record(&mut self, out: &mut dyn Write, row: Row<'_>) -> io::Result<()> {
        writeln!(out, "{}", self.block(&row).into_string())
    }

    fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "</main></body></html>")
    }
}

#[cfg(test)]
mod tests {
    use crate::output::testing::{
        decider, decider_for, explained, malformed, prediction, written_explained, Explained,
    };
    use crate::output::{Columns, Format, RecordOptions};
    use crate::prediction::Problem;

    fn page(problem: Problem, cases: &[Explained]) -> String {
        let format = Format::Page { command: "agnews --explain '<b>&amp;'".to_owned(), listed: 2 };
        let columns = Columns { filename: true, line_number: true, ..Columns::default() };
        let options = RecordOptions { format, header: false, columns };
        let decider = match problem {
            Problem::SingleLabel => decider(&["<no>", "a & \"b\""], 0, Some(0.5)),
            problem => decider_for(problem, &["<no>", "a & \"b\""], 0),
        };
        written_explained(&options, &decider, cases)
    }

    fn documents(problem: Problem, cases: &[Explained], see: impl Fn(&roxmltree::Document<'_>)) {
        let page = page(problem, cases);
        // The two elements that HTML does not close.
        let xml = page.replace("\"utf-8\">", "\"utf-8\"/>").replace("initial-scale=1\">", "initial-scale=1\"/>");
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        see(&roxmltree::Document::parse_with_options(&xml, options).unwrap_or_else(|error| panic!("{error}\n{xml}")));
    }

    fn texts(document: &roxmltree::Document<'_>, class: &str) -> Vec<String> {
        let found = document.descendants().filter(|node| node.attribute("class").is_some_and(|it| it == class));
        found.map(|node| node.descendants().filter(|it| it.is_text()).filter_map(|it| it.text()).collect()).collect()
    }

    #[test]
    fn the_page_is_well_formed_and_holds_the_text_of_any_record() {
        let hostile = "</p><script>\u{0}\u{ffff} & \"e\u{301}\" 東\r\n";
        let words = crate::explanation::words(hostile).count();
        let values: Vec<f32> = (0..words).map(|word| word as f32 - 4.0).collect();
        let cases = [
            explained(hostile, prediction(&[(1, 0.9), (0, 0.1)]), &[(1, &values)]),
            explained("unsure", prediction(&[(1, 0.4), (0, 0.3)]), &[]),
            (malformed("it is <bad>"), None, Vec::new()),
        ];
        documents(Problem::SingleLabel, &cases, |document| {
            assert_eq!(document.descendants().filter(|node| node.has_tag_name("article")).count(), 3);
            let shown = texts(document, "text");
            assert_eq!(shown, ["</p><script>\u{fffd}\u{fffd} & \"e\u{301}\" 東  ", "unsure", ""]);
            assert_eq!(texts(document, "place"), ["a.txt:7"; 3]);
            assert!(!document.descendants().any(|node| node.has_tag_name("script")));
        });
    }

    #[test]
    fn each_label_has_its_own_words() {
        let prediction = prediction(&[(1, 0.9), (0, 0.8)]);
        let case = explained("one two", prediction, &[(1, &[1.0, -0.5]), (0, &[0.0, 2.0])]);
        documents(Problem::MultiLabel, &[case], |document| {
            assert_eq!(texts(document, "text"), ["one two", "one two"]);
            assert_eq!(texts(document, "words"), ["one +1.00two −0.50", "two +2.00"]);
            assert_eq!(texts(document, "against wrong3"), ["very", "two"]);
        });
    }

    #[test]
    fn a_page_without_texts_is_a_page() {
        documents(Problem::Value, &[], |document| assert!(texts(document, "text").is_empty()));
    }
}
