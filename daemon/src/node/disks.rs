//! What the disks of both directories do: watched at every call, tried where nothing else calls,
//! judged four times a second, told to the operator and to the doors.
//!
//! Invariants: the judging thread makes no call to a disk, so that no disk can keep it from telling;
//! a probe may hang, and then hangs alone. A change of state is one line of the log. Decides nothing
//! itself: see [`engine::disk_health`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::disk_health::{Change, DiskCall, DiskCalls, DiskHealth, Trouble};
use engine::node::doors::Doors;
use engine::storage::{DiskWatch, NowMs, ObservedStorage, Open, Refusal, Storage};
use engine::store::name::{PROBE_NAME, PROBE_RENAMED_NAME};
use net::metrics::NodeMetrics;
use net::shard::Clock;

pub(super) use engine::node::Side;

/// Time between looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Time between looks whether a probe is due.
const PROBE_BEAT: Duration = Duration::from_secs(1);
/// How long a disk may go without a call of each kind that changes it before a probe makes them,
/// ms: with what a hanging call is given, told within ten seconds.
const PROBE_AFTER_MS: u64 = 3_000;
/// How long a call may be without an answer before a probe asks, too, ms.
const WAITING_MS: u64 = 1_000;
/// What a probe writes, bytes.
const PROBE_BYTES: usize = 512;

/// The flag that names a side's directory.
pub(super) const fn flag(side: Side) -> &'static str {
    match side {
        Side::Ingest => "--ingest.path",
        Side::Store => "--store.path",
    }
}

const fn name(side: Side) -> &'static str {
    match side {
        Side::Ingest => "ingest",
        Side::Store => "store",
    }
}

/// One directory's disk.
struct Disk {
    side: Side,
    path: PathBuf,
    /// The probe's and the storage's first, then the shards'.
    watches: Mutex<Vec<Arc<DiskWatch>>>,
    health: Mutex<DiskHealth>,
}

