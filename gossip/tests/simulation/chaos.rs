//! Everything at once, by seeds: after it is over all agree again, and nothing happened that may not.

use gossip::{Event, State, Stop};

use crate::network::{FAIR, FOUL, Net, Weather};
use crate::seeds;

/// One bad thing.
fn happen(net: &mut Net) {
    let count = net.hosts.len() as u64;
    let at = net.random.below(count) as usize;
    match net.random.below(10) {
        0 | 1 if net.hosts[at].node.is_some() => net.kill(at),
        2 if net.hosts[at].node.is_some() => net.leave(at),
        0..=3 if net.hosts[at].node.is_none() => net.start(at),
        3 => {
            let for_ms = net.random.below(8_000);
            net.stall(at, for_ms);
        }
        4 => {
            let (some, others): (Vec<usize>, Vec<usize>) =
                (0..count as usize).partition(|_| net.random.chance(0.5));
            net.cut_between(&some, &others);
        }
        5 => drop(net.cut.insert((at, net.random.below(count) as usize))),
        6 => net.cut.clear(),
        7 => net.weather = if net.random.chance(0.5) { FOUL } else { FAIR },
        8 => net.weather = Weather { loss: 0.4, twice: 0.3, delay_ms: (0, 500) },
        9 => {
            // An hour, either way.
            net.hosts[at].clock_ms = net.random.below(7_200_000) as i64 - 3_600_000;
        }
        _ => {}
    }
}

#[test]
fn whatever_happens_all_agree_in_the_end_and_nobody_is_refused() {
    for seed in seeds(40) {
        let count = 2 + (seed % 5) as usize;
        let mut net = Net::of(seed, count);
        net.start_all();
        for _ in 0..30 {
            happen(&mut net);
            let pause_ms = net.random.below(3_000);
            net.run(pause_ms);
        }
        net.weather = FAIR;
        net.cut.clear();
        let down: Vec<usize> = (0..count).filter(|&at| net.hosts[at].node.is_none()).collect();
        // One of the dead stays so, but not the seed: who knows nobody else could not be found.
        let stays: Option<usize> = down.iter().copied().find(|&at| at > 0);
        for at in down.into_iter().filter(|&at| Some(at) != stays) {
            net.start(at);
        }
        net.run(8_000);
        assert!(net.run_until(20_000, Net::agree).is_some(), "seed {seed}: {}", net.opinions());
        net.run(10_000);
        assert!(net.agree(), "seed {seed}, for a moment only: {}", net.opinions());
        for at in net.alive() {
            let views = net.node(at).members();
            assert!(views.iter().all(|view| view.state != State::Suspect), "seed {seed}");
            if let Some(dead) = stays {
                let state = net.sees(at, dead);
                assert!(matches!(state, Some(State::Down) | None), "seed {seed}: {state:?}");
            }
            let refused = net.count(at, |event| matches!(event, Event::Refused(_)));
            assert_eq!(refused, 0, "seed {seed}: {:?}", net.hosts[at].events);
        }
        let stops: Vec<&Stop> = net.hosts.iter().filter_map(|host| host.stopped.as_ref()).collect();
        assert!(stops.is_empty(), "seed {seed}: {stops:?}");
    }
}
