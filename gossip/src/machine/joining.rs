//! Getting to know each other: who is asked, what is answered, when this node is in, and which of two
//! processes with one id goes on.
//!
//! A process with an id of ours is only believed when it answers a question of this very process: what
//! was recorded once, or is told by others, makes us ask, never end.

use std::net::SocketAddr;

use engine::identity::Identity;

use super::{Gossip, Phase, TOLD_RIVAL};
use crate::contacts::Absent;
use crate::event::{Effect, Event, Stop};
use crate::limits::{ALONE_MS, CLAIM_MS, DOWN_LONG_MS, SAME_AGE_MS};
use crate::member::{Member, ProcessId, Protocol};
use crate::message::{Answer, Claim, Introduced, Introduction, put_ask};
use crate::refusal::{Verdict, Why};
use crate::seal::{Kind, Outside};

/// Rivals that are looked into at once.
const RIVALS_MAX: usize = 16;
/// Time that a rival has to answer, milliseconds.
const RIVAL_MS: u64 = 3_000;

/// Age of what others said that still counts, milliseconds.
const CLAIM_FRESH_MS: u64 = 1_000;

/// What is known while this node asks.
#[derive(Debug, Default)]
pub(super) struct Joining {
    /// What others say of an id of ours.
    claimed: Option<Claimed>,
    is_boot_told: bool,
}

/// Others say that an id of ours lives elsewhere.
#[derive(Debug)]
struct Claimed {
    since_ms: u64,
    /// When it was said last.
    said_ms: u64,
    identity: Identity,
    claim: Claim,
}

/// Another process with an id of ours.
#[derive(Debug)]
pub(crate) struct Rival {
    since_ms: u64,
    standing: u64,
    /// Whether it is known by the same id as we are.
    is_same: bool,
}

impl Gossip {
    /// How long this process has lived, milliseconds.
    fn lived_ms(&self) -> u64 {
        self.now.ms - self.started_ms
    }

    fn introduction(&self) -> Introduction {
        let member = self.own().clone();
        let rest = Introduced { is_in: self.phase == Phase::In, lived_ms: self.lived_ms(), member };
        Introduction { protocol: Protocol::OURS, cluster: self.cluster.clone(), rest: Some(rest) }
    }

    /// Looks up and asks whoever is due; decides whether this node is in.
    pub(super) fn keep_asking(&mut self) {
        let now_ms = self.now.ms;
        let up: std::collections::BTreeSet<SocketAddr> = self
            .roll
            .iter()
            .filter(|known| known.is_up)
            .map(|known| known.member.address)
            .collect();
        let is_up = |address: &SocketAddr| up.contains(address);
        for (seed, name) in self.contacts.due_names(now_ms, is_up) {
            self.push(Effect::Resolve { seed, name });
        }
        let absent = self.roll.iter().filter(|known| !known.is_up).map(|known| Absent {
            address: known.member.address,
            is_long: known.since_ms + DOWN_LONG_MS <= now_ms,
        });
        let absent: Vec<Absent> = absent.collect();
        let has_absent = !absent.is_empty();
        let is_claimed = self.joining.claimed.is_some();
        let to_ask = self.contacts.due_addresses(now_ms, absent, is_claimed, is_up);
        let inside = put_ask(&self.introduction());
        for address in to_ask {
            let number = self.send(Kind::Ask, ProcessId(0), address, &inside);
            self.contacts.asked(number, address, now_ms);
        }
        if self.phase == Phase::Asking {
            let is_nobody = self.contacts.are_all_own() && !has_absent;
            if is_nobody && self.joining.claimed.is_none() {
                self.go_in();
            }
            self.believe_claim();
        }
    }

    /// What others went on to say for as long as they need to see a death is true.
    fn believe_claim(&mut self) {
        let now_ms = self.now.ms;
        let due = self.joining.claimed.take_if(|claimed| claimed.since_ms + CLAIM_MS <= now_ms);
        if let Some(Claimed { said_ms, identity, claim, .. }) = due
            && said_ms + CLAIM_FRESH_MS > now_ms
        {
            self.stop_copied(identity, claim.address, claim.process);
        }
    }

