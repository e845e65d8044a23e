//! A checkpoint's tensors from every format written by PyTorch and safetensors, to the bit, and the errors for files
//! that are damaged, malicious, or hold something else. The fixtures' generator is in the same folder as the fixtures.

use crate::harness::fixture;
use agnews::checkpoint::files::CheckpointFiles;
use agnews::checkpoint::weights::Weights;
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A folder with the files of a checkpoint, each copied from a fixture or given.
struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    fn new() -> Folder {
        Folder { folder: tempfile::tempdir().unwrap() }
    }

    fn copy(self, source: &str, name: &str) -> Folder {
        fs::copy(fixture("weights").join(source), self.path().join(name)).unwrap();
        self
    }

    fn write(self, name: &str, content: impl AsRef<[u8]>) -> Folder {
        fs::write(self.path().join(name), content).unwrap();
        self
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn open(&self) -> Result<Weights> {
        Weights::open(&CheckpointFiles::Folder(self.path().to_owned()))
    }

    /// The error message from opening, or from converting one of the tensors.
    #[track_caller]
    fn error(&self) -> String {
        let error = match self.open() {
            Err(error) => error,
            Ok(weights) => load(&weights).expect_err("the checkpoint was accepted"),
        };
        format!("{error:#}")
    }
}

/// Shape and float32 bit patterns of each tensor.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<u32>)>;

fn load(weights: &Weights) -> Result<Tensors> {
    let tensor = |name: &str| {
        let shape = weights.shape(name).unwrap();
        Ok((name.to_owned(), (shape.to_owned(), bits(&weights.tensor(shape, name, DType::F32, &Device::Cpu)?))))
    };
    weights.names().map(tensor).collect()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

fn expected(name: &str) -> Tensors {
    let tensors = load(&Folder::new().copy(name, "model.safetensors").open().unwrap()).unwrap();
    assert!(tensors.len() > 1);
    tensors
}

#[test]
fn every_format_gives_the_same_tensors_to_the_bit() {
    let expected = expected("expected.safetensors");
    assert_eq!(expected.len(), 15, "all but position_ids");
    for (source, name) in [
        ("mixed.safetensors", "model.safetensors"),
        ("zip-protocol2.bin", "pytorch_model.bin"),
        ("zip-protocol3.bin", "pytorch_model.bin"),
        ("zip-protocol4.bin", "pytorch_model.bin"),
        ("zip-protocol5.bin", "pytorch_model.bin"),
        ("zip-parameters.bin", "pytorch_model.bin"),
        ("zip-attributes.bin", "pytorch_model.bin"),
        ("zip-wrapped.bin", "pytorch_model.bin"),
        ("zip-other-folder.bin", "pytorch_model.bin"),
        ("zip-no-folder.bin", "pytorch_model.bin"),
        ("zip-data-parallel.bin", "pytorch_model.bin"),
        ("legacy-protocol2.bin", "pytorch_model.bin"),
        ("legacy-protocol4.bin", "pytorch_model.bin"),
        ("legacy-python2.bin", "pytorch_model.bin"),
        ("legacy-parameters.bin", "pytorch_model.bin"),
        ("legacy-wrapped.bin", "pytorch_model.bin"),
    ] {
        let weights = Folder::new().copy(source, name).open().unwrap_or_else(|error| panic!("{source}: {error:#}"));
        assert_eq!(load(&weights).unwrap(), expected, "{source}");
    }
    // Saved from a bare encoder: the names have no prefix.
    let bare = |(name, tensor): (String, _)| (name.strip_prefix("bert.").unwrap_or(&name).to_owned(), tensor);
    let weights = Folder::new().copy("zip-bare-gamma-beta.bin", "pytorch_model.bin").open().unwrap();
    assert_eq!(load(&weights).unwrap(), expected.into_iter().map(bare).collect());
}

#[test]
fn views_of_storages_written_by_pytorch_before_version_0_4() {
    let weights = Folder::new().copy("legacy-storage-views.bin", "pytorch_model.bin").open().unwrap();
    assert_eq!(load(&weights).unwrap(), expected("expected-storage-views.safetensors"));
}

/// An index of the fixture's two shards, in the form of transformers' `save_pretrained`.
fn index(stem: &str, extension: &str) -> String {
    let names = expected("expected.safetensors").into_keys();
    // The generator stores the first six tensors, in the state dict's order, in the first shard.
    let first = |name: &str| name.starts_with("bert.") || name.starts_with("classifier.");
    let entries = names.map(|name| {
        let number = if first(&name) { 1 } else { 2 };
        format!("{name:?}: \"{stem}-0000{number}-of-00002.{extension}\"")
    });
    format!("{{\"metadata\": {{}}, \"weight_map\": {{{}}}}}", entries.collect::<Vec<_>>().join(", "))
}

fn sharded(stem: &str, extension: &str) -> Folder {
    let shards = [1, 2].map(|number| format!("{stem}-0000{number}-of-00002.{extension}"));
    let folder = Folder::new().write(&format!("{stem}.{extension}.index.json"), index(stem, extension));
    shards.iter().fold(folder, |folder, shard| folder.copy(shard, shard))
}

#[test]
fn shards_give_the_same_tensors() {
    let expected = expected("expected.safetensors");
    for (stem, extension) in [("model", "safetensors"), ("pytorch_model", "bin")] {
        assert_eq!(load(&sharded(stem, extension).open().unwrap()).unwrap(), expected, "{stem}");
    }
}

#[test]
fn shards_can_be_in_a_subfolder() {
    let folder = sharded("model", "safetensors");
    fs::create_dir(folder.path().join("parts")).unwrap();
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        fs::rename(folder.path().join(shard), folder.path().join("parts").join(shard)).unwrap();
    }
    let index = index("parts/model", "safetensors");
    let folder = folder.write("model.safetensors.index.json", index);
    assert_eq!(load(&folder.open().unwrap()).unwrap(), expected("expected.safetensors"));
}

