//! What the kernel knows of a faulty disk's files by number: each is held open beneath by a
//! descriptor that only names it, and knows by which path it was last seen.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::INodeNo;
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

/// One file or directory.
#[derive(Debug)]
pub(super) struct Inode {
    /// Opened with `O_PATH`.
    pub(super) fd: OwnedFd,
    path: Mutex<String>,
}

impl Inode {
    /// Relative to the disk; empty: its root.
    pub(super) fn path(&self) -> String {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The path of a name in this directory.
    pub(super) fn child(&self, name: &str) -> String {
        let path = self.path();
        if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
    }

    fn set_path(&self, path: String) {
        *self.path.lock().unwrap_or_else(PoisonError::into_inner) = path;
    }

    /// A path by which the file itself can be opened.
    pub(super) fn link(&self) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    pub(super) fn stat(&self) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.fd, "", AtFlags::EMPTY_PATH)
    }
}

#[derive(Debug, Default)]
struct Table {
    inodes: HashMap<u64, (Arc<Inode>, u64)>,
    numbers: HashMap<(u64, u64), u64>,
    given: u64,
}

/// See the page of the module.
#[derive(Debug, Default)]
pub(super) struct Inodes(Mutex<Table>);

impl Inodes {
    /// With the root of the disk.
    pub(super) fn new(root: OwnedFd) -> Self {
        let root = Arc::new(Inode { fd: root, path: Mutex::default() });
        let mut table = Table { given: INodeNo::ROOT.0, ..Table::default() };
        table.inodes.insert(INodeNo::ROOT.0, (root, u64::MAX / 2));
        Self(Mutex::new(table))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, number: INodeNo) -> Result<Arc<Inode>, Errno> {
        self.lock().inodes.get(&number.0).map(|(inode, _)| Arc::clone(inode)).ok_or(Errno::STALE)
    }

    /// Looks a name up and counts the look-up, as the kernel does.
    pub(super) fn look_up(&self, parent: &Inode, name: &str) -> Result<(u64, Stat), Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent.fd, name, flags, Mode::empty())?;
        let stat = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH)?;
        let path = parent.child(name);
        let mut table = self.lock();
        let key = (stat.st_dev, stat.st_ino);
        if let Some(&number) = table.numbers.get(&key) {
            let (inode, count) = table.inodes.get_mut(&number).ok_or(Errno::STALE)?;
            *count += 1;
            inode.set_path(path);
            return Ok((number, stat));
        }
        table.given += 1;
        let number = table.given;
        table.numbers.insert(key, number);
        table.inodes.insert(number, (Arc::new(Inode { fd, path: Mutex::new(path) }), 1));
        Ok((number, stat))
    }

    /// The file of this name, or the directory and all below it, has another path now.
    pub(super) fn moved(&self, from: &str, to: &str) {
        let below = format!("{from}/");
        for (inode, _) in self.lock().inodes.values() {
            let path = inode.path();
            if path == from {
                inode.set_path(to.to_owned());
            } else if let Some(rest) = path.strip_prefix(&below) {
                inode.set_path(format!("{to}/{rest}"));
            }
        }
    }

    pub(super) fn forget(&self, number: INodeNo, lookups: u64) {
        let mut table = self.lock();
        let Some((_, count)) = table.inodes.get_mut(&number.0) else { return };
        *count = count.saturating_sub(lookups);
        if *count == 0 {
            table.inodes.remove(&number.0);
            table.numbers.retain(|_, n| *n != number.0);
        }
    }
}
