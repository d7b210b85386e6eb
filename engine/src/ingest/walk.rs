//! Finding the frames of a segment file: follows them from the first, and behind a bad one
//! searches for the next valid one.
//!
//! Invariants: only frames of the wanted incarnation with growing numbers and ULIDs count, so
//! frames of a file's earlier life never come back. A bad span with a valid frame behind it is
//! damage; a bad suffix is damage too unless the file was being written (a torn tail; what of it
//! is to be told is [`super::torn`]'s).

use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::frame::{ALIGNMENT_MIN, FrameHeader, HEADER_BYTES, NotAFrame};
use super::torn::{Place, Torn, behind};
use crate::damage::{Damage, DamageKind};
use crate::storage::{File, Map};
use crate::ulid::Ulid;

/// Bytes of a file that are read at once to look at a header: small frames lie close together.
const HEADER_WINDOW_BYTES: usize = 16 << 10;

/// Bytes that the search behind a bad frame reads at once.
const SEARCH_WINDOW_BYTES: usize = 1 << 20;

/// The bytes of a segment.
#[derive(Clone)]
pub(super) enum Source {
    /// A file that is complete.
    Mapped(Arc<Map>),
    /// A file that may still be written behind what we look at.
    File(Arc<dyn File>),
}

impl Source {
    /// At most `len` bytes at `offset`; fewer where the file ends.
    pub(super) fn read(&self, offset: u64, len: usize) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Self::Mapped(map) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(map.len());
                let end = start.saturating_add(len).min(map.len());
                Ok(Cow::Borrowed(&map[start..end]))
            }
            Self::File(file) => {
                let mut bytes = vec![0; len];
                let mut done = 0;
                while done < len {
                    match file.read_at(&mut bytes[done..], offset + done as u64) {
                        Ok(0) => break,
                        Ok(n) => done += n,
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(e) => return Err(e),
                    }
                }
                bytes.truncate(done);
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// Whether what was read may have been zeros in place of the file's bytes.
    pub(super) fn is_poisoned(&self) -> bool {
        matches!(self, Self::Mapped(map) if map.is_poisoned())
    }
}

/// Header bytes of a source, read ahead where reading is a system call.
struct Headers<'a> {
    source: &'a Source,
    window: Vec<u8>,
    start: u64,
}

impl Headers<'_> {
    /// The bytes of a header at `offset`; fewer where the file ends.
    fn at(&mut self, offset: u64) -> io::Result<&[u8]> {
        if let Source::Mapped(map) = self.source {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(map.len());
            return Ok(&map[start..(start + HEADER_BYTES).min(map.len())]);
        }
        let end = self.start + self.window.len() as u64;
        if offset < self.start || offset + HEADER_BYTES as u64 > end {
            self.window = self.source.read(offset, HEADER_WINDOW_BYTES)?.into_owned();
            self.start = offset;
        }
        let at = (offset - self.start) as usize;
        Ok(&self.window[at..(at + HEADER_BYTES).min(self.window.len())])
    }
}

/// What has to stand at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// A frame that is marked as the last one: a flushed file.
    LastFrame,
    /// Frames up to the limit exactly: a file whose written length is known.
    Limit,
    /// Anything: a file that was being written when its process ended.
    Torn,
}

/// A frame and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameAt {
    pub(super) offset: u64,
    pub(super) header: FrameHeader,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Valid frames, in order.
    pub(super) frames: Vec<FrameAt>,
    /// Bad spans.
    pub(super) damage: Vec<Damage>,
    /// Unfinished or damaged frames behind the last good one, if the file was being written.
    pub(super) torn: Vec<Torn>,
    /// Where the next frame would start, bytes.
    pub(super) end: u64,
    /// Whether the last frame says that it is the last.
    pub(super) is_complete: bool,
}

