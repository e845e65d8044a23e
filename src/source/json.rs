//! JSON: an object per line (<https://jsonlines.org>), or an array of objects. In JSON Lines, an empty line is a blank
//! record in its place.

use super::fields::{default_text_key, list_keys, FieldSelection, KeptFields};
use super::lines::{EachLine, Line, LineSplitter, Separator};
use super::reader::{RecordReader, MAX_RECORD_BYTES, TOO_LONG};
use super::record::{Content, Draft, FieldValue, Kept, Schema};
use anyhow::{ensure, Result};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Reads JSON that is fed piece by piece.
pub(super) struct JsonReader {
    splitter: Splitter,
    objects: ObjectReader,
}

/// What separates one object from the next.
enum Splitter {
    Lines(LineSplitter),
    Values(ValueSplitter),
}

impl JsonReader {
    /// An object per line.
    pub(super) fn lines(selection: FieldSelection) -> JsonReader {
        JsonReader::new(Splitter::Lines(LineSplitter::new(Separator::LineBreak, MAX_RECORD_BYTES)), selection)
    }

    /// An array of objects, or objects one after another, however they are laid out.
    pub(super) fn values(selection: FieldSelection) -> JsonReader {
        JsonReader::new(Splitter::Values(ValueSplitter::new(MAX_RECORD_BYTES)), selection)
    }

    fn new(splitter: Splitter, selection: FieldSelection) -> JsonReader {
        JsonReader { splitter, objects: ObjectReader { text: selection.text.clone(), selection } }
    }
}

impl RecordReader for JsonReader {
    fn feed(&mut self, bytes: &[u8], records: &mut Vec<Draft>) -> Result<()> {
        let mut each = |line: Line<'_>| self.objects.draft(&line).map(|draft| records.push(draft));
        match &mut self.splitter {
            Splitter::Lines(lines) => lines.feed(bytes, &mut each),
            Splitter::Values(values) => values.feed(bytes, &mut each),
        }
    }

    fn finish(&mut self, records: &mut Vec<Draft>) -> Result<()> {
        let mut each = |line: Line<'_>| self.objects.draft(&line).map(|draft| records.push(draft));
        match &mut self.splitter {
            Splitter::Lines(lines) => lines.finish(&mut each),
            Splitter::Values(values) => values.finish(&mut each),
        }
    }

    fn schema(&self) -> Option<Schema> {
        Some(match &self.objects.selection.kept {
            KeptFields::None => Schema::Columns(Vec::new()),
            KeptFields::One(name) => Schema::Chosen(name.clone()),
            KeptFields::All => Schema::Objects,
        })
    }
}

/// Cuts a stream into the elements of an array, or into values one after another. What is inside a value is left to
/// the parser: this only finds its end, by counting brackets outside strings.
struct ValueSplitter {
    limit: usize,
    state: State,
    /// Inside an array, a comma or the array's end follows a value.
    is_array: bool,
    value: Vec<u8>,
    is_cut: bool,
    depth: usize,
    is_string: bool,
    is_escaped: bool,
    line: u64,
    first_line: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before an array or a value.
    Outside,
    /// In an array, before an element or the end.
    Between,
    /// In a value.
    Inside,
}

impl ValueSplitter {
    fn new(limit: usize) -> ValueSplitter {
        ValueSplitter {
            limit,
            state: State::Outside,
            is_array: false,
            value: Vec::new(),
            is_cut: false,
            depth: 0,
            is_string: false,
            is_escaped: false,
            line: 1,
            first_line: 1,
        }
    }

    fn feed(&mut self, bytes: &[u8], each: &mut EachLine<'_>) -> Result<()> {
        for &byte in bytes {
            match self.state {
                State::Inside => self.inside(byte, each)?,
                _ if byte.is_ascii_whitespace() => {}
                State::Outside if byte == b'[' => (self.state, self.is_array) = (State::Between, true),
                State::Between if byte == b']' => (self.state, self.is_array) = (State::Outside, false),
                State::Between if byte == b',' => {}
                State::Outside | State::Between => {
                    (self.state, self.first_line) = (State::Inside, self.line);
                    self.inside(byte, each)?;
                }
            }
            self.line += u64::from(byte == b'\n');
        }
        Ok(())
    }

