//! How many connections one address may have, so that one host cannot take the places of all.
//!
//! Invariants: a place is given back when its guard is dropped; memory is one entry per address
//! that is connected. IPv6 addresses count by their /64, which is what one host is given.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::account::Account;
use crate::metrics::BudgetMeter;

/// Nobody waits for a place.
type Entries = HashMap<IpAddr, Account<()>>;

/// The counts of one kind of connections. Clones share them.
#[derive(Debug, Clone)]
pub struct PerAddress {
    max: usize,
    entries: Arc<Mutex<Entries>>,
    meter: BudgetMeter,
}

/// A connection's place; dropping it gives the place back.
#[derive(Debug)]
pub struct AddressPlace {
    address: IpAddr,
    of: PerAddress,
}

/// An address has as many connections as it may; whether that is news to the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// The first refusal since a quarter of its places was free.
    pub is_news: bool,
}

impl PerAddress {
    /// At most so many connections per address.
    pub fn new(max: usize) -> Self {
        Self::metered(max, BudgetMeter::default())
    }

    /// The same, told: the most that one address has, and how many were sent away.
    pub fn metered(max: usize, meter: BudgetMeter) -> Self {
        Self { max, entries: Arc::default(), meter }
    }

    /// How many each may have.
    pub const fn max(&self) -> usize {
        self.max
    }

    /// A place for one more connection.
    pub fn enter(&self, address: IpAddr) -> Result<AddressPlace, TooMany> {
        let address = host_of(address);
        let mut entries = self.lock();
        let entry = entries.entry(address).or_insert_with(|| Account::new(self.max as u64));
        if entry.try_take(1).is_err() {
            let is_news = entry.is_news();
            if entry.used() == 0 {
                // Nothing is kept of one that may have none.
                entries.remove(&address);
            }
            self.meter.refused();
            return Err(TooMany { is_news });
        }
        self.tell(&entries);
        drop(entries);
        Ok(AddressPlace { address, of: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, entries: &Entries) {
        self.meter.set(|| entries.values().map(Account::used).max().unwrap_or(0));
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut entries = self.of.lock();
        if let Some(entry) = entries.get_mut(&self.address) {
            entry.give_back(1);
            entry.is_over();
            if entry.used() == 0 {
                entries.remove(&self.address);
            }
        }
        self.of.tell(&entries);
    }
}

/// The address that counts.
pub(crate) fn host_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let mut octets = address.octets();
            octets[8..].fill(0);
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_comes_back_with_its_connection_and_others_are_not_touched() {
        let places = PerAddress::new(2);
        let first = places.enter(ip("10.0.0.1")).unwrap();
        let _second = places.enter(ip("::ffff:10.0.0.1")).unwrap();
        assert_eq!(places.enter(ip("10.0.0.1")).unwrap_err(), TooMany { is_news: true });
        assert_eq!(places.enter(ip("10.0.0.1")).unwrap_err(), TooMany { is_news: false });
        assert!(places.enter(ip("10.0.0.2")).is_ok());
        drop(first);
        assert!(places.enter(ip("10.0.0.1")).is_ok());
    }

    #[test]
    fn a_host_with_many_addresses_of_one_network_counts_as_one() {
        let places = PerAddress::new(1);
        let _one = places.enter(ip("2001:db8:0:1::1")).unwrap();
        assert!(places.enter(ip("2001:db8:0:1:ffff::2")).is_err());
        assert!(places.enter(ip("2001:db8:0:2::1")).is_ok());
    }

    #[test]
    fn nothing_is_kept_of_who_has_gone() {
        let places = PerAddress::new(1);
        for n in 0..1_000u32 {
            drop(places.enter(IpAddr::from(n.to_be_bytes())));
        }
        assert!(places.entries.lock().unwrap().is_empty());
    }
}
