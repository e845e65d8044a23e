//! The fields of `config.json` as families ask for them: a struct for each group of fields, read with their bounds, and
//! named in errors.

use crate::kernels::Activation;
use anyhow::{anyhow, Result};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// The JSON object, without the fields that are null: they count as absent.
pub(super) struct Fields(Value);

impl Fields {
    pub(super) fn new(object: Map<String, Value>) -> Fields {
        Fields(object.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>().into())
    }

    /// Those that a struct has.
    ///
    /// # Errors
    /// If one is missing or is not what the struct takes; the message names it.
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

/// The largest value accepted for a dimension. The largest vocabularies in use have 250 k pieces; a number far beyond is a
/// damaged file, and is refused here rather than found in an allocation.
pub(super) type Dimension = Whole<{ 1 << 24 }>;
/// Layers: the deepest in use have 48.
pub(super) type Layers = Whole<1024>;

impl<const MAX: u64> Whole<MAX> {
    /// `number`, if it is one of these.
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

/// What is added to a variance: a number from 0 to 1.
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

/// transformers' name of an activation; the default is `gelu`.
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
                    "{other:?} is not supported: only gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu and tanh are"
                )))
            }
        }))
    }
}
