//! What a supervisor that started us with `Type=notify` is told: datagrams as sd_notify(3)
//! describes them, to the socket that `NOTIFY_SOCKET` names.
//!
//! Invariants: without the variable nothing is sent; a supervisor that does not listen is no
//! reason to fail, and one whose socket is full is no reason to wait: what it has to hear is sent
//! again with the next news, in order.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Where to send to, if there is somebody.
pub(super) struct Supervisor {
    address: Option<SocketAddr>,
    watchdog: Option<Duration>,
    /// Changes of state that it has not heard of yet; there are two in a life.
    unheard: Vec<&'static str>,
}

impl Supervisor {
    /// The one that the environment names.
    pub(super) fn from_environment() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let address = variable("NOTIFY_SOCKET").and_then(|name| address(name.as_bytes()));
        let text = |name| variable(name).and_then(|value| value.into_string().ok());
        let watchdog = watchdog(text("WATCHDOG_USEC"), text("WATCHDOG_PID"), std::process::id());
        Self { address, watchdog, unheard: Vec::new() }
    }

    /// A change of state: assignments, one a line. It is told now, or with what is told next.
    pub(super) fn tell(&mut self, state: &'static str) {
        self.unheard.push(state);
        self.tell_again();
    }

    /// Tells what could not be told before.
    pub(super) fn tell_again(&mut self) {
        while let Some(state) = self.unheard.first() {
            if self.send(state).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return;
            }
            self.unheard.remove(0);
        }
    }

    /// A sign of life. One that cannot be told is made up for by the next.
    pub(super) fn tell_alive(&mut self) {
        self.tell_again();
        // What failed is told in `send`.
        let _ = self.send("WATCHDOG=1");
    }

    fn send(&self, state: &str) -> io::Result<()> {
        let Some(address) = &self.address else { return Ok(()) };
        let send = || {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            socket.send_to_addr(state.as_bytes(), address).map(drop)
        };
        send().inspect_err(|error| {
            tracing::debug!("the supervisor could not be told {state:?}: {error}");
        })
    }

    /// How often it wants to hear `WATCHDOG=1`, with room for a late one; `None`: never.
    pub(super) fn watchdog_interval(&self) -> Option<Duration> {
        self.address.as_ref().and(self.watchdog)
    }
}

/// A path, or an abstract name behind `@`.
fn address(name: &[u8]) -> Option<SocketAddr> {
    match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)).ok(),
        _ => None,
    }
}

/// Half of the time after which it would take us for hung, if it means this process.
fn watchdog(usec: Option<String>, pid: Option<String>, own_pid: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own_pid)) {
        return None;
    }
    let usec: u64 = usec?.parse().ok().filter(|&usec| usec > 0)?;
    Some(Duration::from_micros(usec / 2).max(Duration::from_millis(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_paths_or_abstract_names() {
        assert!(address(b"/run/x").unwrap().as_pathname().is_some());
        assert_eq!(address(b"@x/y").unwrap().as_abstract_name(), Some(&b"x/y"[..]));
        assert!(address(b"vsock:2:1").is_none() && address(b"").is_none());
    }

    #[test]
    fn the_watchdog_is_fed_twice_per_its_time_and_only_by_the_process_that_it_means() {
        let text = |t: &str| Some(t.to_owned());
        assert_eq!(watchdog(text("2000000"), None, 7), Some(Duration::from_secs(1)));
        assert_eq!(watchdog(text("2000000"), text("7"), 7), Some(Duration::from_secs(1)));
        assert_eq!(watchdog(text("2000000"), text("8"), 7), None);
        assert_eq!(watchdog(text("0"), None, 7), None);
        assert_eq!(watchdog(text("x"), None, 7), None);
        assert_eq!(watchdog(None, None, 7), None);
    }
}
