//! Report files of an evaluation: for machines (JSON) and for eyes (SVG, HTML).

mod html;
mod json;
mod markup;
mod matrix;
mod reliability;
mod svg;
mod theme;

use super::metrics::Metrics;
use anyhow::{bail, Context, Result};
use std::io::Write;
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

/// Writes the report to `path`, in the form that its extension names, whole or not at all: into a temporary file in the
/// same folder, which then takes the name and the place of what was there.
///
/// # Errors
/// Another extension; a folder that is not there, cannot be written to or is full. The message names the file.
pub fn write(path: &Path, metrics: &Metrics, about: &About) -> Result<()> {
    let report = Format::of(path)?.render(metrics, about);
    replace(path, report.as_bytes()).with_context(|| {
        format!("could not write the report {path:?}; check that its folder exists, can be written to and has room")
    })
}

fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    // "report.svg" has the parent "", which no system call takes for the current folder.
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".agnews-report-");
    // What any new file gets, less the umask, rather than a temporary file's 0600: a report is there to be passed on.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests;
