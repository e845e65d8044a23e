//! The few fields of a SentencePiece model file needed for encoding.
//!
//! The file is one protobuf message, `ModelProto`, defined in SentencePiece's `sentencepiece_model.proto`. A generated
//! reader would need `prost` and a build step for eleven fields of four messages, and would also keep all other fields.

use anyhow::{bail, ensure, Context, Result};

/// `ModelProto`.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ModelFile {
    pub(super) pieces: Vec<Piece>,
    pub(super) trainer: TrainerSpec,
    pub(super) normalizer: NormalizerSpec,
}

/// `ModelProto.SentencePiece`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: PieceKind,
}

/// `ModelProto.SentencePiece.Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// The fields of `TrainerSpec` needed for encoding.
#[derive(Debug, PartialEq)]
pub(super) struct TrainerSpec {
    pub(super) model_type: u64,
    pub(super) treat_whitespace_as_suffix: bool,
    pub(super) byte_fallback: bool,
}

/// `NormalizerSpec`.
#[derive(Debug, PartialEq)]
pub(super) struct NormalizerSpec {
    pub(super) precompiled_charsmap: Vec<u8>,
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
    pub(super) escape_whitespaces: bool,
}

/// `TrainerSpec.model_type` of a unigram model, the default.
pub(super) const UNIGRAM: u64 = 1;

impl Default for TrainerSpec {
    fn default() -> TrainerSpec {
        TrainerSpec { model_type: UNIGRAM, treat_whitespace_as_suffix: false, byte_fallback: false }
    }
}

impl Default for NormalizerSpec {
    fn default() -> NormalizerSpec {
        NormalizerSpec {
            precompiled_charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        }
    }
}

/// Reads the file's content.
///
/// # Errors
/// If it is not such a message, or a field has the wrong type; the message names the field.
pub(super) fn parse(bytes: &[u8]) -> Result<ModelFile> {
    let mut file = ModelFile::default();
    each_field(bytes, |number, value| match number {
        1 => {
            let piece = value.message().and_then(piece);
            file.pieces.push(piece.with_context(|| format!("pieces[{}]", file.pieces.len()))?);
            Ok(())
        }
        2 => value.message().and_then(|spec| read_trainer(spec, &mut file.trainer)).context("trainer_spec"),
        3 => value.message().and_then(|spec| read_normalizer(spec, &mut file.normalizer)).context("normalizer_spec"),
        _ => Ok(()),
    })?;
    Ok(file)
}

fn piece(bytes: &[u8]) -> Result<Piece> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceKind::Normal };
    each_field(bytes, |number, value| {
        match number {
            1 => piece.text = std::str::from_utf8(value.message()?).context("piece is not UTF-8")?.to_owned(),
            2 => piece.score = value.float().context("score")?,
            3 => piece.kind = piece_kind(value.varint().context("type")?)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(piece)
}

fn piece_kind(number: u64) -> Result<PieceKind> {
    Ok(match number {
        1 => PieceKind::Normal,
        2 => PieceKind::Unknown,
        3 => PieceKind::Control,
        4 => PieceKind::UserDefined,
        5 => PieceKind::Unused,
        6 => PieceKind::Byte,
        other => bail!("{other} is not a piece type"),
    })
}

fn read_trainer(bytes: &[u8], spec: &mut TrainerSpec) -> Result<()> {
    each_field(bytes, |number, value| {
        match number {
            3 => spec.model_type = value.varint().context("model_type")?,
            24 => spec.treat_whitespace_as_suffix = value.flag().context("treat_whitespace_as_suffix")?,
            35 => spec.byte_fallback = value.flag().context("byte_fallback")?,
            _ => {}
        }
        Ok(())
    })
}

fn read_normalizer(bytes: &[u8], spec: &mut NormalizerSpec) -> Result<()> {
    each_field(bytes, |number, value| {
        match number {
            2 => spec.precompiled_charsmap = value.message().context("precompiled_charsmap")?.to_vec(),
            3 => spec.add_dummy_prefix = value.flag().context("add_dummy_prefix")?,
            4 => spec.remove_extra_whitespaces = value.flag().context("remove_extra_whitespaces")?,
            5 => spec.escape_whitespaces = value.flag().context("escape_whitespaces")?,
            _ => {}
        }
        Ok(())
    })
}

/// A field's value in the file.
enum Value<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64,
    /// A message, a string or bytes.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn message(&self) -> Result<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => bail!("it has the wrong type"),
        }
    }

    fn varint(&self) -> Result<u64> {
        match self {
            Value::Varint(number) => Ok(*number),
            _ => bail!("it has the wrong type"),
        }
    }

    fn flag(&self) -> Result<bool> {
        Ok(self.varint()? != 0)
    }

    fn float(&self) -> Result<f32> {
        match self {
            Value::Fixed32(bytes) => Ok(f32::from_le_bytes(*bytes)),
            _ => bail!("it has the wrong type"),
        }
    }
}

