//! A text longer than the model as overlapping windows, those of transformers' fast tokenizers with
//! `return_overflowing_tokens=True, truncation="only_first", stride=N`: each window but the first starts with the last N
//! tokens of the one before it, and the windows end with the first that reaches the end of the text.
//!
//! The text is tokenized piece by piece, so memory does not grow with it, and no part of it is tokenized twice but the
//! word before each cut.

use super::long_text::is_ideograph;
use super::pipeline::Pipeline;
use super::{failure, Encoding, Tokenization};
use anyhow::{bail, ensure, Context, Result};
use std::collections::VecDeque;
use std::ops::Range;
use tokenizers::utils::truncation::TruncationDirection;
use tokenizers::Token;

/// A text of at most this many bytes is tokenized at once. The tokenizers crate takes some 150 bytes for each token.
const PIECE_BYTES: usize = 128 << 10;

/// A text that cannot be cut may have this many bytes, and so may a stretch of a text without a place for a cut.
pub const MAX_UNCUT_BYTES: usize = 2 << 20;

/// The longest word before a cut; it is tokenized again at the start of the next piece.
const CONTEXT_BYTES: usize = 64;

/// A token's id, and its place in the text in bytes.
type PlacedToken = (u32, Range<usize>);

/// What stands around the tokens of a text: the special tokens, and the second text of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    before: Vec<u32>,
    after: Vec<u32>,
    /// The token types: of `before`, of each token of the text, and of `after`. `None` if all are 0.
    types: Option<(Vec<u32>, u32, Vec<u32>)>,
}

/// A part of a text, from its first token to its last, without white space at its ends: some tokenizers count a space to
/// the word behind it, and some do not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextRange {
    /// In bytes of UTF-8.
    pub bytes: Range<usize>,
    /// In Unicode code points, as Python counts them.
    pub chars: Range<usize>,
}

/// One window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextWindow {
    /// The tokens of the text, none added.
    pub token_ids: Vec<u32>,
    /// Where they stand in the text.
    pub range: TextRange,
    /// Whether it is the last of its text.
    pub is_last: bool,
}

/// The windows of one text, in its order.
pub struct Windows<'a> {
    pieces: Pieces<'a>,
    room: usize,
    stride: usize,
    direction: TruncationDirection,
    /// The tokens from the start of the next window on, as far as they are known.
    tokens: VecDeque<PlacedToken>,
    /// A place in the text, in bytes and in code points.
    counted: (usize, usize),
    is_started: bool,
    is_done: bool,
}

impl Frame {
    /// Tokens around the text.
    pub fn len(&self) -> usize {
        self.before.len() + self.after.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the model reads.
    pub fn encode(&self, token_ids: &[u32]) -> Encoding {
        let around = |before: &[u32], middle: &[u32], after: &[u32]| [before, middle, after].concat();
        let types = self.types.as_ref();
        Encoding {
            input_ids: around(&self.before, token_ids, &self.after),
            token_type_ids: types
                .map_or_else(Vec::new, |(before, text, after)| around(before, &vec![*text; token_ids.len()], after)),
            truncated: false,
        }
    }
}

impl Tokenization {
    /// What stands around a text alone, or around the first text of a pair, whose second is `text_pair`.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn frame_of(&self, text_pair: Option<&str>) -> Result<Frame> {
        let pair = text_pair.filter(|text| !text.is_empty()).map(|text| self.tokenize(text)).transpose()?;
        let pair_length = pair.as_ref().map_or(0, tokenizers::Encoding::len);
        let text = tokenizers::Encoding::from_tokens(vec![Token::new(0, "x".to_owned(), (0, 1))], 0);
        let framed = self.pipeline.frame_encodings(text, pair).map_err(failure)?;
        let at = framed.get_special_tokens_mask().iter().position(|&special| special == 0);
        let at = at.context("the tokenizer leaves the text out between its special tokens")?;
        let (ids, types) = (framed.get_ids(), framed.get_type_ids());
        debug_assert_eq!(framed.get_special_tokens_mask().iter().filter(|&&it| it == 0).count(), 1 + pair_length);
        for id in ids {
            self.check_id(*id)?;
        }
        let has_types = !self.without_token_types && types.iter().any(|&id| id != 0);
        Ok(Frame {
            before: ids[..at].to_vec(),
            after: ids[at + 1..].to_vec(),
            types: has_types.then(|| (types[..at].to_vec(), types[at], types[at + 1..].to_vec())),
        })
    }

