//! What a follower is sent: what is kept behind a ULID, then what is taken, as it is taken.
//!
//! Invariants: no gap and no copy between the two, because the replay ends right before the
//! follower's boundary (see [`crate::follow`]); where more came during the replay than the
//! follower's queue holds, another replay follows, up to another boundary. A reader that follows
//! live and is too slow is told what it missed and delays nobody; a stream ends with the node, or
//! with its client.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use engine::follow::StreamFormat;
use http_body::Frame;

use super::replay::{Replay, Step};
use crate::backend::{Live, Pending, Reader};
use crate::budget::Taken;
use crate::http::alive::Alive;
use crate::http::ledger::Place;
use crate::http::pipe_body::Incomplete;
use crate::limits::FOLLOW_KEEP_ALIVE;

/// Where a stream stands.
pub(super) enum Phase {
    /// What is kept is sent first.
    Replay(Replay),
    /// It follows anew, because too much came meanwhile.
    Joining(Replay, Pending<Option<u64>>),
    /// What comes is sent.
    Live,
    /// Nothing is.
    Ended,
}

/// See the page of the module.
pub(super) struct StreamBody {
    /// What it may see.
    pub(super) reader: Reader,
    pub(super) format: StreamFormat,
    /// What is sent before anything else.
    pub(super) first: Option<Vec<u8>>,
    pub(super) phase: Phase,
    pub(super) live: Box<dyn Live>,
    pub(super) alive: Option<Alive>,
    /// Ready when a client that has closed its side has to show whether it is gone.
    pub(super) half_closed: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Given back with it.
    #[expect(dead_code, reason = "held until it goes")]
    pub(super) held: (Taken, Taken, Place),
}

impl StreamBody {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Vec<u8>, Incomplete>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        loop {
            let live = &self.live;
            match &mut self.phase {
                Phase::Replay(replay) => {
                    if live.poll_ended(cx) {
                        return self.end();
                    }
                    // What was missed will be replayed, so what is queued is let go early.
                    let is_missing = live.is_missing();
                    match replay.poll(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Step::Records(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                        Poll::Ready(Step::Broken) => {
                            self.phase = Phase::Ended;
                            return Poll::Ready(Some(Err(Incomplete)));
                        }
                        Poll::Ready(Step::End(note)) => {
                            self.leave_replay(is_missing);
                            if let Some(note) = note {
                                return Poll::Ready(Some(Ok(note)));
                            }
                        }
                    }
                }
                Phase::Joining(_, boundary_ms) => match boundary_ms.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(None) => return self.end(),
                    Poll::Ready(Some(boundary_ms)) => self.replay_up_to(boundary_ms),
                },
                Phase::Live => match live.poll_next(cx) {
                    Poll::Ready(None) => return self.end(),
                    Poll::Ready(Some(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                    Poll::Pending => return Poll::Pending,
                },
                Phase::Ended => return Poll::Ready(None),
            }
        }
    }

    /// The replay is over: what was queued meanwhile comes next, unless it is not all there.
    fn leave_replay(&mut self, is_missing: bool) {
        let Phase::Replay(replay) = std::mem::replace(&mut self.phase, Phase::Live) else { return };
        if is_missing {
            let boundary_ms = match self.reader.follow(replay.wanted().clone(), self.format) {
                Ok(following) => {
                    self.live = following.live;
                    following.boundary_ms
                }
                // Nothing is taken any more: as at a stop.
                Err(_) => Box::pin(std::future::ready(None)),
            };
            self.phase = Phase::Joining(replay, boundary_ms);
        }
    }

    fn replay_up_to(&mut self, boundary_ms: u64) {
        if let Phase::Joining(mut replay, _) = std::mem::replace(&mut self.phase, Phase::Live) {
            replay.go_on(boundary_ms);
            self.phase = Phase::Replay(replay);
        }
    }

    /// Notes may not stand inside a record.
    fn is_inside_a_record(&self) -> bool {
        matches!(&self.phase, Phase::Replay(replay) if replay.is_inside_a_record())
    }

    fn end(&mut self) -> Poll<Option<Result<Vec<u8>, Incomplete>>> {
        let is_broken = self.is_inside_a_record();
        self.phase = Phase::Ended;
        let note = self.format.note("end", "{\"reason\":\"the node is stopping\"}");
        Poll::Ready(Some(if is_broken { Err(Incomplete) } else { Ok(note) }))
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Incomplete;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Incomplete>>> {
        let polled = self.poll_bytes(cx);
        let is_asked =
            self.half_closed.as_mut().is_some_and(|closed| closed.as_mut().poll(cx).is_ready());
        if is_asked {
            self.half_closed = None;
            // Shows that it is alive at once, and from then on.
            let alive = self.alive.take().unwrap_or_else(|| Alive::every(FOLLOW_KEEP_ALIVE));
            self.alive = Some(alive.at_once());
        }
        let (format, may_speak) = (self.format, !self.is_inside_a_record());
        if let Some(alive) = self.alive.as_mut().filter(|_| may_speak) {
            if polled.is_ready() {
                alive.spoke();
            } else if alive.poll_due(cx).is_ready() {
                let sign = match format {
                    StreamFormat::Sse => b": alive\n\n".to_vec(),
                    StreamFormat::Text | StreamFormat::Ndjson => format.note("alive", "{}"),
                };
                return Poll::Ready(Some(Ok(Frame::data(sign.into()))));
            }
        }
        polled.map(|bytes| bytes.map(|bytes| bytes.map(|bytes| Frame::data(bytes.into()))))
    }
}
