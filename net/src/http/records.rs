//! `POST /records`: newline-delimited lines in a request body.
//!
//! Invariants: 200 is sent only once the mode's promise holds for every record of the body; a
//! refusal in the middle says for how many records it holds; memory of a request is at most a
//! batch, a record and a decoding step, whatever its length, and is taken from the ledger before
//! (`turn`); what is handed to a shard stays counted until it is in the log. Lines are taken as on the TCP ports.
//! An unfinished last line is kept, unless the body itself is cut short: then its sender cannot
//! have seen an answer and will send it again.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Extension, State};
use bytes::Bytes;
use engine::topic::Topic;
use engine::ulid::Ulid;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use hyper::{HeaderMap, Response, StatusCode, Uri};
use serde_json::json;
use tokio::time::Instant;

use super::App;
use super::admission::Client;
use super::answer::{self, Refusal};
use super::body_decoder::{BodyDecoder, DecodeError};
use super::body_hold::{BodyHold, Kind};
use super::ledger::Ledger;
use super::line_batches::LineBatches;
use super::parameters::{BadParameter, Known, Parameters};
use crate::backend::{AppendError, Appender};
use crate::budget::{Share, Taken};
use crate::limits::{
    APPEND_BATCH_BYTES_MAX, BATCH_LINGER, HTTP_BODY_IDLE, LINES_ON_THEIR_WAY_BYTES_MAX,
    PARTIAL_BYTES_MAX, RECORDS_REQUEST_WAIT,
};

const PARAMETERS: Known = Known { single: &["topic", "mode"], repeated: &[] };

/// When a record counts as kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Fast,
    Durable,
}

/// Takes records on behalf of one request.
struct Intake<'a> {
    ledger: &'a Ledger,
    appender: Box<dyn Appender>,
    batches: LineBatches,
    turn: BodyHold<'a>,
    records: u64,
    first: Option<Ulid>,
    last: Option<Ulid>,
    /// Of the body as decoded.
    taken_bytes: u64,
    /// Most of them.
    body_bytes_max: u64,
    /// Records were refused: nothing behind them is taken.
    is_refused: bool,
    /// Until when whole lines may wait for more, and the turn with them.
    hand_on_at: Instant,
}

