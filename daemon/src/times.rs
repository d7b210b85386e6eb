//! Points in time as people write them on a command line, and the zones that they mean.
//!
//! What nodes understand goes to them as it is written (RFC 3339, a ULID, `now`, a duration ago, which
//! counts from the node's clock); everything else becomes that here, in the zone of `--tz`, and nodes stay
//! strict. A day is its midnight, as in journalctl(1), and a time without a day one of today.
//!
//! Invariants: a local time that the clocks showed twice is the first of the two as the begin of a range
//! and the second as its end, and one that they skipped is the moment in which they did, so that no record
//! is left out that somebody may have meant. Reading is pure; [`Zone::find`] alone looks at the system.

use std::time::Duration;

use engine::search::format::rfc3339;
use engine::search::window::Window;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time as TimeOfDay};
use jiff::fmt::strtime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

use crate::units::format_duration;

/// What a time looks like; ends an error message.
pub(crate) const TIME_FORM: &str = "a time is 2026-11-29, 17:00, '2026-11-29 17:00:00', RFC 3339 \
    (2026-11-29T17:00:00Z), now, today, yesterday, a duration ago (90s 1.5h -1h 1w), Unix seconds, or a ULID";

/// What a zone looks like; ends an error message.
pub(crate) const ZONE_FORM: &str =
    "a time zone is local, UTC, an offset as +01:00, or a name as Europe/Berlin";

/// Duration suffixes and their factors, milliseconds.
const UNITS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 7 * 86_400_000),
];

/// Digits of a fraction that count.
const FRACTION_DIGITS_MAX: usize = 9;

/// Fewest digits of a number that is taken for Unix seconds without an `@`: since 1973.
const UNIX_DIGITS_MIN: usize = 9;

/// The last second of the year 9999.
const UNIX_SECONDS_MAX: u64 = 253_402_300_799;

/// A point in time, as it was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Time {
    /// What nodes understand.
    Plain(String),
    /// So many milliseconds ago.
    Ago(u64),
    /// Unix milliseconds.
    Unix(u64),
    /// What clocks and calendars of the zone show.
    Local(Local),
}

/// What clocks and calendars show, wherever that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Local {
    /// A day and a time.
    At(DateTime),
    /// A time of today.
    Today(TimeOfDay),
    /// The midnight with which a day begins, counted from today.
    Day(i64),
}

/// Which end of a range a time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    /// The first moment.
    From,
    /// The last one.
    To,
}

impl Time {
    /// Reads a time; the error says what is valid.
    pub(crate) fn read(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err(TIME_FORM);
        }
        if Window::parse(Some(text), None, 0).is_ok() {
            return Ok(Self::Plain(text.to_owned()));
        }
        let read = match text {
            "today" => Some(Self::Local(Local::Day(0))),
            "yesterday" => Some(Self::Local(Local::Day(-1))),
            "tomorrow" => Some(Self::Local(Local::Day(1))),
            _ => {
                let local = || read_local(text).map(Self::Local);
                read_unix(text).or_else(|| read_ago(text)).or_else(local)
            }
        };
        read.ok_or(TIME_FORM)
    }

    /// The same for a node, by the clock and in the zone of the client, which is looked up where it
    /// matters. The error says why it cannot be.
    pub(crate) fn for_node(
        &self,
        edge: Edge,
        zone: impl FnOnce() -> Result<TimeZone, String>,
        now: Timestamp,
    ) -> Result<String, String> {
        let local = match self {
            Self::Plain(text) => return Ok(text.clone()),
            Self::Ago(ms) => return Ok(format_duration(Duration::from_millis(*ms))),
            Self::Unix(ms) => return Ok(rfc3339(*ms)),
            Self::Local(local) => local,
        };
        let zone = zone()?;
        let at = local.on(zone.to_datetime(now).date());
        let at = at.and_then(|local| instant(local, edge, &zone));
        let at = at.map_err(|error| format!("it is no time in this zone: {error}"))?;
        Ok(rfc3339(u64::try_from(at.as_millisecond()).unwrap_or(0)))
    }
}

