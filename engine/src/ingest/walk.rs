//! Finding the frames of a segment file: follows them from the first, and behind a bad one
//! searches for the next valid one.
//!
//! Invariants: only frames of the wanted incarnation with growing numbers and ULIDs count, so
//! frames of a file's earlier life never come back. A bad span with a valid frame behind it is
//! damage; a bad suffix is damage too unless the file was being written (a torn tail; what of it
//! is to be told is [`super::torn`]'s). A span that could not be read is neither: frames before and
//! behind it are found, and what of it is known is that it is not known.

use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::frame::{ALIGNMENT_MIN, FrameHeader, HEADER_BYTES, NotAFrame};
use super::torn::{Place, Torn, behind};
use crate::damage::{Damage, DamageKind};
use crate::storage::{File, Map, Refusal};
use crate::ulid::Ulid;

/// Bytes of a file that are read at once to look at a header: small frames lie close together.
const HEADER_WINDOW_BYTES: usize = 16 << 10;

/// Bytes that the search behind a bad frame reads at once.
const SEARCH_WINDOW_BYTES: usize = 1 << 20;
/// The same where larger pieces cannot be read.
const UNREAD_STEP_BYTES: usize = 4 << 10;
/// Reads that may fail in one search: what is behind them stays unread until the next walk.
const SEARCH_REFUSALS_MAX: u32 = 512;

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
    fn at(&mut self, offset: u64) -> Result<&[u8], Refusal> {
        if let Source::Mapped(map) = self.source {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(map.len());
            return Ok(&map[start..(start + HEADER_BYTES).min(map.len())]);
        }
        let end = self.start + self.window.len() as u64;
        if offset < self.start || offset + HEADER_BYTES as u64 > end {
            let ahead = self.source.read(offset, HEADER_WINDOW_BYTES);
            // What cannot be read may lie behind the header.
            let read = ahead.or_else(|_| self.source.read(offset, HEADER_BYTES));
            self.window = read.map_err(|error| Refusal::from(&error))?.into_owned();
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
    /// Frames up to the limit, where writing ended early; what of them is not whole behind `sure` was
    /// perhaps never on the disk.
    Cut {
        /// Bytes that were on the disk.
        sure: u64,
    },
}

impl Ending {
    /// Whether a bad suffix is a torn one.
    const fn may_be_torn(self) -> bool {
        matches!(self, Self::Torn | Self::Cut { .. })
    }

    /// Bytes that were on the disk, where not all of them need have been.
    const fn sure(self) -> u64 {
        if let Self::Cut { sure } = self { sure } else { 0 }
    }
}

/// A frame and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameAt {
    pub(super) offset: u64,
    pub(super) header: FrameHeader,
}

impl FrameAt {
    /// What its records are lost for.
    pub(super) fn damage(&self, path: &Path, kind: DamageKind) -> Damage {
        Damage {
            path: path.to_path_buf(),
            offset: self.offset,
            len_bytes: u64::from(self.header.len_bytes),
            range: Some((self.header.first, self.header.last)),
            records: Some(u64::from(self.header.record_count)),
            kind,
        }
    }
}

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Valid frames, in order.
    pub(super) frames: Vec<FrameAt>,
    /// Bad spans, and unread ones ([`Damage::refusal`]): where bytes could not be read, nobody knows
    /// what stands there.
    pub(super) damage: Vec<Damage>,
    /// Unfinished or damaged frames behind the last good one, if the file was being written.
    pub(super) torn: Vec<Torn>,
    /// Where the next frame would start, bytes.
    pub(super) end: u64,
    /// Whether the last frame says that it is the last.
    pub(super) is_complete: bool,
}

impl Walk {
    /// Why some of the bytes that decide were not read, if that is so.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.damage.iter().find_map(Damage::refusal)
    }
}

/// What to walk.
pub(super) struct WalkOptions<'a> {
    /// For words.
    pub(super) path: &'a Path,
    pub(super) incarnation: u64,
    /// Bytes beyond it do not count.
    pub(super) limit: u64,
    pub(super) ending: Ending,
    /// Whether texts and tables are checked too, where frames may be torn (a torn one may have a whole
    /// header).
    pub(super) check_payloads: bool,
}

