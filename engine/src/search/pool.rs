//! How queries share those who work for them: whose turn it is, what is handed out, what comes of it.
//!
//! The pool has no thread and no clock. *Hands* turn it: each takes the query for which least was
//! searched ([`FairQueue`]), makes it ready again while there is more work than its own, so that others can
//! help, and works on it for a slice of [`SCAN_SLICE_BYTES`]. What has to be read and searched meanwhile
//! comes out of [`Pool::turn`] as work, and goes back with the next turn. Threads are hands that wait
//! until somebody wakes them ([`super::threads`]); one who steps it is another ([`super::stepped`]).
//!
//! A query without work (its reader is behind, or others do all there is to do) is not ready and comes
//! back when that changes. One that would take memory while all of them keep more than they may waits at
//! the gate ([`FairQueue`] says why nobody waits there for ever, [`super::gate`] who gives back).
//!
//! Invariants: a lock is never held while a chunk is read or searched; the order of locks is query,
//! then queue; a query that is over is let go of at once, pins included, whatever its reader does; what
//! one hand does depends on nothing but what the pool was given and the order of calls.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::consumer::{Consumer, Drained};
use super::fair_queue::FairQueue;
use super::gate::Account;
use super::hanging::{GivenUp, Standing};
use super::job::Job;
use super::places::{Place, Places, Vacancy, Worker};
use super::sweep::Sweep;
use super::work::{Done, Work};
#[cfg(doc)]
use crate::limits::QUERY_HELD_BYTES_MAX;
use crate::limits::SCAN_SLICE_BYTES;

/// What a piece of work counts at least towards a slice, bytes: opening a part or reading a run
/// table searches nothing and yet takes time.
const WORK_BYTES_MIN: u64 = 64 << 10;

/// What the pool knows of the world around it, and tells it.
pub(super) trait Outside: Send + Sync {
    /// Time since some moment, the same for all who ask.
    fn now(&self) -> Duration;
    /// Time that the one who asks has worked.
    fn worked(&self) -> Duration;
    /// There may be work for one more hand.
    fn wake_one(&self);
    /// Something has changed for all hands.
    fn wake_all(&self);
}

/// One who works for the pool.
pub(super) struct Hand {
    worker: Worker,
    slice: Option<Slice>,
    work: Option<Work>,
    done: Option<Done>,
}

impl Hand {
    /// Does what it was given: opens, reads and searches.
    pub(super) fn work(&mut self) {
        self.done = self.work.take().map(Work::run);
    }

    /// Its number in the pool.
    pub(super) const fn id(&self) -> u64 {
        self.worker.id
    }

    /// Which place it has.
    pub(super) const fn index(&self) -> usize {
        self.worker.place.index
    }
}

/// What a hand does for a query before it looks whose turn it is.
struct Slice {
    job: Arc<Job>,
    worked_bytes: u64,
    /// What its hand had worked when it looked last.
    lap: Duration,
    done: Option<Done>,
}

impl Slice {
    /// Time that was worked for it since it was asked last.
    fn lap(&mut self, worked: Duration) -> Duration {
        worked.saturating_sub(std::mem::replace(&mut self.lap, worked))
    }
}

/// What a hand is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// [`Hand::work`], then turn again.
    Work,
    /// Nothing until somebody wakes it, or so much time has passed.
    Rest(Option<Duration>),
    /// To go: the pool has stopped, or another one has its place.
    Go,
}

/// How a slice goes on, or ended.
enum Course {
    /// With this.
    Work(Work),
    /// There may be more to do.
    Again,
    /// Nothing to do for now; the query has left the queue.
    Idle,
    /// The query is over.
    Over,
}

/// Whose turn it is.
enum Next {
    Job(Arc<Job>),
    Nobody(Option<Duration>),
    Stop,
}

#[derive(Default)]
pub(super) struct Queries {
    pub(super) turns: FairQueue,
    /// Every job that is not over, by number: a parked one is held by nothing else.
    pub(super) live: BTreeMap<u64, Arc<Job>>,
    stopping: bool,
}

/// See the page of the module.
pub(super) struct Pool {
    queue: Mutex<Queries>,
    pub(super) outside: Arc<dyn Outside>,
    next_job: AtomicU64,
    /// Text searched for readers that had gone, bytes.
    abandoned_bytes: AtomicU64,
    /// What all jobs keep in memory between their turns, bytes, and the most that it may be.
    pub(super) held_bytes: Arc<AtomicUsize>,
    pub(super) held_bytes_max: usize,
    next_turn: AtomicU64,
    places: Places,
}

