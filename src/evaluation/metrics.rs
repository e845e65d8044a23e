//! The figures of an evaluation, from its sums.

use super::{Evaluation, LeftOutCounts, ScoreBin, CALIBRATION_BINS};
use crate::checkpoint::config::ScoreFunction;
use std::collections::BTreeMap;

/// The 97.5 % quantile of the standard normal distribution: 95 % lie within it on both sides.
const NORMAL_QUANTILE: f64 = 1.959_963_984_540_054;

/// All figures. Shares and scores are from 0 to 1; what is undefined where nothing was evaluated is `None`, never NaN.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// Texts with both a prediction and a gold label.
    pub evaluated: u64,
    /// Records without one of them.
    pub left_out: LeftOutCounts,
    /// The share of texts whose best class is the gold one. `None`: nothing evaluated.
    pub accuracy: Option<Share>,
    /// The unweighted means over all classes. `None`: nothing evaluated.
    pub macro_average: Option<ClassScores>,
    /// One for each class, in id order.
    pub classes: Vec<ClassMetrics>,
    /// How often each gold label got each prediction.
    pub confusion: ConfusionMatrix,
    /// The mean of -ln(score of the gold label), in nats. `None`: nothing evaluated, or a multi-label checkpoint, whose
    /// scores do not sum to 1 over the classes.
    pub log_loss: Option<f64>,
    /// How far the top scores can be taken at their word.
    pub calibration: Calibration,
}

/// A share of successes with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Successes over trials.
    pub value: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// Precision, recall and F1 of one class, or their means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassScores {
    /// Of the texts predicted as this class, the share that are it; 0 where none was.
    pub precision: f64,
    /// Of the texts that are this class, the share predicted as it; 0 where none is.
    pub recall: f64,
    /// The harmonic mean of both; 0 where the class was neither predicted nor gold.
    pub f1: f64,
}

/// One class.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassMetrics {
    /// Its name.
    pub label: String,
    /// `None`: nothing evaluated at all.
    pub scores: Option<ClassScores>,
    /// Texts whose gold label is this class.
    pub support: u64,
    /// Texts predicted as this class.
    pub predicted: u64,
}

/// Counts by gold and predicted class; the pairs that occur are stored.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfusionMatrix {
    counts: BTreeMap<(usize, usize), u64>,
}

/// The top scores against how often they were right.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Expected calibration error: the mean over texts of |accuracy - mean score| of the text's bin. `None`: nothing
    /// evaluated.
    pub expected_error: Option<f64>,
    /// Bins of equal width, lowest scores first.
    pub bins: [Bin; CALIBRATION_BINS],
}

/// The texts whose top score is in (`low`, `high`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// Lower edge, not in the bin (but 0 is in the first).
    pub low: f64,
    /// Upper edge, in the bin.
    pub high: f64,
    /// Texts.
    pub count: u64,
    /// Their mean top score. `None`: no text.
    pub mean_score: Option<f64>,
    /// The share of them whose best class is the gold one. `None`: no text.
    pub accuracy: Option<f64>,
}

impl Metrics {
    /// From the sums of `evaluation`.
    pub(super) fn of(evaluation: &Evaluation) -> Metrics {
        let confusion = ConfusionMatrix { counts: evaluation.confusion.clone() };
        let evaluated = confusion.total();
        let classes = classes(&evaluation.labels, &confusion, evaluated);
        let is_distribution = evaluation.score_function == ScoreFunction::Softmax;
        Metrics {
            evaluated,
            left_out: evaluation.left_out,
            accuracy: wilson_interval(confusion.correct(), evaluated),
            macro_average: macro_average(&classes),
            classes,
            confusion,
            log_loss: (is_distribution && evaluated > 0).then(|| evaluation.negative_log_likelihood / evaluated as f64),
            calibration: Calibration::of(&evaluation.bins),
        }
    }
}

impl ConfusionMatrix {
    /// Texts whose gold label is `gold` and whose best class is `predicted`.
    pub fn count(&self, gold: usize, predicted: usize) -> u64 {
        self.counts.get(&(gold, predicted)).copied().unwrap_or(0)
    }