    /// Takes a byte of a value, or the one behind it.
    fn inside(&mut self, byte: u8, each: &mut EachLine<'_>) -> Result<()> {
        if self.is_string {
            self.hold(byte);
            self.is_string = self.is_escaped || byte != b'"';
            self.is_escaped = byte == b'\\' && !self.is_escaped;
            return Ok(());
        }
        let is_bare = self.depth == 0;
        match byte {
            b',' | b']' if is_bare && self.is_array => {
                self.give(each)?;
                if byte == b']' {
                    (self.state, self.is_array) = (State::Outside, false);
                }
                return Ok(());
            }
            byte if is_bare && byte.is_ascii_whitespace() => return self.give(each),
            b'"' => self.is_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.hold(byte);
        match !is_bare && self.depth == 0 {
            true => self.give(each),
            false => Ok(()),
        }
    }

    fn finish(&mut self, each: &mut EachLine<'_>) -> Result<()> {
        if self.state == State::Inside {
            self.give(each)?;
        }
        ensure!(!self.is_array, "its JSON array has no end: the file may be cut");
        Ok(())
    }

    fn hold(&mut self, byte: u8) {
        match self.value.len() < self.limit {
            true => self.value.push(byte),
            false => self.is_cut = true,
        }
    }

    fn give(&mut self, each: &mut EachLine<'_>) -> Result<()> {
        self.state = if self.is_array { State::Between } else { State::Outside };
        (self.depth, self.is_string, self.is_escaped) = (0, false, false);
        let mut bytes = std::mem::take(&mut self.value);
        each(Line { bytes: &bytes, number: self.first_line, is_cut: std::mem::take(&mut self.is_cut) })?;
        bytes.clear();
        self.value = bytes;
        Ok(())
    }
}

/// Objects to records.
struct ObjectReader {
    selection: FieldSelection,
    /// The text's fields, once an object has shown which one it is.
    text: Vec<String>,
}

impl ObjectReader {
    /// # Errors
    /// If nobody said which field is the text, and the first object does not show it either.
    fn draft(&mut self, line: &Line<'_>) -> Result<Draft> {
        if line.is_cut {
            return Ok(Draft::malformed(line.number, TOO_LONG));
        }
        let json = String::from_utf8_lossy(line.bytes);
        if json.trim().is_empty() {
            return Ok(Draft::blank(line.number));
        }
        let mut draft = match Object::parse(&json) {
            Ok(object) => {
                if self.text.is_empty() {
                    self.text = vec![default_text_key(object.keys())?];
                }
                self.draft_of(&object, line.number)
            }
            Err(reason) => Draft::malformed(line.number, reason),
        };
        draft.was_invalid_utf8 = matches!(json, Cow::Owned(_));
        Ok(draft)
    }

    /// What can be copied is, even if the text is not as it should be.
    fn draft_of(&self, object: &Object<'_>, line: u64) -> Draft {
        let parts = self.text.iter().map(|name| object.scalar(name)).collect::<Result<Vec<_>, _>>();
        let text_pair = self.selection.text_pair.as_ref().map(|name| object.scalar(name)).transpose();
        let (kept, fault) = match self.kept(object) {
            Ok(kept) => (kept, None),
            Err(reason) => (Kept::default(), Some(reason)),
        };
        let content = match (parts, text_pair, fault) {
            (Ok(parts), Ok(None), None) => Content::of_text(parts.join(" ")),
            (Ok(parts), Ok(Some(text_pair)), None) => Content::of_pair(parts.join(" "), text_pair.into_owned()),
            (Err(reason), _, _) | (_, Err(reason), _) | (_, _, Some(reason)) => Content::Malformed(reason),
        };
        let gold = self.selection.label.as_ref().and_then(|name| object.gold(name));
        Draft { line, content, gold, kept, was_invalid_utf8: false }
    }

