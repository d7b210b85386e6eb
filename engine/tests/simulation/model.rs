//! What a node has to remember, as plain sets, and what was found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::chunk::Part;
use engine::ingest::frame::FrameHeader;
use engine::ingest::log::Stamped;
use engine::ingest::memory::MemoryPart;
use engine::ingest::topics::TopicChoice;
use engine::search::Missing;
use engine::storage::sim::Random;
use engine::ulid::Ulid;

/// A record as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) topic: String,
    pub(crate) line: Vec<u8>,
}

/// How a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// The process was killed: the page cache stays.
    Kill,
    /// The machine lost power.
    PowerLoss,
}

/// What was sent and what was promised.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    /// Every record that may be found.
    pub(crate) sent: BTreeMap<Ulid, Record>,
    /// Those that survive a power loss.
    pub(crate) durable: BTreeSet<Ulid>,
    /// Those that survive a kill.
    pub(crate) written: BTreeSet<Ulid>,
    /// The newest one that an earlier life gave out.
    pub(crate) floor: Option<Ulid>,
}

impl Model {
    /// These lines were taken as these records, and a shard's memory shows them: enters them; says which
    /// they are.
    pub(crate) fn taken(
        &mut self,
        stamped: &Stamped,
        lines: &[Vec<u8>],
        choice: &TopicChoice,
        memory: MemoryPart,
    ) -> Vec<Ulid> {
        assert!(self.floor < Some(stamped.first), "stamps of a life lie above all before it");
        assert_eq!(stamped.records, lines.len() as u64);
        assert_eq!(stamped.first.plus(stamped.records - 1), stamped.last, "one batch, one run");
        let ulids: Vec<Ulid> = (0..stamped.records).map(|n| stamped.first.plus(n)).collect();
        // Lines of different topics were sorted by topic: memory says which became which.
        let memory: Vec<Arc<dyn Part>> = vec![Arc::new(memory)];
        let found = Found::in_parts(&memory);
        let mut sorted: Vec<&[u8]> = Vec::new();
        for ulid in &ulids {
            let record = found.records.get(ulid).expect("what was accepted can be found at once");
            sorted.push(&record.line);
            let before = self.sent.insert(*ulid, record.clone());
            assert_eq!(before, None, "{ulid:?} was given out before");
        }
        let mut expected: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        if let TopicChoice::Static(topic) = choice {
            let is_its = |u: &Ulid| found.records[u].topic == topic.as_str();
            assert!(ulids.iter().all(is_its));
        } else {
            sorted.sort_unstable();
            expected.sort_unstable();
        }
        assert_eq!(sorted, expected);
        ulids
    }

    /// Nothing that has to be there is missing, nothing is invented or altered.
    pub(crate) fn check(&self, found: &Found, required: &BTreeSet<Ulid>) {
        for (ulid, record) in &found.records {
            match self.sent.get(ulid) {
                Some(sent) => assert_eq!(sent, record, "{ulid:?} was altered"),
                None => panic!("{ulid:?} was invented, or came back after it was lost: {record:?}"),
            }
        }
        let is_missing = |ulid: &&Ulid| !found.records.contains_key(ulid);
        let missing: Vec<&Ulid> = required.iter().filter(is_missing).collect();
        assert!(
            missing.is_empty(),
            "{} records are lost, the first {:?}; told: {:#?}",
            missing.len(),
            missing[0],
            found.missing
        );
    }

    /// What is not there lies in a span that is told.
    pub(crate) fn check_told(&self, found: &Found) {
        self.check(found, &BTreeSet::new());
        for ulid in self.sent.keys().filter(|ulid| !found.records.contains_key(ulid)) {
            let mut told = found.missing.iter().map(|missing| missing.from..=missing.to);
            let is_told = told.any(|span| span.contains(ulid));
            assert!(is_told, "{ulid:?} is missing in silence; told: {:#?}", found.missing);
        }
    }

    /// Everything sent is there.
    pub(crate) fn check_all(&self, found: &Found) {
        self.check(found, &self.sent.keys().copied().collect());
    }

    /// A node has recovered: what it found is what there is from now on.
    pub(crate) fn recovered(&mut self, death: Death, found: &Found) {
        match death {
            Death::Kill => self.check(found, &self.written),
            Death::PowerLoss => {
                self.check(found, &self.durable);
                // It was read from the disk, so the disk has it.
                self.durable = found.records.keys().copied().collect();
            }
        }
        self.floor = self.floor.max(self.sent.keys().next_back().copied());
        self.sent.retain(|ulid, _| found.records.contains_key(ulid));
        self.written = found.records.keys().copied().collect();
    }
}

/// What there is, and what is told as missing.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) records: BTreeMap<Ulid, Record>,
    pub(crate) missing: Vec<Missing>,
}

impl Found {
    /// Reads everything as it lies there, without search; nothing of it may be damaged, copies of a record
    /// must be equal, and a part must be in order.
    pub(crate) fn in_parts(parts: &[Arc<dyn Part>]) -> Self {
        let mut found = Self::default();
        for part in parts {
            found.read(&**part);
        }
        found
    }

    fn read(&mut self, part: &dyn Part) {
        let open = part.open().unwrap();
        assert_eq!(open.damage(), []);
        let mut last = None;
        for index in 0..open.chunks().len() {
            let chunk = open.read(index).unwrap();
            for (run, span) in chunk.table.spans() {
                let topic = chunk.table.topics[usize::from(run.topic)].as_str();
                let lines = chunk.text[span].split_inclusive(|&b| b == b'\n');
                for (n, line) in lines.enumerate() {
                    let ulid = run.first.plus(n as u64);
                    assert!(last < Some(ulid), "{ulid:?} is out of order in its part");
                    last = Some(ulid);
                    self.add(ulid, topic, &line[..line.len() - 1]);
                }
                assert_eq!(last, Some(run.last()), "as many lines as the run says");
            }
        }
    }

    fn add(&mut self, ulid: Ulid, topic: &str, line: &[u8]) {
        let record = Record { topic: topic.to_owned(), line: line.to_vec() };
        if let Some(other) = self.records.get(&ulid) {
            assert_eq!(other, &record, "two records with the ULID {ulid:?}");
            return;
        }
        self.records.insert(ulid, record);
    }
}

/// A frame or tail chunk is in the page cache: its records survive a kill.
pub(crate) fn note_written(model: &mut Model, bytes: &[u8]) {
    let Ok(header) = FrameHeader::decode(bytes) else { return };
    if header.record_count > 0 {
        let records: Vec<Ulid> =
            model.sent.range(header.first..=header.last).map(|(ulid, _)| *ulid).collect();
        let of_stream = records.into_iter().filter(|u| u.stream() == header.first.stream());
        model.written.extend(of_stream);
    }
}

/// Lines of a seed: short ones, long ones, empty ones, any bytes.
pub(crate) fn lines(random: &mut Random) -> Vec<Vec<u8>> {
    let (count, len_max) = match random.below(20) {
        0 => (40, 6_000),
        1 => (300, 20),
        2..6 => (1, 200),
        _ => (8, 100),
    };
    let line = |random: &mut Random| {
        let len = random.below(len_max) as usize;
        let mut line = format!("topic{} ", random.below(12)).into_bytes();
        let noise = random.next_u64().to_le_bytes();
        line.extend(noise.iter().cycle().take(len).map(|&b| if b == b'\n' { 0 } else { b }));
        if random.below(10) == 0 { Vec::new() } else { line }
    };
    (0..=random.below(count)).map(|_| line(random)).collect()
}
