//! Who may do what: tokens, their rights and topics.
//!
//! Whoever asks gets an [`Access`] from the node's [`Authority`] and shows it wherever records are shown,
//! counted or taken: [`crate::backend::Guarded`] is the one way to them, and takes no request without one.
//! `table` says what a token may do, `buckets` how often something may be tried, `rates` how often
//! somebody may ask, `refusals` what is told of
//! those who may not.
//!
//! Invariants: no I/O and no clock here. A token is compared by its SHA-256, as the key of a map with a
//! seed of its own: how long that takes depends on no byte of the token that anybody could choose without
//! finding a hash, so it tells nothing of how much of a guess is right. Where there is no table everybody
//! may do everything, and nobody waits for a lock. Secrets are never shown.

mod buckets;
mod rates;
mod refusals;
mod table;

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use engine::topic::Topic;
use tokio::sync::watch;

pub use self::buckets::Buckets;
pub use self::rates::Rates;
pub use self::refusals::{Line, Reason, Refusals};
pub use self::table::{Digest, Entry, Grant, Right, Rights, Table, TableError, digest};

/// What somebody may do, and who that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    grant: Arc<Grant>,
    /// The hash of the token; `None`: nobody in particular.
    key: Option<Digest>,
}

/// Of everybody, where there is no table.
static EVERYTHING: LazyLock<Access> = LazyLock::new(|| {
    let grant = Grant { name: table::ANONYMOUS.into(), rights: Rights::ALL, topics: None };
    Access { grant: Arc::new(grant), key: None }
});

/// What somebody may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beyond {
    /// Why, in the form of a metric's label.
    pub reason: Reason,
    /// A sentence for who asked.
    pub words: String,
    /// Who asked had no token.
    pub is_anonymous: bool,
}

impl fmt::Display for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl Access {
    /// Everything.
    pub fn everything() -> Self {
        EVERYTHING.clone()
    }

    /// Whose it is.
    pub fn name(&self) -> &str {
        &self.grant.name
    }

    /// What it may do.
    pub fn rights(&self) -> Rights {
        self.grant.rights
    }

    /// The topics of all that it may see and write; `None`: any.
    pub fn topics(&self) -> Option<&[Topic]> {
        self.grant.topics.as_deref()
    }

    /// Whether it came without a token.
    pub const fn is_anonymous(&self) -> bool {
        self.key.is_none()
    }

    /// The hash of its token.
    pub const fn key(&self) -> Option<Digest> {
        self.key
    }

    /// Refuses what takes a right that it has not.
    pub fn require(&self, right: Right) -> Result<(), Beyond> {
        if self.grant.rights.has(right) {
            return Ok(());
        }
        let words = format!(
            "{} has not the right to {}; it has {}",
            self.who(),
            right.name(),
            self.grant.rights
        );
        Err(self.beyond(Reason::Right, words))
    }

    /// Refuses what tells of all topics at a time.
    pub fn require_everything(&self) -> Result<(), Beyond> {
        if !self.grant.rights.has(Right::Admin) {
            self.require(Right::Read)?;
        }
        if self.grant.topics.is_none() {
            return Ok(());
        }
        let words = format!(
            "{} is for {} only, and this tells of all topics together",
            self.who(),
            self.topic_names()
        );
        Err(self.beyond(Reason::Topic, words))
    }

    /// Refuses to read a topic that it may not.
    pub fn require_reading(&self, topics: &[Topic]) -> Result<(), Beyond> {
        self.require(Right::Read)?;
        topics.iter().try_for_each(|topic| self.require_topic(topic))
    }

    /// Refuses to write to a topic that it may not; `None`: the node chooses one.
    pub fn require_writing(&self, topic: Option<&Topic>) -> Result<(), Beyond> {
        self.require(Right::Write)?;
        match (topic, &self.grant.topics) {
            (Some(topic), _) => self.require_topic(topic),
            (None, None) => Ok(()),
            (None, Some(_)) => {
                let words = format!(
                    "topic: not named, and {} writes to {} only: name one",
                    self.who(),
                    self.topic_names()
                );
                Err(self.beyond(Reason::Topic, words))
            }
        }
    }

