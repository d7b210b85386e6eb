//! What can be asked of records, whoever holds them: in go a query and a format, out comes what was
//! found, as a stream or a value.
//!
//! Invariants: what is asked of one [`View`] is asked of the same records, and what was not within its
//! reach is told in every answer; a stream gets on only as its reader takes from it; whatever is
//! dropped ends, and lets go of what it pinned.

use std::sync::Arc;
use std::task::{Context, Poll};

use engine::search::{
    Format, Head, Histogram, LevelHistogram, Outcome, PipeReader, Plan, QuerySpec, Searcher,
    Snapshot, Stats, TopicHistogram, Topics,
};

use super::{EntryCounts, EntryTally, Pending};

/// Records as they are at one moment: everything that was acknowledged before it was pinned. In an
/// answer `None` says that the node is stopping.
pub trait View: Send {
    /// What a query will look at, from indexes alone.
    fn plan(&self, query: &QuerySpec) -> Plan;

    /// The records that match, as they are found.
    fn records(self: Box<Self>, query: QuerySpec, format: Format) -> Box<dyn Records>;

    /// Counts those that match; the limit is not applied.
    fn stats(self: Box<Self>, query: QuerySpec) -> Pending<Option<Stats>>;

    /// Counts them in so many spans of equal length; the limit is not applied.
    fn histogram(self: Box<Self>, query: QuerySpec, buckets: usize) -> Pending<Option<Histogram>>;

    /// The same, and by topic.
    fn histogram_by_topic(
        self: Box<Self>,
        query: QuerySpec,
        buckets: usize,
    ) -> Pending<Option<TopicHistogram>>;

    /// The same, and by level.
    fn histogram_by_level(
        self: Box<Self>,
        query: QuerySpec,
        buckets: usize,
    ) -> Pending<Option<LevelHistogram>>;

    /// What is held of each topic.
    fn topics(self: Box<Self>) -> Pending<Option<Topics>>;

    /// How many entries there are among the records that match, by service and level; the limit is not
    /// applied.
    fn entry_counts(self: Box<Self>, query: QuerySpec) -> Pending<Option<EntryCounts>>;
}

/// Records on their way to a reader, in the bytes of its format.
pub trait Records: Send {
    /// What is known when the first piece, or the end, is there.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Head>;

    /// The next piece; `None` at the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Vec<u8>>>;

    /// What became of it, once it has ended.
    fn outcome(&self) -> Option<Outcome>;

    /// What ends it from elsewhere: all that was not sent yet is missing for the reason given.
    fn ender(&self) -> End;
}

/// Ends an answer for a reason.
pub type End = Box<dyn Fn(&str) + Send + Sync>;

/// What one follower is sent as it is taken. Dropped, it is forgotten.
pub trait Live: Send {
    /// What comes next, in the bytes of its format; `None` at the end.
    fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Vec<u8>>>;

    /// Whether nothing more will come; if not, the reader is woken when that changes.
    fn poll_ended(&self, cx: &Context<'_>) -> bool;

    /// Whether records were missed. Then what waits is let go, too, and nothing is added any more:
    /// for a reader that fetches all of it elsewhere and follows anew.
    fn is_missing(&self) -> bool;
}

/// A follower's end of it, and its boundary, milliseconds since 1970: every record stamped at or
/// behind it comes live, and every one before it is in any view that is pinned once it is known.
/// `None`: the node stops first.
pub struct Following {
    /// What comes.
    pub live: Box<dyn Live>,
    /// From when on.
    pub boundary_ms: Pending<Option<u64>>,
}

/// What a node holds itself.
pub struct LocalView {
    searcher: Arc<Searcher>,
    snapshot: Snapshot,
}

impl LocalView {
    /// Of what was pinned.
    pub const fn new(searcher: Arc<Searcher>, snapshot: Snapshot) -> Self {
        Self { searcher, snapshot }
    }
}

impl View for LocalView {
    fn plan(&self, query: &QuerySpec) -> Plan {
        self.searcher.plan(query, &self.snapshot)
    }

    fn records(self: Box<Self>, query: QuerySpec, format: Format) -> Box<dyn Records> {
        Box::new(self.searcher.query(query, self.snapshot, format))
    }

    fn stats(self: Box<Self>, query: QuerySpec) -> Pending<Option<Stats>> {
        Box::pin(self.searcher.stats(query, self.snapshot))
    }

    fn histogram(self: Box<Self>, query: QuerySpec, buckets: usize) -> Pending<Option<Histogram>> {
        Box::pin(self.searcher.histogram(query, self.snapshot, buckets))
    }

    fn histogram_by_topic(
        self: Box<Self>,
        query: QuerySpec,
        buckets: usize,
    ) -> Pending<Option<TopicHistogram>> {
        Box::pin(async move {
            let Self { searcher, snapshot } = *self;
            let count = |query| searcher.histogram_by_topic(query, snapshot.clone(), buckets);
            let found = count(query.clone()).await?;
            let again = match found.to_count_again() {
                None => None,
                Some(topics) => Some(count(QuerySpec { topics: topics.to_vec(), ..query }).await?),
            };
            Some(found.with(again))
        })
    }

    fn histogram_by_level(
        self: Box<Self>,
        query: QuerySpec,
        buckets: usize,
    ) -> Pending<Option<LevelHistogram>> {
        let counted = self.searcher.histogram_by_level(query, self.snapshot, buckets);
        Box::pin(async move { counted.await.map(|(tally, stats)| tally.result(stats)) })
    }

    fn topics(self: Box<Self>) -> Pending<Option<Topics>> {
        Box::pin(self.searcher.topics(self.snapshot))
    }

    fn entry_counts(self: Box<Self>, query: QuerySpec) -> Pending<Option<EntryCounts>> {
        let counted = self.searcher.tally(EntryTally::default(), query, self.snapshot);
        Box::pin(async move { counted.await.map(|(tally, stats)| tally.result(stats)) })
    }
}

impl Records for PipeReader {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Head> {
        Self::poll_head(self, cx)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        Self::poll_next(self, cx)
    }

    fn outcome(&self) -> Option<Outcome> {
        Self::outcome(self)
    }

    fn ender(&self) -> End {
        let ender = Self::ender(self);
        Box::new(move |reason| ender.end(reason))
    }
}
