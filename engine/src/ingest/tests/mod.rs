//! Log, registry and recovery together, on real files.

mod cut;
mod damage;
mod fuzz;
mod reading;
mod registry;
mod restart;
mod tails;
mod unread;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::check::check_segment;
use super::frame::{ALIGNMENT_MIN, FrameHeader, HEADER_BYTES};
use super::log::{Effect, Now, ShardLog, ShardLogOptions};
use super::recover::{AlreadyStored, Note, Recovered, Taken, recover};
use super::registry::{Claim, ClaimLimits, Registry, RegistryOptions};
use super::segment::{Cut, FileName, Segment, SegmentState, file_name, parse_file_name};
use super::tail;
use super::topics::{TopicChoice, TopicSet};
use crate::chunk::Part;
use crate::damage::Damage;
use crate::limits::{FRAME_TABLE_BYTES_MAX, TAIL_SLOT_BYTES};
use crate::run_table::{Run, RunTable};
use crate::storage::{Open, OsStorage, Storage};
use crate::store::coverage::{Coverage, Interval};
use crate::store::gather_run::StoredInput;
use crate::topic::Topic;
use crate::ulid::Ulid;

type Records = BTreeMap<Ulid, Vec<u8>>;

/// Behind everything that a [`Shard`] stamps.
const LATER_MS: u64 = 1_700_000_100_000;

const ALL: ClaimLimits = ClaimLimits { segments_max: usize::MAX, text_bytes_max: u64::MAX };

/// In memory where the machine has such a place: thousands of syncs are not what is tested.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    tempfile::tempdir_in(parent).unwrap()
}

fn options(directory: &Path) -> RegistryOptions {
    /// Every start has its own, as a node has.
    static SEED: AtomicU64 = AtomicU64::new(42);
    let seed = SEED.fetch_add(1, Ordering::Relaxed);
    RegistryOptions {
        flush_size_bytes: 64 << 10,
        pool_bytes_max: 4 << 20,
        ..RegistryOptions::new(Arc::new(OsStorage), directory.to_path_buf(), seed)
    }
}

fn recovered(directory: &Path) -> Recovered {
    recover(options(directory), &HashMap::new(), 9_000_000).unwrap()
}

/// What a part gives, and what it says is damaged.
fn read_part(part: &dyn Part) -> (Records, Vec<Damage>) {
    let mut records = Records::new();
    let open = match part.open() {
        Ok(open) => open,
        Err(damage) => return (records, vec![damage]),
    };
    let mut damage = open.damage().to_vec();
    for index in 0..open.chunks().len() {
        match open.read(index) {
            Err(found) => {
                assert!(open.verify(index).is_err());
                damage.push(found);
            }
            Ok(chunk) => {
                assert_eq!(open.verify(index), Ok(()));
                assert_eq!(open.read_table(index).unwrap(), chunk.table);
                for (run, span) in chunk.table.spans() {
                    let lines = chunk.text[span].split_inclusive(|&b| b == b'\n');
                    for (i, line) in lines.enumerate() {
                        let before = records.insert(run.first.plus(i as u64), line.to_vec());
                        assert_eq!(before, None, "a record is in a part once");
                    }
                }
            }
        }
    }
    (records, damage)
}

/// Everything in a registry; damage is not expected.
fn read_all(registry: &Registry) -> Records {
    let mut all = Records::new();
    for segment in registry.snapshot() {
        let (records, damage) = read_part(&*segment);
        assert_eq!(damage, []);
        assert_eq!(segment.records(), records.len() as u64);
        all.extend(records);
    }
    all
}

/// A shard whose effects are carried out at once.
struct Shard {
    log: ShardLog,
    tail: Arc<dyn crate::storage::File>,
    now: Now,
    appended: Records,
}

impl Shard {
    fn start(registry: &Registry, newest_ms: u64, stream: u64) -> Self {
        let tail_path = registry.prepare_tail(0).unwrap();
        let options = ShardLogOptions {
            segment_flush_size_bytes: registry.options().flush_size_bytes,
            ..ShardLogOptions::new(Arc::new(TopicSet::new(9)))
        };
        Self {
            log: ShardLog::new(options, stream, newest_ms),
            tail: registry.options().storage.open(&tail_path, Open::Write).unwrap(),
            now: Now { monotonic_us: 1_000_000, wall_ms: 1_700_000_000_000 },
            appended: Records::new(),
        }
    }

    fn append(&mut self, lines: &str) {
        let topic = TopicChoice::Static(Topic::new(b"web").unwrap());
        let stamped = self.log.append(lines.as_bytes(), &topic, self.now);
        for (i, line) in lines.as_bytes().split_inclusive(|&b| b == b'\n').enumerate() {
            self.appended.insert(stamped.first.plus(i as u64), line.to_vec());
        }
    }