/// `POST /records`.
pub(super) async fn post(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    match take((&app, &client), &uri, &headers, body).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn take(
    (app, client): (&App, &Client),
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let (topic, mode) = read_parameters(uri.query())?;
    let writer = app.backend.writer(&client.access, topic)?;
    let decoder = decoder(headers)?;
    let body_bytes_max = app.options.body_bytes_max;
    let declared = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    if declared.is_some_and(|bytes: u64| bytes > body_bytes_max) {
        return Err(Refusal { kept: Some(0), ..too_large(body_bytes_max) });
    }
    let appender = writer.appender(mode == Mode::Durable);
    let appender = appender.map_err(|error| Refusal { kept: Some(0), ..refused(&error) })?;
    let record_bytes_max = app.backend.max_record_size_bytes();
    let (is_encoded, window_bytes) = (!decoder.is_identity(), decoder.window_bytes());
    let kind = Kind { is_encoded, window_bytes, record_bytes_max };
    let turn = BodyHold::new(&app.ledger, kind, client.address);
    let mut intake = Intake::new(&app.ledger, appender, turn, record_bytes_max, body_bytes_max);
    let taken = intake.take_body(body, decoder).await;
    app.metrics.ingest.cut_records.inc_by(intake.batches.cut_records);
    intake.turn.end();
    // What was taken before a failure is kept, so its promise is made good before it is told.
    let kept = if mode == Mode::Durable && intake.records > 0 {
        intake.appender.durable().await
    } else {
        Ok(())
    };
    match (taken, kept) {
        (Ok(()), Ok(())) => {
            let text = |id: Option<Ulid>| id.map(|id| id.to_string());
            let (first, last) = (text(intake.first), text(intake.last));
            let object = json!({ "records": intake.records, "first": first, "last": last });
            Ok(answer::json(StatusCode::OK, &object))
        }
        (Err(refusal), Ok(())) => Err(Refusal { kept: Some(intake.records), ..refusal }),
        (_, Err(error)) => Err(Refusal { kept: Some(0), ..refused(&error) }),
    }
}

impl<'a> Intake<'a> {
    fn new(
        ledger: &'a Ledger,
        appender: Box<dyn Appender>,
        turn: BodyHold<'a>,
        record_bytes_max: usize,
        body_bytes_max: u64,
    ) -> Self {
        Self {
            ledger,
            appender,
            batches: LineBatches::new(record_bytes_max, APPEND_BATCH_BYTES_MAX),
            turn,
            records: 0,
            first: None,
            last: None,
            taken_bytes: 0,
            body_bytes_max,
            is_refused: false,
            hand_on_at: Instant::now(),
        }
    }

    async fn take_body(&mut self, mut body: Body, mut decoder: BodyDecoder) -> Result<(), Refusal> {
        let outcome = self.take_pieces(&mut body, &mut decoder).await;
        let outcome = match outcome {
            Ok(()) => {
                self.turn.take().await?;
                decoder.finish().map_err(|error| undecodable(&error))
            }
            refused => refused,
        };
        if !self.is_refused
            && let Some(batch) = self.batches.finish(outcome.is_ok())
        {
            self.append(batch).await?;
        }
        outcome
    }

    async fn take_pieces(
        &mut self,
        body: &mut Body,
        decoder: &mut BodyDecoder,
    ) -> Result<(), Refusal> {
        let mut out = Vec::new();
        loop {
            let Some(piece) = self.piece(body, &mut out).await? else { return Ok(()) };
            if self.turn.is_paused() {
                self.turn.take().await?;
                self.hand_on_at = Instant::now() + BATCH_LINGER;
            }
            let mut input = &piece[..];
            loop {
                decoder.step(&mut input, &mut out).map_err(|error| undecodable(&error))?;
                if input.is_empty() && out.is_empty() {
                    break;
                }
                self.taken_bytes += out.len() as u64;
                if self.taken_bytes > self.body_bytes_max {
                    return Err(too_large(self.body_bytes_max));
                }
                self.append_lines(&out).await?;
            }
        }
    }

    /// The next piece: in time for the lines that wait, or once they are handed on.
    async fn piece(
        &mut self,
        body: &mut Body,
        out: &mut Vec<u8>,
    ) -> Result<Option<Bytes>, Refusal> {
        if self.turn.is_overdue() {
            return Err(self.turn.overdue());
        }
        let until = self.hand_on_at;
        if Instant::now() < until
            && let Ok(piece) = tokio::time::timeout_at(until, next_piece(body)).await
        {
            return piece;
        }
        *out = Vec::new();
        self.wait_for_piece(body).await
    }

    /// Waits for a client that thinks. What is whole does not wait with it, and others may have the turn if
    /// little is left; also beside a client that always has more.
    async fn wait_for_piece(&mut self, body: &mut Body) -> Result<Option<Bytes>, Refusal> {
        if let Some(batch) = self.batches.take_waiting() {
            self.append(batch).await?;
        }
        if let Err(refusal) = self.turn.pause(self.batches.partial_bytes()) {
            // Who does not let it wait may keep the turn.
            let ready = tokio::time::timeout(Duration::ZERO, next_piece(body)).await;
            self.hand_on_at = Instant::now() + BATCH_LINGER;
            return ready.unwrap_or(Err(refusal));
        }
        if self.turn.is_paused() {
            self.batches.shrink();
        }
        let wait_max = self.turn.wait_max().unwrap_or(HTTP_BODY_IDLE).min(HTTP_BODY_IDLE);
        match tokio::time::timeout(wait_max, next_piece(body)).await {
            Ok(piece) => piece,
            Err(_) if wait_max < HTTP_BODY_IDLE => Err(self.turn.overdue()),
            Err(_) => {
                let seconds = HTTP_BODY_IDLE.as_secs();
                let words = format!("the body brought nothing for {seconds} s");
                Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, words))
            }
        }
    }

    async fn append_lines(&mut self, mut input: &[u8]) -> Result<(), Refusal> {
        while let Some(batch) = self.batches.take(&mut input) {
            self.append(batch).await?;
            // The line may have taken what was held with it.
            self.turn.take().await?;
        }
        let unfinished_bytes = self.batches.partial_bytes();
        let is_long = unfinished_bytes > PARTIAL_BYTES_MAX;
        if is_long && !self.turn.has_line() {
            self.turn.take_line(unfinished_bytes).await?;
            self.batches.reserve_line();
        } else if !is_long && self.turn.has_line() {
            self.batches.shrink();
            drop(self.turn.give_line());
            self.turn.take().await?;
        }
        Ok(())
    }

    /// Room for lines on their way into the log. A long line that has ended has it already.
    async fn way_for(&mut self, bytes: usize) -> Result<Way, Refusal> {
        if self.batches.partial_bytes() == 0
            && let Some(line) = self.turn.give_line()
        {
            return Ok(Way::Long(line));
        }
        let ways = &self.ledger.lines_on_their_way;
        let bytes = (bytes as u64).min(LINES_ON_THEIR_WAY_BYTES_MAX);
        if let Some(way) = ways.take_if_free(bytes) {
            return Ok(Way::Short(way));
        }
        let until = Some(Instant::now() + RECORDS_REQUEST_WAIT);
        tokio::select! {
            biased;
            way = ways.take(bytes, until) => way.map(Way::Short).map_err(|_| ways.refusal()),
            error = self.appender.trouble() => Err(refused(&error)),
        }
    }

    async fn append(&mut self, batch: Bytes) -> Result<(), Refusal> {
        let way = self.way_for(batch.len()).await;
        let appended = match way {
            Ok(way) => {
                let lines = Bytes::from_owner(OnTheirWay::new(batch, way));
                self.appender.append(lines).await.map_err(|error| refused(&error))
            }
            Err(refusal) => Err(refusal),
        };
        self.is_refused |= appended.is_err();
        let appended = appended?;
        self.turn.line_ended();
        self.hand_on_at = Instant::now() + BATCH_LINGER;
        self.records += appended.records;
        self.first = self.first.or(Some(appended.first));
        self.last = Some(appended.last);
        Ok(())
    }
}

