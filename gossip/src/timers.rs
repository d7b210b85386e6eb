//! When `foca` is to be turned. A process that stood still finds everything overdue; the time that it did
//! not listen is not held against others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use foca::Timer;

use crate::limits::STALL_MS;
use crate::member::Member;

struct Due {
    at_ms: u64,
    /// Order of those due at the same time.
    place: u64,
    timer: Timer<Member>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl Due {
    const fn order(&self) -> (u64, u64) {
        (self.at_ms, self.place)
    }
}

/// All of them. Their number follows from what a living node asks for: one probe at a time, one deadline
/// for each that failed in the last two seconds, and one of each periodic kind.
#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<Due>>,
    placed: u64,
}

impl Timers {
    pub(crate) fn add(&mut self, at_ms: u64, timer: Timer<Member>) {
        self.placed += 1;
        self.heap.push(Reverse(Due { at_ms, place: self.placed, timer }));
    }

    /// Nothing that was asked for counts any more.
    pub(crate) fn clear(&mut self) {
        self.heap.clear();
    }

    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(due)| due.at_ms)
    }

    /// What is due. Where the first is late by more than a stall, everything moves on by as much.
    pub(crate) fn take(&mut self, now_ms: u64) -> Option<Timer<Member>> {
        let late_ms = now_ms.saturating_sub(self.next_ms()?);
        if late_ms > STALL_MS {
            let moved = std::mem::take(&mut self.heap).into_iter();
            self.heap = moved
                .map(|Reverse(due)| {
                    Reverse(Due { at_ms: due.at_ms.saturating_add(late_ms), ..due })
                })
                .collect();
        }
        if self.next_ms()? > now_ms {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| due.timer)
    }
}
