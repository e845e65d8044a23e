//! Damaged or deceptive checkpoints: each is an error that names the file and the field, never a panic.

use crate::harness::{agnews, fixture, Outcome};
use serde_json::{json, Value};
use std::path::Path;

/// A copy of the small checkpoint, modified by `damage`.
fn classify_with(damage: impl Fn(&Path)) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors"] {
        std::fs::copy(fixture("tiny").join(file), folder.path().join(file)).unwrap();
    }
    damage(folder.path());
    let outcome = agnews().arg("-m").arg(folder.path()).args(["The rain in spain.", "new talks on peace"]).run();
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    outcome
}

fn edit(folder: &Path, file: &str, change: impl Fn(&mut Value)) {
    let path = folder.join(file);
    let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

#[test]
fn the_copy_itself_works() {
    classify_with(|_| {}).success();
}

#[test]
fn every_missing_file_is_named() {
    for (file, named) in [
        ("config.json", "config.json"),
        ("vocab.txt", "neither tokenizer.json nor vocab.txt"),
        ("model.safetensors", "model.safetensors"),
    ] {
        classify_with(|folder| std::fs::remove_file(folder.join(file)).unwrap()).code_is(1).tells(&[named]);
    }
    classify_with(|folder| std::fs::remove_file(folder.join("tokenizer_config.json")).unwrap()).success();
}

#[test]
fn every_file_cut_short_or_empty_is_an_error_that_names_it() {
    for file in ["config.json", "tokenizer_config.json", "model.safetensors", "vocab.txt"] {
        for keep in [0.0, 0.05, 0.5] {
            let outcome = classify_with(|folder| {
                let bytes = std::fs::read(folder.join(file)).unwrap();
                std::fs::write(folder.join(file), &bytes[..(bytes.len() as f64 * keep) as usize]).unwrap();
            });
            // Half a vocabulary is a valid vocabulary: fewer words, still a classifier.
            if !(file == "vocab.txt" && keep == 0.5) {
                outcome.code_is(1).tells(&[file]);
            }
        }
    }
}

#[test]
fn configs_that_lie_about_the_weights_are_errors() {
    let huge = 1u64 << 60;
    for (field, value) in [
        ("hidden_size", json!(0)),
        ("hidden_size", json!(huge)),
        ("hidden_size", json!(72)),
        ("hidden_size", json!(3)),
        ("vocab_size", json!(0)),
        ("vocab_size", json!(huge)),
        ("vocab_size", json!(16_000_000)),
        ("vocab_size", json!(20)),
        ("num_hidden_layers", json!(0)),
        ("num_hidden_layers", json!(huge)),
        ("num_hidden_layers", json!(16_000_000)),
        ("num_attention_heads", json!(0)),
        ("num_attention_heads", json!(5)),
        ("intermediate_size", json!(huge)),
        ("intermediate_size", json!(49)),
        ("max_position_embeddings", json!(0)),
        ("max_position_embeddings", json!(16_000_000)),
        ("type_vocab_size", json!(0)),
        ("type_vocab_size", json!(3)),
        ("layer_norm_eps", json!(-1.0)),
        ("layer_norm_eps", json!("1e-12")),
        ("model_type", json!("distilbert")),
        ("hidden_act", json!("mish")),
        ("id2label", json!({"0": "a", "1": "b"})),
        ("id2label", json!(["a", "b", "c"])),
        ("problem_type", json!("ranking")),
    ] {
        let outcome = classify_with(|folder| edit(folder, "config.json", |config| config[field] = value.clone()));
        assert_eq!(outcome.code, Some(1), "{field} = {value}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("panicked") && outcome.stderr.lines().count() == 1, "{}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
    }
}

#[test]
fn a_multi_label_checkpoint_gets_sigmoid_scores() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["vocab.txt", "tokenizer_config.json", "model.safetensors"] {
        std::fs::copy(fixture("tiny").join(file), folder.path().join(file)).unwrap();
    }
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(fixture("tiny").join("config.json")).unwrap()).unwrap();
    config["problem_type"] = json!("multi_label_classification");
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let scores = |model: &Path| -> Vec<f64> {
        let args = ["--format", "jsonl", "-k", "3", "new talks on peace"];
        let record: Value = serde_json::from_str(&agnews().arg("-m").arg(model).args(args).quiet_success()).unwrap();
        record["scores"].as_array().unwrap().iter().map(|entry| entry["score"].as_f64().unwrap()).collect()
    };
    let (softmax, sigmoid) = (scores(&fixture("tiny")), scores(folder.path()));
    assert!((softmax.iter().sum::<f64>() - 1.0).abs() < 1e-6);
    // Both come from the same logits: ln(p/(1-p)) recovers them, up to one constant for softmax.
    let logits: Vec<f64> = sigmoid.iter().map(|p| (p / (1.0 - p)).ln()).collect();
    let expected = (softmax[0] / softmax[1]).ln();
    assert!((logits[0] - logits[1] - expected).abs() < 1e-3, "{logits:?} {softmax:?}");
}

#[test]
fn vocabularies_with_too_many_pieces_are_errors_but_holes_and_duplicates_are_not() {
    let rewrite = |change: &dyn Fn(String) -> String| {
        classify_with(|folder| {
            let vocab = std::fs::read_to_string(folder.join("vocab.txt")).unwrap();
            std::fs::write(folder.join("vocab.txt"), change(vocab)).unwrap();
        })
    };
    // transformers accepts both: see `tokenization/wordpiece.rs`.
    rewrite(&|vocab| vocab.replacen("a\n", "\n", 1)).success();
    rewrite(&|vocab| vocab.replacen("a\n", "peace\n", 1)).success();
    rewrite(&|vocab| vocab + "peace\n").code_is(1).tells(&["vocab_size"]);
    rewrite(&|vocab| vocab + "more\npieces\n").code_is(1).tells(&["vocab_size", "do not belong together"]);
    rewrite(&|vocab| vocab.replace("[SEP]", "[END]")).code_is(1).tells(&["vocab.txt", "[SEP]"]);
}

#[test]
fn weights_that_are_not_numbers_are_an_error() {
    let outcome = classify_with(|folder| {
        let path = folder.join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        for weight in bytes[8 + header..].chunks_exact_mut(4) {
            weight.copy_from_slice(&f32::NAN.to_le_bytes());
        }
        std::fs::write(&path, bytes).unwrap();
    });
    outcome.code_is(1).tells(&["not finite", "damaged"]);
}
