//! What a checkpoint is, before it is used.

use super::{hub, print};
use crate::checkpoint::config::Config;
use crate::checkpoint::files::CheckpointFiles;
use crate::checkpoint::{Checkpoint, CheckpointSpec, Description};
use crate::options::{CheckpointOptions, ComputingOptions, Verbosity};
use crate::progress::Progress;
use crate::tokenization;
use anyhow::{Context, Result};

/// The most labels that are listed.
const LABELS_LISTED: usize = 40;

/// Prints what the checkpoint is, a fact per line. Of one on the Hub, only config.json is fetched.
///
/// # Errors
/// If the checkpoint cannot be had or described, or the output fails.
pub(super) fn print_info(options: CheckpointOptions, computing: &ComputingOptions, verbosity: Verbosity) -> Result<()> {
    let progress = Progress::new(verbosity, false);
    let name = options.to_string();
    let (files, description) = match &options.spec {
        CheckpointSpec::Hub { model_id, revision } => {
            let folder = hub(options.hub, &progress).config(model_id, revision.as_deref())?;
            let files = CheckpointFiles::Folder(folder);
            let file = files.find("config.json").with_context(|| format!("{name} has no config.json"))?;
            let config = Config::parse(&file.content()?, &format!("config.json of {name}"))?;
            (files, Description::new(&config, config.num_labels(), None)?)
        }
        CheckpointSpec::Builtin | CheckpointSpec::Folder(_) => {
            let checkpoint = Checkpoint::open(&options.spec, &hub(options.hub, &progress))?;
            let description = checkpoint.describe().with_context(|| format!("cannot read the checkpoint {name}"))?;
            (checkpoint.files, description)
        }
    };
    let backend = computing.backend.open()?.to_string();
    let facts = [
        ("checkpoint", Some(name)),
        ("family", Some(description.model_type.to_owned())),
        ("layers", Some(layers(&description))),
        ("parameters", description.parameters.map(|count| indicatif::HumanCount(count as u64).to_string())),
        ("problem", Some(description.problem_type.to_string())),
        ("labels", Some(labels(&description.labels))),
        ("longest text", Some(format!("{} tokens", description.max_length))),
        ("tokenizer", tokenization::file_of(&files).map(str::to_owned)),
        ("computes with", Some(backend)),
    ];
    let known = facts.into_iter().filter_map(|(name, fact)| Some(format!("{name:<13}  {}\n", fact?)));
    print(known.collect::<String>().as_bytes())
}

fn layers(description: &Description) -> String {
    let Description { layers, hidden_size, heads, .. } = description;
    format!("{layers} of width {hidden_size}, with {heads} attention heads")
}

fn labels(labels: &[String]) -> String {
    let listed = labels.iter().take(LABELS_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if labels.len() > LABELS_LISTED { ", ..." } else { "" };
    format!("{}: {listed}{more}", labels.len())
}
