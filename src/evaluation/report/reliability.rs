//! The reliability diagram: how often a top score is right, by bins of the score (Guo et al. 2017, figure 1).

use super::markup::text_width;
use super::svg::{text, Panel};
use crate::evaluation::metrics::{Bin, Metrics};
use crate::evaluation::table::percent;

const TITLE: &str = "Reliability diagram";
/// The plot is a square: its diagonal has to look like one.
const PLOT_SIZE: f64 = 320.0;
const PLOT_TOP: f64 = 52.0;
const STRIP_TOP: f64 = PLOT_TOP + PLOT_SIZE + 16.0;
const STRIP_HEIGHT: f64 = 54.0;
const STRIP_BOTTOM: f64 = STRIP_TOP + STRIP_HEIGHT;
const TICK_SIZE: f64 = 11.0;
const LABEL_SIZE: f64 = 12.0;
/// Room on the left for the turned name of the axis.
const AXIS_NAME: f64 = 20.0;

/// The panel.
pub(super) fn panel(metrics: &Metrics) -> Panel {
    let bins = &metrics.calibration.bins;
    let largest = bins.iter().map(|bin| bin.count).max().unwrap_or(0);
    let ticks_width = text_width("100 %", TICK_SIZE).max(text_width(&largest.to_string(), TICK_SIZE));
    let left = AXIS_NAME + ticks_width + 8.0;
    let error = metrics.calibration.expected_error.map_or("–".to_owned(), percent);
    let subtitle = format!("expected calibration error {error} ({} bins)", bins.len());

    let mut body = text(0.0, 14.0, 16.0, "font-weight=\"600\"", TITLE);
    body.push_str(&text(0.0, 34.0, LABEL_SIZE, "class=\"muted\"", &subtitle));
    body.push_str(&axes(left));
    for bin in bins.iter().filter(|bin| bin.count > 0) {
        body.push_str(&bars(left, bin, largest));
    }
    body.push_str(&diagonal(left));
    body.push_str(&strip_axis(left, largest));
    body.push_str(&legend(left));
    let width = left + PLOT_SIZE + text_width("100 %", TICK_SIZE) / 2.0;
    Panel { width, height: STRIP_BOTTOM + 84.0, body }
}

/// Where an accuracy is, from the top.
fn height_of(share: f64) -> f64 {
    PLOT_TOP + PLOT_SIZE * (1.0 - share)
}

fn axes(left: f64) -> String {
    let mut body = String::new();
    for fifth in 0..=5 {
        let share = f64::from(fifth) / 5.0;
        let (x, y) = (left + PLOT_SIZE * share, height_of(share));
        let label = format!("{:.0} %", share * 100.0);
        body.push_str(&line("class=\"line\"", left, y, left + PLOT_SIZE, y));
        body.push_str(&text(left - 8.0, y + 4.0, TICK_SIZE, "text-anchor=\"end\" class=\"muted\"", &label));
        body.push_str(&text(x, STRIP_BOTTOM + 17.0, TICK_SIZE, "text-anchor=\"middle\" class=\"muted\"", &label));
    }
    let center = left + PLOT_SIZE / 2.0;
    body.push_str(&text(center, STRIP_BOTTOM + 36.0, LABEL_SIZE, "text-anchor=\"middle\"", "top score"));
    body + &turned(PLOT_TOP + PLOT_SIZE / 2.0, "accuracy")
}

/// The name of a vertical axis, reading upwards.
fn turned(middle: f64, name: &str) -> String {
    let attributes = format!("text-anchor=\"middle\" transform=\"rotate(-90 12 {middle:.1})\"");
    text(12.0, middle, LABEL_SIZE, &attributes, name)
}

/// A bin's accuracy, its gap to its mean score, and in the strip below how many texts it has.
fn bars(left: f64, bin: &Bin, largest: u64) -> String {
    let (Some(accuracy), Some(mean_score)) = (bin.accuracy, bin.mean_score) else { return String::new() };
    let x = left + bin.low * PLOT_SIZE + 1.0;
    let width = (bin.high - bin.low) * PLOT_SIZE - 2.0;
    let counted = (STRIP_HEIGHT * bin.count as f64 / largest as f64).max(1.0);
    let (gap_top, gap_bottom) = (height_of(accuracy.max(mean_score)), height_of(accuracy.min(mean_score)));
    // The bar's end stays marked where the gap covers it: where the scores are too low.
    let cap_top = height_of(accuracy).min(PLOT_TOP + PLOT_SIZE - CAP_HEIGHT);
    format!(
        "<g><title>scores above {} up to {}: {} texts, mean score {}, accuracy {}</title>{}{}{}{}</g>\n",
        percent(bin.low),
        percent(bin.high),
        bin.count,
        percent(mean_score),
        percent(accuracy),
        rectangle("class=\"accent\"", x, gap_bottom, width, PLOT_TOP + PLOT_SIZE - gap_bottom),
        rectangle(GAP, x + 0.5, gap_top, width - 1.0, gap_bottom - gap_top),
        rectangle("class=\"accent\"", x, cap_top, width, CAP_HEIGHT),
        rectangle("class=\"accent\"", x, STRIP_BOTTOM - counted, width, counted),
    )
}

const CAP_HEIGHT: f64 = 3.0;
/// Above a bar where the scores are too high, in its upper end where they are too low.
const GAP: &str = "class=\"gap\" fill-opacity=\"0.35\" stroke-width=\"1\"";

/// Where scores can be taken at their word.
const DIAGONAL: &str = "class=\"diagonal\" stroke-width=\"1.5\" stroke-dasharray=\"5 4\"";

fn diagonal(left: f64) -> String {
    line(DIAGONAL, left, PLOT_TOP + PLOT_SIZE, left + PLOT_SIZE, PLOT_TOP)
}

fn strip_axis(left: f64, largest: u64) -> String {
    let tick = "text-anchor=\"end\" class=\"muted\"";
    [
        line("class=\"line\"", left, STRIP_BOTTOM, left + PLOT_SIZE, STRIP_BOTTOM),
        if largest > 0 {
            text(left - 8.0, STRIP_TOP + 8.0, TICK_SIZE, tick, &largest.to_string())
        } else {
            String::new()
        },
        text(left - 8.0, STRIP_BOTTOM + 4.0, TICK_SIZE, tick, "0"),
        turned(STRIP_TOP + STRIP_HEIGHT / 2.0, "texts"),
    ]
    .concat()
}

fn legend(left: f64) -> String {
    let baseline = STRIP_BOTTOM + 66.0;
    let swatch = |attributes: &str, x: f64| rectangle(attributes, x, baseline - 10.0, 14.0, 11.0);
    let name = |x: f64, name: &str| text(x + 20.0, baseline, LABEL_SIZE, "", name);
    let [first, second, third] = [left, left + 90.0, left + 244.0];
    [
        swatch("class=\"accent\"", first),
        name(first, "accuracy"),
        swatch(GAP, second),
        name(second, "gap to mean score"),
        line(DIAGONAL, third, baseline - 4.0, third + 14.0, baseline - 4.0),
        name(third, "no gap"),
    ]
    .concat()
}

fn line(attributes: &str, x1: f64, y1: f64, x2: f64, y2: f64) -> String {
    format!("<line {attributes} x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>\n")
}

fn rectangle(attributes: &str, x: f64, y: f64, width: f64, height: f64) -> String {
    format!("<rect {attributes} x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>")
}
