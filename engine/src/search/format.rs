//! Records as bytes: `ULID SP record LF`, or NDJSON objects as in `docs/protocol.md`.
//!
//! Invariants: a record's bytes come out exactly in text; NDJSON carries bytes that are not UTF-8
//! as base64 in `record_b64`; a record is written piece by piece, so that the output buffer stays
//! bounded however long the record is.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::spec::{Format, Stats};
use crate::ulid::{ULID_TEXT_LEN, Ulid};

/// Bytes of a record that are written at a time; a multiple of 3, so that base64 needs padding
/// only at the end. JSON can make six bytes of one.
const STEP_BYTES: usize = 6 << 10;

/// Where the writing of a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing of it is written.
    Start,
    /// Bytes of it that are written, and whether they go as they are (UTF-8 for JSON).
    Body { done: usize, plain: bool },
}

/// Writes records one after the other.
pub(crate) struct RecordWriter {
    format: Format,
    stage: Stage,
    /// The last time written and its text: many records share it.
    time: (u64, String),
    /// The last ULID written and its text: the next one differs little.
    id: (Ulid, [u8; ULID_TEXT_LEN]),
    /// The next record is shown for the sake of others.
    pub(super) is_context: bool,
}

impl RecordWriter {
    pub(crate) fn new(format: Format) -> Self {
        let id = (Ulid::MIN, [b'0'; ULID_TEXT_LEN]);
        Self { format, stage: Stage::Start, time: (0, rfc3339(0)), id, is_context: false }
    }

    fn id_text(&mut self, id: Ulid) -> &[u8; ULID_TEXT_LEN] {
        id.encode_over(self.id.0, &mut self.id.1);
        self.id.0 = id;
        &self.id.1
    }

    /// Writes whole records of a run in text, the first of them `first`, `lines` with their LFs:
    /// until `records_max` are written, `out` holds `full` bytes, or one is long or something else
    /// than text is wanted, which [`RecordWriter::write`] does. How many, and their bytes.
    pub(super) fn write_lines(
        &mut self,
        out: &mut Vec<u8>,
        (full, records_max): (usize, u64),
        (first, lines): (Ulid, &[u8]),
    ) -> (u32, usize) {
        let (mut records, mut done) = (0, 0);
        if !self.format.is_text() || self.stage != Stage::Start {
            return (0, 0);
        }
        while u64::from(records) < records_max && out.len() < full {
            let left = &lines[done..];
            let Some(lf) = memchr::memchr(b'\n', left).filter(|&lf| lf < STEP_BYTES) else { break };
            let mut head = [b' '; ULID_TEXT_LEN + 1];
            head[..ULID_TEXT_LEN].copy_from_slice(self.id_text(first.plus(u64::from(records))));
            out.extend_from_slice(&head);
            out.extend_from_slice(&left[..=lf]);
            records += 1;
            done += lf + 1;
        }
        (records, done)
    }

    /// Whether a record is begun and not ended.
    pub(super) fn is_inside_a_record(&self) -> bool {
        self.stage != Stage::Start
    }

    /// Where the writing stands, to be restored when what is written next is taken back.
    pub(super) const fn stage(&self) -> Stage {
        self.stage
    }

