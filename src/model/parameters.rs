//! A checkpoint's parameters, as the parts of the model need them.

use super::backend::Backend;
use crate::checkpoint::config::Part;
use crate::checkpoint::weights::{Float32s, Weights};
use crate::kernels::Precision;
use candle_core::{Error, Result, Shape, Tensor};
use safetensors::Dtype;
use std::fmt::Display;
use std::ops::{Deref, Range};

/// The parameters under a name prefix: candle's tensors on the device, or, for the kernels, elements in the file.
#[derive(Clone)]
pub(super) struct Parameters {
    weights: Weights,
    /// Empty, or with a dot at its end.
    prefix: String,
    backend: Backend,
}

/// Elements of a parameter for the kernels: all, or those of one of several layers stored in it.
#[derive(Clone)]
pub(super) struct Elements {
    all: Float32s,
    range: Range<usize>,
}

impl Elements {
    /// See [`Float32s::release`].
    pub(super) fn release(&self) {
        self.all.release();
    }
}

impl From<Float32s> for Elements {
    fn from(all: Float32s) -> Elements {
        Elements { range: 0..all.len(), all }
    }
}

impl From<Vec<f32>> for Elements {
    fn from(elements: Vec<f32>) -> Elements {
        Float32s::from(elements).into()
    }
}

impl Deref for Elements {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.all[self.range.clone()]
    }
}

impl Parameters {
    pub(super) fn new(weights: &Weights, backend: &Backend) -> Parameters {
        Parameters { weights: weights.clone(), prefix: String::new(), backend: backend.clone() }
    }

    /// The parameters of a part.
    pub(super) fn pp(&self, part: impl Display) -> Parameters {
        Parameters { prefix: format!("{}{}.", self.prefix, part), ..self.clone() }
    }

    /// The parameters of the encoder, which have no prefix if the checkpoint was saved from a bare encoder.
    pub(super) fn encoder(&self, prefix: &str, words: &str) -> Parameters {
        match self.weights.contains(&format!("{words}.weight")) {
            true => self.clone(),
            false => self.pp(prefix),
        }
    }

    /// The backend that computes with them.
    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The same parameters for a part with few but decisive products: the kernels compute them in float32.
    pub(super) fn in_f32(&self) -> Parameters {
        let backend = match self.backend {
            Backend::Kernels { level, .. } => Backend::Kernels { level, precision: Precision::F32 },
            Backend::Candle { .. } => self.backend.clone(),
        };
        Parameters { backend, ..self.clone() }
    }

    /// A parameter on the device.
    pub(super) fn tensor(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        let (dtype, device) = (self.backend.dtype(), self.backend.device());
        self.weights.tensor(shape.into().dims(), &self.full_name(name), dtype, device).map_err(message)
    }

    /// The elements of a parameter, for the kernels.
    pub(super) fn float32s(&self, shape: &[usize], name: &str) -> Result<Float32s> {
        self.weights.float32s(shape, &self.full_name(name)).map_err(message)
    }

    /// The tensor `name` of a dense layer, with the shape `shape`, on the device.
    pub(super) fn part_tensor(&self, part: Part, shape: &[usize], name: &str) -> Result<Tensor> {
        let tensor = self.tensor(stored_shape(part, shape), name)?;
        match part.of {
            1 => Ok(tensor),
            _ => tensor.narrow(0, part.index * shape[0], shape[0])?.contiguous(),
        }
    }

    /// The elements of the tensor `name` of a dense layer, with the shape `shape`, for the kernels.
    pub(super) fn part_elements(&self, part: Part, shape: &[usize], name: &str) -> Result<Elements> {
        let all = stored_shape(part, shape);
        if part.of == 1 {
            return Ok(self.float32s(&all, name)?.into());
        }
        let (stored_in, full_name) = self.stored(all.clone(), name)?;
        let stored = stored_in.stored(&full_name).expect("the tensor's shape was checked");
        let count: usize = shape.iter().product();
        let range = part.index * count..(part.index + 1) * count;
        if stored.dtype == Dtype::F32 && stored.strides.is_none() {
            return Ok(Elements { all: self.float32s(&all, name)?, range });
        }
        let mut elements = Vec::with_capacity(count);
        stored.extend_float32s(range, &mut elements).map_err(message)?;
        Ok(elements.into())
    }

    /// Where a parameter is stored: the checkpoint's tensors, and its name there.
    pub(super) fn stored(&self, shape: impl Into<Shape>, name: &str) -> Result<(Weights, String)> {
        let (shape, name) = (shape.into(), self.full_name(name));
        self.weights.check_shape(shape.dims(), &name).map_err(message)?;
        Ok((self.weights.clone(), name))
    }

    /// Whether a parameter's elements are contiguous in the file.
    pub(super) fn is_contiguous(&self, name: &str) -> bool {
        self.weights.stored(&self.full_name(name)).is_some_and(|stored| stored.strides.is_none())
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// The shape of the stored tensor that contains a dense layer's tensor of the shape `shape`.
fn stored_shape(part: Part, shape: &[usize]) -> Vec<usize> {
    let mut all = shape.to_vec();
    all[0] *= part.of;
    all
}

/// Converts to candle's error type, for use in candle's modules; the whole chain of causes becomes the message.
fn message(error: anyhow::Error) -> Error {
    Error::Msg(format!("{error:#}"))
}
