//! A gather against an ingest side of store segments: everything that it asks for is answered.

use super::*;
use crate::storage::Storage;
use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
use crate::store::StoreDirectory;
use crate::store::name::IdSource;
use crate::store::testing::{
    Record, SMALL, coverage_of_records, directory, read_all, record, write,
};
use crate::store::writer::WriteError;
use crate::ulid::Ulid;
use std::fs;

/// One gather at a time has one claim at a time.
const TOKEN: ClaimToken = ClaimToken::new(1, 2);

/// Store segments in another directory play the ingest segments.
#[derive(Default)]
struct Source {
    waiting: Vec<ClaimedInput>,
    claimed: Vec<ClaimedInput>,
    stored_by_others: bool,
    /// Could not be read, and wait for that.
    kept: Vec<ClaimedInput>,
    /// Has grown by a record since it was read.
    more: Option<u128>,
    log: Vec<String>,
}

/// Of what can be read of it.
fn coverage_of(part: &dyn Part) -> Coverage {
    let Ok(open) = part.open_to_move() else { return Coverage::default() };
    let tables = (0..open.chunks().len()).filter_map(|index| open.read(index).ok());
    tables.fold(Coverage::default(), |all, chunk| all.union(&Coverage::of_table(&chunk.table)))
}

impl Source {
    fn take(&mut self, ids: &[u128], what: &str) -> Vec<ClaimedInput> {
        self.log.push(format!("{what} {ids:?}"));
        self.claimed.extract_if(.., |claimed| ids.contains(&claimed.id)).collect()
    }

    fn available(&self) -> Available {
        Available { count: self.waiting.len(), bytes: 0, oldest_age_ms: 3_000 }
    }

    fn claim(&mut self, count_max: usize) -> Claimed {
        let count = count_max.min(self.waiting.len());
        let inputs: Vec<_> = self.waiting.drain(..count).collect();
        self.claimed.extend(inputs.iter().cloned());
        Claimed { token: TOKEN, inputs }
    }

    /// Says how many inputs hold other records.
    fn commit(&mut self, whole: &[StoredInput], damaged: &[(StoredInput, Vec<Damage>)]) -> usize {
        let (mut ids, mut kept) = (Vec::new(), 0);
        for input in whole {
            let claimed = self.claimed.iter().find(|claimed| claimed.id == input.id).unwrap();
            assert!(coverage_of(&*claimed.part).is_same(&input.coverage));
            if self.more == Some(input.id) {
                kept += 1;
            } else {
                ids.push(input.id);
            }
        }
        self.take(&ids, "commit");
        for (input, damage) in damaged {
            assert!(!damage.is_empty());
            let taken = self.take(&[input.id], "set aside");
            let readable = coverage_of(&*taken[0].part);
            assert!(readable.is_same(&input.coverage), "what could be read was stored");
        }
        kept
    }

    fn fail(&mut self, unread: &[NotRead]) {
        for (input, damage) in unread {
            assert!(damage.iter().any(|damage| damage.refusal().is_some()));
            self.log.push(format!("unread {input}"));
        }
        let claimed: Vec<u128> = self.claimed.iter().map(|c| c.id).collect();
        let mut returned = self.take(&claimed, "fail");
        let is_unread = |input: &mut ClaimedInput| unread.iter().any(|(id, _)| *id == input.id);
        self.kept.extend(returned.extract_if(.., is_unread));
        self.waiting.extend(returned);
    }
}

struct Fixture {
    temp: tempfile::TempDir,
    source: Source,
    catalogue: Arc<Catalogue>,
    run: GatherRun,
    /// How far the clock moves between two steps.
    step_ms: u64,
}

/// What one gather did.
#[derive(Debug, Default)]
struct Gathered {
    /// It was committed.
    goes_on: bool,
    wait_until_ms: Option<u64>,
    published: Vec<(SegmentMeta, usize)>,
    duplicate_count: u64,
    damage: Vec<Damage>,
    error: Option<GatherError>,
}

