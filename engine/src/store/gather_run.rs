//! Carries out what [`Gather`] decides, in one thread, against the ingest side and the catalogue
//! of this process. Copies to other stores are not carried yet: with a replication factor above
//! one the machine waits for stores that nobody announces.
//!
//! Invariants: the segment is published into the catalogue before the inputs are committed, so
//! that a query that looks at the ingest side first sees each record at least once; an input of
//! which records are damaged is set aside after what could be read was published; where the storage
//! refused to read, the source is told, which offers the input again when it can be read, and the
//! others are gathered without it. A claim is renewed as the merge gets on, so that
//! none expires under a gather that is slow; a gather whose inputs somebody else has stored ends.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::chunk::Part;
use crate::damage::Damage;
use crate::ingest::registry::ClaimToken;
use crate::ingest::segment::Segment;
use crate::storage::Refusal;

use super::catalogue::Catalogue;
use super::footer::Inputs;
use super::gather::{Action, Available, Event, Gather, GatherLimits, GatherNumber, GatherState};
use super::merge::{MergeError, MergeInput, merge};
use super::segment::SegmentMeta;
use super::writer::{SealedSegment, SegmentWriter, WriteError, WriterOptions};

/// Time between renewals of a claim, milliseconds: a fraction of the shortest time that a claim may
/// be let stand for, and rare enough that small chunks do not pay for it.
const RENEW_EVERY_MS: u64 = 20;

/// What a claim brought.
pub struct Claimed {
    /// Names it.
    pub token: ClaimToken,
    /// Oldest records first; none if others were faster.
    pub inputs: Vec<ClaimedInput>,
}

/// An ingest segment that was claimed.
#[derive(Clone)]
pub struct ClaimedInput {
    /// Its identity.
    pub id: u128,
    /// Its file.
    pub path: PathBuf,
    /// Its records.
    pub part: Arc<dyn Part>,
    /// The storage has refused some of it for long: what can be read is taken, and it is set aside.
    pub is_partly_taken: bool,
}

impl From<Arc<Segment>> for ClaimedInput {
    fn from(segment: Arc<Segment>) -> Self {
        let is_partly_taken = segment.is_partly_taken();
        Self { id: segment.id().0, path: segment.path(), part: segment, is_partly_taken }
    }
}

/// The ingest side, as gathering sees it.
pub trait IngestSource: Send + Sync {
    /// What waits to be claimed.
    fn available(&self, now_ms: u64) -> Available;
    /// Claims the oldest segments: at most so many bytes and segments, but at least one if there
    /// is one.
    fn claim(&self, bytes_max: u64, count_max: usize, now_ms: u64) -> io::Result<Claimed>;
    /// Storing what was claimed gets on. How many inputs of the claim nobody has stored yet: where
    /// there are none, there is nothing to go on for.
    fn renew(&self, token: ClaimToken, now_ms: u64) -> usize;
    /// The records of these inputs of the claim are in the store: they may go. What cannot be removed
    /// is the source's to retry; what somebody else has committed before is left alone.
    fn commit(&self, token: ClaimToken, inputs: &[u128], now_ms: u64);
    /// What was claimed is free to be claimed again.
    fn fail(&self, token: ClaimToken, now_ms: u64);
    /// The storage did not give some of the bytes of an input of the claim: they may be whole. The
    /// claim will be failed, and the input is not to be offered before it could be read.
    fn unread(&self, token: ClaimToken, input: u128, damage: &[Damage], now_ms: u64);
    /// What of an input of the claim could be read is in the store; the file is kept under another
    /// name.
    fn set_aside(&self, token: ClaimToken, input: u128, damage: &[Damage]);
}

/// Why a gather did not succeed.
#[derive(Debug)]
pub enum GatherError {
    /// The inputs could not be claimed.
    Claim(io::Error),
    /// The storage refused a read of an input.
    Read(Damage),
    /// The segment could not be written.
    Write(WriteError),
    /// It was cancelled.
    Cancelled,
    /// Somebody else has stored every input meanwhile.
    StoredByOthers,
}

