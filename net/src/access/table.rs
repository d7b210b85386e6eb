//! What tokens may do, as one value.
//!
//! Invariants: no two entries have one name or one token; topics are none or some; an entry has a right.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use engine::topic::Topic;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN};

use crate::limits::{QUERY_TOPICS_MAX, TOKENS_MAX};

/// The SHA-256 of a token's bytes.
pub type Digest = [u8; SHA256_OUTPUT_LEN];

/// The name of the entry that says what those without a token may do.
pub(super) const ANONYMOUS: &str = "anonymous";

/// The hash by which a token is known.
pub fn digest(token: &[u8]) -> Digest {
    let hash = ring::digest::digest(&SHA256, token);
    hash.as_ref().try_into().expect("SHA-256 has as many bytes")
}

/// One thing that may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// See records, and count them.
    Read,
    /// Send records.
    Write,
    /// Empty the node.
    Admin,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    /// As files and answers name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::Admin => 4,
        }
    }
}

/// Some of the rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights(u8);

impl Rights {
    /// Every one.
    pub const ALL: Self = Self(7);

    /// With one more.
    #[must_use]
    pub const fn and(self, right: Right) -> Self {
        Self(self.0 | right.bit())
    }

    /// Whether it is among them.
    pub const fn has(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }

    /// Their names.
    pub fn names(self) -> Vec<&'static str> {
        Right::ALL.into_iter().filter(|right| self.has(*right)).map(Right::name).collect()
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names()[..] {
            [] => f.write_str("none"),
            ref names => f.write_str(&names.join(", ")),
        }
    }
}

/// What somebody may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whose it is.
    pub name: String,
    /// What may be done.
    pub rights: Rights,
    /// The topics of what may be seen and written; `None`: any.
    pub topics: Option<Vec<Topic>>,
}

/// A grant and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The hash of the token; `None`: of those who have none.
    pub key: Option<Digest>,
    /// What it may do.
    pub grant: Grant,
}

/// Why entries make no table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableError {
    /// There are none: nobody could do anything.
    Empty,
    /// More than so many.
    TooMany(usize),
    /// Two have this name.
    SameName(String),
    /// Both have one token.
    SameToken(String, String),
    /// This one has no right.
    NoRight(String),
    /// This one names no topic, or more than there may be.
    Topics(String),
    /// This one's is the hash of nothing.
    NoToken(String),
    /// Without a token is only who has this name, and who has it has none.
    Keyless(String),
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str(
                "holds no [[token]]: nobody could do anything; add one with name, sha256 and rights",
            ),
            Self::TooMany(max) => write!(f, "holds more than {max} tokens: take some out"),
            Self::SameName(name) => write!(f, "two tokens are named {name:?}: rename one"),
            Self::SameToken(one, other) => {
                write!(f, "{one:?} and {other:?} have the same sha256: take one out")
            }
            Self::NoRight(name) => {
                write!(f, "{name:?} has no right: give it some of \"read\", \"write\", \"admin\"")
            }
            Self::Topics(name) => write!(
                f,
                "{name:?}: topics are 1 to {QUERY_TOPICS_MAX}, each once; leave them out for every topic"
            ),
            Self::NoToken(name) => write!(
                f,
                "{name:?}: its sha256 is that of an empty file, and nobody's token: hash the token again"
            ),
            Self::Keyless(name) if name == ANONYMOUS => write!(
                f,
                "{name:?} is the name of those who have no token: take its sha256 out, or rename it"
            ),
            Self::Keyless(name) => write!(
                f,
                "{name:?} has no sha256: add the SHA-256 of its token (printf %s TOKEN | sha256sum)"
            ),
        }
    }
}

impl std::error::Error for TableError {}

/// See the module page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    of_tokens: HashMap<Digest, Arc<Grant>>,
    of_anybody: Option<Arc<Grant>>,
}

impl Table {
    /// Of entries that fit each other.
    pub fn new(entries: Vec<Entry>) -> Result<Self, TableError> {
        if entries.is_empty() {
            return Err(TableError::Empty);
        }
        if entries.len() > TOKENS_MAX {
            return Err(TableError::TooMany(TOKENS_MAX));
        }
        let mut names = HashSet::new();
        let mut table = Self::default();
        for Entry { key, grant } in entries {
            let name = grant.name.clone();
            if !names.insert(name.clone()) {
                return Err(TableError::SameName(name));
            }
            if grant.rights == Rights::default() {
                return Err(TableError::NoRight(name));
            }
            let each_once = |topics: &Vec<Topic>| {
                let distinct: HashSet<_> = topics.iter().map(Topic::as_str).collect();
                distinct.len() == topics.len() && (1..=QUERY_TOPICS_MAX).contains(&topics.len())
            };
            if !grant.topics.as_ref().is_none_or(each_once) {
                return Err(TableError::Topics(name));
            }
            if key.is_none() != (name == ANONYMOUS) {
                return Err(TableError::Keyless(name));
            }
            let grant = Arc::new(grant);
            let Some(key) = key else {
                table.of_anybody = Some(grant);
                continue;
            };
            if key == digest(b"") {
                return Err(TableError::NoToken(name));
            }
            if let Some(other) = table.of_tokens.insert(key, grant) {
                return Err(TableError::SameToken(other.name.clone(), name));
            }
        }
        Ok(table)
    }

    /// How many tokens it knows.
    pub fn len(&self) -> usize {
        self.of_tokens.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.of_tokens.is_empty()
    }

    /// What the owner of a token may do, or anybody.
    pub fn grant(&self, key: Option<&Digest>) -> Option<&Arc<Grant>> {
        match key {
            Some(key) => self.of_tokens.get(key),
            None => self.of_anybody.as_ref(),
        }
    }
}
