//! Which fields of a structured record are used: those that hold the text, the gold label, and those copied through.

use std::fmt;

/// The most names that an error lists.
const NAMES_LISTED: usize = 30;

/// The field that is the text if none was chosen.
const DEFAULT_TEXT_FIELD: &str = "text";

/// Which fields to use, by name: a column's header or 1-based number, a JSON key, dotted for nested ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldSelection {
    /// Fields that make up the text, joined with a space; none means `text`, or the only field there is.
    pub text: Vec<String>,
    /// The field with the second text of a pair.
    pub text_pair: Option<String>,
    /// The field with the gold label.
    pub label: Option<String>,
    /// What is copied to the output.
    pub kept: KeptFields,
    /// Whether the first line of a CSV or TSV names its columns.
    pub header: bool,
}

impl Default for FieldSelection {
    fn default() -> Self {
        FieldSelection { text: Vec::new(), text_pair: None, label: None, kept: KeptFields::None, header: true }
    }
}

/// What is copied from a record to its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptFields {
    /// Nothing.
    None,
    /// One field.
    One(String),
    /// All fields.
    All,
}

/// The fields of a file are not those that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldError {
    /// No text field was chosen, and there is more than one candidate. Holds a list of the fields.
    TextUnclear(String),
    /// No text field was chosen, and the only column looks like several, separated by this character.
    DelimiterUnclear(String, char),
    /// Holds the name asked for, and a list of the fields.
    NotFound(String, String),
    /// Several columns have this name; they can be told apart by number, up to that many.
    Ambiguous(String, usize),
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldError::TextUnclear(fields) => write!(f, "it is not clear which field is the text: {fields}"),
            FieldError::DelimiterUnclear(header, delimiter) => write!(
                f,
                "its header is a single column, {header:?}, but seems to hold several, separated by {delimiter:?}"
            ),
            FieldError::NotFound(wanted, fields) => write!(f, "there is no column {wanted:?}: {fields}"),
            FieldError::Ambiguous(wanted, width) => {
                write!(f, "two columns are called {wanted:?}: choose one by its number, from 1 to {width}")
            }
        }
    }
}

impl std::error::Error for FieldError {}

/// The place of the field called `wanted` in a table of `width` columns, which `names` names if it has a header.
///
/// # Errors
/// If there is no such column, or more than one.
pub(super) fn find_column(wanted: &str, names: Option<&[String]>, width: usize) -> Result<usize, FieldError> {
    let mut found = names.unwrap_or_default().iter().enumerate().filter(|(_, name)| *name == wanted);
    if let Some((place, _)) = found.next() {
        return match found.next() {
            Some(_) => Err(FieldError::Ambiguous(wanted.to_owned(), width)),
            None => Ok(place),
        };
    }
    match wanted.parse::<usize>() {
        Ok(number) if (1..=width).contains(&number) => Ok(number - 1),
        _ => Err(FieldError::NotFound(wanted.to_owned(), list_columns(names, width))),
    }
}

/// The places of the columns that make up the text: those called `wanted`, or the one that can only be it.
///
/// # Errors
/// If there is no such column; if none was wanted, and none is called `text` and there are several, or there is one
/// whose name holds one of `doubtful_delimiters`.
pub(super) fn text_columns(
    wanted: &[String],
    names: Option<&[String]>,
    width: usize,
    doubtful_delimiters: &[u8],
) -> Result<Vec<usize>, FieldError> {
    if !wanted.is_empty() {
        return wanted.iter().map(|wanted| find_column(wanted, names, width)).collect();
    }
    let names_or_none = names.unwrap_or_default();
    if let Some(place) = names_or_none.iter().position(|name| name == DEFAULT_TEXT_FIELD) {
        return Ok(vec![place]);
    }
    if width != 1 {
        return Err(FieldError::TextUnclear(list_columns(names, width)));
    }
    match names_or_none.iter().find_map(|name| name.bytes().find(|byte| doubtful_delimiters.contains(byte))) {
        Some(delimiter) => Err(FieldError::DelimiterUnclear(names_or_none[0].clone(), char::from(delimiter))),
        None => Ok(vec![0]),
    }
}

/// The JSON key that is the text if none was chosen.
///
/// # Errors
/// If there are several keys, and none is `text`.
pub(super) fn default_text_key<'a>(keys: impl ExactSizeIterator<Item = &'a str> + Clone) -> Result<String, FieldError> {
    let only = if keys.len() == 1 { keys.clone().next() } else { None };
    let text = keys.clone().find(|key| *key == DEFAULT_TEXT_FIELD).or(only);
    text.map(str::to_owned).ok_or_else(|| FieldError::TextUnclear(list_keys(keys)))
}

fn list_columns(names: Option<&[String]>, width: usize) -> String {
    match names {
        Some(names) => format!("the columns are {}", list_names(names.iter().map(String::as_str))),
        None => format!("the columns are numbered from 1 to {width}"),
    }
}

pub(super) fn list_keys<'a>(keys: impl ExactSizeIterator<Item = &'a str>) -> String {
    format!("its keys are {}", list_names(keys))
}

/// The first names, for an error.
fn list_names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(NAMES_LISTED);
    let mut list = names.take(NAMES_LISTED).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    if more > 0 {
        list.push_str(&format!(" and {more} more"));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn names_win_over_numbers_and_numbers_count_from_one() {
        let names = names(&["id", "1", "text"]);
        assert_eq!(find_column("1", Some(&names), 3), Ok(1));
        assert_eq!(find_column("3", Some(&names), 3), Ok(2));
        assert_eq!(find_column("3", None, 3), Ok(2));
        for wrong in ["0", "4", "Text", "-1", ""] {
            let error = find_column(wrong, Some(&names), 3).unwrap_err().to_string();
            assert!(error.contains("\"id\", \"1\", \"text\""), "{error}");
        }
        assert!(find_column("text", None, 3).unwrap_err().to_string().contains("from 1 to 3"));
    }

    #[test]
    fn a_name_that_two_columns_have_is_refused() {
        assert_eq!(find_column("a", Some(&names(&["a", "a"])), 2), Err(FieldError::Ambiguous("a".into(), 2)));
        assert_eq!(find_column("2", Some(&names(&["a", "a"])), 2), Ok(1));
    }

    #[test]
    fn the_text_is_text_or_the_only_column() {
        let default = |columns: Option<&[String]>, width| text_columns(&[], columns, width, b";\t|");
        assert_eq!(default(Some(&names(&["id", "text"])), 2), Ok(vec![1]));
        assert_eq!(default(Some(&names(&["headline"])), 1), Ok(vec![0]));
        assert_eq!(default(None, 1), Ok(vec![0]));
        let error = default(Some(&names(&["a", "b"])), 2).unwrap_err();
        assert_eq!(error, FieldError::TextUnclear("the columns are \"a\", \"b\"".into()));
        assert!(default(None, 2).is_err());
    }

    #[test]
    fn a_single_column_that_looks_like_several_is_not_guessed() {
        let header = names(&["id;text"]);
        let error = text_columns(&[], Some(&header), 1, b";\t|").unwrap_err();
        assert_eq!(error, FieldError::DelimiterUnclear("id;text".into(), ';'));
        assert_eq!(text_columns(&header, Some(&header), 1, b";\t|"), Ok(vec![0]), "unless the user names it");
        assert_eq!(text_columns(&[], Some(&header), 1, b""), Ok(vec![0]), "or the delimiter");
    }

    #[test]
    fn an_error_lists_no_endless_header() {
        let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert!(list_names(many.iter().map(String::as_str)).ends_with("\"29\" and 70 more"));
    }
}
