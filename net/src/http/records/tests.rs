//! What a body may hold back, and keep from others, on a clock that stands still.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::Frame;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::super::HttpOptions;
use super::super::body_hold::long_line_bytes;
use super::*;
use crate::backend::{Appended, Pending};
use crate::limits::{ENCODED_BODY_MAX, LONG_LINE_MAX};
use crate::metrics::NodeMetrics;

const RECORD_BYTES: usize = 1 << 20;
const SENDER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Brings its pieces so far apart, and after the last one nothing more, or its end.
struct Trickle {
    pieces: Box<dyn Iterator<Item = Bytes> + Send>,
    ticks: Interval,
}

/// So far apart, the first one from now, each from when the one before was taken.
fn ticks(pause: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + pause, pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

impl Trickle {
    fn body(pause: Duration, pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
        Body::new(Self { pieces: Box::new(pieces), ticks: ticks(pause) })
    }
}

impl HttpBody for Trickle {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.ticks.poll_tick(cx).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(self.pieces.next().map(|piece| Ok(Frame::data(piece))))
    }
}

/// When lines came to it, and how many bytes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(Instant, usize)>>>);

impl Appender for Log {
    fn append(&mut self, lines: Bytes) -> Pending<Result<Appended, AppendError>> {
        let records = memchr::memchr_iter(b'\n', &lines).count() as u64;
        self.0.lock().unwrap().push((Instant::now(), lines.len()));
        let appended = Appended { records, first: Ulid::MIN, last: Ulid::MIN };
        Box::pin(std::future::ready(Ok(appended)))
    }

    fn trouble(&self) -> Pending<AppendError> {
        Box::pin(std::future::pending())
    }

    fn durable(&mut self) -> Pending<Result<(), AppendError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// With one turn, and room for one long line.
fn ledger() -> Ledger {
    let long_lines_bytes = long_line_bytes(RECORD_BYTES);
    let options =
        HttpOptions { records_requests_max: 1, long_lines_bytes, ..HttpOptions::default() };
    Ledger::new(&options, RECORD_BYTES, &NodeMetrics::new(1))
}

fn decoder(coding: &str) -> BodyDecoder {
    BodyDecoder::new(coding).unwrap()
}

fn kind_of(decoder: &BodyDecoder) -> Kind {
    Kind {
        is_encoded: !decoder.is_identity(),
        window_bytes: decoder.window_bytes(),
        record_bytes_max: RECORD_BYTES,
    }
}

fn intake<'a>(ledger: &'a Ledger, log: &Log, decoder: &BodyDecoder) -> Intake<'a> {
    let turn = BodyHold::new(ledger, kind_of(decoder), SENDER);
    Intake::new(ledger, Box::new(log.clone()), turn, RECORD_BYTES, 1 << 30)
}

/// The longest that another request had to wait for the only turn, asking again and again until
/// `body` was taken; and what became of that.
async fn longest_wait_beside(
    ledger: &Ledger,
    coding: &str,
    body: Body,
    log: &Log,
) -> (Duration, Result<(), Refusal>) {
    let decoder = decoder(coding);
    let mut intake = intake(ledger, log, &decoder);
    let (longest, waits_since) = (Cell::new(Duration::ZERO), Cell::new(None));
    let waited = |since: Instant| longest.set(longest.get().max(since.elapsed()));
    let others = async {
        let mut ticks = ticks(Duration::from_millis(701));
        loop {
            let mut other = BodyHold::new(ledger, kind_of(&self::decoder("identity")), SENDER);
            let asked = Instant::now();
            waits_since.set(Some(asked));
            other.take().await.unwrap();
            waits_since.set(None);
            waited(asked);
            drop(other);
            ticks.tick().await;
        }
    };
    let taken = tokio::select! {
        taken = intake.take_body(body, decoder) => taken,
        () = others => unreachable!("they go on"),
    };
    waits_since.get().into_iter().for_each(waited);
    (longest.get(), taken)
}

