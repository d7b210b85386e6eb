//! What waits and vanishes: the bytes, random lives against a model of a few lines, disks that refuse, and
//! the fuzz target of the file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use proptest::prelude::*;

use super::*;
use crate::fuzz::{assert_little_was_allocated, cases, changed, changes};
use crate::ingest::frame::{FrameBuffer, FramePlace};
use crate::ingest::log::Now;
use crate::ingest::registry::{ClaimLimits, Registry, RegistryOptions};
use crate::ingest::segment::Content;
use crate::node::Node;
use crate::node::opening::{Finding, NodeOptions, TopicOptions, open};
use crate::node::reading_again::{Happened, ReadingAgain};
use crate::run_table::Run;
use crate::storage::Open;
use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
use crate::store::StoreDirectory;
use crate::store::coverage::Interval;
use crate::store::name::IdSource;
use crate::store::testing::{Record, SMALL, coverage_of_records, record, write};
use crate::topic::Topic;

const INGEST: &str = "/data/ingest";
const STORE: &str = "/data/store";
const NOW_MS: u64 = 1_700_000_000_000;

fn path() -> PathBuf {
    Path::new(INGEST).join(WAITING_FILE)
}

fn disk() -> SimStorage {
    let sim = SimStorage::new(1);
    for directory in [INGEST, STORE, "/away"] {
        sim.create_dir_all(Path::new(directory)).unwrap();
    }
    for parent in ["/", "/data"] {
        sim.sync_dir(Path::new(parent)).unwrap();
    }
    sim
}

/// A node of both sides, or of one that only takes records, as it starts; and the holes that it tells.
struct Started {
    node: Node,
    registry: Arc<Registry>,
    holes: Vec<Damage>,
    /// All that answers lack.
    lost: Vec<Damage>,
    told: Vec<DamageKind>,
}

fn start(sim: &SimStorage, seed: u64, has_store: bool) -> Started {
    let started = begin(sim, seed, has_store);
    assert_eq!(started.registry.tidy(NOW_MS).len(), 0);
    started
}

fn options(sim: &SimStorage, seed: u64, has_store: bool) -> NodeOptions {
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let ids = IdSource::seeded(seed << 32);
    let store = Arc::new(StoreDirectory::new(Arc::clone(&storage), STORE.into(), ids));
    let ingest = RegistryOptions {
        flush_size_bytes: 4 << 10,
        pool_bytes_max: 0,
        record_size_max: 4 << 10,
        frame_text_target: 4 << 10,
        ..RegistryOptions::new(storage, INGEST.into(), seed)
    };
    NodeOptions {
        ingest: Some(ingest),
        topics: TopicOptions::default(),
        store: has_store.then_some(store),
        new_ingester: NodeId(7),
        new_store: NodeId(8),
    }
}

/// The same, before anything else is done.
fn begin(sim: &SimStorage, seed: u64, has_store: bool) -> Started {
    let options = options(sim, seed, has_store);
    let mut told = Vec::new();
    let opened = open(options, NOW_MS, &mut |found| match found {
        Finding::Damage(damage) => told.push(damage.kind),
        Finding::OfIngest(note) => panic!("{note}"),
        _ => {}
    });
    let node = opened.unwrap().node;
    let registry = Arc::clone(&node.ingest.as_ref().unwrap().registry);
    let (holes, lost) = (registry.missing(), registry.pin().lost);
    assert!(holes.iter().all(|hole| lost.contains(hole)), "answers lack them");
    assert_eq!(registry.missing_records(), set_of(&holes).len() as u64);
    Started { node, registry, holes, lost, told }
}

type Set = BTreeSet<(u64, u64)>;

fn set(records: &[Record]) -> Set {
    records.iter().map(|record| (record.ulid.stream(), record.ulid.counter())).collect()
}

fn set_of(holes: &[Damage]) -> Set {
    let gaps = holes.iter().map(|hole| match hole.kind {
        DamageKind::Missing(Side::Ingest, gap) => gap,
        _ => panic!("{hole}"),
    });
    gaps.flat_map(|gap| (gap.from..=gap.to).map(move |counter| (gap.stream, counter))).collect()
}

