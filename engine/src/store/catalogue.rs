//! The set of published store segments. Readers take a snapshot; gather and compaction publish a
//! new set in one step.
//!
//! Invariants: a snapshot never changes, and whatever is in it stays readable; a segment that was
//! replaced keeps its file until nobody holds it, so that a query may still open it; files are
//! removed only by [`Catalogue::remove_replaced`], and only files that a published segment replaces, or by
//! [`Catalogue::purge`] from the trash.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::identity::NodeId;
use crate::ulid::Ulid;

use super::StoreDirectory;
use super::name::SegmentId;
use super::segment::StoreSegment;
use super::trash::{Moved, Trash, Trashed};
use super::volume::{Volume, VolumeLimits, Volumes};

/// A set of segments as it was at one moment, ordered by their first record.
pub type Snapshot = Arc<Vec<Arc<StoreSegment>>>;

/// Sums over the published segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Segments.
    pub segment_count: u64,
    /// Records; copies that were not merged yet count each.
    pub record_count: u64,
    /// Text, LFs included, bytes.
    pub text_bytes: u64,
    /// Files, bytes.
    pub file_bytes: u64,
    /// Segments that are known to have lost records.
    pub damaged_count: u64,
    /// Segments that cannot be read, in part at least, for now.
    pub unread_count: u64,
    /// Replaced segments whose files are still there, because somebody reads them.
    pub obsolete_count: u64,
    /// Segments in the trash, those included whose readers have not gone yet.
    pub trash_count: u64,
    /// Their files, bytes.
    pub trash_bytes: u64,
}

/// What [`Catalogue::remove_replaced`] did.
#[derive(Debug, Default)]
pub struct Removals {
    /// Files removed.
    pub removed_count: u64,
    /// Files that could not be removed (the next call tries again), or the directory if the
    /// removals could not be made durable.
    pub failed: Vec<(PathBuf, io::Error)>,
}

/// What [`Catalogue::read_again`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReadAgain {
    /// Files that can be read again.
    pub back: Vec<PathBuf>,
    /// Segments that still cannot be read, in part at least.
    pub refused_count: u64,
}

/// See the module page.
pub struct Catalogue {
    directory: Arc<StoreDirectory>,
    current: RwLock<Snapshot>,
    obsolete: Mutex<Vec<Arc<StoreSegment>>>,
    newest: Mutex<Ulid>,
    trash: Trash,
    volumes: Mutex<Volumes>,
}

impl Catalogue {
    /// A catalogue of segments that were found or that come from a test; `newest` is the newest
    /// record known of, whether it can be read or not.
    pub fn new(
        directory: Arc<StoreDirectory>,
        segments: Vec<Arc<StoreSegment>>,
        newest: Ulid,
    ) -> Self {
        Self::with_trash(directory, segments, newest, Vec::new(), 0)
    }

    /// The same, and what was found in the trash at `now_ms`, milliseconds since 1970.
    pub fn with_trash(
        directory: Arc<StoreDirectory>,
        segments: Vec<Arc<StoreSegment>>,
        newest: Ulid,
        trash: Vec<Trashed>,
        now_ms: u64,
    ) -> Self {
        let own = directory.identity().map_or(NodeId(0), |identity| identity.id);
        let found = segments.iter().filter_map(|segment| segment.meta().volume);
        let volumes = Mutex::new(Volumes::found(own, found, now_ms));
        let this = Self {
            directory,
            current: RwLock::default(),
            obsolete: Mutex::default(),
            newest: Mutex::new(newest),
            trash: Trash::new(trash),
            volumes,
        };
        this.publish(segments, &[]);
        this
    }

    /// The directory that holds the segments.
    pub const fn directory(&self) -> &Arc<StoreDirectory> {
        &self.directory
    }

    /// The volume that the next gathered segment belongs to.
    pub fn volume(&self) -> Volume {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        volumes.open_or_new(|| self.directory.new_volume_id())
    }

