//! The metrics of a model whose output is one number per text.

/// All gold and predicted values: ranks need them.
#[derive(Debug, Clone, Default)]
pub(super) struct Pairs {
    gold: Vec<f64>,
    predicted: Vec<f64>,
}

/// All metrics; undefined ones are `None`, never NaN.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// Texts with both a prediction and a gold value.
    pub evaluated: u64,
    /// The mean of (predicted - gold)². `None`: nothing evaluated.
    pub mean_squared_error: Option<f64>,
    /// Pearson's correlation, from -1 to 1. `None` if all gold or all predicted values are equal.
    pub pearson: Option<f64>,
    /// Spearman's rank correlation: Pearson's correlation of the ranks; equal values share their mean rank.
    pub spearman: Option<f64>,
}

impl Pairs {
    /// Counts one text.
    pub(super) fn observe(&mut self, gold: f64, predicted: f64) {
        self.gold.push(gold);
        self.predicted.push(predicted);
    }

    pub(super) fn metrics(&self) -> Metrics {
        let squares: f64 =
            self.gold.iter().zip(&self.predicted).map(|(gold, predicted)| (predicted - gold).powi(2)).sum();
        Metrics {
            evaluated: self.gold.len() as u64,
            mean_squared_error: (!self.gold.is_empty())
                .then(|| squares / self.gold.len() as f64)
                .filter(|e| e.is_finite()),
            pearson: correlation(&self.gold, &self.predicted),
            spearman: correlation(&ranks(&self.gold), &ranks(&self.predicted)),
        }
    }
}

/// cov(a, b) / √(var(a) var(b)), subtracting the means first, so values far from 0 keep their precision.
fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    // The mean of equal values can be off by one rounding, which would give a variance that is not 0.
    let is_constant = |values: &[f64]| values.iter().all(|value| *value == values[0]);
    if is_constant(a) || is_constant(b) {
        return None;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut covariance, mut variance_a, mut variance_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        covariance += a * b;
        variance_a += a * a;
        variance_b += b * b;
    }
    let correlation = covariance / (variance_a.sqrt() * variance_b.sqrt());
    correlation.is_finite().then(|| correlation.clamp(-1.0, 1.0))
}

/// The rank of each value, from 1; equal values get the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (equal.len() as f64 + 1.0) / 2.0;
        equal.iter().for_each(|&place| ranks[place] = rank);
        before += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_their_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, -0.0, 0.0]), [4.5, 3.0, 4.5, 1.5, 1.5]);
    }

    #[test]
    fn constant_values_have_no_correlation() {
        let mut pairs = Pairs::default();
        assert_eq!(pairs.metrics().mean_squared_error, None);
        for gold in [0.1, 0.2, 0.7] {
            pairs.observe(gold, 0.1);
        }
        let metrics = pairs.metrics();
        assert_eq!((metrics.pearson, metrics.spearman), (None, None));
        assert!((metrics.mean_squared_error.unwrap() - 0.37 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn a_value_that_is_not_a_number_leaves_the_figures_undefined() {
        let mut pairs = Pairs::default();
        pairs.observe(1.0, f64::NAN);
        pairs.observe(2.0, 1.0);
        assert_eq!((pairs.metrics().mean_squared_error, pairs.metrics().pearson), (None, None));
    }
}
