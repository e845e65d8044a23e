//! The settings of a tokenizer: tokenizer_config.json, special_tokens_map.json and added_tokens.json.

use crate::checkpoint::files::CheckpointFiles;
use anyhow::{anyhow, ensure, Context, Result};
use serde_json::{Map, Value};
use tokenizers::utils::truncation::TruncationDirection;
use tokenizers::AddedToken;

/// What the files say. Each may be missing.
pub(super) struct TokenizerConfig {
    config: Object,
    special_tokens_map: Object,
    class: Option<String>,
    /// In tokens; `None` if absent or "no limit" (transformers writes 1e30).
    pub(super) model_max_length: Option<usize>,
    /// The end at which a text that is too long is cut.
    pub(super) truncation_side: TruncationDirection,
    /// Whether `model_input_names` leaves out the token types, so the model gets none.
    pub(super) without_token_types: bool,
    /// The tokens outside the vocabulary, by id.
    pub(super) listed_tokens: Vec<ListedToken>,
}

/// A token of added_tokens.json or `added_tokens_decoder`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ListedToken {
    pub(super) id: u32,
    pub(super) content: String,
    /// The token with its settings; added_tokens.json has none.
    pub(super) token: Option<AddedToken>,
    /// The file and field, for messages.
    pub(super) origin: String,
}

impl ListedToken {
    /// The token as listed; without settings in the list, `special`, or a token with default settings.
    pub(super) fn or_plain(&self, special: Option<&AddedToken>) -> AddedToken {
        let token = self.token.as_ref().or(special).cloned();
        token.unwrap_or_else(|| AddedToken::from(&*self.content, false))
    }
}

impl TokenizerConfig {
    /// Reads the files.
    ///
    /// # Errors
    /// If a file exists but does not parse, or a field that every tokenizer needs has the wrong type; the message names
    /// both.
    pub(super) fn load(files: &CheckpointFiles) -> Result<TokenizerConfig> {
        let config = Object::load(files, "tokenizer_config.json")?;
        let added_tokens = Object::load(files, "added_tokens.json")?;
        let input_names = config.get("model_input_names").and_then(Value::as_array);
        Ok(TokenizerConfig {
            class: config.text("tokenizer_class")?,
            model_max_length: config.length("model_max_length")?,
            truncation_side: match config.text("truncation_side")?.as_deref() {
                None | Some("right") => TruncationDirection::Right,
                Some("left") => TruncationDirection::Left,
                Some(_) => return Err(config.fault("truncation_side", "\"left\" or \"right\"")),
            },
            without_token_types: input_names.is_some_and(|names| !names.contains(&"token_type_ids".into())),
            listed_tokens: listed_tokens(&config, &added_tokens)?,
            special_tokens_map: Object::load(files, "special_tokens_map.json")?,
            config,
        })
    }

    /// `tokenizer_class`.
    pub(super) fn class(&self) -> Option<&str> {
        self.class.as_deref()
    }

