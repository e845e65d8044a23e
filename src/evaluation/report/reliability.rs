//! The reliability diagram: how often a top score is right, by bins of the score (Guo et al. 2017, figure 1).
//!
//! A bar from 0 shows the accuracy, a tick the mean score. The gap between them is orange above the bar if the scores
//! are too high, blue inside the bar if they are too low. Bins with few texts are faint, because their accuracy is
//! mostly chance.

use super::picture::{line, rect, text, Panel};
use super::width::text_width;
use crate::evaluation::reliability::Bin;
use crate::evaluation::view::percent;
use maud::{html, Markup};

/// The plot is a square, so its diagonal looks like one.
const PLOT: f64 = 300.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = TOP + PLOT;
const STRIP_TOP: f64 = BOTTOM + 14.0;
const STRIP_BOTTOM: f64 = STRIP_TOP + 44.0;
const TICK_SIZE: f64 = 11.0;
const LABEL_SIZE: f64 = 12.0;
/// Space on the left for the rotated name of the axis.
const AXIS_NAME: f64 = 18.0;
/// A bin with this many texts is fully opaque; its accuracy is known to about ± 10 %.
const FULL_COUNT: f64 = 100.0;
const FAINTEST: f64 = 0.3;
const LEGEND_STEP: f64 = 19.0;

/// The diagram, with its legend and without a title.
pub(super) fn panel(bins: &[Bin]) -> Panel {
    let largest = bins.iter().map(|bin| bin.count).max().unwrap_or(0);
    let numbers = text_width("100 %", TICK_SIZE).max(text_width(&largest.to_string(), TICK_SIZE));
    let left = AXIS_NAME + numbers + 6.0;
    let body = html! {
        (axes(left, largest))
        @for bin in bins { (bars(left, bin, largest)) }
        (line("diagonal", left, BOTTOM, left + PLOT, TOP))
        (legend(left))
    };
    Panel { width: left + PLOT + 18.0, height: STRIP_BOTTOM + 44.0 + 3.0 * LEGEND_STEP, body }
}

/// The vertical position of a share, from the top.
fn y_of(share: f64) -> f64 {
    TOP + PLOT * (1.0 - share)
}

/// The opacity of a bin with this many texts: from faint to opaque, in equal steps for equal factors.
fn opacity(count: u64) -> f64 {
    let part = ((count as f64).max(1.0).ln() / FULL_COUNT.ln()).min(1.0);
    FAINTEST + (1.0 - FAINTEST) * part
}

fn axes(left: f64, largest: u64) -> Markup {
    html! {
        @for fifth in 0..=5 {
            @let share = f64::from(fifth) / 5.0;
            @let number = format!("{:.0} %", share * 100.0);
            (line("grid", left, y_of(share), left + PLOT, y_of(share)))
            (text("muted", "end", left - 6.0, y_of(share) + 4.0, TICK_SIZE, &number))
            (text("muted", "middle", left + PLOT * share, STRIP_BOTTOM + 15.0, TICK_SIZE, &number))
        }
        (line("grid", left, STRIP_BOTTOM, left + PLOT, STRIP_BOTTOM))
        @if largest > 0 { (text("muted", "end", left - 6.0, STRIP_TOP + 8.0, TICK_SIZE, &largest.to_string())) }
        (text("muted", "end", left - 6.0, STRIP_BOTTOM + 4.0, TICK_SIZE, "0"))
        (text("", "middle", left + PLOT / 2.0, STRIP_BOTTOM + 33.0, LABEL_SIZE, "top score"))
        (turned(TOP + PLOT / 2.0, "accuracy"))
        (turned((STRIP_TOP + STRIP_BOTTOM) / 2.0, "texts"))
    }
}

/// The name of a vertical axis, rotated to read upwards.
fn turned(middle: f64, name: &str) -> Markup {
    html! { g transform=(format!("rotate(-90 11 {middle})")) { (text("", "middle", 11.0, middle, LABEL_SIZE, name)) } }
}

