//! Reports faults of the input, and counts what is told at the end.

use crate::evaluation::gold::UnknownGoldLabel;
use crate::options::MalformedPolicy;
use crate::prediction::Prediction;
use crate::progress::Progress;
use crate::source::{Content, Record};
use anyhow::{bail, Result};
use std::fmt;

/// Faults reported one by one; of the others only the number is told.
const FAULTS_TOLD: u64 = 10;

/// What has gone wrong so far.
pub(super) struct Faults {
    policy: MalformedPolicy,
    records: u64,
    malformed: u64,
    unknown_gold: u64,
    told: u64,
    truncated: u64,
    invalid_utf8: u64,
}

impl Faults {
    pub(super) fn new(policy: MalformedPolicy) -> Faults {
        Faults { policy, records: 0, malformed: 0, unknown_gold: 0, told: 0, truncated: 0, invalid_utf8: 0 }
    }

    /// Whether the run is to stop at the first fault.
    pub(super) fn is_strict(&self) -> bool {
        self.policy == MalformedPolicy::Stop
    }

    /// Counts records that an earlier run has written, and reported.
    pub(super) fn count<'a>(&mut self, records: impl Iterator<Item = &'a Record>) {
        for record in records {
            self.records += 1;
            self.malformed += u64::from(matches!(record.content, Content::Malformed(_)));
        }
    }

    /// Counts one record, and reports its faults.
    pub(super) fn tell(
        &mut self,
        record: &Record,
        prediction: Option<&Prediction>,
        unknown_gold: Option<&UnknownGoldLabel>,
        progress: &Progress,
    ) {
        self.records += 1;
        self.truncated += u64::from(prediction.is_some_and(|prediction| prediction.truncated));
        self.invalid_utf8 += u64::from(record.was_invalid_utf8);
        if let Content::Malformed(reason) = &record.content {
            self.malformed += 1;
            self.report(record, reason, progress);
        }
        if let Some(unknown) = unknown_gold {
            self.unknown_gold += 1;
            self.report(record, unknown, progress);
        }
    }

    fn report(&mut self, record: &Record, fault: &dyn fmt::Display, progress: &Progress) {
        self.told += 1;
        match self.told {
            ..=FAULTS_TOLD => progress.fault(&format!("{}: {fault}", record.origin)),
            told if told == FAULTS_TOLD + 1 => progress.fault("further faults are only counted"),
            _ => {}
        }
    }

    /// Notes what happened to texts that were classified.
    pub(super) fn note(&self, max_length: usize, progress: &Progress) {
        if self.truncated > 0 {
            let texts = count(self.truncated, "text was", "texts were");
            progress.note(&format!("{texts} longer than {max_length} tokens and classified by the beginning"));
        }
        if self.invalid_utf8 > 0 {
            let records = count(self.invalid_utf8, "text was", "texts were");
            progress.note(&format!("{records} not valid UTF-8; invalid bytes were read as U+FFFD"));
        }
    }

    /// # Errors
    /// If there was a fault.
    pub(super) fn conclude(&self) -> Result<()> {
        let all = self.records;
        match (self.malformed, self.unknown_gold) {
            (0, 0) => Ok(()),
            (1, 0) if all == 1 => bail!("the only record is malformed"),
            (0, unknown) => bail!(
                "{} of {all} records {} a gold label that the model does not have",
                unknown,
                if unknown == 1 { "has" } else { "have" }
            ),
            (malformed, _) => bail!(
                "{malformed} of {all} records {} malformed; the others are classified",
                if malformed == 1 { "is" } else { "are" }
            ),
        }
    }
}

fn count(count: u64, one: &str, many: &str) -> String {
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{count} {many}")
    }
}
