//! A small file that says one thing which must never be lost or go back, in two copies that are
//! written and synced one after the other: the mark of stamps, the identity of a directory.
//! `docs/format-ingest.md` has the byte table.
//!
//! Invariants: under its name the file was never anything but whole; one whole copy is enough, and of
//! two the later one counts; a write that fails leaves the copy that was not being written as it was;
//! writing again over a file that is there needs no space. That both copies are damaged, that they
//! cannot belong together, or that the file cannot be read is not that there is none: it is an error,
//! and nothing is ever written over it. Its directory is synced by whoever keeps account of the
//! directory's syncs, since one that fails may lose the names of others.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::damage::{Damage, DamageKind};
use crate::storage::{File, Open, Refusal, Storage, write_anew};

/// Where each copy starts, bytes: on a page and a sector of its own.
pub const COPY_OFFSETS: [u64; 2] = [0, 4096];
/// Magic and checksum before a copy's payload, bytes.
const HEAD_BYTES: usize = 8;

/// Syncs the directory that the file is in.
pub type SyncDir<'a> = &'a dyn Fn() -> io::Result<()>;

/// What such a file says. The larger of two values is the later one.
pub trait Twin: Copy + Ord + fmt::Debug {
    /// Name of the file.
    const FILE: &'static str;
    /// Its name until it is whole for the first time.
    const NEW_FILE: &'static str;
    /// First bytes of a copy.
    const MAGIC: [u8; 4];
    /// Bytes of a copy behind magic and checksum.
    const PAYLOAD_BYTES: usize;
    /// What it is, for people.
    const WHAT: &'static str;
    /// What one of its copies is, for people.
    const WHAT_COPY: &'static str;

    /// Appends the payload.
    fn put(&self, out: &mut Vec<u8>);
    /// The inverse; `None`: no value has these bytes.
    fn take(payload: &[u8]) -> Option<Self>;
    /// Whether a file may hold both: one that was being written when it held the other.
    fn belongs_with(&self, other: &Self) -> bool;
}

/// Why there is no value to rely on.
#[derive(Debug)]
pub enum TwinError {
    /// The file cannot be read.
    Unread(PathBuf, io::Error),
    /// Neither copy is whole, or they contradict each other.
    Damaged(PathBuf),
    /// They are of another version than this program reads.
    Version(PathBuf, u16),
}

impl TwinError {
    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Unread(path, _) | Self::Damaged(path) | Self::Version(path, _) => path,
        }
    }
}

impl fmt::Display for TwinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unread(path, error) => write!(f, "{} cannot be read: {error}", path.display()),
            Self::Damaged(path) => {
                write!(f, "{} is damaged, in both of its copies", path.display())
            }
            Self::Version(path, version) => {
                let path = path.display();
                write!(f, "{path} is of version {version}, which this program does not read")
            }
        }
    }
}

impl std::error::Error for TwinError {}

/// What a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadTwin<T> {
    /// What counts.
    pub value: T,
    /// Which copies are whole.
    pub whole: [bool; 2],
    /// Which of the others could not be read, and why: they may be whole.
    pub unread: [Option<Refusal>; 2],
}

impl<T> ReadTwin<T> {
    /// A copy that could not be read.
    pub fn unread_copy(&self) -> Option<Refusal> {
        self.unread.into_iter().flatten().next()
    }

    /// Whether a copy was read and is damaged.
    pub fn has_damaged_copy(&self) -> bool {
        (0..2).any(|copy| !self.whole[copy] && self.unread[copy].is_none())
    }
}

/// Reads such a file; `None`: neither copy is whole, or they contradict each other.
pub fn read<T: Twin>(file: &dyn File) -> io::Result<Option<ReadTwin<T>>> {
    let (mut values, mut unread, mut refused) = ([None; 2], [None; 2], None);
    for (copy, offset) in COPY_OFFSETS.into_iter().enumerate() {
        let mut bytes = vec![0; HEAD_BYTES + T::PAYLOAD_BYTES];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => values[copy] = decode(&bytes),
            // The file was cut: this copy is damaged.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => {
                unread[copy] = Some(Refusal::from(&error));
                refused = Some(error);
            }
        }
    }
    let whole = values.map(|value: Option<T>| value.is_some());
    match (values, refused) {
        ([Some(a), Some(b)], _) if !a.belongs_with(&b) => Ok(None),
        ([None, None], Some(error)) => Err(error),
        // The later one is always sound: it may be of a write that did not end.
        _ => Ok(values.into_iter().flatten().max().map(|value| ReadTwin { value, whole, unread })),
    }
}

