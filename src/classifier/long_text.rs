//! Texts longer than the model: overlapping windows, each classified, and their logits pooled into one prediction per
//! text or given one by one.
//!
//! The windows of all texts go through the model in common batches, as many at a time as hold [`GROUP_TOKENS`], so memory
//! grows neither with the length of a text nor with the overlap.

use super::{Classifier, TextLogits};
use crate::prediction::{Extent, Prediction};
use crate::tokenization::windows::{Frame, TextWindow, Windows};
use crate::tokenization::{TextOrPair, Tokenization};
use crate::zero_shot::ZeroShot;
use anyhow::{bail, Result};
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Tokens that are cut into batches together: some 680 batches for a CPU, so that all threads are busy to the end.
const GROUP_TOKENS: usize = 1 << 18;

/// The first group has as many, and each further one up to twice as many, so that the first windows come at once.
const FIRST_GROUP_TOKENS: usize = 1 << 14;

/// What happens to texts longer than the model takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LongTextOptions {
    /// What is predicted for them.
    pub how: LongText,
    /// How many tokens a window has in common with the one before it: `stride` of transformers.
    pub stride: usize,
}

/// What is predicted for texts longer than the model takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LongText {
    /// The label of as much as the model takes.
    #[default]
    Truncate,
    /// One label by the mean of each logit over the windows, all of which count alike.
    Mean,
    /// One label by the largest of each logit over the windows.
    Max,
    /// Each window's own: [`Classifier::predict_windows`].
    Windows,
}

/// How the windows of one classifier are made.
pub(super) struct Windowing {
    how: LongText,
    stride: usize,
    /// Tokens of the text in a full window.
    room: usize,
    /// What stands around a window: one for each hypothesis, or just one.
    frames: Vec<Frame>,
}

/// A window and its logits: a row for each frame.
struct Classified {
    text: usize,
    window: TextWindow,
    rows: Vec<Vec<f32>>,
}

impl Windowing {
    /// `None` if long texts are truncated.
    ///
    /// # Errors
    /// If the overlap is not smaller than a window, or a hypothesis leaves no room for the text.
    pub(super) fn new(
        options: &LongTextOptions,
        tokenization: &Tokenization,
        zero_shot: Option<&ZeroShot>,
    ) -> Result<Option<Windowing>> {
        if options.how == LongText::Truncate {
            return Ok(None);
        }
        let frames = match zero_shot {
            Some(zero_shot) => {
                let hypotheses = zero_shot.hypotheses().iter();
                hypotheses.map(|hypothesis| tokenization.frame_of(Some(hypothesis))).collect::<Result<_>>()?
            }
            None => vec![tokenization.frame_of(None)?],
        };
        let room = tokenization.window_room(&frames, options.stride)?;
        Ok(Some(Windowing { how: options.how, stride: options.stride, room, frames }))
    }

    /// Whether a text gets one prediction, of all its windows.
    pub(super) fn pools(&self) -> bool {
        matches!(self.how, LongText::Mean | LongText::Max)
    }
}

impl Classifier {
    /// Why a text cannot be cut into windows, as a clause about "it"; `None` if it can, or is to be truncated.
    pub fn refusal(&self, text: &str) -> Option<String> {
        self.long_text.as_ref().and_then(|_| self.tokenization.refuses_windows(text))
    }

