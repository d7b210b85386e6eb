//! The ledger of HTTP: every bounded resource of the server by its name, with its limit, how those
//! who find it empty are refused, and what of several is taken together.
//!
//! Invariants: all that requests and connections share is taken here before it is used. Whoever
//! takes several takes them in the order of the fields, so nobody waits for one who waits for him:
//! connections, lasting answers, the share of replays, queries, their memory, compiling; and for records decoders (or bodies of entries),
//! turns, long lines, lines on their way. Of what bodies hold that may come slowly an address has a share. Streams and queries hold at most three quarters of
//! the connections, in all and of one address, so that a request which is answered at once (health,
//! metrics, records) finds one however many follow or read slowly.
//!
//! What it does not do: decide (`budget::account`), or know what a request does with what it took.

use std::net::IpAddr;
use std::time::Duration;

use hyper::StatusCode;
use tokio::time::Instant;

use super::HttpOptions;
use super::answer::Refusal;
use super::body_hold::long_line_bytes;
use crate::budget::{
    AddressPlace, Budget, Full, NoRoom, PerAddress, Share, Shares, Spec, Taken, TooMany,
};
use crate::limits::{
    DECODER_WINDOW_BYTES_MAX, DECODER_WINDOWS_BYTES_MAX, ENTRIES_BODIES_BYTES_MAX,
    ENTRIES_BODY_HELD_BYTES, ENTRY_BODIES_BYTES_MAX, ENTRY_BODY_HELD_BYTES,
    EXPRESSIONS_COMPILING_MAX, FOLLOW_EXPRESSIONS_BYTES_MAX, FOLLOWERS_MAX, GZIP_DECODER_BYTES,
    GZIP_DECODERS_BYTES_MAX, HTTP_HEADS_BYTES_MAX, LINES_ON_THEIR_WAY_BYTES_MAX,
    METRICS_PAGES_BYTES_MAX, PARTIAL_BYTES_MAX, QUERIES_WAITING_MAX, QUERY_BYTES_MAX,
    UNFINISHED_LINES_BYTES_MAX,
};
use crate::metrics::{BudgetMeter, NodeMetrics};

const CONNECTIONS: Spec = Spec {
    name: "connections",
    full: "too many connections: {} are open, which is as many as may (--http.connections-max)",
};
const CONNECTIONS_OF_ADDRESS: Spec = Spec {
    name: "connections_of_address",
    full: "too many connections: this address has {} open, which is as many as may \
           (--http.connections-per-address-max)",
};
const LASTING: Spec = Spec {
    name: "lasting_answers",
    full: "{} streams and queries are open, which is as many as may (three quarters of \
           --http.connections-max)",
};
const LASTING_OF_ADDRESS: Spec = Spec {
    name: "lasting_answers_of_address",
    full: "this address has {} streams and queries open, which is as many as may (three quarters \
           of --http.connections-per-address-max)",
};
const HEADS: Spec = Spec {
    name: "heads_bytes",
    full: "too many large request heads are open: together they may hold {} bytes",
};
const REPLAYS: Spec = Spec {
    name: "replays",
    full: "{} replays run, which is as many as may (half of --query.max-concurrent)",
};
const QUERIES: Spec = Spec {
    name: "queries",
    full: "{} queries run, which is as many as may (--query.max-concurrent, --query.memory-max), \
           or fewer with large expressions, and none ended in time",
};
const WAITING_QUERIES: Spec = Spec {
    name: "waiting_queries",
    full: "as many queries run as may (--query.max-concurrent, --query.memory-max), and {} wait \
           for their turn, which is as many as may",
};
const QUERY_MEMORY: Spec = Spec {
    name: "query_memory_bytes",
    full: "all queries together may hold {} bytes (--query.memory-max), and others leave too \
           little of them",
};
const FOLLOWERS: Spec =
    Spec { name: "followers", full: "{} followers are here, which is as many as may" };
