//! Whether the disk of a directory does what it is told: a judgement over its calls, those that
//! failed, those that succeeded and those that have no answer yet.
//!
//! Invariants: every kind of call counts, whoever makes it. A call that does not come back is a
//! failure like one that is refused. What is over is forgotten: a kind of call that succeeds again
//! is well after [`CALM_MS_MAX`] at most. A shortage of the process, a full disk and a name that is
//! not there are no failures of the disk; a shortage is judged in the same way, but apart
//! ([`DiskHealth::of_process`]), by the calls that taking records needs. Knows no clock and touches no
//! file: callers pass `now_ms`, by a clock that never steps, and look as often as they want to know.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::storage::Refusal;

/// How long a small call may take before it counts as one that hangs, ms.
pub const HANG_MS: u64 = 5_000;
/// The same for a call of a probe, which moves next to nothing, ms.
pub const PROBE_HANG_MS: u64 = 3_000;
/// How long a kind of call must be well after the first failure of a while, ms; doubles with each
/// that follows.
const CALM_MS_MIN: u64 = 1_000;
/// The same at most, ms.
pub const CALM_MS_MAX: u64 = 4_000;
/// A while: troubles closer to each other than this are the same trouble coming back, ms.
const RELAPSE_MS: u64 = 60_000;
/// How long a read may stay the last word before it is one, ms: a file that cannot be read among
/// others that can is that file's damage.
const READ_GRACE_MS: u64 = 1_000;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskCall {
    /// Opening for reading.
    Open,
    /// Opening for writing what is there.
    OpenForWriting,
    /// Making a file or a directory.
    Create,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Making a file's bytes durable.
    Sync,
    /// Making a directory's entries durable.
    SyncDirectory,
    /// Renaming.
    Rename,
    /// Removing.
    Remove,
    /// Allocating space, or setting a length.
    Allocate,
    /// Listing a directory.
    List,
    /// Asking for the free space.
    Space,
    /// Asking for a file's length and times.
    Attributes,
}

impl DiskCall {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Open,
        Self::OpenForWriting,
        Self::Create,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::SyncDirectory,
        Self::Rename,
        Self::Remove,
        Self::Allocate,
        Self::List,
        Self::Space,
        Self::Attributes,
    ];

    /// For the operator.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::OpenForWriting => "open for writing",
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::SyncDirectory => "sync of the directory",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::Allocate => "allocate",
            Self::List => "list",
            Self::Space => "ask for the free space of",
            Self::Attributes => "ask for the length of",
        }
    }

    /// Whether it leaves the disk as it is: then one file may be at fault, and others show that.
    const fn only_reads(self) -> bool {
        matches!(self, Self::Open | Self::Read | Self::List | Self::Space | Self::Attributes)
    }
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failed {
    at_ms: u64,
    /// When the first of the failures came that were all of this file.
    first_ms: u64,
    /// The file took such a call after that: the next failure is a first one.
    is_over: bool,
    path: PathBuf,
    refusal: Refusal,
    error: String,
}

/// A call without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct UnderWay {
    call: DiskCall,
    path: PathBuf,
    since_ms: u64,
    patience_ms: u64,
}

/// Names a call that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(u64);

/// The calls of one reporter; merged with those of others before it is judged.
#[derive(Debug, Clone, Default)]
pub struct DiskCalls {
    failed: BTreeMap<DiskCall, Failed>,
    /// Those that failed for want of descriptors or memory.
    short: BTreeMap<DiskCall, Failed>,
    succeeded_ms: BTreeMap<DiskCall, u64>,
    under_way: BTreeMap<CallId, UnderWay>,
    begun: u64,
}

/// Whether an error says that taking records cannot go on for want of descriptors or memory: a
/// query that is refused some does not keep others from theirs.
fn is_want(error: &io::Error, call: DiskCall, is_probe: bool) -> bool {
    let is_needed = is_probe || matches!(call, DiskCall::Create | DiskCall::OpenForWriting);
    is_needed && Refusal::from(error).is_exhaustion()
}