/// A flushed segment of records of one stream, in order.
fn put_segment(registry: &Registry, records: &[Record]) -> PathBuf {
    let segment = registry.prepare(1, NOW_MS).unwrap().pop().unwrap();
    let mut frame = FrameBuffer::new(4 << 10);
    let topic = frame.add_topic(&Topic::new(b"web").unwrap());
    for record in records {
        let text = [&record.line[..], b"\n"].concat();
        let run = Run { first: record.ulid, count: 1, text_len: text.len() as u32, topic };
        frame.push(&text, run);
    }
    let incarnation = segment.incarnation();
    frame.finish(FramePlace { incarnation, number: 0, is_last: true, alignment_bytes: 512 });
    let bytes = frame.as_bytes();
    let file = registry.options().storage.open(&segment.path(), Open::Write).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync().unwrap();
    let (first, last) = (records[0].ulid, records[records.len() - 1].ulid);
    let records = records.len() as u64;
    segment.publish(
        bytes.len() as u64,
        Content { records, text_bytes: 0, range: Some((first, last)) },
    );
    registry.flush(&segment, bytes.len() as u64, NOW_MS).unwrap();
    segment.path()
}

fn records(stream: u64, counters: std::ops::Range<u64>) -> Vec<Record> {
    counters.map(|n| record(stream, n)).collect()
}

/// The example of the format page.
#[test]
fn the_bytes_are_those_of_the_format_page() {
    let page = include_str!("../../../docs/format-ingest.md");
    let mut waiting = Waiting::default();
    let records = [Ulid::from_parts(NOW_MS, 5, 0), Ulid::from_parts(NOW_MS + 1, 5, 6)];
    let interval = Interval {
        stream: records[0].stream(),
        first_ms: records[0].ms(),
        from: records[0].counter(),
        to: records[1].counter(),
        last_ms: records[1].ms(),
    };
    waiting.add(Ulid::from_parts(NOW_MS, 77, 78), &Coverage::of(vec![interval]));
    let bytes = waiting.encode(NodeId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff));
    let rows = bytes.chunks(16).enumerate().map(|(row, bytes)| {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:04x}  {}\n", row * 16, hex.join(" "))
    });
    let rows: String = rows.collect();
    assert!(page.contains(&rows), "the page has not:\n{rows}");
    let id = NodeId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    assert_eq!(Waiting::decode(&bytes), Ok((id, waiting)));
}

#[test]
fn a_segment_that_vanishes_while_the_node_is_stopped_is_missed_over_kills_until_it_is_back() {
    for has_store in [false, true] {
        let sim = disk();
        let node = start(&sim, 1, has_store);
        let file = put_segment(&node.registry, &records(1, 0..9));
        put_segment(&node.registry, &records(2, 0..4));
        node.registry.note_waiting().unwrap();
        assert_eq!(check(&sim, &path(), &[]).unwrap(), [], "nothing is missing");
        sim.rename(&file, Path::new("/away/1")).unwrap();
        for seed in 2..5 {
            let told = check(&sim, &path(), &[Path::new(STORE)]).unwrap();
            assert_eq!(set_of(&told), set(&records(1, 0..9)));
            let node = start(&sim, seed, has_store);
            assert_eq!((&node.holes, node.told.len()), (&told, 1));
            assert!(node.holes[0].to_string().contains("9 records are missing"), "{}", told[0]);
            assert_eq!(node.holes[0].path, file);
            node.registry.let_go_missing(records(1, 0..9)[8].ulid.ms() - 1);
            assert_eq!(node.registry.missing(), told, "some of it is not too old");
        }
        sim.rename(Path::new("/away/1"), &file).unwrap();
        assert_eq!(check(&sim, &path(), &[]).unwrap(), []);
        let node = start(&sim, 5, has_store);
        assert_eq!((node.holes, node.told), (vec![], vec![]));
        assert!(!sim.files().contains(&path()), "nothing is missing, and nothing is claimed");
    }
}

