//! When the ring is to be asked for further connections of a listener.
//!
//! Invariants: a pure value, `now` is passed in; a listener whose accepting was refused for want of
//! descriptors or memory pauses for [`ACCEPT_PAUSE`], and who connects meanwhile waits in the
//! kernel's queue; that is told once, until it works again.

use std::io;

use crate::limits::ACCEPT_PAUSE;

/// See the module page.
#[derive(Debug)]
pub(super) struct Accepting {
    /// Listeners to arm, and from when on, monotonic µs.
    to_arm: Vec<(u32, u64)>,
    /// The last accept was refused.
    is_refused: bool,
}

impl Accepting {
    /// All of them are to be armed at once.
    pub(super) fn new(listeners: &[u32]) -> Self {
        Self { to_arm: listeners.iter().map(|&id| (id, 0)).collect(), is_refused: false }
    }

    /// The listeners that the ring is to be asked for now.
    pub(super) fn take_due(&mut self, now_us: u64) -> Vec<u32> {
        self.to_arm.extract_if(.., |(_, from_us)| *from_us <= now_us).map(|(id, _)| id).collect()
    }

    /// Accepting has brought a connection.
    pub(super) fn works(&mut self) {
        self.is_refused = false;
    }

    /// Accepting has failed; whether that is news to the operator.
    pub(super) fn fails(&mut self, error: &io::Error) -> bool {
        is_accept_refused(error) && !std::mem::replace(&mut self.is_refused, true)
    }

    /// The ring has to be asked again for this listener.
    pub(super) fn ended(&mut self, listener: u32, now_us: u64) {
        let pause_us = if self.is_refused { ACCEPT_PAUSE.as_micros() as u64 } else { 0 };
        self.to_arm.push((listener, now_us + pause_us));
    }
}

/// Whether accepting failed for want of something (descriptors, memory), and not because this one
/// client is gone, accept(2), or accepting has ended.
pub(crate) fn is_accept_refused(error: &io::Error) -> bool {
    let of_one = [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::Interrupted,
        io::ErrorKind::WouldBlock,
    ];
    !of_one.contains(&error.kind()) && error.raw_os_error() != Some(libc::ECANCELED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_listener_pauses_and_is_told_once_until_it_works() {
        let none_left = || io::Error::from_raw_os_error(libc::EMFILE);
        let mut accepting = Accepting::new(&[1, 2]);
        assert_eq!(accepting.take_due(0), [1, 2]);
        for round in 0..100 {
            let now_us = round * 1_000_000;
            assert_eq!(accepting.fails(&none_left()), round == 0, "told once");
            accepting.ended(1, now_us);
            assert!(accepting.take_due(now_us + 99_999).is_empty(), "no spinning");
            assert_eq!(accepting.take_due(now_us + 100_000), [1], "no starving");
        }
        accepting.works();
        accepting.ended(1, 500);
        assert_eq!(accepting.take_due(500), [1]);
        assert!(accepting.fails(&none_left()));
    }

    #[test]
    fn a_client_that_is_gone_already_is_no_refusal() {
        let mut accepting = Accepting::new(&[1]);
        accepting.take_due(0);
        for number in [libc::ECONNABORTED, libc::EINTR, libc::ECANCELED] {
            assert!(!accepting.fails(&io::Error::from_raw_os_error(number)));
            accepting.ended(1, 7);
            assert_eq!(accepting.take_due(7), [1]);
        }
    }
}
