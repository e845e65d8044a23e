//! Text to token ids: the tokenizer as transformers builds it, truncated to the model's limit, never padded.

mod long_text;
mod tokenizer_config;
mod tokenizer_json;
mod vocab;

use crate::checkpoint::config::Config;
use crate::checkpoint::files::CheckpointFiles;
use anyhow::{anyhow, bail, ensure, Context, Result};
use long_text::{Prefixes, MAX_WORD_CHARS};
use rayon::prelude::*;
use tokenizer_config::TokenizerConfig;
use tokenizers::utils::truncation::TruncationDirection;
use tokenizers::{ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

/// The longest vocabulary in bytes: those of the largest models, 250,000 pieces and more, take 10 to 40 MB.
const MAX_FILE_SIZE: usize = 128 << 20;

/// The token ids of one text, `[CLS]` and `[SEP]` included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoding {
    /// At most the limit of them.
    pub input_ids: Vec<u32>,
    /// The type of each token; empty if all are 0.
    pub token_type_ids: Vec<u32>,
    /// Whether the end of the text was left out.
    pub truncated: bool,
}

/// A loaded tokenizer with the model's limit.
pub struct Tokenization {
    tokenizer: Tokenizer,
    /// Longest encoding in tokens, special tokens included.
    max_length: usize,
    /// Tokens that the template adds to one text: 2 for BERT's `[CLS]` and `[SEP]`.
    special_tokens: usize,
    /// Rows of the embedding table: every id must be below.
    vocab_size: usize,
    /// Set where the start of a long text can be tokenized without its end.
    prefixes: Option<Prefixes>,
}

impl Tokenization {
    /// From `tokenizer.json`, or built of `vocab.txt` and `tokenizer_config.json`. `asked_max_length` is
    /// `--max-length`; without it the limit is the least of `model_max_length` and `max_position_embeddings`.
    ///
    /// # Errors
    /// Where the checkpoint has neither file, one does not parse, the tokenizer has more ids than the model has
    /// embeddings, or the limit is out of the model's range.
    pub fn load(files: &CheckpointFiles, config: &Config, asked_max_length: Option<usize>) -> Result<Tokenization> {
        let settings = TokenizerConfig::load(files)?;
        let tokenizer = load_tokenizer(files, &settings)?;
        let rows = config.vocab_size();
        let tokens = tokenizer.get_vocab_size(true);
        ensure!(
            tokens <= rows,
            "the tokenizer in {files} has {tokens} tokens, but config.json's vocab_size is {rows}: \
             the files do not belong together"
        );
        let special_tokens = special_token_count(&tokenizer, files)?;
        let max_length = max_length(&settings, config, asked_max_length, special_tokens)?;
        let prefixes = is_bert_pipeline(&tokenizer)
            .then(|| Prefixes::new(tokenizer.get_added_tokens_decoder().values().map(|token| token.content.as_str())))
            .flatten();
        Ok(Tokenization { tokenizer, max_length, special_tokens, vocab_size: rows, prefixes })
    }

    /// Longest encoding, in tokens with the special ones.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// One text to ids, as `tokenizer(text, truncation=True, max_length=…)` of transformers.
    ///
    /// # Errors
    /// Where the tokenizer fails, or gives an id that the embedding table has no row for.
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        let room = self.max_length - self.special_tokens;
        let mut encoding = match self.prefixes.as_ref().and_then(|prefixes| prefixes.of(text, room)) {
            None => self.tokenize(text)?,
            Some(mut prefix) => loop {
                let encoding = self.tokenize(prefix.text())?;
                if encoding.len() >= prefix.tokens_needed() || !prefix.grow() {
                    break encoding;
                }
            },
        };
        let truncated = encoding.len() > room;
        encoding.truncate(room, 0, TruncationDirection::Right);
        let encoding =
            self.tokenizer.post_process(encoding, None, true).map_err(|e| anyhow!("cannot tokenize: {e}"))?;
        let input_ids = encoding.get_ids().to_vec();
        if let Some(id) = input_ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            bail!(
                "the tokenizer gives the id {id}, but config.json's vocab_size is {}: the files do not belong together",
                self.vocab_size
            );
        }
        Ok(Encoding { input_ids, token_type_ids: Vec::new(), truncated })
    }

    /// Many texts, in parallel, in order.
    ///
    /// # Errors
    /// As [`Tokenization::encode`], for the first text that fails.
    pub fn encode_all(&self, texts: &[&str]) -> Result<Vec<Encoding>> {
        texts.par_iter().map(|text| self.encode(text)).collect()
    }

    fn tokenize(&self, text: &str) -> Result<tokenizers::Encoding> {
        self.tokenizer.encode_fast(text, false).map_err(|e| anyhow!("cannot tokenize: {e}"))
    }
}

fn load_tokenizer(files: &CheckpointFiles, settings: &TokenizerConfig) -> Result<Tokenizer> {
    if let Some(file) = files.find("tokenizer.json") {
        let mut tokenizer = tokenizer_json::parse(&file.read(MAX_FILE_SIZE)?)
            .with_context(|| format!("{file} is no usable tokenizer"))?;
        // What a tokenizer was trained or served with; the limits are ours.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| anyhow!("cannot reset the truncation of {file}: {e}"))?;
        settings.apply_to(&mut tokenizer)?;
        return Ok(tokenizer);
    }
    let Some(file) = files.find("vocab.txt") else {
        bail!(
            "{files} has no tokenizer: neither tokenizer.json nor vocab.txt is among its files ({})",
            files.names().join(", ")
        );
    };
    vocab::build(&file.read(MAX_FILE_SIZE)?, settings).with_context(|| format!("cannot build a tokenizer of {file}"))
}

/// Whether the tokenizer splits text as BERT does: words at white space and punctuation, each on its own, and a long
/// one a single token.
fn is_bert_pipeline(tokenizer: &Tokenizer) -> bool {
    matches!(tokenizer.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_)))
        && matches!(tokenizer.get_normalizer(), None | Some(NormalizerWrapper::BertNormalizer(_)))
        && matches!(tokenizer.get_model(), ModelWrapper::WordPiece(model) if model.max_input_chars_per_word <= MAX_WORD_CHARS)
}

/// Counts what the template adds to an empty text, and refuses a template that the model's single segment
/// cannot stand for.
fn special_token_count(tokenizer: &Tokenizer, files: &CheckpointFiles) -> Result<usize> {
    let empty =
        tokenizer_json::probe(tokenizer, "").with_context(|| format!("the tokenizer in {files} is not usable"))?;
    ensure!(
        empty.get_type_ids().iter().all(|&id| id == 0),
        "the tokenizer in {files} puts a single text into token type 1, which agnews does not support"
    );
    ensure!(
        !empty.is_empty(),
        "the tokenizer in {files} adds no [CLS] token (its post_processor is missing), and the classifier reads that token"
    );
    Ok(empty.len())
}

fn max_length(
    settings: &TokenizerConfig,
    config: &Config,
    asked: Option<usize>,
    special_tokens: usize,
) -> Result<usize> {
    let positions = config.max_length();
    let limit = match asked {
        Some(asked) => {
            ensure!(
                asked <= positions,
                "--max-length {asked} is more than the model takes: {positions} by its config.json"
            );
            asked
        }
        None => settings.model_max_length.unwrap_or(positions).min(positions),
    };
    ensure!(
        limit > special_tokens,
        "a maximum length of {limit} tokens leaves no room for text beside the {special_tokens} special tokens: use more"
    );
    Ok(limit)
}
