//! Segments of which something could not be read, and those that were set aside: what every answer
//! lacks because of them, and when they are read again.
//!
//! Invariants: while something of a file was not read, the file stays as it is (name and bytes) and
//! is not offered to consumers; it is read again until it can be, or until all that it may hold has
//! expired. What the process is short of, and a file that is not there, are never held against it:
//! only what the disk refuses for minutes is given up, that is, what of it is readable goes to the
//! store and the rest is set aside; until somebody takes it, it is read again like the others. What was set aside stays known, also after a restart, and comes
//! back when it reads well again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ClaimToken, Held, Inner, Registry, enqueue, queue_key};
use crate::damage::{Damage, DamageKind};
use crate::ingest::examine::{Depth, Found, Verdict};
use crate::ingest::registry::FileError;
use crate::ingest::segment::{Segment, SegmentState};
use crate::limits::{
    LOST_SPANS_OF_FILE_MAX, UNREAD_FILES_AT_A_TIME, UNREAD_GIVEN_UP_MS, UNREAD_PAUSE_MS_MAX,
    UNREAD_PAUSE_MS_MIN, WORSE_PAUSE_MS,
};
use crate::storage::{Open, Refusal};
use crate::store::gather_run::StoredInput;
use crate::ulid::Ulid;

/// What is the matter with a file.
#[derive(Debug)]
pub(super) struct Trouble {
    /// Spans that answers lack.
    damage: Vec<Damage>,
    pub(super) retry: Retry,
    /// The disk has refused for long: a consumer takes what can be read.
    pub(super) is_given_up: bool,
}

/// When something is tried again.
#[derive(Debug, Default)]
pub(super) struct Retry {
    pub(super) next_ms: u64,
    pause_ms: u64,
    /// Since when the disk refuses, milliseconds.
    refused_since: Option<u64>,
}

impl Retry {
    /// It failed again: soon at first, then with longer pauses.
    pub(super) fn failed(&mut self, now_ms: u64) {
        self.pause_ms = (2 * self.pause_ms).clamp(UNREAD_PAUSE_MS_MIN, UNREAD_PAUSE_MS_MAX);
        self.next_ms = now_ms.saturating_add(self.pause_ms);
    }

    /// Whether the disk has refused for so long that what it gives has to do.
    fn is_hopeless(&mut self, refusal: Option<Refusal>, now_ms: u64) -> bool {
        let is_of_disk = refusal.is_some_and(|r| !r.is_shortage() && !r.is_absence());
        if !is_of_disk {
            self.refused_since = None;
            return false;
        }
        now_ms.saturating_sub(*self.refused_since.get_or_insert(now_ms)) >= UNREAD_GIVEN_UP_MS
    }
}

impl Trouble {
    pub(super) fn new(damage: &[Damage]) -> Self {
        Self { damage: bounded(damage), retry: Retry::default(), is_given_up: false }
    }

    /// Something else has its name: no file, or one that was never one of ours.
    fn is_of_strangers(&self, state: SegmentState) -> bool {
        let unused = DamageKind::Malformed("segment");
        let is_active = state == SegmentState::Active;
        self.damage.iter().any(|damage| {
            damage.kind == DamageKind::NotAFile || (is_active && damage.kind == unused)
        })
    }
}

/// Of many spans one that covers them all.
pub(super) fn bounded(damage: &[Damage]) -> Vec<Damage> {
    let lost: Vec<Damage> = damage.iter().filter(|d| d.loses_records()).cloned().collect();
    let Some(first) = lost.first().filter(|_| lost.len() > LOST_SPANS_OF_FILE_MAX) else {
        return lost;
    };
    let from = lost.iter().map(|d| d.range.map_or(Ulid::MIN, |(from, _)| from)).min();
    let to = lost.iter().map(|d| d.range.map_or(Ulid::MAX, |(_, to)| to)).max();
    vec![Damage { range: from.zip(to), records: None, ..first.clone() }]
}

