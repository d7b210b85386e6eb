//! A node as those see it who may see a part of it: the one way from a request to records.
//!
//! Invariants: nothing that shows, counts or takes records is had without an [`Access`]. What a query or a
//! follower asks for is narrowed to its topics before the node hears of it, so that nothing behind here has
//! to know of tokens; what tells of all topics together is for those who may see all.

use std::sync::Arc;

use engine::follow::{StreamFormat, Wanted};
use engine::search::{
    Format, Histogram, LevelHistogram, Plan, QuerySpec, Stats, TopicHistogram, Topics,
};
use engine::topic::Topic;
use engine::ulid::{MS_MAX, Ulid};

use super::{
    AppendError, Appender, Backend, DrainState, EntryCounts, FollowError, Following, Health,
    Pending, Records, View,
};
use crate::access::{Access, Beyond, Right};
use crate::wall_clock::now_ms;

/// See the module page.
pub struct Guarded(Arc<dyn Backend>);

/// What one who asks may see of records.
#[derive(Clone)]
pub struct Reader {
    node: Arc<dyn Backend>,
    access: Access,
}

/// Where one may write.
#[derive(Clone)]
pub struct Writer {
    node: Arc<dyn Backend>,
    topic: Option<Topic>,
}

impl Guarded {
    /// Guards a node.
    pub fn new(node: Arc<dyn Backend>) -> Self {
        Self(node)
    }

    /// Records, as far as they may be seen.
    pub fn reader(&self, access: &Access) -> Result<Reader, Beyond> {
        access.require(Right::Read)?;
        Ok(Reader { node: Arc::clone(&self.0), access: access.clone() })
    }

    /// A topic to write to; `None`: the one that the node chooses.
    pub fn writer(&self, access: &Access, topic: Option<Topic>) -> Result<Writer, Beyond> {
        access.require_writing(topic.as_ref())?;
        Ok(Writer { node: Arc::clone(&self.0), topic })
    }

    /// What tells of all topics together.
    pub fn whole(&self, access: &Access) -> Result<&dyn Backend, Beyond> {
        access.require_everything()?;
        Ok(&*self.0)
    }

    /// See [`Backend::drain`].
    pub fn drain(&self, access: &Access) -> Result<DrainState, Beyond> {
        access.require(Right::Admin)?;
        Ok(self.0.drain())
    }

    /// See [`Backend::drain_state`].
    pub fn drain_state(&self, access: &Access) -> Result<Option<DrainState>, Beyond> {
        access.require(Right::Admin)?;
        Ok(self.0.drain_state())
    }

    /// See [`Backend::newest_ms`]: what `now` is depends on it, and nothing else that is told.
    pub fn newest_ms(&self) -> u64 {
        self.0.newest_ms()
    }

    /// See [`Backend::max_record_size_bytes`].
    pub fn max_record_size_bytes(&self) -> usize {
        self.0.max_record_size_bytes()
    }

    /// See [`Backend::health`]: anybody may know.
    pub fn health(&self) -> Health {
        self.0.health()
    }

    /// See [`Backend::readiness`]: anybody may know.
    pub fn readiness(&self) -> Health {
        self.0.readiness()
    }
}

impl Reader {
    /// See [`Backend::pin`].
    pub fn pin(&self) -> Pending<Box<dyn View>> {
        let pinned = self.node.pin();
        if self.access.topics().is_none() {
            return pinned;
        }
        let access = self.access.clone();
        Box::pin(async move {
            let inner = pinned.await;
            Box::new(Narrow { inner, access }) as Box<dyn View>
        })
    }

    /// See [`Backend::follow`].
    pub fn follow(
        &self,
        mut wanted: Wanted,
        format: StreamFormat,
    ) -> Result<Following, FollowError> {
        if let Some(topics) = self.access.topics() {
            narrow(&mut wanted.topics, topics);
            wanted.is_discreet = true;
        }
        self.node.follow(wanted, format)
    }
}

impl Writer {
    /// See [`Backend::appender`].
    pub fn appender(&self, is_awaited: bool) -> Result<Box<dyn Appender>, AppendError> {
        self.node.appender(self.topic.clone(), is_awaited)
    }
}

/// Leaves of what is asked for what may be seen; who asks for nothing in particular gets all of that.
fn narrow(asked: &mut Vec<Topic>, seen: &[Topic]) {
    if asked.is_empty() {
        asked.extend_from_slice(seen);
        return;
    }
    asked.retain(|topic| seen.contains(topic));
    // None would mean any. Who asks for what he may not see at all was told so before.
    assert!(!asked.is_empty(), "topics beyond those of the token are refused before");
}

/// What is held of some topics.
struct Narrow {
    inner: Box<dyn View>,
    access: Access,
}

impl Narrow {
    fn narrowed(&self, mut query: QuerySpec) -> QuerySpec {
        if let Some(topics) = self.access.topics() {
            narrow(&mut query.topics, topics);
            query.is_discreet = true;
        }
        query
    }
}

/// A histogram without an end goes up to the newest record, whosever that is: here up to now.
fn ended_now(mut query: QuerySpec) -> QuerySpec {
    // As far as search looks for a bound.
    if query.to.ms() == MS_MAX {
        query.to = Ulid::last_of_ms(now_ms()).max(query.from);
    }
    query
}

impl View for Narrow {
    /// Files hold records of all topics: how many there are, and how large, is not told.
    fn plan(&self, query: &QuerySpec) -> Plan {
        let plan = self.inner.plan(&self.narrowed(query.clone()));
        Plan { segments: 0, data_set_bytes_max: 0, ..plan }
    }

    fn records(self: Box<Self>, query: QuerySpec, format: Format) -> Box<dyn Records> {
        let query = self.narrowed(query);
        self.inner.records(query, format)
    }

    fn stats(self: Box<Self>, query: QuerySpec) -> Pending<Option<Stats>> {
        let query = self.narrowed(query);
        self.inner.stats(query)
    }

    fn histogram(self: Box<Self>, query: QuerySpec, buckets: usize) -> Pending<Option<Histogram>> {
        let query = ended_now(self.narrowed(query));
        self.inner.histogram(query, buckets)
    }

    fn histogram_by_topic(
        self: Box<Self>,
        query: QuerySpec,
        buckets: usize,
    ) -> Pending<Option<TopicHistogram>> {
        let query = ended_now(self.narrowed(query));
        self.inner.histogram_by_topic(query, buckets)
    }

    fn histogram_by_level(
        self: Box<Self>,
        query: QuerySpec,
        buckets: usize,
    ) -> Pending<Option<LevelHistogram>> {
        let query = ended_now(self.narrowed(query));
        self.inner.histogram_by_level(query, buckets)
    }

    fn topics(self: Box<Self>) -> Pending<Option<Topics>> {
        let (found, access) = (self.inner.topics(), self.access);
        Box::pin(async move {
            let mut found = found.await?;
            if let Some(seen) = access.topics() {
                found.topics.retain(|summary| seen.contains(&summary.topic));
                found.stats.is_discreet = true;
            }
            Some(found)
        })
    }

    fn entry_counts(self: Box<Self>, query: QuerySpec) -> Pending<Option<EntryCounts>> {
        let query = self.narrowed(query);
        self.inner.entry_counts(query)
    }
}
