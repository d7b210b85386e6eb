//! What waits in an ingest directory while no node runs: a small file that an orderly stop leaves, so that
//! the next start knows which segments somebody took away meanwhile. `docs/format-ingest.md` has the byte
//! table.
//!
//! Invariants: a hole is told only if it is one. A segment is claimed here only while nobody lets it go:
//! from the last write of an orderly stop, when nobody is left who could, to the next start, which claims
//! no more than what it misses before it lets anything go. What has the segment's name counts as it,
//! whatever is in it: damage is told as such. What a store has, may have, or has let go is not missing,
//! nor is what may be the same record as one that is there. Of another ingester's file nothing is
//! believed; one that cannot be read is given up and told, for what it claims goes on being let go of.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::Path;

use super::check::slots_in;
use super::covered;
use super::segment::{FileName, SegmentState, file_name};
use crate::damage::{Damage, DamageKind};
use crate::identity::{self, IDENTITY_FILE, NodeId, Side};
use crate::limits::WAITING_SPANS_MAX;
use crate::storage::{Refusal, Storage, write_anew};
use crate::store::coverage::{Coverage, Gap};
use crate::store::fields::{Put, Take, decode_small, read_small};
use crate::store::inventory::Holdings;
use crate::store::inventory::look::holdings;
use crate::ulid::{MS_MAX, PART_MAX, Ulid};

/// Name of the file.
pub const WAITING_FILE: &str = "WAITING";
/// Its name until it is whole.
pub const WAITING_NEW_FILE: &str = "WAITING.new";
/// First bytes.
const MAGIC: [u8; 8] = *b"\x89OKLWTG\n";
/// Version.
const VERSION: u16 = 1;
/// What it is, for people.
const PART: &str = "list of what waits";

/// How often a file that cannot be read, or not be written, is tried before it is given up.
pub(super) const TRIES: u32 = 5;

/// The longest that is read, bytes: as many spans as there may be, each of a segment of its own.
const BYTES_MAX: u64 = 44 + WAITING_SPANS_MAX as u64 * (24 + 40);

/// Records by the segment that holds, or held, them: at most [`WAITING_SPANS_MAX`] spans.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting(BTreeMap<Ulid, Vec<Gap>>);

impl Waiting {
    /// A segment waits. Where that makes too many spans it is left out.
    pub(super) fn add(&mut self, segment: Ulid, coverage: &Coverage) {
        let known: usize = self.0.values().map(Vec::len).sum();
        let spans: Vec<Gap> = coverage.intervals().iter().map(Gap::of_interval).collect();
        if !spans.is_empty() && known + spans.len() <= WAITING_SPANS_MAX {
            self.0.insert(segment, spans);
        }
    }

    /// Whether nothing is claimed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Records that are claimed.
    pub fn record_count(&self) -> u64 {
        self.0.values().flatten().map(Gap::record_count).sum()
    }

    /// Streams of them.
    pub(super) fn streams(&self) -> HashSet<u64> {
        self.0.values().flatten().map(|span| span.stream).collect()
    }

    /// Whether this segment's are.
    pub fn names(&self, segment: Ulid) -> bool {
        self.0.contains_key(&segment)
    }

    /// Leaves out segments.
    pub(super) fn retain(&mut self, is_kept: impl Fn(Ulid) -> bool) {
        self.0.retain(|segment, _| is_kept(*segment));
    }

    fn change_spans(&mut self, mut change: impl FnMut(Gap) -> Vec<Gap>) {
        for spans in self.0.values_mut() {
            *spans = std::mem::take(spans).into_iter().flat_map(&mut change).collect();
        }
        self.0.retain(|_, spans| !spans.is_empty());
    }

    /// Leaves out what may be among these.
    pub(crate) fn leave_out(&mut self, held: &Coverage) {
        self.change_spans(|span| span.outside(held));
    }

    /// Leaves out spans.
    pub(crate) fn leave_out_if(&mut self, is_out: impl Fn(&Gap) -> bool) {
        self.change_spans(|span| if is_out(&span) { Vec::new() } else { vec![span] });
    }

