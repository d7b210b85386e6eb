//! Time expressions of `from` and `to`: RFC 3339, a ULID, `now`, or a duration ago.
//!
//! Invariants: both ends are inclusive to the millisecond (`from` becomes the first ULID of its
//! millisecond, `to` the last); a ULID is taken exactly as given; durations count from the clock,
//! which is a value, whatever the newest record says; a `to` of `now` is the later of the clock and
//! the newest stamp held, so that records which a clock stepped back has left in the future are found.

use std::fmt;

use crate::limits::TIME_TEXT_BYTES_MAX;
use crate::ulid::{MS_MAX, ULID_TEXT_LEN, Ulid};

/// How far back a query without `from` reaches, milliseconds.
pub const FROM_DEFAULT_AGO_MS: u64 = 3_600_000;

/// First and last ULID of a query, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First ULID.
    pub from: Ulid,
    /// Last ULID.
    pub to: Ulid,
}

/// Why a window cannot be used; its text names what would be valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WindowError {
    /// The named parameter's value is not a time.
    NotATime {
        /// `from` or `to`.
        parameter: &'static str,
        /// What was given.
        value: String,
    },
    /// `from` lies after `to`.
    Reversed,
}

impl fmt::Display for WindowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotATime { parameter, value } => {
                let shown: String = value.chars().take(80).collect();
                write!(
                    f,
                    "{parameter}: {shown:?} is not a time; valid are RFC 3339 \
                     (2024-05-01T12:00:00Z), a ULID, `now`, or a duration ago (100ms 3s 1m 1h30m 7d)"
                )
            }
            Self::Reversed => {
                f.write_str("from: lies after to; valid is a from that is not later than to")
            }
        }
    }
}

impl std::error::Error for WindowError {}

/// The moment of a query, milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// What the clock says.
    pub clock_ms: u64,
    /// The later of that and the newest stamp held.
    pub newest_ms: u64,
}

impl From<u64> for Now {
    /// Nothing is ahead of the clock.
    fn from(clock_ms: u64) -> Self {
        Self { clock_ms, newest_ms: clock_ms }
    }
}

impl Window {
    /// Reads both parameters; an absent or empty `from` is an hour ago, `to` is unbounded.
    pub fn parse(
        from: Option<&str>,
        to: Option<&str>,
        now: impl Into<Now>,
    ) -> Result<Self, WindowError> {
        let now = now.into();
        let not_a_time =
            |parameter, value: &str| WindowError::NotATime { parameter, value: value.to_owned() };
        let from = match from.filter(|text| !text.is_empty()) {
            None => Ulid::first_of_ms(now.clock_ms.saturating_sub(FROM_DEFAULT_AGO_MS)),
            Some(text) => match parse_time(text, now.clock_ms, now.clock_ms) {
                Some(Time::Exact(id)) => id,
                Some(Time::Ms(ms)) => Ulid::first_of_ms(ms),
                None => return Err(not_a_time("from", text)),
            },
        };
        let to = match to.filter(|text| !text.is_empty()) {
            None => Ulid::MAX,
            Some(text) => match parse_time(text, now.clock_ms, now.newest_ms.max(now.clock_ms)) {
                Some(Time::Exact(id)) => id,
                Some(Time::Ms(ms)) => Ulid::last_of_ms(ms),
                None => return Err(not_a_time("to", text)),
            },
        };
        if from > to { Err(WindowError::Reversed) } else { Ok(Self { from, to }) }
    }
}

enum Time {
    Exact(Ulid),
    Ms(u64),
}

fn parse_time(text: &str, clock_ms: u64, now_ms: u64) -> Option<Time> {
    if text == "now" {
        return Some(Time::Ms(now_ms));
    }
    // 130 bits fit 26 characters: a first one above 7 would overflow.
    if text.len() == ULID_TEXT_LEN
        && matches!(text.as_bytes()[0], b'0'..=b'7')
        && let Ok(id) = text.parse()
    {
        return Some(Time::Exact(id));
    }
    if let Some(ms) = parse_rfc3339_ms(text) {
        return Some(Time::Ms(ms));
    }
    parse_duration_ms(text).map(|ago| Time::Ms(clock_ms.saturating_sub(ago)))
}

/// RFC 3339 to Unix milliseconds, rounded down; times before 1970 become 0. A space is read as
/// `+`, because that is what URL decoding makes of one; between date and time it stands for `T`.
///
/// A second of 60 is valid where RFC 3339 allows one: as the last of a month in UTC. Clocks count
/// it as the first second of the next month, and so does this, so that nothing lies behind it which
/// lies before that.
fn parse_rfc3339_ms(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    if bytes.len() < 20 || bytes.len() > TIME_TEXT_BYTES_MAX || !has_rfc3339_shape(bytes) {
        return None;
    }
    let mut plain = text.to_owned();
    plain.replace_range(10..11, "T");
    let is_leap = &plain[17..19] == "60";
    if is_leap {
        plain.replace_range(17..19, "59");
    }
    let plain = plain.replace(' ', "+");
    let ms_of = |text: &str| {
        let time = text.parse::<jiff::Timestamp>().ok()?;
        Some(time.as_nanosecond().div_euclid(1_000_000))
    };
    let ms = match plain.strip_prefix("9999") {
        // The last days of 9999 are beyond what `jiff` represents; 9998 is as long a year.
        Some(rest) => ms_of(&format!("9998{rest}"))? + 365 * 86_400_000,
        None => ms_of(&plain)?,
    };
    let ms = if is_leap { ms + 1_000 } else { ms };
    if is_leap && !is_first_second_of_month(ms) {
        return None;
    }
    Some(u64::try_from(ms).unwrap_or(0).min(MS_MAX))
}

