//! Who gets which record.
//!
//! The literals that lead followers to their records are looked for in one pass (Aho and Corasick
//! 1975), however many they are; regular and case-insensitive expressions each take a pass of their
//! own, as a query does. Topics, and what else a follower asks of a record, are compared per record that
//! is found so.
//!
//! Invariants: a follower gets exactly the records that a query with its chain and topics would, in the order in which they stand in the batch, each once.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, MatchKind};

use crate::ingest::log::Tapped;
use crate::limits::{FOLLOW_LITERAL_BYTES_MAX, FOLLOW_LITERALS_BYTES_MAX};
use crate::search::Chain;
use crate::search::chain::ChainMatcher;
use crate::topic::Topic;
use crate::ulid::Ulid;

/// What a follower wants.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What its records match.
    pub chain: Chain,
    /// Their topics; empty: any.
    pub topics: Vec<Topic>,
    /// Who follows may know of no other records, not even how many were lost beside its own.
    pub is_discreet: bool,
}

/// A record for a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit<'a> {
    /// The follower, as numbered when the fanout was made.
    pub follower: usize,
    /// The record's ULID.
    pub id: Ulid,
    /// Its topic.
    pub topic: &'a Topic,
    /// Its bytes without LF.
    pub record: &'a [u8],
}

/// What all followers want, made ready.
#[derive(Debug, Default)]
pub struct Fanout {
    wanted: Vec<Wanted>,
    /// Those whose literals the automaton looks for, by pattern; and whether that is not all they ask.
    by_literal: Vec<Vec<(usize, bool)>>,
    automaton: Option<AhoCorasick>,
    /// Those who want every record of their topics.
    all: Vec<usize>,
    /// Those who are matched one by one.
    alone: Vec<usize>,
}

struct Record {
    start: usize,
    end: usize,
    id: Ulid,
    run: usize,
}

impl Fanout {
    /// For these followers, numbered from 0.
    pub fn new(wanted: Vec<Wanted>) -> Self {
        let mut patterns: HashMap<&[u8], Vec<(usize, bool)>> = HashMap::new();
        let (mut all, mut alone, mut literal_bytes) = (Vec::new(), Vec::new(), 0);
        for (follower, wants) in wanted.iter().enumerate() {
            if wants.chain.matches_all() {
                all.push(follower);
                continue;
            }
            let literal = wants.chain.literal().filter(|(literal, _)| {
                let fits = literal.len() <= FOLLOW_LITERAL_BYTES_MAX
                    && literal_bytes + literal.len() <= FOLLOW_LITERALS_BYTES_MAX;
                fits || patterns.contains_key(literal)
            });
            match literal {
                Some((literal, has_more)) => {
                    let followers = patterns.entry(literal).or_insert_with(|| {
                        literal_bytes += literal.len();
                        Vec::new()
                    });
                    followers.push((follower, has_more));
                }
                None => alone.push(follower),
            }
        }
        let (literals, by_literal): (Vec<&[u8]>, Vec<_>) = patterns.into_iter().unzip();
        let builder = || AhoCorasick::builder().match_kind(MatchKind::Standard).build(&literals);
        let automaton = if literals.is_empty() { None } else { builder().ok() };
        let mut this = Self { by_literal, automaton, all, alone, wanted: Vec::new() };
        if this.automaton.is_none() {
            let followers = this.by_literal.drain(..).flatten();
            this.alone.extend(followers.map(|(follower, _)| follower));
        }
        this.wanted = wanted;
        this
    }

    /// Tells `deliver` who gets which record.
    pub fn matches<'a>(&self, batch: &'a Tapped, deliver: &mut dyn FnMut(Hit<'a>)) {
        let records = records(batch);
        if let Some(automaton) = &self.automaton {
            self.match_literals(automaton, batch, &records, deliver);
        }
        for record in &records {
            for &follower in &self.all {
                self.deliver(follower, batch, record, deliver);
            }
        }
        for &follower in &self.alone {
            let mut matcher = ChainMatcher::new(&self.wanted[follower].chain);
            let mut at = 0;
            matcher.each(&batch.text, |found| {
                while records[at].start < found.start {
                    at += 1;
                }
                self.deliver(follower, batch, &records[at], deliver);
                true
            });
        }
    }

    fn match_literals<'a>(
        &self,
        automaton: &AhoCorasick,
        batch: &'a Tapped,
        records: &[Record],
        deliver: &mut dyn FnMut(Hit<'a>),
    ) {
        // The record in which each pattern was found last.
        let mut last = vec![usize::MAX; self.by_literal.len()];
        // Of those who ask for more than the literal, made when it is found.
        let mut matchers: HashMap<usize, ChainMatcher<'_>> = HashMap::new();
        let mut at = 0;
        for found in automaton.find_overlapping_iter(&batch.text) {
            // Matches come by their ends, and none contains an LF.
            while records[at].end < found.end() {
                at += 1;
            }
            let pattern = found.pattern().as_usize();
            if std::mem::replace(&mut last[pattern], at) == at {
                continue;
            }
            for &(follower, has_more) in &self.by_literal[pattern] {
                let is_wanted = !has_more || {
                    let chain = &self.wanted[follower].chain;
                    let matcher =
                        matchers.entry(follower).or_insert_with(|| ChainMatcher::new(chain));
                    matcher.admits(&batch.text[records[at].start..records[at].end])
                };
                if is_wanted {
                    self.deliver(follower, batch, &records[at], deliver);
                }
            }
        }
    }

    fn deliver<'a>(
        &self,
        follower: usize,
        batch: &'a Tapped,
        record: &Record,
        deliver: &mut dyn FnMut(Hit<'a>),
    ) {
        let topic = &batch.runs[record.run].topic;
        let topics = &self.wanted[follower].topics;
        if topics.is_empty() || topics.contains(topic) {
            let bytes = &batch.text[record.start..record.end - 1];
            deliver(Hit { follower, id: record.id, topic, record: bytes });
        }
    }
}

/// Where the records of a batch lie, LFs included.
fn records(batch: &Tapped) -> Vec<Record> {
    let mut records = Vec::with_capacity(batch.record_count() as usize);
    let mut ends = memchr::memchr_iter(b'\n', &batch.text).map(|lf| lf + 1);
    let mut start = 0;
    for (run, tapped) in batch.runs.iter().enumerate() {
        for number in 0..u64::from(tapped.count) {
            let Some(end) = ends.next() else { return records };
            records.push(Record { start, end, id: tapped.first.plus(number), run });
            start = end;
        }
    }
    records
}
