//! Byte-level BPE: `vocab.json` and `merges.txt`, used by RoBERTa and BART.

use super::tokenizer_config::TokenizerConfig;
use ahash::AHashMap;
use anyhow::{anyhow, ensure, Context, Result};
use std::collections::HashMap;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{PreTokenizerWrapper, Tokenizer};

/// Builds the tokenizer without special tokens. `vocab` is an object of tokens and ids, `merges` has one pair of tokens
/// per line, in order of priority.
///
/// # Errors
/// If a file does not parse, two tokens share an id, or a merge involves a token that vocab.json lacks; the message
/// names the file and the line.
pub(super) fn build(vocab: &[u8], merges: &[u8], settings: &TokenizerConfig) -> Result<Tokenizer> {
    let vocab = parse_vocab(vocab).context("vocab.json is not a vocabulary")?;
    let merges = parse_merges(merges, &vocab).context("merges.txt does not fit vocab.json")?;
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(String::new())
        .build()
        .map_err(|e| anyhow!("vocab.json and merges.txt are not usable: {e}"))?;
    let mut tokenizer = Tokenizer::new(model);
    let add_prefix_space = settings.flag("add_prefix_space")?.unwrap_or(false);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(add_prefix_space)));
    Ok(tokenizer)
}

/// Applies the `add_prefix_space` of tokenizer_config.json, which overrides tokenizer.json as in transformers.
///
/// # Errors
/// If the setting is neither true nor false.
pub(super) fn apply_settings(tokenizer: &mut Tokenizer, settings: &TokenizerConfig) -> Result<()> {
    if let Some(PreTokenizerWrapper::ByteLevel(before)) = tokenizer.get_pre_tokenizer() {
        let after = before.add_prefix_space(settings.flag("add_prefix_space")?.unwrap_or(before.add_prefix_space));
        tokenizer.with_pre_tokenizer(Some(after));
    }
    Ok(())
}

fn parse_vocab(vocab: &[u8]) -> Result<AHashMap<String, u32>> {
    let vocab: AHashMap<String, u32> = serde_json::from_slice::<HashMap<String, u32>>(vocab)
        .context("it is not a JSON object of ids")?
        .into_iter()
        .collect();
    let mut token_of_id = AHashMap::with_capacity(vocab.len());
    for (token, id) in &vocab {
        if let Some(other) = token_of_id.insert(id, token) {
            anyhow::bail!("the id {id} belongs to both {other:?} and {token:?}");
        }
    }
    Ok(vocab)
}

fn parse_merges(merges: &[u8], vocab: &AHashMap<String, u32>) -> Result<Vec<(String, String)>> {
    let text = std::str::from_utf8(merges).context("it is not UTF-8")?;
    // A merge of # with something else starts with "# ".
    let is_header = |i: usize, line: &str| i == 0 && line.starts_with("#version");
    let lines = text.lines().enumerate().filter(|(i, line)| !line.is_empty() && !is_header(*i, line));
    lines
        .map(|(i, line)| {
            let (left, right) =
                line.split_once(' ').with_context(|| format!("line {} is not a pair of tokens", i + 1))?;
            for token in [left, right, &format!("{left}{right}")] {
                ensure!(vocab.contains_key(token), "line {}: vocab.json has no token {token:?}", i + 1);
            }
            Ok((left.to_owned(), right.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCAB: &str = r#"{"<s>": 0, "r": 4, "a": 5, "i": 6, "n": 7, "Ġ": 8, "in": 9, "ain": 10, "Ġr": 11, "Ġrain": 12, "Ã": 13, "©": 14, "!": 15, "s": 16}"#;
    const MERGES: &str = "#version: 0.2\ni n\na in\nĠ r\nĠr ain\n";

    fn settings(config: &str) -> TokenizerConfig {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        TokenizerConfig::load(&crate::checkpoint::files::CheckpointFiles::Folder(folder.path().to_owned())).unwrap()
    }

    #[test]
    fn bytes_are_merged_in_order_and_a_space_belongs_to_the_word() {
        let ids = |config: &str, text: &str| {
            let tokenizer = build(VOCAB.as_bytes(), MERGES.as_bytes(), &settings(config)).unwrap();
            tokenizer.encode(text, true).unwrap().get_ids().to_vec()
        };
        assert_eq!(ids("{}", "rain rains!"), [4, 10, 12, 16, 15]);
        assert_eq!(ids(r#"{"add_prefix_space": true}"#, "rain é"), [12, 8, 13, 14]);
    }

    #[test]
    fn faults_name_the_file_and_the_line() {
        for (vocab, merges, reason) in [
            ("[]", MERGES, "vocab.json"),
            (r#"{"a": -1}"#, MERGES, "vocab.json"),
            (r#"{"a": 1, "b": 1}"#, MERGES, "the id 1"),
            (VOCAB, "i n\nan\n", "merges.txt does not fit vocab.json: line 2"),
            (VOCAB, "i x\n", "line 1: vocab.json has no token \"x\""),
            (VOCAB, "i a\n", "no token \"ia\""),
        ] {
            let error = format!("{:#}", build(vocab.as_bytes(), merges.as_bytes(), &settings("{}")).unwrap_err());
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn mutated_files_do_no_harm() {
        let settings = settings("{}");
        let encodes = |tokenizer: Result<Tokenizer>| tokenizer.is_ok_and(|it| it.encode("rain é!", true).is_ok());
        crate::fuzzing::fuzz(&[VOCAB.as_bytes()], |vocab| encodes(build(vocab, MERGES.as_bytes(), &settings)));
        crate::fuzzing::fuzz(&[MERGES.as_bytes()], |merges| encodes(build(VOCAB.as_bytes(), merges, &settings)));
    }
}
