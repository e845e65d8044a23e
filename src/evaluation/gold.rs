//! Gold labels as people write them: names in any case, or ids.

use std::collections::HashMap;
use std::fmt;

/// Characters of a bad value, and of a name, that a message repeats.
const SHOWN_CHARACTERS: usize = 60;
/// Names that a message lists.
const SHOWN_NAMES: usize = 12;

/// Reads gold labels for one list of classes.
#[derive(Debug, Clone)]
pub struct GoldLabels {
    labels: Vec<String>,
    first_label_id: i64,
    by_name: HashMap<String, usize>,
    by_lowercase: HashMap<String, usize>,
}

/// A gold label that the model does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownGoldLabel {
    value: String,
    names: Vec<String>,
    classes: usize,
    first_label_id: i64,
}

impl GoldLabels {
    /// For these labels in id order; ids in the data count from `first_label_id`.
    pub fn new(labels: &[String], first_label_id: i64) -> GoldLabels {
        let mut by_name = HashMap::new();
        let mut by_lowercase = HashMap::new();
        for (id, label) in labels.iter().enumerate() {
            // Of two classes with the same name the first is meant, as in a list that is searched from its start.
            by_name.entry(label.trim().to_owned()).or_insert(id);
            by_lowercase.entry(label.trim().to_lowercase()).or_insert(id);
        }
        GoldLabels { labels: labels.to_vec(), first_label_id, by_name, by_lowercase }
    }

    /// The class that `value` names: white space around it is ignored, then an exact name goes before a name in
    /// another case (Unicode lowercase), and a name before an id. An id may end in `.0`, as pandas writes a column of
    /// integers that has gaps.
    ///
    /// # Errors
    /// Where it is none of them, the empty text included.
    pub fn parse(&self, value: &str) -> Result<usize, UnknownGoldLabel> {
        let value = value.trim();
        let by_name = self.by_name.get(value).or_else(|| self.by_lowercase.get(&value.to_lowercase()));
        by_name.copied().or_else(|| self.by_id(value)).ok_or_else(|| self.unknown(value))
    }

    fn by_id(&self, value: &str) -> Option<usize> {
        let id: i64 = value.strip_suffix(".0").unwrap_or(value).parse().ok()?;
        let index = usize::try_from(id.checked_sub(self.first_label_id)?).ok()?;
        (index < self.labels.len()).then_some(index)
    }

    fn unknown(&self, value: &str) -> UnknownGoldLabel {
        UnknownGoldLabel {
            value: shown(value),
            names: self.labels.iter().take(SHOWN_NAMES).map(|label| shown(label)).collect(),
            classes: self.labels.len(),
            first_label_id: self.first_label_id,
        }
    }
}

impl fmt::Display for UnknownGoldLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the gold label {:?} is none of the model's {} labels (", self.value, self.classes)?;
        for (place, name) in self.names.iter().enumerate() {
            write!(f, "{}{name:?}", if place > 0 { ", " } else { "" })?;
        }
        let more = if self.classes > self.names.len() { ", …" } else { "" };
        let last = self.first_label_id.saturating_add(self.classes as i64 - 1);
        write!(f, "{more}) and no id from {} to {last}", self.first_label_id)
    }
}

impl std::error::Error for UnknownGoldLabel {}

/// The start of a value that may be as long as a file.
fn shown(value: &str) -> String {
    match value.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gold(names: &[&str], first_label_id: i64) -> GoldLabels {
        GoldLabels::new(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(), first_label_id)
    }

    #[test]
    fn names_in_any_case_and_ids_from_the_first() {
        let labels = gold(&["World", "Sci/Tech", "Ärger"], 1);
        assert_eq!(labels.parse(" sci/TECH\t"), Ok(1));
        assert_eq!(labels.parse("äRGER"), Ok(2));
        assert_eq!(labels.parse("1"), Ok(0));
        assert_eq!(labels.parse("3.0"), Ok(2));
        for bad in ["0", "4", "-1", "1.5", "", "Sports", "99999999999999999999"] {
            assert!(labels.parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_goes_before_an_id_and_an_exact_name_before_another_case() {
        let labels = gold(&["2", "1", "0"], 0);
        assert_eq!(labels.parse("2"), Ok(0));
        let labels = gold(&["us", "US"], 0);
        assert_eq!((labels.parse("US"), labels.parse("us"), labels.parse("Us")), (Ok(1), Ok(0), Ok(0)));
    }

    #[test]
    fn ids_at_the_ends_of_the_range_do_not_overflow() {
        assert_eq!(gold(&["a"], i64::MIN).parse("9223372036854775807").ok(), None);
        assert_eq!(gold(&["a", "b"], i64::MAX).parse("9223372036854775807"), Ok(0));
        assert!(gold(&["a", "b"], i64::MAX).parse("c").unwrap_err().to_string().ends_with("9223372036854775807"));
    }

    #[test]
    fn the_message_names_the_value_and_the_labels() {
        let message = gold(&["World", "Sports"], 1).parse("sprots").unwrap_err().to_string();
        let expected =
            r#"the gold label "sprots" is none of the model's 2 labels ("World", "Sports") and no id from 1 to 2"#;
        assert_eq!(message, expected);
        let many: Vec<String> = (0..400).map(|id| format!("class {id}")).collect();
        let message = GoldLabels::new(&many, 0).parse(&"x".repeat(1 << 20)).unwrap_err().to_string();
        assert!(message.len() < 500 && message.contains("\"class 11\", …)"), "{message}");
    }
}
