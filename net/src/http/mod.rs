//! The HTTP server: queries, `POST /records`, and what operators look at.
//!
//! Runs on the control thread's single-threaded runtime. A request's way: `server` accepts and
//! bounds connections (`client_stream`; `head_bytes` bounds
//! unfinished heads, `bad_head` answers what is no request), `proxies` says for whom a proxy asks, `sites` refuses what pages of strangers
//! send, `router` picks who answers and what that takes, `admission` asks who it is and what he may (`login`
//! is how the page says so), `parameters` reads the query string; `query` turns it
//! into a query (`compile`) whose bytes come out of `pipe_body`, `stream` follows live (`alive` shows that either is there while it has nothing to say); `records` decodes a body (`body_decoder`, `gzip`) into batches of lines (`line_batches`) for the node; `entries` is the interface of OgLogStream; `page` is the web page.
//!
//! What all of them share is taken from the `ledger` before it is used.
//!
//! Invariants: bad input is answered with 4xx that names it, never with 500; everything that
//! takes long happens on other threads; memory per connection is bounded.

mod admission;
mod alive;
mod answer;
mod bad_head;
mod body_decoder;
mod body_hold;
mod client_stream;
mod compile;
mod described;
mod drain;
mod entries;
mod gzip;
mod head_bytes;
mod held;
mod ledger;
mod line_batches;
mod login;
mod page;
mod parameters;
mod pipe_body;
mod proxies;
mod query;
mod query_request;
mod records;
mod reserve;
mod router;
mod series;
mod server;
mod sites;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod told;
mod topics;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine::topic::Topic;

use self::entries::EntryDesk;
pub use self::entries::StatsShape;
use self::ledger::Ledger;
pub use self::proxies::Proxies;
pub use self::reserve::Reserve;
pub use self::server::serve;
pub use self::sites::Sites;
use self::told::Told;
use self::topics::TopicsDesk;
use crate::access::{Authority, Rates};
use crate::backend::{Backend, Guarded};
use crate::limits::{
    ALIVE_INTERVAL, HTTP_BODY_BYTES_MAX, HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_PER_ADDRESS_MAX,
    HTTP_HEAD_TIMEOUT, LONG_LINES_BYTES_MAX, QUERY_TURN_WAIT, RECORDS_REQUESTS_MAX,
};
use crate::metrics::NodeMetrics;

/// Topic of entries unless told otherwise.
pub const LOG_TOPIC_DEFAULT: &str = "log";

/// Bounds of a server, and whom it answers.
#[derive(Clone)]
pub struct HttpOptions {
    /// Queries at a time; further ones get 429.
    pub queries_max: usize,
    /// What all queries may hold together, bytes.
    pub query_memory_bytes: u64,
    /// How long a query waits for its turn, and for memory, before it gets 429.
    pub query_turn_wait: Duration,
    /// How often whoever asks for signs of life hears of a query or stream.
    pub alive_interval: Duration,
    /// Connections at a time; further ones get 503 and are closed.
    pub connections_max: usize,
    /// Connections of one address at a time, fewer than there are in all; further ones as above.
    pub connections_per_address_max: usize,
    /// How long a request head, or the next request, may take.
    pub idle_timeout: Duration,
    /// Longest body of `POST /records` as decoded, bytes; longer ones get 413.
    pub body_bytes_max: u64,
    /// Requests that take records apart at a time; further ones wait, then get 429.
    pub records_requests_max: usize,
    /// What unfinished lines over 64 KiB in bodies may hold together, bytes; one of them may always
    /// come. Further ones wait, then get 429.
    pub long_lines_bytes: u64,
    /// Topic of what `POST /log` takes and `/api/logs` shows.
    pub log_topic: Topic,
    /// What `/api/stats` is answered with.
    pub api_stats: StatsShape,
    /// Names it answers to on loopback, and pages that may change something.
    pub sites: Arc<Sites>,
    /// Who may do what.
    pub authority: Authority,
    /// Requests a second of one address, and of one token; `None`: any.
    pub rate_limit: Option<u64>,
    /// Who says for whom he asks.
    pub proxies: Arc<Proxies>,
    /// What connections are accepted with where there are no descriptors.
    pub reserve: Reserve,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            queries_max: 256,
            query_memory_bytes: 128 << 20,
            query_turn_wait: QUERY_TURN_WAIT,
            alive_interval: ALIVE_INTERVAL,
            connections_max: HTTP_CONNECTIONS_MAX,
            connections_per_address_max: HTTP_CONNECTIONS_PER_ADDRESS_MAX,
            idle_timeout: HTTP_HEAD_TIMEOUT,
            body_bytes_max: HTTP_BODY_BYTES_MAX,
            records_requests_max: RECORDS_REQUESTS_MAX,
            long_lines_bytes: LONG_LINES_BYTES_MAX,
            log_topic: Topic::new(LOG_TOPIC_DEFAULT.as_bytes())
                .expect("the default topic is a topic"),
            api_stats: StatsShape::Object,
            sites: Arc::default(),
            authority: Authority::none(),
            rate_limit: None,
            proxies: Arc::default(),
            reserve: Reserve::default(),
        }
    }
}

/// What every request is answered with.
struct App {
    backend: Guarded,
    /// What requests are counted in.
    metrics: Arc<NodeMetrics>,
    options: HttpOptions,
    /// What requests and connections share.
    ledger: Arc<Ledger>,
    /// What `POST /log` brings, on its way.
    entries: Arc<EntryDesk>,
    /// Who waits for `/topics`.
    topics: Arc<TopicsDesk>,
    /// What queries could not search.
    told: Arc<Told>,
    /// Since when time is counted for those who are refused.
    start: Instant,
    /// How often somebody may ask; `None`: any time.
    rates: Option<Mutex<Rates>>,
}

impl App {
    fn new(backend: Arc<dyn Backend>, metrics: Arc<NodeMetrics>, options: HttpOptions) -> Self {
        Self {
            ledger: Arc::new(Ledger::new(&options, backend.max_record_size_bytes(), &metrics)),
            metrics,
            backend: Guarded::new(backend),
            entries: Arc::default(),
            topics: Arc::default(),
            told: Arc::default(),
            start: Instant::now(),
            rates: options.rate_limit.map(|rate| Mutex::new(Rates::new(rate))),
            options,
        }
    }
}
