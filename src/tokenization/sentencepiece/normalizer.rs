//! Normalizes text the way a SentencePiece model expects: the steps of SentencePiece's `Normalizer::Normalize`, after
//! the changes made by the model's tokenizer class in transformers.

use super::charsmap::Charsmap;
use super::trie::Trie;
use tokenizers::NormalizedString;
use unicode_normalization_alignments::char::canonical_combining_class;

/// SentencePiece's replacement for a space.
pub(super) const SPACE: char = '\u{2581}';

/// What a tokenizer class does to a text before SentencePiece.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Preparation {
    /// ALBERT's `remove_space`: runs of white space become one space, none at the ends.
    pub(crate) remove_space: bool,
    /// ALBERT: `` and '' become ".
    pub(crate) straight_quotes: bool,
    /// ALBERT, unless `keep_accents`: compatibility decomposition without the combining characters.
    pub(crate) strip_accents: bool,
    pub(crate) lowercase: bool,
}

/// The normalizer of one model.
pub(crate) struct Normalizer {
    pub(super) preparation: Preparation,
    pub(super) charsmap: Option<Charsmap>,
    /// Symbols that are never replaced.
    pub(super) user_defined: Trie,
    pub(super) add_dummy_prefix: bool,
    pub(super) dummy_at_end: bool,
    pub(super) remove_extra_whitespaces: bool,
    pub(super) escape_whitespaces: bool,
}

impl tokenizers::Normalizer for Normalizer {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        self.preparation.apply(text);
        let mut rewriter = Rewriter::default();
        self.rewrite(text.get(), &mut rewriter);
        rewriter.apply(text);
        Ok(())
    }
}

impl Normalizer {
    fn rewrite(&self, mut rest: &str, out: &mut Rewriter) {
        if self.remove_extra_whitespaces {
            while let Some((length, " ")) = self.first_part(rest) {
                out.replace(&rest[..length], "".chars());
                rest = &rest[length..];
            }
        }
        if rest.is_empty() {
            return;
        }
        let space = if self.escape_whitespaces { SPACE } else { ' ' };
        if self.add_dummy_prefix && !self.dummy_at_end {
            out.insert(space);
        }
        let mut after_space = self.remove_extra_whitespaces;
        while let Some((length, part)) = self.first_part(rest) {
            let part = if after_space { part.trim_start_matches(' ') } else { part };
            out.replace(&rest[..length], part.chars().map(|c| if c == ' ' { space } else { c }));
            if !part.is_empty() {
                after_space = self.remove_extra_whitespaces && part.ends_with(' ');
            }
            rest = &rest[length..];
        }
        if self.remove_extra_whitespaces {
            out.trim_end(space);
        }
        if self.add_dummy_prefix && self.dummy_at_end {
            out.insert(space);
        }
    }

    /// The next part to replace, as its length in `text`, and its replacement; `None` at the end.
    fn first_part<'a>(&'a self, text: &'a str) -> Option<(usize, &'a str)> {
        let first = text.chars().next()?.len_utf8();
        if let Some((length, _)) = self.user_defined.prefixes(text.as_bytes()).last() {
            return Some((length, &text[..length]));
        }
        let replaced = self.charsmap.as_ref().and_then(|map| map.longest_prefix(text));
        Some(replaced.unwrap_or((first, &text[..first])))
    }
}

impl Preparation {
    fn apply(self, text: &mut NormalizedString) {
        if self.remove_space {
            rewrite(text, remove_space);
        }
        if self.straight_quotes {
            rewrite(text, straighten_quotes);
        }
        if self.strip_accents {
            text.nfkd();
            text.filter(|c| canonical_combining_class(c) == 0);
        }
        if self.lowercase {
            rewrite(text, lowercase);
        }
    }
}

/// Like Python's `" ".join(text.split())`.
fn remove_space(text: &str, out: &mut Rewriter) {
    // Python counts these separators as white space, Unicode does not.
    let is_space = |c: char| c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}');
    let mut after_space = true;
    for (i, c) in text.char_indices() {
        let source = &text[i..i + c.len_utf8()];
        match (is_space(c), after_space) {
            (true, true) => out.replace(source, "".chars()),
            (true, false) => out.replace(source, " ".chars()),
            (false, _) => out.replace(source, source.chars()),
        }
        after_space = is_space(c);
    }
    out.trim_end(' ');
}

fn straighten_quotes(text: &str, out: &mut Rewriter) {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let is_quote = rest.starts_with("``") || rest.starts_with("''");
        let (source, left) = rest.split_at(if is_quote { 2 } else { c.len_utf8() });
        out.replace(source, if is_quote { "\"" } else { source }.chars());
        rest = left;
    }
}

