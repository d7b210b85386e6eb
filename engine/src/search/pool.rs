//! The scan threads and how queries share them.
//!
//! A query that has work is ready. A thread takes the one for which least was searched ([`Turns`]),
//! makes it ready again while there is more work than its own, so that others can help, and works
//! on it for a slice of [`SCAN_SLICE_BYTES`]. A query without work (its reader is behind, or others do all there is to
//! do) is not ready and comes back when that changes. One that would take memory while all of them keep
//! more than they may waits at the gate ([`Turns`] says why nobody waits there for ever).
//!
//! Invariants: a lock is never held while a chunk is read or searched; the order of locks is query,
//! then queue; a thread that finds nothing to do sleeps on the condition variable; a query that
//! is over is let go of at once, pins included, whatever its reader does.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::consumer::{Consumer, Drained};
use super::hanging::{GivenUp, Standing};
use super::spec::Stats;
use super::sweep::{Done, Sweep, Work};
use super::threads::{Place, Threads, Worker};
use super::turns::Turns;
#[cfg(doc)]
use crate::limits::QUERY_HELD_BYTES_MAX;
use crate::limits::{QUERY_HELD_NS_PER_BYTE, SCAN_SLICE_BYTES};
use crate::pulse::Pulse;

/// What a piece of work counts at least towards a slice, bytes: opening a part or reading a run
/// table searches nothing and yet takes time.
const WORK_BYTES_MIN: u64 = 64 << 10;

/// How long a thread sleeps at most while the gate is closed.
const GATE_PAUSE_MAX: Duration = Duration::from_millis(100);

/// A query on its way.
pub(super) struct Job {
    id: u64,
    started: Instant,
    state: Mutex<Option<JobState>>,
    /// What it kept in memory after it was worked on last, bytes.
    held_bytes: AtomicUsize,
    /// When that was, as a number.
    last_turn: AtomicU64,
}

struct JobState {
    sweep: Sweep,
    consumer: Box<dyn Consumer>,
    /// Time that threads have worked for it.
    cpu: Duration,
    /// It has brought all that its reader has room for.
    is_ahead: bool,
    /// When what it keeps grew last.
    grown: Instant,
}

impl JobState {
    /// For how much longer it may keep what its reader is behind with.
    fn patience(&self) -> Duration {
        let bytes = self.sweep.held_bytes() as u64;
        let granted = Duration::from_nanos(bytes.saturating_mul(QUERY_HELD_NS_PER_BYTE));
        granted.saturating_sub(self.grown.elapsed())
    }
}

/// What this thread has worked since it last looked.
struct Lap(Duration);

impl Lap {
    fn start() -> Self {
        Self(Self::worked())
    }

    fn end(&mut self) -> Duration {
        let before = std::mem::replace(&mut self.0, Self::worked());
        self.0.saturating_sub(before)
    }

    fn worked() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(time).unwrap_or_default()
    }
}

/// What a thread does after a slice.
enum Turn {
    /// There may be more to do.
    Again,
    /// Nothing to do for now; the query has left the queue.
    Idle,
    /// The query is over.
    Over,
}

#[derive(Default)]
struct Queue {
    turns: Turns,
    /// Every job that is not over, by number: a parked one is held by nothing else.
    live: HashMap<u64, Arc<Job>>,
    stopping: bool,
}

/// What threads and callers share.
pub(super) struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    next_job: AtomicU64,
    /// Text searched for readers that had gone, bytes.
    abandoned_bytes: AtomicU64,
    /// What all jobs keep in memory between their turns, bytes, and the most that it may be.
    held_bytes: AtomicUsize,
    held_bytes_max: usize,
    next_turn: AtomicU64,
    threads: Threads,
}

/// The threads. Dropping it ends all queries and waits for the threads, but those that were given up.
pub(super) struct Pool {
    pub(super) shared: Arc<Shared>,
    /// One per thread.
    pub(super) pulses: Vec<Arc<Pulse>>,
}

/// Called first on each scan thread, with its number.
pub type ThreadHook = Arc<dyn Fn(usize) + Send + Sync>;

