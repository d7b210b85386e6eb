//! The machine among others of its kind, on a network, with disks and clocks that are of one seed.
//! `OKLOGD_SEEDS=5000 cargo test -p gossip --test simulation` tries more seeds, `OKLOGD_SEED=17` one.

#![allow(clippy::unwrap_used)]

mod chaos;
mod copies;
mod network;
mod refusals;
mod strangers;
mod times;

use engine::ulid::Ulid;
use gossip::{Effect, Event, Facts, ForgetError, Saved, State, Stop};
use network::{FOUL, Net};

/// The seeds that a test runs.
pub fn seeds(usually: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("OKLOGD_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("OKLOGD_SEEDS").unwrap_or(usually)).collect(),
    }
}

/// Time in which nodes on a bad network find each other, milliseconds.
const MEET_MS: u64 = 15_000;

/// A cluster that has met.
pub fn cluster(seed: u64, count: usize) -> Net {
    let mut net = Net::of(seed, count);
    net.start_all();
    assert!(net.run_until(MEET_MS, Net::agree).is_some(), "seed {seed}: they do not meet");
    net
}

#[test]
fn nodes_meet_in_whatever_order_they_start_before_their_seed_too() {
    for seed in seeds(20) {
        let mut net = Net::of(seed, 6);
        net.weather = FOUL;
        let mut order: Vec<usize> = (0..6).collect();
        for left in (1..order.len()).rev() {
            order.swap(left, net.random.below(left as u64 + 1) as usize);
        }
        for at in order {
            net.start(at);
            let pause_ms = net.random.below(5_000);
            net.run(pause_ms);
        }
        assert!(net.run_until(MEET_MS, Net::agree).is_some(), "seed {seed}");
    }
}

#[test]
fn a_node_whose_seeds_are_all_itself_is_the_first_of_its_cluster_at_once() {
    let mut net = Net::of(1, 1);
    net.start(0);
    net.run(500);
    assert!(net.node(0).is_in() && !net.node(0).has_met());
    assert_eq!(net.count(0, |event| *event == Event::In { is_alone: true }), 1);
    // It asks nobody for ever.
    let sent = net.hosts[0].sent;
    net.run(60_000);
    assert_eq!(net.hosts[0].sent, sent);
}

#[test]
fn a_node_whose_seeds_are_silent_is_not_in_and_goes_on_asking() {
    let mut net = Net::of(2, 2);
    net.start(1);
    net.run(120_000);
    assert!(!net.node(1).is_in() && !net.node(1).has_met() && net.hosts[1].stopped.is_none());
    net.start(0);
    assert!(net.run_until(5_000, Net::agree).is_some());
}

#[test]
fn a_seed_that_gets_another_address_is_found_by_its_name() {
    let mut net = Net::of(3, 3);
    net.start(1);
    net.start(2);
    net.run(10_000);
    let moved = std::net::SocketAddr::from(([10, 9, 9, 9], 7000));
    net.hosts[0].address = moved;
    net.names.insert("host-0".to_owned(), vec![moved]);
    net.start(0);
    assert!(net.run_until(35_000, Net::agree).is_some());
}

#[test]
fn every_address_of_a_name_is_asked() {
    let mut net = Net::of(4, 4);
    let all = net.hosts.iter().map(|host| host.address).collect();
    net.names.insert("host-0".to_owned(), all);
    (1..4).for_each(|at| net.start(at));
    assert!(net.run_until(MEET_MS, Net::agree).is_some());
}

#[test]
fn members_are_reached_by_ipv6() {
    let mut net = Net::of(5, 3);
    for (at, host) in net.hosts.iter_mut().enumerate() {
        host.address = format!("[fd00::{}]:7659", at + 1).parse().unwrap();
        net.names.insert(format!("host-{at}"), vec![host.address]);
    }
    net.start_all();
    assert!(net.run_until(MEET_MS, Net::agree).is_some());
    assert!(net.node(1).members().iter().all(|view| view.member.api().is_ipv6()));
}

