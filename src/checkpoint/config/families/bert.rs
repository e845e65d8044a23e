//! BERT: <https://arxiv.org/abs/1810.04805>

use super::{Architecture, Fields, Result, Shape};

pub(super) fn read(fields: &Fields) -> Result<Architecture> {
    fields.read::<Shape>()?.bert("bert")
}
