//! The network side of a node: protocols and their thin I/O shells.
//!
//! [`http`] serves queries and `POST /records` on the control thread, and reaches the node behind
//! it through [`backend::Backend`]. [`metrics`] is what all parts of a node count.

// What the node must provide; the crate's own servers are its only users.
pub mod backend;
pub mod http;
pub mod limits;
pub mod metrics;
