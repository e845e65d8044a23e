//! How far scores can be trusted: calibration, the score for a precision, and what a dtype costs, through the program.

use crate::harness::{builtin, Agnews, Outcome};
use crate::problems::{id2label, Model};
use serde_json::{json, Value};
use std::path::{Path, PathBuf};

/// Gold labels and texts. The embedded model is wrong about some, and unsure about others.
const ROWS: [(&str, &str); 14] = [
    ("sports", "The striker scored twice to win the derby."),
    ("sports", "The keeper saved a penalty in the cup final."),
    ("sports", "The runner broke the record at the championship."),
    ("business", "Shares of the carmaker fell nine percent."),
    ("business", "The central bank raised interest rates."),
    ("world", "Chip maker posts record profit on demand for phones."),
    ("world", "Peace talks resumed in Geneva on Monday."),
    ("world", "The central bank of the island joined peace talks."),
    ("world", "The president met ministers after the election."),
    ("sci/tech", "A new telescope found water in the air of a distant planet."),
    ("sci/tech", "The company released a new version of its browser."),
    ("business", "The software firm sold its phone unit."),
    ("sci/tech", "The bank closed its office in the village."),
    ("business", "The team bought the player for nine million."),
];

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        let rows: String = ROWS.iter().map(|(gold, text)| format!("{gold},{text}\n")).collect();
        folder.write("gold.csv", &format!("topic,text\n{rows}"));
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.path(name)).unwrap()).unwrap()
    }

    fn agnews(&self, args: &[&str]) -> Agnews {
        builtin().args(["--dtype", "f32"]).arg("-f").arg(self.path("gold.csv")).args(args)
    }

    fn labelled(&self, args: &[&str]) -> Agnews {
        self.agnews(&["--label-field", "topic"]).args(args)
    }

    fn calibrate(&self, args: &[&str]) -> Outcome {
        self.labelled(args).arg("--calibrate").arg(self.path("c.json")).run()
    }

    fn calibrated(&self, args: &[&str]) -> Agnews {
        self.agnews(args).arg("--calibration").arg(self.path("c.json"))
    }
}

