//! Whether what waits or is published still has its name: somebody may delete or move a segment's file
//! under a running node. Files that shards write to are the keeper's to look after.
//!
//! Invariants: a look is bounded, and comes round to every segment; a segment that the node itself
//! renames, replaces, hands on or lets expire meanwhile is none of this. What is back is well by itself.
//! What is lost is a matter of this life: the next start does not know of it. Whether a file has its name
//! is asked of whoever turns it: what cannot be looked up is not lost.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::doors::Doors;
use super::{Node, Side};
use crate::ingest::registry::Registry;
use crate::ingest::segment::Segment;
use crate::store::catalogue::Catalogue;
use crate::store::segment::StoreSegment;

/// Names of each side that one look asks for.
const LOOKED_UP_AT_A_TIME: usize = 64;

/// Whether a name is nobody's, or that of something else than a file (of this length, bytes, where that
/// is known).
pub type IsLost<'a> = &'a dyn Fn(&Path, Option<u64>) -> bool;

/// Names of the regular files in a directory; `None`: they cannot be listed.
pub type Listing<'a> = &'a dyn Fn(&Path) -> Option<HashSet<OsString>>;

/// Segments of a side that have lost their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostSegments {
    /// Whose.
    pub side: Side,
    /// One of them.
    pub path: PathBuf,
    /// How many.
    pub files: usize,
    /// How many records they hold.
    pub records: u64,
}

/// What a look found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NamesLook {
    /// Files that have lost their names since the last one.
    pub(super) lost: Vec<PathBuf>,
    /// Files that have them again.
    pub(super) back: Vec<PathBuf>,
}

/// What is known of the names of one side's segments.
#[derive(Debug)]
pub(super) struct Names {
    side: Side,
    /// Where the next look begins.
    next: usize,
    /// What has lost its name, and its records.
    lost: BTreeMap<PathBuf, u64>,
}

/// A segment's file as it should be found.
struct Named {
    path: PathBuf,
    /// Its length, bytes, where that does not change.
    len_bytes: Option<u64>,
    records: u64,
}

impl Named {
    fn of_store(segment: &StoreSegment) -> Self {
        let meta = segment.meta();
        let path = segment.path().to_owned();
        Self { path, len_bytes: Some(meta.file_bytes), records: meta.record_count }
    }
}

impl Names {
    /// Of this side nothing is lost yet.
    pub(super) const fn of(side: Side) -> Self {
        Self { side, next: 0, lost: BTreeMap::new() }
    }

    /// Looks at the next of the published segments.
    pub(super) fn look_at_store(
        &mut self,
        catalogue: &Catalogue,
        is_lost: IsLost<'_>,
    ) -> NamesLook {
        let published = catalogue.snapshot();
        let at = |at: usize| Named::of_store(&published[at]);
        let is_there = |path: &Path| published_at(catalogue, path).is_some();
        let look = self.look(published.len(), at, is_there, is_lost);
        for path in &look.lost {
            // Answers, metrics and the reading again know from here on that it cannot be read.
            let _ = published_at(catalogue, path).map(|segment| segment.open_alone());
        }
        look
    }

    /// Looks at the next of those that wait to be gathered.
    pub(super) fn look_at_ingest(&mut self, registry: &Registry, is_lost: IsLost<'_>) -> NamesLook {
        let waiting = registry.named();
        let at = |at: usize| {
            let segment: &Segment = &waiting[at];
            let records = segment.content().records;
            Named { path: segment.path(), len_bytes: None, records }
        };
        let is_there = |path: &Path| waiting_at(registry, path);
        self.look(waiting.len(), at, is_there, is_lost)
    }

    /// Looks at the next of `count` files; `is_there`: nothing was done with the one of this name
    /// meanwhile.
    fn look(
        &mut self,
        count: usize,
        at: impl Fn(usize) -> Named,
        is_there: impl Fn(&Path) -> bool,
        is_lost: IsLost<'_>,
    ) -> NamesLook {
        let mut look = NamesLook::default();
        // What has expired, was replaced or handed on is missing of nothing any more.
        self.lost.retain(|path, _| is_there(path));
        for _ in 0..LOOKED_UP_AT_A_TIME.min(count) {
            let named = at(self.next % count);
            self.next = (self.next + 1) % count;
            let is_named_no_more = is_lost(&named.path, named.len_bytes);
            match (is_named_no_more, self.lost.contains_key(&named.path)) {
                (true, false) if is_there(&named.path) => {
                    look.lost.push(named.path.clone());
                    self.lost.insert(named.path, named.records);
                }
                (false, true) => {
                    self.lost.remove(&named.path);
                    look.back.push(named.path);
                }
                _ => {}
            }
        }
        look
    }