impl fmt::Display for GatherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(error) => write!(f, "cannot claim ingest segments: {error}"),
            Self::Read(damage) => damage.fmt(f),
            Self::Write(error) => error.fmt(f),
            Self::Cancelled => f.write_str("cancelled"),
            Self::StoredByOthers => {
                f.write_str("all that was claimed has been stored under another claim")
            }
        }
    }
}

impl std::error::Error for GatherError {}

/// What a turn did, for logs and metrics.
#[derive(Debug, Default)]
pub struct Turn {
    /// A gather was completed: turn again at once, there may be more.
    pub goes_on: bool,
    /// Else when to turn again at the latest, milliseconds; `None`: when there is news.
    pub wait_until_ms: Option<u64>,
    /// Segments that were published, with how many inputs each.
    pub published: Vec<(SegmentMeta, usize)>,
    /// Records that were there more than once.
    pub duplicate_count: u64,
    /// What could not be read.
    pub damage: Vec<Damage>,
    /// Why the last gather of this turn failed, if it did.
    pub error: Option<GatherError>,
}

/// See the module page.
pub struct GatherRun {
    machine: Gather,
    source: Arc<dyn IngestSource>,
    catalogue: Arc<Catalogue>,
    options: WriterOptions,
    cancel: Arc<AtomicBool>,
    claimed: Option<Claimed>,
    damage: HashMap<u128, Vec<Damage>>,
    sealed: Option<SealedSegment>,
}

impl GatherRun {
    /// Ready to turn. `cancel` ends a merge between two chunks.
    pub fn new(
        limits: GatherLimits,
        source: Arc<dyn IngestSource>,
        catalogue: Arc<Catalogue>,
        cancel: Arc<AtomicBool>,
    ) -> Self {
        Self {
            machine: Gather::new(limits),
            source,
            catalogue,
            options: WriterOptions::default(),
            cancel,
            claimed: None,
            damage: HashMap::new(),
            sealed: None,
        }
    }

    /// Writes segments in another way than the default one.
    #[must_use]
    pub const fn writing(mut self, options: WriterOptions) -> Self {
        self.options = options;
        self
    }

    /// What it is doing.
    pub const fn state(&self) -> GatherState {
        self.machine.state()
    }

    /// Gathers once, if there is enough to gather: under load, too, what was done is told after each
    /// gather. `clock` gives monotonic milliseconds.
    pub fn turn(&mut self, clock: &dyn Fn() -> u64) -> Turn {
        let mut turn = Turn::default();
        loop {
            let now_ms = clock();
            if self.machine.state() != GatherState::Busy {
                let available = self.source.available(now_ms);
                self.machine.handle(now_ms, Event::Available(available));
            }
            let event = match self.machine.next_action(now_ms) {
                Action::Wait(until_ms) => {
                    turn.wait_until_ms = until_ms;
                    return turn;
                }
                Action::Claim { gather, bytes_max, count_max } => {
                    match self.source.claim(bytes_max, count_max, now_ms) {
                        Ok(claimed) => {
                            let inputs = claimed.inputs.iter().map(|input| input.id).collect();
                            self.claimed = Some(claimed);
                            Event::Claimed(gather, inputs)
                        }
                        Err(error) => {
                            turn.error = Some(GatherError::Claim(error));
                            Event::ClaimFailed(gather)
                        }
                    }
                }
                Action::Merge(gather, _) => self.merge(gather, clock, &mut turn),
                Action::Replicate(gather, store) => Event::ReplicateFailed(gather, store),
                Action::Publish(gather) => self.publish(gather, clock(), &mut turn),
                Action::Commit { gather, whole, damaged } => {
                    self.commit(&whole, &damaged, clock());
                    self.clear();
                    self.machine.handle(clock(), Event::Committed(gather));
                    turn.goes_on = true;
                    return turn;
                }
                Action::Fail(gather, _) => {
                    let token = self.token();
                    // Before the inputs are free: nobody holds them then.
                    self.clear();
                    if let Some(token) = token {
                        self.source.fail(token, clock());
                    }
                    Event::Failed(gather)
                }
            };
            self.machine.handle(clock(), event);
        }
    }

    fn clear(&mut self) {
        self.sealed = None;
        self.claimed = None;
        self.damage.clear();
    }

    fn token(&self) -> Option<ClaimToken> {
        self.claimed.as_ref().map(|claimed| claimed.token)
    }

