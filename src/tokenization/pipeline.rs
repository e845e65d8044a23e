//! One interface to both kinds of tokenizers: the tokenizers crate's own, and one around a SentencePiece model.

use super::kind::{Framing, Kind};
use super::sentencepiece::{self, Ids, Preparation, SentencePieceTokenizer};
use super::tokenizer_config::{ListedToken, TokenizerConfig};
use super::{byte_level_bpe, tokenizer_json, wordpiece};
use crate::checkpoint::files::CheckpointFiles;
use anyhow::{anyhow, ensure, Context, Result};
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, Encoding, PostProcessorWrapper, Tokenizer};

/// The tokenizer of a checkpoint, without truncation and padding.
pub(super) enum Pipeline {
    Library(Box<Tokenizer>),
    SentencePiece(Box<SentencePieceTokenizer>),
}

/// Evaluates an expression with either tokenizer.
macro_rules! either {
    ($pipeline:expr, $tokenizer:ident => $call:expr) => {
        match $pipeline {
            Pipeline::Library($tokenizer) => $call,
            Pipeline::SentencePiece($tokenizer) => $call,
        }
    };
}

impl Pipeline {
    /// Loads tokenizer.json, or else the files of the checkpoint's kind of tokenizer.
    ///
    /// # Errors
    /// If there is no tokenizer, or a file is damaged or unsupported; the message names the file.
    pub(super) fn load(files: &CheckpointFiles, settings: &TokenizerConfig, model_type: &str) -> Result<Pipeline> {
        if let Some(file) = files.find("tokenizer.json") {
            let mut tokenizer =
                tokenizer_json::parse(&file.content()?).with_context(|| format!("{file} is not a usable tokenizer"))?;
            wordpiece::apply_settings(&mut tokenizer, settings)?;
            byte_level_bpe::apply_settings(&mut tokenizer, settings)?;
            // The file's own tokens keep their settings.
            let known = tokenizer.get_added_tokens_decoder();
            let is_new = |token: &&ListedToken| !known.values().any(|known| known.content == token.content);
            let new: Vec<&ListedToken> = settings.listed_tokens.iter().filter(is_new).collect();
            let mut pipeline = Pipeline::Library(Box::new(tokenizer));
            pipeline.add(new.iter().map(|listed| listed.or_plain(None)).collect())?;
            pipeline.check_listed(&new)?;
            return Ok(pipeline);
        }
        let kind = Kind::of(files, settings, model_type)?;
        let special = special_tokens(kind, settings)?;
        let mut pipeline = build(kind, files, settings, &special)?;
        for AddedToken { content, .. } in [special.get("cls_token"), special.get("sep_token")] {
            let is_listed = settings.listed_tokens.iter().any(|listed| listed.content == *content);
            ensure!(
                is_listed || pipeline.token_to_id(content).is_some(),
                "the special token {content} is missing in {} of {files}: the file is cut off or belongs to another model",
                kind.files().join(" and ")
            );
        }
        pipeline.add(tokens_to_add(kind, settings, &special)?)?;
        pipeline.check_listed(&settings.listed_tokens.iter().collect::<Vec<_>>())?;
        pipeline.frame(kind.framing(), &special)?;
        Ok(pipeline)
    }

    /// The tokens of a text, without special tokens.
    pub(super) fn tokenize(&self, text: &str) -> tokenizers::Result<Encoding> {
        either!(self, tokenizer => tokenizer.encode_fast(text, false))
    }

    /// The same with the place of each token in the text, in bytes.
    pub(super) fn tokenize_with_places(&self, text: &str) -> tokenizers::Result<Encoding> {
        either!(self, tokenizer => tokenizer.encode(text, false))
    }

    /// Adds what frames a text or a pair.
    pub(super) fn frame_encodings(&self, text: Encoding, text_pair: Option<Encoding>) -> tokenizers::Result<Encoding> {
        either!(self, tokenizer => tokenizer.post_process(text, text_pair, true))
    }

    /// Number of tokens, including added ones.
    pub(super) fn vocab_size(&self) -> usize {
        either!(self, tokenizer => tokenizer.get_vocab_size(true))
    }

    /// The added tokens, special or not.
    pub(super) fn added_tokens(&self) -> Vec<AddedToken> {
        either!(self, tokenizer => tokenizer.get_added_tokens_decoder().into_values().collect())
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        either!(self, tokenizer => tokenizer.token_to_id(token))
    }

    fn add(&mut self, mut tokens: Vec<AddedToken>) -> Result<()> {
        if let Pipeline::SentencePiece(_) = self {
            // A normalized token would be searched for with the space that SentencePiece adds before a text.
            tokens.iter_mut().for_each(|token| token.normalized = false);
        }
        let added = either!(self, tokenizer => tokenizer.add_tokens(tokens));
        added.map_err(|e| anyhow!("cannot add the tokens outside the vocabulary: {e}")).map(drop)
    }

    /// Refuses listed tokens whose ids differ from those in the tokenizer, because the vocabulary already has the token
    /// or there is a gap after it.
    fn check_listed(&self, listed: &[&ListedToken]) -> Result<()> {
        for ListedToken { id, content, origin, .. } in listed {
            let found = self.token_to_id(content);
            ensure!(
                found == Some(*id),
                "{origin} gives the token {content:?} the id {id}, but in the vocabulary it is {}: the files do not \
                 belong together",
                found.map_or("none".to_owned(), |found| found.to_string())
            );
        }
        Ok(())
    }