/// What reading files again brought.
#[derive(Debug, Default)]
pub struct Look {
    /// Segments that read well again: they are available.
    pub returned: Vec<Ulid>,
    /// Records of tail files that are segments now.
    pub tail_records: u64,
    /// Files that were set aside and that somebody took away: they are forgotten.
    pub taken_away: Vec<PathBuf>,
    /// Damaged tail files that were removed because there are too many younger ones.
    pub given_up: Vec<PathBuf>,
    /// What was found damaged.
    pub damage: Vec<Damage>,
    /// What failed beside the reading.
    pub errors: Vec<FileError>,
}

/// What a query has to look at, at one moment.
#[derive(Debug, Default)]
pub struct Pinned {
    /// Segments with records that are not set aside.
    pub segments: Vec<Arc<Segment>>,
    /// What cannot be read at present, or is lost.
    pub lost: Vec<Damage>,
}

impl Registry {
    /// Every segment with records in it, and what is known to be missing of all.
    pub fn pin(&self) -> Pinned {
        let inner = self.lock();
        let told = inner.segments.values().flat_map(|held| &held.told);
        let in_files = inner.segments.values().filter_map(|held| held.trouble.as_ref());
        let in_tails = inner.tails.iter().flat_map(|tail| &tail.damage);
        let in_tails = in_tails.chain(inner.tails_aside.iter().flat_map(|tail| &tail.damage));
        let in_files = in_files.flat_map(|trouble| &trouble.damage);
        let lost = told.chain(in_files).chain(in_tails).chain(&inner.missed.told);
        Pinned { lost: lost.cloned().collect(), segments: super::shown(&inner) }
    }

    /// The consumer of a claim could not read some of this segment, and will fail: it is not offered
    /// before it was read again. Says whether that is news.
    pub fn note_unread(&self, token: ClaimToken, id: Ulid, damage: &[Damage], now_ms: u64) -> bool {
        let Some(segment) = self.claimed(token, id) else { return false };
        let mut inner = self.lock();
        inner.queue.remove(&queue_key(&segment));
        let Some(held) = inner.segments.get_mut(&id) else { return false };
        let is_news = held.trouble.is_none();
        let trouble = held.trouble.get_or_insert_with(|| Trouble::new(damage));
        trouble.is_given_up = false;
        segment.take_all_or_nothing(true);
        trouble.retry.failed(now_ms);
        is_news
    }

    /// The file of a segment is not there.
    pub(super) fn note_absent(&self, segment: &Segment, error: &io::Error) {
        let damage = segment.unread(error);
        let mut inner = self.lock();
        inner.queue.remove(&queue_key(segment));
        if let Some(held) = inner.segments.get_mut(&segment.id()) {
            held.claim = None;
            held.trouble.get_or_insert_with(|| Trouble::new(&[damage]));
        }
    }

    /// Enters a segment that recovery found and could not read in full, or that was set aside.
    pub(in crate::ingest) fn has_trouble(&self, segment: &Arc<Segment>, damage: &[Damage]) {
        let mut inner = self.lock();
        inner.queue.remove(&queue_key(segment));
        if let Some(held) = inner.segments.get_mut(&segment.id()) {
            held.trouble = Some(Trouble::new(damage));
        }
    }

    /// Recovery found this damage in a segment that consumers may have as it is: those who look behind
    /// its last record do not meet it.
    pub(in crate::ingest) fn tell(&self, segment: &Segment, damage: &[Damage]) {
        if let Some(held) = self.lock().segments.get_mut(&segment.id()) {
            held.told = bounded(damage);
        }
    }

    /// Recovery is over: no record that was found then is newer.
    pub(in crate::ingest) fn started(&self, newest_ms: u64) {
        self.lock().started_ms = newest_ms;
    }

