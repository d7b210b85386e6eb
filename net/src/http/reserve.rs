//! One descriptor that is kept for the time when there are none: while no connection can be accepted
//! for want of them, it is given up for one connection after the other, so that whoever asks a node
//! what is wrong gets an answer.
//!
//! Invariants: a connection in its place serves one request and has [`RESERVE_SERVES`] for it; at most
//! one is open at a time. Where somebody else takes the descriptor meanwhile, it is taken back as soon
//! as there is one.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct State {
    descriptor: Option<File>,
    /// A connection has its place.
    is_given: bool,
}

/// See the module page. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Reserve(Arc<Mutex<State>>);

/// The place of one connection; dropping it, behind the connection, takes the descriptor back.
#[derive(Debug)]
pub(super) struct ReservePlace(Reserve);

impl Reserve {
    /// Takes the descriptor. The earlier that is, the lower is its number, and the lower may the
    /// limit become that it still helps with.
    pub fn take() -> Self {
        let reserve = Self::default();
        reserve.refill();
        reserve
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes it back, if there is one to be had.
    fn refill(&self) {
        *self.lock() = State { descriptor: File::open("/dev/null").ok(), is_given: false };
    }

    /// Takes it back, unless a connection has its place.
    pub(super) fn refill_if_lost(&self) {
        let is_lost = {
            let state = self.lock();
            state.descriptor.is_none() && !state.is_given
        };
        if is_lost {
            self.refill();
        }
    }

    /// Gives it up; `None` where it is given up already.
    pub(super) fn give(&self) -> Option<ReservePlace> {
        let mut state = self.lock();
        state.descriptor.take()?;
        state.is_given = true;
        Some(ReservePlace(self.clone()))
    }
}

impl Drop for ReservePlace {
    fn drop(&mut self) {
        self.0.refill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_to_one_at_a_time() {
        assert!(Reserve::default().give().is_none());
        let reserve = Reserve::take();
        let place = reserve.give().unwrap();
        assert!(reserve.give().is_none());
        reserve.refill_if_lost();
        assert!(reserve.give().is_none(), "it is not lost");
        drop(place);
        assert!(reserve.give().is_some());
    }
}
