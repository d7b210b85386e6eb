//! From the bytes of a text answer (`ULID SP record LF` …) to what is printed.
//!
//! Invariants: in a pipe a record's bytes come out exactly as they went in, however the answer
//! is cut into pieces, without a copy per line; on a terminal what could move its cursor is
//! escaped; matches are coloured, or alone printed, where that is wanted. Memory is bounded by the output
//! buffer and, on a terminal, by [`TERMINAL_LINE_BYTES_MAX`]; by one record where only matches are printed.

use std::io::{self, Write};
use std::ops::Range;

use engine::ulid::{ULID_TEXT_LEN, Ulid};
use regex::bytes::Regex;

use crate::times::TimeForm;

/// Output is written in pieces of about this size.
const OUTPUT_BYTES: usize = 256 << 10;
/// `ULID SP`.
const PREFIX_LEN: usize = ULID_TEXT_LEN + 1;
/// Characters of a ULID that hold its time.
const TIME_CHARACTERS: usize = 10;
/// Longer lines are shown on a terminal in pieces of this size.
const TERMINAL_LINE_BYTES_MAX: usize = 64 << 10;

const MATCH_START: &[u8] = b"\x1b[1;31m";
const MATCH_END: &[u8] = b"\x1b[0m";

/// What stands before each record and how it is shown. By default its bytes alone, as they are.
#[derive(Debug, Default)]
pub(crate) struct Style {
    pub(crate) ulid: bool,
    pub(crate) time: Option<TimeForm>,
    /// Where it is known.
    pub(crate) topic: bool,
    /// Only what this finds is shown, each on a line of its own.
    pub(crate) only: Option<Regex>,
    /// What could move a cursor is escaped.
    pub(crate) escapes: bool,
    /// What is coloured, each wherever it is.
    pub(crate) highlights: Vec<Regex>,
}

impl Style {
    /// Whether records are shown as they are.
    fn is_plain(&self) -> bool {
        self.only.is_none() && !self.escapes && self.highlights.is_empty()
    }

    /// What is coloured of a line, in order and without overlap.
    fn coloured(&self, line: &[u8]) -> Vec<Range<usize>> {
        let found = self.highlights.iter().flat_map(|highlight| highlight.find_iter(line));
        let mut found: Vec<_> =
            found.map(|found| found.range()).filter(|r| !r.is_empty()).collect();
        found.sort_unstable_by_key(|range| range.start);
        let mut apart: Vec<Range<usize>> = Vec::new();
        for range in found {
            match apart.last_mut() {
                Some(last) if range.start < last.end => last.end = last.end.max(range.end),
                _ => apart.push(range),
            }
        }
        apart
    }

    /// Appends text as it is shown.
    fn show(&self, out: &mut Vec<u8>, text: &[u8]) {
        if self.escapes { escape(out, text) } else { out.extend_from_slice(text) }
    }

    /// Appends text that is shown as a match.
    fn show_match(&self, out: &mut Vec<u8>, text: &[u8]) {
        if self.highlights.is_empty() {
            return self.show(out, text);
        }
        out.extend_from_slice(MATCH_START);
        self.show(out, text);
        out.extend_from_slice(MATCH_END);
    }
}

/// Prints records.
pub(crate) struct Printer<'a> {
    out: &'a mut dyn Write,
    style: Style,
    is_plain: bool,
    buffer: Vec<u8>,
    /// Bytes of the prefix of the current line, until it is whole.
    prefix: [u8; PREFIX_LEN],
    prefix_len: usize,
    /// What stands before the current record, where it may be repeated.
    head: Vec<u8>,
    /// The current record as far as it came, unless it is shown as it is.
    line: Vec<u8>,
    /// The last time shown: its characters of the ULID and its text.
    time: ([u8; TIME_CHARACTERS], String),
}

impl<'a> Printer<'a> {
    pub(crate) fn new(out: &'a mut dyn Write, style: Style) -> Self {
        Self {
            out,
            is_plain: style.is_plain(),
            style,
            buffer: Vec::with_capacity(OUTPUT_BYTES + TERMINAL_LINE_BYTES_MAX),
            prefix: [0; PREFIX_LEN],
            prefix_len: 0,
            head: Vec::new(),
            line: Vec::new(),
            time: ([0; TIME_CHARACTERS], String::new()),
        }
    }

