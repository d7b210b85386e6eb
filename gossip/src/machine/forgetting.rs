//! The list of members, for those who ask, and letting go of those that will not return.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use engine::identity::{Identity, NodeId};

use super::{Gossip, Now};
use crate::event::{Event, Stop};
use crate::member::Member;
use crate::message::{self, Tombstone};
use crate::roll::Known;
use crate::seal::Kind;
use crate::view::{ForgetError, Forgotten, State, View};

impl Gossip {
    /// The other members.
    pub fn members(&self) -> Vec<View> {
        let suspects = self.foca.iter_members();
        let suspects: BTreeSet<NodeId> = suspects
            .filter(|member| member.state() == foca::State::Suspect)
            .map(|member| member.id().id())
            .collect();
        let view = |known: &Known| {
            let is_draining = known.heard.is_some_and(|heard| heard.facts.is_draining);
            let state = match known.is_up {
                false => State::Down,
                true if suspects.contains(&known.member.id()) => State::Suspect,
                true if is_draining => State::Draining,
                true => State::Up,
            };
            let ago = |at_ms| self.now.ms.saturating_sub(at_ms);
            View {
                member: known.member.clone(),
                state,
                for_ms: ago(known.since_ms),
                facts: known.heard.map(|heard| (heard.facts, ago(heard.at_ms))),
                watermark: known.watermark,
            }
        };
        self.roll.iter().map(view).collect()
    }

    /// Who was forgotten.
    pub fn forgotten(&self) -> Vec<Forgotten> {
        self.roll.tombstones().map(|tombstone| (tombstone.id, tombstone.boot)).collect()
    }

    /// Forgets a member that will not return, with all its directories; everybody learns it. Whether its
    /// records are safe is for the caller to know.
    pub fn forget(&mut self, now: Now, id: NodeId) -> Result<(), ForgetError> {
        self.clock(now);
        if let Some(own) = self.own().sides.iter().find(|side| side.id == id) {
            return Err(ForgetError::Own(own));
        }
        let known = self.roll.by_side(id).ok_or(ForgetError::Unknown)?;
        let member = known.member.clone();
        if known.is_up {
            return Err(ForgetError::Up(member));
        }
        if !self.roll.has_room_for_tombstones(member.sides.iter().count()) {
            return Err(ForgetError::Full);
        }
        for side in member.sides.iter() {
            self.bury(Tombstone { id: side.id, boot: side.boot });
        }
        Ok(())
    }

    fn bury(&mut self, tombstone: Tombstone) {
        let (is_news, gone) = self.roll.bury(tombstone);
        if !is_news {
            return;
        }
        self.tombstones_digest = self.roll.tombstones_digest();
        self.is_unsaved = true;
        let sides = gone.iter().flat_map(|member| member.sides.iter());
        let buried = sides.filter(|side| side.id == tombstone.id).collect::<Vec<_>>();
        for side in buried {
            self.tell(Event::Forgotten(side));
        }
        self.prune();
    }

    pub(super) fn handle_tombstones(&mut self, by: SocketAddr, tombstones: &[Tombstone]) {
        for tombstone in tombstones {
            let own = self.own();
            let is_own = |side: Identity| side.id == tombstone.id && side.boot <= tombstone.boot;
            if own.sides.iter().any(is_own) {
                let ours = own.address;
                return self.stop(Stop::Forgotten { ours, by });
            }
            self.bury(*tombstone);
        }
    }

    /// To a member that knows others to be forgotten than we do: both sides do so until they know the same.
    pub(super) fn send_tombstones(&mut self, to: &Member) {
        let some = self.roll.due_tombstones(to.process, self.now.ms);
        if !some.is_empty() {
            let inside = message::put_tombstones(&some);
            self.send(Kind::Tombstones, to.process, to.address, &inside);
        }
    }
}
