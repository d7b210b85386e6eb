//! How long durable acknowledgements take: many in flight, paced, and one at a time against a bare
//! write and sync on the same file system, and against the least that a server could do.

use super::Contest;
use super::bare::{BareFile, answers_ms};
use super::measure::{Amount, Rounds, plan_of, sending_to};
use super::node::{Node, Role};
use super::scratch::node_directory;
use super::series::Series;
use super::table::Row;
use crate::failure::Result;
use crate::report::percentile;
use crate::send::Sending;
use crate::units::{Rate, Window};

const CONNECTIONS: u64 = 64;
/// The rate at which latency is asked for: with a window that is always full, latency is only the
/// window's size over the rate.
const PACED_RECORDS_PER_SECOND: f64 = 600_000.0;
const BARE: &str = "4 KiB write + fdatasync";
const SERVED: &str = "the same for a client, one blocking thread";

pub(super) fn run(contest: &Contest<'_>, rows: &mut Vec<Row>) -> Result<()> {
    contest.tell("durable acknowledgements");
    let directory = node_directory(contest.scratch, "durable")?;
    let backlog = (2 * contest.args.rounds + 2) * contest.burst_bytes + (1 << 30);
    let flags = ["--ingest.backlog-max-size", &backlog.to_string()];
    let node = Node::start(&contest.args.oklogd, &directory, Role::Ingest, &flags)?;
    let burst = Amount::Bytes(contest.burst_bytes);
    let many = plan_of(contest.raw, burst, CONNECTIONS)?;
    let singles = Amount::Records(contest.args.singles);
    let single = plan_of(contest.raw, singles, 1)?;
    let full = Sending { acks: true, ..sending_to(&node.durable) };
    let paced = Sending {
        rate: Some(Rate::RecordsPerSecond(PACED_RECORDS_PER_SECOND)),
        whole_lines: true,
        ..full.clone()
    };
    let one = Sending { window: Window::Records(1), ..full.clone() };
    let (mut fully, mut steadily, mut singly) =
        (Rounds::default(), Rounds::default(), Rounds::default());
    let (mut bare_p10, mut bare_p50) = (Series::default(), Series::default());
    let (mut served_p10, mut served_p50) = (Series::default(), Series::default());
    for _ in 0..contest.args.rounds {
        fully.round(&many, &full, node.pid())?;
        steadily.round(&many, &paced, node.pid())?;
        let file = BareFile::create(&directory, contest.args.singles)?;
        let times_ms = file.syncs_ms()?;
        bare_p10.push(percentile(&times_ms, 10));
        bare_p50.push(percentile(&times_ms, 50));
        let times_ms = answers_ms(file)?;
        served_p10.push(percentile(&times_ms, 10));
        served_p50.push(percentile(&times_ms, 50));
        singly.round(&single, &one, node.pid())?;
    }
    node.stop()?;
    contest.remove(&directory)?;
    rows.push(
        Row::new("durable, 64 × 1 MiB in flight, full speed", "records/s", fully.records_per_s)
            .figure("p50 ms", fully.p50_ms)
            .figure("p99 ms", fully.p99_ms)
            .figure("CPU-s/GB", fully.cpu_s_per_gb),
    );
    rows.push(
        Row::new(
            "durable, 64 connections at 600,000 records/s",
            "records/s",
            steadily.records_per_s,
        )
        .figure("p50 ms", steadily.p50_ms)
        .figure("p99 ms", steadily.p99_ms),
    );
    rows.push(
        Row::new("durable, one record at a time, p50", "ms", singly.p50_ms)
            .against(BARE, bare_p50)
            .against(SERVED, served_p50)
            .figure("p99 ms", singly.p99_ms),
    );
    // Where other processes keep the cores busy, a blocking call wakes a scheduler's tick late: its
    // median then tells of them, and the fastest tenth of the disk.
    rows.push(
        Row::new("durable, one record at a time, p10", "ms", singly.p10_ms)
            .against(BARE, bare_p10)
            .against(SERVED, served_p10),
    );
    Ok(())
}
