//! The server over real sockets, with a node that lives in memory.

mod fake;
mod queries;
mod records;
mod refusals;
mod wire;
