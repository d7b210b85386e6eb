//! Asks, before anything is started, whether this process may use io_uring, and if not says what
//! an operator can change.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::Ring;

/// Why there is no ring to be had.
#[derive(Debug)]
pub struct RingRefused(io::Error);

impl fmt::Display for RingRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match self.0.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                "it is switched off or filtered: set the sysctl kernel.io_uring_disabled=0, and in \
                 a container allow io_uring_setup, io_uring_enter and io_uring_register in the \
                 seccomp profile"
            }
            Some(libc::ENOSYS) => {
                "this kernel has none or a filter hides it: Linux 6.0 or later is needed, and in a \
                 container a seccomp profile that allows io_uring_setup, io_uring_enter and \
                 io_uring_register"
            }
            Some(libc::ENOMEM) => {
                "the memlock limit is too low: raise it (ulimit -l, or LimitMEMLOCK= in the unit) \
                 to 64 MiB"
            }
            Some(libc::EINVAL) => "this kernel is too old: Linux 6.0 or later is needed",
            Some(libc::EMFILE | libc::ENFILE) => {
                "no file descriptor is free: raise the nofile limit (ulimit -n, or LimitNOFILE=)"
            }
            _ => "the kernel refused it",
        };
        write!(f, "io_uring cannot be used ({}): {advice}", self.0)
    }
}

impl std::error::Error for RingRefused {}

/// Makes a small ring with everything that a shard uses, enters it once, and lets it go again.
pub fn probe() -> Result<(), RingRefused> {
    let try_it = || -> io::Result<()> {
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let wake: OwnedFd = rustix::event::eventfd(0, flags)?;
        Ring::new(2, 4096, wake)?.wait(Duration::ZERO, &mut Vec::new())
    };
    try_it().map_err(RingRefused)
}