#[test]
fn shards_that_are_missing_or_incomplete_are_named() {
    let folder = sharded("model", "safetensors");
    fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).unwrap();
    assert_contains(&folder.error(), "names the shard model-00002-of-00002.safetensors, which does not exist");
    let folder = sharded("model", "safetensors");
    fs::copy(
        folder.path().join("model-00001-of-00002.safetensors"),
        folder.path().join("model-00002-of-00002.safetensors"),
    )
    .unwrap();
    assert_contains(&folder.error(), "model-00002-of-00002.safetensors lacks tensor \"bfloat16\"");
    let folder = sharded("pytorch_model", "bin")
        .write("pytorch_model.bin.index.json", r#"{"weight_map": {"a": "pytorch_model.bin.index.json"}}"#);
    assert_contains(&folder.error(), "it was not written by torch.save");
    let folder =
        sharded("pytorch_model", "bin").write("pytorch_model.bin.index.json", r#"{"weight_map": {"a": "../secret"}}"#);
    assert_contains(&folder.error(), "its weight_map has \"../secret\" for \"a\"");
}

#[test]
fn the_best_file_is_taken() {
    let weights = Folder::new()
        .copy("expected-storage-views.safetensors", "model.safetensors")
        .copy("zip-protocol2.bin", "pytorch_model.bin")
        .write("pytorch_model.bin.index.json", "{}")
        .open()
        .unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["view", "whole"]);
}

#[test]
fn a_checkpoint_without_readable_weights_says_what_it_has() {
    let folder = Folder::new().write("flax_model.msgpack", "").write("tf_model.h5", "").write("config.json", "{}");
    assert_contains(&folder.error(), "it has config.json, flax_model.msgpack, tf_model.h5");
    let folder = Folder::new().copy("zip-protocol2.bin", "pytorch_model.bin");
    fs::create_dir(folder.path().join("model.safetensors")).unwrap();
    assert_contains(&folder.error(), "has a model.safetensors that is not a file");
}

#[test]
fn errors_name_file_tensor_and_shape() {
    let folder = Folder::new().copy("mixed.safetensors", "model.safetensors");
    let weights = folder.open().unwrap();
    let error = |shape: &[usize], name| weights.tensor(shape, name, DType::F32, &Device::Cpu).unwrap_err().to_string();
    let wrong_shape = error(&[5, 5], "bert.embeddings.word_embeddings.weight");
    assert_contains(&wrong_shape, &folder.path().join("model.safetensors").display().to_string());
    assert_contains(&wrong_shape, "\"bert.embeddings.word_embeddings.weight\"");
    assert_contains(&wrong_shape, "has the shape [5, 4], but config.json asks for [5, 5]");
    assert_contains(&error(&[4], "bert.nowhere"), "model.safetensors has no tensor \"bert.nowhere\"");
    assert!(weights.contains("classifier.weight"));
    assert!(!weights.contains("bert.embeddings.position_ids"));
}

#[test]
fn the_embedded_model_opens_in_place() {
    let weights = Weights::open(&CheckpointFiles::Builtin).unwrap();
    assert!(weights.contains("classifier.weight") && weights.contains("bert.embeddings.word_embeddings.weight"));
    assert!(load(&weights)
        .unwrap()
        .values()
        .all(|(_, bits)| bits.iter().all(|&bits| f32::from_bits(bits).is_finite())));
}

#[test]
fn two_names_of_one_tensor_are_refused() {
    let header = r#"{"LayerNorm.gamma":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
        "LayerNorm.weight":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat();
    let error = Folder::new().write("model.safetensors", file).error();
    assert_contains(&error, "two names of one tensor");
}

#[test]
fn files_without_a_state_dict_are_refused_by_name() {
    for (source, expected) in [
        ("refused-compressed.bin", "it is compressed (CompressionMethod::DEFLATE)"),
        (
            "refused-whole-model.bin",
            "it refers to torch.nn.modules.linear.Linear, which a checkpoint of tensors does not",
        ),
        ("refused-whole-model-legacy.bin", "it refers to torch.nn.modules.linear.Linear"),
    ] {
        let error = Folder::new().copy(source, "pytorch_model.bin").error();
        assert_contains(&error, expected);
        assert_contains(&error, "pytorch_model.bin: ");
    }
}

#[test]
fn a_file_cut_off_is_refused_by_name() {
    for (source, name) in [
        ("mixed.safetensors", "model.safetensors"),
        ("zip-protocol2.bin", "pytorch_model.bin"),
        ("legacy-protocol2.bin", "pytorch_model.bin"),
    ] {
        let whole = fs::read(fixture("weights").join(source)).unwrap();
        // The readers' own tests cover every length; this one uses real files.
        for length in [0, 1, 4, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
            let error = Folder::new().write(name, &whole[..length]).error();
            assert_contains(&error, name);
        }
    }
}

#[track_caller]
fn assert_contains(message: &str, expected: &str) {
    assert!(message.contains(expected), "{message}\nlacks {expected}");
}
