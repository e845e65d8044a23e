//! What a checkpoint is, before it is used.

use super::print;
use crate::checkpoint::hub::Hub;
use crate::checkpoint::Checkpoint;
use crate::options::{CheckpointOptions, ComputingOptions, Verbosity};
use crate::progress::Progress;
use crate::tokenization;
use anyhow::{Context, Result};

/// The most labels that are listed.
const LABELS_LISTED: usize = 40;

/// Prints what the checkpoint is, a fact per line.
///
/// # Errors
/// As [`Checkpoint::open`] and [`Checkpoint::describe`], and if the output fails.
pub(super) fn print_info(options: CheckpointOptions, computing: &ComputingOptions, verbosity: Verbosity) -> Result<()> {
    let progress = Progress::new(verbosity, false);
    let checkpoint = Checkpoint::open(&options.spec, &Hub::new(options.hub, &progress))?;
    let description = checkpoint.describe().with_context(|| format!("cannot read the checkpoint {checkpoint}"))?;
    let backend = computing.backend.open()?;
    let labels = &description.labels;
    let listed = labels.iter().take(LABELS_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if labels.len() > LABELS_LISTED { ", ..." } else { "" };
    let facts = [
        ("checkpoint", checkpoint.to_string()),
        ("family", description.model_type.to_owned()),
        (
            "size",
            format!(
                "{} parameters: {} layers of {}, {} attention heads",
                indicatif::HumanCount(description.parameters as u64),
                description.layers,
                description.hidden_size,
                description.heads
            ),
        ),
        ("problem", description.problem_type.to_string()),
        ("labels", format!("{}: {listed}{more}", labels.len())),
        ("longest text", format!("{} tokens", description.max_length)),
        ("tokenizer", tokenization::file_of(&checkpoint.files).unwrap_or("none").to_owned()),
        ("computes with", backend.to_string()),
    ];
    let lines: String = facts.iter().map(|(name, fact)| format!("{name:<13}  {fact}\n")).collect();
    print(lines.as_bytes())
}
