//! Gathering, piece by piece: flushed ingest segments of this node become store segments of this node.
//! What a gather asks of the ingest side is carried out at once; other stores are not asked yet, so
//! that with a replication factor above one it waits for stores that nobody announces.
//!
//! Invariants: nothing is begun while shards need the disk ([`super::pressure`]); what is under way is
//! brought to its end, or cancelled. A failure is news once until it works again.

use std::fmt;
use std::sync::Arc;

use crate::damage::Damage;
use crate::ingest::log::Now;
use crate::ingest::registry::{ClaimLimits, ClaimToken, FileError};
use crate::store::catalogue::Catalogue;
use crate::store::gather::{GatherLimits, GatherNumber, GatherState};
use crate::store::gather_run::{Effect, GatherError, GatherRun, Outcome, Step, StoredInput};
use crate::store::segment::SegmentMeta;
use crate::store::writer::WriterOptions;
use crate::ulid::Ulid;

use super::local_ingest::LocalIngest;
use super::pressure::{Load, Pressure};

/// How a node gathers.
#[derive(Debug, Clone, Copy)]
pub struct GatheringOptions {
    /// When, and how much at a time.
    pub limits: GatherLimits,
    /// How segments are written.
    pub writer: WriterOptions,
    /// Time between looks for something to gather, ms.
    pub pause_ms: u64,
}

/// What happened in a turn.
#[derive(Debug)]
pub enum Happened {
    /// A segment can be found from now on.
    Published {
        /// It.
        segment: SegmentMeta,
        /// Of how many ingest segments it was made.
        inputs: usize,
    },
    /// Their records are stored, and they have left the ingest side.
    Committed {
        /// How many.
        segments: u64,
        /// Their text, bytes.
        text_bytes: u64,
    },
    /// What was claimed and not stored is available again.
    Returned {
        /// How many.
        segments: u64,
    },
    /// What of the inputs could not be read.
    Damaged(Vec<Damage>),
    /// An input that could be read before; its file stays as it is and is read again.
    Unread(Damage),
    /// What could be read of an input is stored; its file is kept under another name.
    SetAside {
        /// Which.
        segment: Ulid,
        /// What of it could not be read, in so many spans.
        spans: usize,
    },
    /// A file of the ingest side stays as it is; it is tried again.
    FileFailed(FileError),
    /// It failed; it is tried again with pauses.
    Failed {
        /// Why.
        error: GatherError,
        /// The one before did not.
        is_news: bool,
    },
    /// The first success since a failure.
    WorksAgain,
}

/// See the module page.
pub struct Gathering {
    run: GatherRun,
    ingest: Arc<LocalIngest>,
    pressure: Pressure,
    pause_ms: u64,
    is_failing: bool,
    next_ms: u64,
}

