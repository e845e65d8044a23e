//! A cascade: int8 classifies every text, and float32 (bf16x3 with AMX) again each text of which int8 is not sure.
//!
//! int8 is sure of a text if its best logit leads every other by at least a bound. The bound is twice the largest change
//! of such a lead from int8 to float32, seen in any text that was computed in both:
//!
//! 1. Until [`SAMPLE_TEXTS`] different texts, chosen by a hash of their tokens, have been seen, every text gets float32's
//!    label. Then these texts are computed in int8 too, which gives the first bound.
//! 2. From there on, texts below the bound are computed in both, and so is one of [`AUDIT_EVERY`] of the sure ones, chosen
//!    by a hash of its tokens and of its number in the run: the audit. A text that was computed in both gets float32's
//!    label, and raises the bound if its change is the largest yet.
//!
//! What a text gets depends on the texts before it and on nothing else: not on which of them came in one call, and
//! neither on batches nor on threads. [`Cascade::memory`] keeps what has been learned for a later process.

use super::network::Network;
use super::{ClassifierOptions, LongText};
use crate::kernels::Precision;
use crate::model::Backend;
use crate::prediction::Problem;
use crate::tokenization::Encoding;
use anyhow::{Context, Result};
use ring::digest::{digest, SHA256};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Texts that the first bound comes from. If the changes of n texts are all below some value, then with 95 % confidence
/// fewer than 3/n of all texts exceed it: 0.6 % here, and the bound is twice that value.
const SAMPLE_TEXTS: usize = 512;
/// One of so many texts is chosen for the sample.
const SAMPLE_EVERY: u64 = 2;
/// One of so many sure texts is audited.
const AUDIT_EVERY: u64 = 100;
/// How many times the largest change is the bound.
const SAFETY: f64 = 2.0;

/// Why there can be no cascade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CascadeError {
    /// Only the CPU kernels compute in both arithmetics. Holds what would compute.
    Backend(String),
    /// A margin between the best label and the others says nothing of what the checkpoint predicts.
    Problem(Problem),
    /// A text goes through the model more than once: with each hypothesis, or in windows.
    SeveralInputs,
}

impl fmt::Display for CascadeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CascadeError::Backend(backend) => {
                write!(f, "a cascade needs the CPU kernels, which compute in int8 and in float32, but here {backend} computes")
            }
            CascadeError::Problem(problem) => {
                write!(f, "a cascade is for checkpoints that give each text one label; this one gives {problem}")
            }
            CascadeError::SeveralInputs => f.write_str(
                "a cascade takes each text once, neither in windows nor with the hypotheses of labels of your own",
            ),
        }
    }
}

impl std::error::Error for CascadeError {}

/// # Errors
/// [`CascadeError`] if the problem or an option does not go with a cascade.
pub(super) fn check(problem: Problem, options: &ClassifierOptions) -> Result<(), CascadeError> {
    if options.zero_shot.is_some() || options.long_text.how != LongText::Truncate {
        return Err(CascadeError::SeveralInputs);
    }
    match problem {
        Problem::SingleLabel => Ok(()),
        Problem::MultiLabel | Problem::Value => Err(CascadeError::Problem(problem)),
    }
}

/// What a cascade computes with if `exact` computes what int8 is not sure of: int8's backend, and all of it in words.
///
/// # Errors
/// [`CascadeError::Backend`] if `exact` is not the CPU kernels.
pub(crate) fn backends(exact: &Backend) -> Result<(Backend, String), CascadeError> {
    match exact {
        Backend::Kernels { level, precision } => {
            let quick = Backend::Kernels { level: *level, precision: Precision::Int8 };
            let words = format!("{quick}, and in {precision} if that is not sure");
            Ok((quick, words))
        }
        Backend::Candle { .. } => Err(CascadeError::Backend(exact.to_string())),
    }
}

/// Int8's model, and what the texts so far have shown. The float32 model is the classifier's own.
pub(super) struct Cascade {
    quick: Network,
    arithmetic: String,
    learned: Mutex<Learned>,
}

impl Cascade {
    /// `load` loads the model to a backend; `exact` is the backend of the model that the cascade falls back on.
    ///
    /// # Errors
    /// [`CascadeError::Backend`], and what `load` returns.
    pub(super) fn load(exact: &Backend, load: impl FnOnce(Backend) -> Result<Network>) -> Result<Cascade> {
        let (quick, arithmetic) = backends(exact)?;
        Ok(Cascade { quick: load(quick)?, arithmetic, learned: Mutex::default() })
    }

