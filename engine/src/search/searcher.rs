//! The face of search: queries, counts, histograms and topics over a snapshot.
//!
//! Everything returned here is polled with a waker and cancelled by being dropped; all work is
//! done by the hands of the pool: scan threads, or whoever steps it ([`super::Stepped`]).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::chain::Chain;
use super::consumer::{
    Consumer, Counting, Histogram, Output, StatsTally, Tally, Telling, TopicTally, Topics,
};
use super::context;
use super::level_series::LevelTally;
use super::pipe::{PipeReader, pipe};
use super::pool::Pool;
use super::reading::{Reading, RecordTally};
use super::series::{SeriesFound, SeriesTally};
use super::spec::{Format, Order, QuerySpec, Snapshot, Stats};
use super::sweep::{Sweep, SweepOptions};
use super::threads::{Overseer, ThreadHook, Threads};
use super::ticket::{Ticket, ticket};
use crate::caches::Caches;
use crate::limits::{HISTOGRAM_BUCKETS_MAX, QUERY_HELD_BYTES_MAX, QUERY_HITS_MAX};
use crate::pulse::Pulse;
use crate::ulid::MS_MAX;

/// How to search.
#[derive(Clone)]
pub struct SearcherOptions {
    /// Scan threads, at least 1.
    pub threads: usize,
    /// Name of this node in what is told as missing.
    pub node: String,
    /// What the node keeps at hand.
    pub caches: Arc<Caches>,
    /// Called first on each scan thread with its number, to pin or renice it.
    pub on_thread_start: ThreadHook,
}

/// What a query will look at, from indexes alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Parts whose time range meets the query's, with text that is not known to be lost.
    pub segments: u64,
    /// Their text, bytes: the most that has to be searched.
    pub data_set_bytes_max: u64,
    /// Whether nothing of the range is known to be missing.
    pub complete: bool,
    /// Spans known to be missing.
    pub missing_count: u64,
}

/// How the jobs of one query, which follow each other, get into the pool.
#[derive(Clone)]
pub(super) struct Way {
    pool: Arc<Pool>,
    hands: usize,
    node: String,
    caches: Arc<Caches>,
    /// The job that the query's reader wakes.
    job: Arc<AtomicU64>,
}

impl Way {
    /// Starts the next job; of a selection, only what was selected is read.
    pub(super) fn submit(
        &self,
        mut spec: QuerySpec,
        snapshot: Snapshot,
        consumer: Box<dyn Consumer>,
        only: Option<Arc<context::Selection>>,
    ) {
        let options = SweepOptions {
            window: 2 * self.hands + 2,
            node: self.node.clone(),
            hits_max: QUERY_HITS_MAX,
            counts_only: consumer.counts_only(),
            telling: consumer.telling(),
            only,
        };
        spec.chain = spec.chain.kept_within(&self.caches.automata);
        let id = self.pool.next_id();
        self.job.store(id, Ordering::Release);
        self.pool.submit(id, Sweep::new(spec, snapshot, options), consumer);
    }

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let (pool, job) = (Arc::clone(&self.pool), Arc::clone(&self.job));
        Arc::new(move || pool.wake(job.load(Ordering::Acquire)))
    }
}

/// Runs queries. Dropping it ends them.
pub struct Searcher {
    // The threads go first, and what they are at with them.
    threads: Option<Threads>,
    pool: Arc<Pool>,
    hands: usize,
    node: String,
    caches: Arc<Caches>,
}

impl Searcher {
    /// Starts scan threads.
    pub fn start(options: SearcherOptions) -> io::Result<Self> {
        Self::start_within(options, QUERY_HELD_BYTES_MAX)
    }

    /// The same with another bound on what queries keep between their turns, bytes.
    pub(super) fn start_within(
        options: SearcherOptions,
        held_bytes_max: usize,
    ) -> io::Result<Self> {
        let SearcherOptions { threads: count, node, caches, on_thread_start } = options;
        let count = count.max(1);
        let (pool, threads) = Threads::start(count, &on_thread_start, held_bytes_max)?;
        let mut searcher = Self::over(pool, count, node, caches);
        searcher.threads = Some(threads);
        Ok(searcher)
    }

    /// The face of a pool that somebody else turns with so many hands.
    pub(super) const fn over(
        pool: Arc<Pool>,
        hands: usize,
        node: String,
        caches: Arc<Caches>,
    ) -> Self {
        Self { threads: None, pool, hands, node, caches }
    }

    /// The same chain, with what its automata learn kept within what this node may keep: for those
    /// who match records elsewhere. Queries need not ask.
    pub fn adopt(&self, chain: Chain) -> Chain {
        chain.kept_within(&self.caches.automata)
    }

    /// Queries that are running or parked.
    pub fn running(&self) -> usize {
        self.pool.live_count()
    }

    /// What shows whether the scan threads get on, by their numbers; of one that is stepped, nothing.
    pub fn pulses(&self) -> &[Arc<Pulse>] {
        self.threads.as_ref().map_or(&[], |threads| &threads.pulses)
    }

    /// Who looks after its threads; nobody has to where it is stepped.
    pub fn overseer(&self) -> Option<Overseer> {
        self.threads.as_ref().map(Threads::overseer)
    }

    /// Text that was searched for readers that had gone already, bytes.
    pub fn abandoned_bytes(&self) -> u64 {
        self.pool.abandoned_bytes()
    }

