//! Names of segment files: segment, state, and where its frames end if no last frame says so.
//!
//! Invariants: each has one spelling; other ones are names of other files.

use std::fmt;

use crate::ulid::{ULID_TEXT_LEN, Ulid};

/// State of a segment; its file's extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SegmentState {
    /// Prepared or being written.
    Active,
    /// Complete and available to a consumer.
    Flushed,
    /// Claimed by a consumer.
    Pending,
    /// Its readable records were taken, its damage was told; kept for inspection.
    Damaged,
}

impl SegmentState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Active, Self::Flushed, Self::Pending, Self::Damaged];

    /// The extension, without its dot; also the state's name in words.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Flushed => "flushed",
            Self::Pending => "pending",
            Self::Damaged => "damaged",
        }
    }
}

/// Name of a segment's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileName {
    /// The segment.
    pub id: Ulid,
    /// Its state.
    pub state: SegmentState,
    /// Where its frames end if no last frame says so: writing it ended early.
    pub cut: Option<Cut>,
}

/// The end of a segment that no last frame ends, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Its frames end here, whatever follows.
    pub end: u64,
    /// Up to here they were on the disk: what is not whole below it was whole once. What lies between the
    /// two may never have got there. 0: nobody knows.
    pub sure: u64,
}

impl Cut {
    fn parse(text: &str) -> Option<Self> {
        let (sure, end) = text.split_once('-').unwrap_or(("0", text));
        let cut = Self { end: end.parse().ok()?, sure: sure.parse().ok()? };
        (cut.sure <= cut.end).then_some(cut)
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sure > 0 {
            write!(f, "{}-", self.sure)?;
        }
        write!(f, "{}", self.end)
    }
}

impl FileName {
    /// What a name says; `None` for one that is no segment's.
    pub fn parse(name: &str) -> Option<Self> {
        let (text, rest) = name.split_once('.')?;
        let (cut, extension) = match rest.split_once('.') {
            Some((cut, extension)) => (Some(Cut::parse(cut)?), extension),
            None => (None, rest),
        };
        let state = SegmentState::ALL.into_iter().find(|s| s.extension() == extension)?;
        let id: Ulid = text.parse().ok().filter(|_| text.len() == ULID_TEXT_LEN)?;
        let parsed = Self { id, state, cut };
        // Other spellings (lower case, leading zeros) name other files.
        (parsed.to_string() == name).then_some(parsed)
    }

    /// Life of the file: its frames carry it.
    pub const fn incarnation(&self) -> u64 {
        incarnation(self.id)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.", self.id)?;
        if let Some(cut) = self.cut {
            write!(f, "{cut}.")?;
        }
        f.write_str(self.state.extension())
    }
}

/// File name of a segment that a last frame ends.
pub fn file_name(id: Ulid, state: SegmentState) -> String {
    FileName { id, state, cut: None }.to_string()
}

/// Segment and state by the name of a file; `None` for a name that is no segment's.
pub fn parse_file_name(name: &str) -> Option<(Ulid, SegmentState)> {
    FileName::parse(name).map(|name| (name.id, name.state))
}

/// Life of the file that is named by this segment id: frames carry it.
pub const fn incarnation(id: Ulid) -> u64 {
    id.0 as u64
}
