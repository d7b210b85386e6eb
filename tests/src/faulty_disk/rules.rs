//! What a faulty disk does to which calls: rules over values and `now`, without a thread or a file.
//!
//! Invariants: a rule counts every call that it fits, whether it meets it or not; the first rule
//! that has something to say to a call decides. Calls are named as the kernel sends them.

use std::time::{Duration, Instant};

pub use rustix::io::Errno;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// A file or directory that is there is opened.
    Open,
    /// A file is created and opened.
    Create,
    /// Bytes are read, by a call or through a map.
    Read,
    /// Bytes are written.
    Write,
    /// `fsync` or `fdatasync` of a file.
    Sync,
    /// The same of a directory.
    SyncDir,
    /// The path is `from -> to`.
    Rename,
    /// A file is removed.
    Unlink,
    /// Space is allocated.
    Allocate,
    /// The length is set.
    Truncate,
    /// A directory is listed.
    List,
    /// The file system's space is asked for.
    Space,
    /// A name is looked up or attributes are asked for.
    Stat,
    /// A directory is made or removed.
    Directory,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Open,
        Self::Create,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::SyncDir,
        Self::Rename,
        Self::Unlink,
        Self::Allocate,
        Self::Truncate,
        Self::List,
        Self::Space,
        Self::Stat,
        Self::Directory,
    ];

    /// Whether a read-only file system refuses it.
    pub fn is_change(self) -> bool {
        matches!(
            self,
            Self::Create
                | Self::Write
                | Self::Rename
                | Self::Unlink
                | Self::Allocate
                | Self::Truncate
                | Self::Directory
        )
    }
}

/// What is done to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It fails and changes nothing.
    Fail(Errno),
    /// It is answered once its rule is over, and then as usual.
    Hang,
    /// A read or write moves so many bytes at most.
    Short(usize),
}

/// For how long a rule lasts, from the first call that it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Calls(u64),
    Lasting(Duration),
    Forever,
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    calls: Vec<Call>,
    /// `*` stands for any bytes, slashes included.
    pattern: String,
    effect: Effect,
    /// Calls that fit and are let through first.
    skipped: u64,
    extent: Extent,
    seen: u64,
    met: u64,
    first: Option<Instant>,
}

impl Rule {
    /// These calls on paths like `pattern` (relative to the disk; `*`: any bytes) meet `effect`,
    /// until the rule is removed.
    pub fn new(calls: &[Call], pattern: &str, effect: Effect) -> Self {
        Self {
            calls: calls.to_vec(),
            pattern: pattern.to_owned(),
            effect,
            skipped: 0,
            extent: Extent::Forever,
            seen: 0,
            met: 0,
            first: None,
        }
    }

    /// Lets `calls` go by first.
    #[must_use]
    pub fn after(self, calls: u64) -> Self {
        Self { skipped: calls, ..self }
    }

    /// Meets so many calls.
    #[must_use]
    pub fn times(self, calls: u64) -> Self {
        Self { extent: Extent::Calls(calls), ..self }
    }

    /// Meets every call for so long from the first one on.
    #[must_use]
    pub fn lasting(self, duration: Duration) -> Self {
        Self { extent: Extent::Lasting(duration), ..self }
    }

    /// How many calls it met.
    pub fn met(&self) -> u64 {
        self.met
    }

    /// Whether it met a call and will meet no other.
    pub fn is_over(&self, now: Instant) -> bool {
        match (self.extent, self.first) {
            (Extent::Calls(calls), _) => self.met >= calls,
            (Extent::Lasting(duration), Some(first)) => now.duration_since(first) >= duration,
            (Extent::Lasting(_), None) | (Extent::Forever, _) => false,
        }
    }

    /// When it will be over, where that is known.
    pub fn ends(&self) -> Option<Instant> {
        match (self.extent, self.first) {
            (Extent::Lasting(duration), Some(first)) => Some(first + duration),
            _ => None,
        }
    }

    /// What it does to this call, if anything.
    pub fn meet(&mut self, now: Instant, call: Call, path: &str) -> Option<Effect> {
        if !self.calls.contains(&call) || !fits(&self.pattern, path) {
            return None;
        }
        self.seen += 1;
        if self.seen <= self.skipped || self.is_over(now) {
            return None;
        }
        self.first.get_or_insert(now);
        self.met += 1;
        Some(self.effect)
    }
}

/// Whether a path is like a pattern, in which `*` stands for any bytes.
pub fn fits(pattern: &str, path: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == path };
    let Some(path) = path.strip_prefix(head) else { return false };
    let starts = path.char_indices().map(|(at, _)| at).chain([path.len()]);
    starts.into_iter().any(|at| fits(rest, &path[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EIO: Effect = Effect::Fail(Errno::IO);

    #[test]
    fn a_star_stands_for_any_bytes() {
        assert!(fits("*", "") && fits("*", "a/b") && fits("a*.x", "a/b.x") && fits("a", "a"));
        assert!(fits("*.active -> *.flushed", "i/1.active -> i/1.flushed"));
        assert!(!fits("a", "ab") && !fits("a*.x", "a/b.xy") && !fits("*b", "a"));
    }

    #[test]
    fn a_rule_lets_some_go_by_and_meets_so_many() {
        let now = Instant::now();
        let mut rule = Rule::new(&[Call::Write], "*", EIO).after(2).times(1);
        let mut meet = |call| rule.meet(now, call, "x");
        assert_eq!([meet(Call::Write), meet(Call::Sync), meet(Call::Write)], [None; 3]);
        assert_eq!([meet(Call::Write), meet(Call::Write)], [Some(EIO), None]);
        assert!(rule.is_over(now) && rule.met() == 1);
    }

    #[test]
    fn a_rule_lasts_from_the_first_call_that_it_meets() {
        let start = Instant::now();
        let mut rule = Rule::new(&Call::ALL, "*", EIO).lasting(Duration::from_secs(5));
        let late = start + Duration::from_secs(60);
        assert!(!rule.is_over(late) && rule.ends().is_none());
        assert_eq!(rule.meet(late, Call::Open, "x"), Some(EIO));
        assert_eq!(rule.meet(late + Duration::from_secs(4), Call::Open, "x"), Some(EIO));
        assert_eq!(rule.meet(late + Duration::from_secs(5), Call::Open, "x"), None);
        assert_eq!(rule.ends(), Some(late + Duration::from_secs(5)));
    }
}
