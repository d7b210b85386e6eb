//! Whom to ask: seeds, by names that are looked up again, members that are not up, and whoever was heard
//! of. Decides when which address is asked, and which answers were asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use crate::limits::{
    ASK_DOWN_LONG_MS, ASK_FAST_MS, ASK_REFUSED_MS, ASK_SLOW_MS, ASKS_AT_ONCE, ASKS_FAST,
    ASKS_OPEN_MAX, CONTACTS_MAX, INTRODUCED_MS, RESOLVE_MS, SEED_ADDRESSES_MAX,
};

/// Time until a name that could not be looked up is tried again, milliseconds.
const RESOLVE_FAILED_MS: u64 = 2_000;
/// Time in which an answer counts, milliseconds.
const ANSWER_MS: u64 = 5_000;

struct Seed {
    name: String,
    addresses: Vec<SocketAddr>,
    /// Whether its name was looked up once.
    is_resolved: bool,
    next_ms: u64,
}

#[derive(Default)]
struct Pace {
    asked: u32,
    next_ms: u64,
    is_refused: bool,
}

struct Open {
    number: u64,
    at_ms: u64,
    to: SocketAddr,
}

/// Everybody who may be asked.
pub(crate) struct Contacts {
    seeds: Vec<Seed>,
    /// Asked besides seeds and members, and until when.
    heard_of: BTreeMap<SocketAddr, u64>,
    /// Asked though a member is up there, until it answers, and until when.
    doubted: BTreeMap<SocketAddr, u64>,
    /// How each is asked.
    paces: BTreeMap<SocketAddr, Pace>,
    /// Addresses that are this node's own.
    own: BTreeSet<SocketAddr>,
    open: VecDeque<Open>,
    /// Where the last turn stopped asking.
    cursor: Option<SocketAddr>,
}

/// A member, to those who decide whom to ask.
pub(crate) struct Absent {
    pub(crate) address: SocketAddr,
    /// Whether it has been down for so long that it is not expected at any moment.
    pub(crate) is_long: bool,
}

impl Contacts {
    pub(crate) fn new(seeds: Vec<String>, own: SocketAddr) -> Self {
        let seed = |name| Seed { name, addresses: Vec::new(), is_resolved: false, next_ms: 0 };
        Self {
            seeds: seeds.into_iter().map(seed).collect(),
            heard_of: BTreeMap::new(),
            doubted: BTreeMap::new(),
            paces: BTreeMap::new(),
            own: BTreeSet::from([own]),
            open: VecDeque::new(),
            cursor: None,
        }
    }

    /// Names that are to be looked up now.
    pub(crate) fn due_names(
        &mut self,
        now_ms: u64,
        is_up: impl Fn(&SocketAddr) -> bool,
    ) -> Vec<(usize, String)> {
        let own = &self.own;
        let is_there = |address: &SocketAddr| own.contains(address) || is_up(address);
        let seeds = self.seeds.iter_mut().enumerate();
        let due = seeds.filter(|(_, seed)| {
            let is_absent = seed.addresses.is_empty() || !seed.addresses.iter().all(is_there);
            seed.next_ms <= now_ms && is_absent
        });
        due.map(|(at, seed)| {
            seed.next_ms = now_ms + RESOLVE_MS;
            (at, seed.name.clone())
        })
        .collect()
    }

    /// A name was looked up; without an address it could not be.
    pub(crate) fn resolved(&mut self, seed: usize, mut addresses: Vec<SocketAddr>, now_ms: u64) {
        let Some(seed) = self.seeds.get_mut(seed) else { return };
        addresses.truncate(SEED_ADDRESSES_MAX);
        if addresses.is_empty() {
            // What it was before is still the best guess.
            seed.next_ms = seed.next_ms.min(now_ms + RESOLVE_FAILED_MS);
            return;
        }
        (seed.addresses, seed.is_resolved) = (addresses, true);
    }

    /// Whether all seeds are this node itself, or there is none.
    pub(crate) fn are_all_own(&self) -> bool {
        self.seeds.iter().all(|seed| {
            seed.is_resolved && seed.addresses.iter().all(|address| self.own.contains(address))
        })
    }

    /// An address turned out to be this node's own.
    pub(crate) fn is_own(&mut self, address: SocketAddr) {
        if self.own.len() < SEED_ADDRESSES_MAX {
            self.own.insert(address);
        }
    }

