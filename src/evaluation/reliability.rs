//! Whether top scores match how often they are right, in bins.

/// The bins of the reliability diagram, and of the expected calibration error, as in Guo et al. 2017.
pub const BINS: usize = 15;

/// The sums of each bin.
#[derive(Debug, Clone)]
pub(super) struct Sums(Vec<BinSums>);

#[derive(Debug, Clone, Copy, Default)]
struct BinSums {
    count: u64,
    correct: u64,
    score_sum: f64,
}

/// Top scores compared to how often they were right.
#[derive(Debug, Clone, PartialEq)]
pub struct Reliability {
    /// Expected calibration error: the mean over texts of |accuracy - mean score| of the text's bin. `None`: nothing
    /// evaluated.
    pub expected_error: Option<f64>,
    /// [`BINS`] bins of equal width, lowest scores first.
    pub bins: Vec<Bin>,
}

/// The texts with a top score in (`low`, `high`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// Lower edge, exclusive (except that 0 is in the first bin).
    pub low: f64,
    /// Upper edge, inclusive.
    pub high: f64,
    /// Number of texts.
    pub count: u64,
    /// Their mean top score. `None`: no texts.
    pub mean_score: Option<f64>,
    /// The share of them classified correctly. `None`: no texts.
    pub accuracy: Option<f64>,
}

impl Sums {
    pub(super) fn new() -> Sums {
        Sums(vec![BinSums::default(); BINS])
    }

    /// Counts one text. A score that is not a number counts as 0.
    pub(super) fn observe(&mut self, top_score: f32, is_correct: bool) {
        let top_score = if top_score.is_nan() { 0.0 } else { top_score };
        let bin = &mut self.0[bin_of(top_score)];
        bin.count += 1;
        bin.correct += u64::from(is_correct);
        bin.score_sum += f64::from(top_score);
    }

    /// ECE = sum over bins of (count / n) |accuracy - mean score|: Guo, Pleiss, Sun, Weinberger, "On Calibration of
    /// Modern Neural Networks", ICML 2017, equation 3, with their 15 bins, closed on the right.
    pub(super) fn reliability(&self) -> Reliability {
        let total: u64 = self.0.iter().map(|bin| bin.count).sum();
        let gaps: f64 = self.0.iter().map(|bin| (bin.correct as f64 - bin.score_sum).abs()).sum();
        let edge = |place: usize| place as f64 / BINS as f64;
        let bin = |(place, sums): (usize, &BinSums)| {
            let mean = |of: f64| (sums.count > 0).then(|| of / sums.count as f64);
            Bin {
                low: edge(place),
                high: edge(place + 1),
                count: sums.count,
                mean_score: mean(sums.score_sum),
                accuracy: mean(sums.correct as f64),
            }
        };
        let bins = self.0.iter().enumerate().map(bin).collect();
        Reliability { expected_error: (total > 0).then(|| gaps / total as f64), bins }
    }
}

/// The bin of a top score: bin m of M holds the scores in ((m - 1) / M, m / M], and the first one also 0.
///
/// The product is exact in float64 (24 bits times 4), so scores at a bin's edge are always assigned correctly.
fn bin_of(score: f32) -> usize {
    let place = (f64::from(score) * BINS as f64).ceil();
    (place as usize).clamp(1, BINS) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_closed_on_the_right() {
        assert_eq!(bin_of(0.0), 0);
        assert_eq!(bin_of(1e-9), 0);
        assert_eq!(bin_of(0.2), 3, "0.2 in float32 is above 3/15");
        assert_eq!(bin_of(0.5), 7);
        assert_eq!(bin_of(0.6), 9, "0.6 in float32 is above 9/15");
        assert_eq!(bin_of(1.0 - f32::EPSILON), 14);
        assert_eq!(bin_of(1.0), 14);
    }
}
