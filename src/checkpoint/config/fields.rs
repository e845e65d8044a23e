//! The fields of `config.json`: a struct for each group of fields, which checks their ranges and names them in errors.

use crate::kernels::Activation;
use anyhow::{anyhow, Result};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// The JSON object without the fields that are null, which count as absent.
pub(super) struct Fields(Value);

impl Fields {
    pub(super) fn new(object: Map<String, Value>) -> Fields {
        Fields(object.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>().into())
    }

    /// Reads the fields of a struct.
    ///
    /// # Errors
    /// If one is missing or invalid; the message names it.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_path_to_error::deserialize(&self.0).map_err(|error| match error.path().to_string().as_str() {
            "." | "?" => anyhow!("{}", error.inner()),
            path => anyhow!("{path}: {}", error.inner()),
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
}

/// A whole number from 1 to `MAX`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole<const MAX: u64>(pub(super) usize);

/// The largest value accepted for a dimension. The largest vocabularies in use have 250 k pieces; a file with a far
/// larger number is damaged, and is refused here rather than when allocating.
pub(super) type Dimension = Whole<{ 1 << 24 }>;
/// Layers: the deepest in use have 48.
pub(super) type Layers = Whole<1024>;

impl<const MAX: u64> Whole<MAX> {
    /// `number`, if it is in range.
    pub(super) fn check(number: usize) -> Result<usize> {
        match number as u64 {
            0 => Err(anyhow!("0 is not a whole number from 1 to {MAX}")),
            it if it > MAX => Err(anyhow!("{number} is not a whole number from 1 to {MAX}")),
            _ => Ok(number),
        }
    }
}

impl<'de, const MAX: u64> Deserialize<'de> for Whole<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match value.as_u64() {
            Some(number) if (1..=MAX).contains(&number) => Ok(Whole(number as usize)),
            _ => Err(D::Error::custom(format!("{value} is not a whole number from 1 to {MAX}"))),
        }
    }
}

/// The number added to a variance: from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Epsilon(pub(super) f64);

impl<'de> Deserialize<'de> for Epsilon {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match value.as_f64() {
            Some(eps) if (0.0..1.0).contains(&eps) => Ok(Epsilon(eps)),
            _ => Err(D::Error::custom(format!("{value} is not a number from 0 to 1"))),
        }
    }
}

/// transformers' names of activations; the default is `gelu`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act(pub(super) Activation);

impl Default for Act {
    fn default() -> Act {
        Act(Activation::Gelu)
    }
}

impl<'de> Deserialize<'de> for Act {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(Act(match name.as_str() {
            "gelu" | "gelu_python" => Activation::Gelu,
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_approximate" | "gelu_accurate" => {
                Activation::GeluTanh
            }
            "relu" => Activation::Relu,
            "tanh" => Activation::Tanh,
            other => {
                return Err(D::Error::custom(format!(
                    "{other:?} is not supported; use gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu or tanh"
                )))
            }
        }))
    }
}
