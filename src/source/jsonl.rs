//! JSON Lines: an object a line (<https://jsonlines.org>). A blank line is a blank record in its place.

use super::fields::{list_names, FieldSelection, FieldValue, Fields, Kept, KeptFields, DEFAULT_TEXT_FIELD};
use super::lines::{Line, LineSplitter, Separator};
use super::{Record, RecordReader, MAX_RECORD_BYTES, TOO_LONG};
use anyhow::{bail, Result};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Reads JSON Lines that are fed piece by piece.
pub(super) struct JsonlReader {
    lines: LineSplitter,
    objects: ObjectReader,
}

/// Objects to records.
struct ObjectReader {
    selection: FieldSelection,
    /// The text's fields, once an object has shown which one it is.
    text: Vec<String>,
    kept_names: Arc<[String]>,
}

impl JsonlReader {
    pub(super) fn new(selection: FieldSelection) -> JsonlReader {
        let kept_names = match &selection.kept {
            KeptFields::One(name) => Arc::from([name.clone()]),
            KeptFields::None | KeptFields::All => Arc::from([]),
        };
        let objects = ObjectReader { text: selection.text.clone(), selection, kept_names };
        JsonlReader { lines: LineSplitter::new(Separator::LineBreak, MAX_RECORD_BYTES), objects }
    }
}

impl RecordReader for JsonlReader {
    fn feed(&mut self, bytes: &[u8], records: &mut Vec<Record>) -> Result<()> {
        let mut outcome = Ok(());
        self.lines.feed(bytes, &mut |line| {
            if outcome.is_ok() {
                outcome = self.objects.record(&line).map(|record| records.push(record));
            }
        });
        outcome
    }

    fn finish(&mut self, records: &mut Vec<Record>) -> Result<()> {
        let mut outcome = Ok(());
        self.lines.finish(&mut |line| outcome = self.objects.record(&line).map(|record| records.push(record)));
        outcome
    }

    fn kept_names(&self) -> Option<&Arc<[String]>> {
        Some(&self.objects.kept_names)
    }
}

impl ObjectReader {
    /// # Errors
    /// Where nobody said which field is the text, and the first object does not show it either.
    fn record(&mut self, line: &Line<'_>) -> Result<Record> {
        if line.is_cut {
            return Ok(Record::malformed(TOO_LONG).at_line(line.number));
        }
        let text = String::from_utf8_lossy(line.bytes);
        if text.trim().is_empty() {
            return Ok(Record::default().at_line(line.number));
        }
        let mut record = match Object::parse(&text) {
            Ok(object) => {
                self.find_text(&object)?;
                self.record_of(&object)
            }
            Err(reason) => Record::malformed(reason),
        };
        record.had_invalid_utf8 = matches!(text, Cow::Owned(_));
        Ok(record.at_line(line.number))
    }

    /// Settles which field is the text, where that is open.
    fn find_text(&mut self, object: &Object<'_>) -> Result<()> {
        if !self.text.is_empty() {
            return Ok(());
        }
        self.text = match object.0.as_slice() {
            fields if fields.iter().any(|(name, _)| name == DEFAULT_TEXT_FIELD) => vec![DEFAULT_TEXT_FIELD.into()],
            [(only, _)] => vec![only.clone().into_owned()],
            _ => bail!("say with --text-field which key holds the text: {}", object.list_keys()),
        };
        Ok(())
    }

    /// What can be carried through is, also where the text is not as it should be.
    fn record_of(&mut self, object: &Object<'_>) -> Record {
        let text = self.text.iter().map(|name| object.scalar(name)).collect::<Result<Vec<_>, _>>();
        let (mut record, kept) = match (text, self.kept(object)) {
            (Ok(parts), Ok(kept)) => (Record { text: parts.join(" "), ..Record::default() }, kept),
            (Err(reason), kept) => (Record::malformed(reason), kept.unwrap_or_else(|_| Kept::none())),
            (Ok(_), Err(reason)) => (Record::malformed(reason), Kept::none()),
        };
        let gold = self.selection.label.as_ref().and_then(|name| object.gold(name));
        if gold.is_some() || !kept.values.is_empty() {
            record.fields = Some(Box::new(Fields { gold, kept }));
        }
        record
    }

    fn kept(&mut self, object: &Object<'_>) -> Result<Kept, String> {
        match &self.selection.kept {
            KeptFields::None => Ok(Kept::none()),
            KeptFields::One(name) => {
                let values = vec![FieldValue::Json(compact(object.value(name)?))];
                Ok(Kept { names: self.kept_names.clone(), values })
            }
            KeptFields::All => {
                let names = object.0.iter().map(|(name, _)| name.as_ref());
                if !names.clone().eq(self.kept_names.iter().map(String::as_str)) {
                    self.kept_names = names.map(str::to_owned).collect();
                }
                let values = object.0.iter().map(|(_, value)| FieldValue::Json(compact(value.get()))).collect();
                Ok(Kept { names: self.kept_names.clone(), values })
            }
        }
    }
}

