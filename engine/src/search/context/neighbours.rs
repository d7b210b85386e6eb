//! Which records lie around the hits of each topic: fed with runs of records, it says which of them are to
//! be shown.
//!
//! Invariants: pure; it keeps no more of a topic than the records before the next hit that may still be
//! wanted; records are given in order and each once (the sweep sees to that).

use std::collections::{BTreeMap, VecDeque};

use super::selection::Span;
use crate::topic::Topic;
use crate::ulid::Ulid;

/// Forward from the first hit of all: what lies behind each hit, and before it as far as that was seen.
pub(super) struct Forward {
    reach: u64,
    topics: BTreeMap<Topic, Around>,
    /// Topics that still want something.
    open: usize,
    spans: Vec<Span>,
}

/// One topic.
struct Around {
    /// In order of ULID.
    hits: Vec<Ulid>,
    next_hit: usize,
    /// Its records that were seen.
    seen: u64,
    /// The last of them, with the number of the first of each span.
    recent: VecDeque<(u64, Span)>,
    /// Those before this number are to be shown, if they are not before the last hit's reach.
    wanted_to: u64,
    /// Those before this number were looked at.
    taken_to: u64,
    /// Records before the first one seen that are wanted, too: by the first hit that was met.
    missing_before: Option<u64>,
}

impl Forward {
    /// Around these hits, each topic's in order of ULID and not empty, `reach` records on either side.
    pub(super) fn new(reach: u64, hits: Vec<(Topic, Vec<Ulid>)>) -> Self {
        let around = |hits| Around {
            hits,
            next_hit: 0,
            seen: 0,
            recent: VecDeque::new(),
            wanted_to: 0,
            taken_to: 0,
            missing_before: None,
        };
        let of_topic = |(topic, hits)| (topic, around(hits));
        let topics: BTreeMap<_, _> = hits.into_iter().map(of_topic).collect();
        Self { reach, open: topics.len(), topics, spans: Vec::new() }
    }

    /// The next records of a topic.
    pub(super) fn see(&mut self, topic: &Topic, span: Span) {
        let Self { reach, topics, open, spans } = self;
        let Some(around) = topics.get_mut(topic).filter(|around| around.is_open()) else { return };
        around.see(*reach, span, spans);
        *open -= usize::from(!around.is_open());
    }

    /// Whether nothing more is wanted.
    pub(super) const fn is_satisfied(&self) -> bool {
        self.open == 0
    }

    /// What is to be shown of what was seen, the hits themselves, and what is wanted of what lies before.
    pub(super) fn into_found(self) -> (Vec<Span>, Vec<Ulid>, Backward) {
        let (mut hits, mut topics) = (Vec::new(), BTreeMap::new());
        for (topic, around) in self.topics {
            hits.extend(around.hits);
            // Around a hit that was not met again nothing is known.
            if let Some(missing) = around.missing_before.filter(|&missing| missing > 0) {
                topics.insert(topic, missing);
            }
        }
        (self.spans, hits, Backward { topics, spans: Vec::new() })
    }
}

impl Around {
    const fn is_open(&self) -> bool {
        self.next_hit < self.hits.len() || self.seen < self.wanted_to
    }

    fn see(&mut self, reach: u64, span: Span, spans: &mut Vec<Span>) {
        let base = self.seen;
        self.seen += u64::from(span.count);
        self.recent.push_back((base, span));
        while let Some(&hit) = self.hits.get(self.next_hit).filter(|&&hit| hit <= span.last()) {
            self.next_hit += 1;
            // One that is not there any more has no surroundings.
            let Some(offset) = hit.0.checked_sub(span.first.0) else { continue };
            let number = base + offset as u64;
            self.missing_before.get_or_insert(reach.saturating_sub(number));
            self.take(self.wanted_to, spans);
            self.taken_to = self.taken_to.max(number.saturating_sub(reach));
            self.wanted_to = number + reach + 1;
        }
        self.take(self.wanted_to, spans);
        let needed_from = self.seen.saturating_sub(reach);
        while self.recent.front().is_some_and(|(at, s)| at + u64::from(s.count) <= needed_from) {
            self.recent.pop_front();
        }
    }

