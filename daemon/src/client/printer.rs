//! From the bytes of a text answer (`ULID SP record LF` …) to what is printed.
//!
//! Invariants: in a pipe a record's bytes come out exactly as they went in, however the answer
//! is cut into pieces, without a copy per line; on a terminal what could move its cursor is
//! escaped and matches are coloured. Memory is bounded by the output buffer and, on a terminal,
//! by [`TERMINAL_LINE_BYTES_MAX`].

use std::io::{self, Write};
use std::ops::Range;

use engine::search::format::rfc3339;
use engine::ulid::{ULID_TEXT_LEN, Ulid};
use regex::bytes::{Regex, RegexBuilder};

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

/// What stands before each record and how it is shown.
#[derive(Debug)]
pub(crate) struct Style {
    pub(crate) ulid: bool,
    pub(crate) time: bool,
    /// Escape and colour.
    pub(crate) terminal: Option<Terminal>,
}

/// How records look on a terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// What is coloured, each wherever it is.
    highlights: Vec<Regex>,
}

impl Terminal {
    /// For some expressions; one that does not compile here colours nothing.
    pub(crate) fn new(q: &[String], is_regex: bool, ignore_case: bool) -> Self {
        let highlight = |q: &String| {
            let pattern = if is_regex { q.clone() } else { regex::escape(q) };
            RegexBuilder::new(&pattern).case_insensitive(ignore_case).build().ok()
        };
        Self { highlights: q.iter().filter(|q| !q.is_empty()).filter_map(highlight).collect() }
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
}

/// Prints records.
pub(crate) struct Printer<'a> {
    out: &'a mut dyn Write,
    style: Style,
    buffer: Vec<u8>,
    /// Bytes of the prefix of the current line, until it is whole.
    prefix: [u8; PREFIX_LEN],
    prefix_len: usize,
    /// The current record as far as it came; used on a terminal only.
    line: Vec<u8>,
    /// The last time shown: its characters of the ULID and its text.
    time: ([u8; TIME_CHARACTERS], String),
    /// Lines that were ended.
    pub(crate) records: u64,
}

impl<'a> Printer<'a> {
    pub(crate) fn new(out: &'a mut dyn Write, style: Style) -> Self {
        Self {
            out,
            style,
            buffer: Vec::with_capacity(OUTPUT_BYTES + TERMINAL_LINE_BYTES_MAX),
            prefix: [0; PREFIX_LEN],
            prefix_len: 0,
            line: Vec::new(),
            time: ([0; TIME_CHARACTERS], String::new()),
            records: 0,
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
                    self.begin();
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

    /// Takes bytes that are to be printed as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= OUTPUT_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes what is buffered: nothing waits while the answer does.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn begin(&mut self) {
        if self.style.ulid {
            self.buffer.extend_from_slice(&self.prefix);
        }
        if self.style.time {
            if self.time.0 != self.prefix[..TIME_CHARACTERS] {
                self.time.0.copy_from_slice(&self.prefix[..TIME_CHARACTERS]);
                self.time.1 = time_of(&self.prefix[..ULID_TEXT_LEN]);
            }
            self.buffer.extend_from_slice(self.time.1.as_bytes());
            self.buffer.push(b' ');
        }
    }

    fn text(&mut self, text: &[u8]) {
        if self.style.terminal.is_none() {
            self.buffer.extend_from_slice(text);
            return;
        }
        self.line.extend_from_slice(text);
        if self.line.len() > TERMINAL_LINE_BYTES_MAX {
            self.show();
        }
    }

    fn end(&mut self) {
        self.show();
        self.buffer.push(b'\n');
        self.prefix_len = 0;
        self.records += 1;
    }

    /// Moves the line to the buffer, escaped and coloured.
    fn show(&mut self) {
        let Some(terminal) = &self.style.terminal else { return };
        let mut done = 0;
        for found in terminal.coloured(&self.line) {
            escape(&mut self.buffer, &self.line[done..found.start]);
            self.buffer.extend_from_slice(MATCH_START);
            done = found.end;
            escape(&mut self.buffer, &self.line[found]);
            self.buffer.extend_from_slice(MATCH_END);
        }
        escape(&mut self.buffer, &self.line[done..]);
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

/// The time in a ULID's text, RFC 3339; `-` when it is none.
fn time_of(ulid: &[u8]) -> String {
    let id: Option<Ulid> = std::str::from_utf8(ulid).ok().and_then(|text| text.parse().ok());
    id.map_or_else(|| "-".to_owned(), |id| rfc3339(id.ms()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: Style = Style { ulid: false, time: false, terminal: None };

    fn print(style: Style, pieces: &[&[u8]]) -> (Vec<u8>, u64) {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, style);
        for piece in pieces {
            printer.take(piece).unwrap();
        }
        printer.flush().unwrap();
        let records = printer.records;
        (out, records)
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
            prop_assert_eq!(print(PLAIN, &pieces), (expected, records.len() as u64));
            let with_ulid = Style { ulid: true, ..PLAIN };
            prop_assert_eq!(print(with_ulid, &pieces).0, answer);
        }

        #[test]
        fn a_terminal_never_sees_a_control_character(bytes: Vec<u8>) {
            let mut out = Vec::new();
            escape(&mut out, &bytes);
            let text = String::from_utf8(out).unwrap();
            prop_assert!(text.chars().all(|c| !c.is_control() || c == '\t'));
        }
    }

    #[test]
    fn times_and_ulids_stand_before_the_record() {
        let answer = answer(&[b"a".to_vec(), b"b".to_vec()]);
        let (out, _) = print(Style { time: true, ..PLAIN }, &[&answer]);
        assert_eq!(out, b"2023-11-14T22:13:20.000Z a\n2023-11-14T22:13:20.001Z b\n");
        let (out, _) = print(Style { time: true, ulid: true, ..PLAIN }, &[&answer]);
        let first = Ulid::from_parts(1_700_000_000_000, 1, 0);
        assert!(out.starts_with(format!("{first} 2023-11-14T22:13:20.000Z a\n").as_bytes()));
    }

    #[test]
    fn matches_are_coloured_on_a_terminal() {
        let terminal = Some(Terminal::new(&["a+".to_owned()], true, false));
        let answer = answer(&[b"baa\x1b[2Jc\xFFa".to_vec()]);
        let (out, _) = print(Style { terminal, ..PLAIN }, &[&answer]);
        let expected = "b\x1b[1;31maa\x1b[0m\\x1b[2Jc\\xff\x1b[1;31ma\x1b[0m\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn every_expression_is_coloured_and_what_two_share_is_coloured_once() {
        let all = ["ab", "bcd", "", "X", "yz", "y"].map(str::to_owned);
        let terminal = Some(Terminal::new(&all, false, true));
        let answer = answer(&[b"abcd x.yzy".to_vec()]);
        let (out, _) = print(Style { terminal, ..PLAIN }, &[&answer]);
        let on = |text: &str| format!("\x1b[1;31m{text}\x1b[0m");
        let expected = format!("{} {}.{}{}\n", on("abcd"), on("x"), on("yz"), on("y"));
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
