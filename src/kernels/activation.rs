//! The transcendental functions, one register at a time.
//!
//! The coefficients are this project's own minimax fits (Lawson's reweighted least squares in double precision).

use super::product::MAX_LANES;
use super::simd::Simd;
use super::Precision;

/// What a linear layer does to each sum before storing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// x Φ(x), with Φ the standard normal distribution function.
    Gelu,
    /// GELU's tanh approximation.
    GeluTanh,
    /// max(x, 0); keeps NaN.
    Relu,
    /// tanh from the standard library, one lane at a time: only heads use it, on one row per text.
    Tanh,
}

impl Activation {
    /// As exact as numbers of `precision` are.
    ///
    /// # Safety
    /// The processor has the features of `S`.
    #[inline(always)]
    pub(super) unsafe fn apply<S: Simd>(self, precision: Precision, x: S::V) -> S::V {
        // SAFETY: the processor has the features of `S`.
        unsafe {
            match self {
                Activation::Identity => x,
                Activation::Gelu => match precision {
                    Precision::F32 | Precision::Bf16x3 => gelu::<S>(x),
                    Precision::Bf16 | Precision::Int8 => rough_gelu::<S>(x),
                },
                Activation::GeluTanh => gelu_tanh::<S>(x),
                Activation::Relu => S::max(S::splat(0.0), x),
                Activation::Tanh => tanh::<S>(x),
            }
        }
    }
}

/// Kept out of line, so it does not bloat the loops, which the other activations share.
#[cold]
#[inline(never)]
fn tanh_of_each(lanes: &mut [f32]) {
    for lane in lanes {
        *lane = lane.tanh();
    }
}

/// # Safety
/// The processor has the features of `S`.
#[inline(always)]
unsafe fn tanh<S: Simd>(x: S::V) -> S::V {
    let mut lanes = [0f32; MAX_LANES];
    // SAFETY: the processor has the features of `S`; the array has at least as many lanes as a register.
    unsafe {
        S::store(lanes.as_mut_ptr(), x);
        tanh_of_each(&mut lanes[..S::LANES]);
        S::load(lanes.as_ptr())
    }
}

/// c0 + c1 x + c2 x² + …, by Horner's rule; `coefficients` start at the highest power.
#[inline(always)]
unsafe fn polynomial<S: Simd>(x: S::V, coefficients: &[f32]) -> S::V {
    // SAFETY: the processor has the features of `S`.
    unsafe {
        let mut sum = S::splat(coefficients[0]);
        for &coefficient in &coefficients[1..] {
            sum = S::mul_add(sum, x, S::splat(coefficient));
        }
        sum
    }
}

/// e^x within 2 units in the last place from ln(2^-126) = -87.3 up; 0 below that, where the result would be denormal.
/// Infinity above 88.37 (float32 ends at 88.72), where n is 128. Keeps NaN.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2, ln 2 split in two so that n ln 2 is exact (Cody and Waite); e^r is a polynomial of
/// degree 6, within 4e-9.
///
/// # Safety
/// The processor has the features of `S`.
#[inline(always)]
pub(super) unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    const LOWEST: f32 = -87.336_54;
    const HIGHEST: f32 = 89.0;
    // 355 / 512: nine bits, so its product with n is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const TAYLOR_REST: [f32; 5] = [0.001_381_459_9, 0.008_368_717_5, 0.041_668_39, 0.166_665_21, 0.499_999_94];
    // SAFETY: the processor has the features of `S`.
    unsafe {
        let inside = S::min(S::splat(HIGHEST), S::max(S::splat(LOWEST), x));
        let n = S::round(S::mul(inside, S::splat(core::f32::consts::LOG2_E)));
        let r = S::mul_add(n, S::splat(-LN_2_HIGH), inside);
        let r = S::mul_add(n, S::splat(-LN_2_LOW), r);
        let rest = S::mul(S::mul(r, r), polynomial::<S>(r, &TAYLOR_REST));
        let e_r = S::add(S::splat(1.0), S::add(r, rest));
        S::select_less(x, S::splat(LOWEST), S::splat(0.0), S::mul(e_r, S::exp2_integral(n)))
    }
}

