//! Where texts come from: arguments, standard input and files, as plain lines, CSV, TSV or JSON, possibly compressed.
//!
//! `inputs` says what is read and how, `record` what comes of it, `windows` hands it on in portions. Behind them,
//! `reader` is the thread that reads ahead, `decoding` what turns a file's bytes into UTF-8, and each format has a file
//! of its own: `lines`, `csv` and `tsv` (both tables), `json`. `fields` says which fields of a record are used.

mod csv;
mod decoding;
mod fields;
mod inputs;
mod json;
mod lines;
pub mod predictions;
mod reader;
mod record;
mod table;
mod tsv;
mod windows;

pub use fields::{FieldError, FieldSelection, KeptFields};
pub use inputs::{Input, InputFormat, Inputs, ReadOptions};
pub use lines::Separator;
pub use record::{Content, FieldValue, Kept, Origin, Record, Schema};
pub use windows::{Part, Source, Window, WindowLimits};

#[cfg(test)]
mod tests;