    fn kept(&self, object: &Object<'_>) -> Result<Kept, String> {
        Ok(match &self.selection.kept {
            KeptFields::None => Kept::default(),
            KeptFields::One(name) => Kept::Row(vec![FieldValue::Json(compact(object.value(name)?))]),
            KeptFields::All => {
                let field = |(name, value): (&Cow<'_, str>, &&RawValue)| {
                    (name.clone().into_owned(), FieldValue::Json(compact(value.get())))
                };
                Kept::Object(object.0.iter().map(field).collect())
            }
        })
    }
}

/// The keys and values of one object, in order; the values checked for syntax, not decoded. Of equal keys the last
/// one counts, as in other JSON parsers.
#[derive(Deserialize)]
#[serde(transparent)]
struct Object<'a>(#[serde(borrow, deserialize_with = "borrowed_keys")] IndexMap<Cow<'a, str>, &'a RawValue>);

/// A string that is borrowed if it has no escapes.
#[derive(Deserialize, PartialEq, Eq, Hash)]
struct JsonString<'a>(#[serde(borrow)] Cow<'a, str>);

/// serde copies a map's keys unless they are told to borrow.
fn borrowed_keys<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<IndexMap<Cow<'de, str>, &'de RawValue>, D::Error> {
    let map = IndexMap::<JsonString<'de>, &'de RawValue>::deserialize(deserializer)?;
    Ok(map.into_iter().map(|(JsonString(key), value)| (key, value)).collect())
}

impl<'a> Object<'a> {
    fn parse(json: &'a str) -> Result<Object<'a>, String> {
        serde_json::from_str(json).map_err(|error| {
            let hint = match json.trim_start().starts_with('[') {
                true => " (if the file is one JSON array, its input format is json)",
                false => "",
            };
            // The position in the line matters, and "line 1" is not the line of the file.
            format!("it is not a JSON object: {}{hint}", error.to_string().replace("line 1 column", "column"))
        })
    }

    fn keys(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.0.keys().map(|key| key.as_ref())
    }

    /// The value under `name`, which may be dotted to reach into nested objects; a key with dots in it goes first.
    fn value(&self, name: &str) -> Result<&'a str, String> {
        self.find(name).ok_or_else(|| format!("it has no {name:?}: {}", list_keys(self.keys())))
    }

    fn find(&self, name: &str) -> Option<&'a str> {
        if let Some(value) = self.0.get(name) {
            return Some(value.get());
        }
        name.match_indices('.')
            .find_map(|(dot, _)| Object::parse(self.0.get(&name[..dot])?.get()).ok()?.find(&name[dot + 1..]))
    }

    /// A string, a number as it stands, or nothing for null.
    fn scalar(&self, name: &str) -> Result<Cow<'a, str>, String> {
        let value = self.value(name)?;
        match value.as_bytes().first() {
            Some(b'"') => {
                let text: JsonString<'a> =
                    serde_json::from_str(value).map_err(|error| format!("its {name:?} is not text: {error}"))?;
                Ok(text.0)
            }
            Some(b'-' | b'0'..=b'9') => Ok(Cow::Borrowed(value)),
            Some(b'n') => Ok(Cow::Borrowed("")),
            _ => Err(format!("its {name:?} is neither a string nor a number")),
        }
    }

    /// The gold label under `name`. One that cannot be a label is reported where it is compared with the labels.
    fn gold(&self, name: &str) -> Option<String> {
        let value = self.find(name)?;
        Some(self.scalar(name).map_or_else(|_| compact(value), Cow::into_owned))
    }
}

