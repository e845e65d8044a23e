//! The temperature: one number that all logits are divided by before they become scores, so that the scores are as high
//! as they should be. Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
//!
//! It minimizes the log loss. In beta = 1 / temperature the loss is convex, so its slope has one zero at most, which
//! Newton's method finds inside a bracket, with bisection if a step would leave it or is slow: `rtsafe` of Press et al.,
//! "Numerical Recipes", chapter 9.4. Unlike a minimum by values of the function, which is flat there, the zero is exact
//! to the last digits.

use crate::checkpoint::config::ScoreFunction;
use crate::evaluation::sample::Sample;

/// The temperatures that are allowed. The loss has no minimum if no text is wrong (the lower the better), or if the
/// labels are worse than chance (the higher the better).
pub const LOWEST: f64 = 0.01;
/// See [`LOWEST`].
pub const HIGHEST: f64 = 100.0;

/// Each step at least halves the bracket or the one before, so this many are more than enough for 52 bits.
const STEPS: usize = 200;

/// Slope and curvature of the loss at one beta.
#[derive(Default)]
struct Derivatives {
    slope: f64,
    curvature: f64,
}

/// The temperature with the lowest log loss on those texts of `sample` that `includes` names, from [`LOWEST`] to
/// [`HIGHEST`]. `score_function` is softmax, or sigmoid for labels that are independent of each other.
pub fn fit(sample: &Sample, score_function: ScoreFunction, includes: impl Fn(usize) -> bool) -> f64 {
    let texts: Vec<usize> = (0..sample.len()).filter(|&text| includes(text)).collect();
    let at = |beta: f64| {
        let mut sums = Derivatives::default();
        for &text in &texts {
            let (logits, gold) = sample.text(text);
            match score_function {
                ScoreFunction::Sigmoid => sums.add_sigmoid(logits, gold, beta),
                ScoreFunction::Softmax | ScoreFunction::Raw => sums.add_softmax(logits, gold, beta),
            }
        }
        sums
    };
    1.0 / zero(at, 1.0 / HIGHEST, 1.0 / LOWEST)
}

/// Where the slope, which only grows, is zero; else the end of the bracket that is nearer to it.
fn zero(at: impl Fn(f64) -> Derivatives, mut low: f64, mut high: f64) -> f64 {
    if at(low).slope >= 0.0 {
        return low;
    }
    if at(high).slope <= 0.0 {
        return high;
    }
    let mut beta = 1.0;
    let mut step = high - low;
    for _ in 0..STEPS {
        let Derivatives { slope, curvature } = at(beta);
        *(if slope > 0.0 { &mut high } else { &mut low }) = beta;
        let newton = beta - slope / curvature;
        let is_good = newton > low && newton < high && (newton - beta).abs() < step / 2.0;
        let next = if is_good { newton } else { f64::midpoint(low, high) };
        step = (next - beta).abs();
        beta = next;
        if step <= f64::EPSILON * beta {
            break;
        }
    }
    beta
}

impl Derivatives {
    /// Of -ln softmax(beta z) at the gold label: the mean of z by the softmax, less the z of the gold label; and the
    /// variance of z.
    fn add_softmax(&mut self, logits: &[f32], gold: &[bool], beta: f64) {
        let best = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let (mut sum, mut first, mut second, mut gold_logit) = (0.0, 0.0, 0.0, 0.0);
        for (&logit, &is_gold) in logits.iter().zip(gold) {
            // Below the best: no overflow, and no digits lost in the variance.
            let below = f64::from(logit) - best;
            let weight = (beta * below).exp();
            sum += weight;
            first += weight * below;
            second += weight * below * below;
            gold_logit += if is_gold { below } else { 0.0 };
        }
        let mean = first / sum;
        self.slope += mean - gold_logit;
        self.curvature += second / sum - mean * mean;
    }

    /// The same for each label on its own, of which a text has any number.
    fn add_sigmoid(&mut self, logits: &[f32], gold: &[bool], beta: f64) {
        for (&logit, &is_gold) in logits.iter().zip(gold) {
            let logit = f64::from(logit);
            let score = 1.0 / (1.0 + (-beta * logit).exp());
            self.slope += (score - f64::from(u8::from(is_gold))) * logit;
            self.curvature += score * (1.0 - score) * logit * logit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prediction::{Extent, Prediction};

    fn sample(rows: &[(&[f32], usize)]) -> Sample {
        let mut sample = Sample::new(rows[0].0.len());
        for (logits, gold) in rows {
            sample.push(&Prediction::from_logits(logits, ScoreFunction::Softmax, Extent::Whole), &[*gold]);
        }
        sample
    }

    fn fitted(rows: &[(&[f32], usize)]) -> f64 {
        fit(&sample(rows), ScoreFunction::Softmax, |_| true)
    }

    #[test]
    fn two_logits_have_a_temperature_in_closed_form() {
        // Right in 3 of 4: the best score is 1 / (1 + e^(-d/T)) with d = 2, and is to be 3/4, so d/T = ln 3.
        let rows: [(&[f32], usize); 4] = [(&[2.0, 0.0], 0), (&[0.0, 2.0], 1), (&[7.0, 5.0], 0), (&[2.0, 0.0], 1)];
        let wanted = 2.0 / 3f64.ln();
        assert!((fitted(&rows) - wanted).abs() < 1e-14 * wanted, "{} for {wanted}", fitted(&rows));
    }

    #[test]
    fn what_has_no_minimum_stays_in_bounds() {
        assert_eq!(fitted(&[(&[2.0, 0.0], 0), (&[0.0, 1.0], 1)]), LOWEST);
        assert_eq!(fitted(&[(&[2.0, 0.0], 1), (&[0.0, 1.0], 0)]), HIGHEST);
        // Nothing to tell labels apart by: the slope is zero everywhere.
        assert!((LOWEST..=HIGHEST).contains(&fitted(&[(&[1.0, 1.0], 1)])));
        // Far from float32's ends of exp, and a text that no temperature makes right.
        let extreme = fitted(&[(&[1e30, -1e30], 0), (&[0.0, 1e4], 0), (&[3.0, 0.0], 0)]);
        assert!((LOWEST..=HIGHEST).contains(&extreme), "{extreme}");
    }

    #[test]
    fn only_some_texts_count() {
        let rows: [(&[f32], usize); 3] = [(&[2.0, 0.0], 0), (&[2.0, 0.0], 1), (&[5.0, 0.0], 0)];
        let some = fit(&sample(&rows), ScoreFunction::Softmax, |text| text < 2);
        assert_eq!(some, fitted(&rows[..2]));
    }
}
