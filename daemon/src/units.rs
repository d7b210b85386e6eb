//! Sizes, durations and addresses as people write them on a command line, in a variable or in a
//! file, and back.
//!
//! Invariants: what [`format_size`] and [`format_duration`] write, [`parse_size`] and
//! [`parse_duration`] read as the same value; overflow is an error, never a wrap. Points in time
//! (`--from`, `--to`) are read in [`crate::times`].

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// Size suffixes and their factors, bytes. The largest that divides is written.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
];

/// Duration suffixes and their factors, milliseconds; longest first.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// What a size looks like; ends an error message.
pub(crate) const SIZE_FORM: &str = "a size is bytes, or a number with kB, MB, GB, TB (powers of \
                                    1000) or KiB, MiB, GiB, TiB (powers of 1024), as in 16MiB";
/// What a duration looks like; ends an error message.
pub(crate) const DURATION_FORM: &str =
    "a duration is numbers with units ms, s, m, h or d, as in 100ms, 3s, 1h30m, 7d";
/// What an address looks like; ends an error message.
pub(crate) const ADDRESS_FORM: &str =
    "an address is HOST, HOST:PORT or :PORT, with or without tcp://, an IPv6 host in brackets";

/// Reads a size, bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, &'static str> {
    let digits_len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(digits_len);
    let number: u64 = digits.parse().map_err(|_| SIZE_FORM)?;
    let factor = match unit.trim_start() {
        "" | "B" => 1,
        unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or(SIZE_FORM)?.1,
    };
    number.checked_mul(factor).ok_or(SIZE_FORM)
}

/// Writes a size with the largest binary or decimal unit that divides it.
pub(crate) fn format_size(bytes: u64) -> String {
    match SIZE_UNITS.iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// Reads a duration of whole milliseconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let mut rest = text;
    let mut total_ms: u64 = 0;
    if rest.is_empty() {
        return Err(DURATION_FORM);
    }
    while !rest.is_empty() {
        let digits_len = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, after) = rest.split_at(digits_len);
        let unit_len = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(unit_len);
        let number: u64 = digits.parse().map_err(|_| DURATION_FORM)?;
        let (_, factor_ms) =
            DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or(DURATION_FORM)?;
        total_ms = number
            .checked_mul(*factor_ms)
            .and_then(|ms| total_ms.checked_add(ms))
            .ok_or(DURATION_FORM)?;
        rest = after;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a duration as days, hours, minutes, seconds and milliseconds without the zero ones.
pub(crate) fn format_duration(duration: Duration) -> String {
    let mut rest_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut parts = Vec::new();
    for (unit, factor_ms) in DURATION_UNITS {
        if rest_ms >= factor_ms {
            parts.push(format!("{}{unit}", rest_ms / factor_ms));
            rest_ms %= factor_ms;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.concat() }
}

/// An address as written: either half may be left to a default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// The host, without brackets.
    pub(crate) host: Option<String>,
    /// The port.
    pub(crate) port: Option<u16>,
}

impl Address {
    /// Reads `host`, `host:port` or `:port`, with or without `tcp://`.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.strip_prefix("tcp://").unwrap_or(text);
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or(ADDRESS_FORM)?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(ADDRESS_FORM),
            }
        } else if text.bytes().filter(|&b| b == b':').count() > 1 {
            let (address, _zone) = text.split_once('%').unwrap_or((text, ""));
            address.parse::<Ipv6Addr>().map_err(|_| ADDRESS_FORM)?;
            (text, None)
        } else {
            text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        let host_is_plain =
            host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:%".contains(&b));
        let port = match port {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().map_err(|_| ADDRESS_FORM)?)
            }
            Some(_) => return Err(ADDRESS_FORM),
            None => None,
        };
        if !host_is_plain || (host.is_empty() && port.is_none()) {
            return Err(ADDRESS_FORM);
        }
        Ok(Self { host: (!host.is_empty()).then(|| host.to_owned()), port })
    }

    /// Fills what was left out.
    pub(crate) fn or(&self, host: &str, port: u16) -> Endpoint {
        Endpoint {
            host: self.host.clone().unwrap_or_else(|| host.to_owned()),
            port: self.port.unwrap_or(port),
        }
    }
}

/// A host and a port; the host may still need to be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// A name, an IPv4 or an IPv6 address without brackets.
    pub(crate) host: String,
    /// The port; 0 asks the system for a free one where a listener is meant.
    pub(crate) port: u16,
}

impl Endpoint {
    /// The socket addresses behind it, at least one.
    pub(crate) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let found: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(found)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("7B", 7),
            ("1kB", 1000),
            ("16MiB", 16 << 20),
            ("2GB", 2_000_000_000),
            ("1 GiB", 1 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "MiB", "-1", "1.5MiB", "1mb", "1 M", "99999999999999999999", "99999999TiB"]
        {
            assert_eq!(parse_size(bad), Err(SIZE_FORM), "{bad}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        for (text, ms) in [
            ("100ms", 100),
            ("3s", 3_000),
            ("1m", 60_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in [
            "",
            "5",
            "h",
            "1y",
            "1.5h",
            "-1s",
            "1h 30m",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            assert_eq!(parse_duration(bad), Err(DURATION_FORM), "{bad}");
        }
    }

    #[test]
    fn addresses_may_leave_out_either_half() {
        let read = |text| Address::parse(text).map(|a| a.or("dflt", 1).to_string());
        for (text, expected) in [
            ("web", "web:1"),
            ("web:80", "web:80"),
            (":80", "dflt:80"),
            ("tcp://10.0.0.1:80", "10.0.0.1:80"),
            ("tcp://[::1]:7651", "[::1]:7651"),
            ("tcp://[::]", "[::]:1"),
            ("tcp://:0", "dflt:0"),
            ("[::1]:80", "[::1]:80"),
            ("[::1]", "[::1]:1"),
            ("::1", "[::1]:1"),
            ("fe80::1%eth0", "[fe80::1%eth0]:1"),
        ] {
            assert_eq!(read(text), Ok(expected.to_owned()), "{text}");
        }
        for bad in [
            "",
            "tcp://",
            "web:",
            "web:65536",
            "web:x",
            "[::1",
            "[::1]x",
            "a b",
            "udp://x:1",
            ":+8",
            "host:port:port",
            "web:80:81",
            ":1:2",
            "::1:x",
        ] {
            assert_eq!(Address::parse(bad), Err(ADDRESS_FORM), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn sizes_round_trip(bytes: u64) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn durations_round_trip(ms in 0..u64::MAX / 2) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn endpoints_round_trip(host in "[a-z][a-z0-9.-]{0,20}|::[0-9a-f]{1,4}", port: u16) {
            let endpoint = Endpoint { host, port };
            let read = Address::parse(&endpoint.to_string()).map(|a| a.or("other", 1));
            prop_assert_eq!(read, Ok(endpoint));
        }

        #[test]
        fn any_text_is_read_or_refused_without_panic(text: String) {
            let _ = (parse_size(&text), parse_duration(&text), Address::parse(&text));
        }
    }
}