const FOLLOWER_EXPRESSIONS: Spec = Spec {
    name: "follower_expressions_bytes",
    full: "q: the expressions of followers hold as much memory as they may: {} bytes",
};
const COMPILING: Spec = Spec {
    name: "compiling_expressions",
    full: "q: {} expressions are being compiled, which is as many as may, and none was ready in time",
};
const METRICS_PAGES: Spec = Spec {
    name: "metrics_pages_bytes",
    full: "too many pages of metrics are being sent to clients that do not take them: together \
           they may hold {} bytes",
};
const RECORDS_TURNS: Spec = Spec {
    name: "records_turns",
    full: "too many requests bring records at the same time: {} may, and none ended in time",
};

const DECODER_WINDOWS: Spec = Spec {
    name: "decoder_windows_bytes",
    full: "too many compressed bodies come at the same time: their decoders may hold {} bytes",
};
const GZIP_DECODERS: Spec = Spec {
    name: "gzip_decoders_bytes",
    full: "too many bodies in gzip come at the same time: their decoders may hold {} bytes",
};
const ENTRY_BODIES: Spec = Spec {
    name: "entry_bodies_bytes",
    full: "too many long entries come at the same time: {} bytes may be held for those that do not come \
           with their heads",
};
const ENTRIES_BODIES: Spec = Spec {
    name: "entries_bodies_bytes",
    full: "too many bodies with several entries come at the same time: {} bytes may be held for them",
};
const DECODER_WINDOWS_OF_ADDRESS: Spec = Spec {
    name: "decoder_windows_bytes_of_address",
    full: "too many compressed bodies come from this address at the same time: its decoders may hold {} bytes",
};
const GZIP_DECODERS_OF_ADDRESS: Spec = Spec {
    name: "gzip_decoders_bytes_of_address",
    full: "too many bodies in gzip come from this address at the same time: its decoders may hold {} bytes",
};
const ENTRY_BODIES_OF_ADDRESS: Spec = Spec {
    name: "entry_bodies_bytes_of_address",
    full: "too many long entries come from this address at the same time: {} bytes may be held for those that \
           do not come with their heads",
};
const ENTRIES_BODIES_OF_ADDRESS: Spec = Spec {
    name: "entries_bodies_bytes_of_address",
    full: "too many bodies with several entries come from this address at the same time: {} bytes may be held \
           for them",
};
const UNFINISHED_LINES_OF_ADDRESS: Spec = Spec {
    name: "unfinished_lines_bytes_of_address",
    full: "too many request bodies of this address wait inside a line: together they may hold {} bytes",
};
const LONG_LINES_OF_ADDRESS: Spec = Spec {
    name: "long_lines_bytes_of_address",
    full: "too many lines over 64 KiB come in request bodies of this address: those that have not come to \
           their end may hold {} bytes (three quarters of --ingest.partial-max-size)",
};
const UNFINISHED_LINES: Spec = Spec {
    name: "unfinished_lines_bytes",
    full: "too many request bodies wait inside a line: together they may hold {} bytes",
};
const LONG_LINES: Spec = Spec {
    name: "long_lines_bytes",
    full: "too many lines over 64 KiB come in request bodies: those that have not come to their \
           end may hold {} bytes (--ingest.partial-max-size)",
};
const LINES_ON_THEIR_WAY: Spec = Spec {
    name: "lines_on_their_way_bytes",
    full: "the node has more waiting than it may hold: {} bytes of request bodies are on their \
           way to the log",
};

/// One budget of the ledger.
pub(super) struct Entry {
    budget: Budget,
    /// That of a request which finds it empty.
    status: StatusCode,
}

impl Entry {
    fn new(spec: Spec, limit: u64, status: StatusCode, meter: BudgetMeter) -> Self {
        Self { budget: Budget::new(spec, limit, meter), status }
    }

    /// Takes so much if it is there.
    pub(super) fn try_take(&self, amount: u64) -> Result<Taken, Refusal> {
        self.budget.try_take(amount).map_err(|_| self.refusal())
    }

