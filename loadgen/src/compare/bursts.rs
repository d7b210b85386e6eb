//! Bursts into a node that only ingests, fast and durable, in turn with a discard sink and, in
//! bulk, with the disk alone.

use super::Contest;
use super::disk::writes_mb_per_s;
use super::measure::{Amount, Rounds, plan_of, sending_to};
use super::node::{Node, Role};
use super::scratch::node_directory;
use super::series::Series;
use super::table::Row;
use crate::failure::Result;
use crate::send::Sending;
use crate::sink_process::SinkProcess;

const CONNECTIONS: [u64; 3] = [1, 4, 64];
/// `None`: as much as a write takes; else what an Ethernet frame carries.
const CHUNKS: [Option<usize>; 2] = [None, Some(1500)];

pub(super) fn run(contest: &Contest<'_>, rows: &mut Vec<Row>) -> Result<()> {
    for chunk_bytes in CHUNKS {
        for connections in CONNECTIONS {
            shape(contest, connections, chunk_bytes, rows)?;
        }
    }
    Ok(())
}

fn shape(
    contest: &Contest<'_>,
    connections: u64,
    chunk_bytes: Option<usize>,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let budget = Amount::Bytes(contest.burst_bytes);
    let plan = plan_of(contest.raw, budget, connections)?;
    let shown = chunk_bytes.map_or("bulk".to_string(), |bytes| format!("{bytes} B chunks"));
    contest.tell(&format!("bursts, {connections} connections, {shown}"));
    let directory = node_directory(contest.scratch, "bursts")?;
    // Nothing leaves the ingest side here: there must be room for every round.
    let backlog = (2 * contest.args.rounds + 2) * contest.burst_bytes + (1 << 30);
    let flags = ["--ingest.backlog-max-size", &backlog.to_string()];
    let node = Node::start(&contest.args.oklogd, &directory, Role::Ingest, &flags)?;
    let sink = SinkProcess::start()?;
    let to_sink = Sending { chunk_bytes, ..sending_to(&sink.address) };
    let to_fast = Sending { chunk_bytes, ..sending_to(&node.fast) };
    // Durable senders want to know: acknowledgements are asked for, of pieces of 64 KiB in bulk.
    let to_durable = Sending { acks: true, chunk_bytes, ..sending_to(&node.durable) };
    let (mut discarded, mut fast, mut durable) =
        (Rounds::default(), Rounds::default(), Rounds::default());
    let mut disk = Series::default();
    for _ in 0..contest.args.rounds {
        discarded.round(&plan, &to_sink, sink.pid())?;
        fast.round(&plan, &to_fast, node.pid())?;
        if chunk_bytes.is_none()
            && let Some(rate) = writes_mb_per_s(contest.raw, &directory, contest.burst_bytes)?
        {
            disk.push(rate);
        }
        durable.round(&plan, &to_durable, node.pid())?;
    }
    node.stop()?;
    contest.remove(&directory)?;
    let name = |mode: &str| format!("ingest, {mode}, {connections} × {shown}");
    let sink_cpu = discarded.cpu_s_per_gb;
    let fast_row = Row::new(name("fast"), "MB/s", fast.mb_per_s)
        .against("sink", discarded.mb_per_s.clone())
        .against("disk alone", disk.clone())
        .figure("CPU-s/GB", fast.cpu_s_per_gb)
        .figure("sink's", sink_cpu)
        .figure("written/byte", fast.written_per_byte);
    let durable_row = Row::new(name("durable"), "MB/s", durable.mb_per_s)
        .against("sink", discarded.mb_per_s)
        .against("disk alone", disk)
        .figure("CPU-s/GB", durable.cpu_s_per_gb)
        .figure("written/byte", durable.written_per_byte);
    rows.extend([fast_row, durable_row]);
    Ok(())
}
