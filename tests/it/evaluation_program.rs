//! Evaluation through the program: from a file with gold labels to metrics and reports.

use crate::harness::{builtin, Agnews, Outcome};
use serde_json::Value;
use std::path::{Path, PathBuf};

const ROWS: [(&str, &str, &str); 6] = [
    ("2", "The striker scored twice", "in the last ten minutes to win the derby."),
    ("1", "Peace talks between the two governments", "resumed in Geneva on Monday."),
    ("3", "Shares of the carmaker fell nine percent", "after it cut its profit forecast."),
    ("World", "A new telescope found water", "in the air of a distant planet."),
    ("sPORTS", "The striker won the match", "in the last minute."),
    ("", "The keeper saved a penalty", "in the cup final."),
];

struct Data {
    folder: tempfile::TempDir,
    path: PathBuf,
}

fn data(extra: &str) -> Data {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.csv");
    let rows: String = ROWS.iter().map(|(gold, title, body)| format!("{gold},\"{title}\",\"{body}\"\n")).collect();
    std::fs::write(&path, format!("class_index,title,description\n{rows}{extra}")).unwrap();
    Data { folder, path }
}

fn evaluating(data: &Data) -> Agnews {
    let options = ["--text-field", "title,description", "--label-field", "class_index", "--first-label-id", "1"];
    builtin().arg("-f").arg(&data.path).args(options)
}

fn report(data: &Data, name: &str, prepare: impl FnOnce(Agnews) -> Agnews) -> (String, Outcome) {
    let path = data.folder.path().join(name);
    let outcome = prepare(evaluating(data).arg("--no-results").arg("--report").arg(&path)).run();
    (std::fs::read_to_string(path).unwrap(), outcome)
}

#[test]
fn the_evaluation_is_printed_after_the_results_or_alone() {
    let results = "1\tSports\n0\tWorld\n2\tBusiness\n3\tSci/Tech\n1\tSports\n1\tSports\n";
    let told = [
        "80.00 % (95 % interval",
        "texts evaluated             5\n",
        "1 without a gold label",
        "100.00 %",
        "macro average",
    ];
    evaluating(&data("")).run().success().prints(results).tells(&told);
    evaluating(&data("")).arg("--no-results").run().success().prints_parts(&told);
}

#[test]
fn records_that_cannot_be_compared_are_counted_and_left_out() {
    let data = data("1,,\n9,The keeper,saved a penalty\n1,two fields\n");
    let outcome = evaluating(&data).run().code_is(1);
    assert_eq!(outcome.stdout.lines().count(), 9);
    assert_eq!(
        outcome.stdout.lines().nth(7),
        Some("1\tSports"),
        "an unknown gold label does not affect the prediction"
    );
    outcome.tells(&[
        "test.csv, line 9: the gold label \"9\" is not one of the model's 4 labels",
        "or an id from 1 to 4",
        "test.csv, line 10: it has 2 fields",
        "1 blank, 1 malformed, 1 without a gold label, 1 with an unknown gold label",
        "texts evaluated             5\n",
        "error: 1 of 9 records is malformed, and 1 gold label is not one of the model's; everything else is done",
    ]);
    let outcome = evaluating(&data).arg("--strict").run().code_is(1);
    assert_eq!(outcome.stdout.lines().count(), 7);
    outcome.tells(&["line 9"]);
}

#[test]
fn a_minimum_score_gives_coverage_and_selective_accuracy() {
    let (json, outcome) = report(&data(""), "report.json", |agnews| agnews.args(["--min-score", "0.9"]));
    outcome.success().prints_parts(&["coverage", "selective accuracy"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    // The accuracy still covers all texts.
    assert_eq!(report["accuracy"]["value"], 0.8);
    let records = evaluating(&data("")).args(["--format", "jsonl"]).run().success().stdout;
    let answers = [(1, 0), (0, 1), (2, 2), (0, 3), (1, 4)].into_iter().filter_map(|(gold, line)| {
        let record: Value = serde_json::from_str(records.lines().nth(line).unwrap()).unwrap();
        (record["score"].as_f64().unwrap() >= 0.9).then(|| record["label_id"] == gold)
    });
    let answers: Vec<bool> = answers.collect();
    assert!(!answers.is_empty() && answers.len() < 5, "{} answers", answers.len());
    assert_eq!(report["coverage"], answers.len() as f64 / 5.0);
    let correct = answers.iter().filter(|is_correct| **is_correct).count();
    assert_eq!(report["selective_accuracy"]["value"], correct as f64 / answers.len() as f64);
}

#[test]
fn ids_that_start_at_one_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.csv");
    let rows: String = (1..=4).map(|id| format!("{id},The striker scored twice.\n")).collect();
    std::fs::write(&path, format!("gold,text\n{rows}")).unwrap();
    let run = |args: &[&str]| builtin().arg("-f").arg(&path).args(["--label-field", "gold"]).args(args).run();
    let outcome = run(&["--no-results"]).code_is(1).prints("");
    outcome.tells(&["the gold labels seem to be ids that start at 1, not 0; try --first-label-id 1"]);
    run(&["--no-results", "--first-label-id", "1"]).success();
}

#[test]
fn nothing_to_compare_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    std::fs::write(&path, "{\"text\":\"The striker scored.\"}\n").unwrap();
    let outcome = builtin().arg("-f").arg(&path).args(["--label-field", "gold"]).run().code_is(1);
    outcome.prints("1\tSports\n").tells(&["nothing to evaluate", "\"gold\""]);
}