#[test]
fn what_is_too_old_is_missed_no_more() {
    let sim = disk();
    let node = start(&sim, 1, true);
    let file = put_segment(&node.registry, &records(1, 0..9));
    node.registry.note_waiting().unwrap();
    sim.remove(&file).unwrap();
    let node = start(&sim, 2, true);
    assert_eq!(node.holes.len(), 1);
    node.registry.let_go_missing(records(1, 8..9)[0].ulid.ms());
    assert_eq!((node.registry.missing(), node.registry.missing_records()), (vec![], 0));
    assert_eq!(node.registry.tidy(NOW_MS).len(), 0);
    assert!(!sim.files().contains(&path()));
}

#[test]
fn a_damaged_or_cut_segment_is_no_hole_for_it_is_told_as_what_it_is() {
    for cut_to in [0, 100] {
        let sim = disk();
        let node = start(&sim, 1, true);
        let file = put_segment(&node.registry, &records(1, 0..9));
        node.registry.note_waiting().unwrap();
        sim.open(&file, Open::Write).unwrap().set_len(cut_to).unwrap();
        assert_eq!(check(&sim, &path(), &[]).unwrap(), [], "cut to {cut_to}");
        let node = start(&sim, 2, true);
        assert_eq!((node.holes, node.lost.len()), (vec![], 1), "cut to {cut_to}");
    }
}

#[test]
fn a_file_that_is_not_to_be_believed_is_told_once_and_given_up() {
    let wrong: [(&[u8], DamageKind); 2] = [
        (b"no such list", DamageKind::Malformed(PART)),
        (&Waiting::default().encode(NodeId(1)), DamageKind::Foreign(PART, "another ingester")),
    ];
    for (bytes, kind) in wrong {
        let sim = disk();
        start(&sim, 1, true);
        sim.open(&path(), Open::CreateNew).unwrap().write_all_at(bytes, 0).unwrap();
        let told = check(&sim, &path(), &[]).unwrap();
        assert_eq!(told.iter().map(|damage| &damage.kind).collect::<Vec<_>>(), [&kind]);
        assert_eq!(start(&sim, 2, true).told, [kind]);
        assert_eq!(start(&sim, 3, true).told, []);
    }
}

#[test]
fn one_of_a_later_program_is_not_given_up_but_the_start_is() {
    let sim = disk();
    start(&sim, 1, true);
    sim.open(&path(), Open::CreateNew).unwrap().write_all_at(&later(), 0).unwrap();
    let refused = open(options(&sim, 2, true), NOW_MS, &mut |_| {}).err().unwrap();
    assert!(!refused.may_be_over_soon());
    let words = refused.to_string();
    assert!(words.contains(WAITING_FILE) && words.contains("version 2 is not known"), "{words}");
    assert_eq!(sim.read_file(&path()).unwrap(), later());
}

