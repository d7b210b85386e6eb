//! `compare-sink`: the same bytes into a discard sink and into a node, in turn.

use std::sync::atomic::AtomicU64;

use super::plan_of;
use super::sending::sending_of;
use crate::cli::CompareArgs;
use crate::corpus::Plan;
use crate::failure::{Failure, Result};
use crate::procfs::{Usage, Watch};
use crate::report::{Report, median};
use crate::send::{self, Sending};
use crate::sink_process::SinkProcess;
use crate::units::{GB, MB};

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
        sink.round(&plan, &to_sink, Some(process.pid()))?;
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