    fn inputs(&self) -> &[ClaimedInput] {
        self.claimed.as_ref().map_or(&[], |claimed| &claimed.inputs)
    }

    fn commit(&mut self, whole: &[u128], damaged: &[u128], now_ms: u64) {
        let Some(token) = self.token() else { return };
        self.source.commit(token, whole, now_ms);
        for &input in damaged {
            let damage = self.damage.remove(&input).unwrap_or_default();
            self.source.set_aside(token, input, &damage);
        }
    }

    fn merge(&mut self, gather: GatherNumber, clock: &dyn Fn() -> u64, turn: &mut Turn) -> Event {
        let merged = self.try_merge(clock, turn);
        if let Some(damage) = self.tell_unread(clock()) {
            turn.error = Some(GatherError::Read(damage));
            return Event::MergeFailed(gather);
        }
        match merged {
            Ok(sealed) => {
                turn.damage.extend(self.damage.values().flatten().cloned());
                let is_empty = sealed.is_none();
                self.sealed = sealed;
                // A damage that costs no record is told, but the input is whole.
                self.damage.retain(|_, damage| damage.iter().any(Damage::loses_records));
                let damaged = self.damage.keys().copied().collect();
                Event::Merged { gather, damaged, is_empty }
            }
            Err(error) => {
                turn.error = Some(match error {
                    MergeError::Cancelled if self.cancel.load(Ordering::Relaxed) => {
                        GatherError::Cancelled
                    }
                    MergeError::Cancelled => GatherError::StoredByOthers,
                    MergeError::Write(error) => GatherError::Write(error),
                });
                Event::MergeFailed(gather)
            }
        }
    }

    /// Tells the source of inputs that the storage refused to read; one refusal, if there was any. It
    /// says nothing about the bytes, so nothing is concluded from it, unless it has lasted for long.
    fn tell_unread(&self, now_ms: u64) -> Option<Damage> {
        let mut found = None;
        let Some(claim) = &self.claimed else { return None };
        for input in &claim.inputs {
            let Some(damage) = self.damage.get(&input.id) else { continue };
            let is_worth_waiting = |damage: &&Damage| {
                let of_disk = |r: Refusal| !r.is_shortage() && !r.is_absence();
                damage.refusal().is_some_and(|r| !input.is_partly_taken || !of_disk(r))
            };
            if let Some(refused) = damage.iter().find(is_worth_waiting) {
                self.source.unread(claim.token, input.id, damage, now_ms);
                found = Some(refused.clone());
            }
        }
        found
    }

    fn try_merge(
        &mut self,
        clock: &dyn Fn() -> u64,
        turn: &mut Turn,
    ) -> Result<Option<SealedSegment>, MergeError> {
        let Some(claim) = &self.claimed else { return Ok(None) };
        let mut writer = SegmentWriter::new(self.catalogue.directory(), self.options);
        let (mut inputs, mut ids) = (Vec::new(), Vec::new());
        for claimed in &claim.inputs {
            match claimed.part.open_to_move() {
                Ok(part) => {
                    inputs.push(MergeInput { part, path: claimed.path.clone() });
                    ids.push(claimed.id);
                }
                Err(damage) => self.damage.entry(claimed.id).or_default().push(damage),
            }
        }
        let renewed_ms = Cell::new(clock());
        let goes_on = || {
            let now_ms = clock();
            if now_ms >= renewed_ms.get().saturating_add(RENEW_EVERY_MS) {
                renewed_ms.set(now_ms);
                return self.source.renew(claim.token, now_ms) > 0
                    && !self.cancel.load(Ordering::Relaxed);
            }
            !self.cancel.load(Ordering::Relaxed)
        };
        let report = merge(inputs, &mut writer, &goes_on)?;
        for (number, damage) in report.damage {
            self.damage.entry(ids[number]).or_default().push(damage);
        }
        // An input that lost records is not replaced: after a crash before it is set aside recovery
        // would delete it.
        let is_whole = |input: &&ClaimedInput| {
            !self.damage.get(&input.id).is_some_and(|d| d.iter().any(Damage::loses_records))
        };
        let ingest = claim.inputs.iter().filter(is_whole).map(|input| input.id).collect();
        let sealed = writer.seal(Inputs { ingest, store: Vec::new() })?;
        turn.duplicate_count += report.duplicate_count;
        Ok(sealed)
    }

