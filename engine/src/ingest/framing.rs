//! How a sender marks where its messages end, and their way to whole lines.
//!
//! - `lf`: each ends with LF; [`LineSplitter`] alone.
//! - `octet`: `LEN SP` before each, LEN its bytes in decimal (RFC 6587, 3.4.1).
//! - `nul`: each ends with NUL (RFC 6587, 3.4.2 knows such senders).
//! - `auto`: `octet` where the first bytes are `LEN SP <`, as those of syslog are; else `lf`.
//!
//! A record is a line, so LF ends a record inside a message, too, and the end of a message ends its last
//! line: a message that ends with LF is no record more. Invariants: every byte of a message comes out
//! exactly once, in order; a length is believed only if it can be one, and a sender that does not count
//! octets loses nothing: from the byte on that cannot be a length everything is lines, and that is told
//! once. Memory is that of the splitter, and a length's digits.

use memchr::memchr;

use super::lines::LineSplitter;
use crate::limits::OCTET_MESSAGE_BYTES_MAX;

/// How messages are marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// Each ends with LF.
    #[default]
    Lf,
    /// Its length stands before each.
    Octet,
    /// Each ends with NUL.
    Nul,
    /// As the first bytes say: `Octet` or `Lf`.
    Auto,
}

/// Digits of the longest length.
const DIGITS_MAX: usize = 8;
/// Lines are handed out together up to about this size, bytes.
const BATCH_BYTES: usize = 64 << 10;

/// Where the bytes stand.
#[derive(Debug)]
enum State {
    /// Everything that comes is lines.
    Lines,
    /// Inside a message that ends with NUL, of which there are bytes or none.
    Nul { is_begun: bool },
    /// Where a length is expected.
    Length(Length),
    /// So many bytes of a message are to come.
    Message { left: usize },
}

/// A length as far as it came.
#[derive(Debug, Default)]
struct Length {
    /// Its digits and the space behind them.
    held: [u8; DIGITS_MAX + 1],
    held_len: usize,
    value: usize,
    /// It is the first of a connection of which it is not known that it counts octets.
    is_guess: bool,
    /// It stands behind a message, where some senders put an LF that they did not count.
    may_be_lf: bool,
}

/// What a byte makes of a length.
enum Step {
    /// It is part of it.
    More,
    /// It belongs to what is before it and is dropped.
    Dropped,
    /// The message of this length begins behind it.
    Begins(usize),
    /// The message of this length begins with it.
    BeginsHere(usize),
    /// It is none.
    Wrong,
}

impl Length {
    fn take(&mut self, byte: u8) -> Step {
        let is_ended = self.held_len > 0 && self.held[self.held_len - 1] == b' ';
        let may_be_lf = std::mem::take(&mut self.may_be_lf);
        match byte {
            b'<' if is_ended => Step::BeginsHere(self.value),
            b' ' if !is_ended && self.held_len > 0 => {
                if !self.is_guess {
                    return Step::Begins(self.value);
                }
                self.hold(byte);
                Step::More
            }
            b'0'..=b'9' if !is_ended && (self.held_len > 0 || byte != b'0') => {
                let value = self.value * 10 + usize::from(byte - b'0');
                if self.held_len == DIGITS_MAX || value > OCTET_MESSAGE_BYTES_MAX {
                    return Step::Wrong;
                }
                self.value = value;
                self.hold(byte);
                Step::More
            }
            b'\n' if may_be_lf => Step::Dropped,
            _ => Step::Wrong,
        }
    }

    const fn hold(&mut self, byte: u8) {
        self.held[self.held_len] = byte;
        self.held_len += 1;
    }
}

/// Splits the bytes of one connection into records.
#[derive(Debug)]
pub struct Framer {
    lines: LineSplitter,
    state: State,
    has_lost_count: bool,
}

impl Framer {
    /// `record_size_max` in bytes, without LF; at least 1.
    pub fn new(framing: Framing, record_size_max: usize) -> Self {
        let length = |is_guess| State::Length(Length { is_guess, ..Length::default() });
        let state = match framing {
            Framing::Lf => State::Lines,
            Framing::Nul => State::Nul { is_begun: false },
            Framing::Octet => length(false),
            Framing::Auto => length(true),
        };
        Self { lines: LineSplitter::new(record_size_max), state, has_lost_count: false }
    }