    /// Keeps a segment's file under `.damaged`: it is offered no more, but what it lacks stays in
    /// every answer. Its readable records were stored before, under this claim; one of which more can
    /// be read than was stored stays claimed. One that is stored by now, or that another claim has, is
    /// left to that; says whether it was set aside.
    pub fn set_aside(
        &self,
        token: ClaimToken,
        stored: &StoredInput,
        damage: &[Damage],
    ) -> Result<bool, FileError> {
        let id = Ulid(stored.id);
        let Some(segment) = self.claimed(token, id) else { return Ok(false) };
        if !segment.readable_coverage().is_within(&stored.coverage) {
            return Ok(false);
        }
        let _operation = self.lock_operation();
        let Some(segment) = self.claimed(token, id) else { return Ok(false) };
        // Told before it is hidden: a query in between would take its answer for complete.
        let set_trouble = |trouble: Option<Trouble>| {
            let mut inner = self.lock();
            let held = inner.segments.get_mut(&id);
            held.and_then(|held| std::mem::replace(&mut held.trouble, trouble))
        };
        let before = set_trouble(Some(Trouble::new(damage)));
        if let Err(error) = self.move_segment(&segment, SegmentState::Damaged, "set aside") {
            if error.error.kind() != io::ErrorKind::NotFound {
                set_trouble(before);
            }
            return Err(error);
        }
        let mut inner = self.lock();
        inner.claims.remove(token, id);
        if let Some(held) = inner.segments.get_mut(&id) {
            held.claim = None;
            held.told.clear();
            // It is told by the name that it has now.
            let damage = held.trouble.iter_mut().flat_map(|trouble| &mut trouble.damage);
            damage.for_each(|damage| damage.path = segment.path());
        }
        Ok(true)
    }

    /// To be called now and then, with monotonic milliseconds: reads again what could not be read.
    pub fn look_again(&self, now_ms: u64) -> Look {
        let mut look = Look::default();
        // What a consumer may have, but nobody has taken, is read again as well: perhaps nobody will.
        let is_ours = |held: &Held, trouble: &Trouble| {
            !trouble.is_given_up || held.segment.state() == SegmentState::Flushed
        };
        let is_due = |held: &&Held| {
            let trouble = held.trouble.as_ref();
            trouble.is_some_and(|t| is_ours(held, t) && t.retry.next_ms <= now_ms)
        };
        let inner = self.lock();
        let due = inner.segments.values().filter(is_due).take(UNREAD_FILES_AT_A_TIME);
        let due: Vec<_> = due.map(|held| Arc::clone(&held.segment)).collect();
        drop(inner);
        for segment in due {
            self.look_at(&segment, now_ms, &mut look);
        }
        self.look_at_tails(now_ms, &mut look);
        self.look_at_tails_aside(now_ms, &mut look);
        if !look.returned.is_empty() || look.tail_records > 0 {
            self.found_more();
        }
        look
    }

    fn look_at(&self, segment: &Arc<Segment>, now_ms: u64, look: &mut Look) {
        let examined = segment.examine(Depth::Frames);
        let _operation = self.lock_operation();
        if segment.state() == SegmentState::Pending && self.is_given_up(segment) {
            // A consumer has it by now.
            return;
        }
        let is_aside = segment.state() == SegmentState::Damaged;
        match examined {
            // Also where no file has its name: that costs little, and is soon over once somebody has taken
            // it away.
            Err(error)
                if self.may_be_forgotten(segment)
                    && self.is_taken_away(&segment.path(), &error) =>
            {
                self.lock().segments.remove(&segment.id());
                look.taken_away.push(segment.path());
            }
            Err(error) => self.still_unread(segment, &[segment.unread(&error)], now_ms),
            Ok(Verdict::Unread(found)) => {
                segment.found(&found);
                self.still_unread(segment, &found.walk.damage, now_ms);
            }
            Ok(Verdict::Records(found))
                if is_lossy(&found) && (is_aside || found.content.records == 0) =>
            {
                self.is_worse(segment, &found.walk.damage, now_ms);
            }
            Ok(Verdict::Records(found)) => match self.make_available(segment, &found) {
                Ok(()) => look.returned.push(segment.id()),
                Err(error) => {
                    // Set aside it is in no answer: all of it is missing until it has its name back.
                    let hidden = is_aside.then(|| segment.unread(&error.error));
                    look.errors.push(error);
                    self.still_unread(segment, hidden.as_slice(), now_ms);
                }
            },
            Ok(Verdict::Unused(_)) if segment.state() == SegmentState::Active => {
                let (path, operation) = (segment.path(), "remove");
                match self.options.storage.remove(&path) {
                    Ok(()) => {
                        self.lock().segments.remove(&segment.id());
                    }
                    Err(error) => look.errors.push(FileError { operation, path, error }),
                }
            }
            Ok(Verdict::Unused(_) | Verdict::Foreign(_) | Verdict::TooShort) => {
                let kind = DamageKind::Malformed("segment");
                self.is_worse(segment, &[segment.whole_damage(kind)], now_ms);
            }
        }
    }

