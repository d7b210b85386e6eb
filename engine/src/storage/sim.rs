//! A simulated disk: a whole directory tree in memory that behaves, by seed, as badly as a real
//! one may.
//!
//! It keeps a *live* image (what processes see: the page cache) and a *durable* one (what is on
//! the platters). Bytes become durable by [`File::sync`], names by [`Storage::sync_dir`]; what is
//! in between may reach the disk anyway, in part, out of order, torn at 512 bytes.
//! [`SimStorage::crash`] shows what a power loss leaves, [`SimStorage::kill`] what a process kill
//! leaves. Any call can be made to fail; a failed sync loses what it should have written for good,
//! as Linux does, and so does one of a directory ([`SimStorage::forget_names`]). Reads come short by
//! themselves, writes where a rule says so ([`FaultError::Short`]) or the disk is full, and pages of a
//! map meet the faults of [`Call::MapRead`].
//!
//! Invariants: the same seed and the same calls give the same outcome; nothing that was synced is
//! ever lost or altered. It does not model damage that spreads to bytes nobody wrote (use
//! [`SimStorage::flip`]), nor renames of directories.

mod fault;
mod inode;
mod names;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Entry, File, Map, Open, Space, Storage};
use fault::{Faults, Refusal};
use inode::Inode;
use names::{Names, Node, parent};

pub use crate::random::Random;

pub use fault::{Call, Fault, FaultError, When};
pub use inode::SECTOR_BYTES;

/// Size of the file system unless [`SimStorage::set_capacity`] says otherwise, bytes.
const CAPACITY_BYTES: u64 = 1 << 40;

/// The simulated disk. Clones are handles of the same one.
#[derive(Clone)]
pub struct SimStorage {
    disk: Arc<Mutex<Disk>>,
}

struct Disk {
    names: Names,
    inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    version_next: u64,
    capacity_bytes: u64,
    faults: Faults,
    /// A directory whose sync fails never brings the names to the disk that it should have.
    forgets_names: Option<String>,
    random: Random,
}

impl SimStorage {
    /// An empty disk: only the root directory exists.
    pub fn new(seed: u64) -> Self {
        Self::of(Disk {
            names: Names::default(),
            inodes: BTreeMap::new(),
            inode_next: 0,
            version_next: 0,
            capacity_bytes: CAPACITY_BYTES,
            faults: Faults::default(),
            forgets_names: None,
            random: Random::new(seed),
        })
    }

    fn of(disk: Disk) -> Self {
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as it is found after a power loss now: what was synced, and of the rest whatever
    /// the seed chooses. Faults are gone.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let disk = self.lock();
        let mut random = Random::new(seed);
        let names = disk.names.after_crash(&mut random);
        let named = names.named();
        let survives = |(number, inode): (&u64, &Inode)| {
            // Every inode takes its share of random numbers, so that fates do not depend on names.
            let after = inode.after_crash(&mut random);
            named.contains(number).then_some((*number, after))
        };
        let inodes = disk.inodes.iter().filter_map(survives).collect();
        Self::of(disk.reborn(names, inodes, random))
    }

    /// The disk as the next process finds it after this one was killed: everything written is
    /// there, and what was not synced is still at risk. Faults are gone.
    #[must_use]
    pub fn kill(&self) -> Self {
        let disk = self.lock();
        let mut inodes = disk.inodes.clone();
        let reachable = disk.names.reachable();
        inodes.retain(|number, inode| {
            inode.opens = 0;
            reachable.contains(number)
        });
        Self::of(disk.reborn(disk.names.clone(), inodes, disk.random.clone()))
    }

    /// Makes calls fail by a rule, beside the rules already there.
    pub fn fail(&self, fault: Fault) {
        self.lock().faults.rules.push(fault);
    }

    /// From now on a sync of a directory that fails loses for good, as that of a file does, what it
    /// should have brought to the disk: later ones that succeed do not make up for it.
    /// Of directories whose path contains this.
    pub fn forget_names(&self, path_part: &str) {
        self.lock().forgets_names = Some(path_part.to_owned());
    }

    /// Bytes of files whose path contains this cannot be read, by system calls or maps: EIO.
    pub fn make_unreadable(&self, path_part: &str, span: Range<u64>) {
        self.lock().faults.unreadable.push((path_part.to_owned(), span));
    }

