//! The HTML page: all metrics, with the matrix as a table and the reliability diagram as a picture. It loads and runs
//! nothing.

use super::matrix::{self, MATRIX_CLASSES};
use super::{reliability, About};
use crate::evaluation::against::{Comparison, Difference};
use crate::evaluation::reliability::Bin;
use crate::evaluation::view::{plain, Table, Value, View};
use crate::evaluation::worst::Mistake;
use crate::theme;
use maud::{html, Markup, PreEscaped, DOCTYPE};

/// Maximum number of mistakes listed.
const MISTAKES: usize = 100;
/// With fewer classes than this the matrix shows all mistakes at a glance, and no list is needed.
const LISTED_CLASSES: usize = 13;

/// The whole page.
pub(super) fn render(view: &View, about: &About) -> String {
    let title = plain(&about.title());
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style {
                    (PreEscaped(theme::page_style()))
                    (PreEscaped(include_str!("page.css")))
                    (PreEscaped(theme::picture_style()))
                }
            }
            body {
                main {
                    h1 { (title) }
                    (figures(view))
                    div.pictures { (confusion(view)) (reliability(view)) }
                    @if let Some(table) = &view.labels_table {
                        section { h2 { (table.name) } (rows(view, table, usize::MAX)) }
                    }
                    @if view.labels.len() >= LISTED_CLASSES { (mistakes(view)) }
                    @if let Some(table) = view.bins_table() { (folded(view, &table, usize::MAX, false)) }
                    (worst(view))
                    @if let Some(comparison) = &view.against { (against(view, comparison)) }
                    (facts(about))
                }
            }
        }
    }
    .into_string()
        + "\n"
}

fn figures(view: &View) -> Markup {
    html! {
        dl.figures {
            @for figure in view.telling_figures() {
                div {
                    dt { (figure.name) }
                    dd { (view.written(&figure.value)) }
                    @match figure.value.detail() {
                        detail if detail.is_empty() => {},
                        detail => { dd.detail { (detail) } },
                    }
                }
            }
        }
    }
}

fn confusion(view: &View) -> Markup {
    let matrix = view.matrix.as_ref().filter(|matrix| matrix.counts.len() <= MATRIX_CLASSES);
    html! { @if let Some(matrix) = matrix { section { h2 { "Confusion matrix" } (matrix::table(view, matrix)) } } }
}

fn reliability(view: &View) -> Markup {
    html! { @if let Some(bins) = &view.bins { section { h2 { "Reliability of the scores" } (diagram(bins)) } } }
}

fn diagram(bins: &[Bin]) -> Markup {
    let panel = reliability::panel(bins);
    html! {
        svg.evaluation viewBox=(format!("0 0 {} {}", panel.width.ceil(), panel.height.ceil())) role="img"
            aria-label="Reliability diagram: accuracy and mean score by top score; the table of calibration has its numbers" {
            (panel.body)
        }
    }
}

/// Open if it replaces the matrix.
fn mistakes(view: &View) -> Markup {
    let is_open = view.labels.len() > MATRIX_CLASSES;
    let table = view.mistakes.as_ref().filter(|table| !table.rows.is_empty());
    html! { @if let Some(table) = table { (folded(view, table, MISTAKES, is_open)) } }
}

/// The most confident mistakes, for cleaning data: each with its place and the start of its text.
fn worst(view: &View) -> Markup {
    html! {
        @if !view.worst.is_empty() {
            section {
                h2 { "Most confident mistakes" }
                div.scroll {
                    table.texts {
                        thead {
                            tr {
                                th scope="col" { "score" }
                                @for name in ["predicted", "gold", "place", "text"] { th.words scope="col" { (name) } }
                            }
                        }
                        tbody { @for mistake in &view.worst { (worst_row(view, mistake)) } }
                    }
                }
            }
        }
    }
}

/// The comparison with another run.
fn against(view: &View, comparison: &Comparison) -> Markup {
    html! {
        section {
            h2 { "Against " (comparison.name()) }
            dl.figures {
                @for (_, name, count) in comparison.counts() { div { dt { (name) } dd { (count) } } }
            }
            p { "McNemar’s test: " (comparison.test()) }
            @if !comparison.differences.is_empty() {
                div.scroll {
                    table.texts {
                        thead {
                            tr {
                                @for name in ["this run", "the other", "gold", "place", "text"] {
                                    th.words scope="col" { (name) }
                                }
                            }
                        }
                        tbody { @for difference in &comparison.differences { (difference_row(view, difference)) } }
                    }
                }
            }
        }
    }
}

fn difference_row(view: &View, Difference { gold, this, other, text }: &Difference) -> Markup {
    html! {
        tr {
            (named("this run", &view.name(*this)))
            (named("the other", &view.names(other.as_slice())))
            (named("gold", &view.name(*gold)))
            (named("place", &text.place()))
            td.text dir="auto" { (text.start()) }
        }
    }
}

fn worst_row(view: &View, Mistake { score, gold, predicted, text }: &Mistake) -> Markup {
    html! {
        tr {
            td { (format!("{score:.4}")) }
            (named("predicted", &view.name(*predicted)))
            (named("gold", &view.names(gold)))
            (named("place", &text.place()))
            td.text dir="auto" { (text.start()) }
        }
    }
}

/// A cell that tells the name of its column, for screens too narrow for columns.
fn named(column: &str, content: &str) -> Markup {
    html! { td.words data-name=(column) { (content) } }
}

/// A table that opens on request, if it is not open already.
fn folded(view: &View, table: &Table, most: usize, is_open: bool) -> Markup {
    html! { details open=[is_open.then_some("")] { summary { (table.name) } (rows(view, table, most)) } }
}

/// The first `most` rows of a table, and its averages.
fn rows(view: &View, table: &Table, most: usize) -> Markup {
    let has_words = |column: usize| table.rows.first().is_some_and(|row| matches!(row[column], Value::Label(_)));
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        @for (place, (_, name)) in table.columns.iter().enumerate() {
                            th.words[has_words(place)] scope="col" { (name) }
                        }
                    }
                }
                tbody { @for row in table.rows.iter().take(most) { tr { @for value in row { (cell(view, value)) } } } }
                @if !table.averages.is_empty() {
                    tfoot {
                        @for (_, name, values) in &table.averages {
                            tr { th scope="row" { (name) } @for value in values { (cell(view, value)) } }
                        }
                    }
                }
            }
        }
    }
}

/// A label or a number; a share also has a bar.
fn cell(view: &View, value: &Value) -> Markup {
    match value {
        Value::Label(_) => html! { th scope="row" { (view.written(value)) } },
        Value::Share(Some(share)) => html! {
            td.share style=(format!("--share:{:.1}%", share * 100.0)) { (view.written(value)) }
        },
        _ => html! { td { (view.written(value)) } },
    }
}

fn facts(about: &About) -> Markup {
    html! {
        section {
            h2 { "About this report" }
            dl.facts {
                @for (key, name, value) in about.facts().iter().filter(|(_, _, value)| !value.is_empty()) {
                    dt { (name) }
                    dd { @if *key == "command" { code { (plain(value)) } } @else { (plain(value)) } }
                }
            }
        }
    }
}
