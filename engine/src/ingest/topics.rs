//! Which topic a line has, how many topics a node may have, and when each was used last.
//!
//! Invariants: the set of a node never exceeds its bound and never shrinks, so a shard that has
//! seen a topic (or seen the set full) need not ask again: its cache answers without a lock. Whoever
//! reads the set holds its lock for a moment at a time, however many topics there are.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::known_topics::{KnownTopics, day_of};
use crate::topic::{INVALID_TOPIC, Topic, is_topic};

/// How lines get their topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicChoice {
    /// All have this one.
    Static(Topic),
    /// Each has its first word (up to a space, a tab or its end); a line without a valid one goes
    /// to `invalid`.
    FirstWord,
}

/// Topics that are read at a time while shards wait.
const READ_AT_A_TIME: usize = 256;

/// The topics of a node.
#[derive(Debug)]
pub struct TopicSet {
    topics_max: usize,
    entered: Mutex<Entered>,
    /// Counted up with each new topic, and with each new day of one.
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct Entered {
    by_name: HashMap<Box<[u8]>, Arc<InUse>>,
    in_order: Vec<Arc<InUse>>,
}

/// A topic, and the day of its newest record; 0: it has none.
#[derive(Debug)]
struct InUse {
    topic: Topic,
    day: AtomicU32,
}

impl TopicSet {
    /// An empty set of at most `topics_max` topics; `invalid` is not counted.
    pub fn new(topics_max: usize) -> Self {
        Self { topics_max, entered: Mutex::default(), version: AtomicU64::new(0) }
    }

    fn entered(&self) -> MutexGuard<'_, Entered> {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The topic of this name, entered if it is new. `None`: the name is not valid, or one too
    /// many.
    pub fn admit(&self, name: &[u8]) -> Option<Topic> {
        let in_use = self.admit_or_full(name).ok().flatten()?;
        Some(in_use.topic.clone())
    }

    /// As [`TopicSet::admit`]; an error says that no new topic will ever be admitted.
    fn admit_or_full(&self, name: &[u8]) -> Result<Option<Arc<InUse>>, SetFull> {
        let mut entered = self.entered();
        if let Some(in_use) = entered.by_name.get(name) {
            return Ok(Some(Arc::clone(in_use)));
        }
        let Ok(topic) = Topic::new(name) else { return Ok(None) };
        let is_invalid = topic.as_str() == INVALID_TOPIC;
        let in_use = Arc::new(InUse { topic, day: AtomicU32::new(0) });
        if is_invalid {
            return Ok(Some(in_use));
        }
        if entered.in_order.len() >= self.topics_max {
            return Err(SetFull);
        }
        entered.by_name.insert(name.into(), Arc::clone(&in_use));
        entered.in_order.push(Arc::clone(&in_use));
        Ok(Some(in_use))
    }

    /// Enters topics that were known before, those that were used last first, as far as there is room;
    /// says for how many there was none.
    pub fn learn(&self, known: &KnownTopics) -> usize {
        let mut left_out = 0;
        for (topic, day) in known.newest_first() {
            match self.admit_or_full(topic.as_str().as_bytes()) {
                Ok(Some(in_use)) => self.note_used(&in_use, day),
                Ok(None) => {}
                Err(SetFull) => left_out += 1,
            }
        }
        left_out
    }

