//! From the bytes of an answer to whole lines, which are printed, and its end.
//!
//! Invariants: a record is printed once it is whole, and never in part; the last line of an answer
//! (`# end {…}` behind text, `{"end":{…}}` behind NDJSON) is kept back and judged, not printed with
//! the records, and neither are signs of life. Memory is bounded by one line, and by [`HELD_BYTES_MAX`]
//! where an answer that comes newest first is printed oldest first.

use std::borrow::Cow;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::search::Format;
use engine::ulid::ULID_TEXT_LEN;
use memchr::{memchr, memchr_iter, memmem, memrchr};
use serde::Deserialize;
use serde_json::Value;

use super::printer::Printer;

/// Longest line of a node: a record of the ceiling size of which each byte is escaped (`\u0001`), and
/// its names.
pub(crate) const LINE_BYTES_MAX: usize = 7 * engine::limits::RECORD_SIZE_CEILING;

/// Most that is held of an answer in order to turn it around, bytes: what a small host can spare.
pub(crate) const HELD_BYTES_MAX: usize = 256 << 20;

const LF: u8 = b'\n';

/// How the records of an answer are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `ULID SP record LF`; printed as the printer's style says.
    Text,
    /// One JSON object a line; printed as they are.
    Json,
}

impl Form {
    /// The content type that is asked for and required.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "application/x-oklog-lines",
            Self::Json => "application/x-ndjson",
        }
    }

    /// What stands before the ULID of a line.
    pub(crate) const fn before_ulid(self) -> &'static [u8] {
        match self {
            Self::Text => b"",
            Self::Json => b"{\"ulid\":\"",
        }
    }

    /// The line with which a node that has found nothing of late shows that it is there.
    pub(crate) const fn sign_of_life(self) -> &'static [u8] {
        let format = match self {
            Self::Text => Format::EndedText,
            Self::Json => Format::Ndjson,
        };
        match format.sign_of_life() {
            Some(sign) => sign,
            None => b"",
        }
    }

    /// What a last line begins with, and what of it is a JSON object.
    fn end_of(self, line: &[u8]) -> Option<Value> {
        match self {
            Self::Text => serde_json::from_slice(line.strip_prefix(b"# end ")?).ok(),
            Self::Json if line.starts_with(b"{\"end\"") => {
                let mut object: Value = serde_json::from_slice(line).ok()?;
                object.get_mut("end").map(Value::take)
            }
            Self::Json => None,
        }
    }
}

/// What an answer says of itself in its last line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// The object.
    pub(super) object: Value,
    /// The whole line, as it came.
    line: Vec<u8>,
}

impl End {
    /// How many records it counts.
    pub(super) fn records(&self) -> Option<u64> {
        self.object["records"].as_u64()
    }

    /// Whether nothing is missing.
    pub(super) fn is_complete(&self) -> bool {
        self.object["complete"] == true
    }

    /// Whether the node ended the answer before its time, so that the rest can be asked for.
    pub(super) fn is_early(&self) -> bool {
        self.object["ended_early"] == true
    }

    /// Spans that are missing, but not what an early end leaves out.
    pub(super) fn missing_count(&self) -> u64 {
        let counted = self.object["missing_count"].as_u64();
        let count = counted.unwrap_or_else(|| u64::from(!self.is_complete()));
        count.saturating_sub(u64::from(self.is_early()))
    }

    /// The same, as far as they are listed.
    pub(super) fn missing(&self) -> &[Value] {
        let listed = self.object["missing"].as_array().map_or(&[][..], Vec::as_slice);
        // The early end was found missing last.
        &listed[..listed.len().min(self.missing_count() as usize)]
    }
}

/// A record as nodes write it in JSON.
#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    ulid: Cow<'a, str>,
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    record: Option<Cow<'a, str>>,
    record_b64: Option<String>,
}