    /// The same for one who can go on without it.
    pub(super) fn take_if_free(&self, amount: u64) -> Option<Taken> {
        self.budget.take_if_free(amount).ok()
    }

    /// Takes so much when its turn comes, if that is before `until`.
    pub(super) async fn take(&self, amount: u64, until: Option<Instant>) -> Result<Taken, NoRoom> {
        self.budget.take(amount, until).await
    }

    /// What there is in all.
    pub(super) fn limit(&self) -> u64 {
        self.budget.limit()
    }

    /// What is out of it.
    #[cfg(test)]
    pub(super) fn used(&self) -> u64 {
        self.budget.used()
    }

    /// What one is told who finds it empty.
    pub(super) fn refusal(&self) -> Refusal {
        Refusal::new(self.status, self.budget.words()).retry_later()
    }
}

/// One of which each address has a share: of what bodies hold that may come slowly.
pub(super) struct Shared {
    shares: Shares,
    status: StatusCode,
}

impl Shared {
    /// Takes so much if it is there.
    pub(super) fn try_take(&self, address: IpAddr, amount: u64) -> Result<Share, Refusal> {
        self.shares.try_take(address, amount).map_err(|full| self.refusal(full))
    }

    /// Takes so much when its turn comes, if that is before `until`.
    pub(super) async fn take(
        &self,
        address: IpAddr,
        amount: u64,
        until: Option<Instant>,
    ) -> Result<Share, Refusal> {
        self.shares.take(address, amount, until).await.map_err(|full| self.refusal(full))
    }

    /// What is out of it.
    #[cfg(test)]
    pub(super) fn used(&self) -> u64 {
        self.shares.all().used()
    }

    fn refusal(&self, full: Full) -> Refusal {
        Refusal::new(self.status, self.shares.words(full)).retry_later()
    }
}

/// One of places that are counted by address.
struct ByAddress {
    spec: Spec,
    places: PerAddress,
    status: StatusCode,
}

impl ByAddress {
    fn enter(&self, address: IpAddr) -> Result<AddressPlace, Refusal> {
        self.places.enter(address).map_err(|TooMany { is_news }| {
            let words = self.spec.words(self.places.max() as u64);
            if is_news {
                tracing::warn!(%address, budget = self.spec.name, "{words}");
            }
            Refusal::new(self.status, words).retry_later()
        })
    }
}

/// A place of a connection, or of an answer that lasts.
pub(super) type Place = (AddressPlace, Taken);

/// The place and the memory of a query that runs.
pub(super) struct QueryTurn {
    _place: Taken,
    /// Always there, but for the time of a change.
    memory: Option<Taken>,
}

impl QueryTurn {
    /// It needs so much memory in all, and holds it until its end. Where that is not free it gives
    /// back what it has and waits for all of it: of many who hold what the others wait for, none
    /// would get on.
    pub(super) async fn hold(
        &mut self,
        ledger: &Ledger,
        all: u64,
        until: Option<Instant>,
    ) -> Result<(), NoRoom> {
        let memory = &ledger.query_memory;
        let more = all.saturating_sub(self.memory.as_ref().map_or(0, Taken::amount));
        match (memory.take_if_free(more), &mut self.memory) {
            (Some(more), Some(held)) => held.merge(more),
            (more, held) => {
                drop(more);
                *held = None;
                *held = Some(memory.take(all, until).await?);
            }
        }
        Ok(())
    }

    /// Its memory, for what may go on when the query has gone. To be given back to it.
    pub(super) const fn lend(&mut self) -> Option<Taken> {
        self.memory.take()
    }

    /// See [`QueryTurn::lend`]; holds no more than so much from now on.
    pub(super) fn give_back(&mut self, memory: Option<Taken>, all: u64) {
        self.memory = memory;
        if let Some(memory) = &mut self.memory {
            memory.shrink_to(all);
        }
    }
}

