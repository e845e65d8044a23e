//! The CPU kernels: linear layers, attention and layer norms on float32 slices.
//!
//! Each is written once, generic over a vector register (`simd::Simd`) and over what a product multiplies
//! (`factors::Factors`), and compiled for every instruction set that has a file here. The table of [`Level`]s, below,
//! lists them; one is selected at run time. For a new processor, implement `Simd` if its registers are new and `Factors`
//! for the products that it has instructions for, and add a row to the table.
//!
//! Rows are tokens: the sequences of a batch are concatenated without padding, and only attention knows their
//! boundaries. On one level, a row's result is the same to the bit in every batch. The portable level, whose linear
//! layers use the gemm crate, only guarantees this within float32 rounding.

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
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
#[cfg(target_arch = "aarch64")]
mod dotprod;
mod factors;
#[cfg(target_arch = "aarch64")]
mod i8mm;
mod layer;
mod layer_norm;
mod linear;
#[cfg(target_arch = "aarch64")]
mod neon;
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
#[cfg(target_arch = "aarch64")]
use neon::Neon;
pub use parallelism::{Parallelism, Team};
use portable::Portable;
use simd::Simd;
use std::fmt;
use std::str::FromStr;
use weight::PackedLayout;
pub use weight::{PackedWeight, Weight};
#[cfg(target_arch = "x86_64")]
use {amx::Tiles, avx2::Avx2, avx512::Avx512, avx512_bf16::Pairs};

/// Work that is generic over the instruction set.
trait Kernel {
    /// Does the work.
    ///
    /// # Safety
    /// The processor has the features of `S`, and the kernel's pointers meet its own contract.
    unsafe fn run<S: Simd>(self);
}

/// Work on a matrix product that is generic over the arithmetic, too.
trait ProductKernel {
    /// Does the work.
    ///
    /// # Safety
    /// As for [`Kernel::run`], with the features of `F`.
    unsafe fn run<F: Factors>(self);
}