/// Whether an error says something about the disk.
fn is_the_disks(error: &io::Error, absence_counts: bool) -> bool {
    let refusal = Refusal::from(error);
    let others = matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported
            | io::ErrorKind::UnexpectedEof
    );
    !others
        && !refusal.is_no_room()
        && !refusal.is_no_file()
        && !refusal.is_shortage()
        && (absence_counts || !refusal.is_absence())
}

impl DiskCalls {
    /// A call begins; it hangs once it is older than `patience_ms`.
    pub fn begin(&mut self, now_ms: u64, call: DiskCall, path: &Path, patience_ms: u64) -> CallId {
        self.begun += 1;
        let id = CallId(self.begun);
        let under_way = UnderWay { call, path: path.to_owned(), since_ms: now_ms, patience_ms };
        self.under_way.insert(id, under_way);
        id
    }

    /// It has ended.
    pub fn end(&mut self, now_ms: u64, id: CallId, error: Option<&io::Error>) {
        self.end_of(now_ms, id, error, false);
    }

    /// The same for a call of a probe, whose file must be there.
    pub fn end_probe(&mut self, now_ms: u64, id: CallId, error: Option<&io::Error>) {
        self.end_of(now_ms, id, error, true);
    }

    fn end_of(&mut self, now_ms: u64, id: CallId, error: Option<&io::Error>, is_probe: bool) {
        let Some(ended) = self.under_way.remove(&id) else { return };
        let Some(error) = error else {
            self.succeeded_ms.insert(ended.call, now_ms);
            for failures in [&mut self.failed, &mut self.short] {
                if let Some(failed) = failures.get_mut(&ended.call) {
                    failed.is_over |= failed.path == ended.path;
                }
            }
            return;
        };
        let failures = if is_the_disks(error, is_probe) {
            &mut self.failed
        } else if is_want(error, ended.call, is_probe) {
            &mut self.short
        } else {
            return;
        };
        let same = failures.get(&ended.call);
        let same = same.filter(|failed| failed.path == ended.path && !failed.is_over);
        let failed = Failed {
            at_ms: now_ms,
            first_ms: same.map_or(now_ms, |failed| failed.first_ms),
            is_over: false,
            path: ended.path,
            refusal: Refusal::from(error),
            error: error.to_string(),
        };
        failures.insert(ended.call, failed);
    }

    /// When a call of this kind last succeeded.
    pub fn succeeded_ms(&self, call: DiskCall) -> Option<u64> {
        self.succeeded_ms.get(&call).copied()
    }

    /// Whether a call has been without an answer for so long, ms.
    pub fn waits_since(&self, now_ms: u64, at_least_ms: u64) -> bool {
        self.under_way.values().any(|c| now_ms.saturating_sub(c.since_ms) >= at_least_ms)
    }

    /// Adds what another reporter saw.
    pub fn merge(&mut self, other: Self) {
        for (ours, theirs) in [(&mut self.failed, other.failed), (&mut self.short, other.short)] {
            for (call, failed) in theirs {
                if ours.get(&call).is_none_or(|before| before.at_ms < failed.at_ms) {
                    ours.insert(call, failed);
                }
            }
        }
        for (call, at_ms) in other.succeeded_ms {
            let newest = self.succeeded_ms.entry(call).or_default();
            *newest = at_ms.max(*newest);
        }
        for under_way in other.under_way.into_values() {
            self.begun += 1;
            self.under_way.insert(CallId(self.begun), under_way);
        }
    }

    /// What is wrong now, if a kind of call is well after `calm_ms` without a failure.
    fn complaint(&self, now_ms: u64, calm_ms: u64) -> Option<Trouble> {
        let hangs = |c: &&UnderWay| now_ms.saturating_sub(c.since_ms) >= c.patience_ms;
        if let Some(c) = self.under_way.values().filter(hangs).min_by_key(|c| c.since_ms) {
            let (call, path) = (c.call, c.path.clone());
            let since_ms = c.since_ms;
            return Some(Trouble { call, path, error: None, refusal: None, since_ms });
        }
        let is_open = |(call, failed): &(&DiskCall, &Failed)| {
            let succeeded_ms = self.succeeded_ms(**call);
            if call.only_reads() {
                let is_last_word = succeeded_ms.is_none_or(|at| at < failed.at_ms);
                return is_last_word && now_ms.saturating_sub(failed.at_ms) >= READ_GRACE_MS;
            }
            // One file that refuses again and again (its name is immutable, its sector gone) is no
            // trouble of a disk that does the same to others: it counts when it begins.
            let is_last_word = succeeded_ms.is_none_or(|at| at < failed.first_ms);
            is_last_word || now_ms.saturating_sub(failed.first_ms) < calm_ms
        };
        newest(self.failed.iter().filter(is_open))
    }