    /// Time has passed (`now_ms`: the wall clock, milliseconds since 1970): closes the open volume, if
    /// that is due.
    pub fn tick_volume(&self, now_ms: u64, limits: &VolumeLimits) {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let open = volumes.open().map(|volume| volume.id);
        let snapshot = self.snapshot();
        let of_open = snapshot.iter().map(|segment| segment.meta());
        let of_open = of_open.filter(|meta| open.is_some() && meta.volume.map(|v| v.id) == open);
        let stored_bytes = of_open.map(|meta| meta.file_bytes).sum();
        volumes.tick(now_ms, stored_bytes, limits);
    }

    /// The present set.
    pub fn snapshot(&self) -> Snapshot {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds and removes segments in one step. What is added is durable by now.
    pub fn publish(&self, add: Vec<Arc<StoreSegment>>, remove: &[SegmentId]) {
        let newest = add.iter().map(|s| s.meta().last).max().unwrap_or(Ulid::MIN);
        let gone = self.swap(add, remove);
        self.obsolete.lock().unwrap_or_else(PoisonError::into_inner).extend(gone);
        let mut known = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        *known = newest.max(*known);
    }

    /// Takes expired segments out of the set: no query that starts from now on finds them. Their
    /// files go to the trash by [`Catalogue::move_to_trash`].
    pub fn retire(&self, ids: &[SegmentId]) {
        self.trash.take(self.swap(Vec::new(), ids));
    }

    fn swap(&self, add: Vec<Arc<StoreSegment>>, remove: &[SegmentId]) -> Vec<Arc<StoreSegment>> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let is_removed = |s: &&Arc<StoreSegment>| remove.contains(&s.meta().id);
        let gone: Vec<_> = current.iter().filter(is_removed).cloned().collect();
        let mut next: Vec<_> =
            current.iter().filter(|s| !is_removed(s)).cloned().chain(add).collect();
        next.sort_by_key(|s| (s.meta().first, s.meta().id));
        *current = Arc::new(next);
        gone
    }

    /// Moves the files of retired segments to the trash, as far as nobody holds them any more.
    pub fn move_to_trash(&self, now_ms: u64) -> Moved {
        self.trash.move_in(&self.directory, now_ms)
    }

    /// Removes files from the trash, for good.
    pub fn purge(&self, ids: &[SegmentId]) -> Moved {
        self.trash.purge(&self.directory, ids)
    }

    /// What is in the trash.
    pub fn trash(&self) -> Vec<Trashed> {
        self.trash.files()
    }

    /// Files of retired segments that somebody still holds, bytes.
    pub fn leaving_bytes(&self) -> u64 {
        self.trash.leaving_bytes()
    }