/// Like Python's `str.lower`. The only method here that handles a final Σ.
fn lowercase(text: &str, out: &mut Rewriter) {
    let lowered = text.to_lowercase();
    let mut lowered = lowered.chars();
    for (i, c) in text.char_indices() {
        out.replace(&text[i..i + c.len_utf8()], lowered.by_ref().take(c.to_lowercase().count()));
    }
}

fn rewrite(text: &mut NormalizedString, work: impl FnOnce(&str, &mut Rewriter)) {
    let mut rewriter = Rewriter::default();
    work(text.get(), &mut rewriter);
    rewriter.apply(text);
}

/// Collects a new text for [`NormalizedString::transform`], which tracks where each character came from.
#[derive(Default)]
struct Rewriter {
    /// The new characters, each with 1 if it is inserted, 0 if it replaces a character, or -n if it replaces one and n
    /// more.
    chars: Vec<(char, isize)>,
    /// Number of characters removed before the first new one.
    removed_at_start: usize,
}

impl Rewriter {
    fn replace(&mut self, source: &str, with: impl Iterator<Item = char>) {
        let mut sources = source.chars().count();
        for c in with {
            self.chars.push((c, isize::from(sources == 0)));
            sources = sources.saturating_sub(1);
        }
        self.remove(sources);
    }

    fn insert(&mut self, c: char) {
        self.chars.push((c, 1));
    }

    fn trim_end(&mut self, end: char) {
        while let Some((_, change)) = self.chars.pop_if(|(c, _)| *c == end) {
            self.remove(1usize.saturating_add_signed(-change));
        }
    }

    /// Records that `sources` characters of the text were removed.
    fn remove(&mut self, sources: usize) {
        match self.chars.last_mut() {
            Some((_, change)) => *change -= sources as isize,
            None => self.removed_at_start += sources,
        }
    }

    fn apply(self, text: &mut NormalizedString) {
        text.transform(self.chars, self.removed_at_start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::Normalizer as _;

    fn plain() -> Normalizer {
        Normalizer {
            preparation: Preparation::default(),
            charsmap: None,
            user_defined: Trie::new([("<x>", 0), ("<x>  y", 1)].into_iter()),
            add_dummy_prefix: true,
            dummy_at_end: false,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        }
    }

    fn normalized(normalizer: &Normalizer, text: &str) -> String {
        let mut string = NormalizedString::from(text);
        normalizer.normalize(&mut string).unwrap();
        string.get().to_owned()
    }

    #[test]
    fn spaces_are_collapsed_escaped_and_put_in_front() {
        assert_eq!(normalized(&plain(), "  two   words "), "▁two▁words");
        assert_eq!(normalized(&plain(), ""), "");
        assert_eq!(normalized(&plain(), "   "), "");
        assert_eq!(normalized(&plain(), "a <x>  y  b"), "▁a▁<x>▁▁y▁b");
        let kept = Normalizer { remove_extra_whitespaces: false, add_dummy_prefix: false, ..plain() };
        assert_eq!(normalized(&kept, "  two   words "), "▁▁two▁▁▁words▁");
        let suffix = Normalizer { dummy_at_end: true, escape_whitespaces: false, ..plain() };
        assert_eq!(normalized(&suffix, " two  words "), "two words ");
    }

    #[test]
    fn albert_prepares_its_texts() {
        let preparation =
            Preparation { remove_space: true, straight_quotes: true, strip_accents: true, lowercase: true };
        let albert = Normalizer { preparation, ..plain() };
        assert_eq!(normalized(&albert, "\u{1d} ``Über''  \u{85} ΟΔΟΣ ``` "), "▁\"uber\"▁οδος▁\"`");
        assert_eq!(normalized(&albert, "İI ǅ ﬁ\u{301}"), "▁ii▁dz▁fi");
    }

    /// The parts of the original that parts of the normalized text come from.
    #[test]
    fn places_in_the_text_are_kept() {
        let preparation =
            Preparation { remove_space: true, straight_quotes: true, strip_accents: true, lowercase: true };
        let mut string = NormalizedString::from("  ``É''   no\u{301}w  ");
        Normalizer { preparation, ..plain() }.normalize(&mut string).unwrap();
        assert_eq!(string.get(), "▁\"e\"▁now");
        let origin = |part: &str| {
            let start = string.get().find(part).unwrap();
            let range = tokenizers::tokenizer::normalizer::Range::Normalized(start..start + part.len());
            string.get_range_original(range).unwrap()
        };
        assert_eq!(origin("e"), "É");
        assert_eq!(origin("w"), "w");
        assert_eq!(origin("now"), "no\u{301}w");
    }
}
