//! One record of the input: its content, where it came from, and the fields that travel with it.

use super::inputs::Input;
use std::fmt;
use std::sync::Arc;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What there is to classify.
    pub content: Content,
    /// Where the record begins.
    pub origin: Origin,
    /// The gold label as the input spells it, if one was asked for and the record has it.
    pub gold: Option<String>,
    /// The fields copied to the output, under the names that the [`Schema`] gives.
    pub kept: Kept,
    /// Whether invalid UTF-8 in the text was replaced by U+FFFD.
    pub was_invalid_utf8: bool,
}

/// What there is to classify in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A text with at least one character that is not white space.
    Text(String),
    /// Two texts, neither of them blank.
    Pair(String, String),
    /// An empty text, or one of white space only. It gets no prediction.
    Blank(String),
    /// A record that could not be read, and why, as a clause about "it". It gets no prediction.
    Malformed(String),
}

impl Content {
    /// A text, or a blank one.
    pub fn of_text(text: String) -> Content {
        match text.trim().is_empty() {
            true => Content::Blank(text),
            false => Content::Text(text),
        }
    }

    /// A pair; blank if both texts are, and malformed if one is.
    pub fn of_pair(text: String, text_pair: String) -> Content {
        match (text.trim().is_empty(), text_pair.trim().is_empty()) {
            (false, false) => Content::Pair(text, text_pair),
            (true, true) => Content::Blank(text),
            (true, false) => Content::Malformed("its first text is blank".to_owned()),
            (false, true) => Content::Malformed("its second text is blank".to_owned()),
        }
    }

    /// The text as it was read, or the first of a pair; empty for a malformed record.
    pub fn text(&self) -> &str {
        match self {
            Content::Text(text) | Content::Pair(text, _) | Content::Blank(text) => text,
            Content::Malformed(_) => "",
        }
    }

    /// The second text of a pair; empty for any other record.
    pub fn text_pair(&self) -> &str {
        match self {
            Content::Pair(_, text_pair) => text_pair,
            Content::Text(_) | Content::Blank(_) | Content::Malformed(_) => "",
        }
    }
}

/// Where a record begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The input it is in.
    pub input: Arc<Input>,
    /// The line in that input, or the number of the argument; counted from 1.
    pub line: u64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.input {
            Input::Arguments => write!(f, "text {}", self.line),
            input => write!(f, "{input}, line {}", self.line),
        }
    }
}

/// The fields of a record that are copied to the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// One value for each name of the schema.
    Row(Vec<FieldValue>),
    /// The record's own names and values ([`Schema::Objects`]).
    Object(Vec<(String, FieldValue)>),
}

impl Default for Kept {
    fn default() -> Self {
        Kept::Row(Vec::new())
    }
}

/// What the records of one file carry to the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schema {
    /// The same fields in each record, under these names. Empty if nothing is copied.
    Columns(Vec<String>),
    /// One field that the user chose; files may call it differently.
    Chosen(String),
    /// JSON objects, each with names of its own.
    Objects,
}

impl Schema {
    /// The names that all records have.
    pub fn names(&self) -> &[String] {
        match self {
            Schema::Columns(names) => names,
            Schema::Chosen(name) => std::slice::from_ref(name),
            Schema::Objects => &[],
        }
    }
}

/// A field copied to the output. Each output format has its own way to write each kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldValue {
    /// From a CSV: any text.
    Text(String),
    /// From a TSV, as it stands there: it stays the same in a TSV again, whatever its author meant by a backslash.
    Tsv(String),
    /// From a JSON object: the value without white space around its tokens, its digits and escapes as they were.
    Json(String),
}

/// Decoded bytes.
#[derive(Default)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) was_invalid_utf8: bool,
}

impl Text {
    pub(super) fn from_bytes(bytes: &[u8]) -> Text {
        match std::str::from_utf8(bytes) {
            Ok(text) => Text { text: text.to_owned(), was_invalid_utf8: false },
            Err(_) => Text { text: String::from_utf8_lossy(bytes).into_owned(), was_invalid_utf8: true },
        }
    }

    /// Several fields as one text, joined with a space.
    pub(super) fn join<'a>(fields: impl Iterator<Item = &'a [u8]>) -> Text {
        let mut joined = Text::default();
        for (place, field) in fields.enumerate() {
            let field = Text::from_bytes(field);
            if place > 0 {
                joined.text.push(' ');
            }
            joined.text.push_str(&field.text);
            joined.was_invalid_utf8 |= field.was_invalid_utf8;
        }
        joined
    }
}

/// A record as a format reads it, which knows the line but not the input.
pub(super) struct Draft {
    pub(super) line: u64,
    pub(super) content: Content,
    pub(super) gold: Option<String>,
    pub(super) kept: Kept,
    pub(super) was_invalid_utf8: bool,
}

impl Draft {
    pub(super) fn text(line: u64, text: Text) -> Draft {
        let content = Content::of_text(text.text);
        Draft { line, content, gold: None, kept: Kept::default(), was_invalid_utf8: text.was_invalid_utf8 }
    }

    pub(super) fn pair(line: u64, text: Text, text_pair: Text) -> Draft {
        let was_invalid_utf8 = text.was_invalid_utf8 | text_pair.was_invalid_utf8;
        Draft { content: Content::of_pair(text.text, text_pair.text), was_invalid_utf8, ..Draft::blank(line) }
    }

    pub(super) fn blank(line: u64) -> Draft {
        Draft::text(line, Text::default())
    }

    pub(super) fn malformed(line: u64, reason: impl Into<String>) -> Draft {
        Draft { content: Content::Malformed(reason.into()), ..Draft::blank(line) }
    }

    pub(super) fn from(self, input: &Arc<Input>) -> Record {
        let Draft { line, content, gold, kept, was_invalid_utf8 } = self;
        Record { content, origin: Origin { input: input.clone(), line }, gold, kept, was_invalid_utf8 }
    }
}
