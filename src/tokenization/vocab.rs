//! A BERT tokenizer of `vocab.txt`, part by part as transformers' `BertTokenizer` is built.

use super::tokenizer_config::{SpecialTokens, TokenizerConfig};
use ahash::AHashMap;
use anyhow::{anyhow, ensure, Context, Result};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

/// Builds the tokenizer: one word piece a line, the line's number (from 0) its id.
///
/// # Errors
/// If the file is not UTF-8, is empty, or lacks a special token.
pub(super) fn build(vocab: &[u8], settings: &TokenizerConfig) -> Result<Tokenizer> {
    let pieces = parse(vocab)?;
    let special = &settings.special_tokens;
    let id = |token: &str| -> Result<u32> {
        pieces
            .get(token)
            .copied()
            .ok_or_else(|| anyhow!("the special token {token} is missing: the file is cut or of another model"))
    };
    let (cls_id, sep_id) = (id(&special.cls)?, id(&special.sep)?);
    id(&special.unk)?;
    let model = WordPiece::builder()
        .vocab(pieces)
        .unk_token(special.unk.clone())
        .build()
        .map_err(|e| anyhow!("the vocabulary is not usable: {e}"))?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(settings.normalizer())).map_err(|e| anyhow!("cannot set the normalizer: {e}"))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_post_processor(Some(template(special, cls_id, sep_id)?));
    let tokens = [&special.unk, &special.sep, &special.pad, &special.cls, &special.mask];
    tokenizer
        .add_special_tokens(tokens.map(|token| AddedToken::from(token.clone(), true)))
        .map_err(|e| anyhow!("cannot add the special tokens: {e}"))?;
    Ok(tokenizer)
}

/// BERT's way to frame one text; agnews never has a pair.
fn template(special: &SpecialTokens, cls_id: u32, sep_id: u32) -> Result<TemplateProcessing> {
    TemplateProcessing::builder()
        .try_single(format!("{} $A {}", special.cls, special.sep))
        .map_err(|e| anyhow!("cannot frame texts with {} and {}: {e}", special.cls, special.sep))?
        .special_tokens(vec![(special.cls.clone(), cls_id), (special.sep.clone(), sep_id)])
        .build()
        .map_err(|e| anyhow!("cannot frame texts with {} and {}: {e}", special.cls, special.sep))
}

/// The pieces and their ids, as transformers' `BertTokenizer` reads them (by `WordPiece::read_file` of tokenizers): white
/// space at the end of a line is no part of the piece, a piece that stands twice has the id of its last line, and an empty
/// line is an empty piece, which no text has but which counts.
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
        let none = crate::checkpoint::files::CheckpointFiles::Folder("/nonexistent".into());
        TokenizerConfig::load(&none).unwrap()
    }

    fn ids(text: &str) -> Vec<u32> {
        build(VOCAB.as_bytes(), &settings()).unwrap().encode(text, true).unwrap().get_ids().to_vec()
    }

    #[test]
    fn words_are_lowercased_split_and_framed() {
        assert_eq!(ids("RAINS in  Spa\u{ed}n!"), [2, 5, 6, 7, 8, 9, 3]);
        assert_eq!(ids("snow"), [2, 1, 3]);
        assert_eq!(ids(""), [2, 3]);
    }

    #[test]
    fn special_tokens_in_the_text_are_themselves_as_in_transformers() {
        assert_eq!(ids("rain[SEP]rain"), [2, 5, 3, 5, 3]);
    }

    #[test]
    fn blank_and_repeated_lines_count_as_in_transformers() {
        // BertTokenizer("vocab.txt").get_vocab() of transformers 5.24 for the same bytes.
        let vocab =
            "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nrain  \nsun\u{3000}\n\u{a0}x\na\rb\r\nu\u{2028}v\n\n\u{a0}\nrain\n";
        let mut pieces: Vec<_> = parse(vocab.as_bytes()).unwrap().into_iter().collect();
        pieces.sort_by_key(|(_, id)| *id);
        let expected = [("sun", 6), ("\u{a0}x", 7), ("a\rb", 8), ("u\u{2028}v", 9), ("", 11), ("rain", 12)]
            .map(|(p, id)| (p.to_owned(), id));
        assert_eq!(pieces[5..], expected);
        let tokenizer = build(vocab.as_bytes(), &settings()).unwrap();
        assert_eq!(tokenizer.encode("rain sun", true).unwrap().get_ids(), [2, 12, 6, 3]);
    }

    #[test]
    fn bad_vocabularies_are_errors_that_say_why() {
        for (vocab, reason) in [(&b""[..], "empty"), (b"[PAD]\n[UNK]\n[CLS]\n", "[SEP]"), (b"[PAD]\n\xff\n", "UTF-8")] {
            let error = format!("{:#}", build(vocab, &settings()).unwrap_err());
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn mutated_vocabularies_do_no_harm() {
        let settings = settings();
        crate::fuzzing::fuzz(&[VOCAB.as_bytes()], |vocab| {
            build(vocab, &settings).is_ok_and(|tokenizer| tokenizer.encode("RAINS in [SEP] Spa\u{ed}n!", true).is_ok())
        });
    }
}
