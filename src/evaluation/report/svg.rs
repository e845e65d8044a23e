//! The picture: a headline, the confusion matrix and the reliability diagram, in one file that loads nothing.

use super::markup::{escape, fit, text_width};
use super::{matrix, reliability, theme, About};
use crate::evaluation::metrics::Metrics;
use crate::evaluation::table::{left_out, percent};

const MARGIN: f64 = 28.0;
const TITLE_SIZE: f64 = 20.0;
const LINE_SIZE: f64 = 14.0;
const LINE_HEIGHT: f64 = 21.0;
/// The panels stand side by side as long as the picture is not wider than this, else one below the other.
const WIDEST: f64 = 1240.0;
const BETWEEN_PANELS: f64 = 48.0;
/// Room for names of the model and of the data, whatever the panels need.
const NARROWEST: f64 = 420.0;

/// A part of the picture with its size in pixels; its own origin is its upper left corner.
pub(super) struct Panel {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) body: String,
}

/// The whole file.
pub(super) fn render(metrics: &Metrics, about: &About) -> String {
    format!("{}\n", element(metrics, about))
}

/// The `svg` element, with its own style: for a file as for a page.
pub(super) fn element(metrics: &Metrics, about: &About) -> String {
    let matrix = matrix::panel(metrics);
    let reliability = reliability::panel(metrics);
    let figures = headline(metrics);
    let beside = matrix.width + BETWEEN_PANELS + reliability.width + 2.0 * MARGIN <= WIDEST;
    let panels_width =
        if beside { matrix.width + BETWEEN_PANELS + reliability.width } else { matrix.width.max(reliability.width) };
    let figures_width = figures.iter().map(|line| text_width(line, LINE_SIZE)).fold(NARROWEST, f64::max);
    let content_width = panels_width.max(figures_width).ceil();

    let (header, header_height) = header(&figures, about, content_width);
    let panels_top = MARGIN + header_height + 24.0;
    let (reliability_x, reliability_y) = match beside {
        true => (MARGIN + matrix.width + BETWEEN_PANELS, panels_top),
        false => (MARGIN, panels_top + matrix.height + BETWEEN_PANELS),
    };
    let width = content_width + 2.0 * MARGIN;
    let height = (reliability_y + reliability.height).max(panels_top + matrix.height) + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"evaluation\" role=\"img\" \
         aria-labelledby=\"evaluation-title evaluation-description\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">\n\
         <title id=\"evaluation-title\">{title}</title>\n\
         <desc id=\"evaluation-description\">{description}</desc>\n\
         <style>\n{style}</style>\n\
         <rect class=\"surface\" width=\"100%\" height=\"100%\"/>\n\
         {header}\
         <g transform=\"translate({MARGIN:.0} {panels_top:.0})\">\n{matrix}</g>\n\
         <g transform=\"translate({reliability_x:.0} {reliability_y:.0})\">\n{reliability}</g>\n\
         </svg>",
        title = escape(&title(about)),
        description = escape(&description(metrics)),
        style = style(),
        matrix = matrix.body,
        reliability = reliability.body,
    )
}

fn style() -> String {
    format!(
        "svg.evaluation text{{font-family:{font};font-variant-numeric:tabular-nums}}\n{light}\
         @media (prefers-color-scheme: dark){{\n{dark}}}\n",
        font = theme::FONT,
        light = theme::picture_rules(&theme::LIGHT),
        dark = theme::picture_rules(&theme::DARK),
    )
}

/// The title and the lines below it, with their height.
fn header(figures: &[String], about: &About, width: f64) -> (String, f64) {
    let title = fit(&title(about), width, TITLE_SIZE);
    let mut body = text(MARGIN, MARGIN + TITLE_SIZE * 0.8, TITLE_SIZE, "font-weight=\"600\"", &title);
    let mut baseline = MARGIN + TITLE_SIZE * 0.8;
    for (place, line) in figures.iter().enumerate() {
        baseline += if place == 0 { LINE_HEIGHT + 6.0 } else { LINE_HEIGHT };
        body.push_str(&text(MARGIN, baseline, LINE_SIZE, "", line));
    }
    if !about.data.is_empty() {
        baseline += LINE_HEIGHT;
        let data = fit(&format!("texts: {}", about.data), width, LINE_SIZE);
        body.push_str(&text(MARGIN, baseline, LINE_SIZE, "class=\"muted\"", &data));
    }
    (body, baseline - MARGIN)
}

/// One `text` element, with the baseline at `y`; `attributes` as they stand in the tag.
pub(super) fn text(x: f64, y: f64, size: f64, attributes: &str, content: &str) -> String {
    let space = if attributes.is_empty() { "" } else { " " };
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\"{space}{attributes}>{}</text>\n", escape(content))
}

/// What a report is called.
pub(super) fn title(about: &About) -> String {
    if about.model.is_empty() {
        return "Evaluation".to_owned();
    }
    format!("Evaluation of {}", about.model)
}

/// The figures in words, one line each.
fn headline(metrics: &Metrics) -> Vec<String> {
    let mut lines = vec![match metrics.accuracy {
        Some(share) => format!(
            "accuracy {} (95 % interval {:.2}–{}), {} texts",
            percent(share.value),
            share.low * 100.0,
            percent(share.high),
            metrics.evaluated
        ),
        None => "accuracy –, no text evaluated".to_owned(),
    }];
    let mut second = Vec::new();
    if let Some(average) = metrics.macro_average {
        second.push(format!("macro F1 {}", percent(average.f1)));
    }
    if let Some(loss) = metrics.log_loss {
        second.push(format!("log loss {loss:.4}"));
    }
    if metrics.left_out.total() > 0 {
        second.push(format!("left out {}", left_out(&metrics.left_out)));
    }
    if !second.is_empty() {
        lines.push(second.join(", "));
    }
    lines
}

/// For those who hear the picture.
fn description(metrics: &Metrics) -> String {
    let mut sentences = headline(metrics);
    sentences.push(format!("confusion matrix of {} classes and reliability diagram", metrics.classes.len()));
    if let Some(error) = metrics.calibration.expected_error {
        sentences.push(format!("expected calibration error {}", percent(error)));
    }
    if let [(gold, predicted, count)] = metrics.confusion.most_confused(1)[..] {
        let (gold, predicted) = (&metrics.classes[gold].label, &metrics.classes[predicted].label);
        sentences.push(format!("most frequent mistake: {gold} taken for {predicted}, {count} times"));
    }
    sentences.join("; ")
}
