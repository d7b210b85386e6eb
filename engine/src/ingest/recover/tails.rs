//! What recovery does with tail files: saves what they hold and empties them, puts damaged ones aside.

use std::io;
use std::path::{Path, PathBuf};

use super::{Note, Recovery, holds};
use crate::damage::{Damage, DamageKind};
use crate::ingest::registry::{FileError, FoundAside, PutAside, bad_slot, newest_in, unread_slot};
use crate::ingest::tail::{self, Slot, SlotContent};
use crate::storage::{Entry, File, Open, Refusal};
use crate::ulid::Ulid;

impl Recovery<'_> {
    /// Takes tail files and those that were put aside, behind all segments.
    pub(super) fn take_tails(&mut self, entries: &[Entry]) {
        let named = |entry: &Entry| entry.name.clone().map(|name| (name, entry.is_file));
        for (name, is_file) in entries.iter().filter_map(named) {
            let path = self.directory().join(&name);
            match tail::parse_aside_file_name(&name) {
                Some(id) => self.take_aside(&path, id, is_file),
                None if is_file => self.take_tail(&path),
                None => self.keep_strange_tail(path),
            }
        }
        let mut over = PutAside::default();
        self.found.registry.give_up_tails(&mut over);
        self.was_put_aside(over);
    }

    fn take_tail(&mut self, path: &Path) {
        let file = match self.storage.open(path, Open::Write) {
            Ok(file) => file,
            Err(error) => return self.keep_tail(path, &[(0, error)], Vec::new()),
        };
        let mut kept = Vec::new();
        let mut slots = Vec::new();
        for slot in 0..tail::SLOTS {
            let read = tail::read_slot(&*file, slot);
            match read.or_else(|_| tail::read_slot(&*file, slot)) {
                Ok(found) => slots.push((slot, self.needed(found))),
                Err(error) => kept.push((slot, error)),
            }
        }
        for (index, slot) in &slots {
            if let Some(content) = &slot.content
                && let Err(failed) = self.save_slot(content, slot.bad.is_empty())
            {
                kept.push((*index, Refusal::from(&failed.error).into()));
                self.found.notes.push(Note::Failed(failed));
            }
            self.torn_tails.extend(slot.torn.iter().map(|torn| bad_slot(path, *index, torn)));
        }
        if kept.is_empty() {
            self.end_tail(path, &*file, &slots);
        } else {
            let bad = slots.iter().flat_map(|(at, slot)| slot.bad.iter().map(|bad| (*at, bad)));
            let bad = bad.map(|(at, bad)| bad_slot(path, at, bad)).collect();
            self.keep_tail(path, &kept, bad);
        }
    }

    /// Everything that can be read of these slots is saved.
    fn end_tail(&mut self, path: &Path, file: &dyn File, slots: &[(usize, Slot)]) {
        if slots.iter().any(|(_, slot)| !slot.bad.is_empty()) {
            let newest_ms = self.found.newest_ms.max(self.now_ms);
            match self.found.registry.put_tail_aside(path, file, slots, newest_ms) {
                Ok(put) => self.was_put_aside(put),
                Err(failed) => {
                    let kept = [(0, Refusal::from(&failed.error).into())];
                    self.found.notes.push(Note::Failed(failed));
                    self.keep_tail(path, &kept, Vec::new());
                }
            }
            return;
        }
        match tail::odd_length(path, file) {
            Ok(odd) => self.found.report.extend(odd),
            Err(error) => self.fail("look at", path.to_path_buf(), error),
        }
        if let Err(error) = tail::empty(file) {
            self.fail("empty", path.to_path_buf(), error);
        }
    }

    fn was_put_aside(&mut self, put: PutAside) {
        self.found.report.extend(put.damage);
        self.found.notes.extend(put.given_up.into_iter().map(Note::GivenUp));
        self.found.notes.extend(put.errors.into_iter().map(Note::Failed));
    }

    fn take_aside(&mut self, path: &Path, id: Ulid, is_file: bool) {
        match self.found.registry.find_tail_aside(path, id, is_file) {
            FoundAside::Damaged(damage, slots) => {
                self.found.report.extend(damage);
                // Somebody, or the disk, may have brought back more of it.
                if let Err(failed) = self.save_slots(slots) {
                    self.found.notes.push(Note::Failed(failed));
                }
            }
            FoundAside::Whole(slots) => {
                if let Err(failed) = self.take_mended(path, slots) {
                    self.found.notes.push(Note::Failed(failed));
                }
            }
        }
    }

    /// Somebody has brought a whole copy.
    fn take_mended(&mut self, path: &Path, slots: Vec<Slot>) -> Result<(), FileError> {
        self.save_slots(slots)?;
        let removed = self.storage.remove(path);
        let (operation, from) = ("remove", path.to_path_buf());
        removed.map_err(|error| FileError { operation, path: from, error })?;
        self.found.notes.push(Note::Mended(path.to_path_buf()));
        Ok(())
    }

    fn save_slots(&mut self, slots: Vec<Slot>) -> Result<(), FileError> {
        for slot in slots {
            let slot = self.needed(slot);
            if let Some(content) = &slot.content {
                self.save_slot(content, slot.bad.is_empty())?;
            }
        }
        Ok(())
    }

    fn save_slot(&mut self, content: &SlotContent, has_all: bool) -> Result<(), FileError> {
        let saved = self.found.registry.save_slot(content, self.now_ms)?;
        self.saw(saved);
        let last_ms = saved.range.map_or(0, |(_, last)| last.ms());
        for topic in &content.table.topics {
            self.found.topics.add_record(topic.clone(), last_ms);
        }
        self.found.tail_records += saved.records;
        for torn in self.torn.iter_mut().filter(|_| has_all) {
            torn.restore(content);
        }
        Ok(())
    }

    fn keep_tail(&mut self, path: &Path, slots: &[(usize, io::Error)], bad: Vec<Damage>) {
        let damage = slots.iter().map(|(slot, error)| unread_slot(path, *slot, error));
        let damage: Vec<Damage> = damage.chain(bad).collect();
        self.found.report.extend(damage.iter().cloned());
        self.found.registry.keep_tail(path.to_path_buf(), damage);
    }

    /// Something that is no file has the name of one that may have held records: its shard has none.
    fn keep_strange_tail(&mut self, path: PathBuf) {
        let newest_ms = self.found.newest_ms.max(self.now_ms);
        let damage = Damage {
            path: path.clone(),
            offset: 0,
            len_bytes: 0,
            range: Some((Ulid::MIN, newest_in(newest_ms))),
            records: None,
            kind: DamageKind::NotAFile,
        };
        self.found.report.push(damage.clone());
        self.found.registry.keep_tail(path, vec![damage]);
    }

    /// What of a slot is in no segment: the frame that it backs may be whole.
    fn needed(&self, slot: Slot) -> Slot {
        let is_held = slot.frame.is_some_and(|backed| {
            self.lives.iter().any(|life| {
                let open = || life.segment.open_file();
                holds(life.segment.incarnation(), &life.frames, open, &backed)
            })
        });
        if is_held { slot.without_frame() } else { slot }
    }
}