/// See the module page.
pub(super) struct Ledger {
    connections_of_address: ByAddress,
    connections: Entry,
    lasting_of_address: ByAddress,
    lasting: Entry,
    /// What unfinished heads hold beyond a little.
    pub(super) heads: Entry,
    waiting_queries: Entry,
    /// The share of queries that replays for followers may be.
    replays: Entry,
    queries: Entry,
    /// What a query holds for its output and hits, its expression, and an answer that is whole
    /// before it is sent.
    pub(super) query_memory: Entry,
    pub(super) followers: Entry,
    pub(super) follower_expressions: Entry,
    /// Expressions that are being compiled; who has a place waits for nothing.
    pub(super) compiling: Entry,
    /// Pages of metrics that are being sent.
    pub(super) metrics_pages: Entry,
    pub(super) decoder_windows: Shared,
    /// Those whose decoders hold little.
    pub(super) gzip_decoders: Shared,
    /// Bodies of single entries that have not come with their heads.
    pub(super) entry_bodies: Shared,
    /// Those with several.
    pub(super) entries_bodies: Shared,
    /// Requests that take a piece of their body apart.
    pub(super) records_turns: Entry,
    /// What requests that wait without a turn hold of an unfinished line; never waited for.
    pub(super) unfinished_lines: Shared,
    /// Lines over [`crate::limits::PARTIAL_BYTES_MAX`], by what they may become.
    pub(super) long_lines: Shared,
    /// What was handed to shards and is not in their logs yet.
    pub(super) lines_on_their_way: Entry,
}

/// Whoever asks again finds a place before long.
const BUSY: StatusCode = StatusCode::TOO_MANY_REQUESTS;
/// The node has no means left for anybody.
const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

impl Ledger {
    /// For a node whose records have at most so many bytes.
    pub(super) fn new(
        options: &HttpOptions,
        record_bytes_max: usize,
        metrics: &NodeMetrics,
    ) -> Self {
        let meter = |spec: Spec, limit| metrics.budget(spec.name, limit);
        let entry = |spec, limit, status| Entry::new(spec, limit, status, meter(spec, limit));
        let long_line = long_line_bytes(record_bytes_max);
        let shared = |(all, own): (Spec, Spec), (limit, most_of_one), status| {
            let all = Budget::new(all, limit, meter(all, limit));
            let shares = Shares::new(all, most_of_one, own, |share| meter(own, share));
            Shared { shares, status }
        };
        let by_address = |spec: Spec, max: usize, status, refused| {
            let meter = meter(spec, max as u64).and_as(None, refused);
            ByAddress { spec, places: PerAddress::metered(max, meter), status }
        };
        let connections = options.connections_max as u64;
        let of_address = options.connections_per_address_max;
        let refused = metrics.connections_refused("http");
        let queries = options.queries_max as u64;
        let query = &metrics.query;
        let told_as = |spec: Spec, limit, status, used, refused| {
            let meter = meter(spec, limit).and_as(Some(used), refused);
            Entry::new(spec, limit, status, meter)
        };
        Self {
            connections_of_address: by_address(
                CONNECTIONS_OF_ADDRESS,
                of_address,
                UNAVAILABLE,
                Some(refused.clone()),
            ),
            connections: told_as(
                CONNECTIONS,
                connections,
                UNAVAILABLE,
                metrics.connected_clients("http"),
                Some(refused),
            ),
            lasting_of_address: by_address(LASTING_OF_ADDRESS, share(of_address), BUSY, None),
            lasting: entry(LASTING, share(options.connections_max) as u64, BUSY),
            heads: entry(HEADS, HTTP_HEADS_BYTES_MAX as u64, UNAVAILABLE),
            waiting_queries: told_as(
                WAITING_QUERIES,
                QUERIES_WAITING_MAX as u64,
                BUSY,
                query.waiting.clone(),
                None,
            ),
            replays: entry(REPLAYS, (queries / 2).max(1), BUSY),
            queries: told_as(QUERIES, queries, BUSY, query.running.clone(), None),
            query_memory: entry(QUERY_MEMORY, options.query_memory_bytes, BUSY),
            followers: entry(FOLLOWERS, FOLLOWERS_MAX as u64, BUSY),
            follower_expressions: entry(FOLLOWER_EXPRESSIONS, FOLLOW_EXPRESSIONS_BYTES_MAX, BUSY),
            compiling: entry(COMPILING, EXPRESSIONS_COMPILING_MAX as u64, BUSY),
            metrics_pages: entry(METRICS_PAGES, METRICS_PAGES_BYTES_MAX, UNAVAILABLE),
            decoder_windows: shared(
                (DECODER_WINDOWS, DECODER_WINDOWS_OF_ADDRESS),
                (DECODER_WINDOWS_BYTES_MAX, DECODER_WINDOW_BYTES_MAX as u64),
                BUSY,
            ),
            gzip_decoders: shared(
                (GZIP_DECODERS, GZIP_DECODERS_OF_ADDRESS),
                (GZIP_DECODERS_BYTES_MAX, GZIP_DECODER_BYTES as u64),
                BUSY,
            ),
            entry_bodies: shared(
                (ENTRY_BODIES, ENTRY_BODIES_OF_ADDRESS),
                (ENTRY_BODIES_BYTES_MAX, ENTRY_BODY_HELD_BYTES as u64),
                UNAVAILABLE,
            ),
            entries_bodies: shared(
                (ENTRIES_BODIES, ENTRIES_BODIES_OF_ADDRESS),
                (ENTRIES_BODIES_BYTES_MAX, ENTRIES_BODY_HELD_BYTES as u64),
                UNAVAILABLE,
            ),
            records_turns: entry(RECORDS_TURNS, options.records_requests_max as u64, BUSY),
            unfinished_lines: shared(
                (UNFINISHED_LINES, UNFINISHED_LINES_OF_ADDRESS),
                (UNFINISHED_LINES_BYTES_MAX, PARTIAL_BYTES_MAX as u64),
                BUSY,
            ),
            long_lines: shared(
                (LONG_LINES, LONG_LINES_OF_ADDRESS),
                (options.long_lines_bytes.max(long_line), long_line),
                BUSY,
            ),
            lines_on_their_way: told_as(
                LINES_ON_THEIR_WAY,
                LINES_ON_THEIR_WAY_BYTES_MAX,
                BUSY,
                metrics.queue_depth("http_append_bytes"),
                None,
            ),
        }
    }