    /// What has lost its name; `None`: nothing has.
    pub(super) fn lost(&self) -> Option<LostSegments> {
        let (path, _) = self.lost.first_key_value()?;
        let (path, records) = (path.clone(), self.lost.values().sum());
        Some(LostSegments { side: self.side, path, files: self.lost.len(), records })
    }
}

fn waiting_at(registry: &Registry, path: &Path) -> bool {
    registry.named().iter().any(|segment| segment.path() == path)
}

/// Its file is renamed or removed only once it is not published any more.
fn published_at(catalogue: &Catalogue, path: &Path) -> Option<Arc<StoreSegment>> {
    catalogue.snapshot().iter().find(|segment| segment.path() == path).cloned()
}

/// What a first look at the names of all segments found.
pub struct NotFound {
    /// Records whose files are not where the next start will look for them.
    pub records: u64,
    /// Files that are listed: of what length was not looked up.
    listed: Vec<Arc<StoreSegment>>,
    catalogue: Option<Arc<Catalogue>>,
}

impl NotFound {
    /// Looks up files that are listed, too, for somebody may have cut them, while there is time. Says of how
    /// many records in all the file is not what it was.
    pub fn look_on(self, is_lost: IsLost<'_>, has_time: &dyn Fn() -> bool) -> u64 {
        let Self { records, listed, catalogue } = self;
        let Some(catalogue) = catalogue else { return records };
        let looked_up = listed.iter().take_while(|_| has_time());
        let named = looked_up.map(|segment| Named::of_store(segment));
        records + lost_of_store(&catalogue, named, is_lost)
    }
}

/// Records of those that are lost, and were not replaced or let go of meanwhile.
fn lost_of_store(
    catalogue: &Catalogue,
    named: impl Iterator<Item = Named>,
    is_lost: IsLost<'_>,
) -> u64 {
    let lost = named.filter(|named| is_lost(&named.path, named.len_bytes));
    let still = lost.filter(|named| published_at(catalogue, &named.path).is_some());
    still.map(|named| named.records).sum()
}

/// Records whose files are not where the next start will look for them; `is_away`, by [`Side`]: the
/// directory is not the one that was locked. Directories are listed as a whole, which takes a slow disk
/// less than a look at each file; only what is not listed, or could not be read, is looked up by itself.
pub fn records_not_found(
    node: &Node,
    doors: &Doors,
    is_away: [bool; 2],
    listing: Listing<'_>,
    is_lost: IsLost<'_>,
) -> NotFound {
    let of_ingest = node.ingest.as_ref().map_or(0, |side| {
        let nameless = doors.deleted_files();
        let names = listing(&side.registry.options().directory);
        let is_gone = |segment: &Segment| {
            let path = segment.path();
            // Another file may have its name. None may have it because it was renamed just now.
            nameless.contains(&segment.id())
                || !is_listed(names.as_ref(), &path)
                    && is_lost(&path, None)
                    && segment.path() == path
        };
        let held = side.registry.snapshot().into_iter();
        let lost = held.filter(|segment| is_away[Side::Ingest as usize] || is_gone(segment));
        lost.map(|segment| segment.content().records).sum()
    });
    let mut found = NotFound { records: of_ingest, listed: Vec::new(), catalogue: None };
    if let Some(side) = &node.store {
        let catalogue = &side.catalogue;
        if is_away[Side::Store as usize] {
            found.records += catalogue.totals().record_count;
            return found;
        }
        let published = catalogue.snapshot();
        let names = listing(&catalogue.directory().path);
        let is_in_doubt = |segment: &&Arc<StoreSegment>| {
            // Another file may have its name, by which it cannot be read.
            let is_well = !segment.is_unread() && !segment.is_damaged();
            !(is_well && is_listed(names.as_ref(), segment.path()))
        };
        let (doubtful, listed): (Vec<_>, Vec<_>) = published.iter().partition(is_in_doubt);
        let named = doubtful.into_iter().map(|segment| Named::of_store(segment));
        found.records += lost_of_store(catalogue, named, is_lost);
        found.listed = listed.into_iter().cloned().collect();
        found.catalogue = Some(Arc::clone(catalogue));
    }
    found
}

