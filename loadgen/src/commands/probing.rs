//! `probe`: single records beside other load.

use super::{api_of, port_of, with_port};
use crate::cli::{Mode, ProbeArgs};
use crate::failure::{Failure, Result};
use crate::probe::{self, Probing, Way};
use crate::report::Report;

pub(super) fn probe(args: &ProbeArgs) -> Result<(Report, bool)> {
    if args.patience.is_zero() {
        return Err(Failure::usage("--patience must be more than 0"));
    }
    let mode = if args.mode == Mode::Fast { "fast" } else { "durable" };
    let way = if args.post {
        Way::Post(mode)
    } else {
        Way::Port(with_port(&args.to, port_of(args.mode)))
    };
    let probed = probe::run(&Probing {
        way,
        api: api_of(args.api.as_deref(), &args.to),
        topic: args.topic.clone(),
        records: args.records,
        seconds: args.seconds,
        interval: args.interval,
        patience: args.patience,
        find: !args.no_find,
    });
    let mut report = Report::new("probe");
    report.text("way", if args.post { "POST /records" } else { "port" });
    report.text("mode", mode);
    report.count("records_sent", probed.sent);
    report.count("records_accepted", probed.accepted);
    let looks = (!args.no_find).then_some(("find", &probed.finding));
    if looks.is_some() {
        report.count("records_found", probed.found);
        report.count("queries_repeated", probed.queries_repeated);
    }
    for (name, times) in [("accept", &probed.acceptance)].into_iter().chain(looks) {
        for (quantile_name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let us = times.value_at_quantile(quantile);
            report.count(&format!("{name}_{quantile_name}_us"), us);
        }
        report.count(&format!("{name}_max_us"), times.max());
    }
    if let Some(error) = &probed.error {
        report.text("error", error.as_str());
    }
    Ok((report, probed.holds()))
}
