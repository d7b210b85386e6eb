//! The log driven by a model of a disk that completes in any order, fails and writes short.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::chunk::{OpenPart, Part};
use crate::ingest::registry::RegistryOptions;
use crate::ingest::segment::{Extent, SegmentFile, SegmentState};
use crate::ingest::tail::{self, Slot};
use crate::ingest::topics::TopicSet;
use crate::ingest::walk::{self, Ending, Source, WalkOptions};
use crate::run_table::RunTable;
use crate::storage::{Map, OsStorage};
use crate::topic::Topic;

type Records = BTreeMap<Ulid, (String, Vec<u8>)>;

/// Records of a table and its text, one by one.
fn records_of(table: &RunTable, text: &[u8]) -> Records {
    let mut records = Records::new();
    for (run, span) in table.spans() {
        let topic = table.topics[usize::from(run.topic)].to_string();
        for (i, line) in text[span].split_inclusive(|&b| b == b'\n').enumerate() {
            records.insert(run.first.plus(i as u64), (topic.clone(), line.to_vec()));
        }
    }
    records
}

fn records_of_part(part: &dyn OpenPart) -> Records {
    let mut all = Records::new();
    let mut last = None;
    for index in 0..part.chunks().len() {
        let chunk = part.read(index).unwrap();
        let records = records_of(&chunk.table, &chunk.text);
        assert!(last < records.keys().next().copied(), "chunks are in order");
        last = records.keys().last().copied();
        all.extend(records);
    }
    all
}

#[derive(Clone, Default)]
struct ModelFile {
    /// What a kill leaves.
    live: Vec<u8>,
    /// What a power loss leaves.
    durable: Vec<u8>,
}

enum Operation {
    Write { token: Token, segment: Ulid, offset: usize, bytes: Vec<u8> },
    Tail { token: Token, offset: usize, bytes: Vec<u8> },
    Sync { token: Token, segment: Ulid, image: Vec<u8> },
    Prepare,
}

/// A disk, a registry and a consumer, as far as the log can tell.
struct Model {
    log: ShardLog,
    now: Now,
    segments: HashMap<Ulid, Arc<Segment>>,
    files: HashMap<Ulid, ModelFile>,
    tail: Vec<u8>,
    operations: Vec<Operation>,
    /// Everything appended, and the position at which each record was to be durable.
    appended: Records,
    durable_wanted: Vec<(u64, Ulid)>,
    /// Records of sealed segments, which a consumer took away.
    stored: Records,
    /// Records that a kill would have left before; none may get lost later.
    saved: BTreeSet<Ulid>,
    next_id: u128,
    direct_writes: u64,
}

fn empty_tail() -> Vec<u8> {
    let mut slot = tail::EndMark::EMPTY.encode().to_vec();
    slot.resize(crate::limits::TAIL_SLOT_BYTES, 0);
    slot.repeat(tail::SLOTS)
}

fn options() -> ShardLogOptions {
    ShardLogOptions {
        segment_flush_size_bytes: 1 << 20,
        ..ShardLogOptions::new(Arc::new(TopicSet::new(3)))
    }
}

impl Model {
    fn new(options: ShardLogOptions) -> Self {
        Self {
            log: ShardLog::new(options, 77, 1000),
            now: Now { monotonic_us: 5_000_000, wall_ms: 2000 },
            segments: HashMap::new(),
            files: HashMap::new(),
            tail: empty_tail(),
            operations: Vec::new(),
            appended: Records::new(),
            durable_wanted: Vec::new(),
            stored: Records::new(),
            saved: BTreeSet::new(),
            next_id: 1,
            direct_writes: 0,
        }
    }

    fn append(&mut self, lines: &[u8], topic: &TopicChoice, is_durable: bool) {
        let before = self.log.position();
        let stamped = self.log.append(lines, topic, self.now);
        self.check_appended(before, &stamped, lines, topic, is_durable);
    }

    /// As [`Model::append`], but through lent memory, as one that receives there.
    fn append_lent(&mut self, lines: &[u8], topic: &TopicChoice, is_durable: bool) {
        let TopicChoice::Static(name) = topic else { panic!("lent memory has one topic") };
        let before = self.log.position();
        let (held, rest) = lines.split_at(lines.len() / 3);
        let unfinished = b"is not taken";
        let free = self.log.lend(held, rest.len() + unfinished.len()).unwrap();
        free[..rest.len()].copy_from_slice(rest);
        free[rest.len()..][..unfinished.len()].copy_from_slice(unfinished);
        let stamped = self.log.take_lent(lines.len(), name, self.now);
        self.check_appended(before, &stamped, lines, topic, is_durable);
    }