    /// A hole for each span, as what it is to those who look for records, where nothing may hold it of which
    /// only the first and the last millisecond are known.
    fn damage(&self, directory: &Path, unknown: &[(u64, u64)]) -> Vec<Damage> {
        let may_be_held =
            |span: &Gap| unknown.iter().any(|&(from, to)| from <= span.to_ms && span.from_ms <= to);
        let spans = self.0.iter().flat_map(|(id, spans)| spans.iter().map(move |span| (id, span)));
        let spans = spans.filter(|(_, span)| !may_be_held(span));
        let hole = |(id, span): (&Ulid, &Gap)| Damage {
            path: directory.join(file_name(*id, SegmentState::Flushed)),
            offset: 0,
            len_bytes: 0,
            range: Some((Ulid::first_of_ms(span.from_ms), Ulid::last_of_ms(span.to_ms))),
            records: Some(span.record_count()),
            kind: DamageKind::Missing(Side::Ingest, *span),
        };
        spans.map(hole).collect()
    }

    /// As it is stored, by this ingester; 0: nobody knows by which.
    pub(crate) fn encode(&self, ingester: NodeId) -> Vec<u8> {
        let mut put = Put::default();
        put.bytes(&MAGIC).u16(VERSION).bytes(&[0; 6]).u128(ingester.0);
        put.u32(self.0.len() as u32).bytes(&[0; 4]);
        for (segment, spans) in &self.0 {
            put.ulid(*segment).u32(spans.len() as u32).bytes(&[0; 4]);
            for Gap { stream, from, to, from_ms, to_ms } in spans {
                put.u64(*stream).u64(*from).u64(*to).u64(*from_ms).u64(*to_ms);
            }
        }
        put.checksum();
        put.0
    }

    /// The inverse, and whose it is.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<(NodeId, Self), DamageKind> {
        decode_small(bytes, (&MAGIC, VERSION), PART, Self::take_fields)
    }

    fn take_fields(take: &mut Take<'_>) -> Option<(NodeId, Self)> {
        take.bytes(6)?;
        let ingester = NodeId(take.u128()?);
        let (mut waiting, mut left) = (BTreeMap::new(), WAITING_SPANS_MAX);
        let count = take.u32()?;
        take.bytes(4)?;
        for _ in 0..count {
            let segment = take.ulid()?;
            let count = take.u32()? as usize;
            take.bytes(4)?;
            left = left.checked_sub(count)?;
            let spans: Option<Vec<Gap>> = (0..count).map(|_| take_span(take)).collect();
            let is_next = waiting.last_key_value().is_none_or(|(last, _)| *last < segment);
            waiting.insert(segment, spans.filter(|spans| is_next && !spans.is_empty())?);
        }
        Some((ingester, Self(waiting)))
    }
}

fn take_span(take: &mut Take<'_>) -> Option<Gap> {
    let stream = take.u64()?;
    let (from, to, from_ms, to_ms) = (take.u64()?, take.u64()?, take.u64()?, take.u64()?);
    let is_possible =
        stream <= PART_MAX && from <= to && to <= PART_MAX && from_ms <= to_ms && to_ms <= MS_MAX;
    is_possible.then_some(Gap { stream, from, to, from_ms, to_ms })
}

/// Reads such a file, which is to be that of `own`, where it is known whose directory it is in; `None`:
/// there is none.
fn load(
    storage: &dyn Storage,
    path: &Path,
    own: Option<NodeId>,
) -> io::Result<Option<Result<Waiting, DamageKind>>> {
    let believed = |bytes: Vec<u8>| match (Waiting::decode(&bytes)?, own) {
        ((ingester, _), Some(own)) if ingester != own => {
            Err(DamageKind::Foreign(PART, "another ingester"))
        }
        ((_, waiting), _) => Ok(waiting),
    };
    let read = read_small(storage, path, BYTES_MAX, PART)?;
    Ok(read.map(|bytes| bytes.and_then(believed)))
}

/// It holds no record.
fn damage_of_file(path: &Path, kind: DamageKind) -> Damage {
    let records = Some(0);
    Damage { path: path.to_owned(), offset: 0, len_bytes: 0, range: None, records, kind }
}

/// Segments of which a file is there, whatever is in it.
fn segments_in(storage: &dyn Storage, directory: &Path) -> io::Result<Vec<FileName>> {
    let entries = storage.list(directory)?;
    Ok(entries.iter().filter_map(|entry| FileName::parse(entry.name.as_deref()?)).collect())
}

