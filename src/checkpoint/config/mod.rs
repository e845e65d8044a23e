//! `config.json`: what the model is, the problem it was trained for, and the names of its classes. Strictly checked.
//!
//! Everything that can be decided before the weights are available is decided here: [`Config::parse`] refuses
//! unsupported checkpoints.

mod architecture;
mod families;
mod fields;

pub use architecture::{
    AbsolutePositions, Architecture, Disentangled, Distances, Embeddings, Head, Layer, LayerParts, Norm, NormPlacement,
    Part, Pooling,
};

use anyhow::{anyhow, bail, ensure, Context, Result};
use families::{Family, FAMILIES};
use fields::Fields;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::fmt;

/// The class names of the AG News data set, in their original order.
const AG_NEWS_LABELS: [&str; 4] = ["World", "Sports", "Business", "Sci/Tech"];

/// How logits become scores, by the rules of transformers' text-classification pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreFunction {
    /// Exactly one class: scores sum to 1.
    Softmax,
    /// Each output on its own.
    Sigmoid,
    /// The logits, unchanged.
    Raw,
}

/// `problem_type`: what the checkpoint was trained for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ProblemType {
    /// A text has exactly one class.
    #[serde(rename = "single_label_classification")]
    SingleLabel,
    /// A text has any number of classes.
    #[serde(rename = "multi_label_classification")]
    MultiLabel,
    /// Outputs are values.
    #[serde(rename = "regression")]
    Regression,
}

impl fmt::Display for ProblemType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProblemType::SingleLabel => "single-label classification",
            ProblemType::MultiLabel => "multi-label classification",
            ProblemType::Regression => "regression",
        })
    }
}

/// The part of `config.json` needed for inference.
#[derive(Debug, Clone)]
pub struct Config {
    /// The family, as `model_type` names it.
    pub model_type: &'static str,
    /// The encoder and its head.
    pub architecture: Architecture,
    /// `problem_type`, if the file has it.
    pub problem_type: Option<ProblemType>,
    /// `id2label` in id order, if the file has it.
    id2label: Option<Vec<String>>,
    /// `finetuning_task`, if the file has it.
    finetuning_task: Option<String>,
}

impl Config {
    /// Reads a `config.json`; `origin` names it in messages.
    ///
    /// # Errors
    /// If it is not a JSON object, describes an unsupported family or head, needs code or weights that agnews does not
    /// read, or a field is missing or out of range; the message names `origin` and the field.
    pub fn parse(json: &[u8], origin: &str) -> Result<Config> {
        let value: Value = serde_json::from_slice(json).with_context(|| format!("{origin} is not valid JSON"))?;
        let Value::Object(object) = value else { bail!("{origin} is not a JSON object") };
        Config::from_fields(&Fields::new(object))
            .with_context(|| format!("{origin} does not describe a model that agnews can run"))
    }

    fn from_fields(fields: &Fields) -> Result<Config> {
        /// The fields common to all families.
        #[derive(Deserialize)]
        struct Common {
            model_type: Option<String>,
            architectures: Option<Vec<String>>,
            problem_type: Option<ProblemType>,
            id2label: Option<Map<String, Value>>,
            finetuning_task: Option<String>,
        }
        let common = fields.read::<Common>()?;
        let family = family(common.model_type.as_deref(), fields)?;
        if let Some(architectures) = common.architectures {
            // Its prefix is not compared to model_type: some XLM-R checkpoints name RoBERTa's class.
            ensure!(
                architectures.iter().any(|class| class.ends_with("ForSequenceClassification")),
                "architectures is {architectures:?}: use a checkpoint fine-tuned for classification \
                 (…ForSequenceClassification)"
            );
        }
        ensure!(
            fields.get("quantization_config").is_none(),
            "quantization_config: its weights are quantized, which agnews does not read; use the repository with the \
             original weights"
        );
        let architecture = (family.read)(fields)?;
        let Architecture { hidden_size, heads, max_length, .. } = architecture;
        ensure!(
            hidden_size.is_multiple_of(heads),
            "hidden_size {hidden_size} is not a multiple of num_attention_heads {heads}"
        );
        ensure!(
            max_length >= 2,
            "max_position_embeddings leaves room for {max_length} tokens, too few for the 2 special ones"
        );
        Ok(Config {
            model_type: family.model_type,
            architecture,
            problem_type: common.problem_type,
            id2label: common.id2label.as_ref().map(id2label).transpose()?,
            finetuning_task: common.finetuning_task,
        })
    }

