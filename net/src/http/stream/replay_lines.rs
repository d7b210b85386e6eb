//! From the bytes of a query to those of a stream, as they come.
//!
//! A record may be as long as the largest there is, and many clients may replay at a time: so no
//! record is gathered before it is handed on. What has to be known is only where a line begins and
//! whose it is. A query that is given up inside a record is begun anew behind the one before, and
//! what was handed on of that record is left out.
//!
//! Invariants: pure; holds a few bytes of a line's beginning; hands on the bytes of records, each once,
//! and nothing of other lines.

use engine::follow::StreamFormat;
use engine::ulid::{ULID_TEXT_LEN, Ulid};

/// How a line of NDJSON that is a record begins.
const OBJECT_START: &[u8] = b"{\"ulid\":\"";

/// The record that was begun is not there any more: the stream cannot go on behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the beginning of a line, which does not yet show what it is.
    Head,
    /// In the line of this record.
    Record(Ulid),
    /// In a line that is no record.
    Other,
}

/// See the module page.
#[derive(Debug)]
pub(super) struct ReplayLines {
    format: StreamFormat,
    /// The last record that was handed on whole, or what stands for it.
    after: Ulid,
    place: Place,
    head: Vec<u8>,
    /// Bytes of the record's line that were read.
    read: usize,
    /// Bytes of it that were handed on before.
    skipped: usize,
    /// What was handed on of the record that comes next, before the query was begun anew.
    begun: Option<(Ulid, usize)>,
}

impl ReplayLines {
    pub(super) fn new(format: StreamFormat, after: Ulid) -> Self {
        let (place, head) = (Place::Head, Vec::new());
        Self { format, after, place, head, read: 0, skipped: 0, begun: None }
    }

    /// Where a query goes on: behind this record.
    pub(super) const fn after(&self) -> Ulid {
        self.after
    }

    /// Whether the beginning of a record was handed on and its end was not.
    pub(super) const fn is_inside_a_record(&self) -> bool {
        matches!(self.place, Place::Record(_)) || self.begun.is_some()
    }

    /// What comes next is that of a new query behind [`ReplayLines::after`].
    pub(super) fn begin_anew(&mut self) {
        if let Place::Record(id) = self.place {
            self.begun = Some((id, self.read.max(self.skipped)));
        }
        self.place = Place::Head;
        self.head.clear();
    }

    /// Everything up to `after` was handed on.
    pub(super) fn go_on_behind(&mut self, after: Ulid) {
        *self = Self::new(self.format, after);
    }