/// Checks such a file, offline and read-only: its own bytes, and what is missing of what it claims and is
/// in none of these store directories. Beside a running node, which lets go of what it claims no more,
/// only what it claims before and behind the look is missing.
///
/// # Errors
/// The file or its directory cannot be read.
pub fn check(storage: &dyn Storage, path: &Path, stores: &[&Path]) -> io::Result<Vec<Damage>> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let identity = identity::check(storage, &directory.join(IDENTITY_FILE));
    let own = identity.ok().and_then(|(found, _)| found).map(|identity| identity.id);
    let mut waiting = match load(storage, path, own)? {
        None => return Ok(Vec::new()),
        Some(Err(kind)) => return Ok(vec![damage_of_file(path, kind)]),
        Some(Ok(waiting)) => waiting,
    };
    let there = segments_in(storage, directory)?;
    waiting.retain(|segment| there.iter().all(|name| name.id != segment));
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    // Where writing failed, what it held may have gone to another one, too.
    for name in there {
        let path = directory.join(name.to_string());
        waiting.leave_out(&covered::in_file(storage, &path, name));
    }
    for slot in slots_in(storage, directory) {
        waiting.leave_out(&Coverage::of_table(&slot.table));
    }
    let mut unknown = Vec::new();
    for store in stores {
        // Of one that cannot be listed it is not known what it has, and that is told elsewhere.
        let Ok(holdings) = holdings(storage, store) else { return Ok(Vec::new()) };
        holdings.leave_out_of(&mut waiting);
        unknown.extend(holdings.into_unknown());
    }
    let Some(Ok(later)) = load(storage, path, own)? else { return Ok(Vec::new()) };
    waiting.retain(|segment| later.names(segment));
    Ok(waiting.damage(directory, &unknown))
}

/// What a node misses of what waited for it, and whether the file says so.
#[derive(Debug, Clone)]
pub(crate) struct Missing {
    waiting: Waiting,
    /// The file says just this.
    is_saved: bool,
    /// The file may claim what is there: nothing may be let go.
    is_owed: bool,
    /// The disk has failed to do it: what seems to be gone may come back.
    has_failed: bool,
    /// The store may hold some of it in what it cannot read: first and last millisecond since 1970.
    unknown: Vec<(u64, u64)>,
    /// Something can be read again of which that was not known.
    is_stale: bool,
    /// The file could not be read yet.
    unread: Option<Unread>,
}

/// A file that could not be read at the start.
#[derive(Debug, Clone)]
struct Unread {
    /// Segments of which a file was there then.
    there: BTreeSet<u128>,
    tries_left: u32,
}

impl Default for Missing {
    /// Nothing is missing, and there is no file.
    fn default() -> Self {
        Self {
            waiting: Waiting::default(),
            is_saved: true,
            is_owed: false,
            has_failed: false,
            unknown: Vec::new(),
            is_stale: false,
            unread: None,
        }
    }
}

impl Missing {
    /// Reads the file of an ingest directory; says what is wrong with it, too.
    ///
    /// # Errors
    /// It is a later program's: who gave it up would lose what that one knows.
    pub(crate) fn open(
        storage: &dyn Storage,
        directory: &Path,
        own: NodeId,
    ) -> Result<(Self, Option<Damage>), Damage> {
        let path = directory.join(WAITING_FILE);
        let mut this = Self { is_saved: false, is_owed: true, ..Self::default() };
        let damage = match load(storage, &path, Some(own)) {
            Ok(None) => return Ok((Self::default(), None)),
            Ok(Some(Ok(waiting))) => {
                this.waiting = waiting;
                None
            }
            Ok(Some(Err(kind))) if is_later(&kind) => return Err(damage_of_file(&path, kind)),
            Ok(Some(Err(kind))) => Some(kind),
            Err(error) => {
                this.unread = Some(Unread { there: BTreeSet::new(), tries_left: TRIES });
                Some(DamageKind::from(Refusal::from(&error)))
            }
        };
        Ok((this, damage.map(|kind| damage_of_file(&path, kind))))
    }

    /// Of these segments there are files, behind recovery: what they have lost is told as theirs.
    pub(crate) fn are_there(&mut self, there: &[u128]) {
        let there: BTreeSet<u128> = there.iter().copied().collect();
        self.waiting.retain(|segment| !there.contains(&segment.0));
        if let Some(unread) = &mut self.unread {
            unread.there = there;
        }
    }

    /// Whether the file could not be read yet: it claims what is not known, and nothing is given up.
    pub(super) const fn is_unread(&self) -> bool {
        self.unread.is_some()
    }

