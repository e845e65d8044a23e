//! Which of candle's devices runs the forward pass.

use anyhow::{bail, Result};
use candle_core::Device;
use std::str::FromStr;

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU if the build supports one and the machine has one, otherwise the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device with that ordinal.
    Cuda(usize),
    /// The first Metal device.
    Metal,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            "metal" => Ok(DeviceChoice::Metal),
            other => match other.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok()) {
                Some(ordinal) => Ok(DeviceChoice::Cuda(ordinal)),
                None => Err(format!("unknown device {other}: use auto, cpu, cuda, cuda:N or metal")),
            },
        }
    }
}

impl DeviceChoice {
    /// Opens the device.
    ///
    /// # Errors
    /// If the build does not support it, or it does not exist or fails.
    pub fn open(self) -> Result<Device> {
        match self {
            DeviceChoice::Cpu => Ok(Device::Cpu),
            DeviceChoice::Auto => Ok(gpu().unwrap_or(Device::Cpu)),
            DeviceChoice::Cuda(_) if !candle_core::utils::cuda_is_available() => bail!(
                "this build has no CUDA support; build with `cargo build --release --features cuda`, or compute on the CPU"
            ),
            DeviceChoice::Metal if !candle_core::utils::metal_is_available() => bail!(
                "this build has no Metal support; build with `cargo build --release --features metal`, or compute on the CPU"
            ),
            DeviceChoice::Cuda(ordinal) => Device::new_cuda(ordinal)
                .map_err(|e| anyhow::anyhow!("cannot open CUDA device {ordinal} ({e}); compute on the CPU instead")),
            DeviceChoice::Metal => Device::new_metal(0)
                .map_err(|e| anyhow::anyhow!("cannot open the Metal device ({e}); compute on the CPU instead")),
        }
    }
}

/// The first GPU that this build supports and this machine has. candle's "is available" only describes the build.
fn gpu() -> Option<Device> {
    if candle_core::utils::cuda_is_available() {
        if let Ok(device) = Device::new_cuda(0) {
            return Some(device);
        }
    }
    if candle_core::utils::metal_is_available() {
        return Device::new_metal(0).ok();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse() {
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        assert!("cuda:-1".parse::<DeviceChoice>().is_err());
        assert!("tpu".parse::<DeviceChoice>().unwrap_err().contains("tpu"));
    }

    #[test]
    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    fn a_cpu_build_says_so() {
        assert!(matches!(DeviceChoice::Auto.open(), Ok(Device::Cpu)));
        assert!(DeviceChoice::Cuda(0).open().unwrap_err().to_string().contains("--features cuda"));
    }
}