    /// The sender has said in other words that it sends lines. Nothing was taken so far.
    pub fn expect_lines(&mut self) {
        self.state = State::Lines;
    }

    /// Takes the next bytes; hands whole records to `sink`, in batches.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl FnMut(&[u8])) {
        let mut rest = bytes;
        let mut batch = Vec::new();
        while !rest.is_empty() && !matches!(self.state, State::Lines) {
            rest = self.step(rest, &mut batch);
            if batch.len() >= BATCH_BYTES {
                sink(&batch);
                batch.clear();
            }
        }
        if !batch.is_empty() {
            sink(&batch);
        }
        if !rest.is_empty() {
            self.lines.feed(rest, sink);
        }
    }

    /// Takes some of the bytes, adds records to `out`; what is left of them.
    fn step<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let mut sink = |lines: &[u8]| out.extend_from_slice(lines);
        match &mut self.state {
            State::Lines => bytes,
            State::Nul { is_begun } => {
                let end = memchr(0, bytes);
                let (message, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
                let has_bytes = *is_begun || !message.is_empty();
                *is_begun = end.is_none();
                self.lines.feed(message, &mut sink);
                if end.is_some() && !has_bytes {
                    sink(b"\n");
                } else if end.is_some() {
                    self.lines.finish(&mut sink);
                }
                rest.get(1..).unwrap_or_default()
            }
            State::Message { left } => {
                let (message, rest) = bytes.split_at(bytes.len().min(*left));
                *left -= message.len();
                self.lines.feed(message, &mut sink);
                if *left == 0 {
                    self.lines.finish(&mut sink);
                    self.state = State::Length(Length { may_be_lf: true, ..Length::default() });
                }
                rest
            }
            State::Length(length) => match length.take(bytes[0]) {
                Step::More | Step::Dropped => &bytes[1..],
                Step::Begins(left) => {
                    self.state = State::Message { left };
                    &bytes[1..]
                }
                Step::BeginsHere(left) => {
                    self.state = State::Message { left };
                    bytes
                }
                Step::Wrong => {
                    self.has_lost_count = !length.is_guess;
                    self.give_back(&mut sink);
                    bytes
                }
            },
        }
    }

    /// What was held for a length is text, and so is everything behind it.
    fn give_back(&mut self, sink: &mut impl FnMut(&[u8])) {
        if let State::Length(length) = std::mem::replace(&mut self.state, State::Lines) {
            self.lines.feed(&length.held[..length.held_len], sink);
        }
    }

    /// The connection ended: what has come of an unfinished message is a record. Says whether there
    /// was one.
    pub fn finish(&mut self, sink: &mut impl FnMut(&[u8])) -> bool {
        self.give_back(sink);
        self.lines.finish(sink)
    }

    /// Throws the unfinished line away: its sender will send it again. Says its length, bytes.
    pub fn discard(&mut self) -> usize {
        self.lines.discard()
    }

    /// Hands the unfinished line out as a record before its end is known; the rest of it is another.
    pub fn cut_partial(&mut self, sink: &mut impl FnMut(&[u8])) {
        self.lines.cut_partial(sink);
    }

    /// Whether a sender that counts octets was found not to, since this was asked last.
    pub const fn take_lost_count(&mut self) -> bool {
        std::mem::replace(&mut self.has_lost_count, false)
    }

    /// The unfinished line, without LF.
    pub fn partial(&self) -> &[u8] {
        self.lines.partial()
    }

    /// Bytes of the unfinished line.
    pub const fn partial_len(&self) -> usize {
        self.lines.partial_len()
    }

    /// Cuts so far: a line cut into three records counts two.
    pub const fn cuts(&self) -> u64 {
        self.lines.cuts()
    }

    /// As [`LineSplitter::uncut_bytes`]; 0 where what comes is not lines for certain.
    pub const fn uncut_bytes(&self) -> usize {
        if matches!(self.state, State::Lines) { self.lines.uncut_bytes() } else { 0 }
    }

    /// As [`LineSplitter::take_behind_partial`].
    pub fn take_behind_partial(&mut self, bytes: &[u8]) -> usize {
        debug_assert!(matches!(self.state, State::Lines));
        self.lines.take_behind_partial(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The records of one message, by definition.
    fn lines_of(message: &[u8], max: usize) -> Vec<Vec<u8>> {
        let mut lines: Vec<&[u8]> = message.split(|&b| b == b'\n').collect();
        if lines.len() > 1 && lines.last().is_some_and(|line| line.is_empty()) {
            lines.pop();
        }
        let cut = |line: &&[u8]| match line.len() {
            0 => vec![Vec::new()],
            _ => line.chunks(max).map(<[u8]>::to_vec).collect(),
        };
        lines.iter().flat_map(cut).collect()
    }

    /// The records of whole input that is not framed at all.
    fn lines_of_all(bytes: &[u8], max: usize) -> Vec<Vec<u8>> {
        if bytes.is_empty() { Vec::new() } else { lines_of(bytes, max) }
    }

    /// The length before a message, and what stands behind it.
    fn read_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
        let space = bytes.iter().position(|&b| b == b' ')?;
        let digits = std::str::from_utf8(&bytes[..space]).ok()?;
        let is_length = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        let value =
            digits.parse().ok().filter(|&value| is_length && value <= OCTET_MESSAGE_BYTES_MAX)?;
        Some((value, &bytes[space + 1..]))
    }

    /// The records of any input to one that counts octets.
    fn octet_model(mut bytes: &[u8], max: usize, is_guess: bool) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        let is_plain = |(_, rest): &(usize, &[u8])| is_guess && rest.first() != Some(&b'<');
        if read_length(bytes).is_none_or(|length| is_plain(&length)) {
            return lines_of_all(bytes, max);
        }
        while let Some((len, rest)) = read_length(bytes) {
            let (message, rest) = rest.split_at(len.min(rest.len()));
            if !message.is_empty() {
                records.extend(lines_of(message, max));
            }
            bytes =
                if message.len() == len { rest.strip_prefix(b"\n").unwrap_or(rest) } else { rest };
        }
        records.extend(lines_of_all(bytes, max));
        records
    }

    fn records(framing: Framing, max: usize, pieces: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
        let mut framer = Framer::new(framing, max);
        let mut records = Vec::new();
        let mut sink = |batch: &[u8]| {
            let body = batch.strip_suffix(b"\n").expect("a batch ends in LF");
            records.extend(body.split(|&b| b == b'\n').map(<[u8]>::to_vec));
        };
        for piece in pieces {
            framer.feed(piece, &mut sink);
        }
        framer.finish(&mut sink);
        let lost = framer.take_lost_count();
        (records, lost)
    }

    fn text(records: Vec<Vec<u8>>) -> Vec<String> {
        records.into_iter().map(|record| String::from_utf8(record).unwrap()).collect()
    }

    fn message() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![4 => Just(b'x'), 1 => Just(b'\n'), 1 => Just(b' '), 1 => 1..=255_u8];
        proptest::collection::vec(byte, 1..40)
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_split(
            messages in proptest::collection::vec(message(), 0..8),
            piece_len in 1..50usize,
            max in 1..50usize,
        ) {
            let expected: Vec<_> = messages.iter().flat_map(|m| lines_of(m, max)).collect();
            let octets: Vec<u8> = messages
                .iter()
                .flat_map(|m| [m.len().to_string().as_bytes(), b" ", m].concat())
                .collect();
            let nuls: Vec<u8> = messages.iter().flat_map(|m| [&m[..], b"\0"].concat()).collect();
            for (framing, bytes) in [(Framing::Octet, octets), (Framing::Nul, nuls)] {
                let pieces: Vec<_> = bytes.chunks(piece_len).collect();
                prop_assert_eq!(records(framing, max, &pieces), (expected.clone(), false));
            }
        }

        /// Whatever comes is what the model says, and no byte of text is lost.
        #[test]
        fn fuzz_counted_messages(
            start in "([1-9][0-9]{0,9} ?<?[a-z\n]{0,12}\n?){0,4}",
            tail in proptest::collection::vec(any::<u8>(), 0..30),
            piece_len in 1..20usize,
            max in 1..20usize,
        ) {
            let bytes = [start.as_bytes(), &tail].concat();
            let pieces: Vec<_> = bytes.chunks(piece_len).collect();
            for (framing, is_guess) in [(Framing::Octet, false), (Framing::Auto, true)] {
                let (got, _) = records(framing, max, &pieces);
                prop_assert_eq!(&got, &octet_model(&bytes, max, is_guess), "{:?}", framing);
            }
            prop_assert_eq!(records(Framing::Lf, max, &pieces).0, lines_of_all(&bytes, max));
        }
    }

    #[test]
    fn every_split_of_a_syslog_stream_gives_its_messages() {
        let bytes = b"11 <13>1 hello12 <13>1 two\nli\n5 <1>a\n";
        let expected = ["<13>1 hello", "<13>1 two", "li", "<1>a"];
        for framing in [Framing::Octet, Framing::Auto] {
            for cut in 0..=bytes.len() {
                let (got, lost) = records(framing, 100, &[&bytes[..cut], &bytes[cut..]]);
                assert_eq!(
                    (text(got), lost),
                    (expected.map(str::to_owned).to_vec(), false),
                    "{cut}"
                );
            }
        }
    }

    #[test]
    fn logs_that_begin_with_a_number_are_lines_unless_they_are_told_to_be_counted() {
        let bytes = b"200 GET /\n404 GET /x\n";
        let (got, lost) = records(Framing::Auto, 100, &[bytes]);
        assert_eq!((text(got), lost), (vec!["200 GET /".into(), "404 GET /x".into()], false));
        let (got, lost) = records(Framing::Octet, 100, &[b"9 GET /\nGET"]);
        assert_eq!((text(got), lost), (vec!["GET /".into(), "GET".into()], false));
    }

    #[test]
    fn lengths_that_cannot_be_one_are_text_and_told_once() {
        for bad in
            ["0 x", "007 <", "x", "16777217 <a", "99999999999 <a", "18446744073709551617 a", " "]
        {
            let (got, lost) = records(Framing::Octet, 100, &[b"2 <a", bad.as_bytes()]);
            assert_eq!((text(got), lost), (vec!["<a".to_owned(), bad.to_owned()], true), "{bad}");
        }
        // One LF between messages is the sender's habit; a second one is a line.
        let (got, lost) = records(Framing::Octet, 100, &[b"2 <a\n2 <b\n\n2 <c"]);
        let expected = ["<a", "<b", "", "2 <c"].map(str::to_owned).to_vec();
        assert_eq!((text(got), lost), (expected, true));
        // The longest length costs no memory before its bytes come.
        let mut framer = Framer::new(Framing::Octet, 100);
        framer.feed(b"16777216 <a", &mut |_| panic!("nothing is whole"));
        assert!(framer.partial_len() == 2 && framer.uncut_bytes() == 0);
    }

    #[test]
    fn what_is_not_finished_is_kept_at_the_end() {
        for (framing, bytes, expected) in [
            (Framing::Octet, &b"9 <a>half"[..], "<a>half"),
            (Framing::Octet, b"12", "12"),
            (Framing::Auto, b"12 ", "12 "),
            (Framing::Nul, b"half", "half"),
        ] {
            assert_eq!(text(records(framing, 100, &[bytes]).0), [expected]);
        }
        assert_eq!(text(records(Framing::Nul, 100, &[b"\0\n\0a\0\0"]).0), ["", "", "a", ""]);
        assert!(records(Framing::Octet, 100, &[]).0.is_empty());
    }

    #[test]
    fn lines_are_received_in_place_only_where_they_are_known_to_be_lines() {
        for (framing, bytes, is_lines) in [
            (Framing::Lf, &b""[..], true),
            (Framing::Auto, b"", false),
            (Framing::Auto, b"a", true),
            (Framing::Auto, b"5 <", false),
            (Framing::Octet, b"", false),
            (Framing::Nul, b"a\n", false),
        ] {
            let mut framer = Framer::new(framing, 100);
            framer.feed(bytes, &mut |_| ());
            assert_eq!(framer.uncut_bytes() > 0, is_lines, "{framing:?} {bytes:?}");
        }
    }
}
