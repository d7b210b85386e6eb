//! The one gateway to files: a small blocking trait for store, compaction and recovery. The ingest
//! log's hot path does not come through here (it emits writes and syncs for a ring to carry), but
//! its files are made, renamed and recovered through it.
//!
//! Invariants: a rename is durable only after [`Storage::sync_dir`]; bytes are durable only after
//! [`File::sync`]; a failed sync is final for that file (its data may be gone from the cache), so
//! callers abandon the file and never retry the sync. The simulated disk (`sim`) enforces all
//! of this.

mod anew;
mod bytes;
mod map;
mod observed;
mod os;
mod refusal;
#[cfg(any(test, feature = "testing"))]
pub mod sim;
#[cfg(test)]
pub(crate) mod watched;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub(crate) use anew::write_anew;
pub use bytes::{Bytes, FileBytes, read_into};
pub use map::Map;
#[cfg(any(test, feature = "testing"))]
pub use map::Paging;
pub use observed::{DiskWatch, NowMs, ObservedStorage};
pub use os::OsStorage;
pub use refusal::Refusal;

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name without the directory; `None` where it is not UTF-8 (never one of ours).
    pub name: Option<String>,
    /// Whether it is a regular file.
    pub is_file: bool,
    /// Length, bytes.
    pub len_bytes: u64,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    Write,
    /// For reading and writing; it must not exist.
    CreateNew,
}

/// A directory tree that survives the process.
pub trait Storage: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;
    /// Renames atomically; replaces an existing target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// The same, but nothing is replaced: `AlreadyExists` if something has that name.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name; open handles and maps stay readable.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// What the directory holds, in no order.
    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>>;
    /// Makes a directory and its parents.
    fn create_dir_all(&self, directory: &Path) -> io::Result<()>;
    /// Makes the directory's entries durable.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;
    /// Bytes that an ordinary user may still write, and the size of the file system.
    fn space(&self, directory: &Path) -> io::Result<Space>;
    /// Which directory has this name now: another number for another one. Where names of directories do
    /// not change, any.
    fn identity(&self, _directory: &Path) -> io::Result<u128> {
        Ok(0)
    }
}

/// Room on a file system, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Available to an ordinary user.
    pub free_bytes: u64,
    /// In all.
    pub total_bytes: u64,
}

/// An open file. All positions and lengths are bytes.
pub trait File: Send + Sync {
    /// Its length.
    fn len(&self) -> io::Result<u64>;
    /// Whether it is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads at most `buffer.len()` bytes; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at most `bytes.len()` bytes; how many.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Reserves space up to `len`, extending the length.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Cuts or extends to `len`.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes bytes and length durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// Maps the whole file for reading.
    fn map(&self) -> io::Result<Map>;
    /// A value that changes whenever somebody changes the bytes (modification and change time):
    /// what was verified under one stamp need not be verified again.
    fn version_stamp(&self) -> io::Result<u128>;

    /// Fills the buffer or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes all bytes or fails, having written some; with `WriteZero` where the file takes no more.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_at(&bytes[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
