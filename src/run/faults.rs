//! Reports faults of the input, and counts what is told at the end.

use crate::evaluation::gold::UnknownGold;
use crate::options::MalformedPolicy;
use crate::prediction::{Extent, Prediction};
use crate::progress::Progress;
use crate::source::{Content, Record};
use anyhow::{bail, Result};

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
    /// Texts that were cut into windows.
    cut: u64,
    /// All their windows.
    windows: u64,
    invalid_utf8: u64,
}

impl Faults {
    pub(super) fn new(policy: MalformedPolicy) -> Faults {
        Faults {
            policy,
            records: 0,
            malformed: 0,
            unknown_gold: 0,
            told: 0,
            truncated: 0,
            cut: 0,
            windows: 0,
            invalid_utf8: 0,
        }
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
        predictions: &[Prediction],
        unknown_gold: Option<&UnknownGold>,
        progress: &Progress,
    ) {
        self.records += 1;
        let windows = match predictions {
            [Prediction { extent: Extent::Pooled(windows), .. }] => *windows,
            predictions => predictions.len(),
        };
        if windows > 1 {
            self.cut += 1;
            self.windows += windows as u64;
        }
        self.truncated += u64::from(predictions.iter().any(|prediction| prediction.extent == Extent::Truncated));
        self.invalid_utf8 += u64::from(record.was_invalid_utf8);
        if let Content::Malformed(reason) = &record.content {
            self.malformed += 1;
            self.told += 1;
            self.report(record, reason, progress);
        }
        if let Some(unknown) = unknown_gold {
            self.unknown_gold += 1;
            // One shows what is wrong with all of them.
            if self.unknown_gold == 1 {
                progress.fault(&format!("{}: {unknown}; more of these are only counted", record.origin));
            }
        }
    }

    fn report(&self, record: &Record, reason: &str, progress: &Progress) {
        match self.told {
            ..=FAULTS_TOLD => progress.fault(&format!("{}: {reason}", record.origin)),
            told if told == FAULTS_TOLD + 1 => progress.fault("further malformed records are only counted"),
            _ => {}
        }
    }

    /// Notes what happened to texts that were classified.
    pub(super) fn note(&self, max_length: usize, progress: &Progress) {
        if self.truncated > 0 {
            let texts = count(self.truncated, "text was", "texts were");
            progress.note(&format!("{texts} longer than {max_length} tokens and classified by the beginning"));
        }
        if self.cut > 0 {
            let texts = count(self.cut, "text was", "texts were");
            progress
                .note(&format!("{texts} longer than {max_length} tokens and classified in {} windows", self.windows));
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
        let malformed = match self.malformed {
            0 => None,
            1 if all == 1 => Some("the only record is malformed".to_owned()),
            1 => Some(format!("1 of {all} records is malformed")),
            count => Some(format!("{count} of {all} records are malformed")),
        };
        let unknown = match self.unknown_gold {
            0 => None,
            1 => Some("1 gold label is not one of the model's".to_owned()),
            count => Some(format!("{count} gold labels are not any of the model's")),
        };
        match (malformed, unknown) {
            (None, None) => Ok(()),
            (Some(one), None) | (None, Some(one)) => bail!("{one}; everything else is done"),
            (Some(malformed), Some(unknown)) => bail!("{malformed}, and {unknown}; everything else is done"),
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
