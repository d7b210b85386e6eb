//! The real disk with something between it and its user, for tests: what happens before each read,
//! and bytes that change without the file being changed.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Entry, File, Map, Open, OsStorage, Space, Storage};

/// See the page of the module.
#[derive(Clone)]
pub(crate) struct Watched {
    /// Before each read that is no read of a map.
    pub(crate) before_read: Arc<dyn Fn() + Send + Sync>,
    /// Files show no change: theirs is the disk's fault.
    pub(crate) rots: bool,
}

struct WatchedFile(Arc<dyn File>, Watched);

impl Storage for Watched {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(WatchedFile(OsStorage.open(path, how)?, self.clone())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsStorage.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsStorage.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsStorage.remove(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        OsStorage.list(directory)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        OsStorage.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        OsStorage.sync_dir(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        OsStorage.space(path)
    }

    fn identity(&self, path: &Path) -> io::Result<u128> {
        OsStorage.identity(path)
    }
}

impl File for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        (self.1.before_read)();
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn map(&self) -> io::Result<Map> {
        self.0.map()
    }

    fn version_stamp(&self) -> io::Result<u128> {
        if self.1.rots { Ok(1) } else { self.0.version_stamp() }
    }
}
