//! Compares the metrics of an evaluation and its calibration to scikit-learn's and scipy's, on the same predictions.

use agnews::checkpoint::config::ScoreFunction;
use agnews::evaluation::against::Agreement;
use agnews::evaluation::calibration::Fitted;
use agnews::evaluation::classes::Metrics;
use agnews::evaluation::sample::Sample;
use agnews::evaluation::shares::PerLabel;
use agnews::evaluation::view::{Figure, Value as FigureValue};
use agnews::evaluation::worst::EvaluatedText;
use agnews::evaluation::{self, Evaluation};
use agnews::prediction::{Extent, Prediction, Problem, ScoredLabel};
use serde_json::Value;

const PREDICTIONS: &str = include_str!("../fixtures/evaluation/predictions.jsonl");
const LABEL_SETS: &str = include_str!("../fixtures/evaluation/label_sets.jsonl");
const VALUES: &str = include_str!("../fixtures/evaluation/values.jsonl");
const LOGITS: &str = include_str!("../fixtures/evaluation/logits.jsonl");
const EXPECTED: &str = include_str!("../fixtures/evaluation/expected.json");

const TEXT: EvaluatedText<'static> = EvaluatedText { file: &"a.csv", line: 1, text: "" };

/// A few roundings of float64 apart, whatever the order of the sums.
const TOLERANCE: f64 = 1e-9;
/// scikit-learn computes and adds logarithms in float32 if the scores are float32: 2^-24 relative per step.
const FLOAT32_TOLERANCE: f64 = 1e-6;

fn prediction(scores: &[f32]) -> Prediction {
    let mut ranking: Vec<ScoredLabel> =
        scores.iter().enumerate().map(|(label_id, &score)| ScoredLabel { label_id, score, logit: score }).collect();
    ranking.sort_by(|a, b| b.score.total_cmp(&a.score));
    Prediction { ranking, extent: Extent::Whole }
}

fn names(labels: usize) -> Vec<String> {
    (0..labels).map(|id| format!("class {id}")).collect()
}

/// Gold labels and scores of the texts of one case.
fn texts(lines: &'static str, case: &str) -> Vec<(String, Vec<f32>)> {
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let scores = |line: &Value| -> Vec<f32> {
        line["scores"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap() as f32).collect()
    };
    lines.filter(|line| line["case"] == case).map(|line| (line["gold"].to_string(), scores(&line))).collect()
}

/// The metrics of one case of `predictions.jsonl`; only scores of at least `min_score` count as answers.
fn evaluate(case: &str, classes: usize, min_score: f32) -> Metrics {
    let mut evaluation = Evaluation::of_classes(&names(classes), 0, ScoreFunction::Softmax);
    for (gold, scores) in texts(PREDICTIONS, case) {
        let prediction = prediction(&scores);
        let best = prediction.best();
        let decided = [best.label_id];
        let decided = if best.score < min_score { &[] } else { &decided[..] };
        evaluation.observe(TEXT, &gold, &prediction, decided).unwrap();
    }
    match evaluation.metrics() {
        evaluation::Metrics::Classes(metrics) => metrics,
        other => panic!("{other:?}"),
    }
}

fn assert_label_scores(case: &str, ours: &PerLabel, theirs: &Value) {
    let close = |what: &str, ours: f64, theirs: &Value| assert_close(case, what, ours, theirs, TOLERANCE);
    for (id, (scores, counts)) in ours.scores.iter().zip(&ours.counts).enumerate() {
        close("precision", scores.precision, &theirs["precision"][id]);
        close("recall", scores.recall, &theirs["recall"][id]);
        close("F1", scores.f1, &theirs["f1"][id]);
        assert_eq!(counts.support, theirs["support"][id].as_u64().unwrap(), "{case}");
    }
    for (name, average) in [("macro", ours.macro_average.unwrap()), ("micro", ours.micro_average.unwrap())] {
        close(name, average.precision, &theirs[name][0]);
        close(name, average.recall, &theirs[name][1]);
        close(name, average.f1, &theirs[name][2]);
    }
}

fn assert_close(case: &str, what: &str, ours: f64, theirs: &Value, tolerance: f64) {
    let theirs = theirs.as_f64().unwrap_or_else(|| panic!("{case}: expected.json has no {what}"));
    assert!((ours - theirs).abs() <= tolerance, "{case}: {what} is {ours}, expected {theirs}");
}

