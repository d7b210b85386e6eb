//! What a run costs a process, from /proc: CPU seconds, anonymous memory, bytes written.
//!
//! Linux only. `/proc/PID/io` may be refused to other users: then those figures are absent, not
//! zero. See proc_pid_stat(5), proc_pid_status(5), proc_pid_io(5), proc_diskstats(5).

use std::fs;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::failure::{Context, Failure, Result};
use crate::report::Report;
use crate::units::{GB, MB};

/// Between two looks at the memory of the process.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// /proc/diskstats counts in sectors of this size, whatever the device's are.
const DISKSTATS_SECTOR_BYTES: u64 = 512;

/// Totals of a process since its start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    /// Bytes it caused to be sent to the storage layer; `None` if that may not be read.
    pub(crate) write_bytes: Option<u64>,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).context(|| format!("reading {path}"))?;
        let ticks = parse_stat_ticks(&stat)
            .ok_or_else(|| Failure::run(format!("{path} is not as proc_pid_stat(5) says")))?;
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let io = fs::read_to_string(format!("/proc/{pid}/io")).ok();
        Ok(Self {
            cpu_seconds: ticks as f64 / per_second as f64,
            write_bytes: io.and_then(|io| parse_field(&io, "write_bytes:")),
        })
    }

    pub(crate) fn of_self() -> Result<Self> {
        Self::of(std::process::id())
    }
}

/// Anonymous resident memory, in bytes.
pub(crate) fn rss_anon_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    parse_field(&status, "RssAnon:").map(|kib| kib * 1024)
}

/// Bytes written to the device that holds `path`, since boot; a partition counts by itself.
pub(crate) fn device_written_bytes(path: &Path) -> Option<u64> {
    let device = rustix::fs::stat(path).ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stats = fs::read_to_string("/proc/diskstats").ok()?;
    parse_diskstats(&stats, major, minor).map(|sectors| sectors * DISKSTATS_SECTOR_BYTES)
}

/// utime + stime: fields 14 and 15, counted behind the name, which may hold anything.
fn parse_stat_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn parse_field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

/// Sectors written: the seventh field behind the device's name.
fn parse_diskstats(stats: &str, major: u32, minor: u32) -> Option<u64> {
    stats.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let is_it = fields.next()?.parse() == Ok(major) && fields.next()?.parse() == Ok(minor);
        if is_it { fields.nth(7)?.parse().ok() } else { None }
    })
}

/// Watches a process from [`Watch::start`] to [`Watch::stop`].
#[derive(Debug)]
pub(crate) struct Watch {
    pid: u32,
    started: Instant,
    before: Usage,
    stop: Sender<()>,
    sampler: JoinHandle<u64>,
}

/// What a process used while it was watched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) write_bytes: Option<u64>,
    pub(crate) rss_anon_peak_bytes: u64,
    pub(crate) rss_anon_end_bytes: Option<u64>,
}

impl Watch {
    pub(crate) fn start(pid: u32) -> Result<Self> {
        let before = Usage::of(pid)?;
        let (stop, stopped) = mpsc::channel();
        let sampler = std::thread::spawn(move || {
            let mut peak = 0;
            loop {
                peak = peak.max(rss_anon_bytes(pid).unwrap_or(0));
                if stopped.recv_timeout(SAMPLE_EVERY) != Err(RecvTimeoutError::Timeout) {
                    return peak;
                }
            }
        });
        Ok(Self { pid, started: Instant::now(), before, stop, sampler })
    }

    pub(crate) fn stop(self) -> Result<Used> {
        let after = Usage::of(self.pid)?;
        // The sampler ends either way when its channel is gone.
        let _ = self.stop.send(());
        let peak = self.sampler.join().map_err(|_| Failure::run("the sampler panicked"))?;
        let written = after.write_bytes.zip(self.before.write_bytes);
        Ok(Used {
            seconds: self.started.elapsed().as_secs_f64(),
            cpu_seconds: after.cpu_seconds - self.before.cpu_seconds,
            write_bytes: written.map(|(after, before)| after.saturating_sub(before)),
            rss_anon_peak_bytes: peak,
            rss_anon_end_bytes: rss_anon_bytes(self.pid),
        })
    }
}

impl Used {
    /// Adds what the server used to a report about `bytes` that were sent to it.
    pub(crate) fn report(&self, report: &mut Report, bytes: u64) {
        report.number("server_cpu_seconds", self.cpu_seconds);
        if bytes > 0 {
            report.number("server_cpu_seconds_per_gb", self.cpu_seconds / (bytes as f64 / GB));
        }
        report.number("server_rss_anon_peak_mb", self.rss_anon_peak_bytes as f64 / MB);
        if let Some(end) = self.rss_anon_end_bytes {
            report.number("server_rss_anon_end_mb", end as f64 / MB);
        }
        let Some(written) = self.write_bytes else {
            report.text("server_write_bytes", "not readable: run as the server's user or as root");
            return;
        };
        report.count("server_write_bytes", written);
        report.number("server_write_kb_per_s", written as f64 / 1000.0 / self.seconds);
        if bytes > 0 {
            report.number("server_bytes_written_per_byte_sent", written as f64 / bytes as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "12 (a ) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 4 0 100 200";
        assert_eq!(parse_stat_ticks(stat), Some(200));
        assert_eq!(parse_stat_ticks("12 (x"), None);
    }

    #[test]
    fn fields_and_devices_are_found_by_name() {
        assert_eq!(parse_field("VmRSS:\t 9 kB\nRssAnon:\t  1234 kB\n", "RssAnon:"), Some(1234));
        assert_eq!(parse_field("x: 1\n", "RssAnon:"), None);
        let stats = "   7 0 loop0 1 2 3 4 5 6 7 8\n 253 0 vda 10 20 30 40 50 60 70 80 0 9 9\n";
        assert_eq!(parse_diskstats(stats, 253, 0), Some(70));
        assert_eq!(parse_diskstats(stats, 253, 1), None);
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let watch = Watch::start(std::process::id()).unwrap();
        let used = watch.stop().unwrap();
        assert!(used.cpu_seconds >= 0.0);
        assert!(used.rss_anon_end_bytes.unwrap() > 0);
    }
}
