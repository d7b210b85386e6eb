//! The thread between the shards, which hand over what they took at the end of each turn, and the
//! connections that wait for it.
//!
//! Invariants: a shard waits for nobody and pays one load of a flag while nobody follows; memory is
//! bounded by [`FOLLOW_INCOMING_BYTES_MAX`], [`FOLLOW_HELD_BYTES_MAX`] and the queues' budget; what
//! does not fit is counted and told to those who missed it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::follow::{
    Budget, Fanout, FollowerQueue, Hit, Ordered, QueueShare, StreamFormat, Wanted,
};
use engine::ingest::log::{Now, ShardLog, Tapped};
use engine::limits::FOLLOW_PIECE_BYTES;
use engine::pulse::Pulse;
use tokio::sync::oneshot;

use crate::backend::{Following, Live};
use crate::limits::{
    FOLLOW_BATCH_BYTES, FOLLOW_HELD_BYTES_MAX, FOLLOW_INCOMING_BYTES_MAX, FOLLOW_QUEUE_BYTES_MAX,
    FOLLOW_QUEUE_OWN_BYTES, FOLLOW_QUEUES_BYTES_MAX,
};
use crate::metrics::{FollowMetrics, NodeMetrics};
use crate::shard::placement::Placement;

/// What one follower's queue holds.
const SHARE: QueueShare =
    QueueShare { own_bytes: FOLLOW_QUEUE_OWN_BYTES, bytes_max: FOLLOW_QUEUE_BYTES_MAX };

/// How long the thread waits for shards before it has them take a turn. Their promises are whole
/// milliseconds.
const NUDGE_AFTER: Duration = Duration::from_millis(1);

/// Promises that somebody waits for and that stand still for this long stand still with the clock,
/// which was set back: then they rise by a millisecond without it. The clock is faster than that,
/// and reaches them in the end.
const STANDSTILL: Duration = Duration::from_millis(10);

/// See the page of the module. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    /// Changes whenever somebody follows after nobody did; 0 while nobody does.
    epoch: AtomicU64,
    /// What shards rise to if their clock is behind it, ms.
    floor_ms: AtomicU64,
    placement: Placement,
    budget: Arc<Budget>,
    pulse: Arc<Pulse>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    incoming: Vec<HandedOver>,
    incoming_bytes: usize,
    lost_records: u64,
    joining: Vec<Joining>,
    epochs: u64,
    is_stopped: bool,
}

/// What a shard handed over.
struct HandedOver {
    epoch: u64,
    shard: usize,
    batch: Tapped,
    promised_ms: u64,
}

struct Joining {
    wanted: Wanted,
    queue: Arc<FollowerQueue>,
    boundary: oneshot::Sender<u64>,
}

/// A follower's end of it. Dropped, it is forgotten.
pub struct Subscription {
    queue: Arc<FollowerQueue>,
}

impl Live for Subscription {
    fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Vec<u8>>> {
        self.queue.poll_next(cx)
    }

    fn poll_ended(&self, cx: &Context<'_>) -> bool {
        self.queue.poll_ended(cx)
    }

    fn is_missing(&self) -> bool {
        self.queue.is_missing()
    }
}

impl Subscription {
    /// What waits for it.
    pub fn queue(&self) -> &FollowerQueue {
        &self.queue
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.queue.abandon();
    }
}

impl Hub {
    /// For these shards, of which there is one at least: nobody else knows when a follower's boundary is
    /// reached. Followers that come before [`Hub::spawn`] wait for it.
    pub fn new(placement: Placement) -> Self {
        assert!(!placement.seats().is_empty(), "somebody takes records");
        let shared = Shared {
            epoch: AtomicU64::new(0),
            floor_ms: AtomicU64::new(0),
            placement,
            budget: Arc::new(Budget::new(FOLLOW_QUEUES_BYTES_MAX)),
            pulse: Arc::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What shows whether its thread gets on.
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.shared.pulse)
    }

