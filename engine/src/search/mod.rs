//! Finding records: a query pins a [`Snapshot`] of everything that may hold its answer and sweeps
//! it in ULID order.
//!
//! The way of a query: times become ULIDs ([`window`]), the texts become compiled
//! [`Expression`]s and these a [`Chain`], both a [`QuerySpec`]; the [`Searcher`] cuts it into scans of chunks that are done
//! out of order, by threads or by who steps it ([`Stepped`]), merges the hits by ULID, drops copies,
//! and hands formatted bytes to a [`PipeReader`].
//!
//! Invariants: a record is shown once, in ULID order, and only after its chunk's checksum was
//! verified; what could not be read is told ([`Missing`]), never skipped in silence; memory of a
//! query does not depend on the size of its result nor on the length of a record; a reader that
//! stalls holds no thread.
//!
//! Not here: sockets and HTTP (`net`), where snapshots come from (`ingest`, `store`), the clock.

mod automata;
pub mod chain;
mod consumer;
mod context;
#[cfg(test)]
mod entries_tests;
pub mod expression;
mod fair_queue;
mod feed;
#[cfg(test)]
mod filtered_tests;
mod folded;
pub mod format;
mod gate;
#[cfg(test)]
mod gate_tests;
mod hanging;
#[cfg(test)]
mod hanging_tests;
mod job;
mod level_series;
#[cfg(test)]
mod level_series_tests;
pub(crate) mod matcher;
#[cfg(test)]
mod memory_tests;
mod pinned;
pub mod pipe;
mod places;
mod pool;
#[cfg(test)]
pub(crate) mod random_expressions;
mod reading;
#[cfg(test)]
mod reading_tests;
pub mod required;
mod scan;
mod searcher;
mod series;
#[cfg(test)]
mod series_tests;
pub mod spec;
mod stepped;
#[cfg(test)]
mod stepped_tests;
#[cfg(test)]
mod stored_tests;
mod sweep;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
pub(crate) mod tests;
mod threads;
mod ticket;
mod track;
pub mod window;
mod work;

pub use automata::AutomatonMemory;
pub use chain::{Chain, ChainError, ChainText, Side};
pub use consumer::{Histogram, TopicSummary, Topics};
pub use expression::{Expression, ExpressionError};
pub use hanging::{GivenUp, Standing};
pub use level_series::{LevelHistogram, LevelSeries, LevelTally};
pub use pipe::{Ender, Head, PipeReader};
pub use reading::RecordTally;
pub use required::{FoldedLiteral, Required};
pub use searcher::{Plan, Searcher, SearcherOptions};
pub use series::{Series, SeriesFound, TopicHistogram};
pub use spec::{Format, Missing, Order, Outcome, QuerySpec, Skipped, Snapshot, Stats};
pub use stepped::{Step, Stepped};
pub use threads::{Overseer, ThreadHook};
pub use ticket::Ticket;
pub use window::{Window, WindowError};
