//! Damaged tail files, put aside under names of their own, so that their shards have fresh ones.
//!
//! Invariants: what can be read of one is durable in segments before it is renamed, and at each start that
//! finds it, and never changed in it; what it lacks is in every answer, also after a restart, until somebody takes the file away, it
//! reads well at a start (somebody has mended it), or all that it may have held has expired. No tail file
//! is made under a name that may come back with the power.

use std::io;
use std::path::{Path, PathBuf};

use super::tails::{bad_slots, newest_in};
use super::unread::Look;
use super::{FileError, Registry};
use crate::damage::{Damage, DamageKind};
use crate::ingest::tail::{self, Slot};
use crate::limits::{TAILS_ASIDE_MAX, UNREAD_PAUSE_MS_MAX};
use crate::storage::{File, Open, Refusal};
use crate::ulid::Ulid;

/// A damaged tail file.
#[derive(Debug)]
pub(super) struct TailAside {
    /// In its name; nothing in it is newer.
    id: Ulid,
    path: PathBuf,
    /// What answers lack because of it.
    pub(super) damage: Vec<Damage>,
    /// When somebody may have taken it away, milliseconds.
    next_ms: u64,
}

impl TailAside {
    /// Something else than a file, which is none of ours.
    fn is_of_strangers(&self) -> bool {
        self.damage.iter().any(|damage| damage.kind == DamageKind::NotAFile)
    }
}

/// What became of a damaged tail file.
#[derive(Debug, Default)]
pub(in crate::ingest) struct PutAside {
    /// By its new name.
    pub(in crate::ingest) damage: Vec<Damage>,
    /// Older ones that were removed.
    pub(in crate::ingest) given_up: Vec<PathBuf>,
    pub(in crate::ingest) errors: Vec<FileError>,
}

/// What was found in a tail file that was put aside in an earlier life.
#[derive(Debug)]
pub(in crate::ingest) enum FoundAside {
    /// It is damaged still, or cannot be read now; and what can be read of it, which may be more than
    /// before.
    Damaged(Vec<Damage>, Vec<Slot>),
    /// It reads well.
    Whole(Vec<Slot>),
}

impl Registry {
    /// Puts a damaged tail file aside; what can be read of these slots is saved. No record in it is
    /// newer than `newest_ms`, milliseconds since 1970. After an error it is where it was. The caller
    /// holds the lock on operations, or is the only one.
    pub(in crate::ingest) fn put_tail_aside(
        &self,
        path: &Path,
        file: &dyn File,
        slots: &[(usize, Slot)],
        newest_ms: u64,
    ) -> Result<PutAside, FileError> {
        let id = self.new_id(newest_ms);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let aside = self.options.directory.join(tail::aside_file_name(name, id));
        // Nobody has synced it: after a loss of power other bytes might be in it than were told.
        let synced = file.sync();
        let renamed = synced.and_then(|()| self.options.storage.rename_new(path, &aside));
        let (operation, from) = ("put aside", path.to_path_buf());
        renamed.map_err(|error| FileError { operation, path: from, error })?;
        let mut put = PutAside { damage: bad_slots(&aside, slots, id.ms()), ..PutAside::default() };
        if let Err(error) = self.sync_directory() {
            self.lock().nameless_tails.push(path.to_path_buf());
            let path = self.options.directory.clone();
            put.errors.push(FileError { operation: "sync the directory", path, error });
        }
        self.keep_tail_aside(id, aside, put.damage.clone());
        self.give_up_tails(&mut put);
        Ok(put)
    }

    fn keep_tail_aside(&self, id: Ulid, path: PathBuf, damage: Vec<Damage>) {
        let mut inner = self.lock();
        inner.tails_aside.push(TailAside { id, path, damage, next_ms: 0 });
        inner.tails_aside.sort_by_key(|tail| tail.id);
    }

