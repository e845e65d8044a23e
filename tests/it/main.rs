//! The tests of the whole program and of the library's public interface, in one binary.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod cascade;
mod evaluation;
mod evaluation_program;
mod exactness;
mod explanation;
mod families;
mod faults;
mod harness;
mod hostile;
mod hub;
mod hub_program;
mod hub_proxy;
mod hub_server;
mod long_text;
mod output_file;
mod pipes;
mod problems;
mod program;
#[path = "../../src/fuzzing/random.rs"]
mod random;
mod reader_fuzz;
// The examples are lines for a Unix shell.
#[cfg(unix)]
mod readme;
mod structured;
mod tokenizers;
mod trust;
mod weights;
