//! Compares every model family to transformers, from token ids to logits (the fixtures were written by
//! tests/fixtures/families/generate.py).
//!
//! `AGNEWS_FAMILIES=FOLDER cargo test --test it families::folders -- --nocapture` also compares the checkpoints in the
//! subfolders of FOLDER, each with its reference.jsonl, and prints the largest difference for each arithmetic.

use crate::harness::fixture;
use agnews::batching::{batches, BatchLimits};
use agnews::checkpoint::config::ProblemType;
use agnews::checkpoint::hub::{Hub, HubOptions};
use agnews::checkpoint::{Checkpoint, CheckpointSpec};
use agnews::kernels::{Level, Parallelism, Precision};
use agnews::model::{Backend, BackendChoice, SequenceClassifier};
use agnews::tokenization::Encoding;
use candle_core::{DType, Device};
use serde::Deserialize;
use serde_json::json;
use std::path::{Path, PathBuf};

/// The largest allowed difference of a float32 logit from transformers': using the wrong GELU, the smallest possible
/// mistake, costs 6e-4.
const TOLERANCE: f32 = 1e-4;

/// The output of transformers for one text; `native_*` exists if the tokenizer's own library returns other ids.
#[derive(Deserialize)]
struct Reference {
    input_ids: Vec<u32>,
    #[serde(default)]
    token_type_ids: Vec<u32>,
    logits: Vec<f32>,
    native_input_ids: Option<Vec<u32>>,
    native_token_type_ids: Option<Vec<u32>>,
    native_logits: Option<Vec<f32>>,
}

impl Reference {
    /// Both sets of ids: the model must reproduce the logits of each.
    fn pairs(self) -> Vec<(Encoding, Vec<f32>)> {
        let encoding = |input_ids, token_type_ids| Encoding { input_ids, token_type_ids, truncated: false };
        let mut pairs = vec![(encoding(self.input_ids, self.token_type_ids), self.logits)];
        if let (Some(input_ids), Some(logits)) = (self.native_input_ids, self.native_logits) {
            pairs.push((encoding(input_ids, self.native_token_type_ids.unwrap_or_default()), logits));
        }
        pairs
    }
}

fn references(folder: &Path) -> (Vec<Encoding>, Vec<Vec<f32>>) {
    let lines = std::fs::read_to_string(folder.join("reference.jsonl")).unwrap();
    let references = lines.split('\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap());
    references.flat_map(Reference::pairs).unzip()
}

fn open(folder: &Path) -> Checkpoint {
    let hub = Hub::new(HubOptions::from_env(&|_| None, true), &());
    Checkpoint::open(&CheckpointSpec::Folder(folder.to_owned()), &hub).unwrap()
}

fn load(folder: &Path, backend: Backend) -> SequenceClassifier {
    let checkpoint = open(folder);
    let num_labels = checkpoint.num_labels().unwrap();
    SequenceClassifier::load(&checkpoint.weights, &checkpoint.config.architecture, num_labels, backend).unwrap()
}

fn kernels(level: Level, precision: Precision) -> Backend {
    BackendChoice::kernels(level, precision).open().unwrap()
}

fn candle(dtype: DType) -> Backend {
    Backend::Candle { device: Device::Cpu, dtype }
}

/// The logits of each encoding, in order.
fn forward(model: &SequenceClassifier, encodings: &[Encoding], max_batch_tokens: usize) -> Vec<Vec<f32>> {
    let mut logits = vec![Vec::new(); encodings.len()];
    for batch in batches(encodings, BatchLimits { max_batch_tokens }) {
        for (&position, row) in batch.positions.iter().zip(model.forward(&batch, Parallelism::Pool).unwrap()) {
            logits[position] = row;
        }
    }
    logits
}

fn largest_difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b).flat_map(|(a, b)| {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b)
    });
    let differences = pairs.map(|(a, b)| (a - b).abs()).inspect(|difference| assert!(!difference.is_nan()));
    differences.fold(0.0, f32::max)
}

/// How many rows have the same largest logit, or, with one output, the same sign.
fn agreement(a: &[Vec<f32>], b: &[Vec<f32>]) -> usize {
    let best = |row: &[f32]| match row.len() {
        1 => usize::from(row[0] > 0.0),
        n => (0..n).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap(),
    };
    a.iter().zip(b).filter(|(a, b)| best(a) == best(b)).count()
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.join("reference.jsonl").exists()).collect();
    folders.sort();
    folders
}