/// What waited vanishes, and a store segment of its time cannot be read at the next start.
#[test]
fn what_the_store_may_hold_is_told_once_it_can_be_read_and_does_not_hold_it() {
    for (stored, missing) in [(records(2, 0..9), 9), (records(1, 0..9), 0), (records(1, 3..9), 3)] {
        for restarts in 0..2 {
            let sim = disk();
            let mut node = start(&sim, 1, true);
            let file = put_segment(&node.registry, &records(1, 0..9));
            let store = node.node.store.as_ref().unwrap();
            write(store.catalogue.directory(), SMALL, &stored);
            node.registry.note_waiting().unwrap();
            sim.remove(&file).unwrap();
            sim.fail(Fault::random(Call::Open, 1.0, FaultError::Io).of("/store/0"));
            for seed in 0..=restarts {
                node = start(&sim, 2 + seed, true);
                assert_eq!(node.holes, [], "it may be there");
                assert_eq!(check(&sim, &path(), &[Path::new(STORE)]).unwrap(), []);
            }
            let mut reading = ReadingAgain::start(&node.node, Arc::default(), 0);
            let mut turn = |now_ms: u64| {
                let now = Now { monotonic_us: 1000 * now_ms, wall_ms: NOW_MS };
                reading.turn(now, &|_, _| false)
            };
            assert_eq!(turn(4_000).len(), 0);
            assert_eq!(node.registry.missing(), []);
            sim.clear_faults();
            let happened = turn(8_000);
            let told: Vec<_> = happened
                .iter()
                .filter_map(|happened| match happened {
                    Happened::Damaged(holes) => Some(holes.clone()),
                    _ => None,
                })
                .flatten()
                .collect();
            let holes = node.registry.missing();
            assert_eq!(told, holes);
            assert_eq!(set_of(&holes), set(&records(1, 0..missing)));
            assert_eq!(node.registry.missing_records(), missing);
            assert_eq!(set_of(&node.registry.pin().lost), set_of(&holes));
            assert_eq!(turn(12_000).len(), 0, "told once");
            assert_eq!(node.registry.tidy(NOW_MS).len(), 0);
            assert_eq!(sim.files().contains(&path()), missing > 0);
            assert_eq!(start(&sim, 9, true).holes, holes);
        }
    }
}

#[test]
fn while_it_is_not_known_what_the_store_let_go_nothing_is_told() {
    let sim = disk();
    let node = start(&sim, 1, true);
    let file = put_segment(&node.registry, &records(1, 0..9));
    let store = node.node.store.as_ref().unwrap();
    write(store.catalogue.directory(), SMALL, &records(2, 0..9));
    drop(node);
    let node = start(&sim, 2, true);
    let catalogue = &node.node.store.as_ref().unwrap().catalogue;
    catalogue.save_inventory().unwrap();
    node.registry.note_waiting().unwrap();
    sim.remove(&file).unwrap();
    sim.fail(Fault::random(Call::Open, 1.0, FaultError::Io).of("INVENTORY"));
    let node = start(&sim, 3, true);
    assert_eq!(node.holes, []);
    sim.clear_faults();
    let mut reading = ReadingAgain::start(&node.node, Arc::default(), 0);
    node.node.store.as_ref().unwrap().catalogue.save_inventory().unwrap();
    let happened = reading.turn(Now { monotonic_us: 4_000_000, wall_ms: NOW_MS }, &|_, _| false);
    assert!(matches!(&happened[..], [Happened::Damaged(_)]), "{happened:?}");
    assert_eq!(set_of(&node.registry.missing()), set(&records(1, 0..9)));
}

#[test]
fn a_start_that_fails_or_is_killed_leaves_the_list_to_the_next_one() {
    for has_store in [false, true] {
        let sim = disk();
        let node = start(&sim, 1, has_store);
        let file = put_segment(&node.registry, &records(1, 0..9));
        node.registry.note_waiting().unwrap();
        let node = begin(&sim, 2, has_store);
        assert_eq!(node.holes, [], "it is there");
        drop(node);
        sim.fail(Fault::random(Call::List, 1.0, FaultError::Io));
        assert!(open(options(&sim, 3, has_store), NOW_MS, &mut |_| {}).is_err());
        sim.clear_faults();
        sim.remove(&file).unwrap();
        assert_eq!(set_of(&start(&sim, 4, has_store).holes), set(&records(1, 0..9)));
    }
}

