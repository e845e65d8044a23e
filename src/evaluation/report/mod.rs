//! Report files of an evaluation: for machines (JSON) and for people (SVG, HTML).

mod json;
mod matrix;
mod page;
mod picture;
mod reliability;
mod width;

use super::view::{Figure, View};
use anyhow::{bail, Result};
use std::path::Path;

/// The origin of a report's figures. Empty facts are left out.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The checkpoint, as the user named it.
    pub model: String,
    /// Its revision: a branch, a tag or a commit.
    pub revision: String,
    /// The texts, for example the name of the input file.
    pub data: String,
    /// The arithmetic of the model.
    pub dtype: String,
    /// The command line.
    pub command: String,
    /// The time of the run in ISO 8601.
    pub date: String,
}

impl About {
    /// The title of a report.
    fn title(&self) -> String {
        match self.model.as_str() {
            "" => "Evaluation".to_owned(),
            model => format!("Evaluation of {model}"),
        }
    }

    /// The facts for machines; `null` for those that are not known.
    pub(super) fn as_json(&self) -> serde_json::Map<String, serde_json::Value> {
        let value = |value: &str| if value.is_empty() { serde_json::Value::Null } else { value.into() };
        self.facts().into_iter().map(|(key, _, fact)| (key.to_owned(), value(fact))).collect()
    }

    /// Key, name and value of each fact, with the program's version last.
    fn facts(&self) -> [(&'static str, &'static str, &str); 7] {
        [
            ("model", "model", &self.model),
            ("revision", "revision", &self.revision),
            ("data", "texts", &self.data),
            ("dtype", "dtype", &self.dtype),
            ("command", "command", &self.command),
            ("date", "date", &self.date),
            ("agnews", "agnews", env!("CARGO_PKG_VERSION")),
        ]
    }
}

/// Figures for machines, each by its key.
pub(super) fn figures_as_json(figures: &[Figure]) -> serde_json::Map<String, serde_json::Value> {
    json::figures(figures)
}

/// The formats of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Every number; `report/json.rs` documents the fields.
    Json,
    /// The picture: confusion matrix and reliability diagram.
    Svg,
    /// The page: everything.
    Html,
}

impl Format {
    /// Determined by the extension of `path`, ignoring case.
    ///
    /// # Errors
    /// If it is none of the three. Call this before the work to be reported.
    pub fn of(path: &Path) -> Result<Format> {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("json") => Ok(Format::Json),
            Some("svg") => Ok(Format::Svg),
            Some("html") => Ok(Format::Html),
            _ => bail!("cannot tell the format of the report {path:?}: the name must end in .json, .svg or .html"),
        }
    }

    /// The report as text.
    pub fn render(self, view: &View, about: &About) -> String {
        match self {
            Format::Json => json::render(view, about),
            Format::Svg => picture::render(view, about),
            Format::Html => page::render(view, about),
        }
    }
}

#[cfg(test)]
mod tests;