    /// Somebody may be at that address: ask at once.
    pub(crate) fn hear_of(&mut self, address: SocketAddr, now_ms: u64) {
        if self.own.contains(&address) {
            return;
        }
        let is_new = !self.heard_of.contains_key(&address);
        if is_new && self.heard_of.len() >= CONTACTS_MAX / 4 {
            return;
        }
        self.heard_of.insert(address, now_ms + INTRODUCED_MS);
        // No oftener than fast, however often one hears.
        if let Some(pace) = self.paces.get_mut(&address) {
            pace.next_ms = pace.next_ms.min(now_ms + ASK_FAST_MS);
        }
    }

    /// Whoever is at that address is to be asked, be he a member that is up.
    pub(crate) fn doubt(&mut self, address: SocketAddr, now_ms: u64) {
        self.hear_of(address, now_ms);
        if self.heard_of.contains_key(&address) {
            self.doubted.insert(address, now_ms + ANSWER_MS);
        }
    }

    /// Everybody is asked again soon: something changed that they have to know.
    pub(crate) fn hurry(&mut self) {
        for pace in self.paces.values_mut().filter(|pace| !pace.is_refused) {
            *pace = Pace::default();
        }
    }

    /// An address is not let in, or does not let us in.
    pub(crate) fn refuse(&mut self, address: SocketAddr, now_ms: u64) {
        if let Some(pace) = self.paces.get_mut(&address) {
            pace.is_refused = true;
            pace.next_ms = now_ms + ASK_REFUSED_MS;
        }
    }

    /// Whom to ask now, at the first pace where that is urgent; the caller says under which numbers it did ([`Self::asked`]).
    pub(crate) fn due_addresses(
        &mut self,
        now_ms: u64,
        absent: Vec<Absent>,
        is_urgent: bool,
        is_up: impl Fn(&SocketAddr) -> bool,
    ) -> Vec<SocketAddr> {
        self.heard_of.retain(|_, until_ms| *until_ms > now_ms);
        self.doubted.retain(|_, until_ms| *until_ms > now_ms);
        let is_settled =
            |address: &SocketAddr| is_up(address) && !self.doubted.contains_key(address);
        let long: BTreeSet<SocketAddr> =
            absent.iter().filter(|member| member.is_long).map(|member| member.address).collect();
        let seeds = self.seeds.iter().flat_map(|seed| &seed.addresses);
        let members = absent.iter().map(|member| &member.address);
        let wanted: BTreeSet<SocketAddr> = seeds
            .chain(self.heard_of.keys())
            .chain(members)
            .filter(|address| !self.own.contains(address) && !is_settled(address))
            .copied()
            .take(CONTACTS_MAX)
            .collect();
        self.paces.retain(|address, _| wanted.contains(address));
        let (before, after): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|address| Some(*address) <= self.cursor);
        let mut asked = Vec::new();
        for address in after.into_iter().chain(before) {
            let pace = self.paces.entry(address).or_default();
            if pace.next_ms > now_ms || asked.len() >= ASKS_AT_ONCE {
                continue;
            }
            pace.asked = pace.asked.saturating_add(1);
            let pause_ms = match pace.asked {
                _ if pace.is_refused => ASK_REFUSED_MS,
                0..=ASKS_FAST => ASK_FAST_MS,
                _ if is_urgent => ASK_FAST_MS,
                _ if long.contains(&address) => ASK_DOWN_LONG_MS,
                _ => ASK_SLOW_MS,
            };
            pace.next_ms = now_ms + pause_ms;
            self.cursor = Some(address);
            asked.push(address);
        }
        asked
    }

    /// A question went out.
    pub(crate) fn asked(&mut self, number: u64, to: SocketAddr, now_ms: u64) {
        if self.open.len() >= ASKS_OPEN_MAX {
            self.open.pop_front();
        }
        self.open.push_back(Open { number, at_ms: now_ms, to });
    }

    /// Whether an answer was asked for, and where; no question is answered twice.
    pub(crate) fn answered(&mut self, number: u64, now_ms: u64) -> Option<SocketAddr> {
        let is_it = |open: &Open| open.number == number && open.at_ms + ANSWER_MS > now_ms;
        let at = self.open.iter().position(is_it)?;
        let to = self.open.remove(at)?.to;
        self.doubted.remove(&to);
        Some(to)
    }

    /// Whether an address was asked lately.
    pub(crate) fn was_asked(&self, address: SocketAddr, now_ms: u64) -> bool {
        self.open.iter().any(|open| open.to == address && open.at_ms + ANSWER_MS > now_ms)
    }
}
