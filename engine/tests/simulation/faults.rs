//! EIO and ENOSPC from every call in turn, and a disk that fills up: the error is told, the state
//! stays consistent, nothing that was acknowledged is lost, and work goes on afterwards.

use std::path::Path;

use engine::ingest::log::Now;
use engine::ingest::topics::TopicChoice;
use engine::storage::Storage;
use engine::storage::sim::{Call, Fault, FaultError, Random, SimStorage, When};
use engine::topic::Topic;

use crate::model::{Model, lines};
use crate::node::Node;
use crate::settings::{INGEST, STORE, Settings, empty_disk};

const START: Now = Now { monotonic_us: 0, wall_ms: 1_700_000_000_000 };

/// All that a call may return for want of anything.
const EVERY_ERROR: [FaultError; 6] = [
    FaultError::Io,
    FaultError::NoSpace,
    FaultError::TooManyFiles,
    FaultError::NoMemory,
    FaultError::Interrupted,
    FaultError::Short,
];

fn choice() -> TopicChoice {
    TopicChoice::Static(Topic::new(b"default").unwrap())
}

/// Appends, flushes, gathers and compacts for a while. The same calls for the same seed, as long
/// as none fails.
fn work(node: &mut Node, model: &mut Model, random: &mut Random) {
    for round in 0..6 {
        for shard in 0..node.shard_count() {
            let is_durable = round % 2 == 0;
            if node.can_accept(shard) {
                node.append(model, shard, &lines(random), &choice(), is_durable);
            }
        }
        for _ in 0..12 {
            node.advance_us(8_000);
            for _ in 0..6 {
                node.step(model, random);
            }
        }
        node.gather();
        node.compact();
    }
}

/// Starts a node; where the injected fault makes that fail, it says so and the next try succeeds.
fn start(sim: &SimStorage, seed: u64) -> Node {
    match Node::start(sim, Settings::small(seed), START) {
        Ok(node) => node,
        Err(error) => {
            assert!(error.contains("/data/"), "the error names the directory: {error}");
            Node::start(sim, Settings::small(seed), START).expect("the fault is gone")
        }
    }
}

/// A life whose first part leaves files behind for the second to recover, with one call failing.
fn two_lives(fault: Option<Fault>, is_checked: bool) -> SimStorage {
    let mut random = Random::new(11);
    let mut model = Model::default();
    let mut node = start(&empty_disk(1), 1);
    work(&mut node, &mut model, &mut random);
    let sim = node.sim.kill();
    model.recovered(crate::model::Death::Kill, &{
        let node = Node::start(&sim.kill(), Settings::small(2), START).unwrap();
        node.found()
    });
    sim.fail_from_now(fault);
    let mut node = start(&sim, 3);
    work(&mut node, &mut model, &mut random);
    sim.clear_faults();
    if is_checked {
        node.settle(&mut model, &mut random);
        check_after_fault(node, &model);
    }
    sim
}

/// Everything is found, before and after another start.
fn check_after_fault(node: Node, model: &Model) {
    model.check_all(&node.found());
    let sim = node.sim.kill();
    drop(node);
    let node = Node::start(&sim, Settings::small(4), START).expect("it starts again");
    model.check_all(&node.found());
}

trait FailFromNow {
    fn fail_from_now(&self, fault: Option<Fault>);
}

impl FailFromNow for SimStorage {
    fn fail_from_now(&self, fault: Option<Fault>) {
        if let Some(fault) = fault {
            self.fail(fault);
        }
    }
}

#[test]
fn any_single_call_may_fail_and_work_goes_on() {
    let trace = two_lives(None, true).trace();
    let calls = trace.len() as u64;
    assert!(calls > 100, "the scenario does something: {calls} calls");
    // Want of memory is met as want of descriptors is.
    for error in EVERY_ERROR.into_iter().filter(|error| *error != FaultError::NoMemory) {
        for call in 1..=calls {
            let result = std::panic::catch_unwind(|| {
                two_lives(Some(Fault::nth(call, error)), true);
            });
            assert!(
                result.is_ok(),
                "{error:?} from call {call} breaks it: {:?}",
                &trace[..call as usize]
            );
        }
    }
}

