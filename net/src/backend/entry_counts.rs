//! Entries as they are kept, and how many there are of each service and level.
//!
//! An entry is a record of one form: compact JSON with `timestamp`, `level`, `message` and `service`, in this
//! order, as `POST /log` makes it. Other records of its topic are none.
//!
//! Invariants: what is an entry is decided by its bytes alone, and in the same way by [`Kept::of`] and by the
//! expression that `http::entries` searches for; what is held does not depend on how many services there are
//! ([`ENTRY_SERVICES_MAX`]), and those that find no room are counted together.

use std::borrow::Cow;
use std::collections::HashMap;

use engine::search::{RecordTally, Stats};
use engine::ulid::Ulid;

use crate::limits::{ENTRY_SERVICE_TEXT_BYTES_MAX, ENTRY_SERVICES_MAX};

/// What a level may be, in the case in which it is kept.
pub const LEVELS: [&str; 5] = ["debug", "info", "warn", "error", "fatal"];

/// A record that is an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept<'a> {
    /// Which of [`LEVELS`].
    pub level: usize,
    /// As it stands in JSON, without its quotes.
    pub message: &'a str,
    /// The same.
    pub service: &'a str,
}

impl<'a> Kept<'a> {
    /// Of a record without its LF; `None`: it is no entry.
    pub fn of(record: &'a [u8]) -> Option<Self> {
        let record = std::str::from_utf8(record).ok()?;
        let rest = record.strip_prefix("{\"timestamp\":\"")?;
        let is_time = |b: &u8| b.is_ascii_digit() || b"TtZz:.+-".contains(b);
        let len = rest.bytes().take_while(|b| is_time(b)).count();
        let rest = rest[len..].strip_prefix("\",\"level\":\"").filter(|_| len > 0)?;
        let level = LEVELS.iter().position(|level| rest.starts_with(level))?;
        let rest = rest[LEVELS[level].len()..].strip_prefix("\",\"message\":\"")?;
        let (message, rest) = text(rest)?;
        let (service, rest) = text(rest.strip_prefix(",\"service\":\"")?)?;
        (rest == "}").then_some(Self { level, message, service })
    }

    /// What such a field says.
    pub fn plain(json: &str) -> Cow<'_, str> {
        if !json.contains('\\') {
            return Cow::Borrowed(json);
        }
        let text = serde_json::from_str(&format!("\"{json}\""));
        text.map_or_else(|_| Cow::Borrowed(json), Cow::Owned)
    }
}

/// A text of JSON, not empty and escaped only where it must be, up to its closing quote; and what follows that.
fn text(json: &str) -> Option<(&str, &str)> {
    let bytes = json.as_bytes();
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', &bytes[at..])?;
        if bytes[at] == b'"' {
            break;
        }
        at += match bytes.get(at + 1)? {
            b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
            b'u' => match bytes.get(at + 2..at + 6)? {
                [b'0', b'0', b'0' | b'1', b'0'..=b'9' | b'a'..=b'f'] => 6,
                _ => return None,
            },
            _ => return None,
        };
    }
    let is_plain = !bytes[..at].iter().any(|&b| b < b' ');
    (at > 0 && is_plain).then(|| (&json[..at], &json[at + 1..]))
}

/// How many entries, and when the last of them came, milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LevelCount {
    /// Entries.
    pub entries: u64,
    /// The last one's arrival; 0 where there is none.
    pub latest_ms: u64,
}

impl LevelCount {
    /// With others of the same kind.
    pub fn add(&mut self, other: Self) {
        self.entries += other.entries;
        self.latest_ms = self.latest_ms.max(other.latest_ms);
    }
}

/// By level, in the order of [`LEVELS`].
pub type ByLevel = [LevelCount; LEVELS.len()];

/// How many entries there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EntryCounts {
    /// By service, sorted; at most [`ENTRY_SERVICES_MAX`] of them.
    pub services: Vec<(String, ByLevel)>,
    /// Of all further services together.
    pub others: ByLevel,
    /// What it cost and what is missing.
    pub stats: Stats,
}

/// Counts entries among records.
#[derive(Debug, Default)]
pub struct EntryTally {
    /// By the service's text of JSON.
    services: HashMap<Box<str>, ByLevel>,
    others: ByLevel,
}

