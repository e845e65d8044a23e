//! Texts longer than the model, as windows: pooled into one record, or a record for each.

use crate::harness::{agnews, builtin, fixture, Agnews};
use serde_json::Value;

const TEXT: &str = "The striker scored twice, and the crowd sang. Shares of the club fell nine percent on Monday. \
                    Peace talks resumed in Geneva – they'd begun in May.";

fn records(agnews: Agnews) -> Vec<Value> {
    let stdout = agnews.args(["--format", "jsonl", "--quiet"]).run().success().stdout;
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Scores in the order of the label ids.
fn scores(record: &Value) -> Vec<f64> {
    let mut scores: Vec<(u64, f64)> = record["scores"]
        .as_array()
        .unwrap()
        .iter()
        .map(|score| (score["label_id"].as_u64().unwrap(), score["score"].as_f64().unwrap()))
        .collect();
    scores.sort_by_key(|(id, _)| *id);
    scores.into_iter().map(|(_, score)| score).collect()
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let exps: Vec<f64> = logits.iter().map(|logit| logit.exp()).collect();
    exps.iter().map(|exp| exp / exps.iter().sum::<f64>()).collect()
}

fn of_max_length(tokens: &str) -> Agnews {
    builtin().args(["--max-length", tokens, "-k", "4", "--dtype", "f32"])
}

#[test]
fn one_record_is_the_pooled_logits_of_the_windows() {
    let windows = records(of_max_length("12").args(["--stride", "4", "--windows", "--score-function", "none", TEXT]));
    assert!(windows.len() > 3);
    let logits: Vec<Vec<f64>> = windows.iter().map(scores).collect();
    let label = |id: usize| logits.iter().map(move |row| row[id]);
    let mean: Vec<f64> = (0..4).map(|id| label(id).sum::<f64>() / logits.len() as f64).collect();
    let max: Vec<f64> = (0..4).map(|id| label(id).fold(f64::NEG_INFINITY, f64::max)).collect();
    for (how, logits) in [("mean", mean), ("max", max)] {
        let pooled = records(of_max_length("12").args(["--stride", "4", "--long-text", how, TEXT, "short"]));
        assert_eq!(pooled.len(), 2);
        assert_eq!(pooled[0]["windows"], windows.len());
        assert_eq!((pooled[0].get("truncated"), pooled[1].get("windows")), (None, None));
        for (ours, wanted) in scores(&pooled[0]).iter().zip(softmax(&logits)) {
            assert!((ours - wanted).abs() < 1e-6, "{how}: {ours} for {wanted}");
        }
        let whole = records(of_max_length("12").arg("short"));
        assert_eq!(pooled[1], whole[0], "a short text is what it is without windows");
    }
}

#[test]
fn windows_tell_their_range_and_their_text() {
    let windows = records(builtin().args(["--max-length", "12", "--windows", "--with-text", "-n", TEXT, " ", "short"]));
    let (blank, short) = (&windows[windows.len() - 2], &windows[windows.len() - 1]);
    assert!(blank["start"].is_null() && blank["end"].is_null() && blank["label"].is_null() && blank["line"] == 2);
    assert_eq!((&short["start"], &short["end"], &short["text"]), (&0.into(), &5.into(), &"short".into()));
    let windows = &windows[..windows.len() - 2];
    let mut end = 0;
    for window in windows {
        let place = |name: &str| window[name].as_u64().unwrap() as usize;
        let part: String = TEXT.chars().skip(place("start")).take(place("end") - place("start")).collect();
        assert_eq!(window["text"], part);
        let between: String = TEXT.chars().skip(end).take(place("start") - end).collect();
        assert!(between.trim().is_empty(), "{between:?} is in no window");
        // Alone, the part of the text is what the window is.
        let alone = records(builtin().arg(&part));
        assert_eq!((&alone[0]["label"], &alone[0]["score"]), (&window["label"], &window["score"]));
        end = place("end");
    }
    assert_eq!(end, TEXT.chars().count());
}

/// Its records go to standard output before all are known, to a file at once.
#[test]
fn the_windows_of_a_very_long_text_are_the_same_wherever_they_go() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.txt"), folder.path().join("out.jsonl"));
    // A word of 200 letters is one token: many windows, and little to compute.
    let long: Vec<String> = (0..1400).map(|word| format!("{word:0>200}")).collect();
    std::fs::write(&input, format!("short\n{}\n\nshort again\n", long.join(" "))).unwrap();
    let run = || builtin().args(["--max-length", "12", "--windows", "-n", "-f"]).arg(&input);
    let windows = records(run());
    let of_line = |line: u64| windows.iter().filter(|window| window["line"] == line).collect::<Vec<_>>();
    assert_eq!([1, 2, 3, 4].map(|line| of_line(line).len()), [1, 140, 1, 1]);
    assert!(windows.iter().map(|window| window["line"].as_u64()).is_sorted(), "{windows:?}");
    assert!(of_line(2).iter().enumerate().all(|(place, window)| window["start"] == place * 2010), "{windows:?}");
    run().arg("-o").arg(&output).run().success();
    let in_file = std::fs::read_to_string(&output).unwrap();
    assert_eq!(in_file.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>(), windows);
}