    /// A place for one more connection.
    pub(super) fn connection(&self, address: IpAddr) -> Result<Place, Refusal> {
        let of_address = self.connections_of_address.enter(address)?;
        Ok((of_address, self.connections.try_take(1)?))
    }

    /// A place for an answer that lasts as long as its client reads.
    pub(super) fn lasting(&self, address: IpAddr) -> Result<Place, Refusal> {
        let of_address = self.lasting_of_address.enter(address)?;
        Ok((of_address, self.lasting.try_take(1)?))
    }

    /// A query's turn: at once where fewer run than may, else when it comes. Where too many wait, or
    /// it takes longer than `wait`, the client is to come again.
    pub(super) async fn query(&self, wait: Duration) -> Result<QueryTurn, Refusal> {
        if let Some(place) = self.queries.take_if_free(1)
            && let Some(memory) = self.query_memory.take_if_free(QUERY_BYTES_MAX as u64)
        {
            return Ok(QueryTurn { _place: place, memory: Some(memory) });
        }
        let _seat = self.waiting_queries.try_take(1)?;
        let turn = self.query_turn(Some(Instant::now() + wait)).await;
        turn.map_err(|_| self.queries.refusal())
    }

    /// The turn of a replay, and its part in the share of all of them: waits as long as it takes.
    pub(super) async fn replay(&self) -> Result<(Taken, QueryTurn), NoRoom> {
        let share = self.replays.take(1, None).await?;
        Ok((share, self.query_turn(None).await?))
    }

