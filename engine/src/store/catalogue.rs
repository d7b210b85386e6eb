//! The set of published store segments. Readers take a snapshot; gather and compaction publish a
//! new set in one step.
//!
//! Invariants: a snapshot never changes, and whatever is in it stays readable; a segment that was
//! replaced keeps its file until nobody holds it, so that a query may still open it; files are
//! removed only by [`Catalogue::remove_replaced`], and only files that a published segment replaces, or by
//! [`Catalogue::purge`] from the trash; a file goes there, or from there, only when the
//! [`inventory`](super::inventory) has let go of what it holds.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use crate::damage::Damage;
use crate::identity::NodeId;
use crate::ulid::Ulid;

use super::StoreDirectory;
use super::inventory::look::coverage;
use super::inventory::{Holdings, Inventory, InventoryKeeper, Present};
use super::segment::StoreSegment;
use super::trash::{Moved, Trash, Trashed};
use super::volume::{Volume, VolumeId, VolumeLimits, Volumes};

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

/// What recovery found beside segments.
#[derive(Default)]
pub(super) struct Found {
    /// Files in the trash.
    pub(super) trash: Vec<Trashed>,
    /// What was published here.
    pub(super) inventory: Option<InventoryKeeper>,
    /// When, milliseconds since 1970.
    pub(super) now_ms: u64,
}

/// See the module page.
pub struct Catalogue {
    directory: Arc<StoreDirectory>,
    current: RwLock<Snapshot>,
    obsolete: Mutex<Vec<Arc<StoreSegment>>>,
    /// What was taken out of the set: for as long as somebody holds a handle its file is on its way out.
    going: Mutex<Vec<Weak<StoreSegment>>>,
    newest: Mutex<Ulid>,
    trash: Trash,
    volumes: Mutex<Volumes>,
    /// What was published and not let go; `None` where nobody opened the directory.
    inventory: Option<InventoryKeeper>,
}

impl Catalogue {
    /// A catalogue of segments that were found or that come from a test; `newest` is the newest
    /// record known of, whether it can be read or not.
    pub fn new(
        directory: Arc<StoreDirectory>,
        segments: Vec<Arc<StoreSegment>>,
        newest: Ulid,
    ) -> Self {
        Self::found(directory, segments, newest, Found::default())
    }

