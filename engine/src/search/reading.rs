//! Records that match, handed one by one to somebody who counts what is in them.
//!
//! Invariants: each is handed over once, the oldest first, and only if its text is still what was
//! verified: it is copied first, and looked at afterwards. Runs under the lock of its query, on a scan
//! thread; what is held beside the counts is the text of one hit.

use super::consumer::{Breaker, Consumer, Drained, Telling};
use super::spec::Stats;
use super::sweep::{HeadText, Sweep};
use super::ticket::TicketSender;
use crate::entries::CountedEntries;
use crate::limits::BLOCK_TEXT_TARGET;
use crate::ulid::Ulid;

/// Counts what is in records. Bounded, whatever they are.
pub trait RecordTally: Send + 'static {
    /// Takes notice of one, given without its LF.
    fn count(&mut self, id: Ulid, record: &[u8]);

    /// Takes notice of entries that were counted without being read, which happens where only entries are
    /// asked for ([`super::QuerySpec::entries`]).
    fn count_entries(&mut self, entries: &CountedEntries);
}

/// See the page of the module.
pub(super) struct Reading<T> {
    tally: T,
    sender: TicketSender<(T, Stats)>,
    telling: Telling,
    /// The text of a hit.
    copy: Vec<u8>,
}

impl<T: RecordTally> Reading<T> {
    /// For a sweep that goes from the oldest on, without a limit.
    pub(super) const fn new(tally: T, sender: TicketSender<(T, Stats)>, telling: Telling) -> Self {
        Self { tally, sender, telling, copy: Vec::new() }
    }

    /// Counts the records of `copy`, of which the first has this ULID.
    fn count(&mut self, first: Ulid) -> u32 {
        let ends = memchr::memchr_iter(b'\n', &self.copy);
        let mut start = 0;
        let mut records = 0;
        for end in ends {
            self.tally.count(first.plus(u64::from(records)), &self.copy[start..end]);
            start = end + 1;
            records += 1;
        }
        records
    }
}

impl<T: RecordTally> Consumer for Reading<T> {
    fn drain(&mut self, sweep: &mut Sweep) -> Drained {
        if self.sender.is_cancelled() {
            return Drained::Unwanted;
        }
        sweep.take_told().iter().for_each(|entries| self.tally.count_entries(entries));
        while sweep.prepare() {
            let Some(head) = sweep.head() else { break };
            let hit = head.hit;
            self.copy.clear();
            // Sweeps that do not only count always bring text.
            let text = head.text.and_then(|text| text.get(hit.span()));
            self.copy.extend_from_slice(text.unwrap_or_default());
            if sweep.check_head() != HeadText::Intact {
                continue;
            }
            let counted = self.count(hit.first);
            debug_assert_eq!(counted, hit.count);
            sweep.advance(hit.count, u64::from(hit.end - hit.start));
            if self.copy.capacity() > 2 * BLOCK_TEXT_TARGET {
                // That of a record that is a block of its own.
                self.copy = Vec::new();
            }
        }
        Drained::All
    }

    fn has_room(&self) -> bool {
        true
    }

    fn counts_only(&self) -> bool {
        false
    }

    fn telling(&self) -> Telling {
        self.telling
    }

    fn breaker(&self) -> Breaker {
        self.sender.breaker()
    }

    fn finish(self: Box<Self>, stats: Stats, _aborted: bool) {
        let Self { tally, sender, .. } = *self;
        sender.send((tally, stats));
    }
}
