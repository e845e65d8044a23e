//! `config.json`: the shape of the model, read strictly, and the names of its classes.

use anyhow::{anyhow, bail, ensure, Context, Result};
use candle_transformers::models::bert::HiddenAct;
use serde_json::{Map, Value};

/// The class names of the AG News data set, in its own order.
const AG_NEWS_LABELS: [&str; 4] = ["World", "Sports", "Business", "Sci/Tech"];

/// The largest value accepted for a dimension. The largest BERT in use has 30 k to 250 k word pieces; a number far
/// beyond is a damaged file, and is refused here rather than found in an allocation.
const MAX_DIMENSION: u64 = 1 << 24;

/// The longest `config.json` in bytes: some have a name for each of tens of thousands of classes.
pub(super) const MAX_FILE_SIZE: usize = 16 << 20;

/// How logits become scores, as transformers' text-classification pipeline decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreFunction {
    /// One class of several: scores sum to 1.
    Softmax,
    /// `problem_type: multi_label_classification`: each class on its own.
    Sigmoid,
}

/// The part of `config.json` that inference needs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Rows of the word piece embedding.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Encoder layers.
    pub num_hidden_layers: usize,
    /// Attention heads; they divide `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Activation of the feed-forward layer.
    pub hidden_act: HiddenAct,
    /// Rows of the position embedding: the longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Rows of the token type embedding.
    pub type_vocab_size: usize,
    /// Added to the variance in every layer norm.
    pub layer_norm_eps: f64,
    /// Softmax or sigmoid over the logits.
    pub score_function: ScoreFunction,
    /// `id2label` in id order, where the file has it.
    id2label: Option<Vec<String>>,
    /// `finetuning_task`, where the file has it.
    finetuning_task: Option<String>,
}

impl Config {
    /// Reads a `config.json`; `origin` names it in messages.
    ///
    /// # Errors
    /// Where it is no JSON object, is for another architecture or head, or a field is missing or out of range;
    /// the message names `origin` and the field.
    pub fn parse(json: &[u8], origin: &str) -> Result<Config> {
        let value: Value = serde_json::from_slice(json).with_context(|| format!("{origin} is not valid JSON"))?;
        let object = value.as_object().ok_or_else(|| anyhow!("{origin} is not a JSON object"))?;
        Config::from_fields(&Fields { object })
            .with_context(|| format!("{origin} does not describe a model that agnews can run"))
    }

