//! What is out of a bounded resource, who waits for some of it, and whose turn it is: values alone.
//!
//! Invariants: what is out is never more than the limit. Whoever waits is served in the order of
//! coming: nobody overtakes, so nobody who wants much waits for ever behind those who want little.
//! Being full is news once, until a quarter of the limit is free again.

use std::collections::VecDeque;

/// Why nothing is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// More than there is in all: waiting does not help.
    TooMuch,
    /// Others have it.
    InUse,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// See the module page. `W` is whatever stands for one who waits.
#[derive(Debug)]
pub(super) struct Account<W> {
    limit: u64,
    used: u64,
    waiting: VecDeque<(Ticket, u64, W)>,
    tickets: u64,
    is_told_full: bool,
}

impl<W> Account<W> {
    pub(super) const fn new(limit: u64) -> Self {
        let waiting = VecDeque::new();
        Self { limit, used: 0, waiting, tickets: 0, is_told_full: false }
    }

    /// What is out.
    pub(super) const fn used(&self) -> u64 {
        self.used
    }

    /// Whether somebody waits for more than there is.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Gives out so much, if it is there and nobody waits for it.
    pub(super) fn try_take(&mut self, amount: u64) -> Result<(), NoRoom> {
        if amount > self.limit {
            return Err(NoRoom::TooMuch);
        }
        if !self.waiting.is_empty() || amount > self.limit - self.used {
            return Err(NoRoom::InUse);
        }
        self.used += amount;
        Ok(())
    }

    /// Waits for what [`Account::try_take`] did not give.
    pub(super) fn line_up(&mut self, amount: u64, who: W) -> Ticket {
        assert!(amount <= self.limit, "it would wait for ever");
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.waiting.push_back((ticket, amount, who));
        ticket
    }

    /// So much is there again; who has got something now, with how much.
    pub(super) fn give_back(&mut self, amount: u64) -> Vec<(u64, W)> {
        assert!(amount <= self.used, "more than was taken");
        self.used -= amount;
        self.serve()
    }

    /// One waits no longer, if it did; who has got something now.
    pub(super) fn step_out(&mut self, ticket: Ticket) -> Vec<(u64, W)> {
        self.waiting.retain(|(waits, ..)| *waits != ticket);
        self.serve()
    }

    fn serve(&mut self) -> Vec<(u64, W)> {
        let mut served = Vec::new();
        while self.waiting.front().is_some_and(|first| first.1 <= self.limit - self.used)
            && let Some((_, amount, who)) = self.waiting.pop_front()
        {
            self.used += amount;
            served.push((amount, who));
        }
        served
    }

    /// Somebody was sent away; whether that is news.
    pub(super) const fn is_news(&mut self) -> bool {
        !std::mem::replace(&mut self.is_told_full, true)
    }

    /// Whether it is news that it is full no longer.
    pub(super) fn is_over(&mut self) -> bool {
        let is_over = self.is_told_full && self.limit - self.used >= self.limit / 4;
        self.is_told_full &= !is_over;
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What may happen to an account.
    #[derive(Debug, Clone)]
    enum Event {
        Take { amount: u64, waits: bool },
        GiveBack(usize),
        StepOut(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0..12_u64, any::<bool>()).prop_map(|(amount, waits)| Event::Take { amount, waits }),
            3 => any::<usize>().prop_map(Event::GiveBack),
            1 => any::<usize>().prop_map(Event::StepOut),
        ]
    }

    /// Ten lines that say what should be out: who has it, who waits for it.
    #[derive(Default)]
    struct Model {
        held: Vec<(usize, u64)>,
        waiting: Vec<(usize, u64)>,
    }

    impl Model {
        fn has_room(&self, limit: u64, amount: u64) -> bool {
            self.held.iter().map(|(_, amount)| amount).sum::<u64>() + amount <= limit
        }

        /// Who gets something now.
        fn serve(&mut self, limit: u64) -> Vec<(u64, usize)> {
            let before = self.held.len();
            while !self.waiting.is_empty() && self.has_room(limit, self.waiting[0].1) {
                self.held.push(self.waiting.remove(0));
            }
            self.held[before..].iter().map(|&(who, amount)| (amount, who)).collect()
        }
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_is_out_and_nobody_who_waits_is_passed_over(
            limit in 0..10_u64,
            events in prop::collection::vec(event(), 0..80),
        ) {
            let (mut account, mut model) = (Account::new(limit), Model::default());
            let mut tickets = Vec::new();
            for (who, event) in events.into_iter().enumerate() {
                match event {
                    Event::Take { amount, waits } => {
                        let expected = if amount > limit {
                            Err(NoRoom::TooMuch)
                        } else if model.waiting.is_empty() && model.has_room(limit, amount) {
                            Ok(())
                        } else {
                            Err(NoRoom::InUse)
                        };
                        prop_assert_eq!(account.try_take(amount), expected);
                        match expected {
                            Ok(()) => model.held.push((who, amount)),
                            Err(NoRoom::InUse) if waits => {
                                tickets.push((who, account.line_up(amount, who)));
                                model.waiting.push((who, amount));
                            }
                            Err(_) => {}
                        }
                    }
                    Event::GiveBack(at) if !model.held.is_empty() => {
                        let (_, amount) = model.held.swap_remove(at % model.held.len());
                        prop_assert_eq!(account.give_back(amount), model.serve(limit));
                    }
                    // One that was served long ago may step out, too.
                    Event::StepOut(at) if !tickets.is_empty() => {
                        let (who, ticket) = tickets[at % tickets.len()];
                        model.waiting.retain(|(waits, _)| *waits != who);
                        prop_assert_eq!(account.step_out(ticket), model.serve(limit));
                    }
                    Event::GiveBack(_) | Event::StepOut(_) => {}
                }
                prop_assert!(account.used() <= limit);
                prop_assert_eq!(account.used(), model.held.iter().map(|(_, n)| n).sum::<u64>());
            }
            // Once all is given back, everybody has had a turn and nothing is out.
            while let Some((_, amount)) = model.held.pop() {
                prop_assert_eq!(account.give_back(amount), model.serve(limit));
            }
            prop_assert_eq!((account.used(), model.waiting.len()), (0, 0));
        }
    }

    #[test]
    fn being_full_is_told_once_until_a_quarter_is_free_again() {
        let mut account = Account::<()>::new(8);
        account.try_take(8).unwrap();
        assert!(!account.is_over(), "full, but nobody was sent away");
        assert!(account.is_news() && !account.is_news());
        // One goes, one comes, one is sent away, and so on.
        account.give_back(1);
        assert!(!account.is_over() && !account.is_news());
        account.give_back(1);
        assert!(account.is_over() && !account.is_over());
        assert!(account.is_news());
    }
}
