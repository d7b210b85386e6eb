//! Why the storage did not do what it was asked: what a reader may conclude of it, and what not.
//!
//! Invariants: a refusal says nothing about the bytes of a file. They may be whole, and who decides
//! on content (cut, remove, recycle, replace, set aside, "empty", "torn") leaves the file as it is,
//! tells it and tries again. Only [`Refusal::is_absence`] says that there is nothing of that name,
//! and only [`Refusal::is_shortage`] says that it is this process that lacks something.

use std::fmt;
use std::io;

/// An error of the storage, as a value that can be compared and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    kind: io::ErrorKind,
    /// The system's number; `None` where the error did not come from the system.
    errno: Option<i32>,
}

impl Refusal {
    /// A refusal without the system's number.
    pub const fn of_kind(kind: io::ErrorKind) -> Self {
        Self { kind, errno: None }
    }

    /// The kind of error.
    pub const fn kind(self) -> io::ErrorKind {
        self.kind
    }

    /// Whether there is no file of that name, as opposed to one that cannot be read.
    pub fn is_absence(self) -> bool {
        self.kind == io::ErrorKind::NotFound
    }

    /// The system's number, where the error came from the system.
    pub const fn errno(self) -> Option<i32> {
        self.errno
    }

    /// Whether what has that name is no regular file: a directory, a symbolic link, a FIFO. Then it is
    /// known that there is no file of ours, whatever else could be read.
    pub fn is_no_file(self) -> bool {
        matches!(self.errno, Some(libc::EISDIR | libc::ELOOP | libc::ENXIO))
    }

    /// Whether the disk, or a quota, is full: it can be tried again when there is room.
    pub const fn is_no_room(self) -> bool {
        matches!(self.kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Whether the process or the host is short of something (descriptors, memory, a moment's
    /// readiness): it says nothing about the disk, let alone about the file.
    pub fn is_shortage(self) -> bool {
        let is_momentary = matches!(self.errno, Some(libc::EAGAIN | libc::EINTR))
            || matches!(self.kind, io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
        is_momentary || self.is_exhaustion()
    }

    /// Whether there are no descriptors or no memory left: others will be refused, too, until
    /// somebody gives some back.
    pub fn is_exhaustion(self) -> bool {
        let exhausted = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
        self.errno.is_some_and(|errno| exhausted.contains(&errno))
            || self.kind == io::ErrorKind::OutOfMemory
    }
}

impl From<&io::Error> for Refusal {
    fn from(error: &io::Error) -> Self {
        Self { kind: error.kind(), errno: error.raw_os_error() }
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        refusal.errno.map_or_else(|| refusal.kind.into(), Self::from_raw_os_error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_of_the_process_is_told_from_a_fault_of_the_disk() {
        let of = |errno| Refusal::from(&io::Error::from_raw_os_error(errno));
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN, libc::EINTR] {
            assert!(of(errno).is_shortage() && !of(errno).is_absence(), "{}", of(errno));
            let is_momentary = matches!(errno, libc::EAGAIN | libc::EINTR);
            assert_eq!(of(errno).is_exhaustion(), !is_momentary, "{}", of(errno));
        }
        for errno in [libc::EIO, libc::EROFS, libc::ENOSPC, libc::EACCES] {
            assert!(!of(errno).is_shortage() && !of(errno).is_absence(), "{}", of(errno));
        }
        assert!(of(libc::ENOENT).is_absence());
        assert!(of(libc::ELOOP).is_no_file() && !of(libc::EIO).is_no_file());
        assert!(Refusal::of_kind(io::ErrorKind::OutOfMemory).is_shortage());
    }

    #[test]
    fn what_the_system_said_is_told_in_its_words() {
        let refusal = Refusal::from(&io::Error::from_raw_os_error(libc::EMFILE));
        assert!(refusal.to_string().contains("Too many open files"), "{refusal}");
        assert_eq!(io::Error::from(refusal).raw_os_error(), Some(libc::EMFILE));
    }
}