    /// Takes what the query brings; the bytes to be handed on.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<Vec<u8>, Lost> {
        let mut out = Vec::with_capacity(piece.len());
        let mut rest = piece;
        while !rest.is_empty() {
            let wanted = match self.place {
                Place::Head => (self.head_len() - self.head.len()).min(rest.len()),
                Place::Record(_) | Place::Other => rest.len(),
            };
            let lf = memchr::memchr(b'\n', &rest[..wanted]);
            let (now, later) = rest.split_at(lf.map_or(wanted, |lf| lf + 1));
            rest = later;
            match self.place {
                Place::Head => {
                    self.head.extend_from_slice(now);
                    if self.head.len() == self.head_len() || lf.is_some() {
                        self.begin_line(&mut out)?;
                    }
                }
                Place::Record(id) => {
                    self.hand_on(&mut out, now);
                    if lf.is_some() {
                        if self.format == StreamFormat::Sse {
                            out.push(b'\n');
                        }
                        self.after = id;
                    }
                }
                Place::Other => {}
            }
            if lf.is_some() {
                self.place = Place::Head;
            }
        }
        Ok(out)
    }

    /// As much of a line as shows what it is.
    fn head_len(&self) -> usize {
        let before = if self.format == StreamFormat::Text { 0 } else { OBJECT_START.len() };
        before + ULID_TEXT_LEN
    }

    fn begin_line(&mut self, out: &mut Vec<u8>) -> Result<(), Lost> {
        let head = std::mem::take(&mut self.head);
        let text = match self.format {
            StreamFormat::Text => Some(&head[..]),
            StreamFormat::Ndjson | StreamFormat::Sse => head.strip_prefix(OBJECT_START),
        };
        let text = text.and_then(|text| std::str::from_utf8(text).ok());
        // The query's own last line has none: the stream goes on.
        let id = text.filter(|text| text.len() == ULID_TEXT_LEN).and_then(|text| text.parse().ok());
        let Some(id) = id else {
            self.place = Place::Other;
            return Ok(());
        };
        self.skipped = match self.begun.take() {
            Some((begun, _)) if begun != id => return Err(Lost),
            begun => begun.map_or(0, |(_, bytes)| bytes),
        };
        if self.skipped == 0 && self.format == StreamFormat::Sse {
            out.extend_from_slice(format!("id: {id}\ndata: ").as_bytes());
        }
        self.place = Place::Record(id);
        self.read = 0;
        self.hand_on(out, &head);
        Ok(())
    }

    fn hand_on(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        let known = self.skipped.saturating_sub(self.read).min(bytes.len());
        out.extend_from_slice(&bytes[known..]);
        self.read += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u64) -> Ulid {
        Ulid::from_parts(1_700_000_000_000, 7, n)
    }

    /// What a query for records from `first` on sends, and what a stream of them is.
    fn sent(format: StreamFormat, first: usize, lens: &[usize]) -> (Vec<u8>, Vec<u8>) {
        let (mut query, mut stream) = (Vec::new(), Vec::new());
        for (n, len) in lens.iter().enumerate().skip(first) {
            let kind = if format == StreamFormat::Text { format } else { StreamFormat::Ndjson };
            let record = format!("{n} ").repeat(*len);
            kind.write(&mut query, id(n as u64), "default", record.as_bytes());
            format.write(&mut stream, id(n as u64), "default", record.as_bytes());
        }
        if format != StreamFormat::Text {
            query
                .extend_from_slice(b"{\"end\":{\"records\":1,\"complete\":true,\"missing\":[]}}\n");
        }
        (query, stream)
    }

    proptest! {
        #[test]
        fn records_come_whole_and_once_however_often_the_query_begins_anew(
            format in prop::sample::select(
                vec![StreamFormat::Text, StreamFormat::Ndjson, StreamFormat::Sse],
            ),
            lens in prop::collection::vec(0..60usize, 1..8),
            cuts in prop::collection::vec((1..200usize, any::<bool>()), 0..60),
        ) {
            let mut lines = ReplayLines::new(format, Ulid::MIN);
            let (mut query, expected) = sent(format, 0, &lens);
            let (mut got, mut at) = (Vec::new(), 0_usize);
            for (len, begins_anew) in cuts.into_iter().chain([(usize::MAX, false)]) {
                let end = query.len().min(at.saturating_add(len));
                got.extend(lines.take(&query[at..end]).unwrap());
                at = end;
                if begins_anew {
                    lines.begin_anew();
                    let done = (0..lens.len()).filter(|n| id(*n as u64) <= lines.after()).count();
                    (query, at) = (sent(format, done, &lens).0, 0);
                }
            }
            prop_assert_eq!(got, expected);
            prop_assert!(!lines.is_inside_a_record());
            prop_assert_eq!(lines.after(), id(lens.len() as u64 - 1));
        }
    }

    #[test]
    fn a_record_that_is_gone_when_it_is_gone_on_with_is_lost() {
        let mut lines = ReplayLines::new(StreamFormat::Text, Ulid::MIN);
        let line = |n: u64| format!("{} some text\n", id(n)).into_bytes();
        assert_eq!(lines.take(&line(0)[..30]).unwrap(), &line(0)[..30]);
        lines.begin_anew();
        assert!(lines.is_inside_a_record());
        assert_eq!(lines.take(&line(1)), Err(Lost));
    }
}
