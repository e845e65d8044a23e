//! The colours of the picture and of the page, in light and in dark.

/// One of both appearances. All are `#rrggbb`.
pub(super) struct Theme {
    pub(super) surface: &'static str,
    pub(super) text: &'static str,
    pub(super) muted: &'static str,
    pub(super) line: &'static str,
    /// Bars, and the hue of the shades.
    pub(super) accent: &'static str,
    /// The gap between accuracy and score.
    pub(super) gap: &'static str,
    /// Cells of the matrix by [`shade_of`] their share of the row, with the text on them.
    pub(super) shades: [(&'static str, &'static str); SHADES],
}

pub(super) const SHADES: usize = 9;

/// Lower ends of the shares that each shade but the first, which is for none at all, stands for. Finer at the low end:
/// mistakes of a good classifier are a few per cent of a row, and are what the picture is looked at for.
pub(super) const SHADE_STARTS: [f64; SHADES - 1] = [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8];

const INK: &str = "#1b1f24";
const PAPER: &str = "#ffffff";

pub(super) const LIGHT: Theme = Theme {
    surface: PAPER,
    text: INK,
    muted: "#59636e",
    line: "#d1d9e0",
    accent: "#2f6fb3",
    gap: "#d9730d",
    shades: [
        ("#f6f8fa", "#59636e"),
        ("#e6f0fa", INK),
        ("#d0e3f5", INK),
        ("#b5d3ef", INK),
        ("#96c0e7", INK),
        ("#74abdc", INK),
        ("#2f6fb3", PAPER),
        ("#1f5792", PAPER),
        ("#124173", PAPER),
    ],
};

pub(super) const DARK: Theme = Theme {
    surface: "#14181d",
    text: "#e6edf3",
    muted: "#9aa5b1",
    line: "#3a434d",
    accent: "#5b9be0",
    gap: "#f0a04b",
    shades: [
        ("#1b2027", "#9aa5b1"),
        ("#1a2a3d", "#e6edf3"),
        ("#1b3552", "#e6edf3"),
        ("#1d4268", "#e6edf3"),
        ("#205080", "#e6edf3"),
        ("#245f99", "#ffffff"),
        ("#5b9be0", "#0b0f14"),
        ("#86b7ec", "#0b0f14"),
        ("#b3d2f5", "#0b0f14"),
    ],
};

/// The reader's own sans-serif font: nothing is loaded.
pub(super) const FONT: &str = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";

/// The shade of a cell that holds `share` of its row: 0 for none, then by [`SHADE_STARTS`].
pub(super) fn shade_of(share: f64) -> usize {
    if share <= 0.0 {
        return 0;
    }
    SHADE_STARTS.iter().filter(|&&start| share >= start).count()
}

/// Style rules for the classes that the picture uses, under `svg.evaluation`, so that they touch nothing else on a page.
pub(super) fn picture_rules(theme: &Theme) -> String {
    let mut rules = vec![
        format!(".surface{{fill:{}}}", theme.surface),
        format!("text{{fill:{}}}", theme.text),
        format!(".muted{{fill:{}}}", theme.muted),
        format!(".accent{{fill:{}}}", theme.accent),
        format!(".gap{{fill:{0};stroke:{0}}}", theme.gap),
        format!(".line{{stroke:{}}}", theme.line),
        format!(".diagonal{{stroke:{}}}", theme.muted),
    ];
    for (place, (fill, text)) in theme.shades.iter().enumerate() {
        rules.push(format!(".shade{place}{{fill:{fill}}}"));
        rules.push(format!(".on{place}{{fill:{text}}}"));
    }
    rules.iter().map(|rule| format!("svg.evaluation {rule}\n")).collect()
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
    fn text_has_the_contrast_that_wcag_asks_for() {
        for theme in [LIGHT, DARK] {
            for text in [theme.text, theme.muted] {
                assert!(contrast(text, theme.surface) >= 4.5, "{text} on {}", theme.surface);
            }
            for (fill, text) in theme.shades {
                assert!(contrast(text, fill) >= 4.5, "{text} on {fill}: {}", contrast(text, fill));
            }
            for mark in [theme.accent, theme.gap] {
                assert!(contrast(mark, theme.surface) >= 3.0, "{mark} on {}", theme.surface);
            }
        }
    }

    #[test]
    fn shades_grow_with_the_share() {
        for theme in [LIGHT, DARK] {
            let steps: Vec<f64> = theme.shades.iter().map(|(fill, _)| contrast(fill, theme.surface)).collect();
            assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
        }
        let shades: Vec<usize> = [0.0, 0.001, 0.02, 0.5, 0.8, 1.0].iter().map(|&share| shade_of(share)).collect();
        assert_eq!(shades, [0, 1, 2, 6, 8, 8]);
    }
}
