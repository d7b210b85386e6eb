//! The scan threads themselves: who they are, which of them hang, and who takes their places.
//!
//! Invariants: in each place one thread is at work, and those that were given up there come back to
//! nothing: they end. Nobody waits for a thread that was given up.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::hanging::{Errand, GivenUp, Hanging, Standing};
use super::pool::ThreadHook;
use crate::pulse::Pulse;

/// What one thread at a time has.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) index: usize,
    pub(super) pulse: Arc<Pulse>,
}

/// One thread.
pub(super) struct Worker {
    id: u64,
    pub(super) place: Place,
    /// The system's number of it; 0 before it runs.
    system_id: AtomicI32,
}

/// A thread, as others see it.
struct Known {
    worker: Arc<Worker>,
    thread: Option<JoinHandle<()>>,
}

/// What is still to be done about a thread that was given up.
struct Loss {
    gone: GivenUp,
    place: Option<Place>,
    is_told: bool,
}

/// See the page of the module.
pub(super) struct Threads {
    known: Mutex<BTreeMap<u64, Known>>,
    hanging: Mutex<Hanging>,
    losses: Mutex<Vec<Loss>>,
    hook: ThreadHook,
    next: AtomicU64,
}

/// Plain values are valid after any panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Threads {
    pub(super) fn new(threads: usize, hook: ThreadHook) -> Self {
        Self {
            known: Mutex::default(),
            hanging: Mutex::new(Hanging::new(threads)),
            losses: Mutex::default(),
            hook,
            next: AtomicU64::new(0),
        }
    }

    /// Starts a thread in a place.
    pub(super) fn spawn(
        &self,
        place: Place,
        run: impl FnOnce(&Arc<Worker>) + Send + 'static,
    ) -> io::Result<()> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("scan-{}", place.index);
        let worker = Arc::new(Worker { id, place, system_id: AtomicI32::new(0) });
        let (hook, own) = (Arc::clone(&self.hook), Arc::clone(&worker));
        let body = move || {
            let system_id = rustix::thread::gettid().as_raw_nonzero().get();
            own.system_id.store(system_id, Ordering::Relaxed);
            hook(own.place.index);
            run(&own);
        };
        // Under the lock: it may end before it is known otherwise.
        let mut known = lock(&self.known);
        let thread = Some(std::thread::Builder::new().name(name).spawn(body)?);
        known.insert(id, Known { worker, thread });
        Ok(())
    }

    /// Waits for all that were not given up.
    pub(super) fn join(&self) {
        loop {
            let next = lock(&self.known).pop_first();
            let Some((_, known)) = next else { return };
            // A panic there has been reported by the panic hook.
            let _ = known.thread.map(JoinHandle::join);
        }
    }

    /// A thread turns to this file of a track for a query, or to what it has of it; `false`: it must not,
    /// for the file hangs.
    pub(super) fn begin(&self, worker: &Worker, job: u64, file: Option<(u64, PathBuf)>) -> bool {
        lock(&self.hanging).begin(worker.id, Errand { job, file })
    }

    /// Whether another thread has its place.
    pub(super) fn is_given_up(&self, worker: &Worker) -> bool {
        lock(&self.hanging).is_given_up(worker.id)
    }

    /// A thread has nothing to do for now; whether it is to end, because another one has its place.
    pub(super) fn rest(&self, worker: &Arc<Worker>) -> bool {
        let mut is_over = false;
        if lock(&self.hanging).end(worker.id) {
            let mut losses = lock(&self.losses);
            let at = losses.iter().position(|loss| loss.gone.worker == worker.id);
            is_over = at.is_none_or(|at| losses.swap_remove(at).place.is_none());
        }
        if !is_over {
            worker.place.pulse.rest();
            let known = || Known { worker: Arc::clone(worker), thread: None };
            lock(&self.known).entry(worker.id).or_insert_with(known);
        }
        is_over
    }

    /// Which threads are given up now.
    pub(super) fn look(
        &self,
        now: Instant,
        standing: &dyn Fn(i32) -> Option<Standing>,
    ) -> Vec<GivenUp> {
        let system_ids: BTreeMap<u64, i32> = lock(&self.known)
            .iter()
            .map(|(&id, known)| (id, known.worker.system_id.load(Ordering::Relaxed)))
            .collect();
        let mut hanging = lock(&self.hanging);
        let given_up = hanging.look(now, |id| standing(*system_ids.get(&id)?));
        for gone in &given_up {
            let Some(known) = lock(&self.known).remove(&gone.worker) else { continue };
            let place = known.worker.place.clone();
            place.pulse.rest();
            lock(&self.losses).push(Loss {
                gone: gone.clone(),
                place: Some(place),
                is_told: false,
            });
        }
        given_up
    }

    /// Places to be taken by others, and who had them: who comes back from now on finds his place gone.
    pub(super) fn to_replace(&self) -> Vec<(GivenUp, Place)> {
        let mut losses = lock(&self.losses);
        let places = losses.iter_mut().map(|loss| Some((loss.gone.clone(), loss.place.take()?)));
        places.flatten().collect()
    }

    /// Nobody could take such a place.
    pub(super) fn is_vacant(&self, gone: GivenUp, place: Place) {
        let mut losses = lock(&self.losses);
        match losses.iter_mut().find(|loss| loss.gone.worker == gone.worker) {
            Some(loss) => loss.place = Some(place),
            // He has come back meanwhile, and ended.
            None => losses.push(Loss { gone, place: Some(place), is_told: true }),
        }
    }

    /// What their queries have not heard of yet.
    pub(super) fn to_tell(&self) -> Vec<GivenUp> {
        let losses = lock(&self.losses);
        losses.iter().filter(|loss| !loss.is_told).map(|loss| loss.gone.clone()).collect()
    }

    pub(super) fn is_told(&self, worker: u64) {
        let mut losses = lock(&self.losses);
        let its = losses.iter_mut().filter(|loss| loss.gone.worker == worker);
        its.for_each(|loss| loss.is_told = true);
    }
}