    /// Every pair that occurs, as (gold, predicted, count), in id order.
    pub fn cells(&self) -> impl Iterator<Item = (usize, usize, u64)> + '_ {
        self.counts.iter().map(|(&(gold, predicted), &count)| (gold, predicted, count))
    }

    /// The `most` most frequent mistakes as (gold, predicted, count), most frequent first, equal ones in id order.
    pub fn most_confused(&self, most: usize) -> Vec<(usize, usize, u64)> {
        let mut mistakes: Vec<_> = self.cells().filter(|(gold, predicted, _)| gold != predicted).collect();
        mistakes.sort_by_key(|&(_, _, count)| std::cmp::Reverse(count));
        mistakes.truncate(most);
        mistakes
    }

    fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    fn correct(&self) -> u64 {
        self.cells().filter(|(gold, predicted, _)| gold == predicted).map(|(_, _, count)| count).sum()
    }
}

impl Calibration {
    /// ECE = sum over bins of (count / n) |accuracy - mean score|: Guo, Pleiss, Sun, Weinberger, "On Calibration of
    /// Modern Neural Networks", ICML 2017, equation 3, with their 15 bins, closed on the right.
    fn of(sums: &[ScoreBin; CALIBRATION_BINS]) -> Calibration {
        let total: u64 = sums.iter().map(|bin| bin.count).sum();
        let gaps: f64 = sums.iter().map(|bin| (bin.correct as f64 - bin.score_sum).abs()).sum();
        let edge = |place: usize| place as f64 / CALIBRATION_BINS as f64;
        let bins = std::array::from_fn(|place| {
            let sum = &sums[place];
            let mean = |of: f64| (sum.count > 0).then(|| of / sum.count as f64);
            Bin {
                low: edge(place),
                high: edge(place + 1),
                count: sum.count,
                mean_score: mean(sum.score_sum),
                accuracy: mean(sum.correct as f64),
            }
        });
        Calibration { expected_error: (total > 0).then(|| gaps / total as f64), bins }
    }
}

/// Per class as scikit-learn's `precision_recall_fscore_support` has it with `zero_division=0`.
fn classes(labels: &[String], confusion: &ConfusionMatrix, evaluated: u64) -> Vec<ClassMetrics> {
    let mut support = vec![0u64; labels.len()];
    let mut predictions = vec![0u64; labels.len()];
    for (gold, predicted, count) in confusion.cells() {
        support[gold] += count;
        predictions[predicted] += count;
    }
    let class = |(id, label): (usize, &String)| {
        let hits = confusion.count(id, id);
        ClassMetrics {
            label: label.clone(),
            scores: (evaluated > 0).then(|| ClassScores {
                precision: ratio(hits, predictions[id]),
                recall: ratio(hits, support[id]),
                f1: ratio(2 * hits, predictions[id] + support[id]),
            }),
            support: support[id],
            predicted: predictions[id],
        }
    };
    labels.iter().enumerate().map(class).collect()
}

/// The means over all classes, those that never occur included. `None`: nothing evaluated.
fn macro_average(classes: &[ClassMetrics]) -> Option<ClassScores> {
    let scores: Vec<ClassScores> = classes.iter().filter_map(|class| class.scores).collect();
    let mean = |of: fn(&ClassScores) -> f64| scores.iter().map(of).sum::<f64>() / scores.len() as f64;
    (!scores.is_empty()).then(|| ClassScores {
        precision: mean(|class| class.precision),
        recall: mean(|class| class.recall),
        f1: mean(|class| class.f1),
    })
}

/// part / whole, and 0 for a whole of 0.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 / whole as f64
}

