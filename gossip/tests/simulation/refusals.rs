//! Nodes that do not agree: refused in a line that names both, and never half a member.

use gossip::Event;

use crate::network::{Flags, Net};
use crate::{cluster, seeds};

/// A cluster of three, and a fourth node that is started otherwise.
fn with_other(seed: u64, change: impl Fn(&mut Flags)) -> Net {
    let mut net = cluster(seed, 3);
    let other = net.add_host(true, true);
    change(&mut net.hosts[other].flags);
    net.start(other);
    net.run(40_000);
    net
}

fn lines(net: &Net, at: usize) -> Vec<String> {
    let events = net.hosts[at].events.iter();
    let refused = events.filter(|(_, event)| matches!(event, Event::Refused(_)));
    refused.map(|(_, event)| event.to_string()).collect()
}

/// Nobody has it on his list, it has nobody, and all go on.
fn assert_apart(net: &Net, words: &[&str]) {
    assert!((0..3).all(|at| net.sees(at, 3).is_none() && net.sees(3, at).is_none()));
    assert!((0..4).all(|at| net.hosts[at].stopped.is_none()));
    let (seed, other) = (net.hosts[0].address.to_string(), net.hosts[3].address.to_string());
    for at in [0, 3] {
        let lines = lines(net, at);
        let [line] = lines.as_slice() else { panic!("told other than once: {lines:?}") };
        assert!(line.contains(&seed) && line.contains(&other), "{line}");
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
        assert!(!line.contains('\n'));
    }
    assert!(!net.node(3).has_met());
}

#[test]
fn a_node_of_another_cluster_is_refused() {
    for seed in seeds(3) {
        let net = with_other(seed, |flags| flags.cluster = "other".to_owned());
        assert_apart(&net, &["\"other\"", "\"oklogd\"", "--cluster.name"]);
    }
}

#[test]
fn a_store_that_wants_another_number_of_copies_is_refused() {
    for seed in seeds(3) {
        let net = with_other(seed, |flags| flags.copies = 3);
        assert_apart(&net, &["2", "3", "--store.segment-replication-factor"]);
    }
}

#[test]
fn a_node_with_another_secret_is_refused() {
    for seed in seeds(3) {
        let secret = "quite another secret".to_owned();
        let net = with_other(seed, |flags| flags.secrets = vec![secret.clone()]);
        assert_apart(&net, &["--cluster.secret-file"]);
    }
}

#[test]
fn a_node_without_a_secret_is_refused_by_those_that_have_one_and_the_other_way_round() {
    let net = with_other(1, |flags| flags.secrets.clear());
    assert_apart(&net, &["--cluster.secret-file"]);
    let mut net = Net::of(2, 3);
    net.hosts.iter_mut().for_each(|host| host.flags.secrets.clear());
    net.start_all();
    assert!(net.run_until(15_000, Net::agree).is_some());
    net.add_host(true, true);
    net.start(3);
    net.run(40_000);
    assert_apart(&net, &["--cluster.secret-file"]);
}

#[test]
fn an_ingester_takes_the_number_of_copies_that_stores_want_whatever_it_is() {
    let mut net = Net::new(3);
    net.add_host(true, false);
    net.add_host(false, true);
    net.add_host(false, true);
    net.hosts[1].flags.copies = 3;
    net.hosts[2].flags.copies = 3;
    net.start_all();
    assert!(net.run_until(15_000, Net::agree).is_some());
}

#[test]
fn who_is_refused_is_no_member_through_others_either() {
    // Two stores that know nobody but an ingester each; the ingesters know each other.
    let mut net = Net::new(4);
    for (is_ingester, seed) in [(true, 0), (true, 0), (false, 0), (false, 1)] {
        let at = net.add_host(is_ingester, !is_ingester);
        net.hosts[at].flags.seeds = vec![format!("host-{seed}")];
    }
    net.hosts[2].flags.copies = 2;
    net.hosts[3].flags.copies = 3;
    for at in 0..3 {
        net.start(at);
    }
    assert!(net.run_until(15_000, Net::agree).is_some());
    net.start(3);
    net.run(30_000);
    assert!((0..3).all(|at| net.sees(at, 3).is_none()));
    assert!(!net.node(3).has_met());
}

#[test]
fn a_mended_node_is_let_in() {
    let mut net = with_other(5, |flags| flags.cluster = "other".to_owned());
    net.kill(3);
    net.hosts[3].flags.cluster = "oklogd".to_owned();
    net.start(3);
    assert!(net.run_until(15_000, Net::agree).is_some());
}

#[test]
fn secrets_are_rotated_node_by_node_without_anybody_being_missed() {
    let (old, new) = ("the old secret of all".to_owned(), "the new secret of all".to_owned());
    let mut net = Net::of(6, 4);
    net.hosts.iter_mut().for_each(|host| host.flags.secrets = vec![old.clone()]);
    net.start_all();
    assert!(net.run_until(15_000, Net::agree).is_some());
    let steps = [vec![old.clone(), new.clone()], vec![new.clone(), old.clone()], vec![new.clone()]];
    for secrets in steps {
        for at in 0..4 {
            net.kill(at);
            net.hosts[at].flags.secrets.clone_from(&secrets);
            net.start(at);
            assert!(net.run_until(5_000, Net::agree).is_some());
        }
    }
    assert!((0..4).all(|at| lines(&net, at).is_empty()));
}
