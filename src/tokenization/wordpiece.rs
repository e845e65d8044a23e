//! WordPiece: `vocab.txt`, used by BERT, DistilBERT, ELECTRA and MPNet, and BERT's normalizer.

use super::tokenizer_config::TokenizerConfig;
use ahash::AHashMap;
use anyhow::{anyhow, ensure, Context, Result};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{NormalizerWrapper, Tokenizer};

/// Builds the tokenizer without special tokens: one word piece per line, whose id is the line number, from 0.
///
/// # Errors
/// If the file is not UTF-8, is empty, or lacks the unknown token.
pub(super) fn build(vocab: &[u8], unknown: &str, settings: &TokenizerConfig) -> Result<Tokenizer> {
    settings.demand("do_basic_tokenize", true)?;
    let pieces = parse(vocab)?;
    ensure!(
        pieces.contains_key(unknown),
        "the special token {unknown} is missing: the file is cut off or belongs to another model"
    );
    let model = WordPiece::builder()
        .vocab(pieces)
        .unk_token(unknown.to_owned())
        .build()
        .map_err(|e| anyhow!("the vocabulary is not usable: {e}"))?;
    let mut tokenizer = Tokenizer::new(model);
    set_normalizer(&mut tokenizer, normalizer(settings, &BertNormalizer::default())?)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    Ok(tokenizer)
}

/// Applies the normalizer settings of tokenizer_config.json, which override tokenizer.json as in transformers.
///
/// # Errors
/// If a setting is neither true nor false, or the tokenizer cannot normalize its added tokens again.
pub(super) fn apply_settings(tokenizer: &mut Tokenizer, settings: &TokenizerConfig) -> Result<()> {
    let Some(NormalizerWrapper::BertNormalizer(before)) = tokenizer.get_normalizer() else { return Ok(()) };
    let after = normalizer(settings, before)?;
    set_normalizer(tokenizer, after)
}

/// BERT's normalizer with the given settings; missing ones come from `default`.
fn normalizer(settings: &TokenizerConfig, default: &BertNormalizer) -> Result<BertNormalizer> {
    Ok(BertNormalizer::new(
        default.clean_text,
        settings.flag("tokenize_chinese_chars")?.unwrap_or(default.handle_chinese_chars),
        settings.flag("strip_accents")?.or(default.strip_accents),
        settings.flag("do_lower_case")?.unwrap_or(default.lowercase),
    ))
}

fn set_normalizer(tokenizer: &mut Tokenizer, normalizer: BertNormalizer) -> Result<()> {
    tokenizer.with_normalizer(Some(normalizer)).map_err(|e| anyhow!("cannot set the normalizer: {e}")).map(drop)
}

/// The pieces and their ids, read like transformers' `BertTokenizer` (`WordPiece::read_file` of tokenizers): white
/// space at the end of a line is ignored, a repeated piece has the id of its last line, and an empty line is an empty
/// piece, which occurs in no text but counts.
fn parse(vocab: &[u8]) -> Result<AHashMap<String, u32>> {
    let text = std::str::from_utf8(vocab).context("it is not UTF-8")?;
    ensure!(!text.is_empty(), "it is empty");
    Ok(text.lines().zip(0..).map(|(piece, id)| (piece.trim_end().to_owned(), id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCAB: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nrain\n##s\nin\nspain\n!\n";

    fn settings() -> TokenizerConfig {
        TokenizerConfig::load(&crate::checkpoint::files::CheckpointFiles::Folder("/nonexistent".into())).unwrap()
    }

    #[test]
    fn words_are_lowercased_and_split() {
        let tokenizer = build(VOCAB.as_bytes(), "[UNK]", &settings()).unwrap();
        let ids = |text: &str| tokenizer.encode(text, true).unwrap().get_ids().to_vec();
        assert_eq!(ids("RAINS in  Spa\u{ed}n!"), [5, 6, 7, 8, 9]);
        assert_eq!(ids("snow"), [1]);
        assert!(ids("").is_empty());
    }

    #[test]
    fn blank_and_repeated_lines_count() {
        let tokenizer = build(b"[PAD]\n\n[UNK] \nrain\nin\nrain\n", "[UNK]", &settings()).unwrap();
        let ids = |text: &str| tokenizer.encode(text, true).unwrap().get_ids().to_vec();
        assert_eq!(ids("rain in snow"), [5, 4, 2]);
    }

    #[test]
    fn bad_vocabularies_are_errors_that_say_why() {
        for (vocab, reason) in [(&b""[..], "empty"), (b"[PAD]\n[CLS]\n[SEP]\n", "[UNK]"), (b"[PAD]\n\xff\n", "UTF-8")] {
            let error = format!("{:#}", build(vocab, "[UNK]", &settings()).unwrap_err());
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn mutated_vocabularies_do_no_harm() {
        let settings = settings();
        crate::fuzzing::fuzz(&[VOCAB.as_bytes()], |vocab| {
            build(vocab, "[UNK]", &settings)
                .is_ok_and(|tokenizer| tokenizer.encode("RAINS in [SEP] Spa\u{ed}n!", true).is_ok())
        });
    }
}
