//! What is sent: entries that differ in level, service and message, the same of the same number.

use std::time::Duration;

/// Of so many entries one is of the service that is followed.
const FOLLOWED_EVERY: u64 = 100;
/// That service.
pub(super) const FOLLOWED: &str = "followed";

/// Makes them.
#[derive(Debug)]
pub(crate) struct Entries {
    services: u64,
    filler: String,
    message_bytes: usize,
}

impl Entries {
    /// Of so many services, with messages of about that length.
    pub(crate) fn new(services: u64, message_bytes: usize) -> Self {
        let words = "request served from cache with status ok after waiting for a worker ";
        let filler = words.repeat(message_bytes / words.len() + 1);
        Self { services: services.max(1), filler, message_bytes }
    }

    /// The body of a request; `at` is when, since the beginning of the run.
    pub(crate) fn body(&self, number: u64, at: Duration) -> String {
        let level = match number % 20 {
            0 => "error",
            1 | 2 => "warn",
            3..=5 => "debug",
            _ => "info",
        };
        let service = if number.is_multiple_of(FOLLOWED_EVERY) {
            FOLLOWED.to_owned()
        } else {
            format!("service-{}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % self.services)
        };
        let head = format!("at={} n={number} ", at.as_micros());
        let filler = &self.filler[..self.message_bytes.saturating_sub(head.len())];
        format!(
            "{{\"level\":\"{level}\",\"message\":\"{head}{filler}\",\"service\":\"{service}\"}}"
        )
    }
}

/// How many of the first `count` are of the service that is followed.
pub(super) const fn followed(count: u64) -> u64 {
    count.div_ceil(FOLLOWED_EVERY)
}

/// When an entry was made, by its message.
pub(super) fn made_at(message: &str) -> Option<Duration> {
    let digits = message.strip_prefix("at=")?.split(' ').next()?;
    digits.parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_json_that_says_when_they_were_made() {
        let entries = Entries::new(7, 120);
        let mut of_it = 0;
        for number in 0..250 {
            let at = Duration::from_micros(number * 13);
            let entry: serde_json::Value = serde_json::from_str(&entries.body(number, at)).unwrap();
            let message = entry["message"].as_str().unwrap();
            assert_eq!((message.len(), made_at(message)), (120, Some(at)));
            of_it += u64::from(entry["service"] == FOLLOWED);
            assert_eq!(of_it, followed(number + 1));
        }
        assert_eq!(made_at("something else"), None);
    }
}
