//! Times a query against ripgrep on the raw lines, in turn, on the same machine.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use memchr::memchr_iter;

use crate::failure::{Context, Failure, Result};
use crate::http;
use crate::query::Query;
use crate::report::{Report, median};

/// What to compare.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) query: Query,
    pub(crate) raw: &'a Path,
    pub(crate) ripgrep: &'a str,
    /// Ripgrep prints its matches into a pipe, rather than counting them.
    pub(crate) print: bool,
    pub(crate) runs: usize,
}

/// Runs both once to warm up, then in turn; reports medians and their ratio.
pub(crate) fn run(bench: &Bench<'_>) -> Result<Report> {
    ask(bench)?;
    search(bench)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut found, mut wanted) = (0, 0);
    for _ in 0..bench.runs.max(1) {
        let (time, records) = ask(bench)?;
        ours.push(time.as_secs_f64() * 1e3);
        found = records;
        let (time, lines) = search(bench)?;
        theirs.push(time.as_secs_f64() * 1e3);
        wanted = lines;
    }
    let bytes =
        std::fs::metadata(bench.raw).context(|| format!("reading {}", bench.raw.display()))?.len();
    let mut report = Report::new("query-bench");
    report.count("raw_bytes", bytes);
    report.count("runs", bench.runs.max(1) as u64);
    report.count("query_records", found);
    report.count("rg_lines", wanted);
    report.flag("same_count", found == wanted);
    report.text("query_ms", list(&ours));
    report.text("rg_ms", list(&theirs));
    report.number("query_median_ms", median(&ours));
    report.number("rg_median_ms", median(&theirs));
    report.number("query_mb_per_s", bytes as f64 / 1e3 / median(&ours).max(1e-3));
    report.number("rg_mb_per_s", bytes as f64 / 1e3 / median(&theirs).max(1e-3));
    report.number("query_time_over_rg_time", median(&ours) / median(&theirs).max(1e-3));
    Ok(report)
}

fn list(values: &[f64]) -> String {
    values.iter().map(|value| format!("{value:.1}")).collect::<Vec<_>>().join(" ")
}

/// Asks the node and throws the answer away; time and records.
fn ask(bench: &Bench<'_>) -> Result<(Duration, u64)> {
    let start = Instant::now();
    let answer = http::get(&bench.query.api, &bench.query.path())?;
    if answer.header("x-oklog-complete") == Some("false") {
        return Err(Failure::run("the node's answer is incomplete"));
    }
    let mut records = 0;
    answer
        .read_body(&mut |part| records += memchr_iter(b'\n', part).count() as u64)
        .context(|| "reading the answer".into())?;
    Ok((start.elapsed(), records))
}

/// Runs ripgrep with the semantics of a query; time and matching lines.
fn search(bench: &Bench<'_>) -> Result<(Duration, u64)> {
    let running = || format!("running {}", bench.ripgrep);
    let mut command = Command::new(bench.ripgrep);
    command.args(["--no-config", "--text", "--encoding", "none", "--no-crlf"]);
    command.args(["--no-filename", "--no-line-number", "--color", "never"]);
    if !bench.print {
        command.arg("--count");
    }
    if !bench.query.regex {
        command.arg("--fixed-strings");
    }
    command.arg("-e").arg(bench.query.expression.as_deref().unwrap_or_default());
    command.arg("--").arg(bench.raw).stdin(Stdio::null()).stdout(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().context(running)?;
    let mut lines = 0;
    let mut count = String::new();
    if let Some(mut output) = child.stdout.take() {
        use std::io::Read;
        if bench.print {
            let mut buffer = vec![0; 256 << 10];
            loop {
                match output.read(&mut buffer).context(running)? {
                    0 => break,
                    len => lines += memchr_iter(b'\n', &buffer[..len]).count() as u64,
                }
            }
        } else {
            output.read_to_string(&mut count).context(running)?;
        }
    }
    let status = child.wait().context(running)?;
    let elapsed = start.elapsed();
    // 1: nothing matched.
    if !matches!(status.code(), Some(0 | 1)) {
        return Err(Failure::run(format!("{} ended with {status}", bench.ripgrep)));
    }
    if !bench.print {
        lines = count.trim().parse().unwrap_or(0);
    }
    Ok((elapsed, lines))
}
