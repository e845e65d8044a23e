//! Explanations for display: which words are marked, and how strongly. Values are compared within one text and label, as
//! models differ in how far their log odds go.

use crate::explanation::{words, Explanation, Span};
use std::borrow::Cow;

/// The shares of the strongest value at which the levels begin. Weaker words are not marked.
const LEVEL_STARTS: [f32; 4] = [0.15, 0.3, 0.5, 0.75];

/// Values are compared with at least this: if no word changes the odds by a fifth, none is strong.
const LEAST_STRONGEST: f32 = 0.2;

/// A word to mark.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Mark<'a> {
    pub(super) span: &'a Span,
    /// From 1 to 4.
    pub(super) level: usize,
}

impl Mark<'_> {
    /// Whether the word holds up the label, rather than speaking against it.
    pub(super) fn supports(&self) -> bool {
        self.span.value > 0.0
    }
}

/// The words to mark, strongest first.
pub(super) fn marks(explanation: &Explanation) -> Vec<Mark<'_>> {
    let spans = explanation.by_strength();
    let strongest = spans.first().map_or(0.0, |span| span.value.abs()).max(LEAST_STRONGEST);
    let level = |value: f32| LEVEL_STARTS.iter().filter(|&&start| value.abs() >= start * strongest).count();
    let marks = spans.into_iter().map(|span| Mark { span, level: level(span.value) });
    marks.filter(|mark| mark.level > 0).collect()
}

/// The whole text in pieces, each with its mark if it has one.
pub(super) fn pieces<'t, 'e>(text: &'t str, marks: &[Mark<'e>]) -> Vec<(&'t str, Option<Mark<'e>>)> {
    let mut marks = marks.to_vec();
    marks.sort_by_key(|mark| mark.span.range.bytes.start);
    let mut pieces = Vec::with_capacity(2 * marks.len() + 1);
    let mut end = 0;
    for mark in marks {
        let bytes = mark.span.range.bytes.clone();
        pieces.push((&text[end..bytes.start], None));
        end = bytes.end;
        pieces.push((&text[bytes], Some(mark)));
    }
    pieces.push((&text[end..], None));
    pieces.retain(|(piece, _)| !piece.is_empty());
    pieces
}

/// What a span is called in a list: its word, or the first and the last of its words.
pub(super) fn name<'t>(text: &'t str, span: &Span) -> Cow<'t, str> {
    let span = &text[span.range.bytes.clone()];
    let mut words = words(span);
    match (words.next(), words.next_back()) {
        (Some(first), Some(last)) => Cow::Owned(format!("{}…{}", &span[first], &span[last])),
        _ => Cow::Borrowed(span),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::explanation;

    #[test]
    fn words_are_marked_by_their_share_of_the_strongest() {
        let text = "a b c d e f";
        let explanation = explanation(text, 0, &[1.0, -4.0, 0.5, 2.0, 0.0, -1.2]);
        let marks = marks(&explanation);
        let shown: Vec<_> =
            marks.iter().map(|mark| (name(text, mark.span).into_owned(), mark.level, mark.supports())).collect();
        let expected = [("b", 4, false), ("d", 3, true), ("f", 2, false), ("a", 1, true)];
        assert_eq!(shown, expected.map(|(name, level, supports)| (name.to_owned(), level, supports)));
        let pieces = pieces(text, &marks);
        assert_eq!(pieces.iter().map(|(piece, _)| *piece).collect::<String>(), text);
        assert_eq!(pieces.iter().filter(|(_, mark)| mark.is_some()).count(), 4);
    }

    #[test]
    fn if_no_word_matters_none_is_marked() {
        assert!(marks(&explanation("a b", 0, &[1e-6, -0.02])).is_empty());
        assert_eq!(marks(&explanation("a b", 0, &[0.0, -0.1]))[0].level, 3);
    }

    #[test]
    fn spans_are_named_by_their_ends() {
        let text = "one two, three";
        let mut span = explanation(text, 0, &[1.0; 4]).spans.remove(0);
        assert_eq!(name(text, &span), "one");
        span.range.bytes = 0..14;
        assert_eq!(name(text, &span), "one…three");
    }
}
