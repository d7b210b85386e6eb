//! A clock that is set back or forward by an hour: stamps never go back, and what comes in now is
//! found by a query with default bounds, before and after a restart.

use std::path::Path;

use engine::identity::IDENTITY_FILE;
use engine::ingest::log::Now;
use engine::ingest::stamp_mark::STAMP_MARK_FILE;
use engine::ingest::topics::TopicChoice;
use engine::search::window::{Now as QueryNow, Window};
use engine::storage::sim::{Call, Fault, FaultError, Random, SimStorage};
use engine::storage::{Open, Storage};
use engine::topic::Topic;
use engine::ulid::Ulid;

use crate::model::{Death, Found, Model};
use crate::node::Node;
use crate::settings::{INGEST, Settings, empty_disk};

const HOUR_MS: u64 = 3_600_000;
const START_MS: u64 = 1_700_000_000_000;

fn append(node: &mut Node, model: &mut Model) -> Ulid {
    append_to(node, model, 0)
}

fn append_to(node: &mut Node, model: &mut Model, shard: usize) -> Ulid {
    let choice = TopicChoice::Static(Topic::new(b"default").unwrap());
    let line = format!("line {}", model.sent.len()).into_bytes();
    node.append(model, shard, std::slice::from_ref(&line), &choice, true);
    let made = model.sent.iter().find(|(_, record)| record.line == line);
    *made.expect("it was just appended").0
}

/// What a query of the last hour finds.
fn found_by_default(node: &Node) -> Vec<Ulid> {
    let found: Found = node.found();
    let newest_ms = found.records.keys().next_back().map_or(0, |ulid| ulid.ms());
    let clock_ms = node.now.wall_ms;
    let now = QueryNow { clock_ms, newest_ms: clock_ms.max(newest_ms) };
    let window = Window::parse(None, Some("now"), now).unwrap();
    found.records.into_keys().filter(|ulid| (window.from..=window.to).contains(ulid)).collect()
}

/// One record, a step of the clock, records before and after a restart.
fn step_by(step_ms: i64) {
    for (seed, death) in [Death::Kill, Death::PowerLoss].into_iter().enumerate() {
        let mut random = Random::new(seed as u64);
        let mut model = Model::default();
        let sim = empty_disk(1);
        let now = Now { monotonic_us: 0, wall_ms: START_MS };
        let mut node = Node::start(&sim, Settings::small(1), now).unwrap();
        let first = append(&mut node, &mut model);

        let stepped_ms = START_MS.checked_add_signed(step_ms).unwrap();
        node.now = Now { monotonic_us: 20_000, wall_ms: stepped_ms };
        // The mark follows the clock at the keeper's next turn, then stamps do.
        node.advance_us(0);
        let second = append(&mut node, &mut model);
        assert!(second > first, "stamps do not go back");
        let ahead_ms = second.ms() - START_MS.max(stepped_ms);
        assert!(ahead_ms < 10, "nor do they run ahead: {ahead_ms}");
        assert_eq!(node.log(0).ahead_ms(stepped_ms), second.ms() - stepped_ms);
        let idle = append_to(&mut node, &mut model, 1);
        assert!(idle.ms() >= second.ms(), "nor do those of a shard that was idle");
        if step_ms < 0 {
            assert!(
                append_to(&mut node, &mut model, 0).ms() > first.ms(),
                "they do not stand still"
            );
        }
        assert!(found_by_default(&node).contains(&second));
        while !model.durable.contains(&second) {
            node.advance_us(1_000);
            node.step(&mut model, &mut random);
        }

        let sim = if death == Death::Kill { sim.kill() } else { sim.crash(seed as u64) };
        let now = Now { monotonic_us: 0, wall_ms: stepped_ms };
        let mut node = Node::start(&sim, Settings::small(2), now).unwrap();
        model.recovered(death, &node.found());
        let third = append(&mut node, &mut model);
        assert!(third.ms() > second.ms(), "nor after a restart");
        assert!(third.ms() < second.ms() + 5_000, "nor far ahead of what was stamped");
        assert_eq!(node.log(0).ahead_ms(stepped_ms), third.ms() - stepped_ms);
        assert!(found_by_default(&node).contains(&third));

        node.settle(&mut model, &mut random);
        let newest = node.catalogue.newest().ms();
        assert_eq!(newest, third.ms());
        assert!(found_by_default(&node).contains(&third), "nor in the store");
        let sim = sim.kill();
        // The step is undone while the node is down.
        let now = Now { monotonic_us: 0, wall_ms: START_MS };
        let mut node = Node::start(&sim, Settings::small(3), now).unwrap();
        let fourth = append(&mut node, &mut model);
        assert!(fourth.ms() > third.ms());
        assert_eq!(node.log(0).ahead_ms(START_MS), fourth.ms().saturating_sub(START_MS));
        assert!(found_by_default(&node).contains(&fourth));
        model.check_all(&node.found());
    }
}

