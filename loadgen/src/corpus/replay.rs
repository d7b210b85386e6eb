//! The bytes of a file, shared among connections at line boundaries, sent once or again and again.
//!
//! Invariants: a share begins at the start of a line and ends behind a newline (or at the end of
//! the file); when a share starts over and its last line has no newline, one is put in. Memory is
//! one read buffer, whatever the lines are.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use memchr::{memchr, memchr_iter};

const READ_BYTES: usize = 1 << 20;

/// A part of a file, as a stream of a known length.
#[derive(Debug)]
pub(crate) struct Replay {
    file: Arc<File>,
    start: u64,
    end: u64,
    at: u64,
    /// Bytes still to come, newlines put in included.
    remaining: u64,
    /// The share's last line lacks its newline.
    unterminated: bool,
}

/// How much of its share a replay yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    Once,
    Bytes(u64),
    Records(u64),
    Endless,
}

impl Replay {
    /// The `index`-th of `shares` parts of a file.
    pub(crate) fn share(
        file: Arc<File>,
        index: u64,
        shares: u64,
        amount: Amount,
    ) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let cut = |nth: u64| {
            line_start(&file, len, (u128::from(len) * u128::from(nth) / u128::from(shares)) as u64)
        };
        let (start, end) = (cut(index)?, cut(index + 1)?);
        let mut last = [b'\n'];
        if end > start {
            file.read_exact_at(&mut last, end - 1)?;
        }
        let unterminated = last[0] != b'\n';
        let mut replay = Self { file, start, end, at: start, remaining: 0, unterminated };
        replay.remaining = replay.total(amount)?;
        Ok(replay)
    }

    /// Bytes of the stream: whole cycles, and of the last one so much that it ends at a line.
    fn total(&self, amount: Amount) -> io::Result<u64> {
        let once = self.end - self.start;
        let cycle = once + u64::from(self.unterminated);
        if once == 0 {
            return Ok(0);
        }
        match amount {
            Amount::Once => Ok(once),
            Amount::Endless => Ok(u64::MAX),
            Amount::Bytes(bytes) if bytes % cycle == 0 => Ok(bytes),
            Amount::Bytes(bytes) => {
                let wanted = bytes % cycle;
                let behind = line_start(&self.file, self.end, self.start + wanted)? - self.start;
                Ok(bytes - wanted + if behind < once { behind } else { cycle })
            }
            Amount::Records(records) => {
                let lines = self.lines_until(u64::MAX)?.0 + u64::from(self.unterminated);
                let (cycles, rest) = (records / lines, records % lines);
                Ok(cycles * cycle + self.lines_until(rest)?.1)
            }
        }
    }

    /// Lines of the share up to `limit` of them, and the bytes that they take.
    fn lines_until(&self, limit: u64) -> io::Result<(u64, u64)> {
        let (mut lines, mut at) = (0, self.start);
        let mut buffer = vec![0; READ_BYTES];
        while at < self.end && lines < limit {
            let want = buffer.len().min((self.end - at) as usize);
            let count = self.file.read_at(&mut buffer[..want], at)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            for newline in memchr_iter(b'\n', &buffer[..count]) {
                lines += 1;
                if lines == limit {
                    return Ok((lines, at + newline as u64 + 1 - self.start));
                }
            }
            at += count as u64;
        }
        Ok((lines, at - self.start))
    }

    /// Appends up to `limit` bytes less what `out` holds; false when the stream has ended.
    pub(crate) fn fill(&mut self, out: &mut Vec<u8>, limit: usize) -> io::Result<bool> {
        while out.len() < limit && self.remaining > 0 {
            if self.at == self.end {
                self.at = self.start;
                if self.unterminated {
                    out.push(b'\n');
                    self.remaining -= 1;
                    continue;
                }
            }
            let len = out.len();
            let want = (self.end - self.at).min(self.remaining).min((limit - len) as u64) as usize;
            out.resize(len + want, 0);
            let count = self.file.read_at(&mut out[len..], self.at)?;
            out.truncate(len + count);
            if count == 0 {
                return Err(io::Error::other("the file became shorter while it was sent"));
            }
            self.at += count as u64;
            self.remaining -= count as u64;
        }
        Ok(self.remaining > 0)
    }
}

/// The first start of a line at or behind `at`; `end` if there is none.
fn line_start(file: &File, end: u64, at: u64) -> io::Result<u64> {
    if at == 0 || at >= end {
        return Ok(at.min(end));
    }
    let mut buffer = vec![0; 4096];
    let mut from = at - 1;
    while from < end {
        let want = buffer.len().min((end - from) as usize);
        let count = file.read_at(&mut buffer[..want], from)?;
        if count == 0 {
            break;
        }
        if let Some(newline) = memchr(b'\n', &buffer[..count]) {
            return Ok(from + newline as u64 + 1);
        }
        from += count as u64;
        if buffer.len() < READ_BYTES {
            buffer.resize(buffer.len() * 4, 0);
        }
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn file_of(text: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        Arc::new(file)
    }

    fn stream(file: &Arc<File>, index: u64, shares: u64, amount: Amount, step: usize) -> Vec<u8> {
        let mut replay = Replay::share(Arc::clone(file), index, shares, amount).unwrap();
        let mut all = Vec::new();
        loop {
            let mut part = Vec::new();
            let more = replay.fill(&mut part, step).unwrap();
            all.extend(part);
            if !more {
                return all;
            }
        }
    }

    proptest! {
        #[test]
        fn shares_are_whole_lines_and_together_the_file(
            text in prop::collection::vec(prop::sample::select(b"ab\n".to_vec()), 0..80),
            shares in 1u64..6,
            step in 1usize..9,
        ) {
            let file = file_of(&text);
            let mut all = Vec::new();
            for index in 0..shares {
                let part = stream(&file, index, shares, Amount::Once, step);
                prop_assert!(all.is_empty() || part.is_empty() || all.last() == Some(&b'\n'));
                all.extend(part);
            }
            prop_assert_eq!(all, text);
        }

        #[test]
        fn amounts_repeat_the_lines_and_end_behind_one(
            text in prop::collection::vec(prop::sample::select(b"ab\n".to_vec()), 1..40),
            amount in 1u64..200,
        ) {
            let file = file_of(&text);
            let mut cycle = text.clone();
            if cycle.last() != Some(&b'\n') {
                cycle.push(b'\n');
            }
            let endless: Vec<u8> = cycle.iter().copied().cycle().take(20_000).collect();
            let by_bytes = stream(&file, 0, 1, Amount::Bytes(amount), 7);
            prop_assert!(by_bytes.len() as u64 >= amount);
            prop_assert!(endless.starts_with(&by_bytes) && by_bytes.last() == Some(&b'\n'));
            let shorter = &by_bytes[..by_bytes.len() - 1];
            let before = shorter.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            prop_assert!((before as u64) < amount, "no line more than was asked for");

            let by_records = stream(&file, 0, 1, Amount::Records(amount), 7);
            prop_assert!(endless.starts_with(&by_records));
            let lines = by_records.split_inclusive(|&byte| byte == b'\n').count() as u64;
            prop_assert_eq!(lines, amount);
        }
    }
}