#[test]
fn metrics_equal_scikit_learns() {
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let cases = expected["classes"].as_object().unwrap();
    assert!(cases.len() >= 4, "{} cases", cases.len());
    for (case, expected) in cases {
        let classes = expected["classes"].as_u64().unwrap() as usize;
        let metrics = evaluate(case, classes, 0.5);
        let close = |what: &str, ours: f64, theirs: &Value| assert_close(case, what, ours, theirs, TOLERANCE);

        assert_eq!(metrics.evaluated, expected["evaluated"].as_u64().unwrap(), "{case}");
        let accuracy = metrics.accuracy.unwrap();
        close("accuracy", accuracy.value, &expected["accuracy"]);
        close("lower bound", accuracy.low, &expected["interval"][0]);
        close("upper bound", accuracy.high, &expected["interval"][1]);
        close("coverage", metrics.coverage.unwrap(), &expected["coverage"]);
        match metrics.selective_accuracy {
            Some(share) => close("selective accuracy", share.value, &expected["selective_accuracy"]),
            None => assert!(expected["selective_accuracy"].is_null(), "{case}"),
        }

        assert_eq!(metrics.per_class.scores.len(), classes);
        assert_label_scores(case, &metrics.per_class, expected);
        for gold in 0..classes {
            for predicted in 0..classes {
                let theirs = expected["confusion"][gold][predicted].as_u64().unwrap();
                let ours = metrics.confusion.count(gold, predicted);
                assert_eq!(ours, theirs, "{case}: gold {gold}, predicted {predicted}");
            }
        }

        let log_loss = metrics.log_loss.unwrap();
        close("log loss", log_loss, &expected["log_loss"]);
        assert_close(case, "log loss of float32", log_loss, &expected["log_loss_float32"], FLOAT32_TOLERANCE);
        let error = metrics.reliability.as_ref().unwrap().expected_error.unwrap();
        close("expected calibration error", error, &expected["expected_calibration_error"]);
        for (place, bin) in metrics.reliability.as_ref().unwrap().bins.iter().enumerate() {
            assert_eq!(bin.count, expected["bin_counts"][place].as_u64().unwrap(), "{case}: bin {place}");
        }
    }
}

#[test]
fn metrics_of_label_sets_equal_scikit_learns() {
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let cases = expected["label_sets"].as_object().unwrap();
    assert!(cases.len() >= 2, "{} cases", cases.len());
    for (case, expected) in cases {
        let labels = expected["labels"].as_u64().unwrap() as usize;
        let mut evaluation = Evaluation::of_label_sets(&names(labels), 0);
        for (gold, scores) in texts(LABEL_SETS, case) {
            let decided: Vec<usize> = (0..labels).filter(|&id| scores[id] >= 0.5).collect();
            evaluation.observe(TEXT, &gold, &prediction(&scores), &decided).unwrap();
        }
        let evaluation::Metrics::LabelSets(metrics) = evaluation.metrics() else { panic!("label sets") };
        assert_eq!(metrics.evaluated, expected["evaluated"].as_u64().unwrap(), "{case}");
        let close = |what: &str, ours: f64| assert_close(case, what, ours, &expected[what], TOLERANCE);
        close("subset_accuracy", metrics.subset_accuracy.unwrap().value);
        close("hamming_loss", metrics.hamming_loss.unwrap());
        assert_label_scores(case, &metrics.per_label, expected);
    }
}

#[test]
fn metrics_of_values_equal_scipys() {
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let cases = expected["values"].as_object().unwrap();
    assert!(cases.len() >= 3, "{} cases", cases.len());
    for (case, expected) in cases {
        let mut evaluation = Evaluation::of_values();
        for (gold, scores) in texts(VALUES, case) {
            evaluation.observe(TEXT, &gold, &prediction(&scores), &[]).unwrap();
        }
        let evaluation::Metrics::Values(metrics) = evaluation.metrics() else { panic!("values") };
        assert_eq!(metrics.evaluated, expected["evaluated"].as_u64().unwrap(), "{case}");
        let figures = [
            ("pearson", metrics.pearson),
            ("spearman", metrics.spearman),
            ("mean_squared_error", metrics.mean_squared_error),
        ];
        for (what, ours) in figures {
            match ours {
                // Relative, for values far from 1.
                Some(ours) => {
                    let tolerance = TOLERANCE * ours.abs().max(1.0);
                    assert_close(case, what, ours, &expected[what], tolerance);
                }
                None => assert!(expected[what].is_null(), "{case}: {what}"),
            }
        }
    }
}

/// The fixture covers its purpose: a class that is never predicted and one that is never gold.
#[test]
fn the_mixed_case_has_empty_rows_and_columns() {
    let counts = evaluate("mixed", 5, 0.0).per_class.counts;
    assert_eq!((counts[3].predicted, counts[4].support), (0, 0));
    assert!(counts[3].support > 0 && counts[4].predicted > 0);
}

#[test]
fn mcnemars_test_is_that_of_scipys_distributions() {
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let cases = expected["mcnemar"].as_array().unwrap();
    assert!(cases.len() >= 10 && cases.iter().any(|case| case["chi_square"].is_null()));
    for case in cases {
        let count = |name: &str| case[name].as_u64().unwrap();
        let agreement =
            Agreement { only_this: count("only_this"), only_other: count("only_other"), ..Agreement::default() };
        let test = agreement.mcnemar();
        assert_eq!(test.chi_square, case["chi_square"].as_f64(), "{case}");
        // Relative: some are far below any absolute tolerance.
        let p_value = case["p_value"].as_f64().unwrap();
        assert!((test.p_value - p_value).abs() <= TOLERANCE * p_value, "{case}: {}", test.p_value);
    }
}

