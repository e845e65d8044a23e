//! The tokenizer of a checkpoint without tokenizer.json, determined by its class, or else the model's type, or else its
//! files.

use super::tokenizer_config::TokenizerConfig;
use crate::checkpoint::files::CheckpointFiles;
use anyhow::{bail, ensure, Result};
use tokenizers::AddedToken;

/// The tokenizer classes of transformers that are built from their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bert,
    MpNet,
    Roberta,
    XlmRoberta,
    Camembert,
    Albert,
    DebertaV2,
}

/// Each kind with its `tokenizer_class`es and `model_type`s.
const KINDS: [(Kind, &[&str], &[&str]); 7] = [
    (Kind::Bert, &["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"], &["bert", "distilbert", "electra"]),
    (Kind::MpNet, &["MPNetTokenizer"], &["mpnet"]),
    (Kind::Roberta, &["RobertaTokenizer", "BartTokenizer"], &["roberta", "bart"]),
    (Kind::XlmRoberta, &["XLMRobertaTokenizer"], &["xlm-roberta"]),
    (Kind::Camembert, &["CamembertTokenizer"], &["camembert"]),
    (Kind::Albert, &["AlbertTokenizer"], &["albert"]),
    (Kind::DebertaV2, &["DebertaV2Tokenizer"], &["deberta-v2"]),
];

/// Generic classes, which do not say anything about the kind.
const CLASSES_OF_ANY: [&str; 2] = ["PreTrainedTokenizer", "TokenizersBackend"];

/// How special tokens surround one text and two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// `[CLS] a [SEP] b [SEP]`, with token type 1 for the second text and its end.
    Bert,
    /// `<s> a </s></s> b </s>`, with token type 0 only.
    Roberta,
}

impl Kind {
    /// The kind of the checkpoint in `files`.
    ///
    /// # Errors
    /// If the tokenizer's class is not supported, or the kind's files are missing; the message names both.
    pub(super) fn of(files: &CheckpointFiles, settings: &TokenizerConfig, model_type: &str) -> Result<Kind> {
        let class = settings.class().map(|class| class.strip_suffix("Fast").unwrap_or(class));
        let class = class.filter(|class| !CLASSES_OF_ANY.contains(class));
        let kind = match class {
            Some(class) => match KINDS.iter().find(|(_, classes, _)| classes.contains(&class)) {
                Some((kind, ..)) => Some(*kind),
                None => bail!("{files} has no tokenizer.json, and its tokenizer_class {class} needs one"),
            },
            None => KINDS.iter().find(|(.., types)| types.contains(&model_type)).map(|(kind, ..)| *kind),
        };
        let has = |kind: &Kind| kind.files().iter().all(|name| files.find(name).is_some());
        let Some(kind) = kind.or_else(|| KINDS.iter().map(|(kind, ..)| *kind).find(has)) else {
            bail!(
                "{files} has no tokenizer: neither tokenizer.json nor a supported vocabulary is among its files ({})",
                files.names().join(", ")
            );
        };
        ensure!(
            has(&kind),
            "{files} has no tokenizer: neither tokenizer.json nor {} is among its files ({})",
            kind.files().join(" with "),
            files.names().join(", ")
        );
        Ok(kind)
    }

    /// The files of the vocabulary.
    pub(super) fn files(self) -> &'static [&'static str] {
        match self {
            Kind::Bert | Kind::MpNet => &["vocab.txt"],
            Kind::Roberta => &["vocab.json", "merges.txt"],
            Kind::XlmRoberta | Kind::Camembert => &["sentencepiece.bpe.model"],
            Kind::Albert => &["spiece.model"],
            Kind::DebertaV2 => &["spm.model"],
        }
    }

    pub(super) fn framing(self) -> Framing {
        match self {
            Kind::Bert | Kind::Albert | Kind::DebertaV2 => Framing::Bert,
            Kind::MpNet | Kind::Roberta | Kind::XlmRoberta | Kind::Camembert => Framing::Roberta,
        }
    }

    /// The class's special tokens, by their names in the settings.
    pub(super) fn special_tokens(self) -> impl Iterator<Item = (&'static str, AddedToken)> {
        let names = ["cls_token", "sep_token", "unk_token", "pad_token", "mask_token", "bos_token", "eos_token"];
        let texts = match self {
            Kind::Bert => ["[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]", "", ""],
            Kind::Albert => ["[CLS]", "[SEP]", "<unk>", "<pad>", "[MASK]", "[CLS]", "[SEP]"],
            Kind::DebertaV2 => ["[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]", "[CLS]", "[SEP]"],
            Kind::MpNet => ["<s>", "</s>", "[UNK]", "<pad>", "<mask>", "<s>", "</s>"],
            Kind::Roberta | Kind::XlmRoberta | Kind::Camembert => {
                ["<s>", "</s>", "<unk>", "<pad>", "<mask>", "<s>", "</s>"]
            }
        };
        let mask_takes_space = matches!(self, Kind::MpNet | Kind::Camembert);
        names.into_iter().zip(texts).map(move |(name, text)| {
            (name, AddedToken::from(text, true).lstrip(name == "mask_token" && mask_takes_space))
        })
    }

    /// Further special tokens of the class.
    pub(super) fn additional_special_tokens(self) -> &'static [&'static str] {
        match self {
            Kind::Camembert => &["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"],
            _ => &[],
        }
    }
}
