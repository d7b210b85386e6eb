//! What has expired: segments on their way out of the catalogue, and files in the trash.
//!
//! Invariants: a segment leaves the published set first, so that no new query finds it; its file
//! is renamed only when no query holds its handle any more (a handle opens its file by name), and
//! its time in the trash counts from then; a file is removed only from the trash, and only when
//! it is told by name. No lock is held across a file operation. Decides nothing: what expires is
//! [`super::retention`]'s to say.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ulid::Ulid;

use super::StoreDirectory;
use super::name::{Name, SegmentId};
use super::segment::StoreSegment;

/// A file in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trashed {
    /// The segment's identity.
    pub id: SegmentId,
    /// The file.
    pub path: PathBuf,
    /// Its newest record, as its name says.
    pub last: Ulid,
    /// Its length, bytes.
    pub file_bytes: u64,
    /// When it was trashed, milliseconds since 1970.
    pub at_ms: u64,
}

/// What became of some files.
#[derive(Debug, Default)]
pub struct Moved {
    /// Those with which it worked.
    pub done: Vec<Trashed>,
    /// Files or the directory, what was tried, and why it failed; files are tried again.
    pub failed: Vec<(&'static str, PathBuf, io::Error)>,
}

#[derive(Default)]
struct Inner {
    /// Not published any more, still under their names.
    leaving: Vec<Arc<StoreSegment>>,
    /// In the trash.
    files: Vec<Trashed>,
}

/// See the module page.
pub(super) struct Trash {
    inner: Mutex<Inner>,
}

impl Trash {
    pub(super) fn new(files: Vec<Trashed>) -> Self {
        Self { inner: Mutex::new(Inner { leaving: Vec::new(), files }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes segments that were just taken out of the published set.
    pub(super) fn take(&self, segments: Vec<Arc<StoreSegment>>) {
        self.lock().leaving.extend(segments);
    }

    pub(super) fn files(&self) -> Vec<Trashed> {
        self.lock().files.clone()
    }

    /// Files of segments that are on their way, bytes.
    pub(super) fn leaving_bytes(&self) -> u64 {
        self.lock().leaving.iter().map(|segment| segment.meta().file_bytes).sum()
    }

    /// Files in the trash and on their way there: how many, and their bytes.
    pub(super) fn totals(&self) -> (u64, u64) {
        let inner = self.lock();
        let files = inner.files.iter().map(|file| file.file_bytes);
        let leaving = inner.leaving.iter().map(|segment| segment.meta().file_bytes);
        let count = (inner.files.len() + inner.leaving.len()) as u64;
        (count, files.chain(leaving).sum())
    }

    /// Renames what nobody holds any more.
    pub(super) fn move_in(&self, directory: &StoreDirectory, now_ms: u64) -> Moved {
        let mut moved = Moved::default();
        let leaving = std::mem::take(&mut self.lock().leaving);
        let mut stay = Vec::new();
        for segment in leaving {
            // Nobody can get a new handle: it is in no published set.
            if segment.is_held_elsewhere() {
                stay.push(segment);
                continue;
            }
            let Some(trashed) = trashed_of(&segment, now_ms) else { continue };
            match directory.storage.rename(segment.path(), &trashed.path) {
                Ok(()) => moved.done.push(trashed),
                // Somebody deleted it: gone is what comes in the end anyway.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    moved.failed.push(("move to the trash", segment.path().to_owned(), e));
                    stay.push(segment);
                }
            }
        }
        let mut inner = self.lock();
        inner.leaving.extend(stay);
        inner.files.extend(moved.done.iter().cloned());
        drop(inner);
        // A name that comes back after a power loss expires again.
        sync(directory, &mut moved);
        moved
    }

    /// Removes files from the trash.
    pub(super) fn purge(&self, directory: &StoreDirectory, files: &[Trashed]) -> Moved {
        let mut moved = Moved::default();
        for file in self.files().into_iter().filter(|file| files.contains(file)) {
            match directory.storage.remove(&file.path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    moved.failed.push(("purge", file.path, e));
                }
                _ => moved.done.push(file),
            }
        }
        self.lock().files.retain(|file| !moved.done.contains(file));
        sync(directory, &mut moved);
        moved
    }
}

fn sync(directory: &StoreDirectory, moved: &mut Moved) {
    if moved.done.is_empty() {
        return;
    }
    if let Err(e) = directory.sync() {
        moved.failed.push(("sync the directory", directory.path.clone(), e));
    }
}

/// What a segment's file becomes; `None` for a name that no segment has.
fn trashed_of(segment: &StoreSegment, now_ms: u64) -> Option<Trashed> {
    let name = segment.path().file_name()?.to_str()?;
    let (first, last, id) = Name::parse(name)?.segment()?;
    let name = Name::Trashed { first, last, id, at_ms: Some(now_ms) };
    let path = segment.path().with_file_name(name.to_string());
    Some(Trashed { id, path, last, file_bytes: segment.meta().file_bytes, at_ms: now_ms })
}
