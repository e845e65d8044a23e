//! Turns a text, or a pair of texts, into token ids: truncated to the model's limit, never padded.
//!
//! A checkpoint's tokenizer is tokenizer.json as read by the tokenizers crate (`tokenizer_json.rs`), or else built from
//! a vocabulary like in transformers (`pipeline.rs`): `wordpiece.rs`, `byte_level_bpe.rs` or `sentencepiece/`, as
//! `kind.rs` decides.

mod byte_level_bpe;
mod kind;
mod long_text;
mod pipeline;
mod sentencepiece;
mod tokenizer_config;
mod tokenizer_json;
pub mod windows;
mod wordpiece;

use crate::checkpoint::files::{CheckpointFiles, KnownFile, Role};
use anyhow::{anyhow, ensure, Context, Result};
use long_text::Prefixes;
use pipeline::Pipeline;
use rayon::prelude::*;
use tokenizer_config::TokenizerConfig;
use tokenizers::utils::truncation::{truncate_encodings, TruncationDirection, TruncationParams, TruncationStrategy};

/// The token ids of one text or pair, including special tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoding {
    /// At most the maximum length.
    pub input_ids: Vec<u32>,
    /// The token type of each token, or empty if all are 0.
    pub token_type_ids: Vec<u32>,
    /// Whether the text was truncated.
    pub truncated: bool,
}

/// The input of one classification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextOrPair<'a> {
    /// A text.
    Text(&'a str),
    /// Two texts, whose relation the model classifies.
    Pair(&'a str, &'a str),
}

/// What a tokenizer needs to know about its model.
#[derive(Debug, Clone, Copy)]
pub struct ModelInputs<'a> {
    /// `model_type` of config.json.
    pub model_type: &'a str,
    /// Rows of the embedding table: all ids must be smaller.
    pub vocab_size: usize,
    /// The model's maximum length in tokens, including special ones.
    pub max_length: usize,
}

/// The file that the tokenizer of the checkpoint in `files` is made from, if it exists.
pub fn file_of(files: &CheckpointFiles) -> Option<&'static str> {
    let is_usable = |name: &&str| *name != "vocab.json" || files.find("merges.txt").is_some();
    let names = KnownFile::names(|role| role == Role::Tokenizer);
    names.into_iter().filter(is_usable).find(|name| files.find(name).is_some())
}

/// A loaded tokenizer with the model's limit.
pub struct Tokenization {
    pipeline: Pipeline,
    /// Maximum length in tokens, including special ones.
    max_length: usize,
    /// Special tokens around one text: 2 for BERT's `[CLS]` and `[SEP]`.
    special_tokens: usize,
    /// Special tokens around a pair.
    special_tokens_of_pair: usize,
    vocab_size: usize,
    truncation_side: TruncationDirection,
    without_token_types: bool,
    /// Set if the start of a long text can be tokenized without the rest.
    prefixes: Option<Prefixes>,
    /// Whether the two sides of a space between two words can be tokenized apart.
    cuts_at_spaces: bool,
    /// Whether one may be cut between two ideographs.
    cuts_between_ideographs: bool,
}

impl Tokenization {
    /// Loads `tokenizer.json`, or builds the tokenizer from a vocabulary and `tokenizer_config.json`.
    /// `asked_max_length` is the user's limit; by default it is the smaller of `model_max_length` and the model's own.
    ///
    /// # Errors
    /// If the checkpoint has no tokenizer, a file is invalid or unsupported, the tokenizer has more ids than the model
    /// has embeddings, or the limit is out of range.
    pub fn load(files: &CheckpointFiles, model: &ModelInputs, asked_max_length: Option<usize>) -> Result<Tokenization> {
        let settings = TokenizerConfig::load(files)?;
        let pipeline = Pipeline::load(files, &settings, model.model_type)?;
        let (rows, tokens) = (model.vocab_size, pipeline.vocab_size());
        ensure!(
            tokens <= rows,
            "the tokenizer in {files} has {tokens} tokens, but config.json's vocab_size is {rows}: \
             the files do not belong together"
        );
        let special_tokens = special_token_count(&pipeline, files, false)?;
        ensure!(
            special_tokens > 0,
            "the tokenizer in {files} adds no [CLS] token (its post_processor is missing), but the classifier reads \
             that token"
        );
        Ok(Tokenization {
            max_length: max_length(&settings, model.max_length, asked_max_length, special_tokens)?,
            special_tokens,
            special_tokens_of_pair: special_token_count(&pipeline, files, true)?,
            vocab_size: rows,
            truncation_side: settings.truncation_side,
            without_token_types: settings.without_token_types,
            // Truncating at the start needs the whole text.
            prefixes: match settings.truncation_side {
                TruncationDirection::Right => Prefixes::new(&pipeline),
                TruncationDirection::Left => None,
            },
            cuts_at_spaces: windows::cuts_at_spaces(&pipeline),
            cuts_between_ideographs: long_text::isolates_ideographs(&pipeline),
            pipeline,
        })
    }

    /// Maximum length in tokens, including special ones.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Whether of a long text the end is kept, rather than the beginning.
    pub fn truncates_beginnings(&self) -> bool {
        self.truncation_side == TruncationDirection::Left
    }