    /// What the process lacks now, if it lacks nothing after `calm_ms` without a refusal.
    fn want(&self, now_ms: u64, calm_ms: u64) -> Option<Trouble> {
        let is_open = |(call, failed): &(&DiskCall, &Failed)| {
            let is_last_word = self.succeeded_ms(**call).is_none_or(|at| at < failed.first_ms);
            is_last_word || now_ms.saturating_sub(failed.at_ms) < calm_ms
        };
        newest(self.short.iter().filter(is_open))
    }
}

fn newest<'a>(failures: impl Iterator<Item = (&'a DiskCall, &'a Failed)>) -> Option<Trouble> {
    let (&call, failed) = failures.max_by_key(|(_, failed)| failed.at_ms)?;
    let (path, error) = (failed.path.clone(), Some(failed.error.clone()));
    Some(Trouble { call, path, error, refusal: Some(failed.refusal), since_ms: failed.at_ms })
}

/// What is wrong with a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The kind of call.
    pub call: DiskCall,
    /// On what.
    pub path: PathBuf,
    /// What the system said; `None`: nothing yet.
    pub error: Option<String>,
    /// What that means.
    pub refusal: Option<Refusal>,
    /// Since when the disk has been in trouble, ms.
    pub since_ms: u64,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.error {
            Some(error) => write!(f, "{} {path}: {error}", self.call.name()),
            None => write!(f, "{} {path}: the disk does not answer", self.call.name()),
        }
    }
}

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The disk is in trouble from now on.
    Began(Trouble),
    /// It is well again.
    Over(Trouble),
}

/// The judgement on one directory's disk.
#[derive(Debug, Default)]
pub struct DiskHealth {
    trouble: Option<Trouble>,
    calm_ms: u64,
    last_ms: Option<u64>,
    /// It is the process that is judged, not the disk.
    is_of_process: bool,
}

impl DiskHealth {
    /// The judgement on what the process has to work with: whether it has descriptors and memory.
    pub fn of_process() -> Self {
        Self { is_of_process: true, ..Self::default() }
    }

    /// Judges what all reporters saw.
    pub fn look(&mut self, now_ms: u64, calls: &DiskCalls) -> Option<Change> {
        let calm_ms = self.calm_ms.max(CALM_MS_MIN);
        let complaint = if self.is_of_process {
            calls.want(now_ms, calm_ms)
        } else {
            calls.complaint(now_ms, calm_ms)
        };
        match (complaint, self.trouble.take()) {
            (None, None) => None,
            (None, Some(over)) => {
                self.last_ms = Some(now_ms);
                Some(Change::Over(over))
            }
            (Some(now), Some(before)) => {
                self.trouble = Some(Trouble { since_ms: before.since_ms, ..now });
                None
            }
            (Some(began), None) => {
                let relapsed = self.last_ms.is_some_and(|at| now_ms < at + RELAPSE_MS);
                let doubled = (2 * self.calm_ms).clamp(CALM_MS_MIN, CALM_MS_MAX);
                self.calm_ms = if relapsed { doubled } else { CALM_MS_MIN };
                self.trouble = Some(began.clone());
                Some(Change::Began(began))
            }
        }
    }

    /// What is wrong, as of the last look.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "data/ingest/1.active";

    fn error(errno: i32) -> io::Error {
        io::Error::from_raw_os_error(errno)
    }

    fn call(calls: &mut DiskCalls, now_ms: u64, call: DiskCall, failed: Option<i32>) {
        let id = calls.begin(now_ms, call, Path::new(PATH), HANG_MS);
        calls.end(now_ms, id, failed.map(error).as_ref());
    }

