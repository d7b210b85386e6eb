//! End-to-end tests through the real binary, real sockets and real kills; this library starts
//! nodes, speaks to them and compares what they say with plain models.
//!
//! Invariants: every node runs in a temporary directory on ports that the kernel chose, and is
//! killed with its test; all traffic is on 127.0.0.1. Nothing here waits for a fixed time: tests
//! wait for conditions, with a deadline that only a broken node reaches.

pub mod browser;
pub mod fake_ingester;
pub mod faulty_disk;
pub mod follower;
pub mod forwarder;
pub mod gate;
pub mod http;
pub mod lines;
pub mod loop_disk;
pub mod matrix;
pub mod metrics_page;
pub mod node;
pub mod outlet;
pub mod page;
pub mod seccomp;
pub mod sender;
pub mod terminal;
pub mod tools;

use std::time::{Duration, Instant};

/// How long a condition may take before a test gives up: generous, for slow shared machines.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Polls until `condition` holds; panics with `what` after the deadline.
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    assert!(comes_true(condition), "gave up waiting until {what}");
}

/// Whether the condition comes true before the deadline.
pub fn comes_true(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() >= DEADLINE {
            return false;
        }
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(5));
    }
    true
}

/// The end of a text, for the words of a failure.
pub fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(1_000);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// Says, so that nobody overlooks it in a log, that a test could not run here.
pub fn skipped(test: &str, why: &str) {
    eprintln!("\n*** SKIPPED: {test}: {why} ***\n");
}

/// Raises the limit of open files as far as it goes; says whether `wanted` fit.
pub fn raise_descriptors(wanted: u64) -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).is_ok() && limit.maximum.is_none_or(|m| m >= wanted)
}
