//! Sockets around the engine: the shard's ring and connections, and the HTTP server.
//!
//! Invariants: decisions live in `engine` (or in pure modules here) and are tested without a
//! socket; this crate moves bytes. Nothing here blocks a shard or a control thread.

pub mod ring;
