//! Text classification with a BERT checkpoint, on the CPU or a GPU.
//!
//! ```text
//! source -> tokenization -> batching -> model (forward) -> prediction -> output
//! ```
//!
//! Plain structs pass between the stages; tensors exist only inside [`model`]. Imports run along the
//! arrow: a stage never knows the one that comes after it. [`classifier`] joins the middle ones into one call,
//! [`run`] all of them into the program.

pub mod batching;
pub mod checkpoint;
pub mod classifier;
pub mod cli;
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
