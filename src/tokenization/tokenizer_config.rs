//! `tokenizer_config.json`: the settings with which transformers builds a `BertTokenizer`.

use crate::checkpoint::files::CheckpointFiles;
use anyhow::{anyhow, Context, Result};
use serde_json::{Map, Value};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::{NormalizerWrapper, Tokenizer};

/// The longest file in bytes: some list thousands of added tokens.
const MAX_FILE_SIZE: usize = 16 << 20;

/// What the file says, with transformers' defaults where it is silent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TokenizerConfig {
    do_lower_case: bool,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: bool,
    /// Whether the class is a BERT one, whose settings here win over the normalizer in tokenizer.json.
    is_bert_class: bool,
    pub(super) special_tokens: SpecialTokens,
    /// In tokens; absent, or "no limit" (transformers writes 1e30), is `None`.
    pub(super) model_max_length: Option<usize>,
}

/// The texts of BERT's special tokens.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SpecialTokens {
    pub(super) unk: String,
    pub(super) sep: String,
    pub(super) pad: String,
    pub(super) cls: String,
    pub(super) mask: String,
}

impl TokenizerConfig {
    /// Reads `tokenizer_config.json`, and `special_tokens_map.json` for what the former does not name. Both may be
    /// absent: then transformers' defaults hold.
    ///
    /// # Errors
    /// Where a file is there but does not parse or a field has the wrong type; the message names both.
    pub(super) fn load(files: &CheckpointFiles) -> Result<TokenizerConfig> {
        let config = Object::load(files, "tokenizer_config.json")?;
        let map = Object::load(files, "special_tokens_map.json")?;
        let token = |name: &str, default: &str| -> Result<String> {
            Ok(config.token(name)?.or(map.token(name)?).unwrap_or_else(|| default.to_owned()))
        };
        let class = config.text("tokenizer_class")?;
        Ok(TokenizerConfig {
            do_lower_case: config.flag("do_lower_case")?.unwrap_or(true),
            strip_accents: config.flag("strip_accents")?,
            tokenize_chinese_chars: config.flag("tokenize_chinese_chars")?.unwrap_or(true),
            is_bert_class: matches!(class.as_deref(), None | Some("BertTokenizer" | "BertTokenizerFast")),
            special_tokens: SpecialTokens {
                unk: token("unk_token", "[UNK]")?,
                sep: token("sep_token", "[SEP]")?,
                pad: token("pad_token", "[PAD]")?,
                cls: token("cls_token", "[CLS]")?,
                mask: token("mask_token", "[MASK]")?,
            },
            model_max_length: config.length("model_max_length")?,
        })
    }

    /// BERT's normalizer with these settings.
    pub(super) fn normalizer(&self) -> BertNormalizer {
        BertNormalizer::new(true, self.tokenize_chinese_chars, self.strip_accents, self.do_lower_case)
    }

    /// For a BERT class transformers builds the normalizer from these settings, whatever tokenizer.json says.
    ///
    /// # Errors
    /// Where the tokenizer cannot normalize its added tokens anew.
    pub(super) fn apply_to(&self, tokenizer: &mut Tokenizer) -> Result<()> {
        if self.is_bert_class && matches!(tokenizer.get_normalizer(), Some(NormalizerWrapper::BertNormalizer(_))) {
            tokenizer
                .with_normalizer(Some(self.normalizer()))
                .map_err(|e| anyhow!("cannot set the normalizer: {e}"))?;
        }
        Ok(())
    }
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
        let fields = serde_json::from_slice(&file.read(MAX_FILE_SIZE)?)
            .with_context(|| format!("{file} is not a valid JSON object"))?;
        Ok(Object { origin: file.to_string(), fields })
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, value: &Value, wanted: &str) -> anyhow::Error {
        anyhow!("{}: {name} is {value}, not {wanted}", self.origin)
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(name, value, "true or false"))
    }

    fn text(&self, name: &str) -> Result<Option<String>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_str().map(|text| Some(text.to_owned())).ok_or_else(|| self.wrong(name, value, "a string"))
    }

    /// A special token: a string, or an object with `content`.
    fn token(&self, name: &str) -> Result<Option<String>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let content = value.as_str().or_else(|| value.get("content").and_then(Value::as_str));
        content.map(|text| Some(text.to_owned())).ok_or_else(|| self.wrong(name, value, "a token"))
    }

    /// A length in tokens. transformers writes "no limit" as 1e30, hence float64 first.
    fn length(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64() {
            Some(length) if length >= 1e9 => Ok(None),
            Some(length) if length >= 1.0 && length.fract() == 0.0 => Ok(Some(length as usize)),
            _ => Err(self.wrong(name, value, "a whole number of tokens from 1")),
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
    fn absent_files_give_the_defaults_of_transformers() {
        let config = load(&[]).unwrap();
        assert!(config.do_lower_case && config.tokenize_chinese_chars && config.is_bert_class);
        assert_eq!((config.strip_accents, config.model_max_length), (None, None));
        assert_eq!(config.special_tokens.cls, "[CLS]");
    }

    #[test]
    fn special_tokens_are_strings_or_objects_and_the_config_wins() {
        let config = load(&[
            (
                "tokenizer_config.json",
                r#"{"unk_token": {"content": "<unk>", "lstrip": false}, "model_max_length": 1e30}"#,
            ),
            ("special_tokens_map.json", r#"{"unk_token": "[X]", "sep_token": "</s>"}"#),
        ])
        .unwrap();
        assert_eq!((config.special_tokens.unk.as_str(), config.special_tokens.sep.as_str()), ("<unk>", "</s>"));
        assert_eq!(config.model_max_length, None);
    }

    #[test]
    fn wrong_types_are_named() {
        for (field, value) in [
            ("do_lower_case", "\"yes\""),
            ("model_max_length", "-3"),
            ("model_max_length", "0"),
            ("model_max_length", "\"512\""),
            ("unk_token", "7"),
            ("tokenizer_class", "[]"),
        ] {
            let error =
                load(&[("tokenizer_config.json", &format!("{{\"{field}\": {value}}}"))]).unwrap_err().to_string();
            assert!(error.contains(field) && error.contains("tokenizer_config.json"), "{error}");
        }
    }
}
