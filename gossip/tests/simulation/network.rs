//! A network, disks and clocks of one seed, on which the machine runs as it ships: datagrams are lost,
//! delayed, come twice and out of order; links break in one or both directions; processes die, stand
//! still, come back with what their disks hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU8;

use engine::identity::{Identity, NodeId, Side};
use engine::random::Random;
use gossip::{
    Effect, Event, Facts, Gossip, Now, ProcessId, Saved, Secrets, Settings, Sides, State, Stop,
};

/// A wall clock at the beginning, milliseconds since 1970.
const WALL_MS: u64 = 1_790_000_000_000;
/// Datagrams that a socket keeps for a process that stands still.
const SOCKET_MAX: usize = 200;

/// A data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    pub ingester: Option<(NodeId, u64)>,
    pub store: Option<(NodeId, u64)>,
    pub members: Vec<u8>,
}

/// How a node is started.
#[derive(Debug, Clone)]
pub struct Flags {
    pub cluster: String,
    pub copies: u8,
    pub seeds: Vec<String>,
    pub secrets: Vec<String>,
}

/// A machine in both meanings.
pub struct Host {
    pub address: SocketAddr,
    pub disk: Disk,
    pub flags: Flags,
    pub node: Option<Gossip>,
    pub stopped: Option<Stop>,
    pub events: Vec<(u64, Event)>,
    pub clock_ms: i64,
    pub facts: Facts,
    pub sent_bytes: u64,
    pub sent: u64,
    stalled_until_ms: u64,
    inbox: VecDeque<(SocketAddr, Vec<u8>)>,
}

/// How bad the network is.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    pub loss: f64,
    pub twice: f64,
    pub delay_ms: (u64, u64),
}

pub(crate) const FAIR: Weather = Weather { loss: 0.0, twice: 0.0, delay_ms: (0, 2) };
pub(crate) const FOUL: Weather = Weather { loss: 0.1, twice: 0.1, delay_ms: (0, 60) };

enum What {
    Datagram { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Resolved { host: usize, process: ProcessId, seed: usize, addresses: Vec<SocketAddr> },
}

pub struct Net {
    pub now_ms: u64,
    pub random: Random,
    pub hosts: Vec<Host>,
    pub weather: Weather,
    /// Links that carry nothing, by direction.
    pub cut: BTreeSet<(usize, usize)>,
    pub names: BTreeMap<String, Vec<SocketAddr>>,
    /// The last datagrams that were sent.
    pub recorded: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    queue: BTreeMap<(u64, u64), What>,
    place: u64,
    /// Of everything that happened.
    pub trace: u32,
}

impl Net {
    pub fn new(seed: u64) -> Self {
        Self {
            now_ms: 0,
            random: Random::new(seed),
            hosts: Vec::new(),
            weather: FAIR,
            cut: BTreeSet::new(),
            names: BTreeMap::new(),
            recorded: VecDeque::new(),
            queue: BTreeMap::new(),
            place: 0,
            trace: 0,
        }
    }

    /// A network of so many hosts that take and keep records, whose seed is the first one.
    pub fn of(seed: u64, count: usize) -> Self {
        let mut net = Self::new(seed);
        for _ in 0..count {
            net.add_host(true, true);
        }
        net
    }

    pub fn id(&mut self) -> NodeId {
        NodeId(u128::from(self.random.next_u64()) << 64 | u128::from(self.random.next_u64()))
    }

    pub fn add_host(&mut self, is_ingester: bool, is_store: bool) -> usize {
        let at = self.hosts.len();
        let address = SocketAddr::from(([10, 0, 0, at as u8 + 1], 7659));
        self.names.insert(format!("host-{at}"), vec![address]);
        let disk = Disk {
            ingester: is_ingester.then(|| (self.id(), 0)),
            store: is_store.then(|| (self.id(), 0)),
            members: Saved::default().encode(),
        };
        let flags = Flags {
            cluster: "oklogd".to_owned(),
            copies: 2,
            seeds: vec!["host-0".to_owned()],
            secrets: vec!["a secret of this cluster".to_owned()],
        };
        self.hosts.push(Host {
            address,
            disk,
            flags,
            node: None,
            stopped: None,
            events: Vec::new(),
            clock_ms: 0,
            facts: Facts::default(),
            sent_bytes: 0,
            sent: 0,
            stalled_until_ms: 0,
            inbox: VecDeque::new(),
        });
        at
    }

