//! The picture: metrics, confusion matrix and reliability diagram in one SVG file that loads nothing.

use super::matrix::{self, MATRIX_CLASSES};
use super::width::{fit, text_width};
use super::{reliability, About};
use crate::evaluation::view::{plain, Figure, View};
use crate::theme;
use maud::{html, Markup, PreEscaped};

const MARGIN: f64 = 28.0;
const TITLE_SIZE: f64 = 20.0;
const LINE_SIZE: f64 = 13.0;
const LINE_HEIGHT: f64 = 20.0;
/// The panels are placed side by side up to this width, otherwise one below the other.
const WIDEST: f64 = 1240.0;
const BETWEEN_PANELS: f64 = 48.0;
/// Minimum width, which leaves space for the names of the model and the data.
const NARROWEST: f64 = 420.0;
/// The most lines that one fact takes, for commands that name many files.
const MOST_PARTS: usize = 4;

/// A part of the picture with its size in pixels; its origin is its upper left corner.
pub(super) struct Panel {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) body: Markup,
}

/// The whole file.
pub(super) fn render(view: &View, about: &About) -> String {
    let panels = place(panels(view));
    let width = panels.iter().map(|(x, _, panel)| x + panel.width).fold(NARROWEST, f64::max).ceil();
    let parts =
        |(line, class): (String, &'static str)| wrapped(&line, width).into_iter().map(move |part| (part, class));
    let lines: Vec<_> = lines(view, about).into_iter().flat_map(parts).collect();
    let panels_top = MARGIN + TITLE_SIZE + lines.len() as f64 * LINE_HEIGHT + 28.0;
    let panels_height = panels.iter().map(|(_, y, panel)| y + panel.height).fold(0.0, f64::max);
    let (full_width, full_height) = (width + 2.0 * MARGIN, (panels_top + panels_height + MARGIN).ceil());
    let title = plain(&about.title());
    html! {
        svg xmlns="http://www.w3.org/2000/svg" class="evaluation" role="img" aria-labelledby="title description"
            width=(full_width) height=(full_height) viewBox=(format!("0 0 {full_width} {full_height}")) {
            title id="title" { (title) }
            desc id="description" {
                @for (line, _) in &lines { (line) "; " }
                @if view.matrix.is_some() { "confusion matrix of " (view.labels.len()) " classes; " }
                @if view.bins.is_some() { "reliability diagram" }
            }
            style { (PreEscaped(theme::picture_style())) }
            (rect("surface", 0.0, 0.0, full_width, full_height))
            g font-weight="600" {
                (text("", "start", MARGIN, MARGIN + TITLE_SIZE * 0.8, TITLE_SIZE, &fit(&title, width, TITLE_SIZE)))
            }
            @for (place, (line, class)) in lines.iter().enumerate() {
                @let baseline = MARGIN + TITLE_SIZE + 4.0 + (place as f64 + 1.0) * LINE_HEIGHT;
                (text(class, "start", MARGIN, baseline, LINE_SIZE, line))
            }
            @for (x, y, panel) in &panels {
                g transform=(format!("translate({} {})", MARGIN + x, panels_top + y)) { (panel.body) }
            }
        }
    }
    .into_string()
        + "\n"
}

fn panels(view: &View) -> Vec<Panel> {
    let matrix = match &view.matrix {
        Some(matrix) if matrix.counts.len() <= MATRIX_CLASSES => Some(matrix::panel(view, matrix)),
        _ => view.mistakes.as_ref().map(|mistakes| matrix::mistakes_panel(view, mistakes)),
    };
    matrix.into_iter().chain(view.bins.as_ref().map(|bins| reliability::panel(bins))).collect()
}

/// Each panel with the position of its corner: in a row if that is not too wide, otherwise in a column.
fn place(panels: Vec<Panel>) -> Vec<(f64, f64, Panel)> {
    let in_a_row = panels.iter().map(|panel| panel.width + BETWEEN_PANELS).sum::<f64>() - BETWEEN_PANELS <= WIDEST;
    let (mut x, mut y) = (0.0, 0.0);
    let mut placed = Vec::new();
    for panel in panels {
        let (width, height) = (panel.width, panel.height);
        placed.push((x, y, panel));
        match in_a_row {
            true => x += width + BETWEEN_PANELS,
            false => y += height + BETWEEN_PANELS,
        }
    }
    placed
}

/// The figures in words, then the facts, each line with its CSS class.
fn lines(view: &View, about: &About) -> Vec<(String, &'static str)> {
    let figure = |figure: &Figure| match figure.value.detail() {
        detail if detail.is_empty() => format!("{} {}", figure.name, view.written(&figure.value)),
        detail => format!("{} {} ({detail})", figure.name, view.written(&figure.value)),
    };
    let (command, others): (Vec<_>, Vec<_>) = about
        .facts()
        .into_iter()
        .filter(|(key, _, value)| *key != "model" && !value.is_empty())
        .partition(|(key, _, _)| *key == "command");
    let fact = |(_, name, value): &(_, &str, &str)| plain(&format!("{name}\u{a0}{value}"));
    let facts = [others.iter().map(fact).collect::<Vec<_>>().join(" · "), command.iter().map(fact).collect()];
    let facts = facts.into_iter().filter(|line| !line.is_empty()).map(|line| (line, "muted"));
    view.telling_figures().map(|shown| (figure(shown), "")).chain(facts).collect()
}

/// A line cut at its spaces into parts that fit `width`: all that follows the last of [`MOST_PARTS`] parts, and a word
/// that is wider, are cut short.
fn wrapped(line: &str, width: f64) -> Vec<String> {
    let mut parts = vec![String::new()];
    for word in line.split(' ') {
        let is_last = parts.len() == MOST_PARTS;
        let part = parts.last_mut().expect("it begins with a part, and none is removed");
        if part.is_empty() || is_last || text_width(&format!("{part} {word}"), LINE_SIZE) <= width {
            part.extend([if part.is_empty() { "" } else { " " }, word]);
        } else {
            parts.push(word.to_owned());
        }
    }
    parts.iter().map(|part| fit(part, width, LINE_SIZE)).collect()
}

/// One line of text with its baseline at `y`.
pub(super) fn text(class: &str, anchor: &str, x: f64, y: f64, size: f64, content: &str) -> Markup {
    html! { text class=(class) text-anchor=(anchor) x=(px(x)) y=(px(y)) font-size=(size) { (content) } }
}

/// A filled rectangle.
pub(super) fn rect(class: &str, x: f64, y: f64, width: f64, height: f64) -> Markup {
    html! { rect class=(class) x=(px(x)) y=(px(y)) width=(px(width)) height=(px(height)) {} }
}

/// A straight line.
pub(super) fn line(class: &str, x1: f64, y1: f64, x2: f64, y2: f64) -> Markup {
    html! { line class=(class) x1=(px(x1)) y1=(px(y1)) x2=(px(x2)) y2=(px(y2)) {} }
}

/// Rounded to a tenth of a pixel, which is invisible.
fn px(length: f64) -> f64 {
    (length * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_at_spaces_and_only_what_does_not_fit_then_is_cut() {
        let width = text_width("one two", LINE_SIZE);
        assert_eq!(wrapped("one two three", width), ["one two", "three"]);
        assert_eq!(wrapped("", width), [""]);
        for line in ["word ".repeat(99), "x".repeat(99)] {
            let parts = wrapped(&line, width);
            assert!(parts.len() <= MOST_PARTS && parts.last().unwrap().ends_with('…'), "{parts:?}");
            assert!(parts.iter().all(|part| text_width(part, LINE_SIZE) <= width), "{parts:?}");
        }
    }
}
