//! Membership as a machine: datagrams, names that were looked up and the time go in, effects come out.
//!
//! Invariants: nobody is a member before he introduced himself and was found to agree with this node in
//! everything that has to agree; this node says nothing as a member before it asked whether its own ids
//! live already; work and memory for a datagram are bounded by its size, which is; nothing is answered
//! with more bytes than were sent, but to members.
//!
//! It does not: know a socket, a clock or a thread; delete anything, or have it deleted: who is a member is
//! a hint, what disks say is fact.

mod forgetting;
mod joining;
mod swim;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU8;

use engine::random::Random;

use crate::clocks::{self, Clocks};
use crate::codec::{self, Unread, Wire};
use crate::contacts::Contacts;
use crate::event::{Effect, Event, Stop};
use crate::facts::{Facts, Said};
use crate::limits::{
    CLOCK_FRESH_MS, DATAGRAM_BYTES_MAX, EFFECTS_MAX, NAME_BYTES_MAX, PROBE_MS, REFUSALS_A_SECOND,
    SAVE_WATERMARK_MS, SEEDS_MAX, STALL_MS,
};
use crate::member::{Member, ProcessId, Protocol, Sides};
use crate::message;
use crate::random::Dice;
use crate::refusal::{Refusal, Verdict, Why};
use crate::roll::Roll;
use crate::saved::Saved;
use crate::seal::{Kind, Outside, Secrets, Unopened};
use crate::timers::Timers;
use crate::told::Told;
use joining::Joining;
use swim::Foca;

/// Kinds of [`Told`] beside the numbers of verdicts.
const TOLD_SAME_ADDRESS: u8 = 100;
const TOLD_RIVAL: u8 = 101;
const TOLD_REFUSED_THERE: u8 = 102;

/// The time: this node's clock of durations, which never goes back, and its clock of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since any moment.
    pub ms: u64,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
}

/// What a node is and is told.
#[derive(Debug)]
pub struct Settings {
    /// Name of its cluster, 1 to 64 bytes.
    pub cluster: String,
    /// Its directories.
    pub sides: Sides,
    /// Its process: random, not 0.
    pub process: ProcessId,
    /// Where others reach it.
    pub address: SocketAddr,
    /// The port of its HTTP interface.
    pub api_port: u16,
    /// How many copies its store wants; `None` without a store.
    pub copies: Option<NonZeroU8>,
    /// The release of this program.
    pub release: [u16; 3],
    /// Names of nodes to begin with, as they are looked up.
    pub seeds: Vec<String>,
    /// Secrets of the cluster.
    pub secrets: Secrets,
    /// Seed of its dice.
    pub random: u64,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It asks whether its ids live already.
    Asking,
    /// It is a member.
    In,
    /// It left, or had to stop.
    Over,
}

/// What was not taken of what came, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Datagrams that make no sense, or were damaged.
    pub garbage: u64,
    /// Datagrams that came before.
    pub replayed: u64,
    /// Datagrams of those who have another secret, or whose node may not join.
    pub refused: u64,
    /// Datagrams of processes that nobody introduced, or to what this node was before.
    pub unknown: u64,
    /// Effects that were not taken in time.
    pub lost: u64,
}

/// The machine. See the page of this crate.
pub struct Gossip {
    now: Now,
    started_ms: u64,
    cluster: String,
    secrets: Secrets,
    phase: Phase,
    foca: Foca,
    timers: Timers,
    roll: Roll,
    contacts: Contacts,
    joining: Joining,
    /// Other processes with our ids, until it is found out who lives.
    rivals: BTreeMap<ProcessId, joining::Rival>,
    clocks: Clocks,
    told: Told,
    facts: Facts,
    tombstones_digest: u32,
    /// Datagrams that were sent.
    sent: u64,
    /// Refusals to strangers in the second that began then.
    refusals: (u64, u32),
    next_housekeeping_ms: u64,
    next_watermark_save_ms: u64,
    came_back_ms: Option<u64>,
    /// Who is suspected, in which standing and incarnation, and since when this node knows of it.
    suspects: BTreeMap<(ProcessId, u64, u16), u64>,
    is_unsaved: bool,
    has_new_watermark: bool,
    /// Whether it ever met another node, in this life or before.
    has_met: bool,
    effects: VecDeque<Effect>,
    counts: Counts,
}

