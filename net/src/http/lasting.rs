//! Places for answers that last as long as their clients read: live streams and queries.
//!
//! Invariants: they hold at most three quarters of the connections, in all and of one address, so
//! that a request which is answered at once (health, metrics, records) finds a connection however
//! many follow or read slowly. A place is given back when it is dropped.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::HttpOptions;
use super::answer::Refusal;
use crate::budget::{AddressPlace, PerAddress, TooMany};

/// See the module page.
pub(super) struct Lasting {
    places: Arc<Semaphore>,
    addresses: PerAddress,
}

/// The place of one answer.
pub(super) struct LastingPlace {
    _place: OwnedSemaphorePermit,
    _of_address: AddressPlace,
}

impl Lasting {
    pub(super) fn new(options: &HttpOptions) -> Self {
        Self {
            places: Arc::new(Semaphore::new(share(options.connections_max))),
            addresses: PerAddress::new(share(options.connections_per_address_max)),
        }
    }

    /// A place for one more. An error: its client is to come again.
    pub(super) fn enter(&self, address: IpAddr) -> Result<LastingPlace, Refusal> {
        let of_address = self.addresses.enter(address).map_err(|TooMany { is_news }| {
            if is_news {
                tracing::warn!(%address, "has as many streams and queries open as it may");
            }
            refusal(format!(
                "this address has {} streams and queries open, which is as many as may \
                 (three quarters of --http.connections-per-address-max)",
                self.addresses.max()
            ))
        })?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            refusal(
                "as many streams and queries are open as may (three quarters of \
                 --http.connections-max)"
                    .to_owned(),
            )
        })?;
        Ok(LastingPlace { _place: place, _of_address: of_address })
    }
}

fn refusal(words: String) -> Refusal {
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, words).retry_later()
}

/// Three quarters, at least one.
fn share(connections: usize) -> usize {
    (connections - connections / 4).clamp(1, Semaphore::MAX_PERMITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_connections_stays_for_short_requests() {
        let options = HttpOptions {
            connections_max: 16,
            connections_per_address_max: 8,
            ..HttpOptions::default()
        };
        let lasting = Lasting::new(&options);
        let address = |n: u8| IpAddr::from([127, 0, 0, n]);
        let mut held: Vec<_> = (0..6).map(|_| lasting.enter(address(1)).unwrap()).collect();
        let refusal = lasting.enter(address(1)).map(drop).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.retry), (429, true));
        assert!(refusal.reason.contains("--http.connections-per-address-max"));
        held.extend((0..6).map(|_| lasting.enter(address(2)).unwrap()));
        let refusal = lasting.enter(address(3)).map(drop).unwrap_err();
        assert!(refusal.reason.contains("--http.connections-max"), "{}", refusal.reason);
        held.pop();
        assert!(lasting.enter(address(3)).is_ok());
    }
}
