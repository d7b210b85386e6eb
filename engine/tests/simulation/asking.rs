//! Asks a node as its clients do: through the search that ships, stepped, so that whatever happens to
//! the node can happen between any two pieces of a query's work.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::chunk::Part;
use engine::node::pinning::{Memories, Pinned};
use engine::search::{Format, Missing, Order, PipeReader, QuerySpec, Snapshot, Step, Stepped};
use engine::storage::sim::Random;
use engine::topic::Topic;
use engine::ulid::Ulid;
use serde_json::Value;

use crate::model::{Found, Record};
use crate::node::Node;

/// A query on its way.
pub(crate) struct Asked {
    reader: PipeReader,
    order: Order,
    bytes: Vec<u8>,
}

impl Asked {
    /// Asks for records of what was pinned; what is lost is told as missing, as the daemon tells it.
    pub(crate) fn of(search: &Stepped, spec: QuerySpec, pinned: Pinned) -> Self {
        let missing = pinned.lost.into_iter().map(|damage| {
            let (from, to) = damage.range.unwrap_or((Ulid::MIN, Ulid::MAX));
            let (node, reason) = ("sim".to_owned(), damage.to_string());
            Missing { from, to, node, reason, damage: Some(damage) }
        });
        let snapshot = Snapshot { parts: pinned.parts, missing: missing.collect() };
        let order = spec.order;
        let reader = search.searcher().query(spec, snapshot, Format::Ndjson);
        Self { reader, order, bytes: Vec::new() }
    }

    /// Reads what has come; whether that was all.
    pub(crate) fn read(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            match self.reader.poll_next(&mut context) {
                Poll::Ready(Some(piece)) => self.bytes.extend_from_slice(&piece),
                Poll::Ready(None) => return true,
                Poll::Pending => return false,
            }
        }
    }

    /// Reads to the end, while nothing else happens.
    pub(crate) fn answer(mut self, search: &mut Stepped, mut now: Duration) -> Found {
        while !self.read() {
            let read_bytes = self.bytes.len();
            match search.step(now) {
                Step::Worked => {}
                Step::Idle(Some(pause)) => now += pause,
                // It has brought all that there was room for, or nothing will ever come.
                Step::Idle(None) => {
                    assert!(self.read() || self.bytes.len() > read_bytes, "a query stands still");
                }
            }
        }
        self.found()
    }

    fn found(self) -> Found {
        let outcome = self.reader.outcome().expect("the end was read");
        assert!(!outcome.aborted);
        let mut found = Found { missing: outcome.stats.missing, ..Found::default() };
        let lines: Vec<&[u8]> = self.bytes.split_inclusive(|&byte| byte == b'\n').collect();
        let (end, records) = lines.split_last().expect("an answer has an end");
        let end: Value = serde_json::from_slice(end).expect("JSON");
        assert_eq!(end["end"]["records"], records.len() as u64);
        let mut before = None;
        for line in records {
            let (ulid, record) = parse(line);
            let is_behind = before.is_none_or(|before| match self.order {
                Order::Asc => before < ulid,
                Order::Desc => before > ulid,
            });
            assert!(is_behind, "{ulid:?} is out of order, or shown twice");
            before = Some(ulid);
            found.records.insert(ulid, record);
        }
        found
    }
}

impl Node {
    /// What a query pins.
    fn pin(&self) -> Pinned {
        let mut memories = Memories::default();
        self.shards.iter().for_each(|shard| memories.add(shard.log.memory()));
        memories.pin(&self.sides)
    }

    /// What a query searches.
    pub(crate) fn parts(&self) -> Vec<Arc<dyn Part>> {
        self.pin().parts
    }

    /// Everything that a query finds.
    pub(crate) fn found(&self) -> Found {
        self.answer(self.ask(QuerySpec::everything()))
    }

    /// Asks what there is now.
    pub(crate) fn ask(&self, spec: QuerySpec) -> Asked {
        Asked::of(&self.search.borrow(), spec, self.pin())
    }

    /// Does a piece of the work of some query, and reads what has come of this one.
    pub(crate) fn step_search(&self, asked: &mut Asked) {
        self.search.borrow_mut().step(Duration::from_micros(self.now.monotonic_us));
        asked.read();
    }

    /// The whole answer.
    pub(crate) fn answer(&self, asked: Asked) -> Found {
        let now = Duration::from_micros(self.now.monotonic_us);
        let found = asked.answer(&mut self.search.borrow_mut(), now);
        self.trace.note((&found.records, found.missing.len()));
        found
    }
}

/// Reads `{"ulid":"…","time":"…","topic":"…","record":"…"}`, or `record_b64`. By hand: most of what a
/// simulation reads are records.
fn parse(line: &[u8]) -> (Ulid, Record) {
    let line = std::str::from_utf8(line).expect("UTF-8");
    let parts = || {
        let (ulid, rest) = line.strip_prefix("{\"ulid\":\"")?.split_once("\",\"time\":\"")?;
        let (_, rest) = rest.split_once("\",\"topic\":\"")?;
        let (topic, rest) = rest.split_once("\",\"record")?;
        let value = rest.strip_suffix("}\n")?;
        let line = match value.strip_prefix("_b64\":\"") {
            Some(base64) => STANDARD.decode(base64.strip_suffix('"')?).ok()?,
            None => serde_json::from_str::<String>(value.strip_prefix("\":")?).ok()?.into_bytes(),
        };
        Some((ulid.parse().ok()?, Record { topic: topic.to_owned(), line }))
    };
    parts().unwrap_or_else(|| panic!("no record: {line}"))
}

/// Some query, and what it is to find of what there is.
pub(crate) fn some_query(random: &mut Random, found: &Found) -> (QuerySpec, Vec<Ulid>) {
    let ulids: Vec<&Ulid> = found.records.keys().collect();
    let mut spec = QuerySpec::everything();
    if !ulids.is_empty() && random.chance(0.5) {
        let mut ends = [(); 2].map(|()| *ulids[random.below(ulids.len() as u64) as usize]);
        ends.sort_unstable();
        [spec.from, spec.to] = ends;
    }
    if random.chance(0.5) {
        let topics = ["default", "topic1", "topic7"];
        let topic = topics[random.below(topics.len() as u64) as usize];
        spec.topics = vec![Topic::new(topic.as_bytes()).expect("a topic")];
    }
    if random.chance(0.5) {
        spec.order = Order::Desc;
    }
    if random.chance(0.3) {
        spec.limit = Some(random.below(20));
    }
    let wanted = found.records.iter().filter(|(ulid, record)| {
        let is_its = |topic: &Topic| topic.as_str() == record.topic;
        (spec.from..=spec.to).contains(ulid)
            && (spec.topics.is_empty() || spec.topics.iter().any(is_its))
    });
    let mut wanted: Vec<Ulid> = wanted.map(|(ulid, _)| *ulid).collect();
    if spec.order == Order::Desc {
        wanted.reverse();
    }
    wanted.truncate(spec.limit.map_or(usize::MAX, |limit| limit as usize));
    wanted.sort_unstable();
    (spec, wanted)
}
