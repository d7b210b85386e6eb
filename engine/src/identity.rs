//! Who a data directory is: 128 random bits and how often it was taken into use, in a small file of the
//! directory ([`crate::twin`]). The ingest directory's names the ingester, the store directory's the
//! store, so that a role can be added to a node or taken from it, and its disk be moved.
//! `docs/format-ingest.md` has the byte table.
//!
//! Invariants: an identity is on disk, synced, before anything that it vouches for: the first record of
//! an ingester, the first segment of a store. No two lives of a directory have the same boot. Only a
//! directory without the file gets a new identity: one that cannot be read, is damaged, or is that of
//! the other side is left as it is, and the node does not go on.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::damage::Damage;
use crate::storage::{Refusal, Storage};
use crate::twin::{self, SyncDir, Twin, TwinError, TwinFile};

/// Name of the file.
pub const IDENTITY_FILE: &str = "IDENTITY";
/// Its name until it is whole for the first time.
pub const IDENTITY_NEW_FILE: &str = "IDENTITY.new";

/// What a directory is to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// It takes records.
    Ingest,
    /// It keeps them.
    Store,
}

impl Side {
    const fn number(self) -> u8 {
        match self {
            Self::Ingest => 1,
            Self::Store => 2,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingest => "ingester",
            Self::Store => "store",
        })
    }
}

/// Names an ingester or a store among all that ever were; 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u128);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Who a directory is, in one of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Its life: one more each time that a node takes it into use, from 1. First, so that the later of
    /// two is the larger.
    pub boot: u64,
    /// The same in all of its lives.
    pub id: NodeId,
    /// Which side it is.
    pub side: Side,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, boot {}", self.side, self.id, self.boot)
    }
}

impl Twin for Identity {
    const FILE: &'static str = IDENTITY_FILE;
    const NEW_FILE: &'static str = IDENTITY_NEW_FILE;
    const MAGIC: [u8; 4] = *b"OKI1";
    const PAYLOAD_BYTES: usize = 32;
    const WHAT: &'static str = "identity";
    const WHAT_COPY: &'static str = "copy of the identity";

    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.id.0.to_be_bytes());
        out.extend(self.boot.to_le_bytes());
        out.extend([self.side.number(), 0, 0, 0, 0, 0, 0, 0]);
    }

    fn take(payload: &[u8]) -> Option<Self> {
        let (id, rest) = payload.split_first_chunk::<16>()?;
        let (boot, rest) = rest.split_first_chunk::<8>()?;
        let sides = [Side::Ingest, Side::Store];
        let side = sides.into_iter().find(|side| rest == [side.number(), 0, 0, 0, 0, 0, 0, 0])?;
        let boot = u64::from_le_bytes(*boot);
        (boot > 0).then_some(Self { boot, id: NodeId(u128::from_be_bytes(*id)), side })
    }

    fn belongs_with(&self, other: &Self) -> bool {
        (self.id, self.side) == (other.id, other.side)
    }
}

/// Why nobody knows who a directory is.
#[derive(Debug)]
pub enum IdentityError {
    /// Its file does not say.
    File(TwinError),
    /// It is one of the other side.
    OtherSide {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: Side,
    },
    /// It was used as often as can be counted, which nobody did.
    UsedUp(PathBuf),
}

impl IdentityError {
    /// Whether the storage did not give what it has: it may do so soon.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::File(TwinError::Unread(..)))
    }
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self {
            Self::File(error) => {
                error.fmt(f)?;
                error.path()
            }
            Self::OtherSide { path, found } => {
                let path = path.display();
                return write!(
                    f,
                    "{path} is that of the directory of {found} segments: --ingest.path and \
                     --store.path are mixed up, or the file was copied from one to the other"
                );
            }
            Self::UsedUp(path) => {
                write!(f, "{} has no boot left", path.display())?;
                path
            }
        };
        write!(
            f,
            "; it says who this directory is, and another one would not be the one whose records \
             these are. Mend the disk or restore the file; if it is lost, move {} away: the \
             directory then gets a new identity and keeps its records",
            path.display()
        )
    }
}

impl std::error::Error for IdentityError {}

