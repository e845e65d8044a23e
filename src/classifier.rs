//! From texts to predictions: tokenization, batching, model and scores in one call. The main interface of the library.

pub(crate) mod cascade;
mod long_text;
mod network;
mod occlusion;

pub use cascade::{CascadeError, CascadeReport};
pub use long_text::{LongText, LongTextOptions};
pub use occlusion::Explained;

use crate::checkpoint::config::{ProblemType, ScoreFunction};
use crate::checkpoint::Checkpoint;
use crate::model::{Backend, BackendChoice};
use crate::prediction::{Extent, Prediction, Problem};
use crate::tokenization::{Encoding, ModelInputs, TextOrPair, Tokenization};
use crate::zero_shot::{ZeroShot, ZeroShotOptions};
use anyhow::Result;
use cascade::Cascade;
use network::Network;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The options of a classifier, apart from the checkpoint.
#[derive(Debug, Clone, Default)]
pub struct ClassifierOptions {
    /// What computes.
    pub backend: BackendChoice,
    /// Whether int8 computes first, and `backend` only what int8 is not sure of. Labels are then nearly always those of
    /// `backend`, but scores may be int8's. A text's label depends on the texts before it.
    pub cascade: bool,
    /// Names of the classes in id order, instead of the checkpoint's own.
    pub labels: Option<Vec<String>>,
    /// Maximum length in tokens; the default is the model's limit.
    pub max_length: Option<usize>,
    /// Tokens per batch; the default is chosen for speed.
    pub max_batch_tokens: Option<usize>,
    /// How logits become scores; the default is what the checkpoint was trained for.
    pub score_function: Option<ScoreFunction>,
    /// The user's own labels, for a checkpoint trained for natural language inference.
    pub zero_shot: Option<ZeroShotOptions>,
    /// What happens to texts longer than the model takes.
    pub long_text: LongTextOptions,
}

/// A checkpoint, ready to classify.
pub struct Classifier {
    tokenization: Tokenization,
    /// With a cascade, its exact part.
    network: Network,
    cascade: Option<Cascade>,
    labels: Vec<String>,
    problem: Problem,
    score_function: ScoreFunction,
    /// What calibration divides logits by.
    temperature: Option<f64>,
    zero_shot: Option<ZeroShot>,
    long_text: Option<long_text::Windowing>,
}

impl Classifier {
    /// Loads the tokenizer and the model.
    ///
    /// # Errors
    /// If a file of the checkpoint is missing, damaged or does not match the others, an option does not fit the
    /// checkpoint, or the device cannot be opened; [`CascadeError`] if there can be no cascade.
    pub fn load(checkpoint: &Checkpoint, options: &ClassifierOptions) -> Result<Classifier> {
        let config = &checkpoint.config;
        let inputs = ModelInputs {
            model_type: config.model_type,
            vocab_size: config.vocab_size(),
            max_length: config.max_length(),
        };
        let tokenization = Tokenization::load(&checkpoint.files, &inputs, options.max_length)?;
        let num_labels = checkpoint.num_labels()?;
        let labels = config.labels(options.labels.as_deref(), num_labels)?;
        let problem = problem(config.problem(num_labels), num_labels);
        if options.cascade {
            cascade::check(problem, options)?;
        }
        let load = |backend| Network::load(checkpoint, num_labels, backend, options.max_batch_tokens);
        let backend = options.backend.open()?;
        let cascade = options.cascade.then(|| Cascade::load(&backend, load)).transpose()?;
        let network = load(backend)?;
        let zero_shot = options.zero_shot.as_ref().map(|options| ZeroShot::new(options, &labels)).transpose()?;
        Ok(Classifier {
            long_text: long_text::Windowing::new(&options.long_text, &tokenization, zero_shot.as_ref())?,
            problem,
            tokenization,
            network,
            cascade,
            zero_shot,
            labels,
            score_function: options.score_function.unwrap_or_else(|| config.score_function(num_labels)),
            temperature: None,
        })
    }

    /// The names of the labels, in id order: the user's own, or the checkpoint's.
    pub fn labels(&self) -> &[String] {
        self.zero_shot.as_ref().map_or(&self.labels, ZeroShot::labels)
    }

