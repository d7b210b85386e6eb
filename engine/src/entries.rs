//! Entries: records of one form, compact JSON with `timestamp`, `level`, `message` and `service`, in this
//! order, as `POST /log` makes it. Other records of its topic are none.
//!
//! Invariants: what is an entry is decided by its bytes alone, and in the same way by [`Kept::of`], by what
//! store segments say of the entries in their blocks, and by the expression that `net` searches for; a level
//! and a service that [`EntriesWanted`] does not admit are those of no entry that is asked for.

use std::borrow::Cow;

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use crate::limits::TIME_TEXT_BYTES_MAX;
use crate::topic::Topic;

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
        let len = rest.bytes().take(TIME_TEXT_BYTES_MAX).take_while(|b| is_time(b)).count();
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

/// How many entries of one topic, service and level there are in some chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryRow<'a> {
    /// Under which they are.
    pub topic: &'a Topic,
    /// Which of [`LEVELS`].
    pub level: usize,
    /// As it stands in JSON.
    pub service: &'a str,
    /// How many, and when the last came.
    pub count: LevelCount,
}

/// Those of a service and a level that were counted without a look at them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedEntries {
    /// As it stands in JSON.
    pub service: Box<str>,
    /// Which of [`LEVELS`].
    pub level: usize,
    /// How many, and when the last came.
    pub count: LevelCount,
}

/// Of which level and services entries have to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntriesWanted {
    /// Which of [`LEVELS`]; `None`: any.
    level: Option<usize>,
    /// What the service contains, folded; empty: anything.
    service: String,
    /// Whether every one of these is asked for, whatever its message.
    pub is_all: bool,
}

impl EntriesWanted {
    /// Of a level, if one is given, and services that contain a text, in either case.
    pub fn new(level: Option<usize>, service: &str, is_all: bool) -> Self {
        Self { level, service: folded(service), is_all }
    }

    /// Whether entries of a level and a service, as it stands in JSON, are asked for.
    pub fn admits(&self, level: usize, service: &str) -> bool {
        self.level.is_none_or(|wanted| wanted == level)
            && (self.service.is_empty() || folded(&Kept::plain(service)).contains(&self.service))
    }
}

/// A text without regard to case, as regular expressions have it: by their own table, of all letters that they
/// take for the same the first.
pub fn folded(text: &str) -> String {
    let one = |character: char| {
        if character.is_ascii() {
            // The relatives of K and S that are not ASCII come later.
            return character.to_ascii_uppercase();
        }
        let mut same = ClassUnicode::new([ClassUnicodeRange::new(character, character)]);
        // Without the table, expressions know of no case either.
        let _ = same.try_case_fold_simple();
        same.ranges().first().map_or(character, ClassUnicodeRange::start)
    };
    text.chars().map(one).collect()
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
    use proptest::prelude::*;

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
        let long = good.replacen("2024-05-01", &"2".repeat(TIME_TEXT_BYTES_MAX - 17), 1);
        assert!(Kept::of(long.as_bytes()).is_some());
        for (from, to) in [
            ("{\"t", " {\"t"),
            ("}", "} "),
            ("}", ""),
            ("}", ",\"more\":1}"),
            ("info", "INFO"),
            ("info", "infos"),
            ("info", "trace"),
            ("2024-05-01T12:00:00.5+02:00", ""),
            ("2024-05-01T12:00:00.5+02:00", &"2".repeat(TIME_TEXT_BYTES_MAX + 1)),
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
    fn a_service_is_wanted_by_a_part_of_it_in_either_case() {
        let wanted = EntriesWanted::new(Some(2), "WEB\"S\u{17F}", true);
        assert!(wanted.admits(2, r#"a-Web\"ss"#));
        assert!(!wanted.admits(1, r#"a-Web\"ss"#) && !wanted.admits(2, "web"));
        let any = EntriesWanted::new(None, "", false);
        assert!((0..LEVELS.len()).all(|level| any.admits(level, "x")));
    }

    /// Letters of which case is more than a pair of two, and some with no case at all.
    const LETTERS: &str = "aAkK\u{212A}sSſßẞµμΜβϐΒεϵθϑϴκϰςσΣåÅ\u{212B}iIıİвВ\u{1C80}\u{1C88}ꙋǅǆჟ-.";

    proptest! {
        #[test]
        fn a_service_is_wanted_if_the_expression_finds_it(
            part in prop::collection::vec(prop::sample::select(LETTERS.chars().collect::<Vec<_>>()), 1..3),
            service in prop::collection::vec(prop::sample::select(LETTERS.chars().collect::<Vec<_>>()), 1..9),
            at in any::<prop::sample::Index>(),
        ) {
            let (part, mut service) = (String::from_iter(part), service);
            // Half of them hold the part, but for its case.
            let at = at.index(2 * service.len());
            if at < service.len() {
                service.splice(at..at, part.to_uppercase().chars());
            }
            let service = String::from_iter(service);
            let expression = regex::Regex::new(&format!("(?i){}", regex::escape(&part))).unwrap();
            let wanted = EntriesWanted::new(None, &part, true);
            prop_assert_eq!(
                wanted.admits(0, &service), expression.is_match(&service), "{} in {}", part, service
            );
        }
    }

    #[test]
    fn letters_are_the_same_where_an_expression_takes_them_for_the_same() {
        for same in ["µμΜ", "βϐΒ", "εϵΕ", "κϰΚ", "вВ\u{1C80}", "k\u{212A}K", "sſS", "ßẞ"]
        {
            for (a, b) in same.chars().flat_map(|a| same.chars().map(move |b| (a, b))) {
                let expression = regex::Regex::new(&format!("(?i){a}")).unwrap();
                assert!(expression.is_match(&b.to_string()), "{a} {b}");
                let wanted = EntriesWanted::new(None, &a.to_string(), true);
                assert!(wanted.admits(0, &format!("a-{b}")), "{a} {b}");
            }
        }
    }
}
