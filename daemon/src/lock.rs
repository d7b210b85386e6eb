//! One process per data directory: an advisory lock on the directory itself, which nobody can take
//! away, and one on its `LOCK` file, which holds the owner's pid as text so that a second process can
//! name the first. The kernel drops both with the process, however it ends; the file stays. Where the
//! file system locks no directories (NFS) the file has to do, and its owner looks whether it is still
//! there ([`Ground`]).
//!
//! A directory that was made for a lock goes again with a start that fails: what is made is taken
//! away, if it is empty, unless it is kept. A lock that is held is waited for a moment: the process
//! that had it may be ending.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::released::once_not;

/// Name of the lock file.
pub(crate) const LOCK_FILE: &str = "LOCK";

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    file: File,
    directory: File,
    ground: Ground,
    made: Made,
}

/// What was made for a lock, outermost first; taken away when it is dropped.
#[derive(Debug, Default)]
struct Made {
    directories: Vec<PathBuf>,
    lock: Option<PathBuf>,
}

impl Made {
    /// Makes `directory` and what it lies in.
    fn directory(&mut self, directory: &Path) -> io::Result<()> {
        match fs::create_dir(directory) {
            Ok(()) => self.directories.push(directory.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Where the parent is there, nothing can be made in it, as in /proc.
                let parent = directory
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir());
                let Some(parent) = parent else { return Err(error) };
                self.directory(parent)?;
                return self.directory(directory);
            }
            Err(_) if directory.is_dir() => {}
            Err(error) => return Err(what_is_there(directory).unwrap_or(error)),
        }
        Ok(())
    }
}

/// What has the name of a directory that cannot be made, where it is no directory.
fn what_is_there(path: &Path) -> Option<io::Error> {
    let found = path.symlink_metadata().ok().filter(|found| !found.is_dir())?;
    let words = match (found.is_symlink(), path.metadata()) {
        // What it is called is given beside this.
        (false, _) => "it is there, and is no directory".to_owned(),
        (true, there) => {
            let target = fs::read_link(path).ok()?;
            let target = target.display();
            match there {
                Ok(_) => format!("it is a symbolic link to {target}, which is no directory"),
                Err(error) => format!("it is a symbolic link to {target}: {error}"),
            }
        }
    };
    Some(io::Error::new(io::ErrorKind::AlreadyExists, words))
}

impl Drop for Made {
    fn drop(&mut self) {
        // What cannot be removed stays: nothing depends on it.
        if let Some(lock) = &self.lock {
            let _ = fs::remove_file(lock);
        }
        for directory in self.directories.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }
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
    /// The directory cannot be made.
    Directory(PathBuf, io::Error),
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
            Self::Directory(path, e) => write!(
                f,
                "{} cannot be made: {e}; it must be a directory that this user may write",
                path.display()
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
    /// Makes `directory` if it is not there, and takes its lock. What is made is kept only if
    /// [`Self::keep`] is called.
    pub(crate) fn make(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join(LOCK_FILE);
        let mut made = Made::default();
        made.directory(directory).map_err(|e| LockError::Directory(directory.to_owned(), e))?;
        let failed = |e: io::Error| LockError::Io(path.clone(), e);
        let locked = once_not(
            |tried: &io::Result<_>| matches!(tried, Ok(None)),
            || try_lock(directory, &path, &mut made),
        );
        let Some((directory_file, is_directory_locked, mut file)) = locked.map_err(failed)? else {
            let pid = File::open(&path).ok().and_then(|file| pid_in(&file));
            return Err(LockError::Held { directory: directory.to_owned(), pid });
        };
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        let ground = Ground {
            directory: directory.to_owned(),
            at: Inode::of(&directory_file.metadata().map_err(failed)?),
            lock: Inode::of(&file.metadata().map_err(failed)?),
            is_directory_locked,
        };
        Ok(Self { file, directory: directory_file, ground, made })
    }

    /// What was locked, to look at again.
    pub(crate) fn ground(&self) -> Ground {
        self.ground.clone()
    }

    /// Keeps the directory and the file, whoever made them.
    pub(crate) fn keep(&mut self) {
        self.made.directories.clear();
        self.made.lock = None;
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // While it is still held: nobody else's file is taken away.
        drop(std::mem::take(&mut self.made));
        // Closing it lets go as well, and cannot fail.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
        let _ = rustix::fs::flock(&self.directory, FlockOperation::Unlock);
    }
}

/// One file, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inode(u64, u64);

impl Inode {
    pub(crate) fn of(metadata: &fs::Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }

