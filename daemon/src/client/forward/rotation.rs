//! Which ingester next: targets in a shuffled circle, and the order of one target's addresses.
//!
//! Pure: randomness is passed in. SRV answers are ordered as RFC 2782 says: lowest priority first,
//! within one by chance in proportion to weight.

use std::fmt;
use std::net::SocketAddr;

/// Random numbers.
pub(crate) type Random<'a> = &'a mut dyn FnMut() -> u64;

/// Where an ingester, or several, may be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A host, looked up as the system does.
    Host {
        /// A name or an address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// All addresses of a name.
    Dns {
        /// The name.
        name: String,
        /// The port.
        port: u16,
    },
    /// What the SRV records of a name say.
    Srv {
        /// The whole name: `_service._proto.domain`.
        name: String,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
            Self::Dns { name, port } => write!(f, "tcp+dns://{name}:{port}"),
            Self::Srv { name } => write!(f, "tcp+dnssrv://{name}"),
        }
    }
}

/// One host of an SRV answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SrvHost {
    /// Lower ones first.
    pub(crate) priority: u16,
    /// Chance among equals.
    pub(crate) weight: u16,
    /// Port.
    pub(crate) port: u16,
    /// Name.
    pub(crate) name: String,
}

/// The circle of targets.
#[derive(Debug)]
pub(crate) struct Rotation {
    targets: Vec<Target>,
    next: usize,
}

impl Rotation {
    /// Shuffles `targets`, of which there is at least one.
    pub(crate) fn new(mut targets: Vec<Target>, random: Random<'_>) -> Self {
        assert!(!targets.is_empty(), "there is somebody to send to");
        shuffle(&mut targets, random);
        Self { targets, next: 0 }
    }

    /// The target of the next connection.
    pub(crate) fn next_target(&mut self) -> Target {
        let target = self.targets[self.next].clone();
        self.next = (self.next + 1) % self.targets.len();
        target
    }
}

/// Any order, each as likely (Fisher–Yates).
pub(crate) fn shuffle<T>(items: &mut [T], random: Random<'_>) {
    for last in (1..items.len()).rev() {
        items.swap(last, (random() % (last as u64 + 1)) as usize);
    }
}

/// Addresses in the order to try them: shuffled, the one that was used last at the end.
pub(crate) fn order_addresses(
    mut addresses: Vec<SocketAddr>,
    last_used: Option<SocketAddr>,
    random: Random<'_>,
) -> Vec<SocketAddr> {
    shuffle(&mut addresses, random);
    addresses.sort_by_key(|address| Some(*address) == last_used);
    addresses
}

/// Hosts of an SRV answer in the order to try them.
pub(crate) fn order_srv(mut hosts: Vec<SrvHost>, random: Random<'_>) -> Vec<SrvHost> {
    shuffle(&mut hosts, random);
    hosts.sort_by_key(|host| host.priority);
    let mut ordered = Vec::with_capacity(hosts.len());
    while let Some(first) = hosts.first() {
        let equals = hosts.iter().take_while(|h| h.priority == first.priority).count();
        // A weight of 0 has a small chance, as the RFC wants it.
        let share = |host: &SrvHost| u64::from(host.weight) * 16 + 1;
        let total: u64 = hosts[..equals].iter().map(share).sum();
        let mut point = random() % total;
        let chosen = hosts[..equals]
            .iter()
            .position(|host| {
                let hit = point < share(host);
                point = point.saturating_sub(share(host));
                hit
            })
            .unwrap_or(0);
        ordered.push(hosts.remove(chosen));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> impl FnMut() -> u64 {
        let mut state = 7u64;
        move || {
            state =
                state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
            state >> 33
        }
    }

    fn host(n: u16) -> Target {
        Target::Host { host: "h".into(), port: n }
    }

    #[test]
    fn each_connection_goes_to_the_next_target_in_turn() {
        let mut random = numbers();
        let mut rotation = Rotation::new((0..5).map(host).collect(), &mut random);
        let first: Vec<_> = (0..5).map(|_| rotation.next_target()).collect();
        let second: Vec<_> = (0..5).map(|_| rotation.next_target()).collect();
        assert_eq!(first, second);
        let mut sorted = first.clone();
        sorted.sort_by_key(|t| if let Target::Host { port, .. } = t { *port } else { 0 });
        assert_eq!(sorted, (0..5).map(host).collect::<Vec<_>>());
        assert_ne!(first, sorted, "this seed shuffles");
    }

    #[test]
    fn a_shuffle_prefers_nobody() {
        let mut random = numbers();
        let mut first = [0u32; 4];
        for _ in 0..4000 {
            let mut items = [0usize, 1, 2, 3];
            shuffle(&mut items, &mut random);
            first[items[0]] += 1;
        }
        assert!(first.iter().all(|&n| (850..1150).contains(&n)), "{first:?}");
    }

    #[test]
    fn the_address_that_was_used_last_is_tried_last() {
        let mut random = numbers();
        let all: Vec<SocketAddr> = (1..5).map(|p| ([127, 0, 0, 1], p).into()).collect();
        for used in &all {
            let ordered = order_addresses(all.clone(), Some(*used), &mut random);
            assert_eq!((ordered.len(), ordered.last()), (4, Some(used)));
        }
    }

    #[test]
    fn srv_hosts_come_by_priority_and_by_weight_within_it() {
        let mut random = numbers();
        let srv =
            |priority, weight, name: &str| SrvHost { priority, weight, port: 1, name: name.into() };
        let hosts = vec![
            srv(20, 9, "backup"),
            srv(10, 30, "big"),
            srv(10, 10, "small"),
            srv(10, 0, "zero"),
        ];
        let mut firsts = std::collections::HashMap::new();
        for _ in 0..4000 {
            let ordered = order_srv(hosts.clone(), &mut random);
            assert_eq!(ordered.len(), 4);
            assert_eq!(ordered[3].name, "backup");
            *firsts.entry(ordered[0].name.clone()).or_insert(0) += 1;
        }
        assert!((2800..3200).contains(&firsts["big"]), "{firsts:?}");
        assert!((800..1200).contains(&firsts["small"]), "{firsts:?}");
        assert!(firsts.get("zero").is_none_or(|&n| n < 100), "{firsts:?}");
    }
}
