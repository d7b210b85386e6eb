//! SWIM, which `foca` does: what it is told, and what it wants.

use std::time::Duration;

use foca::{OwnedNotification, Runtime, Timer};

use super::Gossip;
use crate::codec::{self, Swim, hand_over};
use crate::event::Event;
use crate::limits::{
    ANNOUNCE_MS, ASKS_AT_ONCE, INDIRECT_PROBES, PROBE_MS, PROBE_RTT_MS, SUSPECT_HEARD_MS,
    SUSPECT_MS, TRANSMISSIONS,
};
use crate::member::Member;
use crate::random::Dice;
use crate::seal::{INSIDE_BYTES_MAX, Kind};
use crate::timers::Timers;

/// SWIM among our members.
pub(super) type Foca = foca::Foca<Member, crate::codec::Wire, Dice, foca::NoCustomBroadcast>;

/// How it is set; see decision 0018 for the times.
pub(super) fn config() -> foca::Config {
    let ms = Duration::from_millis;
    let periodic = |frequency_ms, members| {
        let num_members = std::num::NonZeroUsize::new(members).expect("not zero");
        Some(foca::PeriodicParams { frequency: ms(frequency_ms), num_members })
    };
    foca::Config {
        probe_period: ms(PROBE_MS),
        probe_rtt: ms(PROBE_RTT_MS),
        num_indirect_probes: INDIRECT_PROBES.try_into().expect("not zero"),
        max_transmissions: TRANSMISSIONS.try_into().expect("not zero"),
        suspect_to_down_after: ms(SUSPECT_MS),
        // Who is down stays known until he is forgotten.
        remove_down_after: None,
        max_packet_size: (INSIDE_BYTES_MAX - crate::facts::FACTS_BYTES)
            .try_into()
            .expect("not zero"),
        notify_down_members: true,
        periodic_announce: periodic(ANNOUNCE_MS, 1),
        // Questions to whoever is not up do that (`contacts`): a node that is alone has to ask, too.
        periodic_announce_to_down_members: None,
        periodic_gossip: periodic(PROBE_MS, INDIRECT_PROBES),
    }
}

/// Takes what it wants.
pub(super) struct Outbox<'a> {
    now_ms: u64,
    timers: &'a mut Timers,
    sends: Vec<(Member, Vec<u8>)>,
    notes: Vec<OwnedNotification<Member>>,
}

impl Runtime<Member> for Outbox<'_> {
    fn notify(&mut self, note: foca::Notification<'_, Member>) {
        let note = note.to_owned();
        // It disregards what it asked for before, from here on.
        let is_reset = matches!(
            note,
            OwnedNotification::Idle | OwnedNotification::Defunct | OwnedNotification::Rejoin(_)
        );
        if is_reset {
            self.timers.clear();
        }
        self.notes.push(note);
    }

    fn send_to(&mut self, to: Member, data: &[u8]) {
        self.sends.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, timer: Timer<Member>, after: Duration) {
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.timers.add(self.now_ms.saturating_add(after_ms), timer);
    }
}

