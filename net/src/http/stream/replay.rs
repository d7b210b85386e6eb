//! What is kept behind a ULID, on its way to a follower.
//!
//! Invariants: ends right before the follower's boundary; hands on records in ULID
//! order, each once, as they come (`replay_lines`). A reader that takes nothing for [`REPLAY_STALL`]
//! holds no place among the queries and pins no files: its query is dropped, and begun anew where it
//! stood once it reads again. All replays together take at most half of those places, and wait for
//! them as long as it takes.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use engine::follow::{StreamFormat, Wanted};
use engine::search::{Format, Order, QuerySpec};
use engine::ulid::Ulid;

use super::replay_lines::{Lost, ReplayLines};
use crate::backend::{Reader, Records};
use crate::budget::Taken;
use crate::http::App;
use crate::http::pipe_body::QueryWatch;
use crate::limits::{QUERY_AGE_MAX, REPLAY_STALL};

/// What comes next of a replay.
pub(super) enum Step {
    /// Bytes of records, as they are sent.
    Records(Vec<u8>),
    /// The record whose beginning was sent cannot be sent to its end.
    Broken,
    /// Everything was handed on, but for what this note tells.
    End(Option<Vec<u8>>),
}

/// A query under way.
struct Running {
    reader: Box<dyn Records>,
    watch: QueryWatch,
    _share: Taken,
    /// When the reader took something last, if it is its turn again.
    given: Option<Instant>,
    has_given: bool,
}

/// Where a query under way is given up from, too.
type Slot = Mutex<Option<Running>>;

enum Stage {
    Starting(Pin<Box<dyn Future<Output = Option<Running>> + Send>>),
    Running(Arc<Slot>),
}

/// See the page of the module.
pub(super) struct Replay {
    app: Arc<App>,
    reader: Reader,
    wanted: Wanted,
    format: StreamFormat,
    boundary_ms: u64,
    stage: Stage,
    lines: ReplayLines,
}

impl Replay {
    /// Of what is kept behind `after` and before the boundary, which is known: so all of it is in
    /// what is pinned from now on.
    pub(super) fn new(
        (app, reader): (&Arc<App>, Reader),
        (wanted, format): (Wanted, StreamFormat),
        after: Ulid,
        boundary_ms: u64,
    ) -> Self {
        let spec = spec(&wanted, after, boundary_ms);
        let stage = start((Arc::clone(app), reader.clone()), spec, format);
        let app = Arc::clone(app);
        let lines = ReplayLines::new(format, after);
        Self { app, reader, wanted, format, boundary_ms, stage, lines }
    }

    /// Goes on behind its boundary up to another one.
    pub(super) fn go_on(&mut self, boundary_ms: u64) {
        self.lines.go_on_behind(Ulid::last_of_ms(self.boundary_ms - 1));
        self.boundary_ms = boundary_ms;
        self.restart();
    }

    /// What it is to match.
    pub(super) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Whether the beginning of a record was handed on and its end was not.
    pub(super) const fn is_inside_a_record(&self) -> bool {
        self.lines.is_inside_a_record()
    }

    fn restart(&mut self) {
        self.lines.begin_anew();
        let spec = spec(&self.wanted, self.lines.after(), self.boundary_ms);
        let of = (Arc::clone(&self.app), self.reader.clone());
        self.stage = start(of, spec, self.format);
    }

    /// The next records, or the end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            let slot = match &mut self.stage {
                Stage::Starting(starting) => match starting.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(running) => {
                        let slot = Arc::new(Mutex::new(running));
                        tokio::spawn(watch(Arc::downgrade(&slot)));
                        self.stage = Stage::Running(slot);
                        continue;
                    }
                },
                Stage::Running(slot) => Arc::clone(slot),
            };
            let mut running = lock(&slot);
            let Some(run) = running.as_mut() else {
                drop(running);
                self.restart();
                continue;
            };
            match run.reader.poll_next(cx) {
                Poll::Pending => {
                    run.given = None;
                    return Poll::Pending;
                }
                Poll::Ready(Some(piece)) => {
                    (run.given, run.has_given) = (Some(Instant::now()), true);
                    match self.lines.take(&piece) {
                        Ok(bytes) if bytes.is_empty() => {}
                        Ok(bytes) => return Poll::Ready(Step::Records(bytes)),
                        Err(Lost) => return Poll::Ready(Step::Broken),
                    }
                }
                Poll::Ready(None) => {
                    let outcome = run.reader.outcome().unwrap_or_default();
                    run.watch.count(&outcome.stats);
                    *running = None;
                    if self.lines.is_inside_a_record() {
                        return Poll::Ready(Step::Broken);
                    }
                    let is_whole = outcome.stats.complete && !outcome.aborted;
                    let object = format!("{{\"missing_count\":{}}}", outcome.stats.missing_count);
                    let note = (!is_whole).then(|| self.format.note("incomplete", &object));
                    return Poll::Ready(Step::End(note));
                }
            }
        }
    }
}

fn lock(slot: &Slot) -> MutexGuard<'_, Option<Running>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spec(wanted: &Wanted, after: Ulid, boundary_ms: u64) -> QuerySpec {
    QuerySpec {
        from: Ulid::MIN,
        to: Ulid::last_of_ms(boundary_ms - 1),
        after: Some(after),
        chain: wanted.chain.clone(),
        topics: wanted.topics.clone(),
        order: Order::Asc,
        limit: None,
        context: 0,
        entries: None,
        is_discreet: false,
    }
}

/// Waits for a place and begins. `None` never comes: any query fits into the budgets.
fn start((app, reader): (Arc<App>, Reader), spec: QuerySpec, format: StreamFormat) -> Stage {
    Stage::Starting(Box::pin(async move {
        let (share, turn) = app.ledger.replay().await.ok()?;
        let watch = QueryWatch::start("replay", &app.metrics, &app.told, turn);
        let view = reader.pin().await;
        let kind = if format == StreamFormat::Text { Format::Text } else { Format::Ndjson };
        let reader = view.records(spec, kind);
        Some(Running { reader, watch, _share: share, given: None, has_given: false })
    }))
}

/// Gives a query up whose reader does not come back for more; and one that has pinned files for too
/// long, to be begun anew if that leads on.
async fn watch(slot: Weak<Slot>) {
    loop {
        tokio::time::sleep(REPLAY_STALL / 2).await;
        let Some(slot) = slot.upgrade() else { return };
        let mut running = lock(&slot);
        let Some(run) = running.as_ref() else { return };
        let is_old = run.watch.start.elapsed() > QUERY_AGE_MAX;
        let is_stalled = run.given.is_some_and(|given| given.elapsed() > REPLAY_STALL);
        if is_stalled || (is_old && run.has_given) {
            *running = None;
            return;
        }
        if is_old {
            (run.reader.ender())("the replay has found nothing for too long");
            return;
        }
    }
}
