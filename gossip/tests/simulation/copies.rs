//! A data directory that was copied: never two that live on with one id.

use gossip::{Event, Stop};

use crate::network::{FAIR, FOUL, Net};
use crate::{MEET_MS, cluster, seeds};

/// A host whose directory is a copy of another's.
fn add_copy(net: &mut Net, of: usize) -> usize {
    let at = net.add_host(true, true);
    net.hosts[at].disk = net.hosts[of].disk.clone();
    at
}

fn names_both(net: &Net, ended: usize, lives: usize) -> bool {
    let line = net.hosts[ended].stopped.as_ref().map(ToString::to_string).unwrap_or_default();
    [ended, lives].iter().all(|&at| line.contains(&net.hosts[at].address.to_string()))
}

#[test]
fn the_copy_ends_within_five_seconds_and_names_both_addresses() {
    for seed in seeds(10) {
        for weather in [FAIR, FOUL] {
            let mut net = cluster(seed, 4);
            net.weather = weather;
            let copy = add_copy(&mut net, 2);
            net.start(copy);
            assert!(
                net.run_until(5_000, |net| net.hosts[copy].stopped.is_some()).is_some(),
                "{seed}"
            );
            assert!(names_both(&net, copy, 2), "{:?}", net.hosts[copy].stopped);
            assert!(net.run_until(MEET_MS, Net::agree).is_some(), "seed {seed}");
            assert!(net.hosts[2].stopped.is_none());
            assert_eq!(net.count(2, |event| matches!(event, Event::Rival { .. })), 1);
        }
    }
}

#[test]
fn a_copy_of_one_side_is_found_too() {
    for seed in seeds(5) {
        let mut net = cluster(seed, 3);
        let copy = net.add_host(true, true);
        net.hosts[copy].disk.store = net.hosts[1].disk.store;
        net.start(copy);
        assert!(net.run_until(5_000, |net| net.hosts[copy].stopped.is_some()).is_some(), "{seed}");
        assert!(names_both(&net, copy, 1));
        assert!(net.run_until(MEET_MS, Net::agree).is_some(), "seed {seed}");
    }
}

#[test]
fn a_copy_whose_original_it_cannot_reach_ends_by_what_the_others_say() {
    for seed in seeds(5) {
        let mut net = cluster(seed, 4);
        let copy = add_copy(&mut net, 2);
        net.cut_between(&[copy], &[2]);
        net.start(copy);
        assert!(net.run_until(5_000, |net| net.hosts[copy].stopped.is_some()).is_some(), "{seed}");
        assert!(names_both(&net, copy, 2));
    }
}

#[test]
fn a_node_that_restarts_at_another_address_is_not_taken_for_a_copy_of_itself() {
    for seed in seeds(10) {
        let mut net = cluster(seed, 4);
        net.weather = FOUL;
        net.kill(2);
        net.hosts[2].address.set_port(9_999);
        net.start(2);
        assert!(net.run_until(MEET_MS, Net::agree).is_some(), "seed {seed}");
        assert!(net.hosts.iter().all(|host| host.stopped.is_none()), "seed {seed}");
    }
}

#[test]
fn of_two_copies_that_start_at_once_exactly_one_lives_on() {
    for seed in seeds(10) {
        let mut net = Net::of(seed, 2);
        let copy = add_copy(&mut net, 1);
        net.start_all();
        assert!(net.run_until(10_000, |net| net.alive().len() == 2).is_some(), "seed {seed}");
        assert!(net.run_until(MEET_MS, Net::agree).is_some(), "seed {seed}");
        net.run(20_000);
        assert!(net.agree() && net.hosts[0].node.is_some(), "seed {seed}");
        let (ended, lives) = if net.hosts[1].node.is_some() { (copy, 1) } else { (1, copy) };
        assert!(matches!(net.hosts[ended].stopped, Some(Stop::Copied { .. })));
        assert!(names_both(&net, ended, lives));
    }
}

#[test]
fn a_copy_that_joined_the_other_side_of_a_split_ends_when_it_heals_though_its_boot_is_later() {
    for seed in seeds(10) {
        let mut net = cluster(seed, 4);
        net.run(20_000);
        net.cut_between(&[0, 1], &[2, 3]);
        net.run(5_000);
        let copy = add_copy(&mut net, 1);
        net.hosts[copy].flags.seeds = vec!["host-2".to_owned()];
        net.cut_between(&[copy], &[0, 1]);
        // It restarts until its boot is far ahead, and joins there.
        for _ in 0..3 {
            net.start(copy);
            net.run(8_000);
            net.kill(copy);
        }
        net.start(copy);
        net.run(10_000);
        assert!(net.node(copy).is_in() && net.hosts[copy].stopped.is_none());
        net.cut.clear();
        assert!(net.run_until(10_000, |net| net.alive().len() == 4).is_some(), "seed {seed}");
        assert!(net.run_until(MEET_MS, Net::agree).is_some(), "seed {seed}");
        assert!(net.hosts[1].stopped.is_none() && names_both(&net, copy, 1), "seed {seed}");
    }
}

#[test]
fn a_directory_that_was_restored_from_an_older_copy_is_told_and_joins() {
    let mut net = cluster(30, 3);
    for _ in 0..4 {
        net.kill(1);
        net.start(1);
        net.run(3_000);
    }
    net.kill(1);
    net.hosts[1].disk.ingester.as_mut().unwrap().1 = 1;
    net.run(5_000);
    net.start(1);
    assert!(net.run_until(MEET_MS, Net::agree).is_some());
    assert_eq!(net.count(1, |event| matches!(event, Event::BootWentBack { known: 5, .. })), 1);
}

#[test]
fn two_nodes_that_say_to_be_at_one_address_are_told() {
    let mut net = cluster(31, 3);
    net.run(5_000);
    // Another one comes up where the last one says to be, and is reached in its place.
    net.kill(1);
    net.hosts[1].address = net.hosts[2].address;
    net.start(1);
    net.run(20_000);
    let told = net.hosts[0].events.iter().filter_map(|(_, event)| match event {
        Event::SameAddress { known, other } => Some((known.id(), other.id(), event.to_string())),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    let [(known, other, line)] = told.as_slice() else { panic!("{told:?}") };
    let id = |at: usize| net.hosts[at].disk.ingester.unwrap().0;
    assert_eq!((*known, *other), (id(2), id(1)));
    assert!(line.contains("--cluster.advertise-addr"), "{line}");
    assert!(net.hosts.iter().all(|host| host.stopped.is_none()));
}
