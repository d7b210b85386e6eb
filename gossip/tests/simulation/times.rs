//! Deaths that are, and deaths that are not.

use std::collections::BTreeMap;

use gossip::{Event, State};

use crate::network::{FOUL, Net, Weather};
use crate::{cluster, seeds};

fn is_down(event: &Event) -> bool {
    matches!(event, Event::Down(_))
}

/// How long until all others see that a node is dead, milliseconds, by seeds.
fn deaths(seeds: Vec<u64>, count: usize, weather: Weather) -> Vec<u64> {
    let mut times: Vec<u64> = seeds
        .into_iter()
        .map(|seed| {
            let mut net = cluster(seed, count);
            net.weather = weather;
            let pause_ms = 1_000 + net.random.below(3_000);
            net.run(pause_ms);
            let dead = net.random.below(count as u64) as usize;
            net.kill(dead);
            let others = net.alive();
            let is_seen =
                |net: &Net| others.iter().all(|&at| net.sees(at, dead) == Some(State::Down));
            let took_ms = net.run_until(5_000, is_seen);
            let late = || {
                panic!("seed {seed}: {dead} of {count} died in vain: {}", net.opinions());
            };
            took_ms.unwrap_or_else(late)
        })
        .collect();
    times.sort_unstable();
    times
}

#[test]
fn a_death_is_seen_by_all_within_five_seconds() {
    for (count, usually) in [(2, 10), (3, 10), (5, 30), (12, 5)] {
        let times = deaths(seeds(usually), count, crate::network::FAIR);
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        println!("{count} nodes: death seen by all: median {} ms, p99 {} ms", at(50), at(99));
        deaths(seeds(usually / 2), count, FOUL);
    }
}

#[test]
fn nobody_is_held_to_be_dead_for_standing_still_for_two_seconds() {
    for seed in seeds(8) {
        let mut net = cluster(seed, 5);
        for _ in 0..20 {
            let at = net.random.below(5) as usize;
            net.stall(at, 2_000);
            net.run(6_000);
        }
        assert_no_death(&net, seed);
    }
}

#[test]
fn nobody_is_held_to_be_dead_for_datagrams_that_are_lost_late_or_come_twice() {
    for seed in seeds(8) {
        let mut net = cluster(seed, 5);
        net.weather = FOUL;
        net.run(120_000);
        assert_no_death(&net, seed);
    }
}

fn assert_no_death(net: &Net, seed: u64) {
    let is_false = |event: &Event| is_down(event) || *event == Event::CameBack;
    let deaths: usize = (0..5).map(|at| net.count(at, is_false)).sum();
    assert_eq!(deaths, 0, "seed {seed}: {}", net.opinions());
}

#[test]
fn who_stood_still_holds_nobody_to_be_dead_for_it() {
    for seed in seeds(6) {
        let mut net = cluster(seed, 5);
        net.run(2_000);
        let before: usize = net.hosts[1].events.len();
        net.stall(1, 20_000);
        net.run(19_000);
        assert_eq!(net.sees(0, 1), Some(State::Down));
        net.run(1_000);
        assert!(net.run_until(10_000, Net::agree).is_some(), "seed {seed}");
        let downs =
            net.hosts[1].events[before..].iter().filter(|(_, event)| is_down(event)).count();
        assert_eq!(downs, 0, "seed {seed}: {:?}", net.hosts[1].events);
    }
}

#[test]
fn a_split_is_seen_by_both_sides_and_heals_in_seconds() {
    let mut times = Vec::new();
    for seed in seeds(12) {
        let mut net = cluster(seed, 5);
        net.cut_between(&[0, 1], &[2, 3, 4]);
        net.run(60_000);
        for (some, others) in [([0, 1].as_slice(), [2, 3, 4].as_slice()), (&[2, 3, 4], &[0, 1])] {
            for &at in some {
                assert!(others.iter().all(|&other| net.sees(at, other) == Some(State::Down)));
                assert!(some.iter().all(|&o| o == at || net.sees(at, o) == Some(State::Up)));
            }
        }
        net.cut.clear();
        let took_ms = net.run_until(10_000, Net::agree);
        times.push(took_ms.unwrap_or_else(|| panic!("seed {seed}: a split does not heal")));
    }
    times.sort_unstable();
    println!(
        "a split of 60 s heals: median {} ms, most {:?} ms",
        times[times.len() / 2],
        times.last()
    );
}

#[test]
fn one_node_that_was_cut_off_from_all_comes_back_by_itself() {
    for seed in seeds(6) {
        let mut net = cluster(seed, 4);
        net.cut_between(&[3], &[0, 1, 2]);
        net.run(30_000);
        assert!(net.node(3).members().iter().all(|view| view.state == State::Down));
        net.cut.clear();
        assert!(net.run_until(10_000, Net::agree).is_some(), "seed {seed}");
    }
}

#[test]
fn a_link_that_carries_nothing_in_one_direction_is_got_round() {
    for seed in seeds(6) {
        let mut net = cluster(seed, 5);
        net.cut.extend([(1, 2), (3, 4)]);
        net.run(60_000);
        assert!(net.agree(), "seed {seed}");
        let downs: usize = (0..5).map(|at| net.count(at, is_down)).sum();
        assert_eq!(downs, 0, "seed {seed}");
    }
}

#[test]
fn a_clock_of_the_day_that_jumps_is_told_to_its_node_and_kills_nobody() {
    let mut net = cluster(20, 5);
    net.hosts[2].clock_ms = 86_400_000;
    net.run(30_000);
    let is_off = |event: &Event| matches!(event, Event::ClockOff(_));
    assert_eq!(net.count(2, |event| matches!(event, Event::ClockOff(by) if *by < -86_000_000)), 1);
    net.hosts[2].clock_ms = 0;
    net.run(30_000);
    assert_eq!(net.count(2, |event| *event == Event::ClockRight), 1);
    for at in 0..5 {
        assert_eq!(net.count(at, is_down), 0);
        assert_eq!(net.count(at, is_off), usize::from(at == 2));
    }
}

#[test]
fn an_idle_cluster_of_five_costs_each_node_less_than_five_kilobytes_a_second() {
    let mut net = cluster(21, 5);
    net.run(30_000);
    let before: BTreeMap<usize, u64> = (0..5).map(|at| (at, net.hosts[at].sent_bytes)).collect();
    net.run(60_000);
    for at in 0..5 {
        let a_second = (net.hosts[at].sent_bytes - before[&at]) / 60;
        println!("node {at} sends {a_second} bytes a second, headers of IP and UDP included");
        // What one sends another one receives.
        assert!(2 * a_second < 5_000, "{a_second}");
    }
}
