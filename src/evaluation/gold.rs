//! Gold labels as people write them: names in any case, ids, sets of either, or numbers.

use serde_json::Value;
use std::collections::HashMap;
use std::fmt;

/// How many characters of an invalid value or a name are shown in a message.
const SHOWN_CHARACTERS: usize = 60;
/// How many names are listed in a message.
const SHOWN_NAMES: usize = 12;
/// The separators of a set's labels, in the order of trying them.
const SEPARATORS: [&[char]; 2] = [&['|', ';'], &[',']];

/// Parses gold labels for one list of classes.
#[derive(Debug, Clone)]
pub struct GoldLabels {
    labels: Vec<String>,
    first_label_id: i64,
    by_name: HashMap<String, usize>,
    by_lowercase: HashMap<String, usize>,
    seen: SeenIds,
}

/// The ids seen so far, to determine the number at which they start.
#[derive(Debug, Clone, Copy, Default)]
struct SeenIds {
    zero: bool,
    /// Equal to the number of classes: the last id if ids start at 1.
    count: bool,
    beyond: bool,
}

/// A gold label that the model does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownGold {
    /// The start of the value.
    pub value: String,
    expected: String,
}

impl GoldLabels {
    /// For these labels in id order; ids in the data start at `first_label_id`.
    pub fn new(labels: &[String], first_label_id: i64) -> GoldLabels {
        let mut by_name = HashMap::new();
        let mut by_lowercase = HashMap::new();
        for (id, label) in labels.iter().enumerate() {
            // If two classes have the same name, the first one counts, as in a linear search.
            by_name.entry(label.trim().to_owned()).or_insert(id);
            by_lowercase.entry(label.trim().to_lowercase()).or_insert(id);
        }
        GoldLabels { labels: labels.to_vec(), first_label_id, by_name, by_lowercase, seen: SeenIds::default() }
    }

    /// The class of `value`. Surrounding white space is ignored; an exact name takes precedence over a name in another
    /// case (Unicode lowercase), and a name over an id. An id may end in `.0`, because pandas writes integer columns
    /// with gaps like this.
    ///
    /// # Errors
    /// If it is none of them, such as the empty string.
    pub fn parse(&mut self, value: &str) -> Result<usize, UnknownGold> {
        let value = value.trim();
        self.named(value).or_else(|| self.by_id(value)).ok_or_else(|| self.unknown(value))
    }

    /// The classes of `value`: a JSON array of names and ids, or one label, or labels separated by `|`, `;` or commas.
    /// If the whole text is a label, it is not split. `[]` is the empty set.
    ///
    /// # Errors
    /// If one of them is not a label; the message names it.
    pub fn parse_set(&mut self, value: &str) -> Result<Vec<usize>, UnknownGold> {
        if let Ok(Value::Array(elements)) = serde_json::from_str(value) {
            return elements.iter().map(|element| self.parse(&written(element))).collect();
        }
        let whole = self.parse(value);
        let separators = SEPARATORS.into_iter().find(|separators| value.contains(*separators));
        match (whole, separators) {
            (Err(_), Some(separators)) => {
                value.split(separators).filter(|part| !part.trim().is_empty()).map(|part| self.parse(part)).collect()
            }
            (whole, _) => Ok(vec![whole?]),
        }
    }

    /// See [`super::Evaluation::likely_first_label_id`].
    pub fn likely_first_label_id(&self) -> Option<i64> {
        match (self.first_label_id, self.seen) {
            (0, SeenIds { zero: false, count: true, beyond: false }) => Some(1),
            (1, SeenIds { zero: true, count: false, beyond: false }) => Some(0),
            _ => None,
        }
    }

    /// The class of that name, in any case.
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        let name = name.trim();
        self.by_name.get(name).or_else(|| self.by_lowercase.get(&name.to_lowercase())).copied()
    }

    /// As [`GoldLabels::parse`], for a value that it has had before.
    pub(super) fn known(&self, value: &str) -> Option<usize> {
        let value = value.trim();
        self.named(value).or_else(|| self.index_of(written_id(value)?))
    }

    fn by_id(&mut self, value: &str) -> Option<usize> {
        let id = written_id(value)?;
        let classes = self.labels.len() as i64;
        self.seen.zero |= id == 0;
        self.seen.count |= id == classes;
        self.seen.beyond |= id > classes;
        self.index_of(id)
    }

    fn index_of(&self, id: i64) -> Option<usize> {
        let index = usize::try_from(id.checked_sub(self.first_label_id)?).ok()?;
        (index < self.labels.len()).then_some(index)
    }

    fn unknown(&self, value: &str) -> UnknownGold {
        let names: Vec<String> =
            self.labels.iter().take(SHOWN_NAMES).map(|label| format!("{:?}", shown(label))).collect();
        let more = if self.labels.len() > SHOWN_NAMES { ", …" } else { "" };
        let last = self.first_label_id.saturating_add(self.labels.len() as i64 - 1);
        let expected = format!(
            "one of the model's {} labels ({}{more}) or an id from {} to {last}",
            self.labels.len(),
            names.join(", "),
            self.first_label_id
        );
        UnknownGold { value: shown(value), expected }
    }
}