    fn check_appended(
        &mut self,
        position_before: u64,
        stamped: &Stamped,
        lines: &[u8],
        topic: &TopicChoice,
        is_durable: bool,
    ) {
        let newest_before = self.appended.keys().last().copied();
        assert!(newest_before < Some(stamped.first), "ULIDs grow");
        assert_eq!(stamped.end - position_before, stamped.records);
        let part = self.log.memory();
        let open = part.open().unwrap();
        let new: Records = records_of_part(&*open)
            .into_iter()
            .filter(|(ulid, _)| (stamped.first..=stamped.last).contains(ulid))
            .collect();
        assert_eq!(new.len() as u64, stamped.records);
        let mut texts: Vec<&[u8]> = new.values().map(|(_, text)| &text[..]).collect();
        let mut lines: Vec<&[u8]> = lines.split_inclusive(|&b| b == b'\n').collect();
        if matches!(topic, TopicChoice::FirstWord) {
            texts.sort_unstable();
            lines.sort_unstable();
        }
        assert_eq!(texts, lines);
        if is_durable {
            self.log.want_durable();
            let first = stamped.end - stamped.records;
            let marked = new.keys().enumerate().map(|(i, &ulid)| (first + i as u64, ulid));
            self.durable_wanted.extend(marked);
        }
        self.appended.extend(new);
        self.take_effects();
    }

    fn take_effects(&mut self) {
        while let Some(effect) = self.log.next_effect(self.now) {
            match effect {
                Effect::WantSegment => self.operations.push(Operation::Prepare),
                Effect::Write { token, segment, offset_bytes, frame } => {
                    assert_eq!(frame.as_bytes().as_ptr().align_offset(512), 0);
                    assert_eq!(offset_bytes % 512, 0);
                    self.direct_writes += 1;
                    let (offset, bytes) = (offset_bytes as usize, frame.as_bytes().to_vec());
                    let segment = segment.id();
                    self.operations.push(Operation::Write { token, segment, offset, bytes });
                }
                Effect::WriteTail { token, offset_bytes, bytes } => {
                    let (offset, bytes) = (offset_bytes as usize, bytes.to_vec());
                    self.operations.push(Operation::Tail { token, offset, bytes });
                }
                Effect::Sync { token, segment } => {
                    let image = self.files[&segment.id()].live.clone();
                    let segment = segment.id();
                    self.operations.push(Operation::Sync { token, segment, image });
                }
                Effect::Seal { segment, len_bytes } => {
                    assert_eq!(segment.written_len(), len_bytes);
                    let file = self.files.remove(&segment.id()).unwrap();
                    if len_bytes > 0 {
                        let frames = frames_of(segment.id(), &file.durable, Ending::LastFrame);
                        self.stored.extend(frames);
                    }
                    let is_settled =
                        !self.operations.iter().any(|o| matches!(o, Operation::Tail { .. }));
                    let has_place = is_settled && self.log.stats().tail_errors == 0;
                    for slot in self.tail.chunks(self.tail.len() / tail::SLOTS) {
                        let content = Slot::decode(slot).content;
                        assert!(
                            content.is_none_or(|content| {
                                !has_place || content.incarnation != segment.incarnation()
                            }),
                            "a sealed segment's tail chunks are cleared"
                        );
                    }
                }
                Effect::Abandon { segment, len_bytes, .. } => {
                    let file = self.files.get_mut(&segment.id()).unwrap();
                    file.live.truncate(len_bytes as usize);
                    frames_of(segment.id(), &file.live, Ending::Limit);
                }
            }
        }
        let deadline = self.log.next_deadline_us();
        assert!(deadline.is_none_or(|at| at > self.now.monotonic_us), "no busy loop");
    }