/// The same JSON without white space around its tokens, so that no raw tab or line break remains.
fn compact(json: &str) -> String {
    let mut compact = String::with_capacity(json.len());
    let (mut is_inside_string, mut is_escaped) = (false, false);
    for c in json.chars() {
        if is_inside_string {
            is_inside_string = is_escaped || c != '"';
            is_escaped = c == '\\' && !is_escaped;
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            is_inside_string = c == '"';
        }
        compact.push(c);
    }
    compact
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::{read as read_pieces, show, texts as texts_of};
    use crate::source::{InputFormat, ReadOptions, Record};

    fn options(fields: FieldSelection) -> ReadOptions {
        ReadOptions { format: Some(InputFormat::Jsonl), fields, ..ReadOptions::default() }
    }

    fn read(selection: FieldSelection, jsonl: &str) -> Result<Vec<Record>> {
        read_pieces(&options(selection), &[jsonl.as_bytes()])
    }

    fn of(text: &[&str]) -> FieldSelection {
        FieldSelection { text: text.iter().map(|name| name.to_string()).collect(), ..FieldSelection::default() }
    }

    fn texts(text: &[&str], jsonl: &str) -> Vec<String> {
        texts_of(&options(of(text)), jsonl)
    }

    #[test]
    fn strings_numbers_and_null_are_texts() {
        assert_eq!(
            texts(
                &[],
                "{\"id\":1,\"text\":\"a\\n\\u00e9\"}\r\n {\"text\": 1.50 }\n{\"text\":null}\n\n{\"text\":\"last\"}"
            ),
            ["a\n\u{e9}", "1.50", "", "", "last"]
        );
        assert_eq!(texts(&[], "{\"headline\":\"only\"}"), ["only"]);
    }

    #[test]
    fn names_reach_into_objects_and_a_name_with_dots_goes_first() {
        let line = r#"{"a":{"b":{"c":"deep"},"b.c":"dotted below"},"a.b.x":"dotted"}"#;
        assert_eq!(texts(&["a.b.c"], line), ["dotted below"]);
        assert_eq!(texts(&["a.b.x"], line), ["dotted"]);
        assert_eq!(texts(&["a.b.x", "a.b.c"], line), ["dotted dotted below"]);
        assert!(texts(&["a.x"], line)[0].contains("! it has no \"a.x\": its keys are \"a\", \"a.b.x\""));
    }

    #[test]
    fn malformed_lines_keep_their_places() {
        let texts = texts(
            &["text"],
            "{\"text\":\"a\"}\nnot json\n[1]\n{\"text\":[1]}\n{\"txt\":\"b\"}\n{\"text\":\"c\"} x\n{\"text\":\"\\ud800\"}\n{\"text\":\"d\"}\n",
        );
        assert_eq!(texts.len(), 8);
        assert_eq!((texts[0].as_str(), texts[7].as_str()), ("a", "d"));
        assert!(texts[1].starts_with("! it is not a JSON object: expected ident at column 2"), "{}", texts[1]);
        assert!(texts[2].contains("its input format is json"), "{}", texts[2]);
        assert_eq!(texts[3], "! its \"text\" is neither a string nor a number");
        assert_eq!(texts[4], "! it has no \"text\": its keys are \"txt\"");
        assert!(texts[5].starts_with("! it is not a JSON object: trailing characters"), "{}", texts[5]);
        assert!(texts[6].starts_with("! its \"text\" is not text"), "{}", texts[6]);
    }

    #[test]
    fn arrays_are_read_element_by_element_however_they_are_laid_out() {
        let values = |json: &str| {
            let options = ReadOptions { format: Some(InputFormat::Json), ..options(of(&["text"])) };
            texts_of(&options, json)
        };
        let array =
            "[\n  {\n    \"text\": \"a ] } , \\\" \\\\\",\n    \"x\": [1, {\"y\": 2}]\n  },\n  {\"text\":\"b\"} ]\n";
        assert_eq!(values(array), ["a ] } , \" \\", "b"]);
        assert_eq!(values("{\"text\":\"a\"}{\"text\":\"b\"}\n{\"text\":\n\"c\"}"), ["a", "b", "c"]);
        assert_eq!(values("[{\"text\":\"a\"}] [{\"text\":\"b\"}]"), ["a", "b"]);
        assert!(values("[]").is_empty() && values(" \n").is_empty());
        let odd = values("[{\"text\":\"a\"}, 7, \"x\", {\"text\":}, {\"text\":\"b\"}]");
        assert_eq!((odd.len(), odd[0].as_str(), odd[4].as_str()), (5, "a", "b"));
        assert!(odd[1..4].iter().all(|text| text.starts_with("! it is not a JSON object")), "{odd:?}");
    }

    #[test]
    fn a_cut_array_is_an_error_after_what_was_whole() {
        let options = ReadOptions { format: Some(InputFormat::Json), ..options(of(&["text"])) };
        for cut in ["[{\"text\":\"a\"}", "[{\"text\":\"a\"},", "[{\"text\":\"a\"},{\"te"] {
            let error = read_pieces(&options, &[cut.as_bytes()]).unwrap_err();
            assert!(format!("{error:#}").contains("no end"), "{error:#}");
        }
    }

    #[test]
    fn lines_of_array_elements_are_counted() {
        let options = ReadOptions { format: Some(InputFormat::Json), ..options(of(&["text"])) };
        let records = read_pieces(&options, &[b"[\n{\"text\":\n\"a\"},\n\n{\"text\":\"b\"}]"]).unwrap();
        assert_eq!(records.iter().map(|record| record.origin.line).collect::<Vec<_>>(), [2, 5]);
    }

    #[test]
    fn several_keys_without_text_are_an_error_that_lists_them() {
        let error = format!("{:#}", read(of(&[]), "{\"a\":1,\"b\":2}\n").unwrap_err());
        assert!(error.contains("which field is the text") && error.contains("\"a\", \"b\""), "{error}");
    }

    #[test]
    fn of_equal_keys_the_last_counts() {
        let selection = FieldSelection { kept: KeptFields::All, ..of(&["text"]) };
        let records = read(selection, "{\"text\":\"a\",\"n\":1,\"t\\u0065xt\":\"b\"}\n").unwrap();
        assert_eq!(show(&records[0]), "b");
        let field = |name: &str, json: &str| (name.to_owned(), FieldValue::Json(json.to_owned()));
        assert_eq!(records[0].kept, Kept::Object(vec![field("text", "\"b\""), field("n", "1")]));
    }

    #[test]
    fn kept_values_keep_their_digits_and_lose_white_space() {
        let selection = FieldSelection { kept: KeptFields::All, ..of(&["text"]) };
        let line = "{\"text\":\"a \\\" b\\\\\" ,\t\"n\":1.0e2, \"big\":123456789012345678901234567890,\"o\":{ \"k\" : [ 1,\r2 ] }}\n";
        let records = read(selection, line).unwrap();
        let json = ["\"a \\\" b\\\\\"", "1.0e2", "123456789012345678901234567890", "{\"k\":[1,2]}"];
        let fields = ["text", "n", "big", "o"].into_iter().zip(json);
        let fields = fields.map(|(name, json)| (name.to_owned(), FieldValue::Json(json.to_owned())));
        assert_eq!(records[0].kept, Kept::Object(fields.collect()));
    }

    #[test]
    fn a_record_with_a_fault_still_carries_what_it_has() {
        let selection = FieldSelection { kept: KeptFields::One("id".into()), ..of(&["text"]) };
        let records = read(selection, "{\"id\":7}\n{\"text\":\"a\"}\n").unwrap();
        assert!(matches!(records[0].content, Content::Malformed(_)));
        assert_eq!(records[0].kept, Kept::Row(vec![FieldValue::Json("7".into())]));
        assert_eq!(show(&records[1]), "! it has no \"id\": its keys are \"text\"");
    }

    #[test]
    fn gold_labels_may_be_missing() {
        let selection = FieldSelection { label: Some("gold".into()), ..of(&["text"]) };
        let lines = "{\"text\":\"a\",\"gold\":3}\n{\"text\":\"a\"}\n{\"text\":\"a\",\"gold\":null}\n{\"text\":\"a\",\"gold\":[1]}\n";
        let records = read(selection, lines).unwrap();
        let gold: Vec<Option<&str>> = records.iter().map(|record| record.gold.as_deref()).collect();
        assert_eq!(gold, [Some("3"), None, Some(""), Some("[1]")]);
        assert!(records.iter().all(|record| matches!(record.content, Content::Text(_))));
    }
}