/// Prints the record of a line of JSON as text.
pub(super) fn print_object(printer: &mut Printer<'_>, line: &[u8]) -> io::Result<()> {
    let foreign = || io::Error::new(io::ErrorKind::InvalidData, "a line that is no record");
    let object: Object<'_> = serde_json::from_slice(line).map_err(|_| foreign())?;
    let bytes = match (&object.record, &object.record_b64) {
        (Some(text), None) => Cow::Borrowed(text.as_bytes()),
        (None, Some(text)) => Cow::Owned(STANDARD.decode(text).map_err(|_| foreign())?),
        _ => return Err(foreign()),
    };
    printer.record(&object.ulid, &object.topic, &bytes)
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Manner {
    /// Objects are printed as text.
    pub(super) as_text: bool,
    /// What comes is printed once all of it has come, the last record first.
    pub(super) is_turned: bool,
    /// The last line is not printed.
    pub(super) is_part: bool,
}

/// Takes answers apart, one after the other.
pub(super) struct Lines<'a> {
    printer: Printer<'a>,
    form: Form,
    manner: Manner,
    /// What has come, where it is turned around.
    held: Vec<u8>,
    /// A line that has not ended.
    line: Vec<u8>,
    /// Records of this answer.
    pub(super) records: u64,
    /// Records of all of them.
    pub(super) printed: u64,
    /// ULID of the last one.
    pub(super) last: Option<String>,
    /// Signs of life of this answer.
    pub(super) signs: u64,
    /// How this answer ended.
    pub(super) end: Option<End>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(printer: Printer<'a>, form: Form, manner: Manner) -> Self {
        Self {
            printer,
            form,
            manner,
            held: Vec::new(),
            line: Vec::new(),
            records: 0,
            printed: 0,
            last: None,
            signs: 0,
            end: None,
        }
    }

    /// What is asked for and required.
    pub(super) const fn content_type(&self) -> &'static str {
        self.form.content_type()
    }

    /// Another answer begins: what came of a line of the one before is not printed.
    pub(super) fn begin(&mut self) {
        self.line.clear();
        (self.records, self.signs, self.end) = (0, 0, None);
    }

    /// Takes the next bytes of the answer and prints what is whole: the next may be long in coming.
    pub(super) fn take(&mut self, piece: &[u8]) -> io::Result<()> {
        let Some(lf) = memrchr(LF, piece) else { return self.keep(piece) };
        let (mut whole, rest) = piece.split_at(lf + 1);
        if !self.line.is_empty() {
            let (line_end, others) = whole.split_at(memchr(LF, whole).map_or(0, |lf| lf + 1));
            self.keep(line_end)?;
            whole = others;
            let line = std::mem::take(&mut self.line);
            self.print(&line)?;
        }
        self.print(whole)?;
        self.keep(rest)?;
        self.printer.flush()
    }

    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.line.len() + bytes.len() > LINE_BYTES_MAX {
            let words = "a line longer than any record";
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        if !bytes.is_empty() {
            // Whatever comes behind an end, it was none.
            self.end = None;
            self.line.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Whole lines, without the signs of life among them.
    fn print(&mut self, lines: &[u8]) -> io::Result<()> {
        let sign = self.form.sign_of_life();
        let mut rest = lines;
        while let Some(at) = find_line(rest, sign) {
            self.print_records(&rest[..at])?;
            (self.signs, self.end) = (self.signs + 1, None);
            rest = &rest[at + sign.len()..];
        }
        self.print_records(rest)
    }

    /// Whole lines; the last one may be that of the answer.
    fn print_records(&mut self, lines: &[u8]) -> io::Result<()> {
        let Some(body) = lines.len().checked_sub(1).map(|len| &lines[..len]) else {
            return Ok(());
        };
        let last_start = memrchr(LF, body).map_or(0, |lf| lf + 1);
        let last = &lines[last_start..];
        self.end = self.form.end_of(last).map(|object| End { object, line: last.to_vec() });
        let records = if self.end.is_some() { &lines[..last_start] } else { lines };
        if records.is_empty() {
            return Ok(());
        }
        if self.manner.is_turned {
            self.hold(records)?;
        } else {
            self.show(records)?;
        }
        let count = memchr_iter(LF, records).count() as u64;
        (self.records, self.printed) = (self.records + count, self.printed + count);
        self.last = self.ulid_of_last(records).or_else(|| self.last.take());
        Ok(())
    }

    fn hold(&mut self, records: &[u8]) -> io::Result<()> {
        if self.held.len() + records.len() > HELD_BYTES_MAX {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.held.extend_from_slice(records);
        Ok(())
    }

    /// Prints what was held back, the last record first.
    pub(super) fn print_held(&mut self) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        let mut rest = &held[..];
        while let Some(body) = rest.len().checked_sub(1).map(|len| &rest[..len]) {
            let (others, line) = rest.split_at(memrchr(LF, body).map_or(0, |lf| lf + 1));
            self.show(line)?;
            rest = others;
        }
        self.printer.flush()
    }

    /// Whole records.
    fn show(&mut self, records: &[u8]) -> io::Result<()> {
        match self.form {
            Form::Text => self.printer.take(records),
            Form::Json if !self.manner.as_text => self.printer.json(records),
            Form::Json => {
                let mut lines = records.split_inclusive(|&byte| byte == LF);
                lines.try_for_each(|line| print_object(&mut self.printer, line))
            }
        }
    }

    fn ulid_of_last(&self, records: &[u8]) -> Option<String> {
        let start = memrchr(LF, &records[..records.len() - 1]).map_or(0, |lf| lf + 1);
        let ulid = records[start..].strip_prefix(self.form.before_ulid())?.get(..ULID_TEXT_LEN)?;
        String::from_utf8(ulid.to_vec()).ok()
    }

    /// Prints the last line of the whole, where it is part of what was asked for: as it came, or with
    /// what is true of several answers together.
    pub(super) fn print_end(&mut self, of_all: Option<Value>) -> io::Result<()> {
        let is_wanted = !self.manner.as_text && !self.manner.is_part;
        if let (Form::Json, true, Some(end)) = (self.form, is_wanted, &self.end) {
            match of_all {
                None => self.printer.json(&end.line)?,
                Some(object) => {
                    let line = format!("{}\n", serde_json::json!({ "end": object }));
                    self.printer.json(line.as_bytes())?;
                }
            }
        }
        self.printer.flush()
    }
}

/// Where a line, given with its LF, stands among lines.
fn find_line(lines: &[u8], line: &[u8]) -> Option<usize> {
    memmem::find_iter(lines, line).find(|&at| at == 0 || lines[at - 1] == LF)
}

#[cfg(test)]
mod tests {
    use super::super::printer::Style;
    use super::*;

    const TEXT: &[u8] = b"01HF7YAT00000000000000000A one\n01HF7YAT00000000000000000B # end {}\n\
        # end {\"complete\":true,\"records\":2}\n";
    const JSON: &[u8] = b"{\"ulid\":\"01HF7YAT00000000000000000A\",\"record\":\"one\"}\n\
        {\"ulid\":\"01HF7YAT00000000000000000B\",\"record\":\"{\\\"end\\\"\"}\n\
        {\"end\":{\"complete\":true,\"records\":2}}\n";

    fn printed(form: Form, pieces: &[&[u8]]) -> (Vec<u8>, u64, Option<String>, Option<End>) {
        let mut out = Vec::new();
        let printer = Printer::new(&mut out, Style::default());
        let mut lines = Lines::new(printer, form, Manner::default());
        for piece in pieces {
            lines.take(piece).unwrap();
        }
        let (records, last, end) = (lines.records, lines.last.clone(), lines.end.clone());
        (out, records, last, end)
    }

    #[test]
    fn records_are_printed_whole_and_the_end_is_found_however_the_answer_is_cut() {
        for (form, answer, expected) in [
            (Form::Text, TEXT, &b"one\n# end {}\n"[..]),
            (
                Form::Json,
                JSON,
                JSON.split_inclusive(|&b| b == LF).take(2).collect::<Vec<_>>().concat().leak(),
            ),
        ] {
            for piece_len in 1..answer.len() {
                let pieces: Vec<_> = answer.chunks(piece_len).collect();
                let (out, records, last, end) = printed(form, &pieces);
                assert_eq!(out, expected);
                assert_eq!((records, last.as_deref()), (2, Some("01HF7YAT00000000000000000B")));
                let end = end.unwrap();
                assert!(end.is_complete() && end.records() == Some(2) && !end.is_early());
            }
        }
    }

    #[test]
    fn an_answer_is_turned_around_record_by_record() {
        for (form, answer) in [(Form::Text, TEXT), (Form::Json, JSON)] {
            let mut expected: Vec<_> = printed(form, &[answer]).0;
            let mut lines: Vec<_> = expected.split_inclusive(|&b| b == LF).collect();
            lines.reverse();
            expected = lines.concat();
            for piece_len in [1, 7, 1000] {
                let mut out = Vec::new();
                let printer = Printer::new(&mut out, Style::default());
                let manner = Manner { is_turned: true, is_part: true, ..Manner::default() };
                let mut lines = Lines::new(printer, form, manner);
                answer.chunks(piece_len).for_each(|piece| lines.take(piece).unwrap());
                assert_eq!(lines.printed, 2);
                lines.print_held().unwrap();
                lines.print_end(None).unwrap();
                drop(lines);
                assert_eq!(out, expected);
            }
        }
    }

    #[test]
    fn objects_are_printed_as_the_bytes_that_they_stand_for() {
        let object = |rest: &str| {
            format!("{{\"ulid\":\"01HF7YAT00000000000000000A\",\"topic\":\"web\",{rest}}}\n")
        };
        let print = |line: &str| {
            let mut out = Vec::new();
            let style = Style { topic: true, ..Style::default() };
            let manner = Manner { as_text: true, ..Manner::default() };
            let mut lines = Lines::new(Printer::new(&mut out, style), Form::Json, manner);
            let taken = lines.take(line.as_bytes());
            drop(lines);
            taken.map(|()| out)
        };
        for (rest, bytes) in [
            (
                r#""record":"say \"hi\"\u0001\ud83d\ude00""#,
                "web say \"hi\"\u{1}\u{1f600}\n".as_bytes(),
            ),
            (r#""record":"","other":[1]"#, b"web \n"),
            (r#""record_b64":"YQD/""#, b"web a\0\xff\n"),
        ] {
            assert_eq!(print(&object(rest)).unwrap(), bytes, "{rest}");
        }
        for foreign in [&object("\"record_b64\":\"*\"")[..], &object("\"x\":1"), "[1]\n", "\n"] {
            let kind = print(foreign).unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::InvalidData, "{foreign}");
        }
    }

    #[test]
    fn signs_of_life_are_no_records_wherever_they_stand() {
        for (form, answer, expected) in [(Form::Text, TEXT, 2), (Form::Json, JSON, 2)] {
            let sign = form.sign_of_life();
            let lines: Vec<_> = answer.split_inclusive(|&b| b == LF).collect();
            let lively = [sign, lines[0], sign, sign, lines[1], sign, lines[2]].concat();
            let whole = printed(form, &[answer]);
            for piece_len in 1..=lively.len() {
                let pieces: Vec<_> = lively.chunks(piece_len).collect();
                let (out, records, last, end) = printed(form, &pieces);
                assert_eq!((&out, records, &last), (&whole.0, expected, &whole.2));
                assert_eq!(end, whole.3);
            }
        }
        // Only as a line of its own.
        let record = b"01HF7YAT00000000000000000A x# alive {}\n";
        assert_eq!(printed(Form::Text, &[record]).0, b"x# alive {}\n");
    }

    #[test]
    fn of_an_answer_that_is_cut_anywhere_whole_records_are_printed_and_no_end_is_seen() {
        for (form, answer) in [(Form::Text, TEXT), (Form::Json, JSON)] {
            let (whole, ..) = printed(form, &[answer]);
            for len in 0..answer.len() {
                let (out, records, _, end) = printed(form, &[&answer[..len]]);
                assert_eq!(end, None, "{len}");
                assert!(whole.starts_with(&out) && (out.is_empty() || out.ends_with(b"\n")));
                assert_eq!(records, memchr_iter(LF, &out).count() as u64);
            }
            let (.., end) = printed(form, &[answer, b"more\n"]);
            assert_eq!(end, None, "an end is the last line");
        }
    }

    proptest::proptest! {
        /// `PROPTEST_CASES` runs more of them.
        #[test]
        fn fuzz_answers(
            lines in "(01HF7YAT00000000000000000A [a-z]{0,9}\n|\\{\"ulid\":\"[0-9A-Z]{0,27}\"?\n|\
                      # end (\\{\"records\":[0-9]{0,3}\\})?\n|\\{\"end\":[0-9]?\\}?\n|\n|\\PC{0,9}){0,9}",
            piece_len in 1..40_usize,
        ) {
            let answer = lines.as_bytes();
            for form in [Form::Text, Form::Json] {
                let pieces: Vec<_> = answer.chunks(piece_len).collect();
                let (out, records, last, end) = printed(form, &pieces);
                let last_line = answer.split_inclusive(|&byte| byte == LF).next_back().unwrap_or_default();
                let expected = form.end_of(last_line).filter(|_| last_line.ends_with(b"\n"));
                proptest::prop_assert_eq!(end.map(|end| end.object), expected);
                proptest::prop_assert!(last.is_none_or(|id| id.len() == ULID_TEXT_LEN));
                if form == Form::Json {
                    proptest::prop_assert_eq!(records, memchr_iter(LF, &out).count() as u64);
                    proptest::prop_assert!(out.is_empty() || out.ends_with(b"\n"));
                }
            }
        }
    }

    #[test]
    fn what_an_early_end_leaves_out_is_no_gap() {
        let object = |missing: &str, count: u64| {
            let text = format!(
                "# end {{\"ended_early\":true,\"complete\":false,\"missing\":[{missing}],\
                 \"missing_count\":{count}}}\n"
            );
            printed(Form::Text, &[text.as_bytes()]).3.unwrap()
        };
        let end = object("{\"reason\":\"ended\"}", 1);
        assert_eq!((end.missing_count(), end.missing().len()), (0, 0));
        let end = object("{\"reason\":\"damage\"},{\"reason\":\"ended\"}", 2);
        assert_eq!((end.missing_count(), &end.missing()[0]["reason"]), (1, &"damage".into()));
    }
}
