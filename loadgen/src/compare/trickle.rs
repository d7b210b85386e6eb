//! A low rate for a long time: how many bytes are written for each byte taken, all merges included.
//!
//! What is taken and what is written are read off the node's process and its counters at the end of
//! a warm-up and again at the end. Bytes written soon after are not waited for: in the long run as
//! much is pending at the start of the measured time as at its end.

use std::thread;
use std::time::{Duration, Instant};

use super::Contest;
use super::measure::{Amount, plan_of, send_all, sending_to};
use super::node::{Node, Role, wait_until};
use super::scratch::node_directory;
use super::series::{Series, short};
use super::table::Row;
use crate::failure::{Failure, Result};
use crate::procfs::Usage;
use crate::send::Sending;
use crate::units::{GB, MB, Rate};

const CONNECTIONS: u64 = 4;
const TELL_EVERY: Duration = Duration::from_secs(60);
/// What the node counts by kind; the tail file is left to the process' own figure, since it goes to
/// the page cache and may never reach the disk.
const KINDS: [&str; 3] = ["frames", "gather", "compaction"];

/// Totals since the node's start.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Totals {
    taken_bytes: f64,
    /// By kind, as the node counts them.
    written_bytes: [f64; KINDS.len()],
    /// What the kernel counted; `None` if that may not be read.
    process_bytes: Option<f64>,
    cpu_seconds: f64,
}

impl Totals {
    fn of(node: &Node) -> Result<Self> {
        let mut written_bytes = [0.0; KINDS.len()];
        for (bytes, kind) in written_bytes.iter_mut().zip(KINDS) {
            *bytes = node.metric(&format!("oklog_disk_written_bytes_total{{kind=\"{kind}\"}}"))?;
        }
        let usage = Usage::of(node.pid())?;
        Ok(Self {
            taken_bytes: node.metric("oklog_ingest_taken_bytes_total")?,
            written_bytes,
            process_bytes: usage.write_bytes.map(|bytes| bytes as f64),
            cpu_seconds: usage.cpu_seconds,
        })
    }

    fn since(&self, before: &Self) -> Self {
        let mut written_bytes = self.written_bytes;
        for (bytes, before) in written_bytes.iter_mut().zip(before.written_bytes) {
            *bytes -= before;
        }
        let process = self.process_bytes.zip(before.process_bytes);
        Self {
            taken_bytes: self.taken_bytes - before.taken_bytes,
            written_bytes,
            process_bytes: process.map(|(after, before)| after - before),
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
        }
    }

    /// Bytes for each byte taken.
    fn per_byte(&self, bytes: f64) -> f64 {
        bytes / self.taken_bytes.max(1.0)
    }

    fn own_count(&self) -> f64 {
        self.per_byte(self.written_bytes.iter().sum())
    }

    fn row(&self, what: String) -> Row {
        let by_kernel = self.process_bytes.map(|bytes| self.per_byte(bytes));
        let by_kind: Vec<_> = KINDS
            .iter()
            .zip(self.written_bytes)
            .map(|(kind, bytes)| format!("{kind} {}", short(self.per_byte(bytes))))
            .collect();
        Row::new(what, "", Series::of(by_kernel.unwrap_or_else(|| self.own_count())))
            .figure("by the node's count", Series::of(self.own_count()))
            .remark(format!("of that {}", by_kind.join(", ")))
            .figure("taken MB", Series::of(self.taken_bytes / MB))
            .figure("CPU-s/GB", Series::of(self.cpu_seconds / (self.taken_bytes.max(1.0) / GB)))
    }
}

pub(super) fn run(contest: &Contest<'_>, rows: &mut Vec<Row>) -> Result<()> {
    let (warm_up, measured) = (contest.args.trickle_warm_up, contest.args.trickle_for);
    let rate = contest.args.trickle_rate as f64;
    let shown = short(rate / MB);
    contest.tell(&format!("a trickle of {shown} MB/s for {} s", (warm_up + measured).as_secs()));
    let directory = node_directory(contest.scratch, "trickle")?;
    let node = Node::start(&contest.args.oklogd, &directory, Role::IngestStore, &[])?;
    let plan = plan_of(contest.raw, Amount::Endless, CONNECTIONS)?;
    let sending = Sending {
        rate: Some(Rate::BytesPerSecond(rate)),
        seconds: Some(warm_up + measured),
        ..sending_to(&node.fast)
    };
    let used = thread::scope(|scope| {
        let sender = scope.spawn(|| send_all(&plan, &sending));
        let start = Instant::now();
        let ended = || sender.is_finished();
        wait_until("the warm-up", 2 * warm_up, || Ok(ended() || start.elapsed() >= warm_up))?;
        let before = Totals::of(&node)?;
        let mut told = Instant::now();
        wait_until("the trickle", 2 * measured + TELL_EVERY, || {
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                let so_far = Totals::of(&node)?.since(&before).own_count();
                contest.tell(&format!("written/byte {} so far", short(so_far)));
            }
            Ok(ended())
        })?;
        let after = Totals::of(&node)?;
        sender.join().map_err(|_| Failure::run("the sending thread panicked"))??;
        Ok::<_, Failure>(after.since(&before))
    })?;
    node.stop()?;
    contest.remove(&directory)?;
    let (warm_up, measured) = (warm_up.as_secs(), measured.as_secs());
    let what = format!("written/byte at {shown} MB/s, {measured} s behind {warm_up} s");
    rows.push(used.row(what));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_behind_the_warm_up_counts() {
        let before = Totals {
            taken_bytes: 1e9,
            written_bytes: [1e9, 2e9, 3e9],
            process_bytes: Some(7e9),
            cpu_seconds: 10.0,
        };
        let after = Totals {
            taken_bytes: 3e9,
            written_bytes: [3e9, 2.5e9, 3.5e9],
            process_bytes: Some(11e9),
            cpu_seconds: 14.0,
        };
        let row = after.since(&before).row("x".into());
        assert_eq!(row.ours, Series::of(2.0));
        assert_eq!(row.remarks, ["of that frames 1.00, gather 0.250, compaction 0.250"]);
        let figures: Vec<_> =
            row.figures.iter().map(|(name, runs)| (*name, short(runs.median()))).collect();
        assert_eq!(
            figures,
            [
                ("by the node's count", "1.50".to_string()),
                ("taken MB", "2000".into()),
                ("CPU-s/GB", "2.00".into())
            ]
        );
        let unread = Totals { process_bytes: None, ..after };
        assert_eq!(unread.since(&before).row("x".into()).ours, Series::of(1.5));
    }
}
