//! The best segmentation of a text by a unigram model: `unigram::Model::EncodeOptimized` of SentencePiece 0.2.3.
//!
//! The `Unigram` of the tokenizers crate is the same algorithm in float64, one word at a time. SentencePiece adds up
//! scores over the whole text in float32, so rounding decides between segmentations with nearly equal scores; it also
//! prefers user-defined symbols. Equal ids need the same arithmetic.

use super::protobuf::{Piece, PieceKind};
use super::trie::Trie;

/// How much worse an unknown character is than the worst piece: SentencePiece's `kUnkPenalty`.
const UNKNOWN_PENALTY: f32 = 10.0;

/// Sums of scores beyond this are reset to zero, so long texts do not lose precision.
const RESET_THRESHOLD: f32 = 100_000.0;

/// No segmentation ends here yet.
const UNREACHED: u32 = u32::MAX;

/// A model ready to segment.
pub(super) struct Unigram {
    trie: Trie,
    /// Indexed by piece.
    scores: Vec<Score>,
    unknown_id: u32,
    unknown_score: f32,
}

#[derive(Clone, Copy)]
enum Score {
    Normal(f32),
    UserDefined,
}

/// A part of a text: its end, and its piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) end: usize,
    pub(super) id: u32,
}

/// The best segmentation that ends at some position.
#[derive(Clone, Copy)]
struct Best {
    score: f32,
    /// Where its last piece starts.
    start: u32,
    id: u32,
}

impl Unigram {
    /// Builds the model from pieces with finite scores; `unknown_id` is the piece of the kind `Unknown`.
    pub(super) fn new(pieces: &[Piece], unknown_id: u32) -> Unigram {
        let normal = pieces.iter().filter(|piece| piece.kind == PieceKind::Normal);
        let min_score = normal.fold(f32::MAX, |min, piece| min.min(piece.score));
        let can_be_found = |kind| matches!(kind, PieceKind::Normal | PieceKind::UserDefined);
        let found = pieces.iter().zip(0..).filter(|(piece, _)| can_be_found(piece.kind));
        let score = |piece: &Piece| match piece.kind {
            PieceKind::UserDefined => Score::UserDefined,
            _ => Score::Normal(piece.score),
        };
        Unigram {
            trie: Trie::new(found.map(|(piece, id)| (piece.text.as_str(), id))),
            scores: pieces.iter().map(score).collect(),
            unknown_id,
            unknown_score: min_score - UNKNOWN_PENALTY,
        }
    }

    /// The segments of a text of at most 4 GB, in order.
    pub(super) fn segment(&self, text: &str) -> Vec<Segment> {
        let mut best = vec![Best { score: 0.0, start: UNREACHED, id: 0 }; text.len() + 1];
        let mut reached = 0;
        for (start, c) in text.char_indices() {
            if best[start].score.abs() > RESET_THRESHOLD {
                let score = best[start].score;
                best[start..=reached].iter_mut().for_each(|best| best.score -= score);
            }
            let score_here = best[start].score;
            let mut has_one_character = false;
            for (length, id) in self.trie.prefixes(&text.as_bytes()[start..]) {
                let score = match self.scores[id as usize] {
                    // A bonus, so these are always chosen.
                    Score::UserDefined => (0.1 * (length - 1) as f64) as f32,
                    Score::Normal(score) => score,
                };
                best[start + length].improve(score + score_here, start, id);
                reached = reached.max(start + length);
                has_one_character |= length == c.len_utf8();
            }
            if !has_one_character {
                let end = start + c.len_utf8();
                best[end].improve(self.unknown_score + score_here, start, self.unknown_id);
                reached = reached.max(end);
            }
        }
        let mut segments = Vec::new();
        let mut end = text.len();
        while end > 0 {
            let Best { start, id, .. } = best[end];
            segments.push(Segment { end, id });
            end = start as usize;
        }
        segments.reverse();
        segments
    }
}

impl Best {
    /// Keeps the better segmentation, and the first of equal ones.
    fn improve(&mut self, score: f32, start: usize, id: u32) {
        if self.start == UNREACHED || score > self.score {
            *self = Best { score, start: start as u32, id };
        }
    }
}
