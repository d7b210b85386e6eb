//! What a segment's file holds, read in full by system calls: for all who decide what becomes of it.
//!
//! Invariants: nothing is concluded from bytes that were not read; a file in which some were not is
//! neither empty nor torn nor damaged but [`Verdict::Unread`].

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::frame::HEADER_BYTES;
use super::open::verify;
use super::segment::{Content, FileName, SegmentState};
use super::torn::Torn;
use super::walk::{self, Ending, Source, Walk, WalkOptions};
use crate::damage::Damage;
use crate::storage::{File, Open, Storage};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) walk: Walk,
    pub(super) file_len: u64,
    /// Of what is whole.
    pub(super) content: Content,
}

/// What a file turned out to be.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It has records, or had: where frames were checked all of them may be damaged.
    Records(Found),
    /// It is ours, but without a record that is whole.
    Unused(Vec<Torn>),
    /// It does not start like one of ours.
    Foreign(Vec<Torn>),
    /// It is shorter than anything of ours that has been used.
    TooShort,
    /// Some of the bytes that decide were not read; what was found nevertheless.
    Unread(Found),
}

/// How far a file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Headers, and of a file that may be torn the frames: readers check what they read of others.
    Headers,
    /// Every frame.
    Frames,
}

/// Reads and judges the file at `path`, whose name says `name`; `written_len`: what is known to have
/// been written. An error: it cannot be opened.
pub(super) fn examine(
    storage: &dyn Storage,
    path: &Path,
    name: FileName,
    written_len: Option<u64>,
    depth: Depth,
) -> io::Result<Verdict> {
    let file = storage.open(path, Open::Read)?;
    let file_len = file.len()?;
    let (limit, ending) = match (written_len, name.cut, name.state) {
        (Some(written_len), ..) => (written_len, Ending::Limit),
        // It was whole up to there when it was set aside, or was not and is damaged for it.
        (None, Some(cut), SegmentState::Damaged) => (cut.end, Ending::Limit),
        (None, Some(cut), _) => (cut.end, Ending::Cut { sure: cut.sure }),
        (None, None, SegmentState::Active) => (file_len, Ending::Torn),
        (None, None, _) => (file_len, Ending::LastFrame),
    };
    let options = WalkOptions {
        path,
        incarnation: name.incarnation(),
        limit,
        ending,
        check_payloads: matches!(ending, Ending::Torn | Ending::Cut { .. }),
    };
    let source = Source::File(Arc::clone(&file));
    let mut walk = walk::walk(&source, &options);
    let has_records = walk.frames.iter().any(|frame| frame.header.record_count > 0);
    let content = match depth {
        Depth::Frames if ending != Ending::Torn => check_frames(&source, &mut walk, path),
        _ => content_of(&walk),
    };
    if walk.refusal().is_some() {
        return Ok(Verdict::Unread(Found { walk, file_len, content }));
    }
    if has_records {
        return Ok(Verdict::Records(Found { walk, file_len, content }));
    }
    Ok(match starts_like_ours(&*file, &options)? {
        Some(true) => Verdict::Unused(walk.torn),
        None if walk.torn.is_empty() => Verdict::TooShort,
        Some(false) | None => Verdict::Foreign(walk.torn),
    })
}

/// `None`: it is shorter than a header.
fn starts_like_ours(file: &dyn File, options: &WalkOptions<'_>) -> io::Result<Option<bool>> {
    let mut start = [0; HEADER_BYTES];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) => Ok(Some(walk::starts_like_ours(&start, options))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn content_of(walk: &Walk) -> Content {
    let mut content = Content::default();
    for frame in walk.frames.iter().filter(|frame| frame.header.record_count > 0) {
        let header = &frame.header;
        let range = Some((header.first, header.last));
        content.add(u64::from(header.record_count), u64::from(header.text_len), range);
    }
    content
}

/// Adds the frames that are not whole to the damage; the others' content.
fn check_frames(source: &Source, walk: &mut Walk, path: &Path) -> Content {
    let mut bad: Vec<Damage> = Vec::new();
    walk.frames.retain(|frame| match verify(source, frame) {
        Ok(()) => true,
        Err(kind) => {
            bad.push(frame.damage(path, kind));
            false
        }
    });
    walk.damage.append(&mut bad);
    content_of(walk)
}