#[tokio::test(start_paused = true)]
async fn lines_that_come_one_by_one_are_handed_on_in_time_and_leave_the_turn_to_others() {
    let (ledger, log) = (ledger(), Log::default());
    let line = Bytes::from("x".repeat(99) + "\n");
    let every = Duration::from_millis(3);
    let begin = Instant::now();
    let body = Trickle::body(every, std::iter::repeat_n(line.clone(), 3_000));
    let (longest, taken) = longest_wait_beside(&ledger, "identity", body, &log).await;
    taken.unwrap();
    assert!(longest <= 2 * BATCH_LINGER, "{longest:?}");
    let (mut bytes, mut last) = (0, begin);
    for &(at, len) in &*log.0.lock().unwrap() {
        assert!(at.duration_since(last) <= every + BATCH_LINGER + every);
        last = at;
        // All that had come when the one before was handed on was in it.
        let came = at.duration_since(begin).as_millis() / every.as_millis() * 100;
        bytes += len as u128;
        assert!(bytes <= came + 100 && bytes + 300 >= came, "{bytes} of {came}");
    }
    assert_eq!(bytes, 300_000);
    assert_eq!(ledger.records_turns.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_long_line_has_to_end_in_time_however_close_its_bytes_come() {
    for pause in [Duration::from_millis(3), Duration::from_millis(6), Duration::from_secs(50)] {
        let (ledger, log) = (ledger(), Log::default());
        let begin = Instant::now();
        let start = Bytes::from(vec![b'x'; 100_000]);
        let more = std::iter::repeat(Bytes::from_static(b"x"));
        let body = Trickle::body(pause, std::iter::once(start).chain(more));
        let decoder = decoder("identity");
        let refusal = intake(&ledger, &log, &decoder).take_body(body, decoder).await.unwrap_err();
        assert_eq!(refusal.status.as_u16(), 408, "{}", refusal.reason);
        let took = begin.elapsed();
        assert!((LONG_LINE_MAX..=LONG_LINE_MAX + pause * 2).contains(&took), "{took:?}");
        assert_eq!(ledger.long_lines.used(), 0);
    }
}

/// A body of which every byte stands for another, without an end.
fn encoded(coding: &str) -> Vec<u8> {
    let mut noise = 1_u32;
    let text: Vec<u8> = (0..300_000)
        .map(|_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        })
        .collect();
    match coding {
        "gzip" => {
            use std::io::Write as _;
            let level = flate2::Compression::none();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(&text).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd::encode_all(&text[..], 1).unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_compressed_body_that_trickles_leaves_the_turn_to_others_and_ends_in_time() {
    for coding in ["gzip", "zstd"] {
        for pause in [Duration::from_millis(100), Duration::from_secs(59)] {
            let (ledger, log) = (ledger(), Log::default());
            let begin = Instant::now();
            let bytes = encoded(coding).into_iter().map(|byte| Bytes::from(vec![byte]));
            let body = Trickle::body(pause, bytes);
            let (longest, taken) = longest_wait_beside(&ledger, coding, body, &log).await;
            let refusal = taken.unwrap_err();
            assert_eq!(refusal.status.as_u16(), 408, "{coding}: {}", refusal.reason);
            assert!(refusal.reason.contains("compressed"), "{}", refusal.reason);
            assert!(longest <= BATCH_LINGER, "{coding}: {longest:?}");
            let took = begin.elapsed();
            let limit = ENCODED_BODY_MAX..=ENCODED_BODY_MAX + pause * 2;
            assert!(limit.contains(&took), "{coding}: {took:?}");
            assert_eq!((ledger.decoder_windows.used(), ledger.gzip_decoders.used()), (0, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_for_a_long_line_holds_no_turn_compressed_or_not() {
    for coding in ["identity", "gzip", "zstd"] {
        let (ledger, log) = (ledger(), Log::default());
        let _all = ledger.long_lines.try_take(SENDER, long_line_bytes(RECORD_BYTES)).unwrap();
        let line = vec![b'x'; 200_000];
        let bytes = match coding {
            "identity" => line,
            "gzip" => {
                use std::io::Write as _;
                let level = flate2::Compression::fast();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(&line).unwrap();
                encoder.finish().unwrap()
            }
            _ => zstd::encode_all(&line[..], 1).unwrap(),
        };
        let body = Trickle::body(Duration::from_millis(1), std::iter::once(Bytes::from(bytes)));
        let (longest, taken) = longest_wait_beside(&ledger, coding, body, &log).await;
        let refusal = taken.unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.retry), (429, true), "{coding}");
        assert!(refusal.reason.contains("--ingest.partial-max-size"), "{}", refusal.reason);
        assert!(longest <= BATCH_LINGER, "{coding}: {longest:?}");
    }
}
