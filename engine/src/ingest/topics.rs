//! Which topic a line has, and how many topics a node may have.
//!
//! Invariants: the set of a node never exceeds its bound and never shrinks, so a shard that has
//! seen a topic (or seen the set full) need not ask again: its cache answers without a lock.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

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

/// The topics of a node.
#[derive(Debug)]
pub struct TopicSet {
    topics_max: usize,
    topics: Mutex<HashMap<Box<[u8]>, Topic>>,
}

impl TopicSet {
    /// An empty set of at most `topics_max` topics; `invalid` is not counted.
    pub fn new(topics_max: usize) -> Self {
        Self { topics_max, topics: Mutex::default() }
    }

    /// The topic of this name, entered if it is new. `None`: the name is not valid, or one too
    /// many.
    pub fn admit(&self, name: &[u8]) -> Option<Topic> {
        self.admit_or_full(name).ok().flatten()
    }

    /// As [`TopicSet::admit`]; an error says that no new topic will ever be admitted.
    fn admit_or_full(&self, name: &[u8]) -> Result<Option<Topic>, SetFull> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(name) {
            return Ok(Some(topic.clone()));
        }
        let Ok(topic) = Topic::new(name) else { return Ok(None) };
        if topic.as_str() == INVALID_TOPIC {
            return Ok(Some(topic));
        }
        if topics.len() >= self.topics_max {
            return Err(SetFull);
        }
        topics.insert(name.into(), topic.clone());
        Ok(Some(topic))
    }

    /// Topics so far.
    pub fn len(&self) -> usize {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).len()
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
    topics: Vec<Topic>,
    /// Names that the full set refused, up to a bound: it need not be asked again.
    refused: HashSet<Box<[u8]>>,
}

/// Number of the topic `invalid` in every cache.
pub(super) const INVALID_NUMBER: u32 = 0;
/// Refused names that a shard remembers; beyond it they cost a lock each.
const REFUSED_MAX: usize = 1024;

impl TopicCache {
    pub(super) fn new(set: Arc<TopicSet>) -> Self {
        let invalid = Topic::new(INVALID_TOPIC.as_bytes()).expect("the constant is a valid name");
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
            Ok(Some(topic)) => {
                let number = self.topics.len() as u32;
                self.topics.push(topic);
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

    /// The topic behind a number.
    pub(super) fn topic(&self, number: u32) -> &Topic {
        &self.topics[number as usize]
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
}
