//! The engine: what a record is, how it is kept and how it is found.
//!
//! The folders tell the story of a record:
//!
//! 1. [`ingest`]: lines become runs of numbered records ([`ulid`], [`run_table`]), runs become
//!    checksummed frames, frames become an ingest segment.
//! 2. [`store`]: flushed ingest segments are gathered, merged by ULID and published as a store
//!    segment; small and overlapping store segments are compacted.
//! 3. [`search`]: a query pins a snapshot of all of it and sweeps it in ULID order.
//!
//! [`node`] is what holds all of it together, and decides when what is done.
//!
//! Invariants: nothing here knows a socket, a runtime or the wall clock (time is a value that
//! callers pass in); every byte that comes from disk is validated and never panics; storage is
//! reached through [`storage::Storage`] only, so that the simulated disk can stand in for it.

// They end the process when nobody reads.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod bitmap;
pub mod caches;
mod checked;
pub mod chunk;
pub mod damage;
pub mod decoded;
pub mod disk_health;
pub mod entries;
pub mod follow;
pub mod fsck;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod headroom;
pub mod identity;
pub mod ingest;
mod known_damage;
pub mod levels;
pub mod limits;
pub mod node;
mod open_cache;
pub mod pulse;
pub mod random;
pub mod restore;
pub mod run_table;
pub mod search;
pub mod signature;
pub mod spool;
pub mod storage;
pub mod store;
pub mod topic;
pub mod twin;
pub mod ulid;
pub mod varint;
