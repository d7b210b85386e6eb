//! One story that goes through everything that touches storage: a forwarder's spool, ingest, seal,
//! gather, compaction, restore, retention, trash, purge, and restarts between them. Every storage
//! call of it fails once, with EIO and with ENOSPC.
//!
//! After each: the failure was told in words that name the place; nothing is invented or altered;
//! what was acknowledged and has not expired is found, also after a power loss right at the end,
//! with nobody having synced it again (the disk forgets for good what a failed sync should have
//! written); each spooled entry was handed over once; and all work comes to its end.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::ingest::log::Now;
use engine::ingest::topics::TopicChoice;
use engine::restore::{Given, Restore, Verdict};
use engine::spool::{Entry, Spool};
use engine::storage::sim::{Call, Fault, FaultError, Random, SimStorage};
use engine::storage::{Open, Storage};
use engine::store::StoreDirectory;
use engine::store::name::IdSource;
use engine::store::retention::RetentionLimits;
use engine::topic::Topic;
use engine::ulid::Ulid;

use crate::model::{Death, Found, Model};
use crate::node::Node;
use crate::settings::{INGEST, STORE, Settings, empty_disk};

const SPOOL: &str = "/spool";
const BACKUP: &str = "/backup";
const SCRATCH: &str = "/scratch";
const START_MS: u64 = 1_700_000_000_000;
const MINUTE_MS: u64 = 60_000;
const LIMITS: RetentionLimits =
    RetentionLimits { retain_ms: 60 * MINUTE_MS, purge_ms: 10 * MINUTE_MS, size_bytes_max: None };

fn settings(seed: u64) -> Settings {
    Settings {
        shards: 1,
        flush_size_bytes: 4 << 10,
        pool_bytes_max: 2 << 20,
        compaction_span_ms: 30 * MINUTE_MS,
        retention: LIMITS,
        seed,
    }
}

fn choice() -> TopicChoice {
    TopicChoice::Static(Topic::new(b"default").unwrap())
}

/// A node that died elsewhere: its files, some in the store and some not, and what they hold.
fn backup() -> (SimStorage, Model) {
    let sim = empty_disk(3);
    let mut random = Random::new(5);
    let mut model = Model::default();
    let now = Now { monotonic_us: 0, wall_ms: START_MS };
    let mut node = Node::start(&sim, settings(90), now).unwrap();
    for round in 0..3 {
        let lines = [format!("elsewhere {round} {}", "y".repeat(3_000)).into_bytes()];
        node.append(&mut model, 0, &lines, &choice(), round < 2);
        for _ in 0..40 {
            node.advance_us(8_000);
            node.step(&mut model, &mut random);
        }
        if round == 0 {
            node.gather();
        }
    }
    let sim = sim.kill();
    drop(node);
    for directory in [SPOOL, BACKUP, SCRATCH] {
        sim.create_dir_all(Path::new(directory)).unwrap();
    }
    for path in sim.files() {
        sim.rename(&path, &Path::new(BACKUP).join(path.file_name().unwrap())).unwrap();
    }
    for directory in ["/", "/data", INGEST, STORE, BACKUP] {
        sim.sync_dir(Path::new(directory)).unwrap();
    }
    // All of it is durable: nobody was promised less by whoever made the copy.
    for path in sim.files() {
        sim.open(&path, Open::Write).unwrap().sync().unwrap();
    }
    let sim = sim.kill();
    (sim, model)
}

/// The forwarder's side: lines of standard input go through the spool to the node.
struct Forwarder {
    spool: Spool,
    /// Entries handed over, with their newest record, not released yet.
    handed: Vec<(u64, Ulid)>,
}

struct Story {
    sim: SimStorage,
    random: Random,
    model: Model,
    now: Now,
    fault: Option<(u64, FaultError)>,
    /// Calls of the lives before this one.
    calls_before: u64,
    trace: Vec<Call>,
    told: Vec<String>,
    lines: u64,
    struck: Vec<(Call, PathBuf)>,
    /// Lines that were handed over by the spool.
    handed_lines: Vec<u64>,
    starts: u64,
}

impl Story {
    /// Tells it from beginning to end.
    fn told(elsewhere: &(SimStorage, Model), fault: Option<(u64, FaultError)>) -> Self {
        let mut story = Self::new(&elsewhere.0, fault);
        story.run(&elsewhere.1);
        story
    }

    fn new(disk: &SimStorage, fault: Option<(u64, FaultError)>) -> Self {
        let story = Self {
            sim: disk.kill(),
            random: Random::new(17),
            model: Model::default(),
            now: Now { monotonic_us: 0, wall_ms: START_MS + MINUTE_MS },
            fault,
            calls_before: 0,
            trace: Vec::new(),
            struck: Vec::new(),
            told: Vec::new(),
            lines: 0,
            handed_lines: Vec::new(),
            starts: 0,
        };
        story.arm();
        story
    }

