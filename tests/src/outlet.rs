//! Standard errors that take nothing, and addresses that need no log to be found.

use std::fs::File;
use std::io::{PipeReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, Ordering};

/// Where a standard error goes that nobody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlet {
    /// A pipe that is full.
    FullPipe,
    /// A pipe whose reader is gone.
    ClosedPipe,
    /// A file on a full disk.
    FullDisk,
}

impl Outlet {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::FullPipe, Self::ClosedPipe, Self::FullDisk];

    /// A standard error of this kind, and what has to be kept for as long as it is used.
    pub fn open(self) -> (Stdio, Option<PipeReader>) {
        if self == Self::FullDisk {
            let file = File::options().write(true).open("/dev/full").expect("Linux has it");
            return (file.into(), None);
        }
        let (reader, mut writer) = std::io::pipe().expect("a pipe can be made");
        if self == Self::ClosedPipe {
            return (writer.into(), None);
        }
        let flags = rustix::fs::fcntl_getfl(&writer).expect("a pipe has flags");
        let non_blocking = flags | rustix::fs::OFlags::NONBLOCK;
        rustix::fs::fcntl_setfl(&writer, non_blocking).expect("flags can be set");
        for len in [4096, 1] {
            while writer.write(&b"x".repeat(len)).is_ok() {}
        }
        rustix::fs::fcntl_setfl(&writer, flags).expect("flags can be set");
        (writer.into(), Some(reader))
    }
}

/// An address of the loopback network that no other test has, with the usual ports free.
pub fn own_address(port: u16) -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., a, b] = std::process::id().to_be_bytes();
    let own = NEXT.fetch_add(1, Ordering::Relaxed);
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 1 + (a & 0x7f), b, own)), port)
}
