//! Checks the files of an ingest directory, offline and read-only: every frame with its text and
//! its runs. What recovery would do about them is not its business.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::segment::{OpenSegment, SegmentState, incarnation};
use super::tail::{self, SlotState};
use super::walk::{self, Ending, Source, WalkOptions};
use crate::chunk::OpenPart;
use crate::damage::{Damage, DamageKind};
use crate::limits::TAIL_SLOT_BYTES;
use crate::storage::{Map, Open, Storage};
use crate::ulid::Ulid;

/// What was found out about a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Records that are whole.
    pub record_count: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

/// Checks a segment. An unfinished frame at the end of one that was being written is no damage:
/// nobody was promised what is in it.
pub fn check_segment(
    storage: &dyn Storage,
    path: &Path,
    id: Ulid,
    state: SegmentState,
) -> io::Result<Checked> {
    check_segment_bytes(storage.open(path, Open::Read)?.map()?, path, id, state)
}

fn check_segment_bytes(
    map: Map,
    path: &Path,
    id: Ulid,
    state: SegmentState,
) -> io::Result<Checked> {
    let is_torn = state == SegmentState::Active;
    let options = WalkOptions {
        path,
        incarnation: incarnation(id),
        limit: map.len() as u64,
        ending: if is_torn { Ending::Torn } else { Ending::LastFrame },
        // Of a complete file each frame's damage is told apart, below.
        check_payloads: is_torn,
    };
    let source = Source::Mapped(Arc::new(map));
    let walk = walk::walk(&source, &options)?;
    let open = OpenSegment::new(path.to_path_buf(), source, walk.frames, walk.damage);
    let mut checked = Checked { record_count: 0, damage: open.damage().to_vec() };
    for (index, meta) in open.chunks().iter().enumerate() {
        match open.read(index) {
            Ok(chunk) if chunk.table.describes(&chunk.text) => {
                checked.record_count += u64::from(meta.record_count);
            }
            Ok(_) => checked.damage.push(Damage {
                path: path.to_path_buf(),
                offset: 0,
                len_bytes: 0,
                range: Some((meta.first, meta.last)),
                records: Some(u64::from(meta.record_count)),
                kind: DamageKind::Malformed("frame text"),
            }),
            Err(damage) => checked.damage.push(damage),
        }
    }
    Ok(checked)
}

/// Checks a tail file. Its records may be copies of what segments hold.
pub fn check_tail(storage: &dyn Storage, path: &Path) -> io::Result<Checked> {
    let map = storage.open(path, Open::Read)?.map()?;
    let bytes = map.get(..tail::FILE_BYTES as usize).unwrap_or(&map);
    let mut checked = Checked::default();
    for (index, slot) in bytes.chunks(TAIL_SLOT_BYTES).enumerate() {
        match tail::decode_slot(slot) {
            Ok(content) if content.table.describes(&content.text) => {
                checked.record_count += content.table.record_count();
            }
            Err(SlotState::Empty) => {}
            Ok(_) | Err(SlotState::Unreadable) => checked.damage.push(Damage {
                path: path.to_path_buf(),
                offset: tail::slot_offset(index),
                len_bytes: slot.len() as u64,
                range: None,
                records: None,
                kind: DamageKind::Checksum("tail chunk"),
            }),
        }
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::frame::{FrameBuffer, FramePlace};
    use crate::ingest::segment::file_name;
    use crate::run_table::Run;
    use crate::storage::OsStorage;
    use crate::topic::Topic;
    use std::fs;

    const FRAMES: u32 = 3;
    const PER_FRAME: u32 = 4;

    /// A complete segment of a few frames.
    fn segment(id: Ulid) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in 0..FRAMES {
            let mut frame = FrameBuffer::new(1000);
            let topic = frame.add_topic(&Topic::new(b"web").unwrap());
            let first = Ulid::from_parts(1_700_000_000_000, 5, u64::from(number * PER_FRAME));
            let text = b"one\n\nthree\nfour\n";
            let run = Run { first, count: PER_FRAME, text_len: text.len() as u32, topic };
            frame.push(text, run);
            let incarnation = incarnation(id);
            let is_last = number + 1 == FRAMES;
            frame.finish(FramePlace { incarnation, number, is_last, alignment_bytes: 512 });
            bytes.extend_from_slice(frame.as_bytes());
        }
        bytes
    }

    fn check(bytes: &[u8], state: SegmentState) -> Checked {
        let id = Ulid::from_parts(1_700_000_000_000, 77, 78);
        let path = Path::new("segment");
        check_segment_bytes(Map::of_memory(bytes.to_vec()), path, id, state).unwrap()
    }

    fn whole() -> Vec<u8> {
        segment(Ulid::from_parts(1_700_000_000_000, 77, 78))
    }

    #[test]
    fn a_whole_segment_is_clean_in_every_state() {
        let temp = tempfile::tempdir().unwrap();
        let id = Ulid::from_parts(1_700_000_000_000, 77, 78);
        for state in SegmentState::ALL {
            let path = temp.path().join(file_name(id, state));
            fs::write(&path, whole()).unwrap();
            let checked = check_segment(&OsStorage, &path, id, state).unwrap();
            assert_eq!(checked, Checked { record_count: 12, damage: Vec::new() });
        }
    }

    #[test]
    fn what_a_flipped_or_missing_byte_costs_is_told() {
        let whole = whole();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x21;
            let checked = check(&bytes, SegmentState::Flushed);
            assert!(checked.record_count >= 8, "byte {at}");
            let lossy = checked.damage.iter().any(Damage::loses_records);
            assert!(lossy || checked.record_count == 12, "byte {at}");
            let checked = check(&whole[..at], SegmentState::Flushed);
            let lossy = checked.damage.iter().any(Damage::loses_records);
            assert!(lossy || checked.record_count == 12, "cut at {at}");
        }
    }

    #[test]
    fn a_torn_frame_of_a_segment_being_written_is_no_damage() {
        let mut bytes = whole();
        let len = bytes.len();
        bytes[len - 512 + 100] ^= 1;
        bytes.resize(len * 2, 0);
        let checked = check(&bytes, SegmentState::Active);
        assert_eq!(checked, Checked { record_count: 8, damage: Vec::new() });
        bytes[512 + 100] ^= 1;
        let restored = check(&bytes, SegmentState::Active);
        assert_eq!(restored.record_count, 4, "nothing valid behind it: one torn end");
    }

    #[test]
    fn a_tail_file_is_read_slot_by_slot() {
        let temp = tempfile::tempdir().unwrap();
        let path = tail::prepare(&OsStorage, temp.path(), 0).unwrap();
        assert_eq!(check_tail(&OsStorage, &path).unwrap(), Checked::default());
        let file = OsStorage.open(&path, Open::Write).unwrap();
        file.write_all_at(b"scribble", tail::slot_offset(1)).unwrap();
        let checked = check_tail(&OsStorage, &path).unwrap();
        assert_eq!(checked.damage.len(), 1);
        assert_eq!(checked.damage[0].offset, tail::slot_offset(1));
    }
}
