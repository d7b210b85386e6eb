//! Which of a shard's records their senders may take for safe, and which they still wait for: who was not
//! told that a record is safe sends it again, so that one that a stop cannot bring to disk is not lost.
//!
//! Invariants: what was promised is never taken back, and is durable; nothing is promised while the
//! directory may not be the one that a restart finds. As long as what is in memory at most, because
//! neighbours are one entry; knows positions of the shard's log and nothing else.

use std::collections::VecDeque;

use super::log::{ShardLog, Stamped, Unsynced};

/// What of a shard's records is not known to be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NotOnDisk {
    /// How many, and where they begin.
    pub unsynced: Unsynced,
    /// Of them, those whose senders were not told that they are, and send them again.
    pub awaited_records: u64,
}

/// See the module page.
#[derive(Debug, Default)]
pub struct Promises {
    /// Up to here records were promised to be safe.
    promised_end: u64,
    /// Positions of records that were taken under a promise that is not made good yet: from, up to; in
    /// order, with gaps between them.
    awaited: VecDeque<(u64, u64)>,
}

impl Promises {
    /// The sender of these waits for a promise.
    pub fn note_awaited(&mut self, stamped: &Stamped) {
        let from = stamped.end.saturating_sub(stamped.records);
        match self.awaited.back_mut() {
            Some((_, end)) if *end == from => *end = stamped.end,
            Some((_, end)) if *end > from => panic!("records {from} to {end} were noted before"),
            _ => self.awaited.push_back((from, stamped.end)),
        }
    }

    /// Promises what has become durable, unless promises are withheld; says up to where records are
    /// promised now.
    pub fn make(&mut self, durable_end: u64, is_withheld: bool) -> u64 {
        assert!(
            self.promised_end <= durable_end,
            "what was promised to be on the disk is not taken back"
        );
        if !is_withheld {
            self.promised_end = durable_end;
        }
        self.promised_end
    }

    /// What is not known to be on the disk.
    pub fn not_on_disk(&mut self, log: &ShardLog) -> NotOnDisk {
        let awaited_records = self.awaited_beyond(log.durable_end());
        NotOnDisk { unsynced: log.unsynced(), awaited_records }
    }

    /// How many of those that are waited for are not durable; the others are let go.
    fn awaited_beyond(&mut self, durable_end: u64) -> u64 {
        while self.awaited.front().is_some_and(|&(_, end)| end <= durable_end) {
            self.awaited.pop_front();
        }
        self.awaited.iter().map(|&(from, end)| end - from.max(durable_end)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ulid::Ulid;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_what_is_awaited_and_not_durable(
            steps in prop::collection::vec((1_u64..5, any::<bool>(), 0_u64..4), 0..60),
        ) {
            let (mut promises, mut is_awaited, mut end) = (Promises::default(), Vec::new(), 0);
            for (records, awaits, synced) in steps {
                is_awaited.extend((0..records).map(|_| awaits));
                if awaits {
                    let (first, last, end) = (Ulid(0), Ulid(0), is_awaited.len() as u64);
                    let stamped = Stamped { first, last, records, end, invalid_topics: 0 };
                    promises.note_awaited(&stamped);
                }
                end = (end + synced).min(is_awaited.len() as u64);
                let model = is_awaited[end as usize..].iter().filter(|&&a| a).count();
                prop_assert_eq!(promises.awaited_beyond(end), model as u64);
            }
        }
    }

    #[test]
    fn while_promises_are_withheld_none_is_made_and_none_taken_back() {
        let mut promises = Promises::default();
        assert_eq!(promises.make(7, false), 7);
        assert_eq!(promises.make(9, true), 7);
        assert_eq!(promises.make(9, false), 9);
    }
}
