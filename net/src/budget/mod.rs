//! Budgets: bounded resources that requests take before they use them.
//!
//! A budget has a name, a limit, what is out of it, and words for those who find it empty. There is
//! one way to take: at once, or waiting up to a moment; what is taken comes back when its guard is
//! dropped. Places by address are counted by the same account ([`PerAddress`]), and so is what an address may
//! have of a budget ([`Shares`]).
//!
//! Invariants: the decision is `account`'s; here are its lock, those who wait, what is counted
//! ([`BudgetMeter`]), and one log line when it is full and one when it is over. Nothing is awaited or
//! dropped under the lock. Whoever needs several budgets takes them in one order everywhere, so that no two
//! wait for each other.

mod account;
mod per_address;
mod shares;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

pub use self::account::NoRoom;
use self::account::{Account, Ticket};
pub(crate) use self::per_address::host_of;
pub use self::per_address::{AddressPlace, PerAddress, TooMany};
pub use self::shares::{Full, Share, Shares};
use crate::metrics::BudgetMeter;

/// What a budget is called and what is said when it is empty.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Its name in metrics and in the log, with its unit where that is bytes.
    pub name: &'static str,
    /// What is full, how much of it there is (in place of `{}`), and what raises it.
    pub full: &'static str,
}

impl Spec {
    /// The words, with the limit in them.
    pub fn words(&self, limit: u64) -> String {
        self.full.replace("{}", &limit.to_string())
    }
}

/// See the module page. Clones are the same budget.
#[derive(Debug, Clone)]
pub struct Budget {
    of: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    spec: Spec,
    limit: u64,
    meter: BudgetMeter,
    account: Mutex<Account<oneshot::Sender<Taken>>>,
}

/// What was taken; dropped, it is given back.
#[derive(Debug)]
#[must_use]
pub struct Taken {
    of: Arc<Shared>,
    amount: u64,
}

impl Budget {
    /// With so much in it.
    pub fn new(spec: Spec, limit: u64, meter: BudgetMeter) -> Self {
        let account = Mutex::new(Account::new(limit));
        Self { of: Arc::new(Shared { spec, limit, meter, account }) }
    }

    /// What is said when it is empty.
    pub fn words(&self) -> String {
        self.of.spec.words(self.of.limit)
    }

    /// What is out of it.
    pub fn used(&self) -> u64 {
        self.of.lock().used()
    }

    /// What there is in all.
    pub fn limit(&self) -> u64 {
        self.of.limit
    }

    /// Takes so much if it is there; an error is counted as a refusal.
    pub fn try_take(&self, amount: u64) -> Result<Taken, NoRoom> {
        self.take_if_free(amount).map_err(|why| self.refuse(why))
    }

    /// The same for one who goes on without it: no refusal.
    pub fn take_if_free(&self, amount: u64) -> Result<Taken, NoRoom> {
        self.of.lock().try_take(amount)?;
        Ok(self.of.taken(amount))
    }

    /// Takes so much as soon as it is there and those who came before have theirs, or gives up at
    /// `until`.
    pub async fn take(&self, amount: u64, until: Option<Instant>) -> Result<Taken, NoRoom> {
        let (granted, waits) = {
            let mut account = self.of.lock();
            match account.try_take(amount) {
                Ok(()) => {
                    drop(account);
                    return Ok(self.of.taken(amount));
                }
                Err(NoRoom::TooMuch) => {
                    drop(account);
                    return Err(self.refuse(NoRoom::TooMuch));
                }
                Err(NoRoom::InUse) => {
                    let (grant, granted) = oneshot::channel();
                    let ticket = account.line_up(amount, grant);
                    (granted, Waits { of: &self.of, ticket })
                }
            }
        };
        let granted = match until {
            None => granted.await.ok(),
            Some(until) => timeout_at(until, granted).await.ok().and_then(Result::ok),
        };
        drop(waits);
        granted.ok_or_else(|| self.refuse(NoRoom::InUse))
    }

    fn refuse(&self, why: NoRoom) -> NoRoom {
        self.of.meter.refused();
        if why == NoRoom::InUse && self.of.lock().is_news() {
            tracing::warn!(budget = self.of.spec.name, "{}", self.words());
        }
        why
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Account<oneshot::Sender<Taken>>> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guard of what the account has given out.
    fn taken(self: &Arc<Self>, amount: u64) -> Taken {
        self.meter.took(amount);
        Taken { of: Arc::clone(self), amount }
    }

    fn hand_out(self: &Arc<Self>, served: Vec<(u64, oneshot::Sender<Taken>)>) {
        for (amount, grant) in served {
            // Who has gone meanwhile gives it back at once.
            drop(grant.send(self.taken(amount)));
        }
    }
}

/// One who waits. Dropped, it waits no longer.
struct Waits<'a> {
    of: &'a Arc<Shared>,
    ticket: Ticket,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let served = self.of.lock().step_out(self.ticket);
        self.of.hand_out(served);
    }
}

