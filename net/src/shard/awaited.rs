//! Which of a shard's records their senders still wait for: who was not told that a record is safe sends
//! it again, so that one that a stop cannot bring to disk is not lost.
//!
//! Invariants: as long as what is in memory at most, because neighbours are one entry; knows positions
//! of the shard's log and nothing else.

use std::collections::VecDeque;

use engine::ingest::log::Stamped;

/// Positions of records that were taken under a promise that is not made good yet.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    /// From, up to; in order, with gaps between them.
    spans: VecDeque<(u64, u64)>,
}

impl Awaited {
    /// The sender of these waits for a promise.
    pub(super) fn add(&mut self, stamped: &Stamped) {
        let from = stamped.end.saturating_sub(stamped.records);
        match self.spans.back_mut() {
            Some((_, end)) if *end == from => *end = stamped.end,
            _ => self.spans.push_back((from, stamped.end)),
        }
    }

    /// How many of them are not durable; the others are let go.
    pub(super) fn beyond(&mut self, durable_end: u64) -> u64 {
        while self.spans.front().is_some_and(|&(_, end)| end <= durable_end) {
            self.spans.pop_front();
        }
        self.spans.iter().map(|&(from, end)| end - from.max(durable_end)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::ulid::Ulid;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_what_is_awaited_and_not_durable(
            steps in prop::collection::vec((1_u64..5, any::<bool>(), 0_u64..4), 0..60),
        ) {
            let (mut awaited, mut is_awaited, mut durable_end) = (Awaited::default(), Vec::new(), 0);
            for (records, awaits, synced) in steps {
                is_awaited.extend((0..records).map(|_| awaits));
                let end = is_awaited.len() as u64;
                let (first, last) = (Ulid(0), Ulid(0));
                if awaits {
                    awaited.add(&Stamped { first, last, records, end, invalid_topics: 0 });
                }
                durable_end = (durable_end + synced).min(end);
                let model = is_awaited[durable_end as usize..].iter().filter(|&&a| a).count();
                prop_assert_eq!(awaited.beyond(durable_end), model as u64);
            }
        }
    }
}