    /// Encodes one text, like `tokenizer(text, truncation=True, max_length=…)` in transformers.
    ///
    /// # Errors
    /// If the tokenizer fails, or returns an id without a row in the embedding table.
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        let room = self.max_length - self.special_tokens;
        let mut encoding = self.tokenize_start(text, room)?;
        let truncated = encoding.len() > room;
        encoding.truncate(room, 0, self.truncation_side);
        self.frame(encoding, None, truncated)
    }

    /// Encodes a pair of texts, like `tokenizer(text, text_pair, truncation="longest_first", max_length=…)` in
    /// transformers, which treats an empty second text as none.
    ///
    /// # Errors
    /// As for [`Tokenization::encode`], and if the limit leaves no room for text.
    pub fn encode_pair(&self, text: &str, text_pair: &str) -> Result<Encoding> {
        if text_pair.is_empty() {
            return self.encode(text);
        }
        let room = self.max_length.saturating_sub(self.special_tokens_of_pair);
        ensure!(room > 0, "{}", no_room(self.max_length, self.special_tokens_of_pair));
        let mut pair = (self.tokenize_start(text, room)?, self.tokenize_start(text_pair, room)?);
        if pair.0.len() > room && pair.1.len() > room && room % 2 == 1 {
            // Of two long texts the longer one gets the odd token, so both must be tokenized to the end.
            pair = (self.tokenize(text)?, self.tokenize(text_pair)?);
        }
        let truncated = pair.0.len() + pair.1.len() > room;
        let truncation = TruncationParams {
            direction: self.truncation_side,
            max_length: room,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        let (first, second) = truncate_encodings(pair.0, Some(pair.1), &truncation).map_err(failure)?;
        self.frame(first, second, truncated)
    }

    /// Encodes many texts or pairs in parallel, in order.
    ///
    /// # Errors
    /// As for [`Tokenization::encode_pair`], for the first one that fails.
    pub fn encode_texts(&self, texts: &[TextOrPair<'_>]) -> Result<Vec<Encoding>> {
        let encode = |text: &TextOrPair<'_>| match *text {
            TextOrPair::Text(text) => self.encode(text),
            TextOrPair::Pair(text, text_pair) => self.encode_pair(text, text_pair),
        };
        texts.par_iter().map(encode).collect()
    }

    fn tokenize(&self, text: &str) -> Result<tokenizers::Encoding> {
        self.pipeline.tokenize(text).map_err(failure)
    }

    /// The first tokens of `text`: all, or more than `room`, each the same as when tokenizing the whole text.
    fn tokenize_start(&self, text: &str, room: usize) -> Result<tokenizers::Encoding> {
        let Some(mut prefix) = self.prefixes.as_ref().and_then(|prefixes| prefixes.of(text, room)) else {
            return self.tokenize(text);
        };
        loop {
            let encoding = self.tokenize(prefix.text())?;
            if encoding.len() >= prefix.tokens_needed() || !prefix.grow() {
                return Ok(encoding);
            }
        }
    }

    fn frame(
        &self,
        mut text: tokenizers::Encoding,
        mut text_pair: Option<tokenizers::Encoding>,
        truncated: bool,
    ) -> Result<Encoding> {
        // Otherwise the truncated parts would get special tokens too.
        for encoding in std::iter::once(&mut text).chain(&mut text_pair) {
            encoding.take_overflowing();
        }
        let encoding = self.pipeline.frame_encodings(text, text_pair).map_err(failure)?;
        let input_ids = encoding.get_ids().to_vec();
        input_ids.iter().try_for_each(|&id| self.check_id(id))?;
        let has_types = !self.without_token_types && encoding.get_type_ids().iter().any(|&id| id != 0);
        let token_type_ids = if has_types { encoding.get_type_ids().to_vec() } else { Vec::new() };
        Ok(Encoding { input_ids, token_type_ids, truncated })
    }
}

fn failure(error: tokenizers::Error) -> anyhow::Error {
    anyhow!("cannot tokenize: {error}")
}

/// The number of special tokens around an empty text, or two.
fn special_token_count(pipeline: &Pipeline, files: &CheckpointFiles, is_pair: bool) -> Result<usize> {
    let empty = || pipeline.tokenize("");
    let framed =
        tokenizer_json::quietly(|| pipeline.frame_encodings(empty()?, if is_pair { Some(empty()?) } else { None }));
    let framed = framed.with_context(|| format!("the tokenizer in {files} panicked: its tokenizer.json is damaged"))?;
    Ok(framed.map_err(failure).with_context(|| format!("the tokenizer in {files} is not usable"))?.len())
}

fn max_length(
    settings: &TokenizerConfig,
    longest: usize,
    asked: Option<usize>,
    special_tokens: usize,
) -> Result<usize> {
    let limit = match asked {
        Some(asked) => {
            ensure!(asked <= longest, "a maximum length of {asked} tokens exceeds the model's limit of {longest}");
            asked
        }
        None => settings.model_max_length.unwrap_or(longest).min(longest),
    };
    ensure!(limit > special_tokens, "{}", no_room(limit, special_tokens));
    Ok(limit)
}

fn no_room(limit: usize, special_tokens: usize) -> String {
    format!(
        "a maximum length of {limit} tokens leaves no room for text in addition to {special_tokens} special tokens; increase it"
    )
}