fn records(agnews: Agnews) -> Vec<Value> {
    let stdout = agnews.args(["--format", "jsonl", "-k", "9", "-q"]).quiet_success();
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// In the order of the label ids.
fn scores(record: &Value) -> Vec<f64> {
    let scores = record["scores"].as_array().unwrap().iter();
    let mut scores: Vec<(u64, f64)> =
        scores.map(|score| (score["label_id"].as_u64().unwrap(), score["score"].as_f64().unwrap())).collect();
    scores.sort_by_key(|(id, _)| *id);
    scores.into_iter().map(|(_, score)| score).collect()
}

fn softmax(logits: impl Iterator<Item = f64>) -> Vec<f64> {
    let exps: Vec<f64> = logits.map(f64::exp).collect();
    exps.iter().map(|exp| exp / exps.iter().sum::<f64>()).collect()
}

#[test]
fn a_calibration_divides_the_logits_everywhere() {
    let folder = Folder::new();
    let outcome = folder.calibrate(&[]).success().tells(&["14 texts are few"]);
    outcome.prints_parts(&["temperature  ", "before", "after", "log loss", "in 5 parts"]);
    let file = folder.json("c.json");
    assert_eq!(
        (&file["agnews_calibration"], &file["model"], &file["commit"]),
        (&json!(1), &json!("builtin"), &Value::Null)
    );
    assert_eq!(file["labels"], json!(["World", "Sports", "Business", "Sci/Tech"]));
    assert_eq!((&file["dtype"], &file["texts"], &file["thresholds"]), (&json!("f32"), &json!(14), &Value::Null));
    assert_eq!(file["support"], json!([4, 3, 4, 3]));
    // Without it the figures are those of the evaluation.
    folder.labelled(&["--no-results", "--report"]).arg(folder.path("plain.json")).run().success();
    let plain = folder.json("plain.json");
    for key in ["log_loss", "expected_calibration_error", "accuracy"] {
        assert_eq!(file["before"][key], plain[key]);
    }
    // The scores are the softmax of the divided logits, in records and in what is decided and evaluated by them.
    let temperature = file["temperature"].as_f64().unwrap();
    assert!((temperature - 1.0).abs() > 0.01, "{temperature}");
    let logits = records(folder.agnews(&["--score-function", "none"]));
    let calibrated = records(folder.calibrated(&[]));
    let mut loss = 0.0;
    for ((logits, record), (gold, _)) in logits.iter().zip(&calibrated).zip(ROWS) {
        let wanted = softmax(scores(logits).into_iter().map(|logit| logit / temperature));
        for (ours, wanted) in scores(record).iter().zip(&wanted) {
            assert!((ours - wanted).abs() < 1e-6, "{ours} for {wanted}");
        }
        let names = ["world", "sports", "business", "sci/tech"];
        loss -= wanted[names.iter().position(|name| *name == gold).unwrap()].ln() / ROWS.len() as f64;
    }
    let limit = calibrated.iter().map(|record| record["score"].as_f64().unwrap()).sum::<f64>() / ROWS.len() as f64;
    let sure = records(folder.calibrated(&["--min-score", &limit.to_string()]));
    for (record, sure) in calibrated.iter().zip(&sure) {
        assert_eq!(!sure["label"].is_null(), record["score"].as_f64().unwrap() >= limit, "{sure}");
    }
    let report = folder.path("calibrated.json");
    let report = report.to_str().unwrap();
    folder.calibrated(&["--label-field", "topic", "--no-results", "--report", report]).run().success();
    let after = folder.json("calibrated.json");
    assert!((after["log_loss"].as_f64().unwrap() - loss).abs() < 1e-6);
    assert!(after["log_loss"].as_f64() < plain["log_loss"].as_f64(), "on the texts that it is fitted to, it is better");
    assert_eq!(after["accuracy"], plain["accuracy"]);
}

#[test]
fn several_labels_get_thresholds_too() {
    let names = id2label(["joy", "anger", "fear"]);
    let several = ("problem_type", json!("multi_label_classification"));
    let model = Model::of_three_labels(&[names.clone(), several.clone()]);
    let letters = ('a'..='z').map(|letter| format!("{letter} {letter}{letter} bank"));
    let texts: Vec<String> = letters.collect();
    let rows = texts.iter().enumerate().map(|(place, text)| {
        let gold: &[&str] = [&["joy"][..], &["joy", "anger"], &[], &["anger", "fear"]][place % 4];
        format!("{}\n", json!({ "text": text, "gold": gold }))
    });
    let gold = model.write("gold.jsonl", &rows.collect::<String>());
    let file = model.write("c.json", "");
    let run = || model.agnews().arg("-f").arg(&gold);
    let outcome = run().args(["--label-field", "gold", "--calibrate"]).arg(&file).run().success();
    outcome.prints_parts(&["micro F1", "threshold", "joy", "anger", "fear"]);
    let calibration: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(calibration["problem"], "any number of labels");
    assert_eq!(calibration["thresholds"][2], 0.5, "6 texts are too few: {calibration}");
    // Thresholds of our own show that each label has its own.
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut changed = calibration.clone();
        change(&mut changed);
        std::fs::write(&file, changed.to_string()).unwrap();
        run().arg("--calibration").arg(&file)
    };
    let temperature = calibration["temperature"].as_f64().unwrap();
    let logits = records(run().args(["--score-function", "none"]));
    let given = records(changed(&|file| file["thresholds"] = json!([0.4, 0.5, 0.6])));
    for (logits, given) in logits.iter().zip(&given) {
        let scores: Vec<f64> = scores(logits).iter().map(|logit| 1.0 / (1.0 + (-logit / temperature).exp())).collect();
        let mut ids: Vec<u64> =
            given["labels"].as_array().unwrap().iter().map(|label| label["label_id"].as_u64().unwrap()).collect();
        ids.sort_unstable();
        let wanted: Vec<u64> = (0..3).filter(|&id| scores[id as usize] >= [0.4, 0.5, 0.6][id as usize]).collect();
        assert_eq!(ids, wanted, "{scores:?}");
    }
    let all = records(changed(&|_| {}).args(["--threshold", "0"]));
    assert!(all.iter().all(|record| record["labels"].as_array().unwrap().len() == 3), "--threshold goes before it");
    for (key, value, fault) in [
        ("thresholds", json!([0.5]), "1 thresholds for 3 labels"),
        ("thresholds", Value::Null, "have thresholds"),
        ("temperature", json!(0), "not a positive number"),
        ("agnews_calibration", json!(2), "version 2"),
    ] {
        changed(&|file| file[key] = value.clone()).run().code_is(1).tells(&["c.json is not a calibration", fault]);
    }
    let single = Model::of_three_labels(&[names]);
    std::fs::write(&file, calibration.to_string()).unwrap();
    let run = single.agnews().arg("text").arg("--calibration").arg(&file).run().code_is(1);
    run.tells(&["the calibration is for", "not for", "--calibrate"]);
}