    /// Shows the records up to a number that were not looked at yet.
    fn take(&mut self, to: u64, spans: &mut Vec<Span>) {
        let behind = |(at, span): &&(u64, Span)| at + u64::from(span.count) > self.taken_to;
        for &(at, span) in self.recent.iter().rev().take_while(behind) {
            let from = self.taken_to.max(at);
            let end = to.min(at + u64::from(span.count));
            if from < end {
                spans.push(Span { first: span.first.plus(from - at), count: (end - from) as u32 });
            }
        }
        self.taken_to = self.taken_to.max(to.min(self.seen));
    }
}

/// Backward from the first hit of all: what is still wanted of each topic.
pub(super) struct Backward {
    topics: BTreeMap<Topic, u64>,
    spans: Vec<Span>,
}

impl Backward {
    /// Topics of which something is wanted.
    pub(super) fn topics(&self) -> Vec<Topic> {
        self.topics.keys().cloned().collect()
    }

    /// The records of a topic that lie before those seen last.
    pub(super) fn see(&mut self, topic: &Topic, span: Span) {
        let Some(wanted) = self.topics.get_mut(topic) else { return };
        let count = (*wanted).min(u64::from(span.count));
        let first = span.first.plus(u64::from(span.count) - count);
        self.spans.push(Span { first, count: count as u32 });
        *wanted -= count;
        if *wanted == 0 {
            self.topics.remove(topic);
        }
    }

    /// Whether nothing more is wanted.
    pub(super) fn is_satisfied(&self) -> bool {
        self.topics.is_empty()
    }

    /// What is to be shown.
    pub(super) fn into_spans(self) -> Vec<Span> {
        self.spans
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::selection::Selection;
    use super::*;

    /// Runs of one topic by length, gaps between them; which records are hits.
    fn runs() -> impl Strategy<Value = (Vec<(u32, bool)>, Vec<bool>, u64)> {
        let run = (1..6u32, any::<bool>());
        (
            prop::collection::vec(run, 1..12),
            prop::collection::vec(prop::bool::weighted(0.2), 60),
            0..5u64,
        )
    }

    proptest! {
        #[test]
        fn each_hit_has_its_neighbours_on_either_side_and_nothing_else_is_shown(
            (runs, marks, reach) in runs(),
        ) {
            let topic = Topic::new(b"a").unwrap();
            let (mut spans, mut next) = (Vec::new(), 100u128);
            for (count, gap) in runs {
                next += u128::from(gap) * 7;
                spans.push(Span { first: Ulid(next), count });
                next += u128::from(count);
            }
            let all: Vec<Ulid> = spans
                .iter()
                .flat_map(|span| (0..u64::from(span.count)).map(|n| span.first.plus(n)))
                .collect();
            let hits: Vec<usize> = (0..all.len()).filter(|&n| marks[n]).collect();
            prop_assume!(!hits.is_empty());
            let shown = |n: usize| hits.iter().any(|&hit| hit.abs_diff(n) as u64 <= reach);
            let model: Vec<Ulid> = (0..all.len()).filter(|&n| shown(n)).map(|n| all[n]).collect();

            let ids: Vec<Ulid> = hits.iter().map(|&n| all[n]).collect();
            let mut forward = Forward::new(reach, vec![(topic.clone(), ids.clone())]);
            // From the first hit on; what lies before is asked for afterwards.
            let cut = |span: &Span, low: Ulid, high: Ulid| {
                let (first, last) = (span.first.max(low), span.last().min(high));
                (first <= last).then(|| Span { first, count: (last.0 - first.0 + 1) as u32 })
            };
            for span in spans.iter().filter_map(|span| cut(span, ids[0], Ulid::MAX)) {
                if forward.is_satisfied() {
                    break;
                }
                forward.see(&topic, span);
            }
            let (mut found, of, mut backward) = forward.into_found();
            prop_assert_eq!(&of, &ids);
            let before = Ulid(ids[0].0 - 1);
            for span in spans.iter().rev().filter_map(|span| cut(span, Ulid::MIN, before)) {
                if backward.is_satisfied() {
                    break;
                }
                backward.see(&topic, span);
            }
            found.extend(backward.into_spans());
            let selection = Selection::new(of, found);
            let found: Vec<Ulid> = selection
                .within(Ulid::MIN, Ulid::MAX)
                .flat_map(|span| (0..u64::from(span.count)).map(move |n| span.first.plus(n)))
                .collect();
            prop_assert_eq!(found, model);
        }
    }
}