    /// Tries once more to read it. What is read was looked for nowhere yet.
    ///
    /// # Errors
    /// It cannot be read, or not be believed; it was tried often enough, and is given up. One of a later
    /// program is not: it stays unread.
    pub(super) fn read_late(
        &mut self,
        storage: &dyn Storage,
        directory: &Path,
        own: NodeId,
    ) -> Result<(), Damage> {
        let Some(mut unread) = self.unread.take() else { return Ok(()) };
        let path = directory.join(WAITING_FILE);
        match load(storage, &path, Some(own)) {
            Ok(None) => Ok(()),
            Ok(Some(Ok(waiting))) => {
                self.waiting = waiting;
                self.waiting.retain(|segment| !unread.there.contains(&segment.0));
                Ok(())
            }
            Ok(Some(Err(kind))) => {
                if is_later(&kind) {
                    // Never given up.
                    self.unread = Some(unread);
                }
                Err(damage_of_file(&path, kind))
            }
            Err(error) => {
                unread.tries_left -= 1;
                if unread.tries_left == 0 {
                    return Err(damage_of_file(&path, DamageKind::from(Refusal::from(&error))));
                }
                self.unread = Some(unread);
                Ok(())
            }
        }
    }

    /// What the store says of it.
    pub(crate) fn compare(&mut self, holdings: Holdings) {
        self.change(|waiting| holdings.leave_out_of(waiting));
        (self.unknown, self.is_stale) = (holdings.into_unknown(), false);
    }

    /// Until the store is asked, it may hold all of it.
    pub(super) fn hide(&mut self) {
        (self.unknown, self.is_stale) = (vec![(0, MS_MAX)], true);
    }

    /// A hole for each span of it that nothing may hold.
    pub(super) fn holes(&self, directory: &Path) -> Vec<Damage> {
        self.waiting.damage(directory, &self.unknown)
    }

    /// The store can read more than when it was asked.
    pub(super) fn set_stale(&mut self) {
        self.is_stale |= !self.unknown.is_empty();
    }

    /// Whether the store is to be asked.
    pub(super) fn is_stale(&self) -> bool {
        self.is_stale && !self.waiting.is_empty()
    }

    /// What is missing.
    pub(crate) const fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// Whether the file says just this.
    pub(super) const fn is_saved(&self) -> bool {
        self.is_saved
    }

    /// Whether the file may claim what is there.
    pub(super) const fn is_owed(&self) -> bool {
        self.is_owed
    }

    /// Something else is missing; says whether it is.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Waiting)) -> bool {
        let before = self.waiting.clone();
        change(&mut self.waiting);
        let is_news = before != self.waiting;
        self.is_saved &= !is_news;
        is_news
    }

    /// This was brought to disk, as far as that went.
    pub(super) fn was_saved_as(&mut self, saved: &Self) {
        (self.is_owed, self.has_failed) = (saved.is_owed, saved.has_failed);
        self.is_saved = saved.is_saved && self.waiting == saved.waiting;
    }

    /// Has the file say just this. After an error it may say what it said before, and this is to be called
    /// again.
    pub(crate) fn save(
        &mut self,
        storage: &dyn Storage,
        directory: &Path,
        own: NodeId,
        sync_dir: &dyn Fn() -> io::Result<()>,
    ) -> io::Result<()> {
        if self.is_saved {
            return Ok(());
        }
        let [path, new] = [WAITING_FILE, WAITING_NEW_FILE].map(|name| directory.join(name));
        let done = if self.waiting.is_empty() && !self.has_failed {
            remove(storage, &path)
        } else {
            let bytes = self.waiting.encode(own);
            write_anew(storage, &new, &path, &[(0, &bytes)]).map(|_| ())
        };
        let done = done.and_then(|()| sync_dir());
        self.has_failed |= done.is_err();
        done?;
        (self.is_saved, self.is_owed, self.has_failed) = (true, false, false);
        Ok(())
    }

    /// Has it claim nothing, after it could not be written often enough: others wait for that.
    pub(super) fn give_up(
        &mut self,
        storage: &dyn Storage,
        directory: &Path,
        sync_dir: &dyn Fn() -> io::Result<()>,
    ) {
        // Best effort: its space may be what is lacking.
        let _ = storage.remove(&directory.join(WAITING_NEW_FILE));
        let removed = remove(storage, &directory.join(WAITING_FILE)).and_then(|()| sync_dir());
        self.is_owed &= removed.is_err();
    }
}

/// Whether that is a list of a later program's.
const fn is_later(kind: &DamageKind) -> bool {
    matches!(kind, DamageKind::Version(version) if *version > VERSION)
}

/// What is no file claims nothing.
fn remove(storage: &dyn Storage, path: &Path) -> io::Result<()> {
    match storage.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if Refusal::from(&error).is_no_file() => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
#[path = "waiting_tests.rs"]
mod tests;
