//! The character map of a SentencePiece model: the character sequences that the normalizer replaces, with their
//! replacements.
//!
//! The format is that of SentencePiece's `Normalizer::DecodePrecompiledCharsMap`: the length of a trie in bytes (u32),
//! the trie, and the replacements, each terminated by NUL. The trie is a double array of darts-clone with 32-bit units.
//! The tokenizers crate's reader (`Precompiled`) is not used: it looks up whole grapheme clusters, unlike
//! SentencePiece, which matters for combining characters, and it panics on damaged maps.

use anyhow::{ensure, Context, Result};

/// A map whose values have all been checked.
pub(crate) struct Charsmap {
    units: Vec<u32>,
    replacements: String,
}

/// darts-clone's `DoubleArrayUnit::has_leaf`.
const HAS_LEAF: u32 = 1 << 8;
/// Set in a unit that holds a value rather than a label.
const IS_LEAF: u32 = 1 << 31;

impl Charsmap {
    /// Parses `normalizer_spec.precompiled_charsmap`.
    ///
    /// # Errors
    /// If a length or a value points outside the map, or a replacement is not UTF-8.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Charsmap> {
        let (length, rest) = bytes.split_first_chunk().context("it is shorter than its header")?;
        let length = u32::from_le_bytes(*length) as usize;
        ensure!(length < rest.len() && length.is_multiple_of(4), "its trie claims {length} of {} bytes", rest.len());
        let (trie, replacements) = rest.split_at(length);
        let units = trie.chunks_exact(4).map(|unit| u32::from_le_bytes(unit.try_into().expect("four bytes"))).collect();
        let replacements = std::str::from_utf8(replacements).context("a replacement is not UTF-8")?.to_owned();
        let map = Charsmap { units, replacements };
        for (at, unit) in map.units.iter().enumerate() {
            // darts-clone stores the children of a node in one block of 256 units.
            ensure!(
                unit & IS_LEAF != 0 || (at ^ offset(*unit)) | 0xff < map.units.len(),
                "a node of its trie points outside"
            );
            ensure!(
                unit & IS_LEAF == 0 || map.replacement(unit & !IS_LEAF).is_some(),
                "a value in its trie does not point to a replacement"
            );
        }
        Ok(map)
    }

    /// The longest sequence in the map that `text` starts with: its length in bytes and its replacement.
    pub(super) fn longest_prefix(&self, text: &str) -> Option<(usize, &str)> {
        let mut longest = None;
        let mut unit = *self.units.first()?;
        let mut at = offset(unit);
        for (i, &byte) in text.as_bytes().iter().enumerate() {
            at ^= usize::from(byte);
            unit = match self.units.get(at) {
                Some(&unit) if unit & (IS_LEAF | 0xff) == u32::from(byte) => unit,
                _ => break,
            };
            at ^= offset(unit);
            if unit & HAS_LEAF != 0 {
                longest = self.units.get(at).map(|leaf| (i + 1, leaf & !IS_LEAF));
            }
        }
        let (length, value) = longest?;
        // A damaged map may have sequences that end inside a character.
        text.is_char_boundary(length).then(|| Some((length, self.replacement(value)?))).flatten()
    }

    /// Whether the map could replace a sequence with an ASCII letter or digit followed by a space.
    pub(super) fn may_join_words(&self) -> bool {
        self.units.iter().enumerate().any(|(at, &unit)| {
            let is_word_byte = unit & IS_LEAF == 0 && (unit as u8).is_ascii_alphanumeric();
            let space = self.units.get(at ^ offset(unit) ^ usize::from(b' '));
            is_word_byte && space.is_some_and(|space| space & (IS_LEAF | 0xff) == u32::from(b' '))
        })
    }

    fn replacement(&self, value: u32) -> Option<&str> {
        let rest = self.replacements.get(value as usize..)?;
        Some(&rest[..rest.find('\0')?])
    }
}

/// darts-clone's `DoubleArrayUnit::offset`: from a node to its children.
fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_values_outside_the_map_are_errors() {
        let map = |length: u32, units: &[u32], replacements: &[u8]| {
            let units: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            Charsmap::parse(&[&length.to_le_bytes(), &units[..], replacements].concat()).map(drop)
        };
        let with = |unit| [[0; 255].as_slice(), &[unit]].concat();
        map(1024, &with(0), b"x\0").unwrap();
        for (length, units, replacements, reason) in [
            (2048, with(0), &b"x\0"[..], "claims 2048 of 1026"),
            (3, with(0), b"x\0", "claims 3"),
            (u32::MAX, with(0), b"x\0", "claims 4294967295"),
            (1024, with(IS_LEAF | 5), b"x\0", "does not point to a replacement"),
            (1024, with(IS_LEAF), b"x", "does not point to a replacement"),
            (1024, with(1 << 18), b"x\0", "points outside"),
            (1024, with(0), b"\xff\0", "UTF-8"),
        ] {
            let error = format!("{:#}", map(length, &units, replacements).unwrap_err());
            assert!(error.contains(reason), "{error}");
        }
        assert!(Charsmap::parse(b"abc").is_err());
    }
}
