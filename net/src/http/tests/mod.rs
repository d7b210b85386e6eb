//! The server over real sockets, with a node that lives in memory.

mod access;
mod entries;
mod entries_shown;
pub(super) mod fake;
mod queries;
mod rates;
mod records;
mod refusals;
mod wire;
