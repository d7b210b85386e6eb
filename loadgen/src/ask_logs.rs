//! How long `/api/logs` and `/api/stats` take over many entries: puts as many in as are to be there, as bodies of
//! `POST /logs`, waits until they are in the store, then asks one question after the other, in turn.
//!
//! Invariants: one request at a time, each on a connection of its own, from before it is made to the last byte
//! of its answer; memory is one body and one answer.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::Value;

use crate::failure::{Context, Failure, Result};
use crate::http;
use crate::post_log::Entries;
use crate::report::Report;
use crate::send::new_histogram;

/// Entries of one body: a MiB or two, of the 8 that one may have.
const BODY_ENTRIES: u64 = 10_000;
/// Longest silence of the node.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// Until all is in the store.
const STORED_MAX: Duration = Duration::from_secs(900);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Of what is not in the store yet: text moves from left to right.
const UNSTORED: [&str; 3] =
    ["oklog_shard_memory_bytes", "oklog_ingest_backlog_bytes", "oklog_unindexed_bytes"];

/// What to do.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) api: String,
    /// Put in before, entries.
    pub(crate) fill: u64,
    pub(crate) message_bytes: usize,
    pub(crate) services: u64,
    /// Times that each is asked, behind one that does not count.
    pub(crate) runs: u64,
}

/// What is asked, by name. Of `/api/logs`, and then of `/api/stats`.
fn questions(total: u64) -> [(&'static str, String); 10] {
    let middle = total / 2;
    [
        ("newest", "/api/logs".into()),
        ("newest_1000", "/api/logs?limit=1000".into()),
        ("level", "/api/logs?level=error".into()),
        ("service", "/api/logs?service=service-3".into()),
        ("one", format!("/api/logs?q=n%3D{middle}%20")),
        ("level_absent", "/api/logs?level=fatal".into()),
        ("service_absent", "/api/logs?service=rvice-x".into()),
        ("text_absent", "/api/logs?q=deadbeefcafe".into()),
        ("stats", "/api/stats".into()),
        ("stats_by", "/api/stats?by=service,level".into()),
    ]
}

/// Fills and asks; whether every answer made sense.
pub(crate) fn run(asking: &Asking) -> Result<(Report, bool)> {
    let mut report = Report::new("ask-logs");
    let before = total_logs(&asking.api)?;
    let start = Instant::now();
    fill(asking)?;
    if asking.fill > 0 {
        report.number("fill_seconds", start.elapsed().as_secs_f64());
        let entries_per_s = asking.fill as f64 / start.elapsed().as_secs_f64().max(1e-9);
        report.number("fill_entries_per_s", entries_per_s);
        wait_until_stored(asking)?;
    }
    let total = total_logs(&asking.api)?;
    report.count("entries", total);
    report.count("runs", asking.runs);
    let mut all = new_histogram();
    for (name, path) in questions(total) {
        let (times, found) = ask(asking, &path)?;
        if path.starts_with("/api/logs") {
            report.count(&format!("{name}_found"), found);
            all.add(&times).map_err(|error| Failure::run(error.to_string()))?;
        }
        tell(&mut report, name, &times);
    }
    tell(&mut report, "api_logs", &all);
    Ok((report, total >= before + asking.fill))
}

fn tell(report: &mut Report, name: &str, times: &Histogram<u64>) {
    for (quantile_name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        report.number(
            &format!("{name}_{quantile_name}_ms"),
            times.value_at_quantile(quantile) as f64 / 1e3,
        );
    }
    report.number(&format!("{name}_max_ms"), times.max() as f64 / 1e3);
}

fn fill(asking: &Asking) -> Result<()> {
    let entries = Entries::new(asking.services, asking.message_bytes);
    let begun = Instant::now();
    let mut sent = 0;
    while sent < asking.fill {
        let end = asking.fill.min(sent + BODY_ENTRIES);
        let mut body = String::new();
        for number in sent..end {
            body.push_str(&entries.body(number, begun.elapsed()));
            body.push('\n');
        }
        http::post(&asking.api, "/logs", body.as_bytes(), SILENCE_MAX)?
            .read_body(&mut |_| {})
            .context(|| "reading the answer".into())?;
        sent = end;
    }
    Ok(())
}

fn wait_until_stored(asking: &Asking) -> Result<()> {
    let begun = Instant::now();
    loop {
        let page = String::from_utf8_lossy(&get(&asking.api, "/metrics")?).into_owned();
        if UNSTORED.iter().all(|name| metric(&page, name) == 0.0) {
            return Ok(());
        }
        if begun.elapsed() > STORED_MAX {
            return Err(Failure::run("the entries do not get into the store"));
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// The sum of a metric's series.
fn metric(page: &str, name: &str) -> f64 {
    let lines = page.lines().filter_map(|line| line.strip_prefix(name));
    let lines = lines.filter(|rest| rest.starts_with([' ', '{']));
    lines.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Times of one question, microseconds, and how many entries the last answer had.
fn ask(asking: &Asking, path: &str) -> Result<(Histogram<u64>, u64)> {
    let (mut times, mut found) = (new_histogram(), 0);
    for run in 0..=asking.runs {
        let start = Instant::now();
        let answer = get(&asking.api, path)?;
        let us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        if run > 0 {
            times.saturating_record(us.max(1));
        }
        let parsed: Value = serde_json::from_slice(&answer)
            .map_err(|error| Failure::run(format!("{path}: no JSON: {error}")))?;
        found = parsed.as_array().map_or(0, |entries| entries.len() as u64);
    }
    Ok((times, found))
}

/// How many entries there are.
fn total_logs(api: &str) -> Result<u64> {
    // With rows it is an object, whatever --http.api-stats says.
    let stats: Value = serde_json::from_slice(&get(api, "/api/stats?by=level")?)
        .map_err(|error| Failure::run(format!("/api/stats: no JSON: {error}")))?;
    let total = stats["total_logs"].as_u64();
    total.ok_or_else(|| Failure::run("/api/stats says no total_logs"))
}

fn get(api: &str, path: &str) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    let answer = http::get_within(api, path, SILENCE_MAX)?;
    answer
        .read_body(&mut |part| all.extend_from_slice(part))
        .context(|| format!("reading {path}"))?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_metric_are_added_up() {
        let page = "# TYPE a gauge\na{shard=\"0\"} 2\na{shard=\"1\"} 3.5\na_more 7\nb 1\n";
        assert_eq!((metric(page, "a"), metric(page, "b"), metric(page, "c")), (5.5, 1.0, 0.0));
    }
}
