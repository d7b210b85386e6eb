//! Records of tail files that become segments of their own: at the start, and later where that was
//! not possible then.
//!
//! Invariants: a slot is emptied only when what it held is durable in a segment; one that could not
//! be read is neither empty nor emptied, and its file is nobody's until it was; a damaged one is put
//! aside as it is ([`super::tails_aside`]).

use std::io;
use std::path::{Path, PathBuf};

use super::unread::{Look, Retry, bounded};
use super::{FileError, Registry};
use crate::damage::{Damage, DamageKind};
use crate::ingest::frame::{FrameBuffer, FramePlace};
use crate::ingest::segment::{Content, Extent, SegmentFile, SegmentState, file_name, incarnation};
use crate::ingest::tail::slot::Bad;
use crate::ingest::tail::{self, Slot, SlotContent};
use crate::storage::{Open, Refusal};
use crate::ulid::{MS_MAX, PART_MAX, Ulid};

/// A tail file that may hold records which are nowhere else.
#[derive(Debug)]
pub(super) struct UnreadTail {
    path: PathBuf,
    /// What answers lack because of it.
    pub(super) damage: Vec<Damage>,
    retry: Retry,
}

impl Registry {
    /// A tail file could not be read, or what it holds not be saved.
    pub(in crate::ingest) fn keep_tail(&self, path: PathBuf, damage: Vec<Damage>) {
        self.lock().tails.push(UnreadTail { path, damage, retry: Retry::default() });
    }

    /// Makes the tail file of a shard ready, as [`tail::prepare`]. An error: the shard has to do
    /// without, because the file cannot be used or may hold records that are nowhere else.
    pub fn prepare_tail(&self, shard: usize) -> io::Result<PathBuf> {
        let _operation = self.lock_operation();
        let path = self.options.directory.join(tail::file_name(shard));
        let inner = self.lock();
        let is_kept = inner.tails.iter().any(|tail| tail.path == path);
        let is_nameless = inner.nameless_tails.contains(&path);
        drop(inner);
        if is_kept || is_nameless {
            let what = if is_kept { "may hold records" } else { "held records" };
            let what = format!("{} {what} that could not be saved", path.display());
            return Err(io::Error::other(what));
        }
        tail::prepare(&*self.options.storage, &self.options.directory, shard)?;
        self.sync_directory()?;
        Ok(path)
    }

    /// Writes a slot's records as a segment of their own: no file that was written before is
    /// touched, and the order of records inside each segment stays.
    pub(in crate::ingest) fn save_slot(
        &self,
        slot: &SlotContent,
        now_ms: u64,
    ) -> Result<Content, FileError> {
        let id = self.new_id(now_ms);
        let mut frame = FrameBuffer::of(&slot.table, &slot.text);
        let alignment_bytes = self.options.alignment_bytes;
        let place =
            FramePlace { incarnation: incarnation(id), number: 0, is_last: true, alignment_bytes };
        frame.finish(place);
        let len = frame.as_bytes().len() as u64;
        let active = self.options.directory.join(file_name(id, SegmentState::Active));
        let flushed = self.options.directory.join(file_name(id, SegmentState::Flushed));
        let storage = &self.options.storage;
        let saved = storage
            .open(&active, Open::CreateNew)
            .and_then(|file| {
                file.write_all_at(frame.as_bytes(), 0)?;
                file.sync()
            })
            .and_then(|()| storage.rename(&active, &flushed))
            .and_then(|()| self.sync_directory());
        if let Err(error) = saved {
            // Best effort: the tail file still has the records, and they go elsewhere next time.
            let _ = storage.remove(&active).or_else(|_| storage.remove(&flushed));
            let operation = "save the tail file's records as";
            return Err(FileError { operation, path: flushed, error });
        }
        let content = Content {
            records: frame.record_count(),
            text_bytes: slot.text.len() as u64,
            range: slot.table.range(),
        };
        self.adopt(SegmentFile {
            id,
            state: SegmentState::Flushed,
            cut: None,
            extent: Extent::Found,
            file_len: len,
            written_len: len,
            content,
        });
        Ok(content)
    }