    /// Starts its thread; `on_start` runs on it first. It ends after [`Hub::stop`].
    pub fn spawn(
        &self,
        metrics: Arc<NodeMetrics>,
        on_start: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let shards = self.shared.placement.seats().len();
        let follow = Follow {
            shared: Arc::clone(&self.shared),
            metrics,
            ordered: Ordered::new(shards, FOLLOW_HELD_BYTES_MAX),
            tapped: vec![false; shards],
            followers: Vec::new(),
            fanout: Fanout::default(),
            standing: (0, Instant::now()),
        };
        std::thread::Builder::new().name("follow".into()).spawn(move || {
            on_start();
            follow.run();
        })
    }

    /// Follows from now on. The boundary comes soon; never, if the node stops first.
    pub fn subscribe(
        &self,
        wanted: Wanted,
        format: StreamFormat,
    ) -> (Subscription, oneshot::Receiver<u64>) {
        let budget = Arc::clone(&self.shared.budget);
        let queue = Arc::new(FollowerQueue::new(format, SHARE, budget));
        let (boundary, known) = oneshot::channel();
        let mut state = self.shared.lock();
        if state.is_stopped {
            queue.end();
        } else {
            if self.shared.epoch.load(Ordering::Acquire) == 0 {
                state.epochs += 1;
                self.shared.epoch.store(state.epochs, Ordering::Release);
            }
            state.joining.push(Joining { wanted, queue: Arc::clone(&queue), boundary });
        }
        drop(state);
        self.shared.changed.notify_one();
        (Subscription { queue }, known)
    }

    /// The same, as a server asks for it.
    pub fn follow(&self, wanted: Wanted, format: StreamFormat) -> Following {
        let (live, boundary) = self.subscribe(wanted, format);
        Following {
            live: Box::new(live),
            boundary_ms: Box::pin(async move { boundary.await.ok() }),
        }
    }

    /// Ends everybody's stream, and the thread.
    pub fn stop(&self) {
        self.shared.lock().is_stopped = true;
        self.shared.changed.notify_one();
    }

