//! Threads as the hands of a pool: the shell of search, and the one place of it where threads are made
//! and a clock is read.
//!
//! Invariants: a thread that finds nothing to do sleeps until it is woken, and no call of it is lost
//! while it falls asleep; nobody waits for a thread that was given up.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::hanging::{GivenUp, Standing};
use super::places::Place;
use super::pool::{Call, Hand, Outside, Pool};
use crate::pulse::Pulse;

/// Called first on each scan thread, with its number.
pub type ThreadHook = Arc<dyn Fn(usize) + Send + Sync>;

/// Clock and bell of a pool whose hands are threads.
struct Host {
    start: Instant,
    /// Counts what threads were woken for.
    calls: AtomicU64,
    asleep: AtomicUsize,
    bed: Mutex<()>,
    woken: Condvar,
}

impl Host {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            calls: AtomicU64::new(0),
            asleep: AtomicUsize::new(0),
            bed: Mutex::default(),
            woken: Condvar::new(),
        }
    }

    /// Whether somebody has to be woken. Who falls asleep counts himself before he looks for calls, and
    /// calls are counted before it is looked who sleeps: one of the two sees the other. Who has looked
    /// and found none lies in bed once the lock was had, and does not find it taken when he is woken.
    fn call(&self) -> bool {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let is_somebody_asleep = self.asleep.load(Ordering::SeqCst) > 0;
        if is_somebody_asleep {
            drop(lock(&self.bed));
        }
        is_somebody_asleep
    }

    /// Sleeps unless there were calls since there had been so many.
    fn sleep(&self, calls: u64, pause: Option<Duration>) {
        let bed = lock(&self.bed);
        self.asleep.fetch_add(1, Ordering::SeqCst);
        if self.calls.load(Ordering::SeqCst) == calls {
            // Who is woken for nothing looks and comes back.
            match pause {
                None => drop(self.woken.wait(bed)),
                Some(pause) => drop(self.woken.wait_timeout(bed, pause)),
            }
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Outside for Host {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn worked(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(time).unwrap_or_default()
    }

    fn wake_one(&self) {
        if self.call() {
            self.woken.notify_one();
        }
    }

    fn wake_all(&self) {
        if self.call() {
            self.woken.notify_all();
        }
    }
}

/// Plain values are valid after any panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread, as others see it.
struct Known {
    /// The system's number of it; 0 before it runs.
    system_id: Arc<AtomicI32>,
    /// `None`: it was given up, and is waited for by nobody.
    thread: Option<JoinHandle<()>>,
}

struct Inner {
    pool: Arc<Pool>,
    host: Arc<Host>,
    hook: ThreadHook,
    known: Mutex<BTreeMap<u64, Known>>,
}

/// The threads of a pool. Dropping it stops the pool and waits for them, but for those that were given
/// up.
pub(super) struct Threads {
    inner: Arc<Inner>,
    /// One per thread.
    pub(super) pulses: Vec<Arc<Pulse>>,
}

impl Threads {
    /// Makes a pool and starts its threads; `held_bytes_max` as [`Pool::new`] takes it.
    pub(super) fn start(
        count: usize,
        hook: &ThreadHook,
        held_bytes_max: usize,
    ) -> io::Result<(Arc<Pool>, Self)> {
        let host = Arc::new(Host::new());
        let outside = Arc::clone(&host) as Arc<dyn Outside>;
        let pool = Arc::new(Pool::new(count, outside, held_bytes_max));
        let (known, hook) = (Mutex::default(), Arc::clone(hook));
        let inner = Arc::new(Inner { pool: Arc::clone(&pool), host, hook, known });
        let mut threads = Self { inner, pulses: Vec::new() };
        for index in 0..count {
            let pulse = Arc::<Pulse>::default();
            threads.pulses.push(Arc::clone(&pulse));
            // A failure drops the threads that did start, which stops them.
            threads.inner.spawn(Place { index, pulse })?;
        }
        Ok((pool, threads))
    }

    /// Who looks after them.
    pub(super) fn overseer(&self) -> Overseer {
        Overseer(Arc::clone(&self.inner))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.inner.pool.stop();
        loop {
            let next = lock(&self.inner.known).pop_first();
            let Some((_, known)) = next else { return };
            // A panic there has been reported by the panic hook.
            let _ = known.thread.map(JoinHandle::join);
        }
    }
}

impl Inner {
    /// Starts a thread in a place that is free.
    fn spawn(self: &Arc<Self>, place: Place) -> io::Result<()> {
        let name = format!("scan-{}", place.index);
        let hand = self.pool.hand(place);
        let id = hand.id();
        let (this, system_id) = (Arc::clone(self), Arc::<AtomicI32>::default());
        let own = Arc::clone(&system_id);
        let body = move || {
            own.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
            (this.hook)(hand.index());
            this.run(hand);
        };
        // Under the lock: it may end before it is known otherwise.
        let mut known = lock(&self.known);
        match std::thread::Builder::new().name(name).spawn(body) {
            Ok(thread) => {
                known.insert(id, Known { system_id, thread: Some(thread) });
                Ok(())
            }
            Err(error) => {
                self.pool.dismiss(id);
                Err(error)
            }
        }
    }

    fn run(&self, mut hand: Hand) {
        loop {
            let calls = self.host.calls.load(Ordering::SeqCst);
            match self.pool.turn(&mut hand) {
                Call::Work => hand.work(),
                Call::Rest(pause) => self.host.sleep(calls, pause),
                Call::Go => break,
            }
        }
        let mut known = lock(&self.known);
        if known.get(&hand.id()).is_some_and(|known| known.thread.is_none()) {
            known.remove(&hand.id());
        }
    }
}

/// Sees to it that a file system that hangs keeps no other queries waiting. Somebody has to ask it to
/// look every second or so.
#[derive(Clone)]
pub struct Overseer(Arc<Inner>);

impl Overseer {
    /// Gives up the scan threads that have not got on for [`crate::disk_health::HANG_MS`], and says which
    /// these are; others take their places, their queries go on without the files. `standing` asks the
    /// system how a thread stands, by its number there.
    pub fn look(&self, now: Instant, standing: &dyn Fn(i32) -> Option<Standing>) -> Vec<GivenUp> {
        let Inner { pool, host, known, .. } = &*self.0;
        let now = now.saturating_duration_since(host.start);
        let of = |(&id, known): (&u64, &Known)| (id, known.system_id.load(Ordering::Relaxed));
        let system_ids: BTreeMap<u64, i32> = lock(known).iter().map(of).collect();
        let given_up = pool.look(now, &|id| standing(*system_ids.get(&id)?));
        for gone in &given_up {
            if let Some(known) = lock(known).get_mut(&gone.worker) {
                known.thread = None;
            }
        }
        for vacancy in pool.vacancies() {
            if pool.has_stopped() || self.0.spawn(vacancy.place.clone()).is_err() {
                // It is tried again at the next look.
                pool.is_vacant(vacancy);
            }
        }
        given_up
    }
}