fn fixtures() -> Vec<PathBuf> {
    let folders = subfolders(&fixture("families"));
    assert!(folders.len() >= 9, "{folders:?}");
    folders
}

#[test]
fn every_level_gives_the_logits_of_transformers() {
    for folder in fixtures() {
        let (encodings, expected) = references(&folder);
        for level in Level::ALL.into_iter().filter(|level| level.is_supported()) {
            for precision in [Precision::F32, Precision::Bf16x3] {
                let logits = forward(&load(&folder, kernels(level, precision)), &encodings, 100);
                let difference = largest_difference(&logits, &expected);
                assert!(difference <= TOLERANCE, "{}, {level}, {precision}: off by {difference}", folder.display());
            }
        }
    }
}

#[test]
fn candles_operations_give_the_logits_of_transformers() {
    for folder in fixtures() {
        let (encodings, expected) = references(&folder);
        let logits = forward(&load(&folder, candle(DType::F32)), &encodings, 100);
        let difference = largest_difference(&logits, &expected);
        assert!(difference <= TOLERANCE, "{}: off by {difference}", folder.display());
    }
}

/// Narrow numbers lose accuracy according to their bits: factors with 8 or 11 fractional bits, or grid points.
#[test]
fn narrow_numbers_give_nearly_the_logits() {
    for folder in fixtures() {
        let (encodings, expected) = references(&folder);
        let level = Level::detect();
        for (backend, most) in [
            (kernels(level, Precision::Bf16), 0.1),
            (kernels(level, Precision::Int8), 0.5),
            (candle(DType::BF16), 0.2),
            (candle(DType::F16), 0.05),
        ] {
            let name = backend.to_string();
            let difference = largest_difference(&forward(&load(&folder, backend), &encodings, 100), &expected);
            assert!(difference <= most, "{}, {name}: off by {difference}", folder.display());
            assert!(difference > 1e-5, "{}, {name}: nothing was rounded", folder.display());
        }
    }
}

/// Alone, in small batches and all at once; cold, with weights as stored, and warm, with packed ones.
#[test]
fn a_text_gives_the_same_bits_in_any_batch() {
    for folder in fixtures() {
        let (encodings, _) = references(&folder);
        for precision in Precision::ALL {
            let model = load(&folder, kernels(Level::detect(), precision));
            let alone = forward(&model, &encodings, 1);
            let name = format!("{}, {precision}", folder.display());
            assert_eq!(forward(&model, &encodings, 100_000), alone, "{name}");
            model.warm_up();
            assert_eq!(forward(&model, &encodings, 30), alone, "{name}, warm");
        }
        let model = load(&folder, candle(DType::F32));
        let difference = largest_difference(&forward(&model, &encodings, 1), &forward(&model, &encodings, 100_000));
        assert!(difference <= 1e-5, "{}, candle: off by {difference}", folder.display());
    }
}