    /// What all queries keep in memory between their turns, bytes.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.pool.held_bytes.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// What a query will look at; reads no text.
    pub fn plan(&self, spec: &QuerySpec, snapshot: &Snapshot) -> Plan {
        let mut plan =
            Plan { segments: 0, data_set_bytes_max: 0, complete: true, missing_count: 0 };
        let Some((low, high)) = spec.bounds() else { return plan };
        for part in &snapshot.parts {
            let (first, last) = part.range();
            // A part without text that can be read is missing, not searched.
            let text_bytes = part.text_bytes();
            if first <= high && last >= low && text_bytes > 0 {
                plan.segments += 1;
                plan.data_set_bytes_max += text_bytes;
            }
        }
        let missed = snapshot.missing.iter().filter(|m| m.from <= high && m.to >= low);
        plan.missing_count = (missed.count() + spec.known_damage(snapshot).len()) as u64;
        plan.complete = plan.missing_count == 0;
        plan
    }

    /// Starts a query.
    pub fn query(&self, spec: QuerySpec, snapshot: Snapshot, format: Format) -> PipeReader {
        let way = self.way();
        let (writer, reader) = pipe(way.waker());
        if spec.context > 0 {
            context::start(way, writer, format, (spec, snapshot));
        } else {
            let output = Output::new(writer, format, spec.order);
            way.submit(spec, snapshot, Box::new(output), None);
        }
        reader
    }

    /// Counts matching records. The limit is not applied.
    pub fn stats(&self, spec: QuerySpec, snapshot: Snapshot) -> Ticket<Stats> {
        self.count(StatsTally, spec, snapshot)
    }

    /// Counts matching records in buckets of equal width over the query's time range, which ends
    /// with the newest record where it is not bounded. The limit is not applied.
    pub fn histogram(
        &self,
        spec: QuerySpec,
        snapshot: Snapshot,
        buckets: usize,
    ) -> Ticket<Histogram> {
        self.count(empty_histogram(&spec, &snapshot, buckets), spec, snapshot)
    }

    /// The same, and by topic: all of it, or which topics to count again of the same snapshot.
    pub fn histogram_by_topic(
        &self,
        spec: QuerySpec,
        snapshot: Snapshot,
        buckets: usize,
    ) -> Ticket<SeriesFound> {
        let tally = SeriesTally::new(empty_histogram(&spec, &snapshot, buckets));
        self.count(tally, spec, snapshot)
    }

    /// The same, and by level ([`crate::levels`]). Text is read, but that of blocks of which the store tells
    /// that they hold entries alone, and all of them within one bucket, where every record matches.
    pub fn histogram_by_level(
        &self,
        spec: QuerySpec,
        snapshot: Snapshot,
        buckets: usize,
    ) -> Ticket<(LevelTally, Stats)> {
        let all = empty_histogram(&spec, &snapshot, buckets);
        let telling = Telling::Spans(all.spans());
        self.read(LevelTally::new(all), telling, spec, snapshot)
    }

    /// What is held of each topic, records held twice counted once. Chunks of one topic that
    /// overlap no other are counted from indexes; of the others the run tables are read, and text
    /// only where copies overlap in part.
    pub fn topics(&self, snapshot: Snapshot) -> Ticket<Topics> {
        self.count(TopicTally::default(), QuerySpec::everything(), snapshot)
    }

    /// Hands each matching record to a tally, whose ticket it becomes. Neither limit nor order is applied.
    pub fn tally<T: RecordTally>(
        &self,
        tally: T,
        spec: QuerySpec,
        snapshot: Snapshot,
    ) -> Ticket<(T, Stats)> {
        self.read(tally, Telling::Entries, spec, snapshot)
    }

    fn read<T: RecordTally>(
        &self,
        tally: T,
        telling: Telling,
        mut spec: QuerySpec,
        snapshot: Snapshot,
    ) -> Ticket<(T, Stats)> {
        let way = self.way();
        let (sender, ticket) = ticket(way.waker());
        (spec.limit, spec.order) = (None, Order::Asc);
        way.submit(spec, snapshot, Box::new(Reading::new(tally, sender, telling)), None);
        ticket
    }

    fn count<T: Tally + 'static>(
        &self,
        tally: T,
        mut spec: QuerySpec,
        snapshot: Snapshot,
    ) -> Ticket<T::Result> {
        let way = self.way();
        let (sender, ticket) = ticket(way.waker());
        spec.limit = None;
        way.submit(spec, snapshot, Box::new(Counting { tally, sender }), None);
        ticket
    }

    fn way(&self) -> Way {
        let (pool, caches) = (Arc::clone(&self.pool), Arc::clone(&self.caches));
        let (hands, node, job) = (self.hands, self.node.clone(), Arc::default());
        Way { pool, hands, node, caches, job }
    }
}

/// Over the time range of a query, or as much of it as something is held of.
fn empty_histogram(spec: &QuerySpec, snapshot: &Snapshot, buckets: usize) -> Histogram {
    let from_ms = spec.from.ms();
    let newest = snapshot.parts.iter().map(|part| part.range().1.ms()).max();
    let to_ms = match spec.to.ms() {
        MS_MAX => newest.unwrap_or(from_ms).max(from_ms),
        to_ms => to_ms,
    };
    Histogram::new(from_ms, to_ms, buckets.min(HISTOGRAM_BUCKETS_MAX))
}

impl Drop for Searcher {
    fn drop(&mut self) {
        self.pool.stop();
    }
}