    /// How many tokens of a text fit into each of `frames`.
    ///
    /// # Errors
    /// If there is no room, or `stride` leaves no way forward.
    pub fn window_room(&self, frames: &[Frame], stride: usize) -> Result<usize> {
        let frame = frames.iter().map(Frame::len).max().unwrap_or(0);
        let room = self.max_length.saturating_sub(frame);
        ensure!(
            room > stride,
            "windows of {} tokens, {frame} of which are not the text's, cannot overlap by {stride}: the overlap must be \
             smaller than the {room} that are left",
            self.max_length
        );
        Ok(room)
    }

    /// The windows of `text`, each of at most `room` tokens and with `stride` of the one before it.
    pub fn windows<'a>(&'a self, text: &'a str, room: usize, stride: usize) -> Windows<'a> {
        self.windows_of_pieces(text, room, stride, PIECE_BYTES)
    }

    fn windows_of_pieces<'a>(&'a self, text: &'a str, room: usize, stride: usize, piece_bytes: usize) -> Windows<'a> {
        assert!(stride < room, "the overlap leaves a way forward");
        Windows {
            pieces: Pieces { tokenization: self, text, piece_bytes, context: 0..0, is_done: false },
            room,
            stride,
            direction: self.truncation_side,
            tokens: VecDeque::new(),
            counted: (0, 0),
            is_started: false,
            is_done: false,
        }
    }

    /// Why `text` cannot be cut into windows, as a clause about "it"; `None` if it can.
    pub fn refuses_windows(&self, text: &str) -> Option<String> {
        let mut start = 0;
        while text.len() - start > MAX_UNCUT_BYTES {
            match self.cut_after(text, start + 1, start + MAX_UNCUT_BYTES) {
                Some(cut) => start = cut,
                None => {
                    return Some(format!(
                    "it has {} bytes from byte {start} on without a place at which this tokenizer's input could be cut (a \
                         space between two words{}), and at most {MAX_UNCUT_BYTES} are tokenized at once",
                    text.len() - start,
                    if self.cuts_between_ideographs { ", or between two ideographs" } else { "" }
                ))
                }
            }
        }
        None
    }

    /// A place from `least` to `most` where the tokens of the text's two sides do not depend on each other.
    fn cut_after(&self, text: &str, least: usize, most: usize) -> Option<usize> {
        let at_space = self.cuts_at_spaces.then(|| self.cut_at_space(text, least, most)).flatten();
        let between = || self.cuts_between_ideographs.then(|| cut_between_ideographs(text, least, most)).flatten();
        at_space.or_else(between)
    }

    /// The last one before a space between two ASCII letters or digits, with a short word on its left.
    fn cut_at_space(&self, text: &str, least: usize, most: usize) -> Option<usize> {
        let bytes = text.as_bytes();
        let is_word = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
        let most = most.min(bytes.len());
        let mut spaces = memchr::memrchr_iter(b' ', bytes.get(least..most)?).map(|at| at + least);
        spaces.find(|&at| is_word(at - 1) && is_word(at + 1) && context_of(bytes, at).len() <= CONTEXT_BYTES)
    }

    pub(super) fn check_id(&self, id: u32) -> Result<()> {
        if id as usize >= self.vocab_size {
            bail!(
                "the tokenizer returned the id {id}, but config.json's vocab_size is {}: the files do not belong together",
                self.vocab_size
            );
        }
        Ok(())
    }
}

/// Whether an added token could be found across a cut, or change what is found beyond it.
pub(super) fn cuts_at_spaces(pipeline: &Pipeline) -> bool {
    let joins = |content: &str| content.trim().contains(char::is_whitespace);
    super::long_text::Prefixes::new(pipeline).is_some()
        && !pipeline.added_tokens().iter().any(|token| joins(&token.content))
}

/// The last place between two ideographs.
fn cut_between_ideographs(text: &str, least: usize, most: usize) -> Option<usize> {
    let [first, last] = [least, most.min(text.len())].map(|at| (at..=text.len()).find(|&at| text.is_char_boundary(at)));
    let (first, part) = (first?, text.get(first?..last?)?);
    let mut following = None;
    for (place, c) in part.char_indices().rev() {
        let ideograph = is_ideograph(c).then_some(place);
        if let (Some(_), Some(cut)) = (ideograph, following) {
            return Some(first + cut);
        }
        following = ideograph;
    }
    None
}

/// What the next piece starts with after a cut at `end`, to have the same on its left as in the whole text: the word before
/// a space, and nothing before an ideograph.
fn context_at(text: &str, end: usize) -> Range<usize> {
    match text[end..].starts_with(is_ideograph) {
        true => end..end,
        false => context_of(text.as_bytes(), end),
    }
}