#[test]
fn a_calibration_is_for_one_checkpoint_and_its_labels() {
    let folder = Folder::new();
    folder.calibrate(&[]).success();
    let refused = |args: &[&str], parts: &[&str]| {
        folder.calibrated(args).run().code_is(1).tells(parts).tells(&["the calibration is for", "--calibrate"]);
    };
    refused(&["--labels", "a,b,c,d"], &["the labels World, Sports, Business, Sci/Tech, not for a, b, c, d"]);
    let other = Model::of_three_labels(&[]);
    let run = |model: &Model| model.agnews().arg("text").arg("--calibration").arg(folder.path("c.json")).run();
    let not_for = format!("not for {} (SHA-256", other.folder.path().display());
    run(&other).code_is(1).tells(&["the calibration is for builtin (SHA-256", &not_for, "--calibrate"]);
    // How logits are computed may differ, and is told.
    let other_dtype = builtin().args(["--dtype", "bf16", "text", "--calibration"]).arg(folder.path("c.json")).run();
    other_dtype.success().tells(&["fitted with f32, not bf16"]);
    folder.calibrated(&["--max-length", "64"]).run().success().tells(&["at most 512 tokens", "64"]);
    folder.calibrated(&["--long-text", "mean"]).run().success().tells(&["truncated, not the mean"]);
    folder.calibrated(&["--windows"]).run().success().tells(&["not windows of long texts"]);
    // Logits and values are no probabilities.
    folder.calibrated(&["--score-function", "none"]).run().code_is(1).tells(&["only probabilities"]);
    folder.calibrate(&["--score-function", "sigmoid"]).code_is(1).tells(&["by softmax"]);
    folder
        .labelled(&["--score-function", "none", "--target-precision", "0.9"])
        .run()
        .code_is(1)
        .tells(&["probabilities"]);
    let value = Model::of_one_output(&[]);
    let file = value.write("gold.csv", "text,gold\nab cd,1.5\nef,2\ngh ij,0.25\n");
    let run = value.agnews().arg("-f").arg(&file).args(["--label-field", "gold", "--calibrate"]);
    run.arg(folder.path("v.json")).run().code_is(1).tells(&["predicts a value"]);
    assert!(!folder.path("v.json").exists());
}

#[test]
fn the_same_files_in_another_folder_are_the_same_checkpoint() {
    let [first, second] = [(); 2].map(|()| Model::of_three_labels(&[]));
    let rows: String = (0..12).map(|place| format!("text {place} bank,{}\n", place % 3)).collect();
    let gold = first.write("gold.csv", &format!("text,gold\n{rows}"));
    // Among the checkpoint's files, of which it is none.
    let file = first.write("calibration.json", "");
    let run = first.agnews().arg("-f").arg(&gold).args(["--label-field", "gold", "--calibrate"]).arg(&file).run();
    run.success();
    for model in [&first, &second] {
        model.agnews().args(["-k", "3", "text", "-q", "--calibration"]).arg(&file).quiet_success();
    }
    let changed = Model::of_three_labels(&[("layer_norm_eps", json!(1e-5))]);
    changed.agnews().arg("text").arg("--calibration").arg(&file).run().code_is(1).tells(&["the calibration is for"]);
}

