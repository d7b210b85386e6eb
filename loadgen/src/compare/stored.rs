//! Everything into the store: how long until it is there, what that costs, and its size.

use std::time::{Duration, Instant};

use super::Contest;
use super::measure::{Amount, plan_of, send_all, sending_to};
use super::node::{Node, Role, wait_until};
use super::scratch::{disk_bytes_below, node_directory};
use super::series::Series;
use super::table::Row;
use crate::failure::Result;
use crate::procfs::{Usage, Watch};
use crate::units::{GB, MB};

const STORED_MAX: Duration = Duration::from_secs(900);
const CONNECTIONS: u64 = 4;
/// Compaction is over when the process has written nothing for this long; what it counts itself
/// changes only at the end of a compaction.
const QUIET: Duration = Duration::from_secs(3);

/// Sends the corpus to a fresh node once; the node goes on, for queries.
pub(super) fn run(contest: &Contest<'_>, rows: &mut Vec<Row>) -> Result<Node> {
    contest.tell("everything into the store");
    let directory = node_directory(contest.scratch, "stored")?;
    let node = Node::start(&contest.args.oklogd, &directory, Role::IngestStore, &[])?;
    let budget = Amount::Once;
    let plan = plan_of(contest.raw, budget, CONNECTIONS)?;
    let (watch, start) = (Watch::start(node.pid())?, Instant::now());
    let before = Usage::of(node.pid())?;
    let outcome = send_all(&plan, &sending_to(&node.fast))?;
    wait_until("everything to be in the store", STORED_MAX, || is_all_stored(&node))?;
    let seconds = start.elapsed().as_secs_f64();
    let stored = Usage::of(node.pid())?;
    wait_until_quiet(&node)?;
    let used = watch.stop()?;
    let bytes = outcome.bytes() as f64;
    let per_gb = |cpu_seconds: f64| Series::of(cpu_seconds / (bytes / GB));
    let mut row =
        Row::new("everything in the store, 4 × bulk", "MB/s", Series::of(bytes / MB / seconds))
            .figure("s", Series::of(seconds))
            .figure("CPU-s/GB", per_gb(stored.cpu_seconds - before.cpu_seconds))
            .figure("CPU-s/GB with compaction", per_gb(used.cpu_seconds))
            .figure("RssAnon MB", Series::of(used.rss_anon_peak_bytes as f64 / MB));
    if let Some(written) = used.write_bytes {
        row = row.figure("written/byte", Series::of(written as f64 / bytes));
    }
    rows.push(row);
    let on_disk = disk_bytes_below(&node.data().join("store"))? as f64;
    rows.push(
        Row::new("store on disk, everything included", "MB", Series::of(on_disk / MB))
            .against("raw", Series::of(contest.planted.bytes as f64 / MB)),
    );
    Ok(node)
}

fn is_all_stored(node: &Node) -> Result<bool> {
    // Text moves from left to right: looked at in that order, none is missed.
    for gauge in ["oklog_shard_memory_bytes", "oklog_ingest_backlog_bytes", "oklog_unindexed_bytes"]
    {
        if node.metric(gauge)? > 0.0 {
            return Ok(false);
        }
    }
    Ok(node.metric("oklog_store_bytes")? > 0.0)
}

fn wait_until_quiet(node: &Node) -> Result<()> {
    let (mut written, mut since) = (None, Instant::now());
    wait_until("compaction to end", STORED_MAX, || {
        // By the node's count, which is of records: it writes its mark of stamps and asks its disks
        // whether they still do their work all the while.
        let now = node.metric("oklog_disk_written_bytes_total")?.to_bits();
        if written != Some(now) {
            (written, since) = (Some(now), Instant::now());
        }
        Ok(since.elapsed() > QUIET)
    })
}
