//! `GET /api/logs` and `GET /api/stats`.
//!
//! Invariants: both are queries like any other, with the same turns, memory, deadlines and the same ways to
//! say what is missing; entries are those of the topic that `POST /log` writes to, by their arrival.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use engine::entries::{LEVELS, LevelCount};
use engine::search::format::rfc3339;
use engine::search::{ChainText, Format, Head, Stats, Window};
use engine::topic::Topic;
use hyper::{HeaderMap, Response, StatusCode, Uri};
use serde::Serialize;
use serde_json::Value;

use super::array::JsonArray;
use super::wanted::WantedEntries;
use crate::backend::EntryCounts;
use crate::http::App;
use crate::http::admission::Client;
use crate::http::client_stream::Flushes;
use crate::http::described::Described;
use crate::http::held::{self, With};
use crate::http::parameters::{BadParameter, Known, Parameters};
use crate::http::query::{
    Prepared, Shown, answered, memory_for, missing, prepare, records, stopping,
};
use crate::limits::{
    ENTRIES_FROM_DEFAULT, ENTRIES_PASSED_MAX, ENTRIES_SHOWN_DEFAULT, ENTRIES_SHOWN_MAX,
    ENTRY_COUNTS_BYTES_MAX,
};

const LOGS: Known =
    Known { single: &["level", "service", "q", "from", "to", "limit", "offset"], repeated: &[] };
const STATS: Known =
    Known { single: &["level", "service", "q", "from", "to", "by"], repeated: &[] };

/// `GET /api/logs`: the newest first.
pub(in crate::http) async fn logs(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    Extension(client): Extension<Client>,
    Extension(flushes): Extension<Arc<Flushes>>,
) -> Response<Body> {
    let answer = async {
        let parameters = Parameters::parse(uri.query(), LOGS)?;
        let limit = parameters.number("limit", 0..=ENTRIES_SHOWN_MAX)?;
        let passed = parameters.number("offset", 0..=ENTRIES_PASSED_MAX)?.unwrap_or(0);
        let wanted = WantedEntries::read(&parameters)?;
        let mut request = wanted.request(window(&app, &parameters)?, &app.options.log_topic)?;
        request.limit = Some(passed + limit.unwrap_or(ENTRIES_SHOWN_DEFAULT));
        let prepared = prepare(&app, request, "api_logs", client).await?;
        let shown = Shown {
            told: Described::of(&prepared.request, &prepared.plan).without_expressions(),
            format: Format::Text,
            content_type: "application/json",
            shape: |reader| Box::new(JsonArray::new(reader, passed)) as _,
        };
        records(&app, prepared, shown, (&headers, flushes)).await
    };
    let answer = answer.await;
    answered(&app, answer)
}

/// What `GET /api/stats` is answered with where it is not asked for rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StatsShape {
    /// One object: in all, by level, by service.
    #[default]
    Object,
    /// An array of a level and its count each, as OgLogStream's dashboard reads it.
    Array,
}

/// `GET /api/stats`: how many there are.
pub(in crate::http) async fn stats(
    State(app): State<Arc<App>>,
    uri: Uri,
    Extension(client): Extension<Client>,
) -> Response<Body> {
    let answer = async {
        let parameters = Parameters::parse(uri.query(), STATS)?;
        let by = By::read(&parameters)?;
        let wanted = WantedEntries::read(&parameters)?;
        let mut request = wanted.request(window(&app, &parameters)?, &app.options.log_topic)?;
        if wanted.is_all() {
            // Whether a record is an entry is seen when it is counted.
            request.source =
                ChainText::new((Vec::new(), Vec::new()), false, false).map_err(|_| stopping())?;
        }
        request.beside_bytes = ENTRY_COUNTS_BYTES_MAX;
        let prepared = prepare(&app, request, "api_stats", client).await?;
        let told = Described::of(&prepared.request, &prepared.plan).without_expressions();
        let Prepared { spec, view, mut watch, .. } = prepared;
        let start = watch.start;
        let found = view.entry_counts(spec).await.ok_or_else(stopping)?;
        watch.count(&found.stats);
        let Stats { complete, missing_count, .. } = found.stats;
        let topic = app.options.log_topic.clone();
        let is_array = by == By::default() && app.options.api_stats == StatsShape::Array;
        let encoded = tokio::task::spawn_blocking(move || {
            if is_array { levels(&found) } else { encode(&found, by, &topic) }
        });
        let encoded = encoded.await;
        let bytes = encoded.map_err(|_| stopping())?;
        let place = watch.place.take();
        // Nobody waits for memory while holding some.
        drop(watch);
        let memory = memory_for(&app, bytes.len()).await?;
        let held = With(bytes, (memory, place));
        let mut response = held::answer(StatusCode::OK, "application/json", held);
        // An array has no other place for what is missing.
        told.write(response.headers_mut(), Head { complete, missing_count }, start);
        Ok(response)
    };
    let answer = answer.await;
    answered(&app, answer)
}

