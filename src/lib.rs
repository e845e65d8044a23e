//! Text classification with a BERT checkpoint, on the CPU or a GPU.
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