fn fixture() -> Fixture {
    let temp = tempfile::tempdir().unwrap();
    for name in ["ingest", "store"] {
        fs::create_dir(temp.path().join(name)).unwrap();
    }
    let store = directory(&temp.path().join("store"));
    let catalogue = Arc::new(Catalogue::new(store, Vec::new(), Ulid::MIN));
    let run = GatherRun::new(LIMITS, Arc::clone(&catalogue), WriterOptions::default());
    Fixture { temp, source: Source::default(), catalogue, run, step_ms: 0 }
}

const LIMITS: GatherLimits = GatherLimits {
    target_bytes: 128 << 20,
    target_age_ms: 3_000,
    claim_count_max: 64,
    back_off_min_ms: 250,
    back_off_max_ms: 30_000,
    replicate_timeout_ms: 60_000,
    replication_factor: 1,
};

impl Fixture {
    /// Turns until a gather is committed, or there is nothing to do.
    fn turn(&mut self, mut now_ms: u64) -> Gathered {
        let mut turn = Gathered::default();
        loop {
            if self.run.state() != GatherState::Busy {
                self.run.set_available(now_ms, self.source.available());
            }
            let step = self.run.turn(now_ms);
            for outcome in self.run.take_outcomes() {
                match outcome {
                    Outcome::Published { segment, inputs, duplicate_count } => {
                        turn.published.push((segment, inputs));
                        turn.duplicate_count += duplicate_count;
                    }
                    Outcome::Damaged(damage) => turn.damage.extend(damage),
                    Outcome::Failed(error) => turn.error = Some(error),
                }
            }
            match step {
                Step::Ask(effect) => turn.goes_on = self.carry_out(effect, now_ms),
                Step::GoOn => {}
                Step::Wait(until_ms) => {
                    turn.wait_until_ms = until_ms;
                    return turn;
                }
            }
            if turn.goes_on {
                return turn;
            }
            now_ms += self.step_ms;
        }
    }

    /// Says whether a gather has come to its end.
    fn carry_out(&mut self, effect: Effect, now_ms: u64) -> bool {
        match effect {
            Effect::Claim { gather, count_max, .. } => {
                let claimed = self.source.claim(count_max);
                self.run.on_claimed(now_ms, gather, Ok(claimed));
            }
            Effect::Renew(token) => {
                let is_void = self.source.stored_by_others;
                let open = if is_void { 0 } else { self.source.claimed.len() };
                self.run.on_renewed(token, open);
            }
            Effect::Replicate(gather, store) => {
                self.run.on_replicated(now_ms, gather, store, false);
            }
            Effect::Commit { gather, token, whole, damaged } => {
                assert_eq!(token, TOKEN);
                let kept = self.source.commit(&whole, &damaged);
                if kept > 0 {
                    self.source.fail(&[]);
                }
                self.run.on_committed(now_ms, gather, kept);
                return kept == 0;
            }
            Effect::Fail { gather, token, unread } => {
                assert_eq!(token, TOKEN);
                self.source.fail(&unread);
                self.run.on_failed(now_ms, gather);
            }
        }
        false
    }
}

impl Fixture {
    fn add(&mut self, id: u128, records: &[Record]) -> PathBuf {
        let ingest = directory(&self.temp.path().join("ingest"));
        // Identities by input, since each directory value counts anew.
        for _ in 0..id {
            ingest.ids.next_id();
        }
        let segment = write(&ingest, SMALL, records);
        let path = segment.path().to_owned();
        let input = ClaimedInput { id, path: path.clone(), part: segment, is_partly_taken: false };
        self.source.waiting.push(input);
        path
    }

    fn stored(&self) -> Vec<Record> {
        self.catalogue.snapshot().iter().flat_map(|s| read_all(s).0).collect()
    }

    fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.source.log)
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
    let turn = f.turn(0);
    assert_eq!(f.stored(), records(0, 40));
    assert_eq!((turn.published.len(), turn.duplicate_count), (1, 10));
    assert_eq!(turn.wait_until_ms, None);
    assert_eq!(f.log(), ["commit [1, 2]"]);
    let snapshot = f.catalogue.snapshot();
    let loaded =
        crate::store::segment::StoreSegment::load(f.catalogue.directory(), snapshot[0].path());
    let loaded = loaded.unwrap();
    let named = |id, from, to| {
        let digest = coverage_of_records(&records(from, to)).digest().unwrap();
        IngestInput { id, digest }
    };
    assert_eq!(loaded.inputs.ingest, [named(1, 0, 20), named(2, 10, 40)]);
    assert!(loaded.coverage.unwrap().is_same(&coverage_of_records(&records(0, 40))));
    assert_eq!(loaded.segment.meta().volume, Some(f.catalogue.volume()));
}

