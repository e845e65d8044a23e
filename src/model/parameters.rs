//! A checkpoint's parameters, as the parts of the model take them.

use super::backend::Backend;
use crate::checkpoint::weights::{Float32s, Weights};
use crate::kernels::Precision;
use candle_core::{Error, Result, Shape, Tensor};
use candle_nn::VarBuilder;

/// The parameters under a prefix of their names: candle's tensors on the device, or the elements where the file has
/// them, for the kernels.
#[derive(Clone)]
pub(super) struct Parameters {
    tensors: VarBuilder<'static>,
    weights: Weights,
    backend: Backend,
}

impl Parameters {
    pub(super) fn new(weights: &Weights, backend: &Backend) -> Parameters {
        let tensors = weights.var_builder(backend.dtype(), backend.device());
        Parameters { tensors, weights: weights.clone(), backend: backend.clone() }
    }

    /// Those of a part.
    pub(super) fn pp(&self, part: impl ToString) -> Parameters {
        Parameters { tensors: self.tensors.pp(part), ..self.clone() }
    }

    /// What computes with them.
    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The same for a part whose products are few and decide much: the kernels compute them in float32.
    pub(super) fn in_f32(&self) -> Parameters {
        let backend = match self.backend {
            Backend::Kernels { level, .. } => Backend::Kernels { level, precision: Precision::F32 },
            Backend::Candle { .. } => self.backend.clone(),
        };
        Parameters { backend, ..self.clone() }
    }

    /// A parameter on the device.
    pub(super) fn tensor(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        self.tensors.get(shape.into(), name)
    }

    /// The elements of a parameter, for the kernels.
    pub(super) fn float32s(&self, shape: &[usize], name: &str) -> Result<Float32s> {
        self.weights.float32s(shape, &self.full_name(name)).map_err(|error| Error::Msg(format!("{error:#}")))
    }

    /// Where the elements of a parameter are found as they are stored: the checkpoint's tensors, and its name there.
    pub(super) fn stored(&self, shape: impl Into<Shape>, name: &str) -> Result<(Weights, String)> {
        let (shape, name) = (shape.into(), self.full_name(name));
        self.weights.check_shape(shape.dims(), &name).map_err(|error| Error::Msg(format!("{error:#}")))?;
        Ok((self.weights.clone(), name))
    }

    /// Whether a parameter's elements lie one after the other in the file.
    pub(super) fn is_contiguous(&self, name: &str) -> bool {
        self.weights.stored(&self.full_name(name)).is_some_and(|stored| stored.strides.is_none())
    }

    fn full_name(&self, name: &str) -> String {
        match self.tensors.prefix() {
            prefix if prefix.is_empty() => name.to_owned(),
            prefix => format!("{prefix}.{name}"),
        }
    }
}
