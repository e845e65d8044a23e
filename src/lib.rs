//! Text classification with a transformer checkpoint, on the CPU or a GPU. The program `agnews` is this library behind a
//! command line.
//!
//! ```
//! use agnews::checkpoint::hub::{Hub, HubOptions};
//! use agnews::checkpoint::{Checkpoint, CheckpointSpec};
//! use agnews::classifier::{Classifier, ClassifierOptions};
//!
//! // Or an id on the Hugging Face Hub, or the path of a folder.
//! let spec = CheckpointSpec::parse("builtin", None).map_err(anyhow::Error::msg)?;
//! let hub = Hub::new(HubOptions::from_env(&|name| std::env::var_os(name), false), &());
//! let classifier = Classifier::load(&Checkpoint::open(&spec, &hub)?, &ClassifierOptions::default())?;
//! let predictions = classifier.classify(&["The striker scored twice to win the derby.", " "])?;
//! let best = predictions[0].as_ref().expect("the first text is not blank").best();
//! assert_eq!(classifier.labels()[best.label_id], "Sports");
//! assert!(predictions[1].is_none());
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! The stages:
//!
//! ```text
//! source -> tokenization -> batching -> model (forward) -> prediction -> decision -> output
//!                                                                                `-> evaluation
//! ```
//!
//! Plain structs pass between the stages; tensors exist only inside [`model`]. Imports follow the arrow: a stage never
//! depends on a later one. [`evaluation`] runs in parallel to [`output`] and compares predictions to gold labels.
//! [`explanation`] finds the words behind a decision, by predictions of variants of the text.
//! [`classifier`] combines the middle stages into one call, [`run`] all of them into the program.

pub mod batching;
pub mod checkpoint;
pub mod classifier;
pub mod cli;
pub mod decision;
pub mod evaluation;
pub mod explanation;
#[cfg(test)]
mod fuzzing;
pub mod kernels;
pub mod model;
pub mod options;
pub mod output;
pub mod prediction;
pub mod progress;
pub mod run;
pub mod source;
mod theme;
pub mod tokenization;
pub mod zero_shot;
