//! Programs that talk to a node from outside, each with its command.
//!
//! [`forward`] sends records to ingesters; [`query`] and [`stream`] ask and print records,
//! [`histogram`], [`topics`] and [`status`] objects; [`drain`] asks a node to go. What they share: [`http`] is one request and silence that is no answer, [`lines`] are the
//! whole lines of an answer and its end, [`object`] is an answer of one object, [`store`] who is asked and what with, [`table`] its columns, [`expressions`] is what records have to match, [`look`] and [`printer`]
//! are how they look.
//!
//! Invariants: knows nodes by the protocol alone, and shares with them only what says what that is
//! (`engine::ingest::hello`, formats, bounds) and how metrics look; neither [`crate::node`] nor the server's
//! rooms of `net` are used here, and none of them uses this (`tests/tests/house.rs`). No `io_uring`.

pub(crate) mod drain;
mod expressions;
pub(crate) mod forward;
pub(crate) mod histogram;
mod http;
mod lines;
mod look;
mod object;
mod printer;
pub(crate) mod query;
pub(crate) mod status;
mod store;
pub(crate) mod stream;
mod table;
pub(crate) mod topics;
