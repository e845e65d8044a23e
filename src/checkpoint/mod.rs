//! Loads everything that a model is built from, given a model id, a folder or the embedded model: the files
//! ([`files`]), `config.json` and the labels ([`config`]), the tensors ([`weights`]), and the Hugging Face Hub, which
//! turns an id and a revision into a folder ([`hub`]).

pub mod config;
pub mod files;
pub mod hub;
pub mod weights;

use anyhow::{ensure, Context, Result};
use config::Config;
use files::{CheckpointFiles, KnownFile, Role, ADAPTER_CONFIG, IS_ADAPTER};
use hub::{digest, Hub, ModelId, Revision};
use ring::digest::{Context as Context256, SHA256};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use weights::Weights;

/// The name of the embedded model.
pub const BUILTIN: &str = "builtin";

/// The requested checkpoint.
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
        /// A branch, tag, commit or `refs/pr/N`; `None` is the default revision.
        revision: Option<String>,
    },
}

impl CheckpointSpec {
    /// Distinguishes the three like transformers: existing folders and names that can only be paths are local, anything
    /// else is an id.
    ///
    /// # Errors
    /// A message, if `model` is neither a path nor an id, or a revision is given for a checkpoint that has none.
    pub fn parse(model: &str, revision: Option<&str>) -> Result<CheckpointSpec, String> {
        if model.is_empty() {
            return Err("the model's name is empty: use a Hub id, a folder, or `builtin`".into());
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
            return Err(format!("only checkpoints on the Hub have revisions, and {model} is not one"));
        }
        Ok(spec)
    }
}

fn looks_like_path(model: &str) -> bool {
    let is_explicit = model.starts_with(['.', '/', '~', '\\']) || model.contains('\\') || model.ends_with('/');
    is_explicit || std::path::Path::new(model).exists()
}

/// A checkpoint whose files are available.
pub struct Checkpoint {
    /// Where the files are.
    pub files: CheckpointFiles,
    /// config.json.
    pub config: Config,
    /// The tensors, mapped and not yet converted.
    pub weights: Weights,
    /// The revision and commit, if it comes from the Hub.
    pub revision: Option<String>,
    commit: Option<String>,
    /// Without the revision.
    model: String,
    name: String,
    is_local_folder: bool,
}

/// Which checkpoint a file was made for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The Hub id, the folder as it was given, or `builtin`.
    pub model: String,
    /// The commit of a checkpoint from the Hub.
    pub commit: Option<String>,
    /// SHA-256 over the files of any other.
    pub sha256: Option<String>,
}

impl Fingerprint {
    /// Whether the files are the same: a folder may have been moved.
    pub fn is_same(&self, other: &Fingerprint) -> bool {
        let is_named = self.sha256.is_some() || self.model == other.model;
        is_named && self.commit == other.commit && self.sha256 == other.sha256
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.model)?;
        match (&self.commit, &self.sha256) {
            (Some(commit), _) => write!(f, " (commit {commit})"),
            (None, Some(sha256)) => write!(f, " (SHA-256 {sha256})"),
            (None, None) => Ok(()),
        }
    }
}

impl Checkpoint {
    /// Finds the files, reads config.json and opens the weights.
    ///
    /// # Errors
    /// If the checkpoint is unavailable, config.json is missing or describes an unsupported model, or there are no
    /// supported weights.
    pub fn open(spec: &CheckpointSpec, hub: &Hub) -> Result<Checkpoint> {
        let mut commit = None;
        let (files, model, revision) = match spec {
            CheckpointSpec::Builtin => (CheckpointFiles::Builtin, BUILTIN.to_owned(), None),
            CheckpointSpec::Folder(folder) => {
                ensure!(
                    folder.is_dir(),
                    "{} is not a folder: use a folder with config.json, a tokenizer and weights, a Hub id, or `builtin`",
                    folder.display()
                );
                (CheckpointFiles::Folder(folder.clone()), folder.display().to_string(), None)
            }
            CheckpointSpec::Hub { model_id, revision } => {
                let snapshot = hub.snapshot(model_id, revision.as_deref())?;
                let revision = format!("{} (commit {})", snapshot.revision, snapshot.commit);
                commit = Some(snapshot.commit);
                (CheckpointFiles::Folder(snapshot.folder), model_id.clone(), Some(revision))
            }
        };
        let name = match &revision {
            Some(revision) => format!("{model} at revision {revision}"),
            None => model.clone(),
        };
        let adapter = files.find(ADAPTER_CONFIG).map(|_| format!("{name} {IS_ADAPTER}"));
        let file = files.find("config.json");
        let file = file.with_context(|| adapter.clone().unwrap_or_else(|| format!("{name} has no config.json")))?;
        let config = Config::parse(&file.content()?, &file.to_string())?;
        let weights = Weights::open(&files).map_err(|error| match adapter {
            Some(adapter) => error.context(adapter),
            None => error,
        })?;
        let is_local_folder = matches!(spec, CheckpointSpec::Folder(_));
        Ok(Checkpoint { files, config, weights, revision, commit, model, name, is_local_folder })
    }

    /// Identifies this checkpoint: its name, with the commit if it comes from the Hub; for a local folder, whose files
    /// can change, with a SHA-256 over the files that are read.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn identity(&self) -> Result<String> {
        if !self.is_local_folder {
            return Ok(self.name.clone());
        }
        Ok(format!("{} (SHA-256 {})", self.name, self.sha256()?))
    }

    /// Tells this checkpoint from all others: by its commit, else by a SHA-256 over the files that are read.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        let sha256 = self.commit.is_none().then(|| self.sha256()).transpose()?;
        Ok(Fingerprint { model: self.model.clone(), commit: self.commit.clone(), sha256 })
    }

    /// Other files in the folder do not count.
    fn sha256(&self) -> Result<String> {
        let mut digest = Context256::new(&SHA256);
        let small = KnownFile::names(|role| !matches!(role, Role::Weights(..)));
        for (name, file) in small.into_iter().filter_map(|name| Some((name, self.files.find(name)?))) {
            digest.update(name.as_bytes());
            digest.update(&file.content()?);
        }
        self.weights.files().for_each(|bytes| digest.update(bytes));
        Ok(digest::hex(&digest.finish()))
    }

    /// The number of outputs: the rows of the last layer.
    ///
    /// # Errors
    /// If there is no such layer.
    pub fn num_labels(&self) -> Result<usize> {
        let name = format!("{}.weight", self.config.architecture.head.output);
        let shape = self.weights.shape(&name).with_context(|| {
            format!("{} has no tensor {name}: the checkpoint was never trained to classify", self.files)
        })?;
        ensure!(shape.len() == 2, "{}: {name} has the shape {shape:?}, not (labels, hidden_size)", self.files);
        Ok(shape[0])
    }

    /// Total number of elements of all tensors; parameters shared by layers count once.
    pub fn num_parameters(&self) -> usize {
        let shapes = self.weights.names().filter_map(|name| self.weights.shape(name));
        shapes.map(|shape| shape.iter().product::<usize>()).sum()
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