    fn require_topic(&self, topic: &Topic) -> Result<(), Beyond> {
        let topics = self.grant.topics.as_deref();
        if topics.is_none_or(|topics| topics.contains(topic)) {
            return Ok(());
        }
        let words = format!(
            "topic: {:?} is not for {}, which is for {} only",
            topic.as_str(),
            self.who(),
            self.topic_names()
        );
        Err(self.beyond(Reason::Topic, words))
    }

    fn beyond(&self, reason: Reason, words: String) -> Beyond {
        Beyond { reason, words, is_anonymous: self.is_anonymous() }
    }

    fn who(&self) -> String {
        match self.key {
            Some(_) => format!("the token {:?}", self.name()),
            None => "who has no token".to_owned(),
        }
    }

    /// The first few of its topics.
    fn topic_names(&self) -> String {
        const SHOWN: usize = 8;
        let topics = self.grant.topics.as_deref().unwrap_or_default();
        let shown: Vec<&str> = topics.iter().take(SHOWN).map(Topic::as_str).collect();
        let rest = if topics.len() > SHOWN { ", …" } else { "" };
        format!("{}{rest}", shown.join(", "))
    }
}

/// Why nobody is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// There is no token, and without one nothing may be done.
    NoToken,
    /// Nobody has this token.
    WrongToken,
}

/// Who may do what on this node. Clones share it.
#[derive(Clone, Default)]
pub struct Authority(Option<Arc<Shared>>);

struct Shared {
    table: Mutex<Arc<Table>>,
    /// Grows with every change.
    changes: AtomicU64,
    tell: watch::Sender<u64>,
    refusals: Mutex<Refusals>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Authority {
    /// Everybody may do everything.
    pub const fn none() -> Self {
        Self(None)
    }

    /// What a table says.
    pub fn of(table: Table) -> Self {
        Self(Some(Arc::new(Shared {
            table: Mutex::new(Arc::new(table)),
            changes: AtomicU64::new(0),
            tell: watch::Sender::new(0),
            refusals: Mutex::default(),
        })))
    }

    /// Whether everybody may do everything.
    pub const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Another table holds from now on; `false`: it says the same.
    pub fn set(&self, table: Table) -> bool {
        let Some(shared) = &self.0 else { return false };
        let mut held = lock(&shared.table);
        if **held == table {
            return false;
        }
        *held = Arc::new(table);
        drop(held);
        let changes = shared.changes.fetch_add(1, Ordering::Release) + 1;
        shared.tell.send_replace(changes);
        true
    }

    /// How often it has changed.
    pub fn changes(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.changes.load(Ordering::Acquire))
    }

    /// What whoever has this token may do; without one, what anybody may.
    pub fn admit(&self, token: Option<&[u8]>) -> Result<Access, Unknown> {
        let Some(shared) = &self.0 else { return Ok(Access::everything()) };
        // Not while the table is held: others wait for it.
        let key = token.map(digest);
        let table = Arc::clone(&lock(&shared.table));
        let unknown = if key.is_some() { Unknown::WrongToken } else { Unknown::NoToken };
        let grant = table.grant(key.as_ref()).ok_or(unknown)?;
        Ok(Access { grant: Arc::clone(grant), key })
    }

    /// Whether what was given still holds as it was given.
    pub fn holds(&self, access: &Access) -> bool {
        let Some(shared) = &self.0 else { return true };
        let table = Arc::clone(&lock(&shared.table));
        table.grant(access.key.as_ref()) == Some(&access.grant)
    }

    /// Ready once something has changed since it was asked for; never, where nothing can.
    pub fn watch(&self) -> Changes {
        Changes(self.0.as_ref().map(|shared| shared.tell.subscribe()))
    }

    /// Notes that somebody was refused. `Some`: that is to be told to the operator.
    pub fn refused(&self, reason: Reason, address: Option<IpAddr>, now_ms: u64) -> Option<Line> {
        let shared = self.0.as_ref()?;
        lock(&shared.refusals).note(reason, address, now_ms)
    }

    /// Whether an address has brought so many wrong tokens that it is to wait; for how long, ms.
    pub fn wrong_token(&self, address: IpAddr, now_ms: u64) -> Option<u64> {
        let shared = self.0.as_ref()?;
        lock(&shared.refusals).wrong_token(address, now_ms)
    }
}

/// Tells of changes.
pub struct Changes(Option<watch::Receiver<u64>>);

impl Changes {
    /// Ready with the next one.
    pub async fn next(&mut self) {
        if let Some(changes) = &mut self.0
            && changes.changed().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