/// What to walk.
pub(super) struct WalkOptions<'a> {
    /// For words.
    pub(super) path: &'a Path,
    pub(super) incarnation: u64,
    /// Bytes beyond it do not count.
    pub(super) limit: u64,
    pub(super) ending: Ending,
    /// Whether texts and tables are checked too (a torn frame may have a whole header).
    pub(super) check_payloads: bool,
}

/// Whether a file with the name of a segment starts like one: unwritten, or with a frame. Of a file
/// that was complete once a frame counts that is nearly one, for its header may be the damage.
pub(super) fn starts_like_ours(start: &[u8], options: &WalkOptions<'_>) -> bool {
    start.iter().all(|&b| b == 0)
        || FrameHeader::decode(start).is_ok()
        || (options.ending != Ending::Torn && FrameHeader::is_likely(start, options.incarnation, 0))
}

pub(super) fn damage_kind(error: NotAFrame) -> DamageKind {
    match error {
        NotAFrame::Truncated(part) => DamageKind::Truncated(part),
        NotAFrame::Magic => DamageKind::Malformed("frame header"),
        NotAFrame::Checksum(part) => DamageKind::Checksum(part),
        NotAFrame::Version(version) => DamageKind::Version(version),
        NotAFrame::Malformed(part) => DamageKind::Malformed(part),
    }
}

/// Walks the file. An error is one of reading.
pub(super) fn walk(source: &Source, options: &WalkOptions<'_>) -> io::Result<Walk> {
    let mut found = Walk::default();
    let mut headers = Headers { source, window: Vec::new(), start: 0 };
    while found.end < options.limit && !found.is_complete {
        let bad = match frame_at(&mut headers, options, &found, found.end)? {
            Ok(frame) => {
                accept(&mut found, frame);
                continue;
            }
            Err(error) => error,
        };
        let Some(next) = search(&mut headers, options, &found)? else {
            end_badly(&mut headers, &mut found, options, damage_kind(bad))?;
            return Ok(found);
        };
        let hole = hole_before(&found, &next, options.path, damage_kind(bad));
        found.damage.push(hole);
        accept(&mut found, next);
    }
    if options.ending != Ending::Limit && !found.is_complete {
        end_badly(&mut headers, &mut found, options, DamageKind::Truncated("segment"))?;
    }
    Ok(found)
}

fn accept(found: &mut Walk, frame: FrameAt) {
    found.end = frame.offset + u64::from(frame.header.len_bytes);
    found.is_complete = frame.header.is_last;
    found.frames.push(frame);
}

/// The frame at `offset`, if it is one that may come next.
fn frame_at(
    headers: &mut Headers<'_>,
    options: &WalkOptions<'_>,
    found: &Walk,
    offset: u64,
) -> io::Result<Result<FrameAt, NotAFrame>> {
    let header = match FrameHeader::decode(headers.at(offset)?) {
        Ok(header) => header,
        Err(e) => return Ok(Err(e)),
    };
    let last = found.frames.last().map(|f| f.header);
    // The expected number at the expected place; behind a bad span any later one.
    let number_min = last.map_or(0, |l| l.number.saturating_add(1));
    let number_fits =
        if offset == found.end { header.number == number_min } else { header.number > number_min };
    if header.incarnation != options.incarnation || header.chunk.is_some() || !number_fits {
        return Ok(Err(NotAFrame::Malformed("frame sequence")));
    }
    if last.is_some_and(|l| header.record_count > 0 && header.first <= l.last) {
        return Ok(Err(NotAFrame::Malformed("ULID range of the frame header")));
    }
    let payload = HEADER_BYTES + header.text_len as usize + header.table_len as usize;
    if options.limit.saturating_sub(offset) < payload as u64 {
        return Ok(Err(NotAFrame::Truncated("frame text")));
    }
    if options.check_payloads {
        let bytes = headers.source.read(offset, payload)?;
        if let Err(e) = header.check_payload(&bytes) {
            return Ok(Err(e));
        }
    }
    Ok(Ok(FrameAt { offset, header }))
}

