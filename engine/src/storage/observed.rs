//! Storage that notes what becomes of every call, for [`crate::disk_health`].
//!
//! Invariants: calls are passed on as they are; what is noted is noted before and after, never held
//! locked during one. Reads of maps are no calls and are not seen.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Entry, File, Map, Open, Space, Storage};
use crate::disk_health::{CallId, DiskCall, DiskCalls, HANG_MS, PROBE_HANG_MS};

/// Bytes that any disk makes durable within a millisecond: by so much a sync may take longer than
/// others before it counts as one that hangs.
const SYNC_BYTES_PER_MS: u64 = 8 << 10;

/// A clock that never steps, milliseconds.
pub type NowMs = Arc<dyn Fn() -> u64 + Send + Sync>;

/// One reporter's calls, shared with whoever judges them.
pub struct DiskWatch {
    calls: Mutex<DiskCalls>,
    now_ms: NowMs,
}

impl fmt::Debug for DiskWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskWatch").finish_non_exhaustive()
    }
}

impl DiskWatch {
    /// Without calls yet.
    pub fn new(now_ms: NowMs) -> Self {
        Self { calls: Mutex::default(), now_ms }
    }

    fn lock(&self) -> MutexGuard<'_, DiskCalls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A small call begins.
    pub fn begin(&self, call: DiskCall, path: &Path) -> CallId {
        self.begin_patient(call, path, HANG_MS)
    }

    fn begin_patient(&self, call: DiskCall, path: &Path, patience_ms: u64) -> CallId {
        let now_ms = (self.now_ms)();
        self.lock().begin(now_ms, call, path, patience_ms)
    }

    /// It has ended.
    pub fn end<T>(&self, id: CallId, result: &io::Result<T>) {
        let now_ms = (self.now_ms)();
        self.lock().end(now_ms, id, result.as_ref().err());
    }

    /// Makes a small call.
    ///
    /// # Errors
    /// Those of the call.
    pub fn observe<T>(
        &self,
        call: DiskCall,
        path: &Path,
        make: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let id = self.begin(call, path);
        let result = make();
        self.end(id, &result);
        result
    }

    /// Makes a call of a probe: also a name that is not there counts.
    ///
    /// # Errors
    /// Those of the call.
    pub fn probe<T>(
        &self,
        call: DiskCall,
        path: &Path,
        make: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let id = self.begin_patient(call, path, PROBE_HANG_MS);
        let result = make();
        let now_ms = (self.now_ms)();
        self.lock().end_probe(now_ms, id, result.as_ref().err());
        result
    }

    /// What was seen so far.
    pub fn calls(&self) -> DiskCalls {
        self.lock().clone()
    }
}

/// See the page of the module.
#[derive(Clone)]
pub struct ObservedStorage {
    inner: Arc<dyn Storage>,
    /// Who hears of calls on paths below which directory; the first that fits does.
    watches: Vec<(PathBuf, Arc<DiskWatch>)>,
}

impl ObservedStorage {
    /// Calls on paths below these directories are noted; others are not.
    pub fn new(inner: Arc<dyn Storage>, watches: Vec<(PathBuf, Arc<DiskWatch>)>) -> Self {
        Self { inner, watches }
    }

    fn watch(&self, path: &Path) -> Option<&Arc<DiskWatch>> {
        let (_, watch) = self.watches.iter().find(|(below, _)| path.starts_with(below))?;
        Some(watch)
    }

    fn observe<T>(
        &self,
        call: DiskCall,
        path: &Path,
        make: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        match self.watch(path) {
            Some(watch) => watch.observe(call, path, make),
            None => make(),
        }
    }
}