#[test]
fn a_list_that_cannot_be_read_for_a_while_is_believed_later_and_nothing_goes_before() {
    const ALL: ClaimLimits = ClaimLimits { segments_max: usize::MAX, text_bytes_max: u64::MAX };
    for (has_store, is_over) in [(false, true), (true, true), (false, false), (true, false)] {
        let sim = disk();
        let node = start(&sim, 1, has_store);
        let files = [0, 1].map(|n| put_segment(&node.registry, &records(n, 0..9)));
        node.registry.note_waiting().unwrap();
        sim.remove(&files[0]).unwrap();
        sim.fail(Fault::random(Call::Open, 1.0, FaultError::Io).of(WAITING_FILE));
        let node = begin(&sim, 2, has_store);
        assert!(matches!(node.told[..], [DamageKind::Unread(_)]), "{:?}", node.told);
        let mut now_ms = NOW_MS;
        for _ in 1..TRIES {
            assert_eq!(node.registry.tidy(now_ms).len(), 0);
            assert_eq!(node.registry.claim(ALL, 1).segments.len(), 0);
            assert_eq!(node.registry.expire_unread(u64::MAX).0.len(), 0);
            now_ms += 500;
        }
        if is_over {
            sim.clear_faults();
        }
        let errors = node.registry.tidy(now_ms);
        assert_eq!(errors.len(), usize::from(!is_over), "{errors:?}");
        sim.clear_faults();
        assert_eq!(node.registry.tidy(now_ms + 500).len(), 0);
        assert_eq!(node.registry.claim(ALL, 1).segments.len(), 1, "given up, or settled");
        if has_store {
            assert_eq!(node.registry.missing(), [], "the store was not asked yet");
            let mut reading = ReadingAgain::start(&node.node, Arc::default(), 0);
            reading.turn(Now { monotonic_us: 4_000_000, wall_ms: NOW_MS }, &|_, _| false);
        }
        let missing = if is_over { set(&records(0, 0..9)) } else { Set::new() };
        assert_eq!(set_of(&node.registry.missing()), missing);
        assert_eq!(sim.files().contains(&path()), is_over);
    }
}

#[test]
fn a_stop_before_the_list_could_be_read_leaves_it_as_it_is() {
    let sim = disk();
    let node = start(&sim, 1, true);
    let file = put_segment(&node.registry, &records(1, 0..9));
    node.registry.note_waiting().unwrap();
    let before = sim.read_file(&path()).unwrap();
    sim.fail(Fault::random(Call::Open, 1.0, FaultError::Io).of(WAITING_FILE));
    let node = begin(&sim, 2, true);
    assert!(node.registry.note_waiting().is_err());
    sim.clear_faults();
    assert_eq!(sim.read_file(&path()).unwrap(), before);
    sim.remove(&file).unwrap();
    assert_eq!(set_of(&start(&sim, 3, true).holes), set(&records(1, 0..9)));
}

/// A file of that name that recovery finds to be nothing is no segment.
#[test]
fn what_recovery_removes_as_empty_is_missed_if_it_was_not() {
    let sim = disk();
    let node = start(&sim, 1, true);
    let file = put_segment(&node.registry, &records(1, 0..9));
    node.registry.note_waiting().unwrap();
    let len = sim.read_file(&file).unwrap().len();
    let opened = sim.open(&file, Open::Write).unwrap();
    opened.write_all_at(&vec![0; len], 0).unwrap();
    sim.rename(&file, &file.with_extension("active")).unwrap();
    assert_eq!(set_of(&start(&sim, 2, true).holes), set(&records(1, 0..9)));
}

