//! Records around hits: `context=N` shows N records of the same topic on either side of each hit.
//!
//! A query with context goes through the pool three or four times, each time as one more job with the same
//! pipe: *finding* collects the hits' ULIDs, without text; *looking around* counts the records of their topics
//! from run tables alone, forward from the first hit until each has its neighbours, then backward as far as
//! something is still wanted; at last the records that were chosen are read and written. So the answer is in
//! strict order of ULIDs, though a neighbour of a rare topic may be much older than the hits before it.
//!
//! Invariants: all stages see one snapshot; what one of them misses, the answer misses; hits and their
//! neighbours are at most [`CONTEXT_RECORDS_MAX`] records: with more hits the answer ends early and says so,
//! to be resumed behind its last hit; whoever goes away or ends the query does so in whatever stage it is.

mod neighbours;
mod selection;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::consumer::{Breaker, Consumer, Drained, Output};
use super::pipe::{PipeWriter, Room};
use super::searcher::Way;
use super::spec::{Format, Missing, Order, QuerySpec, Snapshot, Stats};
use super::sweep::Sweep;
use crate::limits::CONTEXT_RECORDS_MAX;
use crate::topic::Topic;
use crate::ulid::Ulid;
use neighbours::{Backward, Forward};
pub(super) use selection::{Selection, Span};

/// What goes from stage to stage.
struct Course {
    way: Way,
    pipe: PipeWriter,
    format: Format,
    spec: QuerySpec,
    snapshot: Snapshot,
    /// The newest record that there was when the query came: parts that are being written grow, some
    /// faster than others are asked.
    horizon: Ulid,
    /// What the stages before have cost and missed.
    stats: Stats,
    /// Its reader has ended it.
    is_ended: bool,
}

impl Course {
    /// What the reader wants, unless that is to go on.
    fn wishes(&mut self) -> Option<Drained> {
        match self.pipe.room() {
            Room::Gone => Some(Drained::Unwanted),
            Room::Ended(reason) => {
                self.is_ended = true;
                Some(Drained::Ended(reason))
            }
            Room::Empty | Room::Some | Room::Full => None,
        }
    }

    /// What was known to be missing between two ULIDs is missing in the answer.
    fn miss_within(&mut self, (low, high): (Ulid, Ulid)) {
        for missing in self.snapshot.missing.iter().filter(|m| m.from <= high && m.to >= low) {
            let (from, to) = (missing.from.max(low), missing.to.min(high));
            self.stats.miss(Missing { from, to, ..missing.clone() });
        }
    }

    /// Nothing follows.
    fn end(self, stats: &Stats, aborted: bool) {
        let Self { pipe, format, stats: mut all, spec, .. } = self;
        all.add_stage(stats);
        let output = Output::new(pipe, format, spec.order);
        if aborted {
            output.abort(all);
        } else {
            Box::new(output).finish(all, false);
        }
    }

    /// Counts records of the wanted topics between two ULIDs.
    fn look(
        self,
        topics: Vec<Topic>,
        wanted: Vec<Topic>,
        (from, to): (Ulid, Ulid),
        looked: Looked,
    ) {
        let order = match looked {
            Looked::Forward(..) => Order::Asc,
            Looked::Backward(..) => Order::Desc,
        };
        let is_discreet = self.spec.is_discreet;
        let spec =
            QuerySpec { from, to, topics: wanted, order, is_discreet, ..QuerySpec::everything() };
        // What is missing is told as far as it was passed: neighbours may lie before it.
        let snapshot = Snapshot { parts: self.snapshot.parts.clone(), missing: Vec::new() };
        self.enter(Looking { topics, bounds: (from, to), looked }, spec, snapshot);
    }

    /// Begins a stage.
    fn enter(self, stage: impl Stage, spec: QuerySpec, snapshot: Snapshot) {
        let way = self.way.clone();
        way.submit(spec, snapshot, Box::new(Staged { course: self, stage }), None);
    }

