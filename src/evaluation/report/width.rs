//! Estimates the width of text in a picture, whose font is not known.

/// An upper estimate of a text's width in pixels at a font size in pixels, for common sans-serif fonts: the actual font
/// is the reader's own.
pub(super) fn text_width(text: &str, font_size: f64) -> f64 {
    text.chars().map(|c| em_width(c) * font_size).sum()
}

/// In ems; checked against DejaVu Sans, the widest of the common ones.
fn em_width(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' | '/' | '(' | ')' | '[' | ']' => 0.4,
        'm' | 'w' | 'M' | 'W' | '%' | '@' | '…' | '—' => 1.0,
        'A'..='Z' => 0.75,
        c if c.is_ascii() => 0.62,
        // Full-width characters start with Hangul Jamo; Latin, Greek, Cyrillic and others of letter width come before.
        '\0'..='\u{10ff}' => 0.75,
        _ => 1.05,
    }
}

/// The text, or as much of its start as fits in `width` pixels followed by `…`.
pub(super) fn fit(text: &str, width: f64, font_size: f64) -> String {
    if text_width(text, font_size) <= width {
        return text.to_owned();
    }
    let room = width - text_width("…", font_size);
    let mut used = 0.0;
    let start: String = text
        .chars()
        .take_while(|&c| {
            used += em_width(c) * font_size;
            used <= room
        })
        .collect();
    format!("{}…", start.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_to_its_width() {
        assert_eq!(fit("World", 100.0, 12.0), "World");
        let cut = fit("customer service complaints", 100.0, 12.0);
        assert!(cut.ends_with('…') && text_width(&cut, 12.0) <= 100.0, "{cut}");
        assert_eq!(fit("World", 0.0, 12.0), "…");
    }
}
