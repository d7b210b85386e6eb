//! What another process holds is waited for a moment: it may be ending.
//!
//! A process that was killed lets go of its locks when its last thread has ended, and of its ports a few
//! milliseconds after that: its ring, which accepts on them, is taken down behind its back.

use std::io;
use std::time::{Duration, Instant};

/// How long what is held is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between tries.
const BEAT: Duration = Duration::from_millis(5);

/// Tries until it gives what is not `held`, or until it has been waited for long enough; gives what came
/// last.
pub(crate) fn once_not<T>(held: impl Fn(&T) -> bool, mut take: impl FnMut() -> T) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let taken = take();
        if !held(&taken) || Instant::now() >= deadline {
            return taken;
        }
        std::thread::sleep(BEAT);
    }
}

/// Tries to bind until it works, fails for another reason than that somebody has the port, or has been
/// waited for long enough.
pub(crate) fn once_released<T>(bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let is_taken = |bound: &io::Result<T>| {
        bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    once_not(is_taken, bind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_let_go_of_in_time_is_taken_and_another_error_is_told_at_once() {
        let mut tries = 0;
        let bound = once_released(|| {
            tries += 1;
            if tries < 3 { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(tries) }
        });
        assert_eq!(bound.unwrap(), 3);
        let mut tries = 0;
        let refused = once_released(|| -> io::Result<()> {
            tries += 1;
            Err(io::ErrorKind::AddrNotAvailable.into())
        });
        assert!(refused.is_err() && tries == 1);
    }
}