    /// Goes back to where the writing stood.
    pub(super) const fn restore(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Forgets the record that was begun.
    pub(super) const fn reset(&mut self) {
        self.stage = Stage::Start;
    }

    /// Writes (on) a record, given without its LF, until it ends or `out` holds `full` bytes or
    /// somewhat more. Whether it ended; if not, the same record is to be given again.
    pub(crate) fn write(
        &mut self,
        out: &mut Vec<u8>,
        full: usize,
        record: (Ulid, &str, &[u8]),
    ) -> bool {
        let (id, topic, bytes) = record;
        let (mut done, plain) = match self.stage {
            Stage::Start => (0, self.begin(out, id, topic, bytes)),
            Stage::Body { done, plain } => (done, plain),
        };
        while done < bytes.len() {
            if out.len() >= full {
                self.stage = Stage::Body { done, plain };
                return false;
            }
            done = match (self.format, plain) {
                (Format::Text | Format::EndedText, _) => {
                    let end = bytes.len().min(done + (full - out.len()).max(STEP_BYTES));
                    out.extend_from_slice(&bytes[done..end]);
                    end
                }
                (Format::Ndjson, true) => {
                    let end = char_boundary(bytes, done + STEP_BYTES);
                    escape(out, &bytes[done..end]);
                    end
                }
                (Format::Ndjson, false) => {
                    let end = bytes.len().min(done + STEP_BYTES);
                    encode_base64(out, &bytes[done..end]);
                    end
                }
            };
        }
        out.extend_from_slice(if self.format.is_text() { b"\n" } else { b"\"}\n" });
        self.stage = Stage::Start;
        true
    }

    /// Writes what stands before the record's bytes; whether they go as they are.
    fn begin(&mut self, out: &mut Vec<u8>, id: Ulid, topic: &str, bytes: &[u8]) -> bool {
        let text = *self.id_text(id);
        if self.format.is_text() {
            out.extend_from_slice(&text);
            out.push(b' ');
            return true;
        }
        if self.time.0 != id.ms() {
            self.time = (id.ms(), rfc3339(id.ms()));
        }
        let plain = std::str::from_utf8(bytes).is_ok();
        out.extend_from_slice(b"{\"ulid\":\"");
        out.extend_from_slice(&text);
        out.extend_from_slice(b"\",\"time\":\"");
        out.extend_from_slice(self.time.1.as_bytes());
        out.extend_from_slice(b"\",\"topic\":\"");
        escape(out, topic.as_bytes());
        out.push(b'"');
        if self.is_context {
            out.extend_from_slice(b",\"context\":true");
        }
        out.extend_from_slice(if plain { b",\"record\":\"" } else { b",\"record_b64\":\"" });
        plain
    }

    /// The last line of an answer that has one.
    pub(super) fn end(&self, out: &mut Vec<u8>, stats: &Stats) {
        if !self.format.has_end() {
            return;
        }
        let stats = stats.shown();
        let missing: Vec<serde_json::Value> = stats
            .missing
            .iter()
            .map(|missing| {
                serde_json::json!({
                    "from": missing.from.to_string(),
                    "to": missing.to.to_string(),
                    "node": missing.node,
                    "reason": missing.reason,
                })
            })
            .collect();
        let mut end = serde_json::json!({
            "records": stats.records,
            "complete": stats.complete,
            "ended_early": stats.ended_early,
            "missing": missing,
            "missing_count": stats.missing_count,
            "segments": stats.segments,
            "bytes_scanned": stats.bytes_scanned,
            "blocks_read": stats.blocks_read,
            "blocks_skipped": stats.blocks_skipped.all(),
        });
        if stats.context_records > 0 {
            end["context_records"] = stats.context_records.into();
        }
        let line = match self.format {
            Format::Ndjson => serde_json::json!({ "end": end }).to_string(),
            Format::Text | Format::EndedText => format!("# end {end}"),
        };
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
}

/// The largest character boundary of valid UTF-8 that is not behind `at`.
fn char_boundary(bytes: &[u8], at: usize) -> usize {
    if at >= bytes.len() {
        return bytes.len();
    }
    (at.saturating_sub(3)..=at).rev().find(|&i| bytes[i] & 0xC0 != 0x80).unwrap_or(at)
}

/// Appends UTF-8 with what JSON strings may not hold escaped.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut rest = bytes;
    while let Some(at) = first_special(rest) {
        out.extend_from_slice(&rest[..at]);
        let byte = rest[at];
        let short = match byte {
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => b'u',
            _ => byte,
        };
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            out.extend_from_slice(b"00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Where the first byte is that JSON wants escaped. Steps of 32 bytes without a way out become
/// vector instructions.
fn first_special(bytes: &[u8]) -> Option<usize> {
    const STEP: usize = 32;
    let is_special = |byte: u8| matches!(byte, 0..0x20 | b'"' | b'\\');
    let count = |step: &[u8; STEP]| step.iter().map(|&b| u8::from(is_special(b))).sum::<u8>();
    let (steps, _) = bytes.as_chunks::<STEP>();
    let at = steps.iter().take_while(|step| count(step) == 0).count() * STEP;
    bytes[at..].iter().position(|&b| is_special(b)).map(|found| at + found)
}

fn encode_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
}

/// Unix milliseconds as RFC 3339 in UTC with milliseconds. Years beyond 9999, which 48 bits can
/// hold, keep their fifth digit. Days to dates after Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>).
pub fn rfc3339(ms: u64) -> String {
    let (days, ms_of_day) = (ms / 86_400_000, ms % 86_400_000);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (seconds, ms) = (ms_of_day / 1_000, ms_of_day % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let mut text = String::with_capacity(25);
    // Writing to a String cannot fail.
    let _ =
        write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(format: Format, full: usize, record: &[u8]) -> Vec<u8> {
        let mut writer = RecordWriter::new(format);
        let id = Ulid::from_parts(1_700_000_000_123, 1, 2);
        let (mut all, mut out) = (Vec::new(), Vec::new());
        while !writer.write(&mut out, full, (id, "web", record)) {
            assert!(out.len() < full + 6 * STEP_BYTES + 200, "the buffer is bounded");
            assert!(writer.is_inside_a_record());
            all.append(&mut out);
        }
        all.append(&mut out);
        all
    }

    #[test]
    fn one_record_is_pinned_in_both_formats() {
        let id = Ulid::from_parts(1_700_000_000_123, 1, 2);
        assert_eq!(
            written(Format::Text, 99, b"a\xFFb"),
            format!("{id} a").into_bytes().iter().copied().chain(*b"\xFFb\n").collect::<Vec<u8>>()
        );
        assert_eq!(
            String::from_utf8(written(Format::Ndjson, 99, b"say \"hi\"\t\x01")).unwrap(),
            format!(
                "{{\"ulid\":\"{id}\",\"time\":\"2023-11-14T22:13:20.123Z\",\"topic\":\"web\",\
             \"record\":\"say \\\"hi\\\"\\t\\u0001\"}}\n"
            )
        );
        assert!(
            String::from_utf8(written(Format::Ndjson, 99, b"\xFF"))
                .unwrap()
                .ends_with("\"topic\":\"web\",\"record_b64\":\"/w==\"}\n")
        );
    }

    #[test]
    fn lines_are_written_as_their_records_are_one_by_one() {
        let first = Ulid::from_parts(1_700_000_000_123, 1, 30);
        let long = "x".repeat(STEP_BYTES);
        let lines = format!("a\n\nb c\n{long}\nbehind\n");
        for (full, records_max) in [(1 << 20, 9), (1 << 20, 2), (40, 9), (28, 9), (1, 9)] {
            let (mut fast, mut slow) = (Vec::new(), Vec::new());
            let mut writer = RecordWriter::new(Format::Text);
            let (records, bytes) =
                writer.write_lines(&mut fast, (full, records_max), (first, lines.as_bytes()));
            for (i, line) in lines.lines().take(records as usize).enumerate() {
                let record = (first.plus(i as u64), "t", line.as_bytes());
                assert!(writer.write(&mut slow, 1 << 20, record));
            }
            assert_eq!(fast, slow);
            let short = lines.lines().take_while(|line| line.len() < STEP_BYTES);
            let taken: Vec<_> = short.take(records as usize).collect();
            assert_eq!(bytes, taken.iter().map(|line| line.len() + 1).sum::<usize>());
            assert!(u64::from(records) == records_max.min(3) || fast.len() >= full);
        }
    }

    #[test]
    fn the_end_line_tells_what_is_missing() {
        let mut stats = Stats { records: 3, ..Stats::default() };
        stats.miss(super::super::spec::Missing {
            from: Ulid::MIN,
            to: Ulid::MAX,
            node: "n1".into(),
            reason: "say \"no\"".into(),
            damage: None,
        });
        let mut out = Vec::new();
        RecordWriter::new(Format::Ndjson).end(&mut out, &stats);
        let end: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(end["end"]["records"], 3);
        assert_eq!(end["end"]["complete"], false);
        assert_eq!(end["end"]["missing"][0]["reason"], "say \"no\"");
        assert_eq!(end["end"]["missing"][0]["to"], Ulid::MAX.to_string());
        assert_eq!(out.last(), Some(&b'\n'));
    }

    proptest! {
        #[test]
        fn a_record_survives_however_it_is_cut(
            record in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40_000),
                "[aé☃𝄞\"\\\\\u{1}]{0,9000}".prop_map(String::into_bytes),
            ],
            full in 1..40_000usize,
        ) {
            let text = written(Format::Text, full, &record);
            prop_assert_eq!(&text[ULID_TEXT_LEN + 1..text.len() - 1], &record[..]);
            let json = written(Format::Ndjson, full, &record);
            let object: serde_json::Value = serde_json::from_slice(&json).unwrap();
            let back = match (object["record"].as_str(), object["record_b64"].as_str()) {
                (Some(text), None) => text.as_bytes().to_vec(),
                (None, Some(text)) => STANDARD.decode(text).unwrap(),
                _ => panic!("one of the two"),
            };
            prop_assert_eq!(back, record);
        }

        #[test]
        fn times_agree_with_jiff(ms in 0..253_402_207_200_000u64) {
            let time = jiff::Timestamp::from_millisecond(ms as i64).unwrap();
            prop_assert_eq!(rfc3339(ms), format!("{time:.3}"));
        }
    }

    #[test]
    fn the_last_time_of_a_ulid_has_a_text() {
        assert_eq!(rfc3339(crate::ulid::MS_MAX), "10889-08-02T05:31:50.655Z");
    }
}
