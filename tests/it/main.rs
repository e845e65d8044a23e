//! The tests of the whole program and of the library's public interface, in one binary.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod evaluation;
mod exactness;
mod harness;
mod hostile;
mod hub;
mod hub_program;
mod hub_server;
mod pipes;
mod program;
mod readme;
mod weights;
