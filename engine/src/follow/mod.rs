//! Live followers: what shards have just taken, in order, to everybody who asked for it.
//!
//! - [`order`]: from what each shard took to one sequence in ULID order;
//! - [`fanout`]: which follower gets which record, in one pass for all of them;
//! - [`queue`]: what waits for one follower, in the format it asked for.
//!
//! Invariants: nothing here waits for a follower; memory is bounded, and what does not fit is
//! counted as missed and told to whom it would have gone; knows neither threads nor sockets.

pub mod fanout;
pub mod order;
pub mod queue;

#[cfg(test)]
mod tests;

pub use fanout::{Fanout, Hit, Wanted};
pub use order::Ordered;
pub use queue::{Budget, FollowerQueue, QueueShare, StreamFormat};