/// The number in `value`.
///
/// # Errors
/// If it is not a finite number.
pub fn parse_value(value: &str) -> Result<f64, UnknownGold> {
    let unknown = || UnknownGold { value: shown(value.trim()), expected: "a number".to_owned() };
    value.trim().parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(unknown)
}

impl fmt::Display for UnknownGold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the gold label {:?} is not {}", self.value, self.expected)
    }
}

impl std::error::Error for UnknownGold {}

/// An element of a JSON array, written like a field.
fn written(element: &Value) -> String {
    element.as_str().map_or_else(|| element.to_string(), str::to_owned)
}

/// The start of a value, which may be as long as a file.
fn shown(value: &str) -> String {
    match value.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

fn written_id(value: &str) -> Option<i64> {
    value.strip_suffix(".0").unwrap_or(value).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gold(names: &[&str], first_label_id: i64) -> GoldLabels {
        GoldLabels::new(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(), first_label_id)
    }

    #[test]
    fn names_in_any_case_and_ids_from_the_first() {
        let mut labels = gold(&["World", "Sci/Tech", "Ärger"], 1);
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
        assert_eq!(gold(&["2", "1", "0"], 0).parse("2"), Ok(0));
        let mut labels = gold(&["us", "US"], 0);
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
            r#"the gold label "sprots" is not one of the model's 2 labels ("World", "Sports") or an id from 1 to 2"#;
        assert_eq!(message, expected);
        let many: Vec<String> = (0..400).map(|id| format!("class {id}")).collect();
        let message = GoldLabels::new(&many, 0).parse(&"x".repeat(1 << 20)).unwrap_err().to_string();
        assert!(message.len() < 500 && message.contains("\"class 11\", …)"), "{message}");
    }

    #[test]
    fn ids_that_start_elsewhere_are_noticed() {
        let likely = |first: i64, values: &[&str]| {
            let mut labels = gold(&["World", "Sports", "Business", "Sci/Tech"], first);
            for value in values {
                let _ = labels.parse(value);
            }
            labels.likely_first_label_id()
        };
        assert_eq!(likely(0, &["1", "3", "4", "2"]), Some(1));
        assert_eq!(likely(0, &["4.0", "world", "-1"]), Some(1), "-1 often means no label");
        assert_eq!(likely(1, &["0", "3"]), Some(0));
        assert_eq!(likely(0, &["1", "2", "3"]), None, "these are all valid");
        assert_eq!(likely(0, &["0", "4"]), None, "one label more than the model has");
        assert_eq!(likely(0, &["4", "7"]), None, "labels from another list");
        assert_eq!(likely(1, &["1", "4"]), None);
        assert_eq!(likely(0, &["sports"]), None);
    }

    #[test]
    fn sets_are_arrays_or_lists() {
        let mut labels = gold(&["joy", "anger", "fear, or worry"], 0);
        assert_eq!(labels.parse_set(r#"["Joy", 1, "2"]"#), Ok(vec![0, 1, 2]));
        assert_eq!(labels.parse_set("[]"), Ok(vec![]));
        assert_eq!(labels.parse_set("joy, anger"), Ok(vec![0, 1]));
        assert_eq!(labels.parse_set("joy|fear, or worry;"), Ok(vec![0, 2]));
        assert_eq!(labels.parse_set("Fear, or Worry"), Ok(vec![2]));
        assert_eq!(labels.parse_set("1"), Ok(vec![1]));
        assert_eq!(labels.parse_set("joy, calm").unwrap_err().value, "calm");
        assert_eq!(labels.parse_set(r#"[["joy"]]"#).unwrap_err().value, r#"["joy"]"#);
        assert_eq!(labels.parse_set("calm").unwrap_err().value, "calm");
    }

    #[test]
    fn values_are_finite_numbers() {
        assert_eq!(parse_value(" -1.5e3 "), Ok(-1500.0));
        for bad in ["", "nan", "inf", "1,5", "four"] {
            assert!(parse_value(bad).is_err(), "{bad}");
        }
    }
}