/// Whether this is a time of RFC 3339 as it stands in a text: with its `T`, and no space for a `+`.
pub fn is_rfc3339(text: &str) -> bool {
    !text.contains(' ') && parse_rfc3339_ms(text).is_some()
}

/// Whether a time, in Unix milliseconds, lies in the second with which a month begins in UTC.
fn is_first_second_of_month(ms: i128) -> bool {
    const DAY_MS: i128 = 86_400_000;
    // The calendar repeats after 400 years, which brings the last days of 9999 to where they can be
    // represented.
    const CYCLE_MS: i128 = 146_097 * DAY_MS;
    let ms = if ms > 200 * 365 * DAY_MS { ms - CYCLE_MS } else { ms };
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    ms.rem_euclid(DAY_MS) < 1_000
        && time.is_some_and(|time| jiff::tz::Offset::UTC.to_datetime(time).day() == 1)
}

/// `jiff` reads more of ISO 8601 than RFC 3339 allows; this admits RFC 3339 alone.
fn has_rfc3339_shape(bytes: &[u8]) -> bool {
    let fits = |part: &[u8], shape: &[u8]| {
        part.len() == shape.len()
            && part.iter().zip(shape).all(|(&b, &s)| match s {
                b'0' => b.is_ascii_digit(),
                b'T' => matches!(b, b'T' | b't' | b' '),
                b'+' => matches!(b, b'+' | b'-' | b' '),
                _ => b == s,
            })
    };
    let Some((time, mut zone)) = bytes.split_at_checked(19) else { return false };
    if zone.first() == Some(&b'.') {
        let digits = zone[1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return false;
        }
        zone = &zone[1 + digits..];
    }
    // `jiff` takes offsets of up to 25 hours.
    let is_offset = |zone: &[u8]| fits(zone, b"+00:00") && zone[1..3] < b"24"[..] && zone[4] < b'6';
    fits(time, b"0000-00-00T00:00:00") && (matches!(zone, b"Z" | b"z") || is_offset(zone))
}