    /// Takes the next bytes of the answer.
    pub(crate) fn take(&mut self, mut piece: &[u8]) -> io::Result<()> {
        while !piece.is_empty() {
            if self.prefix_len < PREFIX_LEN {
                let (now, later) = piece.split_at(piece.len().min(PREFIX_LEN - self.prefix_len));
                self.prefix[self.prefix_len..self.prefix_len + now.len()].copy_from_slice(now);
                self.prefix_len += now.len();
                piece = later;
                if self.prefix_len == PREFIX_LEN {
                    self.begin(None);
                }
                continue;
            }
            let end = memchr::memchr(b'\n', piece);
            let (text, later) = piece.split_at(end.unwrap_or(piece.len()));
            self.text(text);
            piece = later;
            if end.is_some() {
                self.end();
                piece = &piece[1..];
            }
            if self.buffer.len() >= OUTPUT_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Takes a whole record of which the topic is known, too.
    pub(crate) fn record(&mut self, ulid: &str, topic: &str, text: &[u8]) -> io::Result<()> {
        self.prefix[ULID_TEXT_LEN] = b' ';
        let len = ulid.len().min(ULID_TEXT_LEN);
        self.prefix[..len].copy_from_slice(&ulid.as_bytes()[..len]);
        self.begin(Some(topic));
        self.text(text);
        self.end();
        if self.buffer.len() >= OUTPUT_BYTES { self.flush() } else { Ok(()) }
    }

    /// Takes lines of JSON, which are printed as they are; what of them a terminal would obey is escaped.
    pub(crate) fn json(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.style.escapes {
            escape_json(&mut self.buffer, lines);
        } else {
            self.buffer.extend_from_slice(lines);
        }
        if self.buffer.len() >= OUTPUT_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes what is buffered: nothing waits while the answer does.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn begin(&mut self, topic: Option<&str>) {
        self.head.clear();
        if self.style.ulid {
            self.head.extend_from_slice(&self.prefix);
        }
        if let Some(form) = &self.style.time {
            if self.time.0 != self.prefix[..TIME_CHARACTERS] {
                self.time.0.copy_from_slice(&self.prefix[..TIME_CHARACTERS]);
                self.time.1 = time_of(&self.prefix[..ULID_TEXT_LEN], form);
            }
            self.head.extend_from_slice(self.time.1.as_bytes());
            self.head.push(b' ');
        }
        if let Some(topic) = topic.filter(|_| self.style.topic) {
            self.style.show(&mut self.head, topic.as_bytes());
            self.head.push(b' ');
        }
        if self.style.only.is_none() {
            self.buffer.extend_from_slice(&self.head);
        }
    }

    fn text(&mut self, text: &[u8]) {
        if self.is_plain {
            self.buffer.extend_from_slice(text);
            return;
        }
        self.line.extend_from_slice(text);
        if self.line.len() > TERMINAL_LINE_BYTES_MAX && self.style.only.is_none() {
            self.show();
        }
    }

    fn end(&mut self) {
        match &self.style.only {
            None => {
                self.show();
                self.buffer.push(b'\n');
            }
            Some(only) => {
                for found in only.find_iter(&self.line).filter(|found| !found.is_empty()) {
                    self.buffer.extend_from_slice(&self.head);
                    self.style.show_match(&mut self.buffer, found.as_bytes());
                    self.buffer.push(b'\n');
                }
                self.line.clear();
            }
        }
        self.prefix_len = 0;
    }

    /// Moves the line to the buffer, escaped and coloured.
    fn show(&mut self) {
        let mut done = 0;
        for found in self.style.coloured(&self.line) {
            self.style.show(&mut self.buffer, &self.line[done..found.start]);
            done = found.end;
            self.style.show_match(&mut self.buffer, &self.line[found]);
        }
        self.style.show(&mut self.buffer, &self.line[done..]);
        self.line.clear();
    }
}

/// Appends text that a terminal shows as it is; tabs stay.
pub(crate) fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() && character != '\t' {
                // Writing to a Vec cannot fail.
                let _ = write!(out, "\\x{:02x}", u32::from(character));
            } else {
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

/// Appends JSON; characters that it may hold and a terminal obeys (DEL, and those from U+0080 to U+009F)
/// are escaped as JSON does it, for they stand in strings alone.
fn escape_json(out: &mut Vec<u8>, json: &[u8]) {
    let mut rest = json;
    while let Some(at) = memchr::memchr2(0x7f, 0xc2, rest) {
        out.extend_from_slice(&rest[..at]);
        let (code, len) = match rest[at..] {
            [0x7f, ..] => (0x7f, 1),
            [0xc2, low @ 0x80..0xa0, ..] => (low, 2),
            _ => {
                out.push(rest[at]);
                rest = &rest[at + 1..];
                continue;
            }
        };
        // Writing to a Vec cannot fail.
        let _ = write!(out, "\\u{code:04x}");
        rest = &rest[at + len..];
    }
    out.extend_from_slice(rest);
}

/// The time in a ULID's text; `-` when it is none.
fn time_of(ulid: &[u8], form: &TimeForm) -> String {
    let id: Option<Ulid> = std::str::from_utf8(ulid).ok().and_then(|text| text.parse().ok());
    id.map_or_else(|| "-".to_owned(), |id| form.text(id.ms()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn print(style: Style, pieces: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, style);
        for piece in pieces {
            printer.take(piece).unwrap();
        }
        printer.flush().unwrap();
        out
    }

    fn answer(records: &[Vec<u8>]) -> Vec<u8> {
        let mut answer = Vec::new();
        for (n, record) in records.iter().enumerate() {
            let id = Ulid::from_parts(1_700_000_000_000 + n as u64, 1, n as u64);
            answer.extend(id.to_string().bytes());
            answer.push(b' ');
            answer.extend(record);
            answer.push(b'\n');
        }
        answer
    }

    proptest! {
        #[test]
        fn records_come_out_as_they_went_in_however_they_are_cut(
            records in prop::collection::vec(prop::collection::vec(
                any::<u8>().prop_map(|b| if b == b'\n' { b'x' } else { b }), 0..50), 0..8),
            piece_len in 1_usize..60,
        ) {
            let answer = answer(&records);
            let pieces: Vec<_> = answer.chunks(piece_len).collect();
            let expected: Vec<u8> = records.iter().flat_map(|r| [r, &b"\n"[..]].concat()).collect();
            prop_assert_eq!(print(Style::default(), &pieces), expected);
            let with_ulid = Style { ulid: true, ..Style::default() };
            prop_assert_eq!(print(with_ulid, &pieces), answer);
        }

        #[test]
        fn a_terminal_never_sees_a_control_character(bytes: Vec<u8>, text: String) {
            let mut out = Vec::new();
            escape(&mut out, &bytes);
            let shown = String::from_utf8(out).unwrap();
            prop_assert!(shown.chars().all(|c| !c.is_control() || c == '\t'));
            let json = serde_json::to_string(&text).unwrap();
            let mut out = Vec::new();
            escape_json(&mut out, json.as_bytes());
            prop_assert!(!String::from_utf8_lossy(&out).chars().any(char::is_control));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    fn regex(pattern: &str) -> Regex {
        Regex::new(pattern).unwrap()
    }

    #[test]
    fn times_topics_and_ulids_stand_before_the_record() {
        let answer = answer(&[b"a".to_vec(), b"b".to_vec()]);
        let time = || Some(TimeForm::Utc);
        let out = print(Style { time: time(), ..Style::default() }, &[&answer]);
        assert_eq!(out, b"2023-11-14T22:13:20.000Z a\n2023-11-14T22:13:20.001Z b\n");
        let style = || Style { time: time(), ulid: true, topic: true, ..Style::default() };
        let first = Ulid::from_parts(1_700_000_000_000, 1, 0).to_string();
        let out = print(style(), &[&answer]);
        assert!(out.starts_with(format!("{first} 2023-11-14T22:13:20.000Z a\n").as_bytes()));
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, style());
        printer.record(&first, "web", b"a\xff").unwrap();
        printer.flush().unwrap();
        let expected = format!("{first} 2023-11-14T22:13:20.000Z web a");
        assert_eq!(out, [expected.as_bytes(), b"\xff\n"].concat());
    }

    #[test]
    fn on_a_terminal_control_characters_are_escaped_and_matches_coloured() {
        let answer = answer(&[b"baa\x1b[2Jc\xFFa".to_vec()]);
        let style = |escapes, highlights| Style { escapes, highlights, ..Style::default() };
        for (style, expected) in [
            (
                style(true, vec![regex("a+")]),
                &b"b\x1b[1;31maa\x1b[0m\\x1b[2Jc\\xff\x1b[1;31ma\x1b[0m\n"[..],
            ),
            (style(true, vec![]), b"baa\\x1b[2Jc\\xffa\n"),
            (style(false, vec![regex("c")]), b"baa\x1b[2J\x1b[1;31mc\x1b[0m\xFFa\n"),
            (style(false, vec![]), b"baa\x1b[2Jc\xFFa\n"),
        ] {
            assert_eq!(print(style, &[&answer]), expected);
        }
    }

    #[test]
    fn every_expression_is_coloured_and_what_two_share_is_coloured_once() {
        let highlights = ["ab", "bcd", "(?i)X", "yz", "y"].map(regex).into();
        let answer = answer(&[b"abcd x.yzy".to_vec()]);
        let out = print(Style { highlights, ..Style::default() }, &[&answer]);
        let on = |text: &str| format!("\x1b[1;31m{text}\x1b[0m");
        let expected = format!("{} {}.{}{}\n", on("abcd"), on("x"), on("yz"), on("y"));
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn only_what_matched_is_printed_each_on_its_line_behind_what_stands_before_the_record() {
        let long = [&b"x".repeat(3 * TERMINAL_LINE_BYTES_MAX)[..], b"id=9"].concat();
        let answer = answer(&[b"id=1, id=22\x07".to_vec(), b"none".to_vec(), long]);
        let time = Some(TimeForm::Utc);
        let only = || Some(regex("id=[0-9]*\x07?|z*"));
        let pieces: Vec<_> = answer.chunks(1000).collect();
        let out = print(Style { only: only(), time, ..Style::default() }, &pieces);
        let expected = "2023-11-14T22:13:20.000Z id=1\n2023-11-14T22:13:20.000Z id=22\x07\n\
                        2023-11-14T22:13:20.002Z id=9\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let style =
            Style { only: only(), escapes: true, highlights: vec![regex("=")], ..Style::default() };
        let out = String::from_utf8(print(style, &pieces)).unwrap();
        assert!(out.starts_with("\x1b[1;31mid=1\x1b[0m\n\x1b[1;31mid=22\\x07\x1b[0m\n"), "{out}");
    }
}