/// A copy that somebody made, whole, cut, empty or no file, under every name that a segment may have.
#[test]
fn a_second_file_of_a_segment_never_takes_its_place() {
    const ALL: ClaimLimits = ClaimLimits { segments_max: usize::MAX, text_bytes_max: u64::MAX };
    for state in [SegmentState::Active, SegmentState::Pending, SegmentState::Damaged] {
        for len in [Some(usize::MAX), Some(512), Some(0), None] {
            if len.is_none() && state == SegmentState::Pending {
                continue;
            }
            let sim = disk();
            let node = start(&sim, 1, false);
            let file = put_segment(&node.registry, &records(1, 0..9));
            drop(node);
            let bytes = sim.read_file(&file).unwrap();
            let copy = file.with_extension(state.extension());
            match len {
                Some(len) => {
                    let copy = sim.open(&copy, Open::CreateNew).unwrap();
                    copy.write_all_at(&bytes[..len.min(bytes.len())], 0).unwrap();
                    copy.sync().unwrap();
                }
                None => sim.create_dir_all(&copy).unwrap(),
            }
            for seed in 2..4 {
                let mut notes = Vec::new();
                let opened = open(options(&sim, seed, false), NOW_MS, &mut |found| {
                    if let Finding::OfIngest(note) = found {
                        notes.push(note.to_string());
                    }
                });
                let registry = opened.unwrap().node.ingest.unwrap().registry;
                registry.tidy(NOW_MS);
                let kept = registry.snapshot().pop().unwrap().path();
                assert_eq!(sim.read_file(&kept).unwrap(), bytes, "{state:?} {len:?}");
                let aside = format!("{}.double", copy.file_name().unwrap().to_str().unwrap());
                let entries = sim.list(Path::new(INGEST)).unwrap().into_iter();
                let names: Vec<_> = entries.filter_map(|entry| entry.name).collect();
                // The simulated disk renames no directory, which is told.
                let is_aside = names.contains(&aside) || len.is_none();
                assert!(is_aside, "{state:?} {len:?} {seed}: {names:?} {notes:?}");
                let claim = registry.claim(ALL, 1);
                let records: u64 =
                    claim.segments.iter().map(|segment| segment.content().records).sum();
                assert_eq!(records, 9, "{state:?} {len:?}: it is stored");
                let copy = copy.to_string_lossy();
                let is_told = notes.iter().any(|note| note.contains(&*copy));
                assert!(is_told, "{state:?} {len:?}: {notes:?}");
                assert_eq!(registry.pin().lost, []);
                drop(claim.segments);
                registry.fail(claim.token);
            }
        }
    }
}

/// One of a later version.
fn later() -> Vec<u8> {
    let mut bytes = Waiting::default().encode(NodeId(7));
    bytes[8] = 2;
    let end = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Every call of a start on that file fails once, or for good: nothing goes while it may claim what goes,
/// and no hole is told that is none.
#[test]
fn nothing_is_let_go_while_the_file_may_claim_it() {
    const ALL: ClaimLimits = ClaimLimits { segments_max: usize::MAX, text_bytes_max: u64::MAX };
    for call in [Call::Create, Call::Write, Call::Sync, Call::Rename, Call::Remove, Call::SyncDir] {
        for is_missing in [false, true] {
            let sim = disk();
            let node = start(&sim, 1, false);
            let files = [0, 1].map(|n| put_segment(&node.registry, &records(n, 0..9)));
            node.registry.note_waiting().unwrap();
            if is_missing {
                sim.remove(&files[0]).unwrap();
            }
            let storage: Arc<dyn Storage> = Arc::new(sim.clone());
            let directory = Path::new(INGEST);
            let there: Vec<u128> =
                segments_in(&sim, directory).unwrap().iter().map(|name| name.id.0).collect();
            let (mut missing, damage) = Missing::open(&sim, directory, NodeId(7)).unwrap();
            missing.are_there(&there);
            assert_eq!(
                (missing.waiting().record_count(), damage),
                (9 * u64::from(is_missing), None)
            );
            sim.fail(Fault::random(call, 1.0, FaultError::Io));
            let saved = missing.save(&sim, directory, NodeId(7), &|| sim.sync_dir(directory));
            let registry = Registry::new(RegistryOptions::new(storage, INGEST.into(), 2));
            let is_done = saved.is_ok();
            assert_eq!(is_done, !missing.is_owed());
            registry.begin_missing(missing, NodeId(7), false);
            let mut now_ms = NOW_MS;
            for tries in 1..=TRIES {
                assert_eq!(registry.is_settled(), is_done);
                if !is_done {
                    assert_eq!(registry.claim(ALL, 1).segments.len(), 0);
                    assert_eq!(registry.expire_unread(u64::MAX).0.len(), 0);
                }
                let told = usize::from(!is_done);
                assert_eq!(registry.tidy(now_ms).len(), told, "{call:?} is told, {tries}");
                assert_eq!(registry.tidy(now_ms + 1).len(), 0, "and not tried at once");
                now_ms += 500;
            }
            // What can be removed claims nothing: gathering goes on without it.
            let may_be_removed = !matches!(call, Call::Remove | Call::SyncDir);
            assert_eq!(registry.is_settled(), is_done || may_be_removed, "{call:?}");
            if is_done {
                continue;
            }
            assert_eq!(sim.files().contains(&path()), !may_be_removed && call != Call::SyncDir);
            sim.clear_faults();
            assert_eq!(registry.tidy(NOW_MS + 20_000).len(), 0);
            assert!(registry.is_settled());
            let crashed = sim.crash(2);
            let claimed = load(&crashed, &path(), None).unwrap().map(Result::unwrap);
            let claimed = claimed.map_or(0, |waiting| waiting.record_count());
            assert_eq!(claimed, 9 * u64::from(is_missing), "{call:?}");
        }
    }
}

#[derive(Debug, Clone)]
enum Act {
    /// The next records of a stream wait.
    Put(u64, u64),
    /// A consumer stores what it claims, and says so.
    Commit(usize),
    /// A store gets the records of a segment, and the ingester does not hear of it.
    TakeSilently(usize),
    /// An orderly stop, then somebody takes files away, then a start.
    StopAndVanish(Vec<usize>),
    /// What was taken away is put back while the node is stopped.
    ComeBack,
    /// A kill and a start.
    Kill,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..3u64, 1..6u64).prop_map(|(stream, count)| Act::Put(stream, count)),
        3 => (1..4usize).prop_map(Act::Commit),
        1 => any::<usize>().prop_map(Act::TakeSilently),
        3 => proptest::collection::vec(any::<usize>(), 0..3).prop_map(Act::StopAndVanish),
        1 => Just(Act::ComeBack),
        2 => Just(Act::Kill),
    ]
}