#[test]
fn tables_have_columns_for_the_range() {
    let table =
        |args: &[&str]| builtin().args(["--max-length", "12", "--windows", "-q"]).args(args).run().success().stdout;
    let csv = table(&["--format", "csv", "-n", TEXT, ""]);
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("line,start,end,label_id,label,score"));
    assert!(lines.next().unwrap().starts_with("1,0,"), "{csv}");
    assert_eq!(lines.last(), Some("2,,,,,"), "{csv}");
    let tsv = table(&["short"]);
    assert!(tsv.starts_with("0\t5\t"), "{tsv}");
    let only = table(&["--only", "Sports,Business,World,Sci/Tech", "-n", TEXT]);
    assert!(only.starts_with("1:The striker scored") && only.lines().count() > 2, "{only}");
}

#[test]
fn labels_of_ones_own_are_pooled_too() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.safetensors", "vocab.txt", "tokenizer_config.json"] {
        std::fs::copy(fixture("tiny").join(name), folder.path().join(name)).unwrap();
    }
    let config = std::fs::read_to_string(fixture("tiny").join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["id2label"] = serde_json::json!({"0": "contradiction", "1": "neutral", "2": "entailment"});
    config.as_object_mut().unwrap().remove("label2id");
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let run = |args: &[&str]| {
        let zero_shot = [
            "--zero-shot",
            "sport,money",
            "--hypothesis",
            "{}",
            "--multi-label",
            "-k",
            "2",
            "--max-length",
            "40",
            "--dtype",
            "f32",
        ];
        records(agnews().arg("-m").arg(folder.path()).args(zero_shot).args(args))
    };
    let windows = run(&["--windows", TEXT]);
    assert!(windows.len() > 1);
    let short = run(&["--long-text", "mean", "short"]);
    assert_eq!(short, run(&["short"]), "a short text is what it is without windows");
    // Several labels: the score is the logistic function of the difference of two logits, and the mean of differences is
    // the difference of means.
    let difference = |score: f64| (score / (1.0 - score)).ln();
    let pooled = run(&["--long-text", "mean", TEXT]);
    for (id, score) in scores(&pooled[0]).into_iter().enumerate() {
        let mean = windows.iter().map(|window| difference(scores(window)[id])).sum::<f64>() / windows.len() as f64;
        assert!((difference(score) - mean).abs() < 1e-4, "{score}, mean of differences {mean}");
    }
}

#[test]
fn a_text_in_many_windows_is_noted_and_one_that_cannot_be_cut_is_malformed() {
    let outcome = of_max_length("12").args(["--long-text", "mean", TEXT, "short"]).run().success();
    outcome.tells(&["1 text was longer than 12 tokens and classified in", "windows"]);
    let endless = "カ".repeat(1 << 20);
    let input = format!("{endless}\nThe striker scored twice.\n");
    let outcome = builtin().args(["--long-text", "mean"]).stdin(&input).run().code_is(1).prints("\t\n1\tSports\n");
    outcome.tells(&[
        "line 1: it has 3145728 bytes",
        "(a space between two words, or between two ideographs)",
        "1 of 2 records is malformed",
    ]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (args, part) in [
        (&["--stride", "3", "x"][..], "--stride needs"),
        (&["--windows", "--long-text", "mean", "x"], "--windows"),
        (&["--windows", "--count", "x"], "--windows"),
        (&["--long-text", "sum", "x"], "sum"),
    ] {
        builtin().args(args).run().code_is(2).tells(&[part]);
    }
    builtin()
        .args(["--windows", "--stride", "10", "--max-length", "12", "x"])
        .run()
        .code_is(1)
        .tells(&["overlap by 10"]);
}
