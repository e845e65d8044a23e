//! From a model id, a folder or the embedded model to what the model is built from: the files
//! ([`files`]), `config.json` and the labels ([`config`]), the tensors ([`weights`]), and the Hugging Face Hub, which
//! turns an id and a revision into a folder ([`hub`]).

pub mod config;
pub mod files;
pub mod hub;
pub mod weights;

use anyhow::{ensure, Context, Result};
use config::Config;
use files::CheckpointFiles;
use hub::{Hub, ModelId, Revision};
use std::fmt;
use std::path::PathBuf;
use weights::Weights;

/// The name of the embedded model.
const BUILTIN: &str = "builtin";

/// Which checkpoint was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointSpec {
    /// The model embedded in the binary.
    Builtin,
    /// A local folder.
    Folder(PathBuf),
    /// A repository on the Hugging Face Hub.
    Hub {
        /// `name` or `organization/name`.
        model_id: String,
        /// Branch, tag, commit or `refs/pr/N`; `None` is the default one.
        revision: Option<String>,
    },
}

impl CheckpointSpec {
    /// Tells the three apart as transformers does: an existing folder is local, and so is what can only be a path;
    /// all else is an id.
    ///
    /// # Errors
    /// A sentence, if `model` is neither a path nor an id, or a revision is asked of what has none.
    pub fn parse(model: &str, revision: Option<&str>) -> Result<CheckpointSpec, String> {
        if model.is_empty() {
            return Err("the model's name is empty: give a Hub id, a folder, or `builtin`".into());
        }
        let spec = if model == BUILTIN {
            CheckpointSpec::Builtin
        } else if looks_like_path(model) {
            CheckpointSpec::Folder(model.into())
        } else {
            let checked = ModelId::parse(model).and_then(|_| revision.map(Revision::parse).transpose());
            checked.map_err(|error| error.to_string())?;
            CheckpointSpec::Hub { model_id: model.to_owned(), revision: revision.map(str::to_owned) }
        };
        if revision.is_some() && !matches!(spec, CheckpointSpec::Hub { .. }) {
            return Err(format!("a revision is for checkpoints on the Hub, and {model} is not one"));
        }
        Ok(spec)
    }
}

fn looks_like_path(model: &str) -> bool {
    let is_explicit = model.starts_with(['.', '/', '~', '\\']) || model.contains('\\') || model.ends_with('/');
    is_explicit || std::path::Path::new(model).exists()
}

/// A checkpoint whose files are there.
pub struct Checkpoint {
    /// Where the files lie.
    pub files: CheckpointFiles,
    /// config.json.
    pub config: Config,
    /// The tensors, mapped and not yet converted.
    pub weights: Weights,
    name: String,
}

impl Checkpoint {
    /// Finds the files, reads config.json and opens the weights.
    ///
    /// # Errors
    /// If the checkpoint cannot be had, config.json is missing or not one that agnews can run, or there are no
    /// weights that can be read.
    pub fn open(spec: &CheckpointSpec, hub: &Hub) -> Result<Checkpoint> {
        let (files, name) = match spec {
            CheckpointSpec::Builtin => (CheckpointFiles::Builtin, BUILTIN.to_owned()),
            CheckpointSpec::Folder(folder) => {
                ensure!(
                    folder.is_dir(),
                    "{} is not a folder: give a folder with config.json, a tokenizer and weights, a Hub id, or `builtin`",
                    folder.display()
                );
                (CheckpointFiles::Folder(folder.clone()), folder.display().to_string())
            }
            CheckpointSpec::Hub { model_id, revision } => {
                let snapshot = hub.snapshot(model_id, revision.as_deref())?;
                let name = format!("{model_id} at revision {} (commit {})", snapshot.revision, snapshot.commit);
                (CheckpointFiles::Folder(snapshot.folder), name)
            }
        };
        let file = files.find("config.json").with_context(|| format!("{name} has no config.json"))?;
        let config = Config::parse(&file.read(config::MAX_FILE_SIZE)?, &file.to_string())?;
        let weights = Weights::open(&files)?;
        Ok(Checkpoint { files, config, weights, name })
    }

    /// The number of classes: the rows of the classifier.
    ///
    /// # Errors
    /// If there is no classifier.
    pub fn num_labels(&self) -> Result<usize> {
        let shape = self.weights.shape("classifier.weight").with_context(|| {
            format!("{} has no tensor classifier.weight: the checkpoint was never trained to classify", self.files)
        })?;
        ensure!(
            shape.len() == 2,
            "{}: classifier.weight has the shape {shape:?}, not (labels, hidden_size)",
            self.files
        );
        Ok(shape[0])
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
