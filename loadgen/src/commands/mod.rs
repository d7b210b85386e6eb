//! One function per subcommand: from flags to a report.
//!
//! Each returns whether what it checked holds; a failure to do its work is an error.

mod compare;
mod posting;
mod probing;
mod sending;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::cli::{
    Cli, Command, CompareAllArgs, CorpusArgs, IdleArgs, Mode, QueryBenchArgs, SinkArgs, SourceArgs,
    VerifyArgs,
};
use crate::compare as compare_run;
use crate::compare::scratch::Scratch;
use crate::corpus::{self, Budget, Origin, Plan};
use crate::failure::{Failure, Result};
use crate::procfs::{self, Watch};
use crate::query::Query;
use crate::query_bench::{self, Bench};
use crate::report::Report;
use crate::units::MB;
use crate::verify::{self, Expected};
use crate::{idle, sink};

const API_PORT: u16 = 7650;
const FAST_PORT: u16 = 7651;
const DURABLE_PORT: u16 = 7652;

/// Runs the subcommand and prints its report; false if a check did not hold.
pub(crate) fn run(cli: Cli) -> Result<bool> {
    let (report, holds) = match cli.command {
        Command::Send(args) => sending::send(&args)?,
        Command::Trickle(args) => sending::trickle(&args)?,
        Command::CompareSink(args) => compare::compare_sink(&args)?,
        Command::Corpus(args) => (write_corpus(&args)?, true),
        Command::Verify(args) => verify_corpus(&args)?,
        Command::Compare(args) => return compare_all(&args, cli.json),
        Command::QueryBench(args) => bench_query(&args)?,
        Command::Idle(args) => hold_idle(&args)?,
        Command::Probe(args) => probing::probe(&args)?,
        Command::PostLog(args) => posting::post_log(&args)?,
        Command::AskLogs(args) => posting::ask_logs(&args)?,
        Command::Sink(args) => return serve_sink(&args).map(|()| true),
    };
    report.print(cli.json);
    Ok(holds)
}

/// `host`, `host:port` or `:port`, with or without `tcp://`, as `host:port`.
fn with_port(address: &str, port: u16) -> String {
    let address = address.strip_prefix("tcp://").unwrap_or(address);
    match address.rsplit_once(':') {
        Some(("", port)) => format!("127.0.0.1:{port}"),
        // An IPv6 address without brackets has colons, but no port.
        Some((host, _)) if !host.contains(':') || host.ends_with(']') => address.to_string(),
        Some(_) if !address.starts_with('[') => format!("[{address}]:{port}"),
        _ => format!("{address}:{port}"),
    }
}

const fn port_of(mode: Mode) -> u16 {
    match mode {
        Mode::Fast => FAST_PORT,
        Mode::Durable => DURABLE_PORT,
    }
}

/// The API of the node that lines are sent to.
fn api_of(api: Option<&str>, to: &str) -> String {
    let derived = || {
        let to = with_port(to, API_PORT);
        to.rsplit_once(':').map_or_else(|| to.clone(), |(host, _)| format!("{host}:{API_PORT}"))
    };
    api.map_or_else(derived, |api| with_port(api, API_PORT))
}

/// The lines that the flags describe; writes the corpus file if there is none.
fn plan_of(source: &SourceArgs, connections: u64, repeat: bool) -> Result<Plan> {
    let drawn = match &source.templates {
        Some(names) => Origin::Templates(names.clone()),
        None if source.vary.is_empty() => Origin::Templates(Vec::new()),
        None => Origin::Vary { paths: source.vary.clone(), keep_cr: source.keep_cr },
    };
    let budget = Budget { bytes: source.bytes, records: source.records };
    let (origin, budget) = match (&source.file, &source.corpus) {
        (Some(file), _) => (Origin::File(file.clone()), budget),
        (None, Some(corpus)) => {
            make_corpus(corpus, &drawn, budget, source.seed)?;
            (Origin::File(corpus.clone()), Budget::default())
        }
        (None, None) => (drawn, budget),
    };
    Plan::new(&origin, budget, source.seed, connections, repeat)
}

fn make_corpus(path: &Path, drawn: &Origin, budget: Budget, seed: u64) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    if budget.bytes.is_none() && budget.records.is_none() {
        let path = path.display();
        return Err(Failure::usage(format!("{path} does not exist: give --bytes to write it")));
    }
    // Under another name until it is whole, so that a broken-off one is not taken for it.
    let unfinished = PathBuf::from(format!("{}.writing", path.display()));
    corpus::write_file(&Plan::new(drawn, budget, seed, 1, false)?, &unfinished)?;
    std::fs::rename(&unfinished, path)
        .map_err(|error| Failure::run(format!("renaming to {}: {error}", path.display())))
}