/// Makes the identity of a life durable.
pub struct IdentityKeeper {
    file: TwinFile<Identity>,
    identity: Identity,
    is_started: bool,
}

/// An identity that was opened.
pub struct OpenedIdentity {
    /// What writes it.
    pub keeper: IdentityKeeper,
    /// A copy is damaged; the other one holds.
    pub has_damaged_copy: bool,
    /// A copy could not be read; the other one holds.
    pub unread_copy: Option<Refusal>,
}

impl IdentityKeeper {
    /// Reads the identity of a directory that exists. One that has none is to be `new_id`, which is
    /// random. Nothing is written.
    pub fn open(
        storage: Arc<dyn Storage>,
        directory: &Path,
        side: Side,
        new_id: NodeId,
    ) -> Result<OpenedIdentity, IdentityError> {
        let path = directory.join(IDENTITY_FILE);
        let (file, found) = TwinFile::open(storage, directory).map_err(IdentityError::File)?;
        let before = found.map_or(Identity { boot: 0, id: new_id, side }, |found| found.value);
        if before.side != side {
            return Err(IdentityError::OtherSide { path, found: before.side });
        }
        let boot = before.boot.checked_add(1).ok_or(IdentityError::UsedUp(path))?;
        let keeper = Self { file, identity: Identity { boot, ..before }, is_started: false };
        Ok(OpenedIdentity {
            keeper,
            has_damaged_copy: found.is_some_and(|found| found.has_damaged_copy()),
            unread_copy: found.and_then(|found| found.unread_copy()),
        })
    }

    /// Who it is in this life.
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether that is on disk: before, nobody may be told, and it may vouch for nothing.
    pub const fn is_started(&self) -> bool {
        self.is_started
    }

    /// Brings it to disk, if it is not yet there. To be called again after an error.
    pub fn start(&mut self, sync_dir: SyncDir<'_>) -> io::Result<()> {
        if !self.is_started {
            self.file.write(&self.identity, sync_dir)?;
            self.is_started = true;
        }
        Ok(())
    }
}