/// GELU: x Φ(x) with Φ the standard normal distribution function, which is x (1 + erf(x / √2)) / 2. Within 2e-7 |x|;
/// the formula with erf in float32 arithmetic is within 3.5e-7 |x|.
///
/// Φ(x) - 1/2 ≈ x P(x²) / Q(x²), both of degree 5, within 1.3e-8 for |x| ≤ 5.4. Beyond that, Φ is 0 or 1 in float32.
///
/// # Safety
/// The processor has the features of `S`.
#[inline(always)]
pub(super) unsafe fn gelu<S: Simd>(x: S::V) -> S::V {
    const END: f32 = 5.4;
    const P: [f32; 6] =
        [2.359_100_5e-8, 6.323_726_7e-6, 0.000_160_695_59, 0.004_628_967_5, 0.033_029_426, 0.398_942_26];
    const Q: [f32; 6] = [1.219_824_5e-6, 7.117_310_5e-5, 0.001_838_658_1, 0.028_180_13, 0.249_458_95, 1.0];
    // SAFETY: the processor has the features of `S`.
    unsafe {
        let inside = S::min(S::splat(END), S::max(S::splat(-END), x));
        let square = S::mul(inside, inside);
        let ratio = S::div(S::mul(inside, polynomial::<S>(square, &P)), polynomial::<S>(square, &Q));
        let distribution = S::add(S::splat(0.5), ratio);
        let distribution = S::select_less(x, S::splat(-END), S::splat(0.0), distribution);
        let distribution = S::select_less(S::splat(END), x, S::splat(1.0), distribution);
        S::mul(x, distribution)
    }
}

/// Where [`rough_gelu`] takes Φ to be 0 or 1.
const ROUGH_END: f32 = 4.4;
const ROUGH: [f32; 9] = [
    3.569_168_2e-11,
    -3.753_818e-9,
    1.740_762_8e-7,
    -4.724_703_6e-6,
    8.429_119e-5,
    -0.001_054_981_1,
    0.009_642_993,
    -0.066_076_4,
    0.398_761_63,
];

/// GELU for a product of bf16 or eight-bit factors, within 4e-5 + 1e-6 |x|. A row whose largest number is 1 has eight-bit grid
/// points 4e-3 apart, and bf16 numbers of that size are 4e-3 to 8e-3 apart. It takes half as long as [`gelu`], above all
/// for want of the division.
///
/// Φ(x) - 1/2 ≈ x P(x²) with P of degree 8, which is ±1/2 at ±4.4 and beyond.
///
/// # Safety
/// The processor has the features of `S`.
#[inline(always)]
unsafe fn rough_gelu<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the processor has the features of `S`.
    unsafe {
        let inside = S::min(S::splat(ROUGH_END), S::max(S::splat(-ROUGH_END), x));
        let ratio = polynomial::<S>(S::mul(inside, inside), &ROUGH);
        S::mul(x, S::mul_add(inside, ratio, S::splat(0.5)))
    }
}

