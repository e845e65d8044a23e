//! What the terminal can show, and texts that fit it.

use crate::source::Content;
use crate::theme::{plain, plain_char};
use anstyle::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalStyle {
    /// Its width in cells.
    pub width: usize,
    /// Whether to use colour.
    pub colour: bool,
    /// Whether it has block characters; ASCII otherwise.
    pub blocks: bool,
}

impl TerminalStyle {
    /// The style, or none without colour.
    pub(super) fn style(&self, style: Style) -> Style {
        if self.colour {
            style
        } else {
            Style::new()
        }
    }
}

/// What stands in place of a label for a record that has none.
pub(super) fn no_label(content: &Content) -> String {
    match content {
        Content::Malformed(reason) => plain(&format!("(malformed: {reason})")),
        _ => "(blank: no label)".to_owned(),
    }
}

/// The start of a text that fits `width` cells, with nothing in it that a terminal would act on.
pub(super) fn shortened(text: &str, width: usize) -> String {
    let mut shown = String::new();
    let mut used = 0;
    for c in text.chars().map(plain_char) {
        used += c.width().unwrap_or(0);
        if used > width {
            while shown.width() + 1 > width && shown.pop().is_some() {}
            shown.push('…');
            break;
        }
        shown.push(c);
    }
    shown
}
