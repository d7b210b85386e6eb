//! The query set against ripgrep: checked once untimed, then timed warm, in turn, and cold.

use std::fs::File;
use std::time::Instant;

use rustix::fs::{Advice, fadvise};
use serde_json::Value;

use super::Contest;
use super::cases::{Case, Wanted, cases};
use super::node::{Node, Role};
use super::scratch::files_below;
use super::searchers::Searchers;
use super::series::{Series, short};
use super::table::Row;
use crate::digest::{Digest, RecordCutter};
use crate::failure::{Context, Failure, Result};
use crate::http;
use crate::procfs::Watch;
use crate::units::MB;

const RECORD_BYTES_MAX: usize = 1 << 20;

/// Times of one case.
#[derive(Debug, Default)]
struct Times {
    ours: Series,
    rg: Series,
    zstd: Series,
}

/// Asks the node that holds the corpus; false if it found something else than ripgrep.
pub(super) fn run(contest: &Contest<'_>, node: Node, rows: &mut Vec<Row>) -> Result<bool> {
    let searchers = Searchers::find(&contest.args.rg, &contest.args.zstd, contest.raw)?;
    let cases = cases(&contest.needles, &contest.args.common_word);
    contest.tell("queries, checked against ripgrep");
    let mut differing = Vec::new();
    let mut remarks = Vec::new();
    for case in &cases {
        let (remark, same) = check(case, &node, &searchers)?;
        remarks.push(remark);
        if !same {
            differing.push(case.what.clone());
        }
    }
    contest.tell("queries, warm");
    let watch = Watch::start(node.pid())?;
    let mut warm = Vec::new();
    for case in &cases {
        warm.push(time_warm(contest, case, &node, &searchers)?);
    }
    let peak = watch.stop()?.rss_anon_peak_bytes;
    contest.tell("queries, cold");
    let mut cold = Vec::new();
    let mut node = node;
    for case in &cases {
        let mut times = Times::default();
        for _ in 0..contest.args.rounds {
            node = time_cold(contest, case, node, &searchers, &mut times)?;
        }
        cold.push(times);
    }
    node.stop()?;
    for ((case, times), remark) in cases.iter().zip(warm).zip(remarks) {
        rows.push(row(&case.what, times).remark(remark));
    }
    for (case, times) in cases.iter().zip(cold) {
        rows.push(row(&format!("cold: {}", case.what), times));
    }
    let memory = Series::of(peak as f64 / MB);
    let mut last = Row::new("node's anonymous memory at most, in these queries", "MB", memory);
    if searchers.rg.is_none() {
        last = last.remark(format!("{} is missing: not compared (--rg)", contest.args.rg));
    } else if searchers.zstd.is_none() {
        last = last.remark(format!("{} is missing: not compared (--zstd)", contest.args.zstd));
    }
    for what in &differing {
        last = last.remark(format!("DIFFERS from ripgrep: {what}"));
    }
    rows.push(last);
    Ok(differing.is_empty())
}

fn row(what: &str, times: Times) -> Row {
    Row::new(what, "ms", times.ours).against("rg", times.rg).against("zstd -dc | rg", times.zstd)
}

/// Untimed: counts and fingerprints of both, and how many blocks the node passed over.
fn check(case: &Case, node: &Node, searchers: &Searchers) -> Result<(String, bool)> {
    let stats: Value = serde_json::from_str(&node.text(&case.stats_path())?)
        .context(|| "reading the answer to ?stats".into())?;
    let field = |name: &str| stats[name].as_f64().unwrap_or(0.0);
    let blocks = field("blocks_read") + field("blocks_skipped");
    let skipped = 100.0 * field("blocks_skipped") / blocks.max(1.0);
    let found = format!("{} lines, {} % of blocks skipped", field("records"), short(skipped));
    let same = match case.wanted {
        Wanted::Newest => true,
        Wanted::Count => {
            let mut text = Vec::new();
            let ran = searchers.search_raw(case, &mut |part| text.extend_from_slice(part))?;
            let count = String::from_utf8_lossy(&text).trim().parse::<u64>().unwrap_or(0);
            !ran || stats["records"].as_u64() == Some(count)
        }
        Wanted::Lines => {
            let mut theirs = Digest::default();
            let mut cutter = RecordCutter::new(RECORD_BYTES_MAX);
            let ran = searchers.search_raw(case, &mut |part| {
                cutter.push(part, &mut |record| theirs.add(record));
            })?;
            cutter.finish(&mut |record| theirs.add(record));
            let mut ours = Digest::default();
            case.query(&node.api).each_record(&mut |_, record| ours.add(record))?;
            !ran || ours == theirs
        }
    };
    Ok((found, same))
}

fn time_warm(
    contest: &Contest<'_>,
    case: &Case,
    node: &Node,
    searchers: &Searchers,
) -> Result<Times> {
    let mut times = Times::default();
    for _ in 0..contest.args.rounds {
        times.ours.push(ask(case, node)?);
        searchers.time_raw(case)?.into_iter().for_each(|ms| times.rg.push(ms));
        searchers.time_compressed(case)?.into_iter().for_each(|ms| times.zstd.push(ms));
    }
    Ok(times)
}

/// A mapped page cannot be dropped from the cache: the node is started anew behind each drop.
fn time_cold(
    contest: &Contest<'_>,
    case: &Case,
    node: Node,
    searchers: &Searchers,
    times: &mut Times,
) -> Result<Node> {
    let data = node.data();
    node.stop()?;
    files_below(&data)?.iter().try_for_each(|file| drop_from_cache(file))?;
    let directory = data.parent().unwrap_or(&data).to_path_buf();
    let node = Node::start(&contest.args.oklogd, &directory, Role::IngestStore, &[])?;
    times.ours.push(ask(case, &node)?);
    let drop_all = || searchers.files().iter().try_for_each(|file| drop_from_cache(file));
    drop_all()?;
    searchers.time_raw(case)?.into_iter().for_each(|ms| times.rg.push(ms));
    drop_all()?;
    searchers.time_compressed(case)?.into_iter().for_each(|ms| times.zstd.push(ms));
    Ok(node)
}

fn drop_from_cache(path: &std::path::Path) -> Result<()> {
    let dropping = || format!("dropping {} from the page cache", path.display());
    let file = File::open(path).context(dropping)?;
    file.sync_all().context(dropping)?;
    fadvise(&file, 0, None, Advice::DontNeed).context(dropping)
}

/// Asks and throws the answer away; milliseconds.
fn ask(case: &Case, node: &Node) -> Result<f64> {
    let start = Instant::now();
    let answer = http::get(&node.api, &case.path())?;
    if answer.header("x-oklog-complete") == Some("false") {
        return Err(Failure::run(format!("the answer to `{}` is incomplete", case.what)));
    }
    answer.read_body(&mut |_| {}).context(|| "reading the answer".into())?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