    /// The number of outputs by `id2label`, or 2 without it, like in transformers. The weights decide in the end.
    pub fn num_labels(&self) -> usize {
        self.id2label.as_ref().map_or(2, Vec::len)
    }

    /// Rows of the word embedding; all token ids are smaller.
    pub fn vocab_size(&self) -> usize {
        self.architecture.vocab_size
    }

    /// Maximum length in tokens, including special ones.
    pub fn max_length(&self) -> usize {
        self.architecture.max_length
    }

    /// What the checkpoint was trained for: `problem_type`, otherwise transformers' default for `num_labels` outputs.
    pub fn problem(&self, num_labels: usize) -> ProblemType {
        self.problem_type.unwrap_or(match num_labels {
            1 => ProblemType::Regression,
            _ => ProblemType::SingleLabel,
        })
    }

    /// How the logits of `num_labels` outputs become scores.
    pub fn score_function(&self, num_labels: usize) -> ScoreFunction {
        match self.problem_type {
            Some(ProblemType::Regression) => ScoreFunction::Raw,
            Some(ProblemType::MultiLabel) => ScoreFunction::Sigmoid,
            _ if num_labels == 1 => ScoreFunction::Sigmoid,
            _ => ScoreFunction::Softmax,
        }
    }

    /// The names of the classes, `num_labels` of them (the rows of the classifier): `asked` if given, otherwise real
    /// names in `id2label`, otherwise the AG News names if the checkpoint was fine-tuned on AG News but its config only
    /// has `LABEL_0` to `LABEL_3`, otherwise `LABEL_n`.
    ///
    /// # Errors
    /// If the number of names differs from the number of rows.
    pub fn labels(&self, asked: Option<&[String]>, num_labels: usize) -> Result<Vec<String>> {
        if let Some(asked) = asked {
            ensure!(
                asked.len() == num_labels,
                "got {} label names, but the classifier has {num_labels} labels: name all of them, in id order",
                asked.len()
            );
            return Ok(asked.to_vec());
        }
        if let Some(names) = &self.id2label {
            ensure!(
                names.len() == num_labels,
                "config.json names {} labels, but the classifier's weights have {num_labels} rows: \
                 the files do not belong together",
                names.len()
            );
        }
        let generic: Vec<String> = (0..num_labels).map(|id| format!("LABEL_{id}")).collect();
        match &self.id2label {
            Some(names) if *names != generic => Ok(names.clone()),
            _ if self.is_ag_news() && num_labels == AG_NEWS_LABELS.len() => {
                Ok(AG_NEWS_LABELS.map(String::from).to_vec())
            }
            _ => Ok(generic),
        }
    }

    fn is_ag_news(&self) -> bool {
        self.finetuning_task.as_deref().is_some_and(|task| matches!(task, "ag_news" | "ag-news"))
    }
}

/// The family with that `model_type`. The oldest files have none, and are BERT's.
fn family(model_type: Option<&str>, fields: &Fields) -> Result<&'static Family> {
    let model_type = model_type.unwrap_or("bert");
    if let Some(family) = FAMILIES.iter().find(|family| family.model_type == model_type) {
        return Ok(family);
    }
    let supported = FAMILIES.iter().map(|family| family.model_type).collect::<Vec<_>>().join(", ");
    let code = match fields.get("auto_map") {
        Some(_) => " and is defined by code in its repository (auto_map), which agnews does not run",
        None => "",
    };
    bail!("model_type is {model_type:?}{code}: supported are {supported}")
}