fn compare_all(args: &CompareAllArgs, json: bool) -> Result<bool> {
    let scratch = Scratch::create(args.scratch.as_deref())?;
    let corpus = match (&args.source.file, &args.source.corpus) {
        (Some(file), _) => file.clone(),
        (None, Some(corpus)) => {
            plan_of(&args.source, 1, false)?;
            corpus.clone()
        }
        (None, None) => {
            let plan = plan_of(&args.source, 1, false)?;
            if !plan.is_bounded() {
                return Err(Failure::usage(
                    "give --corpus, or --bytes and what to draw lines from",
                ));
            }
            let path = scratch.path().join("corpus.log");
            corpus::write_file(&plan, &path)?;
            path
        }
    };
    let (table, holds) = compare_run::run(args, &corpus, scratch.path())?;
    if json {
        println!("{}", table.json());
    } else {
        print!("{}", table.markdown());
    }
    Ok(holds)
}

fn write_corpus(args: &CorpusArgs) -> Result<Report> {
    if args.source.corpus.is_some() {
        return Err(Failure::usage("`corpus` writes --out; --corpus is for `send`"));
    }
    let plan = plan_of(&args.source, 1, false)?;
    if !plan.is_bounded() {
        return Err(Failure::usage("give --bytes or --records"));
    }
    let start = Instant::now();
    let (bytes, lines) = corpus::write_file(&plan, &args.out)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut report = Report::new("corpus");
    report.text("file", args.out.display().to_string());
    report.count("bytes", bytes);
    report.count("records", lines);
    report.number("bytes_per_record", bytes as f64 / lines.max(1) as f64);
    report.number("seconds", seconds);
    report.number("mb_per_s", bytes as f64 / MB / seconds.max(1e-9));
    Ok(report)
}

fn verify_corpus(args: &VerifyArgs) -> Result<(Report, bool)> {
    let plan = plan_of(&args.source, args.connections, false)?;
    if !plan.is_bounded() {
        return Err(Failure::usage("say what was sent: --corpus, or --bytes or --records"));
    }
    let record_bytes_max = record_bytes_max(args.max_record_size)?;
    let expected = Expected { plan: &plan, sent: Vec::new(), record_bytes_max };
    let query = Query {
        api: with_port(&args.api, API_PORT),
        from: args.from.clone(),
        to: args.to.clone(),
        topic: args.topic.clone(),
        ..Query::default()
    };
    let start = Instant::now();
    let verdict = verify::verify(&expected, &query, args.show)?;
    let mut report = Report::new("verify");
    verdict.report(&mut report);
    report.number("seconds", start.elapsed().as_secs_f64());
    Ok((report, verdict.holds()))
}

/// A record size that can be used as a divisor.
fn record_bytes_max(size: u64) -> Result<usize> {
    match usize::try_from(size) {
        Ok(size) if size > 0 => Ok(size),
        _ => Err(Failure::usage("--max-record-size must be at least 1")),
    }
}

fn serve_sink(args: &SinkArgs) -> Result<()> {
    sink::serve(&format!("{}:{}", args.host, args.port), args.threads, |address| {
        println!("listening on {address}");
    })
}

fn bench_query(args: &QueryBenchArgs) -> Result<(Report, bool)> {
    let report = query_bench::run(&Bench {
        query: Query {
            api: with_port(&args.api, API_PORT),
            from: args.from.clone(),
            to: None,
            topic: args.topic.clone(),
            expression: Some(args.expression.clone()),
            regex: args.regex,
        },
        raw: &args.raw,
        ripgrep: &args.rg,
        print: args.print,
        runs: args.runs,
    })?;
    Ok((report, true))
}

fn hold_idle(args: &IdleArgs) -> Result<(Report, bool)> {
    let before = args.server_pid.and_then(procfs::rss_anon_bytes);
    let watch = args.server_pid.map(Watch::start).transpose()?;
    let address = with_port(&args.to, FAST_PORT);
    let held = idle::hold(&address, args.connections, args.hold_bytes, args.seconds)?;
    let mut report = Report::new("idle");
    report.count("connections_opened", held.opened);
    report.count("connections_open_at_end", held.open);
    report.count("connections_that_sent_all", held.complete);
    report.number("sent_mb", held.sent_bytes as f64 / MB);
    if let Some(before) = before {
        report.number("server_rss_anon_before_mb", before as f64 / MB);
    }
    if let Some(watch) = watch {
        watch.stop()?.report(&mut report, held.sent_bytes);
    }
    Ok((report, held.open == held.opened))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_host_and_port() {
        for (address, full) in [
            ("host", "host:9"),
            ("host:1", "host:1"),
            (":1", "127.0.0.1:1"),
            ("tcp://host:1", "host:1"),
            ("::1", "[::1]:9"),
            ("[::1]:1", "[::1]:1"),
            ("[::1]", "[::1]:9"),
        ] {
            assert_eq!(with_port(address, 9), full, "{address}");
        }
    }

    #[test]
    fn the_api_is_on_the_same_host() {
        assert_eq!(api_of(None, "host:7652"), "host:7650");
        assert_eq!(api_of(None, ":7652"), "127.0.0.1:7650");
        assert_eq!(api_of(Some(":8000"), "host:7652"), "127.0.0.1:8000");
    }
}
