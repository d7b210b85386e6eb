//! A clock that is set back or forward by an hour: stamps never go back, and what comes in now is
//! found by a query with default bounds, before and after a restart.

use engine::ingest::log::Now;
use engine::ingest::topics::TopicChoice;
use engine::search::window::Window;
use engine::storage::sim::Random;
use engine::topic::Topic;
use engine::ulid::Ulid;

use crate::model::{Death, Found, Model};
use crate::node::{Node, Settings, empty_disk};

const HOUR_MS: u64 = 3_600_000;
const START_MS: u64 = 1_700_000_000_000;

fn append(node: &mut Node, model: &mut Model) -> Ulid {
    let choice = TopicChoice::Static(Topic::new(b"default").unwrap());
    let line = format!("line {}", model.sent.len()).into_bytes();
    node.append(model, 0, &[line.clone()], &choice, true);
    let made = model.sent.iter().find(|(_, record)| record.line == line);
    *made.expect("it was just appended").0
}

/// What a query without bounds finds, its `now` being the later of clock and newest record.
fn found_by_default(node: &Node) -> Vec<Ulid> {
    let found: Found = node.found();
    let newest_ms = found.records.keys().next_back().map_or(0, |ulid| ulid.ms());
    let window = Window::parse(None, None, node.now.wall_ms.max(newest_ms)).unwrap();
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
        node.now = Now { monotonic_us: 1_000, wall_ms: stepped_ms };
        let second = append(&mut node, &mut model);
        assert!(second > first, "stamps do not go back");
        assert_eq!(second.ms(), START_MS.max(stepped_ms));
        assert_eq!(node.log(0).ahead_ms(stepped_ms), START_MS.saturating_sub(stepped_ms));
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
        assert!(third.ms() >= second.ms(), "nor after a restart");
        assert_eq!(node.log(0).ahead_ms(stepped_ms), second.ms() - stepped_ms);
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
        assert!(fourth.ms() >= third.ms());
        assert_eq!(node.log(0).ahead_ms(START_MS), third.ms().saturating_sub(START_MS));
        assert!(found_by_default(&node).contains(&fourth));
        model.check_all(&node.found());
    }
}

#[test]
fn a_clock_set_back_an_hour_takes_no_stamp_back_and_hides_no_record() {
    step_by(-(HOUR_MS as i64));
}

#[test]
fn a_clock_set_forward_an_hour_hides_no_record_when_it_is_set_right() {
    step_by(HOUR_MS as i64);
}
