//! The file system itself: each call is done by the same call on the directory beneath, unless the
//! faults have something else to say.
//!
//! Invariants: nothing waits in a serving thread; who hangs gets a thread of its own. Attributes and
//! names are asked for every time, so that a record of a life is the same twice.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::faults::{Faults, Verdict};
use super::inodes::Inodes;
use super::rules::Call;

/// For how long the kernel may believe a name or an attribute.
const BELIEVED: Duration = Duration::ZERO;
const GENERATION: Generation = Generation(0);
/// Largest write that the kernel hands over in one piece, bytes.
const WRITE_BYTES_MAX: u32 = 1 << 20;

/// An open directory: what it held when it was opened.
type Listing = Vec<(u64, FileType, String)>;

/// See the page of the module.
#[derive(Debug)]
pub(super) struct Passthrough {
    faults: Arc<Faults>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inodes: Inodes,
    files: Mutex<HashMap<u64, Arc<File>>>,
    handles: AtomicU64,
}

impl Shared {
    fn files(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<File>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, file: File) -> FileHandle {
        let handle = self.handles.fetch_add(1, Ordering::Relaxed);
        self.files().insert(handle, Arc::new(file));
        FileHandle(handle)
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<File>, Errno> {
        self.files().get(&handle.0).cloned().ok_or(Errno::BADF)
    }

    fn path(&self, number: INodeNo) -> String {
        self.inodes.get(number).map(|inode| inode.path()).unwrap_or_default()
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> String {
        let name = name.to_string_lossy();
        self.inodes.get(parent).map(|inode| inode.child(&name)).unwrap_or_default()
    }

    fn open(&self, number: INodeNo, flags: i32) -> Result<FileHandle, Errno> {
        let link = self.inodes.get(number)?.link();
        let fd = rustix::fs::open(link, opened_with(flags), Mode::empty())?;
        Ok(self.keep(File::from(fd)))
    }

    fn create(
        &self,
        parent: INodeNo,
        name: &str,
        mode: u32,
        flags: i32,
    ) -> Result<(FileAttr, FileHandle), Errno> {
        let parent = self.inodes.get(parent)?;
        let flags = opened_with(flags) | OFlags::CREATE;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let fd = rustix::fs::openat(&parent.fd, name, flags, mode)?;
        rustix::fs::fchmod(&fd, mode)?;
        let (number, stat) = self.inodes.look_up(&parent, name)?;
        Ok((attributes(number, &stat), self.keep(File::from(fd))))
    }

    fn list(&self, number: INodeNo) -> Result<Listing, Errno> {
        let link = self.inodes.get(number)?.link();
        let mut listing = vec![];
        let fd = rustix::fs::open(link, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for entry in rustix::fs::Dir::new(fd)? {
            let entry = entry?;
            let kind = match entry.file_type() {
                rustix::fs::FileType::Directory => FileType::Directory,
                rustix::fs::FileType::Symlink => FileType::Symlink,
                _ => FileType::RegularFile,
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            listing.push((entry.ino(), kind, name));
        }
        Ok(listing)
    }
}

/// What is opened beneath for an open with these flags: direct I/O and appending are the kernel's
/// affair above.
fn opened_with(flags: i32) -> OFlags {
    let kept = OFlags::ACCMODE | OFlags::EXCL | OFlags::TRUNC | OFlags::DIRECTORY;
    (OFlags::from_bits_retain(flags.cast_unsigned()) & kept) | OFlags::CLOEXEC
}

fn error(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.raw_os_error())
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn attributes(number: u64, stat: &Stat) -> FileAttr {
    let time = |seconds: i64, nanoseconds: u64| {
        let since = Duration::new(seconds.cast_unsigned(), nanoseconds as u32);
        SystemTime::UNIX_EPOCH + since
    };
    let kind = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        _ => FileType::RegularFile,
    };
    FileAttr {
        ino: INodeNo(number),
        size: stat.st_size.cast_unsigned(),
        blocks: stat.st_blocks.cast_unsigned(),
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: stat.st_rdev as u32,
        blksize: stat.st_blksize as u32,
        flags: 0,
    }
}

/// Names a set of attributes to change.
struct Change {
    number: INodeNo,
    mode: Option<u32>,
    size: Option<u64>,
    handle: Option<FileHandle>,
}

impl Change {
    fn make(&self, shared: &Shared) -> Result<FileAttr, Errno> {
        let inode = shared.inodes.get(self.number)?;
        if let Some(mode) = self.mode {
            rustix::fs::chmod(inode.link(), Mode::from_raw_mode(mode & 0o7777))?;
        }
        if let Some(size) = self.size {
            match self.handle.map(|handle| shared.file(handle)) {
                Some(Ok(file)) => rustix::fs::ftruncate(&file, size)?,
                _ => {
                    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
                    let fd = rustix::fs::open(inode.link(), flags, Mode::empty())?;
                    rustix::fs::ftruncate(fd, size)?;
                }
            }
        }
        Ok(attributes(self.number.0, &inode.stat()?))
    }
}

impl Passthrough {
    /// Serves the files of this directory.
    pub(super) fn new(beneath: &Path, faults: Arc<Faults>) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(beneath, flags, Mode::empty())?;
        let shared = Shared {
            inodes: Inodes::new(root),
            files: Mutex::default(),
            handles: AtomicU64::new(1),
        };
        Ok(Self { faults, shared: Arc::new(shared) })
    }

    /// Does a call, `act`, with as many bytes as it may move, or lets it fail; now or once it no
    /// longer hangs.
    fn serve<A>(&self, call: Call, path: &str, act: A)
    where
        A: FnOnce(&Shared, Result<usize, Errno>) + Send + 'static,
    {
        self.serve_change(call, path, call.is_change(), act);
    }

    fn serve_change<A>(&self, call: Call, path: &str, is_change: bool, act: A)
    where
        A: FnOnce(&Shared, Result<usize, Errno>) + Send + 'static,
    {
        match self.faults.meet(call, path, is_change) {
            Verdict::Go(bytes_max) => act(&self.shared, Ok(bytes_max)),
            Verdict::Fail(errno) => act(&self.shared, Err(errno)),
            Verdict::Hang(rule) => {
                let (faults, shared) = (Arc::clone(&self.faults), Arc::clone(&self.shared));
                std::thread::spawn(move || {
                    faults.hang(rule);
                    act(&shared, Ok(usize::MAX));
                });
            }
        }
    }

    /// The same for a name in a directory.
    fn serve_child<A>(&self, call: Call, (parent, name): (INodeNo, &OsStr), act: A)
    where
        A: FnOnce(&Shared, &str, Result<usize, Errno>) + Send + 'static,
    {
        let path = self.shared.child(parent, name);
        let name = name.to_string_lossy().into_owned();
        self.serve(call, &path, move |shared, verdict| act(shared, &name, verdict));
    }

    /// The same for a call whose answer says nothing.
    fn serve_empty<A>(&self, call: Call, path: &str, reply: ReplyEmpty, act: A)
    where
        A: FnOnce(&Shared) -> Result<(), Errno> + Send + 'static,
    {
        self.serve(call, path, move |shared, verdict| match verdict.and_then(|_| act(shared)) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(error(e)),
        });
    }
}

impl Filesystem for Passthrough {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let _ = config.set_max_write(WRITE_BYTES_MAX);
        // Several direct reads and writes of one caller at a time.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.serve_child(Call::Stat, (parent, name), move |shared, name, verdict| {
            let found = verdict.and_then(|_| {
                let parent = shared.inodes.get(parent)?;
                shared.inodes.look_up(&parent, name)
            });
            match found {
                Ok((number, stat)) => {
                    reply.entry(&BELIEVED, &attributes(number, &stat), GENERATION);
                }
                Err(e) => reply.error(error(e)),
            }
        });
    }

    fn forget(&self, _request: &Request, number: INodeNo, lookups: u64) {
        self.shared.inodes.forget(number, lookups);
    }

    fn getattr(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let path = self.shared.path(number);
        self.serve(Call::Stat, &path, move |shared, verdict| {
            match verdict.and_then(|_| shared.inodes.get(number)?.stat()) {
                Ok(stat) => reply.attr(&BELIEVED, &attributes(number.0, &stat)),
                Err(e) => reply.error(error(e)),
            }
        });
    }

    fn setattr(
        &self,
        _request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change { number, mode, size, handle };
        self.serve(Call::Truncate, &self.shared.path(number), move |shared, verdict| match verdict
            .and_then(|_| change.make(shared))
        {
            Ok(attributes) => reply.attr(&BELIEVED, &attributes),
            Err(e) => reply.error(error(e)),
        });
    }

    fn mkdir(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        self.serve_child(Call::Directory, (parent, name), move |shared, name, verdict| {
            let made = verdict.and_then(|_| {
                let parent = shared.inodes.get(parent)?;
                rustix::fs::mkdirat(&parent.fd, name, Mode::from_raw_mode(mode & 0o7777))?;
                shared.inodes.look_up(&parent, name)
            });
            match made {
                Ok((number, stat)) => {
                    reply.entry(&BELIEVED, &attributes(number, &stat), GENERATION);
                }
                Err(e) => reply.error(error(e)),
            }
        });
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (path, name) = (self.shared.child(parent, name), name.to_owned());
        self.serve_empty(Call::Unlink, &path, reply, move |shared| {
            let parent = shared.inodes.get(parent)?;
            rustix::fs::unlinkat(&parent.fd, &*name, AtFlags::empty())
        });
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (path, name) = (self.shared.child(parent, name), name.to_owned());
        self.serve_empty(Call::Directory, &path, reply, move |shared| {
            let parent = shared.inodes.get(parent)?;
            rustix::fs::unlinkat(&parent.fd, &*name, AtFlags::REMOVEDIR)
        });
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = (self.shared.child(parent, name), self.shared.child(new_parent, new_name));
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        self.serve_empty(Call::Rename, &format!("{from} -> {to}"), reply, move |shared| {
            let (old, new) = (shared.inodes.get(parent)?, shared.inodes.get(new_parent)?);
            rustix::fs::renameat_with(&old.fd, &*name, &new.fd, &*new_name, flags)?;
            shared.inodes.moved(&from, &to);
            Ok(())
        });
    }

    fn open(&self, _request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let writes = OFlags::from_bits_retain(flags.0.cast_unsigned())
            .intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
        self.serve_change(Call::Open, &self.shared.path(number), writes, move |shared, verdict| {
            match verdict.and_then(|_| shared.open(number, flags.0)) {
                Ok(handle) => reply.opened(handle, FopenFlags::empty()),
                Err(e) => reply.error(error(e)),
            }
        });
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.serve_child(Call::Create, (parent, name), move |shared, name, verdict| match verdict
            .and_then(|_| shared.create(parent, name, mode, flags))
        {
            Ok((attributes, handle)) => {
                let flags = FopenFlags::empty();
                reply.created(&BELIEVED, &attributes, GENERATION, handle, flags);
            }
            Err(e) => reply.error(error(e)),
        });
    }

    fn read(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.serve(Call::Read, &self.shared.path(number), move |shared, verdict| {
            let bytes = verdict.and_then(|bytes_max| {
                let file = shared.file(handle)?;
                let mut buffer = vec![0; bytes_max.min(size as usize)];
                let mut done = 0;
                while done < buffer.len() {
                    match file.read_at(&mut buffer[done..], offset + done as u64) {
                        Ok(0) => break,
                        Ok(read) => done += read,
                        Err(e) => return Err(errno(&e)),
                    }
                }
                buffer.truncate(done);
                Ok(buffer)
            });
            match bytes {
                Ok(bytes) => reply.data(&bytes),
                Err(e) => reply.error(error(e)),
            }
        });
    }

    fn write(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = data.to_vec();
        self.serve(Call::Write, &self.shared.path(number), move |shared, verdict| {
            let written = verdict.and_then(|bytes_max| {
                let bytes = &data[..bytes_max.min(data.len())];
                let written = shared.file(handle)?.write_all_at(bytes, offset);
                written.map(|()| bytes.len()).map_err(|e| errno(&e))
            });
            match written {
                Ok(bytes) => reply.written(bytes as u32),
                Err(e) => reply.error(error(e)),
            }
        });
    }

    fn flush(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.shared.files().remove(&handle.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.serve_empty(Call::Sync, &self.shared.path(number), reply, move |shared| {
            shared.file(handle).map(drop)
        });
    }

    fn opendir(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.serve(Call::Open, &self.shared.path(number), move |_, verdict| match verdict {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(e) => reply.error(error(e)),
        });
    }

    fn readdir(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.serve(Call::List, &self.shared.path(number), move |shared, verdict| {
            match verdict.and_then(|_| shared.list(number)) {
                Ok(listing) => {
                    for (at, (ino, kind, name)) in listing.iter().enumerate().skip(offset as usize)
                    {
                        if reply.add(INodeNo(*ino), at as u64 + 1, *kind, name) {
                            break;
                        }
                    }
                    reply.ok();
                }
                Err(e) => reply.error(error(e)),
            }
        });
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.serve_empty(Call::SyncDir, &self.shared.path(number), reply, |_| Ok(()));
    }

    fn statfs(&self, _request: &Request, number: INodeNo, reply: ReplyStatfs) {
        self.serve(Call::Space, &self.shared.path(number), move |shared, verdict| {
            let root = verdict.and_then(|_| shared.inodes.get(INodeNo::ROOT));
            match root.and_then(|root| rustix::fs::statvfs(root.link())) {
                Ok(s) => reply.statfs(
                    s.f_blocks,
                    s.f_bfree,
                    s.f_bavail,
                    s.f_files,
                    s.f_ffree,
                    s.f_bsize as u32,
                    s.f_namemax as u32,
                    s.f_frsize as u32,
                ),
                Err(e) => reply.error(error(e)),
            }
        });
    }

    fn fallocate(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let flags = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        self.serve_empty(Call::Allocate, &self.shared.path(number), reply, move |shared| {
            rustix::fs::fallocate(&shared.file(handle)?, flags, offset, length)
        });
    }
}