fn share_of(figures: &[Figure], key: &str) -> f64 {
    match figures.iter().find(|figure| figure.key == key).unwrap_or_else(|| panic!("no {key}")).value {
        FigureValue::Number(number) | FigureValue::Share(number) => number.unwrap(),
        FigureValue::Estimate(share) => share.unwrap().value,
        FigureValue::MinScore(score) => score.unwrap().into(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_minimum_score_is_that_of_trying_all_with_scipys_intervals() {
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let mut found = 0;
    for (case, targets) in expected["min_scores"].as_object().unwrap() {
        for expected in targets.as_array().unwrap() {
            let classes = texts(PREDICTIONS, case)[0].1.len();
            let mut evaluation = Evaluation::of_classes(&names(classes), 0, ScoreFunction::Softmax);
            evaluation.seek_precision(expected["target"].as_f64().unwrap());
            for (gold, scores) in texts(PREDICTIONS, case) {
                let prediction = prediction(&scores);
                evaluation.observe(TEXT, &gold, &prediction, &[prediction.best().label_id]).unwrap();
            }
            let figures = evaluation.view().figures;
            let Some(wanted) = expected["found"].as_array() else {
                assert!(figures.iter().any(|figure| figure.value == FigureValue::MinScore(None)), "{case}: {expected}");
                continue;
            };
            found += 1;
            let [score, coverage, precision, low, high] = &wanted[..] else { panic!("{expected}") };
            assert_close(case, "score", share_of(&figures, "min_score"), score, 0.0);
            assert_close(case, "coverage", share_of(&figures, "min_score_coverage"), coverage, TOLERANCE);
            let interval = figures.iter().find(|figure| figure.key == "min_score_precision").unwrap();
            let FigureValue::Estimate(Some(interval)) = interval.value else { panic!("{interval:?}") };
            for (ours, theirs) in [(interval.value, precision), (interval.low, low), (interval.high, high)] {
                assert_close(case, "precision", ours, theirs, TOLERANCE);
            }
        }
    }
    assert!(found >= 6, "{found}");
}

/// F1 of one label with a threshold.
fn f1(scored: &[(f32, bool)], threshold: f32) -> f64 {
    let given = scored.iter().filter(|(score, _)| *score >= threshold).count();
    let hits = scored.iter().filter(|(score, has)| *score >= threshold && *has).count();
    (2 * hits) as f64 / (given + scored.iter().filter(|(_, has)| *has).count()) as f64
}

#[test]
fn a_calibration_is_that_of_scipy_and_scikit_learn() {
    let expected: Value = serde_json::from_str(EXPECTED).unwrap();
    let cases = expected["logits"].as_object().unwrap();
    assert!(cases.len() >= 4, "{} cases", cases.len());
    for (case, expected) in cases {
        let labels = expected["labels"].as_u64().unwrap() as usize;
        let is_several = expected["best_f1"].is_array();
        let function = if is_several { ScoreFunction::Sigmoid } else { ScoreFunction::Softmax };
        let mut sample = Sample::new(labels);
        for (gold, logits) in texts(LOGITS, case) {
            let gold: Value = serde_json::from_str(&gold).unwrap();
            let ids = gold.as_array().cloned().unwrap_or_else(|| vec![gold]);
            let ids: Vec<usize> = ids.iter().map(|id| id.as_u64().unwrap() as usize).collect();
            sample.push(&Prediction::from_logits(&logits, function, Extent::Whole), &ids);
        }
        let problem = if is_several { Problem::MultiLabel } else { Problem::SingleLabel };
        let fitted = Fitted::new(&sample, &names(labels), problem).unwrap();
        let temperature = fitted.parameters.temperature;
        let relative = 1e-12 * temperature;
        assert_close(case, "temperature", temperature, &expected["temperature"], relative);
        for (figures, expected) in [(&fitted.before, &expected["before"]), (&fitted.after, &expected["after"])] {
            for (key, theirs) in expected.as_object().unwrap() {
                assert_close(case, key, share_of(figures, key), theirs, 1e-7);
            }
        }
        if !is_several {
            // Its minimum is one of the values of a function that is flat there.
            let theirs = &expected["temperature_of_scikit_learn"];
            assert_close(case, "temperature", temperature, theirs, 1e-6 * temperature);
            assert_eq!(fitted.parameters.thresholds, None);
            continue;
        }
        for (id, threshold) in fitted.parameters.thresholds.unwrap().into_iter().enumerate() {
            let scored: Vec<(f32, bool)> = (0..sample.len())
                .map(|text| {
                    let (logits, gold) = sample.text(text);
                    let prediction = Prediction::from_logits(&logits[id..=id], function, Extent::Whole);
                    (prediction.at_temperature(temperature, function).best().score, gold[id])
                })
                .collect();
            match expected["best_f1"][id].is_null() {
                true => assert_eq!(threshold, 0.5, "{case}: label {id}"),
                false => assert_close(case, "F1", f1(&scored, threshold), &expected["best_f1"][id], TOLERANCE),
            }
        }
    }
}