impl Local {
    /// The day and the time, where this is today.
    fn on(&self, today: Date) -> Result<DateTime, jiff::Error> {
        match self {
            Self::At(at) => Ok(*at),
            Self::Today(time) => Ok(DateTime::from_parts(today, *time)),
            Self::Day(days) => {
                let day = today.checked_add(jiff::Span::new().try_days(*days)?)?;
                Ok(DateTime::from_parts(day, TimeOfDay::midnight()))
            }
        }
    }
}

/// The moment in which the clocks of a zone show this.
fn instant(local: DateTime, edge: Edge, zone: &TimeZone) -> Result<Timestamp, jiff::Error> {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    match (ambiguous.offset(), edge) {
        (AmbiguousOffset::Gap { after, .. }, _) => {
            // As if the clocks had jumped before: that is earlier than the jump, by less than it is wide.
            let earlier = after.to_timestamp(local)?;
            let jump = zone.following(earlier).next();
            Ok(jump.map_or(earlier, |jump| jump.timestamp()))
        }
        (_, Edge::From) => ambiguous.earlier(),
        (_, Edge::To) => ambiguous.later(),
    }
}

/// `@SECONDS`, or a number that is long enough to be nothing else; with a fraction or without.
fn read_unix(text: &str) -> Option<Time> {
    let (text, is_marked) = text.strip_prefix('@').map_or((text, false), |rest| (rest, true));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !is_marked && whole.len() < UNIX_DIGITS_MIN {
        return None;
    }
    let seconds = number(whole).filter(|&seconds| seconds <= UNIX_SECONDS_MAX)?;
    Some(Time::Unix(seconds * 1_000 + of_fraction(fraction, 1_000)?))
}

/// `1.5h`, `-1h`, `1w2d`, `2h ago`.
fn read_ago(text: &str) -> Option<Time> {
    let text = text.strip_suffix(" ago").unwrap_or(text);
    let mut rest = text.strip_prefix('-').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let number_len = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (digits, behind) = rest.split_at(number_len);
        let unit_len = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, behind) = behind.split_at(unit_len);
        let (_, factor_ms) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let part_ms = number(whole)?.checked_mul(*factor_ms)?;
        let part_ms = part_ms.checked_add(of_fraction(fraction, *factor_ms)?)?;
        total_ms = total_ms.checked_add(part_ms)?;
        rest = behind;
    }
    Some(Time::Ago(total_ms))
}

/// A day, a time of day, or both.
fn read_local(text: &str) -> Option<Local> {
    if let Some(time) = read_time_of_day(text) {
        return Some(Local::Today(time));
    }
    let date = read_date(text.get(..10)?)?;
    let Some(rest) = text.get(10..).filter(|rest| !rest.is_empty()) else {
        return Some(Local::At(DateTime::from_parts(date, TimeOfDay::midnight())));
    };
    let time = read_time_of_day(rest.strip_prefix([' ', 'T'])?)?;
    Some(Local::At(DateTime::from_parts(date, time)))
}

/// `2026-11-29`.
fn read_date(text: &str) -> Option<Date> {
    let [year, month, day] = parts(text, '-', &[4, 2, 2])?[..] else { return None };
    Date::new(year as i16, month as i8, day as i8).ok()
}

/// `17:00`, `17:00:00`, `17:00:00.250`.
fn read_time_of_day(text: &str) -> Option<TimeOfDay> {
    let (text, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let (hour, minute, second) = match parts(text, ':', &[2, 2, 2])?[..] {
        [hour, minute, second] => (hour, minute, second),
        [hour, minute] if fraction == "0" => (hour, minute, 0),
        _ => return None,
    };
    let ns = of_fraction(fraction, 1_000_000_000)?;
    TimeOfDay::new(hour as i8, minute as i8, second as i8, ns as i32).ok()
}

/// Numbers of these lengths; the last ones may be missing.
fn parts(text: &str, separator: char, lens: &[usize]) -> Option<Vec<u64>> {
    let texts: Vec<&str> = text.split(separator).collect();
    let fits = texts.len() <= lens.len() && texts.iter().zip(lens).all(|(t, len)| t.len() == *len);
    fits.then(|| texts.into_iter().map(number).collect())?
}

/// Digits alone: what Rust reads may have a sign.
fn number(digits: &str) -> Option<u64> {
    let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| digits.parse().ok())?
}