impl Taken {
    /// Holds what another guard of the same budget held, too.
    pub fn merge(&mut self, mut other: Self) {
        assert!(Arc::ptr_eq(&self.of, &other.of), "they are of one budget");
        self.amount += std::mem::take(&mut other.amount);
    }

    /// Gives back what is more than this.
    pub fn shrink_to(&mut self, amount: u64) {
        let rest = self.amount.saturating_sub(amount);
        self.amount -= rest;
        drop(Self { of: Arc::clone(&self.of), amount: rest });
    }

    /// Whether somebody waits for more than there is.
    pub fn is_waited_for(&self) -> bool {
        self.of.lock().is_waited_for()
    }

    /// How much.
    pub const fn amount(&self) -> u64 {
        self.amount
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.amount == 0 {
            return;
        }
        self.of.meter.gave_back(self.amount);
        let (served, is_over) = {
            let mut account = self.of.lock();
            (account.give_back(self.amount), account.is_over())
        };
        self.of.hand_out(served);
        if is_over {
            tracing::info!(budget = self.of.spec.name, "a quarter of it is free again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::NodeMetrics;
    use std::time::Duration;

    const SPEC: Spec = Spec { name: "things", full: "there are {} things" };

    fn budget(limit: u64) -> Budget {
        Budget::new(SPEC, limit, BudgetMeter::default())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_given_out_than_there_is() {
        let things = budget(10);
        let first = things.try_take(6).unwrap();
        assert_eq!(things.try_take(5).unwrap_err(), NoRoom::InUse);
        assert_eq!(things.take(5, Some(soon())).await.unwrap_err(), NoRoom::InUse);
        assert_eq!(things.take(11, None).await.unwrap_err(), NoRoom::TooMuch);
        let mut second = things.take(3, Some(soon())).await.unwrap();
        second.merge(things.take_if_free(1).unwrap());
        assert_eq!((second.amount(), things.used()), (4, 10));
        second.shrink_to(3);
        second.shrink_to(5);
        assert_eq!((second.amount(), things.used()), (3, 9));
        drop((first, second));
        assert!(things.try_take(10).is_ok());
        assert_eq!(things.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_served_in_turn_and_who_leaves_is_not_waited_for() {
        let things = budget(4);
        let held = things.try_take(3).unwrap();
        let mut much = std::pin::pin!(things.take(4, None));
        let mut gone = Box::pin(things.take(2, None));
        let mut little = std::pin::pin!(things.take(1, None));
        tokio::select! {
            biased;
            _ = &mut much => panic!("there is not as much"),
            _ = &mut gone => panic!("it came later"),
            _ = &mut little => panic!("nobody overtakes"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(things.try_take(1).unwrap_err(), NoRoom::InUse);
        drop(held);
        // It is its own before it looks.
        assert_eq!(things.used(), 4);
        drop(much.await.unwrap());
        assert_eq!(things.used(), 3);
        // Granted, never looked at, given back.
        drop(gone);
        assert_eq!(things.used(), 1);
        drop(little.await.unwrap());
        assert_eq!(things.used(), 0);
    }

    #[test]
    fn what_is_out_and_who_was_sent_away_is_told() {
        let metrics = Arc::new(NodeMetrics::new(1));
        let (gauge, counter) = (metrics.query.running.clone(), metrics.query.refused.clone());
        let meter = metrics.budget("things", 3).and_as(Some(gauge), Some(counter));
        let things = Budget::new(SPEC, 3, meter);
        let held = things.try_take(2).unwrap();
        assert!(things.try_take(2).is_err() && things.take_if_free(2).is_err());
        let page = metrics.encode();
        for line in [
            "oklog_http_budget_used{budget=\"things\"} 2",
            "oklog_http_budget_limit{budget=\"things\"} 3",
            "oklog_http_budget_refused_total{budget=\"things\"} 1",
            "oklog_queries_running 2",
            "oklog_queries_refused_total 1",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}: {page}");
        }
        drop(held);
        assert!(metrics.encode().contains("oklog_http_budget_used{budget=\"things\"} 0\n"));
        assert_eq!(things.words(), "there are 3 things");
    }
}
