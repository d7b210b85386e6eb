//! The inventory of a directory that a node has: kept in memory, and brought to disk by whoever turns
//! retention.
//!
//! Invariants: nobody who publishes, asks or retires waits for the disk here. Nothing is written over an
//! inventory that could not be read, before it was read or its owner gave it up. Files may go only when
//! what they hold is let go on disk.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::damage::{Damage, DamageKind};
use crate::identity::NodeId;
use crate::storage::{Refusal, write_anew};

use super::super::StoreDirectory;
use super::super::coverage::{Coverage, Gap};
use super::look::Known;
use super::{
    Holdings, INVENTORY_FILE, INVENTORY_NEW_FILE, Inventory, Present, damage_of, damage_of_file,
    is_later, look,
};

/// See the module page.
pub(in super::super) struct InventoryKeeper {
    directory: Arc<StoreDirectory>,
    state: Mutex<State>,
    /// Whose turn it is to write.
    writing: Mutex<()>,
}

#[derive(Default)]
struct State {
    inventory: Inventory,
    /// What was missing when that was last looked for.
    gaps: Vec<Gap>,
    /// What of it is told.
    told: Arc<Vec<Damage>>,
    /// Of what is known, counted up with each change.
    version: u64,
    /// The one that is on disk.
    saved: u64,
    /// The one that must be on disk before files go, if it is not there.
    owed: Option<u64>,
    /// What is on disk could not be read yet.
    is_unread: bool,
    /// Something came back, and nobody could look yet what is missing now.
    is_stale: bool,
}

impl InventoryKeeper {
    /// Reads the inventory of a directory in which this is found; says what is wrong with it, and what is
    /// missing.
    pub(in super::super) fn open(
        directory: Arc<StoreDirectory>,
        present: &mut Present,
    ) -> (Self, Vec<Damage>) {
        let path = directory.path.join(INVENTORY_FILE);
        let own = directory.identity().map(|identity| identity.id);
        let read = || look::load(&*directory.storage, &path, own);
        let (mut damage, mut state) = (Vec::new(), State::default());
        match read().or_else(|_| read()) {
            Ok(None) => {}
            Ok(Some(Ok(inventory))) => state.inventory = inventory,
            Ok(Some(Err(kind))) => {
                // A damaged one is made anew of what there is; one of a later version stays.
                state.is_unread = is_later(&kind);
                state.version = 1;
                damage.push(damage_of_file(&path, kind));
            }
            Err(error) => {
                damage.push(damage_of_file(&path, DamageKind::Unread(Refusal::from(&error))));
                state.is_unread = true;
            }
        }
        state.gaps = state.inventory.gaps(present);
        let this = Self { directory, state: Mutex::new(state), writing: Mutex::default() };
        this.tell(&mut this.lock());
        damage.extend(this.holes().iter().cloned());
        (this, damage)
    }

