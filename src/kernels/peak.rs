//! The processor's peak arithmetic throughput, to which benchmarks compare the kernels.

use super::factors::Factors;
use super::simd::Simd;
use super::{Level, Precision, ProductKernel};

/// Registers that are added to in turn: more than an instruction's latency times its rate (4 times 2 on x86, 4 times 4 on
/// Apple's processors), yet, with both factors, no more than there are (16 in AVX2, 32 in NEON).
const CHAINS: usize = if cfg!(target_arch = "aarch64") { 24 } else { 12 };

/// Multiplies and adds registers without touching memory, `rounds` times, with the instruction used for products of
/// `precision`, and returns the number of floating-point operations.
///
/// # Panics
/// If the processor does not support the level.
pub fn multiply_add(level: Level, precision: Precision, rounds: usize) -> u64 {
    assert!(level.is_supported(), "the processor does not support {level}");
    let mut operations = 0;
    // SAFETY: the level is supported.
    unsafe { level.run_product(precision, MultiplyAdd { rounds, operations: &mut operations }) };
    operations
}

struct MultiplyAdd<'a> {
    rounds: usize,
    operations: &'a mut u64,
}

impl ProductKernel for MultiplyAdd<'_> {
    #[inline(always)]
    unsafe fn run<F: Factors>(self) {
        // SAFETY: the processor has the features of `F`.
        unsafe {
            F::begin();
            *self.operations = F::saturate(self.rounds) as u64;
            F::end();
        }
    }
}

/// [`Factors::saturate`] if sums live in the registers of `S`.
#[inline(always)]
pub(super) unsafe fn of_registers<F: Factors + ?Sized>(rounds: usize) -> usize {
    // SAFETY: the processor has the features of `F`.
    unsafe {
        let factor = F::S::splat(std::hint::black_box(0.999));
        let mut sums = [F::S::splat(1.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = F::multiply_add(factor, factor, *sum);
            }
        }
        std::hint::black_box(sums.map(|sum| F::S::reduce_add(sum)));
    }
    2 * CHAINS * rounds * F::S::LANES * F::DEPTH
}

#[cfg(test)]
mod tests {
    use super::super::reference::levels;
    use super::*;

    #[test]
    fn operations_are_counted() {
        for level in levels() {
            let operations = multiply_add(level, Precision::F32, 10);
            assert_eq!(operations % (2 * CHAINS * 10 * 4) as u64, 0, "{level}");
            for precision in [Precision::Bf16, Precision::Int8] {
                let ratio = multiply_add(level, precision, 10) as f64 / operations as f64;
                assert!(if precision.is_native_on(level) { ratio >= 2.0 } else { ratio == 1.0 }, "{level}: {ratio}");
            }
        }
    }
}
