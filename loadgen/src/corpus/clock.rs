//! The clock of a generated corpus: starts at a fixed day, moves on with the lines, and keeps its
//! text in the formats that logs use. It has nothing to do with the time of day outside.

use super::digits::write_digits;

/// 2026-03-01T00:00:00Z.
const START_MS: u64 = 1_772_323_200_000;
const DAY_SECONDS: u64 = 86_400;
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// A time and its text, which is formatted once per second of it.
#[derive(Debug, Clone)]
pub(crate) struct LogClock {
    ms: u64,
    second: u64,
    /// `2026-03-01T00:00:00`
    pub(crate) iso: [u8; 19],
    /// `01/Mar/2026:00:00:00 +0000`
    pub(crate) clf: [u8; 26],
    /// `Mar  1 00:00:00`
    pub(crate) syslog: [u8; 15],
}

impl LogClock {
    pub(crate) fn new() -> Self {
        let mut clock = Self {
            ms: START_MS,
            second: START_MS / 1000,
            iso: *b"0000-00-00T00:00:00",
            clf: *b"00/Jan/0000:00:00:00 +0000",
            syslog: *b"Jan 00 00:00:00",
        };
        clock.format();
        clock
    }

    /// Moves on.
    #[inline]
    pub(crate) fn advance(&mut self, ms: u64) {
        self.ms += ms;
        if self.ms / 1000 != self.second {
            self.second = self.ms / 1000;
            self.format();
        }
    }

    /// Milliseconds inside the second.
    pub(crate) const fn millisecond(&self) -> u64 {
        self.ms % 1000
    }

    /// Milliseconds since the corpus began.
    pub(crate) const fn uptime_ms(&self) -> u64 {
        self.ms - START_MS
    }

    /// `00:00:00`
    pub(crate) fn time_of_day(&self) -> &[u8] {
        &self.iso[11..]
    }

    fn format(&mut self) {
        let (year, month, day) = civil_date(self.second / DAY_SECONDS);
        let of_day = self.second % DAY_SECONDS;
        write_digits(&mut self.iso[..4], year);
        write_digits(&mut self.iso[5..7], month);
        write_digits(&mut self.iso[8..10], day);
        write_digits(&mut self.iso[11..13], of_day / 3600);
        write_digits(&mut self.iso[14..16], of_day / 60 % 60);
        write_digits(&mut self.iso[17..], of_day % 60);
        let name = MONTHS[(month - 1) as usize];
        write_digits(&mut self.clf[..2], day);
        self.clf[3..6].copy_from_slice(name);
        write_digits(&mut self.clf[7..11], year);
        self.clf[12..20].copy_from_slice(&self.iso[11..]);
        self.syslog[..3].copy_from_slice(name);
        write_digits(&mut self.syslog[4..6], day);
        if day < 10 {
            self.syslog[4] = b' ';
        }
        self.syslog[7..].copy_from_slice(&self.iso[11..]);
    }
}

/// Year, month and day of a number of days since 1970-01-01: `civil_from_days` of
/// <https://howardhinnant.github.io/date_algorithms.html>, for days that are not before it.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days_have_their_dates() {
        assert_eq!(civil_date(0), (1970, 1, 1));
        assert_eq!(civil_date(11_016), (2000, 2, 29));
        assert_eq!(civil_date(20_513), (2026, 3, 1));
    }

    #[test]
    fn every_format_shows_the_same_time() {
        let mut clock = LogClock::new();
        clock.advance(3_600_000 + 61_250);
        assert_eq!(&clock.iso, b"2026-03-01T01:01:01");
        assert_eq!(&clock.clf, b"01/Mar/2026:01:01:01 +0000");
        assert_eq!(&clock.syslog, b"Mar  1 01:01:01");
        assert_eq!(clock.time_of_day(), b"01:01:01");
        assert_eq!((clock.millisecond(), clock.uptime_ms()), (250, 3_661_250));
    }
}
