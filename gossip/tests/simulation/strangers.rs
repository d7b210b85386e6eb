//! Datagrams that nobody should have sent.

use std::net::SocketAddr;

use gossip::{Event, Saved, limits};

use crate::network::Net;
use crate::{cluster, seeds};

fn stranger(net: &mut Net) -> SocketAddr {
    let port = 1 + net.random.below(60_000) as u16;
    SocketAddr::from(([192, 168, 7, 7], port))
}

/// What a node believes, without times.
fn belief(net: &Net, at: usize) -> Vec<u8> {
    net.node(at).saved().encode()
}

#[test]
fn garbage_cut_changed_and_oversized_datagrams_change_nothing() {
    for seed in seeds(4) {
        for secrets in [vec![], vec!["a secret of this cluster".to_owned()]] {
            let mut net = Net::of(seed, 4);
            net.hosts.iter_mut().for_each(|host| host.flags.secrets.clone_from(&secrets));
            net.start_all();
            assert!(net.run_until(15_000, Net::agree).is_some());
            net.run(5_000);
            let before: Vec<_> = (0..4).map(|at| belief(&net, at)).collect();
            for _ in 0..2_000 {
                let which = net.random.below(net.recorded.len() as u64) as usize;
                let (from, to, mut bytes) = net.recorded[which].clone();
                match net.random.below(5) {
                    0 => bytes.truncate(net.random.below(bytes.len() as u64) as usize),
                    1 => bytes.resize(limits::DATAGRAM_BYTES_MAX + 1, 0),
                    2 => bytes.resize(60_000, 0),
                    3 => bytes.iter_mut().for_each(|byte| *byte = net.random.next_u64() as u8),
                    _ => {
                        let at = net.random.below(bytes.len() as u64) as usize;
                        bytes[at] ^= 1 << net.random.below(8);
                    }
                }
                let from = if net.random.chance(0.5) { from } else { stranger(&mut net) };
                net.send(from, to, bytes);
                net.run(3);
            }
            net.run(1_000);
            assert!(net.agree(), "seed {seed}");
            let after: Vec<_> = (0..4).map(|at| belief(&net, at)).collect();
            assert_eq!(before, after, "seed {seed}");
            let garbage: u64 = (0..4).map(|at| net.node(at).counts().garbage).sum();
            assert!(garbage > 1_000, "{garbage}");
        }
    }
}

#[test]
fn recorded_datagrams_of_a_cluster_with_a_secret_do_nothing_when_they_come_again() {
    for seed in seeds(6) {
        let mut net = cluster(seed, 4);
        // What is said while one dies, comes back, and another one dies.
        net.kill(3);
        net.run(4_000);
        net.start(3);
        net.run(4_000);
        net.kill(2);
        net.run(4_000);
        let recorded = net.recorded.clone();
        let before: Vec<_> = [0, 1, 3].iter().map(|&at| belief(&net, at)).collect();
        let stopped = |net: &Net| net.hosts.iter().any(|host| host.stopped.is_some());
        for (from, to, bytes) in &recorded {
            net.send(*from, *to, bytes.clone());
            net.run(2);
        }
        assert!(net.agree() && !stopped(&net), "seed {seed}");
        let after: Vec<_> = [0, 1, 3].iter().map(|&at| belief(&net, at)).collect();
        assert_eq!(before, after, "seed {seed}");
        // Nor to later lives, their own former words included.
        for at in [0, 1, 3] {
            net.kill(at);
            net.start(at);
        }
        for (from, to, bytes) in &recorded {
            net.send(*from, *to, bytes.clone());
            net.run(2);
        }
        assert!(net.run_until(15_000, Net::agree).is_some() && !stopped(&net), "seed {seed}");
        let is_rival = |event: &Event| matches!(event, Event::Rival { .. });
        assert!((0..4).all(|at| net.count(at, is_rival) == 0), "seed {seed}");
        let unknown: u64 = [0, 1, 3].iter().map(|&at| net.node(at).counts().unknown).sum();
        assert!(unknown > 100, "{unknown}");
    }
}

#[test]
fn nobody_is_answered_with_more_than_he_sent() {
    let mut net = cluster(7, 3);
    let (at, to) = (net.now(0), net.hosts[0].address);
    let from = stranger(&mut net);
    let recorded: Vec<Vec<u8>> = net
        .recorded
        .iter()
        .filter(|(_, known, _)| *known == to)
        .map(|(_, _, b)| b.clone())
        .collect();
    let node = net.hosts[0].node.as_mut().unwrap();
    while node.poll().is_some() {}
    for bytes in recorded {
        node.receive(at, from, &bytes);
        let mut answered = 0;
        while let Some(effect) = node.poll() {
            if let gossip::Effect::Send { to, datagram } = effect
                && to == from
            {
                answered += datagram.len();
            }
        }
        assert!(answered <= bytes.len(), "{answered} for {}", bytes.len());
    }
}

#[test]
fn a_flood_of_strangers_is_told_within_bounds_and_fills_nothing() {
    let mut net = cluster(8, 3);
    let other = net.add_host(true, true);
    net.hosts[other].flags.secrets = vec!["quite another secret".to_owned()];
    net.start(other);
    net.run(300);
    let asked: Vec<_> = net.recorded.iter().rev().take(50).map(|(_, _, b)| b.clone()).collect();
    let to = net.hosts[0].address;
    for round in 0..3_000 {
        let from = stranger(&mut net);
        net.send(from, to, asked[round % asked.len()].clone());
        net.run(1);
    }
    let events = &net.hosts[0].events;
    let told = events.iter().filter(|(_, event)| matches!(event, Event::Refused(_)));
    let lines: Vec<String> = told.map(|(_, event)| event.to_string()).collect();
    assert!(lines.len() <= limits::TOLD_MAX + 1, "{}", lines.len());
    assert!(lines.iter().map(String::len).sum::<usize>() < 100_000);
}

#[test]
fn members_that_somebody_makes_up_are_as_many_as_there_may_be() {
    // Without a secret anybody can. He starts a thousand nodes, one after the other.
    let mut net = Net::of(9, 2);
    net.hosts.iter_mut().for_each(|host| host.flags.secrets.clear());
    net.start_all();
    assert!(net.run_until(15_000, Net::agree).is_some());
    let many = limits::MEMBERS_MAX + 40;
    let at = net.add_host(false, true);
    net.hosts[at].flags.secrets.clear();
    for _ in 0..many {
        let id = net.id();
        net.hosts[at].disk.store = Some((id, 0));
        net.hosts[at].disk.members = Saved::default().encode();
        net.start(at);
        net.run(450);
        net.kill(at);
    }
    for at in 0..2 {
        let members = net.node(at).members().len();
        assert!((limits::MEMBERS_MAX / 2..=limits::MEMBERS_MAX).contains(&members), "{members}");
        assert!(belief(&net, at).len() < 100_000);
    }
    // The two of them still know each other.
    net.run(5_000);
    assert!(net.agree());
}