impl Gossip {
    /// Has `foca` do something, and does what it wants; whether it could make sense of it.
    pub(super) fn swim(
        &mut self,
        act: impl FnOnce(&mut Foca, &mut Outbox<'_>) -> Result<(), foca::Error>,
    ) -> bool {
        let timers = &mut self.timers;
        let (sends, notes) = (Vec::new(), Vec::new());
        let mut outbox = Outbox { now_ms: self.now.ms, timers, sends, notes };
        let is_done = act(&mut self.foca, &mut outbox).is_ok();
        let Outbox { sends, notes, .. } = outbox;
        let mut has_come_back = false;
        for note in notes {
            has_come_back |= matches!(note, OwnedNotification::Rejoin(_));
            self.note(note);
        }
        for (to, data) in sends {
            // `foca` 2.0.0 says so also to a member that answered the suspicion in time, when the time is
            // over; it would come back from a death that was none.
            if codec::is_turn_undead(&data) && self.is_active(&to) {
                continue;
            }
            let mut inside = Vec::with_capacity(crate::facts::FACTS_BYTES + data.len());
            self.said().put(&mut inside);
            inside.extend(data);
            self.send(Kind::Swim, to.process, to.address, &inside);
        }
        if has_come_back {
            self.come_back();
        }
        is_done
    }

    fn note(&mut self, note: OwnedNotification<Member>) {
        let now_ms = self.now.ms;
        match note {
            OwnedNotification::MemberUp(member) => {
                self.tell_same_address(&member);
                self.roll.is_up(&member, now_ms);
                self.has_met = true;
                self.is_unsaved = true;
                self.tell(Event::Up(member));
            }
            OwnedNotification::MemberDown(member) => {
                self.roll.is_down(&member, now_ms);
                self.tell(Event::Down(member));
            }
            OwnedNotification::Rename(before, after) => {
                self.roll.rename(&after, now_ms);
                self.is_unsaved |= before.process != after.process;
            }
            OwnedNotification::Active
            | OwnedNotification::Idle
            | OwnedNotification::Defunct
            | OwnedNotification::Rejoin(_) => {}
        }
    }

    fn tell_same_address(&mut self, member: &Member) {
        let is_same = |known: &&crate::roll::Known| {
            let other = &known.member;
            known.is_up && other.id() != member.id() && other.address == member.address
        };
        let known = self.roll.iter().find(is_same).map(|known| known.member.clone());
        let known = known.or_else(|| {
            let own = self.own();
            (own.address == member.address).then(|| own.clone())
        });
        let Some(known) = known else { return };
        if self.told.is_news(member.address, super::TOLD_SAME_ADDRESS, self.now.ms) {
            self.tell(Event::SameAddress { known, other: member.clone() });
        }
    }

    /// This node has a new standing: those who are up hear of it with the next probe, the others are asked.
    /// So are some of those who are up, since a copy of this node may be why it was held to be down.
    fn come_back(&mut self) {
        self.came_back_ms = Some(self.now.ms);
        self.contacts.hurry();
        let up = self.roll.iter().filter(|known| known.is_up).take(ASKS_AT_ONCE);
        let up: Vec<_> = up.map(|known| known.member.address).collect();
        for address in up {
            self.contacts.doubt(address, self.now.ms);
        }
        self.tell(Event::CameBack);
        self.swim(|foca, outbox| foca.apply_many(std::iter::empty(), false, outbox));
    }

    /// Takes a standing above that of another process with our id, which does not live any more.
    pub(super) fn rise_above(&mut self, standing: u64) {
        if standing < self.own().standing || standing + 1 >= Member::STANDING_END {
            return;
        }
        let own = self.own().at(standing + 1);
        // What was asked for before is disregarded from here on, as when it comes back by itself.
        self.timers.clear();
        self.swim(|foca, outbox| {
            foca.change_identity(own, &mut *outbox)?;
            foca.apply_many(std::iter::empty(), false, outbox)
        });
        self.contacts.hurry();
    }

    /// A message of SWIM came from a process that is known.
    pub(super) fn handle_swim(&mut self, swim: Swim) {
        let Swim { header, updates, .. } = swim;
        // Coming back does not help where a higher standing is believed: answers tell of which (`weigh`).
        // Without a pause the two would talk as fast as they can until it is reached.
        let is_soon = self.came_back_ms.is_some_and(|at_ms| at_ms + PROBE_MS > self.now.ms);
        if is_soon && header.message == foca::Message::TurnUndead {
            self.counts.unknown += 1;
            return;
        }
        let Ok(bytes) = hand_over(&header) else { return };
        // What he says of others comes first: who is suspected has to know it when he answers.
        let was_active = self.is_active(&header.src);
        let mut updates = Some(updates);
        if let Some(updates) = updates.take_if(|_| was_active) {
            self.believe(updates);
        }
        if !self.swim(|foca, outbox| foca.handle_data(&bytes, outbox)) {
            self.counts.garbage += 1;
            return;
        }
        // Who is held to be down is not believed what he says of others.
        if let Some(updates) = updates
            && self.is_active(&header.src)
        {
            self.believe(updates);
        }
    }

    fn believe(&mut self, updates: Vec<foca::Member<Member>>) {
        let believed: Vec<_> =
            updates.into_iter().filter(|update| self.may_believe(update)).collect();
        if !believed.is_empty() {
            self.swim(|foca, outbox| foca.apply_many(believed.into_iter(), true, outbox));
        }
    }

    /// Whether `foca` holds exactly this one to be up.
    pub(super) fn is_active(&self, member: &Member) -> bool {
        self.foca.iter_members().any(|known| known.id() == member)
    }

    /// Whether what others say of somebody may be believed.
    fn may_believe(&mut self, update: &foca::Member<Member>) -> bool {
        let (member, is_up) = (update.id(), update.state() != foca::State::Down);
        let own = self.own().clone();
        if member.id() == own.id() && member.process == own.process {
            return *member == own;
        }
        if is_up && let Some(shared) = own.sides.shared_with(&member.sides) {
            let theirs = member.sides.iter().find(|side| side.id == shared.id);
            if theirs.is_some_and(|side| side.boot >= shared.boot) {
                self.meet_rival(shared, member.address, member);
            }
        }
        if member.id() == own.id() {
            return false;
        }
        if !is_up {
            return self.roll.get(member.id()).is_some();
        }
        // Who is refused is told when he asks himself, not by hearsay.
        let is_refused = self.roll.vet(member, &own).is_err();
        self.counts.refused += u64::from(is_refused);
        !is_refused && !self.roll.is_outlived(member)
    }

    /// Tells suspects that they are, so that whoever lives can say so at once, and holds those to be down
    /// that do not. `foca` leaves the first to chance, and the second to whoever suspected somebody first:
    /// who does not hear of it in time, or took a new standing meanwhile, would wait for long, or for ever.
    pub(super) fn watch_suspects(&mut self) {
        let now_ms = self.now.ms;
        let suspects =
            self.foca.iter_members().filter(|known| known.state() == foca::State::Suspect);
        let suspects: Vec<_> = suspects.cloned().collect();
        let before = std::mem::take(&mut self.suspects);
        let mut late = Vec::new();
        for suspect in suspects {
            let member = suspect.id();
            let suspicion = (member.process, member.standing, suspect.incarnation());
            let since_ms = before.get(&suspicion).copied().unwrap_or(now_ms);
            if since_ms + SUSPECT_HEARD_MS <= now_ms {
                let (id, incarnation) = (member.clone(), suspect.incarnation());
                late.push(foca::Member::new(id, incarnation, foca::State::Down));
                continue;
            }
            self.suspects.insert(suspicion, since_ms);
            if self.suspects.len() <= ASKS_AT_ONCE {
                self.probe_suspect(&suspect);
            }
        }
        if !late.is_empty() {
            self.swim(|foca, outbox| foca.apply_many(late.into_iter(), true, outbox));
        }
    }

    fn probe_suspect(&mut self, suspect: &foca::Member<Member>) {
        let mut inside = Vec::with_capacity(256);
        self.said().put(&mut inside);
        let (src, dst) = (self.own().clone(), suspect.id().clone());
        // No probe of ours may have this number; the answer is heard all the same.
        let message = foca::Message::Ping(0);
        let header = foca::Header { src, src_incarnation: 0, dst, message };
        if codec::put_with_update(&header, suspect, &mut inside).is_ok() {
            self.send(Kind::Swim, suspect.id().process, suspect.id().address, &inside);
        }
    }

    /// Lets go of those that are on the list no more: forgotten, or taken over.
    pub(super) fn prune(&mut self) {
        let is_gone = |member: &&foca::Member<Member>| self.roll.get(member.id().id()).is_none();
        let members = self.foca.iter_membership_state();
        let gone: Vec<Member> = members.filter(is_gone).map(|gone| gone.id().clone()).collect();
        for member in gone {
            let down = foca::Member::down(member.clone());
            self.swim(|foca, outbox| {
                foca.apply_many(std::iter::once(down), false, &mut *outbox)?;
                foca.handle_timer(Timer::RemoveDown(member), outbox)
            });
        }
    }
}