struct Life {
    sim: SimStorage,
    seed: u64,
    node: Started,
    next: [u64; 3],
    /// What lies in the ingest directory, by file; what somebody has taken away from there.
    waiting: BTreeMap<PathBuf, Vec<Record>>,
    away: Vec<(PathBuf, Vec<Record>)>,
    /// What is in the store.
    stored: Set,
    /// What was taken away between an orderly stop and a start.
    claimed: Set,
}

impl Life {
    fn new() -> Self {
        let sim = disk();
        let node = start(&sim, 1, true);
        let (waiting, away) = (BTreeMap::new(), Vec::new());
        let (stored, claimed) = (Set::new(), Set::new());
        Self { sim, seed: 1, node, next: [0; 3], waiting, away, stored, claimed }
    }

    fn store(&mut self, records: &[Record]) {
        let store = self.node.node.store.as_ref().unwrap();
        write(store.catalogue.directory(), SMALL, records);
        self.stored.extend(set(records));
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Put(stream, count) => {
                let next = &mut self.next[stream as usize];
                let records = records(stream, *next..*next + count);
                *next += count;
                self.waiting.insert(put_segment(&self.node.registry, &records), records);
            }
            Act::Commit(segments_max) => {
                let limits = ClaimLimits { segments_max, text_bytes_max: u64::MAX };
                let claim = self.node.registry.claim(limits, 1);
                let ids: Vec<Ulid> = claim.segments.iter().map(|segment| segment.id()).collect();
                drop(claim.segments);
                for id in &ids {
                    let name = |path: &PathBuf| path.to_string_lossy().contains(&id.to_string());
                    let file = self.waiting.keys().find(|path| name(path)).cloned().unwrap();
                    let records = self.waiting.remove(&file).unwrap();
                    self.store(&records);
                }
                let all = self.node.registry.all_of(&ids);
                assert_eq!(
                    self.node.registry.commit(claim.token, &all, 1).segments,
                    ids.len() as u64
                );
            }
            Act::TakeSilently(at) => {
                let Some(records) = self.waiting.values().nth(at % (self.waiting.len() + 1)) else {
                    return;
                };
                let records = records.clone();
                self.store(&records);
            }
            Act::StopAndVanish(which) => {
                self.node.registry.note_waiting().unwrap();
                for at in which {
                    let Some(file) = self.waiting.keys().nth(at % (self.waiting.len() + 1)) else {
                        continue;
                    };
                    let file = file.clone();
                    let away = Path::new("/away").join(self.away.len().to_string());
                    self.sim.rename(&file, &away).unwrap();
                    let records = self.waiting.remove(&file).unwrap();
                    self.claimed.extend(set(&records));
                    self.away.push((file, records));
                }
                self.restart();
            }
            Act::ComeBack => {
                while let Some((file, records)) = self.away.pop() {
                    let away = Path::new("/away").join(self.away.len().to_string());
                    self.sim.rename(&away, &file).unwrap();
                    for record in set(&records) {
                        self.claimed.remove(&record);
                    }
                    self.waiting.insert(file, records);
                }
                self.restart();
            }
            Act::Kill => self.restart(),
        }
    }

    fn restart(&mut self) {
        let missing: Set = self.claimed.difference(&self.stored).copied().collect();
        let told = check(&self.sim, &path(), &[Path::new(STORE)]).unwrap();
        assert_eq!(set_of(&told), missing, "what fsck says");
        self.seed += 1;
        self.node = start(&self.sim, self.seed, true);
        assert_eq!(set_of(&self.node.holes), missing);
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn a_hole_is_told_if_and_only_if_what_waited_at_a_stop_is_nowhere(
        acts in proptest::collection::vec(act(), 1..30),
    ) {
        let mut life = Life::new();
        for act in acts {
            life.act(act);
        }
        life.restart();
    }
}