    fn is_troubled(health: &mut DiskHealth, now_ms: u64, calls: &DiskCalls) -> bool {
        health.look(now_ms, calls);
        health.trouble().is_some()
    }

    #[test]
    fn whatever_changes_the_disk_and_fails_is_trouble_until_it_succeeds_again() {
        for kind in DiskCall::ALL.into_iter().filter(|kind| !kind.only_reads()) {
            let (mut health, mut calls) = (DiskHealth::default(), DiskCalls::default());
            call(&mut calls, 0, kind, None);
            assert_eq!(health.look(0, &calls), None);
            call(&mut calls, 10, kind, Some(libc::EIO));
            let Some(Change::Began(trouble)) = health.look(10, &calls) else { panic!("{kind:?}") };
            assert_eq!(trouble.since_ms, 10);
            let words = trouble.to_string();
            assert!(words.contains(PATH) && words.contains("os error 5"), "{words}");
            assert!(words.contains(kind.name()));
            for later in DiskCall::ALL.into_iter().filter(|other| *other != kind) {
                call(&mut calls, 20, later, None);
            }
            assert_eq!(health.look(100_000, &calls), None, "others say nothing about {kind:?}");
            call(&mut calls, 100_000, kind, None);
            assert_eq!(health.look(100_000, &calls), Some(Change::Over(trouble)));
            assert_eq!(health.look(100_001, &calls), None, "told once");
        }
    }

    #[test]
    fn a_call_that_does_not_come_back_is_trouble_of_its_own() {
        for kind in DiskCall::ALL {
            let (mut health, mut calls) = (DiskHealth::default(), DiskCalls::default());
            let id = calls.begin(100, kind, Path::new(PATH), HANG_MS);
            assert!(!is_troubled(&mut health, 99 + HANG_MS, &calls));
            assert!(is_troubled(&mut health, 100 + HANG_MS, &calls));
            let trouble = health.trouble().unwrap();
            assert!(trouble.to_string().contains("does not answer") && trouble.since_ms == 100);
            calls.end(200 + HANG_MS, id, None);
            assert!(!is_troubled(&mut health, 200 + HANG_MS, &calls));
        }
    }

    #[test]
    fn one_file_that_cannot_be_read_is_no_trouble_of_the_disk_but_all_of_them_are() {
        let (mut health, mut calls) = (DiskHealth::default(), DiskCalls::default());
        for second in 0..60 {
            call(&mut calls, second * 1000, DiskCall::Read, Some(libc::EIO));
            call(&mut calls, second * 1000 + 500, DiskCall::Read, None);
            assert!(!is_troubled(&mut health, second * 1000 + 999, &calls));
        }
        call(&mut calls, 70_000, DiskCall::Read, Some(libc::EIO));
        assert!(!is_troubled(&mut health, 70_999, &calls));
        assert!(is_troubled(&mut health, 71_000, &calls));
    }

    #[test]
    fn one_file_that_refuses_every_change_is_trouble_for_a_moment_and_not_for_ever() {
        let (mut health, mut calls) = (DiskHealth::default(), DiskCalls::default());
        let other = Path::new("data/ingest/PROBE");
        let mut troubled = 0;
        for tick in 0..3_000 {
            call(&mut calls, tick * 20, DiskCall::Remove, Some(libc::EPERM));
            if tick % 150 == 100 {
                let id = calls.begin(tick * 20 + 1, DiskCall::Remove, other, HANG_MS);
                calls.end_probe(tick * 20 + 1, id, None);
            }
            troubled += u64::from(is_troubled(&mut health, tick * 20 + 2, &calls));
        }
        assert!((1..300).contains(&troubled), "{troubled} of 3000");
        // Another file as well: that is the disk.
        let id = calls.begin(60_000, DiskCall::Remove, other, HANG_MS);
        calls.end_probe(60_000, id, Some(&error(libc::EIO)));
        assert!(is_troubled(&mut health, 60_001, &calls));
    }

