//! Whether what waits or is published still has its name: somebody may delete or move a segment's file
//! under a running node. Files that shards write to are the keeper's to look after.
//!
//! Invariants: a look is bounded, and comes round to every segment; what cannot be looked up is not lost;
//! a segment that the node itself renames, replaces, hands on or lets expire meanwhile is none of this.
//! What is back is well by itself. What is lost is a matter of this life: the next start does not know of
//! it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::ingest::registry::Registry;
use engine::ingest::segment::{Segment, SegmentState};
use engine::store::catalogue::Catalogue;
use engine::store::segment::StoreSegment;

use super::disks::{Side, flag};
use super::lock::is_absence;

/// Names of each side that one look asks the disk for.
const LOOKED_UP_AT_A_TIME: usize = 64;

/// What is known of the names of one side's segments.
#[derive(Debug)]
pub(super) struct Names {
    side: Side,
    /// Where the next look begins.
    next: usize,
    /// What has lost its name, and its records.
    lost: BTreeMap<PathBuf, u64>,
}

/// What a look found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NamesLook {
    /// Files that have lost their names since the last one.
    pub(super) lost: Vec<PathBuf>,
    /// Files that have them again.
    pub(super) back: Vec<PathBuf>,
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

    /// Whether its name is nobody's, or that of something else.
    fn is_lost(&self) -> bool {
        match std::fs::symlink_metadata(&self.path) {
            Ok(found) => {
                !found.is_file() || self.len_bytes.is_some_and(|len_bytes| len_bytes != found.len())
            }
            Err(error) => is_absence(&error),
        }
    }
}

impl Names {
    /// Of this side nothing is lost yet.
    pub(super) const fn of(side: Side) -> Self {
        Self { side, next: 0, lost: BTreeMap::new() }
    }

    /// Looks at the next of the published segments.
    pub(super) fn look_at_store(&mut self, catalogue: &Catalogue) -> NamesLook {
        let published = catalogue.snapshot();
        let at = |at: usize| Named::of_store(&published[at]);
        let is_there = |path: &Path| published_at(catalogue, path).is_some();
        let look = self.look(published.len(), at, is_there);
        for path in &look.lost {
            // Answers, metrics and the reading-again know from here on that it cannot be read.
            let _ = published_at(catalogue, path).map(|segment| segment.open_alone());
        }
        look
    }

    /// Looks at the next of those that wait to be gathered.
    pub(super) fn look_at_ingest(&mut self, registry: &Registry) -> NamesLook {
        let waiting = waiting(registry);
        let at = |at: usize| {
            let segment: &Segment = &waiting[at];
            let records = segment.content().records;
            Named { path: segment.path(), len_bytes: None, records }
        };
        let is_there = |path: &Path| waiting_at(registry, path);
        self.look(waiting.len(), at, is_there)
    }

    /// Looks at the next of `count` files; `is_there`: nothing was done with the one of this name
    /// meanwhile.
    fn look(
        &mut self,
        count: usize,
        at: impl Fn(usize) -> Named,
        is_there: impl Fn(&Path) -> bool,
    ) -> NamesLook {
        let mut look = NamesLook::default();
        // What has expired, was replaced or handed on is missing of nothing any more.
        self.lost.retain(|path, _| is_there(path));
        for _ in 0..LOOKED_UP_AT_A_TIME.min(count) {
            let named = at(self.next % count);
            self.next = (self.next + 1) % count;
            match (named.is_lost(), self.lost.contains_key(&named.path)) {
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

    /// What has lost its name, a sentence for the operator; `None`: nothing has.
    pub(super) fn words(&self) -> Option<String> {
        let (path, _) = self.lost.first_key_value()?;
        let (path, records) = (path.display(), self.lost.values().sum::<u64>());
        let flag = flag(self.side);
        Some(match self.lost.len() {
            1 => format!(
                "{path} ({flag}) was taken away, and {records} records with it: answers lack them; \
                 put it back, or restart the node"
            ),
            files => format!(
                "{files} files ({flag}) were taken away, {path} among them, and {records} records \
                 with them: answers lack them; put them back, or restart the node"
            ),
        })
    }
}

/// Segments that are complete and wait, or are being gathered.
fn waiting(registry: &Registry) -> Vec<Arc<Segment>> {
    let mut held = registry.snapshot();
    held.retain(|segment| segment.state() != SegmentState::Active);
    held
}

fn waiting_at(registry: &Registry, path: &Path) -> bool {
    waiting(registry).iter().any(|segment| segment.path() == path)
}

/// Its file is renamed or removed only once it is not published any more.
fn published_at(catalogue: &Catalogue, path: &Path) -> Option<Arc<StoreSegment>> {
    catalogue.snapshot().iter().find(|segment| segment.path() == path).cloned()
}

/// Records of all published segments whose files have lost their names.
pub(super) fn records_without_name(catalogue: &Catalogue) -> u64 {
    let published = catalogue.snapshot();
    let lost = published.iter().filter(|segment| Named::of_store(segment).is_lost());
    let still = lost.filter(|segment| published_at(catalogue, segment.path()).is_some());
    still.map(|segment| segment.meta().record_count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(names: &mut Names, files: &[(PathBuf, u64)]) -> NamesLook {
        let at = |at: usize| {
            let (path, records) = files[at].clone();
            Named { path, len_bytes: Some(3), records }
        };
        names.look(files.len(), at, |path| files.iter().any(|(other, _)| other == path))
    }

    #[test]
    fn every_file_has_its_turn_and_what_is_lost_is_told_once_until_it_is_back() {
        let directory = tempfile::tempdir().unwrap();
        let count = 3 * LOOKED_UP_AT_A_TIME - 1;
        let mut files: Vec<_> =
            (0..count).map(|n| (directory.path().join(n.to_string()), 1)).collect();
        for (path, _) in &files {
            std::fs::write(path, "abc").unwrap();
        }
        let mut names = Names::of(Side::Store);
        let mut round = |files: &[(PathBuf, u64)]| {
            let looks: Vec<_> = (0..3).map(|_| look(&mut names, files)).collect();
            let back: usize = looks.iter().map(|look| look.back.len()).sum();
            (looks.iter().map(|look| look.lost.len()).sum::<usize>(), back, names.words())
        };
        assert_eq!(round(&files), (0, 0, None));
        std::fs::remove_file(&files[100].0).unwrap();
        std::fs::write(&files[0].0, "another").unwrap();
        let (lost, back, words) = round(&files);
        let words = words.unwrap();
        assert_eq!((lost, back), (2, 0));
        assert!(
            words.starts_with("2 files (--store.path)") && words.contains("2 records"),
            "{words}"
        );
        assert_eq!(round(&files).0, 0, "told once");
        std::fs::write(&files[0].0, "abc").unwrap();
        let (lost, back, words) = round(&files);
        assert_eq!((lost, back), (0, 1));
        assert!(words.unwrap().contains(&files[100].0.display().to_string()));
        // It expires.
        files.remove(100);
        assert_eq!(round(&files), (0, 0, None));
    }
}
