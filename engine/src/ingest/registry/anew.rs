//! Segments whose files lost their names while they were written: what can still be read of them
//! becomes a segment of its own.
//!
//! Invariants: the copy has a new name and life, so that nothing of anybody's is in its way, nor of an
//! earlier try that failed half-way: its records are copies, which are one record. What has the old
//! name is none of ours and is not touched. Queries see the old segment or the new one, and one of them
//! at any moment.

use std::io;
use std::sync::Arc;

use super::{FileError, Registry, enter, queue_key};
use crate::ingest::segment::{
    Cut, Extent, FileName, Segment, SegmentFile, SegmentState, incarnation,
};
use crate::ingest::walk::{self, Ending, Source, Walk, WalkOptions};
use crate::storage::{File, Open};
use crate::ulid::Ulid;

impl Registry {
    /// Writes the first `len_bytes` of a sealed segment, whose file somebody has deleted or put another
    /// one in the place of, to a file of their own: whole, durable and flushed. `source` is the file
    /// without a name. After an error everything is as it was, and it can be tried again.
    pub fn write_anew(
        &self,
        lost: &Segment,
        len_bytes: u64,
        source: &Arc<dyn File>,
        now_ms: u64,
    ) -> Result<(), FileError> {
        let _operation = self.lock_operation();
        let (id, old_path) = (self.new_id(now_ms), lost.path());
        let options = WalkOptions {
            path: &old_path,
            incarnation: lost.incarnation(),
            limit: len_bytes,
            ending: Ending::Limit,
            check_payloads: false,
        };
        let walk = walk::walk(&Source::File(Arc::clone(source)), &options);
        let cut = (!walk.is_complete).then_some(Cut { end: len_bytes, sure: len_bytes });
        let name = |state, cut| FileName { id, state, cut };
        let [active, flushed] =
            [name(SegmentState::Active, None), name(SegmentState::Flushed, cut)]
                .map(|name| self.options.directory.join(name.to_string()));
        let storage = &self.options.storage;
        let unread = walk.refusal().map_or(Ok(()), |refusal| Err(refusal.into()));
        let written = unread
            .and_then(|()| storage.open(&active, Open::CreateNew))
            .and_then(|file| {
                copy_frames(&**source, &*file, &walk, id)?;
                file.set_len(len_bytes)?;
                file.sync()
            })
            .and_then(|()| storage.rename(&active, &flushed))
            .and_then(|()| self.sync_directory());
        if let Err(error) = written {
            // Best effort: what stays holds copies.
            let _ = storage.remove(&active).or_else(|_| storage.remove(&flushed));
            return Err(FileError { operation: "write anew", path: old_path, error });
        }
        let file = SegmentFile {
            id,
            state: SegmentState::Flushed,
            cut,
            extent: Extent::Found,
            file_len: len_bytes,
            written_len: len_bytes,
            content: lost.content(),
        };
        let segment = Arc::new(Segment::new(&self.options, file));
        let mut inner = self.lock();
        inner.queue.remove(&queue_key(lost));
        inner.segments.remove(&lost.id());
        enter(&mut inner, &segment);
        Ok(())
    }

    /// A segment without records, whose name is nobody's or somebody else's: nothing of it is touched.
    pub fn forget_unused(&self, segment: &Segment) {
        self.lock().segments.remove(&segment.id());
    }
}

/// Each frame where it was, in the life of the file that `id` names. What is not whole does not come to
/// be: it is damage there, too.
fn copy_frames(from: &dyn File, to: &dyn File, walk: &Walk, id: Ulid) -> io::Result<()> {
    for frame in &walk.frames {
        let mut header = frame.header;
        header.incarnation = incarnation(id);
        let head = header.encode();
        let mut bytes = vec![0; header.len_bytes as usize];
        from.read_exact_at(&mut bytes, frame.offset)?;
        bytes[..head.len()].copy_from_slice(&head);
        to.write_all_at(&bytes, frame.offset)?;
    }
    Ok(())
}