    /// A shard has ended a turn: takes what its log has for followers.
    pub(crate) fn after_turn(&self, shard: usize, log: &mut ShardLog, now: Now) {
        let epoch = self.shared.epoch.load(Ordering::Acquire);
        if epoch == 0 {
            log.tap(None);
            return;
        }
        let batch = log.tap(Some(epoch));
        let floor_ms = self.shared.floor_ms.load(Ordering::Acquire);
        let promised_ms = log.promise_ms(now.wall_ms.max(floor_ms));
        let bytes = batch.held_bytes();
        let mut state = self.shared.lock();
        if state.incoming_bytes + bytes > FOLLOW_INCOMING_BYTES_MAX {
            state.lost_records += batch.record_count();
            state.incoming.push(HandedOver { epoch, shard, batch: Tapped::default(), promised_ms });
        } else {
            state.incoming_bytes += bytes;
            state.incoming.push(HandedOver { epoch, shard, batch, promised_ms });
        }
        if let [.., last, newest] = &mut state.incoming[..]
            && newest.batch.runs.is_empty()
            && (last.epoch, last.shard) == (epoch, shard)
        {
            // Only the promise is new.
            last.promised_ms = promised_ms;
            state.incoming.pop();
        }
        drop(state);
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Follower {
    wanted: Wanted,
    queue: Arc<FollowerQueue>,
    /// Told once everything before it is in the shards' memory.
    boundary: Option<oneshot::Sender<u64>>,
    boundary_ms: u64,
}

/// What one follower gets of a batch, handed over in pieces: all that a batch makes for all
/// followers would be too much at a time.
#[derive(Default)]
struct Share {
    bytes: Vec<u8>,
    records: u64,
    /// It has missed something and was not told yet, so it misses the rest.
    is_behind: bool,
}

impl Share {
    /// Nothing is written for those who would not get it.
    fn of(queue: &FollowerQueue) -> Self {
        Self { is_behind: queue.is_behind(), ..Self::default() }
    }

    fn take(&mut self, hit: &Hit<'_>, queue: &FollowerQueue, metrics: &FollowMetrics) {
        self.records += 1;
        if !self.is_behind {
            queue.format().write(&mut self.bytes, hit.id, hit.topic.as_str(), hit.record);
            if self.bytes.len() >= FOLLOW_PIECE_BYTES {
                self.hand_over(queue, metrics);
            }
        }
    }

    fn hand_over(&mut self, queue: &FollowerQueue, metrics: &FollowMetrics) {
        let records = std::mem::take(&mut self.records);
        if records == 0 {
            return;
        }
        if self.is_behind {
            queue.miss(records);
            metrics.missed.inc_by(records);
            return;
        }
        // A large record's room is not kept for every follower.
        let bytes = std::mem::take(&mut self.bytes);
        let missed = queue.push(&bytes, records);
        self.is_behind = missed > 0;
        metrics.missed.inc_by(missed);
        metrics.records.inc_by(records - missed);
        if missed == 0 {
            metrics.bytes.inc_by(bytes.len() as u64);
        }
    }
}

/// The thread's own.
struct Follow {
    shared: Arc<Shared>,
    metrics: Arc<NodeMetrics>,
    ordered: Ordered,
    /// Which shards have said that they copy what they take.
    tapped: Vec<bool>,
    followers: Vec<Follower>,
    fanout: Fanout,
    /// Up to where everything has come, ms, and since when it has not risen while it was waited for.
    standing: (u64, Instant),
}

impl Follow {
    fn run(mut self) {
        let mut waiting: Vec<Joining> = Vec::new();
        loop {
            let is_waiting = !waiting.is_empty()
                || self.ordered.is_holding()
                || self.followers.iter().any(|follower| follower.boundary.is_some());
            self.shared.pulse.rest();
            let Some((turns, joining, lost)) = self.wait(is_waiting) else { break };
            self.shared.pulse.begin();
            let epoch = self.shared.epoch.load(Ordering::Acquire);
            for turn in turns.into_iter().filter(|turn| turn.epoch == epoch) {
                self.tapped[turn.shard] = true;
                self.ordered.push(turn.shard, turn.batch, turn.promised_ms);
            }
            waiting.extend(joining);
            self.keep_moving(is_waiting);
            self.ordered.lose(lost);
            // Who comes now may find in the snapshot what is lost here.
            self.tell_lost();
            if self.tapped.iter().all(|&tapped| tapped) {
                self.admit(&mut waiting);
            }
            self.deliver();
            self.forget();
            if self.followers.is_empty() && waiting.is_empty() {
                self.rest();
            }
        }
        for follower in &self.followers {
            follower.queue.end();
        }
        for joining in waiting.into_iter().chain(std::mem::take(&mut self.shared.lock().joining)) {
            joining.queue.end();
        }
    }

    /// Waits for something to do; `None` once stopped. While somebody waits for the shards'
    /// promises they are asked for a turn.
    fn wait(&self, is_waiting: bool) -> Option<(Vec<HandedOver>, Vec<Joining>, u64)> {
        let mut state = self.shared.lock();
        loop {
            if state.is_stopped {
                return None;
            }
            if !state.incoming.is_empty() || !state.joining.is_empty() || state.lost_records > 0 {
                state.incoming_bytes = 0;
                return Some((
                    std::mem::take(&mut state.incoming),
                    std::mem::take(&mut state.joining),
                    std::mem::take(&mut state.lost_records),
                ));
            }
            if is_waiting {
                let waited = self.shared.changed.wait_timeout(state, NUDGE_AFTER);
                let (again, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                state = again;
                if timeout.timed_out() {
                    self.nudge();
                }
            } else {
                state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Shards promise what the clock says, and it may have been set back behind what they promised.
    fn keep_moving(&mut self, is_waiting: bool) {
        let (complete_ms, now) = (self.ordered.complete_ms(), Instant::now());
        if !is_waiting || complete_ms != self.standing.0 {
            self.standing = (complete_ms, now);
        } else if now.duration_since(self.standing.1) >= STANDSTILL {
            self.standing.1 = now;
            self.shared.floor_ms.store(self.ordered.newest_ms() + 1, Ordering::Release);
            self.nudge();
        }
    }

    fn nudge(&self) {
        for seat in self.shared.placement.seats() {
            seat.inbox.nudge();
        }
    }

    /// Everything that was stamped so far lies below the newest promise: who comes now gets
    /// everything behind it.
    fn admit(&mut self, waiting: &mut Vec<Joining>) {
        if waiting.is_empty() {
            return;
        }
        let boundary_ms = self.ordered.newest_ms() + 1;
        self.followers.extend(waiting.drain(..).map(|joining| Follower {
            wanted: joining.wanted,
            queue: joining.queue,
            boundary: Some(joining.boundary),
            boundary_ms,
        }));
        self.renew();
    }

    fn renew(&mut self) {
        let all = self.followers.iter().map(|follower| follower.wanted.clone()).collect();
        self.fanout = Fanout::new(all);
        self.metrics.follow.followers.set(self.followers.len() as i64);
    }

    fn tell_lost(&mut self) {
        let lost = self.ordered.take_lost();
        if lost > 0 {
            for follower in &self.followers {
                follower.queue.miss(if follower.wanted.is_discreet { 1 } else { lost });
            }
            self.metrics.follow.missed.inc_by(lost * self.followers.len() as u64);
        }
    }

    fn deliver(&mut self) {
        loop {
            let batch = self.ordered.take(FOLLOW_BATCH_BYTES);
            if batch.runs.is_empty() {
                break;
            }
            let mut shares: Vec<Share> =
                self.followers.iter().map(|follower| Share::of(&follower.queue)).collect();
            self.fanout.matches(&batch, &mut |hit| {
                let follower = &self.followers[hit.follower];
                if hit.id.ms() >= follower.boundary_ms {
                    shares[hit.follower].take(&hit, &follower.queue, &self.metrics.follow);
                }
            });
            for (follower, mut share) in self.followers.iter().zip(shares) {
                share.hand_over(&follower.queue, &self.metrics.follow);
            }
        }
        let complete_ms = self.ordered.complete_ms();
        for follower in &mut self.followers {
            if follower.boundary_ms <= complete_ms
                && let Some(boundary) = follower.boundary.take()
            {
                // Who waited for it may have gone.
                let _ = boundary.send(follower.boundary_ms);
            }
        }
    }

    /// Lets go of followers that have gone.
    fn forget(&mut self) {
        let before = self.followers.len();
        self.followers.retain(|follower| !follower.queue.is_abandoned());
        if self.followers.len() != before {
            self.renew();
        }
    }

    /// Nobody follows: shards need not copy anything.
    fn rest(&mut self) {
        let state = self.shared.lock();
        if state.joining.is_empty() {
            self.shared.epoch.store(0, Ordering::Release);
            self.tapped.fill(false);
            self.ordered = Ordered::new(self.tapped.len(), FOLLOW_HELD_BYTES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::ingest::log::ShardLogOptions;
    use engine::ingest::topics::{TopicChoice, TopicSet};
    use engine::search::Chain;
    use engine::topic::Topic;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn followers_come_and_are_served_while_the_clock_is_behind() {
        let hub = Hub::new(Placement::new(2).unwrap());
        let metrics = Arc::new(NodeMetrics::new(2));
        let thread = hub.spawn(metrics, || ()).unwrap();
        let options = ShardLogOptions::new(Arc::new(TopicSet::new(9)));
        // Set back by years, behind different stamps.
        let mut logs = [9_000, 5_000].map(|ms| ShardLog::new(options.clone(), ms, ms));
        let now = Now { monotonic_us: 0, wall_ms: 0 };
        let turns = |logs: &mut [ShardLog; 2]| {
            for (shard, log) in logs.iter_mut().enumerate() {
                hub.after_turn(shard, log, now);
            }
            std::thread::yield_now();
        };
        let start = Instant::now();
        let wanted = Wanted { chain: Chain::default(), topics: Vec::new(), is_discreet: false };
        let (subscription, mut boundary) = hub.subscribe(wanted, StreamFormat::Text);
        while boundary.try_recv().is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "no boundary");
            turns(&mut logs);
        }
        let topic = TopicChoice::Static(Topic::new(b"t").unwrap());
        logs[1].append(b"low\n", &topic, now);
        logs[0].append(b"high\n", &topic, now);
        let mut got = String::new();
        while got.lines().count() < 2 {
            assert!(start.elapsed() < Duration::from_secs(60), "only {got:?}");
            turns(&mut logs);
            let context = Context::from_waker(Waker::noop());
            if let Poll::Ready(Some(piece)) = subscription.queue().poll_next(&context) {
                got += std::str::from_utf8(&piece).unwrap();
            }
        }
        hub.stop();
        thread.join().unwrap();
    }
}
