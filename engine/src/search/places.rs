//! Who works for the pool, where, and who takes the places of those that hang in a file.
//!
//! Invariants: in each place one hand is at work, and those that were given up there come back to
//! nothing: they end. Knows no threads: who makes them asks which places are free.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::hanging::{Errand, GivenUp, Hanging, Standing};
use crate::pulse::Pulse;

/// What one hand at a time has.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) index: usize,
    pub(super) pulse: Arc<Pulse>,
}

/// One who has a place, by number.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) id: u64,
    pub(super) place: Place,
}

/// A place that is free because the one who had it was given up.
#[derive(Debug)]
pub(super) struct Vacancy {
    gone: GivenUp,
    pub(super) place: Place,
}

/// What is still to be done about one who was given up.
struct Loss {
    gone: GivenUp,
    place: Option<Place>,
    is_told: bool,
    /// He has come back, and ended.
    is_over: bool,
}

/// See the page of the module.
pub(super) struct Places {
    known: Mutex<BTreeMap<u64, Place>>,
    hanging: Mutex<Hanging>,
    losses: Mutex<Vec<Loss>>,
    next: AtomicU64,
}

/// Plain values are valid after any panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Places {
    pub(super) fn new(count: usize) -> Self {
        Self {
            known: Mutex::default(),
            hanging: Mutex::new(Hanging::new(count)),
            losses: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// Somebody takes a place that is free.
    pub(super) fn taken(&self, place: Place) -> Worker {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.known).insert(id, place.clone());
        Worker { id, place }
    }

    /// He leaves it before he has worked.
    pub(super) fn left(&self, worker: u64) {
        lock(&self.known).remove(&worker);
    }

    /// A worker turns to this file of a track for a query, or to what it has of it; `false`: it must not,
    /// for the file hangs.
    pub(super) fn begin(&self, worker: &Worker, job: u64, file: Option<(u64, PathBuf)>) -> bool {
        let errand = file.map_or(Errand::HandsOut { job }, |(track, path)| Errand::Reads {
            job,
            track,
            path,
        });
        lock(&self.hanging).begin(worker.id, errand)
    }

    /// A worker waits for another one that works on the same query.
    pub(super) fn wait_for(&self, worker: &Worker, job: u64) {
        lock(&self.hanging).begin(worker.id, Errand::Waits { job });
    }

    /// Whether another one has its place.
    pub(super) fn is_given_up(&self, worker: &Worker) -> bool {
        lock(&self.hanging).is_given_up(worker.id)
    }

    /// A worker has nothing to do for now; whether it is to end, because another one has its place.
    pub(super) fn rest(&self, worker: &Worker) -> bool {
        let mut is_over = false;
        if lock(&self.hanging).end(worker.id) {
            let mut losses = lock(&self.losses);
            let at = losses.iter().position(|loss| loss.gone.worker == worker.id);
            is_over = at.is_none_or(|at| losses.swap_remove(at).place.is_none());
            if !is_over {
                lock(&self.known).insert(worker.id, worker.place.clone());
            }
        }
        if !is_over {
            worker.place.pulse.rest();
        }
        is_over
    }

    /// Who is given up now, as `standing` says of each by its number here.
    pub(super) fn look(
        &self,
        now: Duration,
        standing: &dyn Fn(u64) -> Option<Standing>,
    ) -> Vec<GivenUp> {
        let mut hanging = lock(&self.hanging);
        let mut given_up = hanging.look(now, standing);
        for gone in &given_up {
            let Some(place) = lock(&self.known).remove(&gone.worker) else { continue };
            place.pulse.rest();
            let (gone, place, is_told) = (gone.clone(), Some(place), gone.is_waiting);
            lock(&self.losses).push(Loss { gone, place, is_told, is_over: false });
        }
        // Of others nobody has to hear.
        given_up.retain(|gone| !gone.is_waiting);
        given_up
    }

    /// Places to be taken by others: who comes back from now on finds his place gone.
    pub(super) fn vacancies(&self) -> Vec<Vacancy> {
        let mut losses = lock(&self.losses);
        let vacancies = losses
            .iter_mut()
            .map(|loss| Some(Vacancy { place: loss.place.take()?, gone: loss.gone.clone() }));
        let vacancies = vacancies.flatten().collect();
        losses.retain(|loss| !loss.is_over);
        vacancies
    }

    /// Nobody could take such a place.
    pub(super) fn is_vacant(&self, Vacancy { gone, place }: Vacancy) {
        let mut losses = lock(&self.losses);
        match losses.iter_mut().find(|loss| loss.gone.worker == gone.worker) {
            Some(loss) => loss.place = Some(place),
            None => losses.push(Loss { gone, place: Some(place), is_told: true, is_over: true }),
        }
    }

    /// Tells what their queries have not heard of yet, and asks again where `tell` could not.
    pub(super) fn tell(&self, tell: impl Fn(&GivenUp) -> bool) {
        // Who comes back meanwhile waits for this lock.
        let mut losses = lock(&self.losses);
        let untold = losses.iter_mut().filter(|loss| !loss.is_told);
        untold.for_each(|loss| loss.is_told = tell(&loss.gone));
    }
}