/// GELU's tanh approximation: x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2 = x / (1 + e^(-2 √(2/π) (x + 0.044715 x³))).
///
/// # Safety
/// The processor has the features of `S`.
#[inline(always)]
pub(super) unsafe fn gelu_tanh<S: Simd>(x: S::V) -> S::V {
    // 2 √(2/π)
    const SCALE: f32 = 1.595_769;
    // SAFETY: the processor has the features of `S`.
    unsafe {
        let cubic = S::mul_add(S::mul(x, x), S::splat(0.044_715), S::splat(1.0));
        let e = exp::<S>(S::mul(S::mul(x, cubic), S::splat(-SCALE)));
        S::div(x, S::add(S::splat(1.0), e))
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{self, levels};
    use super::super::{Kernel, Level};
    use super::*;

    /// Applies a function of this file to a slice.
    struct Map<'a> {
        values: &'a mut [f32],
        function: Function,
    }

    #[derive(Clone, Copy)]
    enum Function {
        Exp,
        Activation(Activation, Precision),
    }

    impl Kernel for Map<'_> {
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            for values in self.values.chunks_mut(S::LANES) {
                // SAFETY: the chunk has that many values.
                unsafe {
                    let x = S::load_first(values.as_ptr(), values.len());
                    let y = match self.function {
                        Function::Exp => exp::<S>(x),
                        Function::Activation(activation, precision) => activation.apply::<S>(precision, x),
                    };
                    S::store_first(values.as_mut_ptr(), y, values.len());
                }
            }
        }
    }

    fn map(level: Level, function: Function, xs: &[f32]) -> Vec<f32> {
        let mut values = xs.to_vec();
        // SAFETY: `levels` only returns levels that the processor supports.
        unsafe { level.run(Map { values: &mut values, function }) };
        values
    }

    /// Float32 numbers from -`end` to `end`: many magnitudes, and evenly spaced ones.
    fn range(end: f32) -> Vec<f32> {
        let even = (0..20_001).map(|i| (i as f32 / 10_000.0 - 1.0) * end);
        let steep = (0..3_000).map(|i| end * 0.96f32.powi(i)).filter(|x| *x > 0.0);
        even.chain(steep.flat_map(|x| [x, -x])).collect()
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for level in levels() {
            let xs: Vec<f32> = range(88.3).into_iter().filter(|x| *x > -87.3).collect();
            for (x, y) in xs.iter().zip(map(level, Function::Exp, &xs)) {
                let truth = f64::from(*x).exp();
                assert!((f64::from(y) / truth - 1.0).abs() < 2.0 * f64::from(f32::EPSILON), "{level}: exp({x}) = {y}");
            }
        }
    }

    #[test]
    fn exp_at_the_ends() {
        let xs = [f32::NEG_INFINITY, -1e30, -104.0, -87.4, 0.0, -0.0, 1e-40, 89.0, f32::INFINITY, f32::NAN];
        for level in levels() {
            let y = map(level, Function::Exp, &xs);
            assert_eq!(y[..9], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, f32::INFINITY, f32::INFINITY], "{level}");
            assert!(y[9].is_nan(), "{level}");
        }
    }

    #[test]
    fn gelu_is_within_2e_7_of_its_operand() {
        for level in levels() {
            let xs = range(9.0);
            for (&x, y) in xs.iter().zip(map(level, Function::Activation(Activation::Gelu, Precision::F32), &xs)) {
                let error = (f64::from(y) - reference::gelu(f64::from(x))).abs();
                let one_bit = f64::from(f32::from_bits(1));
                assert!(error <= 2e-7 * f64::from(x.abs()) + one_bit, "{level}: gelu({x}) = {y}, off by {error:.1e}");
            }
        }
    }

    #[test]
    fn rough_gelu_is_within_its_error() {
        for level in levels() {
            for precision in [Precision::Bf16, Precision::Int8] {
                let xs = range(100.0);
                for (&x, y) in xs.iter().zip(map(level, Function::Activation(Activation::Gelu, precision), &xs)) {
                    let error = (f64::from(y) - reference::gelu(f64::from(x))).abs();
                    assert!(error <= 4e-5 + 1e-6 * f64::from(x.abs()), "{level}: gelu({x}) = {y}, off by {error:.1e}");
                }
            }
        }
    }

    #[test]
    fn gelu_far_from_zero() {
        for level in levels() {
            let y = map(
                level,
                Function::Activation(Activation::Gelu, Precision::F32),
                &[-1e30, -6.0, 6.0, 1e30, f32::INFINITY, f32::NAN],
            );
            assert_eq!(y[..5], [0.0, 0.0, 6.0, 1e30, f32::INFINITY], "{level}");
            assert!(y[5].is_nan(), "{level}");
        }
    }

    #[test]
    fn gelu_tanh_is_its_formula() {
        for level in levels() {
            let xs = range(9.0);
            for (&x, y) in xs.iter().zip(map(level, Function::Activation(Activation::GeluTanh, Precision::F32), &xs)) {
                let x = f64::from(x);
                let inner = (2.0 / core::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                let truth = 0.5 * x * (1.0 + inner.tanh());
                assert!((f64::from(y) - truth).abs() <= 3e-7 * x.abs() + 1e-44, "{level}: gelu_tanh({x}) = {y}");
            }
        }
    }

    #[test]
    fn relu_keeps_nan() {
        for level in levels() {
            let y = map(
                level,
                Function::Activation(Activation::Relu, Precision::F32),
                &[-1.0, 2.0, -0.0, f32::NEG_INFINITY, f32::NAN],
            );
            assert_eq!(y[..4], [0.0, 2.0, 0.0, 0.0], "{level}");
            assert!(y[4].is_nan(), "{level}");
        }
    }

    #[test]
    fn tanh_matches_the_standard_library() {
        for level in levels() {
            let xs = range(9.0);
            let ys = map(level, Function::Activation(Activation::Tanh, Precision::F32), &xs);
            assert!(xs.iter().zip(ys).all(|(x, y)| y == x.tanh()), "{level}");
            assert!(
                map(level, Function::Activation(Activation::Tanh, Precision::F32), &[f32::NAN])[0].is_nan(),
                "{level}"
            );
        }
    }
}
