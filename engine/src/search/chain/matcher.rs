//! Finds the records that a chain matches in a buffer of many.
//!
//! The whole buffer is searched for the expression that leads; the others are asked about the records
//! where it matches. Where there is none to lead, each record is looked at, and what may not match is
//! itself looked for in the whole buffer: each expression passes over it once.
//!
//! Invariants: `text` is whole records, each with its LF; what is found equals what matching each
//! record by itself against each expression would find (a property test).

use std::ops::Range;

use super::Chain;
use crate::search::matcher::{Matcher, record_around};

/// One thread's use of a chain.
pub(crate) struct ChainMatcher<'c> {
    lead: Option<Matcher<'c>>,
    others: Vec<Matcher<'c>>,
    none: Vec<Matcher<'c>>,
}

impl<'c> ChainMatcher<'c> {
    pub(crate) fn new(chain: &'c Chain) -> Self {
        let mut all = chain.all.iter().map(Matcher::new);
        let (lead, others) = (all.next(), all.collect());
        Self { lead, others, none: chain.none.iter().map(Matcher::new).collect() }
    }

    /// Hands out the records that match, LF included, until `take` says that it wants no more.
    pub(crate) fn each(&mut self, text: &[u8], mut take: impl FnMut(Range<usize>) -> bool) {
        let Some(lead) = &mut self.lead else {
            return each_without(&mut self.none, text, take);
        };
        // Where it is the only one, records cost nothing more than finding them.
        let is_alone = self.others.is_empty() && self.none.is_empty();
        let (others, none) = (&mut self.others, &mut self.none);
        let mut from = 0;
        while let Some(record) = lead.next(text, from) {
            from = record.end;
            if (is_alone || admits(others, none, &text[record.clone()])) && !take(record) {
                return;
            }
        }
    }

    /// Whether a record, its LF included, that the leading expression matches is matched by the chain.
    pub(crate) fn admits(&mut self, record: &[u8]) -> bool {
        admits(&mut self.others, &mut self.none, record)
    }
}

fn admits(others: &mut [Matcher<'_>], none: &mut [Matcher<'_>], record: &[u8]) -> bool {
    others.iter_mut().all(|other| other.matches(record))
        && !none.iter_mut().any(|none| none.matches(record))
}

/// The records that none matches.
fn each_without(none: &mut [Matcher<'_>], text: &[u8], mut take: impl FnMut(Range<usize>) -> bool) {
    let start_behind = |none: &mut Matcher<'_>, from: usize| {
        none.next(text, from).map_or(usize::MAX, |record| record.start)
    };
    // Of each the first record that it matches, of those that it was not passed by.
    let mut ahead: Vec<usize> = none.iter_mut().map(|none| start_behind(none, 0)).collect();
    let mut from = 0;
    while from < text.len() {
        let record = record_around(text, from, from);
        from = record.end;
        let is_matched = none.iter_mut().zip(&mut ahead).any(|(none, ahead)| {
            if *ahead < record.start {
                *ahead = start_behind(none, record.start);
            }
            *ahead == record.start
        });
        if !is_matched && !take(record) {
            return;
        }
    }
}
