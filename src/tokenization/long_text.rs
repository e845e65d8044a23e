//! The start of a very long text, enough to fill the model: a 10 MB line then costs as much as a 10 KB one.
//!
//! Most tokenizers first split a text into words at spaces, so the tokens at the start of a text do not depend on the
//! rest if it is cut between two words ([`Prefixes::AtSpaces`]). A BERT tokenizer also splits at punctuation and has a
//! maximum word length, so a text may be cut anywhere, and endless runs may be shortened ([`Prefixes::Anywhere`]).

use super::pipeline::Pipeline;
use serde_json::Value;
use tokenizers::{AddedToken, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

/// Maximum number of pieces per word: a word of more characters is a single `[UNK]` (WordPiece's
/// `max_input_chars_per_word`).
const MAX_WORD_CHARS: usize = 100;

/// Texts of up to this many bytes per wanted token are tokenized whole.
const BYTES_PER_TOKEN: usize = 16;

/// Makes prefixes for one tokenizer.
#[derive(Debug, PartialEq)]
pub(super) enum Prefixes {
    /// The last word, which the cut may fall inside, and a special token that the cut may halve are unreliable: a
    /// prefix is long enough if it has as many extra pieces as these two can have.
    Anywhere { unsure_tokens: usize },
    /// All tokens of a prefix are reliable, but it must end with an ASCII letter or digit, followed by a space and
    /// another one.
    AtSpaces,
}

/// A growing prefix of one text.
pub(super) struct Prefix<'a> {
    rest: &'a str,
    text: String,
    target_bytes: usize,
    tokens_needed: usize,
    /// Set if a prefix may end anywhere.
    run: Option<Run>,
}

/// A run of one kind of characters, which beyond some length never changes the tokens.
#[derive(Default)]
struct Run {
    kind: Option<Kind>,
    length: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// ASCII letters and digits: a run longer than a word may be is one `[UNK]`, whatever its length.
    Word,
    /// Blanks: one separates words as well as many do.
    Blank,
    /// Characters that BERT's normalizer removes.
    Removed,
}

impl Prefixes {
    /// `None` if a prefix would not be safe with this tokenizer.
    pub(super) fn new(pipeline: &Pipeline) -> Option<Prefixes> {
        let added_tokens = pipeline.added_tokens();
        if added_tokens.iter().any(joins_words) {
            return None;
        }
        match pipeline {
            Pipeline::Library(tokenizer) if is_bert_pipeline(tokenizer) => Prefixes::anywhere(&added_tokens),
            Pipeline::Library(tokenizer) => splits_at_spaces(tokenizer).then_some(Prefixes::AtSpaces),
            Pipeline::SentencePiece(tokenizer) => {
                let normalizer = tokenizer.get_normalizer()?;
                tokenizer.get_model().splits_at_spaces(normalizer).then_some(Prefixes::AtSpaces)
            }
        }
    }

    /// For a BERT tokenizer; `AtSpaces` if shortening a run of letters or blanks could halve an added token.
    fn anywhere(added_tokens: &[AddedToken]) -> Option<Prefixes> {
        let mut longest = 0;
        for AddedToken { content, .. } in added_tokens {
            let is_safe = content.starts_with(|c: char| c.is_ascii_punctuation())
                && content.chars().all(|c| matches!(Kind::of(c), None | Some(Kind::Word)))
                && content.len() <= MAX_WORD_CHARS;
            if !is_safe {
                return Some(Prefixes::AtSpaces);
            }
            longest = longest.max(content.chars().count());
        }
        Some(Prefixes::Anywhere { unsure_tokens: MAX_WORD_CHARS + longest })
    }

    /// The first prefix of `text` for `max_tokens` pieces, or `None` if the text is short enough to tokenize whole.
    pub(super) fn of<'a>(&self, text: &'a str, max_tokens: usize) -> Option<Prefix<'a>> {
        let (unsure_tokens, run) = match self {
            Prefixes::Anywhere { unsure_tokens } => (*unsure_tokens, Some(Run::default())),
            Prefixes::AtSpaces => (0, None),
        };
        let tokens_needed = max_tokens + 1 + unsure_tokens;
        let target_bytes = tokens_needed * BYTES_PER_TOKEN;
        if text.len() <= target_bytes {
            return None;
        }
        let mut prefix = Prefix { rest: text, text: String::new(), target_bytes, tokens_needed, run };
        prefix.fill();
        Some(prefix)
    }
}

/// Whether a token could span a place where texts are cut: an ASCII letter or digit followed by a space.
fn joins_words(token: &AddedToken) -> bool {
    let bytes = token.content.as_bytes();
    bytes.windows(2).any(|pair| pair[0].is_ascii_alphanumeric() && pair[1] == b' ')
}

