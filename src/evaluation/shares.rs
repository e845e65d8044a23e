//! Shares of counts, from which several kinds of metrics are built.

/// The 97.5 % quantile of the standard normal distribution: 95 % lie between it and its negative.
const NORMAL_QUANTILE: f64 = 1.959_963_984_540_054;

/// A share of successes with its 95 % interval. All three are from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Successes divided by trials.
    pub value: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

impl Share {
    /// The share of successes with the score interval of Wilson 1927 ("Probable inference, the law of succession, and
    /// statistical inference", JASA 22):
    ///
    /// (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    ///
    /// It stays between 0 and 1 and keeps its coverage near both ends, where good classifiers are and where p ± z·se
    /// fails (Brown, Cai, DasGupta, "Interval Estimation for a Binomial Proportion", 2001). `None` without trials.
    pub fn of(successes: u64, trials: u64) -> Option<Share> {
        if trials == 0 {
            return None;
        }
        let n = trials as f64;
        let p = successes as f64 / n;
        let z2 = NORMAL_QUANTILE * NORMAL_QUANTILE;
        let center = p + z2 / (2.0 * n);
        let half_width = NORMAL_QUANTILE * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        let scale = 1.0 + z2 / n;
        // At p = 0 and p = 1 a bound is exactly 0 or 1; rounding must not exceed it.
        let low = ((center - half_width) / scale).max(0.0);
        let high = ((center + half_width) / scale).min(1.0);
        Some(Share { value: p, low, high })
    }
}

/// Precision, recall and F1 of one label, or averages of them, as in scikit-learn's `precision_recall_fscore_support`
/// with `zero_division=0`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelScores {
    /// The share of the texts predicted as this label that have it; 0 if there are none.
    pub precision: f64,
    /// The share of the texts with this label that were predicted as it; 0 if there are none.
    pub recall: f64,
    /// The harmonic mean of both; 0 if the label was neither predicted nor gold.
    pub f1: f64,
}

impl LabelScores {
    fn of(counts: LabelCounts) -> LabelScores {
        LabelScores {
            precision: ratio(counts.hits, counts.predicted),
            recall: ratio(counts.hits, counts.support),
            f1: ratio(2 * counts.hits, counts.predicted + counts.support),
        }
    }

    /// The unweighted means. `None` if there is nothing to average.
    fn mean(all: &[LabelScores]) -> Option<LabelScores> {
        let mean = |of: fn(&LabelScores) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
        (!all.is_empty()).then(|| LabelScores {
            precision: mean(|s| s.precision),
            recall: mean(|s| s.recall),
            f1: mean(|s| s.f1),
        })
    }
}

/// How often a label was gold, predicted, and both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LabelCounts {
    /// Texts with the label that were also predicted to have it.
    pub hits: u64,
    /// Texts with the label.
    pub support: u64,
    /// Texts predicted to have the label.
    pub predicted: u64,
}

/// The metrics of every label, and their averages.
#[derive(Debug, Clone, PartialEq)]
pub struct PerLabel {
    /// In id order.
    pub counts: Vec<LabelCounts>,
    /// In id order; empty if nothing was evaluated.
    pub scores: Vec<LabelScores>,
    /// The unweighted means over all labels, including those that never occur. `None`: nothing evaluated.
    pub macro_average: Option<LabelScores>,
    /// The metrics of all labels' counts combined. `None`: nothing evaluated.
    pub micro_average: Option<LabelScores>,
}

impl PerLabel {
    /// Computed from the counts of each label in id order, over `evaluated` texts.
    pub(super) fn of(counts: Vec<LabelCounts>, evaluated: u64) -> PerLabel {
        let scores: Vec<LabelScores> = match evaluated {
            0 => Vec::new(),
            _ => counts.iter().copied().map(LabelScores::of).collect(),
        };
        let total = counts.iter().fold(LabelCounts::default(), |all, label| LabelCounts {
            hits: all.hits + label.hits,
            support: all.support + label.support,
            predicted: all.predicted + label.predicted,
        });
        PerLabel {
            macro_average: LabelScores::mean(&scores),
            micro_average: (evaluated > 0).then(|| LabelScores::of(total)),
            counts,
            scores,
        }
    }
}

/// part / whole; 0 if the whole is 0.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_stays_in_range_at_both_ends() {
        assert_eq!(Share::of(0, 0), None);
        let all = Share::of(1, 1).unwrap();
        // 1 / (1 + z²): the lower bound for one success in one trial.
        assert!((all.low - 0.206_549_314_377_237).abs() < 1e-12, "{}", all.low);
        assert_eq!((all.value, all.high), (1.0, 1.0));
        let none = Share::of(0, 2).unwrap();
        assert_eq!((none.value, none.low), (0.0, 0.0));
        assert!(none.high > 0.6 && none.high < 0.7);
    }
}
