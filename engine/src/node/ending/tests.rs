//! Stops as they may go, step by step.

use super::*;
use crate::ingest::log::Unsynced;
use crate::node::Side;

const TIMEOUT_MS: u64 = 30_000;

/// What shards say.
#[derive(Default)]
struct Said {
    held_bytes: u64,
    records: u64,
}

impl Shards for Said {
    fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    fn not_on_disk(&self) -> Vec<NotOnDisk> {
        let unsynced = Unsynced { records: self.records, first: None };
        vec![NotOnDisk { unsynced, awaited_records: 0 }]
    }
}

struct Stop {
    ending: Ending,
    doors: Arc<Doors>,
    said: Said,
    now_ms: u64,
}

impl Stop {
    fn new() -> Self {
        let (doors, now_ms) = (Arc::new(Doors::default()), 1_000);
        let node = Node { ingest: None, store: None, newest_ms: 0 };
        let mut ending = Ending::start(&node, Arc::clone(&doors), TIMEOUT_MS, now_ms);
        assert_eq!(ending.next_effect(), Some(Effect::CancelCompaction));
        Self { ending, doors, said: Said::default(), now_ms }
    }

    /// The next that is asked for is this.
    fn is_asked(&mut self, work: Work) {
        self.ending.turn(&self.said, self.now_ms);
        assert_eq!(self.ending.next_effect(), Some(Effect::Begin(work)));
        assert_eq!(self.ending.next_effect(), None, "one thing after the other");
    }

    fn done(&mut self, done: Done) {
        self.ending.take(done, self.now_ms);
    }

    /// All that comes before this is asked for and done.
    fn up_to(&mut self, last: Work) {
        use Work::{Followers, Ground, Keeper, Requests, Shards, Stamps, Store, Tidy};
        for work in [Followers, Requests, Ground, Shards, Keeper, Stamps, Store, Tidy] {
            self.is_asked(work);
            if work == last {
                return;
            }
            self.done(Done::Work(work));
        }
    }

    /// Turned whenever it wants to be, until it leaves something, or asks for something else; what it has
    /// left.
    fn waits_until_over(&mut self) -> Vec<Work> {
        assert!(self.ending.effects.is_empty());
        while self.ending.effects.is_empty() && self.ending.last_word().is_none() {
            self.now_ms = self.now_ms.max(self.ending.next_ms());
            self.ending.turn(&self.said, self.now_ms);
        }
        self.ending.take_not_in_time()
    }

    fn last_word(&mut self) -> LastWord {
        self.ending.last_word().expect("it is over")
    }
}

#[test]
fn a_stop_does_one_thing_after_the_other_and_says_that_all_is_well() {
    let mut stop = Stop::new();
    stop.up_to(Work::Tidy);
    stop.now_ms += 70;
    stop.done(Done::Work(Work::Tidy));
    stop.is_asked(Work::Waiting);
    stop.done(Done::Work(Work::Waiting));
    stop.is_asked(Work::Unsynced);
    stop.done(Done::Unsynced(Lost::default()));
    stop.is_asked(Work::Names);
    assert_eq!(stop.ending.last_word(), None, "that is still to come");
    stop.done(Done::Names(0));
    let word = stop.last_word();
    assert_eq!((word.failure(), word.is_all_stored(), word.spent_ms), (None, true, 70));
}

#[test]
fn what_hangs_is_left_and_nothing_takes_longer_than_it_may() {
    let mut stop = Stop::new();
    let hangs = |stop: &mut Stop, work| {
        assert_eq!(stop.ending.next_effect(), Some(Effect::Begin(work)));
        assert_eq!(stop.waits_until_over(), [work]);
    };
    for work in [Work::Followers, Work::Requests, Work::Ground, Work::Shards, Work::Keeper] {
        hangs(&mut stop, work);
    }
    // Who still runs may stamp.
    assert_eq!(stop.ending.next_effect(), Some(Effect::Begin(Work::Store)));
    assert_eq!(stop.waits_until_over(), [], "it is cancelled first");
    assert_eq!(stop.ending.next_effect(), Some(Effect::CancelStore));
    assert_eq!(stop.waits_until_over(), [Work::Store]);
    hangs(&mut stop, Work::Tidy);
    stop.said.records = 3;
    hangs(&mut stop, Work::Unsynced);
    hangs(&mut stop, Work::Names);
    let word = stop.last_word();
    assert_eq!(word.failure(), Some(Failure::NotOnDisk(3)), "what may be lost is told");
    assert!(!word.is_all_stored());
    let moment_ms = CANCEL_GRACE_MS + 4 * DISK_PATIENCE_MS + LOOK_PATIENCE_MS;
    assert!(stop.now_ms <= 1_000 + TIMEOUT_MS + moment_ms, "{}", stop.now_ms);
}

