//! The start of a very long text, enough to fill the model: a 10 MB line costs what 10 KB cost.
//!
//! A BERT tokenizer works word by word, so the pieces of a text's start do not depend on its end, but for the last
//! word (a cut may fall inside it) and a special token written out in the text that the cut may halve. A prefix is
//! enough, then, when it gives as many pieces more than needed as those two can be.

/// No word gives more pieces: one of more characters is a single `[UNK]` (WordPiece's `max_input_chars_per_word`).
pub(super) const MAX_WORD_CHARS: usize = 100;

/// A text up to this many bytes for each wanted token is tokenized whole.
const BYTES_PER_TOKEN: usize = 16;

/// Makes prefixes for one tokenizer.
pub(super) struct Prefixes {
    /// Pieces that the cut may have changed.
    unsure_tokens: usize,
}

/// A growing prefix of one text.
pub(super) struct Prefix<'a> {
    rest: std::str::Chars<'a>,
    text: String,
    target_bytes: usize,
    tokens_needed: usize,
    run: Run,
}

/// A run of characters of one kind, of which more than some never change the tokens.
#[derive(Default)]
struct Run {
    kind: Option<Kind>,
    length: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// ASCII letters and digits: a run longer than a word may be is `[UNK]`, however long.
    Word,
    /// Blanks: one separates words as well as many.
    Blank,
    /// Characters that BERT's normalizer removes.
    Removed,
}

impl Prefixes {
    /// For a BERT tokenizer with these added tokens; `None` where one of them could be found inside a run of
    /// letters or blanks, or across words, so that a prefix would not be safe.
    pub(super) fn new<'a>(added_tokens: impl Iterator<Item = &'a str>) -> Option<Prefixes> {
        let mut longest = 0;
        for token in added_tokens {
            let is_safe =
                token.chars().all(|c| Kind::of(c) != Some(Kind::Blank)) && token.contains(|c| Kind::of(c).is_none());
            if !is_safe {
                return None;
            }
            longest = longest.max(token.chars().count());
        }
        Some(Prefixes { unsure_tokens: MAX_WORD_CHARS + longest })
    }

    /// The first prefix of `text` for `max_tokens` pieces, or `None` where the text is short enough to do whole.
    pub(super) fn of<'a>(&self, text: &'a str, max_tokens: usize) -> Option<Prefix<'a>> {
        let tokens_needed = max_tokens + 1 + self.unsure_tokens;
        let target_bytes = tokens_needed * BYTES_PER_TOKEN;
        if text.len() <= target_bytes {
            return None;
        }
        let mut prefix =
            Prefix { rest: text.chars(), text: String::new(), target_bytes, tokens_needed, run: Run::default() };
        prefix.fill();
        Some(prefix)
    }
}

impl Prefix<'_> {
    /// The prefix so far, endless runs shortened.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// With as many pieces as that the prefix is enough.
    pub(super) fn tokens_needed(&self) -> usize {
        self.tokens_needed
    }

    /// Takes more of the text in; `false` where it is all there.
    pub(super) fn grow(&mut self) -> bool {
        if self.rest.as_str().is_empty() {
            return false;
        }
        self.target_bytes *= 4;
        self.fill();
        true
    }

    fn fill(&mut self) {
        while self.text.len() < self.target_bytes {
            let Some(c) = self.rest.next() else { return };
            if self.run.keeps(c) {
                self.text.push(c);
            }
        }
    }
}

impl Run {
    /// Counts `c` into the run that it continues or starts; whether it is among the characters that matter.
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
        let prefixes = Prefixes::new(["[SEP]"].into_iter()).unwrap();
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
        let prefixes = Prefixes::new(std::iter::empty()).unwrap();
        let mut prefix = prefixes.of(&text, 5).unwrap();
        let mut grown = 0;
        while prefix.grow() {
            grown += 1;
        }
        assert!(grown > 1 && prefix.text() == text);
    }

    #[test]
    fn added_tokens_of_plain_letters_or_with_blanks_forbid_prefixes() {
        assert!(Prefixes::new(["plain"].into_iter()).is_none());
        assert!(Prefixes::new(["[TWO WORDS]"].into_iter()).is_none());
        assert!(Prefixes::new(["[CLS]", "<x>"].into_iter()).is_some());
    }
}