/// The other version that both copies are of, by the last character of their magic.
fn other_version<T: Twin>(file: &dyn File) -> Option<u16> {
    let version = |offset| {
        let mut magic = [0; 4];
        file.read_exact_at(&mut magic, offset).ok()?;
        let is_ours = magic[..3] == T::MAGIC[..3] && magic[3] != T::MAGIC[3];
        (is_ours && magic[3].is_ascii_digit()).then(|| u16::from(magic[3] - b'0'))
    };
    let [first, second] = COPY_OFFSETS.map(version);
    first.filter(|_| first == second)
}

/// Checks such a file, offline and read-only; says what counts, too. It holds no record; while one
/// copy is whole nothing is lost.
pub fn check<T: Twin>(storage: &dyn Storage, path: &Path) -> io::Result<(Option<T>, Vec<Damage>)> {
    let file = storage.open(path, Open::Read)?;
    let found = read::<T>(&*file)?;
    let version = other_version::<T>(&*file).filter(|_| found.is_none());
    let whole = found.map_or([false; 2], |found| found.whole);
    let damage = |copy: usize| Damage {
        path: path.to_owned(),
        offset: COPY_OFFSETS[copy],
        len_bytes: (HEAD_BYTES + T::PAYLOAD_BYTES) as u64,
        range: None,
        records: Some(0),
        kind: match found.map(|found| found.unread[copy]) {
            Some(Some(refusal)) => DamageKind::Bypassed(refusal),
            Some(None) => DamageKind::Repairable(T::WHAT_COPY),
            None => version.map_or(DamageKind::Checksum(T::WHAT), DamageKind::Version),
        },
    };
    let damage = (0..2).filter(|&copy| !whole[copy]).map(damage).collect();
    Ok((found.map(|found| found.value), damage))
}

/// One copy.
pub fn encode<T: Twin>(value: &T) -> Vec<u8> {
    let mut out = T::MAGIC.to_vec();
    out.resize(HEAD_BYTES, 0);
    value.put(&mut out);
    assert_eq!(out.len(), HEAD_BYTES + T::PAYLOAD_BYTES);
    let crc = crc32fast::hash(&out[HEAD_BYTES..]);
    out[4..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode<T: Twin>(bytes: &[u8]) -> Option<T> {
    let (head, payload) = bytes.split_at_checked(HEAD_BYTES)?;
    let is_whole = head[..4] == T::MAGIC && head[4..] == crc32fast::hash(payload).to_le_bytes();
    T::take(payload).filter(|_| is_whole)
}

/// The file of a directory, to be written.
pub struct TwinFile<T> {
    storage: Arc<dyn Storage>,
    directory: PathBuf,
    file: Option<Arc<dyn File>>,
    /// The copy that is written first: one that is not whole, where there is one.
    first: usize,
    says: PhantomData<fn(T)>,
}

impl<T: Twin> TwinFile<T> {
    /// Opens the file of a directory that exists, and reads it; `None`: there is none.
    pub fn open(
        storage: Arc<dyn Storage>,
        directory: &Path,
    ) -> Result<(Self, Option<ReadTwin<T>>), TwinError> {
        let path = directory.join(T::FILE);
        let unread = |error| TwinError::Unread(path.clone(), error);
        let file = match storage.open(&path, Open::Write) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(unread(error)),
        };
        let found = match &file {
            Some(file) => {
                let found = read(&**file).map_err(unread)?;
                let why = || match other_version::<T>(&**file) {
                    Some(version) => TwinError::Version(path.clone(), version),
                    None => TwinError::Damaged(path.clone()),
                };
                Some(found.ok_or_else(why)?)
            }
            None => None,
        };
        let first = usize::from(found.is_some_and(|found| !found.whole[1]));
        let directory = directory.to_owned();
        Ok((Self { storage, directory, file, first, says: PhantomData }, found))
    }

    /// Makes a value durable in both copies, one after the other; where there is no file yet, `sync_dir`
    /// makes its name durable. After an error the copy that was not being written is as it was.
    pub fn write(&mut self, value: &T, sync_dir: SyncDir<'_>) -> io::Result<()> {
        let Some(file) = self.file.clone() else { return self.create(value, sync_dir) };
        for copy in [self.first, 1 - self.first] {
            self.first = copy;
            file.write_all_at(&encode(value), COPY_OFFSETS[copy])?;
            file.sync()?;
        }
        Ok(())
    }

    fn create(&mut self, value: &T, sync_dir: SyncDir<'_>) -> io::Result<()> {
        let path = self.directory.join(T::FILE);
        let new = self.directory.join(T::NEW_FILE);
        let copy = encode(value);
        let copies = COPY_OFFSETS.map(|offset| (offset, &copy[..]));
        let file = write_anew(&*self.storage, &new, &path, &copies)?;
        sync_dir()?;
        self.file = Some(file);
        Ok(())
    }
}