#[test]
fn an_input_that_holds_other_records_than_were_stored_stays() {
    let mut f = fixture();
    f.add(1, &records(0, 20));
    f.add(2, &records(20, 30));
    f.source.more = Some(2);
    let turn = f.turn(0);
    assert!(matches!(turn.error, Some(GatherError::OtherRecords(1))), "{:?}", turn.error);
    assert_eq!((f.log(), turn.goes_on), (vec!["commit [1]".into(), "fail [2]".into()], false));
    assert_eq!(f.run.state(), GatherState::BackingOff);
    assert_eq!(f.stored(), records(0, 30), "what was read is there, twice if need be");
    f.source.more = None;
    assert!(f.turn(300).error.is_none());
    assert_eq!(f.log(), ["commit [2]"]);
}

#[test]
fn under_load_each_gather_is_told_when_it_is_done() {
    let mut f = fixture();
    for id in 0..70 {
        f.add(id + 1, &records(10 * id as u64, 10 * id as u64 + 10));
    }
    let turns = [(); 3].map(|()| f.turn(0));
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
    let turn = f.turn(0);
    assert_eq!(turn.damage.len(), 1);
    let stored = f.stored();
    assert!(stored.len() > 20 && stored.iter().all(|r| records(0, 30).contains(r)));
    assert_eq!(f.log(), ["commit [2]", "set aside [1]"]);
    let snapshot = f.catalogue.snapshot();
    let loaded =
        crate::store::segment::StoreSegment::load(f.catalogue.directory(), snapshot[0].path());
    let named: Vec<u128> = loaded.unwrap().inputs.ingest.iter().map(|input| input.id).collect();
    assert_eq!(named, [2], "the others may not be deleted");
}

#[test]
fn an_input_that_is_not_there_is_waited_for_and_the_others_are_gathered() {
    let mut f = fixture();
    f.add(1, &records(0, 10));
    fs::remove_file(f.add(2, &records(10, 20))).unwrap();
    let turn = f.turn(0);
    assert!(matches!(turn.error, Some(GatherError::Read(_))), "{:?}", turn.error);
    assert_eq!(f.log(), ["unread 2", "fail [1, 2]"]);
    assert!(f.turn(1_000).error.is_none());
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
            f.source.waiting.push(input);
            f.add(2, &records(20, 30));
            sim.fail(Fault::random(Call::Open, 1.0, error));
            let is_set_aside = is_partly_taken && error == FaultError::Io;
            let turns: Vec<Gathered> = (0..6).map(|at| f.turn(at * 10_000)).collect();
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
        f.source.stored_by_others = true;
        f.step_ms = step_ms;
        let turn = f.turn(0);
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
    let [store, away] = ["store", "away"].map(|name| f.temp.path().join(name));
    fs::rename(&store, &away).unwrap();
    let turn = f.turn(0);
    assert!(matches!(turn.error, Some(GatherError::Write(WriteError::Io { .. }))));
    assert_eq!((turn.wait_until_ms, f.log()), (Some(250), vec!["fail [1]".to_owned()]));
    assert_eq!(f.run.state(), GatherState::BackingOff);

    fs::rename(&away, &store).unwrap();
    assert!(f.turn(250).error.is_none());
    assert_eq!(f.stored(), records(0, 20));
    assert_eq!(fs::read_dir(&store).unwrap().count(), 1);
}