    /// The call that is to fail, if it is still to come.
    fn arm(&self) {
        if let Some((call, error)) = self.fault
            && call > self.calls_before
        {
            self.sim.fail(Fault::nth(call - self.calls_before, error));
        }
    }

    /// Every process is killed; the disk goes on.
    fn kill(&mut self) {
        self.trace.extend(self.sim.trace());
        self.struck.extend(self.sim.struck());
        self.calls_before = self.trace.len() as u64;
        self.sim = self.sim.kill();
        self.arm();
    }

    fn tell(&mut self, words: impl std::fmt::Display) {
        self.told.push(words.to_string());
    }

    /// What an operator does whose command failed: once more.
    fn twice<T>(&mut self, what: impl Fn(&mut Self) -> Result<T, String>) -> T {
        what(self).unwrap_or_else(|error| {
            self.tell(error);
            what(self).expect("the fault is gone")
        })
    }

    fn start(&mut self) -> (Node, Forwarder) {
        let node = self.twice(|story| {
            story.starts += 1;
            Node::start(&story.sim, settings(story.starts), story.now)
        });
        self.told.extend(node.told.failed.iter().cloned());
        self.told.extend(node.told.damage.iter().map(ToString::to_string));
        let opened = self.twice(|story| {
            let storage: Arc<dyn Storage> = Arc::new(story.sim.clone());
            Spool::open(storage, PathBuf::from(SPOOL), 1 << 20).map_err(|e| format!("{SPOOL}: {e}"))
        });
        let mut spool = opened.spool;
        let damage = spool.take_damage();
        self.told.extend(damage.iter().map(ToString::to_string));
        (node, Forwarder { spool, handed: Vec::new() })
    }

    /// A line of standard input, which blocks until the spool has it.
    fn line(&mut self, spool: &mut Spool) {
        let mut bytes = format!("{} ", self.lines).into_bytes();
        bytes.resize(700, b'x');
        bytes.push(b'\n');
        let entry = Entry { bytes, lines: 1, starts_line: true, ends_line: true };
        if let Err(error) = spool.append(&entry, false) {
            self.tell(format!("{SPOOL}: {error}"));
            spool.append(&entry, false).expect("the fault is gone");
        }
        self.lines += 1;
    }

    fn sync(&mut self, spool: &mut Spool) {
        match spool.sync_job() {
            Ok(Some(job)) => {
                let outcome = job.run();
                if let Err(error) = &outcome {
                    self.tell(format!("{SPOOL}: {error}"));
                }
                if let Err(error) = spool.on_synced(job, outcome) {
                    self.tell(format!("{SPOOL}: {error}"));
                }
            }
            Ok(None) => {}
            Err(error) => self.tell(format!("{SPOOL}: {error}")),
        }
    }

    /// Hands entries to the node, and lets go of those that it acknowledged.
    fn hand_over(&mut self, node: &mut Node, forwarder: &mut Forwarder) {
        while node.can_accept(0) {
            match forwarder.spool.read_next() {
                Ok(Some((number, entry))) => {
                    let line = entry.bytes[..entry.bytes.len() - 1].to_vec();
                    let digits = line.iter().take_while(|b| b.is_ascii_digit());
                    let digits: Vec<u8> = digits.copied().collect();
                    self.handed_lines.push(String::from_utf8(digits).unwrap().parse().unwrap());
                    node.append(&mut self.model, 0, &[line], &choice(), true);
                    let newest = *self.model.sent.keys().next_back().unwrap();
                    forwarder.handed.push((number, newest));
                }
                Ok(None) => break,
                Err(error) => {
                    self.tell(format!("{SPOOL}: {error}"));
                    break;
                }
            }
        }
        let is_kept = |(_, ulid): &&(u64, Ulid)| self.model.durable.contains(ulid);
        let kept: Vec<_> = forwarder.handed.iter().take_while(is_kept).copied().collect();
        if let Some((last, _)) = kept.last() {
            forwarder.handed.drain(..kept.len());
            if let Err(error) = forwarder.spool.release(last + 1) {
                self.tell(format!("{SPOOL}: {error}"));
            }
        }
    }

    /// Lines come in, are spooled, handed over, written, sealed, gathered and compacted.
    fn work(&mut self, node: &mut Node, forwarder: &mut Forwarder, rounds: u64) {
        for round in 0..rounds {
            for _ in 0..3 {
                self.line(&mut forwarder.spool);
            }
            if round % 2 == 0 {
                self.sync(&mut forwarder.spool);
            }
            self.hand_over(node, forwarder);
            for _ in 0..12 {
                node.advance_us(8_000);
                for _ in 0..4 {
                    node.step(&mut self.model, &mut self.random);
                }
            }
            self.hand_over(node, forwarder);
            node.gather();
        }
        node.compact();
        self.check(node);
        self.now = node.now;
    }

