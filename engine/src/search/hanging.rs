//! Which scan threads do not come back from a file, and what follows from it: a disk that hangs (NFS,
//! FUSE, a controller) must not keep queries over other files waiting.
//!
//! A thread that waits inside a call for [`HANG_MS`] without getting on is given up: its query goes on
//! without the file, another thread takes its place, and until it comes back no query waits for this
//! file. Where twice as many threads are given up in one directory as there are scan threads, all files of
//! it are left out. So at most three times as many threads as that hang at a time in each directory: a
//! thread that hangs in the kernel cannot be taken back, and each may have gone to the same file before
//! anybody knew.
//!
//! Invariants: pure, no clock and no threads; a thread that gets on, however slowly, has to wait for a
//! processor, or waits for one that gets on, is never given up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::disk_health::HANG_MS;

/// What the system says of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// It waits in a call, as opposed to running or waiting for a processor.
    pub is_waiting: bool,
    /// How often it has begun to wait: another number when it has got on meanwhile.
    pub waits: u64,
}

/// What a thread is at.
#[derive(Debug, Clone)]
pub(super) enum Errand {
    /// A file, to which a track of a query leads.
    Reads {
        /// The query.
        job: u64,
        /// The query's track.
        track: u64,
        /// The file.
        path: PathBuf,
    },
    /// What was found is handed out.
    HandsOut {
        /// The query.
        job: u64,
    },
    /// Another one works on the query just now.
    Waits {
        /// The query.
        job: u64,
    },
}

impl Errand {
    const fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::Reads { path, .. } => Some(path),
            Self::HandsOut { .. } | Self::Waits { .. } => None,
        }
    }
}

#[derive(Debug)]
struct Worker {
    errand: Errand,
    /// How it stood when it was looked at first in the state that it is in.
    seen: Option<(Duration, u64)>,
    is_given_up: bool,
}

/// A thread that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    pub(super) worker: u64,
    pub(super) job: u64,
    pub(super) track: Option<u64>,
    /// It waits for one who was given up, and is not to blame.
    pub(super) is_waiting: bool,
    /// The file that does not answer, where that is known.
    pub path: Option<PathBuf>,
}

impl GivenUp {
    fn of(worker: u64, errand: &Errand) -> Self {
        let (job, track, is_waiting) = match errand {
            Errand::Reads { job, track, .. } => (*job, Some(*track), false),
            Errand::HandsOut { job } => (*job, None, false),
            Errand::Waits { job } => (*job, None, true),
        };
        Self { worker, job, track, is_waiting, path: errand.file().cloned() }
    }
}

/// See the page of the module.
#[derive(Debug)]
pub(super) struct Hanging {
    workers: BTreeMap<u64, Worker>,
    per_directory_max: usize,
}

impl Hanging {
    /// For so many scan threads.
    pub(super) const fn new(threads: usize) -> Self {
        Self { workers: BTreeMap::new(), per_directory_max: 2 * threads }
    }

    /// A thread turns to something else; `false`: it must not, for it would hang.
    pub(super) fn begin(&mut self, worker: u64, errand: Errand) -> bool {
        let is_refused = errand.file().is_some_and(|path| self.is_refused(path));
        if !is_refused {
            let before = self.workers.get(&worker).is_some_and(|worker| worker.is_given_up);
            let worker_now = Worker { errand, seen: None, is_given_up: before };
            self.workers.insert(worker, worker_now);
        }
        !is_refused
    }

    fn is_refused(&self, path: &Path) -> bool {
        let given_up = self.workers.values().filter(|worker| worker.is_given_up);
        let hanging = given_up.filter_map(|worker| worker.errand.file());
        let mut of_directory = 0;
        for other in hanging {
            if other == path {
                return true;
            }
            of_directory += usize::from(other.parent() == path.parent());
        }
        of_directory >= self.per_directory_max
    }

    /// Whether a thread was given up.
    pub(super) fn is_given_up(&self, worker: u64) -> bool {
        self.workers.get(&worker).is_some_and(|worker| worker.is_given_up)
    }

    /// A thread is at nothing any more; says whether it was given up.
    pub(super) fn end(&mut self, worker: u64) -> bool {
        self.workers.remove(&worker).is_some_and(|worker| worker.is_given_up)
    }

    /// Gives up the threads that do not get on, as `standing` says of each; those who wait for another
    /// one only together with him.
    pub(super) fn look(
        &mut self,
        now: Duration,
        mut standing: impl FnMut(u64) -> Option<Standing>,
    ) -> Vec<GivenUp> {
        let mut given_up = Vec::new();
        for (&id, worker) in self.workers.iter_mut().filter(|(_, worker)| !worker.is_given_up) {
            let is_waiting = matches!(worker.errand, Errand::Waits { .. });
            if worker.hangs(now, standing(id)) && !is_waiting {
                worker.is_given_up = true;
                given_up.push(GivenUp::of(id, &worker.errand));
            }
        }
        let held = self.workers.values().filter(|worker| worker.is_given_up);
        let held = held.filter_map(|worker| match worker.errand {
            Errand::HandsOut { job } => Some(job),
            Errand::Reads { .. } | Errand::Waits { .. } => None,
        });
        let held: BTreeSet<u64> = held.collect();
        for (&id, worker) in self.workers.iter_mut().filter(|(_, worker)| !worker.is_given_up) {
            if matches!(worker.errand, Errand::Waits { job } if held.contains(&job)) {
                worker.is_given_up = true;
                given_up.push(GivenUp::of(id, &worker.errand));
            }
        }
        given_up
    }
}

