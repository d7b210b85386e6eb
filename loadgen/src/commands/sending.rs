//! `send` and `trickle`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;

use super::{api_of, plan_of, port_of, record_bytes_max, with_port};
use crate::cli::{Mode, SendArgs, SendingArgs, SourceArgs, TrickleArgs, WatchArgs};
use crate::corpus::Plan;
use crate::failure::{Failure, Result};
use crate::procfs::{Usage, Watch, device_written_bytes};
use crate::query::{Query, ulid_of_ms};
use crate::report::Report;
use crate::send::{self, Outcome, Sending};
use crate::units::{GB, MB, Rate, Window};
use crate::verify::{self, Expected, SentRecords};

/// Errors of connections that are shown.
const SHOWN_ERRORS_MAX: usize = 5;
const STALL: Duration = Duration::from_secs(60);

pub(super) fn send(args: &SendArgs) -> Result<(Report, bool)> {
    let plan = plan_of(&args.source, args.sending.connections, args.sending.seconds.is_some())?;
    if !plan.is_bounded() && args.sending.seconds.is_none() {
        return Err(Failure::usage("say how much: --bytes, --records, --seconds or --file"));
    }
    let sending = sending_of(&args.sending)?;
    let mut report = Report::new("send");
    let holds = send_and_report(&plan, &sending, &args.watch, &mut report)?;
    Ok((report, holds))
}

pub(super) fn trickle(args: &TrickleArgs) -> Result<(Report, bool)> {
    if !args.rate.is_finite() || args.rate <= 0.0 {
        return Err(Failure::usage("--rate must be more than 0 records per second"));
    }
    let source = SourceArgs {
        file: None,
        corpus: None,
        vary: Vec::new(),
        templates: None,
        keep_cr: false,
        bytes: None,
        records: None,
        seed: args.seed,
    };
    let plan = plan_of(&source, args.connections, false)?;
    let sending = Sending {
        address: with_port(&args.to, port_of(args.mode)),
        acks: args.mode == Mode::Durable,
        topic: None,
        rate: Some(Rate::RecordsPerSecond(args.rate)),
        chunk_bytes: None,
        whole_lines: true,
        window: Window::Bytes(1 << 20),
        seconds: Some(args.seconds),
        stall: STALL,
        threads: Some(1),
        record_bytes_max: 1 << 20,
    };
    let data = args.data.clone().unwrap_or_else(|| match args.watch.server_pid {
        Some(pid) => PathBuf::from(format!("/proc/{pid}/cwd")),
        None => PathBuf::from("."),
    });
    let before = device_written_bytes(&data);
    let start = Instant::now();
    let mut report = Report::new("trickle");
    let holds = send_and_report(&plan, &sending, &args.watch, &mut report)?;
    if let Some((before, after)) = before.zip(device_written_bytes(&data)) {
        let kilobytes = after.saturating_sub(before) as f64 / 1000.0;
        report.number("device_write_kb_per_s", kilobytes / start.elapsed().as_secs_f64());
    }
    Ok((report, holds))
}

/// How the flags say to send.
pub(super) fn sending_of(args: &SendingArgs) -> Result<Sending> {
    if args.chunk == Some(0) {
        return Err(Failure::usage("--chunk must be at least 1"));
    }
    Ok(Sending {
        address: with_port(&args.to, port_of(args.mode)),
        acks: args.mode == Mode::Durable || args.ack || args.topic.is_some(),
        topic: args.topic.clone(),
        rate: args.rate,
        chunk_bytes: args.chunk.map(|bytes| bytes as usize),
        whole_lines: args.whole_lines,
        window: args.window,
        seconds: args.seconds,
        stall: args.stall,
        threads: args.threads,
        record_bytes_max: record_bytes_max(args.max_record_size)?,
    })
}