impl fmt::Debug for Gathering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathering").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Gathering {
    /// From now on, milliseconds of the monotonic clock.
    pub fn start(
        ingest: Arc<LocalIngest>,
        catalogue: Arc<Catalogue>,
        options: GatheringOptions,
        now_ms: u64,
    ) -> Self {
        let GatheringOptions { limits, writer, pause_ms } = options;
        let run = GatherRun::new(limits, catalogue, writer);
        let next_ms = now_ms + pause_ms;
        Self { run, ingest, pressure: Pressure::default(), pause_ms, is_failing: false, next_ms }
    }

    /// What it is doing.
    pub const fn state(&self) -> GatherState {
        self.run.state()
    }

    /// Whether a gather is under way.
    pub fn is_busy(&self) -> bool {
        self.state() == GatherState::Busy
    }

    /// When it is to be turned again, milliseconds of the monotonic clock.
    pub const fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// Ends what is under way, and begins nothing any more.
    pub const fn cancel(&mut self) {
        self.run.cancel();
    }

    /// Does a piece of the work, a chunk at most; says what happened, in order. `load` is asked for
    /// before something new is begun.
    pub fn turn(&mut self, now: Now, load: &dyn Fn() -> Load) -> Vec<Happened> {
        let now_ms = now.monotonic_us / 1000;
        let mut happened = Vec::new();
        if !self.is_busy() {
            if self.pressure.holds_back(now_ms, load()) {
                self.next_ms = now_ms + self.pause_ms;
                return happened;
            }
            self.run.set_available(now_ms, self.ingest.available(now_ms));
        }
        self.next_ms = now_ms;
        match self.run.turn(now_ms) {
            Step::Ask(effect) => self.carry_out(effect, now, &mut happened),
            Step::GoOn => {}
            Step::Wait(_) => self.next_ms = now_ms + self.pause_ms,
        }
        for outcome in self.run.take_outcomes() {
            self.take(outcome, &mut happened);
        }
        happened
    }

    fn take(&mut self, outcome: Outcome, happened: &mut Vec<Happened>) {
        match outcome {
            Outcome::Published { segment, inputs, .. } => {
                happened.push(Happened::Published { segment, inputs });
                if std::mem::take(&mut self.is_failing) {
                    happened.push(Happened::WorksAgain);
                }
            }
            Outcome::Damaged(damage) => happened.push(Happened::Damaged(damage)),
            Outcome::Failed(error) => {
                let is_news = !std::mem::replace(&mut self.is_failing, true);
                happened.push(Happened::Failed { error, is_news });
            }
        }
    }

    fn carry_out(&mut self, effect: Effect, now: Now, happened: &mut Vec<Happened>) {
        let now_ms = now.monotonic_us / 1000;
        let failed = |errors: Vec<FileError>| errors.into_iter().map(Happened::FileFailed);
        match effect {
            Effect::Claim { gather, bytes_max, count_max } => {
                let limits = ClaimLimits { segments_max: count_max, text_bytes_max: bytes_max };
                let claimed = self.ingest.claim(limits, now_ms).map(|(claimed, errors)| {
                    happened.extend(failed(errors));
                    claimed
                });
                self.run.on_claimed(now_ms, gather, claimed);
            }
            Effect::Renew(token) => {
                let renewed = self.ingest.registry.renew(token, now_ms);
                happened.extend(failed(renewed.errors));
                self.run.on_renewed(token, renewed.open);
            }
            Effect::Replicate(gather, store) => {
                self.run.on_replicated(now_ms, gather, store, false);
            }
            Effect::Commit { gather, token, whole, damaged } => {
                self.commit((gather, token), &whole, damaged, now, happened);
            }
            Effect::Fail { gather, token, unread } => {
                for (input, damage) in unread {
                    happened.extend(self.note_unread(token, input, &damage, now_ms));
                }
                let returned = self.ingest.registry.fail(token);
                happened.push(Happened::Returned { segments: returned.segments });
                happened.extend(failed(returned.errors));
                self.run.on_failed(now_ms, gather);
            }
        }
    }

    fn commit(
        &mut self,
        (gather, token): (GatherNumber, ClaimToken),
        whole: &[StoredInput],
        damaged: Vec<(StoredInput, Vec<Damage>)>,
        now: Now,
        happened: &mut Vec<Happened>,
    ) {
        let committed = self.ingest.registry.commit(token, whole, now.wall_ms);
        let (segments, text_bytes) = (committed.segments, committed.text_bytes);
        happened.push(Happened::Committed { segments, text_bytes });
        happened.extend(committed.errors.into_iter().map(Happened::FileFailed));
        for (input, damage) in damaged {
            let segment = Ulid(input.id);
            match self.ingest.registry.set_aside(token, &input, &damage) {
                Ok(true) => {
                    happened.push(Happened::SetAside { segment, spans: damage.len() });
                }
                // Somebody else decides about it, or more of it can be read by now.
                Ok(false) => {}
                // The claim lapses, and it is gathered again.
                Err(error) => happened.push(Happened::FileFailed(error)),
            }
        }
        let kept = committed.kept.len();
        if kept > 0 {
            let returned = self.ingest.registry.fail(token);
            happened.push(Happened::Returned { segments: returned.segments });
            happened.extend(returned.errors.into_iter().map(Happened::FileFailed));
        }
        self.run.on_committed(now.monotonic_us / 1000, gather, kept);
    }

    fn note_unread(
        &self,
        token: ClaimToken,
        input: u128,
        damage: &[Damage],
        now_ms: u64,
    ) -> Option<Happened> {
        let is_news = self.ingest.registry.note_unread(token, Ulid(input), damage, now_ms);
        let refused = damage.iter().find(|damage| damage.refusal().is_some());
        refused.filter(|_| is_news).map(|refused| Happened::Unread(refused.clone()))
    }
}