/// `id2label` as a list: its keys must be 0 to n-1.
fn id2label(object: &Map<String, Value>) -> Result<Vec<String>> {
    let mut names = vec![None; object.len()];
    for (key, name) in object {
        let name = name.as_str().ok_or_else(|| anyhow!("id2label[{key:?}] is {name}, not a string"))?;
        let slot = key.parse::<usize>().ok().and_then(|id| names.get_mut(id));
        let slot =
            slot.ok_or_else(|| anyhow!("id2label has the id {key:?}: ids must run from 0 to {}", object.len() - 1))?;
        ensure!(slot.replace(name.to_owned()).is_none(), "id2label has the id {key:?} twice");
    }
    Ok(names.into_iter().map(|name| name.expect("n distinct ids below n fill every slot")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Activation;

    const SMALL: &str = r#"{"model_type": "bert", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 32}"#;

    fn with(field: &str, value: Value) -> Result<Config> {
        let mut object: Value = serde_json::from_str(SMALL).unwrap();
        object[field] = value;
        Config::parse(object.to_string().as_bytes(), "config.json")
    }

    fn generic(n: usize) -> Value {
        (0..n).map(|i| (i.to_string(), Value::from(format!("LABEL_{i}")))).collect::<Map<_, _>>().into()
    }

    #[test]
    fn defaults_are_those_of_transformers() {
        let config = Config::parse(SMALL.as_bytes(), "config.json").unwrap();
        assert_eq!(config.architecture.activation, Activation::Gelu);
        assert_eq!(config.architecture.norm.eps, 1e-12);
        assert_eq!(config.architecture.embeddings.token_types, Some(2));
        assert_eq!((config.max_length(), config.score_function(3)), (32, ScoreFunction::Softmax));
        assert_eq!(config.labels(None, 3).unwrap(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
    }

    #[test]
    fn every_bad_field_is_named() {
        let cases = [
            ("model_type", Value::from("gpt2")),
            ("architectures", serde_json::json!(["BertForMaskedLM"])),
            ("hidden_size", 0.into()),
            ("hidden_size", 9.into()),
            ("vocab_size", (1u64 << 60).into()),
            ("num_hidden_layers", (-1).into()),
            ("intermediate_size", "wide".into()),
            ("max_position_embeddings", 1.into()),
            ("layer_norm_eps", "NaN".into()),
            ("hidden_act", "swish".into()),
            ("problem_type", "ranking".into()),
            ("quantization_config", serde_json::json!({"quant_method": "bitsandbytes"})),
            ("type_vocab_size", 65.into()),
            ("position_embedding_type", "relative_key".into()),
            ("is_decoder", true.into()),
            ("id2label", serde_json::json!({"0": "a", "2": "b"})),
            ("id2label", serde_json::json!({"0": "a", "00": "b"})),
            ("id2label", serde_json::json!({"0": 1})),
        ];
        for (field, value) in cases {
            let error = format!("{:#}", with(field, value.clone()).expect_err(&format!("{field} = {value}")));
            assert!(error.contains(field) && error.contains("config.json"), "{field} = {value}: {error}");
        }
        assert!(format!("{:#}", Config::parse(b"[1", "x/config.json").unwrap_err()).contains("x/config.json"));
    }

    #[test]
    fn labels_come_from_the_flag_then_the_names_then_ag_news() {
        let named = with("id2label", serde_json::json!({"1": "no", "0": "yes"})).unwrap();
        assert_eq!(named.labels(None, 2).unwrap(), ["yes", "no"]);
        assert_eq!(named.labels(Some(&["a".into(), "b".into()]), 2).unwrap(), ["a", "b"]);
        assert!(named.labels(Some(&["a".into()]), 2).unwrap_err().to_string().contains("has 2 labels"));
        assert!(named.labels(None, 3).unwrap_err().to_string().contains("3 rows"));

        let mut object: Value = serde_json::from_str(SMALL).unwrap();
        object["id2label"] = generic(4);
        object["finetuning_task"] = "ag_news".into();
        let ag_news = Config::parse(object.to_string().as_bytes(), "config.json").unwrap();
        assert_eq!(ag_news.labels(None, 4).unwrap(), AG_NEWS_LABELS);
        let other = with("id2label", generic(4)).unwrap();
        assert_eq!(other.labels(None, 4).unwrap(), ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]);
    }

    /// The configs of the tests' checkpoints, by folder.
    fn fixtures() -> Vec<(String, Value)> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
        let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let configs = folders.filter(|path| path.is_dir()).map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_slice(&std::fs::read(path.join("config.json")).unwrap()).unwrap())
        });
        configs.collect()
    }

    fn fixture(folder: &str, changes: &[(&str, Value)]) -> Result<Config> {
        let (_, mut config) = fixtures().into_iter().find(|(name, _)| name == folder).unwrap();
        for (field, value) in changes {
            config[*field] = value.clone();
        }
        Config::parse(config.to_string().as_bytes(), "config.json")
    }

    #[test]
    fn every_family_has_a_fixture() {
        let fixtures = fixtures();
        for family in FAMILIES.iter().filter(|family| family.model_type != "xlm-roberta") {
            assert!(
                fixtures.iter().any(|(_, config)| config["model_type"] == family.model_type),
                "{}",
                family.model_type
            );
        }
        for (name, config) in fixtures {
            Config::parse(config.to_string().as_bytes(), &name).unwrap();
        }
    }

    #[test]
    fn what_a_family_cannot_honour_is_named() {
        for (folder, field, value) in [
            ("distilbert", "dim", Value::from(0)),
            ("distilbert", "activation", "silu".into()),
            ("roberta", "pad_token_id", 49.into()),
            ("roberta", "pad_token_id", (-1).into()),
            ("roberta", "position_embedding_type", "relative_key_query".into()),
            ("albert", "num_hidden_groups", 4.into()),
            ("albert", "embedding_size", 0.into()),
            ("electra", "embedding_size", "wide".into()),
            ("mpnet", "max_position_embeddings", 2.into()),
            ("deberta-v2", "conv_kernel_size", 3.into()),
            ("deberta-v2", "embedding_size", 9.into()),
            ("deberta-v2", "pooler_hidden_size", 9.into()),
            ("deberta-v2", "position_buckets", 3.into()),
            ("deberta-v2", "max_relative_positions", 5.into()),
            ("deberta-v2", "relative_attention", false.into()),
            ("deberta-v2", "type_vocab_size", (-1).into()),
            ("deberta-v2", "pooler_hidden_act", "mish".into()),
            ("modernbert", "num_attention_heads", 2.into()),
            ("modernbert", "classifier_pooling", "max".into()),
            ("modernbert", "layer_types", serde_json::json!(["full_attention"])),
            ("modernbert", "rope_parameters", serde_json::json!({"full_attention": {"rope_type": "yarn"}})),
            ("modernbert", "rope_scaling", serde_json::json!({"type": "linear"})),
            ("modernbert", "global_rope_theta", (-3).into()),
            ("modernbert", "norm_eps", 2.into()),
        ] {
            let error = fixture(folder, &[(field, value.clone())]).expect_err(&format!("{folder}: {field} = {value}"));
            assert!(format!("{error:#}").contains(field), "{folder}: {field} = {value}: {error:#}");
        }
    }

    /// Absent fields have transformers' defaults.
    #[test]
    fn null_fields_count_as_absent() {
        let albert = fixture("albert", &[("embedding_size", Value::Null), ("hidden_act", Value::Null)]).unwrap();
        assert_eq!(albert.architecture.embeddings.size, 128);
        assert_eq!(albert.architecture.activation, Activation::GeluTanh);
        let deberta = fixture("deberta-v2", &[("pooler_hidden_size", Value::Null)]).unwrap();
        assert_eq!(deberta.architecture.norm.eps, 1e-7);
    }

    #[test]
    fn modernbert_reads_the_files_of_transformers_4_and_5() {
        let older = [("global_rope_theta", 9e4.into()), ("local_rope_theta", 5e3.into())];
        let newer = [
            ("layer_types", serde_json::json!(["full_attention", "sliding_attention", "full_attention"])),
            (
                "rope_parameters",
                serde_json::json!({"full_attention": {"rope_type": "default", "rope_theta": 9e4},
                                   "sliding_attention": {"rope_type": "default", "rope_theta": 5e3}}),
            ),
            ("global_attn_every_n_layers", Value::Null),
        ];
        for config in [fixture("modernbert", &older).unwrap(), fixture("modernbert", &newer).unwrap()] {
            let layers = config.architecture.layers.iter().map(|layer| (layer.window, layer.rotary_base));
            let expected = [(None, Some(9e4)), (Some(5), Some(5e3)), (None, Some(9e4))];
            assert_eq!(layers.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn positions_of_roberta_start_after_the_padding() {
        let roberta = fixture("roberta", &[("max_position_embeddings", 514.into())]).unwrap();
        assert_eq!(roberta.max_length(), 512);
        assert_eq!(fixture("camembert-padding", &[]).unwrap().max_length(), 46);
    }

    #[test]
    fn scores_follow_the_problem() {
        let of = |problem: Value| with("problem_type", problem).unwrap();
        assert_eq!(of("multi_label_classification".into()).score_function(3), ScoreFunction::Sigmoid);
        assert_eq!(of("single_label_classification".into()).score_function(3), ScoreFunction::Softmax);
        assert_eq!(of(Value::Null).score_function(1), ScoreFunction::Sigmoid);
        assert_eq!(of(Value::Null).problem(1), ProblemType::Regression);
        assert_eq!(of(Value::Null).problem(2), ProblemType::SingleLabel);
    }

    #[test]
    fn mutated_configs_do_no_harm() {
        let full = include_bytes!("../builtin/config.json").to_vec();
        let mut seeds: Vec<Vec<u8>> =
            fixtures().into_iter().map(|(_, config)| config.to_string().into_bytes()).collect();
        seeds.extend([full, SMALL.as_bytes().to_vec()]);
        let seeds: Vec<&[u8]> = seeds.iter().map(Vec::as_slice).collect();
        crate::fuzzing::fuzz(&seeds, |json| {
            let config = Config::parse(json, "config.json");
            config.is_ok_and(|config| config.labels(None, 4).is_ok() && config.max_length() > 0)
        });
    }
}