/// Whether the tokenizer splits text like BERT: into words at white space and punctuation, independently of each other,
/// with a long word as a single token.
fn is_bert_pipeline(tokenizer: &Tokenizer) -> bool {
    matches!(tokenizer.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_)))
        && matches!(tokenizer.get_normalizer(), None | Some(NormalizerWrapper::BertNormalizer(_)))
        && matches!(tokenizer.get_model(), ModelWrapper::WordPiece(model) if model.max_input_chars_per_word <= MAX_WORD_CHARS)
}

/// Whether each ideograph is a word of its own, whatever stands beside it.
pub(super) fn isolates_ideographs(pipeline: &Pipeline) -> bool {
    let Pipeline::Library(tokenizer) = pipeline else { return false };
    let normalizer = tokenizer.get_normalizer();
    let isolates =
        matches!(normalizer, Some(NormalizerWrapper::BertNormalizer(normalizer)) if normalizer.handle_chinese_chars);
    isolates
        && is_bert_pipeline(tokenizer)
        && !pipeline.added_tokens().iter().any(|token| token.content.contains(is_ideograph))
}

/// The characters between which texts are cut: most of those that BERT's normalizer puts blanks around.
pub(super) fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}')
}

/// Whether no part of the tokenizer looks across a space between two ASCII letters or digits, judging by the parts'
/// names in tokenizer.json. An unknown part might.
fn splits_at_spaces(tokenizer: &Tokenizer) -> bool {
    let normalizer = serde_json::to_value(tokenizer.get_normalizer()).unwrap_or_default();
    let pre_tokenizer = serde_json::to_value(tokenizer.get_pre_tokenizer()).unwrap_or_default();
    let keeps_words = |word: char| {
        let mut text = tokenizers::NormalizedString::from(format!("{word} {word}"));
        let normalized =
            tokenizer.get_normalizer().is_none_or(|it| tokenizers::Normalizer::normalize(it, &mut text).is_ok());
        let words: Vec<&str> = text.get().split([' ', '\u{2581}']).filter(|word| !word.is_empty()).collect();
        normalized && words.len() == 2 && words.iter().all(|it| it.eq_ignore_ascii_case(word.encode_utf8(&mut [0; 4])))
    };
    is_local(&normalizer)
        && splits_words(&pre_tokenizer) == Some(true)
        && ('0'..='z').filter(char::is_ascii_alphanumeric).all(keeps_words)
}

/// Whether a normalizer changes each character independently of others except its accents, and spaces only depending on
/// other spaces.
fn is_local(normalizer: &Value) -> bool {
    match normalizer["type"].as_str() {
        None => normalizer.is_null(),
        Some("Sequence") => normalizer["normalizers"].as_array().is_some_and(|parts| parts.iter().all(is_local)),
        Some("Replace") => match &normalizer["pattern"] {
            Value::Object(pattern) => match (pattern.get("String"), pattern.get("Regex")) {
                (Some(Value::String(text)), _) => !text.contains(' '),
                (_, regex) => regex.is_some_and(|regex| regex == " {2,}"),
            },
            _ => false,
        },
        Some(name) => matches!(
            name,
            "BertNormalizer"
                | "NFC"
                | "NFD"
                | "NFKC"
                | "NFKD"
                | "Lowercase"
                | "Strip"
                | "StripAccents"
                | "Nmt"
                | "Precompiled"
        ),
    }
}

/// Whether a pre-tokenizer splits before or at a space; `None` if it may look across one.
fn splits_words(pre_tokenizer: &Value) -> Option<bool> {
    match pre_tokenizer["type"].as_str()? {
        "Sequence" => {
            let parts = pre_tokenizer["pretokenizers"].as_array()?;
            parts.iter().map(splits_words).try_fold(false, |any, splits| Some(splits? || any))
        }
        "BertPreTokenizer" | "Whitespace" | "WhitespaceSplit" => Some(true),
        "ByteLevel" => Some(pre_tokenizer["use_regex"] != false),
        "Metaspace" => Some(pre_tokenizer["split"] != false),
        "Punctuation" | "Digits" => Some(false),
        _ => None,
    }
}

impl Prefix<'_> {
    /// The prefix so far, with endless runs shortened.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The number of pieces at which the prefix is long enough.
    pub(super) fn tokens_needed(&self) -> usize {
        self.tokens_needed
    }

    /// Extends the prefix; `false` if it already holds all of the text.
    pub(super) fn grow(&mut self) -> bool {
        if self.rest.is_empty() {
            return false;
        }
        self.target_bytes *= 4;
        self.fill();
        true
    }

    fn fill(&mut self) {
        let Some(run) = &mut self.run else {
            let length = space_after(self.rest, self.target_bytes - self.text.len());
            self.text.push_str(&self.rest[..length]);
            self.rest = &self.rest[length..];
            return;
        };
        let mut rest = self.rest.chars();
        while self.text.len() < self.target_bytes {
            let Some(c) = rest.next() else { break };
            if run.keeps(c) {
                self.text.push(c);
            }
        }
        self.rest = rest.as_str();
    }
}

