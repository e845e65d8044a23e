//! Text classification with a BERT checkpoint, on the CPU or a GPU.
//!
//! ```text
//! source -> tokenization -> batching -> model (forward) -> prediction -> decision -> output
//!                                                                                `-> evaluation
//! ```
//!
//! Plain structs pass between the stages; tensors exist only inside [`model`]. Imports follow the arrow: a stage never
//! depends on a later one. [`evaluation`] runs in parallel to [`output`] and compares predictions to gold labels.
//! [`classifier`] combines the middle stages into one call, [`run`] all of them into the program.

pub mod batching;
pub mod checkpoint;
pub mod classifier;
pub mod cli;
pub mod decision;
pub mod evaluation;
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
pub mod tokenization;
pub mod zero_shot;