    /// What is predicted for each text.
    pub fn problem(&self) -> Problem {
        self.zero_shot.as_ref().map_or(self.problem, ZeroShot::problem)
    }

    /// How logits become scores.
    pub fn score_function(&self) -> ScoreFunction {
        self.zero_shot.as_ref().map_or(self.score_function, ZeroShot::score_function)
    }

    /// Divides all logits by `temperature` before they become scores: [`crate::evaluation::calibration`] finds it.
    pub fn set_temperature(&mut self, temperature: f64) {
        self.temperature = Some(temperature);
    }

    /// Prepares the weights for many texts now rather than at the second batch, for timings without it.
    pub fn warm_up(&self) {
        self.network.warm_up();
    }

    /// Maximum length in tokens, including special ones.
    pub fn max_length(&self) -> usize {
        self.tokenization.max_length()
    }

    /// What computes; with a cascade, what computes the texts of which int8 is not sure.
    pub fn backend(&self) -> &Backend {
        self.network.backend()
    }

    /// All that computes, for people.
    pub fn arithmetic(&self) -> String {
        self.cascade.as_ref().map_or_else(|| self.backend().to_string(), |cascade| cascade.arithmetic().to_owned())
    }

    /// Whether the processor lacks instructions for what computes most texts.
    pub fn is_emulated(&self) -> bool {
        self.cascade.as_ref().map_or(self.backend(), Cascade::backend).is_emulated()
    }

    /// What the cascade has done and found so far, if there is one.
    pub fn cascade_report(&self) -> Option<CascadeReport> {
        self.cascade.as_ref().map(Cascade::report)
    }

    /// What a classifier in another process needs to go on after the texts so far as this one would, by
    /// [`Classifier::recall`]. `None` if there is nothing, or if it needs the texts: see [`Classifier::relearn`].
    pub fn memory(&self) -> Option<serde_json::Value> {
        self.cascade.as_ref().and_then(Cascade::memory)
    }

    /// Takes over what another classifier with the same options has learned.
    ///
    /// # Errors
    /// If it is not what [`Classifier::memory`] returned.
    pub fn recall(&self, memory: &serde_json::Value) -> Result<()> {
        self.cascade.as_ref().map_or(Ok(()), |cascade| cascade.recall(memory))
    }

    /// Learns from texts that another classifier has classified, if there is anything to learn: afterwards, this one goes
    /// on as the other would.
    ///
    /// # Errors
    /// As for [`Classifier::predict`].
    pub fn relearn(&self, texts: &[TextOrPair<'_>]) -> Result<()> {
        let Some(cascade) = &self.cascade else { return Ok(()) };
        cascade.relearn(&self.network, &self.tokenization.encode_texts(texts)?)
    }

    /// The token ids of each text, in order.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(&self, texts: &[&str]) -> Result<Vec<Encoding>> {
        self.tokenization.encode_texts(&texts.iter().map(|text| TextOrPair::Text(text)).collect::<Vec<_>>())
    }

    /// A prediction for each text, in order; `None` if the text is empty or only white space.
    ///
    /// # Errors
    /// If the tokenizer or the device fails, or the model computes a logit that is not a number.
    pub fn classify(&self, texts: &[&str]) -> Result<Vec<Option<Prediction>>> {
        let is_blank = |text: &str| text.trim().is_empty();
        let present: Vec<TextOrPair<'_>> =
            texts.iter().filter(|text| !is_blank(text)).map(|text| TextOrPair::Text(text)).collect();
        let mut predictions = self.predict(&present, &|_| {})?.into_iter();
        Ok(texts.iter().map(|text| if is_blank(text) { None } else { predictions.next() }).collect())
    }

