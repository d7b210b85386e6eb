//! How a node stops: no new records, shards write out, the store takes what it can in the time that it
//! is given, then it is looked at what became of everything.
//!
//! One piece of work after the other is asked for ([`Effect`]), and is done ([`Done`]) or not in time. What
//! hangs is left: the end comes within the time that was given and a moment, whatever hangs.
//!
//! Invariants: what is asked for later begins only when what may still change its ground has ended or was
//! left; stamps are closed only when nobody stamps any more, in the directory that was locked; the
//! [`LastWord`] is true.

mod last_word;
mod rest;

use std::collections::VecDeque;
use std::sync::Arc;

use super::Node;
use super::doors::Doors;
use crate::ingest::promises::NotOnDisk;
use crate::ingest::registry::Registry;

pub use last_word::{Failure, LastWord, Lost};
pub use rest::Rest;

/// How long what is cancelled at the deadline may take to put away what it has begun, ms.
const CANCEL_GRACE_MS: u64 = 300;
/// How long the last small writes of a stop may take, ms.
const DISK_PATIENCE_MS: u64 = 500;
/// How long it may take to look whether what waits is where the next start looks for it, ms: what is not
/// known by then makes the end a failure, and a busy machine is none that lost something.
const LOOK_PATIENCE_MS: u64 = 2_000;
/// How long shards that cannot write are waited for while the disk is what keeps them from it, ms.
const FULL_DISK_PATIENCE_MS: u64 = 3_000;
/// The part of the time by which those who follow have to be gone, so that shards have the rest.
const FOLLOWERS_SHARE: u64 = 8;
/// The part of it by which open requests have to be.
const REQUESTS_SHARE: u64 = 4;

/// What has to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Live following ends: streams have no end of their own.
    Followers,
    /// No request is taken any more, and open ones end.
    Requests,
    /// A look whether the directories are those that were locked, for the doors to know: shards may come
    /// to be nowhere.
    Ground,
    /// Shards write out what they hold, and end.
    Shards,
    /// The keeper ends: everything that shards have sealed is flushed then.
    Keeper,
    /// The stamps are closed, so that the next life need not start ahead of the clock.
    Stamps,
    /// What is flushed goes to the store, until the deadline ([`Rest`]); all who work there end.
    Store,
    /// Files that nobody needs go, and what is published is kept in mind: behind the last who may have
    /// published something.
    Tidy,
    /// What waits is kept in mind ([`Registry::note_waiting`]): only if all have ended who could let some of
    /// it go.
    Waiting,
    /// Counting what of the shards' records is not on the disk ([`Lost::count`]).
    Unsynced,
    /// Counting what is not where the next start looks for it
    /// ([`records_not_found`](super::names::records_not_found)), or was cut.
    Names,
}

/// What others have to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Compaction ends: it is begun anew after the next start, and others need the time now.
    CancelCompaction,
    /// Begin this; say when it is done.
    Begin(Work),
    /// The store's time is over: it ends between two chunks.
    CancelStore,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It has ended.
    Work(Work),
    /// [`Work::Unsynced`] is, and found this.
    Unsynced(Lost),
    /// So many are missing by the first look of [`Work::Names`], which goes on.
    Listed(u64),
    /// [`Work::Names`] is, and found so many missing.
    Names(u64),
}

impl Done {
    const fn work(self) -> Work {
        match self {
            Self::Work(work) => work,
            Self::Unsynced(_) => Work::Unsynced,
            Self::Listed(_) | Self::Names(_) => Work::Names,
        }
    }
}

/// What shards say of themselves.
pub trait Shards {
    /// What only their memory holds, bytes.
    fn held_bytes(&self) -> u64;
    /// What of their records was not known to be on the disk after their last turns.
    fn not_on_disk(&self) -> Vec<NotOnDisk>;
}

/// See the module page.
pub struct Ending {
    doors: Arc<Doors>,
    registry: Option<Arc<Registry>>,
    started_ms: u64,
    deadline_ms: u64,
    /// What is being done; `None`: it is over.
    work: Option<Work>,
    /// It is left then.
    until_ms: u64,
    is_store_cancelled: bool,
    /// All have ended who make segments or let them go; requests do neither.
    is_still: bool,
    patience: Patience,
    effects: VecDeque<Effect>,
    /// What was left, since that was asked last.
    not_in_time: Vec<Work>,
    word: LastWord,
}

impl Ending {
    /// From now on, milliseconds of the monotonic clock, within so many.
    pub fn start(node: &Node, doors: Arc<Doors>, timeout_ms: u64, now_ms: u64) -> Self {
        let deadline_ms = now_ms.saturating_add(timeout_ms);
        let mut ending = Self {
            doors,
            registry: node.ingest.as_ref().map(|side| Arc::clone(&side.registry)),
            started_ms: now_ms,
            deadline_ms,
            work: None,
            until_ms: 0,
            is_store_cancelled: false,
            is_still: true,
            patience: Patience::default(),
            effects: VecDeque::from([Effect::CancelCompaction]),
            not_in_time: Vec::new(),
            word: LastWord::default(),
        };
        ending.begin(Work::Followers, now_ms);
        ending
    }