    /// All bytes can be read again.
    pub fn make_readable(&self) {
        self.lock().faults.unreadable.clear();
    }

    /// Forgets all rules; [`SimStorage::crash_at`] stays.
    pub fn clear_faults(&self) {
        self.lock().faults.rules.clear();
    }

    /// Whether a rule is in force.
    pub fn has_faults(&self) -> bool {
        !self.lock().faults.rules.is_empty()
    }

    /// The machine stops at call number `call` (the first of all is 1): it and all later ones
    /// fail. The test then looks at [`SimStorage::crash`] or [`SimStorage::kill`].
    pub fn crash_at(&self, call: u64) {
        self.lock().faults.stop_at = Some(call);
    }

    /// Whether the call of [`SimStorage::crash_at`] has come.
    pub fn has_stopped(&self) -> bool {
        self.lock().faults.has_stopped()
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.lock().faults.trace.len() as u64
    }

    /// Every call so far, in order; call number n is at index n − 1.
    pub fn trace(&self) -> Vec<Call> {
        self.lock().faults.trace.clone()
    }

    /// Every call and its path since the disk was new, kills and power losses passed over, as one
    /// number: two runs that do the same have the same.
    pub fn trace_digest(&self) -> u64 {
        self.lock().faults.digest
    }

    /// Calls that a rule made fail so far.
    pub fn struck(&self) -> Vec<(Call, PathBuf)> {
        self.lock().faults.struck.clone()
    }

    /// Sets the size of the file system, bytes; beyond it calls fail with ENOSPC.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity_bytes = bytes;
    }

    /// Bytes that files occupy, those included that are open and have no name.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    /// Flips one bit of a file, on the disk and in the cache. Counts as no call.
    pub fn flip(&self, path: &Path, offset: u64, bit: u32) -> io::Result<()> {
        self.lock().corrupt(path, |bytes| {
            if let Some(byte) = bytes.get_mut(offset as usize) {
                *byte ^= 1 << (bit % 8);
            }
        })
    }

    /// Cuts a file, on the disk and in the cache. Counts as no call.
    pub fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.lock().corrupt(path, |bytes| bytes.truncate(len as usize))
    }

    /// The live bytes of a file. Counts as no call.
    pub fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut disk = self.lock();
        disk.inode_at(path).map(|inode| inode.live.to_vec())
    }

    /// All files, sorted. Counts as no call.
    pub fn files(&self) -> Vec<PathBuf> {
        self.lock().names.files().map(Path::to_owned).collect()
    }
}

impl Disk {
    fn reborn(&self, names: Names, inodes: BTreeMap<u64, Inode>, random: Random) -> Self {
        Self {
            names,
            inodes,
            random,
            inode_next: self.inode_next,
            version_next: self.version_next,
            capacity_bytes: self.capacity_bytes,
            faults: Faults { digest: self.faults.digest, ..Faults::default() },
            forgets_names: self.forgets_names.clone(),
        }
    }

    fn forgets(&self, directory: &Path) -> bool {
        let is_meant = |part: &String| directory.to_string_lossy().contains(part);
        self.forgets_names.as_ref().is_some_and(is_meant)
    }

    fn admit(&mut self, call: Call, path: &Path) -> Result<(), Refusal> {
        self.faults.admit(call, path, &mut self.random)
    }

    fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("an open or named file has its inode")
    }

    fn inode_at(&mut self, path: &Path) -> io::Result<&mut Inode> {
        match self.names.get(path) {
            Some(Node::File(number)) => Ok(self.inode(number)),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn corrupt(&mut self, path: &Path, change: impl Fn(&mut Vec<u8>)) -> io::Result<()> {
        let version = self.new_version();
        let inode = self.inode_at(path)?;
        inode.version = version;
        inode.corrupt(change);
        Ok(())
    }

    fn new_version(&mut self) -> u64 {
        self.version_next += 1;
        self.version_next
    }

    fn used_bytes(&self) -> u64 {
        let named = self.names.named();
        let in_use = |(number, inode): &(&u64, &Inode)| inode.opens > 0 || named.contains(number);
        self.inodes.iter().filter(in_use).map(|(_, inode)| inode.live.len() as u64).sum()
    }

    fn free_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.used_bytes())
    }

    /// Forgets files that nobody can reach any more.
    fn collect(&mut self) {
        let reachable = self.names.reachable();
        self.inodes.retain(|number, inode| inode.opens > 0 || reachable.contains(number));
    }

    fn require_directory(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Changes a file's length; growth needs room.
    fn resize(&mut self, number: u64, len: u64) -> io::Result<()> {
        let free = self.free_bytes();
        let version = self.new_version();
        let inode = self.inode(number);
        if len.saturating_sub(inode.live.len() as u64) > free {
            return Err(FaultError::NoSpace.error());
        }
        inode.version = version;
        inode.set_len(len as usize);
        Ok(())
    }

    /// Writes as much as there is room for, and says how much that is; an error where there is none.
    fn write(&mut self, number: u64, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let free = self.free_bytes();
        let version = self.new_version();
        let inode = self.inode(number);
        let room = (inode.live.len() as u64 + free).saturating_sub(offset);
        let fits = (bytes.len() as u64).min(room) as usize;
        if fits > 0 {
            inode.version = version;
            inode.write(&bytes[..fits], offset as usize);
        }
        if fits == 0 && !bytes.is_empty() { Err(FaultError::NoSpace.error()) } else { Ok(fits) }
    }
}