    /// What computes each text first.
    pub(super) fn backend(&self) -> &Backend {
        self.quick.backend()
    }

    /// All that computes, for people.
    pub(super) fn arithmetic(&self) -> &str {
        &self.arithmetic
    }

    /// The logits of each encoding, in order: `exact`'s, or int8's if these are sure.
    ///
    /// # Errors
    /// As [`Network::logits`].
    pub(super) fn logits(
        &self,
        exact: &Network,
        encodings: &[Encoding],
        on_batch: &(dyn Fn(usize) + Sync),
    ) -> Result<Vec<Vec<f32>>> {
        self.learn(exact, encodings, true, on_batch)
    }

    /// Learns from texts whose logits nobody needs: as [`Cascade::logits`], but cheap as long as there is no bound.
    ///
    /// # Errors
    /// As [`Network::logits`].
    pub(super) fn relearn(&self, exact: &Network, encodings: &[Encoding]) -> Result<()> {
        self.learn(exact, encodings, false, &|_| {}).map(drop)
    }

    /// The logits, which are incomplete unless `needs_all`.
    fn learn(
        &self,
        exact: &Network,
        encodings: &[Encoding],
        needs_all: bool,
        on_batch: &(dyn Fn(usize) + Sync),
    ) -> Result<Vec<Vec<f32>>> {
        // The lock is not held while threads compute: one that waits for others may pick up work that needs it.
        let mut learned = self.lock().clone();
        let mut logits = Vec::with_capacity(encodings.len());
        let mut rest = encodings;
        if let Learned::Nothing(sample) = &mut learned {
            let chosen = sample.choose_from(encodings);
            let first;
            (first, rest) = encodings.split_at(chosen.looked_at);
            let chosen = chosen.places.iter();
            if needs_all {
                logits = exact.logits(first, on_batch)?;
                sample.exactly.extend(chosen.map(|&place| logits[place].clone()));
            } else {
                let chosen: Vec<&Encoding> = chosen.map(|&place| &first[place]).collect();
                sample.exactly.extend(exact.logits(&chosen, on_batch)?);
            }
            if sample.is_full() {
                let quick = self.quick.logits(&sample.encodings, &|_| {})?;
                learned = Learned::Bound(sample.tally(&quick));
            }
        }
        if let Learned::Bound(tally) = &mut learned {
            logits.extend(self.sorted_out(exact, rest, tally, on_batch)?);
        }
        *self.lock() = learned;
        Ok(logits)
    }

    /// What has been learned, for [`Cascade::recall`] in another process; `None` if only the texts themselves tell.
    pub(super) fn memory(&self) -> Option<serde_json::Value> {
        match &*self.lock() {
            Learned::Nothing(_) => None,
            Learned::Bound(tally) => Some(serde_json::to_value(tally).expect("numbers have a JSON form")),
        }
    }

    /// Takes over what another process has learned.
    ///
    /// # Errors
    /// If it is not what [`Cascade::memory`] returned.
    pub(super) fn recall(&self, memory: &serde_json::Value) -> Result<()> {
        let tally = Tally::deserialize(memory).context("what the cascade had learned is damaged")?;
        *self.lock() = Learned::Bound(tally);
        Ok(())
    }