/// `of` times the fraction with these digits, rounded down.
fn of_fraction(digits: &str, of: u64) -> Option<u64> {
    if digits.len() > FRACTION_DIGITS_MAX {
        return None;
    }
    let scale = 10_u128.pow(digits.len() as u32);
    u64::try_from(u128::from(number(digits)?) * u128::from(of) / scale).ok()
}

/// A time zone, as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Zone {
    /// That of the process: `TZ`, else the system's.
    Local,
    /// So many seconds east.
    Fixed(i32),
    /// One of the database.
    Named(String),
}

impl Zone {
    /// Reads a zone; the error says what is valid. Whether there is one of this name is not looked up.
    pub(crate) fn read(text: &str) -> Result<Self, &'static str> {
        let is_name = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphabetic())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-+/".contains(&b))
        };
        match text {
            "local" => Ok(Self::Local),
            "UTC" | "utc" | "Z" => Ok(Self::Fixed(0)),
            _ if text.starts_with(['+', '-']) => {
                read_offset(text).map(Self::Fixed).ok_or(ZONE_FORM)
            }
            _ if is_name(text) => Ok(Self::Named(text.to_owned())),
            _ => Err(ZONE_FORM),
        }
    }

    /// Looks it up on this system; the error says what is wrong, on what, and what is valid.
    pub(crate) fn find(&self) -> Result<TimeZone, String> {
        match self {
            Self::Fixed(seconds) => {
                let offset = Offset::from_seconds(*seconds);
                offset.map(TimeZone::fixed).map_err(|_| ZONE_FORM.to_owned())
            }
            Self::Local => match (TimeZone::try_system(), std::env::var("TZ")) {
                (Ok(zone), _) => Ok(zone),
                (Err(_), Ok(name)) if !name.is_empty() => {
                    Err(format!("TZ: {name:?} is no time zone of this system; {ZONE_FORM}"))
                }
                // A system that names none shows UTC.
                _ => Ok(TimeZone::UTC),
            },
            Self::Named(name) => TimeZone::get(name).map_err(|_| {
                if jiff::tz::db().is_definitively_empty() {
                    return format!(
                        "--tz: {name:?} is not known: this system has no time zone database \
                         (/usr/share/zoneinfo); UTC or an offset as +01:00 needs none"
                    );
                }
                format!("--tz: {name:?} is not known on this system; {ZONE_FORM}")
            }),
        }
    }
}

/// How times are written.
#[derive(Debug, Clone)]
pub(crate) enum TimeForm {
    /// RFC 3339 in UTC, as nodes write them.
    Utc,
    /// The same in a zone.
    In(TimeZone),
    /// As strftime(3) has it, in a zone.
    As(String, TimeZone),
}

impl TimeForm {
    /// Whether times can be written so; the error says what is valid.
    pub(crate) fn check(format: &str) -> Result<(), String> {
        let valid = "a time format is that of strftime(3), as in '%H:%M:%S' or '%F %T%.3f'";
        if format.is_empty() {
            return Err(valid.to_owned());
        }
        let sample = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
        strtime::format(format, &sample).map(drop).map_err(|error| format!("{error}; {valid}"))
    }

    /// Unix milliseconds as text.
    pub(crate) fn text(&self, ms: u64) -> String {
        let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let (format, zone) = match self {
            Self::Utc => return rfc3339(ms),
            Self::In(zone) => ("%Y-%m-%dT%H:%M:%S.%3f%:z", zone),
            Self::As(format, zone) => (format.as_str(), zone),
        };
        let text = at.and_then(|at| strtime::format(format, &at.to_zoned(zone.clone())).ok());
        // Beyond 9999, where no calendar of ours reaches.
        text.unwrap_or_else(|| rfc3339(ms))
    }

