//! From a model id, a folder or the embedded model to what the model is built from: the files
//! ([`files`]), `config.json` and the labels ([`config`]), the tensors ([`weights`]), and the
//! Hugging Face Hub, which turns an id and a revision into a folder ([`hub`]).

pub mod config;
pub mod files;
