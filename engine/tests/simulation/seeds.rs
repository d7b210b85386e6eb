//! Many seeds of one simulation: which, that a seed decides everything, and how fast they go.
//!
//! `OKLOGD_SEEDS=N` tries the first N instead of the default number, `OKLOGD_SEED=N` that one alone. Of all
//! one in a hundred is run twice (ten, if they are fewer than a thousand), and has to do the same: its
//! trace is compared by hash. Seeds per second of processor time are printed, so that other work on the
//! machine does not count.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Of a thousand seeds so many are run twice, and of fewer as many.
const RUN_TWICE: u64 = 10;
/// But of many seeds one in so many.
const RUN_TWICE_EVERY: u64 = 100;

fn of_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|number| number.parse().ok())
}

/// Processor time of this thread, which does all that a simulation does.
fn processor_time() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), spent.tv_nsec.unsigned_abs() as u32)
}

/// Runs a simulation for many seeds and names the first that fails. `simulate` gives a trace of
/// everything that happened, as a number.
pub(crate) fn for_seeds(what: &str, count: u64, simulate: fn(u64) -> u64) {
    let count = of_environment("OKLOGD_SEEDS").unwrap_or(count);
    let only = of_environment("OKLOGD_SEED");
    let range = only.map_or(0..count, |seed| seed..seed + 1);
    let every = (count / RUN_TWICE).clamp(1, RUN_TWICE_EVERY);
    let (start, mut runs) = (processor_time(), 0);
    for seed in range {
        let run = || catch_unwind(AssertUnwindSafe(|| simulate(seed))).ok();
        let trace = run();
        runs += 1;
        assert!(trace.is_some(), "seed {seed} fails; OKLOGD_SEED={seed} runs it alone");
        if only.is_some() || seed.is_multiple_of(every) {
            runs += 1;
            assert_eq!(trace, run(), "seed {seed} did something else when it was run again");
        }
    }
    let seconds = processor_time().saturating_sub(start).as_secs_f64();
    let rate = f64::from(u32::try_from(runs).unwrap_or(u32::MAX)) / seconds;
    // Past what tests that pass keep to themselves.
    let _ = writeln!(
        std::io::stderr(),
        "simulation of {what}: {runs} seeds in {seconds:.2} s of processor time, {rate:.1} a second"
    );
}