#[test]
fn a_kind_of_call_may_fail_for_a_while_and_work_goes_on() {
    let kinds = [
        Call::Open,
        Call::Create,
        Call::Len,
        Call::Read,
        Call::Write,
        Call::Allocate,
        Call::Sync,
        Call::Rename,
        Call::Remove,
        Call::SyncDir,
        Call::Map,
        Call::MapRead,
        Call::List,
    ];
    for kind in kinds {
        for error in EVERY_ERROR {
            use Call::{Len, List, Map, MapRead, Open, Read, Write};
            let is_reading = matches!(kind, Open | Len | Read | Map | MapRead | List);
            if matches!((kind, error), (Read | Write, FaultError::Interrupted)) {
                // For ever is no signal: somebody tries again for ever.
                continue;
            }
            let mut random = Random::new(5);
            let mut model = Model::default();
            let mut node = start(&empty_disk(1), 1);
            work(&mut node, &mut model, &mut random);
            node.sim.fail(Fault::random(kind, 1.0, error));
            work(&mut node, &mut model, &mut random);
            if is_reading {
                model.check_told(&node.found());
            } else {
                model.check_all(&node.found());
            }
            node.sim.clear_faults();
            work(&mut node, &mut model, &mut random);
            node.settle(&mut model, &mut random);
            model.check_all(&node.found());
            node.check_tidy();
        }
    }
}

/// What the paths of all segments have in common: their names begin with the time. Without the mark of
/// stamps no node starts.
const SEGMENTS: &str = "/data/ingest/0";

/// A life that leaves files behind for the next, and what is in them.
fn first_life() -> (SimStorage, Model) {
    let (mut random, mut model) = (Random::new(11), Model::default());
    let mut node = start(&empty_disk(1), 1);
    work(&mut node, &mut model, &mut random);
    // Some of it is not gathered yet.
    for _ in 0..4 {
        for shard in 0..node.shard_count() {
            node.append(&mut model, shard, &lines(&mut random), &choice(), true);
        }
        for _ in 0..20 {
            node.advance_us(500);
            node.step(&mut model, &mut random);
        }
    }
    let sim = node.sim.kill();
    let probe = Node::start(&sim.kill(), Settings::small(2), START).unwrap();
    model.recovered(crate::model::Death::Kill, &probe.found());
    (sim, model)
}

/// The next life meets a fault for a while: what it does not show it tells, and in the end all is
/// there. Says whether the fault was met.
fn meets(fault: Fault) -> bool {
    let (sim, mut model) = first_life();
    let mut random = Random::new(13);
    sim.fail(fault);
    let mut node = start(&sim, 3);
    model.check_told(&node.found());
    work(&mut node, &mut model, &mut random);
    model.check_told(&node.found());
    let is_met = !sim.struck().is_empty();
    sim.clear_faults();
    node.settle(&mut model, &mut random);
    check_after_fault(node, &model);
    is_met
}

#[test]
fn what_cannot_be_read_for_a_while_is_told_and_comes_back() {
    let calls = [Call::Open, Call::Len, Call::Read, Call::Map, Call::MapRead];
    for error in [FaultError::Io, FaultError::TooManyFiles, FaultError::NoMemory] {
        for call in calls {
            for files in [SEGMENTS, ".active", ".flushed", ".pending", ".tail"] {
                let is_met = meets(Fault::random(call, 1.0, error).of(files));
                assert!(is_met || files != SEGMENTS, "{call:?} of {files}");
            }
        }
    }
}

#[test]
fn a_map_may_meet_a_fault_on_any_page_and_nothing_is_lost() {
    for nth in 1.. {
        let fault =
            Fault { when: When::Nth(nth), ..Fault::random(Call::MapRead, 0.0, FaultError::Io) };
        if !meets(fault.of(INGEST)) {
            assert!(nth > 3, "maps are read");
            return;
        }
    }
}

#[test]
fn a_full_disk_stops_taking_records_and_recovers_by_itself() {
    let mut random = Random::new(9);
    let mut model = Model::default();
    let sim = empty_disk(1);
    sim.set_capacity(1 << 20);
    let mut node = start(&sim, 1);
    let line = vec![b'x'; 12_000];
    let mut appends = 0;
    for round in 0..1_000 {
        let shard = round % node.shard_count();
        if node.can_accept(shard) {
            node.append(&mut model, shard, std::slice::from_ref(&line), &choice(), true);
            appends += 1;
        }
        node.advance_us(5_000);
        for _ in 0..4 {
            node.step(&mut model, &mut random);
        }
        if round % 50 == 0 {
            node.gather();
            model.check_all(&node.found());
        }
    }
    assert!(appends < 1_000, "the disk is full and senders wait: {appends}");
    assert!((0..node.shard_count()).any(|shard| !node.can_accept(shard)));
    let space = sim.space(Path::new(STORE)).unwrap();
    assert_eq!(space, sim.space(Path::new(INGEST)).unwrap());

    sim.set_capacity(1 << 30);
    node.settle(&mut model, &mut random);
    assert!(model.sent.keys().all(|ulid| model.durable.contains(ulid)), "all is acknowledged");
    model.check_all(&node.found());
    node.check_tidy();
}
