//! What pages and pictures have in common: light and dark colours, the style of a page, and texts made safe to show.
//!
//! Blue means right and orange means wrong, in the matrix and in the gaps of the reliability diagram; and blue words hold
//! up a label, orange ones speak against it. People with any common colour blindness can tell these apart.

/// Number of shades in each ramp of the matrix.
pub(crate) const SHADES: usize = 5;

/// The shares of a row at which each shade but the first starts. Right answers need resolution near the top.
pub(crate) const RIGHT_STARTS: [f64; SHADES - 1] = [0.25, 0.5, 0.75, 0.9];
/// Mistakes need resolution near the bottom: those of a good classifier are a few percent of a row.
pub(crate) const WRONG_STARTS: [f64; SHADES - 1] = [0.02, 0.05, 0.1, 0.25];

/// A light or dark theme. All colours are `#rrggbb`.
struct Theme {
    surface: &'static str,
    panel: &'static str,
    text: &'static str,
    muted: &'static str,
    line: &'static str,
    /// Bars for shares and counts.
    bar: &'static str,
    /// Scores above accuracy.
    over: &'static str,
    /// Scores below accuracy.
    under: &'static str,
    /// Cells of the matrix, from small shares to large ones, each with its text colour.
    right: [(&'static str, &'static str); SHADES],
    wrong: [(&'static str, &'static str); SHADES],
}

const INK: &str = "#1b1f24";
const PAPER: &str = "#ffffff";
const LIGHT_INK: &str = "#e6edf3";
const DARK_INK: &str = "#0b0f14";

const LIGHT: Theme = Theme {
    surface: PAPER,
    panel: "#f6f8fa",
    text: INK,
    muted: "#59636e",
    line: "#d1d9e0",
    bar: "#8494a5",
    over: "#d9570d",
    under: "#1668b8",
    right: [("#e3eefa", INK), ("#b9d5f0", INK), ("#85b4e2", INK), ("#2f6fb3", PAPER), ("#14467a", PAPER)],
    wrong: [("#fdeee0", INK), ("#fbd5b3", INK), ("#f5ac70", INK), ("#c2540a", PAPER), ("#8a3a06", PAPER)],
};

const DARK: Theme = Theme {
    surface: "#14181d",
    panel: "#1b2027",
    text: LIGHT_INK,
    muted: "#9aa5b1",
    line: "#3a434d",
    bar: "#6f7f90",
    over: "#f08a3c",
    under: "#5ca5f0",
    right: [
        ("#1a2a3d", LIGHT_INK),
        ("#1d4268", LIGHT_INK),
        ("#245f99", PAPER),
        ("#5b9be0", DARK_INK),
        ("#a9cdf5", DARK_INK),
    ],
    wrong: [
        ("#33210f", LIGHT_INK),
        ("#5a3610", LIGHT_INK),
        ("#8a4a0f", PAPER),
        ("#e08a3c", DARK_INK),
        ("#f8c796", DARK_INK),
    ],
};

/// The reader's own sans-serif font: nothing is loaded.
pub(crate) const FONT: &str = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";

/// The CSS class of a matrix cell with `share` of its row.
pub(crate) fn shade(share: f64, is_right: bool) -> String {
    let (ramp, starts) = if is_right { ("right", RIGHT_STARTS) } else { ("wrong", WRONG_STARTS) };
    if share <= 0.0 {
        return "none".to_owned();
    }
    format!("{ramp}{}", starts.iter().filter(|&&start| share >= start).count())
}

/// The percentage of the row at which each shade of a ramp starts.
pub(crate) fn shade_names(is_right: bool) -> Vec<String> {
    let starts = if is_right { RIGHT_STARTS } else { WRONG_STARTS };
    let later = starts.iter().map(|start| format!("≥ {:.0}", start * 100.0));
    ["> 0".to_owned()].into_iter().chain(later).collect()
}

/// The style rules of the picture, light and dark.
pub(crate) fn picture_style() -> String {
    format!(
        "svg.evaluation text{{font-family:{FONT};font-variant-numeric:tabular-nums}}\n{}\
         @media (prefers-color-scheme:dark){{\n{}}}\n",
        picture_rules(&LIGHT),
        picture_rules(&DARK)
    )
}