fn is_listed(names: Option<&HashSet<OsString>>, path: &Path) -> bool {
    names.zip(path.file_name()).is_some_and(|(names, name)| names.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::StoreSide;
    use crate::store::testing::{SMALL, directory, record, write};
    use crate::ulid::Ulid;
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeSet;

    #[test]
    fn a_stop_lists_a_directory_once_and_looks_up_only_what_is_not_in_it() {
        let temp = tempfile::tempdir().unwrap();
        let directory = directory(temp.path());
        let records = |n: u64| (n * 10..n * 10 + 10).map(|n| record(1, n)).collect::<Vec<_>>();
        let segments = (0..5).map(|n| write(&directory, SMALL, &records(n))).collect();
        let catalogue = Arc::new(Catalogue::new(directory, segments, Ulid::MIN));
        let paths: Vec<_> =
            catalogue.snapshot().iter().map(|segment| segment.path().to_owned()).collect();
        let store = Some(StoreSide { catalogue });
        let node = Node { ingest: None, store, newest_ms: 0 };
        let looked_up = RefCell::new(Vec::new());
        let count = |listed: Option<&[PathBuf]>, gone: &[PathBuf]| {
            let listing = |_: &Path| {
                let names = |paths: &[PathBuf]| {
                    paths.iter().map(|path| path.file_name().unwrap().to_owned()).collect()
                };
                listed.map(names)
            };
            let is_lost = |path: &Path, _| {
                looked_up.borrow_mut().push(path.to_owned());
                gone.iter().any(|gone| gone == path)
            };
            records_not_found(&node, &Doors::default(), [false; 2], &listing, &is_lost)
        };
        let on = |found: NotFound, cut: &[PathBuf], time: usize| {
            let left = Cell::new(time);
            let has_time = || left.replace(left.get().saturating_sub(1)) > 0;
            let is_lost = |path: &Path, len_bytes: Option<u64>| {
                looked_up.borrow_mut().push(path.to_owned());
                len_bytes.is_some() && cut.iter().any(|cut| cut == path)
            };
            found.look_on(&is_lost, &has_time)
        };
        assert_eq!(count(Some(&paths), &[]).records, 0);
        assert_eq!(looked_up.take(), Vec::<PathBuf>::new());
        // One was deleted; of another one the listing did not know yet.
        assert_eq!(count(Some(&paths[2..]), &paths[..1]).records, 10);
        assert_eq!(looked_up.take(), paths[..2]);
        assert_eq!(count(None, &paths[3..]).records, 20);
        assert_eq!(looked_up.take(), paths, "what cannot be listed is looked up");
        // Then the others, as far as there is time: one is cut.
        let first = count(Some(&paths[2..]), &paths[..1]);
        looked_up.take();
        assert_eq!(on(first, &paths[3..4], 9), 10 + 10);
        assert_eq!(looked_up.take(), paths[2..]);
        assert_eq!(on(count(Some(&paths), &[]), &paths[3..4], 3), 0);
        assert_eq!(looked_up.take(), paths[..3]);
        let mut is_away = [false; 2];
        is_away[Side::Store as usize] = true;
        let none = |_: &Path| panic!("nothing is looked for in another directory");
        let never = |_: &Path, _| panic!("nor looked up");
        let found = records_not_found(&node, &Doors::default(), is_away, &none, &never);
        assert_eq!((found.records, found.look_on(&never, &|| true)), (50, 50));
    }

    #[test]
    fn every_file_has_its_turn_and_what_is_lost_is_told_once_until_it_is_back() {
        let count = 3 * LOOKED_UP_AT_A_TIME - 1;
        let mut files: Vec<_> = (0..count).map(|n| PathBuf::from(format!("{n:04}"))).collect();
        let mut names = Names::of(Side::Store);
        let mut round = |files: &[PathBuf], gone: &BTreeSet<PathBuf>| {
            let at = |at: usize| Named { path: files[at].clone(), len_bytes: Some(3), records: 2 };
            let is_there = |path: &Path| files.iter().any(|other| other == path);
            let is_lost = |path: &Path, len_bytes| {
                assert_eq!(len_bytes, Some(3));
                gone.contains(path)
            };
            let looks: Vec<_> =
                (0..3).map(|_| names.look(files.len(), at, is_there, &is_lost)).collect();
            let back: usize = looks.iter().map(|look| look.back.len()).sum();
            (looks.iter().map(|look| look.lost.len()).sum::<usize>(), back, names.lost())
        };
        let lost = |path: &Path, files| {
            let (path, records) = (path.to_owned(), 2 * files as u64);
            Some(LostSegments { side: Side::Store, path, files, records })
        };
        let mut gone = BTreeSet::new();
        assert_eq!(round(&files, &gone), (0, 0, None));
        gone.extend([files[0].clone(), files[100].clone()]);
        assert_eq!(round(&files, &gone), (2, 0, lost(&files[0], 2)));
        assert_eq!(round(&files, &gone), (0, 0, lost(&files[0], 2)), "told once");
        gone.remove(&files[0]);
        assert_eq!(round(&files, &gone), (0, 1, lost(&files[100], 1)));
        // It expires.
        files.remove(100);
        assert_eq!(round(&files, &gone), (0, 0, None));
    }
}
