//! Whether a thread that works piece by piece gets on with it: a number that it moves, for others
//! to look at.
//!
//! Invariants: one thread moves it; neither side ever waits. Knows no clock: who looks at it
//! decides how long one piece of work may take.

use std::sync::atomic::{AtomicU64, Ordering};

/// See the page of the module. Rests at first.
#[derive(Debug, Default)]
pub struct Pulse {
    /// Odd while there is work under way.
    beats: AtomicU64,
}

impl Pulse {
    /// A piece of work begins, and what was under way has ended.
    pub fn begin(&self) {
        let beats = self.beats.load(Ordering::Relaxed);
        self.beats.store((beats | 1).wrapping_add(2), Ordering::Release);
    }

    /// Nothing is under way any more.
    pub fn rest(&self) {
        let beats = self.beats.load(Ordering::Relaxed);
        self.beats.store((beats | 1).wrapping_add(1), Ordering::Release);
    }

    /// Which piece of work is under way: another number for each. `None`: it rests.
    pub fn reading(&self) -> Option<u64> {
        let beats = self.beats.load(Ordering::Acquire);
        (beats % 2 == 1).then_some(beats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_of_work_has_a_number_of_its_own() {
        let pulse = Pulse::default();
        assert_eq!(pulse.reading(), None);
        pulse.rest();
        assert_eq!(pulse.reading(), None);
        let mut seen = Vec::new();
        for rests in [false, true, false, true] {
            pulse.begin();
            let number = pulse.reading().unwrap();
            assert!(!seen.contains(&number));
            assert_eq!(pulse.reading(), Some(number));
            seen.push(number);
            if rests {
                pulse.rest();
                pulse.rest();
                assert_eq!(pulse.reading(), None);
            }
        }
    }
}
