//! The ingest side: lines become runs of numbered records, runs become checksummed frames, frames
//! become segments that a consumer claims, stores and commits.
//!
//! 1. [`hello`], [`framing`] and [`lines`] read a connection's bytes, [`stranger`] recognises what does not belong
//!    there; [`topics`] names the topic of a line, and [`known_topics`] keeps which there are.
//! 2. [`stamp`] numbers records, below what [`stamp_mark`] keeps on disk; [`log`] collects them into a [`frame`], puts young bytes into the
//!    [`tail`] file and frames into a [`segment`]; [`memory`] shows a query what is not on disk yet, [`promises`] tell senders what is.
//! 3. [`registry`] moves segments from active to flushed to pending to gone; [`recover`] finds them
//!    again after a stop of any kind; [`waiting`] says which of them a stop has left.
//!
//! Invariants: the shard's part (1 and 2) does no I/O, it emits effects and takes completions;
//! the registry's part reaches files through [`crate::storage::Storage`] only. Formats are in
//! `docs/format-ingest.md`.

pub mod check;
mod covered;
mod examine;
pub mod frame;
pub mod framing;
pub mod hello;
pub mod known_topics;
pub mod left_in_tail;
pub mod lines;
pub mod log;
pub mod memory;
mod name;
pub(crate) mod open;
pub mod promises;
pub mod recover;
pub mod registry;
pub mod segment;
pub mod stamp;
pub mod stamp_mark;
pub mod stranger;
pub mod tail;
pub mod topics;
mod torn;
pub mod waiting;
mod walk;

#[cfg(test)]
mod tests;
