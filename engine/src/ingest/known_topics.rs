//! The topics that an ingester knows: those of which it took records, in a small file of its directory,
//! so that it knows them after a restart though it holds none of the records any more.
//! `docs/format-ingest.md` has the byte table.
//!
//! Invariants: a topic is in the file before a segment with records of it is available to others, unless
//! the disk refuses that; until then it is known by the segment itself. Under its name the file is never
//! anything but whole; each life writes it once at least, for a sync of its directory may have failed in the
//! one before. What could not be read is not absent: it is not written over before it was read.
//! A damaged one is told, and made anew of what there is: it bounds how many topics there are, and no
//! record depends on it. A topic is forgotten at a start, when no record of it waits here or can be kept
//! any more by the retention that the node knows; an ingester that knows of none forgets nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::registry::Registry;
use super::topics::TopicSet;
use crate::damage::{Damage, DamageKind};
use crate::limits::{TOPIC_LEN_MAX, TOPICS_CEILING};
use crate::storage::{Refusal, Storage};
use crate::store::fields::{Put, Take, decode_small, read_small};
use crate::topic::{INVALID_TOPIC, Topic};

/// Name of the file.
pub const TOPICS_FILE: &str = "TOPICS";
/// Its name until it is whole.
pub const TOPICS_NEW_FILE: &str = "TOPICS.new";
/// First bytes.
const MAGIC: [u8; 8] = *b"\x89OKLTPC\n";
/// Version.
const VERSION: u16 = 1;
/// What it is, for people.
const PART: &str = "list of topics";

/// The longest that is read, bytes: as many topics as there may be, of the longest names.
const BYTES_MAX: u64 = 20 + TOPICS_CEILING as u64 * (5 + TOPIC_LEN_MAX as u64);

const DAY_MS: u64 = 86_400_000;

/// The day of a time: days since 1970, from 1.
pub(super) fn day_of(ms: u64) -> u32 {
    u32::try_from(ms / DAY_MS + 1).unwrap_or(u32::MAX)
}

/// Topics, and the days of their newest records; at most [`TOPICS_CEILING`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownTopics(BTreeMap<Topic, u32>);

impl KnownTopics {
    /// A record of this topic is of that day; 0: there is none. `invalid` is everybody's.
    pub(super) fn add(&mut self, topic: Topic, day: u32) {
        let has_room = self.0.len() < TOPICS_CEILING || self.0.contains_key(&topic);
        if day > 0 && has_room && topic.as_str() != INVALID_TOPIC {
            let known = self.0.entry(topic).or_insert(day);
            *known = day.max(*known);
        }
    }

    /// A record of this topic was stamped then, milliseconds since 1970.
    pub(crate) fn add_record(&mut self, topic: Topic, ms: u64) {
        self.add(topic, day_of(ms));
    }

    /// What others know, too.
    fn join(&mut self, other: &Self) {
        other.0.iter().for_each(|(topic, day)| self.add(topic.clone(), *day));
    }

    /// Forgets topics of which no record was stamped in the last `retain_ms` before now, or before the
    /// newest of all records, where that is longer ago: a clock that is ahead makes nothing forgotten. A
    /// day more is given, for what has expired goes a little later.
    fn forget(&mut self, now_ms: u64, retain_ms: u64) {
        let newest_day = self.0.values().copied().max().unwrap_or(0);
        let now_day = day_of(now_ms).min(newest_day);
        let retain_days = u32::try_from(retain_ms.div_ceil(DAY_MS) + 1).unwrap_or(u32::MAX);
        self.0.retain(|_, day| *day >= now_day.saturating_sub(retain_days));
    }

    /// By name.
    pub fn names(&self) -> impl Iterator<Item = &Topic> {
        self.0.keys()
    }

    /// Those with the newest records first, and the days of these.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = (&Topic, u32)> {
        let mut all: Vec<_> = self.0.iter().map(|(topic, day)| (topic, *day)).collect();
        all.sort_by_key(|(_, day)| std::cmp::Reverse(*day));
        all.into_iter()
    }

    /// As it is stored.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut put = Put::default();
        put.bytes(&MAGIC).u16(VERSION).bytes(&[0; 2]).u32(self.0.len() as u32);
        for (topic, day) in &self.0 {
            let name = topic.as_str().as_bytes();
            put.u32(*day).u8(name.len() as u8).bytes(name);
        }
        put.checksum();
        put.0
    }

    /// The inverse.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DamageKind> {
        decode_small(bytes, (&MAGIC, VERSION), PART, Self::take_topics)
    }

    fn take_topics(take: &mut Take<'_>) -> Option<Self> {
        take.bytes(2)?;
        let mut known = BTreeMap::new();
        for _ in 0..take.u32().filter(|&count| count as usize <= TOPICS_CEILING)? {
            let day = take.u32().filter(|&day| day > 0)?;
            let len = take.u8()?;
            let topic = Topic::new(take.bytes(usize::from(len))?).ok()?;
            let is_next = known.last_key_value().is_none_or(|(last, _)| *last < topic);
            if !is_next || topic.as_str() == INVALID_TOPIC {
                return None;
            }
            known.insert(topic, day);
        }
        Some(Self(known))
    }
}

