//! Follows `/ws/live` on a thread of its own: as much of a WebSocket client (RFC 6455) as that needs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::Value;

use super::entries::{FOLLOWED, made_at};
use crate::failure::{Context, Failure, Result};
use crate::send::new_histogram;

/// Longest frame.
const FRAME_BYTES_MAX: u64 = 1 << 20;
/// How long the last entries may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) entries: u64,
    /// Told as left out.
    pub(crate) missed: u64,
    /// From before an entry was handed over to its frame, microseconds.
    pub(crate) latency: Histogram<u64>,
}

/// See the module page.
pub(super) struct Follower {
    stream: TcpStream,
    seen: Arc<Mutex<Seen>>,
    count: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Follower {
    /// Follows from now on; `start` is the beginning of the run.
    pub(super) fn start(api: &str, start: Instant) -> Result<Self> {
        let following = || format!("following ws://{api}/ws/live");
        let stream = TcpStream::connect(api).context(following)?;
        stream.set_nodelay(true).context(following)?;
        let request = format!(
            "GET /ws/live?service={FOLLOWED} HTTP/1.1\r\nHost: {api}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        (&stream).write_all(request.as_bytes()).context(following)?;
        let mut reader = BufReader::new(stream.try_clone().context(following)?);
        let mut status = String::new();
        reader.read_line(&mut status).context(following)?;
        if !status.starts_with("HTTP/1.1 101 ") {
            return Err(Failure::run(format!("{}: {}", following(), status.trim())));
        }
        let mut line = String::new();
        while reader.read_line(&mut line).context(following)? > 2 {
            line.clear();
        }
        let seen = Seen { entries: 0, missed: 0, latency: new_histogram() };
        let (seen, count) = (Arc::new(Mutex::new(seen)), Arc::new(AtomicU64::new(0)));
        let shared = (Arc::clone(&seen), Arc::clone(&count));
        // It ends with its connection.
        let thread = std::thread::spawn(move || {
            let (seen, count) = shared;
            while let Ok(Some(text)) = next_text(&mut reader) {
                let now = start.elapsed();
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                take(&mut seen, &text, now);
                count.store(seen.entries + seen.missed, Ordering::Release);
            }
        });
        Ok(Self { stream, seen, count, thread })
    }

    /// Waits for the last of so many, and ends.
    pub(super) fn end(self, expected: u64) -> Seen {
        let start = Instant::now();
        while self.count.load(Ordering::Acquire) < expected && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Refused where the node has closed it already.
        let _ = self.stream.shutdown(Shutdown::Both);
        let _ = self.thread.join();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let latency = std::mem::replace(&mut seen.latency, new_histogram());
        Seen { latency, ..*seen }
    }
}

fn take(seen: &mut Seen, text: &[u8], now: Duration) {
    let entry: Value = serde_json::from_slice(text).unwrap_or_default();
    if let Some(missed) = entry["missed"].as_u64() {
        seen.missed += missed;
    } else if let Some(at) = entry["message"].as_str().and_then(made_at) {
        seen.entries += 1;
        let us = now.saturating_sub(at).as_micros();
        seen.latency.saturating_record(u64::try_from(us).unwrap_or(u64::MAX).max(1));
    }
}

/// The next text; `None` when the node closes. Pings are answered.
fn next_text(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Vec<u8>>> {
    loop {
        let (code, payload) = next_frame(reader)?;
        match code {
            1 => return Ok(Some(payload)),
            8 => return Ok(None),
            9 => {
                // A pong with what the ping had, masked with zeros; pings of the node are short.
                let len = payload.len().min(125);
                let mut pong = vec![0x8A, 0x80 | len as u8, 0, 0, 0, 0];
                pong.extend_from_slice(&payload[..len]);
                reader.get_mut().write_all(&pong)?;
            }
            _ => {}
        }
    }
}

/// The kind of a frame that is whole by itself, and what it carries.
fn next_frame(reader: &mut impl Read) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    reader.read_exact(&mut head)?;
    let length = match head[1] & 0x7F {
        126 => {
            let mut length = [0; 2];
            reader.read_exact(&mut length)?;
            u64::from(u16::from_be_bytes(length))
        }
        127 => {
            let mut length = [0; 8];
            reader.read_exact(&mut length)?;
            u64::from_be_bytes(length)
        }
        length => u64::from(length),
    };
    if length > FRAME_BYTES_MAX || head[0] & 0x80 == 0 {
        return Err(std::io::Error::other("a frame that no entry is in"));
    }
    let mut payload = vec![0; length as usize];
    reader.read_exact(&mut payload)?;
    Ok((head[0] & 0x0F, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_are_read() {
        for (head, len) in [
            (vec![0x81, 5], 5),
            (vec![0x81, 126, 1, 0], 256),
            (vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0], 65_536),
        ] {
            let bytes = [head, vec![b'x'; len]].concat();
            assert_eq!(next_frame(&mut &bytes[..]).unwrap(), (1, vec![b'x'; len]));
        }
        assert!(next_frame(&mut &[0x81, 127, 0xFF, 0, 0, 0, 0, 0, 0, 0][..]).is_err());
    }

    #[test]
    fn what_comes_is_timed_and_what_is_told_as_missed_is_counted() {
        let mut seen = Seen { entries: 0, missed: 0, latency: new_histogram() };
        take(&mut seen, br#"{"message":"at=1000 n=1 x"}"#, Duration::from_micros(1_500));
        take(&mut seen, br#"{"message":"3 entries","missed":3}"#, Duration::from_millis(2));
        take(&mut seen, b"nothing", Duration::ZERO);
        assert_eq!((seen.entries, seen.missed, seen.latency.max()), (1, 3, 500));
    }
}