    /// As the keeper remembers it.
    pub(crate) const fn identity(self) -> u128 {
        (self.0 as u128) << 64 | self.1 as u128
    }

    /// What [`Self::identity`] said.
    pub(crate) const fn from_identity(identity: u128) -> Self {
        Self((identity >> 64) as u64, identity as u64)
    }

    /// Whether the file has lost this name: nothing or something else has it now. A name that cannot
    /// be looked up is not lost.
    pub(crate) fn has_lost(self, path: &Path) -> bool {
        match path.metadata() {
            Ok(found) => Self::of(&found) != self,
            Err(error) => is_absence(&error),
        }
    }
}

/// Whether nothing has this name.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A directory as it was locked.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    directory: PathBuf,
    at: Inode,
    lock: Inode,
    is_directory_locked: bool,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Nothing of its name is there.
    Gone,
    /// Another one has its name.
    Another,
    /// Its lock file is another one, or gone, and was all that kept others away.
    Lock,
}

impl Ground {
    /// What of it was taken away.
    pub(crate) fn look(&self) -> Option<Lost> {
        match self.directory.metadata() {
            Ok(found) if Inode::of(&found) != self.at => return Some(Lost::Another),
            Err(error) if is_absence(&error) => return Some(Lost::Gone),
            _ => {}
        }
        let is_lock_lost =
            !self.is_directory_locked && self.lock.has_lost(&self.directory.join(LOCK_FILE));
        is_lock_lost.then_some(Lost::Lock)
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }
}

/// Takes both locks, says whether the directory's could be had; `None`: somebody else has one.
fn try_lock(
    directory: &Path,
    path: &Path,
    made: &mut Made,
) -> io::Result<Option<(File, bool, File)>> {
    let exclusive = FlockOperation::NonBlockingLockExclusive;
    let directory_file = File::open(directory)?;
    let is_directory_locked = match rustix::fs::flock(&directory_file, exclusive) {
        Ok(()) => true,
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        // Not on this file system.
        Err(_) => false,
    };
    let (file, is_new) = open(path)?;
    match rustix::fs::flock(&file, exclusive) {
        // Not if its last owner has taken it away meanwhile.
        Ok(()) if is_at(&directory_file, directory) && is_at(&file, path) => {
            made.lock = is_new.then(|| path.to_owned());
            Ok(Some((directory_file, is_directory_locked, file)))
        }
        Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The lock file, and whether it was made just now.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.clone().create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok((options.create(true).truncate(false).open(path)?, false))
        }
        opened => Ok((opened?, true)),
    }
}

/// Whether this open file is the one that the path names.
fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: &fs::Metadata, b: &fs::Metadata| Inode::of(a) == Inode::of(b);
    matches!((file.metadata(), path.metadata()), (Ok(a), Ok(b)) if same(&a, &b))
}

