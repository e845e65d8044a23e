//! Explains texts by occlusion: the variants of all texts that [`Occlusion`] asks for go through the model in common
//! batches, round by round.

use super::{Classifier, TextLogits};
use crate::explanation::{words, Explanation, Occlusion};
use crate::prediction::log_odds;
use crate::tokenization::TextOrPair;
use anyhow::Result;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Variants of about this many bytes are in memory together: thousands of short texts, a few if a text has megabytes.
const VARIANT_BYTES: usize = 16 << 20;

/// Texts explained, and what that took.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    /// For each text, one for each of its labels.
    pub explanations: Vec<Vec<Explanation>>,
    /// How many texts the model has classified for that, the given ones included.
    pub variants: usize,
}

impl Classifier {
    /// Explains each text's labels, given by their ids; those of a text may be none. Costs about as much as classifying
    /// each text as many times as it has words, up to [`crate::explanation::EXACT_WORDS`]. Of a text that the model
    /// reads in part, only as many words as it takes tokens are tried. `on_batch` is called from any thread with
    /// the number of texts that a finished batch amounts to.
    ///
    /// # Errors
    /// As [`Classifier::predict`].
    pub fn explain(&self, texts: &[(&str, Vec<usize>)], on_batch: &(dyn Fn(usize) + Sync)) -> Result<Explained> {
        let (whole, label_ids): (Vec<&str>, Vec<&[usize]>) = texts.iter().map(|(text, ids)| (*text, &ids[..])).unzip();
        let whole = self.log_odds(&whole, &label_ids, &|_| {})?;
        let texts_with_odds = texts.iter().zip(whole);
        let mut searches: Vec<Occlusion<'_>> = texts_with_odds
            .map(|((text, label_ids), whole)| Occlusion::new(text, self.words_read(text), label_ids, whole))
            .collect();
        let mut variants = texts.len();
        loop {
            let round: usize = searches.iter().map(Occlusion::round_len).sum();
            if round == 0 {
                break;
            }
            variants += round;
            let ending = searches.iter().filter(|search| search.is_last_round() && search.round_len() > 0).count();
            let done = AtomicUsize::new(0);
            self.round(&mut searches, &|batch| {
                let before = done.fetch_add(batch, Ordering::Relaxed);
                on_batch((before + batch) * ending / round - before * ending / round);
            })?;
        }
        Ok(Explained { explanations: searches.into_iter().map(Occlusion::explanations).collect(), variants })
    }

    /// Predicts what each search asks for, and gives it the outcome.
    fn round(&self, searches: &mut [Occlusion<'_>], on_batch: &(dyn Fn(usize) + Sync)) -> Result<()> {
        let mut outcomes = Vec::new();
        let mut texts: Vec<String> = Vec::new();
        let mut label_ids: Vec<&[usize]> = Vec::new();
        let mut bytes = 0;
        for (search, place) in searches.iter().flat_map(|search| (0..search.round_len()).map(move |at| (search, at))) {
            let variant = search.variant(place);
            bytes += variant.len();
            texts.push(variant);
            label_ids.push(search.label_ids());
            if bytes >= VARIANT_BYTES {
                outcomes.extend(self.log_odds(&texts, &label_ids, on_batch)?);
                texts.clear();
                label_ids.clear();
                bytes = 0;
            }
        }
        outcomes.extend(self.log_odds(&texts, &label_ids, on_batch)?);
        let mut outcomes = outcomes.into_iter();
        for search in searches {
            let count = search.round_len();
            search.take(outcomes.by_ref().take(count));
        }
        Ok(())
    }

    /// The log odds of each text's labels.
    fn log_odds(
        &self,
        texts: &[impl AsRef<str>],
        label_ids: &[&[usize]],
        on_batch: &(dyn Fn(usize) + Sync),
    ) -> Result<Vec<Vec<f64>>> {
        let texts: Vec<TextOrPair<'_>> = texts.iter().map(|text| TextOrPair::Text(text.as_ref())).collect();
        let logits = self.text_logits(&texts, on_batch)?;
        let of_label = |rows: &[Vec<f32>], label_id: usize| match &self.zero_shot {
            Some(zero_shot) => zero_shot.log_odds(rows, label_id),
            None => log_odds(&rows[0], self.score_function, label_id),
        };
        let of_text = |(logits, label_ids): (TextLogits, &&[usize])| {
            let rows = self.calibrated(logits.rows);
            label_ids.iter().map(|&id| of_label(&rows, id)).collect()
        };
        Ok(logits.into_iter().zip(label_ids).map(of_text).collect())
    }

    /// The logits that the scores are made from.
    fn calibrated(&self, mut rows: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
        if let Some(temperature) = self.temperature {
            rows.iter_mut().flatten().for_each(|logit| *logit = (f64::from(*logit) / temperature) as f32);
        }
        rows
    }

    /// The words that the model may read. A word is at least one token, unless the tokenizer drops all its characters.
    fn words_read(&self, text: &str) -> Vec<Range<usize>> {
        let most = match &self.long_text {
            Some(_) => usize::MAX,
            None => self.max_length(),
        };
        if self.tokenization.truncates_beginnings() {
            let mut words: Vec<_> = words(text).rev().take(most).collect();
            words.reverse();
            return words;
        }
        words(text).take(most).collect()
    }
}
