//! The wall clock: what answers are dated with and what an offline tool takes for now.
//!
//! Records are not stamped by it: [`crate::shard::Clock`] is a node's.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970; 0 before that.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
