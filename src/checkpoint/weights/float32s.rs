//! The elements of a tensor as float32, without a copy if the file already stores them so.

use super::Shared;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// The float32 elements of a tensor in C order. Keeps the checkpoint's file mapped as long as necessary.
#[derive(Clone)]
pub struct Float32s(Elements);

#[derive(Clone)]
enum Elements {
    /// Bytes of a file that are aligned float32 numbers in this machine's byte order.
    Mapped {
        shared: Arc<Shared>,
        file: usize,
        bytes: Range<usize>,
    },
    Converted(Arc<Vec<f32>>),
}

impl Float32s {
    /// The elements of the tensor at `name`, which must exist.
    pub(super) fn of(shared: &Arc<Shared>, name: &str) -> anyhow::Result<Float32s> {
        let located = &shared.tensors[name];
        if let Some(bytes) = located.placed.contiguous_float32s() {
            if bytemuck::try_cast_slice::<u8, f32>(&shared.files[located.file][bytes.clone()]).is_ok() {
                return Ok(Float32s(Elements::Mapped { shared: shared.clone(), file: located.file, bytes }));
            }
        }
        let count = located.placed.shape().iter().product();
        let mut elements = Vec::with_capacity(count);
        shared.view(located).extend_float32s(0..count, &mut elements)?;
        // Read once, and not again soon.
        shared.files[located.file].release(located.placed.bytes());
        Ok(elements.into())
    }

    /// Tells the system that a mapped file's elements are not needed soon, so they do not occupy this process's memory;
    /// they are read from the file again when needed.
    pub fn release(&self) {
        if let Elements::Mapped { shared, file, bytes } = &self.0 {
            shared.files[*file].release(bytes.clone());
        }
    }
}

impl From<Vec<f32>> for Float32s {
    fn from(elements: Vec<f32>) -> Float32s {
        Float32s(Elements::Converted(elements.into()))
    }
}

impl Deref for Float32s {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.0 {
            Elements::Mapped { shared, file, bytes } => bytemuck::cast_slice(&shared.files[*file][bytes.clone()]),
            Elements::Converted(elements) => elements,
        }
    }
}

impl fmt::Debug for Float32s {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = if matches!(self.0, Elements::Mapped { .. }) { "mapped" } else { "converted" };
        write!(f, "{} float32s, {from}", self.len())
    }
}
