//! Checks the files of an ingest directory, read-only: every frame with its text and its runs. What
//! recovery would do about them is not its business. A node may write beside it: what is unfinished is
//! looked at again, and counts where it stays so.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::examine::{Depth, Verdict, examine};
use super::frame::HEADER_BYTES;
use super::open::{Frames, OpenSegment};
use super::recover::holds;
use super::registry::{bad_slot, bad_slots, unread_slot};
use super::segment::{FileName, SegmentState};
use super::tail::slot::BackedFrame;
use super::tail::{self, Slot, SlotContent};
use super::torn::Torn;
use super::walk::{self, Ending, Source, WalkOptions};
use crate::chunk::OpenPart;
use crate::damage::{Damage, DamageKind};
use crate::storage::{File, Open, Storage};
use crate::ulid::{MS_MAX, Ulid};

/// How often an unfinished frame or slot is looked at before it counts: a node that writes it goes on
/// meanwhile.
const LOOKS: u32 = 4;

/// What was found out about a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Records that are whole.
    pub record_count: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

/// Checks a segment. An unfinished frame at the end of one that was being written is told, for it
/// may be a damaged one; if a tail file beside it has its records, as one that loses nothing.
pub fn check_segment(
    storage: &dyn Storage,
    path: &Path,
    id: Ulid,
    state: SegmentState,
) -> io::Result<Checked> {
    let file = storage.open(path, Open::Read)?;
    let name = path.file_name().and_then(|name| name.to_str()).and_then(FileName::parse);
    let cut = name.and_then(|name| name.cut);
    let len = file.len()?;
    let source = Source::File(Arc::clone(&file));
    let name = FileName { id, state, cut };
    let (mut checked, mut torn) = check_segment_bytes(&source, len, path, name)?;
    for _ in 1..LOOKS {
        if torn.is_empty() {
            break;
        }
        let again = check_segment_bytes(&source, file.len()?, path, name)?;
        let place = |torn: &Torn| (torn.damage.offset, torn.damage.range);
        torn.retain(|torn| again.1.iter().any(|later| place(later) == place(torn)));
        checked = again.0;
    }
    if !torn.is_empty() {
        let directory = path.parent().unwrap_or(Path::new(""));
        for slot in slots_in(storage, directory) {
            for torn in &mut torn {
                torn.restore(&slot);
            }
        }
    }
    checked.damage.extend(torn.into_iter().map(|torn| torn.damage));
    Ok(checked)
}

/// What the tail files of a directory hold, those of them that can be read.
pub(super) fn slots_in(storage: &dyn Storage, directory: &Path) -> Vec<SlotContent> {
    let entries = storage.list(directory).unwrap_or_default();
    let names = entries.into_iter().filter_map(|entry| entry.name);
    let tails = names.filter(|name| tail::is_file_name(name)).filter_map(|name| {
        let file = storage.open(&directory.join(name), Open::Read).ok()?;
        let slots = (0..tail::SLOTS).filter_map(|slot| tail::read_slot(&*file, slot).ok());
        let slots = slots.filter(|slot| slot.bad.is_empty()).filter_map(|slot| slot.content);
        Some(slots.collect::<Vec<_>>())
    });
    tails.flatten().collect()
}

fn check_segment_bytes(
    source: &Source,
    len: u64,
    path: &Path,
    name: FileName,
) -> io::Result<(Checked, Vec<Torn>)> {
    let is_torn = name.state == SegmentState::Active;
    let (limit, ending) = match name.cut {
        Some(cut) if name.state == SegmentState::Damaged => (cut.end, Ending::Limit),
        Some(cut) => (cut.end, Ending::Cut { sure: cut.sure }),
        None if is_torn => (len, Ending::Torn),
        None => (len, Ending::LastFrame),
    };
    let options = WalkOptions {
        path,
        incarnation: name.incarnation(),
        limit,
        ending,
        // Of a complete file each frame's damage is told apart, below.
        check_payloads: is_torn || name.cut.is_some(),
    };
    let mut walk = walk::walk(source, &options);
    if walk.frames.is_empty() && walk.torn.is_empty() && walk.refusal().is_none() {
        let start = source.read(0, HEADER_BYTES)?;
        let is_whole_header = start.len() == HEADER_BYTES;
        let is_like_ours = is_whole_header && walk::starts_like_ours(&start, &options);
        // Others had records: what stands in them now is their damage, whoever wrote it. Of a shorter
        // file that was being written nobody can tell.
        if !is_like_ours && (is_whole_header || !is_torn) && walk.damage.is_empty() {
            walk.damage.push(Damage {
                path: path.to_path_buf(),
                offset: 0,
                len_bytes: len,
                range: None,
                records: None,
                kind: DamageKind::Malformed("segment"),
            });
        }
    }
    let source = source.clone();
    let open = OpenSegment::new(path.to_path_buf(), source, None, walk.frames, walk.damage);
    let open = Frames(Arc::new(open));
    let mut checked = Checked { damage: open.damage().to_vec(), ..Checked::default() };
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
    Ok((checked, walk.torn))
}

