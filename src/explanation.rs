//! The words that hold up a label, by occlusion: a word is worth what the label's log odds lose if the text lacks it
//! (Li et al. 2016, <https://arxiv.org/abs/1612.08220>). Says which variants of a text to try, and keeps what they
//! tell; the classifier predicts them. Pure.

use crate::tokenization::windows::TextRange;
use std::ops::Range;
use unicode_segmentation::UnicodeSegmentation;

/// A text of up to this many words is tried without each of them.
pub const EXACT_WORDS: usize = 192;
/// A longer one is first tried without each of this many spans of about equally many words.
const FIRST_SPANS: usize = 64;
/// Then as many of the strongest spans are halved, again and again until these may be single words.
const HALVED_SPANS: usize = 16;

/// A part of a text, and what its label owes to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// One word, or several in a long text.
    pub range: TextRange,
    /// By how much the label's log odds drop if the text lacks this part: positive if it holds up the label.
    pub value: f32,
}

/// Why a text has one of its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The label, or 0 for the only output of a model that predicts a value.
    pub label_id: usize,
    /// Parts that do not overlap, in the order of the text unless only the strongest were kept.
    pub spans: Vec<Span>,
}

impl Explanation {
    /// The spans, those with the largest values of either sign first.
    pub fn by_strength(&self) -> Vec<&Span> {
        let mut spans: Vec<&Span> = self.spans.iter().collect();
        spans.sort_by(|a, b| b.value.abs().total_cmp(&a.value.abs()));
        spans
    }

    /// Keeps the `count` strongest spans, strongest first.
    pub fn keep_strongest(&mut self, count: usize) {
        self.spans = self.by_strength().into_iter().take(count).cloned().collect();
    }
}

/// The words of a text, in bytes: the segments of Unicode's word boundaries (UAX #29) that are not white space. A
/// punctuation mark, an emoji or an ideograph is one of its own, as models read these too.
pub fn words(text: &str) -> impl DoubleEndedIterator<Item = Range<usize>> + '_ {
    let segments = text.split_word_bound_indices();
    segments.filter(|(_, word)| !word.trim().is_empty()).map(|(start, word)| start..start + word.len())
}

/// The text without a part of it. The white space before the part goes too if white space or the end of the text
/// follows, or else the white space behind it if it begins the text: the rest is spaced as if it had been written so.
pub fn without(text: &str, part: &Range<usize>) -> String {
    let (mut before, mut after) = (&text[..part.start], &text[part.end..]);
    if before.trim().is_empty() {
        after = after.trim_start();
    } else if after.is_empty() || after.starts_with(char::is_whitespace) {
        before = before.trim_end();
    }
    [before, after].concat()
}

/// The search for the words of one text.
///
/// It is tried without each of its words if there are at most [`EXACT_WORDS`]. A text of W more words takes
/// 64 + 32 * log2(W / 64) variants, with the logarithm rounded up: spans that matter little stay whole.
pub struct Occlusion<'a> {
    text: &'a str,
    words: Vec<Range<usize>>,
    label_ids: Vec<usize>,
    /// The log odds of each label for the whole text.
    whole: Vec<f64>,
    tried: Vec<Tried>,
    /// The spans to try next, by their words.
    next: Vec<Range<usize>>,
    /// How often spans may still be halved.
    halvings: u32,
}

/// A span, by its words, and the drop of each label's log odds without it.
struct Tried {
    words: Range<usize>,
    drops: Vec<f64>,
}

