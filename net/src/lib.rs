//! Sockets around the engine: the shard's ring and connections, and the HTTP server.
//!
//! [`access`] says who may do what; [`backend`] is what the HTTP server asks of the node; [`http`] is that server; [`ring`] and the
//! shards on it take lines in; [`follow`] hands them to live followers; [`budget`] bounds what they may hold; [`metrics`] is what all of
//! them count. What talks to a node from outside is none of this: the forwarder and the other clients are
//! programs of the daemon.
//!
//! Invariants: decisions live in `engine` (or in pure modules here) and are tested without a
//! socket; this crate moves bytes. Nothing here blocks a shard or a control thread.

// They end the process when nobody reads.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod access;
pub mod backend;
pub mod budget;
pub mod driver;
pub mod follow;
pub mod http;
pub mod limits;
pub mod metrics;
pub mod poller;
pub mod ring;
pub mod shard;
pub mod wall_clock;
