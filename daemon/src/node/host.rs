//! What this process may use of its host: cores by affinity and cgroup quota, open files, which are
//! shared out here, so that nobody takes what another needs.

use std::fs;
use std::path::Path;

use engine::limits::SEGMENTS_OPEN_MAX;

/// Descriptors of the process itself (logs, locks, HTTP, epoll) and of each shard (its ring, its
/// listeners, its files).
const DESCRIPTORS_OF_PROCESS: u64 = 64;
const DESCRIPTORS_OF_SHARD: u64 = 12;
/// Descriptors that are kept for segments, beside connections, whatever the limit is.
const DESCRIPTORS_OF_SEGMENTS_MIN: u64 = 384;
/// With as many each share of segments is as large as it is of use.
const DESCRIPTORS_OF_SEGMENTS: u64 = SEGMENT_SHARES as u64 * SEGMENTS_OPEN_MAX as u64;
/// What segments may have is shared out in equal parts: two to those kept open, of ingest and store, one
/// to gathers, one to compaction, two to queries.
const SEGMENT_SHARES: usize = 6;
/// Of the limit, as long as these are too few: fewer connections are missed less than queries that open
/// and verify everything anew.
const SEGMENTS_PART: u64 = 8;
/// Descriptors that are kept beside connections where there are few shards.
const DESCRIPTORS_RESERVED_MIN: u64 = 512;
/// Connections without which a node does not start.
const CONNECTIONS_MIN: u64 = 64;

/// The cores that shards and scan threads are pinned to, at least one.
pub(super) fn cores(wanted: Option<usize>) -> Vec<usize> {
    let mut cores = rustix::thread::sched_getaffinity(None).map_or_else(
        |_| vec![0],
        |set| (0..rustix::thread::CpuSet::MAX_CPU).filter(|&c| set.is_set(c)).collect(),
    );
    let count = wanted.unwrap_or_else(|| quota().unwrap_or(usize::MAX)).max(1);
    cores.truncate(count);
    if cores.is_empty() {
        cores.push(0);
    }
    cores
}

/// Whole cores that the cgroup quota leaves, if there is one (version 2, then version 1).
fn quota() -> Option<usize> {
    let v2 = fs::read_to_string("/sys/fs/cgroup/cpu.max").ok().and_then(|t| parse_cpu_max(&t));
    v2.or_else(|| {
        let read = |name: &str| {
            let path = Path::new("/sys/fs/cgroup/cpu").join(name);
            fs::read_to_string(path).ok()?.trim().parse::<i64>().ok()
        };
        whole_cores(read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?)
    })
}

fn parse_cpu_max(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    whole_cores(quota.parse().ok()?, period.parse().ok()?)
}

/// A quota of 1.5 cores is worth two threads that share it; none is worth less than one.
fn whole_cores(quota_us: i64, period_us: i64) -> Option<usize> {
    if quota_us <= 0 || period_us <= 0 {
        return None;
    }
    usize::try_from((quota_us + period_us - 1) / period_us).ok()
}

/// Connections that are open at a time at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connections {
    pub(super) ingest: usize,
    pub(super) http: usize,
}

/// Who may have how many of the process's descriptors at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptors {
    pub(super) connections: Connections,
    pub(super) segments: SegmentDescriptors,
}

/// What segments may have. A third of their share is left to queries, which open what overlaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentDescriptors {
    /// Kept open for the next query, of ingest and store each.
    pub(super) kept: usize,
    /// Inputs of a gather.
    pub(super) gather_inputs: usize,
    /// Inputs of a compaction.
    pub(super) compaction_inputs: usize,
}

/// What descriptors are shared out to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) connections: Connections,
    pub(super) shards: usize,
    pub(super) gathers: usize,
}

/// The limit of open files is too low.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooFew {
    pub(crate) have: u64,
    pub(crate) needed: u64,
}

/// Raises the limit of open files as far as it goes and shares it out, with advice if fewer
/// connections fit than are wanted. An error: with this limit a node would fail sooner or later.
pub(super) fn descriptors(wanted: &Wanted) -> Result<(Descriptors, Option<String>), TooFew> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let have = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let have = have.unwrap_or(u64::MAX);
    let shares = wanted.share(have)?;
    let (fit, asked) = (shares.connections, wanted.connections);
    if fit == asked {
        return Ok((shares, None));
    }
    let advice = format!(
        "the limit of open files, {have}, leaves room for {} ingest and {} HTTP connections, not \
         {} and {}: raise it (ulimit -n, or LimitNOFILE=) to {}, or lower \
         --ingest.connections-max or --http.connections-max",
        fit.ingest,
        fit.http,
        asked.ingest,
        asked.http,
        (asked.ingest + asked.http) as u64 + wanted.reserved(u64::MAX)
    );
    Ok((shares, Some(advice)))
}

impl Wanted {
    const fn of_process(&self) -> u64 {
        DESCRIPTORS_OF_PROCESS + DESCRIPTORS_OF_SHARD * self.shards as u64
    }

    /// What is kept beside connections, of so many in all. Beyond what a start needs, segments get only
    /// what leaves the least number of connections.
    fn reserved(&self, have: u64) -> u64 {
        let least = self.least_reserved();
        let of_segments = (have / SEGMENTS_PART).min(DESCRIPTORS_OF_SEGMENTS);
        let wanted = self.of_process() + of_segments;
        wanted.min(have.saturating_sub(CONNECTIONS_MIN)).max(least)
    }

    /// The same of as few as a node starts with.
    fn least_reserved(&self) -> u64 {
        DESCRIPTORS_RESERVED_MIN.max(self.of_process() + DESCRIPTORS_OF_SEGMENTS_MIN)
    }