#[test]
fn labels_of_ones_own_are_calibrated_with_their_hypothesis() {
    let nli = Model::of_three_labels(&[id2label(["contradiction", "neutral", "entailment"])]);
    let rows: String =
        (0..12).map(|place| format!("{} bank,{}\n", "abcdefghijkl".split_at(place).1, place % 2)).collect();
    let gold = nli.write("gold.csv", &format!("text,gold\n{rows}"));
    let file = nli.write("c.json", "");
    let run = |args: &[&str]| nli.agnews().arg("-f").arg(&gold).args(["--zero-shot", "sport,money"]).args(args);
    for multi in [&[][..], &["--multi-label"]] {
        run(multi).args(["--label-field", "gold", "--calibrate"]).arg(&file).run().success();
        let temperature: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let temperature = temperature["temperature"].as_f64().unwrap();
        let all = [multi, &["--format", "jsonl", "-k", "2"]].concat();
        let plain = records(run(&all));
        let calibrated = records(run(&all).arg("--calibration").arg(&file));
        let odds = |score: f64| (score / (1.0 - score)).ln();
        for (plain, calibrated) in plain.iter().zip(&calibrated) {
            // The log odds of two labels, and of one against its contradiction, are differences of logits.
            for (plain, calibrated) in scores(plain).into_iter().zip(scores(calibrated)) {
                let (ours, wanted) = (odds(calibrated), odds(plain) / temperature);
                assert!((ours - wanted).abs() < 1e-4 * (1.0 + wanted.abs()), "{ours} for {wanted}, {temperature}");
            }
        }
        let other = [multi, &["--hypothesis", "About {}."]].concat();
        run(&other).arg("--calibration").arg(&file).run().code_is(1).tells(&["the hypothesis", "\"About {}.\""]);
    }
}

#[test]
fn what_cannot_be_fitted_well_is_told() {
    let folder = Folder::new();
    let gold = |rows: &[(&str, &str)]| {
        let rows: String = rows.iter().map(|(gold, text)| format!("{gold},{text}\n")).collect();
        folder.write("gold.csv", &format!("topic,text\n{rows}"));
    };
    gold(&ROWS[..9]);
    folder.calibrate(&[]).code_is(1).tells(&["9 texts with gold labels are too few", "10"]);
    assert!(!folder.path("c.json").exists(), "nothing is written");
    gold(&[ROWS[0]; 12]);
    folder.calibrate(&[]).success().tells(&["no text has a wrong label", "0.01 is the lowest", "the same gold label"]);
    gold(&[("business", ROWS[0].1); 12]);
    folder.calibrate(&[]).success().tells(&["worse than chance", "100 is the highest"]);
    gold(&[("cooking", ROWS[0].1); 12]);
    folder.calibrate(&[]).code_is(1).tells(&["\"cooking\""]);
    // Whoever takes the file for the one to read loses nothing.
    let data = folder.write("data.json", "[{\"text\": \"a\", \"topic\": \"sports\"}]");
    let run = folder.labelled(&["--calibrate"]).arg(&data).run().code_is(1);
    run.tells(&["data.json would be overwritten", "not a calibration"]);
    assert!(std::fs::read_to_string(data).unwrap().starts_with("[{"));
    folder.labelled(&["--calibrate", "x.csv"]).run().code_is(2).tells(&["are read with -f"]);
    folder.agnews(&["--calibrate", "x.json"]).run().code_is(2).tells(&["--label-field"]);
}