#[test]
fn all_nodes_lose_power_and_find_each_other_again_without_any_seed() {
    let mut net = cluster(6, 5);
    net.run(5_000);
    (0..5).for_each(|at| net.kill(at));
    net.run(60_000);
    net.names.clear();
    for at in 0..5 {
        net.hosts[at].flags.seeds = vec!["gone".to_owned()];
        net.start(at);
        // Before anybody answers it knows that it has met others, and whom; and nobody has been down for
        // longer than it has lived itself.
        let members = net.node(at).members();
        assert!(net.node(at).has_met() && members.len() == 4);
        assert!(members.iter().all(|view| view.state == State::Down && view.for_ms == 0));
        net.run(3_000);
    }
    assert!(net.run_until(MEET_MS, Net::agree).is_some());
}

#[test]
fn a_restarted_node_replaces_its_former_life_at_once() {
    for seed in seeds(10) {
        let mut net = cluster(seed, 4);
        net.kill(2);
        net.run(300);
        net.start(2);
        let took_ms = net.run_until(3_000, Net::agree);
        assert!(took_ms.is_some_and(|took_ms| took_ms <= 1_500), "seed {seed}: {took_ms:?}");
        assert_eq!(net.node(1).members().len(), 3);
    }
}

#[test]
fn a_node_that_leaves_is_seen_to_be_down_without_waiting() {
    let mut net = cluster(7, 5);
    net.run(5_000);
    net.leave(3);
    let is_seen = |net: &Net| [0, 1, 2, 4].iter().all(|&at| net.sees(at, 3) == Some(State::Down));
    let took_ms = net.run_until(2_000, is_seen);
    assert!(took_ms.is_some_and(|took_ms| took_ms <= 1_000), "{took_ms:?}");
}

#[test]
fn a_node_that_comes_back_empty_under_its_old_address_is_another_one() {
    let mut net = cluster(8, 4);
    net.kill(1);
    let before = net.hosts[1].disk.clone();
    let id = net.id();
    net.hosts[1].disk.ingester = Some((id, 0));
    net.hosts[1].disk.store = Some((net.id(), 0));
    net.hosts[1].disk.members = Saved::default().encode();
    net.start(1);
    assert!(net.run_until(MEET_MS, Net::agree).is_some());
    // The old one is missed, not replaced.
    let old = before.ingester.unwrap().0;
    let views = net.node(0).members();
    let old = views.iter().find(|view| view.member.id() == old).unwrap();
    assert_eq!((old.state, views.len()), (State::Down, 4));
}

#[test]
fn a_role_that_is_added_or_taken_away_is_the_same_directory_or_one_that_is_missed() {
    let mut net = Net::new(9);
    net.add_host(true, true);
    net.add_host(false, true);
    net.start_all();
    assert!(net.run_until(MEET_MS, Net::agree).is_some());
    // A store becomes an ingester, too: known by another id, and still one member.
    net.kill(1);
    net.hosts[1].disk.ingester = Some((net.id(), 0));
    net.start(1);
    assert!(net.run_until(MEET_MS, Net::agree).is_some());
    assert_eq!(net.node(0).members().len(), 1);
    // Its store is taken away: that one is missed.
    net.kill(1);
    let store = net.hosts[1].disk.store.take().unwrap();
    net.start(1);
    assert!(net.run_until(MEET_MS, Net::agree).is_some());
    let views = net.node(0).members();
    let missed = views.iter().find(|view| view.member.id() == store.0).unwrap();
    assert_eq!((missed.state, views.len()), (State::Down, 2));
    assert!(missed.member.sides.is_store() && !missed.member.sides.is_ingester());
    // And is found again at another node.
    let at = net.add_host(false, true);
    net.hosts[at].disk.store = Some(store);
    net.start(at);
    assert!(net.run_until(MEET_MS, Net::agree).is_some());
    assert_eq!(net.node(0).members().len(), 2);
}

#[test]
fn what_a_node_says_of_itself_is_known_everywhere_and_its_watermark_never_goes_back() {
    let mut net = cluster(10, 4);
    let facts = |watermark, is_draining| Facts {
        watermark: Ulid(watermark),
        disk_free_bytes: 7 << 30,
        backlog_bytes: 42,
        is_draining,
    };
    let say = |net: &mut Net, facts| net.hosts[2].node.as_mut().unwrap().set_facts(facts);
    say(&mut net, facts(1_000, true));
    let is_known = |net: &Net| [0, 1, 3].iter().all(|&at| net.sees(at, 2) == Some(State::Draining));
    assert!(net.run_until(5_000, is_known).is_some());
    say(&mut net, facts(900, false));
    net.run(5_000);
    let id = net.node(2).own().id();
    let view = net.node(0).members().into_iter().find(|view| view.member.id() == id).unwrap();
    assert_eq!(view.facts.unwrap().0, facts(900, false));
    assert_eq!((view.watermark, view.state), (Ulid(1_000), State::Up));
    // It outlives both of them.
    net.run(11_000);
    net.kill(2);
    net.kill(0);
    net.start(0);
    let view = net.node(0).members().into_iter().find(|view| view.member.id() == id).unwrap();
    assert_eq!((view.watermark, view.facts), (Ulid(1_000), None));
}

