//! What a checkpoint is, before it is used.

use super::{hub, print};
use crate::checkpoint::config::{Architecture, Config};
use crate::checkpoint::files::CheckpointFiles;
use crate::checkpoint::{Checkpoint, CheckpointSpec};
use crate::classifier::cascade;
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
    let (files, config, num_labels, parameters) = match &options.spec {
        CheckpointSpec::Hub { model_id, revision } => {
            let folder = hub(options.hub, &progress).config(model_id, revision.as_deref())?;
            let files = CheckpointFiles::Folder(folder);
            let file = files.find("config.json").with_context(|| format!("{name} has no config.json"))?;
            let config = Config::parse(&file.content()?, &format!("config.json of {name}"))?;
            let num_labels = config.num_labels();
            (files, config, num_labels, None)
        }
        CheckpointSpec::Builtin | CheckpointSpec::Folder(_) => {
            let checkpoint = Checkpoint::open(&options.spec, &hub(options.hub, &progress))?;
            let num_labels = checkpoint.num_labels().with_context(|| format!("cannot read the checkpoint {name}"))?;
            let parameters = checkpoint.num_parameters();
            (checkpoint.files, checkpoint.config, num_labels, Some(parameters))
        }
    };
    let backend = computing.backend.open()?;
    let backend = match computing.cascade {
        true => cascade::backends(&backend)?.1,
        false => backend.to_string(),
    };
    let named = config.labels(None, num_labels).with_context(|| format!("cannot read the checkpoint {name}"))?;
    let Architecture { layers, hidden_size, heads, max_length, .. } = &config.architecture;
    let layers = format!("{} of width {hidden_size}, with {heads} attention heads", layers.len());
    let facts = [
        ("checkpoint", Some(name)),
        ("family", Some(config.model_type.to_owned())),
        ("layers", Some(layers)),
        ("parameters", parameters.map(|count| indicatif::HumanCount(count as u64).to_string())),
        ("problem", Some(config.problem(num_labels).to_string())),
        ("labels", Some(labels(&named))),
        ("longest text", Some(format!("{max_length} tokens"))),
        ("tokenizer", tokenization::file_of(&files).map(str::to_owned)),
        ("computes with", Some(backend)),
    ];
    let known = facts.into_iter().filter_map(|(name, fact)| Some(format!("{name:<13}  {}\n", fact?)));
    print(known.collect::<String>().as_bytes())
}

fn labels(labels: &[String]) -> String {
    let listed = labels.iter().take(LABELS_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if labels.len() > LABELS_LISTED { ", ..." } else { "" };
    format!("{}: {listed}{more}", labels.len())
}
