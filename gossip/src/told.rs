//! What was told already: the same of the same address once an hour, and of few addresses altogether, so
//! that strangers do not fill a log.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::limits::{TOLD_FOR_MS, TOLD_MAX};

/// Kinds of bad news that an address can be told of.
#[derive(Debug, Default)]
pub(crate) struct Told(BTreeMap<(SocketAddr, u8), u64>);

impl Told {
    /// Whether this is to be told; from now on it was.
    pub(crate) fn is_news(&mut self, address: SocketAddr, kind: u8, now_ms: u64) -> bool {
        self.0.retain(|_, at_ms| *at_ms + TOLD_FOR_MS > now_ms);
        if self.0.contains_key(&(address, kind)) || self.0.len() >= TOLD_MAX {
            return false;
        }
        self.0.insert((address, kind), now_ms);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_told_of_once_an_address_and_no_more_than_fit() {
        let mut told = Told::default();
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let round = |told: &mut Told, now_ms| {
            (1..3_000).filter(|&port| told.is_news(address(port), 0, now_ms)).count()
        };
        assert_eq!(round(&mut told, 0), TOLD_MAX);
        assert_eq!(round(&mut told, TOLD_FOR_MS - 1), 0);
        assert_eq!(round(&mut told, TOLD_FOR_MS), TOLD_MAX);
    }
}
