//! Finding records: a query pins a [`Snapshot`] of everything that may hold its answer and sweeps
//! it in ULID order.
//!
//! The way of a query: times become ULIDs ([`window`]), the text becomes a compiled
//! [`Expression`], both a [`QuerySpec`]; the [`Searcher`] cuts it into scans of chunks that its
//! threads do out of order, merges the hits by ULID, drops copies, and hands formatted bytes to a
//! [`PipeReader`].
//!
//! Invariants: a record is shown once, in ULID order, and only after its chunk's checksum was
//! verified; what could not be read is told ([`Missing`]), never skipped in silence; memory of a
//! query does not depend on the size of its result nor on the length of a record; a reader that
//! stalls holds no thread.
//!
//! Not here: sockets and HTTP (`net`), where snapshots come from (`ingest`, `store`), the clock.

pub mod expression;
mod matcher;
pub mod pipe;
pub mod spec;
pub mod window;

pub use expression::{Expression, ExpressionError};
pub use pipe::{Head, PipeReader};
pub use spec::{Format, Missing, Order, Outcome, QuerySpec, Snapshot, Stats};
