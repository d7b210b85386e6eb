//! Several entries out of one body: an array of them, or an object a line (NDJSON).
//!
//! Invariants: an error leaves nothing behind, and says which entry is wrong, counted from 1; no more is held
//! than one entry and the lines that are made.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::entry::{Entry, Fields, unreadable};
use crate::limits::ENTRIES_HELD_FACTOR;

/// Lines are at most so many times as long as the body that they are made of: a time is added to each.
pub(super) const LINES_FACTOR: usize = ENTRIES_HELD_FACTOR - 1;

/// The lines of a body's entries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// As they are kept, each with its LF.
    pub(super) lines: Vec<u8>,
    /// How many.
    pub(super) entries: u64,
    /// The longest without its LF, bytes.
    pub(super) longest_bytes: usize,
}

impl Batch {
    /// Takes a body apart; entries without a time of their own have that of their arrival.
    pub(super) fn parse(body: &[u8], arrival: &str) -> Result<Self, String> {
        // Room for all of them at once: what is not needed is never touched.
        let lines = Vec::with_capacity(LINES_FACTOR * body.len());
        let mut batch = Self { lines, ..Self::default() };
        let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
        if first == Some(&b'[') {
            let mut reader = serde_json::Deserializer::from_slice(body);
            let read = Array { batch: &mut batch, arrival }.deserialize(&mut reader);
            read.and_then(|()| reader.end()).map_err(|error| unreadable(&error))?;
            return Ok(batch);
        }
        for (at, line) in body.split(|&byte| byte == b'\n').enumerate() {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let entry = Entry::parse(line).map_err(|why| format!("line {}: {why}", at + 1))?;
            batch.push(&entry, arrival);
        }
        Ok(batch)
    }

    /// Adds one.
    pub(super) fn push(&mut self, entry: &Entry<'_>, arrival: &str) {
        let before = self.lines.len();
        entry.write(arrival, &mut self.lines);
        self.longest_bytes = self.longest_bytes.max(self.lines.len() - before - 1);
        self.entries += 1;
    }
}

/// Reads an array of entries into a batch.
struct Array<'a> {
    batch: &'a mut Batch,
    arrival: &'a str,
}

impl<'de> DeserializeSeed<'de> for Array<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Array<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        let Self { batch, arrival } = self;
        loop {
            let number = batch.entries + 1;
            let named = |why: &dyn fmt::Display| Error::custom(format!("entry {number}: {why}"));
            let fields = array.next_element::<Fields<'de>>().map_err(|why| named(&why))?;
            let Some(fields) = fields else { return Ok(()) };
            let entry = fields.check().map_err(|why| named(&why))?;
            batch.push(&entry, arrival);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARRIVAL: &str = "2026-11-30T12:00:00.123Z";

    fn entry(message: &str) -> String {
        format!("{{\"level\":\"info\",\"message\":\"{message}\",\"service\":\"s\"}}")
    }

    #[test]
    fn arrays_and_lines_are_the_same_entries() {
        let entries = [entry("a"), entry("b"), entry("c")];
        let array =
            Batch::parse(format!(" [{}]\n", entries.join(" ,\n")).as_bytes(), ARRIVAL).unwrap();
        let text = format!("\n{}\r\n", entries.join("\n \n"));
        assert_eq!(Batch::parse(text.as_bytes(), ARRIVAL).unwrap(), array);
        let lines = String::from_utf8(array.lines).unwrap();
        let first = "{\"timestamp\":\"2026-11-30T12:00:00.123Z\",\"level\":\"info\",\"message\":\"a\",\
                     \"service\":\"s\"}";
        assert_eq!((array.entries, lines.lines().next()), (3, Some(first)));
        assert_eq!((lines.lines().count(), array.longest_bytes), (3, first.len()));
        for none in ["", " \n\n", "[]", " [ ] "] {
            assert_eq!(
                Batch::parse(none.as_bytes(), ARRIVAL).unwrap(),
                Batch::default(),
                "{none:?}"
            );
        }
    }

    #[test]
    fn the_first_that_is_wrong_is_named_and_nothing_is_left() {
        let (good, bad) = (entry("a"), entry("a").replace("info", "loud"));
        for (body, begin) in [
            (format!("[{good},{bad},{good}]"), "entry 2: level: \"loud\""),
            (format!("{good}\n\n{bad}"), "line 3: level: \"loud\""),
            (format!("[{good}"), "entry 2: "),
            (format!("[{good},]"), "entry 2: "),
            (format!("[{good}] {good}"), "the body is no JSON that can be read: trailing"),
            (format!("[{good},[{good}]]"), "entry 2: invalid type: sequence, expected an object"),
            (format!("[{}", "[".repeat(100_000)), "entry 1: invalid type: sequence"),
            ("[1]".into(), "entry 1: invalid type: integer `1`"),
            ("{\n\"level\":\"info\"}".into(), "line 1: "),
            (format!("{good}{good}"), "line 1: "),
            ("\0".into(), "line 1: "),
        ] {
            let error = Batch::parse(body.as_bytes(), ARRIVAL).unwrap_err();
            assert!(error.starts_with(begin), "{body:.80}: {error:.200}");
        }
    }

    #[test]
    fn lines_are_at_most_twice_as_long_as_what_they_are_made_of() {
        let shortest = "{\"level\":\"info\",\"message\":\"\\u0001\",\"service\":\"s\"},";
        let body = shortest.repeat(1_000);
        let body = format!("[{}]", &body[..body.len() - 1]);
        let batch = Batch::parse(body.as_bytes(), ARRIVAL).unwrap();
        assert!(batch.lines.len() < LINES_FACTOR * body.len());
    }
}