impl Disk {
    fn calls(&self) -> DiskCalls {
        let mut calls = DiskCalls::default();
        for watch in lock(&self.watches).iter() {
            calls.merge(watch.calls());
        }
        calls
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the page of the module.
pub(super) struct Disks {
    /// Of the sides that there are.
    each: Vec<Disk>,
    /// Whether the process has what it needs to use them.
    process: Mutex<DiskHealth>,
    clock: Clock,
    now_ms: NowMs,
}

impl Disks {
    /// Nothing is watched before [`Disks::observe`] and [`Disks::watch`] are called.
    pub(super) fn new(paths: &[(Side, PathBuf)], clock: Clock) -> Self {
        let disk = |(side, path): &(Side, PathBuf)| Disk {
            side: *side,
            path: path.clone(),
            watches: Mutex::default(),
            health: Mutex::default(),
        };
        let each = paths.iter().map(disk).collect();
        let process = Mutex::new(DiskHealth::of_process());
        let now_ms = Arc::new(move || clock.now().monotonic_us / 1000);
        Self { each, process, clock, now_ms }
    }

    /// The node's clock.
    pub(super) const fn clock(&self) -> Clock {
        self.clock
    }

    /// A watch for one more reporter of calls to this directory.
    pub(super) fn watch(&self, side: Side) -> Arc<DiskWatch> {
        let watch = Arc::new(DiskWatch::new(Arc::clone(&self.now_ms)));
        if let Some(disk) = self.each.iter().find(|disk| disk.side == side) {
            lock(&disk.watches).push(Arc::clone(&watch));
        }
        watch
    }

    /// Storage whose calls to the directories are watched.
    pub(super) fn observe(&self, inner: Arc<dyn Storage>) -> Arc<dyn Storage> {
        let watched = self.each.iter().map(|disk| (disk.path.clone(), self.watch(disk.side)));
        Arc::new(ObservedStorage::new(inner, watched.collect()))
    }

    /// Starts the threads that judge and probe. They end with the process.
    pub(super) fn spawn(
        self: &Arc<Self>,
        storage: &Arc<dyn Storage>,
        doors: &Arc<Doors>,
        metrics: &Arc<NodeMetrics>,
    ) -> io::Result<()> {
        for (at, side) in self.each.iter().map(|disk| disk.side).enumerate() {
            let (disks, storage, watch) = (Arc::clone(self), Arc::clone(storage), self.watch(side));
            let doors = Arc::clone(doors);
            let name = format!("probe-{}", name(side));
            std::thread::Builder::new().name(name).spawn(move || {
                loop {
                    std::thread::sleep(PROBE_BEAT);
                    // What is there may be somebody else's.
                    if doors.is_taken_away(side) {
                        continue;
                    }
                    disks.probe_if_due(&disks.each[at], &*storage, &watch);
                }
            })?;
        }
        let (disks, doors, metrics) = (Arc::clone(self), Arc::clone(doors), Arc::clone(metrics));
        std::thread::Builder::new().name("disks".into()).spawn(move || {
            loop {
                disks.look(&doors, &metrics);
                std::thread::sleep(LOOK_EVERY);
            }
        })?;
        Ok(())
    }

    /// Judges them and tells what has changed.
    fn look(&self, doors: &Doors, metrics: &NodeMetrics) {
        let mut all_calls = DiskCalls::default();
        for disk in &self.each {
            let now_ms = (self.now_ms)();
            let mut health = lock(&disk.health);
            let calls = disk.calls();
            all_calls.merge(calls.clone());
            let change = health.look(now_ms, &calls);
            let words = health.trouble().map(|trouble| self.words(disk.side, trouble, now_ms));
            drop(health);
            metrics.disk_failing(name(disk.side)).set(i64::from(words.is_some()));
            doors.set_disk_trouble(disk.side, words);
            match change {
                None => {}
                Some(Change::Began(trouble)) => tracing::error!(
                    directory = flag(disk.side),
                    "the disk fails: {trouble}; the node is not ready until it works again ({})",
                    advice(disk.side)
                ),
                Some(Change::Over(trouble)) => {
                    let seconds = now_ms.saturating_sub(trouble.since_ms) as f64 / 1e3;
                    tracing::info!(directory = flag(disk.side), seconds, "the disk works again");
                }
            }
        }
        self.look_at_process(&all_calls, doors, metrics);
    }

    /// Judges whether files can be opened at all.
    fn look_at_process(&self, calls: &DiskCalls, doors: &Doors, metrics: &NodeMetrics) {
        let now_ms = (self.now_ms)();
        let mut health = lock(&self.process);
        let change = health.look(now_ms, calls);
        let words = health.trouble().map(|trouble| {
            let since = self.since(trouble, now_ms);
            format!("no file can be opened since {since}: {trouble}; {}", remedy(trouble))
        });
        drop(health);
        metrics.process_short.set(i64::from(words.is_some()));
        doors.set_shortage(words);
        match change {
            None => {}
            Some(Change::Began(trouble)) => tracing::error!(
                "no file can be opened: {trouble}; new records are refused meanwhile, senders wait, \
                 and no data is at fault: {}",
                remedy(&trouble)
            ),
            Some(Change::Over(trouble)) => {
                let seconds = now_ms.saturating_sub(trouble.since_ms) as f64 / 1e3;
                tracing::info!(seconds, "files can be opened again");
            }
        }
    }

    /// When it began, for the operator.
    fn since(&self, trouble: &Trouble, now_ms: u64) -> String {
        let ago_ms = now_ms.saturating_sub(trouble.since_ms);
        engine::search::format::rfc3339(self.clock.now().wall_ms.saturating_sub(ago_ms))
    }

    /// One sentence for the operator.
    fn words(&self, side: Side, trouble: &Trouble, now_ms: u64) -> String {
        let since = self.since(trouble, now_ms);
        format!("the disk of {} fails since {since}: {trouble}", flag(side))
    }

    fn probe_if_due(&self, disk: &Disk, storage: &dyn Storage, watch: &DiskWatch) {
        let is_troubled =
            lock(&disk.health).trouble().is_some() || lock(&self.process).trouble().is_some();
        if is_troubled || is_due((self.now_ms)(), &disk.calls()) {
            probe(storage, &disk.path, watch);
        }
    }
}

/// What the operator can do about a shortage.
fn remedy(trouble: &Trouble) -> &'static str {
    match trouble.refusal.and_then(Refusal::errno) {
        Some(libc::EMFILE) => {
            "raise the limit of open files (ulimit -n, LimitNOFILE=, prlimit), or lower \
             --ingest.connections-max or --http.connections-max"
        }
        Some(libc::ENFILE) => "the host has no more open files: raise fs.file-max (sysctl)",
        _ => "the process gets no more memory: raise its limit (MemoryMax=, ulimit -v)",
    }
}

const fn advice(side: Side) -> &'static str {
    match side {
        Side::Ingest => "new records are refused meanwhile, senders wait; see the kernel's log",
        Side::Store => "records wait on the ingest side meanwhile; see the kernel's log",
    }
}

/// Whether nothing has shown of late that the disk takes changes.
fn is_due(now_ms: u64, calls: &DiskCalls) -> bool {
    let shown = [DiskCall::Create, DiskCall::Write, DiskCall::Sync, DiskCall::Rename];
    let is_old = |call| calls.succeeded_ms(call).is_none_or(|at| now_ms >= at + PROBE_AFTER_MS);
    calls.waits_since(now_ms, WAITING_MS) || shown.into_iter().any(is_old)
}

