//! SentencePiece models (`spiece.model`, `sentencepiece.bpe.model`, `spm.model`), encoding exactly like SentencePiece.
//!
//! They become a model and a normalizer of the tokenizers crate, which finds added tokens in the text, adds special
//! tokens and truncates. The crate's own `Unigram` and `Precompiled` are similar to SentencePiece, but give different
//! ids; `unigram.rs` and `charsmap.rs` explain the differences.

mod charsmap;
mod normalizer;
mod protobuf;
mod trie;
mod unigram;

pub(super) use charsmap::Charsmap;
pub(super) use normalizer::{Normalizer, Preparation};

use ahash::AHashMap;
use anyhow::{bail, ensure, Context, Result};
use protobuf::{ModelFile, Piece, PieceKind, TrainerSpec, UNIGRAM};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tokenizers::{
    AddedToken, DecoderWrapper, Model, PostProcessorWrapper, PreTokenizerWrapper, Token, TokenizerImpl, Trainer,
};
use trie::Trie;
use unigram::Unigram;

/// A tokenizer of the tokenizers crate around a SentencePiece model.
pub(super) type SentencePieceTokenizer =
    TokenizerImpl<SentencePiece, Normalizer, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// The ids of the pieces in the checkpoint.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ids {
    /// The piece's number in the file.
    OfFile,
    /// The piece's number in the file plus `offset`, after fairseq's own tokens, whose ids start at 0; the unknown
    /// piece is fairseq's `<unk>`.
    Fairseq { first: &'static [&'static str], offset: u32 },
}

/// What the tokenizer class and its settings add to the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) ids: Ids,
    pub(super) preparation: Preparation,
    /// `add_prefix_space` in tokenizer_config.json: false disables the model's `add_dummy_prefix`.
    pub(super) add_prefix_space: bool,
}

/// Builds the tokenizer from the file's content, without special tokens.
///
/// # Errors
/// If the file is damaged, or the model is not a unigram model; the message names the field.
pub(super) fn build(model: &[u8], settings: &Settings) -> Result<SentencePieceTokenizer> {
    let file = protobuf::parse(model)?;
    let unknown_id = check(&file)?;
    let user_defined = file.pieces.iter().zip(0..).filter(|(piece, _)| piece.kind == PieceKind::UserDefined);
    let normalizer = Normalizer {
        preparation: settings.preparation,
        user_defined: Trie::new(user_defined.map(|(piece, id)| (piece.text.as_str(), id))),
        charsmap: match file.normalizer.precompiled_charsmap.as_slice() {
            [] => None,
            bytes => Some(Charsmap::parse(bytes).context("normalizer_spec.precompiled_charsmap is damaged")?),
        },
        add_dummy_prefix: file.normalizer.add_dummy_prefix && settings.add_prefix_space,
        dummy_at_end: file.trainer.treat_whitespace_as_suffix,
        remove_extra_whitespaces: file.normalizer.remove_extra_whitespaces,
        escape_whitespaces: file.normalizer.escape_whitespaces,
    };
    let mut tokenizer = SentencePieceTokenizer::new(SentencePiece::new(&file, unknown_id, settings.ids));
    tokenizer.with_normalizer(Some(normalizer)).map_err(|e| anyhow::anyhow!("cannot set the normalizer: {e}"))?;
    Ok(tokenizer)
}

/// Refuses what SentencePiece refuses, and returns the number of the unknown piece.
fn check(file: &ModelFile) -> Result<u32> {
    let TrainerSpec { model_type, byte_fallback, .. } = file.trainer;
    if model_type != UNIGRAM {
        let name = match model_type {
            2 => "BPE",
            3 => "WORD",
            4 => "CHAR",
            _ => "unknown",
        };
        bail!("trainer_spec.model_type is {model_type} ({name}); only UNIGRAM models are supported without tokenizer.json");
    }
    // Reserved pieces never match a text; their names may equal those of pieces that do.
    let is_reserved = |kind| matches!(kind, PieceKind::Unknown | PieceKind::Control | PieceKind::Byte);
    let mut seen = AHashMap::with_capacity(file.pieces.len());
    let mut unknown_id = None;
    for (piece, id) in file.pieces.iter().zip(0..) {
        let Piece { text, score, kind } = piece;
        ensure!(!text.is_empty(), "pieces[{id}] is empty");
        ensure!(score.is_finite(), "pieces[{id}].score is {score}, which is not finite");
        if let Some(earlier) = seen.insert((is_reserved(*kind), text), id) {
            bail!("{text:?} occurs twice, as pieces[{earlier}] and pieces[{id}]");
        }
        if *kind == PieceKind::Unknown && unknown_id.replace(id).is_some() {
            bail!("pieces[{id}] is a second piece of the type UNKNOWN");
        }
    }
    if byte_fallback {
        let byte = (0..=255).find(|&byte| !seen.contains_key(&(true, &byte_piece(byte))));
        ensure!(
            byte.is_none(),
            "trainer_spec.byte_fallback is set, but the piece {:?} is missing",
            byte.map(byte_piece)
        );
    }
    unknown_id.context("there is no piece of the type UNKNOWN: it is not a SentencePiece model, or damaged")
}