/// The first position from `least` on where a text may be cut at a space, or its end.
fn space_after(text: &str, least: usize) -> usize {
    let bytes = text.as_bytes();
    let is_word = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
    let mut spaces = memchr::memchr_iter(b' ', &bytes[least.min(bytes.len())..]).map(|at| at + least);
    spaces.find(|&at| at > 0 && is_word(at - 1) && is_word(at + 1)).unwrap_or(bytes.len())
}

impl Run {
    /// Adds `c` to the run that it continues or starts; returns whether it affects the tokens.
    fn keeps(&mut self, c: char) -> bool {
        let kind = Kind::of(c);
        if kind.is_none() || kind != self.kind {
            *self = Run { kind, length: 0 };
        }
        self.length += 1;
        match kind {
            None => true,
            Some(Kind::Word) => self.length <= 2 * MAX_WORD_CHARS,
            Some(Kind::Blank | Kind::Removed) => self.length <= 1,
        }
    }
}

impl Kind {
    fn of(c: char) -> Option<Kind> {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' => Some(Kind::Word),
            ' ' | '\t' | '\n' | '\r' => Some(Kind::Blank),
            '\0' | '\u{fffd}' => Some(Kind::Removed),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix_of(text: &str, max_tokens: usize) -> Option<String> {
        let prefixes = Prefixes::anywhere(&[AddedToken::from("[SEP]", true)]).unwrap();
        prefixes.of(text, max_tokens).map(|prefix| prefix.text().to_owned())
    }

    #[test]
    fn short_text_has_no_prefix() {
        assert!(prefix_of(&"word ".repeat(300), 10).is_none());
    }

    #[test]
    fn long_runs_are_shortened_and_other_text_is_kept() {
        let long = format!("{}{}{}é, end{}", "x".repeat(5000), " ".repeat(5000), "\0".repeat(5000), "!".repeat(5000));
        let prefix = prefix_of(&long, 10).unwrap();
        assert!(prefix.starts_with(&format!("{} \0é, end!!!", "x".repeat(200))), "{prefix}");
    }

    #[test]
    fn growing_ends_with_the_whole_text() {
        let text = "a b ".repeat(40_000);
        for prefixes in [Prefixes::AtSpaces, Prefixes::anywhere(&[]).unwrap()] {
            let mut prefix = prefixes.of(&text, 5).unwrap();
            let mut grown = 0;
            while prefix.grow() {
                grown += 1;
            }
            assert!(grown > 1 && prefix.text() == text);
        }
    }

    #[test]
    fn a_cut_at_a_space_is_between_two_words() {
        for (text, cut) in [
            ("one two three", 7),
            ("one  two three", 8),
            ("one two, three", 14),
            ("one two, three four", 14),
            ("éé é é é", 13),
            ("one twothree", 12),
        ] {
            assert_eq!(space_after(text, 4), cut, "{text}");
        }
        assert_eq!(space_after("one", 9), 3);
    }

    #[test]
    fn added_tokens_decide_where_a_text_may_be_cut() {
        let of = |token: &str| Prefixes::anywhere(&[AddedToken::from(token, true)]);
        assert_eq!(of("plain"), Some(Prefixes::AtSpaces));
        assert_eq!(of("new_word"), Some(Prefixes::AtSpaces));
        assert_eq!(of("[TWO WORDS]"), Some(Prefixes::AtSpaces));
        assert_eq!(of("[CLS]"), Some(Prefixes::Anywhere { unsure_tokens: 105 }));
        assert!(joins_words(&AddedToken::from("[TWO WORDS]", true)) && !joins_words(&AddedToken::from("  ", false)));
    }

    #[test]
    fn parts_that_look_across_spaces_are_detected() {
        let json = |text| serde_json::from_str(text).unwrap();
        for (pre_tokenizer, splits) in [
            (r#"{"type": "ByteLevel", "use_regex": true}"#, Some(true)),
            (r#"{"type": "ByteLevel", "use_regex": false}"#, Some(false)),
            (r#"{"type": "Metaspace", "split": false}"#, Some(false)),
            (r#"{"type": "Split"}"#, None),
            (r#"{"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "Whitespace"}]}"#, Some(true)),
            (r#"{"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, {"type": "Split"}]}"#, None),
            ("null", None),
        ] {
            assert_eq!(splits_words(&json(pre_tokenizer)), splits, "{pre_tokenizer}");
        }
        for (normalizer, local) in [
            ("null", true),
            (r#"{"type": "Replace", "pattern": {"String": "``"}}"#, true),
            (r#"{"type": "Replace", "pattern": {"String": " "}}"#, false),
            (r#"{"type": "Replace", "pattern": {"Regex": " {2,}"}}"#, true),
            (r#"{"type": "Replace", "pattern": {"Regex": ".*"}}"#, false),
            (r#"{"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "New"}]}"#, false),
        ] {
            assert_eq!(is_local(&json(normalizer)), local, "{normalizer}");
        }
    }
}