    /// Reads and writes what was chosen.
    fn show(self, topics: Vec<Topic>, selection: Selection) {
        let Some((from, to)) = selection.bounds() else {
            return self.end(&Stats::default(), false);
        };
        let Self { way, pipe, format, spec, snapshot, stats, .. } = self;
        let (order, is_discreet) = (spec.order, spec.is_discreet);
        let selection = Arc::new(selection);
        let output = Output::of_selection(pipe, format, order, (Arc::clone(&selection), stats));
        let spec = QuerySpec { from, to, topics, order, is_discreet, ..QuerySpec::everything() };
        way.submit(spec, snapshot, Box::new(output), Some(selection));
    }
}

/// Starts a query with context.
pub(super) fn start(
    way: Way,
    pipe: PipeWriter,
    format: Format,
    (spec, snapshot): (QuerySpec, Snapshot),
) {
    let shown = 2 * u64::from(spec.context) + 1;
    let bound = (CONTEXT_RECORDS_MAX / shown).max(1);
    let (ask, of) = (spec.clone(), snapshot.clone());
    let horizon = snapshot.parts.iter().map(|part| part.range().1).max().unwrap_or(Ulid::MAX);
    let stats = Stats::default();
    let course = Course { way, pipe, format, spec, snapshot, horizon, stats, is_ended: false };
    course.enter(Finding { bound, found: 0, topics: BTreeMap::new() }, ask, of);
}

/// One of those that count hits without text.
trait Stage: Send + 'static {
    /// Takes what the sweep has; how it stands then.
    fn take(&mut self, spec: &QuerySpec, sweep: &mut Sweep) -> Drained;

    /// What follows, once it has all; `stats` are what it has cost and missed.
    fn go_on(self, course: Course, stats: &Stats);
}

/// A stage, and what goes on with the next one.
struct Staged<S> {
    course: Course,
    stage: S,
}

impl<S: Stage> Consumer for Staged<S> {
    fn drain(&mut self, sweep: &mut Sweep) -> Drained {
        let wish = self.course.wishes();
        wish.unwrap_or_else(|| self.stage.take(&self.course.spec, sweep))
    }

    fn has_room(&self) -> bool {
        true
    }

    fn counts_only(&self) -> bool {
        true
    }

    fn breaker(&self) -> Breaker {
        self.course.pipe.breaker()
    }

    fn finish(self: Box<Self>, stats: Stats, aborted: bool) {
        let Self { course, stage } = *self;
        if aborted || course.is_ended {
            course.end(&stats, aborted);
        } else {
            stage.go_on(course, &stats);
        }
    }
}

/// The stage that collects hits.
struct Finding {
    /// Most hits that context can be shown of.
    bound: u64,
    found: u64,
    /// Hits by topic, in the query's order.
    topics: BTreeMap<Topic, Vec<Ulid>>,
}

impl Finding {
    /// Notes the first records of a run, in the query's order.
    fn note(&mut self, topic: &Topic, span: Span, order: Order, take: u32) {
        let numbers = match order {
            Order::Asc => 0..take,
            Order::Desc => span.count - take..span.count,
        };
        let ids = numbers.map(|n| span.first.plus(u64::from(n)));
        if let Some(hits) = self.topics.get_mut(topic) {
            hits.extend(ids);
        } else {
            self.topics.insert(topic.clone(), ids.collect());
        }
        self.found += u64::from(take);
    }
}

impl Stage for Finding {
    fn go_on(self, mut course: Course, stats: &Stats) {
        let mut hits: Vec<_> = self.topics.into_iter().collect();
        for (_, hits) in &mut hits {
            hits.sort_unstable();
        }
        let first = hits.iter().filter_map(|(_, hits)| hits.first()).min().copied();
        let Some(first) = first else { return course.end(stats, false) };
        course.stats.add_stage(stats);
        let topics: Vec<Topic> = hits.iter().map(|(topic, _)| topic.clone()).collect();
        let last = hits.iter().filter_map(|(_, hits)| hits.last()).max().copied();
        let bounds = (first, course.horizon.max(last.unwrap_or(first)));
        let forward = Forward::new(u64::from(course.spec.context), hits);
        course.look(topics.clone(), topics, bounds, Looked::Forward(forward, first));
    }

