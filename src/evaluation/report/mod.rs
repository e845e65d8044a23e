//! Report files of an evaluation: for machines (JSON) and for eyes (SVG, HTML).

mod html;
mod json;
mod markup;
mod matrix;
mod reliability;
mod svg;
mod theme;

use super::metrics::Metrics;
use anyhow::{bail, Result};
use std::path::Path;

/// What a report says of where its figures come from.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The checkpoint, as the user named it, with its revision where it has one.
    pub model: String,
    /// The texts: the input's file name, say. Empty: not told.
    pub data: String,
}

/// The forms of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Every number; `report/json.rs` documents the fields.
    Json,
    /// The picture: confusion matrix and reliability diagram.
    Svg,
    /// The picture and the figures as tables.
    Html,
}

impl Format {
    /// By the extension of `path`, in any case.
    ///
    /// # Errors
    /// Where it is none of the three; worth calling before the work whose report it is.
    pub fn of(path: &Path) -> Result<Format> {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("json") => Ok(Format::Json),
            Some("svg") => Ok(Format::Svg),
            Some("html") => Ok(Format::Html),
            _ => bail!("cannot tell the form of the report {path:?}: name it .json, .svg or .html"),
        }
    }

    /// The report as text.
    pub fn render(self, metrics: &Metrics, about: &About) -> String {
        match self {
            Format::Json => json::render(metrics, about),
            Format::Svg => svg::render(metrics, about),
            Format::Html => html::render(metrics, about),
        }
    }
}

#[cfg(test)]
mod tests;