#[test]
fn a_precision_has_a_score_that_reaches_it() {
    let folder = Folder::new();
    let rows: String = (0..8).flat_map(|_| ROWS).map(|(gold, text)| format!("{gold},{text}\n")).collect();
    folder.write("gold.csv", &format!("topic,text\n{rows}"));
    let report = folder.path("r.json");
    let seek = |target: &str| {
        let run = folder.labelled(&["--no-results", "--target-precision", target, "--report"]).arg(&report).run();
        (run.success(), folder.json("r.json"))
    };
    let (outcome, found) = seek("0.8");
    let outcome = outcome.prints_parts(&["wished precision", "80.00 %", "minimum score for it", "coverage with it"]);
    assert!(found["min_score_precision"]["low"].as_f64().unwrap() >= 0.8, "{found}");
    // Given as --min-score as it is printed, it has that coverage and precision.
    let score = outcome.stdout.lines().find(|line| line.starts_with("minimum score")).unwrap();
    let score = score.split_whitespace().last().unwrap();
    let run = folder.labelled(&["--no-results", "--min-score", score, "--report"]).arg(&report).run();
    run.success();
    let given = folder.json("r.json");
    assert_eq!(given["coverage"], found["min_score_coverage"]);
    assert_eq!(given["selective_accuracy"], found["min_score_precision"]);
    let (outcome, none) = seek("0.99");
    outcome.prints_parts(&["no score reaches it on these texts"]);
    assert!(none["min_score"].is_null() && none["min_score_coverage"].is_null());
}

/// What two runs with JSON Lines show of the same comparison.
fn differences(runs: [&[Value]; 2]) -> (Vec<usize>, f64, f64) {
    let pairs = || runs[0].iter().zip(runs[1]);
    let changed = pairs().enumerate().filter(|(_, (first, second))| first["label_id"] != second["label_id"]);
    let largest: Vec<f64> = pairs()
        .map(|(first, second)| {
            let scores = scores(first).into_iter().zip(scores(second));
            scores.map(|(first, second)| (first - second).abs()).fold(0.0, f64::max)
        })
        .collect();
    let most = largest.iter().copied().fold(0.0, f64::max);
    (changed.map(|(place, _)| place).collect(), most, largest.iter().sum::<f64>() / largest.len() as f64)
}

#[test]
fn two_dtypes_are_compared_as_two_runs_would_be() {
    let model = Model::of_three_labels(&[]);
    // Random weights: roundings change some labels.
    let words = ["bank", "the", "score", "ten", "two", "peace", "talk", "fell", "new", "share"];
    let text =
        |place: usize| [place % 10, place / 10 % 10, place * 7 % 10, place / 3 % 10].map(|it| words[it]).join(" ");
    let rows: String = (0..300).map(|place| format!("{},{}\n", text(place), place * 5 % 3)).collect();
    let gold = model.write("gold.csv", &format!("text,gold\n{rows}\"\",1\n"));
    let agnews = |args: &[&str]| {
        let run = crate::harness::agnews().arg("-m").arg(gold.parent().unwrap()).arg("-f").arg(&gold);
        run.args(["--text-field", "text"]).args(args)
    };
    let of = |dtype: &str| -> Vec<Value> {
        let mut records = records(agnews(&["--dtype", dtype]));
        records.pop().filter(|blank| blank["label"].is_null()).expect("the last text is blank");
        records
    };
    let report = model.write("report.json", "");
    let compare = |args: &[&str]| {
        let outcome = agnews(&["--compare", "f32,int8", "-q", "--report"]).arg(&report).args(args).run().success();
        let json: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
        (outcome, json)
    };
    let (changed, largest, mean) = differences([&of("f32"), &of("int8")]);
    assert!(!changed.is_empty() && changed.len() < 150, "{} labels changed", changed.len());
    let (outcome, json) = compare(&[]);
    assert_eq!((&json["dtypes"], &json["texts"]), (&json!(["f32", "int8"]), &json!(300)));
    assert_eq!(json["labels_changed"], changed.len());
    for (key, wanted) in [("largest_score_change", largest), ("mean_score_change", mean)] {
        let ours = json[key].as_f64().unwrap();
        assert!((ours - wanted).abs() < 1e-6, "{key}: {ours} for {wanted}");
    }
    for speed in json["texts_per_second"].as_array().unwrap() {
        assert!(speed.as_f64().unwrap() > 0.0);
    }
    assert!(json["figures"].is_null() && json["mcnemar"].is_null());
    let lines = json["first_changes"].as_array().unwrap().iter().map(|change| change["line"].as_u64().unwrap());
    let wanted: Vec<u64> = changed.iter().take(20).map(|place| *place as u64 + 2).collect();
    assert_eq!(lines.collect::<Vec<_>>(), wanted);
    outcome.prints_parts(&[&format!("labels changed        {} of 300", changed.len()), "in f32", "in int8"]);

    let (outcome, json) = compare(&["--label-field", "gold"]);
    outcome.prints_parts(&["accuracy", "McNemar's test"]);
    let evaluate = |dtype: &str, args: &[&str]| -> Value {
        let run = agnews(&["--dtype", dtype, "--label-field", "gold", "--no-results", "--report"]).arg(&report);
        run.args(args).run().success();
        serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap()
    };
    let earlier = model.write("int8.jsonl", "");
    let records = agnews(&["--dtype", "int8", "--format", "jsonl", "-q"]).quiet_success();
    std::fs::write(&earlier, records).unwrap();
    let [first, second] = [("f32", &["--against", earlier.to_str().unwrap()][..]), ("int8", &[])]
        .map(|(dtype, args)| evaluate(dtype, args));
    for key in ["accuracy", "macro_f1", "log_loss", "expected_calibration_error"] {
        assert_eq!(json["figures"][key], json!([first[key], second[key]]), "{key}");
    }
    assert_eq!(json["mcnemar"], first["against"]["mcnemar"]);
}