impl Storage for ObservedStorage {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let call = match how {
            Open::Read => DiskCall::Open,
            Open::Write => DiskCall::OpenForWriting,
            Open::CreateNew => DiskCall::Create,
        };
        let inner = self.observe(call, path, || self.inner.open(path, how))?;
        let Some(watch) = self.watch(path) else { return Ok(inner) };
        let (path, watch) = (path.to_owned(), Arc::clone(watch));
        Ok(Arc::new(ObservedFile { inner, path, watch, unsynced_bytes: Mutex::new(0) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.observe(DiskCall::Rename, from, || self.inner.rename(from, to))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.observe(DiskCall::Rename, from, || self.inner.rename_new(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.observe(DiskCall::Remove, path, || self.inner.remove(path))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        self.observe(DiskCall::List, directory, || self.inner.list(directory))
    }

    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        self.observe(DiskCall::Create, directory, || self.inner.create_dir_all(directory))
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.observe(DiskCall::SyncDirectory, directory, || self.inner.sync_dir(directory))
    }

    fn space(&self, directory: &Path) -> io::Result<Space> {
        self.observe(DiskCall::Space, directory, || self.inner.space(directory))
    }

    fn identity(&self, directory: &Path) -> io::Result<u128> {
        self.observe(DiskCall::Attributes, directory, || self.inner.identity(directory))
    }
}

struct ObservedFile {
    inner: Arc<dyn File>,
    path: PathBuf,
    watch: Arc<DiskWatch>,
    /// Written since the last sync: what the next one has to bring to the disk.
    unsynced_bytes: Mutex<u64>,
}

impl ObservedFile {
    fn unsynced(&self) -> MutexGuard<'_, u64> {
        self.unsynced_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl File for ObservedFile {
    fn len(&self) -> io::Result<u64> {
        self.watch.observe(DiskCall::Attributes, &self.path, || self.inner.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.watch.observe(DiskCall::Read, &self.path, || self.inner.read_at(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        *self.unsynced() += bytes.len() as u64;
        let write = || self.inner.write_at(bytes, offset);
        self.watch.observe(DiskCall::Write, &self.path, write)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.watch.observe(DiskCall::Allocate, &self.path, || self.inner.allocate(len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.watch.observe(DiskCall::Allocate, &self.path, || self.inner.set_len(len))
    }

    fn sync(&self) -> io::Result<()> {
        let unsynced_bytes = std::mem::take(&mut *self.unsynced());
        let patience_ms = HANG_MS + unsynced_bytes / SYNC_BYTES_PER_MS;
        let id = self.watch.begin_patient(DiskCall::Sync, &self.path, patience_ms);
        let result = self.inner.sync();
        self.watch.end(id, &result);
        result
    }

    fn map(&self) -> io::Result<Map> {
        self.inner.map()
    }

    fn version_stamp(&self) -> io::Result<u128> {
        self.watch.observe(DiskCall::Attributes, &self.path, || self.inner.version_stamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk_health::DiskHealth;
    use crate::storage::OsStorage;

    #[test]
    fn calls_below_a_directory_are_noted_and_others_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let [watched, other] = ["watched", "other"].map(|name| directory.path().join(name));
        let time = std::sync::atomic::AtomicU64::new(7);
        let tick = move || time.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let watch = Arc::new(DiskWatch::new(Arc::new(tick)));
        let watches = vec![(watched.clone(), Arc::clone(&watch))];
        let storage = ObservedStorage::new(Arc::new(OsStorage), watches);
        for at in [&other, &watched] {
            assert_eq!(watch.calls().succeeded_ms(DiskCall::Create), None);
            storage.create_dir_all(at).unwrap();
            let file = storage.open(&at.join("x"), Open::CreateNew).unwrap();
            file.write_all_at(b"abc", 0).unwrap();
            file.set_len(2).unwrap();
            file.sync().unwrap();
            storage.open(&at.join("x"), Open::Write).unwrap();
            storage.rename(&at.join("x"), &at.join("y")).unwrap();
            storage.sync_dir(at).unwrap();
            let file = storage.open(&at.join("y"), Open::Read).unwrap();
            file.read_exact_at(&mut [0; 2], 0).unwrap();
            assert_eq!(storage.list(at).unwrap().len(), 1);
            storage.space(at).unwrap();
            assert_eq!(file.len().unwrap(), 2);
            storage.remove(&at.join("y")).unwrap();
        }
        let calls = watch.calls();
        for call in DiskCall::ALL {
            assert!(calls.succeeded_ms(call) >= Some(7), "{call:?}");
        }
        std::fs::write(watched.join("file"), b"").unwrap();
        assert!(storage.list(&watched.join("file")).is_err());
        let mut health = DiskHealth::default();
        health.look(10_000, &watch.calls());
        assert_eq!(health.trouble().unwrap().call, DiskCall::List);
    }
}