/// The next frame of this life behind a bad one at `found.end`.
fn search(
    headers: &mut Headers<'_>,
    options: &WalkOptions<'_>,
    found: &Walk,
) -> io::Result<Option<FrameAt>> {
    let source = headers.source;
    let step = ALIGNMENT_MIN as u64;
    let mut window_start = found.end + step;
    while window_start < options.limit {
        let len = (options.limit - window_start).min(SEARCH_WINDOW_BYTES as u64) as usize;
        let window = source.read(window_start, len)?;
        for at in (0..window.len()).step_by(ALIGNMENT_MIN) {
            if !window[at..].starts_with(&super::frame::MAGIC) {
                continue;
            }
            let offset = window_start + at as u64;
            if let Ok(frame) = frame_at(headers, options, found, offset)? {
                return Ok(Some(frame));
            }
        }
        if window.len() < len {
            break;
        }
        window_start += SEARCH_WINDOW_BYTES as u64;
    }
    Ok(None)
}

/// The damage between the last good frame and `next`. Records are numbered without gaps, so what
/// is missing can be counted when both sides are of one stream.
fn hole_before(found: &Walk, next: &FrameAt, path: &Path, kind: DamageKind) -> Damage {
    let before = found.frames.iter().rev().find(|f| f.header.record_count > 0);
    let first = next.header.first;
    let has_records = next.header.record_count > 0;
    let records = before.filter(|b| has_records && b.header.last.stream() == first.stream());
    let records = records.map(|b| first.counter().saturating_sub(b.header.last.counter() + 1));
    let from = before.map_or(Ulid::MIN, |b| behind(b.header.last));
    let to = if has_records { Ulid(first.0.saturating_sub(1)) } else { Ulid::MAX };
    Damage {
        path: path.to_path_buf(),
        offset: found.end,
        len_bytes: next.offset - found.end,
        range: Some((from, to)),
        records,
        kind,
    }
}

fn end_badly(
    headers: &mut Headers<'_>,
    found: &mut Walk,
    options: &WalkOptions<'_>,
    kind: DamageKind,
) -> io::Result<()> {
    if options.ending == Ending::Torn {
        return find_torn(headers, found, options);
    }
    let from = found.frames.last().map_or(Ulid::MIN, |f| behind(f.header.last));
    found.damage.push(Damage {
        path: options.path.to_path_buf(),
        offset: found.end,
        len_bytes: options.limit.saturating_sub(found.end),
        range: Some((from, Ulid::MAX)),
        records: None,
        kind,
    });
    Ok(())
}

/// Follows unfinished frames as long as their headers say where the next one is: several may have
/// been in flight.
fn find_torn(
    headers: &mut Headers<'_>,
    found: &mut Walk,
    options: &WalkOptions<'_>,
) -> io::Result<()> {
    let last = found.frames.last().map(|f| f.header);
    let mut place = Place {
        path: options.path,
        offset: found.end,
        incarnation: options.incarnation,
        number: last.map_or(0, |l| l.number.saturating_add(1)),
        after: last.map_or(Ulid::MIN, |l| behind(l.last)),
    };
    // A file is as long as it will ever be before a frame is in it.
    let is_cut = last.is_some() && options.limit < found.end + HEADER_BYTES as u64;
    if is_cut {
        found.torn.push(Torn::of_cut_file(&place));
        return Ok(());
    }
    while let Some(torn) = Torn::find(&place, headers.at(place.offset)?) {
        let (len_bytes, range) = (torn.damage.len_bytes, torn.damage.range);
        found.torn.push(torn);
        if len_bytes == 0 {
            break;
        }
        place.offset += len_bytes;
        place.number = place.number.saturating_add(1);
        place.after = range.map_or(place.after, |(_, last)| behind(last));
    }
    Ok(())
}