impl Pool {
    /// Starts the threads; `held_bytes_max` as [`QUERY_HELD_BYTES_MAX`].
    pub(super) fn start(
        threads: usize,
        on_thread_start: &ThreadHook,
        held_bytes_max: usize,
    ) -> io::Result<Self> {
        let queue = Mutex::default();
        let shared = Arc::new(Shared {
            queue,
            work: Condvar::new(),
            next_job: AtomicU64::new(0),
            abandoned_bytes: AtomicU64::new(0),
            held_bytes: AtomicUsize::new(0),
            held_bytes_max,
            next_turn: AtomicU64::new(1),
            threads: Threads::new(threads, Arc::clone(on_thread_start)),
        });
        let mut pool = Self { shared, pulses: Vec::new() };
        for index in 0..threads {
            let pulse = Arc::<Pulse>::default();
            pool.pulses.push(Arc::clone(&pulse));
            // A failure drops the pool, which stops the threads that did start.
            pool.shared.spawn(Place { index, pulse })?;
        }
        Ok(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.stopping = true;
        let live = std::mem::take(&mut queue.live);
        drop(queue);
        self.shared.work.notify_all();
        for job in live.into_values() {
            job.finish_early("the node is shutting down");
        }
        self.shared.threads.join();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Jobs that are not over.
    pub(super) fn live_count(&self) -> usize {
        self.lock().live.len()
    }

    /// The number that [`Shared::wake`] will know the next job by.
    pub(super) fn next_id(&self) -> u64 {
        self.next_job.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes a job in.
    pub(super) fn submit(&self, id: u64, sweep: Sweep, consumer: Box<dyn Consumer>) {
        let (started, cpu) = (Instant::now(), Duration::ZERO);
        let state = JobState { sweep, consumer, cpu, is_ahead: false, grown: started };
        let (held_bytes, last_turn) = (AtomicUsize::new(0), AtomicU64::new(0));
        let job = Job { id, started, state: Mutex::new(Some(state)), held_bytes, last_turn };
        let job = Arc::new(job);
        let mut queue = self.lock();
        if queue.stopping {
            drop(queue);
            job.finish_early("the node is shutting down");
            return;
        }
        queue.live.insert(id, job);
        queue.turns.join(id);
        queue.turns.ready(id);
        drop(queue);
        self.work.notify_one();
    }

    /// Something happened that may give the job work: its reader has drained or gone.
    pub(super) fn wake(&self, id: u64) {
        let mut queue = self.lock();
        if queue.turns.ready(id) {
            drop(queue);
            self.work.notify_one();
        }
    }

    fn park(&self, id: u64) {
        self.lock().turns.park(id);
    }

    fn remove(&self, id: u64) {
        let mut queue = self.lock();
        queue.turns.leave(id);
        queue.live.remove(&id);
    }

    /// Starts a thread in a place that is free.
    fn spawn(self: &Arc<Self>, place: Place) -> io::Result<()> {
        let shared = Arc::clone(self);
        self.threads.spawn(place, move |worker| shared.run_thread(worker))
    }

    /// Gives up the threads that do not get on, as `standing` says of each by its number in the system:
    /// others take their places, their queries go on without the files.
    pub(super) fn look(
        self: &Arc<Self>,
        now: Instant,
        standing: &dyn Fn(i32) -> Option<Standing>,
    ) -> Vec<GivenUp> {
        let given_up = self.threads.look(now, standing);
        for gone in self.threads.to_tell() {
            if self.go_on_without(&gone) {
                self.threads.is_told(gone.worker);
            }
        }
        for (gone, place) in self.threads.to_replace() {
            let has_stopped = self.lock().stopping;
            if has_stopped || self.spawn(place.clone()).is_err() {
                // It is tried again at the next look.
                self.threads.is_vacant(gone, place);
            }
        }
        given_up
    }

    /// `false`: somebody works on the query just now.
    fn go_on_without(&self, gone: &GivenUp) -> bool {
        let (Some(track), Some(path)) = (gone.track, &gone.path) else { return true };
        let job = self.lock().live.get(&gone.job).map(Arc::clone);
        let Some(job) = job else { return true };
        let Ok(mut slot) = job.state.try_lock() else { return false };
        if let Some(state) = slot.as_mut() {
            state.sweep.give_up(track, path);
        }
        drop(slot);
        self.wake(job.id);
        true
    }

    fn run_thread(&self, worker: &Arc<Worker>) {
        while let Some(job) = self.next_job() {
            self.threads.begin(worker, job.id, None);
            let turn = self.slice(&job, worker);
            job.last_turn.store(self.next_turn.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
            match turn {
                Turn::Again => self.wake(job.id),
                Turn::Idle => {}
                Turn::Over => {
                    self.account(&job, 0);
                    self.remove(job.id);
                }
            }
            self.relieve();
            if self.threads.rest(worker) {
                return;
            }
        }
    }

    /// Text searched for readers that had gone, bytes: what cancelling comes too late for.
    pub(super) fn abandoned_bytes(&self) -> u64 {
        self.abandoned_bytes.load(Ordering::Relaxed)
    }

    /// The job whose turn it is. `None`: stop.
    fn next_job(&self) -> Option<Arc<Job>> {
        let mut queue = self.lock();
        let mut pause = None;
        loop {
            if queue.stopping {
                return None;
            }
            let is_open = self.is_open();
            let turn = queue.turns.take(is_open);
            if let Some(job) = turn.and_then(|id| queue.live.get(&id)) {
                return Some(Arc::clone(job));
            }
            queue = if is_open {
                self.work.wait(queue).unwrap_or_else(PoisonError::into_inner)
            } else if let Some(pause) = pause.take() {
                let woken = self.work.wait_timeout(queue, pause);
                woken.unwrap_or_else(PoisonError::into_inner).0
            } else {
                drop(queue);
                pause = Some(self.relieve());
                self.lock()
            };
        }
    }

    /// Does a piece of work; `None`: another thread has this one's place.
    fn run(&self, work: Work, job: &Job, worker: &Worker) -> Option<Done> {
        let file = work.file();
        let result = match file.clone() {
            Some((_, path)) if !self.threads.begin(worker, job.id, file) => work.refuse(path),
            _ => work.run(),
        };
        if self.threads.is_given_up(worker) {
            job.complete_late(result);
            return None;
        }
        self.threads.begin(worker, job.id, None);
        Some(result)
    }

    /// Works on a job until its slice is used up or nothing is left to do.
    fn slice(&self, job: &Job, worker: &Worker) -> Turn {
        let mut done: Option<Done> = None;
        let mut worked_bytes = 0;
        let mut lap = Lap::start();
        loop {
            worker.place.pulse.begin();
            let mut slot = job.lock();
            let Some(state) = slot.as_mut() else {
                self.abandon(done.as_ref());
                return Turn::Over;
            };
            let last = done.as_ref().map_or(0, Done::bytes_scanned);
            if let Some(done) = done.take() {
                state.sweep.complete(done);
            }
            state.is_ahead = false;
            let drained = state.consumer.drain(&mut state.sweep);
            state.cpu += lap.end();
            self.hold(job, state);
            let may_take = match drained {
                Drained::All if state.sweep.is_over() => return job.finish(slot, false),
                Drained::All => true,
                Drained::Full => false,
                Drained::Ended(reason) => {
                    state.sweep.end(&reason);
                    return job.finish(slot, false);
                }
                Drained::Aborted => return job.finish(slot, true),
                Drained::Unwanted => {
                    self.abandoned_bytes.fetch_add(last, Ordering::Relaxed);
                    *slot = None;
                    return Turn::Over;
                }
            };
            if worked_bytes >= SCAN_SLICE_BYTES || self.threads.is_given_up(worker) {
                return Turn::Again;
            }
            let window = self.window(job.id);
            let Some(work) = state.sweep.next_work(may_take, window) else {
                // Under the job's lock, so that whoever changes this finds the job parked.
                if may_take && window == 0 && !state.sweep.is_worked_on() {
                    self.lock().turns.wait(job.id, state.sweep.held_bytes() > 0);
                    return Turn::Idle;
                }
                self.park(job.id);
                state.is_ahead = !may_take;
                // Readers drain without the job's lock: one may just have been missed.
                if !may_take && state.consumer.has_room() {
                    self.wake(job.id);
                }
                return Turn::Idle;
            };
            if state.sweep.has_work(window) {
                self.wake(job.id);
            }
            drop(slot);
            let Some(result) = self.run(work, job, worker) else { return Turn::Again };
            let cost_bytes = result.bytes_scanned().max(WORK_BYTES_MIN);
            worked_bytes += cost_bytes;
            self.lock().turns.charge(job.id, cost_bytes);
            done = Some(result);
        }
    }
}

/// What queries keep in memory between their turns.
impl Shared {
    /// A job keeps so much now.
    fn hold(&self, job: &Job, state: &mut JobState) {
        let bytes = state.sweep.held_bytes();
        if bytes > job.held_bytes.load(Ordering::Relaxed) {
            state.grown = Instant::now();
        }
        self.account(job, bytes);
    }

    fn account(&self, job: &Job, bytes: usize) {
        let before = job.held_bytes.swap(bytes, Ordering::Relaxed);
        if before == bytes {
            return;
        }
        // Wraps where it shrinks.
        let change = bytes.wrapping_sub(before);
        let all_before = self.held_bytes.fetch_add(change, Ordering::Relaxed);
        let opens = all_before > self.held_bytes_max
            && all_before.wrapping_add(change) <= self.held_bytes_max;
        if bytes == 0 || opens {
            // Under the lock: a thread that goes to sleep has seen it or hears of it.
            let mut queue = self.lock();
            if bytes == 0 {
                queue.turns.keeps_nothing(job.id);
            }
            drop(queue);
        }
        if opens {
            self.work.notify_all();
        }
    }

    /// Whether memory may be taken.
    fn is_open(&self) -> bool {
        self.held_bytes.load(Ordering::Relaxed) <= self.held_bytes_max
    }

    /// How far a job may read ahead, chunks; 0: it may read none.
    fn window(&self, id: u64) -> usize {
        let is_scarce = self.held_bytes.load(Ordering::Relaxed) > self.held_bytes_max / 2;
        let is_open = self.is_open();
        if !is_open && !self.lock().turns.may_take_memory(id, is_open) {
            0
        } else if is_scarce {
            1
        } else {
            usize::MAX
        }
    }

    /// Where jobs keep too much, those that have kept it for long enough and whose readers are behind,
    /// the ones that were not worked on for longest first, give back what they have read ahead, and if
    /// that is not enough, what their readers are at. Others do not: they keep only what they cannot go
    /// on without, and would start over again and again. Says when that is to be done again, unless
    /// something happens before.
    fn relieve(&self) -> Duration {
        let mut pause = GATE_PAUSE_MAX;
        let is_over = |max: usize| self.held_bytes.load(Ordering::Relaxed) > max;
        if !is_over(self.held_bytes_max) {
            return pause;
        }
        let mut jobs: Vec<Arc<Job>> = self.lock().live.values().map(Arc::clone).collect();
        // Looked at once each: they are worked on meanwhile.
        jobs.sort_by_cached_key(|job| job.last_turn.load(Ordering::Relaxed));
        for but_head in [true, false] {
            for job in &jobs {
                if !is_over(self.held_bytes_max / 4 * 3) {
                    return pause;
                }
                // One that is locked is being worked on, and gives back when that is done.
                let Ok(mut slot) = job.state.try_lock() else { continue };
                let Some(state) = slot.as_mut().filter(|state| state.is_ahead) else { continue };
                let patience = state.patience();
                if !patience.is_zero() {
                    pause = pause.min(patience);
                    continue;
                }
                state.sweep.shed(but_head);
                self.hold(job, state);
            }
        }
        pause
    }

    /// What was searched for a query that ended meanwhile.
    fn abandon(&self, done: Option<&Done>) {
        let bytes = done.map_or(0, Done::bytes_scanned);
        self.abandoned_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Job {
    fn lock(&self) -> MutexGuard<'_, Option<JobState>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread that was given up has come back: its query has gone on without this, or has not heard
    /// of the loss yet and need not any more.
    fn complete_late(&self, done: Done) {
        if let Some(state) = self.lock().as_mut() {
            state.sweep.complete(done);
        }
    }

    /// Lets go of all that the query held, then delivers its result.
    fn finish(&self, mut slot: MutexGuard<'_, Option<JobState>>, aborted: bool) -> Turn {
        if let Some(JobState { sweep, consumer, cpu, .. }) = slot.take() {
            let mut stats: Stats = sweep.into_stats();
            stats.duration = self.started.elapsed();
            stats.cpu = cpu;
            if aborted {
                stats.complete = false;
            }
            consumer.finish(stats, aborted);
        }
        Turn::Over
    }

    fn finish_early(&self, reason: &str) {
        let mut slot = self.lock();
        if let Some(state) = slot.as_mut() {
            state.sweep.end(reason);
        }
        self.finish(slot, true);
    }
}
