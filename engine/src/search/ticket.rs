//! A single value that comes later: the asynchronous end of stats, histogram and topics.
//!
//! Invariants: the value is delivered once; dropping the ticket tells the hook, which cancels the
//! work; a sender that goes without a value leaves `None` behind, so that nobody waits for ever.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

struct State<T> {
    value: Option<T>,
    sender_gone: bool,
    ticket_gone: bool,
    waker: Option<Waker>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    on_drop: Arc<dyn Fn() + Send + Sync>,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No value comes any more.
    fn is_gone(&self) {
        let mut state = self.lock();
        state.sender_gone = true;
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A future that yields the value, or `None` if the searcher stopped first. Dropping it cancels
/// the work.
pub struct Ticket<T> {
    shared: Arc<Shared<T>>,
}

/// Where the value is put.
pub(super) struct TicketSender<T> {
    shared: Arc<Shared<T>>,
}

/// Makes a pair.
pub(super) fn ticket<T>(on_drop: Arc<dyn Fn() + Send + Sync>) -> (TicketSender<T>, Ticket<T>) {
    let state = State { value: None, sender_gone: false, ticket_gone: false, waker: None };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), on_drop });
    (TicketSender { shared: Arc::clone(&shared) }, Ticket { shared })
}

impl<T> TicketSender<T> {
    /// Whether nobody waits any more.
    pub(super) fn is_cancelled(&self) -> bool {
        self.shared.lock().ticket_gone
    }

    /// What leaves `None` behind from outside.
    pub(super) fn breaker(&self) -> Box<dyn Fn() + Send + Sync>
    where
        T: Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        Box::new(move || shared.is_gone())
    }

    /// Delivers the value.
    pub(super) fn send(self, value: T) {
        self.shared.lock().value = Some(value);
    }
}

impl<T> Drop for TicketSender<T> {
    fn drop(&mut self) {
        self.shared.is_gone();
    }
}

impl<T> Ticket<T> {
    /// Waits on this thread.
    pub fn wait_blocking(self) -> Option<T> {
        let mut state = self.shared.lock();
        while !state.sender_gone {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.value.take()
    }
}

impl<T> Future for Ticket<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.shared.lock();
        if state.sender_gone {
            return Poll::Ready(state.value.take());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Ticket<T> {
    fn drop(&mut self) {
        self.shared.lock().ticket_gone = true;
        (self.shared.on_drop)();
    }
}