    fn complete(&mut self, index: usize, is_failure: bool) {
        if self.operations.is_empty() {
            return;
        }
        let index = index % self.operations.len();
        let refused = || io::Error::from(io::ErrorKind::Other);
        match self.operations.swap_remove(index) {
            Operation::Write { token, segment, offset, bytes } => {
                let live = &mut self.files.get_mut(&segment).unwrap().live;
                live.resize(live.len().max(offset + bytes.len()), 0);
                let len = if is_failure { bytes.len() / 2 } else { bytes.len() };
                live[offset..offset + len].copy_from_slice(&bytes[..len]);
                let result = if is_failure && offset == 0 { Err(refused()) } else { Ok(len) };
                self.log.on_written(token, result);
            }
            Operation::Tail { token, offset, bytes } => {
                // A write that fails may have been carried out in part.
                let len = if is_failure { bytes.len() / 2 } else { bytes.len() };
                self.tail[offset..offset + len].copy_from_slice(&bytes[..len]);
                let result = if is_failure { Err(refused()) } else { Ok(len) };
                self.log.on_tail_written(token, result);
            }
            Operation::Sync { token, segment, image } => {
                if !is_failure {
                    self.files.get_mut(&segment).unwrap().durable = image;
                }
                self.log.on_synced(token, if is_failure { Err(refused()) } else { Ok(()) });
            }
            Operation::Prepare => {
                self.next_id += 1;
                let id = Ulid(self.next_id << 64 | (self.next_id * 7919));
                let file = SegmentFile {
                    id,
                    cut: None,
                    state: SegmentState::Active,
                    extent: Extent::Published,
                    file_len: 1 << 21,
                    written_len: 0,
                    content: Content::default(),
                };
                let nowhere = PathBuf::from("/nowhere");
                let options = RegistryOptions::new(Arc::new(OsStorage), nowhere, 1);
                let segment = Arc::new(Segment::new(&options, file));
                self.segments.insert(id, Arc::clone(&segment));
                self.files.insert(id, ModelFile::default());
                self.log.on_segment(segment);
            }
        }
        self.take_effects();
    }

    /// What a query sees.
    fn check_visible(&self) {
        let mut seen = self.stored.clone();
        seen.extend(records_of_part(&*self.log.memory().open().unwrap()));
        for (id, file) in &self.files {
            let written = self.segments[id].written_len() as usize;
            let published = &file.live[..written.min(file.live.len())];
            let records = frames_of(*id, published, Ending::Limit);
            assert_eq!(records.len() as u64, self.segments[id].records());
            seen.extend(records);
        }
        assert!(seen == self.appended, "{} of {} seen", seen.len(), self.appended.len());
    }

    fn check_durable(&self) {
        let mut durable = self.stored.clone();
        for (id, file) in &self.files {
            durable.extend(frames_of(*id, &file.durable, Ending::Torn));
        }
        let end = self.log.durable_end();
        for (position, ulid) in &self.durable_wanted {
            assert!(*position >= end || durable.contains_key(ulid), "{position} is durable");
        }
    }

    /// What was safe from a kill stays so.
    fn check_killed(&mut self) {
        let mut left = self.stored.clone();
        for (id, file) in &self.files {
            left.extend(frames_of(*id, &file.live, Ending::Torn));
        }
        for slot in self.tail.chunks(self.tail.len() / tail::SLOTS) {
            let slot = Slot::decode(slot);
            let has_failed = self.log.stats().tail_errors > 0;
            assert!(has_failed || slot.is_whole(), "a slot says where it ends: {slot:?}");
            if let Some(content) = slot.content {
                left.extend(records_of(&content.table, &content.text));
            }
        }
        for (ulid, record) in &left {
            assert_eq!(self.appended.get(ulid), Some(record), "nothing is invented");
        }
        // Behind a write that failed, what is written already is written again elsewhere; a kill in
        // between is a second fault.
        let lost = self.saved.iter().find(|ulid| !left.contains_key(ulid));
        if self.log.stats().write_errors == 0 {
            assert_eq!(lost, None, "what was safe from a kill stays safe");
        }
        self.saved = left.into_keys().collect();
    }

    fn check(&mut self) {
        self.check_visible();
        self.check_durable();
        self.check_killed();
    }

    fn advance(&mut self, us: u64) {
        self.now.monotonic_us += us;
        self.now.wall_ms += us / 1000;
        self.take_effects();
    }

    fn finish(&mut self) {
        self.log.shut_down();
        self.take_effects();
        for _ in 0..10_000 {
            self.complete(0, false);
            if let Some(at) = self.log.next_deadline_us() {
                self.advance(at - self.now.monotonic_us);
            }
            if self.log.is_idle() && self.operations.is_empty() {
                break;
            }
        }
        assert!(self.log.is_idle(), "{:?}", self.log);
    }
}

