//! Looks for connections whose client hung up without the ring telling.
//!
//! Of connections that are reset right behind their bytes, one in some ten thousand was seen (Linux 6.18)
//! to stay: closed for the system, with its receive still armed (multishot). It looks as if one wake-up
//! stood for both, bytes and reset. So each connection is looked at now and then; one that was reset is
//! received from anew, which tells.
//!
//! Invariants: one call of the system a beat, for a bounded number of connections; whoever looks never
//! waits, takes nothing from a connection and decides nothing about it.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Connections looked at at a time.
const LOOKS: usize = 256;
/// Time between looks, microseconds.
const BEAT_US: u64 = 100_000;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Hangups {
    next: usize,
    next_us: u64,
}

impl Hangups {
    /// Which slots to look at now, of so many.
    pub(super) fn due(&mut self, slots: usize, now_us: u64) -> std::ops::Range<usize> {
        if now_us < self.next_us {
            return 0..0;
        }
        self.next_us = now_us + BEAT_US;
        let from = if self.next < slots { self.next } else { 0 };
        self.next = slots.min(from + LOOKS);
        from..self.next
    }
}

/// Which of these sockets were reset or are closed on both sides.
pub(super) fn hung_up(sockets: &[(u64, BorrowedFd<'_>)]) -> Vec<u64> {
    let mut asked: Vec<PollFd<'_>> = sockets
        .iter()
        .map(|(_, socket)| PollFd::from_borrowed_fd(*socket, PollFlags::empty()))
        .collect();
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Who is not seen now is seen at the next look.
    if asked.is_empty() || poll(&mut asked, Some(&at_once)).is_err() {
        return Vec::new();
    }
    let gone = PollFlags::HUP | PollFlags::ERR;
    let told = sockets.iter().zip(&asked);
    told.filter(|(_, asked)| asked.revents().intersects(gone)).map(|((key, _), _)| *key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn every_slot_has_its_turn_and_none_before_its_time() {
        let mut hangups = Hangups::default();
        assert_eq!(hangups.due(600, 0), 0..256);
        assert_eq!(hangups.due(600, BEAT_US - 1), 0..0);
        assert_eq!(hangups.due(600, BEAT_US), 256..512);
        assert_eq!(hangups.due(600, 2 * BEAT_US), 512..600);
        assert_eq!(hangups.due(3, 3 * BEAT_US), 0..3);
        assert_eq!(hangups.due(0, 4 * BEAT_US), 0..0);
    }

    #[test]
    fn who_was_reset_is_found_and_who_only_says_no_more_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pair = || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (client, listener.accept().unwrap().0)
        };
        let (there, ended, reset) = (pair(), pair(), pair());
        ended.0.shutdown(std::net::Shutdown::Write).unwrap();
        let linger = socket2::SockRef::from(&reset.0).set_linger(Some(std::time::Duration::ZERO));
        linger.unwrap();
        drop(reset.0);
        let sockets = [(1, there.1.as_fd()), (2, ended.1.as_fd()), (3, reset.1.as_fd())];
        assert_eq!(hung_up(&sockets), [3]);
        assert_eq!(hung_up(&[]), [0_u64; 0]);
    }
}