    /// What the texts so far have shown.
    pub(super) fn report(&self) -> CascadeReport {
        match &*self.lock() {
            Learned::Nothing(sample) => CascadeReport { texts: sample.seen, bound: None, ..CascadeReport::default() },
            Learned::Bound(tally) => tally.report(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The logits of each encoding once there is a bound.
    fn sorted_out(
        &self,
        exact: &Network,
        encodings: &[Encoding],
        tally: &mut Tally,
        on_batch: &(dyn Fn(usize) + Sync),
    ) -> Result<Vec<Vec<f32>>> {
        let quick = self.quick.logits(encodings, on_batch)?;
        let audited: Vec<bool> = (tally.texts..).zip(encodings).map(|(number, one)| is_audited(number, one)).collect();
        let mut exactly: Vec<Option<Vec<f32>>> = vec![None; encodings.len()];
        // A text that raises the bound can make later ones unsure, which may raise it again.
        let after = loop {
            let (after, missing) = tally.after(&quick, &exactly, &audited);
            if missing.is_empty() {
                break after;
            }
            let chosen: Vec<&Encoding> = missing.iter().map(|&place| &encodings[place]).collect();
            for (place, row) in missing.into_iter().zip(exact.logits(&chosen, &|_| {})?) {
                exactly[place] = Some(row);
            }
        };
        *tally = after;
        Ok(exactly.into_iter().zip(quick).map(|(exactly, quick)| exactly.unwrap_or(quick)).collect())
    }
}

#[derive(Debug, Clone)]
enum Learned {
    /// Not enough for a bound.
    Nothing(Sample),
    Bound(Tally),
}

impl Default for Learned {
    fn default() -> Learned {
        Learned::Nothing(Sample::default())
    }
}

/// The different texts that the first bound will come from.
#[derive(Debug, Clone, Default)]
struct Sample {
    encodings: Vec<Encoding>,
    hashes: HashSet<u64>,
    /// The exact logits of each encoding.
    exactly: Vec<Vec<f32>>,
    /// All texts so far.
    seen: u64,
}

/// What a sample takes from some texts.
#[derive(Debug, PartialEq, Eq)]
struct Chosen {
    /// Places of those that it takes.
    places: Vec<usize>,
    /// How many of the texts were looked at: up to the one that fills the sample.
    looked_at: usize,
}

impl Sample {
    fn is_full(&self) -> bool {
        self.encodings.len() == SAMPLE_TEXTS
    }

    fn choose_from(&mut self, encodings: &[Encoding]) -> Chosen {
        let mut chosen = Chosen { places: Vec::new(), looked_at: 0 };
        for (place, encoding) in encodings.iter().enumerate() {
            if self.is_full() {
                break;
            }
            chosen.looked_at += 1;
            self.seen += 1;
            let hash = hash(None, encoding);
            if hash.is_multiple_of(SAMPLE_EVERY) && self.hashes.insert(hash) {
                self.encodings.push(encoding.clone());
                chosen.places.push(place);
            }
        }
        chosen
    }

    /// The first bound, by the int8 logits of each encoding.
    fn tally(&self, quick: &[Vec<f32>]) -> Tally {
        let changes = quick.iter().zip(&self.exactly).map(|(quick, exactly)| change(quick, exactly));
        Tally { texts: self.seen, largest_change: changes.fold(0.0, f32::max), ..Tally::default() }
    }
}

/// What the texts since the first bound have shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Tally {
    /// All texts so far, those before the first bound included.
    texts: u64,
    /// The largest change of a lead in any text that was computed in both.
    largest_change: f32,
    /// Texts below the bound.
    unsure: u64,
    /// Of these, those with another label in float32.
    unsure_differed: u64,
    /// Sure texts that were computed in both.
    audited: u64,
    /// Of these, those with another label in float32.
    audited_differed: u64,
}

impl Tally {
    fn bound(&self) -> f64 {
        SAFETY * f64::from(self.largest_change)
    }

    /// The tally after some texts, by their int8 logits and by the exact ones as far as they are known; and the places of
    /// those that are needed and not known. If there are any, the tally is not final: each of them may raise the bound
    /// for those after it.
    fn after(&self, quick: &[Vec<f32>], exactly: &[Option<Vec<f32>>], audited: &[bool]) -> (Tally, Vec<usize>) {
        let mut tally = self.clone();
        let mut missing = Vec::new();
        for (place, quick) in quick.iter().enumerate() {
            tally.texts += 1;
            let is_sure = margin(quick) >= tally.bound();
            match &exactly[place] {
                _ if is_sure && !audited[place] => {}
                Some(exactly) => tally.observe(quick, exactly, is_sure),
                None => missing.push(place),
            }
        }
        (tally, missing)
    }

    fn observe(&mut self, quick: &[f32], exactly: &[f32], is_sure: bool) {
        let (count, count_differed) = match is_sure {
            true => (&mut self.audited, &mut self.audited_differed),
            false => (&mut self.unsure, &mut self.unsure_differed),
        };
        *count += 1;
        *count_differed += u64::from(best(quick) != best(exactly));
        self.largest_change = self.largest_change.max(change(quick, exactly));
    }

    fn report(&self) -> CascadeReport {
        CascadeReport {
            texts: self.texts,
            bound: Some(self.bound()),
            unsure: self.unsure,
            unsure_differed: self.unsure_differed,
            audited: self.audited,
            audited_differed: self.audited_differed,
        }
    }
}

/// What a cascade has done and found so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CascadeReport {
    /// All texts.
    pub texts: u64,
    /// By how many logits the best label must lead every other for int8 to be sure, after all texts; `None` if there were
    /// too few different texts to find a bound, so that all labels are float32's.
    pub bound: Option<f64>,
    /// Texts with a smaller lead, which were computed again.
    pub unsure: u64,
    /// Of these, those with another label in float32.
    pub unsure_differed: u64,
    /// Sure texts that were computed again to see whether int8 was right.
    pub audited: u64,
    /// Of these, those with another label in float32.
    pub audited_differed: u64,
}

impl fmt::Display for CascadeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CascadeReport { texts, bound, unsure, unsure_differed, audited, audited_differed } = self;
        let Some(bound) = bound else {
            return write!(
                f,
                "cascade: too few different texts to know int8's errors: all {texts} labels are float32's"
            );
        };
        write!(
            f,
            "cascade: int8 was unsure of {unsure} of {texts} texts (best label less than {bound:.3} logits ahead), and float32 \
             changed {unsure_differed} of their labels; {audited_differed} of {audited} audited texts differed"
        )?;
        match (audited_differed, audited) {
            (_, 0) => Ok(()),
            // The rule of three: (1 - 3/n)^n is about 5 %.
            (0, audited) => {
                let most = (300.0 / *audited as f64).min(100.0);
                write!(f, " (with 95 % confidence, fewer than {most:.2} % of the texts of which int8 was sure)")
            }
            (differed, audited) => {
                let share = 100.0 * *differed as f64 / *audited as f64;
                write!(f, ": expect that of {share:.2} % of the labels of which int8 was sure")
            }
        }
    }
}