#[test]
fn the_json_report_agrees_with_the_records() {
    let data = data("");
    let (json, outcome) = report(&data, "report.json", |agnews| agnews);
    outcome.success();
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["model"], "builtin");
    assert_eq!(report["data"], data.path.to_str().unwrap());
    assert_eq!(report["evaluated"], 5);
    assert_eq!(report["left_out"]["no_gold_label"], 1);
    assert_eq!(report["confusion_matrix"][0], serde_json::json!([1, 0, 0, 1]));
    assert_eq!(report["classes"][3]["label"], "Sci/Tech");
    let worst = &report["most_confident_mistakes"];
    assert_eq!((worst.as_array().unwrap().len(), &worst[0]["line"]), (1, &5.into()));
    assert_eq!((&worst[0]["predicted"], &worst[0]["gold"][0]), (&"Sci/Tech".into(), &"World".into()));
    assert_eq!((&worst[0]["file"], &worst[0]["text"]), (&report["data"], &[ROWS[3].1, ROWS[3].2].join(" ").into()));
    // The same sums from the records themselves.
    let records = evaluating(&data).args(["--format", "jsonl", "-k", "4"]).run().success().stdout;
    let gold = [1, 0, 2, 0, 1];
    let mut loss = 0.0;
    for (line, gold) in records.lines().zip(gold) {
        let record: Value = serde_json::from_str(line).unwrap();
        let scores = record["scores"].as_array().unwrap();
        let score = scores.iter().find(|score| score["label_id"] == gold).unwrap()["score"].as_f64().unwrap();
        loss -= score.ln();
    }
    assert!((report["log_loss"].as_f64().unwrap() - loss / 5.0).abs() < 1e-6);
    let in_bins: u64 =
        report["calibration_bins"].as_array().unwrap().iter().map(|bin| bin["count"].as_u64().unwrap()).sum();
    assert_eq!(in_bins, 5);
}

#[test]
fn a_report_that_cannot_be_written_is_an_error_before_the_model_is_loaded() {
    let data = data("");
    let outcome = evaluating(&data).args(["--report", "/nonexistent/report.html"]).run().code_is(1).prints("");
    outcome.tells(&["/nonexistent/report.html"]);
    assert!(!Path::new("/nonexistent").exists());
}

/// The earlier run's records, made from this run's by changing labels: line 1 wrong, line 4 right, line 5 unsure.
#[test]
fn an_earlier_run_is_compared_text_by_text() {
    let data = data("");
    let records = evaluating(&data).args(["--format", "jsonl", "--with-text", "-q"]).run().success().stdout;
    let change = |(place, line): (usize, &str)| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        match place {
            0 => record["label"] = "Business".into(),
            3 => record["label"] = "World".into(),
            4 => (record["label"], record["label_id"]) = ("?".into(), Value::Null),
            _ => {}
        }
        format!("{record}\n")
    };
    let earlier: Vec<String> = records.lines().enumerate().map(change).collect();
    let path = data.folder.path().join("earlier.jsonl");
    let against = |content: &str| {
        std::fs::write(&path, content).unwrap();
        let report = data.folder.path().join("report.json");
        let run = evaluating(&data).arg("--no-results").arg("--report").arg(report).arg("--against").arg(&path);
        run.run()
    };
    let outcome = against(&earlier.concat()).success();
    outcome.prints_parts(&[
        "both right            2\n",
        "only this run right   2\n",
        "only the other right  1\n",
        "both wrong            0\n",
        "labels differ         3\n",
        "McNemar's test        p = 1.0000 (exact)\n",
        "test.csv:2: Sports, there Business, gold Sports\n",
        "test.csv:6: Sports, there –, gold Sports\n",
    ]);
    let report = std::fs::read_to_string(data.folder.path().join("report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        (&report["against"]["only_other_right"], &report["against"]["mcnemar"]["p_value"]),
        (&1.into(), &1.0.into())
    );
    assert_eq!(report["against"]["first_differences"][1]["other"], "World");

    let all = earlier.concat();
    against(&earlier[..5].concat()).code_is(1).tells(&["earlier.jsonl, line 5: the records end here", "line 7"]);
    against(&format!("{all}{}", earlier[0])).code_is(1).tells(&["line 7: there is no text for this record"]);
    against(&all.replace("striker", "keeper")).code_is(1).tells(&["line 1: its text is not that of", "line 2"]);
    against(&all.replace("Business", "Cooking"))
        .code_is(1)
        .tells(&["line 1", "\"Cooking\" is not one of this model's"]);
    against(&format!("[1]\n{all}")).code_is(1).tells(&["line 1: it is not a JSON object"]);
    against("{\"value\": 1}\n").code_is(1).tells(&["line 1: it has no \"label_id\""]);
    evaluating(&data).args(["--against", "/nonexistent.jsonl"]).run().code_is(1).tells(&["/nonexistent.jsonl"]);
    builtin().args(["--against", "x", "text"]).run().code_is(2).tells(&["--against needs --label-field"]);
}
