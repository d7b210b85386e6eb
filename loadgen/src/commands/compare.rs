//! `compare-sink`: the same bytes into a discard sink and into a node, in turn.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicU64;

use super::plan_of;
use super::sending::sending_of;
use crate::cli::CompareArgs;
use crate::corpus::Plan;
use crate::failure::{Context, Failure, Result};
use crate::procfs::{Usage, Watch};
use crate::report::{Report, median};
use crate::send::{self, Sending};
use crate::units::{GB, MB};

/// A sink in a process of its own, so that its CPU is not the client's. Ends when dropped.
struct SinkProcess {
    child: Child,
    address: String,
}

impl SinkProcess {
    fn start() -> Result<Self> {
        let starting = || "starting the sink".to_string();
        let program = std::env::current_exe().context(starting)?;
        let child = Command::new(program)
            .args(["sink", "--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context(starting)?;
        let mut sink = Self { child, address: String::new() };
        let mut line = String::new();
        if let Some(output) = sink.child.stdout.take() {
            BufReader::new(output).read_line(&mut line).context(starting)?;
        }
        match line.trim().strip_prefix("listening on ") {
            Some(address) => sink.address = address.to_string(),
            None => return Err(Failure::run("the sink did not say where it listens")),
        }
        Ok(sink)
    }
}

impl Drop for SinkProcess {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Rates and costs of one side.
#[derive(Default)]
struct Side {
    mb_per_s: Vec<f64>,
    server_cpu_per_gb: Vec<f64>,
    client_cpu_per_gb: Vec<f64>,
}

impl Side {
    fn round(&mut self, plan: &Plan, sending: &Sending, pid: Option<u32>) -> Result<()> {
        let watch = pid.map(Watch::start).transpose()?;
        let own = Usage::of_self()?;
        let outcome = send::run(plan, sending, &AtomicU64::new(0))?;
        if let Some((index, error)) = outcome.errors().next() {
            let address = &sending.address;
            return Err(Failure::run(format!("connection {index} to {address}: {error}")));
        }
        let gigabytes = (outcome.bytes() as f64 / GB).max(1e-9);
        let own_cpu_seconds = Usage::of_self()?.cpu_seconds - own.cpu_seconds;
        self.mb_per_s.push(outcome.bytes() as f64 / MB / outcome.elapsed.as_secs_f64());
        self.client_cpu_per_gb.push(own_cpu_seconds / gigabytes);
        if let Some(watch) = watch {
            self.server_cpu_per_gb.push(watch.stop()?.cpu_seconds / gigabytes);
        }
        Ok(())
    }

    fn report(&self, name: &str, report: &mut Report) {
        let rates: Vec<String> = self.mb_per_s.iter().map(|rate| format!("{rate:.0}")).collect();
        report.text(&format!("{name}_runs_mb_per_s"), rates.join(" "));
        report.number(&format!("{name}_mb_per_s"), median(&self.mb_per_s));
        if !self.server_cpu_per_gb.is_empty() {
            report.number(&format!("{name}_cpu_seconds_per_gb"), median(&self.server_cpu_per_gb));
        }
        report
            .number(&format!("{name}_client_cpu_seconds_per_gb"), median(&self.client_cpu_per_gb));
    }
}

pub(super) fn compare_sink(args: &CompareArgs) -> Result<(Report, bool)> {
    let plan = plan_of(&args.source, args.sending.connections, args.sending.seconds.is_some())?;
    if !plan.is_bounded() && args.sending.seconds.is_none() {
        return Err(Failure::usage("say how much: --bytes, --records, --seconds or --file"));
    }
    let to_node = sending_of(&args.sending)?;
    let process = SinkProcess::start()?;
    let to_sink = Sending { address: process.address.clone(), ..to_node.clone() };
    let (mut sink, mut node) = (Side::default(), Side::default());
    for _ in 0..args.rounds.max(1) {
        sink.round(&plan, &to_sink, Some(process.child.id()))?;
        node.round(&plan, &to_node, args.server_pid)?;
    }
    let mut report = Report::new("compare-sink");
    report.count("rounds", args.rounds.max(1) as u64);
    report.count("connections", args.sending.connections);
    sink.report("sink", &mut report);
    node.report("node", &mut report);
    report.number("node_over_sink", median(&node.mb_per_s) / median(&sink.mb_per_s).max(1e-9));
    Ok((report, true))
}
