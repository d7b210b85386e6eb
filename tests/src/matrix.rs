//! What matrices of faults share: places where a program calls its disk, what a disk may do there, and
//! cells that are tried some at a time.
//!
//! A *place* is a kind of call on a kind of file. Places are found by recording a healthy life first, so
//! that none is forgotten when the program changes. `OKLOGD_DISK_MATRIX=all` does every effect (else
//! those two that find most), and `OKLOGD_DISK_MATRIX_ONLY=TEXT` only cells whose name holds TEXT. See
//! docs/fuzzing.md.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::faulty_disk::{Call, Effect, Errno, FaultyDisk, Rule};

/// How long a fault lasts that lasts a while.
pub const A_WHILE: Duration = Duration::from_secs(5);

/// What happens at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// One call fails.
    Once,
    /// Every call fails for [`A_WHILE`].
    While,
    /// Every call fails.
    Forever,
    /// Calls are answered after [`A_WHILE`].
    Hang,
}

impl Fault {
    /// Those that are to be tried.
    pub fn wanted() -> &'static [Self] {
        match std::env::var("OKLOGD_DISK_MATRIX").as_deref() {
            Ok("all") => &[Self::Once, Self::While, Self::Forever, Self::Hang],
            _ => &[Self::Once, Self::Hang],
        }
    }

    /// It, at a place.
    pub fn rule(self, place: &Place) -> Rule {
        let eio = Effect::Fail(Errno::IO);
        let rule = |effect| Rule::new(&[place.call], &place.pattern, effect);
        match self {
            Self::Once => rule(eio).times(1),
            Self::While => rule(eio).lasting(A_WHILE),
            Self::Forever => rule(eio),
            Self::Hang => rule(Effect::Hang).lasting(A_WHILE),
        }
    }
}

/// A kind of call on a kind of file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The call.
    pub call: Call,
    /// The files, as rules name them.
    pub pattern: String,
}

impl Place {
    /// The places below this directory among the calls that a disk has recorded.
    pub fn recorded(disk: &FaultyDisk, directory: &str) -> BTreeSet<Self> {
        let is_place = |call: Call, path: &str| {
            // Names are looked up all the time, and a probe has tests of its own.
            call != Call::Stat && !path.contains("PROBE") && path.starts_with(directory)
        };
        let recorded = disk.recorded();
        let places = recorded.iter().filter(|(call, path)| is_place(*call, path));
        places.map(|(call, path)| Self { call: *call, pattern: kind_of_file(path) }).collect()
    }
}

/// A path with everything that names one file among its kind replaced by `*`.
fn kind_of_file(path: &str) -> String {
    let kinds = path.split(" -> ").map(|path| {
        let Some((directory, name)) = path.rsplit_once('/') else { return path.to_owned() };
        match name.rsplit_once('.') {
            Some((_, extension)) => format!("{directory}/*.{extension}"),
            None => path.to_owned(),
        }
    });
    kinds.collect::<Vec<_>>().join(" -> ")
}

/// One thing to try.
#[derive(Debug, Clone)]
pub struct Cell<M> {
    /// When in the life.
    pub moment: M,
    /// Where.
    pub place: Place,
    /// What.
    pub fault: Fault,
    name: String,
}

/// Every fault that is wanted at each of these places.
pub fn cells<M: Copy>(places: impl IntoIterator<Item = (M, &'static str, Place)>) -> Vec<Cell<M>> {
    let only = std::env::var("OKLOGD_DISK_MATRIX_ONLY").unwrap_or_default();
    let mut cells = Vec::new();
    for (moment, moment_name, place) in places {
        for &fault in Fault::wanted() {
            let Place { call, pattern } = &place;
            let name = format!("{fault:?} {call:?} {pattern} ({moment_name})");
            if name.contains(&only) {
                cells.push(Cell { moment, place: place.clone(), fault, name });
            }
        }
    }
    cells
}

/// Tries all, so many at a time; panics with the names of those that failed. `Ok(false)`: the place was
/// not met, for a life is not the same twice.
pub fn try_all<M: Sync>(
    cells: &[Cell<M>],
    at_a_time: usize,
    attempt: impl Fn(&Cell<M>) -> Result<bool, String> + Sync,
) {
    let attempt = |cell: &Cell<M>| {
        let outcome = catch_unwind(AssertUnwindSafe(|| attempt(cell)));
        outcome.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(format!("panicked: {}", text.unwrap_or_default()))
        })
    };
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    let outcome = match attempt(cell) {
                        Ok(false) => attempt(cell),
                        outcome => outcome,
                    };
                    let (name, took) = (&cell.name, start.elapsed().as_secs());
                    match outcome {
                        Ok(true) => eprintln!("ok    {name} ({took} s)"),
                        Ok(false) => eprintln!("unmet {name} ({took} s)"),
                        Err(why) => {
                            eprintln!("FAIL  {name}: {why}\n");
                            failed.lock().expect("nobody panics with it").push(name.clone());
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics with it");
    assert!(failed.is_empty(), "{} of {} cells failed: {failed:#?}", failed.len(), cells.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_kind_of_file() {
        assert_eq!(kind_of_file("data/ingest/01K-2.active"), "data/ingest/*.active");
        assert_eq!(kind_of_file("data/store"), "data/store");
        assert_eq!(kind_of_file("data/a/1.x -> data/a/2.y"), "data/a/*.x -> data/a/*.y");
    }
}