#[test]
fn what_is_listed_is_known_though_files_are_not_all_looked_up_in_time() {
    let mut stop = Stop::new();
    stop.up_to(Work::Tidy);
    for work in [Work::Tidy, Work::Waiting] {
        stop.done(Done::Work(work));
    }
    stop.ending.effects.clear();
    stop.done(Done::Unsynced(Lost::default()));
    stop.is_asked(Work::Names);
    stop.done(Done::Listed(0));
    assert_eq!(stop.ending.last_word(), None, "it goes on");
    assert_eq!(stop.waits_until_over(), [Work::Names]);
    let word = stop.last_word();
    assert_eq!((word.not_found, word.failure()), (Some(0), None));
}

#[test]
fn readers_that_hang_leave_shards_their_time() {
    let mut stop = Stop::new();
    for work in [Work::Followers, Work::Requests] {
        stop.is_asked(work);
        assert_eq!(stop.waits_until_over(), [work]);
    }
    assert!(stop.now_ms <= 1_000 + TIMEOUT_MS / REQUESTS_SHARE, "{}", stop.now_ms);
    assert_eq!(stop.ending.next_effect(), Some(Effect::Begin(Work::Ground)));
    stop.done(Done::Work(Work::Ground));
    stop.is_asked(Work::Shards);
    assert_eq!(stop.ending.take_not_in_time(), [], "they have the rest of it");
}

#[test]
fn what_comes_too_late_does_not_count_for_what_is_done_meanwhile() {
    let mut stop = Stop::new();
    stop.up_to(Work::Requests);
    assert_eq!(stop.waits_until_over(), [Work::Requests]);
    stop.is_asked(Work::Ground);
    stop.done(Done::Work(Work::Requests));
    assert_eq!(stop.ending.next_effect(), None, "the look is not done");
    stop.done(Done::Work(Work::Ground));
    stop.is_asked(Work::Shards);
}

#[test]
fn shards_are_waited_for_until_the_deadline_unless_a_full_disk_takes_nothing() {
    let mut stop = Stop::new();
    stop.said.held_bytes = 50;
    stop.up_to(Work::Shards);
    let mut at = |ms: u64, held_bytes| {
        stop.said.held_bytes = held_bytes;
        stop.ending.turn(&stop.said, 1_000 + ms);
        stop.ending.take_not_in_time().is_empty()
    };
    assert!(at(20_000, 50), "nothing says that the disk does not work");
    stop.doors.set_unmarked(true);
    assert!(at(22_999, 50));
    assert!(at(23_000, 40), "something moved");
    assert!(at(25_999, 40) && !at(26_000, 40));

    let mut stop = Stop::new();
    stop.up_to(Work::Shards);
    stop.now_ms = 1_000 + TIMEOUT_MS - 1;
    stop.ending.turn(&stop.said, stop.now_ms);
    assert_eq!(stop.ending.take_not_in_time(), []);
    assert_eq!(stop.waits_until_over(), [Work::Shards]);
    assert_eq!(stop.now_ms, 1_000 + TIMEOUT_MS);
}

#[test]
fn stamps_are_not_closed_in_a_directory_that_was_taken_away() {
    let mut stop = Stop::new();
    stop.up_to(Work::Keeper);
    let mut taken_away = [None, None];
    taken_away[Side::Ingest as usize] = Some("gone".into());
    stop.doors.set_taken_away(taken_away);
    stop.done(Done::Work(Work::Keeper));
    stop.is_asked(Work::Store);
}

#[test]
fn what_waits_is_noted_only_when_nobody_is_left_who_may_let_it_go() {
    use Work::{Followers, Ground, Keeper, Requests, Shards, Stamps, Store, Tidy, Waiting};
    for left in [Followers, Requests, Ground, Shards, Keeper, Store, Tidy] {
        let mut stop = Stop::new();
        for work in [Followers, Requests, Ground, Shards, Keeper, Stamps, Store, Tidy] {
            // Stamps are not closed where somebody may still stamp.
            if stop.ending.work != Some(work) {
                continue;
            }
            stop.ending.effects.clear();
            if work == left {
                while stop.ending.work == Some(work) {
                    stop.now_ms = stop.now_ms.max(stop.ending.next_ms());
                    stop.ending.turn(&stop.said, stop.now_ms);
                }
            } else {
                stop.done(Done::Work(work));
            }
        }
        let is_noted = stop.ending.work == Some(Waiting);
        assert_eq!(is_noted, [Followers, Requests, Ground].contains(&left), "{left:?} is left");
        assert!(is_noted || stop.ending.work == Some(Work::Unsynced));
    }
    let mut stop = Stop::new();
    stop.up_to(Tidy);
    let mut taken_away = [None, None];
    taken_away[Side::Ingest as usize] = Some("gone".into());
    stop.doors.set_taken_away(taken_away);
    stop.done(Done::Work(Tidy));
    stop.is_asked(Work::Unsynced);
}