    #[test]
    fn want_of_descriptors_or_room_and_missing_names_are_not_the_disks() {
        let (mut health, mut calls) = (DiskHealth::default(), DiskCalls::default());
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EINTR, libc::EAGAIN] {
            call(&mut calls, 0, DiskCall::Create, Some(errno));
        }
        for errno in [libc::ENOSPC, libc::EDQUOT, libc::EEXIST, libc::EINVAL, libc::ENOENT] {
            call(&mut calls, 0, DiskCall::Write, Some(errno));
        }
        assert!(!is_troubled(&mut health, 10_000, &calls));
        let id = calls.begin(0, DiskCall::Create, Path::new(PATH), HANG_MS);
        calls.end_probe(0, id, Some(&error(libc::ENOENT)));
        assert!(is_troubled(&mut health, 10_000, &calls), "a probe's directory must be there");
    }

    #[test]
    fn want_of_descriptors_is_the_process_s_until_calls_succeed_again() {
        let (mut disk, mut process) = (DiskHealth::default(), DiskHealth::of_process());
        let mut calls = DiskCalls::default();
        call(&mut calls, 0, DiskCall::Open, Some(libc::EMFILE));
        call(&mut calls, 0, DiskCall::Create, Some(libc::EAGAIN));
        call(&mut calls, 0, DiskCall::Create, Some(libc::EIO));
        assert!(!is_troubled(&mut process, 10, &calls), "queries, moments and disks are others");
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
            call(&mut calls, 20, DiskCall::Create, Some(errno));
            assert!(is_troubled(&mut process, 20, &calls));
            assert!(process.trouble().unwrap().refusal.unwrap().is_exhaustion());
        }
        call(&mut calls, 21, DiskCall::Create, None);
        assert!(!is_troubled(&mut disk, 10_000, &calls));
        assert!(is_troubled(&mut process, 1_019, &calls), "it may not last");
        assert!(!is_troubled(&mut process, 1_020, &calls));
        let id = calls.begin(5_000, DiskCall::List, Path::new(PATH), HANG_MS);
        calls.end_probe(5_000, id, Some(&error(libc::EMFILE)));
        assert!(is_troubled(&mut process, 50_000, &calls), "a probe's calls are needed");
    }

    #[test]
    fn trouble_that_comes_back_is_believed_to_be_over_more_slowly_but_soon() {
        let (mut health, mut calls) = (DiskHealth::default(), DiskCalls::default());
        let (mut now_ms, mut patience) = (0, Vec::new());
        for _ in 0..5 {
            call(&mut calls, now_ms, DiskCall::Rename, Some(libc::EROFS));
            call(&mut calls, now_ms, DiskCall::Rename, None);
            let start_ms = now_ms;
            while is_troubled(&mut health, now_ms, &calls) {
                now_ms += 100;
            }
            patience.push(now_ms - start_ms);
        }
        assert_eq!(patience, [1000, 2000, 4000, 4000, 4000]);
        call(&mut calls, now_ms + RELAPSE_MS, DiskCall::Rename, Some(libc::EROFS));
        call(&mut calls, now_ms + RELAPSE_MS, DiskCall::Rename, None);
        assert!(is_troubled(&mut health, now_ms + RELAPSE_MS, &calls));
        assert!(!is_troubled(&mut health, now_ms + RELAPSE_MS + 1000, &calls));
    }

    #[test]
    fn what_one_reporter_cannot_another_may_show_to_work_again() {
        let (mut shard, mut probe) = (DiskCalls::default(), DiskCalls::default());
        call(&mut shard, 10, DiskCall::Sync, Some(libc::EIO));
        call(&mut probe, 2_000, DiskCall::Sync, None);
        let mut both = shard.clone();
        both.merge(probe);
        assert!(is_troubled(&mut DiskHealth::default(), 2_000, &shard));
        assert!(!is_troubled(&mut DiskHealth::default(), 2_000, &both));
        let mut hanging = DiskCalls::default();
        hanging.begin(0, DiskCall::Write, Path::new(PATH), HANG_MS);
        both.merge(hanging.clone());
        both.merge(hanging);
        assert!(both.waits_since(HANG_MS, HANG_MS) && both.under_way.len() == 2);
    }
}
