//! The list of all members that were ever met and not forgotten, and of those that were forgotten.
//!
//! Invariants: nobody leaves it by time, only by being forgotten, or because another member took over
//! all of its directories; who was forgotten comes back with a later boot only; a watermark never goes
//! back; the list never holds more than [`MEMBERS_MAX`]. How long a member has been down counts from this
//! node's own start at the earliest: a node that was away knows nothing of the time before.

use std::collections::BTreeMap;
use std::num::NonZeroU8;

use engine::identity::{Identity, NodeId};
use engine::ulid::Ulid;

use crate::facts::{Facts, Said};
use crate::limits::{
    INTRODUCED_MAX, INTRODUCED_MS, MEMBERS_MAX, TOMBSTONES_AT_ONCE, TOMBSTONES_MAX,
};
use crate::member::{Member, ProcessId, Protocol, Sides};
use crate::message::{Claim, Tombstone};
use crate::refusal::Why;
use crate::saved::Saved;
use crate::window::Window;

/// What a member said last of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    pub(crate) facts: Facts,
    pub(crate) at_ms: u64,
    /// Its clock less ours, milliseconds.
    pub(crate) clock_ms: i64,
    number: u64,
}

/// A member, as far as it is known.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) member: Member,
    pub(crate) is_up: bool,
    /// When that began, by this node's clock of durations.
    pub(crate) since_ms: u64,
    pub(crate) heard: Option<Heard>,
    pub(crate) watermark: Ulid,
    /// When it was last sent tombstones, and where those end that it was sent.
    synced: (u64, usize),
}

/// The list.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    members: BTreeMap<NodeId, Known>,
    /// Those of members, and of nobody else.
    processes: BTreeMap<ProcessId, NodeId>,
    /// Who spoke to us and is not a member yet, and when.
    introduced: BTreeMap<ProcessId, (Member, u64)>,
    windows: BTreeMap<ProcessId, (Window, u64)>,
    tombstones: BTreeMap<NodeId, u64>,
}

impl Roll {
    /// What was saved, by a node that starts now.
    pub(crate) fn of_saved(saved: &Saved, own: &Member, now_ms: u64) -> Self {
        let tombstones = saved.tombstones.iter().map(|buried| (buried.id, buried.boot)).collect();
        let mut roll = Self { tombstones, ..Self::default() };
        for (member, watermark) in &saved.members {
            // A life of its own, or of one of its sides, is not another member.
            let rest =
                without(&member.sides, |side| own.sides.iter().any(|mine| mine.id == side.id));
            let Some(sides) = rest.filter(|_| roll.members.len() < MEMBERS_MAX) else { continue };
            let member = Member { sides, ..member.clone() };
            roll.insert(member, false, now_ms).watermark = *watermark;
        }
        roll
    }

    pub(crate) fn to_saved(&self) -> Saved {
        Saved {
            members: self
                .members
                .values()
                .map(|known| (known.member.clone(), known.watermark))
                .collect(),
            tombstones: self.tombstones().collect(),
        }
    }

    fn insert(&mut self, member: Member, is_up: bool, since_ms: u64) -> &mut Known {
        let id = member.id();
        self.processes.insert(member.process, id);
        let watermark = Ulid::MIN;
        let known = Known { member, is_up, since_ms, heard: None, watermark, synced: (0, 0) };
        self.members.remove(&id);
        self.members.entry(id).or_insert(known)
    }