#[test]
fn a_gather_that_is_cancelled_after_any_step_returns_its_inputs_or_has_stored_them() {
    for steps in 0.. {
        let mut f = fixture();
        f.add(1, &records(0, 20));
        f.run.set_available(0, f.source.available());
        let mut is_committed = false;
        for _ in 0..steps {
            match f.run.turn(0) {
                Step::Ask(effect) => is_committed |= f.carry_out(effect, 0),
                Step::GoOn => {}
                Step::Wait(_) => break,
            }
        }
        f.run.cancel();
        let turn = f.turn(0);
        let is_stored = is_committed || turn.goes_on;
        assert_eq!(f.stored(), if is_stored { records(0, 20) } else { Vec::new() }, "{steps}");
        let waiting = usize::from(!is_stored);
        assert_eq!((f.source.waiting.len(), f.source.claimed.len()), (waiting, 0), "{steps}");
        let files = fs::read_dir(f.temp.path().join("store")).unwrap().count();
        assert_eq!(files, usize::from(is_stored), "{steps}");
        assert!(matches!(f.run.turn(1_000_000), Step::Wait(None)), "nothing is begun any more");
        if is_committed {
            assert!(steps > 5, "{steps}");
            return;
        }
    }
}

#[test]
fn a_claim_is_renewed_while_a_copy_is_waited_for_and_what_others_stored_is_not_published() {
    const OTHER: StoreId = StoreId(7);
    for is_stored_by_others in [false, true] {
        let mut f = fixture();
        f.run = GatherRun::new(
            GatherLimits { replication_factor: 2, ..LIMITS },
            Arc::clone(&f.catalogue),
            WriterOptions::default(),
        );
        f.run.set_other_stores(0, vec![OTHER]);
        f.add(1, &records(0, 20));
        f.run.set_available(0, f.source.available());
        let gather = loop {
            match f.run.turn(0) {
                Step::Ask(Effect::Replicate(gather, store)) => {
                    assert_eq!(store, OTHER);
                    break gather;
                }
                Step::Ask(effect) => assert!(!f.carry_out(effect, 0)),
                Step::GoOn => {}
                Step::Wait(until_ms) => panic!("waits until {until_ms:?}"),
            }
        };
        // For most of the time that the copy may take.
        let mut now_ms = 0;
        while now_ms < LIMITS.replicate_timeout_ms / 2 {
            let Step::Wait(Some(until_ms)) = f.run.turn(now_ms) else { panic!("at {now_ms}") };
            assert_eq!(until_ms, now_ms + RENEW_EVERY_MS);
            now_ms = until_ms;
            let Step::Ask(Effect::Renew(token)) = f.run.turn(now_ms) else { panic!("{now_ms}") };
            f.run.on_renewed(token, 1);
        }
        assert_eq!(f.stored(), Vec::new(), "not before it has its copies");
        f.source.stored_by_others = is_stored_by_others;
        f.run.on_replicated(now_ms, gather, OTHER, true);
        let turn = f.turn(now_ms);
        assert_eq!(
            (turn.goes_on, turn.error.is_some()),
            (!is_stored_by_others, is_stored_by_others)
        );
        assert_eq!(f.stored(), if is_stored_by_others { Vec::new() } else { records(0, 20) });
    }
}

#[test]
fn a_copy_that_does_not_come_in_time_fails_the_gather_and_a_late_answer_changes_nothing() {
    const OTHER: StoreId = StoreId(7);
    let mut f = fixture();
    let limits = GatherLimits { replication_factor: 2, ..LIMITS };
    f.run = GatherRun::new(limits, Arc::clone(&f.catalogue), WriterOptions::default());
    f.run.set_other_stores(0, vec![OTHER]);
    f.add(1, &records(0, 20));
    f.run.set_available(0, f.source.available());
    let gather = loop {
        match f.run.turn(0) {
            Step::Ask(Effect::Replicate(gather, _)) => break gather,
            Step::Ask(effect) => assert!(!f.carry_out(effect, 0)),
            Step::GoOn => {}
            Step::Wait(until_ms) => panic!("waits until {until_ms:?}"),
        }
    };
    let turn = f.turn(LIMITS.replicate_timeout_ms);
    assert!(!turn.goes_on && turn.wait_until_ms.is_some(), "{turn:?}");
    assert_eq!(f.log(), ["fail [1]"]);
    f.run.on_replicated(LIMITS.replicate_timeout_ms, gather, OTHER, true);
    assert_eq!(f.run.state(), GatherState::BackingOff);
    assert_eq!(f.stored(), Vec::new());
    assert_eq!(fs::read_dir(f.temp.path().join("store")).unwrap().count(), 0);
}