    /// What a node has written in UTC, written so.
    pub(crate) fn again(&self, text: &str) -> String {
        let at =
            text.parse::<Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok());
        at.map_or_else(|| text.to_owned(), |ms| self.text(ms))
    }
}

/// `+01:00`, `-0530`, `+1`: seconds.
fn read_offset(text: &str) -> Option<i32> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        (_, rest) => (-1, rest),
    };
    let (hours, minutes) = match rest.split_once(':') {
        Some((hours, minutes)) if minutes.len() == 2 => (hours, minutes),
        None if rest.len() == 4 => rest.split_at_checked(2)?,
        None => (rest, "0"),
        Some(_) => return None,
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let fits = hours < 24 && minutes < 60;
    fits.then(|| sign * i32::try_from(hours * 3_600 + minutes * 60).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-30T14:30:00Z.
    const NOW: &str = "2026-11-30T14:30:00Z";

    fn read_in(zone: &TimeZone, edge: Edge, text: &str) -> String {
        let zone = || Ok(zone.clone());
        Time::read(text).unwrap().for_node(edge, zone, NOW.parse().unwrap()).unwrap()
    }

    /// A zone with the rules of Berlin, whatever the system has.
    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    #[test]
    fn what_nodes_understand_goes_to_them_as_it_is() {
        for text in [
            "now",
            "1h",
            "1h30m",
            "100ms",
            "2026-05-01T12:00:00Z",
            "2026-05-01 12:00:00.250+02:00",
            "01HF7YAT001AXWSQFE00000007",
        ] {
            assert_eq!(read_in(&berlin(), Edge::From, text), text);
        }
    }

    #[test]
    fn times_are_read_as_people_write_them_in_their_zone() {
        for (text, in_utc) in [
            ("2026-11-29", "2026-11-28T23:00:00.000Z"),
            ("17:00", "2026-11-30T16:00:00.000Z"),
            ("17:00:01.5", "2026-11-30T16:00:01.500Z"),
            ("2026-11-29 17:00", "2026-11-29T16:00:00.000Z"),
            ("2026-11-29 17:00:00", "2026-11-29T16:00:00.000Z"),
            ("2026-07-29T17:00:00.25", "2026-07-29T15:00:00.250Z"),
            ("today", "2026-11-29T23:00:00.000Z"),
            ("yesterday", "2026-11-28T23:00:00.000Z"),
            ("tomorrow", "2026-11-30T23:00:00.000Z"),
            ("1700000000", "2023-11-14T22:13:20.000Z"),
            ("1700000000.25", "2023-11-14T22:13:20.250Z"),
            ("@5", "1970-01-01T00:00:05.000Z"),
            ("1960-01-01", "1970-01-01T00:00:00.000Z"),
            ("-1h", "1h"),
            ("1w", "7d"),
            ("1.5h", "1h30m"),
            ("-1w2.5d", "9d12h"),
            ("2h ago", "2h"),
            ("0.0005s", "0s"),
        ] {
            for edge in [Edge::From, Edge::To] {
                assert_eq!(read_in(&berlin(), edge, text), in_utc, "{text}");
            }
        }
        // Where it is another day already.
        let far = Zone::read("+14:00").unwrap().find().unwrap();
        assert_eq!(read_in(&far, Edge::From, "today"), "2026-11-30T10:00:00.000Z");
    }

    #[test]
    fn what_clocks_show_twice_or_never_leaves_nothing_out() {
        let zone = berlin();
        for (text, from, to) in [
            // On 2026-10-25 clocks go back at 01:00Z, on 2026-03-29 they go forward at 01:00Z.
            ("2026-10-25 02:30", "2026-10-25T00:30:00.000Z", "2026-10-25T01:30:00.000Z"),
            ("2026-10-25 01:59", "2026-10-24T23:59:00.000Z", "2026-10-24T23:59:00.000Z"),
            ("2026-10-25 03:00", "2026-10-25T02:00:00.000Z", "2026-10-25T02:00:00.000Z"),
            ("2026-03-29 02:00", "2026-03-29T01:00:00.000Z", "2026-03-29T01:00:00.000Z"),
            ("2026-03-29 02:59:59", "2026-03-29T01:00:00.000Z", "2026-03-29T01:00:00.000Z"),
            ("2026-03-29 03:00", "2026-03-29T01:00:00.000Z", "2026-03-29T01:00:00.000Z"),
        ] {
            assert_eq!(read_in(&zone, Edge::From, text), from, "{text}");
            assert_eq!(read_in(&zone, Edge::To, text), to, "{text}");
        }
        // A day that has no midnight begins when its clocks begin.
        let no_midnight = TimeZone::posix("<-03>3<-02>,M11.1.0/0,M2.3.0/0").unwrap();
        assert_eq!(read_in(&no_midnight, Edge::From, "2026-11-01"), "2026-11-01T03:00:00.000Z");
    }

    #[test]
    fn what_is_no_time_or_zone_is_refused() {
        for bad in [
            "",
            " ",
            "x",
            "-",
            "5",
            "12345678",
            "1y",
            "1.h",
            ".5h",
            "h",
            "--1h",
            "+1h",
            "1h 30m",
            "25:00",
            "17:0",
            "17:00.5",
            "1:00",
            "17:60",
            "17:00:60",
            "2026-13-01",
            "2026-02-30",
            "2026-11-29 ",
            "2026-11-29 25:00",
            "2026-11-29_17:00",
            "26-11-29",
            "20261129",
            "@",
            "@-5",
            "@1e9",
            "1700000000000",
            "1700000000.1234567890",
            "99999999999w",
            "yesterday 17:00",
            "2026-11-29T17:00:00+25:00",
            "\u{661}:00",
            "2026-11-2\u{661}",
        ] {
            assert_eq!(Time::read(bad), Err(TIME_FORM), "{bad:?}");
        }
        for bad in ["", "+", "+24:00", "+1:0", "+1:60", "+12345", "/etc", "a b", "..", "\u{e9}"] {
            assert_eq!(Zone::read(bad), Err(ZONE_FORM), "{bad:?}");
        }
        for (text, seconds) in [("+01:00", 3_600), ("-0530", -19_800), ("+1", 3_600), ("UTC", 0)] {
            assert_eq!(Zone::read(text), Ok(Zone::Fixed(seconds)), "{text}");
        }
        let unknown = Zone::read("Mars/Olympus").unwrap().find().unwrap_err();
        assert!(unknown.contains("\"Mars/Olympus\""), "{unknown}");
    }

    #[test]
    fn times_are_written_in_utc_in_a_zone_or_as_one_wants() {
        let (ms, beyond) = (1_790_000_000_123, 300_000_000_000_000);
        for (form, text) in [
            (TimeForm::Utc, "2026-09-21T14:13:20.123Z"),
            (TimeForm::In(berlin()), "2026-09-21T16:13:20.123+02:00"),
            (TimeForm::As("%H:%M:%S%.3f %Z".to_owned(), berlin()), "16:13:20.123 CEST"),
            (TimeForm::As("%s".to_owned(), TimeZone::UTC), "1790000000"),
        ] {
            assert_eq!(form.text(ms), text);
            assert!(form.text(beyond).starts_with("11476-"), "{}", form.text(beyond));
        }
        for bad in ["", "%", "%!", "%H:%"] {
            let words = TimeForm::check(bad).unwrap_err();
            assert!(words.contains("strftime") && !words.contains('\n'), "{words}");
        }
        assert_eq!(TimeForm::check("at %F %T%.3f %:z %Q %%"), Ok(()));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_is_one_for_nodes(
            text in "\\PC{0,30}|[0-9.:@ T-]{0,24}|-?[0-9]{0,20}(\\.[0-9]{0,12})?(ms|s|m|h|d|w){0,2}",
        ) {
            let zone = || Ok(berlin());
            if let Ok(time) = Time::read(&text)
                && let Ok(words) = time.for_node(Edge::From, zone, NOW.parse().unwrap())
            {
                proptest::prop_assert!(Window::parse(Some(&words), None, 0).is_ok(), "{}", words);
            }
            let _ = Zone::read(&text);
        }
    }
}