    /// Removes the oldest of too many.
    pub(in crate::ingest) fn give_up_tails(&self, put: &mut PutAside) {
        let mut inner = self.lock();
        let ours = inner.tails_aside.iter().filter(|tail| !tail.is_of_strangers());
        let ours: Vec<PathBuf> = ours.map(|tail| tail.path.clone()).collect();
        let over = ours.len().saturating_sub(TAILS_ASIDE_MAX);
        inner.tails_aside.retain(|tail| !ours[..over].contains(&tail.path));
        drop(inner);
        for path in &ours[..over] {
            match self.options.storage.remove(path) {
                Ok(()) => put.given_up.push(path.clone()),
                Err(error) => {
                    put.errors.push(FileError { operation: "remove", path: path.clone(), error });
                }
            }
        }
    }

    /// Looks at a tail file that was put aside in an earlier life; one that is damaged still is kept.
    pub(in crate::ingest) fn find_tail_aside(
        &self,
        path: &Path,
        id: Ulid,
        is_file: bool,
    ) -> FoundAside {
        let read = || self.read_tail_aside(path);
        let lost = |kind| {
            let range = Some((Ulid::MIN, newest_in(id.ms())));
            let path = path.to_path_buf();
            vec![Damage { path, offset: 0, len_bytes: 0, range, records: None, kind }]
        };
        let (damage, slots) = match is_file.then(|| read().or_else(|_| read())) {
            None => (lost(DamageKind::NotAFile), Vec::new()),
            Some(Err(error)) => (lost(Refusal::from(&error).into()), Vec::new()),
            Some(Ok(slots)) => {
                let damage = bad_slots(path, &slots, id.ms());
                let slots = slots.into_iter().map(|(_, slot)| slot).collect();
                if damage.is_empty() {
                    return FoundAside::Whole(slots);
                }
                (damage, slots)
            }
        };
        self.keep_tail_aside(id, path.to_path_buf(), damage.clone());
        FoundAside::Damaged(damage, slots)
    }

    fn read_tail_aside(&self, path: &Path) -> io::Result<Vec<(usize, Slot)>> {
        let file = self.options.storage.open(path, Open::Read)?;
        (0..tail::SLOTS).map(|slot| Ok((slot, tail::read_slot(&*file, slot)?))).collect()
    }

    /// Forgets those that somebody has taken away. What can be read of the others by now the next start
    /// takes: until then it is told.
    pub(super) fn look_at_tails_aside(&self, now_ms: u64, look: &mut Look) {
        let mut inner = self.lock();
        let mut due = Vec::new();
        for tail in inner.tails_aside.iter_mut().filter(|tail| tail.next_ms <= now_ms) {
            tail.next_ms = now_ms.saturating_add(UNREAD_PAUSE_MS_MAX);
            due.push(tail.path.clone());
        }
        drop(inner);
        for path in due {
            let opened = self.options.storage.open(&path, Open::Read);
            if opened.is_err_and(|error| self.is_taken_away(&path, &error)) {
                self.lock().tails_aside.retain(|tail| tail.path != path);
                look.taken_away.push(path);
            }
        }
    }

    /// Removes those that hold nothing from `horizon_ms` on. The caller holds the lock on operations.
    pub(super) fn expire_tails_aside(
        &self,
        horizon_ms: u64,
        gone: &mut Vec<PathBuf>,
        errors: &mut Vec<FileError>,
    ) {
        let inner = self.lock();
        let over = inner.tails_aside.iter();
        let over = over.filter(|tail| !tail.is_of_strangers() && tail.id.ms() < horizon_ms);
        let over: Vec<PathBuf> = over.map(|tail| tail.path.clone()).collect();
        drop(inner);
        for path in over {
            match self.options.storage.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    errors.push(FileError { operation: "remove", path, error });
                }
                _ => {
                    self.lock().tails_aside.retain(|tail| tail.path != path);
                    gone.push(path);
                }
            }
        }
    }
}