    fn remove(&mut self, id: NodeId) -> Option<Known> {
        let known = self.members.remove(&id)?;
        self.processes.remove(&known.member.process);
        Some(known)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Known> {
        self.members.values()
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<&Known> {
        self.members.get(&id)
    }

    /// The member that has this id on either side.
    pub(crate) fn by_side(&self, id: NodeId) -> Option<&Known> {
        let has_it = |known: &&Known| known.member.sides.iter().any(|side| side.id == id);
        self.get(id).or_else(|| self.iter().filter(has_it).max_by_key(|known| known.is_up))
    }

    /// The member of a process, as it was seen last.
    pub(crate) fn process(&self, process: ProcessId) -> Option<&Member> {
        let known = self.processes.get(&process).and_then(|id| self.members.get(id));
        let introduced = self.introduced.get(&process).map(|(member, _)| member);
        known.map(|known| &known.member).or(introduced)
    }

    /// The member of a process in the standing that is known, or in a later one.
    pub(crate) fn of_process(&self, process: ProcessId, standing: u64) -> Option<Member> {
        let member = self.process(process)?;
        let is_sound = (member.standing..Member::STANDING_END).contains(&standing);
        is_sound.then(|| member.at(standing))
    }

    /// Somebody introduced himself.
    pub(crate) fn introduce(&mut self, member: &Member, now_ms: u64) {
        if let Some(known) = self.members.get_mut(&member.id())
            && known.member.process == member.process
        {
            return;
        }
        let is_full = self.introduced.len() >= INTRODUCED_MAX;
        if is_full && !self.introduced.contains_key(&member.process) {
            let oldest = self.introduced.iter().min_by_key(|(_, (_, at_ms))| *at_ms);
            if let Some(process) = oldest.map(|(process, _)| *process) {
                self.introduced.remove(&process);
            }
        }
        self.introduced.insert(member.process, (member.clone(), now_ms));
    }

    /// Lets go of those who introduced themselves and did not come.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        self.introduced.retain(|_, (_, at_ms)| *at_ms + INTRODUCED_MS > now_ms);
    }

    /// Whether a datagram of a process did not come before.
    pub(crate) fn is_new(&mut self, process: ProcessId, number: u64, now_ms: u64) -> bool {
        let is_full = self.windows.len() >= 2 * MEMBERS_MAX;
        if is_full && !self.windows.contains_key(&process) {
            let oldest = self.windows.iter().min_by_key(|(_, (_, at_ms))| *at_ms);
            if let Some(process) = oldest.map(|(process, _)| *process) {
                self.windows.remove(&process);
            }
        }
        let (window, at_ms) = self.windows.entry(process).or_default();
        *at_ms = now_ms;
        window.take(number)
    }

    /// Whether there may be such a member.
    pub(crate) fn vet(&self, member: &Member, own: &Member) -> Result<(), Why> {
        if !member.protocol.overlaps(own.protocol) {
            return Err(Why::OtherVersion { theirs: member.protocol, ours: Protocol::OURS });
        }
        if let (Some(theirs), Some(ours)) = (member.copies, self.copies(own))
            && theirs != ours
        {
            return Err(Why::OtherCopies { theirs, ours });
        }
        if self.is_forgotten(&member.sides) {
            return Err(Why::Forgotten);
        }
        let is_known = self.members.contains_key(&member.id());
        if !is_known && self.members.len() >= MEMBERS_MAX {
            return Err(Why::Full);
        }
        Ok(())
    }

    /// How many copies the stores want: ours, or those that are up.
    pub(crate) fn copies(&self, own: &Member) -> Option<NonZeroU8> {
        let known = self.iter().filter(|known| known.is_up).find_map(|known| known.member.copies);
        own.copies.or(known)
    }

    /// Whether one of its directories lives on, later, as that of another member.
    pub(crate) fn is_outlived(&self, member: &Member) -> bool {
        let others = self.iter().filter(|known| known.member.id() != member.id());
        others.flat_map(|known| known.member.sides.iter()).any(|side| {
            member.sides.iter().any(|theirs| theirs.id == side.id && theirs.boot < side.boot)
        })
    }

    /// A member is up, or has become another life or standing of itself.
    pub(crate) fn is_up(&mut self, member: &Member, now_ms: u64) {
        self.replace(member, Some(true), now_ms);
        self.introduced.remove(&member.process);
        self.take_over(member);
    }

    /// A member changed its identity, not whether it is up.
    pub(crate) fn rename(&mut self, member: &Member, now_ms: u64) {
        if self.members.contains_key(&member.id()) {
            self.replace(member, None, now_ms);
        }
    }

    fn replace(&mut self, member: &Member, is_up: Option<bool>, now_ms: u64) {
        let before = self.remove(member.id());
        let was_up = before.as_ref().is_some_and(|known| known.is_up);
        let is_up = is_up.unwrap_or(was_up);
        let since_ms =
            before.as_ref().filter(|_| is_up == was_up).map_or(now_ms, |known| known.since_ms);
        let known = self.insert(member.clone(), is_up, since_ms);
        let Some(before) = before else { return };
        known.watermark = before.watermark;
        if before.member.process == member.process {
            (known.heard, known.synced) = (before.heard, before.synced);
        }
        // A directory that it has no more is a member of its own, and down, until it is seen elsewhere.
        let has = |side: Identity| member.sides.iter().any(|now| now.id == side.id);
        let rest = without(&before.member.sides, has);
        if let Some(sides) = rest.filter(|rest| self.by_side(rest.first().id).is_none()) {
            let process = ProcessId(0);
            self.insert(Member { sides, process, ..before.member }, false, now_ms);
        }
    }

    /// Takes from others what this one has of them in a later life, and from those that are down what it
    /// has at all. A directory is locked: who has it in an earlier life is not there any more.
    fn take_over(&mut self, member: &Member) {
        let takes = |known: &Known, side: Identity| {
            let has = member.sides.iter().find(|new| new.id == side.id);
            has.is_some_and(|new| new.boot > side.boot || (new.boot == side.boot && !known.is_up))
        };
        let is_touched = |known: &&Known| {
            let mut sides = known.member.sides.iter();
            known.member.id() != member.id() && sides.any(|side| takes(known, side))
        };
        let touched: Vec<NodeId> =
            self.iter().filter(is_touched).map(|known| known.member.id()).collect();
        for id in touched {
            let Some(before) = self.remove(id) else { continue };
            if let Some(sides) = without(&before.member.sides, |side| takes(&before, side)) {
                let rest = Member { sides, ..before.member };
                self.insert(rest, false, before.since_ms).watermark = before.watermark;
            }
        }
    }

    /// A member is down.
    pub(crate) fn is_down(&mut self, member: &Member, now_ms: u64) {
        if let Some(known) = self.members.get_mut(&member.id())
            && known.is_up
        {
            (known.is_up, known.since_ms) = (false, now_ms);
        }
    }

    /// A member spoke of itself; whether its watermark went on.
    pub(crate) fn hear(&mut self, outside: (ProcessId, u64), said: &Said, now: (u64, u64)) -> bool {
        let ((process, number), (now_ms, wall_ms)) = (outside, now);
        let Some(id) = self.processes.get(&process) else { return false };
        let Some(known) = self.members.get_mut(id) else { return false };
        if known.heard.is_some_and(|heard| heard.number >= number) {
            return false;
        }
        let clock_ms = i64::try_from(i128::from(said.wall_ms) - i128::from(wall_ms));
        let clock_ms = clock_ms.unwrap_or(i64::MAX);
        known.heard = Some(Heard { facts: said.facts, at_ms: now_ms, clock_ms, number });
        let went_on = said.facts.watermark > known.watermark;
        known.watermark = known.watermark.max(said.facts.watermark);
        went_on
    }

    /// Tombstones that a member is due for, as many as fit: once a second, one part after the other.
    pub(crate) fn due_tombstones(&mut self, process: ProcessId, now_ms: u64) -> Vec<Tombstone> {
        let known = self.processes.get(&process).and_then(|id| self.members.get_mut(id));
        let Some(known) = known.filter(|known| known.synced.0 + 1_000 <= now_ms) else {
            return Vec::new();
        };
        let from = if known.synced.1 < self.tombstones.len() { known.synced.1 } else { 0 };
        known.synced = (now_ms, from + TOMBSTONES_AT_ONCE);
        let some = self.tombstones.iter().skip(from).take(TOMBSTONES_AT_ONCE);
        some.map(|(id, boot)| Tombstone { id: *id, boot: *boot }).collect()
    }

    /// What is known under the ids of somebody who asks, other than he himself as he is.
    pub(crate) fn claims(&self, asker: &Member) -> Vec<Claim> {
        let claim = |side: Identity| {
            let is_other = |member: &Member| {
                member.process != asker.process || member.standing > asker.standing
            };
            let known = self.by_side(side.id).filter(|known| is_other(&known.member))?;
            let Member { process, standing, address, .. } = known.member;
            let boot = known.member.sides.iter().find(|known| known.id == side.id)?.boot;
            Some(Claim { id: side.id, process, standing, boot, is_up: known.is_up, address })
        };
        asker.sides.iter().filter_map(claim).collect()
    }

    pub(crate) fn is_forgotten(&self, sides: &Sides) -> bool {
        sides
            .iter()
            .any(|side| self.tombstones.get(&side.id).is_some_and(|boot| side.boot <= *boot))
    }

    pub(crate) fn has_room_for_tombstones(&self, more: usize) -> bool {
        self.tombstones.len() + more <= TOMBSTONES_MAX
    }

    /// Forgets an identity; whether that is news, and the members that go.
    pub(crate) fn bury(&mut self, buried: Tombstone) -> (bool, Vec<Member>) {
        let known = self.tombstones.get(&buried.id).copied();
        let is_full = known.is_none() && !self.has_room_for_tombstones(1);
        if is_full || known.is_some_and(|boot| boot >= buried.boot) {
            return (false, Vec::new());
        }
        self.tombstones.insert(buried.id, buried.boot);
        let gone = self.iter().filter(|known| self.is_forgotten(&known.member.sides));
        let gone: Vec<Member> = gone.map(|known| known.member.clone()).collect();
        for member in &gone {
            self.remove(member.id());
        }
        let tombstones = &self.tombstones;
        let is_buried = |side: Identity| tombstones.get(&side.id).is_some_and(|b| side.boot <= *b);
        self.introduced.retain(|_, (member, _)| !member.sides.iter().any(is_buried));
        (true, gone)
    }

    pub(crate) fn tombstones(&self) -> impl ExactSizeIterator<Item = Tombstone> {
        self.tombstones.iter().map(|(id, boot)| Tombstone { id: *id, boot: *boot })
    }

    /// The same for two nodes that know the same to be forgotten.
    pub(crate) fn tombstones_digest(&self) -> u32 {
        let mut bytes = Vec::with_capacity(self.tombstones.len() * 24);
        self.tombstones().for_each(|tombstone| tombstone.put(&mut bytes));
        crc32fast::hash(&bytes)
    }
}

/// The sides that are not taken away; `None`: all are.
fn without(sides: &Sides, is_taken: impl Fn(Identity) -> bool) -> Option<Sides> {
    let rest: Vec<Identity> = sides.iter().filter(|side| !is_taken(*side)).collect();
    Sides::new(&rest)
}