    /// A prediction for each text or pair, in order. `on_batch` is called from any thread with the size of each
    /// finished batch. With a cascade, calls follow each other: of two at the same time, what one learned may be lost.
    ///
    /// # Errors
    /// As for [`Classifier::classify`].
    pub fn predict(&self, texts: &[TextOrPair<'_>], on_batch: &(dyn Fn(usize) + Sync)) -> Result<Vec<Prediction>> {
        let logits = self.text_logits(texts, on_batch)?;
        Ok(logits.into_iter().map(|TextLogits { rows, extent }| self.prediction_of(&rows, extent)).collect())
    }

    /// The logits that the prediction for each text or pair is made from, in order.
    fn text_logits(&self, texts: &[TextOrPair<'_>], on_batch: &(dyn Fn(usize) + Sync)) -> Result<Vec<TextLogits>> {
        if let Some(windowing) = self.long_text.as_ref().filter(|windowing| windowing.pools()) {
            return self.pooled_logits(windowing, texts, on_batch);
        }
        if let Some(zero_shot) = &self.zero_shot {
            return self.zero_shot_logits(zero_shot, texts, on_batch);
        }
        let encodings = self.tokenization.encode_texts(texts)?;
        let rows = match &self.cascade {
            Some(cascade) => cascade.logits(&self.network, &encodings, on_batch)?,
            None => self.network.logits(&encodings, on_batch)?,
        };
        let rows = rows.into_iter().zip(&encodings);
        Ok(rows.map(|(row, encoding)| TextLogits { rows: vec![row], extent: extent(encoding.truncated) }).collect())
    }

    /// All texts with all hypotheses are batched together, so n labels cost n short sequences rather than n passes.
    fn zero_shot_logits(
        &self,
        zero_shot: &ZeroShot,
        texts: &[TextOrPair<'_>],
        on_batch: &(dyn Fn(usize) + Sync),
    ) -> Result<Vec<TextLogits>> {
        let hypotheses = zero_shot.hypotheses();
        let pairs: Vec<TextOrPair<'_>> = texts
            .iter()
            .flat_map(|text| {
                let (TextOrPair::Text(text) | TextOrPair::Pair(text, _)) = *text;
                hypotheses.iter().map(move |hypothesis| TextOrPair::Pair(text, hypothesis))
            })
            .collect();
        let encodings = self.tokenization.encode_texts(&pairs)?;
        let done = AtomicUsize::new(0);
        let logits = self.network.logits(&encodings, &|sequences| {
            let before = done.fetch_add(sequences, Ordering::Relaxed);
            on_batch((before + sequences) / hypotheses.len() - before / hypotheses.len());
        })?;
        let rows = logits.chunks(hypotheses.len()).zip(encodings.chunks(hypotheses.len()));
        let truncated = |encodings: &[Encoding]| encodings.iter().any(|encoding| encoding.truncated);
        Ok(rows
            .map(|(rows, encodings)| TextLogits { rows: rows.to_vec(), extent: extent(truncated(encodings)) })
            .collect())
    }

    /// `rows` are the logits, a row for each hypothesis or just one.
    fn prediction_of(&self, rows: &[Vec<f32>], extent: Extent) -> Prediction {
        let prediction = match &self.zero_shot {
            Some(zero_shot) => zero_shot.prediction(rows, extent),
            None => Prediction::from_logits(&rows[0], self.score_function, extent),
        };
        match self.temperature {
            Some(temperature) => prediction.at_temperature(temperature, self.score_function()),
            None => prediction,
        }
    }

    /// The logits of each encoding, in order: one per class. A cascade has no part in them.
    ///
    /// # Errors
    /// If the device fails, or a logit is not a finite number.
    pub fn logits(&self, encodings: &[Encoding]) -> Result<Vec<Vec<f32>>> {
        self.network.logits(encodings, &|_| {})
    }
}

/// What a prediction is made from.
struct TextLogits {
    /// A row for each hypothesis, or just one.
    rows: Vec<Vec<f32>>,
    extent: Extent,
}

fn extent(truncated: bool) -> Extent {
    match truncated {
        true => Extent::Truncated,
        false => Extent::Whole,
    }
}

fn problem(trained_for: ProblemType, num_labels: usize) -> Problem {
    match trained_for {
        ProblemType::MultiLabel => Problem::MultiLabel,
        _ if num_labels == 1 => Problem::Value,
        ProblemType::SingleLabel | ProblemType::Regression => Problem::SingleLabel,
    }
}