impl Pool {
    /// For so many hands; `held_bytes_max` as [`QUERY_HELD_BYTES_MAX`].
    pub(super) fn new(hands: usize, outside: Arc<dyn Outside>, held_bytes_max: usize) -> Self {
        Self {
            queue: Mutex::default(),
            outside,
            next_job: AtomicU64::new(0),
            abandoned_bytes: AtomicU64::new(0),
            held_bytes: Arc::default(),
            held_bytes_max,
            next_turn: AtomicU64::new(1),
            places: Places::new(hands),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Queries> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Jobs that are not over.
    pub(super) fn live_count(&self) -> usize {
        self.lock().live.len()
    }

    /// Text searched for readers that had gone, bytes: what cancelling comes too late for.
    pub(super) fn abandoned_bytes(&self) -> u64 {
        self.abandoned_bytes.load(Ordering::Relaxed)
    }

    /// The number that [`Pool::wake`] will know the next job by.
    pub(super) fn next_id(&self) -> u64 {
        self.next_job.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes a job in.
    pub(super) fn submit(&self, id: u64, sweep: Sweep, consumer: Box<dyn Consumer>) {
        let now = self.outside.now();
        let account = Account::of(&self.held_bytes);
        let job = Arc::new(Job::new((id, now), account, sweep, consumer));
        let mut queue = self.lock();
        if queue.stopping {
            drop(queue);
            job.finish_early(now, STOPPING);
            return;
        }
        queue.live.insert(id, job);
        queue.turns.join(id);
        queue.turns.ready(id);
        drop(queue);
        self.outside.wake_one();
    }

    /// Something happened that may give the job work: its reader has drained or gone.
    pub(super) fn wake(&self, id: u64) {
        let is_news = self.lock().turns.ready(id);
        if is_news {
            self.outside.wake_one();
        }
    }

    /// Ends all queries and sends the hands away.
    pub(super) fn stop(&self) {
        let mut queue = self.lock();
        queue.stopping = true;
        let live = std::mem::take(&mut queue.live);
        drop(queue);
        self.outside.wake_all();
        for job in live.into_values() {
            job.finish_early(self.outside.now(), STOPPING);
        }
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.lock().stopping
    }

    fn park(&self, id: u64) {
        self.lock().turns.park(id);
    }

    fn remove(&self, id: u64) {
        let mut queue = self.lock();
        queue.turns.leave(id);
        queue.live.remove(&id);
    }
}

/// What a query is told that the end of the pool has ended.
const STOPPING: &str = "the node is shutting down";

/// Hands, and those that hang.
impl Pool {
    /// A new hand in a place that is free.
    pub(super) fn hand(&self, place: Place) -> Hand {
        Hand { worker: self.places.taken(place), slice: None, work: None, done: None }
    }

    /// This one will never work.
    pub(super) fn dismiss(&self, worker: u64) {
        self.places.left(worker);
    }

    /// Gives up the hands that do not get on, as `standing` says of each by its number: their queries go
    /// on without the files.
    pub(super) fn look(
        &self,
        now: Duration,
        standing: &dyn Fn(u64) -> Option<Standing>,
    ) -> Vec<GivenUp> {
        let given_up = self.places.look(now, standing);
        self.places.tell(|gone| self.go_on_without(gone));
        given_up
    }

    /// Places of those who were given up, each told once: for other hands.
    pub(super) fn vacancies(&self) -> Vec<Vacancy> {
        self.places.vacancies()
    }

    /// Nobody could take this place; it is told again.
    pub(super) fn is_vacant(&self, vacancy: Vacancy) {
        self.places.is_vacant(vacancy);
    }

    /// `false`: somebody works on the query just now.
    fn go_on_without(&self, gone: &GivenUp) -> bool {
        let job = self.lock().live.get(&gone.job).map(Arc::clone);
        let Some(job) = job else { return true };
        let (Some(track), Some(path)) = (gone.track, &gone.path) else {
            // It hangs where it hands out, and keeps the query's lock: nobody else is to wait for
            // that, the reader included. What it keeps is given back when its hand is back.
            job.break_off();
            self.remove(job.id);
            return true;
        };
        let Some(mut slot) = job.try_lock() else { return false };
        if let Some(state) = slot.as_mut() {
            state.sweep.give_up(track, path);
        }
        drop(slot);
        self.wake(job.id);
        true
    }
}

/// What hands do.
impl Pool {
    /// Takes what a hand has done, and says what it is to do now.
    pub(super) fn turn(&self, hand: &mut Hand) -> Call {
        loop {
            let mut slice = match hand.slice.take() {
                Some(slice) => slice,
                None => match self.next_job() {
                    Next::Job(job) => self.begin(hand, job),
                    Next::Nobody(pause) => return Call::Rest(pause),
                    Next::Stop => return Call::Go,
                },
            };
            let course = self.go_on(hand, &mut slice);
            if let Course::Work(work) = course {
                (hand.slice, hand.work) = (Some(slice), Some(work));
                return Call::Work;
            }
            self.end(&slice.job, &course);
            if self.places.rest(&hand.worker) {
                return Call::Go;
            }
        }
    }

    /// The job whose turn it is.
    fn next_job(&self) -> Next {
        let mut pause = None;
        loop {
            let mut queue = self.lock();
            if queue.stopping {
                return Next::Stop;
            }
            let is_open = self.is_open();
            let turn = queue.turns.take(is_open);
            if let Some(job) = turn.and_then(|id| queue.live.get(&id)) {
                return Next::Job(Arc::clone(job));
            }
            if is_open || pause.is_some() {
                return Next::Nobody(pause.filter(|_| !is_open));
            }
            drop(queue);
            pause = Some(self.relieve());
        }
    }

    fn begin(&self, hand: &Hand, job: Arc<Job>) -> Slice {
        self.places.begin(&hand.worker, job.id, None);
        Slice { job, worked_bytes: 0, lap: self.outside.worked(), done: None }
    }

    /// A slice has ended, and how.
    fn end(&self, job: &Job, course: &Course) {
        job.last_turn.store(self.next_turn.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        match course {
            Course::Again => self.wake(job.id),
            Course::Over => {
                self.account(job, 0);
                self.remove(job.id);
            }
            Course::Idle | Course::Work(_) => {}
        }
        self.relieve();
    }

    /// A piece of work is done.
    fn worked(&self, slice: &mut Slice, done: Done) {
        let cost_bytes = done.bytes_scanned().max(WORK_BYTES_MIN);
        slice.worked_bytes += cost_bytes;
        self.lock().turns.charge(slice.job.id, cost_bytes);
        slice.done = Some(done);
    }

    /// Goes on with a slice until something has to be read, the slice is used up or nothing is left to do.
    fn go_on(&self, hand: &mut Hand, slice: &mut Slice) -> Course {
        if let Some(done) = hand.done.take() {
            if self.places.is_given_up(&hand.worker) {
                slice.job.complete_late(done);
                return Course::Again;
            }
            self.places.begin(&hand.worker, slice.job.id, None);
            self.worked(slice, done);
        }
        loop {
            hand.worker.place.pulse.begin();
            let work = match self.hand_out(hand, slice) {
                Course::Work(work) => work,
                end => return end,
            };
            // A file that hangs is left alone.
            match work.file() {
                Some((track, path))
                    if !self.places.begin(
                        &hand.worker,
                        slice.job.id,
                        Some((track, path.clone())),
                    ) =>
                {
                    self.worked(slice, work.refuse(path));
                }
                _ => return Course::Work(work),
            }
        }
    }

    /// Takes in what was done, gives its reader what there is, and looks for more to do.
    fn hand_out(&self, hand: &Hand, slice: &mut Slice) -> Course {
        let job = Arc::clone(&slice.job);
        let mut slot = job.try_lock().unwrap_or_else(|| {
            // Who waits for another hand does not hang, unless that one does.
            self.places.wait_for(&hand.worker, job.id);
            let slot = job.lock();
            self.places.begin(&hand.worker, job.id, None);
            slot
        });
        let done = slice.done.take();
        let last = done.as_ref().map_or(0, Done::bytes_scanned);
        let Some(state) = slot.as_mut() else {
            // It ended meanwhile.
            self.abandoned_bytes.fetch_add(last, Ordering::Relaxed);
            return Course::Over;
        };
        if let Some(done) = done {
            state.sweep.complete(done);
        }
        state.is_ahead = false;
        let drained = state.consumer.drain(&mut state.sweep);
        state.cpu += slice.lap(self.outside.worked());
        self.hold(&job, state);
        let may_take = match drained {
            Drained::All if !state.sweep.is_over() => true,
            Drained::Full => false,
            Drained::Unwanted => {
                self.abandoned_bytes.fetch_add(last, Ordering::Relaxed);
                *slot = None;
                return Course::Over;
            }
            Drained::All | Drained::Enough | Drained::Ended(_) | Drained::Aborted => {
                if let Drained::Ended(reason) = &drained {
                    state.sweep.end(reason);
                }
                job.finish(slot, self.outside.now(), drained == Drained::Aborted);
                return Course::Over;
            }
        };
        if slice.worked_bytes >= SCAN_SLICE_BYTES || self.places.is_given_up(&hand.worker) {
            return Course::Again;
        }
        let window = self.window(job.id);
        let Some(work) = state.sweep.next_work(may_take, window) else {
            // Under the job's lock, so that whoever changes this finds the job parked.
            if may_take && window == 0 && !state.sweep.is_worked_on() {
                self.lock().turns.wait(job.id, state.sweep.held_bytes() > 0);
                return Course::Idle;
            }
            self.park(job.id);
            state.is_ahead = !may_take;
            // Readers drain without the job's lock: one may just have been missed.
            if !may_take && state.consumer.has_room() {
                self.wake(job.id);
            }
            return Course::Idle;
        };
        if state.sweep.has_work(window) {
            self.wake(job.id);
        }
        Course::Work(work)
    }
}