#[test]
fn who_is_forgotten_is_forgotten_by_all_and_comes_back_with_a_later_boot_only() {
    let mut net = cluster(11, 5);
    net.kill(4);
    // Away while it happens.
    net.kill(3);
    let id = net.hosts[4].disk.ingester.unwrap().0;
    let now = net.now(0);
    let forget = |net: &mut Net| net.hosts[0].node.as_mut().unwrap().forget(now, id);
    assert!(matches!(forget(&mut net), Err(ForgetError::Up(_))));
    net.run(5_000);
    let now = net.now(0);
    assert_eq!(net.hosts[0].node.as_mut().unwrap().forget(now, id), Ok(()));
    let knows_not = |net: &Net, at: usize| net.sees(at, 4).is_none();
    assert!(net.run_until(5_000, |net| [0, 1, 2].iter().all(|&at| knows_not(net, at))).is_some());
    net.start(3);
    assert!(net.run_until(MEET_MS, |net| knows_not(net, 3) && net.agree()).is_some());
    // All of them keep it, whatever happens.
    for at in 0..4 {
        net.kill(at);
        net.start(at);
    }
    assert!(
        net.run_until(MEET_MS, |net| (0..4).all(|at| net.node(at).forgotten().len() == 2))
            .is_some()
    );
    // Its life of before is told so, and ends; a later one is welcome.
    net.hosts[4].disk.ingester.as_mut().unwrap().1 = 0;
    net.hosts[4].disk.store.as_mut().unwrap().1 = 0;
    net.start(4);
    assert!(net.run_until(5_000, |net| net.hosts[4].stopped.is_some()).is_some());
    assert!(matches!(net.hosts[4].stopped, Some(Stop::Forgotten { .. })));
    assert!((0..4).all(|at| knows_not(&net, at)));
    net.start(4);
    assert!(net.run_until(MEET_MS, Net::agree).is_some());
}

#[test]
fn what_was_forgotten_while_a_node_was_cut_off_is_not_brought_back_by_it() {
    let mut net = cluster(12, 5);
    net.kill(4);
    net.run(5_000);
    net.cut_between(&[0, 1], &[2, 3]);
    net.run(5_000);
    let (now, id) = (net.now(0), net.node(0).own().id());
    assert!(matches!(
        net.hosts[0].node.as_mut().unwrap().forget(now, id),
        Err(ForgetError::Own(_))
    ));
    let id = net.hosts[4].disk.ingester.unwrap().0;
    assert_eq!(net.hosts[0].node.as_mut().unwrap().forget(now, id), Ok(()));
    net.run(20_000);
    assert_eq!(net.sees(2, 4), Some(State::Down));
    net.cut.clear();
    let is_gone = |net: &Net| (0..4).all(|at| net.sees(at, 4).is_none()) && net.agree();
    assert!(net.run_until(MEET_MS, is_gone).is_some());
}

#[test]
fn the_same_calls_have_the_same_effects() {
    let run = |seed| {
        let mut net = Net::of(seed, 5);
        net.weather = FOUL;
        net.start_all();
        net.run(20_000);
        net.kill(1);
        net.run(10_000);
        net.trace
    };
    for seed in seeds(3) {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

#[test]
fn nothing_waits_to_be_done_without_bound() {
    // A shell that never takes an effect.
    let mut net = cluster(13, 3);
    let node = net.hosts[0].node.as_mut().unwrap();
    let mut now = gossip::Now { ms: net.now_ms, wall_ms: 0 };
    for _ in 0..200_000 {
        now.ms = now.ms.max(node.next_ms());
        node.turn(now);
    }
    let mut effects = 0;
    while node.poll().is_some() {
        effects += 1;
    }
    assert!(effects <= gossip::limits::EFFECTS_MAX, "{effects}");
    let is_effect = |effect: Option<Effect>| effect.is_none();
    assert!(is_effect(node.poll()));
}