    fn take(&mut self, spec: &QuerySpec, sweep: &mut Sweep) -> Drained {
        let (order, limit) = (spec.order, spec.limit.unwrap_or(u64::MAX));
        let most = limit.min(self.bound);
        if limit == 0 {
            return Drained::Enough;
        }
        while sweep.prepare() {
            let Some(head) = sweep.head() else { break };
            let hit = head.hit;
            let take = most.saturating_sub(self.found).min(u64::from(hit.count)) as u32;
            if take == 0 && most < limit {
                sweep.end(&format!(
                    "context is shown around at most {most} hits: ask for the rest with after=, behind \
                     the last of them"
                ));
                return Drained::All;
            }
            let topic = head.topic.clone();
            self.note(&topic, Span { first: hit.first, count: hit.count }, order, take);
            sweep.advance(take, u64::from(hit.end - hit.start));
            if self.found >= limit {
                return Drained::Enough;
            }
        }
        Drained::All
    }
}

/// The stages that look around.
struct Looking {
    /// All topics with hits.
    topics: Vec<Topic>,
    /// What is looked at; once nothing more is wanted, what was.
    bounds: (Ulid, Ulid),
    looked: Looked,
}

/// Which way, and what was found.
enum Looked {
    /// From the first hit on.
    Forward(Forward, Ulid),
    /// Before it; with what was found behind it, and the hits.
    Backward(Backward, Vec<Span>, Vec<Ulid>),
}

impl Looked {
    fn see(&mut self, topic: &Topic, span: Span) {
        match self {
            Self::Forward(forward, _) => forward.see(topic, span),
            Self::Backward(backward, ..) => backward.see(topic, span),
        }
    }

    fn is_satisfied(&self) -> bool {
        match self {
            Self::Forward(forward, _) => forward.is_satisfied(),
            Self::Backward(backward, ..) => backward.is_satisfied(),
        }
    }
}

impl Stage for Looking {
    fn go_on(self, mut course: Course, stats: &Stats) {
        let Self { topics, bounds, looked } = self;
        course.stats.add_stage(stats);
        course.miss_within(bounds);
        match looked {
            Looked::Forward(forward, first) => {
                let (spans, hits, backward) = forward.into_found();
                let before = first.0.checked_sub(1).filter(|_| !backward.is_satisfied());
                if let Some(before) = before {
                    let wanted = backward.topics();
                    let looked = Looked::Backward(backward, spans, hits);
                    course.look(topics, wanted, (Ulid::MIN, Ulid(before)), looked);
                } else {
                    course.show(topics, Selection::new(hits, spans));
                }
            }
            Looked::Backward(backward, mut spans, hits) => {
                spans.extend(backward.into_spans());
                course.show(topics, Selection::new(hits, spans));
            }
        }
    }

    fn take(&mut self, _: &QuerySpec, sweep: &mut Sweep) -> Drained {
        let looked = &mut self.looked;
        while !looked.is_satisfied() && sweep.prepare() {
            let Some(head) = sweep.head() else { break };
            let hit = head.hit;
            looked.see(head.topic, Span { first: hit.first, count: hit.count });
            if looked.is_satisfied() {
                match looked {
                    Looked::Forward(..) => self.bounds.1 = hit.last(),
                    Looked::Backward(..) => self.bounds.0 = hit.first,
                }
            }
            sweep.advance(hit.count, u64::from(hit.end - hit.start));
        }
        if looked.is_satisfied() { Drained::Enough } else { Drained::All }
    }
}