    /// Shares so many descriptors out. Where not all connections fit, HTTP keeps a quarter at least,
    /// since it is how an operator finds out.
    fn share(&self, have: u64) -> Result<Descriptors, TooFew> {
        let needed = self.least_reserved() + CONNECTIONS_MIN;
        if have < needed {
            return Err(TooFew { have, needed });
        }
        let wanted = self.connections;
        let room = usize::try_from(have - self.reserved(have)).unwrap_or(usize::MAX);
        let http = wanted.http.min((room / 4).max(room.saturating_sub(wanted.ingest)));
        let connections = Connections { ingest: wanted.ingest.min(room - http), http };
        Ok(Descriptors { connections, segments: self.segments(have, connections) })
    }

    /// What is left for segments of so many descriptors; the least with which work goes on, where
    /// the limit was lowered under what is in use.
    fn segments(&self, have: u64, connections: Connections) -> SegmentDescriptors {
        let taken = self.of_process() + (connections.ingest + connections.http) as u64;
        let share = usize::try_from(have.saturating_sub(taken)).unwrap_or(usize::MAX);
        let at_most = |part: usize, max: usize| part.clamp(SEGMENTS_EACH_MIN.min(max), max);
        SegmentDescriptors {
            kept: at_most(share / SEGMENT_SHARES, SEGMENTS_OPEN_MAX),
            gather_inputs: at_most(share / SEGMENT_SHARES / self.gathers.max(1), usize::MAX),
            compaction_inputs: at_most(share / SEGMENT_SHARES, usize::MAX),
        }
    }

    /// What segments may have by the limit as it is now: it may have been changed from outside.
    pub(super) fn segments_now(&self) -> SegmentDescriptors {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        self.segments(limit.current.unwrap_or(u64::MAX), self.connections)
    }
}

/// Segments that may be open at a time of each kind, however few descriptors there are: two are
/// merged.
const SEGMENTS_EACH_MIN: usize = 2;

/// Niceness of scan threads: beside a busy shard on the same core they get a quarter of it, so that
/// queries go on without delaying those who send.
const SCAN_NICENESS: i32 = 5;

/// Lowers the calling thread's priority below that of the shards.
pub(super) fn yield_to_shards() {
    // On Linux this is the thread's own; a refusal costs senders a little delay, nothing else.
    let _ = rustix::process::setpriority_process(None, SCAN_NICENESS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_quota_is_rounded_up_to_whole_cores() {
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(2));
        assert_eq!(parse_cpu_max("50000 100000\n"), Some(1));
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(whole_cores(-1, 100_000), None);
    }

    #[test]
    fn descriptors_go_round() {
        let connections = Connections { ingest: 1000, http: 400 };
        let wanted = Wanted { connections, shards: 2, gathers: 1 };
        let share = |have| wanted.share(have).map(|d| (d.connections.ingest, d.connections.http));
        assert_eq!(share(575), Err(TooFew { have: 575, needed: 576 }));
        assert_eq!(share(576), Ok((48, 16)));
        assert_eq!(share(512 + 1000), Ok((750, 250)));
        assert_eq!(share(512 + 1399), Ok((1000, 399)));
        assert_eq!(share(512 + 1400), Ok((1000, 400)));
        assert_eq!(share(u64::MAX), Ok((1000, 400)));
    }

    #[test]
    fn more_connections_than_there_are_descriptors_do_not_leave_segments_the_least() {
        let connections = Connections { ingest: 16_384, http: 4_096 };
        let wanted = Wanted { connections, shards: 2, gathers: 1 };
        let kept = |have| wanted.share(have).unwrap().segments.kept;
        assert_eq!(kept(20_000), SEGMENTS_OPEN_MAX);
        assert_eq!(kept(65_536), SEGMENTS_OPEN_MAX);
        assert!(kept(1_024) >= 60 && kept(8_192) > 2 * kept(1_024));
    }

    #[test]
    fn at_every_limit_that_is_allowed_all_shares_together_fit_it() {
        for shards in [1, 2, 8, 64, 213, 214, 256, 257, 512, 1_024] {
            for gathers in [1, 2, 8] {
                let connections = Connections { ingest: 1000, http: 400 };
                let wanted = Wanted { connections, shards, gathers };
                let least = wanted.share(0).unwrap_err().needed;
                for have in (least..least + 4000).step_by(37) {
                    let Descriptors { connections, segments } = wanted.share(have).unwrap();
                    let given = (connections.ingest + connections.http) as u64;
                    assert!(given >= CONNECTIONS_MIN, "{shards} shards, {have}: {given}");
                    // As many as gather and compaction take where there is no want.
                    let merging = segments.gather_inputs.min(64) * gathers
                        + segments.compaction_inputs.min(64);
                    let segments_taken = 2 * segments.kept + merging;
                    let taken = wanted.of_process() as usize
                        + connections.ingest
                        + connections.http
                        + segments_taken;
                    let left = have as usize - taken;
                    assert!(left >= 100, "{have} descriptors leave {left} to queries");
                    assert!(segments.kept >= 60 && segments.compaction_inputs >= 60);
                    assert!(segments.gather_inputs * gathers >= 60);
                }
                // Lowered from outside under what is in use: slower, but it goes on.
                let segments = wanted.segments(100, connections);
                assert_eq!((segments.kept, segments.gather_inputs), (2, 2));
            }
        }
    }

    #[test]
    fn there_is_always_a_core_and_never_more_than_asked_for() {
        assert!(!cores(None).is_empty());
        assert_eq!(cores(Some(1)).len(), 1);
    }
}
