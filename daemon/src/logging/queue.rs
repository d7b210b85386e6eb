//! Lines on their way to standard error: a bounded queue, written by one thread of its own.
//!
//! Invariants: whoever logs never waits for standard error, whatever it is connected to; what finds
//! no room, or cannot be written, is left out and counted, and how much that was is told in its
//! place as soon as lines flow again; a line is written whole or ends where the next one begins;
//! nothing here panics. Does not format lines and does not decide which are worth writing.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use net::metrics::LogMetrics;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What waits to be written, bytes: what a node says in its worst minute.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// Longest line, bytes: the rest of a longer one is cut off, as a name or an address that somebody
/// else chose could be of any length.
pub(super) const LINE_BYTES_MAX: usize = 16 << 10;

/// How often a write that failed is tried again, and what is due is looked for.
const BEAT: Duration = Duration::from_secs(1);

/// Tries of a thread that panics, perhaps while it holds the lock, to get it.
const PANIC_TRIES: u32 = 100;

/// Where bytes go.
pub(super) trait Sink {
    /// Writes some; may wait as long as it likes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
}

/// Standard error as it is, without the lock and the panics of the standard library's.
pub(super) struct StandardError;

impl Sink for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let out: BorrowedFd<'_> = rustix::stdio::stderr();
        loop {
            match rustix::io::write(out, bytes) {
                Err(rustix::io::Errno::INTR) => {}
                // Somebody who shares it made it non-blocking.
                Err(rustix::io::Errno::AGAIN) => {
                    let beat = Timespec { tv_sec: 1, tv_nsec: 0 };
                    poll(&mut [PollFd::from_borrowed_fd(out, PollFlags::OUT)], Some(&beat))?;
                }
                written => return Ok(written?),
            }
        }
    }
}

struct Entry {
    /// Lines that were left out before this one.
    gap: u64,
    line: Vec<u8>,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Lines that were left out behind the last entry.
    gap: u64,
    is_writing: bool,
}

/// See the module page.
#[derive(Default)]
pub(super) struct LineQueue {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
    metrics: LogMetrics,
}

