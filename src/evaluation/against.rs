//! Two models on the same texts: how often each is right, and whether that could be chance. McNemar's test looks only at
//! the texts that one of them gets right and the other wrong; its p value is that of statsmodels' `mcnemar`, exact below
//! 25 such texts, else of chi-square with continuity correction.

use super::worst::{EvaluatedText, KeptText};

/// With at least this many discordant texts chi-square takes the place of the binomial distribution.
const CHI_SQUARE_TEXTS: u64 = 25;
/// How many texts with different labels are kept.
const KEPT: usize = 20;

/// The texts by who is right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Both labels are the gold one.
    pub both_right: u64,
    /// Only this run's label is.
    pub only_this: u64,
    /// Only the other run's label is.
    pub only_other: u64,
    /// Neither is.
    pub both_wrong: u64,
}

/// McNemar's test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct McNemar {
    /// How probable so uneven a split of the discordant texts is if both models are equally good.
    pub p_value: f64,
    /// The statistic of chi-square; `None` if the exact test was used.
    pub chi_square: Option<f64>,
}

/// A text that the two runs label differently.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The gold label.
    pub gold: usize,
    /// This run's label.
    pub this: usize,
    /// The other run's label; `None` if it gave none.
    pub other: Option<usize>,
    /// The text.
    pub text: KeptText,
}

/// The comparison so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Comparison {
    /// What the other run is called.
    pub other: String,
    /// Texts by who is right.
    pub agreement: Agreement,
    /// Texts with different labels.
    pub differing: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

impl Comparison {
    /// With the run that is called `other`.
    pub(super) fn new(other: String) -> Comparison {
        Comparison { other, ..Comparison::default() }
    }

    pub(super) fn observe(&mut self, text: &EvaluatedText<'_>, gold: usize, this: usize, other: Option<usize>) {
        let agreement = &mut self.agreement;
        *match (this == gold, other == Some(gold)) {
            (true, true) => &mut agreement.both_right,
            (true, false) => &mut agreement.only_this,
            (false, true) => &mut agreement.only_other,
            (false, false) => &mut agreement.both_wrong,
        } += 1;
        if other != Some(this) {
            self.differing += 1;
            if self.differences.len() < KEPT {
                self.differences.push(Difference { gold, this, other, text: KeptText::of(text) });
            }
        }
    }
}

impl Agreement {
    /// Whether one model is better than the other.
    pub fn mcnemar(&self) -> McNemar {
        let (fewer, more) = (self.only_this.min(self.only_other), self.only_this.max(self.only_other));
        match fewer + more {
            discordant if discordant < CHI_SQUARE_TEXTS => {
                McNemar { p_value: two_sided_binomial(fewer, discordant), chi_square: None }
            }
            discordant => {
                let chi_square = ((more - fewer) as f64 - 1.0).powi(2) / discordant as f64;
                // The survival function of chi-square with one degree of freedom.
                McNemar { p_value: libm::erfc((chi_square / 2.0).sqrt()), chi_square: Some(chi_square) }
            }
        }
    }
}

/// Twice the probability of at most `fewer` heads in `all` throws of a coin; at most 1.
fn two_sided_binomial(fewer: u64, all: u64) -> f64 {
    let mut ways = 1.0;
    let mut sum = 0.0;
    for heads in 0..=fewer {
        sum += ways;
        ways *= (all - heads) as f64 / (heads + 1) as f64;
    }
    (2.0 * sum / 2f64.powi(all as i32)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::worst::TEXT;

    #[test]
    fn texts_are_counted_by_who_is_right_and_the_first_differences_are_kept() {
        let mut comparison = Comparison::new("a.jsonl".into());
        for (this, other) in [(1, Some(1)), (1, Some(0)), (2, Some(1)), (2, Some(2)), (0, None)] {
            comparison.observe(&TEXT, 1, this, other);
        }
        let wanted = Agreement { both_right: 1, only_this: 1, only_other: 1, both_wrong: 2 };
        assert_eq!((comparison.agreement, comparison.differing), (wanted, 3));
        assert_eq!((comparison.differences[0].this, comparison.differences[2].other), (1, None));
        (0..100).for_each(|_| comparison.observe(&TEXT, 0, 1, Some(2)));
        assert_eq!((comparison.differing, comparison.differences.len()), (103, 20));
    }

    #[test]
    fn no_difference_is_no_evidence() {
        assert_eq!(Agreement::default().mcnemar(), McNemar { p_value: 1.0, chi_square: None });
    }
}