    async fn query_turn(&self, until: Option<Instant>) -> Result<QueryTurn, NoRoom> {
        let place = self.queries.take(1, until).await?;
        let memory = self.query_memory.take(QUERY_BYTES_MAX as u64, until).await?;
        Ok(QueryTurn { _place: place, memory: Some(memory) })
    }
}

/// Three quarters, at least one.
fn share(connections: usize) -> usize {
    (connections - connections / 4).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, n])
    }

    fn ledger(options: HttpOptions) -> Ledger {
        Ledger::new(&options, 1 << 20, &NodeMetrics::new(1))
    }

    #[test]
    fn a_quarter_of_the_connections_stays_for_short_requests() {
        let ledger = ledger(HttpOptions {
            connections_max: 16,
            connections_per_address_max: 8,
            ..HttpOptions::default()
        });
        let mut held: Vec<_> = (0..6).map(|_| ledger.lasting(address(1)).unwrap()).collect();
        let refusal = ledger.lasting(address(1)).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.retry), (429, true));
        assert!(refusal.reason.contains("--http.connections-per-address-max"));
        held.extend((0..6).map(|_| ledger.lasting(address(2)).unwrap()));
        let refusal = ledger.lasting(address(3)).unwrap_err();
        assert!(refusal.reason.contains("--http.connections-max"), "{}", refusal.reason);
        held.pop();
        assert!(ledger.lasting(address(3)).is_ok());
        // Connections are another budget.
        let all: Vec<_> = (0..16).map(|n| ledger.connection(address(n)).unwrap()).collect();
        let refusal = ledger.connection(address(20)).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.retry), (503, true));
        assert!(refusal.reason.contains("16 are open"), "{}", refusal.reason);
        drop(all);
        assert!(ledger.connection(address(20)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_waits_for_place_and_memory_and_is_told_which_flags_give_more() {
        let ledger = ledger(HttpOptions {
            queries_max: 2,
            query_memory_bytes: QUERY_BYTES_MAX as u64 * 3 / 2,
            ..HttpOptions::default()
        });
        let wait = Duration::from_secs(1);
        let first = ledger.query(wait).await.unwrap();
        // There is a place, but no memory.
        let refusal = ledger.query(wait).await.map(drop).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.retry), (429, true));
        assert!(refusal.reason.contains("--query.max-concurrent, --query.memory-max"));
        let mut next = std::pin::pin!(ledger.query(wait));
        assert!(tokio::time::timeout(wait / 2, &mut next).await.is_err(), "it waits");
        drop(first);
        drop(next.await.unwrap());
        // A replay waits for longer than any query.
        let running = ledger.query(wait).await.unwrap();
        let mut replay = std::pin::pin!(ledger.replay());
        assert!(tokio::time::timeout(wait * 1000, &mut replay).await.is_err(), "it waits");
        drop(running);
        assert!(replay.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn of_queries_that_all_need_more_than_there_is_one_after_the_other_gets_it() {
        let ledger = ledger(HttpOptions {
            queries_max: 2,
            query_memory_bytes: 2 * QUERY_BYTES_MAX as u64,
            ..HttpOptions::default()
        });
        let wait = Duration::from_secs(5);
        let until = Some(Instant::now() + wait);
        let mut first = ledger.query(wait).await.unwrap();
        let mut second = ledger.query(wait).await.unwrap();
        let bytes = QUERY_BYTES_MAX as u64 + (1 << 10);
        let both = async {
            let one = async {
                first.hold(&ledger, bytes, until).await.unwrap();
                drop(first);
            };
            let other = async {
                second.hold(&ledger, bytes, until).await.unwrap();
                drop(second);
            };
            tokio::join!(one, other);
        };
        both.await;
        assert!(Some(Instant::now()) < until, "none had to give up");
        assert_eq!((ledger.query_memory.used(), ledger.queries.used()), (0, 0));
        // What is more than there is stays so.
        let mut third = ledger.query(wait).await.unwrap();
        let much = 3 * QUERY_BYTES_MAX as u64;
        assert_eq!(third.hold(&ledger, much, until).await, Err(NoRoom::TooMuch));
    }
}