/// A bin: bar, gap and tick, and its number of texts in the strip below.
fn bars(left: f64, bin: &Bin, largest: u64) -> Markup {
    let (Some(accuracy), Some(mean_score)) = (bin.accuracy, bin.mean_score) else { return html! {} };
    let x = left + bin.low * PLOT + 1.5;
    let width = (bin.high - bin.low) * PLOT - 3.0;
    let counted = ((STRIP_BOTTOM - STRIP_TOP) * bin.count as f64 / largest as f64).max(1.0);
    let (gap_top, gap_bottom) = (y_of(accuracy.max(mean_score)), y_of(accuracy.min(mean_score)));
    let gap = if mean_score > accuracy { "over" } else { "under" };
    html! {
        g opacity=(format!("{:.2}", opacity(bin.count))) {
            title {
                "scores above " (percent(bin.low)) " up to " (percent(bin.high)) ": " (bin.count) " texts, accuracy "
                (percent(accuracy)) ", mean score " (percent(mean_score))
            }
            (rect("bar", x, gap_bottom, width, BOTTOM - gap_bottom))
            (rect(gap, x + 0.5, gap_top, width - 1.0, gap_bottom - gap_top))
            (line("tick", x - 1.5, y_of(mean_score), x + width + 1.5, y_of(mean_score)))
        }
        (rect("bar", x, STRIP_BOTTOM - counted, width, counted))
    }
}

fn legend(left: f64) -> Markup {
    let [first, second, third] = [0.0, 1.0, 2.0].map(|row| STRIP_BOTTOM + 58.0 + row * LEGEND_STEP);
    let right = left + 152.0;
    let named = |x: f64, y: f64, name: &str| text("", "start", x + 22.0, y, LABEL_SIZE, name);
    html! {
        (rect("bar", left, first - 10.0, 15.0, 11.0)) (named(left, first, "accuracy"))
        (line("tick", left, second - 4.0, left + 15.0, second - 4.0)) (named(left, second, "mean score"))
        (line("diagonal", left, third - 4.0, left + 15.0, third - 4.0)) (named(left, third, "score = accuracy"))
        (rect("over", right + 0.5, first - 9.5, 14.0, 10.0)) (named(right, first, "overconfident"))
        (rect("under", right + 0.5, second - 9.5, 14.0, 10.0)) (named(right, second, "underconfident"))
        g opacity=(FAINTEST) { (rect("bar", right, third - 10.0, 15.0, 11.0)) } (named(right, third, "faint: few texts"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bin(count: u64, mean_score: f64, accuracy: f64) -> String {
        let bin =
            Bin { low: 0.6, high: 0.6 + 1.0 / 15.0, count, mean_score: Some(mean_score), accuracy: Some(accuracy) };
        bars(0.0, &bin, count).into_string()
    }

    #[test]
    fn an_underconfident_bin_does_not_look_right() {
        let shown = bin(500, 0.65, 1.0);
        assert!(shown.contains("class=\"under\"") && !shown.contains("class=\"over\""), "{shown}");
        // The bar ends at the mean score, and the gap extends to the accuracy.
        assert!(shown.contains("class=\"bar\" x=\"181.5\" y=\"113\" width=\"17\" height=\"195\""), "{shown}");
        assert!(shown.contains("class=\"under\" x=\"182\" y=\"8\" width=\"16\" height=\"105\""), "{shown}");
    }

    #[test]
    fn an_overconfident_bin_has_its_gap_above_the_accuracy() {
        let shown = bin(500, 0.65, 0.25);
        assert!(shown.contains("class=\"bar\" x=\"181.5\" y=\"233\" width=\"17\" height=\"75\""), "{shown}");
        assert!(shown.contains("class=\"over\" x=\"182\" y=\"113\" width=\"16\" height=\"120\""), "{shown}");
    }

    #[test]
    fn few_texts_are_faint() {
        assert_eq!(opacity(1), FAINTEST);
        assert!(opacity(10) > opacity(3) && opacity(10) < 0.7);
        assert_eq!((opacity(100), opacity(1_000_000)), (1.0, 1.0));
        assert!(bin(1, 0.65, 1.0).contains("opacity=\"0.30\""));
    }
}