    /// When the store has to be done, milliseconds of the monotonic clock.
    pub const fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    /// When it is to be turned again at the latest, milliseconds of the monotonic clock. While shards
    /// write out, whenever they have got on, too.
    pub const fn next_ms(&self) -> u64 {
        self.until_ms
    }

    /// What others have to do next.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What was left because its time was over, since this was asked last.
    pub fn take_not_in_time(&mut self) -> Vec<Work> {
        std::mem::take(&mut self.not_in_time)
    }

    /// How it went, once it is over.
    pub fn last_word(&self) -> Option<LastWord> {
        self.work.is_none().then_some(self.word)
    }

    /// Something is done. What was left is waited for no more.
    pub fn take(&mut self, done: Done, now_ms: u64) {
        let work = done.work();
        if self.work != Some(work) {
            return;
        }
        match done {
            Done::Unsynced(lost) => self.word.lost = lost,
            Done::Listed(records) => {
                // Should the rest not be done in time, this is what is known.
                self.word.not_found = Some(records);
                return;
            }
            Done::Names(records) => self.word.not_found = Some(records),
            Done::Work(_) => {}
        }
        self.go_on(work, now_ms);
    }

    /// Leaves what is not done in time.
    pub fn turn(&mut self, shards: &dyn Shards, now_ms: u64) {
        let Some(work) = self.work else { return };
        if work == Work::Shards {
            let is_disk_failing = self.doors.is_disk_failing();
            self.until_ms = self.patience.until_ms(
                shards.held_bytes(),
                is_disk_failing,
                now_ms,
                self.deadline_ms,
            );
        }
        if now_ms < self.until_ms {
            return;
        }
        if work == Work::Store && !self.is_store_cancelled {
            self.is_store_cancelled = true;
            self.effects.push_back(Effect::CancelStore);
            self.until_ms = now_ms + CANCEL_GRACE_MS;
            return;
        }
        self.not_in_time.push(work);
        // Whoever only looks changes nothing.
        self.word.is_whole &= matches!(work, Work::Ground | Work::Names);
        let moves = [Work::Shards, Work::Keeper, Work::Store, Work::Tidy];
        self.is_still &= !moves.contains(&work);
        if work == Work::Unsynced {
            self.word.lost = Lost::all(&shards.not_on_disk());
        }
        self.go_on(work, now_ms);
    }

    fn go_on(&mut self, done: Work, now_ms: u64) {
        let next = match done {
            Work::Followers => Work::Requests,
            Work::Requests => Work::Ground,
            Work::Ground => Work::Shards,
            Work::Shards => Work::Keeper,
            Work::Keeper if self.word.is_whole && !self.doors.is_ground_lost() => Work::Stamps,
            Work::Keeper | Work::Stamps => Work::Store,
            Work::Store => Work::Tidy,
            Work::Tidy if self.is_still && !self.doors.is_ground_lost() => Work::Waiting,
            Work::Tidy | Work::Waiting => Work::Unsynced,
            Work::Unsynced => {
                self.word.spent_ms = now_ms.saturating_sub(self.started_ms);
                self.word.waiting_bytes = self.registry.as_ref().map_or(0, |r| r.backlog_bytes());
                Work::Names
            }
            Work::Names => {
                self.work = None;
                self.until_ms = u64::MAX;
                return;
            }
        };
        self.begin(next, now_ms);
    }

    fn begin(&mut self, work: Work, now_ms: u64) {
        let part = |share| self.started_ms + (self.deadline_ms - self.started_ms) / share;
        self.until_ms = match work {
            Work::Followers => part(FOLLOWERS_SHARE),
            Work::Requests => part(REQUESTS_SHARE),
            Work::Keeper | Work::Store => self.deadline_ms,
            Work::Shards => {
                self.patience.since_ms = now_ms;
                now_ms
            }
            Work::Tidy => self.deadline_ms.max(now_ms + DISK_PATIENCE_MS),
            Work::Ground | Work::Stamps | Work::Waiting | Work::Unsynced => {
                now_ms + DISK_PATIENCE_MS
            }
            Work::Names => now_ms + LOOK_PATIENCE_MS,
        };
        self.work = Some(work);
        self.effects.push_back(Effect::Begin(work));
    }
}

/// For how long shards that write out are waited for.
#[derive(Debug, Default)]
struct Patience {
    /// What only their memory holds, and since when as much.
    held_bytes: u64,
    since_ms: u64,
}

impl Patience {
    /// Until when to wait, if nothing moves: up to the deadline, but on a disk that takes nothing only as
    /// long as something moves. What tail files hold is taken up at the next start, and nobody was
    /// promised the rest.
    fn until_ms(
        &mut self,
        held_bytes: u64,
        is_disk_failing: bool,
        now_ms: u64,
        deadline_ms: u64,
    ) -> u64 {
        if held_bytes != self.held_bytes || !is_disk_failing {
            (self.held_bytes, self.since_ms) = (held_bytes, now_ms);
        }
        deadline_ms.min(self.since_ms.saturating_add(FULL_DISK_PATIENCE_MS))
    }
}

#[cfg(test)]
mod tests;
