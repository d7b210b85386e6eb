//! The body of a query's answer: what comes out of the search pipe, then trailers.
//!
//! Invariants: holds nothing but the pipe; is polled only when the connection has room, so a slow
//! client slows its own query and nobody else; dropping it ends the query. An answer whose gaps
//! became known only behind its headers ends with an error, which leaves the final chunk out; all
//! that was found goes out before.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use engine::search::{Format, Head, Outcome};
use http_body::{Body, Frame};
use hyper::HeaderMap;

use super::alive::Alive;
use super::client_stream::Flushes;
use super::ledger::{Place, QueryTurn};
use super::told::Told;
use crate::backend::Records;
use crate::metrics::NodeMetrics;

/// Counts one query from its beginning to its last byte or its reader's going.
pub(super) struct QueryWatch {
    pub(super) kind: &'static str,
    pub(super) start: Instant,
    pub(super) metrics: Arc<NodeMetrics>,
    told: Arc<Told>,
    /// Its place among those that may run, and its part of the memory.
    pub(super) turn: QueryTurn,
    /// Its place among the connections, unless whoever asked holds one.
    pub(super) place: Option<Place>,
}

impl QueryWatch {
    /// A query begins.
    pub(super) fn start(
        kind: &'static str,
        metrics: &Arc<NodeMetrics>,
        told: &Arc<Told>,
        turn: QueryTurn,
    ) -> Self {
        metrics.count_query(kind);
        let (metrics, told) = (Arc::clone(metrics), Arc::clone(told));
        Self { kind, start: Instant::now(), metrics, told, turn, place: None }
    }

    /// What it found and cost.
    pub(super) fn count(&self, stats: &engine::search::Stats) {
        self.metrics.query.records.inc_by(stats.records);
        self.metrics.query.bytes_scanned.inc_by(stats.bytes_scanned);
        self.told.tell_signatures(&stats.damaged_signatures, &self.metrics);
        if !stats.complete {
            self.metrics.query.incomplete.inc();
            self.told.tell(&stats.missing, &self.metrics);
        }
    }
}

impl Drop for QueryWatch {
    fn drop(&mut self) {
        self.metrics.observe_query(self.kind, self.start.elapsed().as_secs_f64());
    }
}

/// When the reader last took something, milliseconds since the query began.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicU64);

impl Progress {
    /// Milliseconds since the query began.
    pub(super) fn last_ms(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// See the module page.
pub(super) struct PipeBody {
    reader: Box<dyn Records>,
    watch: QueryWatch,
    progress: Arc<Progress>,
    /// What the headers said.
    head: Head,
    format: Format,
    flushes: Arc<Flushes>,
    stage: Stage,
    /// For clients that ask for signs of life, where the format has one.
    alive: Option<Alive>,
    /// What was handed on is whole lines.
    is_between_lines: bool,
}

/// Where the body stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Bytes come.
    Data,
    /// It ends with an error once what was given is handed on; holds the count of flushes before.
    Broken(u64),
    /// Nothing follows.
    Ended,
}

/// Some of the answer could not be searched, which the headers could not tell.
#[derive(Debug)]
pub(super) struct Incomplete;

impl std::fmt::Display for Incomplete {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("part of the range could not be searched")
    }
}

impl std::error::Error for Incomplete {}

impl PipeBody {
    /// `head` is what the headers said; the flushes are those of the connection.
    pub(super) fn new(
        reader: Box<dyn Records>,
        head: Head,
        format: Format,
        (watch, flushes, alive): (QueryWatch, Arc<Flushes>, Option<Alive>),
    ) -> Self {
        let progress = Arc::new(Progress::default());
        let (stage, is_between_lines) = (Stage::Data, true);
        Self { reader, watch, progress, head, format, flushes, stage, alive, is_between_lines }
    }

    /// Follows the reader.
    pub(super) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Bytes of the answer, which the reader is there to take.
    fn data(&mut self, bytes: Bytes) -> Frame<Bytes> {
        let elapsed_ms = self.watch.start.elapsed().as_millis();
        self.progress.0.store(u64::try_from(elapsed_ms).unwrap_or(u64::MAX), Relaxed);
        self.is_between_lines = bytes.ends_with(b"\n");
        Frame::data(bytes)
    }

    /// What shows that a search which finds nothing is there, when it is time.
    fn poll_sign(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        let sign = self.format.sign_of_life().filter(|_| self.is_between_lines);
        match (&mut self.alive, sign) {
            (Some(alive), Some(sign)) => alive.poll_due(cx).map(|()| Bytes::from_static(sign)),
            _ => Poll::Pending,
        }
    }

    /// The pipe is empty for good: trailers, or the stage becomes `Broken`.
    fn end(&mut self) -> Option<Frame<Bytes>> {
        let outcome = self.reader.outcome().unwrap_or_default();
        self.watch.count(&outcome.stats);
        // A last line has told it, where there is one; what the headers called incomplete was told.
        let untold = self.head.complete && !outcome.stats.complete && !self.format.has_end();
        if outcome.aborted || untold {
            self.stage = Stage::Broken(self.flushes.count());
            return None;
        }
        self.stage = Stage::Ended;
        Some(Frame::trailers(trailers(&outcome)))
    }
}

/// Sent only where the client said `TE: trailers`; hyper sees to that.
fn trailers(outcome: &Outcome) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let stats = outcome.stats.shown();
    trailers.insert("x-oklog-records", stats.records.into());
    trailers.insert("x-oklog-bytes-scanned", stats.bytes_scanned.into());
    trailers.insert("x-oklog-blocks-skipped", stats.blocks_skipped.all().into());
    trailers
}

impl Body for PipeBody {
    type Data = Bytes;
    type Error = Incomplete;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Incomplete>>> {
        if self.stage == Stage::Data {
            match self.reader.poll_next(cx) {
                // Where nothing is ready the reader waits for the search, not it for the reader.
                Poll::Pending => {
                    self.progress.0.store(u64::MAX, Relaxed);
                    let sign = ready!(self.poll_sign(cx));
                    return Poll::Ready(Some(Ok(self.data(sign))));
                }
                Poll::Ready(Some(piece)) => {
                    if let Some(alive) = &mut self.alive {
                        alive.spoke();
                    }
                    return Poll::Ready(Some(Ok(self.data(piece.into()))));
                }
                Poll::Ready(None) => {
                    if let Some(trailers) = self.end() {
                        return Poll::Ready(Some(Ok(trailers)));
                    }
                }
            }
        }
        match self.stage {
            Stage::Broken(seen) => self.flushes.poll_beyond(seen, cx).map(|()| {
                self.stage = Stage::Ended;
                Some(Err(Incomplete))
            }),
            Stage::Data | Stage::Ended => Poll::Ready(None),
        }
    }
}
