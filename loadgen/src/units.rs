//! Sizes, rates, windows and durations as people write them. The grammar is the daemon's: bytes,
//! or `kB MB GB` (powers of ten), `KiB MiB GiB` (powers of two); durations need a unit.

use std::time::Duration;

/// Bytes of a megabyte as reports use it.
pub(crate) const MB: f64 = 1e6;
/// Bytes of a gigabyte as reports use it.
pub(crate) const GB: f64 = 1e9;

const SIZE_UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

const DURATION_UNITS: [(&str, f64); 5] =
    [("ms", 1e-3), ("us", 1e-6), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// How fast to send, over all connections together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rate {
    BytesPerSecond(f64),
    RecordsPerSecond(f64),
}

/// How much may wait for its acknowledgement on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Window {
    Bytes(u64),
    Records(u64),
}

/// `4096`, `64KiB`, `1.5GB`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size: try 65536, 64KiB, 100MB or 2GiB");
    let (number, unit_bytes) = SIZE_UNITS
        .iter()
        .find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)))
        .unwrap_or((text, 1));
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit_bytes).ok_or_else(wrong);
    }
    let bytes = positive(number).ok_or_else(wrong)? * unit_bytes as f64;
    if bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// `100MB/s`, `100records/s`.
pub(crate) fn parse_rate(text: &str) -> Result<Rate, String> {
    let wrong = || format!("`{text}` is not a rate: try 100MB/s, 1500/s or 100records/s");
    let amount = text.strip_suffix("/s").unwrap_or(text);
    let records = ["records", "record", "r"].iter().find_map(|unit| amount.strip_suffix(unit));
    let rate = match records {
        Some(number) => Rate::RecordsPerSecond(positive(number).ok_or_else(wrong)?),
        None => Rate::BytesPerSecond(parse_size(amount).map_err(|_| wrong())? as f64),
    };
    match rate {
        Rate::BytesPerSecond(value) | Rate::RecordsPerSecond(value) if value > 0.0 => Ok(rate),
        _ => Err(wrong()),
    }
}

/// `1MiB`, `1record`, `100records`.
pub(crate) fn parse_window(text: &str) -> Result<Window, String> {
    let wrong = || format!("`{text}` is not a window: try 1MiB or 1record");
    let records = ["records", "record"].iter().find_map(|unit| text.strip_suffix(unit));
    let window = match records {
        Some(number) => Window::Records(number.parse().map_err(|_| wrong())?),
        None => Window::Bytes(parse_size(text).map_err(|_| wrong())?),
    };
    match window {
        Window::Bytes(0) | Window::Records(0) => Err(wrong()),
        _ => Ok(window),
    }
}

/// `60s`, `10m`, `100ms`; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration: try 500ms, 60s or 10m");
    let (number, unit_seconds) = DURATION_UNITS
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)))
        .unwrap_or((text, 1.0));
    let seconds = positive(number).ok_or_else(wrong)? * unit_seconds;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

fn positive(number: &str) -> Option<f64> {
    number.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_powers_of_ten_or_powers_of_two() {
        for (text, bytes) in
            [("0", 0), ("1500", 1500), ("2kB", 2000), ("2KiB", 2048), ("1.5MB", 1_500_000)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        for text in ["", "x", "-1", "1XB", "99999999999TiB", "nan", "inf"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_name_bytes_or_records() {
        assert_eq!(parse_rate("100MB/s"), Ok(Rate::BytesPerSecond(1e8)));
        assert_eq!(parse_rate("1500"), Ok(Rate::BytesPerSecond(1500.0)));
        assert_eq!(parse_rate("0.5records/s"), Ok(Rate::RecordsPerSecond(0.5)));
        for text in ["0", "0records/s", "fast", "/s"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn windows_name_bytes_or_records_and_are_never_nothing() {
        assert_eq!(parse_window("1MiB"), Ok(Window::Bytes(1 << 20)));
        assert_eq!(parse_window("1record"), Ok(Window::Records(1)));
        for text in ["0", "0records", "1.5records", "much"] {
            assert!(parse_window(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_take_a_unit_or_are_seconds() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_duration("2"), Ok(Duration::from_secs(2)));
        assert!(parse_duration("soon").is_err());
    }
}
