//! `/topics`: what is held of each topic.
//!
//! A node may have 65,534 topics, whose answer takes megabytes and seconds to make. So one is made at a
//! time, off the control thread, and shared by all who asked before it was begun: however many ask,
//! each waits for two at most.
//!
//! Invariants: an answer tells of everything that was acknowledged before its request came; it counts
//! against the memory of queries until the last of those who share it has taken it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use axum::body::Body;
use axum::extract::{Extension, State};
use engine::search::Topics;
use hyper::{Response, StatusCode, Uri};
use serde::Serialize;
use tokio::sync::Mutex;

use super::answer::Refusal;
use super::drain::ClientAddress;
use super::held::{self, With};
use super::parameters::{Known, Parameters};
use super::query::{answered, begin, memory_for, missing, stopping};
use super::{App, rfc3339};
use crate::budget::Taken;

/// An answer and the memory that it holds.
type Shared = Arc<With<Taken>>;

/// See the module page.
#[derive(Default)]
pub(super) struct TopicsDesk {
    /// Requests that ever came: each has its number.
    came: AtomicU64,
    /// Those that have no answer yet.
    waiting: AtomicUsize,
    latest: Mutex<Latest>,
}

#[derive(Default)]
struct Latest {
    /// The last request that had come when it was begun.
    of: u64,
    /// There while somebody may want it.
    result: Option<Result<Shared, Refusal>>,
}

/// Counts a request that waits, for as long as it lives.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, SeqCst);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// `GET /topics`.
pub(super) async fn get(
    State(app): State<Arc<App>>,
    uri: Uri,
    Extension(client): Extension<ClientAddress>,
) -> Response<Body> {
    let answer = async {
        Parameters::parse(uri.query(), Known { single: &[], repeated: &[] })?;
        let place = app.ledger.lasting(client.0)?;
        let shared = app.topics.answer(&app).await?;
        let source = Share(shared, place);
        Ok(held::answer(StatusCode::OK, "application/json", source))
    };
    let answer = answer.await;
    answered(&app, answer)
}

/// One client's hold on an answer.
struct Share<P>(Shared, P);

impl<P> AsRef<[u8]> for Share<P> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().as_ref()
    }
}

impl TopicsDesk {
    async fn answer(&self, app: &App) -> Result<Shared, Refusal> {
        let number = self.came.fetch_add(1, SeqCst) + 1;
        let waits = Waits::new(&self.waiting);
        let mut latest = self.latest.lock().await;
        if latest.of < number || latest.result.is_none() {
            *latest = Latest { of: self.came.load(SeqCst), result: None };
            latest.result = Some(make(app).await);
        }
        drop(waits);
        let result = if self.waiting.load(SeqCst) == 0 {
            latest.result.take()
        } else {
            latest.result.clone()
        };
        result.unwrap_or_else(|| Err(stopping()))
    }
}

async fn make(app: &App) -> Result<Shared, Refusal> {
    let watch = begin(app, "topics").await?;
    let snapshot = app.backend.pin().await;
    let found = app.backend.searcher().topics(snapshot).await.ok_or_else(stopping)?;
    watch.count(&found.stats);
    let encoded = tokio::task::spawn_blocking(move || encode(&found)).await;
    let bytes = encoded.map_err(|_| stopping())?;
    let wanted = ("the answer has", bytes.len());
    let memory = memory_for(app, wanted, StatusCode::SERVICE_UNAVAILABLE).await?;
    Ok(Arc::new(With(bytes, memory)))
}

/// One of the rows.
#[derive(Serialize)]
struct Row<'a> {
    topic: &'a str,
    records: u64,
    bytes: u64,
    from: String,
    to: String,
}

/// Row by row, so that nothing but the text itself is made of them.
fn encode(found: &Topics) -> Vec<u8> {
    let mut out = b"{\"topics\":[".to_vec();
    for (at, topic) in found.topics.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let row = Row {
            topic: topic.topic.as_str(),
            records: topic.records,
            bytes: topic.bytes,
            from: rfc3339(topic.first_ms),
            to: rfc3339(topic.last_ms),
        };
        // Neither text nor numbers can fail, nor can memory.
        let _ = serde_json::to_writer(&mut out, &row);
    }
    let end = format!(
        "],\"complete\":{},\"missing\":{}}}\n",
        found.stats.complete,
        missing(&found.stats)
    );
    out.extend_from_slice(end.as_bytes());
    out.shrink_to_fit();
    out
}
