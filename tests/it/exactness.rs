//! Compares token ids and logits to transformers' (written by tests/fixtures/generate.py).

use crate::harness::fixture;
use agnews::checkpoint::hub::{Hub, HubOptions};
use agnews::checkpoint::{Checkpoint, CheckpointSpec};
use agnews::classifier::{Classifier, ClassifierOptions};
use agnews::kernels::{Level, Precision};
use agnews::model::BackendChoice;
use agnews::tokenization::TextOrPair;
use serde::Deserialize;
use std::path::Path;

/// The largest allowed difference of a float32 logit from transformers'.
const TOLERANCE: f32 = 1e-4;

/// The largest allowed difference of a logit between a text alone and in a batch.
const BATCH_TOLERANCE: f32 = 1e-5;

#[derive(Deserialize)]
struct Reference {
    text: String,
    max_length: usize,
    input_ids: Vec<u32>,
    logits: Vec<f32>,
}

fn references(path: &Path) -> Vec<Reference> {
    let lines = std::fs::read_to_string(path).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn load(model: &str, max_length: usize, max_batch_tokens: usize) -> Classifier {
    load_with(
        model,
        ClassifierOptions {
            max_length: Some(max_length),
            max_batch_tokens: Some(max_batch_tokens),
            ..Default::default()
        },
    )
}

fn load_with(model: &str, options: ClassifierOptions) -> Classifier {
    let hub = Hub::new(HubOptions::from_env(&|_| None, true), &());
    let checkpoint = Checkpoint::open(&CheckpointSpec::parse(model, None).unwrap(), &hub).unwrap();
    Classifier::load(&checkpoint, &options).unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Tests every limit in the reference, in large and small batches.
fn agrees_with_transformers(model: &str, reference: &Path) {
    let references = references(reference);
    assert!(references.len() >= 17);
    let mut limits: Vec<usize> = references.iter().map(|row| row.max_length).collect();
    limits.dedup();
    for limit in limits {
        let rows: Vec<&Reference> = references.iter().filter(|row| row.max_length == limit).collect();
        let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
        for max_batch_tokens in [1, 100, 100_000] {
            let classifier = load(model, limit, max_batch_tokens);
            let encodings = classifier.encode(&texts).unwrap();
            let logits = classifier.logits(&encodings).unwrap();
            for ((row, encoding), logits) in rows.iter().zip(&encodings).zip(&logits) {
                assert_eq!(encoding.input_ids, row.input_ids, "{:?} at {limit} tokens", row.text);
                let difference = largest_difference(logits, &row.logits);
                assert!(difference <= TOLERANCE, "{:?}: {logits:?}, transformers {:?}", row.text, row.logits);
            }
        }
    }
}

#[test]
fn the_embedded_model_agrees_with_transformers() {
    agrees_with_transformers("builtin", &fixture("builtin/reference.jsonl"));
}

#[test]
fn a_checkpoint_with_vocab_txt_and_odd_sizes_agrees_with_transformers() {
    let folder = fixture("tiny");
    agrees_with_transformers(folder.to_str().unwrap(), &folder.join("reference.jsonl"));
}

/// The largest difference from transformers' logits at 512 tokens, and whether all labels agree.
fn compare(backend: BackendChoice) -> (f32, bool) {
    let references = references(&fixture("builtin/reference.jsonl"));
    let rows: Vec<&Reference> = references.iter().filter(|row| row.max_length == 512).collect();
    assert!(rows.len() >= 10);
    let classifier = load_with("builtin", ClassifierOptions { backend, ..Default::default() });
    let encodings = classifier.encode(&rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>()).unwrap();
    let logits = classifier.logits(&encodings).unwrap();
    let best = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    let pairs = || logits.iter().zip(&rows).map(|(logits, row)| (logits.as_slice(), row.logits.as_slice()));
    let difference = pairs().map(|(a, b)| largest_difference(a, b)).fold(0.0, f32::max);
    (difference, pairs().all(|(a, b)| best(a) == best(b)))
}

#[test]
fn every_level_agrees_with_transformers() {
    for level in Level::ALL.into_iter().filter(|level| level.is_supported()) {
        let (difference, labels_agree) = compare(BackendChoice::kernels(level, Precision::F32));
        assert!(difference <= TOLERANCE && labels_agree, "{level}: off by {difference}");
    }
}

/// The default precision, on every level that uses it.
#[test]
fn three_products_of_bf16_agree_with_transformers() {
    for level in Level::ALL.into_iter().filter(|level| level.is_supported()) {
        let (difference, labels_agree) = compare(BackendChoice::kernels(level, Precision::Bf16x3));
        assert!(difference <= TOLERANCE && labels_agree, "{level}: off by {difference}");
    }
    for level in Level::ALL {
        let expected = if level.to_string() == "amx" { Precision::Bf16x3 } else { Precision::F32 };
        assert_eq!(Precision::exact_on(level), expected);
    }
}

/// The operations that a GPU runs, on the CPU.
#[test]
fn candles_own_operations_agree_with_transformers() {
    let (difference, labels_agree) = compare(BackendChoice::candle());
    assert!(difference <= TOLERANCE && labels_agree, "off by {difference}");
    // Every tensor is rounded to 8 fractional bits, including the sums and the logits (up to 5.3 in size).
    let bf16 = BackendChoice { precision: Some(Precision::Bf16), ..BackendChoice::candle() };
    let (difference, labels_agree) = compare(bf16);
    assert!(difference > TOLERANCE && difference <= 0.4 && labels_agree, "bf16: off by {difference}");
}

/// Rounding factors to 8 fractional bits costs a few parts in a thousand, the same on every level; rounding to 256 grid
/// points, a few percent.
#[test]
fn narrow_factors_keep_the_labels_and_nearly_the_logits() {
    for level in Level::ALL.into_iter().filter(|level| level.is_supported()) {
        for (precision, most) in [(Precision::Bf16, 0.05), (Precision::Int8, 0.5)] {
            let (difference, labels_agree) = compare(BackendChoice::kernels(level, precision));
            assert!(difference <= most && labels_agree, "{level}, {precision:?}: off by {difference}");
            assert!(difference > TOLERANCE, "{level}, {precision:?}: nothing was rounded");
        }
    }
}

/// The first text uses the weights as stored, the second one packs them.
#[test]
fn a_warm_model_gives_the_same_bits() {
    for precision in Precision::ALL {
        let backend = BackendChoice::kernels(Level::detect(), precision);
        let classifier = load_with("builtin", ClassifierOptions { backend, ..Default::default() });
        let encodings = classifier.encode(&["The bank raised its forecast for the year."]).unwrap();
        let cold = classifier.logits(&encodings).unwrap();
        assert_eq!(classifier.logits(&encodings).unwrap(), cold, "{precision:?}");
    }
}

#[test]
fn a_text_alone_gives_the_same_as_in_any_batch() {
    for (model, limit) in [("builtin".to_owned(), 512), (fixture("tiny").to_str().unwrap().to_owned(), 64)] {
        let references = references(&fixture("builtin/reference.jsonl"));
        let texts: Vec<&str> = references.iter().map(|row| row.text.as_str()).collect();
        let alone = load(&model, limit, 1);
        let encodings = alone.encode(&texts).unwrap();
        let alone = alone.logits(&encodings).unwrap();
        for max_batch_tokens in [64, 700, 100_000] {
            let together = load(&model, limit, max_batch_tokens).logits(&encodings).unwrap();
            for (text, (a, b)) in texts.iter().zip(alone.iter().zip(&together)) {
                assert!(largest_difference(a, b) <= BATCH_TOLERANCE, "{text:?}: {a:?} alone, {b:?} in a batch");
            }
        }
    }
}

#[test]
fn equal_texts_are_computed_once() {
    let classifier = load("builtin", 512, 1);
    let texts = ["The striker scored.", "Shares fell.", "the  striker scored .", "The striker scored."];
    let batches = std::sync::Mutex::new(Vec::new());
    let of = |texts: &[&str]| {
        let texts: Vec<TextOrPair<'_>> = texts.iter().map(|text| TextOrPair::Text(text)).collect();
        classifier.predict(&texts, &|size| batches.lock().unwrap().push(size)).unwrap()
    };
    let together = of(&texts);
    assert_eq!(std::mem::take(&mut *batches.lock().unwrap()), [1, 1, 2], "two batches of a text, two texts for free");
    for (text, prediction) in texts.iter().zip(together) {
        assert_eq!(of(&[text]), [prediction], "{text}");
    }
}

#[test]
fn truncation_is_reported() {
    let classifier = load("builtin", 512, 1024);
    let fits = "word ".repeat(510);
    let long = "word ".repeat(511);
    let encodings = classifier.encode(&[&fits, &long]).unwrap();
    assert_eq!((encodings[0].input_ids.len(), encodings[0].truncated), (512, false));
    assert_eq!((encodings[1].input_ids.len(), encodings[1].truncated), (512, true));
    assert_eq!(encodings[0].input_ids, encodings[1].input_ids);
}

/// The shortcut for long texts must not change a single id.
#[test]
fn the_start_of_a_long_text_gives_the_ids_of_the_whole() {
    let classifier = load("builtin", 512, 1024);
    let whole = tokenizers::Tokenizer::from_file(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/checkpoint/builtin/tokenizer.json"),
    )
    .unwrap();
    let seeds =
        ["a1 ", "x", "é ", "東", "[SEP]", "- ", "\u{0}", "!", " ", "[SEP", "unbelievable ", "\u{301}", "q\u{0}"];
    for (i, first) in seeds.iter().enumerate() {
        for second in &seeds[i..] {
            let text = format!("{}{}", first.repeat(7000), second.repeat(7000));
            let ids = classifier.encode(&[&text]).unwrap().remove(0).input_ids;
            let content = whole.encode(text.as_str(), false).unwrap();
            let content = content.get_ids();
            let kept = &content[..content.len().min(510)];
            assert_eq!(ids[1..ids.len() - 1], *kept, "{first:?} then {second:?}");
        }
    }
}