    fn publish(&mut self, gather: GatherNumber, now_ms: u64, turn: &mut Turn) -> Event {
        let (Some(sealed), Some(token)) = (self.sealed.take(), self.token()) else {
            return Event::PublishFailed(gather);
        };
        if self.source.renew(token, now_ms) == 0 {
            turn.error = Some(GatherError::StoredByOthers);
            return Event::PublishFailed(gather);
        }
        match sealed.publish() {
            Ok(segment) => {
                turn.published.push((*segment.meta(), self.inputs().len()));
                self.catalogue.publish(vec![segment], &[]);
                Event::Published(gather)
            }
            Err(error) => {
                turn.error = Some(GatherError::Write(error));
                Event::PublishFailed(gather)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Storage;
    use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
    use crate::store::StoreDirectory;
    use crate::store::name::IdSource;
    use crate::store::testing::{Record, SMALL, directory, read_all, record, write};
    use crate::ulid::Ulid;
    use std::fs;
    use std::sync::Mutex;

    /// One gather at a time has one claim at a time.
    const TOKEN: ClaimToken = ClaimToken::new(1, 2);

    /// Store segments in another directory play the ingest segments.
    #[derive(Default)]
    struct Source {
        waiting: Mutex<Vec<ClaimedInput>>,
        claimed: Mutex<Vec<ClaimedInput>>,
        stored_by_others: AtomicBool,
        unread: Mutex<Vec<u128>>,
        /// Could not be read, and wait for that.
        kept: Mutex<Vec<ClaimedInput>>,
        log: Mutex<Vec<String>>,
    }

    impl Source {
        fn take(&self, ids: &[u128], what: &str) -> Vec<ClaimedInput> {
            self.log.lock().unwrap().push(format!("{what} {ids:?}"));
            let mut claimed = self.claimed.lock().unwrap();
            let (taken, kept) = claimed.drain(..).partition(|c| ids.contains(&c.id));
            *claimed = kept;
            taken
        }
    }

    impl IngestSource for Source {
        fn available(&self, _: u64) -> Available {
            let count = self.waiting.lock().unwrap().len();
            Available { count, bytes: 0, oldest_age_ms: 3_000 }
        }
        fn claim(&self, _: u64, count_max: usize, _: u64) -> io::Result<Claimed> {
            let mut waiting = self.waiting.lock().unwrap();
            let count = count_max.min(waiting.len());
            let inputs: Vec<_> = waiting.drain(..count).collect();
            self.claimed.lock().unwrap().extend(inputs.iter().cloned());
            Ok(Claimed { token: TOKEN, inputs })
        }
        fn renew(&self, token: ClaimToken, _: u64) -> usize {
            assert_eq!(token, TOKEN);
            if self.stored_by_others.load(Ordering::Relaxed) {
                return 0;
            }
            self.claimed.lock().unwrap().len()
        }
        fn commit(&self, token: ClaimToken, inputs: &[u128], _: u64) {
            assert_eq!(token, TOKEN);
            self.take(inputs, "commit");
        }
        fn fail(&self, token: ClaimToken, _: u64) {
            assert_eq!(token, TOKEN);
            let claimed: Vec<u128> = self.claimed.lock().unwrap().iter().map(|c| c.id).collect();
            let mut returned = self.take(&claimed, "fail");
            let unread = self.unread.lock().unwrap();
            let kept = returned.extract_if(.., |input| unread.contains(&input.id));
            self.kept.lock().unwrap().extend(kept);
            self.waiting.lock().unwrap().extend(returned);
        }
        fn unread(&self, token: ClaimToken, input: u128, damage: &[Damage], _: u64) {
            assert_eq!(token, TOKEN);
            assert!(damage.iter().any(|damage| damage.refusal().is_some()));
            self.log.lock().unwrap().push(format!("unread {input}"));
            self.unread.lock().unwrap().push(input);
        }
        fn set_aside(&self, token: ClaimToken, input: u128, damage: &[Damage]) {
            assert_eq!(token, TOKEN);
            assert!(!damage.is_empty());
            self.take(&[input], "set aside");
        }
    }

    struct Fixture {
        temp: tempfile::TempDir,
        source: Arc<Source>,
        catalogue: Arc<Catalogue>,
        run: GatherRun,
        cancel: Arc<AtomicBool>,
    }

    fn fixture() -> Fixture {
        let temp = tempfile::tempdir().unwrap();
        for name in ["ingest", "store"] {
            fs::create_dir(temp.path().join(name)).unwrap();
        }
        let source = Arc::new(Source::default());
        let store = directory(&temp.path().join("store"));
        let catalogue = Arc::new(Catalogue::new(store, Vec::new(), Ulid::MIN));
        let cancel = Arc::new(AtomicBool::new(false));
        let limits = GatherLimits { replication_factor: 1, ..GatherLimits::default() };
        let of_run = Arc::clone(&source) as Arc<dyn IngestSource>;
        let run = GatherRun::new(limits, of_run, Arc::clone(&catalogue), Arc::clone(&cancel));
        Fixture { temp, source, catalogue, run, cancel }
    }

    impl Fixture {
        fn add(&self, id: u128, records: &[Record]) -> PathBuf {
            let ingest = directory(&self.temp.path().join("ingest"));
            // Identities by input, since each directory value counts anew.
            for _ in 0..id {
                ingest.ids.next_id();
            }
            let segment = write(&ingest, SMALL, records);
            let path = segment.path().to_owned();
            let input =
                ClaimedInput { id, path: path.clone(), part: segment, is_partly_taken: false };
            self.source.waiting.lock().unwrap().push(input);
            path
        }

        fn stored(&self) -> Vec<Record> {
            self.catalogue.snapshot().iter().flat_map(|s| read_all(s).0).collect()
        }

        fn log(&self) -> Vec<String> {
            std::mem::take(&mut self.source.log.lock().unwrap())
        }
    }

    fn records(from: u64, to: u64) -> Vec<Record> {
        (from..to).map(|n| record(1, n)).collect()
    }

    #[test]
    fn inputs_become_one_segment_and_are_committed() {
        let mut f = fixture();
        f.add(1, &records(0, 20));
        f.add(2, &records(10, 40));
        let turn = f.run.turn(&|| 0);
        assert_eq!(f.stored(), records(0, 40));
        assert_eq!((turn.published.len(), turn.duplicate_count), (1, 10));
        assert_eq!(turn.wait_until_ms, None);
        assert_eq!(f.log(), ["commit [1, 2]"]);
        let snapshot = f.catalogue.snapshot();
        let loaded =
            crate::store::segment::StoreSegment::load(f.catalogue.directory(), snapshot[0].path());
        assert_eq!(loaded.unwrap().inputs.ingest, [1, 2]);
    }

    #[test]
    fn under_load_each_gather_is_told_when_it_is_done() {
        let mut f = fixture();
        for id in 0..70 {
            f.add(id + 1, &records(10 * id as u64, 10 * id as u64 + 10));
        }
        let turns = [(); 3].map(|()| f.run.turn(&|| 0));
        assert_eq!(turns.each_ref().map(|turn| turn.published.len()), [1, 1, 0]);
        assert_eq!(turns.each_ref().map(|turn| turn.goes_on), [true, true, false]);
        assert_eq!(turns[0].published[0].1, 64, "as many as one gather takes");
        assert_eq!(f.stored(), records(0, 700));
    }

    #[test]
    fn what_can_be_read_of_a_damaged_input_goes_on_and_the_input_is_set_aside() {
        let mut f = fixture();
        let path = f.add(1, &records(0, 20));
        f.add(2, &records(20, 30));
        let mut bytes = fs::read(&path).unwrap();
        bytes[230] ^= 1;
        fs::write(&path, bytes).unwrap();
        let turn = f.run.turn(&|| 0);
        assert_eq!(turn.damage.len(), 1);
        let stored = f.stored();
        assert!(stored.len() > 20 && stored.iter().all(|r| records(0, 30).contains(r)));
        assert_eq!(f.log(), ["commit [2]", "set aside [1]"]);
        let snapshot = f.catalogue.snapshot();
        let loaded =
            crate::store::segment::StoreSegment::load(f.catalogue.directory(), snapshot[0].path());
        assert_eq!(loaded.unwrap().inputs.ingest, [2], "the others may not be deleted");
    }

    #[test]
    fn an_input_that_is_not_there_is_waited_for_and_the_others_are_gathered() {
        let mut f = fixture();
        f.add(1, &records(0, 10));
        fs::remove_file(f.add(2, &records(10, 20))).unwrap();
        let turn = f.run.turn(&|| 0);
        assert!(matches!(turn.error, Some(GatherError::Read(_))), "{:?}", turn.error);
        assert_eq!(f.log(), ["unread 2", "fail [1, 2]"]);
        assert!(f.run.turn(&|| 1_000).error.is_none());
        assert_eq!(f.stored(), records(0, 10));
    }

    #[test]
    fn an_input_that_the_storage_refuses_is_left_to_its_source_until_that_gives_it_up() {
        let shortages = [FaultError::TooManyFiles, FaultError::NoMemory];
        for error in [FaultError::Io].into_iter().chain(shortages) {
            for is_partly_taken in [false, true] {
                let mut f = fixture();
                let sim = SimStorage::new(1);
                let path = PathBuf::from("/ingest");
                sim.create_dir_all(&path).unwrap();
                let storage = Arc::new(sim.clone());
                let ingest = Arc::new(StoreDirectory::new(storage, path, IdSource::seeded(7)));
                let part = write(&ingest, SMALL, &records(0, 20));
                let path = part.path().to_owned();
                let input = ClaimedInput { id: 1, path, part, is_partly_taken };
                f.source.waiting.lock().unwrap().push(input);
                f.add(2, &records(20, 30));
                sim.fail(Fault::random(Call::Open, 1.0, error));
                let is_set_aside = is_partly_taken && error == FaultError::Io;
                let turns: Vec<Turn> = (0..6).map(|at| f.run.turn(&|| at * 10_000)).collect();
                let told = turns.iter().map(|turn| turn.damage.len()).sum::<usize>();
                assert_eq!(told, usize::from(is_set_aside));
                assert_eq!(f.stored(), records(20, 30), "the other one is gathered");
                let log = f.log();
                assert_eq!(log.contains(&"set aside [1]".to_owned()), is_set_aside, "{log:?}");
                assert_eq!(log.contains(&"unread 1".to_owned()), !is_set_aside, "{log:?}");
            }
        }
    }

    #[test]
    fn what_others_have_stored_meanwhile_is_neither_merged_on_nor_published() {
        // Before the merge gets far, and after it.
        for step_ms in [1_000, 0] {
            let mut f = fixture();
            f.add(1, &records(0, 20));
            f.source.stored_by_others.store(true, Ordering::Relaxed);
            let now_ms = Cell::new(0);
            let turn = f.run.turn(&|| now_ms.replace(now_ms.get() + step_ms));
            assert!(matches!(turn.error, Some(GatherError::StoredByOthers)), "{:?}", turn.error);
            let log = f.log();
            assert!(!log.is_empty() && log.iter().all(|done| done == "fail [1]"), "{log:?}");
            assert_eq!(f.stored(), Vec::new());
            assert_eq!(fs::read_dir(f.temp.path().join("store")).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_gather_that_fails_returns_its_inputs_and_leaves_no_file() {
        let mut f = fixture();
        f.add(1, &records(0, 20));
        f.cancel.store(true, std::sync::atomic::Ordering::Relaxed);
        let turn = f.run.turn(&|| 0);
        assert!(matches!(turn.error, Some(GatherError::Cancelled)));
        assert_eq!((turn.wait_until_ms, f.log()), (Some(250), vec!["fail [1]".to_owned()]));
        f.cancel.store(false, std::sync::atomic::Ordering::Relaxed);

        let store = f.temp.path().join("store");
        fs::remove_dir(&store).unwrap();
        let turn = f.run.turn(&|| 250);
        assert!(matches!(turn.error, Some(GatherError::Write(WriteError::Io { .. }))));
        assert_eq!(f.log(), ["fail [1]"]);
        assert_eq!(f.run.state(), GatherState::BackingOff);

        fs::create_dir(&store).unwrap();
        assert!(f.run.turn(&|| 750).error.is_none());
        assert_eq!(f.stored(), records(0, 20));
        assert_eq!(fs::read_dir(&store).unwrap().count(), 1);
    }
}