    fn is_given_up(&self, segment: &Segment) -> bool {
        let inner = self.lock();
        let trouble = inner.segments.get(&segment.id()).and_then(|held| held.trouble.as_ref());
        trouble.is_some_and(|trouble| trouble.is_given_up)
    }

    /// Whether nothing is missing of it once its file is gone: it was set aside, or is none of ours.
    fn may_be_forgotten(&self, segment: &Segment) -> bool {
        let inner = self.lock();
        let trouble = inner.segments.get(&segment.id()).and_then(|held| held.trouble.as_ref());
        let state = segment.state();
        state == SegmentState::Damaged || trouble.is_some_and(|t| t.is_of_strangers(state))
    }

    fn still_unread(&self, segment: &Segment, damage: &[Damage], now_ms: u64) {
        let mut inner = self.lock();
        let Some(held) = inner.segments.get_mut(&segment.id()) else { return };
        let Some(trouble) = &mut held.trouble else { return };
        trouble.damage = bounded(damage);
        trouble.retry.failed(now_ms);
        let refusal = damage.iter().find_map(Damage::refusal);
        let is_hopeless = trouble.retry.is_hopeless(refusal, now_ms);
        if is_hopeless && segment.state() == SegmentState::Flushed {
            trouble.is_given_up = true;
            segment.take_all_or_nothing(false);
            enqueue(&mut inner, segment);
        }
    }

    /// It was read, and is damaged.
    fn is_worse(&self, segment: &Segment, damage: &[Damage], now_ms: u64) {
        let mut inner = self.lock();
        if let Some(trouble) =
            inner.segments.get_mut(&segment.id()).and_then(|held| held.trouble.as_mut())
        {
            trouble.damage = bounded(damage);
            let next_ms = now_ms.saturating_add(WORSE_PAUSE_MS);
            trouble.retry = Retry { next_ms, ..Retry::default() };
        }
    }

    /// A segment was read in full: it becomes an ordinary flushed one.
    fn make_available(&self, segment: &Arc<Segment>, found: &Found) -> Result<(), FileError> {
        segment.found(found);
        if segment.state() == SegmentState::Active {
            // Whether or not the disk can do it: the frames are readable as they are.
            let path = segment.path();
            let opened = self.options.storage.open(&path, Open::Write);
            if opened.and_then(|file| file.sync()).is_ok() {
                segment.synced(found.walk.end);
            }
        }
        if segment.state() != SegmentState::Flushed {
            let (operation, path) = ("make available", segment.path());
            let moved = segment.move_to(SegmentState::Flushed);
            moved.map_err(|error| FileError { operation, path, error })?;
        }
        let mut inner = self.lock();
        if let Some(held) = inner.segments.get_mut(&segment.id()) {
            held.trouble = None;
            held.claim = None;
            held.told = bounded(&found.walk.damage);
        }
        enqueue(&mut inner, segment);
        Ok(())
    }

