//! The figures of an evaluation against scikit-learn's and scipy's, on the same predictions.

use agnews::checkpoint::config::ScoreFunction;
use agnews::evaluation::metrics::Metrics;
use agnews::evaluation::Evaluation;
use agnews::prediction::{Prediction, ScoredLabel};
use serde_json::Value;

const PREDICTIONS: &str = include_str!("../fixtures/evaluation/predictions.jsonl");
const EXPECTED: &str = include_str!("../fixtures/evaluation/expected.json");

/// A few roundings of float64 apart, whatever the order of the sums.
const TOLERANCE: f64 = 1e-9;
/// scikit-learn takes logarithms and their sum in float32 where the scores are: 2^-24 relative for each step.
const FLOAT32_TOLERANCE: f64 = 1e-6;

fn prediction(scores: &[f32]) -> Prediction {
    let mut ranking: Vec<ScoredLabel> =
        scores.iter().enumerate().map(|(label_id, &score)| ScoredLabel { label_id, score }).collect();
    ranking.sort_by(|a, b| b.score.total_cmp(&a.score));
    Prediction { ranking, truncated: false }
}

/// The figures of one case of `predictions.jsonl`.
fn evaluate(case: &str, classes: usize) -> Metrics {
    let labels: Vec<String> = (0..classes).map(|id| format!("class {id}")).collect();
    let mut evaluation = Evaluation::new(&labels, ScoreFunction::Softmax);
    for line in PREDICTIONS.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if line["case"] == case {
            let scores: Vec<f32> =
                line["scores"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap() as f32).collect();
            evaluation.observe(line["gold"].as_u64().unwrap() as usize, &prediction(&scores));
        }
    }
    evaluation.metrics()
}

fn assert_close(case: &str, what: &str, ours: f64, theirs: &Value, tolerance: f64) {
    let theirs = theirs.as_f64().unwrap_or_else(|| panic!("{case}: expected.json has no {what}"));
    assert!((ours - theirs).abs() <= tolerance, "{case}: {what} is {ours}, expected {theirs}");
}

#[test]
fn figures_equal_those_of_scikit_learn() {
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let cases = expected.as_object().unwrap();
    assert!(cases.len() >= 4, "{} cases", cases.len());
    for (case, expected) in cases {
        let classes = expected["classes"].as_u64().unwrap() as usize;
        let metrics = evaluate(case, classes);
        let close = |what: &str, ours: f64, theirs: &Value| assert_close(case, what, ours, theirs, TOLERANCE);

        assert_eq!(metrics.evaluated, expected["evaluated"].as_u64().unwrap(), "{case}");
        let accuracy = metrics.accuracy.unwrap();
        close("accuracy", accuracy.value, &expected["accuracy"]);
        close("lower bound", accuracy.low, &expected["interval"][0]);
        close("upper bound", accuracy.high, &expected["interval"][1]);

        let average = metrics.macro_average.unwrap();
        close("macro precision", average.precision, &expected["macro"][0]);
        close("macro recall", average.recall, &expected["macro"][1]);
        close("macro F1", average.f1, &expected["macro"][2]);
        for (id, class) in metrics.classes.iter().enumerate() {
            let scores = class.scores.unwrap();
            close("precision", scores.precision, &expected["precision"][id]);
            close("recall", scores.recall, &expected["recall"][id]);
            close("F1", scores.f1, &expected["f1"][id]);
            assert_eq!(class.support, expected["support"][id].as_u64().unwrap(), "{case}");
            for predicted in 0..classes {
                let theirs = expected["confusion"][id][predicted].as_u64().unwrap();
                assert_eq!(metrics.confusion.count(id, predicted), theirs, "{case}: gold {id}, predicted {predicted}");
            }
        }

        let log_loss = metrics.log_loss.unwrap();
        close("log loss", log_loss, &expected["log_loss"]);
        assert_close(case, "log loss of float32", log_loss, &expected["log_loss_float32"], FLOAT32_TOLERANCE);
        let error = metrics.calibration.expected_error.unwrap();
        close("expected calibration error", error, &expected["expected_calibration_error"]);
        for (place, bin) in metrics.calibration.bins.iter().enumerate() {
            assert_eq!(bin.count, expected["bin_counts"][place].as_u64().unwrap(), "{case}: bin {place}");
        }
    }
}

/// The fixture has what it is there for: a class that is never predicted and one that is never gold.
#[test]
fn the_mixed_case_has_empty_rows_and_columns() {
    let metrics = evaluate("mixed", 5);
    assert_eq!(metrics.classes[3].predicted, 0);
    assert!(metrics.classes[3].support > 0);
    assert_eq!(metrics.classes[4].support, 0);
    assert!(metrics.classes[4].predicted > 0);
}
