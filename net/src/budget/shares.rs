//! A budget of which no address holds more than its share, so that one host, whatever it does, leaves room to
//! the others.
//!
//! Invariants: an address's share is taken first, so that who waits for his own holds nothing that others
//! wait for; both come back when the guard is dropped; memory is one entry per address that holds or waits for
//! something. Where there is room for a single taker only, all of it is his share.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::per_address::host_of;
use super::{Budget, NoRoom, Spec, Taken};
use crate::metrics::BudgetMeter;

/// See the module page.
#[derive(Debug)]
pub struct Shares {
    all: Budget,
    of_each: Arc<OfEach>,
}

#[derive(Debug)]
struct OfEach {
    spec: Spec,
    share: u64,
    meter: BudgetMeter,
    addresses: Mutex<Addresses>,
}

#[derive(Debug, Default)]
struct Addresses {
    of: HashMap<IpAddr, Own>,
    /// How many of them hold so much: the most is at hand however many there are.
    holders: BTreeMap<u64, usize>,
}

/// What one address has.
#[derive(Debug)]
struct Own {
    budget: Budget,
    held: u64,
    /// Guards of it, and those who wait for one.
    users: usize,
}

/// What was taken; dropped, it is given back.
#[derive(Debug)]
#[must_use]
pub struct Share {
    all: Taken,
    own: Taken,
    _user: User,
}

/// What is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The budget.
    All,
    /// The share of this address.
    Own,
}

/// Keeps an address's entry.
#[derive(Debug)]
struct User {
    address: IpAddr,
    of: Arc<OfEach>,
    /// What goes with it.
    amount: u64,
}

impl Shares {
    /// Of this budget, of which one taker needs at most so much: a quarter of it, and no less than that, is
    /// out of the reach of a single address.
    pub fn new(
        all: Budget,
        most_of_one: u64,
        spec: Spec,
        meter: impl FnOnce(u64) -> BudgetMeter,
    ) -> Self {
        let share = share(all.limit(), most_of_one);
        let of_each = OfEach { spec, share, meter: meter(share), addresses: Mutex::default() };
        Self { all, of_each: Arc::new(of_each) }
    }

    /// The budget.
    pub const fn all(&self) -> &Budget {
        &self.all
    }

    /// What is said when it is full.
    pub fn words(&self, full: Full) -> String {
        match full {
            Full::All => self.all.words(),
            Full::Own => self.of_each.spec.words(self.of_each.share),
        }
    }

    /// Takes so much if it is there.
    pub fn try_take(&self, address: IpAddr, amount: u64) -> Result<Share, Full> {
        let (user, budget) = self.of_each.user(address);
        let own = budget.try_take(amount).map_err(|_| Full::Own)?;
        let all = self.all.try_take(amount).map_err(|_| Full::All)?;
        Ok(self.taken(all, own, user))
    }

    /// Takes so much as soon as the address may have it and it is there, or gives up at `until`.
    pub async fn take(
        &self,
        address: IpAddr,
        amount: u64,
        until: Option<Instant>,
    ) -> Result<Share, Full> {
        let (user, budget) = self.of_each.user(address);
        let own = budget.take(amount, until).await.map_err(|_: NoRoom| Full::Own)?;
        let all = self.all.take(amount, until).await.map_err(|_| Full::All)?;
        Ok(self.taken(all, own, user))
    }

    fn taken(&self, all: Taken, own: Taken, mut user: User) -> Share {
        user.amount = own.amount();
        self.of_each.hold(&mut self.of_each.lock(), user.address, |held| held + user.amount);
        Share { all, own, _user: user }
    }
}

impl Share {
    /// Whether somebody waits for what this could give back.
    pub fn is_waited_for(&self) -> bool {
        self.all.is_waited_for() || self.own.is_waited_for()
    }
}