    /// Gives `take` a prediction for each window of each text, in order, with the place of the text in `texts`: soon, for
    /// a text may have more windows than are classified in an hour.
    ///
    /// # Errors
    /// As [`Classifier::classify`], for a pair, for a text that [`Classifier::refusal`] refuses, if the classifier
    /// truncates long texts, and what `take` returns.
    pub fn predict_windows(
        &self,
        texts: &[TextOrPair<'_>],
        on_batch: &(dyn Fn(usize) + Sync),
        take: &mut dyn FnMut(usize, Prediction) -> Result<()>,
    ) -> Result<()> {
        let Some(windowing) = &self.long_text else { bail!("this classifier truncates long texts") };
        self.each_window(windowing, texts, on_batch, &mut |Classified { text, window, rows }| {
            take(text, self.prediction_of(&rows, Extent::Window(window.range)))
        })
    }

    pub(super) fn pooled_logits(
        &self,
        windowing: &Windowing,
        texts: &[TextOrPair<'_>],
        on_batch: &(dyn Fn(usize) + Sync),
    ) -> Result<Vec<TextLogits>> {
        let mut pools: Vec<Pool> = texts.iter().map(|_| Pool::new(windowing.how)).collect();
        self.each_window(windowing, texts, on_batch, &mut |classified| {
            pools[classified.text].add(&classified.rows);
            Ok(())
        })?;
        let logits = |pool: Pool| {
            let extent = if pool.windows > 1 { Extent::Pooled(pool.windows) } else { Extent::Whole };
            TextLogits { rows: pool.rows(), extent }
        };
        Ok(pools.into_iter().map(logits).collect())
    }

    /// Classifies all windows, and gives them to `take` in order.
    fn each_window(
        &self,
        windowing: &Windowing,
        texts: &[TextOrPair<'_>],
        on_batch: &(dyn Fn(usize) + Sync),
        take: &mut dyn FnMut(Classified) -> Result<()>,
    ) -> Result<()> {
        let streams = texts.par_iter().map(|text| self.prepared(windowing, *text));
        let streams: Vec<Windows<'_>> = streams.collect::<Result<_>>()?;
        let (mut group, mut tokens, mut most) = (Vec::new(), 0, FIRST_GROUP_TOKENS);
        for (text, stream) in streams.into_iter().enumerate() {
            for window in stream {
                let window = window?;
                tokens += windowing.frames.iter().map(|frame| frame.len() + window.token_ids.len()).sum::<usize>();
                group.push((text, window));
                if tokens >= most {
                    self.group(windowing, std::mem::take(&mut group), on_batch, take)?;
                    (tokens, most) = (0, (2 * most).min(GROUP_TOKENS));
                }
            }
        }
        self.group(windowing, group, on_batch, take)
    }

    fn prepared<'a>(&'a self, windowing: &Windowing, text: TextOrPair<'a>) -> Result<Windows<'a>> {
        let TextOrPair::Text(text) = text else { bail!("a pair of texts cannot be cut into windows") };
        let mut windows = self.tokenization.windows(text, windowing.room, windowing.stride);
        windows.prepare()?;
        Ok(windows)
    }

    fn group(
        &self,
        windowing: &Windowing,
        group: Vec<(usize, TextWindow)>,
        on_batch: &(dyn Fn(usize) + Sync),
        take: &mut dyn FnMut(Classified) -> Result<()>,
    ) -> Result<()> {
        let frames = &windowing.frames;
        let encodings = group.iter().flat_map(|(_, window)| frames.iter().map(|it| it.encode(&window.token_ids)));
        let encodings: Vec<_> = encodings.collect();
        // Texts are told as done in proportion, as batches hold windows of several texts.
        let texts = group.iter().filter(|(_, window)| window.is_last).count();
        let (done, all) = (AtomicUsize::new(0), encodings.len());
        let logits = self.network.logits(&encodings, &|sequences| {
            let before = done.fetch_add(sequences, Ordering::Relaxed);
            on_batch((before + sequences) * texts / all - before * texts / all);
        })?;
        let mut logits = logits.into_iter();
        for (text, window) in group {
            take(Classified { text, window, rows: logits.by_ref().take(frames.len()).collect() })?;
        }
        Ok(())
    }
}

/// The logits of one text's windows, pooled as they come.
struct Pool {
    how: LongText,
    windows: usize,
    /// A row for each frame: sums in float64, or maxima.
    rows: Vec<Vec<f64>>,
}

impl Pool {
    fn new(how: LongText) -> Pool {
        Pool { how, windows: 0, rows: Vec::new() }
    }

    fn add(&mut self, rows: &[Vec<f32>]) {
        self.windows += 1;
        if self.windows == 1 {
            self.rows = rows.iter().map(|row| row.iter().copied().map(f64::from).collect()).collect();
            return;
        }
        for (pooled, &logit) in self.rows.iter_mut().flatten().zip(rows.iter().flatten()) {
            match self.how {
                LongText::Max => *pooled = pooled.max(f64::from(logit)),
                _ => *pooled += f64::from(logit),
            }
        }
    }

    fn rows(&self) -> Vec<Vec<f32>> {
        let divisor = if self.how == LongText::Max { 1.0 } else { self.windows as f64 };
        self.rows.iter().map(|row| row.iter().map(|pooled| (pooled / divisor) as f32).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_logit_is_pooled_on_its_own() {
        let pooled = |how| {
            let mut pool = Pool::new(how);
            pool.add(&[vec![1.0, -4.0], vec![0.5, 0.0]]);
            pool.add(&[vec![3.0, -2.0], vec![0.0, 0.25]]);
            pool.add(&[vec![-1.0, -3.0], vec![-2.0, 0.5]]);
            (pool.windows, pool.rows())
        };
        assert_eq!(pooled(LongText::Mean), (3, vec![vec![1.0, -3.0], vec![-0.5, 0.25]]));
        assert_eq!(pooled(LongText::Max), (3, vec![vec![3.0, -2.0], vec![0.5, 0.5]]));
    }
}