fn window(app: &App, parameters: &Parameters) -> Result<Window, BadParameter> {
    let from = parameters.get("from").filter(|text| !text.is_empty());
    Window::parse(from.or(Some(ENTRIES_FROM_DEFAULT)), parameters.get("to"), app.now())
        .map_err(|error| BadParameter(error.to_string()))
}

/// Of what there are rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct By {
    service: bool,
    level: bool,
}

impl By {
    fn read(parameters: &Parameters) -> Result<Self, BadParameter> {
        let mut by = Self::default();
        let Some(text) = parameters.get("by").filter(|text| !text.is_empty()) else {
            return Ok(by);
        };
        for name in text.split(',') {
            let field = match name {
                "service" => &mut by.service,
                "level" => &mut by.level,
                _ => return Err(BadParameter::value("by", text, VALID_BY)),
            };
            if std::mem::replace(field, true) {
                return Err(BadParameter::value("by", text, VALID_BY));
            }
        }
        Ok(by)
    }
}

const VALID_BY: &str = "service, level or both (service,level)";

#[derive(Serialize)]
struct Object<'a> {
    total_logs: u64,
    logs_by_level: BTreeMap<&'a str, u64>,
    logs_by_service: BTreeMap<&'a str, u64>,
    /// Under which their records are found.
    topic: &'a str,
    /// Of services that are not counted each.
    #[serde(skip_serializing_if = "is_none")]
    logs_of_other_services: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<Vec<Row<'a>>>,
    complete: bool,
    missing: Value,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn is_none(entries: &u64) -> bool {
    *entries == 0
}

/// One element of the array.
#[derive(Serialize)]
struct OfLevel<'a> {
    level: &'a str,
    count: u64,
}

/// Which services a row is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Services<'a> {
    All,
    /// Those that are not counted each.
    Others,
    One(&'a str),
}

/// One of the rows; of all further services together the service is null.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'a str>,
    count: u64,
    latest: String,
}

/// How many there are of each level that there is, from the least severe on.
fn levels(found: &EntryCounts) -> Vec<u8> {
    let of = |level: usize| {
        let all = found.services.iter().map(|(_, counts)| counts).chain([&found.others]);
        all.map(|counts| counts[level].entries).sum::<u64>()
    };
    let counts = LEVELS.iter().enumerate().map(|(at, level)| OfLevel { level, count: of(at) });
    written(&counts.filter(|row| row.count > 0).collect::<Vec<_>>())
}

/// As JSON, with a newline.
fn written(answer: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    // Neither text nor numbers can fail, nor can memory.
    let _ = serde_json::to_writer(&mut out, answer);
    out.push(b'\n');
    out
}

fn encode(found: &EntryCounts, by: By, topic: &Topic) -> Vec<u8> {
    let services = found.services.iter().map(|(name, counts)| (Some(name.as_str()), counts));
    let mut cells: BTreeMap<(Services<'_>, Option<&str>), LevelCount> = BTreeMap::new();
    let (mut total, mut levels, mut of_services) = (0, BTreeMap::new(), BTreeMap::new());
    let mut others = 0;
    for (service, counts) in services.chain([(None, &found.others)]) {
        for (level, count) in LEVELS.into_iter().zip(counts).filter(|(_, count)| count.entries > 0)
        {
            total += count.entries;
            *levels.entry(level).or_default() += count.entries;
            match service {
                Some(service) => *of_services.entry(service).or_default() += count.entries,
                None => others += count.entries,
            }
            let of = match service {
                _ if !by.service => Services::All,
                None => Services::Others,
                Some(name) => Services::One(name),
            };
            let key = (of, by.level.then_some(level));
            cells.entry(key).or_default().add(*count);
        }
    }
    let rows = (by != By::default()).then(|| {
        let row = |((of, level), count): (_, LevelCount)| Row {
            service: match of {
                Services::All => None,
                Services::Others => Some(Value::Null),
                Services::One(name) => Some(name.into()),
            },
            level,
            count: count.entries,
            latest: rfc3339(count.latest_ms),
        };
        let mut rows: Vec<_> = cells.into_iter().map(row).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.count));
        rows
    });
    let object = Object {
        total_logs: total,
        logs_by_level: levels,
        logs_by_service: of_services,
        topic: topic.as_str(),
        logs_of_other_services: others,
        rows,
        complete: found.stats.complete,
        missing: missing(&found.stats),
    };
    written(&object)
}