impl OfEach {
    fn lock(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The budget of an address, and what keeps it there.
    fn user(self: &Arc<Self>, address: IpAddr) -> (User, Budget) {
        let address = host_of(address);
        let mut addresses = self.lock();
        let own = addresses.of.entry(address).or_insert_with(|| {
            let budget = Budget::new(self.spec, self.share, self.meter.of_refusals());
            Own { budget, held: 0, users: 0 }
        });
        own.users += 1;
        (User { address, of: Arc::clone(self), amount: 0 }, own.budget.clone())
    }

    /// An address holds another amount; the most that one has is told.
    fn hold(&self, addresses: &mut Addresses, address: IpAddr, change: impl FnOnce(u64) -> u64) {
        let Addresses { of, holders } = addresses;
        let Some(own) = of.get_mut(&address) else { return };
        if let Some(count) = holders.get_mut(&own.held) {
            *count -= 1;
            if *count == 0 {
                holders.remove(&own.held);
            }
        }
        own.held = change(own.held);
        if own.held > 0 {
            *holders.entry(own.held).or_default() += 1;
        }
        self.meter.set(|| holders.last_key_value().map_or(0, |(held, _)| *held));
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut addresses = self.of.lock();
        self.of.hold(&mut addresses, self.address, |held| held - self.amount);
        if let Some(own) = addresses.of.get_mut(&self.address) {
            own.users -= 1;
            if own.users == 0 {
                addresses.of.remove(&self.address);
            }
        }
    }
}

/// What one address may have.
fn share(limit: u64, most_of_one: u64) -> u64 {
    let others = (limit / 4).max(most_of_one);
    limit.saturating_sub(others).max(most_of_one.min(limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::NodeMetrics;
    use std::time::Duration;

    const ALL: Spec = Spec { name: "things", full: "there are {} things" };
    const EACH: Spec = Spec { name: "things_of_address", full: "this address has {} things" };

    fn shares(metrics: &NodeMetrics) -> Shares {
        let all = Budget::new(ALL, 16, metrics.budget(ALL.name, 16));
        Shares::new(all, 3, EACH, |share| metrics.budget(EACH.name, share))
    }

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn a_share_leaves_a_quarter_and_room_for_one_more_where_there_is_so_much() {
        assert_eq!(share(16, 3), 12);
        assert_eq!(share(16, 6), 10);
        assert_eq!(share(16, 9), 9, "two find no room anyhow");
        assert_eq!(share(16, 20), 16);
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_takes_no_more_than_its_share_and_waits_for_its_own() {
        let metrics = Arc::new(NodeMetrics::new(1));
        let shares = shares(&metrics);
        let mut held: Vec<Share> = (0..4).map(|_| shares.try_take(ip(1), 3).unwrap()).collect();
        assert_eq!(shares.try_take(ip(1), 1).unwrap_err(), Full::Own);
        assert_eq!(shares.words(Full::Own), "this address has 12 things");
        let until = Some(Instant::now() + Duration::from_secs(1));
        let mut waits = Box::pin(shares.take(ip(1), 3, until));
        assert!(tokio::time::timeout(Duration::from_millis(500), &mut waits).await.is_err());
        assert!(held[0].is_waited_for());
        // Who waits for it keeps nobody else from the rest.
        let other = shares.try_take(ip(2), 3).unwrap();
        assert!(!other.is_waited_for());
        assert_eq!(shares.try_take(ip(3), 2).unwrap_err(), Full::All);
        held.pop();
        held.push(waits.await.unwrap());
        assert_eq!(shares.take(ip(1), 3, until).await.unwrap_err(), Full::Own);
        let page = metrics.encode();
        for line in [
            "oklog_http_budget_used{budget=\"things\"} 15",
            "oklog_http_budget_used{budget=\"things_of_address\"} 12",
            "oklog_http_budget_limit{budget=\"things_of_address\"} 12",
            "oklog_http_budget_refused_total{budget=\"things_of_address\"} 2",
            "oklog_http_budget_refused_total{budget=\"things\"} 1",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}: {page}");
        }
        drop((held, other));
        assert_eq!(shares.all().used(), 0);
        let addresses = shares.of_each.lock();
        assert!(
            addresses.of.is_empty() && addresses.holders.is_empty(),
            "nothing is kept of who has gone"
        );
        drop(addresses);
        let page = metrics.encode();
        assert!(
            page.contains("oklog_http_budget_used{budget=\"things_of_address\"} 0\n"),
            "{page}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_leaves_nothing_behind() {
        let metrics = Arc::new(NodeMetrics::new(1));
        let shares = shares(&metrics);
        let _all = shares.all().try_take(16).unwrap();
        let until = Some(Instant::now() + Duration::from_secs(1));
        assert_eq!(shares.take(ip(1), 3, until).await.unwrap_err(), Full::All);
        let waits = shares.take(ip(1), 3, None);
        assert!(tokio::time::timeout(Duration::from_secs(1), waits).await.is_err());
        assert!(shares.of_each.lock().of.is_empty());
    }
}