    /// Whether somebody deleted a file, as opposed to the directory's being elsewhere for a while, with
    /// another one in its place perhaps: what a file system was mounted over, say.
    pub(super) fn is_taken_away(&self, path: &Path, error: &io::Error) -> bool {
        let name = path.file_name().and_then(|name| name.to_str());
        let (storage, directory) = (&self.options.storage, &self.options.directory);
        let is_ours = || {
            let is_same = |ground| storage.identity(directory).is_ok_and(|now| now == ground);
            self.ground.is_none_or(is_same)
        };
        error.kind() == io::ErrorKind::NotFound
            && is_ours()
            && storage
                .list(directory)
                .is_ok_and(|entries| entries.iter().all(|entry| entry.name.as_deref() != name))
            && is_ours()
    }

    /// Removes what could not be read, or was set aside, and holds nothing from `horizon_ms`
    /// (milliseconds since 1970) on. Says which files went.
    pub fn expire_unread(&self, horizon_ms: u64) -> (Vec<PathBuf>, Vec<FileError>) {
        let _operation = self.lock_operation();
        let mut inner = self.lock();
        if !inner.missed.is_settled() {
            return (Vec::new(), Vec::new());
        }
        let started_ms = inner.started_ms;
        let is_over = |held: &&Held| {
            let trouble = held.trouble.as_ref();
            // What is none of ours is not ours to remove.
            let trouble = trouble.filter(|t| !t.is_of_strangers(held.segment.state()));
            trouble.is_some_and(|t| newest_ms(&held.segment, t, started_ms) < horizon_ms)
        };
        let over = inner.segments.values().filter(is_over);
        let over: Vec<_> = over.map(|held| Arc::clone(&held.segment)).collect();
        inner.tails.retain(|_| started_ms >= horizon_ms);
        drop(inner);
        let (mut gone, mut errors) = (Vec::new(), Vec::new());
        for segment in over {
            let path = segment.path();
            match self.options.storage.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    errors.push(FileError { operation: "remove", path, error });
                }
                _ => {
                    let mut inner = self.lock();
                    inner.queue.remove(&queue_key(&segment));
                    inner.segments.remove(&segment.id());
                    gone.push(path);
                }
            }
        }
        self.expire_tails_aside(horizon_ms, &mut gone, &mut errors);
        (gone, errors)
    }

    /// Files that cannot be read at present, may hold records that are nowhere else, and are not set
    /// aside: segments and tail files.
    pub fn unread_files(&self) -> usize {
        let inner = self.lock();
        let is_unread = |(id, held): &(&Ulid, &Held)| {
            held.segment.state() != SegmentState::Damaged && !is_offered(&inner, **id)
        };
        inner.segments.iter().filter(is_unread).count() + inner.tails.len()
    }

    /// Segments and tail files that are set aside.
    pub fn damaged_files(&self) -> usize {
        let inner = self.lock();
        let is_aside = |held: &&Held| held.segment.state() == SegmentState::Damaged;
        inner.segments.values().filter(is_aside).count() + inner.tails_aside.len()
    }
}

fn is_lossy(found: &Found) -> bool {
    found.walk.damage.iter().any(Damage::loses_records)
}

/// The newest record that a file may hold.
fn newest_ms(segment: &Segment, trouble: &Trouble, started_ms: u64) -> u64 {
    let known = segment.content().range.map_or(segment.id().ms(), |(_, last)| last.ms());
    if segment.is_written_here() {
        return known;
    }
    let ends = trouble.damage.iter().map(|damage| match damage.range {
        Some((_, to)) if to < Ulid::MAX => to.ms(),
        // Nothing that was found at the start is newer than that.
        _ => started_ms,
    });
    ends.max().unwrap_or(0).max(known)
}

/// Whether a consumer may have it.
pub(super) fn is_offered(inner: &Inner, id: Ulid) -> bool {
    let held = inner.segments.get(&id);
    held.is_some_and(|held| held.trouble.as_ref().is_none_or(|trouble| trouble.is_given_up))
}