fn byte_piece(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

/// A unigram model with the checkpoint's ids.
pub(super) struct SentencePiece {
    unigram: Unigram,
    /// Each piece's id.
    vocabulary: AHashMap<String, u32>,
    /// One more than the largest id.
    vocab_size: u32,
    unknown_piece: u32,
    unknown_id: u32,
    /// Added to a piece's number.
    offset: u32,
    /// The ids of the pieces `<0x00>` to `<0xFF>`, if unknown characters are written as bytes.
    byte_ids: Option<Vec<u32>>,
    /// Whether a space can only be at the start of a piece, so words can be segmented one by one.
    keeps_words_apart: bool,
}

impl SentencePiece {
    fn new(file: &ModelFile, unknown_piece: u32, ids: Ids) -> SentencePiece {
        let (first, offset) = match ids {
            Ids::OfFile => (&[][..], 0),
            Ids::Fairseq { first, offset } => (first, offset),
        };
        let mut vocabulary: AHashMap<String, u32> = first.iter().map(|token| token.to_string()).zip(0..).collect();
        for (piece, id) in file.pieces.iter().zip(offset..) {
            if piece.kind != PieceKind::Unknown || offset == 0 {
                vocabulary.entry(piece.text.clone()).or_insert(id);
            }
        }
        let unknown_id = match ids {
            Ids::OfFile => unknown_piece,
            Ids::Fairseq { .. } => vocabulary.get("<unk>").copied().unwrap_or(unknown_piece + offset),
        };
        let is_byte = |byte| vocabulary.get(&byte_piece(byte)).copied();
        let byte_ids = file.trainer.byte_fallback.then(|| (0..=255).filter_map(is_byte).collect());
        let space = [normalizer::SPACE, ' '];
        let joins_words = |piece: &Piece| piece.text.chars().skip(1).any(|c| space.contains(&c));
        SentencePiece {
            unigram: Unigram::new(&file.pieces, unknown_piece),
            vocab_size: file.pieces.len() as u32 + offset,
            unknown_piece,
            unknown_id,
            offset,
            byte_ids,
            keeps_words_apart: !file.trainer.treat_whitespace_as_suffix && !file.pieces.iter().any(joins_words),
            vocabulary,
        }
    }

    /// Whether the pieces of a text up to a space after an ASCII letter or digit do not depend on what follows.
    pub(super) fn splits_at_spaces(&self, normalizer: &Normalizer) -> bool {
        self.keeps_words_apart && !normalizer.charsmap.as_ref().is_some_and(Charsmap::may_join_words)
    }
}

impl Model for SentencePiece {
    type Trainer = NoTrainer;

    fn tokenize(&self, text: &str) -> tokenizers::Result<Vec<Token>> {
        if text.len() >= u32::MAX as usize {
            return Err("a text has more than 4 GB".into());
        }
        let mut tokens: Vec<Token> = Vec::new();
        let (mut start, mut after_unknown) = (0, false);
        for segment in self.unigram.segment(text) {
            let offsets = (start, segment.end);
            let piece = &text[start..segment.end];
            start = segment.end;
            let is_unknown = segment.id == self.unknown_piece;
            match (&self.byte_ids, tokens.last_mut()) {
                (Some(ids), _) if is_unknown => {
                    let bytes = piece.bytes().map(|byte| Token::new(ids[usize::from(byte)], byte_piece(byte), offsets));
                    tokens.extend(bytes);
                }
                // A run of unknown characters is one token.
                (None, Some(last)) if is_unknown && after_unknown => {
                    last.value.push_str(piece);
                    last.offsets.1 = segment.end;
                }
                _ => {
                    let id = if is_unknown { self.unknown_id } else { segment.id + self.offset };
                    tokens.push(Token::new(id, piece.to_owned(), offsets));
                }
            }
            after_unknown = is_unknown;
        }
        Ok(tokens)
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.vocabulary.get(token).copied()
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.vocabulary.iter().find(|(_, other)| **other == id).map(|(token, _)| token.clone())
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        self.vocabulary.iter().map(|(token, id)| (token.clone(), *id)).collect()
    }

    fn get_vocab_size(&self) -> usize {
        self.vocab_size as usize
    }

    fn save(&self, _: &Path, _: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        Err("SentencePiece models are only read".into())
    }

    fn get_trainer(&self) -> NoTrainer {
        NoTrainer
    }
}

/// The crate needs a trainer for every model. This one refuses to train.
pub(super) struct NoTrainer;

impl Trainer for NoTrainer {
    type Model = SentencePiece;

    fn should_show_progress(&self) -> bool {
        false
    }

    fn train(&self, _: &mut SentencePiece) -> tokenizers::Result<Vec<AddedToken>> {
        Err("SentencePiece models are only read".into())
    }

    fn feed<I, S, F>(&mut self, _: I, _: F) -> tokenizers::Result<()>
    where
        I: Iterator<Item = S> + Send,
        S: AsRef<str> + Send,
        F: Fn(&str) -> tokenizers::Result<Vec<String>> + Sync,
    {
        Err("SentencePiece models are only read".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODELS: [&[u8]; 3] = [
        include_bytes!("../../../tests/fixtures/tokenizers/deberta-v2/spm.model"),
        include_bytes!("../../../tests/fixtures/tokenizers/deberta-v2-bytes/spm.model"),
        include_bytes!("../../../tests/fixtures/tokenizers/albert/spiece.model"),
    ];

    fn build(model: &[u8], ids: Ids) -> Result<SentencePieceTokenizer> {
        super::build(model, &Settings { ids, preparation: Preparation::default(), add_prefix_space: true })
    }

    fn message(pieces: &[(&str, f32, u8)], trainer: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        for (text, score, kind) in pieces {
            let piece =
                [&[0x0a, text.len() as u8], text.as_bytes(), &[0x15], &score.to_le_bytes(), &[0x18, *kind]].concat();
            file.extend([&[0x0a, piece.len() as u8], &piece[..]].concat());
        }
        file.extend([&[0x12, trainer.len() as u8], trainer].concat());
        file
    }

    #[test]
    fn unknown_characters_are_one_token_and_user_defined_symbols_are_kept_whole() {
        let pieces =
            [("<unk>", 0.0, 2), ("▁", -2.0, 1), ("a", -1.0, 1), ("ab", -9.0, 4), ("b", -0.5, 1), ("c", -0.1, 5)];
        let tokenizer = build(&message(&pieces, b""), Ids::OfFile).unwrap();
        let ids = |text: &str| tokenizer.encode(text, false).unwrap().get_ids().to_vec();
        assert_eq!(ids("abb cxyz a"), [1, 3, 4, 1, 0, 1, 2]);
        let fairseq = build(&message(&pieces, b""), Ids::Fairseq { first: &["<s>", "<unk>"], offset: 7 }).unwrap();
        assert_eq!(fairseq.encode("xa", false).unwrap().get_ids(), [8, 1, 9]);
    }

    #[test]
    fn scores_of_a_very_long_word_do_not_lose_precision() {
        // Each pair of letters costs 600, or 600.001 as one piece, which single precision only distinguishes up to
        // 10,000.
        let pieces = [("<unk>", 0.0, 2), ("▁", -2.0, 1), ("a", -300.0, 1), ("b", -300.0, 1), ("ab", -599.99, 1)];
        let tokenizer = build(&message(&pieces, b""), Ids::OfFile).unwrap();
        let encoding = tokenizer.encode("ab".repeat(5000), false).unwrap();
        assert!(encoding.get_ids()[1..].iter().all(|&id| id == 4));
    }

    #[test]
    fn faults_are_named() {
        let unknown = ("<unk>", 0.0, 2);
        for (file, reason) in [
            (message(&[unknown], b"\x18\x04"), "model_type is 4 (CHAR)"),
            (message(&[("a", 0.0, 1)], b""), "no piece of the type UNKNOWN"),
            (message(&[unknown, ("b", 0.0, 2)], b""), "pieces[1] is a second"),
            (message(&[unknown, ("", 0.0, 1)], b""), "pieces[1] is empty"),
            (message(&[unknown, ("a", f32::NAN, 1)], b""), "pieces[1].score"),
            (message(&[unknown, ("a", 0.0, 1), ("a", 0.0, 4)], b""), "pieces[1] and pieces[2]"),
            (message(&[unknown], b"\x98\x02\x01"), "byte_fallback"),
        ] {
            let Err(error) = build(&file, Ids::OfFile) else { panic!("not detected: {reason}") };
            assert!(format!("{error:#}").contains(reason), "{error:#}");
        }
    }

    #[test]
    fn mutated_models_do_no_harm() {
        let text = "  RAINS in\tSpa\u{ed}n ﬁ e\u{302}\u{301} 東 the new_word! ";
        crate::fuzzing::fuzz(&MODELS, |model| {
            [Ids::OfFile, Ids::Fairseq { first: &["<s>", "<pad>"], offset: 1 }].iter().all(|ids| {
                build(model, *ids).is_ok_and(|it| it.encode_fast(text, false).is_ok() && it.encode(text, false).is_ok())
            })
        });
    }
}