/// The owner's pid, where the file says it: a courtesy, without which the message is shorter.
fn pid_in(mut file: &File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The process that holds the lock of `directory` now, as far as `/proc/locks` (proc_locks(5))
/// tells this one. Touches nothing: a lock taken to find out would stop a node that starts just then.
pub(crate) fn holder(directory: &Path) -> Option<u32> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    // Where somebody has taken the file away its owner still has the directory.
    let found = directory.join(LOCK_FILE).metadata().or_else(|_| directory.metadata());
    holder_in(&locks, found.ok()?.ino())
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
        let first = DirectoryLock::make(directory.path()).unwrap();
        let error = DirectoryLock::make(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(first);
        DirectoryLock::make(directory.path()).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error() {
        for directory in ["/proc/oklogd-none", "/proc/self/fd/oklogd-none/data", ""] {
            assert!(DirectoryLock::make(Path::new(directory)).is_err(), "{directory:?}");
        }
    }

    #[test]
    fn what_has_the_name_of_a_directory_is_said() {
        let base = tempfile::tempdir().unwrap();
        let path = |name: &str| base.path().join(name);
        fs::write(path("file"), "").unwrap();
        fs::create_dir(path("real")).unwrap();
        for (name, target) in [("dangling", "nowhere"), ("to-file", "file"), ("good", "real")] {
            std::os::unix::fs::symlink(target, path(name)).unwrap();
        }
        for (name, words) in [
            ("dangling", "it is a symbolic link to nowhere: No such file"),
            ("to-file", "it is a symbolic link to file, which is no directory"),
            ("file", "is no directory"),
        ] {
            match DirectoryLock::make(&path(name)) {
                Err(LockError::Directory(_, error)) => {
                    assert!(error.to_string().contains(words), "{name}: {error}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        DirectoryLock::make(&path("good")).unwrap();
    }

    #[test]
    fn a_lock_that_is_let_go_of_in_time_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let first = DirectoryLock::make(directory.path()).unwrap();
        let second = std::thread::scope(|scope| {
            let second = scope.spawn(|| DirectoryLock::make(directory.path()));
            drop(first);
            second.join().unwrap()
        });
        assert!(second.is_ok() && is_at(&second.unwrap().file, &directory.path().join(LOCK_FILE)));
    }

    #[test]
    fn a_directory_whose_lock_file_was_deleted_stays_locked() {
        let directory = tempfile::tempdir().unwrap();
        let first = DirectoryLock::make(directory.path()).unwrap();
        fs::remove_file(directory.path().join(LOCK_FILE)).unwrap();
        let second = DirectoryLock::make(directory.path());
        assert!(matches!(second, Err(LockError::Held { pid: None, .. })), "{second:?}");
        assert!(!directory.path().join(LOCK_FILE).exists(), "who did not get it leaves nothing");
        assert_eq!(holder(directory.path()), Some(std::process::id()));
        drop(first);
        DirectoryLock::make(directory.path()).unwrap();
    }

    #[test]
    fn a_ground_is_lost_while_its_name_is_not_its_own() {
        let base = tempfile::tempdir().unwrap();
        let [home, away] = ["home", "away"].map(|name| base.path().join(name));
        let lock = DirectoryLock::make(&home).unwrap();
        let ground = lock.ground();
        assert_eq!(ground.look(), None);
        fs::rename(&home, &away).unwrap();
        assert_eq!(ground.look(), Some(Lost::Gone));
        fs::create_dir(&home).unwrap();
        assert_eq!(ground.look(), Some(Lost::Another));
        fs::remove_dir(&home).unwrap();
        fs::rename(&away, &home).unwrap();
        assert_eq!(ground.look(), None);
        let by_file_alone = Ground { is_directory_locked: false, ..ground.clone() };
        assert_eq!(by_file_alone.look(), None);
        fs::remove_file(home.join(LOCK_FILE)).unwrap();
        assert_eq!((ground.look(), by_file_alone.look()), (None, Some(Lost::Lock)));
        fs::write(home.join(LOCK_FILE), "").unwrap();
        assert_eq!(by_file_alone.look(), Some(Lost::Lock));
    }

    #[test]
    fn what_a_failed_start_made_goes_and_what_was_there_or_is_kept_stays() {
        let base = tempfile::tempdir().unwrap();
        let (inner, outer) = (base.path().join("data/ingest"), base.path().join("data"));
        drop(DirectoryLock::make(&inner).unwrap());
        assert!(!outer.exists());
        let lock = DirectoryLock::make(&inner).unwrap();
        fs::write(inner.join("a-file"), "x").unwrap();
        drop(lock);
        assert!(inner.join("a-file").exists() && !inner.join(LOCK_FILE).exists());
        DirectoryLock::make(&inner).unwrap().keep();
        drop(DirectoryLock::make(&inner).unwrap());
        assert!(inner.join(LOCK_FILE).exists());
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
