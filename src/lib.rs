//! Text classification with a BERT checkpoint, on the CPU or a GPU.
//!
//! ```text
//! source -> tokenization -> batching -> model (forward) -> prediction -> output
//! ```
//!
//! Plain structs pass between the stages; tensors exist only inside [`model`]. Imports run along the
//! arrow: a stage never knows the one that comes after it.

pub mod batching;
pub mod checkpoint;
pub mod model;
pub mod prediction;
pub mod tokenization;