/// Removes everything that holds a record, as a drained store that has expired leaves a node.
fn forget_records(sim: &SimStorage) {
    for path in sim.files() {
        let name = path.file_name().unwrap().to_str().unwrap();
        if ![STAMP_MARK_FILE, IDENTITY_FILE].contains(&name) {
            sim.remove(&path).unwrap();
        }
    }
}

#[test]
fn after_a_restart_with_the_clock_set_back_every_shard_stamps_above_all_stamps_before() {
    for back_ms in [5_000, HOUR_MS, 24 * HOUR_MS] {
        for death in [Death::Kill, Death::PowerLoss] {
            let mut model = Model::default();
            let mut sim = empty_disk(1);
            let mut wall_ms = START_MS;
            let mut newest = Ulid::MIN;
            for life in 0..4 {
                let now = Now { monotonic_us: 0, wall_ms };
                let mut node = Node::start(&sim, Settings::small(life + 1), now).unwrap();
                // One that was idle before, too.
                for shard in 0..2.min(life as usize + 1) {
                    let stamped = append_to(&mut node, &mut model, shard);
                    assert!(stamped > newest, "life {life}, shard {shard}");
                    newest = newest.max(stamped);
                }
                for _ in 0..30 {
                    node.advance_us(500_000);
                }
                newest = newest.max(append_to(&mut node, &mut model, 0));
                sim = if death == Death::Kill { sim.kill() } else { sim.crash(life) };
                // Nothing on disk tells of them but the mark.
                forget_records(&sim);
                wall_ms -= back_ms;
            }
        }
    }
}

#[test]
fn after_an_orderly_stop_stamps_are_not_ahead_of_the_clock() {
    let mut model = Model::default();
    let sim = empty_disk(1);
    let mut now = Now { monotonic_us: 0, wall_ms: START_MS };
    for life in 0..3 {
        let mut node = Node::start(&sim, Settings::small(life + 1), now).unwrap();
        let stamped = append(&mut node, &mut model);
        assert_eq!(stamped.ms(), now.wall_ms);
        node.advance_us(100_000);
        now.wall_ms = node.stop().wall_ms;
    }
}

#[test]
fn a_mark_that_cannot_be_read_is_not_an_absent_one() {
    let sim = empty_disk(1);
    let now = Now { monotonic_us: 0, wall_ms: START_MS };
    let start = |sim: &SimStorage| Node::start(sim, Settings::small(2), now);
    let mut model = Model::default();
    append(&mut Node::start(&sim, Settings::small(1), now).unwrap(), &mut model);
    let sim = sim.kill();
    let path = Path::new(INGEST).join(STAMP_MARK_FILE);
    for call in [Call::Open, Call::Read] {
        let of_mark =
            Fault { path_part: STAMP_MARK_FILE.into(), ..Fault::random(call, 1.0, FaultError::Io) };
        sim.fail(of_mark);
        let refused = start(&sim).err().expect("nothing may go back");
        assert!(
            refused.contains(STAMP_MARK_FILE) && refused.contains("cannot be read"),
            "{refused}"
        );
        sim.clear_faults();
    }
    let file = sim.open(&path, Open::Write).unwrap();
    let newest = *model.sent.keys().next_back().unwrap();
    file.write_all_at(&[0; 16], 0).unwrap();
    let mut node = start(&sim).unwrap();
    assert!(append(&mut node, &mut model) > newest, "one copy is enough");
    drop(node);
    let sim = sim.kill();
    let file = sim.open(&path, Open::Write).unwrap();
    file.write_all_at(&[0; 16], 0).unwrap();
    file.write_all_at(&[0; 16], 4096).unwrap();
    let refused = start(&sim).err().expect("nothing may go back");
    assert!(refused.contains("is damaged"), "{refused}");
    sim.remove(&path).unwrap();
    let mut node = start(&sim).expect("whoever moves it away wants to go on");
    append(&mut node, &mut model);
}

#[test]
fn a_clock_set_back_an_hour_takes_no_stamp_back_and_hides_no_record() {
    step_by(-(HOUR_MS as i64));
}

#[test]
fn a_clock_set_forward_an_hour_hides_no_record_when_it_is_set_right() {
    step_by(HOUR_MS as i64);
}