    fn pass(&mut self, node: &mut Node, ms: u64) {
        node.advance_us(1000 * ms);
        self.now = node.now;
    }

    fn horizon(&self) -> Ulid {
        Ulid::last_of_ms(self.now.wall_ms.saturating_sub(LIMITS.retain_ms))
    }

    /// What a query finds now. Where something could not be read it says so.
    fn check(&mut self, node: &Node) {
        let found = node.found();
        let horizon = self.horizon();
        let sent = self.model.sent.keys().copied().filter(|ulid| *ulid > horizon).collect();
        let nothing = BTreeSet::new();
        let is_whole = found.missing.is_empty();
        self.model.check(&found, if is_whole { &sent } else { &nothing });
        self.told.extend(found.missing.iter().map(|missing| missing.reason.clone()));
    }

    /// Retention's turn.
    fn expire(&mut self, node: &mut Node) {
        node.expire().expect("it is time to look");
        let horizon = self.horizon();
        let left = node.catalogue.snapshot();
        assert!(left.iter().all(|segment| segment.meta().last > horizon), "expired, but found");
    }

    /// `oklogd restore` of everything in the backup.
    fn restore(&mut self) {
        let mut files = self.sim.files();
        files.retain(|path| path.starts_with(BACKUP) && Given::of(path) != Given::Nothing);
        for _ in 0..2 {
            let failed = self.try_restore(&files);
            if failed.is_empty() {
                return;
            }
            self.told.extend(failed);
            for path in self.sim.files().into_iter().filter(|path| path.starts_with(SCRATCH)) {
                self.sim.remove(&path).expect("the fault is gone");
            }
        }
        panic!("restore does not succeed: {:?}", self.told);
    }

    fn try_restore(&mut self, files: &[PathBuf]) -> Vec<String> {
        let directory = Arc::new(StoreDirectory::new(
            Arc::new(self.sim.clone()),
            PathBuf::from(STORE),
            IdSource::seeded(77 + self.told.len() as u64),
        ));
        let mut restore = match Restore::open(directory, self.now.wall_ms) {
            Ok(restore) => restore,
            Err(error) => return vec![error.to_string()],
        };
        let mut failed = Vec::new();
        let mut judge = |path: &Path, verdict: Verdict| match verdict {
            Verdict::Adopted(_) | Verdict::AlreadyThere | Verdict::Empty => {}
            other => failed.push(format!("{}: {other:?}", path.display())),
        };
        let (store, ingest): (Vec<_>, Vec<_>) =
            files.iter().cloned().partition(|path| Given::of(path) == Given::Store);
        for path in &store {
            judge(path, restore.store_segment(path));
        }
        restore.ingest_segments(&ingest, Path::new(SCRATCH), &mut judge);
        failed
    }

    /// What the node told.
    fn listen(&mut self, node: &Node) {
        self.told.append(&mut node.errors.borrow_mut());
    }

    /// All of it; the disk as it is in the end.
    fn run(&mut self, elsewhere: &Model) {
        let (mut node, mut forwarder) = self.start();
        self.work(&mut node, &mut forwarder, 5);
        self.listen(&node);
        self.kill();
        drop(node);
        let probe = Node::start(&self.sim.kill(), settings(80), self.now).unwrap();
        self.recovered(&probe.found());

        self.restore();
        self.model.sent.extend(elsewhere.sent.iter().map(|(ulid, record)| (*ulid, record.clone())));
        self.model.durable.extend(elsewhere.sent.keys());

        let (mut node, mut forwarder) = self.start();
        self.check(&node);
        self.work(&mut node, &mut forwarder, 2);
        self.expire(&mut node);
        self.pass(&mut node, 40 * MINUTE_MS);
        self.work(&mut node, &mut forwarder, 2);
        self.pass(&mut node, 30 * MINUTE_MS);
        self.expire(&mut node);
        if self.fault.is_none() {
            assert!(!node.catalogue.trash().is_empty(), "something has expired");
        }
        self.check(&node);
        self.pass(&mut node, LIMITS.purge_ms + 1);
        self.expire(&mut node);
        self.check(&node);
        self.listen(&node);
        self.trace.extend(self.sim.trace());
        self.struck.extend(self.sim.struck());
        self.check_after_power_loss();
        self.sim.clear_faults();
        self.end(node, forwarder);
    }

    /// What a kill left is what there is from now on.
    fn recovered(&mut self, found: &Found) {
        self.model.recovered(Death::Kill, found);
    }