    /// The setting `name` of tokenizer_config.json: true or false.
    ///
    /// # Errors
    /// If it is anything else.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>> {
        let Some(value) = self.config.get(name) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.config.fault(name, "true or false"))
    }

    /// Refuses a setting that is not supported and changes the ids, unless it has its usual value.
    ///
    /// # Errors
    /// If it has another value; the message names the file and the field.
    pub(super) fn demand(&self, name: &str, usual: bool) -> Result<()> {
        ensure!(
            self.flag(name)?.unwrap_or(usual) == usual,
            "{}: {name} is {}, which is not supported without a tokenizer.json",
            self.config.origin,
            !usual
        );
        Ok(())
    }

    /// The special token `name`: a string, or an object with its settings. tokenizer_config.json overrides
    /// special_tokens_map.json.
    ///
    /// # Errors
    /// If it is neither.
    pub(super) fn special_token(&self, name: &str) -> Result<Option<AddedToken>> {
        for file in [&self.config, &self.special_tokens_map] {
            if let Some(value) = file.get(name) {
                return Ok(Some(file.token(value, true).ok_or_else(|| file.fault(name, "a token"))?));
            }
        }
        Ok(None)
    }

    /// `additional_special_tokens`, or the name that transformers 5 uses for it.
    ///
    /// # Errors
    /// If it is not a list of tokens.
    pub(super) fn additional_special_tokens(&self) -> Result<Vec<AddedToken>> {
        for file in [&self.config, &self.special_tokens_map] {
            for name in ["additional_special_tokens", "extra_special_tokens"] {
                let Some(value) = file.get(name) else { continue };
                // In transformers 4 the second name is an object of names and tokens.
                let values: Vec<&Value> = match value {
                    Value::Array(values) => values.iter().collect(),
                    Value::Object(values) => values.values().collect(),
                    _ => return Err(file.fault(name, "a list of tokens")),
                };
                let tokens: Option<Vec<AddedToken>> = values.into_iter().map(|value| file.token(value, true)).collect();
                return tokens.ok_or_else(|| file.fault(name, "a list of tokens"));
            }
        }
        Ok(Vec::new())
    }
}

/// The tokens of added_tokens.json and of `added_tokens_decoder`, which transformers writes since 4.34 and which
/// overrides the former.
fn listed_tokens(config: &Object, added_tokens: &Object) -> Result<Vec<ListedToken>> {
    let mut listed = std::collections::BTreeMap::new();
    for (content, value) in &added_tokens.fields {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| added_tokens.fault(content, "the id of a token"))?;
        let token = ListedToken { id, content: content.clone(), token: None, origin: added_tokens.origin.clone() };
        listed.insert(id, token);
    }
    const DECODER: &str = "added_tokens_decoder";
    let Some(decoder) = config.get(DECODER) else { return Ok(listed.into_values().collect()) };
    for (id, value) in decoder.as_object().ok_or_else(|| config.fault(DECODER, "an object of ids and tokens"))? {
        let origin = format!("{}: {DECODER}", config.origin);
        let id = id.parse().map_err(|_| anyhow!("{origin} has the key {id:?}, which is not an id"))?;
        let token = config.token(value, false).ok_or_else(|| anyhow!("{origin}: {id} is {value}, not a token"))?;
        listed.insert(id, ListedToken { id, content: token.content.clone(), token: Some(token), origin });
    }
    Ok(listed.into_values().collect())
}

/// A JSON object file that may be absent.
struct Object {
    origin: String,
    fields: Map<String, Value>,
}

impl Object {
    fn load(files: &CheckpointFiles, name: &str) -> Result<Object> {
        let Some(file) = files.find(name) else {
            return Ok(Object { origin: name.to_owned(), fields: Map::new() });
        };
        let fields =
            serde_json::from_slice(&file.content()?).with_context(|| format!("{file} is not a valid JSON object"))?;
        Ok(Object { origin: file.to_string(), fields })
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn fault(&self, name: &str, wanted: &str) -> anyhow::Error {
        let value = self.fields.get(name).unwrap_or(&Value::Null);
        anyhow!("{}: {name} is {value}, not {wanted}", self.origin)
    }

    fn text(&self, name: &str) -> Result<Option<String>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_str().map(|text| Some(text.to_owned())).ok_or_else(|| self.fault(name, "a string"))
    }

    /// A token: a string, or an object with `content` and optional settings. `special` is the default for that setting.
    fn token(&self, value: &Value, special: bool) -> Option<AddedToken> {
        if let Some(content) = value.as_str() {
            return Some(AddedToken::from(content, special));
        }
        let flag = |name: &str, default| match value.get(name) {
            None | Some(Value::Null) => Some(default),
            Some(flag) => flag.as_bool(),
        };
        let special = flag("special", special)?;
        let token = AddedToken::from(value.get("content")?.as_str()?, special)
            .single_word(flag("single_word", false)?)
            .lstrip(flag("lstrip", false)?)
            .rstrip(flag("rstrip", false)?)
            .normalized(flag("normalized", !special)?);
        Some(token)
    }