/// Makes a call of each kind on a small file of its own, which is gone afterwards. Where one fails
/// the others are made all the same, as far as they can be.
fn probe(storage: &dyn Storage, directory: &Path, watch: &DiskWatch) {
    let [path, renamed] = [PROBE_NAME, PROBE_RENAMED_NAME].map(|name| directory.join(name));
    for left in [&path, &renamed] {
        // Of an earlier one that did not come to its end.
        let _ = storage.remove(left);
    }
    let bytes = [0x50; PROBE_BYTES];
    let create = || storage.open(&path, Open::CreateNew);
    if let Ok(file) = watch.probe(DiskCall::Create, &path, create) {
        let _ = watch.probe(DiskCall::Allocate, &path, || file.allocate(PROBE_BYTES as u64));
        let _ = watch.probe(DiskCall::Write, &path, || file.write_all_at(&bytes, 0));
        let _ = watch.probe(DiskCall::Sync, &path, || file.sync());
        let open = || storage.open(&path, Open::Write);
        let _ = watch.probe(DiskCall::OpenForWriting, &path, open);
        let rename = || storage.rename(&path, &renamed);
        let is_renamed = watch.probe(DiskCall::Rename, &path, rename).is_ok();
        let now_at = if is_renamed { &renamed } else { &path };
        if let Ok(file) = watch.probe(DiskCall::Open, now_at, || storage.open(now_at, Open::Read)) {
            let _ = watch.probe(DiskCall::Attributes, now_at, || file.len());
            let _ = watch.probe(DiskCall::Read, now_at, || file.read_at(&mut [0; PROBE_BYTES], 0));
        }
        let _ = watch.probe(DiskCall::Remove, now_at, || storage.remove(now_at));
    }
    let sync = || storage.sync_dir(directory);
    let _ = watch.probe(DiskCall::SyncDirectory, directory, sync);
    let _ = watch.probe(DiskCall::List, directory, || storage.list(directory));
    let _ = watch.probe(DiskCall::Space, directory, || storage.space(directory));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::keeper_words::{Is, reason};
    use engine::storage::OsStorage;

    #[test]
    fn a_probe_makes_every_kind_of_call_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(PROBE_NAME), "of an earlier life").unwrap();
        let watch = DiskWatch::new(Arc::new(|| 5));
        probe(&OsStorage, directory.path(), &watch);
        let calls = watch.calls();
        for call in DiskCall::ALL {
            assert_eq!(calls.succeeded_ms(call), Some(5), "{call:?}");
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(!is_due(4 + PROBE_AFTER_MS, &calls) && is_due(5 + PROBE_AFTER_MS, &calls));
        assert!(is_due(0, &DiskCalls::default()));
    }

    #[test]
    fn a_directory_that_is_gone_is_told_at_the_doors_and_in_the_metrics_until_it_is_back() {
        let directory = tempfile::tempdir().unwrap();
        let (ingest, store) = (directory.path().join("ingest"), directory.path().join("store"));
        std::fs::create_dir(&store).unwrap();
        let paths = [(Side::Ingest, ingest.clone()), (Side::Store, store)];
        let disks = Disks::new(&paths, Clock::start());
        let (doors, metrics) = (Doors::default(), NodeMetrics::new(1));
        let watches = Side::ALL.map(|side| disks.watch(side));
        let look = || {
            for (disk, watch) in disks.each.iter().zip(&watches) {
                disks.probe_if_due(disk, &OsStorage, watch);
            }
            disks.look(&doors, &metrics);
        };
        look();
        let reasons: Vec<String> =
            doors.reasons().iter().map(|found| reason(found, Is::Both)).collect();
        let [reason] = &reasons[..] else { panic!("{reasons:?}") };
        assert!(reason.contains("--ingest.path") && reason.contains("os error 2"), "{reason}");
        assert!(doors.gate().is_closed() && doors.is_disk_failing() && !doors.is_ready());
        assert_eq!(metrics.disk_failing("ingest").get(), 1);
        assert_eq!(metrics.disk_failing("store").get(), 0);
        std::fs::create_dir(&ingest).unwrap();
        let start = std::time::Instant::now();
        while !doors.is_ready() {
            assert!(start.elapsed() < Duration::from_secs(10), "forgotten within ten seconds");
            std::thread::sleep(Duration::from_millis(20));
            look();
        }
        assert!(!doors.gate().is_closed() && doors.reasons().is_empty());
        assert_eq!(metrics.disk_failing("ingest").get(), 0);
    }
}