    fn frame(&mut self, framing: Framing, special: &SpecialTokens) -> Result<()> {
        let with_id = |token: &AddedToken| {
            let id = self.token_to_id(&token.content);
            let id = id.with_context(|| format!("the special token {} is missing", token.content))?;
            Ok::<_, anyhow::Error>((token.content.clone(), id))
        };
        let (cls, sep) = (with_id(special.get("cls_token"))?, with_id(special.get("sep_token"))?);
        let processor: PostProcessorWrapper = match framing {
            Framing::Roberta => RobertaProcessing::new(sep, cls).into(),
            Framing::Bert => BertProcessing::new(sep, cls).into(),
        };
        either!(self, tokenizer => tokenizer.with_post_processor(Some(processor)).get_post_processor().is_some());
        Ok(())
    }
}

/// The special tokens by their names in the settings.
struct SpecialTokens(Vec<(&'static str, AddedToken)>);

impl SpecialTokens {
    fn get(&self, name: &str) -> &AddedToken {
        let (_, token) = self.0.iter().find(|(other, _)| *other == name).expect("every kind has all special tokens");
        token
    }
}

/// The kind's special tokens with their settings.
fn special_tokens(kind: Kind, settings: &TokenizerConfig) -> Result<SpecialTokens> {
    let listed = |content: &str| settings.listed_tokens.iter().find(|token| token.content == content);
    let tokens = kind.special_tokens().map(|(name, default)| {
        let token = settings.special_token(name)?.unwrap_or(default);
        let token = listed(&token.content).and_then(|listed| listed.token.clone()).unwrap_or(token);
        Ok((name, token.special(true)))
    });
    Ok(SpecialTokens(tokens.collect::<Result<_>>()?))
}

/// All tokens outside the vocabulary: the listed ones by id, then the special ones that are not listed.
fn tokens_to_add(kind: Kind, settings: &TokenizerConfig, special: &SpecialTokens) -> Result<Vec<AddedToken>> {
    let special = special.0.iter().map(|(_, token)| token);
    let listed = settings.listed_tokens.iter();
    let listed = listed.map(|listed| listed.or_plain(special.clone().find(|token| token.content == listed.content)));
    let of_kind = kind.additional_special_tokens().iter().map(|token| AddedToken::from(*token, true));
    let mut tokens: Vec<AddedToken> = listed.collect();
    for token in special.cloned().chain(settings.additional_special_tokens()?).chain(of_kind) {
        if !tokens.iter().any(|known| known.content == token.content) {
            tokens.push(token);
        }
    }
    Ok(tokens)
}

fn build(kind: Kind, files: &CheckpointFiles, settings: &TokenizerConfig, special: &SpecialTokens) -> Result<Pipeline> {
    let contents = kind
        .files()
        .iter()
        .map(|name| files.find(name).map_or(Ok(Vec::new()), |file| Ok(file.content()?.into_owned())));
    let contents: Vec<Vec<u8>> = contents.collect::<Result<_>>()?;
    let built = match kind {
        Kind::Bert | Kind::MpNet => wordpiece::build(&contents[0], &special.get("unk_token").content, settings)
            .map(Box::new)
            .map(Pipeline::Library),
        Kind::Roberta => {
            byte_level_bpe::build(&contents[0], &contents[1], settings).map(Box::new).map(Pipeline::Library)
        }
        Kind::XlmRoberta | Kind::Camembert | Kind::Albert | Kind::DebertaV2 => sentencepiece_settings(kind, settings)
            .and_then(|settings| sentencepiece::build(&contents[0], &settings))
            .map(Box::new)
            .map(Pipeline::SentencePiece),
    };
    built.with_context(|| format!("cannot build a tokenizer of {} in {files}", kind.files().join(" and ")))
}

/// What each SentencePiece-based class of transformers does in addition to the model.
fn sentencepiece_settings(kind: Kind, settings: &TokenizerConfig) -> Result<sentencepiece::Settings> {
    let flag = |name, default| Ok::<bool, anyhow::Error>(settings.flag(name)?.unwrap_or(default));
    let (ids, preparation) = match kind {
        Kind::Albert => {
            let preparation = Preparation {
                remove_space: flag("remove_space", true)?,
                straight_quotes: true,
                strip_accents: !flag("keep_accents", false)?,
                lowercase: flag("do_lower_case", true)?,
            };
            (Ids::OfFile, preparation)
        }
        Kind::Camembert => {
            let first = &["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"];
            (Ids::Fairseq { first, offset: 4 }, Preparation::default())
        }
        Kind::XlmRoberta => {
            (Ids::Fairseq { first: &["<s>", "<pad>", "</s>", "<unk>"], offset: 1 }, Preparation::default())
        }
        _ => {
            settings.demand("split_by_punct", false)?;
            (Ids::OfFile, Preparation { lowercase: flag("do_lower_case", false)?, ..Preparation::default() })
        }
    };
    Ok(sentencepiece::Settings { ids, preparation, add_prefix_space: flag("add_prefix_space", true)? })
}