/// Reads such a file; `None`: there is none.
fn load(storage: &dyn Storage, path: &Path) -> io::Result<Option<Result<KnownTopics, DamageKind>>> {
    let read = read_small(storage, path, BYTES_MAX, PART)?;
    Ok(read.map(|bytes| KnownTopics::decode(&bytes?)))
}

/// It holds no record.
fn damage_of(path: &Path, kind: DamageKind) -> Damage {
    let records = Some(0);
    Damage { path: path.to_owned(), offset: 0, len_bytes: 0, range: None, records, kind }
}

/// Checks such a file, offline and read-only.
///
/// # Errors
/// It cannot be read.
pub fn check(storage: &dyn Storage, path: &Path) -> io::Result<Vec<Damage>> {
    Ok(match load(storage, path)? {
        Some(Err(kind)) => vec![damage_of(path, kind)],
        None | Some(Ok(_)) => Vec::new(),
    })
}

/// What is known at a start.
#[derive(Debug, Default)]
pub(crate) struct OpenedTopics {
    on_disk: Option<KnownTopics>,
    /// What is on disk could not be read, or is of a later version.
    is_unread: bool,
    /// What is wrong with it.
    pub(crate) damage: Option<Damage>,
}

impl OpenedTopics {
    /// Reads the file of an ingest directory.
    pub(crate) fn open(storage: &dyn Storage, directory: &Path) -> Self {
        let path = directory.join(TOPICS_FILE);
        let read = || load(storage, &path);
        let damaged = |kind| Some(damage_of(&path, kind));
        match read().or_else(|_| read()) {
            Ok(None) => Self::default(),
            Ok(Some(Ok(known))) => Self { on_disk: Some(known), ..Self::default() },
            Ok(Some(Err(kind))) => {
                let is_unread = matches!(kind, DamageKind::Version(_));
                Self { is_unread, damage: damaged(kind), ..Self::default() }
            }
            Err(error) => {
                let kind = DamageKind::from(Refusal::from(&error));
                Self { is_unread: true, damage: damaged(kind), ..Self::default() }
            }
        }
    }

    /// Enters what is on disk, and what files of the directory hold, into the set of a node, without
    /// what is to be forgotten now, none of it in these files; `retain_ms`: how long a record is kept at
    /// most, where the node knows that.
    pub(crate) fn learned_by(
        self,
        set: Arc<TopicSet>,
        in_files: &KnownTopics,
        now_ms: u64,
        retain_ms: Option<u64>,
    ) -> TopicKeeper {
        let is_there = self.on_disk.is_some() || self.damage.is_some();
        let mut known = self.on_disk.unwrap_or_default();
        known.join(in_files);
        if let Some(retain_ms) = retain_ms {
            known.forget(now_ms, retain_ms);
            // However old it is, it is here, and will be stored.
            known.join(in_files);
        }
        let left_out = set.learn(&known);
        // What the last life wrote may not be what a loss of power would leave.
        let saved = (!is_there && known.0.is_empty()).then(|| set.version());
        TopicKeeper { set, saved, is_unread: self.is_unread, left_out }
    }
}

/// Keeps the file of a node's topics.
#[derive(Debug)]
pub struct TopicKeeper {
    set: Arc<TopicSet>,
    /// Which version of the set is on disk.
    saved: Option<u64>,
    /// What is on disk is still to be read.
    is_unread: bool,
    /// Topics that were known, for which there was no room at the start.
    left_out: usize,
}

impl TopicKeeper {
    /// Topics that were known before and are not any more: there is no room for as many.
    pub const fn left_out(&self) -> usize {
        self.left_out
    }

    /// The topics of the node.
    pub const fn set(&self) -> &Arc<TopicSet> {
        &self.set
    }

    /// Whether the file says what the set says.
    pub fn is_kept(&self) -> bool {
        self.saved == Some(self.set.version())
    }

    /// Brings the file to what the set says, if it says something else.
    ///
    /// # Errors
    /// Those of the disk: it is to be called again.
    pub fn keep(&mut self, registry: &Registry) -> io::Result<()> {
        if self.is_kept() {
            return Ok(());
        }
        self.read_late(registry)?;
        // Before it is read: what comes meanwhile is written the next time.
        let version = self.set.version();
        registry.put(TOPICS_FILE, TOPICS_NEW_FILE, &self.set.known().encode())?;
        self.saved = Some(version);
        Ok(())
    }

    /// Reads what could not be read at the start.
    fn read_late(&mut self, registry: &Registry) -> io::Result<()> {
        if !self.is_unread {
            return Ok(());
        }
        let options = registry.options();
        match load(&*options.storage, &options.directory.join(TOPICS_FILE))? {
            Some(Ok(known)) => self.left_out += self.set.learn(&known),
            Some(Err(kind @ DamageKind::Version(_))) => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, kind.to_string()));
            }
            Some(Err(_)) | None => {}
        }
        self.is_unread = false;
        Ok(())
    }
}

#[cfg(test)]
#[path = "known_topics_tests.rs"]
mod tests;
