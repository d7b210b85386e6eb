//! What this process may use of its host: cores by affinity and cgroup quota, open files.

use std::fs;
use std::path::Path;

/// Descriptors that are kept for files and peers, beside connections.
const DESCRIPTORS_RESERVED: u64 = 512;

/// Descriptors without which a node does not start: the reserved ones and a few connections.
pub(super) const DESCRIPTORS_MIN: u64 = DESCRIPTORS_RESERVED + 64;

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

/// Raises the limit of open files as far as it goes and says how many connections fit, with advice
/// if those are fewer than wanted. An error: the limit, with which a node would fail sooner or later.
pub(super) fn connections_max(wanted: Connections) -> Result<(Connections, Option<String>), u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let have = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let have = have.unwrap_or(u64::MAX);
    let fit = share_descriptors(have, wanted).ok_or(have)?;
    if fit == wanted {
        return Ok((wanted, None));
    }
    let advice = format!(
        "the limit of open files, {have}, leaves room for {} ingest and {} HTTP connections, not \
         {} and {}: raise it (ulimit -n, or LimitNOFILE=) to {}, or lower \
         --ingest.connections-max or --http.connections-max",
        fit.ingest,
        fit.http,
        wanted.ingest,
        wanted.http,
        (wanted.ingest + wanted.http) as u64 + DESCRIPTORS_RESERVED
    );
    Ok((fit, Some(advice)))
}

/// What fits so many descriptors. Where it is not everything, HTTP keeps a quarter at least, since
/// it is how an operator finds out. `None`: too few for a node.
fn share_descriptors(have: u64, wanted: Connections) -> Option<Connections> {
    if have < DESCRIPTORS_MIN {
        return None;
    }
    let room = usize::try_from(have - DESCRIPTORS_RESERVED).unwrap_or(usize::MAX);
    let http = wanted.http.min((room / 4).max(room.saturating_sub(wanted.ingest)));
    Some(Connections { ingest: wanted.ingest.min(room - http), http })
}

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
        let wanted = Connections { ingest: 1000, http: 400 };
        let share = |have| share_descriptors(have, wanted).map(|c| (c.ingest, c.http));
        assert_eq!(share(575), None);
        assert_eq!(share(576), Some((48, 16)));
        assert_eq!(share(512 + 1000), Some((750, 250)));
        assert_eq!(share(512 + 1399), Some((1000, 399)));
        assert_eq!(share(512 + 1400), Some((1000, 400)));
        assert_eq!(share(u64::MAX), Some((1000, 400)));
    }

    #[test]
    fn there_is_always_a_core_and_never_more_than_asked_for() {
        assert!(!cores(None).is_empty());
        assert_eq!(cores(Some(1)).len(), 1);
    }
}