    /// Tries the tail files again that are due. While one is looked at it stays known, so that answers
    /// tell it and no shard is given it.
    pub(super) fn look_at_tails(&self, now_ms: u64, look: &mut Look) {
        let inner = self.lock();
        let due = inner.tails.iter().filter(|tail| tail.retry.next_ms <= now_ms);
        let due: Vec<PathBuf> = due.map(|tail| tail.path.clone()).collect();
        drop(inner);
        for path in due {
            let looked = self.look_at_tail(&path, look);
            let mut inner = self.lock();
            match looked {
                Ok(()) => inner.tails.retain(|tail| tail.path != path),
                Err(error) => {
                    if !error.is_unread {
                        look.errors.push(error.error);
                    }
                    let same = inner.tails.iter_mut().filter(|tail| tail.path == path);
                    same.for_each(|tail| tail.retry.failed(now_ms));
                }
            }
        }
    }

    fn look_at_tail(&self, path: &Path, look: &mut Look) -> Result<(), TailError> {
        let failed = |operation, is_unread| {
            let path = path.to_path_buf();
            move |error| TailError { error: FileError { operation, path, error }, is_unread }
        };
        let opened = self.options.storage.open(path, Open::Write);
        let file = match opened {
            Err(error) if self.is_taken_away(path, &error) => {
                look.taken_away.push(path.to_path_buf());
                return Ok(());
            }
            opened => opened.map_err(failed("open", true))?,
        };
        // Nobody else waits while the disk is asked for them.
        let mut slots = Vec::with_capacity(tail::SLOTS);
        for slot in 0..tail::SLOTS {
            slots.push((slot, tail::read_slot(&*file, slot).map_err(failed("read", true))?));
        }
        let _operation = self.lock_operation();
        let now_ms = self.lock().started_ms;
        for (index, slot) in &slots {
            // Whether a segment has the records too does not matter: copies are one record.
            if let Some(content) = &slot.content {
                let saved = self.save_slot(content, now_ms);
                let saved = saved.map_err(|error| TailError { error, is_unread: false })?;
                look.tail_records += saved.records;
            }
            look.damage.extend(slot.torn.iter().map(|torn| bad_slot(path, *index, torn)));
        }
        if slots.iter().all(|(_, slot)| slot.bad.is_empty()) {
            look.damage.extend(tail::odd_length(path, &*file).unwrap_or_default());
            return tail::empty(&*file).map_err(failed("empty", false));
        }
        let aside = self.put_tail_aside(path, &*file, &slots, now_ms);
        let aside = aside.map_err(|error| TailError { error, is_unread: false })?;
        look.damage.extend(aside.damage);
        look.given_up.extend(aside.given_up);
        look.errors.extend(aside.errors);
        Ok(())
    }
}

/// Why a tail file is kept.
struct TailError {
    error: FileError,
    is_unread: bool,
}

/// What is missing of a slot.
pub(in crate::ingest) fn bad_slot(path: &Path, slot: usize, bad: &Bad) -> Damage {
    Damage {
        path: path.to_path_buf(),
        offset: tail::slot_offset(slot) + bad.offset as u64,
        len_bytes: bad.len as u64,
        range: Some(bad.range),
        records: bad.records,
        kind: bad.kind.clone(),
    }
}

/// What is damaged in the slots of a file; in those of one that was put aside nothing is newer than its
/// name.
pub(in crate::ingest) fn bad_slots(
    path: &Path,
    slots: &[(usize, Slot)],
    newest_ms: u64,
) -> Vec<Damage> {
    let newest = newest_in(newest_ms);
    let all = slots.iter().flat_map(|(index, slot)| slot.bad.iter().map(|bad| (*index, bad)));
    let all = all.map(|(index, bad)| {
        let (from, to) = bad.range;
        let range = Some((from, to.min(newest).max(from)));
        Damage { range, ..bad_slot(path, index, bad) }
    });
    bounded(&all.collect::<Vec<_>>())
}

/// The newest ULID of that time.
pub(in crate::ingest) const fn newest_in(ms: u64) -> Ulid {
    Ulid::from_parts(if ms < MS_MAX { ms } else { MS_MAX }, PART_MAX, PART_MAX)
}

/// A slot that cannot be read, or whose records could not be saved. It may be of any life of the
/// node: nobody knows how old its records are.
pub(in crate::ingest) fn unread_slot(path: &Path, slot: usize, error: &io::Error) -> Damage {
    Damage {
        path: path.to_path_buf(),
        offset: tail::slot_offset(slot),
        len_bytes: 0,
        range: Some((Ulid::MIN, Ulid::MAX)),
        records: None,
        kind: DamageKind::Unread(Refusal::from(error)),
    }
}
