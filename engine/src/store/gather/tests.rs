//! The gather machine, event by event, and any order of answers.

use super::*;
use proptest::prelude::*;

const ONE: GatherNumber = GatherNumber(1);

fn machine(replication_factor: usize, others: u64) -> Gather {
    let mut gather = Gather::new(GatherLimits { replication_factor, ..Default::default() });
    gather.handle(0, Event::OtherStores((1..=others).map(StoreId).collect()));
    gather
}

fn available(count: usize, bytes: u64, oldest_age_ms: u64) -> Event {
    Event::Available(Available { count, bytes, oldest_age_ms })
}

fn claim(gather: u64) -> Action {
    halved_claim(gather, 0)
}

fn halved_claim(gather: u64, halvings: u32) -> Action {
    let (bytes_max, count_max) = ((128 << 20) >> halvings, (64 >> halvings).max(1));
    Action::Claim { gather: GatherNumber(gather), bytes_max, count_max }
}

#[test]
fn it_waits_for_size_or_age_and_claims_once() {
    let mut gather = machine(1, 0);
    assert_eq!(gather.next_action(0), Action::Wait(None));
    gather.handle(10_000, available(3, 1 << 20, 1_000));
    assert_eq!(gather.next_action(10_000), Action::Wait(Some(12_000)));
    assert_eq!(gather.next_action(11_500), Action::Wait(Some(12_000)));
    assert_eq!(gather.next_action(12_000), claim(1));
    assert_eq!(gather.next_action(12_000), Action::Wait(None));
    let mut gather = machine(1, 0);
    gather.handle(0, available(3, 128 << 20, 0));
    assert_eq!(gather.next_action(0), claim(1));
    let mut gather = machine(1, 0);
    gather.handle(0, available(64, 64, 0));
    assert_eq!(gather.next_action(0), claim(1));
}

#[test]
fn one_store_merges_publishes_and_only_then_commits() {
    let mut gather = machine(1, 0);
    gather.handle(0, available(2, 1 << 30, 0));
    assert_eq!(gather.next_action(0), claim(1));
    gather.handle(0, Event::Claimed(ONE, vec![7, 8]));
    assert_eq!(gather.next_action(0), Action::Merge(ONE, vec![7, 8]));
    assert_eq!(gather.state(), GatherState::Busy);
    gather.handle(0, Event::Merged { gather: ONE, damaged: vec![8], is_empty: false });
    assert_eq!(gather.next_action(0), Action::Publish(ONE));
    gather.handle(0, Event::Published(ONE));
    let commit = Action::Commit { gather: ONE, whole: vec![7], damaged: vec![8] };
    assert_eq!(gather.next_action(0), commit);
    gather.handle(0, Event::Committed(ONE));
    assert_eq!((gather.next_action(0), gather.state()), (Action::Wait(None), GatherState::Idle));
    gather.handle(0, available(1, 1 << 30, 0));
    assert_eq!(gather.next_action(0), claim(2), "the next one at once");
}

#[test]
fn with_too_few_stores_nothing_is_claimed() {
    let mut gather = machine(2, 0);
    gather.handle(0, available(64, 1 << 40, 1 << 40));
    assert_eq!(gather.next_action(0), Action::Wait(None));
    assert_eq!(gather.state(), GatherState::ReplicasMissing);
    gather.handle(5, Event::OtherStores(vec![StoreId(9)]));
    assert_eq!(gather.next_action(5), claim(1));
}

#[test]
fn a_copy_that_fails_goes_to_another_store_and_late_answers_do_not_count() {
    let mut gather = machine(3, 3);
    gather.handle(0, available(1, 1 << 30, 0));
    gather.next_action(0);
    gather.handle(0, Event::Claimed(ONE, vec![7]));
    gather.next_action(0);
    gather.handle(0, Event::Merged { gather: ONE, damaged: vec![], is_empty: false });
    assert_eq!(gather.next_action(0), Action::Replicate(ONE, StoreId(2)));
    gather.handle(0, Event::Replicated(GatherNumber(0), StoreId(2)));
    assert_eq!(gather.next_action(0), Action::Wait(Some(60_000)));
    gather.handle(60_000, Event::Tick);
    assert_eq!(gather.next_action(60_000), Action::Replicate(ONE, StoreId(3)));
    gather.handle(60_000, Event::Replicated(ONE, StoreId(2)));
    gather.handle(60_000, Event::Replicated(ONE, StoreId(3)));
    assert_eq!(gather.next_action(60_000), Action::Replicate(ONE, StoreId(1)));
    gather.handle(60_000, Event::ReplicateFailed(ONE, StoreId(1)));
    assert_eq!(gather.next_action(60_000), Action::Fail(ONE, vec![7]));
    gather.handle(60_000, Event::Failed(ONE));
    assert_eq!(gather.state(), GatherState::BackingOff);
}

#[test]
fn failures_back_off_further_each_time_until_one_succeeds() {
    let mut gather = machine(1, 0);
    let mut now_ms = 0;
    let mut waits = Vec::new();
    for n in 1..=10 {
        gather.handle(now_ms, available(1, 1 << 30, 0));
        assert_eq!(gather.next_action(now_ms), halved_claim(n, n as u32 - 1));
        gather.handle(now_ms, Event::Claimed(GatherNumber(n), vec![1]));
        gather.next_action(now_ms);
        gather.handle(now_ms, Event::MergeFailed(GatherNumber(n)));
        assert_eq!(gather.next_action(now_ms), Action::Fail(GatherNumber(n), vec![1]));
        gather.handle(now_ms, Event::Failed(GatherNumber(n)));
        gather.handle(now_ms, available(1, 1 << 30, 0));
        let Action::Wait(Some(until)) = gather.next_action(now_ms) else { panic!() };
        waits.push(until - now_ms);
        now_ms = until;
    }
    assert_eq!(waits[..4], [250, 500, 1000, 2000]);
    assert_eq!(waits[9], 30_000);
}