/// The keys and values of one object, in order; the values checked for syntax, not decoded.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    fn parse(line: &'a str) -> Result<Object<'a>, String> {
        serde_json::from_str(line).map_err(|error| {
            let hint = match line.trim_start().as_bytes().first() {
                Some(b'[') => " (of a file that is one JSON array, `jq -c '.[]'` makes lines)",
                _ => "",
            };
            // The position within the line matters, and "line 1" is not the line of the file.
            format!("it is not a JSON object: {}{hint}", error.to_string().replace("line 1 column", "column"))
        })
    }

    /// The value under `name`, which may be dotted to reach into nested objects; a key with dots in it goes first.
    fn value(&self, name: &str) -> Result<&'a str, String> {
        self.find(name).ok_or_else(|| format!("it has no {name:?}: {}", self.list_keys()))
    }

    fn find(&self, name: &str) -> Option<&'a str> {
        if let Some((_, value)) = self.0.iter().find(|(key, _)| key == name) {
            return Some(value.get());
        }
        name.match_indices('.').find_map(|(dot, _)| {
            let (_, value) = self.0.iter().find(|(key, _)| *key == name[..dot])?;
            Object::parse(value.get()).ok()?.find(&name[dot + 1..])
        })
    }

    /// A string, a number as it stands, or nothing for null.
    fn scalar(&self, name: &str) -> Result<Cow<'a, str>, String> {
        let value = self.value(name)?;
        match value.as_bytes().first() {
            Some(b'"') => {
                let text: JsonString<'a> =
                    serde_json::from_str(value).map_err(|error| format!("its {name:?} is no text: {error}"))?;
                Ok(text.0)
            }
            Some(b'-' | b'0'..=b'9') => Ok(Cow::Borrowed(value)),
            Some(b'n') => Ok(Cow::Borrowed("")),
            _ => Err(format!("its {name:?} is neither a string nor a number")),
        }
    }

    /// The gold label under `name`; what cannot be one is told where it is compared with the labels.
    fn gold(&self, name: &str) -> Option<String> {
        let value = self.find(name)?;
        Some(self.scalar(name).map_or_else(|_| compact(value), Cow::into_owned))
    }

    fn list_keys(&self) -> String {
        format!("its keys are {}", list_names(self.0.iter().map(|(name, _)| name.as_ref())))
    }
}

/// A string that is borrowed where it has no escapes.
#[derive(Deserialize)]
struct JsonString<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;

        impl<'de> Visitor<'de> for Keys {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((JsonString(key), value)) = map.next_entry()? {
                    fields.push((key, value));
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Keys).map(Object)
    }
}

/// The same JSON without white space around its tokens, so that no raw tab or line break is left.
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

    fn read(selection: FieldSelection, jsonl: &str) -> Result<Vec<Record>> {
        let mut reader = JsonlReader::new(selection);
        let mut records = Vec::new();
        reader.feed(jsonl.as_bytes(), &mut records)?;
        reader.finish(&mut records)?;
        Ok(records)
    }

    fn of(text: &[&str]) -> FieldSelection {
        FieldSelection { text: text.iter().map(|name| name.to_string()).collect(), ..FieldSelection::default() }
    }

    fn texts(text: &[&str], jsonl: &str) -> Vec<String> {
        let records = read(of(text), jsonl).unwrap();
        records
            .iter()
            .map(|record| record.malformed.clone().map_or(record.text.clone(), |m| format!("! {m}")))
            .collect()
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
        assert!(texts[2].contains("jq"), "{}", texts[2]);
        assert_eq!(texts[3], "! its \"text\" is neither a string nor a number");
        assert_eq!(texts[4], "! it has no \"text\": its keys are \"txt\"");
        assert!(texts[5].starts_with("! it is not a JSON object: trailing characters"), "{}", texts[5]);
        assert!(texts[6].starts_with("! its \"text\" is no text"), "{}", texts[6]);
    }

    #[test]
    fn several_keys_without_text_are_an_error_that_lists_them() {
        let error = read(of(&[]), "{\"a\":1,\"b\":2}\n").unwrap_err().to_string();
        assert!(error.contains("--text-field") && error.contains("\"a\", \"b\""), "{error}");
    }

    #[test]
    fn kept_values_keep_their_digits_and_lose_white_space() {
        let selection = FieldSelection { kept: KeptFields::All, ..of(&["text"]) };
        let line = "{\"text\":\"a \\\" b\\\\\" ,\t\"n\":1.0e2, \"big\":123456789012345678901234567890,\"o\":{ \"k\" : [ 1,\r2 ] }}\n";
        let records = read(selection, &line.repeat(2)).unwrap();
        let kept = records.iter().map(|record| &record.fields.as_ref().unwrap().kept).collect::<Vec<_>>();
        let json = ["\"a \\\" b\\\\\"", "1.0e2", "123456789012345678901234567890", "{\"k\":[1,2]}"];
        assert_eq!(kept[0].values, json.map(|json| FieldValue::Json(json.to_owned())));
        assert_eq!(kept[0].names.join(" "), "text n big o");
        assert!(Arc::ptr_eq(&kept[0].names, &kept[1].names), "records with the same keys share them");
    }

    #[test]
    fn a_record_with_a_fault_still_carries_what_it_has() {
        let selection = FieldSelection { kept: KeptFields::One("id".into()), ..of(&["text"]) };
        let records = read(selection, "{\"id\":7}\n{\"text\":\"a\"}\n").unwrap();
        assert!(records[0].malformed.is_some());
        assert_eq!(records[0].fields.as_ref().unwrap().kept.values, [FieldValue::Json("7".into())]);
        assert_eq!(records[1].malformed.as_deref(), Some("it has no \"id\": its keys are \"text\""));
    }

    #[test]
    fn gold_labels_may_be_missing() {
        let selection = FieldSelection { label: Some("gold".into()), ..of(&["text"]) };
        let lines = "{\"text\":\"a\",\"gold\":3}\n{\"text\":\"a\"}\n{\"text\":\"a\",\"gold\":null}\n{\"text\":\"a\",\"gold\":[1]}\n";
        let records = read(selection, lines).unwrap();
        let gold: Vec<Option<&str>> =
            records.iter().map(|record| record.fields.as_ref().and_then(|fields| fields.gold.as_deref())).collect();
        assert_eq!(gold, [Some("3"), None, Some(""), Some("[1]")]);
        assert!(records.iter().all(|record| record.malformed.is_none()));
    }
}