    fn note_used(&self, in_use: &InUse, day: u32) {
        if in_use.day.load(Ordering::Relaxed) < day
            && in_use.day.fetch_max(day, Ordering::Relaxed) < day
        {
            // Who sees it sees the day.
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Another number whenever the set says something else: to be asked before [`TopicSet::known`].
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Topics that have records, and the days of their newest.
    pub fn known(&self) -> KnownTopics {
        let mut known = KnownTopics::default();
        let mut at = 0;
        loop {
            let entered = self.entered();
            let some: Vec<_> =
                entered.in_order.iter().skip(at).take(READ_AT_A_TIME).cloned().collect();
            drop(entered);
            if some.is_empty() {
                return known;
            }
            at += some.len();
            for in_use in some {
                known.add(in_use.topic.clone(), in_use.day.load(Ordering::Relaxed));
            }
        }
    }

    /// Topics so far.
    pub fn len(&self) -> usize {
        self.entered().in_order.len()
    }

    /// Whether there is none yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

struct SetFull;

/// A shard's view of the set: topics by small numbers.
#[derive(Debug)]
pub(super) struct TopicCache {
    set: Arc<TopicSet>,
    numbers: HashMap<Box<[u8]>, u32>,
    topics: Vec<Arc<InUse>>,
    /// Names that the full set refused, up to a bound: it need not be asked again.
    refused: HashSet<Box<[u8]>>,
}

/// Number of the topic `invalid` in every cache.
pub(super) const INVALID_NUMBER: u32 = 0;
/// Refused names that a shard remembers; beyond it they cost a lock each.
const REFUSED_MAX: usize = 1024;

impl TopicCache {
    pub(super) fn new(set: Arc<TopicSet>) -> Self {
        let topic = Topic::new(INVALID_TOPIC.as_bytes()).expect("the constant is a valid name");
        let invalid = Arc::new(InUse { topic, day: AtomicU32::new(0) });
        let numbers = HashMap::from([(INVALID_TOPIC.as_bytes().into(), INVALID_NUMBER)]);
        Self { set, numbers, topics: vec![invalid], refused: HashSet::new() }
    }

    /// Number of the topic of this name; [`INVALID_NUMBER`] if it is malformed or one too many.
    pub(super) fn number_of(&mut self, name: &[u8]) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        if !is_topic(name) || self.refused.contains(name) {
            return INVALID_NUMBER;
        }
        match self.set.admit_or_full(name) {
            Ok(Some(in_use)) => {
                let number = self.topics.len() as u32;
                self.topics.push(in_use);
                self.numbers.insert(name.into(), number);
                number
            }
            Ok(None) => INVALID_NUMBER,
            Err(SetFull) => {
                if self.refused.len() < REFUSED_MAX {
                    self.refused.insert(name.into());
                }
                INVALID_NUMBER
            }
        }
    }

    /// A record of this topic was stamped then, milliseconds since 1970.
    pub(super) fn note_used(&self, number: u32, ms: u64) {
        if number != INVALID_NUMBER {
            self.set.note_used(&self.topics[number as usize], day_of(ms));
        }
    }

    /// The topic behind a number.
    pub(super) fn topic(&self, number: u32) -> &Topic {
        &self.topics[number as usize].topic
    }

    /// Numbers given out so far.
    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }
}

/// The first word of a line: up to a space, a tab or the end.
pub(super) fn first_word(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    // A topic is short: what is longer is not one, wherever it ends.
    let head = &line[..line.len().min(crate::limits::TOPIC_LEN_MAX + 1)];
    let end = head.iter().position(|&b| matches!(b, b' ' | b'\t' | b'\r'));
    &head[..end.unwrap_or(head.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_ends_at_space_tab_or_the_end() {
        assert_eq!(first_word(b"web GET /\n"), b"web");
        assert_eq!(first_word(b"web\tGET\n"), b"web");
        assert_eq!(first_word(b"web\n"), b"web");
        assert_eq!(first_word(b"web\r\n"), b"web");
        assert_eq!(first_word(b" web\n"), b"");
        assert_eq!(first_word(&[b'a'; 500]).len(), 65);
    }

    #[test]
    fn topics_beyond_the_bound_are_refused_and_known_ones_stay() {
        let set = Arc::new(TopicSet::new(2));
        let mut one = TopicCache::new(Arc::clone(&set));
        let mut two = TopicCache::new(Arc::clone(&set));
        let a = one.number_of(b"a");
        assert_ne!(a, INVALID_NUMBER);
        assert_eq!(one.topic(a).as_str(), "a");
        let b = two.number_of(b"b");
        assert_ne!(b, INVALID_NUMBER);
        assert_eq!(one.number_of(b"c"), INVALID_NUMBER);
        assert_eq!(one.number_of(b"c"), INVALID_NUMBER);
        assert_ne!(one.number_of(b"b"), INVALID_NUMBER, "another shard's topic is known here");
        assert_eq!(one.number_of(b"not/valid"), INVALID_NUMBER);
        assert_eq!(one.number_of(b"invalid"), INVALID_NUMBER);
        assert_eq!(set.len(), 2);
    }

    #[test]
    fn a_set_says_which_topics_have_records_and_when_that_is_something_else() {
        const DAY_MS: u64 = 86_400_000;
        let set = Arc::new(TopicSet::new(1000));
        let mut cache = TopicCache::new(Arc::clone(&set));
        let number = cache.number_of(b"web");
        assert_eq!((set.version(), set.known()), (0, KnownTopics::default()), "it has none yet");
        cache.note_used(number, 3 * DAY_MS);
        cache.note_used(number, 3 * DAY_MS + 5);
        cache.note_used(INVALID_NUMBER, 3 * DAY_MS);
        assert_eq!(set.version(), 1, "once a day");
        cache.note_used(number, 5 * DAY_MS);
        cache.note_used(number, 4 * DAY_MS);
        let mut known = KnownTopics::default();
        known.add(Topic::new(b"web").unwrap(), day_of(5 * DAY_MS));
        assert_eq!((set.version(), set.known()), (2, known.clone()));
        for number in 0..3 * READ_AT_A_TIME {
            known.add(Topic::new(format!("t{number}").as_bytes()).unwrap(), 9);
        }
        set.learn(&known);
        assert_eq!(set.known(), known, "however many there are");
    }

    #[test]
    fn a_set_that_is_too_small_learns_what_was_used_last() {
        let mut known = KnownTopics::default();
        for (name, day) in [("old", 3), ("new", 9), ("newer", 10)] {
            known.add(Topic::new(name.as_bytes()).unwrap(), day);
        }
        let set = TopicSet::new(2);
        assert_eq!(set.learn(&known), 1, "for one there is no room");
        let names: Vec<_> = set.known().names().map(|topic| topic.as_str().to_owned()).collect();
        assert_eq!(names, ["new", "newer"]);
        assert!(set.admit(b"old").is_none());
    }
}