    /// The same, and what else recovery found.
    pub(super) fn found(
        directory: Arc<StoreDirectory>,
        segments: Vec<Arc<StoreSegment>>,
        newest: Ulid,
        Found { trash, inventory, now_ms }: Found,
    ) -> Self {
        let own = directory.identity().map_or(NodeId(0), |identity| identity.id);
        let found = segments.iter().map(|segment| (segment.meta().volume, segment.reach()));
        let volumes = Mutex::new(Volumes::found(own, found, now_ms));
        let this = Self {
            directory,
            current: RwLock::default(),
            obsolete: Mutex::default(),
            going: Mutex::default(),
            newest: Mutex::new(newest),
            trash: Trash::new(trash),
            volumes,
            inventory,
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

    /// The volume that gathered segments go to, if one is open.
    pub fn open_volume(&self) -> Option<VolumeId> {
        let volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        volumes.open().map(|volume| volume.id)
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
    pub fn publish(&self, add: Vec<Arc<StoreSegment>>, remove: &[Arc<StoreSegment>]) {
        assert!(remove.is_empty() || !add.is_empty(), "what goes is replaced by something");
        let newest = add.iter().map(|s| s.meta().last).max().unwrap_or(Ulid::MIN);
        let gone = self.swap(add, remove);
        self.obsolete.lock().unwrap_or_else(PoisonError::into_inner).extend(gone);
        let mut known = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        *known = newest.max(*known);
    }

    /// Takes expired segments out of the set: no query that starts from now on finds them. Their
    /// files go to the trash by [`Catalogue::move_to_trash`].
    pub fn retire(&self, segments: &[Arc<StoreSegment>]) {
        let gone = self.swap(Vec::new(), segments);
        self.let_go(gone.iter().map(|segment| (segment.path(), segment.reach())));
        self.trash.take(gone);
    }

    /// What these hold is claimed from now on. Called by who holds the list for writing: a look takes
    /// the claims before the list, so what it finds claimed is known.
    fn claim(&self, published: &[Arc<StoreSegment>]) {
        let coverages: Vec<_> = published.iter().filter_map(|s| s.take_fresh()).collect();
        if let Some(inventory) = self.inventory.as_ref().filter(|_| !coverages.is_empty()) {
            inventory.add(&coverages);
        }
    }

    /// What these files hold, none of it newer than a record, is missed no more.
    fn let_go<'a>(&self, files: impl Iterator<Item = (&'a Path, Ulid)>) {
        let Some(inventory) = &self.inventory else { return };
        let held = |(path, last): (&Path, Ulid)| {
            let read = || coverage(&*self.directory.storage, path);
            (self.directory.caches.with_room(read).ok().flatten(), last.ms())
        };
        let files: Vec<_> = files.map(held).collect();
        if !files.is_empty() {
            inventory.let_go(&files);
        }
    }

    /// What these files in the trash hold is missed no more: somebody may have put them there by hand.
    pub fn let_go_trashed(&self, files: &[Trashed]) {
        self.let_go(files.iter().map(|file| (&*file.path, file.last)));
    }

    /// What was not stamped later is too old to be missed; milliseconds since 1970.
    pub fn set_horizon(&self, horizon_ms: u64) {
        self.inventory.iter().for_each(|inventory| inventory.set_horizon(horizon_ms));
    }

    /// What it says of what is missing elsewhere, with this in its directory.
    pub(super) fn holdings(&self, present: Present) -> Holdings {
        match &self.inventory {
            Some(inventory) => inventory.holdings(present),
            None => Holdings::of(present, Some(Inventory::default())),
        }
    }

    /// The same, of what lies in the directory now.
    ///
    /// # Errors
    /// Those of the disk, which cannot list it.
    pub(crate) fn look_for_holdings(&self) -> io::Result<Holdings> {
        let known = || self.known_files();
        self.inventory.as_ref().map_or_else(
            || Ok(Holdings::default()),
            |inventory| inventory.look_for_holdings(&known),
        )
    }

    /// Whether what was published and let go here cannot be read yet.
    pub(crate) fn is_inventory_unread(&self) -> bool {
        self.inventory.as_ref().is_some_and(InventoryKeeper::is_unread)
    }

    /// What was published here and is in no file: answers lack it.
    pub fn holes(&self) -> Arc<Vec<Damage>> {
        self.inventory.as_ref().map(InventoryKeeper::holes).unwrap_or_default()
    }

    /// How many records that is.
    pub fn missing_records(&self) -> u64 {
        self.holes().iter().filter_map(|hole| hole.records).sum()
    }

    /// Brings to disk what was published and let go, if that is not there as it is.
    ///
    /// # Errors
    /// Those of the disk: it is to be called again.
    pub fn save_inventory(&self) -> io::Result<()> {
        let known = || self.known_files();
        self.inventory.as_ref().map_or(Ok(()), |inventory| inventory.save(&known))
    }

    /// Removes it from the disk: files may go although it can be neither written nor read.
    ///
    /// # Errors
    /// It is still there.
    pub fn forget_inventory(&self) -> io::Result<()> {
        self.inventory.as_ref().map_or(Ok(()), InventoryKeeper::forget)
    }

    /// Whether files may go to the trash, and from there: what they hold is let go on disk.
    pub fn is_settled(&self) -> bool {
        self.inventory.as_ref().is_none_or(InventoryKeeper::is_settled)
    }

    /// By their files: a copy under another name may have the same id.
    fn swap(
        &self,
        add: Vec<Arc<StoreSegment>>,
        remove: &[Arc<StoreSegment>],
    ) -> Vec<Arc<StoreSegment>> {
        let remove: HashSet<&Path> = remove.iter().map(|segment| segment.path()).collect();
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let is_removed = |s: &&Arc<StoreSegment>| remove.contains(s.path());
        let gone: Vec<_> = current.iter().filter(is_removed).cloned().collect();
        let mut next: Vec<_> = current.iter().filter(|s| !is_removed(s)).cloned().collect();
        let mut going = self.going.lock().unwrap_or_else(PoisonError::into_inner);
        going.retain(|gone| gone.strong_count() > 0);
        going.extend(gone.iter().map(Arc::downgrade));
        // One that was put back may be here by now: each file is here once. One that is on its way out
        // does not come back.
        let is_new = |s: &Arc<StoreSegment>| {
            let is_going =
                going.iter().filter_map(Weak::upgrade).any(|gone| gone.path() == s.path());
            !is_going && next.iter().all(|known| known.path() != s.path())
        };
        let add: Vec<_> = add.into_iter().filter(is_new).collect();
        drop(going);
        // While nobody reads the list: who finds the claim finds the file in the list afterwards, and
        // whoever retires it lets go of this.
        self.claim(&add);
        next.extend(add);
        next.sort_by_key(|s| (s.meta().first, s.meta().id));
        *current = Arc::new(next);
        gone
    }

    /// Files that are published, or on their way out.
    pub(super) fn known_files(&self) -> HashSet<PathBuf> {
        // In this order: what leaves the set is in one of both.
        let published = self.snapshot();
        let going = self.going.lock().unwrap_or_else(PoisonError::into_inner);
        let going: Vec<_> = going.iter().filter_map(Weak::upgrade).collect();
        published.iter().chain(&going).map(|segment| segment.path().to_owned()).collect()
    }

    /// Moves the files of retired segments to the trash, as far as nobody holds them any more.
    pub fn move_to_trash(&self, now_ms: u64) -> Moved {
        if !self.is_settled() {
            return Moved::default();
        }
        self.trash.move_in(&self.directory, now_ms)
    }

    /// Removes files from the trash, for good.
    pub fn purge(&self, files: &[Trashed]) -> Moved {
        if !self.is_settled() {
            return Moved::default();
        }
        self.trash.purge(&self.directory, files)
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
            let path = segment.path();
            let is_published = self.snapshot().iter().any(|published| published.path() == path);
            assert!(!is_published, "{} is published, and stays", path.display());
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
    /// that come back into their places; looks whether files are back that hold what is missing. Says
    /// which did, and how many are still refused. To be called every few seconds. What a segment that
    /// comes back replaces is not looked for: its records are there twice until compaction finds them,
    /// which no answer shows.
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
        again.back.extend(self.take_back());
        if let Some(inventory) = &self.inventory
            && (!again.back.is_empty() || inventory.is_stale())
        {
            // After an error what was missing stays told, and it is looked again.
            let _ = inventory.look_again(&|| self.known_files());
        }
        again
    }

    /// Puts a segment in the place of one of the same file, unless that has gone meanwhile.
    fn exchange(&self, of: &Arc<StoreSegment>, instead: Arc<StoreSegment>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = current.iter().position(|segment| Arc::ptr_eq(segment, of)) else { return };
        // While it is published: whoever retires it lets go of this afterwards.
        self.claim(std::slice::from_ref(&instead));
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
    use crate::store::inventory::Present;
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
        let paths = [a.path().to_owned(), b.path().to_owned()];
        let catalogue = Catalogue::new(Arc::clone(&directory), vec![b, a], Ulid::MIN);
        let before = catalogue.snapshot();
        assert!(before[0].meta().first < before[1].meta().first);

        catalogue.publish(vec![write(&directory, SMALL, &records(0, 15))], &before);
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
    fn who_looks_while_a_segment_is_being_published_finds_no_hole() {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let inventory = InventoryKeeper::open(Arc::clone(&directory), &mut Present::default()).0;
        let found = Found { inventory: Some(inventory), ..Found::default() };
        let catalogue = Catalogue::found(Arc::clone(&directory), Vec::new(), Ulid::MIN, found);
        let segment = write(&directory, SMALL, &records(0, 10));
        let path = segment.path().to_owned();
        let look = |known: HashSet<PathBuf>| {
            let inventory = catalogue.inventory.as_ref().unwrap();
            inventory.look_again(&|| known.clone()).unwrap();
            catalogue.holes()
        };
        std::thread::scope(|scope| {
            // Somebody reads the list, so that nobody can change it.
            let list = catalogue.current.read().unwrap();
            scope.spawn(|| catalogue.publish(vec![segment], &[]));
            // Who wants to change it has come: no more readers are let in.
            while catalogue.current.try_read().is_ok() {
                std::thread::yield_now();
            }
            let known = list.iter().map(|segment| segment.path().to_owned()).collect();
            assert_eq!(*look(known), [], "it is neither claimed nor known");
        });
        assert_eq!(*look(catalogue.known_files()), []);
        std::fs::remove_file(path).unwrap();
        assert_eq!(look(catalogue.known_files()).len(), 1, "it is claimed by now");
    }

    #[test]
    fn what_does_not_come_back_because_it_is_on_its_way_out_is_not_claimed() {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let inventory = InventoryKeeper::open(Arc::clone(&directory), &mut Present::default()).0;
        let found = Found { inventory: Some(inventory), ..Found::default() };
        let segment = write(&directory, SMALL, &records(0, 10));
        let path = segment.path().to_owned();
        let again = StoreSegment::load(&directory, &path).unwrap().segment;
        let catalogue = Catalogue::found(Arc::clone(&directory), vec![segment], Ulid::MIN, found);
        let pinned = catalogue.snapshot();
        catalogue.retire(&pinned);
        catalogue.publish(vec![again], &[]);
        assert!(catalogue.snapshot().is_empty());
        drop(pinned);
        catalogue.save_inventory().unwrap();
        assert_eq!(catalogue.move_to_trash(1).done.len(), 1);
        assert_eq!(catalogue.purge(&catalogue.trash()).done.len(), 1);
        let inventory = catalogue.inventory.as_ref().unwrap();
        inventory.look_again(&|| catalogue.known_files()).unwrap();
        assert_eq!(*catalogue.holes(), []);
    }

    #[test]
    fn a_retired_segment_is_found_no_more_and_its_file_waits_for_its_readers() {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let segment = write(&directory, SMALL, &records(0, 10));
        let path = segment.path().to_owned();
        let catalogue = Catalogue::new(Arc::clone(&directory), vec![segment], Ulid::MIN);
        let pinned = catalogue.snapshot();

        catalogue.retire(&pinned);
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
        let another = Trashed { path: path.with_extension("9.trashed"), ..trashed.clone() };
        assert!(catalogue.purge(&[another]).done.is_empty(), "another one of its id");
        assert_eq!(catalogue.purge(&moved.done).done.len(), 1);
        assert!(!trashed.path.exists());
        assert!(catalogue.trash().is_empty());
    }
}