    fn go_in(&mut self) {
        self.phase = Phase::In;
        let is_alone = !self.has_met && self.contacts.are_all_own();
        self.tell(Event::In { is_alone });
        self.contacts.hurry();
    }

    fn stop_copied(&mut self, identity: Identity, theirs: SocketAddr, process: ProcessId) {
        let ours = self.own().address;
        self.stop(Stop::Copied { identity, ours, theirs, process });
    }

    /// What everybody has to agree in who is a member.
    fn judge<'a>(&self, introduction: &'a Introduction) -> Result<&'a Introduced, Why> {
        let Introduction { protocol, cluster, rest } = introduction;
        if *cluster != self.cluster {
            let (theirs, ours) = (cluster.clone(), self.cluster.clone());
            return Err(Why::OtherCluster { theirs, ours });
        }
        let other = Why::OtherVersion { theirs: *protocol, ours: Protocol::OURS };
        let introduced = rest.as_ref().ok_or(other)?;
        self.roll.vet(&introduced.member, self.own())?;
        Ok(introduced)
    }

    /// Somebody asks. `from` is where the answer goes, and nothing else: it may be forged.
    pub(super) fn handle_ask(
        &mut self,
        from: SocketAddr,
        outside: Outside,
        introduction: &Introduction,
    ) {
        let judged = self.judge(introduction).cloned();
        let (mut verdict, mut claims) = (Verdict::Welcome, Vec::new());
        match judged {
            Ok(introduced) if introduced.member.process != outside.from => {
                return self.counts.garbage += 1;
            }
            Ok(introduced) => {
                let member = introduced.member;
                claims = self.roll.claims(&member);
                match self.own().sides.shared_with(&member.sides) {
                    Some(shared) => self.meet_rival(shared, from, &member),
                    None => self.roll.introduce(&member, self.now.ms),
                }
                // Who asks while we do may be the first to answer us.
                if self.phase == Phase::Asking {
                    self.contacts.hear_of(member.address, self.now.ms);
                    self.contacts.hear_of(from, self.now.ms);
                }
            }
            Err(why) => {
                verdict = Verdict::of(&why);
                self.tell_refused(from, why);
            }
        }
        let introduction = self.introduction();
        let answer = Answer { introduction, asked: outside.number, verdict, claims };
        self.send(Kind::Answer, outside.from, from, &answer.put());
    }

    /// An answer came.
    pub(super) fn handle_answer(&mut self, from: SocketAddr, answer: Answer) {
        let now_ms = self.now.ms;
        let judged = self.judge(&answer.introduction).cloned();
        // What speaks another version does not say which question it answers.
        let is_readable = answer.introduction.rest.is_some();
        let asked = if is_readable {
            self.contacts.answered(answer.asked, now_ms)
        } else {
            Some(from).filter(|from| self.contacts.was_asked(*from, now_ms))
        };
        let Some(asked) = asked else { return self.counts.unknown += 1 };
        let introduced = match judged {
            Ok(introduced) => introduced,
            Err(why) => return self.refuse(asked, why),
        };
        let member = introduced.member.clone();
        if let Some(shared) = self.own().sides.shared_with(&member.sides) {
            return self.settle(shared, &introduced);
        }
        match answer.verdict {
            Verdict::Welcome => {}
            Verdict::Forgotten => {
                let ours = self.own().address;
                return self.stop(Stop::Forgotten { ours, by: asked });
            }
            verdict => return self.refuse(asked, Why::RefusedThere(verdict)),
        }
        self.roll.introduce(&member, now_ms);
        self.weigh(&introduced, answer.claims);
        if self.phase == Phase::In && !self.is_active(&member) {
            self.swim(|foca, outbox| foca.announce(member, outbox));
        }
    }

    /// What somebody knows of our ids; whether that lets us in.
    fn weigh(&mut self, introduced: &Introduced, claims: Vec<Claim>) {
        let (now_ms, own) = (self.now.ms, self.own().clone());
        let own_side = |claim: &Claim| own.sides.iter().find(|side| side.id == claim.id);
        let mut living = None;
        for claim in claims {
            let Some(side) = own_side(&claim) else { continue };
            if claim.process == own.process {
                // Somebody lied, or we were late: we have to get past it in one step.
                self.rise_above(claim.standing);
                continue;
            }
            // Where we are ourselves nobody else is: it is what we were before, or answers when asked.
            if claim.is_up && claim.address != own.address {
                self.contacts.doubt(claim.address, now_ms);
                living = Some((side, claim));
                continue;
            }
            if claim.boot > side.boot && !self.joining.is_boot_told {
                self.joining.is_boot_told = true;
                self.tell(Event::BootWentBack { ours: side, known: claim.boot });
            }
            if claim.id == own.id() {
                self.rise_above(claim.standing);
            }
        }
        if self.phase != Phase::Asking {
            return;
        }
        let is_word = introduced.is_in || self.lived_ms() >= ALONE_MS;
        if let Some((identity, claim)) = living {
            let known = self.joining.claimed.take().map(|claimed| claimed.since_ms);
            let since_ms = known.unwrap_or(now_ms);
            let claimed = Claimed { since_ms, said_ms: now_ms, identity, claim };
            self.joining.claimed = Some(claimed);
        } else if is_word {
            self.joining.claimed = None;
            self.go_in();
        }
    }

    /// Another process says to have an id of ours: it is asked, and told.
    pub(super) fn meet_rival(&mut self, shared: Identity, address: SocketAddr, other: &Member) {
        let is_former = other.process == self.own().process;
        if is_former || self.rivals.len() >= RIVALS_MAX {
            return;
        }
        let is_same = other.id() == self.own().id();
        let (since_ms, standing) = (self.now.ms, other.standing);
        self.rivals.entry(other.process).or_insert(Rival { since_ms, standing, is_same });
        for address in [address, other.address] {
            self.contacts.doubt(address, since_ms);
        }
        // An earlier boot is what this node was, in words that somebody recorded.
        let theirs = other.sides.iter().find(|side| side.id == shared.id);
        let is_later = theirs.is_some_and(|side| side.boot >= shared.boot);
        if is_later && self.told.is_news(address, TOLD_RIVAL, since_ms) {
            self.tell(Event::Rival { address, identity: shared });
        }
    }

    /// A process with an id of ours has answered: one of the two has to end.
    fn settle(&mut self, shared: Identity, other: &Introduced) {
        let (own, theirs) = (self.own(), &other.member);
        if theirs.process == own.process {
            return;
        }
        let is_in = self.phase == Phase::In;
        let (ours_ms, theirs_ms) = (self.lived_ms(), other.lived_ms);
        let is_younger = match (is_in, other.is_in) {
            (false, true) => true,
            (true, false) => false,
            _ if ours_ms.abs_diff(theirs_ms) > SAME_AGE_MS => ours_ms < theirs_ms,
            _ => own.process > theirs.process,
        };
        if is_younger {
            return self.stop_copied(shared, theirs.address, theirs.process);
        }
        // It ends as soon as it hears the same of us; what it made others believe has to give way.
        if theirs.id() == own.id() {
            self.rise_above(theirs.standing);
        }
    }

    /// This process did not run for a while: others had no chance to answer.
    pub(super) fn stood_still(&mut self, for_ms: u64) {
        if let Some(claimed) = &mut self.joining.claimed {
            claimed.since_ms += for_ms;
        }
        self.suspects.values_mut().for_each(|since_ms| *since_ms += for_ms);
        self.rivals.values_mut().for_each(|rival| rival.since_ms += for_ms);
    }

    /// Rivals that did not answer do not live; what is believed of them has to give way.
    pub(super) fn settle_rivals(&mut self) {
        let now_ms = self.now.ms;
        let is_over = |rival: &Rival| rival.since_ms + RIVAL_MS <= now_ms;
        let over = self.rivals.values().filter(|rival| is_over(rival) && rival.is_same);
        let standing = over.map(|rival| rival.standing).max();
        self.rivals.retain(|_, rival| !is_over(rival));
        if let Some(standing) = standing {
            self.rise_above(standing);
        }
    }
}