#[test]
fn a_claim_that_gets_nothing_is_not_repeated_at_once() {
    let mut gather = machine(1, 0);
    gather.handle(0, available(1, 1 << 30, 0));
    gather.next_action(0);
    gather.handle(0, Event::Claimed(ONE, vec![]));
    gather.handle(0, available(1, 1 << 30, 0));
    assert_eq!(gather.next_action(0), Action::Wait(Some(250)));
    assert_eq!(gather.next_action(250), claim(2));
}

#[test]
fn a_failure_halves_the_next_claim_and_a_success_doubles_it_again() {
    let mut gather = machine(1, 0);
    let mut now_ms = 0;
    for (n, (halvings, is_good)) in
        [(0, false), (1, false), (2, true), (1, true), (0, true), (0, true)].iter().enumerate()
    {
        let number = GatherNumber(n as u64 + 1);
        gather.handle(now_ms, available(64, 1 << 30, 0));
        assert_eq!(gather.next_action(now_ms), halved_claim(number.0, *halvings));
        gather.handle(now_ms, Event::Claimed(number, vec![1]));
        assert!(matches!(gather.next_action(now_ms), Action::Merge(..)));
        if *is_good {
            let merged = Event::Merged { gather: number, damaged: vec![], is_empty: true };
            gather.handle(now_ms, merged);
            assert!(matches!(gather.next_action(now_ms), Action::Commit { .. }));
            gather.handle(now_ms, Event::Committed(number));
        } else {
            gather.handle(now_ms, Event::MergeFailed(number));
            assert!(matches!(gather.next_action(now_ms), Action::Fail(..)));
            gather.handle(now_ms, Event::Failed(number));
        }
        now_ms += 60_000;
    }
}

/// Any order of answers, right and wrong: a committed input was in a published segment.
#[derive(Debug, Clone)]
enum Answer {
    Good,
    Bad,
    Late,
    Tick,
}

fn answers() -> impl Strategy<Value = Vec<Answer>> {
    let answer = prop_oneof![
        6 => Just(Answer::Good),
        2 => Just(Answer::Bad),
        1 => Just(Answer::Late),
        1 => Just(Answer::Tick)
    ];
    proptest::collection::vec(answer, 0..200)
}

proptest! {
    #[test]
    fn inputs_are_committed_only_after_enough_copies_and_else_returned(
        factor in 1..4usize, others in 0..4u64, answers in answers(),
    ) {
        let mut gather = machine(factor, others);
        let (mut now_ms, mut claimed, mut copies, mut published) = (0, None, 0, false);
        let mut next_input = 0u128;
        let mut asked: Vec<Action> = Vec::new();
        for answer in answers {
            now_ms += 40_000;
            if gather.state() != GatherState::Busy {
                prop_assert!(claimed.is_none(), "every claim was committed or failed");
                gather.handle(now_ms, available(1, 1 << 30, 0));
            }
            loop {
                let action = gather.next_action(now_ms);
                match &action {
                    Action::Wait(_) => break,
                    Action::Commit { whole, damaged, .. } => {
                        prop_assert!(published && copies + 1 >= factor);
                        let mut all = [whole.clone(), damaged.clone()].concat();
                        all.sort_unstable();
                        prop_assert_eq!(Some(all), claimed.take());
                    }
                    Action::Fail(_, inputs) => {
                        prop_assert!(!published);
                        prop_assert_eq!(Some(inputs.clone()), claimed.take());
                    }
                    _ => {}
                }
                asked.push(action);
            }
            let Some(action) = asked.last().cloned() else { continue };
            let good = matches!(answer, Answer::Good);
            let event = match (action, &answer) {
                (_, Answer::Tick) => Event::Tick,
                (_, Answer::Late) => Event::Published(GatherNumber(0)),
                (Action::Claim { gather: n, .. }, _) => {
                    (copies, published) = (0, false);
                    next_input += 2;
                    let inputs = vec![next_input, next_input + 1];
                    claimed = good.then(|| inputs.clone());
                    if good { Event::Claimed(n, inputs) } else { Event::ClaimFailed(n) }
                }
                (Action::Merge(n, inputs), Answer::Good) => {
                    Event::Merged { gather: n, damaged: vec![inputs[0]], is_empty: false }
                }
                (Action::Merge(n, _), _) => Event::MergeFailed(n),
                (Action::Replicate(n, store), Answer::Good) => {
                    copies += 1;
                    Event::Replicated(n, store)
                }
                (Action::Replicate(n, store), _) => Event::ReplicateFailed(n, store),
                (Action::Publish(n), Answer::Good) => {
                    published = true;
                    Event::Published(n)
                }
                (Action::Publish(n), _) => Event::PublishFailed(n),
                (Action::Commit { gather: n, .. }, _) => Event::Committed(n),
                (Action::Fail(n, _), _) => Event::Failed(n),
                (Action::Wait(_), _) => Event::Tick,
            };
            if !matches!(answer, Answer::Tick | Answer::Late) {
                asked.pop();
            }
            gather.handle(now_ms, event);
        }
    }
}
