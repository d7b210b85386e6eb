//! `/query`, `/query?stats` and `/query/histogram`.
//!
//! Invariants: this thread neither compiles an expression nor reads data; a query is pinned
//! after its request was read, so everything acknowledged before is in it; a client that goes
//! ends its query, because what it waited for is dropped; one that has only closed its side gets its
//! whole answer.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Extension, State};
use bytes::Bytes;
use engine::search::format::rfc3339;
use engine::search::window::Now;
use engine::search::{Chain, Format, Head, Plan, QuerySpec, Stats};
use hyper::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue, TE, TRAILER};
use hyper::{HeaderMap, Response, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::App;
use super::admission::Client;
use super::alive::{self, Alive, Awaited};
use super::answer::Refusal;
use super::client_stream::Flushes;
use super::compile::{compile, too_large, tries};
use super::described::Described;
use super::held;
use super::ledger::QueryTurn;
use super::pipe_body::{PipeBody, Progress, QueryWatch};
use super::query_request::{By, Download, QueryRequest, leading_parameter};
use super::series;
use crate::backend::{End, Records, View};
use crate::budget::{NoRoom, Taken};
use crate::limits::{QUERY_AGE_MAX, QUERY_BYTES_MAX, QUERY_STALL_MAX, QUERY_WATCH_INTERVAL};
use crate::wall_clock::now_ms;

/// A request whose query is compiled, pinned and planned.
pub(super) struct Prepared {
    pub(super) request: QueryRequest,
    pub(super) spec: QuerySpec,
    pub(super) view: Box<dyn View>,
    pub(super) plan: Plan,
    pub(super) watch: QueryWatch,
}

/// `GET /query`.
pub(super) async fn get(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    Extension(client): Extension<Client>,
    Extension(flushes): Extension<Arc<Flushes>>,
) -> Response<Body> {
    let answer = async {
        let read = QueryRequest::parse(uri.query(), app.now())?;
        if read.stats {
            let prepared = prepare(&app, read, "stats", client).await?;
            return stats(&app, prepared, &headers).await;
        }
        let prepared = prepare(&app, read, "records", client).await?;
        let download = prepared.request.download;
        let format = match download {
            Download::No | Download::Accepted => format(&headers),
            Download::Text => Format::Text,
            Download::Ndjson => Format::Ndjson,
        };
        let told = Described::of(&prepared.request, &prepared.plan);
        let shown =
            Shown { told, format, content_type: content_type(format), shape: |reader| reader };
        let mut response = records(&app, prepared, shown, (&headers, flushes)).await?;
        if download != Download::No {
            keep(response.headers_mut(), format);
        }
        Ok(response)
    };
    let answer = answer.await;
    answered(&app, answer)
}

/// Has a browser keep an answer as a file, whose name tells what is known to be missing.
fn keep(headers: &mut HeaderMap, format: Format) {
    let is_whole = headers.get("x-oklog-complete").is_some_and(|value| value == "true");
    let name = if is_whole { "oklogd" } else { "oklogd-incomplete" };
    let ending = if format == Format::Ndjson { "ndjson" } else { "log" };
    let value = format!("attachment; filename=\"{name}.{ending}\"");
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
}

/// `HEAD /query`: headers from indexes alone.
pub(super) async fn head(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    Extension(client): Extension<Client>,
) -> Response<Body> {
    let answer = async {
        let read = QueryRequest::parse_head(uri.query(), app.now())?;
        let prepared = prepare(&app, read, "head", client).await?;
        let mut response = Response::new(Body::new(OfUnknownLength));
        describe(response.headers_mut(), &prepared, known_head(&prepared));
        let kind = content_type(format(&headers));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        Ok(response)
    };
    let answer = answer.await;
    answered(&app, answer)
}

/// `GET /query/histogram`.
pub(super) async fn histogram(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    Extension(client): Extension<Client>,
) -> Response<Body> {
    let answer = async {
        let read = QueryRequest::parse_histogram(uri.query(), app.now())?;
        let prepared = prepare(&app, read, "histogram", client).await?;
        let alive = Alive::asked_for(&headers, &app.options);
        match prepared.request.by {
            By::Nothing => alive::object(alive, counts(prepared)).await,
            By::Topic => alive::object(alive, series::by_topic(prepared)).await,
            By::Level => alive::object(alive, series::by_level(prepared)).await,
        }
    };
    let answer = answer.await;
    answered(&app, answer)
}

async fn counts(prepared: Prepared) -> Result<Response<Body>, Refusal> {
    let Prepared { request, spec, view, watch, .. } = prepared;
    let found = view.histogram(spec, request.buckets).await.ok_or_else(stopping)?;
    watch.count(&found.stats);
    let object = json!({
        "from": rfc3339(found.from_ms),
        "to": rfc3339(found.to_ms),
        "interval_ms": found.interval_ms,
        "counts": found.counts,
        "complete": found.stats.complete,
        "missing": missing(&found.stats),
    });
    Ok(held::json(&object, watch))
}

/// Counts a query of this address in, as [`begin`] does, if the address has a connection left for it.
async fn admit(app: &App, kind: &'static str, address: IpAddr) -> Result<QueryWatch, Refusal> {
    let place = app.ledger.lasting(address)?;
    let mut watch = begin(app, kind).await?;
    watch.place = Some(place);
    Ok(watch)
}

/// Counts a query in when its turn has come.
pub(super) async fn begin(app: &App, kind: &'static str) -> Result<QueryWatch, Refusal> {
    let turn = app.ledger.query(app.options.query_turn_wait).await?;
    Ok(QueryWatch::start(kind, &app.metrics, &app.told, turn))
}

/// The answer to a query, or why there is none: those who are to come again are counted.
pub(super) fn answered(app: &App, answer: Result<Response<Body>, Refusal>) -> Response<Body> {
    answer.unwrap_or_else(|refusal| {
        if refusal.status == StatusCode::TOO_MANY_REQUESTS {
            app.metrics.query.refused.inc();
        }
        refusal.into_response()
    })
}

/// Until when a request waits that came now.
pub(super) fn patience(app: &App) -> Option<Instant> {
    Instant::now().checked_add(app.options.query_turn_wait)
}

/// Memory of queries for an answer of so many bytes.
pub(super) async fn memory_for(app: &App, bytes: usize) -> Result<Taken, Refusal> {
    let until = patience(app).map(Into::into);
    let memory = app.ledger.query_memory.take(bytes as u64, until).await;
    memory.map_err(|why| {
        let words = format!("the answer has {bytes} bytes");
        no_memory(app, &words, why, StatusCode::SERVICE_UNAVAILABLE)
    })
}

/// Why there is no memory of queries for something; `never` is the status where waiting does not help.
fn no_memory(app: &App, words: &str, why: NoRoom, never: StatusCode) -> Refusal {
    match why {
        NoRoom::TooMuch => Refusal::new(
            never,
            format!("{words}, and all queries together may hold less (--query.memory-max)"),
        ),
        NoRoom::InUse => {
            let empty = app.ledger.query_memory.refusal();
            Refusal { reason: format!("{words}: {}", empty.reason), ..empty }
        }
    }
}

pub(super) async fn prepare(
    app: &App,
    request: QueryRequest,
    kind: &'static str,
    client: Client,
) -> Result<Prepared, Refusal> {
    let reader = app.backend.reader(&client.access)?;
    client.access.require_reading(&request.topics)?;
    let mut watch = admit(app, kind, client.address).await?;
    let chain = compiled(app, &request, &mut watch.turn).await?;
    let view = reader.pin().await;
    let spec = request.spec(chain);
    let plan = view.plan(&spec);
    let prepared = Prepared { request, spec, view, plan, watch };
    if prepared.request.deny_partial && !prepared.plan.complete {
        return Err(denied(prepared.plan.missing_count));
    }
    Ok(prepared)
}

/// The expressions, and their memory in the turn of their query.
async fn compiled(
    app: &App,
    request: &QueryRequest,
    turn: &mut QueryTurn,
) -> Result<Chain, Refusal> {
    let source = &request.source;
    let name = leading_parameter(source);
    let until = patience(app).map(Into::into);
    let own = (QUERY_BYTES_MAX + request.beside_bytes) as u64;
    let there_is = app.ledger.query_memory.limit().max(own);
    for (size_max, cost) in tries(source) {
        // Where there is less than it may cost, it is compiled when nobody else holds any.
        let all = (own + cost).min(there_is);
        turn.hold(&app.ledger, all, until).await.map_err(|why| {
            let words = format!("{name}: the expression, compiled, may hold {cost} bytes");
            no_memory(app, &words, why, StatusCode::BAD_REQUEST)
        })?;
        let (memory, compiled) = compile((&app.ledger, until), source, size_max, turn.lend()).await;
        let Some(chain) = compiled? else {
            turn.give_back(memory, own);
            continue;
        };
        let bytes = chain.memory_bytes() as u64;
        if own + bytes > all && all == there_is {
            let words = format!("{name}: the expression compiles to {bytes} bytes");
            return Err(no_memory(app, &words, NoRoom::TooMuch, StatusCode::BAD_REQUEST));
        }
        turn.give_back(memory, own + bytes);
        return Ok(chain);
    }
    Err(too_large(source))
}

/// How an answer looks.
pub(super) struct Shown<F> {
    /// What its head says of the request.
    pub(super) told: Described,
    /// How records come from the search.
    pub(super) format: Format,
    pub(super) content_type: &'static str,
    /// What becomes of them on their way out.
    pub(super) shape: F,
}

/// The records of a query, as they are found.
pub(super) async fn records(
    app: &App,
    prepared: Prepared,
    shown: Shown<impl FnOnce(Box<dyn Records>) -> Box<dyn Records>>,
    (headers, flushes): (&HeaderMap, Arc<Flushes>),
) -> Result<Response<Body>, Refusal> {
    let Shown { told, format, content_type, shape } = shown;
    let mut response = Response::new(Body::empty());
    let deny_partial = prepared.request.deny_partial;
    let planned = known_head(&prepared);
    let Prepared { spec, view, watch, .. } = prepared;
    let mut reader = shape(view.records(spec, format));
    let alive = Alive::asked_for(headers, &app.options);
    let alive = alive.filter(|_| format.sign_of_life().is_some());
    let too_old = end_when_old(watch.start, reader.ender());
    let head = tokio::select! {
        biased;
        head = poll_fn(|cx| reader.poll_head(cx)) => head,
        head = too_old => head,
        () = flushes.until_half_closed_for_long(), if !deny_partial => planned,
        // Whoever wants all or nothing waits for what is known once something was found.
        () = silence(alive.as_ref()), if !deny_partial => planned,
    };
    // What was known before is known, whether the search has come to it yet or not.
    let head = Head {
        complete: head.complete && planned.complete,
        missing_count: head.missing_count.max(planned.missing_count),
    };
    if deny_partial && !head.complete {
        return Err(denied(head.missing_count));
    }
    told.write(response.headers_mut(), head, watch.start);
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(alive) = &alive {
        alive.promise(fields);
    }
    if wants_trailers(headers) {
        let names = "X-Oklog-Records, X-Oklog-Bytes-Scanned, X-Oklog-Blocks-Skipped";
        fields.insert(TRAILER, HeaderValue::from_static(names));
    }
    let ender = reader.ender();
    let start = watch.start;
    let connection = Arc::downgrade(&flushes);
    let body = PipeBody::new(reader, head, format, (watch, flushes, alive));
    tokio::spawn(give_up(Arc::downgrade(&body.progress()), start, ender, connection));
    *response.body_mut() = Body::new(body);
    Ok(response)
}

/// Ready when it is time for a sign of life, if there are any.
async fn silence(alive: Option<&Alive>) {
    match alive {
        Some(alive) => tokio::time::sleep(alive.interval()).await,
        None => pending().await,
    }
}

/// Ends a query that finds nothing until it is too old; its head is what comes then. Never ready.
async fn end_when_old(start: Instant, end: End) -> Head {
    tokio::time::sleep(QUERY_AGE_MAX.saturating_sub(start.elapsed())).await;
    end(TOO_OLD);
    pending().await
}

/// Why it is ended.
const TOO_OLD: &str = "the query has run for too long";

/// Ends a query whose reader takes nothing, or that has become too old: it pins files. If its
/// reader does not even take the end, the connection goes too.
async fn give_up(progress: Weak<Progress>, start: Instant, end: End, connection: Weak<Flushes>) {
    let mut is_ended = false;
    loop {
        tokio::time::sleep(if is_ended { QUERY_STALL_MAX } else { QUERY_WATCH_INTERVAL }).await;
        let Some(progress) = progress.upgrade() else { return };
        if is_ended {
            if let Some(connection) = connection.upgrade() {
                connection.give_up();
            }
            return;
        }
        let age = start.elapsed();
        let stalled = age.saturating_sub(Duration::from_millis(progress.last_ms()));
        if stalled > QUERY_STALL_MAX {
            end("the reader took nothing for too long");
            is_ended = true;
        } else if age > QUERY_AGE_MAX {
            end(TOO_OLD);
            is_ended = true;
        }
    }
}

async fn stats(
    app: &App,
    prepared: Prepared,
    headers: &HeaderMap,
) -> Result<Response<Body>, Refusal> {
    let deny_partial = prepared.request.deny_partial;
    let told = Described::of(&prepared.request, &prepared.plan);
    let planned = known_head(&prepared);
    let Prepared { spec, view, watch, .. } = prepared;
    let start = watch.start;
    let mut found = view.stats(spec);
    let alive = Alive::asked_for(headers, &app.options).filter(|_| !deny_partial);
    let stats = match alive {
        None => found.await,
        Some(alive) => {
            let Ok(stats) = timeout(alive.interval(), &mut found).await else {
                let mut response = Response::new(Body::empty());
                let fields = response.headers_mut();
                told.write(fields, planned, start);
                fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                alive.promise(fields);
                let later = async move { Some(object(&found.await?, watch).into_body()) };
                *response.body_mut() = Body::new(Awaited::new(alive, later));
                return Ok(response);
            };
            stats
        }
    };
    let stats = stats.ok_or_else(stopping)?;
    if deny_partial && !stats.complete {
        watch.count(&stats);
        return Err(denied(stats.missing_count));
    }
    let head = Head { complete: stats.complete, missing_count: stats.missing_count };
    let mut response = object(&stats, watch);
    told.write(response.headers_mut(), head, start);
    Ok(response)
}

/// What a query found and cost, as one object.
fn object(stats: &Stats, watch: QueryWatch) -> Response<Body> {
    watch.count(stats);
    let stats = &stats.shown();
    let object = json!({
        "records": stats.records,
        "bytes": stats.bytes,
        "segments": stats.segments,
        "blocks_read": stats.blocks_read,
        "blocks_skipped": stats.blocks_skipped.all(),
        "blocks_skipped_signature": stats.blocks_skipped.by_signature,
        "blocks_skipped_time": stats.blocks_skipped.by_time,
        "blocks_skipped_topic": stats.blocks_skipped.by_topic,
        "bytes_scanned": stats.bytes_scanned,
        "bytes_decoded": stats.bytes_decoded,
        "cpu_seconds": stats.cpu.as_secs_f64(),
        "damaged_signatures": stats.damaged_signatures.len(),
        "nodes": 1,
        "seconds": watch.start.elapsed().as_secs_f64(),
        "complete": stats.complete,
        "missing": missing(stats),
    });
    held::json(&object, watch)
}

pub(super) fn missing(stats: &Stats) -> Value {
    let span = |missing: &engine::search::Missing| {
        json!({
            "from": missing.from.to_string(),
            "to": missing.to.to_string(),
            "node": missing.node,
            "reason": missing.reason,
        })
    };
    stats.shown().missing.iter().map(span).collect()
}

pub(super) fn stopping() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping").retry_later()
}