/// Calls `field` with the number and the value of each field of a message
/// (<https://protobuf.dev/programming-guides/encoding/>).
fn each_field<'a>(mut rest: &'a [u8], mut field: impl FnMut(u64, Value<'a>) -> Result<()>) -> Result<()> {
    while !rest.is_empty() {
        let key = take_varint(&mut rest)?;
        let value = match key & 7 {
            0 => Value::Varint(take_varint(&mut rest)?),
            1 => take(&mut rest, 8).map(|_| Value::Fixed64)?,
            2 => {
                let length = take_varint(&mut rest)?;
                Value::Bytes(take(&mut rest, length)?)
            }
            5 => Value::Fixed32(take(&mut rest, 4)?.try_into().expect("four bytes were taken")),
            other => {
                bail!("there is a field of the unknown wire type {other}: it is not a SentencePiece model, or damaged")
            }
        };
        field(key >> 3, value)?;
    }
    Ok(())
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8]> {
    ensure!(length <= rest.len() as u64, "it ends inside a field: it is not a SentencePiece model, or damaged");
    let (taken, left) = rest.split_at(length as usize);
    *rest = left;
    Ok(taken)
}

fn take_varint(rest: &mut &[u8]) -> Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    bail!("a number in it has more than ten bytes: it is not a SentencePiece model, or damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_needs_and_skips_the_rest() {
        let mut bytes = Vec::new();
        // pieces { piece: "ab" score: -1.5 type: USER_DEFINED }, then an unknown field of each wire type.
        bytes.extend(b"\x0a\x0b\x0a\x02ab\x15\x00\x00\xc0\xbf\x18\x04");
        bytes.extend(b"\x22\x01x\xa0\x06\x80\x01\xa1\x06********\xa5\x06****");
        // trainer_spec { model_type: BPE byte_fallback: true }, normalizer_spec { add_dummy_prefix: false }
        bytes.extend(b"\x12\x05\x18\x02\x98\x02\x01\x1a\x02\x18\x00");
        let file = parse(&bytes).unwrap();
        assert_eq!(file.pieces, [Piece { text: "ab".into(), score: -1.5, kind: PieceKind::UserDefined }]);
        assert_eq!((file.trainer.model_type, file.trainer.byte_fallback), (2, true));
        assert!(!file.normalizer.add_dummy_prefix && file.normalizer.remove_extra_whitespaces);
        for length in 1..bytes.len() {
            // A cut between two fields leaves a shorter message, which is valid.
            let _ = parse(&bytes[..length]);
        }
    }

    #[test]
    fn faults_are_named() {
        for (bytes, reason) in [
            (&b"\x0a\x05ab"[..], "ends inside"),
            (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "ends inside"),
            (b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", "ten bytes"),
            (b"\x0a\x03\x0a\x01\xff", "pieces[0]: piece is not UTF-8"),
            (b"\x0a\x02\x18\x09", "9 is not a piece type"),
            (b"\x0a\x02\x10\x09", "score: it has the wrong type"),
            (b"\x12\x03\x1a\x01x", "trainer_spec: model_type"),
            (b"\x1a\x02\x10\x01", "normalizer_spec: precompiled_charsmap"),
            (b"\x0b", "wire type 3"),
        ] {
            let error = format!("{:#}", parse(bytes).unwrap_err());
            assert!(error.contains(reason), "{error}");
        }
    }
}
