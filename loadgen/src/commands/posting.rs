//! `post-log` and `ask-logs`: entries over HTTP.

use super::{API_PORT, with_port};
use crate::ask_logs::{self, Asking};
use crate::cli::{AskLogsArgs, PostLogArgs};
use crate::failure::{Failure, Result};
use crate::post_log::{self, Posting};
use crate::procfs::Watch;
use crate::report::Report;

pub(super) fn post_log(args: &PostLogArgs) -> Result<(Report, bool)> {
    if args.patience.is_zero() {
        return Err(Failure::usage("--patience must be more than 0"));
    }
    let watch = args.server_pid.map(Watch::start).transpose()?;
    let posted = post_log::run(&Posting {
        api: with_port(&args.api, API_PORT),
        connections: args.connections as usize,
        records: args.records,
        seconds: args.seconds,
        rate: args.rate.map(|rate| rate as f64),
        message_bytes: args.message_bytes as usize,
        services: args.services,
        live: args.live,
        patience: args.patience,
    })?;
    let mut report = Report::new("post-log");
    report.count("connections", args.connections);
    report.count("entries_accepted", posted.accepted);
    report.count("entries_refused", posted.refused);
    report.number("seconds", posted.elapsed.as_secs_f64());
    report.number("entries_per_s", posted.accepted as f64 / posted.elapsed.as_secs_f64());
    let live = posted.live.as_ref();
    if let Some((sent, seen)) = live {
        report.count("live_sent", *sent);
        report.count("live_seen", seen.entries);
        report.count("live_missed", seen.missed);
    }
    let live = live.map(|(_, seen)| ("live", &seen.latency));
    for (name, times) in [("accept", &posted.acceptance)].into_iter().chain(live) {
        for (quantile_name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let us = times.value_at_quantile(quantile);
            report.count(&format!("{name}_{quantile_name}_us"), us);
        }
        report.count(&format!("{name}_max_us"), times.max());
    }
    if let Some(watch) = watch {
        watch.stop()?.report(&mut report, 0);
    }
    if let Some(error) = &posted.error {
        report.text("error", error.as_str());
    }
    Ok((report, posted.holds()))
}

pub(super) fn ask_logs(args: &AskLogsArgs) -> Result<(Report, bool)> {
    ask_logs::run(&Asking {
        api: with_port(&args.api, API_PORT),
        fill: args.fill,
        message_bytes: args.message_bytes as usize,
        services: args.services,
        runs: args.runs,
    })
}
