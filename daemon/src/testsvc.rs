//! Synthetic records on standard output at a steady rate, as the predecessor emits them:
//! `TIME ID NUMBER PADDING`.
//!
//! Invariants: every record has exactly the size that was asked for, newline included; numbers
//! grow by one; a closed pipe ends it silently. Records of one cycle are written at once, so a
//! rate beyond what a timer can resolve is still kept.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use engine::random::Random;
use jiff::Timestamp;

use crate::exit::Exit;
use crate::output;
use crate::settings::{Settings, SettingsError};

/// `2016-01-01T12:34:56Z` is this long.
const TIME_LEN: usize = 20;
/// Digits of the number, at least.
const NUMBER_LEN: usize = 9;
/// Most records of one cycle: bounds the buffer.
const CYCLE_BYTES_MAX: u64 = 1 << 20;
/// Cycles are not shorter than this.
const CYCLE_MIN: Duration = Duration::from_millis(50);

/// What to emit.
#[derive(Debug, Clone)]
pub(crate) struct TestServiceConfig {
    id: String,
    size_bytes: usize,
    rate: u64,
}

impl TestServiceConfig {
    /// Makes it of settings that were resolved with [`crate::flag_table::TESTSVC`].
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        let id = settings.text("id");
        let size_bytes = settings.number("size") as usize;
        let least = TIME_LEN + 1 + id.len() + 1 + NUMBER_LEN + 1 + 1 + 1;
        if id.contains('\n') {
            return Err(SettingsError::Conflict("--id holds a newline".to_owned()));
        }
        if size_bytes < least {
            return Err(SettingsError::Conflict(format!(
                "--size {size_bytes} is too small: with --id {id:?} it is at least {least}"
            )));
        }
        Ok(Self { id, size_bytes, rate: settings.number("rate") })
    }

    /// Records per cycle and the time that a cycle takes.
    fn cycle(&self) -> (u64, Duration) {
        let mut records = 1;
        let mut time = Duration::from_secs(1) / u32::try_from(self.rate).unwrap_or(u32::MAX);
        while time < CYCLE_MIN && records * 2 * self.size_bytes as u64 <= CYCLE_BYTES_MAX {
            records *= 2;
            time = Duration::from_nanos(records * 1_000_000_000 / self.rate);
        }
        (records, time)
    }
}

/// Emits until the output is closed or the process is interrupted.
pub(crate) fn run(config: &TestServiceConfig) -> Exit {
    let (records, time) = config.cycle();
    output::tell(format_args!(
        "{} starting, {} bytes/record, {} records/sec; {records} records/cycle, {time:?}/cycle",
        config.id, config.size_bytes, config.rate
    ));
    let mut out = output::stdout();
    let mut buffer = Vec::with_capacity(records as usize * config.size_bytes);
    let start = Instant::now();
    let mut number = 0;
    for cycle in 1_u32.. {
        buffer.clear();
        for _ in 0..records {
            number += 1;
            push_record(&mut buffer, config, Timestamp::now(), number);
        }
        match out.write_all(&buffer) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Exit::Done,
            Err(error) => {
                return output::fail(Exit::Error, format_args!("standard output: {error}"));
            }
        }
        // The next cycle is due relative to the start: a slow reader is caught up with.
        let due = start + time * cycle;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Exit::Done
}

/// Appends one record and its newline.
fn push_record(out: &mut Vec<u8>, config: &TestServiceConfig, now: Timestamp, number: u64) {
    const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let end = out.len() + config.size_bytes - 1;
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{now:.0} {} {number:0NUMBER_LEN$} ", config.id);
    // The padding depends on the number only.
    let mut random = Random::new(number);
    let mut bits = 0_u64;
    let mut left = 0;
    let mut column = 0;
    let word_len = 5 + (number % 15) as usize;
    while out.len() < end {
        if left == 0 {
            bits = random.next_u64();
            left = 12;
        }
        let last = out.len() + 1 == end;
        let space = column % word_len == word_len - 1 && !last;
        out.push(if space { b' ' } else { LETTERS[(bits & 31) as usize] });
        bits >>= 5;
        left -= 1;
        column += 1;
    }
    // A number of more than nine digits takes its room from the padding.
    out.truncate(end);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_size_and_shape_that_was_asked_for() {
        let config = TestServiceConfig { id: "foo".to_owned(), size_bytes: 64, rate: 5 };
        let mut out = Vec::new();
        for number in [1, 999_999_999] {
            push_record(&mut out, &config, Timestamp::UNIX_EPOCH, number);
        }
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.split_inclusive('\n').collect();
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.len() == 64));
        assert!(lines[0].starts_with("1970-01-01T00:00:00Z foo 000000001 "), "{}", lines[0]);
        assert!(lines[1].starts_with("1970-01-01T00:00:00Z foo 999999999 "));
    }

    #[test]
    fn cycles_keep_the_rate() {
        for rate in [1, 5, 19, 21, 1_000, 123_457, 10_000_000] {
            let config = TestServiceConfig { id: "x".to_owned(), size_bytes: 100, rate };
            let (records, time) = config.cycle();
            let per_second = records as f64 / time.as_secs_f64();
            assert!((per_second / rate as f64 - 1.0).abs() < 0.01, "{rate}: {per_second}");
            assert!(records * 100 <= CYCLE_BYTES_MAX);
        }
    }
}
