//! One process per data directory: an advisory lock on its `LOCK` file, which holds the owner's
//! pid as text so that a second process can name the first. The kernel drops the lock with the
//! process, however it ends; the file stays.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// Name of the lock file.
pub(super) const LOCK_FILE: &str = "LOCK";

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

/// Why a directory cannot be locked.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process has it.
    Held {
        /// The directory.
        directory: PathBuf,
        /// Its pid, where the file says it.
        pid: Option<u32>,
    },
    /// The file cannot be made or locked.
    Io(PathBuf, io::Error),
}

impl std::fmt::Display for LockError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Held { directory, pid: Some(pid) } => write!(
                f,
                "{} is in use by the process with pid {pid}: stop it first, or give this one \
                 another directory (--ingest.path, --store.path, --spool.path)",
                directory.display()
            ),
            Self::Held { directory, pid: None } => write!(
                f,
                "{} is in use by another process: stop it first, or give this one another \
                 directory (--ingest.path, --store.path, --spool.path)",
                directory.display()
            ),
            Self::Io(path, e) => write!(
                f,
                "{} cannot be locked: {e}; the directory must be writable for this user",
                path.display()
            ),
        }
    }
}

impl std::error::Error for LockError {}

impl DirectoryLock {
    /// Takes the lock of `directory`, which must exist.
    pub(crate) fn take(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join(LOCK_FILE);
        let failed = |e: io::Error| LockError::Io(path.clone(), e);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // The pid is a courtesy: without it the message is shorter.
                let _ = (&file).take(32).read_to_string(&mut text);
                let pid = text.trim().parse().ok();
                return Err(LockError::Held { directory: directory.to_owned(), pid });
            }
            Err(e) => return Err(failed(e.into())),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// The process that holds the lock of `directory` now, as far as `/proc/locks` (proc_locks(5))
/// tells this one. Touches nothing: a lock taken to find out would stop a node that starts just then.
pub(crate) fn holder(directory: &Path) -> Option<u32> {
    let inode = directory.join(LOCK_FILE).metadata().ok()?.ino();
    holder_in(&std::fs::read_to_string("/proc/locks").ok()?, inode)
}

/// The device is not compared: on some file systems (btrfs, overlayfs) `/proc/locks` and stat(2) do
/// not agree on it.
fn holder_in(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, file, ..] = words[..] else { return None };
        let is_it = file.rsplit(':').next()?.parse() == Ok(inode);
        is_it.then(|| pid.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_learns_the_pid_of_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(directory.path()).unwrap();
        let error = DirectoryLock::take(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(first);
        DirectoryLock::take(directory.path()).unwrap();
    }

    #[test]
    fn the_holder_of_a_lock_is_told_by_its_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fd:00:12 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 fd:00:123 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 10 fd:00:12 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 fd:00:12 0 EOF\nnonsense\n";
        assert_eq!(holder_in(locks, 12), Some(9));
        assert_eq!(holder_in(locks, 1), None);
        assert_eq!(holder(Path::new("/nowhere")), None);
    }
}