    fn from_fields(fields: &Fields) -> Result<Config> {
        check_architecture(fields)?;
        let config = Config {
            vocab_size: fields.dimension("vocab_size")?,
            hidden_size: fields.dimension("hidden_size")?,
            num_hidden_layers: fields.dimension("num_hidden_layers")?,
            num_attention_heads: fields.dimension("num_attention_heads")?,
            intermediate_size: fields.dimension("intermediate_size")?,
            hidden_act: hidden_act(fields)?,
            max_position_embeddings: fields.dimension("max_position_embeddings")?,
            type_vocab_size: fields.optional_dimension("type_vocab_size")?.unwrap_or(2),
            layer_norm_eps: layer_norm_eps(fields)?,
            score_function: score_function(fields)?,
            id2label: id2label(fields)?,
            finetuning_task: fields.text("finetuning_task")?.map(str::to_owned),
        };
        ensure!(
            config.hidden_size.is_multiple_of(config.num_attention_heads),
            "hidden_size {} is not a multiple of num_attention_heads {}",
            config.hidden_size,
            config.num_attention_heads
        );
        ensure!(
            config.max_position_embeddings >= 2,
            "max_position_embeddings is below 2, the room for [CLS] and [SEP]"
        );
        Ok(config)
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// The names of the classes, `num_labels` of them (the rows of the classifier): `asked` (`--labels`), else
    /// real names in `id2label`, else the AG News names for a checkpoint fine-tuned on it whose config says only
    /// `LABEL_0` to `LABEL_3`, else `LABEL_n`.
    ///
    /// # Errors
    /// Where names and rows differ in number.
    pub fn labels(&self, asked: Option<&[String]>, num_labels: usize) -> Result<Vec<String>> {
        ensure!(
            num_labels > 1,
            "the classifier has one output, a regression head: agnews needs a checkpoint with two classes or more"
        );
        if let Some(asked) = asked {
            ensure!(
                asked.len() == num_labels,
                "--labels names {} classes, but the classifier has {num_labels}: name all of them, in id order",
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

/// The fields of the JSON object, read with their bounds and named in errors.
struct Fields<'a> {
    object: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn optional_dimension(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_u64() {
            Some(number @ 1..=MAX_DIMENSION) => Ok(Some(number as usize)),
            _ => bail!("{name} is {value}, not a whole number from 1 to {MAX_DIMENSION}"),
        }
    }

    fn dimension(&self, name: &str) -> Result<usize> {
        self.optional_dimension(name)?.ok_or_else(|| anyhow!("{name} is missing"))
    }

    fn text(&self, name: &str) -> Result<Option<&str>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| anyhow!("{name} is {value}, not a string"))
    }
}

fn check_architecture(fields: &Fields) -> Result<()> {
    let model_type = fields.text("model_type")?;
    ensure!(
        matches!(model_type, None | Some("bert")),
        "model_type is {:?}: only BERT (\"bert\") is supported",
        model_type.unwrap_or_default()
    );
    if let Some(architectures) = fields.get("architectures").and_then(Value::as_array) {
        ensure!(
            architectures.iter().any(|name| name == "BertForSequenceClassification"),
            "architectures is {}: a BertForSequenceClassification is needed, a checkpoint fine-tuned to classify",
            Value::Array(architectures.clone())
        );
    }
    ensure!(
        fields.get("is_decoder") != Some(&Value::Bool(true)),
        "is_decoder is true: only BERT encoders are supported"
    );
    let position = fields.text("position_embedding_type")?;
    ensure!(
        matches!(position, None | Some("absolute")),
        "position_embedding_type is {:?}: only \"absolute\" is supported",
        position.unwrap_or_default()
    );
    Ok(())
}

/// transformers' names of the activations, as far as BERT checkpoints use them.
fn hidden_act(fields: &Fields) -> Result<HiddenAct> {
    match fields.text("hidden_act")?.unwrap_or("gelu") {
        "gelu" => Ok(HiddenAct::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_approximate" => Ok(HiddenAct::GeluApproximate),
        "relu" => Ok(HiddenAct::Relu),
        other => bail!("hidden_act is {other:?}: supported are gelu, gelu_new, gelu_pytorch_tanh and relu"),
    }
}

fn layer_norm_eps(fields: &Fields) -> Result<f64> {
    let Some(value) = fields.get("layer_norm_eps") else { return Ok(1e-12) };
    match value.as_f64() {
        Some(eps) if (0.0..1.0).contains(&eps) => Ok(eps),
        _ => bail!("layer_norm_eps is {value}, not a number from 0 to 1"),
    }
}

fn score_function(fields: &Fields) -> Result<ScoreFunction> {
    match fields.text("problem_type")? {
        None | Some("single_label_classification") => Ok(ScoreFunction::Softmax),
        Some("multi_label_classification") => Ok(ScoreFunction::Sigmoid),
        Some("regression") => {
            bail!("problem_type is \"regression\": agnews classifies, it has no use for a regression head")
        }
        Some(other) => {
            bail!("problem_type is {other:?}: supported are single_label_classification and multi_label_classification")
        }
    }
}

/// `id2label` as a list: its keys must be 0 to n-1.
fn id2label(fields: &Fields) -> Result<Option<Vec<String>>> {
    let Some(value) = fields.get("id2label") else { return Ok(None) };
    let object = value.as_object().ok_or_else(|| anyhow!("id2label is not an object"))?;
    let mut names = vec![None; object.len()];
    for (key, name) in object {
        let name = name.as_str().ok_or_else(|| anyhow!("id2label[{key:?}] is {name}, not a string"))?;
        let slot = key.parse::<usize>().ok().and_then(|id| names.get_mut(id));
        let slot =
            slot.ok_or_else(|| anyhow!("id2label has the id {key:?}: ids must run from 0 to {}", object.len() - 1))?;
        ensure!(slot.replace(name.to_owned()).is_none(), "id2label has the id {key:?} twice");
    }
    Ok(Some(names.into_iter().map(|name| name.expect("n distinct ids below n fill every slot")).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(config.hidden_act, HiddenAct::Gelu);
        assert_eq!(config.layer_norm_eps, 1e-12);
        assert_eq!(config.type_vocab_size, 2);
        assert_eq!(config.head_dim(), 4);
        assert_eq!(config.labels(None, 3).unwrap(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
    }

    #[test]
    fn every_bad_field_is_named() {
        let cases = [
            ("model_type", Value::from("roberta")),
            ("architectures", serde_json::json!(["BertForMaskedLM"])),
            ("hidden_size", 0.into()),
            ("hidden_size", 9.into()),
            ("vocab_size", (1u64 << 60).into()),
            ("num_hidden_layers", (-1).into()),
            ("intermediate_size", "wide".into()),
            ("max_position_embeddings", 1.into()),
            ("layer_norm_eps", "NaN".into()),
            ("hidden_act", "swish".into()),
            ("problem_type", "regression".into()),
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
        assert!(named.labels(Some(&["a".into()]), 2).unwrap_err().to_string().contains("--labels"));
        assert!(named.labels(None, 3).unwrap_err().to_string().contains("3 rows"));
        assert!(named.labels(None, 1).unwrap_err().to_string().contains("regression"));

        let mut object: Value = serde_json::from_str(SMALL).unwrap();
        object["id2label"] = generic(4);
        object["finetuning_task"] = "ag_news".into();
        let ag_news = Config::parse(object.to_string().as_bytes(), "config.json").unwrap();
        assert_eq!(ag_news.labels(None, 4).unwrap(), AG_NEWS_LABELS);
        let other = with("id2label", generic(4)).unwrap();
        assert_eq!(other.labels(None, 4).unwrap(), ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]);
    }

    #[test]
    fn mutated_configs_do_no_harm() {
        let full = include_bytes!("builtin/config.json");
        crate::fuzzing::fuzz(&[full, SMALL.as_bytes()], |json| {
            let config = Config::parse(json, "config.json");
            config.is_ok_and(|config| config.labels(None, 4).is_ok() && config.head_dim() > 0)
        });
    }
}
