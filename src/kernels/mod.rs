//! The CPU kernels: linear layers, attention and layer norms on float32 slices.
//!
//! Each is written once, generic over a vector register (`simd::Simd`), and compiled for every instruction set
//! implemented in a file here. [`Level`] selects one at run time, in one place. Rows are tokens: the sequences of a
//! batch are concatenated without padding, and only attention knows their boundaries. On one level, a row's result is
//! the same to the bit in every batch. The portable level, whose linear layers use the gemm crate, only guarantees this
//! within float32 rounding.

mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
#[cfg(target_arch = "x86_64")]
mod avx512_vnni;
mod factors;
mod layer;
mod layer_norm;
mod linear;
mod operand;
mod pages;
mod parallelism;
pub mod peak;
mod portable;
mod product;
mod quantization;
#[cfg(test)]
mod reference;
mod scratch;
mod simd;
mod weight;

pub use activation::Activation;
pub use attention::{attention, Attention, Positions};
pub use factors::Precision;
use factors::{Factors, Placed, Rounded, Whole};
pub use layer::{layer, Layer, Norms, SelfAttention};
pub use layer_norm::{layer_norm, LayerNorm};
pub use linear::{linear, Combined, Linear};
pub use parallelism::{Parallelism, Team};
use simd::Simd;
use std::fmt;
use std::str::FromStr;
pub use weight::{PackedWeight, Weight};

/// Work that is generic over the instruction set.
trait Kernel {
    /// Does the work.
    ///
    /// # Safety
    /// The processor has the features of `S`, and the kernel's pointers meet its own contract.
    unsafe fn run<S: Simd>(self);
}

/// Work on a matrix product that is generic over the arithmetic too.
trait ProductKernel {
    /// Does the work.
    ///
    /// # Safety
    /// As for [`Kernel::run`], with the features of `F`.
    unsafe fn run<F: Factors>(self);
}

/// A [`ProductKernel`] with factors that every instruction set supports.
struct OfPrecision<K>(Precision, K);

impl<K: ProductKernel> Kernel for OfPrecision<K> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller's contract.
        unsafe {
            match self.0 {
                Precision::F32 => self.1.run::<Whole<S>>(),
                Precision::Bf16x3 => self.1.run::<Rounded<S, 2>>(),
                Precision::Bf16 => self.1.run::<Rounded<S, 1>>(),
                Precision::Int8 => self.1.run::<Placed<S>>(),
            }
        }
    }
}

/// An instruction set that the kernels are compiled for, ordered from slowest to fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The target's baseline.
    Portable,
    /// AVX2 with FMA: registers of 8 floats.
    Avx2,
    /// AVX-512 F, BW, DQ and VL: registers of 16 floats.
    Avx512,
    /// Adds AVX-512 VNNI, which multiplies four eight-bit integers in the time of one float32 number.
    Avx512Vnni,
    /// Adds AVX-512 BF16, which multiplies two bf16 numbers in that time.
    Avx512Bf16,
    /// Adds AMX, which multiplies 16 bf16 numbers or 32 eight-bit integers in that time.
    Amx,
}

impl Level {
    /// Every level, in ascending order.
    pub const ALL: [Level; 6] =
        [Level::Portable, Level::Avx2, Level::Avx512, Level::Avx512Vnni, Level::Avx512Bf16, Level::Amx];

    /// The best level that this processor supports.
    pub fn detect() -> Level {
        Level::best_up_to(Level::Amx)
    }

    /// The best level up to `cap` that this processor supports.
    pub fn best_up_to(cap: Level) -> Level {
        let mut levels = Level::ALL.into_iter().rev();
        levels.find(|&level| level <= cap && level.is_supported()).unwrap_or(Level::Portable)
    }

    /// Whether this processor supports the level.
    pub fn is_supported(self) -> bool {
        match self {
            Level::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && Level::Avx2.is_supported()
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => is_x86_feature_detected!("avx512vnni") && Level::Avx512.is_supported(),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => is_x86_feature_detected!("avx512bf16") && Level::Avx512Vnni.is_supported(),
            #[cfg(target_arch = "x86_64")]
            Level::Amx => Level::Avx512Bf16.is_supported() && amx::is_supported(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Runs `kernel` on this level: the only place that selects an instruction set.
    ///
    /// # Safety
    /// The processor supports the level, and the kernel's pointers meet its own contract.
    unsafe fn run<K: Kernel>(self, kernel: K) {
        debug_assert!(self.is_supported());
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller's contract.
            Level::Avx2 => unsafe { avx2::run(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller's contract.
            Level::Avx512 | Level::Avx512Vnni | Level::Avx512Bf16 | Level::Amx => unsafe { avx512::run(kernel) },
            _ => portable::run(kernel),
        }
    }

    /// Runs `kernel` on this level with factors of `precision`.
    ///
    /// # Safety
    /// As for [`Level::run`].
    unsafe fn run_product<K: ProductKernel>(self, precision: Precision, kernel: K) {
        debug_assert!(self.is_supported());
        #[cfg(target_arch = "x86_64")]
        use {amx::Tiles, avx512_bf16::Pairs, avx512_vnni::Quads};
        // SAFETY: the caller's contract; every level from AVX-512 up includes the features of those below it.
        unsafe {
            match (self, precision) {
                #[cfg(target_arch = "x86_64")]
                (Level::Amx, Precision::Bf16x3) => avx512_bf16::run_product::<Tiles<Pairs<2>>, K>(kernel),
                #[cfg(target_arch = "x86_64")]
                (Level::Amx, Precision::Bf16) => avx512_bf16::run_product::<Tiles<Pairs<1>>, K>(kernel),
                #[cfg(target_arch = "x86_64")]
                (Level::Amx, Precision::Int8) => avx512_vnni::run_product::<Tiles<Quads>, K>(kernel),
                #[cfg(target_arch = "x86_64")]
                (Level::Avx512Bf16, Precision::Bf16x3) => avx512_bf16::run_product::<Pairs<2>, K>(kernel),
                #[cfg(target_arch = "x86_64")]
                (Level::Avx512Bf16, Precision::Bf16) => avx512_bf16::run_product::<Pairs<1>, K>(kernel),
                #[cfg(target_arch = "x86_64")]
                (Level::Avx512Vnni | Level::Avx512Bf16, Precision::Int8) => {
                    avx512_vnni::run_product::<Quads, K>(kernel)
                }
                _ => self.run(OfPrecision(precision, kernel)),
            }
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512Vnni => "avx512vnni",
            Level::Avx512Bf16 => "avx512bf16",
            Level::Amx => "amx",
        })
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Level::ALL.into_iter().find(|level| level.to_string() == text).ok_or_else(|| {
            let names = Level::ALL.map(|level| level.to_string()).join(", ");
            format!("{text}: unknown level of CPU kernels; use one of {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for level in Level::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert!("sse9".parse::<Level>().unwrap_err().contains("sse9"));
    }

    #[test]
    fn the_detected_level_is_the_best_supported() {
        assert!(Level::Portable.is_supported());
        assert_eq!(reference::levels().last(), Some(Level::detect()));
        assert_eq!(Level::best_up_to(Level::Portable), Level::Portable);
    }
}