    /// The power goes now: what was acknowledged is on the disk.
    fn check_after_power_loss(&self) {
        let sim = self.sim.crash(9);
        let node = Node::start(&sim, settings(81), self.now).expect("it starts");
        let horizon = self.horizon();
        let due = self.model.durable.iter().copied().filter(|ulid| *ulid > horizon).collect();
        self.model.check(&node.found(), &due);
    }

    /// Without faults all work ends.
    fn end(&mut self, mut node: Node, mut forwarder: Forwarder) {
        for _ in 0..50 {
            self.hand_over(&mut node, &mut forwarder);
            for _ in 0..20 {
                node.advance_us(8_000);
                node.step(&mut self.model, &mut self.random);
            }
        }
        assert!(forwarder.spool.is_read() && forwarder.handed.is_empty(), "all is handed over");
        forwarder.spool.finish().unwrap();
        let spooled: Vec<_> =
            self.sim.files().into_iter().filter(|path| path.starts_with(SPOOL)).collect();
        assert_eq!(spooled, [Path::new(SPOOL).join("mark")]);
        // What a kill came upon between handing over and letting go is handed over again.
        self.handed_lines.sort_unstable();
        self.handed_lines.dedup();
        assert!(self.handed_lines.iter().copied().eq(0..self.lines), "{:?}", self.handed_lines);

        node.settle(&mut self.model, &mut self.random);
        // Whatever failed is tried again.
        self.pass(&mut node, 10_000);
        self.expire(&mut node);
        self.pass(&mut node, LIMITS.purge_ms + 1);
        self.expire(&mut node);
        assert!(node.catalogue.trash().is_empty() && node.catalogue.leaving_bytes() == 0);
        let sim = self.sim.kill();
        drop(node);
        let node = Node::start(&sim, settings(82), self.now).expect("it starts");
        let horizon = self.horizon();
        let due = self.model.sent.keys().copied().filter(|ulid| *ulid > horizon).collect();
        self.model.check(&node.found(), &due);
    }
}

/// Whether nobody need be told that this call failed, as long as nothing comes of it: a read (all
/// that must be found was found), what is thrown away anyway, what the next start does again, and a line for
/// which lines that are handed over made room.
fn may_be_silent(call: Call, path: &Path, makes_room: bool) -> bool {
    use Call::{Len, List, Map, Open, Read, Space, VersionStamp, Write};
    let is_spool = path.extension().is_some_and(|extension| extension == "spool");
    let is_unfinished = path.extension().is_some_and(|extension| extension == "writing");
    match call {
        // What was known of the space stays.
        Open | Len | Read | Map | VersionStamp | List | Space => true,
        Call::Remove if is_unfinished => true,
        Write if is_spool => makes_room,
        Call::SyncDir if path == Path::new(STORE) => true,
        _ => path.starts_with(SCRATCH),
    }
}

fn any_single_call_may_fail(error: FaultError) {
    let elsewhere = backup();
    let calm = Story::told(&elsewhere, None);
    assert_eq!(calm.told, Vec::<String>::new());
    let calls = calm.trace.len() as u64;
    assert!(calls > 500, "{calls}");
    let only = std::env::var("OKLOGD_SEED").ok().and_then(|call| call.parse::<u64>().ok());
    for call in only.map_or(1..=calls, |call| call..=call) {
        let told = || Story::told(&elsewhere, Some((call, error)));
        let result = std::panic::catch_unwind(AssertUnwindSafe(told));
        let name = calm.trace[call as usize - 1];
        let Ok(story) = result else {
            panic!(
                "{error:?} from call {call}, {name:?}, breaks it; OKLOGD_SEED={call} repeats it"
            );
        };
        let [(struck, path)] = &story.struck[..] else { panic!("{call}: {:?}", story.struck) };
        assert_eq!(*struck, name, "the same story up to here");
        // A file goes, and the same is written again.
        let mut next = story.trace[call as usize..].iter().take(12);
        let makes_room = error == FaultError::NoSpace
            && next.any(|call| *call == Call::Remove)
            && next.any(|call| *call == Call::Write);
        assert!(
            !story.told.is_empty() || may_be_silent(*struck, path, makes_room),
            "{error:?} from call {call}, {struck:?} of {}, is told nobody",
            path.display()
        );
        let unplaced = story.told.iter().find(|words| !words.contains('/'));
        assert_eq!(unplaced, None, "it names the place");
    }
}

#[test]
fn the_whole_story_survives_eio_from_any_single_call() {
    any_single_call_may_fail(FaultError::Io);
}

#[test]
fn the_whole_story_survives_enospc_from_any_single_call() {
    any_single_call_may_fail(FaultError::NoSpace);
}