fn denied(missing_count: u64) -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("partial: denied, and {missing_count} spans of the range cannot be searched"),
    )
}

/// Nothing, of which that is not known beforehand: the answer to HEAD must not claim that GET's
/// would be empty.
struct OfUnknownLength;

impl http_body::Body for OfUnknownLength {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }
}

fn known_head(prepared: &Prepared) -> Head {
    Head { complete: prepared.plan.complete, missing_count: prepared.plan.missing_count }
}

fn describe(headers: &mut HeaderMap, prepared: &Prepared, head: Head) {
    Described::of(&prepared.request, &prepared.plan).write(headers, head, prepared.watch.start);
}

fn format(headers: &HeaderMap) -> Format {
    let kinds = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let kinds = kinds.flat_map(|text| text.split(','));
    for kind in kinds {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        for format in [Format::Ndjson, Format::EndedText] {
            if kind.eq_ignore_ascii_case(content_type(format)) {
                return format;
            }
        }
    }
    Format::Text
}

fn content_type(format: Format) -> &'static str {
    match format {
        Format::Text => "text/plain; charset=utf-8",
        Format::EndedText => "application/x-oklog-lines",
        Format::Ndjson => "application/x-ndjson",
    }
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|text| text.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")))
}

impl App {
    /// The moment of a request.
    pub(super) fn now(&self) -> Now {
        let clock_ms = now_ms();
        Now { clock_ms, newest_ms: clock_ms.max(self.backend.newest_ms()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn a_query_that_finds_nothing_until_it_is_too_old_is_ended() {
        let Some(start) = Instant::now().checked_sub(QUERY_AGE_MAX) else { return };
        let told = Arc::new(Mutex::new(Vec::new()));
        let end = {
            let told = Arc::clone(&told);
            Box::new(move |reason: &str| told.lock().unwrap().push(reason.to_owned()))
        };
        let is_told = async {
            while told.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = end_when_old(start, end) => unreachable!("its head comes from the search"),
            () = is_told => {}
        }
        assert_eq!(*told.lock().unwrap(), [TOO_OLD]);
    }
}
