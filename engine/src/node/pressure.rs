//! When the store side holds back, so that a burst gets the disk and the processor first.
//!
//! A burst is worth taking at the full speed of the disk, because what is taken waits on disk
//! anyway and is searchable there. So while shards wait for their writes, gathering and compaction
//! start nothing new, until the backlog is half full; from there on they compete as equals, and a
//! full backlog stops the shards, so that an overload settles at the rate that can be kept for
//! ever. Pure: values and time in, a decision out.

/// How long after shards last waited for the disk a burst is taken to last, ms.
const BURST_MS: u64 = 300;

/// What the ingest side has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// How often shards have had to wait for the disk so far.
    pub pauses: u64,
    /// What waits to be gathered, bytes.
    pub backlog_bytes: u64,
    /// The most that may wait, bytes.
    pub backlog_max_bytes: u64,
}

/// Watches the shards' pauses.
#[derive(Debug, Default)]
pub struct Pressure {
    pauses: u64,
    last_pause_ms: Option<u64>,
}

impl Pressure {
    /// Whether new work of the store has to wait.
    pub fn holds_back(&mut self, now_ms: u64, load: Load) -> bool {
        if load.pauses != self.pauses {
            self.pauses = load.pauses;
            self.last_pause_ms = Some(now_ms);
        }
        let is_burst = self.last_pause_ms.is_some_and(|at| now_ms.saturating_sub(at) < BURST_MS);
        is_burst && load.backlog_bytes < load.backlog_max_bytes / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_until_the_backlog_is_half_full() {
        let load = |pauses, backlog_bytes| Load { pauses, backlog_bytes, backlog_max_bytes: 100 };
        let mut pressure = Pressure::default();
        assert!(!pressure.holds_back(0, load(0, 0)), "nobody waits");
        assert!(pressure.holds_back(10, load(1, 0)), "shards wait for the disk");
        assert!(pressure.holds_back(200, load(1, 49)), "a moment ago they did");
        assert!(!pressure.holds_back(210, load(2, 50)), "the backlog is half full");
        assert!(pressure.holds_back(220, load(3, 49)));
        assert!(!pressure.holds_back(220 + BURST_MS, load(3, 49)), "the burst is over");
    }
}