impl Gossip {
    /// A node that starts, with what it remembers of former lives.
    ///
    /// # Panics
    /// If the name of the cluster has a length that is not possible, the process is 0, there are more seeds
    /// than [`crate::limits::SEEDS_MAX`], or a store lacks its number of copies.
    pub fn new(settings: Settings, saved: &Saved, now: Now) -> Self {
        let Settings { cluster, sides, process, address, api_port, copies, release, .. } = settings;
        assert!((1..=NAME_BYTES_MAX).contains(&cluster.len()), "a name has 1 to 64 bytes");
        assert!(process.0 != 0 && settings.seeds.len() <= SEEDS_MAX);
        assert_eq!(sides.is_store(), copies.is_some(), "stores want copies, others do not");
        let standing = Member::first_standing(&sides);
        let protocol = Protocol::OURS;
        let own = Member { sides, process, standing, address, api_port, copies, protocol, release };
        let dice = Dice(Random::new(settings.random));
        let roll = Roll::of_saved(saved, &own, now.ms);
        let tombstones_digest = roll.tombstones_digest();
        let has_met = roll.iter().next().is_some();
        Self {
            now,
            started_ms: now.ms,
            cluster,
            secrets: settings.secrets,
            phase: Phase::Asking,
            foca: Foca::new(own, swim::config(), dice, Wire),
            timers: Timers::default(),
            has_met,
            roll,
            contacts: Contacts::new(settings.seeds, address),
            joining: Joining::default(),
            rivals: BTreeMap::new(),
            clocks: Clocks::default(),
            told: Told::default(),
            facts: Facts::default(),
            tombstones_digest,
            sent: 0,
            refusals: (now.ms, 0),
            next_housekeeping_ms: now.ms,
            next_watermark_save_ms: now.ms,
            came_back_ms: None,
            suspects: BTreeMap::new(),
            is_unsaved: false,
            has_new_watermark: false,
            effects: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// This node as a member.
    pub fn own(&self) -> &Member {
        self.foca.identity()
    }

    /// Whether this node ever met another one. One that has seeds and never did cannot say that an answer
    /// is complete.
    pub const fn has_met(&self) -> bool {
        self.has_met
    }

    /// Whether this node is a member, be it the only one.
    pub fn is_in(&self) -> bool {
        self.phase == Phase::In
    }

    /// What was not taken.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// What this node says of itself from now on.
    pub const fn set_facts(&mut self, facts: Facts) {
        self.facts = facts;
    }

    /// What is to be kept for the next life.
    pub fn saved(&self) -> Saved {
        self.roll.to_saved()
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When it has to be turned next, by [`Now::ms`].
    pub fn next_ms(&self) -> u64 {
        let timer = self.timers.next_ms().unwrap_or(u64::MAX);
        timer.min(self.next_housekeeping_ms)
    }

    /// Does what is due.
    pub fn turn(&mut self, now: Now) {
        self.clock(now);
        while self.phase == Phase::In
            && let Some(timer) = self.timers.take(self.now.ms)
        {
            self.swim(|foca, outbox| foca.handle_timer(timer, outbox));
        }
        if self.phase != Phase::Over && self.next_housekeeping_ms <= self.now.ms {
            let late_ms = self.now.ms - self.next_housekeeping_ms;
            if late_ms > STALL_MS {
                self.stood_still(late_ms);
            }
            self.next_housekeeping_ms = self.now.ms + PROBE_MS;
            self.keep_house();
        }
        if self.phase == Phase::Over {
            self.next_housekeeping_ms = u64::MAX;
            self.timers.clear();
        }
    }

    fn clock(&mut self, now: Now) {
        self.now = Now { ms: now.ms.max(self.now.ms), wall_ms: now.wall_ms };
    }

    /// A name was looked up; none: it could not be.
    pub fn resolved(&mut self, now: Now, seed: usize, addresses: Vec<SocketAddr>) {
        self.clock(now);
        self.contacts.resolved(seed, addresses, now.ms);
        self.next_housekeeping_ms = self.now.ms;
    }

    /// A datagram came.
    pub fn receive(&mut self, now: Now, from: SocketAddr, datagram: &[u8]) {
        self.clock(now);
        if self.phase == Phase::Over {
            return;
        }
        // A socket of both families shows the one as the other.
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        if datagram.len() > DATAGRAM_BYTES_MAX {
            self.counts.garbage += 1;
            return;
        }
        let (outside, inside) = match self.secrets.open(datagram) {
            Ok(opened) => opened,
            Err(unopened) => return self.refuse_unopened(from, unopened),
        };
        if outside.from == self.own().process {
            self.contacts.is_own(from);
            return;
        }
        let is_to_us = outside.to == self.own().process;
        match outside.kind {
            Kind::Ask => match message::read_ask(&inside) {
                Some(introduction) => self.handle_ask(from, outside, &introduction),
                None => self.counts.garbage += 1,
            },
            _ if !is_to_us => self.counts.unknown += 1,
            Kind::Answer => match message::Answer::read(&inside) {
                Some(answer) => self.handle_answer(from, answer),
                None => self.counts.garbage += 1,
            },
            Kind::Refusal => self.hear_refusal(from, &inside),
            Kind::Swim | Kind::Tombstones => self.receive_of_member(from, outside, &inside),
        }
    }

    /// What only those say who were introduced.
    fn receive_of_member(&mut self, from: SocketAddr, outside: Outside, inside: &[u8]) {
        if self.phase != Phase::In {
            return;
        }
        let Some(known) = self.roll.process(outside.from).cloned() else {
            // He knows us from others, and we shall know him.
            self.counts.unknown += 1;
            self.contacts.hear_of(from, self.now.ms);
            return;
        };
        // Without a secret anybody may count as he likes, and shut out whom he likes.
        let is_sealed = !self.secrets.is_none();
        if is_sealed && !self.roll.is_new(outside.from, outside.number, self.now.ms) {
            self.counts.replayed += 1;
            return;
        }
        if outside.kind == Kind::Tombstones {
            match message::read_tombstones(inside) {
                Some(tombstones) => self.handle_tombstones(known.address, &tombstones),
                None => self.counts.garbage += 1,
            }
            return;
        }
        let own = self.own().clone();
        let roll = &self.roll;
        let lookup = |process: ProcessId, standing| {
            if process == own.process {
                return (standing == own.standing).then(|| own.clone());
            }
            roll.of_process(process, standing)
        };
        let swim = match codec::read(inside, &own, outside.from, &lookup) {
            Ok(swim) => swim,
            Err(Unread::Garbage) => return self.counts.garbage += 1,
            Err(Unread::Unknown | Unread::Stale) => return self.counts.unknown += 1,
        };
        if let Err(why) = self.roll.vet(&swim.header.src, &own) {
            return self.tell_refused(from, why);
        }
        let said = swim.said;
        self.handle_swim(swim);
        let now = (self.now.ms, self.now.wall_ms);
        self.has_new_watermark |= self.roll.hear((outside.from, outside.number), &said, now);
        if said.tombstones != self.tombstones_digest {
            self.send_tombstones(&known);
        }
    }

    fn keep_house(&mut self) {
        let now_ms = self.now.ms;
        self.roll.expire(now_ms);
        self.prune();
        self.watch_suspects();
        self.keep_asking();
        self.settle_rivals();
        let fresh = self.roll.iter().filter(|known| known.is_up);
        let fresh = fresh
            .filter_map(|known| known.heard)
            .filter(|heard| heard.at_ms + CLOCK_FRESH_MS > now_ms);
        let distances = fresh.map(|heard| heard.clock_ms).collect();
        match self.clocks.judge(distances, now_ms) {
            Some(clocks::Change::Off(by_ms)) => self.tell(Event::ClockOff(by_ms)),
            Some(clocks::Change::Right) => self.tell(Event::ClockRight),
            None => {}
        }
        if self.has_new_watermark && self.next_watermark_save_ms <= now_ms {
            self.is_unsaved = true;
        }
        if std::mem::take(&mut self.is_unsaved) {
            self.has_new_watermark = false;
            self.next_watermark_save_ms = now_ms + SAVE_WATERMARK_MS;
            self.push(Effect::Save);
        }
    }

    fn said(&self) -> Said {
        let (facts, tombstones) = (self.facts, self.tombstones_digest);
        Said { facts, wall_ms: self.now.wall_ms, tombstones }
    }

    fn push(&mut self, effect: Effect) {
        if self.effects.len() < EFFECTS_MAX {
            self.effects.push_back(effect);
        } else {
            self.counts.lost += 1;
        }
    }

    fn tell(&mut self, event: Event) {
        self.push(Effect::Tell(event));
    }

    fn stop(&mut self, stop: Stop) {
        self.phase = Phase::Over;
        // What waits is of no use any more, and this has to have room.
        self.effects.retain(|effect| matches!(effect, Effect::Tell(_)));
        self.effects.truncate(EFFECTS_MAX - 1);
        self.push(Effect::Stop(stop));
    }

    /// Sends; its number.
    fn send(&mut self, kind: Kind, process: ProcessId, to: SocketAddr, inside: &[u8]) -> u64 {
        self.sent += 1;
        let outside = Outside { kind, from: self.own().process, to: process, number: self.sent };
        let datagram = self.secrets.close(outside, inside);
        self.push(Effect::Send { to, datagram });
        self.sent
    }

    /// A node that we asked may not join: told once, and asked less often.
    fn refuse(&mut self, asked: SocketAddr, why: Why) {
        self.contacts.refuse(asked, self.now.ms);
        self.tell_refused(asked, why);
    }

    /// A node may not join. An address that was not asked may be forged: it is told, and that is all.
    fn tell_refused(&mut self, peer: SocketAddr, why: Why) {
        self.counts.refused += 1;
        let kind = match &why {
            Why::RefusedThere(verdict) => TOLD_REFUSED_THERE + verdict.number(),
            why => Verdict::of(why).number(),
        };
        if self.told.is_news(peer, kind, self.now.ms) {
            let ours = self.own().address;
            self.tell(Event::Refused(Refusal { theirs: peer, ours, why }));
        }
    }

    /// What does not open is told where it was meant for us, and answered in the clear where it asked.
    fn refuse_unopened(&mut self, from: SocketAddr, unopened: Unopened) {
        let (outside, why) = match unopened {
            Unopened::Garbage => return self.counts.garbage += 1,
            Unopened::OtherLayout(layout) => {
                return self.tell_refused(from, Why::OtherLayout(layout));
            }
            Unopened::Unsealed(outside) => (outside, Why::NoSecret),
            Unopened::Sealed(outside) => (outside, Why::NoSecretHere),
            Unopened::OtherSecret(outside) => (outside, Why::OtherSecret),
        };
        if outside.from == self.own().process {
            return;
        }
        self.tell_refused(from, why);
        let second = self.now.ms / 1_000;
        if self.refusals.0 != second {
            self.refusals = (second, 0);
        }
        if outside.kind == Kind::Ask && self.refusals.1 < REFUSALS_A_SECOND {
            self.refusals.1 += 1;
            self.send(Kind::Refusal, outside.from, from, &[Verdict::Secret.number()]);
        }
    }

    /// Somebody says that he cannot read us: anybody can say so, and it changes nothing but what is told.
    fn hear_refusal(&mut self, from: SocketAddr, inside: &[u8]) {
        let is_it = inside == [Verdict::Secret.number()];
        if is_it && self.contacts.was_asked(from, self.now.ms) {
            self.tell_refused(from, Why::RefusedThere(Verdict::Secret));
        }
    }

    /// Says good-bye: the others see at once that this node is down. Nothing is done after the effects.
    pub fn leave(&mut self, now: Now) {
        self.clock(now);
        if self.phase == Phase::In {
            self.swim(|foca, outbox| foca.leave_cluster(outbox));
        }
        self.phase = Phase::Over;
    }
}
