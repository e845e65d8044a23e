//! `tokenizer.json`, read with the tokenizers crate, which panics on some invalid files. Known causes are checked
//! first, and any remaining panic becomes an error.

use super::sentencepiece::Charsmap;
use anyhow::{anyhow, bail, Context, Result};
use base64::prelude::{Engine as _, BASE64_STANDARD};
use serde::de::IgnoredAny;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::panic::{catch_unwind, set_hook, take_hook, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};
use tokenizers::Tokenizer;

/// The checked part of the file. Reading it also checks the syntax of the rest.
#[derive(Deserialize)]
struct Outline {
    #[serde(rename = "model")]
    _model: Model,
    normalizer: Option<Value>,
    post_processor: Option<Value>,
}

/// The model's settings, without its large parts.
#[derive(Deserialize)]
struct Model {
    #[serde(rename = "vocab")]
    _vocab: IgnoredAny,
    #[serde(rename = "merges")]
    _merges: Option<IgnoredAny>,
    #[serde(flatten)]
    _settings: HashMap<String, Value>,
}

/// Parses the file's content, without its padding and truncation.
///
/// # Errors
/// If it is not a tokenizer; the message says why, and the caller adds the file.
pub(super) fn parse(json: &[u8]) -> Result<Tokenizer> {
    let text = std::str::from_utf8(json).context("it is not UTF-8")?;
    let outline: Outline = serde_json::from_str(text).context("it is not a tokenizer's JSON")?;
    if let Some(post_processor) = &outline.post_processor {
        check_template(post_processor)?;
    }
    if let Some(normalizer) = &outline.normalizer {
        check_charsmaps(normalizer)?;
    }
    // Compiled in the tokenizers crate; `Tokenizer::from_bytes` is generic, so it would be compiled again in this one.
    let parsed = quietly(|| text.parse::<Tokenizer>()).context("it is damaged")?;
    let mut tokenizer = parsed.map_err(|e| anyhow!("this version cannot read it: {e}"))?;
    // These are from training or serving; this program sets its own limits.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|e| anyhow!("its truncation cannot be reset: {e}"))?;
    Ok(tokenizer)
}

/// Catches a panic of `work` and keeps it off standard error: the caller reports it. Panics of other threads are not
/// reported meanwhile either, but only reading input runs at the same time.
///
/// # Errors
/// If `work` panics.
pub(super) fn quietly<T>(work: impl FnOnce() -> T) -> Result<T> {
    static HOOK: Mutex<()> = Mutex::new(());
    let _alone = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    set_hook(hook);
    outcome.map_err(|_| anyhow!("the tokenizers library panicked"))
}

/// Every special token used in a template must be defined.
fn check_template(post_processor: &Value) -> Result<()> {
    for inner in post_processor["processors"].as_array().into_iter().flatten() {
        check_template(inner)?;
    }
    let pieces = ["single", "pair"].iter().filter_map(|name| post_processor[name].as_array()).flatten();
    for id in pieces.filter_map(|piece| piece["SpecialToken"]["id"].as_str()) {
        if post_processor["special_tokens"].get(id).is_none() {
            bail!("post_processor uses the token {id}, which is not in its special_tokens");
        }
    }
    Ok(())
}

/// A damaged character map panics, or requests more memory than there is.
fn check_charsmaps(normalizer: &Value) -> Result<()> {
    for inner in normalizer["normalizers"].as_array().into_iter().flatten() {
        check_charsmaps(inner)?;
    }
    let Some(map) = normalizer["precompiled_charsmap"].as_str() else { return Ok(()) };
    let map = BASE64_STANDARD.decode(map).context("normalizer.precompiled_charsmap is not base64")?;
    Charsmap::parse(&map).context("normalizer.precompiled_charsmap is damaged").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILTIN: &[u8] = include_bytes!("../checkpoint/builtin/tokenizer.json");

    #[test]
    fn a_sound_file_is_read_and_every_cut_is_an_error() {
        assert!(parse(BUILTIN).is_ok());
        for length in (0..BUILTIN.len()).step_by(997) {
            assert!(parse(&BUILTIN[..length]).is_err(), "cut to {length} bytes");
        }
    }

    #[test]
    fn files_that_make_the_library_panic_are_errors() {
        let sound = String::from_utf8(BUILTIN.to_vec()).unwrap();
        for (from, to) in [
            ("\"max_input_chars_per_word\": 100", "\"max_input_chars_per_word\": 1e400"),
            ("\"special_tokens\": {\"[CLS]\"", "\"special_tokens\": {\"[CLOSED]\""),
            ("\"vocab\": {", "\"vocab\": {,"),
            ("\"vocab\": {", "\"vocab\": {\u{1}"),
        ] {
            assert!(sound.contains(from), "{from}");
            assert!(parse(sound.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
        let mut invalid = BUILTIN.to_vec();
        let end = invalid.len() - 100;
        invalid[end] = 0xff;
        assert!(parse(&invalid).is_err());
    }

    #[test]
    fn mutated_tokenizers_do_no_harm() {
        let fixtures = [
            &include_bytes!("../../tests/fixtures/tokenizers/roberta-json/tokenizer.json")[..],
            include_bytes!("../../tests/fixtures/tokenizers/unigram-json/tokenizer.json"),
        ];
        crate::fuzzing::fuzz(&fixtures, |json| {
            parse(json).is_ok_and(|tokenizer| {
                let encoded = quietly(|| tokenizer.encode_fast("RAINS in <mask> Spa\u{ed}n! ﬁ", true));
                encoded.is_ok_and(|encoded| encoded.is_ok())
            })
        });
    }
}