/// The word that ends at `end`: from the space before it.
fn context_of(bytes: &[u8], end: usize) -> Range<usize> {
    let least = end.saturating_sub(CONTEXT_BYTES + 1);
    match memchr::memrchr(b' ', &bytes[least..end]) {
        Some(space) => least + space + 1..end,
        None => least..end,
    }
}

impl Windows<'_> {
    /// Tokenizes as much as the next window needs: worth doing in parallel for many texts.
    ///
    /// # Errors
    /// If the tokenizer fails, or the text cannot be cut.
    pub fn prepare(&mut self) -> Result<()> {
        // The last window is known by the end of the text. From the left, the first window's length follows from it.
        let needed = match self.direction {
            TruncationDirection::Right => self.room + 1,
            TruncationDirection::Left => usize::MAX,
        };
        while self.tokens.len() < needed {
            let Some(piece) = self.pieces.next_piece()? else { break };
            self.tokens.extend(piece);
        }
        Ok(())
    }

    fn next_window(&mut self) -> Result<TextWindow> {
        self.prepare()?;
        let step = self.room - self.stride;
        let length = match (self.direction, self.is_started) {
            // Windows are full from the end of the text on; what is left is the first.
            (TruncationDirection::Left, false) => {
                self.tokens.len() - self.tokens.len().saturating_sub(self.room).div_ceil(step) * step
            }
            _ => self.room.min(self.tokens.len()),
        };
        self.is_started = true;
        let is_last = length == self.tokens.len();
        let window = self.tokens.iter().take(length);
        let (token_ids, ranges): (Vec<u32>, Vec<Range<usize>>) = window.cloned().unzip();
        let range = self.range(&ranges);
        self.is_done = is_last;
        self.tokens.drain(..(length + step).saturating_sub(self.room));
        Ok(TextWindow { token_ids, range, is_last })
    }

    /// The part of the text from the first of the tokens to the last. Each window starts at or behind the one before it,
    /// so its code points are counted from there.
    fn range(&mut self, tokens: &[Range<usize>]) -> TextRange {
        let (byte, char) = self.counted;
        let start = tokens.first().map_or(byte, |first| first.start).max(byte);
        let end = tokens.iter().map(|token| token.end).max().unwrap_or(start).max(start);
        let text = self.pieces.text;
        // A token of byte-level BPE may be a part of a character.
        let start = (0..=start).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let end = (end..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
        let start = end - text[start..end].trim_start().len();
        let end = start + text[start..end].trim_end().len();
        let count = |bytes: Range<usize>| text[bytes].chars().count();
        let first = char + count(byte..start);
        let last = first + count(start..end);
        self.counted = (start, first);
        TextRange { bytes: start..end, chars: first..last }
    }
}

impl Iterator for Windows<'_> {
    type Item = Result<TextWindow>;

    fn next(&mut self) -> Option<Result<TextWindow>> {
        if self.is_done {
            return None;
        }
        let window = self.next_window();
        self.is_done |= window.is_err();
        Some(window)
    }
}

/// The tokens of a text, piece by piece.
struct Pieces<'a> {
    tokenization: &'a Tokenization,
    text: &'a str,
    piece_bytes: usize,
    /// The last word of the piece before, with which the next starts: there is then the same before its first space as in
    /// the whole text.
    context: Range<usize>,
    is_done: bool,
}