    /// Removes the files of replaced segments that nobody holds any more. Called after each
    /// publication and now and then, since readers let go at any time.
    pub fn remove_replaced(&self) -> Removals {
        let mut removals = Removals::default();
        let lock = || self.obsolete.lock().unwrap_or_else(PoisonError::into_inner);
        // The lock is not held while files go: removing a large one takes its time.
        let mut obsolete = std::mem::take(&mut *lock());
        obsolete.retain(|segment| {
            if segment.is_held_elsewhere() {
                return true;
            }
            match self.directory.storage.remove(segment.path()) {
                Ok(()) => removals.removed_count += 1,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    removals.failed.push((segment.path().to_owned(), e));
                    return true;
                }
            }
            false
        });
        lock().extend(obsolete);
        if removals.removed_count > 0
            && let Err(e) = self.directory.sync()
        {
            // A name that comes back after a power loss is found to be replaced, or merged again.
            removals.failed.push((self.directory.path.clone(), e));
        }
        removals
    }

    /// Tries once more to read the segments that the storage refused, whole or in part, and puts those
    /// that come back into their places; says which did, and how many are still refused. To be called
    /// every few seconds. What a segment that comes back replaces is not looked for: its records are
    /// there twice until compaction finds them, which no answer shows.
    pub fn read_again(&self) -> ReadAgain {
        let mut again = ReadAgain::default();
        for segment in self.snapshot().iter().filter(|segment| segment.is_unread()) {
            let instead = segment.read_again(&self.directory);
            if instead.as_ref().unwrap_or(segment).is_unread() {
                again.refused_count += 1;
            } else {
                again.back.push(segment.path().to_owned());
            }
            if let Some(instead) = instead {
                self.exchange(segment, instead);
            }
        }
        again
    }

    /// Puts a segment in the place of one of the same file, unless that has gone meanwhile.
    fn exchange(&self, of: &Arc<StoreSegment>, instead: Arc<StoreSegment>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = current.iter().position(|segment| Arc::ptr_eq(segment, of)) else { return };
        let mut next = current.to_vec();
        next[at] = instead;
        next.sort_by_key(|s| (s.meta().first, s.meta().id));
        *current = Arc::new(next);
    }

    /// The newest record that was ever in this catalogue.
    pub fn newest(&self) -> Ulid {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sums over the present set.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for segment in self.snapshot().iter() {
            let meta = segment.meta();
            totals.segment_count += 1;
            totals.record_count += meta.record_count;
            totals.text_bytes += meta.text_bytes;
            totals.file_bytes += meta.file_bytes;
            totals.damaged_count += u64::from(segment.is_damaged());
            totals.unread_count += u64::from(segment.is_unread());
        }
        let obsolete = self.obsolete.lock().unwrap_or_else(PoisonError::into_inner);
        totals.obsolete_count = obsolete.len() as u64;
        drop(obsolete);
        (totals.trash_count, totals.trash_bytes) = self.trash.totals();
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{Record, SMALL, directory, read_all, record, write};

    fn records(from: u64, to: u64) -> Vec<Record> {
        (from..to).map(|n| record(1, n)).collect()
    }

    #[test]
    fn a_snapshot_stays_readable_and_files_go_when_nobody_holds_them() {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let a = write(&directory, SMALL, &records(0, 10));
        let b = write(&directory, SMALL, &records(10, 20));
        let newest = b.meta().last;
        let ids = [a.meta().id, b.meta().id];
        let paths = [a.path().to_owned(), b.path().to_owned()];
        let catalogue = Catalogue::new(Arc::clone(&directory), vec![b, a], Ulid::MIN);
        let before = catalogue.snapshot();
        assert!(before[0].meta().first < before[1].meta().first);

        catalogue.publish(vec![write(&directory, SMALL, &records(0, 15))], &ids);
        assert_eq!(catalogue.snapshot().len(), 1);
        assert_eq!(catalogue.newest(), newest, "never goes back");
        assert_eq!(catalogue.remove_replaced().removed_count, 0);
        assert_eq!(catalogue.totals().obsolete_count, 2);
        assert_eq!(read_all(&before[1]).0, records(10, 20));

        drop(before);
        assert_eq!(catalogue.remove_replaced().removed_count, 2);
        assert!(paths.iter().all(|p| !p.exists()));
        let totals = catalogue.totals();
        assert_eq!((totals.segment_count, totals.record_count, totals.obsolete_count), (1, 15, 0));
    }

    #[test]
    fn a_retired_segment_is_found_no_more_and_its_file_waits_for_its_readers() {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let segment = write(&directory, SMALL, &records(0, 10));
        let (id, path) = (segment.meta().id, segment.path().to_owned());
        let catalogue = Catalogue::new(Arc::clone(&directory), vec![segment], Ulid::MIN);
        let pinned = catalogue.snapshot();

        catalogue.retire(&[id]);
        assert!(catalogue.snapshot().is_empty());
        assert!(catalogue.move_to_trash(5).done.is_empty(), "a query may still open it");
        assert!(path.exists());
        assert_eq!(catalogue.totals().trash_count, 1);
        assert_eq!(read_all(&pinned[0]).0, records(0, 10));

        drop(pinned);
        let moved = catalogue.move_to_trash(7);
        assert_eq!((moved.done.len(), moved.failed.len()), (1, 0));
        assert_eq!(catalogue.trash(), moved.done);
        let trashed = &moved.done[0];
        assert_eq!((trashed.at_ms, trashed.last), (7, record(1, 9).ulid));
        assert!(trashed.path.exists() && !path.exists());
        assert!(catalogue.purge(&[SegmentId(id.0 ^ 1)]).done.is_empty(), "another one");
        assert_eq!(catalogue.purge(&[id]).done.len(), 1);
        assert!(!trashed.path.exists());
        assert!(catalogue.trash().is_empty());
    }
}
