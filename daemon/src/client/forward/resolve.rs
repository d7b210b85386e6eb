//! From a target to socket addresses, anew for each connection.
//!
//! Invariants: nothing is remembered between look-ups, so that what the name service says now is
//! what counts; a look-up is bounded in time and in the addresses that it yields.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;

use super::limits::{FORWARD_ADDRESSES_MAX, FORWARD_LOOKUP_TIMEOUT};
use super::rotation::{Random, SrvHost, Target, order_addresses, order_srv};

/// Time for one try of one name server.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
/// Tries beside the first.
const TRIES: usize = 2;

/// Why a target has no address now.
#[derive(Debug)]
pub(crate) struct LookupError(String);

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The addresses of `target` in the order to try them; at least one.
pub(crate) async fn resolve(
    target: &Target,
    server: Option<SocketAddr>,
    last_used: Option<SocketAddr>,
    random: Random<'_>,
) -> Result<Vec<SocketAddr>, LookupError> {
    let found = async {
        match target {
            Target::Host { host, port } => {
                let found = tokio::net::lookup_host((host.as_str(), *port)).await;
                let found = found.map_err(|e| LookupError(e.to_string()))?;
                Ok(order_addresses(found.take(FORWARD_ADDRESSES_MAX).collect(), last_used, random))
            }
            Target::Dns { name, port } => {
                let found = addresses(&resolver(server)?, name, *port).await?;
                Ok(order_addresses(found, last_used, random))
            }
            Target::Srv { name } => services(&resolver(server)?, name, last_used, random).await,
        }
    };
    let found = tokio::time::timeout(FORWARD_LOOKUP_TIMEOUT, found)
        .await
        .map_err(|_| LookupError("the name service does not answer".to_owned()))??;
    if found.is_empty() {
        return Err(LookupError("the name has no address".to_owned()));
    }
    Ok(found)
}

fn resolver(server: Option<SocketAddr>) -> Result<TokioResolver, LookupError> {
    let failed = |e: &dyn fmt::Display| LookupError(format!("the name service: {e}"));
    let mut builder = match server {
        Some(address) => {
            let on_port = |mut connection: ConnectionConfig| {
                connection.port = address.port();
                connection
            };
            let connections =
                vec![on_port(ConnectionConfig::udp()), on_port(ConnectionConfig::tcp())];
            let server = NameServerConfig::new(address.ip(), true, connections);
            TokioResolver::builder_with_config(
                ResolverConfig::from_name_servers(vec![server]),
                TokioRuntimeProvider::default(),
            )
        }
        None => TokioResolver::builder_tokio().map_err(|e| failed(&e))?,
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    options.timeout = TRY_TIMEOUT;
    options.attempts = TRIES;
    builder.build().map_err(|e| failed(&e))
}

/// Why a look-up yields nothing. Who tells it names the target.
fn not_found(what: &str, error: &NetError) -> LookupError {
    if error.is_no_records_found() {
        LookupError(format!("the name service knows no {what} of this name"))
    } else {
        LookupError(error.to_string())
    }
}

async fn addresses(
    resolver: &TokioResolver,
    name: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, LookupError> {
    let found = resolver.lookup_ip(name).await;
    let found = found.map_err(|e| not_found("address", &e))?;
    Ok(found.iter().map(|ip| SocketAddr::new(ip, port)).take(FORWARD_ADDRESSES_MAX).collect())
}

/// The hosts of a service by priority and weight, each with its addresses.
async fn services(
    resolver: &TokioResolver,
    name: &str,
    last_used: Option<SocketAddr>,
    random: Random<'_>,
) -> Result<Vec<SocketAddr>, LookupError> {
    let answer = resolver.srv_lookup(name).await.map_err(|e| not_found("SRV record", &e))?;
    let hosts = answer.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(srv) => Some(SrvHost {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            name: srv.target.to_utf8(),
        }),
        _ => None,
    });
    let hosts = order_srv(hosts.take(FORWARD_ADDRESSES_MAX).collect(), random);
    let mut found = Vec::new();
    let mut last_error = None;
    for host in hosts {
        match addresses(resolver, &host.name, host.port).await {
            Ok(ips) => found.extend(order_addresses(ips, last_used, random)),
            Err(error) => last_error = Some(LookupError(format!("{}: {error}", host.name))),
        }
        if found.len() >= FORWARD_ADDRESSES_MAX {
            break;
        }
    }
    match last_error {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}