/// Room for lines on their way.
enum Way {
    Short(#[expect(dead_code, reason = "it is held")] Taken),
    /// A long line keeps what it had.
    Long(#[expect(dead_code, reason = "it is held")] Share),
}

/// Lines, and what is held for them wherever they go.
pub(super) struct OnTheirWay<W = Taken> {
    lines: Bytes,
    _way: W,
}

impl<W> OnTheirWay<W> {
    /// Whole lines and their room.
    pub(super) const fn new(lines: Bytes, way: W) -> Self {
        Self { lines, _way: way }
    }
}

impl<W> AsRef<[u8]> for OnTheirWay<W> {
    fn as_ref(&self) -> &[u8] {
        &self.lines
    }
}

/// The next bytes of the body; `None` at its end. May be dropped and asked again.
pub(super) async fn next_piece(body: &mut Body) -> Result<Option<Bytes>, Refusal> {
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => return Ok(None),
            Some(Err(error)) => {
                let words = format!("the body cannot be read to its end: {error}");
                return Err(Refusal::new(StatusCode::BAD_REQUEST, words));
            }
            // Trailers of a request say nothing that is asked here.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

fn read_parameters(query: Option<&str>) -> Result<(Option<Topic>, Mode), BadParameter> {
    let parameters = Parameters::parse(query, PARAMETERS)?;
    let topic = parameters.get("topic").map(|name| {
        Topic::new(name.as_bytes()).map_err(|_| {
            let valid = "1 to 64 letters, digits, '_' or '-', the first one a letter or digit";
            BadParameter::value("topic", name, valid)
        })
    });
    if parameters.get("mode") == Some("bulk") {
        return Err(BadParameter(
            "mode: bulk needs stores to replicate to, and this version has none; valid are \
             fast and durable"
                .to_owned(),
        ));
    }
    let mode = match parameters.word("mode", &["durable", "fast"])? {
        "fast" => Mode::Fast,
        _ => Mode::Durable,
    };
    Ok((topic.transpose()?, mode))
}

fn decoder(headers: &HeaderMap) -> Result<BodyDecoder, Refusal> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let coding = codings.next().map(|value| value.to_str().unwrap_or("?")).unwrap_or_default();
    let coding = if codings.next().is_some() { "several" } else { coding };
    BodyDecoder::new(coding)
        .map_err(|error| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string()))
}

fn undecodable(error: &DecodeError) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, error.to_string())
}

fn too_large(body_bytes_max: u64) -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is longer than {body_bytes_max} bytes; send it in several requests"),
    )
}

fn refused(error: &AppendError) -> Refusal {
    let refusal = |status| Refusal::new(status, error.to_string());
    match error {
        AppendError::Overloaded => refusal(StatusCode::TOO_MANY_REQUESTS).retry_later(),
        AppendError::DiskFull | AppendError::Storage(_) | AppendError::ShuttingDown => {
            refusal(StatusCode::SERVICE_UNAVAILABLE).retry_later()
        }
        // Waiting does not help: another node does.
        AppendError::Draining => refusal(StatusCode::SERVICE_UNAVAILABLE),
        AppendError::NoIngester => refusal(StatusCode::MISDIRECTED_REQUEST),
    }
}

#[cfg(test)]
mod tests;