impl SimStorage {
    /// Renames, if what has the new name allows it.
    fn rename_if(
        &self,
        from: &Path,
        to: &Path,
        may: impl FnOnce(Option<Node>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut disk = self.lock();
        disk.admit(Call::Rename, from)?;
        disk.inode_at(from)?;
        disk.require_directory(parent(to))?;
        may(disk.names.get(to))?;
        disk.names.rename(from, to);
        disk.collect();
        Ok(())
    }
}

impl Storage for SimStorage {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut disk = self.lock();
        let call = if how == Open::CreateNew { Call::Create } else { Call::Open };
        disk.admit(call, path)?;
        let number = match (disk.names.get(path), how) {
            (Some(Node::Directory), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Node::File(_)), Open::CreateNew) => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            (Some(Node::File(number)), _) => number,
            (None, Open::CreateNew) => {
                disk.require_directory(parent(path))?;
                let number = disk.inode_next;
                disk.inode_next += 1;
                let version = disk.new_version();
                disk.inodes.insert(number, Inode::new(version));
                disk.names.add(path, Node::File(number));
                number
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        disk.inode(number).opens += 1;
        Ok(Arc::new(SimFile {
            disk: Arc::clone(&self.disk),
            number,
            path: path.to_owned(),
            may_write: how != Open::Read,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename_if(from, to, |there| match there {
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            _ => Ok(()),
        })
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename_if(from, to, |there| match there {
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => Ok(()),
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.lock();
        disk.admit(Call::Remove, path)?;
        disk.inode_at(path)?;
        disk.names.remove(path);
        disk.collect();
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let mut disk = self.lock();
        disk.admit(Call::List, directory)?;
        disk.require_directory(directory)?;
        let entry = |(path, node): (&Path, Node)| Entry {
            name: path.file_name().and_then(|name| name.to_str()).map(str::to_owned),
            is_file: matches!(node, Node::File(_)),
            len_bytes: match node {
                Node::File(number) => disk.inodes.get(&number).map_or(0, |i| i.live.len() as u64),
                Node::Directory => 0,
            },
        };
        Ok(disk.names.children(directory).map(entry).collect())
    }

    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        let mut disk = self.lock();
        disk.admit(Call::CreateDir, directory)?;
        let missing: Vec<&Path> =
            directory.ancestors().take_while(|d| disk.names.get(d).is_none()).collect();
        for directory in missing.into_iter().rev() {
            disk.names.add(directory, Node::Directory);
        }
        disk.require_directory(directory)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let mut disk = self.lock();
        match disk.admit(Call::SyncDir, directory) {
            Err(Refusal::Fault(error)) if disk.forgets(directory) => {
                let mut random = disk.random.clone();
                disk.names.fail_sync(directory, &mut random);
                disk.random = random;
                return Err(error.error());
            }
            admitted => admitted?,
        }
        disk.require_directory(directory)?;
        disk.names.sync(directory);
        disk.collect();
        Ok(())
    }

    fn space(&self, directory: &Path) -> io::Result<Space> {
        let mut disk = self.lock();
        disk.admit(Call::Space, directory)?;
        disk.require_directory(directory)?;
        Ok(Space { free_bytes: disk.free_bytes(), total_bytes: disk.capacity_bytes })
    }
}

/// A part of so many bytes, at least one of them.
fn short(len: usize, random: u64) -> usize {
    if len > 1 { 1 + (random % len as u64) as usize } else { len }
}

struct SimFile {
    disk: Arc<Mutex<Disk>>,
    number: u64,
    path: PathBuf,
    may_write: bool,
}

impl SimFile {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, call: Call) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = self.lock();
        disk.admit(call, &self.path)?;
        self.require_writable(call)?;
        Ok(disk)
    }

    fn require_writable(&self, call: Call) -> io::Result<()> {
        let refused = !self.may_write && call.changes_disk() && call != Call::Sync;
        if refused { Err(io::Error::from_raw_os_error(libc::EBADF)) } else { Ok(()) }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut disk = self.lock();
        disk.inode(self.number).opens -= 1;
        disk.collect();
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut disk = self.admit(Call::Len)?;
        Ok(disk.inode(self.number).live.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.lock();
        let is_cut = match disk.admit(Call::Read, &self.path) {
            Err(Refusal::Fault(FaultError::Short)) => true,
            admitted => admitted.map(|()| false)?,
        };
        let is_short = disk.random.below(16) == 0 || is_cut;
        let cut = disk.random.next_u64();
        let readable_to = disk.faults.unreadable_from(&self.path, offset);
        if readable_to.is_some_and(|end| end <= offset) {
            return Err(FaultError::Io.error());
        }
        let live = &disk.inode(self.number).live;
        let Some(rest) = usize::try_from(offset).ok().and_then(|start| live.get(start..)) else {
            return Ok(0);
        };
        let mut count = rest.len().min(buffer.len());
        if let Some(end) = readable_to {
            count = count.min((end - offset) as usize);
        }
        if is_short {
            count = short(count, cut);
        }
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.lock();
        let admitted = disk.admit(Call::Write, &self.path);
        self.require_writable(Call::Write)?;
        match admitted {
            Ok(()) => disk.write(self.number, bytes, offset),
            Err(Refusal::Fault(FaultError::Short)) => {
                let count = short(bytes.len(), disk.random.next_u64());
                disk.write(self.number, &bytes[..count], offset)
            }
            Err(refusal @ (Refusal::Stopped | Refusal::Fault(FaultError::Interrupted))) => {
                Err(refusal.into())
            }
            Err(refusal) => {
                let prefix = disk.random.below(bytes.len() as u64 + 1) as usize;
                disk.write(self.number, &bytes[..prefix], offset)?;
                Err(refusal.into())
            }
        }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.admit(Call::Allocate)?;
        if len <= disk.inode(self.number).live.len() as u64 {
            return Ok(());
        }
        disk.resize(self.number, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.admit(Call::SetLen)?.resize(self.number, len)
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.lock();
        match disk.admit(Call::Sync, &self.path) {
            Ok(()) => {
                disk.inode(self.number).sync();
                Ok(())
            }
            Err(Refusal::Stopped) => Err(Refusal::Stopped.into()),
            Err(refusal) => {
                let mut random = disk.random.clone();
                disk.inode(self.number).fail_sync(&mut random);
                disk.random = random;
                Err(refusal.into())
            }
        }
    }

    fn map(&self) -> io::Result<Map> {
        let mut disk = self.admit(Call::Map)?;
        let bytes = Arc::clone(&disk.inode(self.number).live);
        let (disk, path) = (Arc::clone(&self.disk), self.path.clone());
        let meets_fault = move || {
            let mut disk = disk.lock().unwrap_or_else(PoisonError::into_inner);
            disk.faults.unreadable_from(&path, 0).is_some()
                || (disk.faults.has_rule_for(Call::MapRead)
                    && disk.admit(Call::MapRead, &path).is_err())
        };
        Ok(Map::simulated(bytes, Box::new(meets_fault)))
    }

    fn version_stamp(&self) -> io::Result<u128> {
        let mut disk = self.admit(Call::VersionStamp)?;
        Ok(u128::from(disk.inode(self.number).version))
    }
}
