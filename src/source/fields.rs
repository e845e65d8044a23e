//! What is taken of a structured record: the fields that hold the text, the gold label, and those carried through.

use anyhow::{bail, Result};
use std::sync::Arc;

/// Names that an error lists at most.
const NAMES_TOLD: usize = 30;

/// Which fields the user asked for, by name: a column's header or 1-based number, a JSON key, dotted for nested ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldSelection {
    /// Fields that make the text, joined with a space; none means `text`, else the only field there is.
    pub text: Vec<String>,
    /// The field with the gold label.
    pub label: Option<String>,
    /// What is carried through to the output.
    pub kept: KeptFields,
    /// Whether the first line of a CSV or TSV names its columns.
    pub header: bool,
}

impl Default for FieldSelection {
    fn default() -> Self {
        FieldSelection { text: Vec::new(), label: None, kept: KeptFields::None, header: true }
    }
}

/// What is carried through from a record to its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptFields {
    /// Nothing.
    None,
    /// One field.
    One(String),
    /// All of them.
    All,
}

/// What a structured record has beside its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// The gold label, as it stands in the input; `None` where the record has none.
    pub gold: Option<String>,
    /// What is carried through.
    pub kept: Kept,
}

/// Fields carried through, each with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Shared by records with the same names.
    pub names: Arc<[String]>,
    /// As many.
    pub values: Vec<FieldValue>,
}

impl Kept {
    /// Nothing.
    pub fn none() -> Kept {
        Kept { names: Arc::from([]), values: Vec::new() }
    }
}

/// A field carried through. Each output format has its own way to write each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldValue {
    /// Of a CSV: any text.
    Text(String),
    /// Of a TSV, as it stands there: in a TSV again it stays the same, whatever backslashes meant to its author.
    Tsv(String),
    /// Of a JSON object: the value, without white space around its tokens, digits and escapes as they were.
    Json(String),
}

/// The place of the field called `wanted` among `names`, which are the header of a table, or its `width` alone.
///
/// # Errors
/// Where there is no such column, or more than one.
pub(super) fn find_column(wanted: &str, names: Option<&[String]>, width: usize) -> Result<usize> {
    let mut found = names.unwrap_or_default().iter().enumerate().filter(|(_, name)| *name == wanted);
    if let Some((place, _)) = found.next() {
        if found.next().is_some() {
            bail!("two columns are called {wanted:?}: name the column by its number, from 1 to {width}");
        }
        return Ok(place);
    }
    match wanted.parse::<usize>() {
        Ok(number) if (1..=width).contains(&number) => Ok(number - 1),
        _ => bail!("there is no column {wanted:?}: {}", list_columns(names, width)),
    }
}

/// The place of the text where nobody said which column it is.
///
/// # Errors
/// Where the table has several columns, none called `text`.
pub(super) fn default_text_column(names: Option<&[String]>, width: usize) -> Result<usize> {
    let text = names.unwrap_or_default().iter().position(|name| name == DEFAULT_TEXT_FIELD);
    match (text, width) {
        (Some(place), _) => Ok(place),
        (None, 1) => Ok(0),
        _ => bail!("say with --text-field which column is the text: {}", list_columns(names, width)),
    }
}

/// The field that is the text where nobody said which.
pub(super) const DEFAULT_TEXT_FIELD: &str = "text";

fn list_columns(names: Option<&[String]>, width: usize) -> String {
    match names {
        Some(names) => format!("the columns are {}", list_names(names.iter().map(String::as_str))),
        None => format!("the columns have numbers, from 1 to {width}"),
    }
}

/// Names for an error: the first ones.
pub(super) fn list_names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(NAMES_TOLD);
    let mut list = names.take(NAMES_TOLD).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
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
        assert_eq!(find_column("1", Some(&names), 3).unwrap(), 1);
        assert_eq!(find_column("3", Some(&names), 3).unwrap(), 2);
        assert_eq!(find_column("3", None, 3).unwrap(), 2);
        for wrong in ["0", "4", "Text", "-1", ""] {
            let error = find_column(wrong, Some(&names), 3).unwrap_err().to_string();
            assert!(error.contains("\"id\", \"1\", \"text\""), "{error}");
        }
        assert!(find_column("text", None, 3).unwrap_err().to_string().contains("from 1 to 3"));
    }

    #[test]
    fn a_name_that_two_columns_have_is_refused() {
        assert!(find_column("a", Some(&names(&["a", "a"])), 2).is_err());
        assert_eq!(find_column("2", Some(&names(&["a", "a"])), 2).unwrap(), 1);
    }

    #[test]
    fn the_text_is_text_or_the_only_column() {
        assert_eq!(default_text_column(Some(&names(&["id", "text"])), 2).unwrap(), 1);
        assert_eq!(default_text_column(Some(&names(&["headline"])), 1).unwrap(), 0);
        assert_eq!(default_text_column(None, 1).unwrap(), 0);
        let error = default_text_column(Some(&names(&["a", "b"])), 2).unwrap_err().to_string();
        assert!(error.contains("--text-field") && error.contains("\"a\", \"b\""), "{error}");
        assert!(default_text_column(None, 2).is_err());
    }

    #[test]
    fn an_error_lists_no_endless_header() {
        let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert!(list_names(many.iter().map(String::as_str)).ends_with("\"29\" and 70 more"));
    }
}