/// Replaces each field of each family's config.json by a number, a string or nothing: the result must be an error or a
/// model that returns logits or an error, never a panic.
#[test]
fn configs_that_lie_about_the_weights_do_no_harm() {
    let (mut refused, mut taken) = (0, 0);
    for folder in fixtures() {
        let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
        let config: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&config).unwrap();
        let (encodings, _) = references(&folder);
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(folder.join("model.safetensors"), copy.path().join("model.safetensors")).unwrap();
        for (field, value) in &config {
            let near = value.as_u64().map_or(json!(7), |number| json!(number + 1));
            for lie in
                [json!(0), json!(1), near, json!(-1), json!(16_000_000), json!(1u64 << 60), json!("x"), json!([])]
            {
                let mut config = config.clone();
                config.insert(field.clone(), lie);
                std::fs::write(copy.path().join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
                match logits_of(copy.path(), &encodings) {
                    Ok(()) => taken += 1,
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused > 500 && taken > 50, "{refused} refused, {taken} taken");
}

fn logits_of(folder: &Path, encodings: &[Encoding]) -> anyhow::Result<()> {
    let hub = Hub::new(HubOptions::from_env(&|_| None, true), &());
    let checkpoint = Checkpoint::open(&CheckpointSpec::Folder(folder.to_owned()), &hub)?;
    let architecture = &checkpoint.config.architecture;
    let backend = kernels(Level::detect(), Precision::F32);
    let model = SequenceClassifier::load(&checkpoint.weights, architecture, checkpoint.num_labels()?, backend)?;
    for batch in batches(encodings, BatchLimits { max_batch_tokens: 100 }) {
        model.forward(&batch, Parallelism::Single)?;
    }
    Ok(())
}

/// An unsupported model is refused based on config.json alone, with a message that names the reason.
#[test]
fn an_unsupported_model_is_refused_before_its_weights_are_opened() {
    for (file, content, named) in [
        ("config.json", json!({"model_type": "gpt2"}), &["gpt2", "supported are albert, bert, ", "xlm-roberta"][..]),
        (
            "config.json",
            json!({"model_type": "own-bert", "auto_map": {"AutoModel": "modeling.Own"}}),
            &["own-bert", "auto_map", "code in its repository"],
        ),
        ("config.json", json!({"model_type": "roberta", "quantization_config": {"bits": 4}}), &["quantization_config"]),
        (
            "config.json",
            json!({"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}),
            &["use a checkpoint fine-tuned for classification"],
        ),
        ("adapter_config.json", json!({"peft_type": "LORA"}), &["PEFT adapter", "merge it"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(file), content.to_string()).unwrap();
        let outcome = crate::harness::agnews().arg("-m").arg(folder.path()).arg("text").run().code_is(1);
        outcome.tells(named).hides("model.safetensors");
    }
}

#[test]
fn checkpoints_describe_themselves() {
    let albert = open(&fixture("families").join("albert"));
    let (config, num_labels) = (&albert.config, albert.num_labels().unwrap());
    let architecture = &config.architecture;
    assert_eq!((config.model_type, architecture.layers.len(), architecture.hidden_size), ("albert", 6, 18));
    assert_eq!((architecture.heads, architecture.max_length), (3, 50));
    assert_eq!(config.labels(None, num_labels).unwrap(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
    assert_eq!(config.problem(num_labels), ProblemType::SingleLabel);
    let elements = |file: safetensors::SafeTensors| -> usize {
        file.iter()
            .filter(|(name, _)| !name.ends_with("_ids"))
            .map(|(_, view)| view.shape().iter().product::<usize>())
            .sum()
    };
    let bytes = std::fs::read(fixture("families").join("albert/model.safetensors")).unwrap();
    assert_eq!(albert.num_parameters(), elements(safetensors::SafeTensors::deserialize(&bytes).unwrap()));
    let one = open(&fixture("families").join("bert-one-output"));
    assert_eq!(
        (one.config.problem(one.num_labels().unwrap()), one.num_labels().unwrap()),
        (ProblemType::Regression, 1)
    );
}

#[test]
fn folders_of_the_environment_agree_with_transformers() {
    let Some(root) = std::env::var_os("AGNEWS_FAMILIES") else { return };
    let folders = subfolders(Path::new(&root));
    assert!(!folders.is_empty(), "{root:?} has no folder with a reference.jsonl");
    eprintln!("largest logit difference (texts whose label agrees), {}", Level::detect());
    let backends = || {
        let of_kernels = Precision::ALL.map(|precision| kernels(Level::detect(), precision));
        of_kernels.into_iter().chain([candle(DType::F32), candle(DType::BF16), candle(DType::F16)])
    };
    let names = ["f32", "bf16x3", "bf16", "int8", "candle f32", "candle bf16", "candle f16"];
    eprintln!("{:20} {}", "", names.map(|name| format!("{name:>18}")).join(" "));
    let mut failed = Vec::new();
    for folder in folders {
        let (encodings, expected) = references(&folder);
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        eprint!("{name:20}");
        for (backend, name) in backends().zip(names) {
            let logits = forward(&load(&folder, backend), &encodings, 384);
            let difference = largest_difference(&logits, &expected);
            eprint!(" {:>18}", format!("{difference:.1e} ({}/{})", agreement(&logits, &expected), expected.len()));
            if matches!(name, "f32" | "candle f32") && difference > TOLERANCE {
                failed.push(format!("{}, {name}: off by {difference}", folder.display()));
            }
        }
        eprintln!();
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