impl Pieces<'_> {
    /// Ids and places of the next tokens; `None` at the end.
    fn next_piece(&mut self) -> Result<Option<Vec<PlacedToken>>> {
        if self.is_done {
            return Ok(None);
        }
        let (start, from) = (self.context.start, self.context.end);
        let cut = |most: usize| match self.text.len() - from > most {
            true => self.tokenization.cut_after(self.text, from + 1, from + most),
            false => Some(self.text.len()),
        };
        let end = cut(self.piece_bytes).or_else(|| cut(MAX_UNCUT_BYTES));
        let Some(end) = end else {
            bail!("{}", self.tokenization.refuses_windows(&self.text[from..]).unwrap_or_default())
        };
        let pipeline = &self.tokenization.pipeline;
        let known = match from - start {
            0 => 0,
            _ => self.tokenization.tokenize(&self.text[start..from])?.len(),
        };
        let encoding = pipeline.tokenize_with_places(&self.text[start..end]).map_err(failure)?;
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets()).skip(known);
        let tokens: Vec<_> = tokens.map(|(&id, &(first, last))| (id, start + first..start + last)).collect();
        for (id, _) in &tokens {
            self.tokenization.check_id(*id)?;
        }
        self.is_done = end == self.text.len();
        self.context = context_at(self.text, end);
        Ok(Some(tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::files::CheckpointFiles;
    use crate::fuzzing::random::Random;
    use crate::tokenization::ModelInputs;
    use std::path::PathBuf;

    fn tokenizations() -> Vec<(PathBuf, Tokenization)> {
        let parent = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers");
        let folders = std::fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().path());
        let folders = folders.filter(|folder| folder.join("config.json").is_file());
        let load = |folder: PathBuf| {
            let config: serde_json::Value =
                serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
            let model_type = config["model_type"].as_str().unwrap();
            let inputs = ModelInputs { model_type, vocab_size: 1 << 20, max_length: 64 };
            let tokenization = Tokenization::load(&CheckpointFiles::Folder(folder.clone()), &inputs, None).unwrap();
            (folder, tokenization)
        };
        folders.map(load).collect()
    }

    const WORDS: [&str; 16] = [
        "The", "ferry", "new_word", "é", "e\u{301}", "東京", "don't", "<mask>", "[SEP]", "1,200", "  ", "\u{3000}",
        "x_y", "--", "station", "\n",
    ];

    /// Small pieces must give the tokens and the places of the whole text, for every kind of tokenizer.
    #[test]
    fn pieces_give_what_the_whole_text_gives() {
        let mut random = Random::new(11);
        for (folder, tokenization) in tokenizations() {
            let mut pieces = 0;
            for _ in 0..60 {
                let words: Vec<&str> = (0..200).map(|_| WORDS[random.below(WORDS.len())]).collect();
                let text = words.join(" ");
                let of = |piece_bytes| {
                    let windows = tokenization.windows_of_pieces(&text, 30, 7, piece_bytes);
                    windows.collect::<Result<Vec<_>>>().unwrap()
                };
                assert_eq!(of(100), of(usize::MAX / 2), "{}: {text:?}", folder.display());
                pieces += usize::from(tokenization.cut_after(&text, 1, 400).is_some());
            }
            let may_cut = !["deberta-v2-spaces", "deberta-v2-suffix"].iter().any(|name| folder.ends_with(name));
            assert_eq!(pieces > 0, may_cut, "{}", folder.display());
        }
    }

    /// Texts without spaces, as Chinese and Japanese ones are: a tokenizer that takes each ideograph for a word can take
    /// them in pieces too.
    #[test]
    fn texts_without_spaces_are_cut_between_ideographs() {
        const PARTS: [&str; 12] =
            ["漢", "東京", "港区", "㐀", "、", "。", "カタカナ", "é", "e\u{301}", "x", "が", "\u{20000}"];
        let mut random = Random::new(12);
        for (folder, tokenization) in tokenizations() {
            let mut pieces = 0;
            for _ in 0..20 {
                let text: String = (0..400).map(|_| PARTS[random.below(PARTS.len())]).collect();
                let of = |piece_bytes| {
                    let windows = tokenization.windows_of_pieces(&text, 30, 7, piece_bytes);
                    windows.collect::<Result<Vec<_>>>().unwrap()
                };
                assert_eq!(of(100), of(usize::MAX / 2), "{}: {text:?}", folder.display());
                pieces += usize::from(tokenization.cut_after(&text, 1, 400).is_some());
            }
            // That of "distilbert-left" does not.
            let is_bert = ["bert", "electra-cased", "mpnet"].iter().any(|name| folder.ends_with(name));
            assert_eq!(pieces > 0, is_bert, "{}", folder.display());
            let long = "漢字".repeat(MAX_UNCUT_BYTES / 4);
            assert_eq!(tokenization.refuses_windows(&long).is_none(), is_bert);
        }
    }

    #[test]
    fn memory_holds_a_piece_and_no_more() {
        for (folder, tokenization) in tokenizations().into_iter().filter(|(_, it)| it.cuts_at_spaces) {
            let text = "The ferry leaves the harbour at noon ".repeat(2000);
            let mut windows = tokenization.windows_of_pieces(&text, 62, 10, 1000);
            let mut most = 0;
            while let Some(window) = windows.next() {
                window.unwrap();
                most = most.max(windows.tokens.len());
            }
            // From the left, the length of the first window is known by the end only.
            assert!(most < 1200 || folder.ends_with("distilbert-left"), "{}: {most}", folder.display());
        }
    }
}