/// Identifies what the model computes, alone or with the number of the text in the run.
fn hash(number: Option<u64>, encoding: &Encoding) -> u64 {
    let Encoding { input_ids, token_type_ids, truncated: _ } = encoding;
    let mut bytes = Vec::with_capacity(8 + 4 * (input_ids.len() + token_type_ids.len()));
    bytes.extend(number.into_iter().flat_map(u64::to_le_bytes));
    bytes.extend(input_ids.iter().chain(token_type_ids).flat_map(|id| id.to_le_bytes()));
    let first = digest(&SHA256, &bytes).as_ref().first_chunk().copied();
    u64::from_le_bytes(first.expect("SHA-256 has 32 bytes"))
}

/// With its number, as otherwise a text that occurs a million times would be audited always or never.
fn is_audited(number: u64, encoding: &Encoding) -> bool {
    hash(Some(number), encoding).is_multiple_of(AUDIT_EVERY)
}

/// The class with the largest logit, the first of equal ones.
fn best(logits: &[f32]) -> usize {
    let better = |best: usize, class: usize| if logits[class].total_cmp(&logits[best]).is_gt() { class } else { best };
    (1..logits.len()).fold(0, better)
}

/// By how much the best class leads each other.
fn leads(logits: &[f32], best: usize) -> impl Iterator<Item = f64> + '_ {
    let others = logits.iter().enumerate().filter(move |(class, _)| *class != best);
    others.map(move |(_, &logit)| f64::from(logits[best]) - f64::from(logit))
}

/// By how much the best class leads every other.
fn margin(logits: &[f32]) -> f64 {
    leads(logits, best(logits)).fold(f64::INFINITY, f64::min)
}

