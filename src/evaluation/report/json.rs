//! The report for machines.
//!
//! One object; shares and scores are numbers from 0 to 1, an undefined figure is `null`:
//!
//! | field | value |
//! |---|---|
//! | `agnews` | version of the program |
//! | `model`, `data` | as the user named them (`data` may be `null`) |
//! | `evaluated` | number of texts with a prediction and a gold label |
//! | `left_out` | numbers of records without: `blank_text`, `malformed_record`, `no_gold_label`, `unknown_gold_label` |
//! | `accuracy` | `value`, and `low` and `high` of its 95 % Wilson interval |
//! | `macro_average` | `precision`, `recall`, `f1`: unweighted means over all classes |
//! | `classes` | in id order: `label_id`, `label`, `precision`, `recall`, `f1`, `support`, `predicted` (counts) |
//! | `confusion_matrix` | rows by gold label, columns by predicted label, counts; `null` above 1000 classes |
//! | `confusions` | the mistakes that occur, most frequent first: `gold`, `predicted` (ids), `count` |
//! | `log_loss` | mean of -ln(score of the gold label), scores clipped to [2⁻²³, 1 - 2⁻²³]; `null` for a multi-label model |
//! | `expected_calibration_error` | Guo et al. 2017, over `calibration_bins` |
//! | `calibration_bins` | lowest first: `low` (exclusive), `high` (inclusive), `count`, `mean_score`, `accuracy` |

use super::About;
use crate::evaluation::metrics::{Bin, ClassMetrics, ClassScores, ConfusionMatrix, Metrics, Share};
use serde_json::{json, Value};

/// More classes than this have no full matrix in the report: it would be millions of zeros.
const FULL_MATRIX_CLASSES: usize = 1000;

/// The report, with a final line break.
pub(super) fn render(metrics: &Metrics, about: &About) -> String {
    let report = json!({
        "agnews": env!("CARGO_PKG_VERSION"),
        "model": about.model,
        "data": (!about.data.is_empty()).then_some(&about.data),
        "evaluated": metrics.evaluated,
        "left_out": {
            "blank_text": metrics.left_out.blank_text,
            "malformed_record": metrics.left_out.malformed_record,
            "no_gold_label": metrics.left_out.no_gold_label,
            "unknown_gold_label": metrics.left_out.unknown_gold_label,
        },
        "accuracy": share(metrics.accuracy),
        "macro_average": averages(metrics.macro_average),
        "classes": metrics.classes.iter().enumerate().map(class).collect::<Value>(),
        "confusion_matrix": matrix(&metrics.confusion, metrics.classes.len()),
        "confusions": confusions(&metrics.confusion),
        "log_loss": metrics.log_loss,
        "expected_calibration_error": metrics.calibration.expected_error,
        "calibration_bins": metrics.calibration.bins.iter().map(bin).collect::<Value>(),
    });
    format!("{report:#}\n")
}

fn share(share: Option<Share>) -> Value {
    let get = |of: fn(&Share) -> f64| share.as_ref().map(of);
    json!({ "value": get(|s| s.value), "low": get(|s| s.low), "high": get(|s| s.high) })
}

fn averages(scores: Option<ClassScores>) -> Value {
    let get = |of: fn(&ClassScores) -> f64| scores.as_ref().map(of);
    json!({ "precision": get(|s| s.precision), "recall": get(|s| s.recall), "f1": get(|s| s.f1) })
}

fn class((label_id, class): (usize, &ClassMetrics)) -> Value {
    let get = |of: fn(&ClassScores) -> f64| class.scores.as_ref().map(of);
    json!({
        "label_id": label_id,
        "label": class.label,
        "precision": get(|s| s.precision),
        "recall": get(|s| s.recall),
        "f1": get(|s| s.f1),
        "support": class.support,
        "predicted": class.predicted,
    })
}

fn matrix(confusion: &ConfusionMatrix, classes: usize) -> Value {
    if classes > FULL_MATRIX_CLASSES {
        return Value::Null;
    }
    let row = |gold: usize| (0..classes).map(|predicted| confusion.count(gold, predicted)).collect::<Value>();
    (0..classes).map(row).collect()
}

fn confusions(confusion: &ConfusionMatrix) -> Value {
    let pair =
        |(gold, predicted, count): (usize, usize, u64)| json!({ "gold": gold, "predicted": predicted, "count": count });
    confusion.most_confused(usize::MAX).into_iter().map(pair).collect()
}

fn bin(bin: &Bin) -> Value {
    json!({
        "low": bin.low,
        "high": bin.high,
        "count": bin.count,
        "mean_score": bin.mean_score,
        "accuracy": bin.accuracy,
    })
}