    fn own(&self) -> Option<NodeId> {
        self.directory.identity().map(|identity| identity.id)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works out anew what is told.
    fn tell(&self, state: &mut State) {
        if state.gaps.is_empty() && state.told.is_empty() {
            return;
        }
        let State { inventory, gaps, .. } = &*state;
        let open: Vec<_> = gaps.iter().filter_map(|gap| inventory.clip(*gap)).collect();
        let told = open.iter().map(|hole| damage_of(hole, &self.directory.path)).collect();
        if *state.told != told {
            state.told = Arc::new(told);
        }
    }

    /// These records are published.
    pub(in super::super) fn add(&self, coverages: &[Coverage]) {
        let mut state = self.lock();
        state.change(|inventory| inventory.add(coverages));
        // What was missing may be among it: the ingest side still had it.
        state.is_stale |= !state.gaps.is_empty();
    }

    /// These files are to go. What they hold is read from them; of one that cannot be read now it is not
    /// known what was let go.
    pub(in super::super) fn let_go(&self, files: &[(Option<Coverage>, u64)]) {
        let mut state = self.lock();
        let is_unread = state.is_unread;
        state.change(|inventory| {
            for (coverage, last_ms) in files {
                if let Some(coverage) = coverage {
                    inventory.let_go(coverage);
                }
                // Nor is it known what an inventory says of it that is still to be read.
                if is_unread || !coverage.as_ref().is_some_and(Coverage::is_known_in_full) {
                    inventory.let_go_unknown(*last_ms);
                }
            }
        });
        if state.is_unread || state.version > state.saved {
            state.owed = Some(state.version);
        }
        self.tell(&mut state);
    }

    /// What was not stamped later than this is too old to be missed.
    pub(in super::super) fn set_horizon(&self, horizon_ms: u64) {
        let mut state = self.lock();
        let (claimed, told) = (state.inventory.held.intervals().len(), Arc::clone(&state.told));
        state.inventory.set_horizon(horizon_ms);
        self.tell(&mut state);
        // As such the time that passes changes nothing.
        let is_news = claimed != state.inventory.held.intervals().len();
        state.version += u64::from(is_news || told != state.told);
    }

    /// What a store in whose directory this lies says of what is missing elsewhere.
    pub(in super::super) fn holdings(&self, present: Present) -> Holdings {
        let state = self.lock();
        let inventory = (!state.is_unread).then(|| state.inventory.clone());
        drop(state);
        Holdings::of(present, inventory)
    }

    /// The same, of what lies there now.
    pub(in super::super) fn look_for_holdings(&self, known: Known<'_>) -> io::Result<Holdings> {
        let StoreDirectory { storage, path, .. } = &*self.directory;
        let present = look::present(&**storage, path, Some(known))?;
        // Behind it: what is let go is let go before its file goes.
        Ok(self.holdings(present))
    }

    /// Whether the one on disk could not be read yet.
    pub(in super::super) fn is_unread(&self) -> bool {
        self.lock().is_unread
    }

    /// What is missing.
    pub(in super::super) fn holes(&self) -> Arc<Vec<Damage>> {
        Arc::clone(&self.lock().told)
    }

    /// Looks anew for what is missing, after something came back. A file that the node does not know is
    /// still missing.
    pub(in super::super) fn look_again(&self, known: Known<'_>) -> io::Result<()> {
        let before = {
            let mut state = self.lock();
            state.is_stale = true;
            state.inventory.clone()
        };
        let StoreDirectory { storage, path, .. } = &*self.directory;
        let gaps = look::gaps(&**storage, path, &before, Some(known))?;
        let mut state = self.lock();
        (state.gaps, state.is_stale) = (gaps, false);
        self.tell(&mut state);
        Ok(())
    }

    /// Whether it is to be looked again.
    pub(in super::super) fn is_stale(&self) -> bool {
        self.lock().is_stale
    }

    /// Whether files may go: what they hold is let go on disk.
    pub(in super::super) fn is_settled(&self) -> bool {
        self.lock().owed.is_none()
    }

    /// Brings it to disk, if it is not there as it is.
    ///
    /// # Errors
    /// Those of the disk: it is to be called again.
    pub(in super::super) fn save(&self, known: Known<'_>) -> io::Result<()> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.read_late(known)?;
        let (bytes, version) = {
            let mut state = self.lock();
            if state.version == state.saved {
                state.owed = None;
                return Ok(());
            }
            (state.inventory.encode(self.own().unwrap_or(NodeId(0))), state.version)
        };
        self.directory.look()?;
        // Whose it is is on disk before it.
        self.directory.begin()?;
        self.write(&bytes)?;
        let mut state = self.lock();
        state.saved = version;
        state.owed = state.owed.filter(|owed| *owed > version);
        drop(state);
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let StoreDirectory { storage, path, .. } = &*self.directory;
        let (new, path) = (path.join(INVENTORY_NEW_FILE), path.join(INVENTORY_FILE));
        let before = self.directory.before_name();
        write_anew(&**storage, &new, &path, &[(0, bytes)])?;
        self.directory.sync_since(before)
    }

    /// Reads what could not be read at the start.
    fn read_late(&self, known: Known<'_>) -> io::Result<()> {
        if !self.lock().is_unread {
            return Ok(());
        }
        let path = self.directory.path.join(INVENTORY_FILE);
        let read = look::load(&*self.directory.storage, &path, self.own())?;
        let mut state = self.lock();
        match read {
            Some(Ok(read)) => state.inventory.join(read),
            Some(Err(kind)) if is_later(&kind) => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, kind.to_string()));
            }
            Some(Err(_)) | None => {}
        }
        state.is_unread = false;
        state.version += 1;
        drop(state);
        self.look_again(known)
    }

    /// Gives up what is on disk, so that files may go although it can be neither written nor read.
    ///
    /// # Errors
    /// It is still there.
    pub(in super::super) fn forget(&self) -> io::Result<()> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let StoreDirectory { storage, path, .. } = &*self.directory;
        self.directory.look()?;
        match storage.remove(&path.join(INVENTORY_FILE)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // It is none, and claims nothing.
            Err(error) if Refusal::from(&error).is_no_file() => {}
            Err(error) => return Err(error),
        }
        self.directory.sync()?;
        let mut state = self.lock();
        (state.owed, state.is_unread) = (None, false);
        state.version += 1;
        Ok(())
    }
}

impl State {
    fn change(&mut self, change: impl FnOnce(&mut Inventory)) {
        let before = self.inventory.clone();
        change(&mut self.inventory);
        self.version += u64::from(!self.inventory.is_same(&before));
    }
}
