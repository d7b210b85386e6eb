//! A node under load: how soon a record is found, and what rate it keeps.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use super::Contest;
use super::measure::{Amount, plan_of, send_all, sending_to};
use super::node::{Node, Role, wait_until};
use super::scratch::node_directory;
use super::series::{Series, short};
use super::table::Row;
use crate::failure::{Context, Failure, Result};
use crate::procfs::Watch;
use crate::report::percentile;
use crate::send::{self, Sending};
use crate::units::{GB, MB, Rate};

const CONNECTIONS: u64 = 4;
const ARRIVAL_BYTES_PER_SECOND: f64 = 100e6;
const FOUND_MAX: Duration = Duration::from_secs(30);
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// What the sustained node keeps, so that the disk's size does not bound the time.
const RETAIN: &str = "8GiB";

/// From writing a record to a query of the last ten seconds that finds it, while others send.
pub(super) fn arrival(contest: &Contest<'_>, rows: &mut Vec<Row>) -> Result<()> {
    contest.tell("arrival until found");
    let directory = node_directory(contest.scratch, "arrival")?;
    let node = Node::start(&contest.args.oklogd, &directory, Role::IngestStore, &[])?;
    let plan = plan_of(contest.raw, Amount::Endless, CONNECTIONS)?;
    let sending = Sending {
        rate: Some(Rate::BytesPerSecond(ARRIVAL_BYTES_PER_SECOND)),
        seconds: Some(contest.args.arrival),
        ..sending_to(&node.fast)
    };
    let found_ms = thread::scope(|scope| {
        let sender = scope.spawn(|| send_all(&plan, &sending));
        let mut found_ms = Vec::new();
        while !sender.is_finished() {
            found_ms.push(probe(&node, found_ms.len())?);
        }
        sender.join().map_err(|_| Failure::run("the sending thread panicked"))??;
        Ok::<_, Failure>(found_ms)
    })?;
    node.stop()?;
    contest.remove(&directory)?;
    rows.push(
        Row::new(
            "arrival → found under 100 MB/s, p99",
            "ms",
            Series::of(percentile(&found_ms, 99)),
        )
        .figure("p50 ms", Series::of(percentile(&found_ms, 50)))
        .figure("probes", Series::of(found_ms.len() as f64)),
    );
    Ok(())
}

fn probe(node: &Node, index: usize) -> Result<f64> {
    let needle = format!("loadgen-probe-{index}-of-arrival");
    let path = format!("/query?from=10s&q={needle}");
    let probing = || "sending a probe".to_string();
    let mut stream = send::open(&node.fast)?;
    stream.set_nonblocking(false).context(probing)?;
    let start = Instant::now();
    stream.write_all(format!("{needle}\n").as_bytes()).context(probing)?;
    wait_at_once("a probe to be found", || Ok(node.text(&path)?.contains(&needle)))?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Like `wait_until`, but without a pause: the asking is what is measured.
fn wait_at_once(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + FOUND_MAX;
    while !holds()? {
        if Instant::now() > until {
            return Err(Failure::run(format!("waited {} s for {what}", FOUND_MAX.as_secs())));
        }
    }
    Ok(())
}

/// What was seen every second.
#[derive(Debug, Default)]
struct Seen {
    backlog_mb: Vec<f64>,
    query_ms: Vec<f64>,
}

/// As fast as the node takes it, for a long time.
pub(super) fn sustained(contest: &Contest<'_>, rows: &mut Vec<Row>) -> Result<()> {
    contest.tell("sustained rate");
    let directory = node_directory(contest.scratch, "sustained")?;
    let flags = ["--store.retain-size", RETAIN];
    let node = Node::start(&contest.args.oklogd, &directory, Role::IngestStore, &flags)?;
    let plan = plan_of(contest.raw, Amount::Endless, CONNECTIONS)?;
    let sending = Sending { seconds: Some(contest.args.sustain), ..sending_to(&node.fast) };
    let watch = Watch::start(node.pid())?;
    let (outcome, seen) = thread::scope(|scope| {
        let sender = scope.spawn(|| send_all(&plan, &sending));
        let mut seen = Seen::default();
        while !sender.is_finished() {
            look(&node, &mut seen)?;
            let next = Instant::now() + SAMPLE_EVERY;
            wait_until("a second", 2 * SAMPLE_EVERY, || {
                Ok(sender.is_finished() || Instant::now() > next)
            })?;
        }
        let outcome = sender.join().map_err(|_| Failure::run("the sending thread panicked"))??;
        Ok::<_, Failure>((outcome, seen))
    })?;
    let waiting = node.metric("oklog_ingest_backlog_bytes")?;
    let used = watch.stop()?;
    node.stop()?;
    contest.remove(&directory)?;
    let (bytes, seconds) = (outcome.bytes() as f64, outcome.elapsed.as_secs_f64());
    let backlog_max = seen.backlog_mb.iter().copied().fold(0.0, f64::max);
    let stored = (bytes - waiting).max(0.0);
    let what = format!("sustained for {} s, 4 × bulk", contest.args.sustain.as_secs());
    let mut row = Row::new(what, "MB/s", Series::of(bytes / MB / seconds))
        .figure("into the store MB/s", Series::of(stored / MB / seconds))
        .figure("CPU-s/GB", Series::of(used.cpu_seconds / (bytes / GB)))
        .figure("RssAnon MB", Series::of(used.rss_anon_peak_bytes as f64 / MB))
        .figure("query of the last 5 s, p50 ms", Series::of(percentile(&seen.query_ms, 50)))
        .figure("p99 ms", Series::of(percentile(&seen.query_ms, 99)))
        .remark(format!(
            "backlog at most {} MB, {} MB at the end",
            short(backlog_max),
            short(waiting / MB)
        ));
    if let Some(written) = used.write_bytes {
        row = row.figure("written/byte", Series::of(written as f64 / bytes));
    }
    rows.push(row);
    Ok(())
}

fn look(node: &Node, seen: &mut Seen) -> Result<()> {
    seen.backlog_mb.push(node.metric("oklog_ingest_backlog_bytes")? / MB);
    let start = Instant::now();
    node.text("/query?from=5s&q=loadgen-is-nowhere&stats")?;
    seen.query_ms.push(start.elapsed().as_secs_f64() * 1e3);
    Ok(())
}