    fn advance(&mut self, us: u64) {
        self.now.monotonic_us += us;
        self.now.wall_ms += us / 1000;
    }

    fn work(&mut self, registry: &Registry) {
        let abandoned = self.work_until_abandoned(registry, &mut || Ok(()));
        assert!(abandoned.is_none(), "nothing fails");
    }

    /// The segment that is abandoned because its sync fails.
    fn fail_next_sync(&mut self, registry: &Registry) -> Arc<Segment> {
        let mut fail = || Err(std::io::ErrorKind::Other.into());
        self.work_until_abandoned(registry, &mut fail).expect("a sync is due")
    }

    fn work_until_abandoned(
        &mut self,
        registry: &Registry,
        sync: &mut dyn FnMut() -> std::io::Result<()>,
    ) -> Option<Arc<Segment>> {
        let storage = &registry.options().storage;
        while let Some(effect) = self.log.next_effect(self.now) {
            match effect {
                Effect::WantSegment => {
                    let made = registry.prepare(1, self.now.wall_ms).unwrap();
                    self.log.on_segment(made.into_iter().next().unwrap());
                }
                Effect::Write { token, segment, offset_bytes, frame } => {
                    let file = storage.open(&segment.path(), Open::Write).unwrap();
                    file.write_all_at(frame.as_bytes(), offset_bytes).unwrap();
                    self.log.on_written(token, Ok(frame.as_bytes().len()));
                }
                Effect::WriteTail { token, offset_bytes, bytes } => {
                    self.tail.write_all_at(&bytes, offset_bytes).unwrap();
                    self.log.on_tail_written(token, Ok(bytes.len()));
                }
                Effect::Sync { token, .. } => self.log.on_synced(token, sync()),
                Effect::Seal { segment, len_bytes } => {
                    registry.flush(&segment, len_bytes, self.now.wall_ms).unwrap();
                }
                Effect::Abandon { segment, .. } => return Some(segment),
            }
        }
        None
    }

    fn stop(&mut self, registry: &Registry) {
        self.log.shut_down();
        self.work(registry);
        assert!(self.log.is_idle());
    }
}

/// A tail file with this chunk of a frame in its first slot.
fn tail_file(mut chunk: Vec<u8>, (incarnation, frame_number): (u64, u32)) -> Vec<u8> {
    let end = tail::EndMark { incarnation, frame_number, chunk_count: 1 };
    chunk.extend_from_slice(&end.encode());
    chunk.resize(TAIL_SLOT_BYTES, 0);
    chunk.extend_from_slice(&tail::EndMark::EMPTY.encode());
    chunk.resize(2 * TAIL_SLOT_BYTES, 0);
    chunk
}

fn lines(count: usize, len: usize) -> String {
    let lines: Vec<String> = (0..count).map(|i| format!("{i:0len$}\n")).collect();
    lines.concat()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn states(directory: &Path) -> Vec<SegmentState> {
    let mut states: Vec<SegmentState> =
        names(directory).iter().filter_map(|n| Some(parse_file_name(n)?.1)).collect();
    states.sort();
    states
}

/// A flushed file of three frames, its bytes, and each frame's span and records.
struct Specimen {
    path: PathBuf,
    bytes: Vec<u8>,
    frames: Vec<(std::ops::Range<usize>, std::ops::Range<usize>, Records)>,
}

fn specimen(directory: &Path) -> Specimen {
    let registry = recovered(directory).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    shard.append("start\n");
    shard.work(&registry);
    for round in ["a", "b", "c"] {
        shard.append(&format!("{round} one\n{round}\n\n{round} the third\n"));
        shard.log.want_durable();
        shard.work(&registry);
    }
    shard.stop(&registry);
    let segment = registry.snapshot().remove(0);
    let path = segment.path();
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(segment.written_len() as usize);
    let all = read_part(&*segment).0;
    assert_eq!(all, shard.appended);
    let (mut frames, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let header = FrameHeader::decode(&bytes[at..]).unwrap();
        let own = all.range(header.first..=header.last);
        let own = own.map(|(k, v)| (*k, v.clone())).collect();
        let own = if header.record_count == 0 { Records::new() } else { own };
        frames.push((at..at + header.table_span().end, at..at + header.len_bytes as usize, own));
        at += header.len_bytes as usize;
    }
    assert_eq!(frames.len(), 4);
    for name in names(directory) {
        fs::remove_file(directory.join(name)).unwrap();
    }
    Specimen { path, bytes, frames }
}