#[test]
fn a_comparison_is_of_what_a_run_decides() {
    let folder = Folder::new();
    let compare = |args: &[&str]| builtin().args(["--compare", "f32,bf16"]).args(args).run();
    let path = folder.path("gold.csv");
    let path = path.to_str().unwrap();
    compare(&["-f", path]).success().prints_parts(&["texts per second", "labels changed        0 of 14 (0.00 %)"]);
    compare(&[" "]).code_is(1).tells(&["nothing to compare"]);
    // A text that is unsure in one of them only has another label.
    let records = [("f32", 0), ("bf16", 1)].map(|(dtype, _)| {
        let run = builtin().args(["--dtype", dtype, "-f", path, "--format", "jsonl", "-q"]).quiet_success();
        run.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["score"].as_f64().unwrap())
            .collect::<Vec<_>>()
    });
    let (first, second) = records[0].iter().zip(&records[1]).find(|(first, second)| first != second).unwrap();
    let limit = f64::midpoint(*first, *second).to_string();
    let unsure =
        |scores: &[f64]| scores.iter().map(|score| *score < f64::midpoint(*first, *second)).collect::<Vec<_>>();
    let changed =
        unsure(&records[0]).iter().zip(unsure(&records[1])).filter(|(first, second)| **first != *second).count();
    assert!(changed > 0);
    compare(&["-f", path, "--min-score", &limit])
        .success()
        .prints_parts(&[&format!("labels changed        {changed} of 14"), "– in"]);
    let wrong = folder.write("wrong.csv", "topic,text\ncooking,The striker scored.\nsports,The striker scored.\n");
    let run = compare(&["-f", wrong.to_str().unwrap(), "--label-field", "topic"]).code_is(1);
    run.prints_parts(&["accuracy"]).tells(&["\"cooking\"", "1 gold label is not one of the model's"]);
    let value = Model::of_one_output(&[]);
    let run = crate::harness::agnews().arg("-m").arg(value.write("x", "").parent().unwrap_or(Path::new(".")));
    let outcome = run.args(["--compare", "f32,int8", "ab cd"]).run().success();
    outcome.prints_parts(&["largest score change"]);
    for args in [&["--compare", "f32,int8", "-o", "x"][..], &["--compare", "f32,int8", "--windows"]] {
        builtin().args(args).arg("text").run().code_is(2).tells(&["--compare"]);
    }
}