    /// A length in tokens. transformers writes "no limit" as 1e30, so it is parsed as float64.
    fn length(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64() {
            Some(length) if length >= 1e9 => Ok(None),
            Some(length) if length >= 1.0 && length.fract() == 0.0 => Ok(Some(length as usize)),
            _ => Err(self.fault(name, "a whole number of tokens, at least 1")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(files: &[(&str, &str)]) -> Result<TokenizerConfig> {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        TokenizerConfig::load(&CheckpointFiles::Folder(folder.path().to_owned()))
    }

    #[test]
    fn absent_files_say_nothing() {
        let config = load(&[]).unwrap();
        assert_eq!((config.class(), config.model_max_length), (None, None));
        assert_eq!(config.flag("do_lower_case").unwrap(), None);
        assert!(config.special_token("cls_token").unwrap().is_none() && config.listed_tokens.is_empty());
    }

    #[test]
    fn special_tokens_are_strings_or_objects_and_the_config_wins() {
        let config = load(&[
            (
                "tokenizer_config.json",
                r#"{"mask_token": {"content": "<mask>", "lstrip": true}, "model_max_length": 1e30}"#,
            ),
            ("special_tokens_map.json", r#"{"mask_token": "[X]", "sep_token": "</s>"}"#),
        ])
        .unwrap();
        let mask = config.special_token("mask_token").unwrap().unwrap();
        assert_eq!((mask.content.as_str(), mask.lstrip, mask.special, mask.normalized), ("<mask>", true, true, false));
        assert_eq!(config.special_token("sep_token").unwrap().unwrap().content, "</s>");
        assert_eq!(config.model_max_length, None);
    }

    #[test]
    fn tokens_outside_the_vocabulary_are_listed_by_id() {
        let config = load(&[
            ("added_tokens.json", r#"{"[MASK]": 9, "new": 7}"#),
            (
                "tokenizer_config.json",
                r#"{"added_tokens_decoder": {"10": {"content": "x", "rstrip": true}, "9": {"content": "[M]", "special": true}}}"#,
            ),
        ])
        .unwrap();
        let listed: Vec<(u32, &str)> = config.listed_tokens.iter().map(|t| (t.id, t.content.as_str())).collect();
        assert_eq!(listed, [(7, "new"), (9, "[M]"), (10, "x")]);
        assert!(config.listed_tokens[0].token.is_none());
        assert!(config.listed_tokens[2].token.as_ref().unwrap().rstrip);
    }

    #[test]
    fn wrong_types_are_named() {
        for (file, field, value) in [
            ("tokenizer_config.json", "model_max_length", "-3"),
            ("tokenizer_config.json", "model_max_length", "0"),
            ("tokenizer_config.json", "model_max_length", "\"512\""),
            ("tokenizer_config.json", "tokenizer_class", "[]"),
            ("tokenizer_config.json", "truncation_side", "\"middle\""),
            ("tokenizer_config.json", "added_tokens_decoder", "[]"),
            ("tokenizer_config.json", "added_tokens_decoder", "{\"x\": \"a\"}"),
            ("tokenizer_config.json", "added_tokens_decoder", "{\"1\": {}}"),
            ("added_tokens.json", "new", "-1"),
            ("added_tokens.json", "new", "4294967296"),
        ] {
            let Err(error) = load(&[(file, &format!("{{\"{field}\": {value}}}"))]) else { panic!("{field} {value}") };
            assert!(error.to_string().contains(field) && error.to_string().contains(file), "{error}");
        }
        let config = load(&[("tokenizer_config.json", r#"{"do_lower_case": "yes", "unk_token": 7}"#)]).unwrap();
        assert!(config.flag("do_lower_case").unwrap_err().to_string().contains("do_lower_case is \"yes\""));
        assert!(config.special_token("unk_token").unwrap_err().to_string().contains("unk_token is 7"));
    }
}