/// Whole frames in a file's bytes.
fn frames_of(id: Ulid, bytes: &[u8], ending: Ending) -> Records {
    let source = Source::Mapped(Arc::new(Map::of_memory(bytes.to_vec())));
    let options = WalkOptions {
        path: &PathBuf::from("model"),
        incarnation: id.0 as u64,
        limit: bytes.len() as u64,
        ending,
        check_payloads: true,
    };
    let walk = walk::walk(&source, &options);
    if ending != Ending::Torn {
        assert_eq!(walk.damage, []);
    }
    let mut records = Records::new();
    for frame in walk.frames {
        let bytes = &bytes[frame.offset as usize..];
        let table = frame.header.check_payload(bytes).unwrap();
        records.extend(records_of(&table, &bytes[frame.header.text_span()]));
    }
    records
}

#[derive(Debug, Clone, Copy)]
enum Way {
    FirstWord,
    OneTopic,
    Lent,
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        lines: Vec<u8>,
        way: Way,
        durable: bool,
    },
    AppendMuch {
        kib: usize,
        lent: bool,
        durable: bool,
    },
    Complete {
        index: usize,
        fails: bool,
    },
    Advance {
        us: u64,
    },
    /// Somebody deletes a segment's file; what it holds is made anew.
    Lose {
        index: usize,
    },
    Settle,
}

fn steps(failures: bool) -> impl Strategy<Value = Vec<Step>> {
    let lines = "([abcd/] ?[a-z]{0,20}\n){1,12}".prop_map(String::into_bytes);
    let way = prop_oneof![Just(Way::FirstWord), Just(Way::OneTopic), Just(Way::Lent)];
    let step = prop_oneof![
        4 => (lines, way, any::<bool>())
            .prop_map(|(lines, way, durable)| Step::Append { lines, way, durable }),
        1 => (1..900usize, any::<bool>(), any::<bool>())
            .prop_map(|(kib, lent, durable)| Step::AppendMuch { kib, lent, durable }),
        6 => (any::<usize>(), 0..8u8)
            .prop_map(move |(index, n)| Step::Complete { index, fails: failures && n == 0 }),
        3 => prop_oneof![Just(1000), Just(20_000), Just(3_000_000)].prop_map(|us| Step::Advance { us }),
        1 => Just(Step::Settle),
        u32::from(failures) => any::<usize>().prop_map(|index| Step::Lose { index }),
    ];
    proptest::collection::vec(step, 1..60)
}

fn run(steps: &[Step]) -> Model {
    let mut model = Model::new(options());
    let topic = TopicChoice::Static(Topic::new(b"web").unwrap());
    for step in steps {
        match step {
            Step::Append { lines, way, durable } if model.log.can_accept() => match way {
                Way::FirstWord => model.append(lines, &TopicChoice::FirstWord, *durable),
                Way::OneTopic => model.append(lines, &topic, *durable),
                Way::Lent => model.append_lent(lines, &topic, *durable),
            },
            Step::AppendMuch { kib, lent, durable } if model.log.can_accept() => {
                let mut lines = vec![b'x'; kib << 10];
                for at in (999..lines.len()).step_by(30_000) {
                    lines[at] = b'\n';
                }
                *lines.last_mut().unwrap() = b'\n';
                if *lent {
                    model.append_lent(&lines, &topic, *durable);
                } else {
                    model.append(&lines, &topic, *durable);
                }
            }
            Step::Complete { index, fails } => model.complete(*index, *fails),
            Step::Advance { us } => model.advance(*us),
            Step::Lose { index } => {
                let mut ids: Vec<Ulid> = model.segments.keys().copied().collect();
                ids.sort_unstable();
                if let Some(&id) = ids.get(index % ids.len().max(1)) {
                    model.log.lose_segment(id);
                }
                model.take_effects();
            }
            Step::Settle => {
                while !model.operations.is_empty() {
                    model.complete(0, false);
                }
            }
            _ => {}
        }
        model.check();
    }
    model.finish();
    model.check();
    model
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn nothing_is_lost_or_acknowledged_early_whatever_the_disk_does(steps in steps(true)) {
        run(&steps);
    }

    #[test]
    fn without_failures_everything_ends_up_sealed_and_durable(steps in steps(false)) {
        let model = run(&steps);
        prop_assert_eq!(model.log.durable_end(), model.log.position());
        prop_assert_eq!(model.stored, model.appended);
        prop_assert!(model.files.is_empty());
    }
}

fn static_topic() -> TopicChoice {
    TopicChoice::Static(Topic::new(b"default").unwrap())
}

