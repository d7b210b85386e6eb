//! What unit tests have in common: nodes whose datagrams arrive at once.

use std::net::SocketAddr;
use std::num::NonZeroU8;

use engine::identity::{Identity, NodeId, Side};

use crate::{Effect, Event, Gossip, Now, ProcessId, Saved, Secrets, Settings, Sides};

pub(crate) fn address(at: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, at], 7659))
}

/// How node `at` (from 1) is started; the first one is the seed of all.
pub(crate) fn settings(at: u8) -> Settings {
    let id = |side: u8| NodeId(u128::from(at) << 8 | u128::from(side));
    let sides = [
        Identity { boot: 3, id: id(1), side: Side::Ingest },
        Identity { boot: 2, id: id(2), side: Side::Store },
    ];
    Settings {
        cluster: "oklogd".to_owned(),
        sides: Sides::new(&sides).unwrap(),
        process: ProcessId(0x1000 + u64::from(at)),
        address: address(at),
        api_port: 7650,
        copies: NonZeroU8::new(2),
        release: [0, 1, 0],
        seeds: vec!["seed".to_owned()],
        secrets: Secrets::NONE,
        random: u64::from(at),
    }
}

/// A few nodes.
pub(crate) struct Few {
    pub(crate) now: Now,
    pub(crate) nodes: Vec<Gossip>,
    /// Everything that was sent: from, to, bytes.
    pub(crate) sent: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    pub(crate) events: Vec<(usize, Event)>,
}

impl Few {
    pub(crate) fn of(settings: Vec<Settings>) -> Self {
        let now = Now { ms: 1_000, wall_ms: 1_790_000_000_000 };
        let start = |settings| Gossip::new(settings, &Saved::default(), now);
        let nodes = settings.into_iter().map(start).collect();
        Self { now, nodes, sent: Vec::new(), events: Vec::new() }
    }

    /// Does what a node wants; what it sent.
    pub(crate) fn drain(&mut self, at: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut sent = Vec::new();
        while let Some(effect) = self.nodes[at].poll() {
            match effect {
                Effect::Send { to, datagram } => sent.push((to, datagram)),
                Effect::Resolve { seed, .. } => {
                    self.nodes[at].resolved(self.now, seed, vec![address(1)]);
                }
                Effect::Tell(event) => self.events.push((at, event)),
                Effect::Save | Effect::Stop(_) => {}
            }
        }
        sent
    }

    pub(crate) fn run(&mut self, for_ms: u64) {
        let end_ms = self.now.ms + for_ms;
        while self.now.ms < end_ms {
            self.now = Now { ms: self.now.ms + 10, wall_ms: self.now.wall_ms + 10 };
            let mut flying = Vec::new();
            for at in 0..self.nodes.len() {
                self.nodes[at].turn(self.now);
                let from = self.nodes[at].own().address;
                flying.extend(self.drain(at).into_iter().map(|(to, bytes)| (from, to, bytes)));
            }
            let mut landed = 0;
            while let Some((from, to, bytes)) = flying.pop() {
                landed += 1;
                assert!(landed < 2_000, "they do not stop talking");
                self.sent.push((from, to, bytes.clone()));
                let Some(at) = self.nodes.iter().position(|node| node.own().address == to) else {
                    continue;
                };
                self.nodes[at].receive(self.now, from, &bytes);
                flying.extend(self.drain(at).into_iter().map(|(next, bytes)| (to, next, bytes)));
            }
        }
    }
}