impl Worker {
    /// Whether it stands as it stood long ago.
    fn hangs(&mut self, now: Duration, standing: Option<Standing>) -> bool {
        let Some(Standing { is_waiting: true, waits }) = standing else {
            self.seen = None;
            return false;
        };
        match self.seen {
            Some((since, before)) if before == waits => {
                now.saturating_sub(since) >= Duration::from_millis(HANG_MS)
            }
            _ => {
                self.seen = Some((now, waits));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errand(path: &str) -> Errand {
        Errand::Reads { job: 1, track: 7, path: PathBuf::from(path) }
    }

    const fn waiting(waits: u64) -> Standing {
        Standing { is_waiting: true, waits }
    }

    #[test]
    fn a_thread_is_given_up_only_when_it_waits_without_getting_on() {
        let at = Duration::from_millis;
        let mut hanging = Hanging::new(2);
        assert!(hanging.begin(0, errand("d/a")));
        let mut look = |ms, standing| hanging.look(at(ms), |_| standing).len();
        for ms in (0..100_000).step_by(1_000) {
            assert_eq!(look(ms, Some(waiting(ms))), 0, "a slow disk");
        }
        for ms in (100_000..200_000).step_by(1_000) {
            let starved = Standing { is_waiting: false, waits: 5 };
            assert_eq!(look(ms, Some(starved)), 0, "no processor");
            assert_eq!(look(ms, None), 0, "the system does not say");
        }
        assert_eq!(look(200_000, Some(waiting(5))), 0);
        assert_eq!(look(200_000 + HANG_MS - 1, Some(waiting(5))), 0);
        assert_eq!(look(200_000 + HANG_MS, Some(waiting(5))), 1);
        assert_eq!(look(300_000, Some(waiting(5))), 0, "it is told once");
    }

    #[test]
    fn nobody_turns_to_a_file_that_hangs_until_its_thread_is_back() {
        let now = Duration::from_secs(7);
        let later = now + Duration::from_millis(HANG_MS);
        let mut hanging = Hanging::new(2);
        assert!(hanging.begin(0, errand("d/a")));
        assert!(hanging.begin(1, errand("d/a")), "nobody knows yet");
        for at in [now, later] {
            hanging.look(at, |worker| Some(waiting(5)).filter(|_| worker == 0));
        }
        assert!(!hanging.begin(1, errand("d/a")));
        assert!(hanging.begin(1, errand("d/b")));
        assert!(hanging.begin(1, Errand::HandsOut { job: 2 }));
        assert!(!hanging.end(1));
        assert!(hanging.end(0), "it was given up");
        assert!(hanging.begin(1, errand("d/a")));
    }

    #[test]
    fn where_many_files_of_a_directory_hang_all_of_them_are_left_out() {
        let now = Duration::from_secs(7);
        let later = now + Duration::from_millis(HANG_MS);
        let mut hanging = Hanging::new(1);
        for (worker, path) in ["d/a", "d/b"].into_iter().enumerate() {
            assert!(hanging.begin(worker as u64, errand(path)));
        }
        for at in [now, later] {
            hanging.look(at, |_| Some(waiting(5)));
        }
        assert!(!hanging.begin(9, errand("d/c")));
        assert!(hanging.begin(9, errand("e/c")));
        hanging.end(0);
        assert!(hanging.begin(9, errand("d/c")));
    }
    #[test]
    fn who_waits_for_another_one_is_given_up_only_together_with_him() {
        let at = |looks: u64| Duration::from_millis(looks * HANG_MS);
        let mut hanging = Hanging::new(4);
        hanging.begin(3, Errand::HandsOut { job: 1 });
        hanging.begin(0, Errand::Waits { job: 1 });
        hanging.begin(1, Errand::Waits { job: 2 });
        // That one is slow, and gets on.
        for looks in 0..5 {
            let standing = |worker| Some(waiting(if worker == 3 { looks } else { 5 }));
            assert_eq!(hanging.look(at(looks), standing), []);
        }
        let given_up = [5, 6].map(|looks| hanging.look(at(looks), |_| Some(waiting(5)))).concat();
        let who: Vec<_> = given_up.iter().map(|gone| (gone.worker, gone.is_waiting)).collect();
        assert_eq!(who, [(3, false), (0, true)]);
        assert_eq!(hanging.look(at(9), |_| Some(waiting(5))), [], "of another query");
    }
}