/// The share of successes with the score interval of Wilson 1927 ("Probable inference, the law of succession, and
/// statistical inference", JASA 22):
///
/// (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)
///
/// It stays inside 0 to 1 and keeps its coverage near both ends, where good classifiers are and where p ± z·se fails
/// (Brown, Cai, DasGupta, "Interval Estimation for a Binomial Proportion", 2001). `None` for no trial.
fn wilson_interval(successes: u64, trials: u64) -> Option<Share> {
    if trials == 0 {
        return None;
    }
    let n = trials as f64;
    let p = successes as f64 / n;
    let z2 = NORMAL_QUANTILE * NORMAL_QUANTILE;
    let center = p + z2 / (2.0 * n);
    let half_width = NORMAL_QUANTILE * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    // At p = 0 and p = 1 a bound is exactly 0 or 1; rounding must not push it past.
    let low = ((center - half_width) / scale).max(0.0);
    let high = ((center + half_width) / scale).min(1.0);
    Some(Share { value: p, low, high })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::LeftOut;
    use crate::prediction::Prediction;

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn predicted(logits: &[f32]) -> Prediction {
        Prediction::from_logits(logits, ScoreFunction::Softmax, false)
    }

    #[test]
    fn nothing_evaluated_is_undefined_not_nan() {
        let mut evaluation = Evaluation::new(&labels(&["a", "b"]), ScoreFunction::Softmax);
        evaluation.leave_out(LeftOut::BlankText);
        evaluation.leave_out(LeftOut::NoGoldLabel);
        evaluation.leave_out(LeftOut::NoGoldLabel);
        evaluation.leave_out(LeftOut::MalformedRecord);
        let metrics = evaluation.metrics();
        assert_eq!(
            metrics.left_out,
            LeftOutCounts { blank_text: 1, malformed_record: 1, no_gold_label: 2, unknown_gold_label: 0 }
        );
        assert_eq!(metrics.left_out.total(), 4);
        assert_eq!((metrics.evaluated, metrics.accuracy, metrics.macro_average), (0, None, None));
        assert_eq!((metrics.log_loss, metrics.calibration.expected_error), (None, None));
        assert!(metrics.classes.iter().all(|class| class.scores.is_none()));
        assert!(metrics.calibration.bins.iter().all(|bin| bin.mean_score.is_none() && bin.accuracy.is_none()));
    }

    #[test]
    fn one_class_that_is_always_right() {
        let mut evaluation = Evaluation::new(&labels(&["only"]), ScoreFunction::Softmax);
        evaluation.observe(0, &predicted(&[0.0]));
        let metrics = evaluation.metrics();
        assert_eq!(metrics.macro_average, Some(ClassScores { precision: 1.0, recall: 1.0, f1: 1.0 }));
        let accuracy = metrics.accuracy.unwrap();
        assert_eq!((accuracy.value, accuracy.high), (1.0, 1.0));
        // 1 / (1 + z²): the lower bound for one success in one trial.
        assert!((accuracy.low - 0.206_549_314_377_237).abs() < 1e-12, "{}", accuracy.low);
        assert_eq!(metrics.calibration.expected_error, Some(0.0));
    }

    #[test]
    fn all_wrong_keeps_the_interval_in_range() {
        let mut evaluation = Evaluation::new(&labels(&["a", "b"]), ScoreFunction::Softmax);
        evaluation.observe(0, &predicted(&[-40.0, 40.0]));
        evaluation.observe(1, &predicted(&[40.0, -40.0]));
        let metrics = evaluation.metrics();
        let accuracy = metrics.accuracy.unwrap();
        assert_eq!((accuracy.value, accuracy.low), (0.0, 0.0));
        assert!(accuracy.high > 0.6 && accuracy.high < 0.7);
        assert_eq!(metrics.macro_average, Some(ClassScores { precision: 0.0, recall: 0.0, f1: 0.0 }));
        assert_eq!(metrics.calibration.expected_error, Some(1.0));
        let worst = 23.0 * std::f64::consts::LN_2; // -ln 2^-23
        assert!((metrics.log_loss.unwrap() - worst).abs() < 1e-12);
    }

    #[test]
    fn independent_scores_have_no_log_loss() {
        let mut evaluation = Evaluation::new(&labels(&["a", "b"]), ScoreFunction::Sigmoid);
        evaluation.observe(0, &Prediction::from_logits(&[3.0, 2.0], ScoreFunction::Sigmoid, false));
        let metrics = evaluation.metrics();
        assert_eq!(metrics.log_loss, None);
        assert!(metrics.calibration.expected_error.is_some());
    }

    #[test]
    fn most_confused_pairs_come_most_frequent_first() {
        let counts = BTreeMap::from([((0, 0), 9), ((0, 1), 2), ((1, 0), 5), ((2, 1), 2)]);
        let confusion = ConfusionMatrix { counts };
        assert_eq!(confusion.most_confused(2), [(1, 0, 5), (0, 1, 2)]);
    }

    #[test]
    fn a_model_gone_wrong_gives_numbers_all_the_same() {
        let mut evaluation = Evaluation::new(&labels(&["a", "b"]), ScoreFunction::Softmax);
        evaluation.observe(0, &predicted(&[f32::NAN, 1.0]));
        let metrics = evaluation.metrics();
        assert!(metrics.log_loss.unwrap().is_finite());
        assert!(metrics.calibration.expected_error.unwrap().is_finite());
    }
}