impl LineQueue {
    /// An empty one that counts what is left out in `metrics`.
    pub(super) fn new(metrics: LogMetrics) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// Queues a line, if there is room. Never waits for more than another thread's push.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        self.put(&mut state, line);
    }

    /// The same for a thread that panics: it may hold the lock itself.
    pub(super) fn push_at_the_end(&self, line: &[u8]) {
        for _ in 0..PANIC_TRIES {
            match self.state.try_lock() {
                Ok(mut state) => return self.put(&mut state, line),
                Err(TryLockError::Poisoned(state)) => {
                    return self.put(&mut state.into_inner(), line);
                }
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        }
    }

    fn put(&self, state: &mut State, line: &[u8]) {
        if state.bytes + line.len() > QUEUE_BYTES_MAX {
            state.gap += 1;
            self.metrics.left_out.inc();
            return;
        }
        let gap = std::mem::take(&mut state.gap);
        state.bytes += line.len();
        state.entries.push_back(Entry { gap, line: shortened(line) });
        self.filled.notify_one();
    }

    /// Waits until everything is written, but no longer than that; says whether it is.
    pub(super) fn wait_until_written(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while !state.entries.is_empty() || state.is_writing {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.emptied.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Writes for ever. `gap` words how many lines were left out; `beat` is called about once a
    /// second, unless a write waits.
    pub(super) fn write_to(
        &self,
        sink: &mut impl Sink,
        gap: impl Fn(u64) -> Vec<u8>,
        mut beat: impl FnMut(),
    ) -> ! {
        let mut out = Output::new(sink, gap);
        let mut beaten = Instant::now();
        loop {
            self.write_one(&mut out, BEAT.saturating_sub(beaten.elapsed()));
            if beaten.elapsed() >= BEAT {
                beaten = Instant::now();
                beat();
            }
        }
    }

    /// Writes the next line, or what became of the last ones if none comes in this time.
    fn write_one<S: Sink, G: Fn(u64) -> Vec<u8>>(
        &self,
        out: &mut Output<'_, S, G>,
        wait: Duration,
    ) {
        let mut state = self.lock();
        if state.entries.is_empty() && state.gap == 0 {
            let waited = self.filled.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let entry = state.entries.pop_front();
        let gap = match &entry {
            Some(entry) => entry.gap,
            None => std::mem::take(&mut state.gap),
        };
        state.bytes -= entry.as_ref().map_or(0, |entry| entry.line.len());
        state.is_writing = true;
        drop(state);
        let lost = out.write(gap, entry.map(|entry| entry.line));
        self.metrics.left_out.inc_by(lost);
        let mut state = self.lock();
        state.is_writing = false;
        if state.entries.is_empty() {
            self.emptied.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writing side: what it could not write yet.
struct Output<'a, S, G> {
    sink: &'a mut S,
    words: G,
    /// Lines that were left out and not told.
    untold: u64,
    /// The last line was cut by an error.
    is_mid_line: bool,
}

impl<'a, S: Sink, G: Fn(u64) -> Vec<u8>> Output<'a, S, G> {
    fn new(sink: &'a mut S, words: G) -> Self {
        Self { sink, words, untold: 0, is_mid_line: false }
    }

    /// Tells the gap, then writes the line; says how many lines were lost.
    fn write(&mut self, gap: u64, line: Option<Vec<u8>>) -> u64 {
        self.untold += gap;
        if self.untold > 0 && self.write_all(&(self.words)(self.untold)).is_ok() {
            self.untold = 0;
        }
        let Some(line) = line else { return 0 };
        // What cannot take the news of a gap cannot take what comes behind it.
        if self.untold == 0 && self.write_all(&line).is_ok() {
            return 0;
        }
        self.untold += 1;
        1
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_mid_line {
            self.write_bytes(b"\n")?;
            self.is_mid_line = false;
        }
        self.write_bytes(line)
    }

    fn write_bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.sink.write(bytes)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written.min(bytes.len())..];
            self.is_mid_line = !bytes.is_empty();
        }
        Ok(())
    }
}

/// The line, or its beginning and an end.
fn shortened(line: &[u8]) -> Vec<u8> {
    if line.len() <= LINE_BYTES_MAX {
        return line.to_vec();
    }
    [&line[..LINE_BYTES_MAX], b"...\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then fails, until it is given more room.
    #[derive(Default)]
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
    }

    impl Sink for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = bytes.len().min(self.room - self.bytes.len());
            if len == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.bytes.extend_from_slice(&bytes[..len]);
            Ok(len)
        }
    }

    fn words(count: u64) -> Vec<u8> {
        format!("{count} left out\n").into_bytes()
    }

    fn write_all(queue: &LineQueue, output: &mut Output<'_, Disk, fn(u64) -> Vec<u8>>) {
        while queue.lock().bytes > 0 || queue.lock().gap > 0 {
            queue.write_one(output, Duration::ZERO);
        }
        queue.write_one(output, Duration::ZERO);
    }

    #[test]
    fn what_finds_no_room_is_left_out_and_told_in_its_place() {
        let queue = LineQueue::default();
        let long = [b"x".repeat(LINE_BYTES_MAX - 1), b"\n".to_vec()].concat();
        let fit = QUEUE_BYTES_MAX / long.len();
        for _ in 0..fit + 7 {
            queue.push(&long);
        }
        assert_eq!(queue.metrics.left_out.get(), 7);
        let mut disk = Disk { room: usize::MAX, ..Disk::default() };
        let mut output = Output::new(&mut disk, words as fn(u64) -> Vec<u8>);
        queue.write_one(&mut output, Duration::ZERO);
        queue.push(b"behind\n");
        write_all(&queue, &mut output);
        let text = String::from_utf8(disk.bytes).unwrap();
        assert!(text.ends_with("xx\n7 left out\nbehind\n"));
        assert_eq!(text.lines().count(), fit + 2);
        assert!(queue.wait_until_written(Duration::ZERO));
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_told_once_there_is_room_and_lines_stay_whole() {
        let queue = LineQueue::default();
        let mut disk = Disk { room: 8, ..Disk::default() };
        let mut output = Output::new(&mut disk, words as fn(u64) -> Vec<u8>);
        for line in ["first\n", "second\n", "third\n"] {
            queue.push(line.as_bytes());
        }
        write_all(&queue, &mut output);
        assert_eq!(queue.metrics.left_out.get(), 2);
        assert_eq!(output.sink.bytes, b"first\nse");
        output.sink.room = usize::MAX;
        // Without a further line, too.
        write_all(&queue, &mut output);
        queue.push(b"fourth\n");
        write_all(&queue, &mut output);
        assert_eq!(disk.bytes, b"first\nse\n2 left out\nfourth\n");
        assert_eq!(queue.metrics.left_out.get(), 2);
    }

    #[test]
    fn nobody_waits_longer_than_told_for_a_writer_that_does_not_write() {
        let queue = LineQueue::default();
        queue.push(b"stays\n");
        assert!(!queue.wait_until_written(Duration::from_millis(1)));
        let held = queue.lock();
        queue.push_at_the_end(b"must not wait for itself\n");
        drop(held);
        assert_eq!(queue.lock().entries.len(), 1);
    }

    #[test]
    fn a_line_of_any_length_is_cut_and_ends() {
        assert_eq!(shortened(b"short\n"), b"short\n");
        let cut = shortened(&b"x".repeat(10 * LINE_BYTES_MAX));
        assert!(cut.len() == LINE_BYTES_MAX + 4 && cut.ends_with(b"x...\n"));
    }
}