/// Checks a tail file, also one that was put aside. Its records may be copies of what segments hold;
/// what is missing of a frame that is whole in a segment beside it is no loss.
pub fn check_tail(storage: &dyn Storage, path: &Path) -> io::Result<Checked> {
    let file = storage.open(path, Open::Read)?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let aside = tail::parse_aside_file_name(name);
    let mut checked = Checked::default();
    let mut slots = Vec::new();
    for index in 0..tail::SLOTS {
        let slot = match settled(&*file, index) {
            Ok(slot) => slot,
            Err(error) => {
                checked.damage.push(unread_slot(path, index, &error));
                continue;
            }
        };
        let records = slot.content.as_ref().map_or(0, |content| content.table.record_count());
        checked.record_count += records;
        let backed = slot.frame.filter(|_| !slot.is_whole() && aside.is_none());
        let is_held = backed.is_some_and(|backed| is_in_segment(storage, path, &backed));
        slots.push((index, if is_held { slot.without_frame() } else { slot }));
    }
    checked.damage.extend(bad_slots(path, &slots, aside.map_or(MS_MAX, Ulid::ms)));
    if aside.is_none() {
        let torn = slots.iter().filter_map(|(index, slot)| Some((*index, slot.torn.as_ref()?)));
        checked.damage.extend(torn.map(|(index, torn)| bad_slot(path, index, torn)));
        if checked.damage.is_empty() {
            checked.damage.extend(tail::odd_length(path, &*file)?);
        }
    }
    Ok(checked)
}

/// A slot with what is missing of it in every look.
fn settled(file: &dyn File, index: usize) -> io::Result<Slot> {
    let mut slot = tail::read_slot(file, index)?;
    for _ in 1..LOOKS {
        if slot.is_whole() {
            break;
        }
        let before = std::mem::replace(&mut slot, tail::read_slot(file, index)?);
        slot.bad.retain(|bad| before.bad.contains(bad));
        slot.torn.take_if(|torn| before.torn.as_ref() != Some(torn));
    }
    Ok(slot)
}

