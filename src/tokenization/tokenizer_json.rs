//! `tokenizer.json`, read with the tokenizers crate, which unwraps in places where the file is at fault: what makes it
//! panic is looked for first, and a panic that is left becomes an error.

use anyhow::{anyhow, bail, Context, Result};
use serde::de::IgnoredAny;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::panic::{catch_unwind, set_hook, take_hook, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};
use tokenizers::Tokenizer;

/// As much of the file as is checked. Reading it checks the syntax of the rest.
#[derive(Deserialize)]
struct Outline {
    #[serde(rename = "model")]
    _model: Model,
    post_processor: Option<Value>,
}

/// The model's settings, its large parts not kept.
#[derive(Deserialize)]
struct Model {
    #[serde(rename = "vocab")]
    _vocab: IgnoredAny,
    #[serde(rename = "merges")]
    _merges: Option<IgnoredAny>,
    #[serde(flatten)]
    _settings: HashMap<String, Value>,
}

/// Reads the file's content.
///
/// # Errors
/// Where it is no tokenizer; the message says why, the caller knows the file.
pub(super) fn parse(json: &[u8]) -> Result<Tokenizer> {
    let text = std::str::from_utf8(json).context("it is not UTF-8")?;
    let outline: Outline = serde_json::from_str(text).context("it is not the JSON of a tokenizer")?;
    if let Some(post_processor) = &outline.post_processor {
        check_template(post_processor)?;
    }
    match quietly(|| Tokenizer::from_bytes(text)) {
        Ok(parsed) => parsed.map_err(|e| anyhow!("this version cannot read it: {e}")),
        Err(_) => bail!("reading it made the tokenizers library panic: it is damaged"),
    }
}

/// Runs a tokenizer that has not run before.
///
/// # Errors
/// Where it fails or panics.
pub(super) fn probe(tokenizer: &Tokenizer, text: &str) -> Result<tokenizers::Encoding> {
    match quietly(|| tokenizer.encode_fast(text, true)) {
        Ok(encoded) => encoded.map_err(|e| anyhow!("the tokenizer fails: {e}")),
        Err(_) => bail!("the tokenizer panics: its tokenizer.json is damaged"),
    }
}

/// Catches a panic of `work`, and keeps it off standard error: the caller tells it in words. Other threads' panics go
/// untold for as long as that takes, which is while nothing but reading input runs beside it.
fn quietly<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
    static HOOK: Mutex<()> = Mutex::new(());
    let _alone = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    set_hook(hook);
    outcome
}

/// Every special token that a template writes must be among those that it defines.
fn check_template(post_processor: &Value) -> Result<()> {
    for inner in post_processor["processors"].as_array().into_iter().flatten() {
        check_template(inner)?;
    }
    let pieces = ["single", "pair"].iter().filter_map(|name| post_processor[name].as_array()).flatten();
    for id in pieces.filter_map(|piece| piece["SpecialToken"]["id"].as_str()) {
        if post_processor["special_tokens"].get(id).is_none() {
            bail!("post_processor writes the token {id}, which its special_tokens do not define");
        }
    }
    Ok(())
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
    fn faults_on_which_the_library_panics_are_errors() {
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
        let vocab = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nrain\n##s\nin\n";
        let none = crate::checkpoint::files::CheckpointFiles::Folder("/nonexistent".into());
        let settings = crate::tokenization::tokenizer_config::TokenizerConfig::load(&none).unwrap();
        let small = crate::tokenization::vocab::build(vocab, &settings).unwrap().to_string(true).unwrap();
        crate::fuzzing::fuzz(&[small.as_bytes()], |json| {
            parse(json).is_ok_and(|tokenizer| probe(&tokenizer, "RAINS in [SEP] Spa\u{ed}n!").is_ok())
        });
    }
}