/// Whether a file with the name of a segment starts like one: unwritten, or with a frame. Of a file
/// that was complete once a frame counts that is nearly one, for its header may be the damage.
pub(super) fn starts_like_ours(start: &[u8], options: &WalkOptions<'_>) -> bool {
    start.iter().all(|&b| b == 0)
        || FrameHeader::decode(start).is_ok()
        || (!options.ending.may_be_torn() && FrameHeader::is_likely(start, options.incarnation, 0))
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

/// What stands where a frame was expected.
enum Bad {
    /// No frame that may come next.
    NotAFrame(NotAFrame),
    /// Nobody knows.
    Unread(Refusal),
}

impl From<NotAFrame> for Bad {
    fn from(error: NotAFrame) -> Self {
        Self::NotAFrame(error)
    }
}

impl From<Refusal> for Bad {
    fn from(refusal: Refusal) -> Self {
        Self::Unread(refusal)
    }
}

/// Walks the file. What cannot be read is passed over, as damage is, and told apart from it.
pub(super) fn walk(source: &Source, options: &WalkOptions<'_>) -> Walk {
    let mut found = Walk::default();
    let mut headers = Headers { source, window: Vec::new(), start: 0 };
    while found.end < options.limit && !found.is_complete {
        let bad = match frame_at(&mut headers, options, &found, found.end) {
            Ok(frame) => {
                accept(&mut found, frame);
                continue;
            }
            Err(bad) => bad,
        };
        let mut search = Search { refusal: None, refusals_left: SEARCH_REFUSALS_MAX };
        let next = search.next_frame(&mut headers, options, &found);
        let kind = match (bad, search.refusal) {
            (Bad::Unread(refusal), _) | (_, Some(refusal)) => DamageKind::Unread(refusal),
            (Bad::NotAFrame(error), None) => damage_kind(error),
        };
        let Some(next) = next else {
            end_badly(&mut headers, &mut found, options, kind);
            return found;
        };
        let hole = hole_before(&found, &next, options.path, kind);
        found.damage.push(hole);
        accept(&mut found, next);
    }
    if !matches!(options.ending, Ending::Limit | Ending::Cut { .. }) && !found.is_complete {
        end_badly(&mut headers, &mut found, options, DamageKind::Truncated("segment"));
    }
    found
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
) -> Result<FrameAt, Bad> {
    let header = FrameHeader::decode(headers.at(offset)?)?;
    let last = found.frames.last().map(|f| f.header);
    // The expected number at the expected place; behind a bad span any later one.
    let number_min = last.map_or(0, |l| l.number.saturating_add(1));
    let number_fits =
        if offset == found.end { header.number == number_min } else { header.number > number_min };
    if header.incarnation != options.incarnation || header.chunk.is_some() || !number_fits {
        return Err(NotAFrame::Malformed("frame sequence").into());
    }
    if last.is_some_and(|l| header.record_count > 0 && header.first <= l.last) {
        return Err(NotAFrame::Malformed("ULID range of the frame header").into());
    }
    let payload = HEADER_BYTES + header.text_len as usize + header.table_len as usize;
    if options.limit.saturating_sub(offset) < payload as u64 {
        return Err(NotAFrame::Truncated("frame text").into());
    }
    if options.check_payloads && offset + payload as u64 > options.ending.sure() {
        let bytes = headers.source.read(offset, payload).map_err(|error| Refusal::from(&error))?;
        header.check_payload(&bytes)?;
    }
    Ok(FrameAt { offset, header })
}

/// The way from a bad frame to the next of this life. Reads in large windows; where one cannot be
/// read, from its start in small ones, and leaps over what still cannot, farther each time, then back
/// to where it can be read again. So a span that cannot be read costs some twenty reads that fail,
/// however long it is.
struct Search {
    /// Why something on the way was not read.
    refusal: Option<Refusal>,
    refusals_left: u32,
}

impl Search {
    /// The next frame behind a bad one at `found.end`.
    fn next_frame(
        &mut self,
        headers: &mut Headers<'_>,
        options: &WalkOptions<'_>,
        found: &Walk,
    ) -> Option<FrameAt> {
        let mut at = found.end + ALIGNMENT_MIN as u64;
        let mut window = SEARCH_WINDOW_BYTES;
        while at < options.limit {
            let len = (options.limit - at).min(window as u64) as usize;
            let bytes = match headers.source.read(at, len) {
                Ok(bytes) => bytes.into_owned(),
                Err(_) if window > UNREAD_STEP_BYTES => {
                    window = UNREAD_STEP_BYTES;
                    continue;
                }
                Err(error) => {
                    self.refusal.get_or_insert(Refusal::from(&error));
                    at = self.leap(headers.source, options.limit, at)?;
                    continue;
                }
            };
            if let Some(frame) = self.frame_in(&bytes, at, headers, options, found) {
                return Some(frame);
            }
            if bytes.len() < len {
                return None;
            }
            at += len as u64;
            window = (2 * window).min(SEARCH_WINDOW_BYTES);
        }
        None
    }

    fn frame_in(
        &mut self,
        bytes: &[u8],
        start: u64,
        headers: &mut Headers<'_>,
        options: &WalkOptions<'_>,
        found: &Walk,
    ) -> Option<FrameAt> {
        let starts = (0..bytes.len()).step_by(ALIGNMENT_MIN);
        for at in starts.filter(|&at| bytes[at..].starts_with(&super::frame::MAGIC)) {
            match frame_at(headers, options, found, start + at as u64) {
                Ok(frame) => return Some(frame),
                Err(Bad::Unread(refusal)) => {
                    self.refusal.get_or_insert(refusal);
                }
                Err(Bad::NotAFrame(_)) => {}
            }
        }
        None
    }

    /// Where reading is possible again behind `bad`, where it is not; `None`: nowhere.
    fn leap(&mut self, source: &Source, limit: u64, bad: u64) -> Option<u64> {
        let step_min = UNREAD_STEP_BYTES as u64;
        let is_readable = |at: u64| source.read(at, UNREAD_STEP_BYTES).is_ok();
        let (mut low, mut step) = (bad, step_min);
        let mut high = loop {
            let at = low + step;
            self.refusals_left = self.refusals_left.checked_sub(1)?;
            if at >= limit {
                return None;
            }
            if is_readable(at) {
                break at;
            }
            low = at;
            step = (2 * step).min(SEARCH_WINDOW_BYTES as u64);
        };
        // Unread at `low`, readable at `high`.
        while high - low > step_min {
            let middle = low + (high - low) / 2 / ALIGNMENT_MIN as u64 * ALIGNMENT_MIN as u64;
            *(if is_readable(middle) { &mut high } else { &mut low }) = middle;
        }
        Some(high)
    }
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

/// Nothing more was found behind the last good frame.
fn end_badly(
    headers: &mut Headers<'_>,
    found: &mut Walk,
    options: &WalkOptions<'_>,
    mut kind: DamageKind,
) {
    let may_be_torn = options.ending.may_be_torn() && found.end >= options.ending.sure();
    if may_be_torn && !matches!(kind, DamageKind::Unread(_)) {
        match find_torn(headers, found, options) {
            Ok(()) => return,
            Err(refusal) => kind = DamageKind::Unread(refusal),
        }
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
}

/// Follows unfinished frames as long as their headers say where the next one is: several may have
/// been in flight.
fn find_torn(
    headers: &mut Headers<'_>,
    found: &mut Walk,
    options: &WalkOptions<'_>,
) -> Result<(), Refusal> {
    let last = found.frames.last().map(|f| f.header);
    let mut place = Place {
        path: options.path,
        offset: found.end,
        incarnation: options.incarnation,
        number: last.map_or(0, |l| l.number.saturating_add(1)),
        after: last.map_or(Ulid::MIN, |l| behind(l.last)),
    };
    // A file is as long as it will ever be before a frame is in it.
    if last.is_some() && headers.at(place.offset)?.len() < HEADER_BYTES {
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