    /// Starts a node: its boots are counted, and synced before it speaks.
    pub fn start(&mut self, at: usize) {
        let (process, random) = (ProcessId(self.random.next_u64() | 1), self.random.next_u64());
        let now = self.now(at);
        let host = &mut self.hosts[at];
        assert!(host.node.is_none(), "a directory is locked");
        let boot = |id: &mut Option<(NodeId, u64)>, side| {
            id.as_mut().map(|(id, boot)| {
                *boot += 1;
                Identity { boot: *boot, id: *id, side }
            })
        };
        let sides =
            [boot(&mut host.disk.ingester, Side::Ingest), boot(&mut host.disk.store, Side::Store)];
        let sides: Vec<Identity> = sides.into_iter().flatten().collect();
        let is_store = host.disk.store.is_some();
        let settings = Settings {
            cluster: host.flags.cluster.clone(),
            sides: Sides::new(&sides).unwrap(),
            process,
            address: host.address,
            api_port: 7650,
            copies: NonZeroU8::new(host.flags.copies).filter(|_| is_store),
            release: [0, 1, 0],
            seeds: host.flags.seeds.clone(),
            secrets: Secrets::new(&host.flags.secrets).unwrap(),
            random,
        };
        let saved = Saved::decode(&host.disk.members).unwrap();
        let mut node = Gossip::new(settings, &saved, now);
        node.set_facts(host.facts);
        (host.node, host.stopped) = (Some(node), None);
        host.inbox.clear();
        host.stalled_until_ms = 0;
        self.mark(&[1, at as u64]);
        self.drain(at);
    }

    pub fn start_all(&mut self) {
        (0..self.hosts.len()).for_each(|at| self.start(at));
    }

    /// Power is gone.
    pub fn kill(&mut self, at: usize) {
        self.hosts[at].node = None;
        self.hosts[at].inbox.clear();
        self.mark(&[2, at as u64]);
    }

    /// An orderly end.
    pub fn leave(&mut self, at: usize) {
        let now = self.now(at);
        if let Some(node) = &mut self.hosts[at].node {
            node.leave(now);
        }
        self.drain(at);
        self.kill(at);
    }

    pub fn stall(&mut self, at: usize, for_ms: u64) {
        self.hosts[at].stalled_until_ms = self.now_ms + for_ms;
    }

    pub fn cut_between(&mut self, some: &[usize], others: &[usize]) {
        for &a in some {
            for &b in others {
                self.cut.extend([(a, b), (b, a)]);
            }
        }
    }

    pub fn node(&self, at: usize) -> &Gossip {
        self.hosts[at].node.as_ref().unwrap()
    }

    pub fn now(&self, at: usize) -> Now {
        let wall_ms = (WALL_MS + self.now_ms).saturating_add_signed(self.hosts[at].clock_ms);
        Now { ms: self.now_ms, wall_ms }
    }

    pub fn alive(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|&at| self.hosts[at].node.is_some()).collect()
    }

    fn mark(&mut self, what: &[u64]) {
        let bytes: Vec<u8> = what.iter().flat_map(|part| part.to_le_bytes()).collect();
        let mut hasher = crc32fast::Hasher::new_with_initial(self.trace);
        hasher.update(&self.now_ms.to_le_bytes());
        hasher.update(&bytes);
        self.trace = hasher.finalize();
    }

    fn push(&mut self, at_ms: u64, what: What) {
        self.place += 1;
        self.queue.insert((at_ms, self.place), what);
    }

    fn host_of(&self, address: SocketAddr) -> Option<usize> {
        self.hosts.iter().position(|host| host.address == address)
    }

