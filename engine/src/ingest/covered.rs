//! Which records a segment holds, as its ingester knows it: a commit is compared with that.
//!
//! Invariants: counters of a frame are consecutive as a rule, so its header says which records it has;
//! where it does not say it, nothing is guessed: the run tables are to be asked.

use std::path::Path;

use super::examine::{Depth, Verdict, examine};
use super::open::table_of;
use super::segment::FileName;
use super::walk::{FrameAt, Source};
use crate::chunk::OpenPart;
use crate::storage::{Open, Storage};
use crate::store::coverage::{Coverage, CoverageBuilder, Interval};
use crate::ulid::Ulid;

/// What the headers of frames say.
#[derive(Debug, Default)]
pub(super) struct Covered {
    intervals: CoverageBuilder,
    /// Of some frames their run tables have to be asked.
    is_unknown: bool,
}

impl Covered {
    /// By the headers of these frames.
    pub(super) fn of(frames: &[FrameAt]) -> Self {
        let mut covered = Self::default();
        for FrameAt { header, .. } in frames {
            covered.add(u64::from(header.record_count), Some((header.first, header.last)));
        }
        covered
    }

    /// Adds what follows.
    pub(super) fn add(&mut self, records: u64, range: Option<(Ulid, Ulid)>) {
        let Some((first, last)) = range.filter(|_| records > 0) else { return };
        match Interval::of_range(first, last, records) {
            Some(interval) => self.intervals.add(interval),
            None => self.is_unknown = true,
        }
    }

    /// All of it; `None`: it has to be read.
    pub(super) fn known(&self) -> Option<Coverage> {
        (!self.is_unknown).then(|| self.intervals.clone().finish())
    }
}

/// Which records the headers of a file's frames name; where they do not say it, its run tables.
pub(super) fn in_file(storage: &dyn Storage, path: &Path, name: FileName) -> Coverage {
    let examined = examine(storage, path, name, None, Depth::Headers);
    let Ok(Verdict::Records(found) | Verdict::Unread(found)) = examined else {
        return Coverage::default();
    };
    let frames = found.walk.frames;
    let from_tables = || {
        let Ok(file) = storage.open(path, Open::Read) else { return Coverage::default() };
        let source = Source::File(file);
        let tables = frames.iter().filter_map(|frame| table_of(&source, frame).ok());
        tables.fold(Coverage::default(), |all, table| all.union(&Coverage::of_table(&table)))
    };
    Covered::of(&frames).known().unwrap_or_else(from_tables)
}

/// Which records can be read of it.
pub(super) fn readable(open: &dyn OpenPart) -> Coverage {
    let chunks = (0..open.chunks().len()).filter_map(|index| open.read(index).ok());
    let whole = chunks.filter(|chunk| chunk.table.describes(&chunk.text));
    whole.fold(Coverage::default(), |union, chunk| union.union(&Coverage::of_table(&chunk.table)))
}