/// Whether a segment beside a tail file has the frame that a slot backs.
fn is_in_segment(storage: &dyn Storage, tail: &Path, backed: &BackedFrame) -> bool {
    let directory = tail.parent().unwrap_or(Path::new(""));
    let names = storage.list(directory).unwrap_or_default().into_iter();
    let names = names.filter(|entry| entry.is_file).filter_map(|entry| entry.name);
    let mut names = names.filter_map(|name| FileName::parse(&name));
    names.any(|name| {
        let path = directory.join(name.to_string());
        name.incarnation() == backed.incarnation
            && match examine(storage, &path, name, None, Depth::Headers) {
                Ok(Verdict::Records(found) | Verdict::Unread(found)) => {
                    let open = || storage.open(&path, Open::Read);
                    holds(backed.incarnation, &found.walk.frames, open, backed)
                }
                _ => false,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::frame::{FrameBuffer, FramePlace};
    use crate::ingest::segment::{file_name, incarnation};
    use crate::run_table::Run;
    use crate::storage::watched::Watched;
    use crate::storage::{Map, OsStorage};
    use crate::topic::Topic;
    use std::fs;
    use std::sync::atomic::{AtomicU32, Ordering};

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
        let source = Source::Mapped(Arc::new(Map::of_memory(bytes.to_vec())));
        let name = FileName { id, state, cut: None };
        let (mut checked, torn) =
            check_segment_bytes(&source, bytes.len() as u64, path, name).unwrap();
        checked.damage.extend(torn.into_iter().map(|torn| torn.damage));
        checked
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
            assert_eq!(checked, Checked { record_count: 12, ..Checked::default() });
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
    fn no_record_of_a_segment_being_written_is_lost_in_silence() {
        let whole = whole();
        let zeros = |mut bytes: Vec<u8>| {
            bytes.resize(bytes.len() + 2048, 0);
            bytes
        };
        // The bytes that a header and its place do not tell from those of another file.
        for at in 16..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x21;
            for bytes in [zeros(flipped), whole[..at].to_vec()] {
                let checked = check(&bytes, SegmentState::Active);
                let lossy = checked.damage.iter().any(Damage::loses_records);
                assert!(lossy || checked.record_count == 12, "byte {at}");
            }
        }
        let open = whole[..1024].to_vec();
        assert_eq!(check(&zeros(open), SegmentState::Active).damage, []);
    }

    #[test]
    fn each_torn_frame_is_told_with_what_its_header_says() {
        let mut bytes = whole();
        for frame in [1, 2] {
            bytes[frame * 512 + 100] ^= 1;
        }
        let checked = check(&bytes, SegmentState::Active);
        assert_eq!(checked.record_count, 4);
        let told = checked.damage.iter().map(|d| (d.offset, d.len_bytes, d.records));
        assert_eq!(told.collect::<Vec<_>>(), [(512, 512, Some(4)), (1024, 512, Some(4))]);
        assert!(checked.damage.iter().all(|d| d.kind == DamageKind::Unfinished));
        assert!(checked.damage[0].to_string().contains("; 4 records may be lost between"));
        // With its header the place of the next one is lost too.
        bytes[512 + 30] ^= 1;
        let checked = check(&bytes, SegmentState::Active);
        let told = checked.damage.iter().map(|d| (d.offset, d.len_bytes, d.records));
        assert_eq!(told.collect::<Vec<_>>(), [(512, 0, None)]);
    }

    /// Looks at a segment whose last frame is finished by its writer just before the given read; says how
    /// many reads there were.
    fn check_beside_a_writer(finished_at: u32) -> (Checked, u32) {
        let temp = tempfile::tempdir().unwrap();
        let id = Ulid::from_parts(1_700_000_000_000, 77, 78);
        let path = temp.path().join(file_name(id, SegmentState::Active));
        let mut unfinished = whole();
        unfinished[1024 + 100..].fill(0);
        fs::write(&path, &unfinished).unwrap();
        let reads = Arc::new(AtomicU32::new(0));
        let (counted, writer) = (Arc::clone(&reads), path.clone());
        let before_read = move || {
            if counted.fetch_add(1, Ordering::Relaxed) + 1 == finished_at {
                let file = fs::File::options().write(true).open(&writer).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, &whole(), 0).unwrap();
            }
        };
        let storage = Watched { before_read: Arc::new(before_read), rots: false };
        let checked = check_segment(&storage, &path, id, SegmentState::Active).unwrap();
        (checked, reads.load(Ordering::Relaxed))
    }

    #[test]
    fn a_frame_that_its_writer_finishes_meanwhile_is_no_damage() {
        let (never, reads) = check_beside_a_writer(0);
        assert_eq!((never.record_count, never.damage.len()), (8, 1));
        assert!(reads >= LOOKS);
        for finished_at in 1..=reads / LOOKS * (LOOKS - 1) {
            let (checked, _) = check_beside_a_writer(finished_at);
            assert_eq!(checked.damage, [], "finished before read {finished_at} of {reads}");
        }
    }

    #[test]
    fn an_earlier_life_behind_the_last_frame_is_nothing() {
        let earlier = segment(Ulid::from_parts(1_600_000_000_000, 0xAB_CDEF_0123, 0x45_6789_ABCD));
        for damaged in [false, true] {
            let mut bytes = whole()[..1024].to_vec();
            bytes.extend_from_slice(&earlier[1024..]);
            if damaged {
                bytes[1024 + 30] ^= 1;
            }
            let checked = check(&bytes, SegmentState::Active);
            assert_eq!(checked, Checked { record_count: 8, ..Checked::default() });
        }
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
