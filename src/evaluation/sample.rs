//! Logits with gold labels, kept in memory: what a calibration is fitted to. Five bytes for each text and label.

use crate::prediction::Prediction;

/// The texts that have both.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    labels: usize,
    /// A row for each text, in id order.
    logits: Vec<f32>,
    /// Whether the text has the label; of the same shape.
    gold: Vec<bool>,
}

impl Sample {
    /// An empty one for so many labels.
    pub fn new(labels: usize) -> Sample {
        Sample { labels, logits: Vec::new(), gold: Vec::new() }
    }

    /// Adds a text with the ids of its gold labels.
    pub fn push(&mut self, prediction: &Prediction, gold: &[usize]) {
        let start = self.logits.len();
        self.logits.resize(start + self.labels, 0.0);
        self.gold.resize(start + self.labels, false);
        prediction.ranking.iter().for_each(|scored| self.logits[start + scored.label_id] = scored.logit);
        gold.iter().for_each(|&id| self.gold[start + id] = true);
    }

    /// The number of texts.
    pub fn len(&self) -> usize {
        self.logits.len() / self.labels
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.logits.is_empty()
    }

    /// The number of labels.
    pub fn labels(&self) -> usize {
        self.labels
    }

    /// The logits of one text, and whether it has each label.
    pub fn text(&self, place: usize) -> (&[f32], &[bool]) {
        let row = place * self.labels..(place + 1) * self.labels;
        (&self.logits[row.clone()], &self.gold[row])
    }

    /// How many texts have each label.
    pub fn support(&self) -> Vec<u64> {
        let count = |id: usize| self.gold.iter().skip(id).step_by(self.labels).filter(|has| **has).count() as u64;
        (0..self.labels).map(count).collect()
    }
}