impl RecordTally for EntryTally {
    fn count(&mut self, id: Ulid, record: &[u8]) {
        let Some(Kept { level, service, .. }) = Kept::of(record) else { return };
        let one = LevelCount { entries: 1, latest_ms: id.ms() };
        let counts = if let Some(counts) = self.services.get_mut(service) {
            counts
        } else if self.services.len() < ENTRY_SERVICES_MAX
            && service.len() <= ENTRY_SERVICE_TEXT_BYTES_MAX
        {
            self.services.entry(service.into()).or_default()
        } else {
            &mut self.others
        };
        counts[level].add(one);
    }
}

impl EntryTally {
    /// What was counted.
    pub fn result(self, stats: Stats) -> EntryCounts {
        let services = self.services.into_iter();
        let mut services: Vec<(String, ByLevel)> =
            services.map(|(text, counts)| (Kept::plain(&text).into_owned(), counts)).collect();
        services.sort();
        EntryCounts { services, others: self.others, stats }
    }
}

impl PartialOrd for LevelCount {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LevelCount {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.entries, self.latest_ms).cmp(&(other.entries, other.latest_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(level: &str, message: &str, service: &str) -> String {
        format!(
            "{{\"timestamp\":\"2024-05-01T12:00:00.5+02:00\",\"level\":\"{level}\",\
             \"message\":\"{message}\",\"service\":\"{service}\"}}"
        )
    }

    #[test]
    fn what_post_log_makes_is_an_entry_and_nothing_else_is() {
        let record = entry("warn", r"a\n\u001f\\", r#"x\"}"#);
        assert_eq!(
            Kept::of(record.as_bytes()),
            Some(Kept { level: 2, message: r"a\n\u001f\\", service: r#"x\"}"# })
        );
        let good = entry("info", "m", "s");
        assert!(Kept::of(good.as_bytes()).is_some());
        for (from, to) in [
            ("{\"t", " {\"t"),
            ("}", "} "),
            ("}", ""),
            ("}", ",\"more\":1}"),
            ("info", "INFO"),
            ("info", "infos"),
            ("info", "trace"),
            ("2024-05-01T12:00:00.5+02:00", ""),
            ("2024", "x"),
            ("\"m\"", "\"\""),
            ("\"s\"", "\"\""),
            ("\"m\"", "7"),
            ("\"m\"", "\"\\u0041\""),
            ("\"m\"", "\"\\u001F\""),
            ("\"m\"", "\"\\/\""),
            ("\"m\"", "\"\\ud800\""),
            ("\"m\"", "\"a\tb\""),
            ("\"m\"", "\"\\\""),
            (",\"message", ", \"message"),
            ("service", "servicé"),
        ] {
            let record = good.replacen(from, to, 1);
            assert_eq!(Kept::of(record.as_bytes()), None, "{record}");
        }
        let bytes = [&good.as_bytes()[..good.len() - 3], b"\xFF\"}"].concat();
        assert_eq!(Kept::of(&bytes), None);
        // Fields in another order may be the same JSON, and are no entry.
        let turned =
            r#"{"level":"info","timestamp":"2024-05-01T12:00:00Z","message":"m","service":"s"}"#;
        assert_eq!(Kept::of(turned.as_bytes()), None);
    }

    #[test]
    fn services_beyond_a_bound_are_counted_together() {
        let mut tally = EntryTally::default();
        let id = |n: usize| Ulid::from_parts(1_000 + n as u64, 1, n as u64);
        for n in 0..ENTRY_SERVICES_MAX + 5 {
            let service = format!("s{n:05}\\\"");
            tally.count(id(n), entry("info", "m", &service).as_bytes());
            tally.count(id(n), entry("error", "m", &service).as_bytes());
        }
        tally.count(id(0), entry("fatal", "m", &"x".repeat(100_000)).as_bytes());
        tally.count(id(0), b"no entry");
        let counts = tally.result(Stats::default());
        assert_eq!(counts.services.len(), ENTRY_SERVICES_MAX);
        let (name, first) = &counts.services[0];
        assert_eq!(name, "s00000\"");
        assert_eq!(first[1], LevelCount { entries: 1, latest_ms: 1_000 });
        assert_eq!((first[0].entries, first[3].entries), (0, 1));
        assert_eq!(counts.others.map(|of| of.entries), [0, 5, 0, 5, 1]);
    }
}