/// The largest change of a lead of int8's best class. Another class is best in float32 only if this is at least the margin.
fn change(quick: &[f32], exactly: &[f32]) -> f32 {
    let best = best(quick);
    let changes = leads(quick, best).zip(leads(exactly, best)).map(|(quick, exactly)| (quick - exactly).abs() as f32);
    changes.fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(id: u32) -> Encoding {
        Encoding { input_ids: vec![101, id, 102], ..Encoding::default() }
    }

    #[test]
    fn the_sample_is_of_different_texts_and_about_half_of_them() {
        let mut sample = Sample::default();
        let repeated: Vec<Encoding> = (0..5000).map(|i| encoding(i % 100)).collect();
        let chosen = sample.choose_from(&repeated);
        assert!((30..70).contains(&chosen.places.len()) && chosen.looked_at == 5000, "{chosen:?}");
        let different: Vec<Encoding> = (100..5000).map(encoding).collect();
        let chosen = sample.choose_from(&different);
        assert!(sample.is_full() && (700..1200).contains(&chosen.looked_at), "{chosen:?}");
        assert_eq!(chosen.places.last(), Some(&(chosen.looked_at - 1)));
        assert_eq!(sample.seen, 5000 + chosen.looked_at as u64);
        assert_eq!(sample.choose_from(&different), Chosen { places: Vec::new(), looked_at: 0 });
    }

    #[test]
    fn the_hash_tells_ids_and_numbers_apart_and_is_the_same_everywhere() {
        assert_ne!(hash(None, &encoding(7)), hash(None, &encoding(8)));
        assert_ne!(hash(Some(1), &encoding(7)), hash(Some(2), &encoding(7)));
        let truncated = Encoding { truncated: true, ..encoding(7) };
        assert_eq!(hash(None, &truncated), hash(None, &encoding(7)));
        let audited = (0..20_000).filter(|&number| is_audited(number, &encoding(7))).count();
        assert!((140..260).contains(&audited), "one of {AUDIT_EVERY} expected, {audited} of 20,000 found");
    }

    #[test]
    fn margins_and_changes_by_hand() {
        assert_eq!(best(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(margin(&[1.0, 3.0, 2.5]), 0.5);
        assert_eq!(margin(&[3.0, 1.0, 3.0]), 0.0);
        // The lead over class 0 falls from 2 to 0.5, that over class 2 rises from 0.5 to 1.
        assert_eq!(change(&[1.0, 3.0, 2.5], &[2.5, 3.0, 2.0]), 1.5);
        assert_eq!(change(&[1.0, 3.0, 2.5], &[101.0, 103.0, 102.5]), 0.0, "what all logits share changes no label");
    }

    /// A text with a margin, of two classes.
    fn row(margin: f32) -> Vec<f32> {
        vec![margin, 0.0]
    }

    #[test]
    fn a_text_that_raises_the_bound_makes_those_after_it_unsure() {
        let tally = Tally { largest_change: 0.5, ..Tally::default() };
        // Sure are margins of 1.0 and more; text 1 is not, and changes by 0.75, so the bound is 1.5 after it.
        let quick = [row(1.25), row(0.75), row(1.25), row(1.5)];
        let audited = [false; 4];
        let (_, missing) = tally.after(&quick, &[None, None, None, None], &audited);
        assert_eq!(missing, [1]);
        let (_, missing) = tally.after(&quick, &[None, Some(row(0.0)), None, None], &audited);
        assert_eq!(missing, [2], "the one before it is as sure as it was");
        let (after, missing) = tally.after(&quick, &[None, Some(row(0.0)), Some(row(1.25)), None], &audited);
        assert!(missing.is_empty());
        assert_eq!(after.bound(), 1.5);
        assert_eq!((after.texts, after.unsure, after.unsure_differed, after.audited), (4, 2, 0, 0));
    }

    #[test]
    fn an_audited_text_with_another_label_at_least_doubles_the_bound() {
        let tally = Tally { largest_change: 0.5, ..Tally::default() };
        let (_, missing) = tally.after(&[row(3.0)], &[None], &[true]);
        assert_eq!(missing, [0]);
        let (after, _) = tally.after(&[row(3.0)], &[Some(row(-0.5))], &[true]);
        assert_eq!((after.audited, after.audited_differed, after.unsure), (1, 1, 0));
        assert_eq!(after.bound(), 7.0);
    }

    #[test]
    fn the_memory_keeps_every_bit() {
        let tally = Tally { texts: 7, largest_change: 0.1 / 3.0, unsure: 1, ..Tally::default() };
        let line = serde_json::to_string(&serde_json::to_value(&tally).unwrap()).unwrap();
        assert_eq!(serde_json::from_str::<Tally>(&line).unwrap(), tally);
    }

    #[test]
    fn the_report_says_what_the_audit_proves() {
        let report = CascadeReport { texts: 50, ..CascadeReport::default() };
        assert!(
            report.to_string().contains("too few different texts to know int8's errors: all 50 labels"),
            "{report}"
        );
        let report = CascadeReport { texts: 9000, bound: Some(0.9), unsure: 400, audited: 150, ..report };
        assert!(report
            .to_string()
            .contains("0 of 150 audited texts differed (with 95 % confidence, fewer than 2.00 %"));
        let report = CascadeReport { audited_differed: 3, ..report };
        assert!(report
            .to_string()
            .ends_with("3 of 150 audited texts differed: expect that of 2.00 % of the labels of which int8 was sure"));
    }
}
