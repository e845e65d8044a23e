//! Predictions other than one label: several labels, a value, the relation of two texts, the user's own labels. The
//! checkpoints are the fixtures with a modified config.json; their logits are tested elsewhere.

use crate::harness::{agnews, fixture, Agnews};
use serde_json::{json, Value};
use std::fs;
use std::path::PathBuf;

/// A checkpoint in its own folder.
pub struct Model {
    pub folder: tempfile::TempDir,
}

impl Model {
    /// The three-label fixture, with `changes` applied to its config.json.
    pub fn of_three_labels(changes: &[(&str, Value)]) -> Model {
        let folder = tempfile::tempdir().unwrap();
        for name in ["model.safetensors", "vocab.txt", "tokenizer_config.json"] {
            fs::copy(fixture("tiny").join(name), folder.path().join(name)).unwrap();
        }
        Model { folder }.configured(&fixture("tiny"), changes)
    }

    /// A fixture with one output, and a vocabulary of letters.
    pub fn of_one_output(changes: &[(&str, Value)]) -> Model {
        let folder = tempfile::tempdir().unwrap();
        let source = fixture("families/bert-one-output");
        fs::copy(source.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
        let letters = ('a'..='z').flat_map(|letter| [letter.to_string(), format!("##{letter}")]);
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(String::from).into_iter();
        let config: Value = serde_json::from_slice(&fs::read(source.join("config.json")).unwrap()).unwrap();
        let rows = config["vocab_size"].as_u64().unwrap() as usize;
        let vocabulary: Vec<String> = special.chain(letters).take(rows).collect();
        fs::write(folder.path().join("vocab.txt"), vocabulary.join("\n")).unwrap();
        Model { folder }.configured(&source, changes)
    }

    fn configured(self, source: &std::path::Path, changes: &[(&str, Value)]) -> Model {
        let mut config: Value = serde_json::from_slice(&fs::read(source.join("config.json")).unwrap()).unwrap();
        for (field, value) in changes {
            config[*field] = value.clone();
        }
        fs::write(self.folder.path().join("config.json"), config.to_string()).unwrap();
        self
    }

    pub fn agnews(&self) -> Agnews {
        agnews().arg("-m").arg(self.folder.path()).args(["--dtype", "f32"])
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// The JSON record of each text.
    fn records(&self, args: &[&str]) -> Vec<Value> {
        let stdout = self.agnews().args(["--format", "jsonl"]).args(args).quiet_success();
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

pub fn id2label(names: [&str; 3]) -> (&'static str, Value) {
    ("id2label", json!({"0": names[0], "1": names[1], "2": names[2]}))
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

const TEXT: &str = "the bank raised its forecast";

/// The logits of [`TEXT`] in id order.
fn logits(model: &Model, text: &[&str]) -> Vec<f64> {
    let record = &model.records(&[&["--score-function", "none", "-k", "9"], text].concat())[0];
    let mut scores: Vec<(u64, f64)> = Vec::new();
    for score in record["scores"].as_array().unwrap() {
        scores.push((score["label_id"].as_u64().unwrap(), score["score"].as_f64().unwrap()));
    }
    scores.sort_by_key(|(id, _)| *id);
    scores.into_iter().map(|(_, score)| score).collect()
}

#[test]
fn several_labels_are_all_those_at_or_above_the_threshold() {
    let names = id2label(["joy", "anger", "fear"]);
    let model = Model::of_three_labels(&[names, ("problem_type", json!("multi_label_classification"))]);
    let scores: Vec<f64> = logits(&model, &[TEXT]).into_iter().map(sigmoid).collect();
    for threshold in ["0", "0.3", "0.5", "0.9", "1.1"] {
        let record = &model.records(&["--threshold", threshold, TEXT])[0];
        let labels = record["labels"].as_array().unwrap();
        let mut ids: Vec<usize> = labels.iter().map(|label| label["label_id"].as_u64().unwrap() as usize).collect();
        for label in labels {
            let id = label["label_id"].as_u64().unwrap() as usize;
            assert!((label["score"].as_f64().unwrap() - scores[id]).abs() < 1e-6);
        }
        ids.sort_unstable();
        let limit: f64 = threshold.parse().unwrap();
        let expected: Vec<usize> = (0..3).filter(|&id| scores[id] >= limit).collect();
        assert_eq!(ids, expected, "{threshold}: {scores:?}");
    }
    let all = model.agnews().args(["--threshold", "0", TEXT, ""]).quiet_success();
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!((lines.len(), lines[0].matches('|').count(), lines[1]), (2, 4, "\t"));
    model.agnews().args(["--min-score", "0.5", TEXT]).run().code_is(1).tells(&["any number of labels", "--threshold"]);
}

#[test]
fn the_evaluation_of_several_labels_has_its_own_metrics() {
    let names = id2label(["joy", "anger", "fear"]);
    let model = Model::of_three_labels(&[names, ("problem_type", json!("multi_label_classification"))]);
    let file = model.write(
        "gold.jsonl",
        &format!(
            "{{\"text\":\"{TEXT}\",\"gold\":[\"joy\",\"anger\",\"fear\"]}}\n{{\"text\":\"{TEXT}\",\"gold\":[]}}\n"
        ),
    );
    let evaluate = |threshold: &str| {
        let run = model.agnews().arg("-f").arg(&file).args(["--label-field", "gold", "--no-results"]);
        run.args(["--threshold", threshold]).quiet_success()
    };
    for figure in ["subset accuracy", "micro", "macro", "anger"] {
        assert!(evaluate("0").contains(figure), "{}", evaluate("0"));
    }
    assert!(evaluate("0").contains("50.00 %"), "one of two sets is right\n{}", evaluate("0"));
}

#[test]
fn one_output_is_a_value() {
    let value =
        |model: &Model, args: &[&str]| model.records(&[args, &["ab cd"]].concat())[0]["value"].as_f64().unwrap();
    let plain = Model::of_one_output(&[("problem_type", Value::Null)]);
    let logit = value(&plain, &["--score-function", "none"]);
    assert!((value(&plain, &[]) - sigmoid(logit)).abs() < 1e-6, "as transformers' pipeline, without a problem_type");
    let regression = Model::of_one_output(&[("problem_type", json!("regression"))]);
    assert_eq!(value(&regression, &[]), logit, "and with regression");
    assert_eq!(regression.agnews().args(["ab cd", ""]).quiet_success(), format!("{logit:.6}\n\n"));
    regression.agnews().args(["-k", "2", "ab"]).run().code_is(1).tells(&["a value", "--top-k"]);
    for by_label in [&["--count"][..], &["--only", "LABEL_0"]] {
        regression.agnews().args(by_label).arg("ab").run().code_is(1).tells(&["a value", "--only and --count"]);
    }
    let file = regression.write("gold.csv", "text,gold\nab cd,1.5\nef,2\ngh ij,0.25\n");
    let run = regression.agnews().arg("-f").arg(&file).args(["--label-field", "gold", "--no-results"]);
    let figures = run.quiet_success();
    for figure in ["Pearson", "Spearman", "mean squared error"] {
        assert!(figures.to_lowercase().contains(&figure.to_lowercase()), "{figures}");
    }
}

#[test]
fn pairs_come_from_a_tab_or_from_two_fields() {
    let model = Model::of_three_labels(&[]);
    let second = "the derby was won";
    let lines = model.write("pairs.txt", &format!("{TEXT}\t{second}\n\n{TEXT}\n{TEXT}\t \n"));
    let outcome =
        model.agnews().arg("--pairs").arg("-f").arg(&lines).args(["--with-text", "--scores"]).run().code_is(1);
    let records: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(records.len(), 4);
    assert!(records[0].ends_with(&format!("\t{TEXT}\t{second}")), "{records:?}");
    assert!(records[1..].iter().all(|record| record.trim_matches('\t').is_empty()), "{records:?}");
    let score = records[0].split('\t').nth(2).unwrap().to_owned();
    outcome.tells(&["line 3: it has no second text", "line 4: its second text is blank", "2 of 4"]);
    let csv = model.write("pairs.csv", &format!("a,b\n{TEXT},{second}\n"));
    let of = |fields: [&str; 2]| {
        let run = model.agnews().arg("-f").arg(&csv).args(["--text-field", fields[0], "--pair-field", fields[1]]);
        run.arg("--scores").quiet_success()
    };
    assert_eq!(of(["a", "b"]).trim_end().split('\t').nth(2), Some(score.as_str()));
    assert_ne!(of(["b", "a"]), of(["a", "b"]), "the order matters");
    let json = model.write("pairs.jsonl", &format!("{{\"a\":\"{TEXT}\",\"b\":\"{second}\"}}\n{{\"a\":\"{TEXT}\"}}\n"));
    let run = model.agnews().arg("-f").arg(&json).args(["--text-field", "a", "--pair-field", "b", "--scores"]);
    let outcome = run.run().code_is(1).tells(&["line 2: it has no \"b\""]);
    assert_eq!(outcome.stdout.lines().next().unwrap().split('\t').nth(2), Some(score.as_str()));
}

/// Recomputes the scores from the logits of each pair of text and hypothesis.
#[test]
fn labels_of_your_own_are_scored_as_in_transformers() {
    let nli = Model::of_three_labels(&[id2label(["contradiction", "neutral", "entailment"])]);
    let labels = ["sport", "money", "war"];
    let file = |label: &str| nli.write("pair.txt", &format!("{TEXT}\tthis is {label}.\n"));
    let rows: Vec<Vec<f64>> =
        labels.iter().map(|label| logits(&nli, &["--pairs", "-f", file(label).to_str().unwrap()])).collect();
    let zero_shot = |args: &[&str]| {
        let options = ["--zero-shot", "sport,money,war", "--hypothesis", "this is {}.", "-k", "3"];
        let record = nli.records(&[&options[..], args, &[TEXT]].concat()).remove(0);
        let mut scores = vec![0.0; 3];
        for score in record["scores"].as_array().unwrap() {
            let place = labels.iter().position(|label| score["label"] == *label).unwrap();
            scores[place] = score["score"].as_f64().unwrap();
        }
        scores
    };
    let sum: f64 = rows.iter().map(|row| row[2].exp()).sum();
    for (score, row) in zero_shot(&[]).iter().zip(&rows) {
        assert!((score - row[2].exp() / sum).abs() < 1e-5, "{score} {row:?}");
    }
    for (score, row) in zero_shot(&["--multi-label"]).iter().zip(&rows) {
        assert!((score - row[2].exp() / (row[0].exp() + row[2].exp())).abs() < 1e-5, "{score} {row:?}");
    }
    let plain = nli.agnews().args(["--zero-shot", "sport,money", TEXT, ""]).quiet_success();
    assert!(plain.lines().count() == 2 && plain.ends_with("\t\n"), "{plain}");
    let other = Model::of_three_labels(&[]);
    other
        .agnews()
        .args(["--zero-shot", "a,b", TEXT])
        .run()
        .code_is(1)
        .tells(&["natural language inference", "LABEL_0"]);
    nli.agnews().args(["--zero-shot", "a,b", "--hypothesis", "none", TEXT]).run().code_is(2).tells(&["--hypothesis"]);
}

/// Compares the words of each label with what `evidence` says of a text, for each label id.
fn explains(words_of: &[(usize, &Value)], evidence: impl Fn(&str) -> Vec<f64>) {
    let words: Vec<&str> = TEXT.split(' ').collect();
    let without = |place: usize| [&words[..place], &words[place + 1..]].concat().join(" ");
    let whole = evidence(TEXT);
    for (place, word) in words.iter().enumerate() {
        let rest = evidence(&without(place));
        for (id, explained) in words_of {
            let value = explained[place]["value"].as_f64().unwrap();
            assert_eq!(explained[place]["text"], *word);
            // Values have four decimal places.
            assert!((value - (whole[*id] - rest[*id])).abs() < 1e-4, "{word}, label {id}: {value}");
        }
    }
}

#[test]
fn each_of_several_labels_is_explained_by_its_logit() {
    let names = id2label(["joy", "anger", "fear"]);
    let model = Model::of_three_labels(&[names, ("problem_type", json!("multi_label_classification"))]);
    let record = &model.records(&["--threshold", "0", "--explain", TEXT])[0];
    let labels = record["labels"].as_array().unwrap();
    let words_of: Vec<(usize, &Value)> =
        labels.iter().map(|label| (label["label_id"].as_u64().unwrap() as usize, &label["words"])).collect();
    assert_eq!(words_of.len(), 3);
    explains(&words_of, |text| logits(&model, &[text]));
    let none = &model.records(&["--threshold", "1.1", "--explain", TEXT])[0];
    assert_eq!(none["labels"], json!([]));
    let table = model.agnews().args(["--threshold", "0", "--explain=1", TEXT]).quiet_success();
    assert_eq!(table.trim_end().split('\t').nth(2).unwrap().split('|').count(), 3, "{table}");
}

#[test]
fn a_value_is_explained_by_how_far_it_drops() {
    let model = Model::of_one_output(&[("problem_type", json!("regression"))]);
    let value = |text: &str| vec![model.records(&[text])[0]["value"].as_f64().unwrap()];
    let explained = &model.records(&["--explain", TEXT])[0];
    explains(&[(0, &explained["words"])], value);
}

#[test]
fn labels_of_your_own_are_explained_by_the_log_odds_of_their_scores() {
    let nli = Model::of_three_labels(&[id2label(["contradiction", "neutral", "entailment"])]);
    for several in [&[][..], &["--multi-label", "--threshold", "0"]] {
        let options = [&["--zero-shot", "sport,money,war", "-k", "3"][..], several].concat();
        let evidence = |text: &str| {
            let record = nli.records(&[&options[..], &[text]].concat()).remove(0);
            let mut odds = vec![0.0; 3];
            for entry in record["scores"].as_array().unwrap() {
                let score = entry["score"].as_f64().unwrap();
                odds[entry["label_id"].as_u64().unwrap() as usize] = (score / (1.0 - score)).ln();
            }
            odds
        };
        let record = nli.records(&[&options[..], &["--explain", TEXT]].concat()).remove(0);
        let id = |entry: &Value| entry["label_id"].as_u64().unwrap() as usize;
        match record["labels"].as_array() {
            Some(labels) => explains(&labels.iter().map(|it| (id(it), &it["words"])).collect::<Vec<_>>(), evidence),
            None => explains(&[(id(&record), &record["words"])], evidence),
        }
    }
}

#[test]
fn a_checkpoint_is_described_before_it_is_used() {
    let info = agnews().args(["-m", "builtin", "--info"]).quiet_success();
    for fact in
        ["family         bert", "4: World, Sports, Business, Sci/Tech", "512 tokens", "single-label", "tokenizer.json"]
    {
        assert!(info.contains(fact), "{fact}\n{info}");
    }
    let multi = Model::of_three_labels(&[("problem_type", json!("multi_label_classification"))]);
    assert!(multi.agnews().arg("--info").quiet_success().contains("multi-label"));
}

#[test]
fn a_cascade_is_for_one_label_per_text() {
    for (model, problem) in [
        (Model::of_three_labels(&[("problem_type", json!("multi_label_classification"))]), "any number of labels"),
        (Model::of_one_output(&[("problem_type", json!("regression"))]), "a value"),
    ] {
        let outcome = model.agnews().args(["--dtype", "cascade", "a"]).run().code_is(1);
        outcome.tells(&["a cascade is for checkpoints that give each text one label", problem, "use another --dtype"]);
    }
}
