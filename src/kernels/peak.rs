//! What the processor could do at most: the measure that benchmarks hold the kernels against.

use super::simd::Simd;
use super::{Kernel, Level};

/// Registers that are added to in turn: more than an instruction's latency times its rate on any processor, and with
/// both factors no more than AVX2 has.
const CHAINS: usize = 12;

/// Multiplies and adds registers that never leave the processor, `rounds` times over, and gives the number of
/// floating-point operations that this was.
///
/// # Panics
/// Where the processor does not support the level.
pub fn multiply_add(level: Level, rounds: usize) -> u64 {
    assert!(level.is_supported(), "the processor has no {level}");
    let mut sum = [0.0; CHAINS];
    let mut lanes = 0;
    // SAFETY: the level is supported.
    unsafe { level.run(MultiplyAdd { rounds, sum: &mut sum, lanes: &mut lanes }) };
    std::hint::black_box(sum);
    (2 * CHAINS * rounds * lanes) as u64
}

struct MultiplyAdd<'a> {
    rounds: usize,
    sum: &'a mut [f32; CHAINS],
    lanes: &'a mut usize,
}

impl Kernel for MultiplyAdd<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the processor has the features of `S`.
        unsafe {
            let factor = S::splat(std::hint::black_box(0.999));
            let mut sums = [S::splat(1.0); CHAINS];
            for _ in 0..self.rounds {
                for sum in &mut sums {
                    *sum = S::mul_add(*sum, factor, factor);
                }
            }
            for (total, sum) in self.sum.iter_mut().zip(sums) {
                *total = S::reduce_add(sum);
            }
        }
        *self.lanes = S::LANES;
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::levels;
    use super::*;

    #[test]
    fn operations_are_counted() {
        for level in levels() {
            assert_eq!(multiply_add(level, 10) % (2 * 12 * 10 * 8), 0, "{level}");
        }
    }
}