/// A duration as numbers with units (`100ms 3s 1m 1h30m 7d`), milliseconds; `None` for anything
/// else, a number without a unit and an overflow included.
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total_ms = 0u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        let part_ms = number.parse::<u64>().ok()?.checked_mul(unit_ms)?;
        total_ms = total_ms.checked_add(part_ms)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW_MS: u64 = 1_700_000_000_123;

    fn from(text: &str) -> Result<Ulid, WindowError> {
        Window::parse(Some(text), None, NOW_MS).map(|w| w.from)
    }

    #[test]
    fn durations_count_from_the_clock_and_to_now_reaches_the_newest_record() {
        let now = Now { clock_ms: NOW_MS, newest_ms: NOW_MS + 86_400_000 };
        let read = |from, to| Window::parse(from, to, now).unwrap();
        assert_eq!(read(Some("1h"), None).from, Ulid::first_of_ms(NOW_MS - 3_600_000));
        assert_eq!(read(None, None).from, Ulid::first_of_ms(NOW_MS - 3_600_000));
        assert_eq!(read(Some("now"), None).from, Ulid::first_of_ms(NOW_MS));
        assert_eq!(read(None, Some("1m")).to, Ulid::last_of_ms(NOW_MS - 60_000));
        assert_eq!(read(None, Some("now")).to, Ulid::last_of_ms(now.newest_ms));
        let behind = Now { newest_ms: NOW_MS - 1, ..now };
        let to = Window::parse(None, Some("now"), behind).unwrap().to;
        assert_eq!(to, Ulid::last_of_ms(NOW_MS));
    }

    #[test]
    fn every_kind_of_time_is_read() {
        let at = |ms| Ok(Ulid::first_of_ms(ms));
        assert_eq!(from("now"), at(NOW_MS));
        assert_eq!(from("1h30m"), at(NOW_MS - 5_400_000));
        assert_eq!(from("100ms"), at(NOW_MS - 100));
        assert_eq!(from("7d"), at(NOW_MS - 7 * 86_400_000));
        assert_eq!(from("2023-11-14T22:13:20Z"), at(1_700_000_000_000));
        assert_eq!(from("2023-11-14T22:13:20.1239Z"), at(NOW_MS));
        assert_eq!(from("2023-11-15t00:13:20+02:00"), at(1_700_000_000_000));
        assert_eq!(from("2023-11-15T00:13:20 02:00"), at(1_700_000_000_000));
        assert_eq!(from("2023-11-14 19:13:20-03:00"), at(1_700_000_000_000));
        assert_eq!(from("1969-12-31T23:59:59Z"), at(0));
        assert_eq!(from("0000-01-01T00:00:00Z"), at(0));
        let id = Ulid::from_parts(NOW_MS, 7, 9);
        assert_eq!(from(&id.to_string()), Ok(id));
        assert_eq!(from(&id.to_string().to_lowercase()), Ok(id));
    }

    /// The ends of what RFC 3339 can say, a day and more beyond the years of four digits included.
    #[test]
    fn times_are_read_from_the_first_year_to_the_last() {
        /// 10000-01-01T00:00:00Z.
        const END_MS: u64 = 253_402_300_800_000;
        const OFFSET_MS: u64 = (23 * 60 + 59) * 60_000;
        for (text, ms) in [
            ("0000-01-01T00:00:00Z", 0),
            ("0000-01-01T00:00:00+23:59", 0),
            ("0000-01-01T00:00:00-23:59", 0),
            ("1969-12-31T23:59:59.999-23:59", OFFSET_MS - 1),
            ("9998-12-31T23:59:59Z", END_MS - 365 * 86_400_000 - 1_000),
            ("9999-12-29T23:59:59-23:59", END_MS - 2 * 86_400_000 - 1_000 + OFFSET_MS),
            ("9999-12-31T23:59:59Z", END_MS - 1_000),
            ("9999-12-31T23:59:59.5z", END_MS - 500),
            ("9999-12-31T23:59:59+23:59", END_MS - 1_000 - OFFSET_MS),
            ("9999-12-31T23:59:59-23:59", END_MS - 1_000 + OFFSET_MS),
            // A leap second is the second behind it, as clocks count it.
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("2016-12-31T23:59:60.25Z", 1_483_228_800_250),
            ("2017-01-01T05:29:60+05:30", 1_483_228_800_000),
            ("2016-12-31 15:59:60-08:00", 1_483_228_800_000),
            ("2015-06-30T23:59:60Z", 1_435_708_800_000),
            ("1969-12-31T23:59:60Z", 0),
            ("9999-12-31T23:59:60Z", END_MS),
            ("9999-12-31T00:00:60-23:59", END_MS),
        ] {
            assert_eq!(from(text), Ok(Ulid::first_of_ms(ms)), "{text}");
            let to = Window::parse(Some("0000-01-01T00:00:00Z"), Some(text), NOW_MS).map(|w| w.to);
            assert_eq!(to, Ok(Ulid::last_of_ms(ms)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for bad in [
            "5",
            "1h30",
            "h",
            "-5m",
            "5 m",
            "1y",
            "yesterday",
            "2023-11-14",
            "20231114T221320Z",
            "2023-11-14T22:13:20",
            "2023-13-14T22:13:20Z",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20Z[UTC]",
            "99999999999999999999d",
            "18446744073709551615d",
            "ü",
            "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "2023-11-14T22:13:20+0200",
            "2023-11-14ü22:13:20Z",
            "9999-12-32T00:00:00Z",
            "9999-02-29T00:00:00Z",
            "9999-12-31T24:00:00Z",
            "9999-12-31T23:59:59+99:00",
            "2023-11-14T22:13:20+24:00",
            "2023-11-14T22:13:20-24:00",
            "2023-11-14T22:13:20+25:00",
            "2023-11-14T22:13:20+23:60",
            // No second of 60 but the last of a month in UTC.
            "2023-11-14T22:13:60Z",
            "2023-11-14T23:59:60Z",
            "2023-11-30T22:59:60Z",
            "2016-12-31T23:59:60+01:00",
            "9999-12-31T23:59:60-23:59",
            "2016-12-31T23:59:61Z",
            "2016-12-31T23:60:00Z",
        ] {
            let error = from(bad).unwrap_err().to_string();
            assert!(error.starts_with("from: ") && error.contains("RFC 3339"), "{bad}: {error}");
        }
        let error = Window::parse(None, Some("x"), NOW_MS).unwrap_err().to_string();
        assert!(error.starts_with("to: "), "{error}");
    }

    #[test]
    fn both_ends_include_their_millisecond_and_defaults_hold() {
        let same = Window::parse(Some("now"), Some("now"), NOW_MS).unwrap();
        assert_eq!(same.from, Ulid::first_of_ms(NOW_MS));
        assert_eq!(same.to, Ulid::last_of_ms(NOW_MS));
        let open = Window::parse(None, Some(""), NOW_MS).unwrap();
        assert_eq!(open.from, Ulid::first_of_ms(NOW_MS - 3_600_000));
        assert_eq!(open.to, Ulid::MAX);
        assert_eq!(Window::parse(Some("1m"), Some("2m"), NOW_MS), Err(WindowError::Reversed));
    }

    proptest! {
        #[test]
        fn no_text_makes_parsing_panic(text: String, now_ms: u64) {
            let _ = Window::parse(Some(&text), Some(&text), now_ms);
        }
    }
}