    /// A datagram is on its way.
    pub fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let copies = 1 + usize::from(self.random.chance(self.weather.twice));
        for _ in 0..copies {
            let (least, most) = self.weather.delay_ms;
            let delay_ms = least + self.random.below(most - least + 1);
            if !self.random.chance(self.weather.loss) {
                let bytes = bytes.clone();
                self.push(self.now_ms + delay_ms, What::Datagram { from, to, bytes });
            }
        }
    }

    /// Does what a node wants.
    fn drain(&mut self, at: usize) {
        loop {
            let host = &mut self.hosts[at];
            let Some(effect) = host.node.as_mut().and_then(Gossip::poll) else { return };
            match effect {
                Effect::Send { to, datagram } => {
                    assert!(datagram.len() <= gossip::limits::DATAGRAM_BYTES_MAX);
                    host.sent += 1;
                    // With the headers of IP and UDP.
                    host.sent_bytes += datagram.len() as u64 + 28;
                    let from = host.address;
                    self.mark(&[3, at as u64, u64::from(crc32fast::hash(&datagram))]);
                    self.recorded.push_back((from, to, datagram.clone()));
                    if self.recorded.len() > 3_000 {
                        self.recorded.pop_front();
                    }
                    self.send(from, to, datagram);
                }
                Effect::Resolve { seed, name } => {
                    let process = host.node.as_ref().unwrap().own().process;
                    let addresses = self.names.get(&name).cloned().unwrap_or_default();
                    let what = What::Resolved { host: at, process, seed, addresses };
                    self.push(self.now_ms + 3, what);
                }
                Effect::Save => {
                    host.disk.members = host.node.as_ref().unwrap().saved().encode();
                }
                Effect::Tell(event) => host.events.push((self.now_ms, event)),
                Effect::Stop(stop) => {
                    host.stopped = Some(stop);
                    self.kill(at);
                    return;
                }
            }
        }
    }

    fn hand(&mut self, at: usize, from: SocketAddr, bytes: &[u8]) {
        let now = self.now(at);
        if let Some(node) = &mut self.hosts[at].node {
            node.receive(now, from, bytes);
        }
        self.drain(at);
    }

    fn arrive(&mut self, what: What) {
        match what {
            What::Datagram { from, to, bytes } => {
                let Some(at) = self.host_of(to) else { return };
                let is_cut = self.host_of(from).is_some_and(|from| self.cut.contains(&(from, at)));
                if is_cut {
                    return;
                }
                let host = &mut self.hosts[at];
                if host.stalled_until_ms > self.now_ms {
                    if host.inbox.len() < SOCKET_MAX {
                        host.inbox.push_back((from, bytes));
                    }
                    return;
                }
                self.hand(at, from, &bytes);
            }
            What::Resolved { host, process, seed, addresses } => {
                let now = self.now(host);
                let node = self.hosts[host].node.as_mut();
                if let Some(node) = node.filter(|node| node.own().process == process) {
                    node.resolved(now, seed, addresses);
                    self.drain(host);
                }
            }
        }
    }

    fn turn(&mut self, at: usize) {
        let now = self.now(at);
        if let Some(node) = &mut self.hosts[at].node {
            node.turn(now);
        }
        self.drain(at);
        // Who stood still finds what came meanwhile after what is overdue: the worse order.
        while let Some((from, bytes)) = self.hosts[at].inbox.pop_front() {
            self.hand(at, from, &bytes);
        }
    }

    /// When a node is to be turned next.
    fn due_ms(&self, at: usize) -> Option<u64> {
        let host = &self.hosts[at];
        let next_ms = host.node.as_ref()?.next_ms();
        Some(next_ms.max(host.stalled_until_ms).max(self.now_ms))
    }

    /// Lets time pass.
    pub fn run(&mut self, for_ms: u64) {
        let end_ms = self.now_ms + for_ms;
        loop {
            let turn = self.alive().into_iter().filter_map(|at| Some((self.due_ms(at)?, at))).min();
            let arrival = self.queue.first_key_value().map(|(key, _)| key.0);
            let next_ms = turn.map(|(at_ms, _)| at_ms).into_iter().chain(arrival).min();
            let Some(next_ms) = next_ms.filter(|next_ms| *next_ms <= end_ms) else { break };
            self.now_ms = next_ms.max(self.now_ms);
            if arrival == Some(next_ms) {
                let (_, what) = self.queue.pop_first().unwrap();
                self.arrive(what);
            } else if let Some((_, at)) = turn {
                self.turn(at);
            }
        }
        self.now_ms = end_ms;
    }

    /// Lets time pass until something holds; how long that took, milliseconds.
    pub fn run_until(&mut self, at_most_ms: u64, holds: impl Fn(&Self) -> bool) -> Option<u64> {
        let started_ms = self.now_ms;
        while !holds(self) {
            if self.now_ms - started_ms >= at_most_ms {
                return None;
            }
            self.run(20);
        }
        Some(self.now_ms - started_ms)
    }

    /// How a node sees another's first directory.
    pub fn sees(&self, at: usize, other: usize) -> Option<State> {
        let disk = &self.hosts[other].disk;
        let (id, _) = disk.ingester.or(disk.store).unwrap();
        let members = self.node(at).members();
        members.iter().find(|view| view.member.id() == id).map(|view| view.state)
    }

    /// Whether all that live see all that live up, in the process that lives, and nobody else.
    pub fn agree(&self) -> bool {
        let alive = self.alive();
        let processes: BTreeSet<ProcessId> =
            alive.iter().map(|&at| self.node(at).own().process).collect();
        alive.iter().all(|&at| {
            let up = self.node(at).members().into_iter().filter(|view| view.state != State::Down);
            let mut seen: BTreeSet<_> = up.map(|view| view.member.process).collect();
            seen.insert(self.node(at).own().process);
            // Who is left alone by all that he has met goes on asking for them.
            (self.node(at).is_in() || alive.len() == 1) && seen == processes
        })
    }

    pub fn count(&self, at: usize, is_it: impl Fn(&Event) -> bool) -> usize {
        self.hosts[at].events.iter().filter(|(_, event)| is_it(event)).count()
    }

    /// What everybody thinks, for who looks for a fault.
    pub fn opinions(&self) -> String {
        let of = |at: usize| {
            let views = self.node(at).members().into_iter();
            let seen: Vec<String> = views
                .map(|view| {
                    let Some(host) = self.host_of(view.member.address) else {
                        return String::new();
                    };
                    let is_it = self.hosts[host].node.as_ref().is_some_and(|node| {
                        let own = node.own();
                        (own.process, own.standing) == (view.member.process, view.member.standing)
                    });
                    format!("{host} {}{}", view.state.name(), if is_it { "" } else { " (was)" })
                })
                .collect();
            let events = self.hosts[at].events.iter().rev().take(8);
            let events: Vec<String> = events.map(|(ms, e)| format!("{ms} {e}")).collect();
            format!(
                "{at} is in: {}, sees {seen:?}\n  {}\n",
                self.node(at).is_in(),
                events.join("\n  ")
            )
        };
        let opinions: String = self.alive().into_iter().map(of).collect();
        format!("at {} ms\n{opinions}", self.now_ms)
    }
}