fn send_and_report(
    plan: &Plan,
    sending: &Sending,
    watch_args: &WatchArgs,
    report: &mut Report,
) -> Result<bool> {
    let began_ms = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64);
    let watch = watch_args.server_pid.map(Watch::start).transpose()?;
    let own_before = Usage::of_self()?;
    let outcome = run_with_progress(plan, sending, watch_args.progress)?;
    let own_cpu_seconds = Usage::of_self()?.cpu_seconds - own_before.cpu_seconds;
    describe(&outcome, own_cpu_seconds, report);
    if let Some(settle) = watch_args.settle {
        thread::sleep(settle);
    }
    if let Some(watch) = watch {
        watch.stop()?.report(report, outcome.bytes());
    }
    let failed = outcome.errors().next().is_some();
    if !watch_args.verify {
        return Ok(!failed);
    }
    let expected = Expected {
        plan,
        sent: outcome.connections.iter().map(promised).collect(),
        record_bytes_max: sending.record_bytes_max,
    };
    let query = Query {
        api: api_of(watch_args.api.as_deref(), &sending.address),
        from: Some(watch_args.from.clone().unwrap_or_else(|| ulid_of_ms(began_ms))),
        topic: sending.topic.clone(),
        ..Query::default()
    };
    let start = Instant::now();
    let verdict = verify::verify(&expected, &query, watch_args.show)?;
    verdict.report(report);
    report.number("verify_seconds", start.elapsed().as_secs_f64());
    Ok(verdict.holds() && !failed)
}

/// What a node owes a connection: everything if it ended well, else what it acknowledged.
fn promised(sent: &send::Sent) -> SentRecords {
    let promised = match (&sent.error, sent.acked_records) {
        (None, _) => u64::MAX,
        (Some(_), acked) => acked.unwrap_or(0),
    };
    SentRecords { bytes: sent.bytes, promised }
}

/// Sends, and tells the rate on standard error every `progress`.
fn run_with_progress(
    plan: &Plan,
    sending: &Sending,
    progress: Option<Duration>,
) -> Result<Outcome> {
    let bytes = AtomicU64::new(0);
    let Some(every) = progress.filter(|every| !every.is_zero()) else {
        return send::run(plan, sending, &bytes);
    };
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let bytes = &bytes;
        scope.spawn(move || {
            let (start, mut before) = (Instant::now(), 0);
            while is_done.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let now = bytes.load(Ordering::Relaxed);
                let rate = (now - before) as f64 / MB / every.as_secs_f64();
                let seconds = start.elapsed().as_secs();
                eprintln!("{seconds} s: {:.0} MB sent, {rate:.1} MB/s", now as f64 / MB);
                before = now;
            }
        });
        let outcome = send::run(plan, sending, bytes);
        drop(done);
        outcome
    })
}

fn describe(outcome: &Outcome, own_cpu_seconds: f64, report: &mut Report) {
    let (bytes, records) = (outcome.bytes(), outcome.records());
    let seconds = outcome.elapsed.as_secs_f64().max(1e-9);
    report.count("connections", outcome.connections.len() as u64);
    report.count("bytes", bytes);
    report.count("records", records);
    report.number("seconds", seconds);
    report.number("mb_per_s", bytes as f64 / MB / seconds);
    report.number("records_per_s", records as f64 / seconds);
    report.number("client_cpu_seconds", own_cpu_seconds);
    if bytes > 0 {
        report.number("client_cpu_seconds_per_gb", own_cpu_seconds / (bytes as f64 / GB));
    }
    if let Some(latency) = &outcome.latency_us {
        let acked = outcome.connections.iter().filter_map(|sent| sent.acked_records).sum();
        report.count("acknowledged_records", acked);
        describe_latency(latency, report);
    }
    let errors: Vec<_> = outcome.errors().collect();
    report.count("connections_failed", errors.len() as u64);
    for (index, error) in errors.iter().take(SHOWN_ERRORS_MAX) {
        report.text(&format!("connection_{index}_error"), *error);
    }
}

fn describe_latency(latency: &Histogram<u64>, report: &mut Report) {
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999)] {
        report.count(&format!("ack_latency_{name}_us"), latency.value_at_quantile(quantile));
    }
    report.count("ack_latency_max_us", latency.max());
}