impl<'a> Occlusion<'a> {
    /// Explains `label_ids` by the `words` of `text`, whose log odds of these labels are `whole`.
    pub fn new(text: &'a str, words: Vec<Range<usize>>, label_ids: &[usize], whole: Vec<f64>) -> Occlusion<'a> {
        let count = words.len();
        let spans = if count <= EXACT_WORDS { count } else { FIRST_SPANS };
        let next: Vec<Range<usize>> = match label_ids.is_empty() {
            true => Vec::new(),
            false => (0..spans).map(|span| span * count / spans..(span + 1) * count / spans).collect(),
        };
        let longest = next.iter().map(Range::len).max().unwrap_or(1);
        let halvings = longest.next_power_of_two().ilog2();
        Occlusion { text, words, label_ids: label_ids.to_vec(), whole, tried: Vec::new(), next, halvings }
    }

    /// The labels that are explained.
    pub fn label_ids(&self) -> &[usize] {
        &self.label_ids
    }

    /// Whether nothing is to be tried after what is to be tried now.
    pub fn is_last_round(&self) -> bool {
        self.halvings == 0
    }

    /// The number of variants to try now; 0 at the end.
    pub fn round_len(&self) -> usize {
        self.next.len()
    }

    /// The text of a variant to try now.
    pub fn variant(&self, place: usize) -> String {
        without(self.text, &self.bytes(&self.next[place]))
    }

    /// Takes the log odds of each label for each variant of this round.
    pub fn take(&mut self, log_odds: impl IntoIterator<Item = Vec<f64>>) {
        for (words, log_odds) in self.next.drain(..).zip(log_odds) {
            let drops = self.whole.iter().zip(log_odds).map(|(whole, without)| whole - without).collect();
            self.tried.push(Tried { words, drops });
        }
        if self.halvings > 0 {
            self.halvings -= 1;
            self.halve_strongest();
        }
    }

    fn halve_strongest(&mut self) {
        let strength = |tried: &Tried| tried.drops.iter().fold(0.0, |most: f64, drop| most.max(drop.abs()));
        self.tried.sort_by(|a, b| strength(b).total_cmp(&strength(a)));
        let weaker = self.tried.split_off(HALVED_SPANS.min(self.tried.len()));
        let (single, several): (Vec<_>, Vec<_>) = self.tried.drain(..).partition(|tried| tried.words.len() == 1);
        self.tried.extend(single.into_iter().chain(weaker));
        let halves = several.into_iter().flat_map(|Tried { words, .. }| {
            let middle = words.start + words.len().div_ceil(2);
            [words.start..middle, middle..words.end]
        });
        self.next = halves.collect();
    }

    /// What has been found: one explanation for each label.
    pub fn explanations(mut self) -> Vec<Explanation> {
        self.tried.sort_by_key(|tried| tried.words.start);
        let mut ranges = Vec::with_capacity(self.tried.len());
        let (mut byte, mut char) = (0, 0);
        for tried in &self.tried {
            let bytes = self.bytes(&tried.words);
            let start = char + self.text[byte..bytes.start].chars().count();
            (byte, char) = (bytes.end, start + self.text[bytes.clone()].chars().count());
            ranges.push(TextRange { bytes, chars: start..char });
        }
        let spans = |label: usize| {
            let parts = ranges.iter().cloned().zip(&self.tried);
            parts.map(|(range, tried)| Span { range, value: tried.drops[label] as f32 }).collect()
        };
        let labels = self.label_ids.iter().enumerate();
        labels.map(|(label, &label_id)| Explanation { label_id, spans: spans(label) }).collect()
    }

    fn bytes(&self, words: &Range<usize>) -> Range<usize> {
        self.words[words.start].start..self.words[words.end - 1].end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(text: &str) -> Vec<&str> {
        words(text).map(|range| &text[range]).collect()
    }

    #[test]
    fn words_are_those_of_unicode_and_every_mark_is_one() {
        assert_eq!(words_of("It didn't cost $3.50!"), ["It", "didn't", "cost", "$", "3.50", "!"]);
        assert_eq!(words_of("e\u{301}te\u{301}\r\n\u{3000}nai\u{308}f"), ["e\u{301}te\u{301}", "nai\u{308}f"]);
        assert_eq!(words_of("東京は👩‍🚀🇨🇭"), ["東", "京", "は", "👩‍🚀", "🇨🇭"]);
        assert_eq!(words_of(" \r\n\t"), [""; 0]);
    }

    #[test]
    fn what_is_left_is_spaced_as_if_it_had_been_written_so() {
        for (text, without_each) in [
            ("a b  c", vec!["b  c", "a  c", "a b"]),
            ("a (b), c", vec!["(b), c", "a b), c", "a (), c", "a (b, c", "a (b) c", "a (b),"]),
            (" a\r\nb \n", vec![" b \n", " a \n"]),
            ("the $5 bill", vec!["$5 bill", "the 5 bill", "the $ bill", "the $5"]),
            ("東京", vec!["京", "東"]),
            ("one", vec![""]),
        ] {
            assert_eq!(words(text).map(|word| without(text, &word)).collect::<Vec<_>>(), without_each, "{text:?}");
        }
    }

    /// Explains a text whose log odds are the sum of what its words are worth, and counts its variants.
    fn explained(text: &str, worth: impl Fn(&str) -> f64) -> (Vec<Span>, usize) {
        let log_odds = |text: &str| vec![text.split_whitespace().map(&worth).sum::<f64>()];
        let mut search = Occlusion::new(text, words(text).collect(), &[7], log_odds(text));
        let mut variants = 0;
        while search.round_len() > 0 {
            variants += search.round_len();
            let round: Vec<_> = (0..search.round_len()).map(|place| log_odds(&search.variant(place))).collect();
            search.take(round);
        }
        let mut explanations = search.explanations();
        assert_eq!((explanations.len(), explanations[0].label_id), (1, 7));
        (explanations.remove(0).spans, variants)
    }

    fn numbers(count: usize) -> String {
        (0..count).map(|number| number.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_short_text_is_tried_without_each_word() {
        for count in [0, 1, 2, EXACT_WORDS] {
            let text = numbers(count);
            let (spans, variants) = explained(&text, |word| word.parse().unwrap());
            assert_eq!(variants, count);
            let values: Vec<f32> = spans.iter().map(|span| span.value).collect();
            assert_eq!(values, (0..count).map(|number| number as f32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn in_a_long_text_the_words_that_matter_are_found_and_variants_stay_few() {
        for count in [EXACT_WORDS + 1, 400, 512, 5000, 100_000] {
            let text = numbers(count);
            let is_told = |number: usize| number % (count / 8) == 3;
            let (spans, variants) = explained(&text, |word| f64::from(u8::from(is_told(word.parse().unwrap()))));
            let most = 64 + 32 * (count as f64 / 64.0).log2().ceil() as usize;
            assert!(variants <= most, "{count} words, {variants} variants, bound {most}");
            let told: Vec<&Span> = spans.iter().filter(|span| span.value != 0.0).collect();
            assert!(told.len() >= 8, "{count} words: {told:?}");
            for span in told {
                assert!(is_told(text[span.range.bytes.clone()].parse().unwrap()), "{count} words: {span:?}");
            }
            // All of the text, once.
            let together: Vec<&str> = spans.iter().map(|span| &text[span.range.bytes.clone()]).collect();
            assert_eq!(together.join(" "), text);
        }
    }

    #[test]
    fn the_strongest_come_first_whatever_their_sign() {
        let worth = [("a", 1.0), ("b", -4.0), ("c", 3.0), ("d", -3.0), ("e", 0.0)];
        let (spans, _) = explained("a b c d e", |word| worth.iter().find(|(of, _)| *of == word).unwrap().1);
        let mut explanation = Explanation { label_id: 7, spans };
        explanation.keep_strongest(3);
        assert_eq!(explanation.spans.iter().map(|span| span.value).collect::<Vec<_>>(), [-4.0, 3.0, -3.0]);
        explanation.keep_strongest(9);
        assert_eq!(explanation.spans.len(), 3);
    }

    #[test]
    fn ranges_count_code_points() {
        let text = "e\u{301}🇨🇭 東\r\nx";
        let (spans, _) = explained(text, |_| 1.0);
        let characters: Vec<char> = text.chars().collect();
        for (span, word) in spans.iter().zip(["e\u{301}", "🇨🇭", "東", "x"]) {
            assert_eq!(&text[span.range.bytes.clone()], word);
            assert_eq!(characters[span.range.chars.clone()].iter().collect::<String>(), word);
        }
        assert_eq!(spans.len(), 4);
    }

    #[test]
    fn without_labels_nothing_is_tried() {
        let search = Occlusion::new("a b", words("a b").collect(), &[], Vec::new());
        assert_eq!((search.round_len(), search.explanations()), (0, Vec::new()));
    }
}