#[test]
fn a_trickle_costs_one_frame_per_segment_age_and_tail_writes_otherwise() {
    let mut model = Model::new(ShardLogOptions::new(Arc::new(TopicSet::new(10))));
    let line = [&[b'x'; 150][..], b"\n"].concat();
    let (mut seconds, mut safe_late) = (0, 0);
    for step in 0..30 * 50 {
        model.append(&line, &static_topic(), false);
        model.advance(20_000);
        while !model.operations.is_empty() {
            model.complete(0, false);
        }
        model.check_killed();
        safe_late = safe_late.max(model.appended.len() - model.saved.len());
        seconds = step / 50;
    }
    assert_eq!(seconds, 29);
    assert!(model.direct_writes <= 11, "{} direct writes in 30 s", model.direct_writes);
    assert!(safe_late <= 1, "at most one flush interval is unsafe: {safe_late} records");
    let stats = model.log.stats();
    assert!(stats.frame_bytes < 30 * 50 * 151 + 11 * 8192, "{stats:?}");
    assert!(stats.tail_bytes < 30 * 50 * 151 * 3, "{stats:?}");
}

#[test]
fn durable_appends_share_syncs_and_one_sync_is_in_flight() {
    let mut model = Model::new(options());
    model.append(b"start\n", &static_topic(), true);
    while !model.operations.is_empty() {
        model.complete(0, false);
    }
    assert_eq!(model.log.durable_end(), 1);
    for i in 0..100 {
        model.append(b"line\n", &static_topic(), true);
        assert_eq!(model.log.durable_end(), 1, "append {i} is not durable yet");
    }
    while !model.operations.is_empty() {
        model.complete(0, false);
    }
    assert_eq!(model.log.durable_end(), 101);
    assert!(model.log.stats().syncs <= 4, "{:?}", model.log.stats());
}

#[test]
fn a_stalled_disk_stops_acceptance_within_bounds() {
    let mut model = Model::new(options());
    let mut batches = 0;
    while model.log.can_accept() {
        let mut lines = vec![b'x'; 256 << 10];
        *lines.last_mut().unwrap() = b'\n';
        model.append(&lines, &static_topic(), false);
        batches += 1;
        assert!(batches < 100, "acceptance must end");
    }
    assert!(model.log.memory_bytes() < 12 << 20, "{}", model.log.memory_bytes());
    model.check_visible();
    model.finish();
    model.check();
}

#[test]
fn the_largest_record_and_a_batch_over_several_frames_fit() {
    let options = ShardLogOptions { record_size_max: 3 << 20, ..options() };
    let mut model = Model::new(options);
    let mut big = vec![b'y'; (3 << 20) + 1];
    *big.last_mut().unwrap() = b'\n';
    let batch = [b"small\n", &big[..], b"\n", &big[..]].concat();
    model.append(&batch, &static_topic(), false);
    model.finish();
    model.check();
    assert_eq!(model.stored.len(), 4);
}

#[test]
fn first_words_are_topics_up_to_the_bound() {
    let mut model = Model::new(options());
    let stamped = model.log.append(
        b"a one\nb two\n- dash\na three\nc\nd five\n\ninvalid x\n",
        &TopicChoice::FirstWord,
        model.now,
    );
    // `-`, `d` (the fourth of three topics) and the empty line; `invalid` itself is no error.
    assert_eq!((stamped.records, stamped.invalid_topics), (8, 3));
    let all = records_of_part(&*model.log.memory().open().unwrap());
    let of = |name: &str| -> Vec<String> {
        let own = all.values().filter(|(topic, _)| topic == name);
        own.map(|(_, text)| String::from_utf8_lossy(text).into_owned()).collect()
    };
    assert_eq!(of("a"), ["a one\n", "a three\n"]);
    assert_eq!(of("b"), ["b two\n"]);
    assert_eq!(of("c"), ["c\n"]);
    assert_eq!(of("invalid"), ["- dash\n", "d five\n", "\n", "invalid x\n"]);
}

#[test]
fn many_topics_record_by_record_end_a_frame_before_its_table_is_too_long() {
    let options = ShardLogOptions {
        topics: Arc::new(TopicSet::new(5000)),
        ..ShardLogOptions::new(Arc::new(TopicSet::new(1)))
    };
    let mut model = Model::new(options);
    for round in 0..3 {
        let mut lines = Vec::new();
        for i in 0..3000 {
            lines.extend_from_slice(format!("topic-{i:030} {round}\n").as_bytes());
        }
        model.append(&lines, &TopicChoice::FirstWord, false);
    }
    model.finish();
    model.check();
    assert_eq!(model.stored.len(), 9000);
}