/// Checks the file of an identity, offline and read-only; says whose it is, too.
pub fn check(storage: &dyn Storage, path: &Path) -> io::Result<(Option<Identity>, Vec<Damage>)> {
    twin::check(storage, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Open;
    use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
    use crate::twin::COPY_OFFSETS;

    const ID: NodeId = NodeId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);

    fn disk() -> SimStorage {
        let sim = SimStorage::new(1);
        sim.create_dir_all(Path::new("/store")).unwrap();
        sim.sync_dir(Path::new("/")).unwrap();
        sim
    }

    fn open(sim: &SimStorage, new_id: u128) -> Result<OpenedIdentity, IdentityError> {
        let storage = Arc::new(sim.clone());
        IdentityKeeper::open(storage, Path::new("/store"), Side::Store, NodeId(new_id))
    }

    fn path() -> PathBuf {
        Path::new("/store").join(IDENTITY_FILE)
    }

    fn sync_dir(sim: &SimStorage) -> io::Result<()> {
        sim.sync_dir(Path::new("/store"))
    }

    fn start(sim: &SimStorage, new_id: u128) -> Identity {
        let mut keeper = open(sim, new_id).unwrap().keeper;
        keeper.start(&|| sync_dir(sim)).unwrap();
        assert!(keeper.is_started());
        keeper.identity()
    }

    /// The example of the format page.
    #[test]
    fn the_bytes_are_those_of_the_format_page() {
        let identity = Identity { boot: 3, id: ID, side: Side::Ingest };
        let bytes = twin::encode(&identity);
        let shown: Vec<u8> = include_str!("../../docs/format-ingest.md")
            .split("**Identity** (`IDENTITY`).")
            .nth(1)
            .and_then(|rest| rest.split("```").nth(1))
            .unwrap()
            .lines()
            .flat_map(|line| line.split_once("  ").map_or("", |(_, bytes)| bytes).split(' '))
            .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
            .collect();
        assert!(bytes == shown, "the page should show {bytes:02x?}");
        assert_eq!(identity.to_string(), format!("ingester {ID}, boot 3"));
        let sim = disk();
        for _ in 0..3 {
            start(&sim, ID.0);
        }
        let file = sim.open(&path(), Open::Read).unwrap();
        assert_eq!(file.len().unwrap(), COPY_OFFSETS[1] + bytes.len() as u64);
        let (found, damage) = check(&sim, &path()).unwrap();
        assert_eq!((found, damage), (Some(Identity { side: Side::Store, ..identity }), vec![]));
    }

    #[test]
    fn a_directory_keeps_its_identity_and_counts_its_lives_and_an_emptied_one_gets_another() {
        let sim = disk();
        for boot in 1..5 {
            let identity = start(&sim, 7 * u128::from(boot));
            assert_eq!(identity, Identity { boot, id: NodeId(7), side: Side::Store });
        }
        sim.remove(&path()).unwrap();
        assert_eq!(start(&sim, 9), Identity { boot: 1, id: NodeId(9), side: Side::Store });
    }

    #[test]
    fn what_cannot_be_read_or_is_not_whole_is_never_replaced_by_a_new_one() {
        let first = |sim: &SimStorage| sim.open(&path(), Open::Write).unwrap();
        let spoil: [(&str, &dyn Fn(&SimStorage)); 4] = [
            ("damaged", &|sim| {
                for offset in COPY_OFFSETS {
                    first(sim).write_all_at(&[7; 40], offset).unwrap();
                }
            }),
            ("damaged", &|sim| first(sim).set_len(39).unwrap()),
            ("damaged", &|sim| first(sim).set_len(0).unwrap()),
            ("cannot be read", &|sim| {
                sim.fail(Fault {
                    path_part: IDENTITY_FILE.into(),
                    ..Fault::random(Call::Read, 1.0, FaultError::Io)
                });
            }),
        ];
        for (words, spoil) in spoil {
            let sim = disk();
            start(&sim, 7);
            spoil(&sim);
            let before = sim.files();
            let told = open(&sim, 8).err().unwrap();
            let told = told.to_string();
            assert!(told.contains(words) && told.contains("/store/IDENTITY"), "{told}");
            assert!(told.contains("move /store/IDENTITY away"), "{told}");
            assert_eq!(sim.files(), before);
        }
    }

    #[test]
    fn copies_that_cannot_belong_together_and_files_of_the_other_side_are_refused() {
        let sim = disk();
        start(&sim, 7);
        let other = Identity { boot: 1, id: NodeId(8), side: Side::Store };
        let file = sim.open(&path(), Open::Write).unwrap();
        file.write_all_at(&twin::encode(&other), COPY_OFFSETS[1]).unwrap();
        assert!(open(&sim, 9).err().unwrap().to_string().contains("is damaged"));
        assert_eq!(check(&sim, &path()).unwrap().1.len(), 2);
        file.write_all_at(&twin::encode(&other), COPY_OFFSETS[0]).unwrap();
        assert_eq!(start(&sim, 9).id, NodeId(8));
        let opened =
            IdentityKeeper::open(Arc::new(sim), Path::new("/store"), Side::Ingest, NodeId(9));
        let told = opened.err().unwrap().to_string();
        assert!(told.contains("mixed up"), "{told}");
    }

    #[test]
    fn a_power_loss_at_any_call_neither_loses_an_identity_nor_gives_a_boot_twice() {
        let mut started = 0;
        for seed in 0..60 {
            let mut sim = disk();
            let mut known: Option<Identity> = None;
            for life in 0..4 {
                sim.fail(Fault::nth((seed + life) % 12, FaultError::Io));
                if let Ok(opened) = open(&sim, u128::from(seed * 10 + life)) {
                    let mut keeper = opened.keeper;
                    let failed = keeper.start(&|| sync_dir(&sim)).is_err();
                    assert_eq!(keeper.is_started(), !failed);
                    if let Some(known) = known {
                        assert_eq!(keeper.identity().id, known.id, "seed {seed}, life {life}");
                        assert!(keeper.identity().boot > known.boot, "seed {seed}, life {life}");
                    }
                    if !failed {
                        known = Some(keeper.identity());
                        started += 1;
                    }
                }
                sim.clear_faults();
                sim = sim.crash(seed);
            }
        }
        assert!(started > 60 && started < 240, "{started}");
    }
}
