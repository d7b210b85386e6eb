//! Listening sockets. The ingest ports are bound once per shard with SO_REUSEPORT; the first bind
//! is made without it, so that a port that somebody else has is an error and not a shared port.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::config::NodeConfig;
use crate::released::once_released;
use crate::units::Endpoint;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// A silent connection is asked for a sign of life after this time, then every tenth of it.
const KEEPALIVE: Duration = Duration::from_secs(120);

/// A port that cannot be listened on.
#[derive(Debug)]
pub(crate) struct ListenError {
    flag: &'static str,
    address: String,
    error: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flag, address, error } = self;
        write!(f, "cannot listen on {address} ({flag}): {error}")?;
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "; another process has it: stop that one or choose another port")
            }
            io::ErrorKind::PermissionDenied => {
                write!(f, "; ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one")
            }
            io::ErrorKind::AddrNotAvailable => write!(f, "; this host does not have that address"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ListenError {}

/// All listeners of a node.
pub(super) struct Listeners {
    pub(super) api: TcpListener,
    /// None on a node that takes no records.
    pub(super) fast: Vec<TcpListener>,
    /// The same.
    pub(super) durable: Vec<TcpListener>,
}

impl Listeners {
    /// Binds every port, the ingest ports once per shard. None is listened on yet: who connects is
    /// refused until the data is open.
    pub(super) fn bind(config: &NodeConfig, shards: usize) -> Result<Self, ListenError> {
        let mut api = bind("--api", &config.api, 1)?;
        let (mut fast, mut durable) = (Vec::new(), Vec::new());
        if let Some(ingest) = &config.ingest {
            fast = bind("--ingest.fast", &ingest.fast, shards)?;
            durable = bind("--ingest.durable", &ingest.durable, shards)?;
        }
        Ok(Self { api: api.remove(0), fast, durable })
    }

    /// Where HTTP is answered, `host:port`.
    pub(super) fn api_address(&self, config: &NodeConfig) -> String {
        self.api.local_addr().map_or_else(|_| config.api.to_string(), |address| address.to_string())
    }

    /// From now on connections come in.
    pub(super) fn listen(&self) -> Result<(), ListenError> {
        let api = std::iter::once(("--api", &self.api));
        let fast = self.fast.iter().map(|listener| ("--ingest.fast", listener));
        let durable = self.durable.iter().map(|listener| ("--ingest.durable", listener));
        for (flag, listener) in api.chain(fast).chain(durable) {
            // Somebody may have bound it in the same moment.
            once_released(|| SockRef::from(listener).listen(BACKLOG)).map_err(|error| {
                let address = listener.local_addr().map_or_else(|_| "?".into(), |a| a.to_string());
                ListenError { flag, address, error }
            })?;
        }
        Ok(())
    }

    /// Says on one line each what is listened on and where data is kept.
    pub(super) fn tell(&self, config: &NodeConfig) {
        let danger = if config.auth_file.is_some() {
            "tokens and records go over this address unencrypted, to be read on the way: put what speaks TLS before it"
        } else {
            "anybody who can reach this address can use it: there is no authentication (--auth.file)"
        };
        let fast = self.fast.first().map(|listener| ("fast", listener));
        let durable = self.durable.first().map(|listener| ("durable", listener));
        for (port, listener) in [("api", &self.api)].into_iter().chain(fast).chain(durable) {
            let Ok(address) = listener.local_addr() else { continue };
            tracing::info!(port, %address, "listening");
            if !address.ip().is_loopback() {
                tracing::warn!(port, %address, "{danger}");
            }
        }
        let absolute = |path: &std::path::Path| std::path::absolute(path).unwrap_or(path.into());
        let shown = |path| tracing::field::display(absolute(path).display().to_string());
        tracing::info!(
            ingest = config.ingest.as_ref().map(|side| shown(&side.path)),
            store = config.store.as_ref().map(|side| shown(&side.path)),
            "keeping data"
        );
    }
}

/// Resolves the address and binds `count` listeners to one port; port 0 chooses one that all of them share.
fn bind(
    flag: &'static str,
    endpoint: &Endpoint,
    count: usize,
) -> Result<Vec<TcpListener>, ListenError> {
    let failed = |error| ListenError { flag, address: endpoint.to_string(), error };
    // Before any thread is started: a slow resolver delays nothing but the start.
    let address = (endpoint.host.as_str(), endpoint.port)
        .to_socket_addrs()
        .and_then(|mut found| found.next().ok_or(io::ErrorKind::AddrNotAvailable.into()))
        .map_err(failed)?;
    // Asks whether the port is free at all; closed again before anything can connect to it.
    let free = once_released(|| socket(address, false)?.local_addr())
        .map_err(failed)?
        .as_socket()
        .unwrap_or(address);
    (0..count)
        .map(|_| socket(free, count > 1).map(TcpListener::from))
        .collect::<io::Result<_>>()
        .map_err(failed)
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    // Inherited by accepted connections.
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 10).with_retries(5),
    )?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_named_with_its_flag() {
        let any = Endpoint { host: "127.0.0.1".into(), port: 0 };
        let first = bind("--api", &any, 2).unwrap();
        for listener in &first {
            SockRef::from(listener).listen(1).unwrap();
        }
        let taken = first[0].local_addr().unwrap();
        assert_eq!(taken, first[1].local_addr().unwrap());
        let error =
            bind("--api", &Endpoint { port: taken.port(), ..any }, 2).unwrap_err().to_string();
        assert!(error.contains("--api") && error.contains("another process"), "{error}");
    }
}
