//! What computes the model: this project's CPU kernels, or candle's own operations on one of its devices.
//!
//! [`BackendChoice`] is what the user asked for, [`Backend`] what this machine provides. Everything else takes the
//! latter, so device, instruction set and arithmetic are decided in one place.

use super::device::DeviceChoice;
use crate::kernels::{Level, Precision};
use anyhow::{bail, Result};
use candle_core::{DType, Device};
use std::fmt;
use std::str::FromStr;

/// What computes on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuChoice {
    /// The kernels, with the best instruction set that the processor supports, up to this one.
    Kernels(Level),
    /// candle's own operations: what a GPU runs, and the baseline of the benchmarks.
    Candle,
}

impl FromStr for CpuChoice {
    type Err = String;

    /// Parses the value of `AGNEWS_CPU`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "candle" => Ok(CpuChoice::Candle),
            level => level.parse().map(CpuChoice::Kernels).map_err(|error| format!("{error}, or candle")),
        }
    }
}

/// What the user asked for. Nothing has been opened yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendChoice {
    /// The device.
    pub device: DeviceChoice,
    /// What computes if the device is the CPU.
    pub cpu: CpuChoice,
    /// The arithmetic; `None` is the fastest that is as exact as float32.
    pub precision: Option<Precision>,
}

impl Default for BackendChoice {
    fn default() -> Self {
        BackendChoice { device: DeviceChoice::Auto, cpu: CpuChoice::Kernels(Level::detect()), precision: None }
    }
}

impl BackendChoice {
    /// The CPU kernels with one instruction set and one arithmetic, for tests and benchmarks.
    pub fn kernels(level: Level, precision: Precision) -> BackendChoice {
        BackendChoice { device: DeviceChoice::Cpu, cpu: CpuChoice::Kernels(level), precision: Some(precision) }
    }

    /// candle's own operations on the CPU.
    pub fn candle() -> BackendChoice {
        BackendChoice { device: DeviceChoice::Cpu, cpu: CpuChoice::Candle, precision: None }
    }

    /// Opens the device.
    ///
    /// # Errors
    /// If the device does not exist or fails, or cannot compute in the precision.
    pub fn open(self) -> Result<Backend> {
        let device = self.device.open()?;
        match self.cpu {
            CpuChoice::Kernels(cap) if device.is_cpu() => {
                let level = Level::best_up_to(cap);
                Ok(Backend::Kernels { level, precision: self.precision.unwrap_or(Precision::exact_on(level)) })
            }
            _ => {
                let dtype = match self.precision {
                    None | Some(Precision::F32) => DType::F32,
                    Some(Precision::Bf16) => DType::BF16,
                    Some(other) => bail!(
                        "only the CPU kernels compute in {other}; {} computes in f32 or bf16",
                        candle_name(&device)
                    ),
                };
                Ok(Backend::Candle { device, dtype })
            }
        }
    }
}

/// What computes.
#[derive(Debug, Clone)]
pub enum Backend {
    /// The CPU kernels. Only products are computed in `precision`; everything else is float32.
    Kernels {
        /// The instruction set, which the processor supports.
        level: Level,
        /// The arithmetic of the products.
        precision: Precision,
    },
    /// candle's own operations.
    Candle {
        /// Where the tensors are.
        device: Device,
        /// The type of all tensors.
        dtype: DType,
    },
}

impl Backend {
    /// Where the model's tensors are.
    pub fn device(&self) -> &Device {
        match self {
            Backend::Kernels { .. } => &Device::Cpu,
            Backend::Candle { device, .. } => device,
        }
    }

    /// The type of the model's tensors.
    pub fn dtype(&self) -> DType {
        match self {
            Backend::Kernels { .. } => DType::F32,
            Backend::Candle { dtype, .. } => *dtype,
        }
    }

    /// Whether the processor lacks instructions for the precision. The kernels then do the same arithmetic in float32,
    /// no faster.
    pub fn is_emulated(&self) -> bool {
        matches!(self, Backend::Kernels { level, precision } if !precision.is_native_on(*level))
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Backend::Kernels { level, precision } => write!(f, "{level} kernels in {precision}"),
            Backend::Candle { device, dtype } => write!(f, "{} in {}", candle_name(device), dtype.as_str()),
        }
    }
}

fn candle_name(device: &Device) -> &'static str {
    if device.is_cuda() {
        "CUDA"
    } else if device.is_metal() {
        "Metal"
    } else {
        "candle on the CPU"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse() {
        assert_eq!("candle".parse(), Ok(CpuChoice::Candle));
        assert_eq!("portable".parse(), Ok(CpuChoice::Kernels(Level::Portable)));
        let error = "mmx".parse::<CpuChoice>().unwrap_err();
        assert!(error.contains("mmx") && error.contains("portable") && error.contains("candle"), "{error}");
    }

    #[test]
    fn candle_accepts_only_its_own_types() {
        let open = |precision| BackendChoice { precision, ..BackendChoice::candle() }.open();
        assert!(matches!(open(None).unwrap(), Backend::Candle { dtype: DType::F32, .. }));
        assert!(matches!(open(Some(Precision::Bf16)).unwrap(), Backend::Candle { dtype: DType::BF16, .. }));
        assert!(open(Some(Precision::Int8)).unwrap_err().to_string().contains("int8"));
    }

    #[test]
    fn the_level_is_capped() {
        let backend = BackendChoice::kernels(Level::Portable, Precision::F32).open().unwrap();
        assert!(matches!(backend, Backend::Kernels { level: Level::Portable, precision: Precision::F32 }));
        assert!(!backend.is_emulated());
        assert!(BackendChoice::kernels(Level::Portable, Precision::Int8).open().unwrap().is_emulated());
        assert_eq!(backend.to_string(), "portable kernels in f32");
    }
}