/// Defines [`Level`] from a table: for each architecture, its levels from slowest to fastest.
macro_rules! levels {
    ($($architecture:meta {
        $($(#[doc = $about:literal])* $level:ident, $name:literal, $registers:ty, $bf16x3:ty, $bf16:ty, $int8:ty;)*
    })*) => {
        /// An instruction set that the kernels are compiled for: one of the architecture that the program is compiled
        /// for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Level {
            $($($(#[doc = $about])* #[cfg($architecture)] $level,)*)*
        }

        impl Level {
            const COUNT: usize = [$($(#[cfg($architecture)] Level::$level,)*)*].len();

            /// Every level, from slowest to fastest.
            pub const ALL: [Level; Level::COUNT] = [$($(#[cfg($architecture)] Level::$level,)*)*];

            fn name(self) -> &'static str {
                match self {
                    $($(#[cfg($architecture)] Level::$level => $name,)*)*
                }
            }

            /// How the level computes in a precision.
            fn arithmetic(self, precision: Precision) -> Arithmetic {
                match self {
                    $($(#[cfg($architecture)] Level::$level => match precision {
                        Precision::F32 => Arithmetic::of::<Whole<$registers>>(),
                        Precision::Bf16x3 => Arithmetic::of::<$bf16x3>(),
                        Precision::Bf16 => Arithmetic::of::<$bf16>(),
                        Precision::Int8 => Arithmetic::of::<$int8>(),
                    },)*)*
                }
            }

            /// Runs `kernel` on this level.
            ///
            /// # Safety
            /// The processor supports the level, and the kernel's pointers meet its own contract.
            unsafe fn run<K: Kernel>(self, kernel: K) {
                debug_assert!(self.is_supported());
                // SAFETY: the caller's contract.
                unsafe {
                    match self {
                        $($(#[cfg($architecture)] Level::$level => <$registers>::run(kernel),)*)*
                    }
                }
            }

            /// Runs `kernel` on this level with factors of `precision`.
            ///
            /// # Safety
            /// As for [`Level::run`].
            unsafe fn run_product<K: ProductKernel>(self, precision: Precision, kernel: K) {
                debug_assert!(self.is_supported());
                // SAFETY: the caller's contract.
                unsafe {
                    match self {
                        $($(#[cfg($architecture)] Level::$level => match precision {
                            Precision::F32 => <Whole<$registers>>::run(kernel),
                            Precision::Bf16x3 => <$bf16x3>::run(kernel),
                            Precision::Bf16 => <$bf16>::run(kernel),
                            Precision::Int8 => <$int8>::run(kernel),
                        },)*)*
                    }
                }
            }
        }
    };
}

// A level needs the features of everything in its row. `Rounded` and `Placed` do the arithmetic of bf16 and int8 with
// float32 instructions, no faster than float32.
levels! {
    // Level, its name, registers of float32, factors of bf16x3, of bf16, of int8;
    all() {
        /// The target's baseline.
        Portable, "portable", Portable, Rounded<Portable, 2>, Rounded<Portable, 1>, Placed<Portable>;
    }
    target_arch = "x86_64" {
        /// AVX2 with FMA: registers of 8 floats.
        Avx2, "avx2", Avx2, Rounded<Avx2, 2>, Rounded<Avx2, 1>, Placed<Avx2>;
        /// Adds AVX-VNNI, which multiplies four eight-bit integers in the time of one float32 number.
        AvxVnni, "avxvnni", Avx2, Rounded<Avx2, 2>, Rounded<Avx2, 1>, avx_vnni::Quads;
        /// AVX-512 F, BW, DQ and VL: registers of 16 floats.
        Avx512, "avx512", Avx512, Rounded<Avx512, 2>, Rounded<Avx512, 1>, Placed<Avx512>;
        /// Adds AVX-512 VNNI: the same as AVX-VNNI, on registers of twice the size.
        Avx512Vnni, "avx512vnni", Avx512, Rounded<Avx512, 2>, Rounded<Avx512, 1>, avx512_vnni::Quads;
        /// Adds AVX-512 BF16, which multiplies two bf16 numbers in the time of one float32 number.
        Avx512Bf16, "avx512bf16", Avx512, Pairs<2>, Pairs<1>, avx512_vnni::Quads;
        /// Adds AMX, which multiplies 16 bf16 numbers or 32 eight-bit integers in that time.
        Amx, "amx", Avx512, Tiles<Pairs<2>>, Tiles<Pairs<1>>, Tiles<avx512_vnni::Quads>;
    }
    target_arch = "aarch64" {
        /// NEON, which every processor of this architecture has: registers of 4 floats.
        Neon, "neon", Neon, Rounded<Neon, 2>, Rounded<Neon, 1>, Placed<Neon>;
        /// Adds the dot products of Armv8.2: four eight-bit integers in the time of one float32 number.
        Dotprod, "dotprod", Neon, Rounded<Neon, 2>, Rounded<Neon, 1>, dotprod::Quads;
        /// Adds the matrix products of Armv8.6 (I8MM and BF16): eight eight-bit integers or four bf16 numbers per
        /// number that a float32 instruction multiplies.
        I8mm, "i8mm", Neon, i8mm::Pairs<2>, i8mm::Pairs<1>, i8mm::Quads;
    }
}

/// A level's arithmetic in one precision.
struct Arithmetic {
    layout: PackedLayout,
    /// Whether there are instructions for it.
    is_native: bool,
    /// [`Factors::ROWS_OF_LAYER`].
    rows_of_layer: usize,
    is_supported: fn() -> bool,
}

impl Arithmetic {
    fn of<F: Factors>() -> Arithmetic {
        Arithmetic {
            layout: PackedLayout::of::<F>(),
            is_native: F::IS_NATIVE,
            rows_of_layer: F::ROWS_OF_LAYER,
            is_supported: F::is_supported,
        }
    }
}

impl Level {
    /// The best level that this processor supports.
    pub fn detect() -> Level {
        Level::best_of(&Level::ALL)
    }

    /// The best level up to `cap` that this processor supports.
    pub fn best_up_to(cap: Level) -> Level {
        let end = Level::ALL.iter().take_while(|&&level| level != cap).count();
        Level::best_of(&Level::ALL[..=end])
    }

    fn best_of(levels: &[Level]) -> Level {
        levels.iter().rev().copied().find(|level| level.is_supported()).unwrap_or(Level::Portable)
    }

    /// Tokens per batch that suit the level: as many as go through a layer together in any precision.
    pub fn batch_tokens(self) -> usize {
        Precision::ALL.map(|precision| self.rows_of_layer(precision)).into_iter().fold(0, usize::max)
    }

    /// Rows that go through a layer together.
    fn rows_of_layer(self, precision: Precision) -> usize {
        self.arithmetic(precision).rows_of_layer
    }

    /// Whether this processor supports the level.
    pub fn is_supported(self) -> bool {
        Precision::ALL.into_iter().all(|precision| (self.arithmetic(precision).is_supported)())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Level::ALL.into_iter().find(|level| level.name() == text).ok_or_else(|| {
            let names = Level::ALL.map(Level::name).join(", ");
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
        for level in Level::ALL {
            assert_eq!(Level::best_up_to(level) == level, level.is_supported(), "{level}");
        }
    }
}
