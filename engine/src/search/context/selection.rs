//! Which records are shown, and which of those are hits: what is left of a query once the neighbours of its
//! hits are known.
//!
//! Invariants: spans are in order of ULID, neither share records nor touch; each hit lies in one of them.

use crate::ulid::Ulid;

/// Records that follow each other in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::search) struct Span {
    pub(in crate::search) first: Ulid,
    pub(in crate::search) count: u32,
}

impl Span {
    pub(in crate::search) const fn last(self) -> Ulid {
        self.first.plus(self.count as u64 - 1)
    }
}

/// See the page of the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::search) struct Selection {
    spans: Vec<Span>,
    hits: Vec<Ulid>,
}

impl Selection {
    /// These hits, and the neighbours that were found; both in any order.
    pub(super) fn new(mut hits: Vec<Ulid>, neighbours: Vec<Span>) -> Self {
        hits.sort_unstable();
        hits.dedup();
        let mut all = neighbours;
        // A hit whose surroundings could not be read is shown all the same.
        all.extend(hits.iter().map(|&first| Span { first, count: 1 }));
        all.sort_unstable();
        let mut spans: Vec<Span> = Vec::with_capacity(all.len());
        for span in all {
            match spans.last_mut() {
                Some(before) if span.first.0 <= before.last().0 + 1 => {
                    let last = span.last().max(before.last());
                    before.count = (last.0 - before.first.0 + 1) as u32;
                }
                _ => spans.push(span),
            }
        }
        spans.shrink_to_fit();
        Self { spans, hits }
    }

    /// The first and the last of them.
    pub(super) fn bounds(&self) -> Option<(Ulid, Ulid)> {
        Some((self.spans.first()?.first, self.spans.last()?.last()))
    }

    /// Those between two ULIDs, as spans in order, cut at the two.
    pub(in crate::search) fn within(
        &self,
        first: Ulid,
        last: Ulid,
    ) -> impl Iterator<Item = Span> + '_ {
        let start = self.spans.partition_point(|span| span.last() < first);
        let spans = self.spans[start..].iter().take_while(move |span| span.first <= last);
        spans.map(move |span| {
            let (from, to) = (span.first.max(first), span.last().min(last));
            Span { first: from, count: (to.0 - from.0 + 1) as u32 }
        })
    }

    /// Whether one of them lies between two ULIDs.
    pub(in crate::search) fn meets(&self, first: Ulid, last: Ulid) -> bool {
        self.within(first, last).next().is_some()
    }

    /// Whether a record is one that was asked for, not a neighbour.
    pub(in crate::search) fn is_hit(&self, id: Ulid) -> bool {
        self.hits.binary_search(&id).is_ok()
    }

    /// How many of so many records that follow each other are hits.
    pub(in crate::search) fn hits_of(&self, first: Ulid, count: u32) -> u64 {
        let behind = first.plus(u64::from(count));
        let before = |id: Ulid| self.hits.partition_point(|&hit| hit < id);
        (before(behind) - before(first)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(first: u128, count: u32) -> Span {
        Span { first: Ulid(first), count }
    }

    #[test]
    fn spans_that_share_records_are_one_and_a_lone_hit_is_there() {
        let hits = vec![Ulid(12), Ulid(5), Ulid(90), Ulid(12)];
        let selection =
            Selection::new(hits, vec![span(10, 3), span(3, 4), span(12, 4), span(16, 1)]);
        let all: Vec<_> = selection.within(Ulid::MIN, Ulid::MAX).collect();
        assert_eq!(all, [span(3, 4), span(10, 7), span(90, 1)]);
        assert_eq!(selection.bounds(), Some((Ulid(3), Ulid(90))));
        assert_eq!(
            selection.within(Ulid(5), Ulid(11)).collect::<Vec<_>>(),
            [span(5, 2), span(10, 2)]
        );
        assert!(selection.meets(Ulid(16), Ulid(20)) && !selection.meets(Ulid(17), Ulid(89)));
        assert!(selection.is_hit(Ulid(12)) && !selection.is_hit(Ulid(13)));
        assert_eq!((selection.hits_of(Ulid(10), 3), selection.hits_of(Ulid(13), 70)), (1, 0));
        assert_eq!(Selection::default().bounds(), None);
    }
}