/// Colours as literals, because only browsers support `var()`. Scoped to `svg.evaluation`, so they affect nothing else
/// on a page.
fn picture_rules(theme: &Theme) -> String {
    let mut rules = vec![
        format!("rect.surface{{fill:{}}}", theme.surface),
        format!("rect.none{{fill:{}}}", theme.panel),
        format!("text{{fill:{}}}", theme.text),
        format!("text.muted,text.none{{fill:{}}}", theme.muted),
        format!("rect.bar{{fill:{}}}", theme.bar),
        format!("rect.over{{fill:{0};stroke:{0}}}", theme.over),
        format!("rect.under{{fill:{0};stroke:{0}}}", theme.under),
        format!("line.grid{{stroke:{}}}", theme.line),
        format!("line.diagonal{{stroke:{};stroke-width:1.5;stroke-dasharray:5 4}}", theme.muted),
        format!("line.tick{{stroke:{};stroke-width:2.5}}", theme.text),
    ];
    for (name, place, (fill, text)) in theme.shades() {
        rules.push(format!("rect.{name}{place}{{fill:{fill}}}"));
        rules.push(format!("text.{name}{place}{{fill:{text}}}"));
    }
    rules.iter().flat_map(|rules| rules.split_inclusive('}')).map(|rule| format!("{}\n", scoped(rule))).collect()
}

/// A rule with `svg.evaluation` before each of its selectors.
fn scoped(rule: &str) -> String {
    let (selectors, body) = rule.split_once('{').expect("every rule has a body");
    let selectors: Vec<String> = selectors.split(',').map(|selector| format!("svg.evaluation {selector}")).collect();
    format!("{}{{{body}", selectors.join(","))
}

/// The custom properties and the shades of a page, light and dark, and the style of what every page has.
pub(crate) fn page_style() -> String {
    format!(
        "{}@media (prefers-color-scheme:dark){{\n{}}}\n:root{{color-scheme:light dark;--font:{FONT}}}\n{}",
        page_rules(&LIGHT),
        page_rules(&DARK),
        include_str!("theme/base.css")
    )
}

/// A text on one line, in which nothing acts on what shows it.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(plain_char).collect()
}

/// `�` for control characters, which could control a terminal, for characters not allowed in XML, and for the two
/// overrides of direction, with which letters would be shown in another order than the model reads them.
pub(crate) fn plain_char(c: char) -> char {
    match c {
        '\t' | '\n' | '\r' => ' ',
        '\u{fffe}' | '\u{ffff}' | '\u{202d}' | '\u{202e}' => char::REPLACEMENT_CHARACTER,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

fn page_rules(theme: &Theme) -> String {
    let properties = [
        ("surface", theme.surface),
        ("panel", theme.panel),
        ("text", theme.text),
        ("muted", theme.muted),
        ("line", theme.line),
        ("bar", theme.right[3].0),
    ];
    let properties: String = properties.iter().map(|(name, color)| format!("--{name}:{color};")).collect();
    let shade = |(name, place, (fill, text)): (&str, usize, (&str, &str))| {
        format!(".{name}{place}{{background:{fill};color:{text}}}\n")
    };
    format!(":root{{{properties}}}\n{}", theme.shades().map(shade).collect::<String>())
}

impl Theme {
    fn shades(&self) -> impl Iterator<Item = (&'static str, usize, (&'static str, &'static str))> + '_ {
        let ramp = |name, shades: &[(&'static str, &'static str); SHADES]| {
            shades.iter().enumerate().map(move |(place, shade)| (name, place, *shade)).collect::<Vec<_>>()
        };
        ramp("right", &self.right).into_iter().chain(ramp("wrong", &self.wrong))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance: WCAG 2.2.
    fn luminance(color: &str) -> f64 {
        let channel = |at: usize| {
            let value = f64::from(u8::from_str_radix(&color[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    fn contrast(a: &str, b: &str) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_and_marks_have_the_contrast_that_wcag_requires() {
        for theme in [LIGHT, DARK] {
            for surface in [theme.surface, theme.panel] {
                for text in [theme.text, theme.muted] {
                    assert!(contrast(text, surface) >= 4.5, "{text} on {surface}");
                }
            }
            for (name, place, (fill, text)) in theme.shades() {
                assert!(contrast(text, fill) >= 4.5, "{name}{place}: {text} on {fill}: {}", contrast(text, fill));
            }
            for mark in [theme.bar, theme.over, theme.under] {
                assert!(contrast(mark, theme.surface) >= 3.0, "{mark} on {}", theme.surface);
            }
        }
    }

    #[test]
    fn shades_grow_with_the_share() {
        for theme in [LIGHT, DARK] {
            for ramp in [theme.right, theme.wrong] {
                let steps: Vec<f64> = ramp.iter().map(|(fill, _)| contrast(fill, theme.surface)).collect();
                assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
            }
        }
        assert_eq!(
            [0.0, 0.01, 0.25, 0.9, 1.0].map(|share| shade(share, true)),
            ["none", "right0", "right1", "right4", "right4"]
        );
        assert_eq!(
            [0.0, 0.001, 0.02, 0.1, 1.0].map(|share| shade(share, false)),
            ["none", "wrong0", "wrong1", "wrong3", "wrong4"]
        );
    }
}