/// Files as nodes write them.
fn seeds() -> &'static [Vec<u8>] {
    static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let coverage = |stream, counters| coverage_of_records(&records(stream, counters));
        let mut waiting = Waiting::default();
        let mut seeds = vec![waiting.encode(NodeId(0))];
        waiting.add(Ulid::from_parts(NOW_MS, 1, 1), &coverage(1, 0..40));
        seeds.push(waiting.encode(NodeId(1)));
        let both = coverage(1, 50..60).union(&coverage(2, 3..7));
        waiting.add(Ulid::from_parts(NOW_MS, 2, 2), &both);
        seeds.push(waiting.encode(NodeId(1 << 100)));
        seeds
    })
}

proptest! {
    #![proptest_config(cases(400))]

    /// What it says is possible and means the same everywhere, also behind a checksum that holds.
    #[test]
    fn fuzz_waiting_lists(plan in changes(), is_sealed: bool) {
        let mut bytes = changed(seeds(), &plan);
        if is_sealed && let Some(end) = bytes.len().checked_sub(4) {
            let crc = crc32fast::hash(&bytes[..end]);
            bytes[end..].copy_from_slice(&crc.to_le_bytes());
        }
        let sim = disk();
        sim.open(&path(), Open::CreateNew).unwrap().write_all_at(&bytes, 0).unwrap();
        let told = check(&sim, &path(), &[]).unwrap();
        let Ok((ingester, waiting)) = Waiting::decode(&bytes) else {
            prop_assert!(told.len() == 1 && !seeds().contains(&bytes), "what cannot be read is told");
            return Ok(());
        };
        prop_assert!(is_sealed || seeds().contains(&bytes), "a change was not noticed");
        prop_assert_eq!(Waiting::decode(&waiting.encode(ingester)), Ok((ingester, waiting.clone())));
        prop_assert_eq!(told.len(), waiting.0.values().flatten().count(), "nothing is there");
        prop_assert!(told.iter().all(|hole| hole.range.is_some_and(|(from, to)| from <= to)));
        let records: u64 = told.iter().filter_map(|hole| hole.records).sum();
        prop_assert_eq!(records, waiting.record_count());
        let mut left = waiting.clone();
        let streams = waiting.0.values().flatten().map(|span| span.stream);
        let (from, to, first_ms, last_ms) = (0, PART_MAX, 0, MS_MAX);
        let whole = streams.map(|stream| Interval { stream, first_ms, from, to, last_ms });
        left.leave_out(&Coverage::of(whole.collect()));
        prop_assert!(left.is_empty(), "everything is there");
        assert_little_was_allocated();
    }
}
