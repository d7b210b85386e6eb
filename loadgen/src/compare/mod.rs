//! `compare`: everything that a node is held against, side by side in one run on one corpus.
//!
//! What is compared takes turns within a round, so that a noisy neighbour troubles both. Every
//! process that is started ends with this one; everything is written below one scratch directory.

mod absent;
mod bare;
mod bursts;
mod cases;
mod disk;
mod durable;
mod errors;
mod live;
mod measure;
mod node;
mod plant;
mod queries;
pub(crate) mod scratch;
mod searchers;
mod series;
mod skips;
mod stored;
mod table;
mod trickle;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::{CompareAllArgs, Part};
use crate::failure::{Context, Failure, Result};
use crate::units::MB;
use plant::{Needles, Planted};
use table::Table;

/// What every part of a comparison needs.
struct Contest<'a> {
    args: &'a CompareAllArgs,
    /// The corpus with its needles.
    raw: &'a Path,
    planted: Planted,
    burst_bytes: u64,
    needles: Needles,
    scratch: &'a Path,
}

impl Contest<'_> {
    /// Says on standard error what is being measured.
    #[allow(clippy::unused_self)]
    fn tell(&self, what: &str) {
        eprintln!("loadgen compare: {what}");
    }

    #[allow(clippy::unused_self)]
    fn remove(&self, directory: &Path) -> Result<()> {
        fs::remove_dir_all(directory).context(|| format!("removing {}", directory.display()))
    }
}

/// Measures what the flags ask for; false if a query found something else than ripgrep.
pub(crate) fn run(args: &CompareAllArgs, corpus: &Path, scratch: &Path) -> Result<(Table, bool)> {
    let args_found = CompareAllArgs { oklogd: find_program(&args.oklogd)?, ..args.clone() };
    let needles = Needles::new(args.source.seed);
    let raw = scratch.join("raw.log");
    let planted = plant::plant(corpus, &raw, &needles)?;
    if planted.bytes == 0 {
        return Err(Failure::usage("the corpus is empty"));
    }
    let burst_bytes = args.burst.clamp(1, planted.bytes);
    let contest = Contest { args: &args_found, raw: &raw, planted, burst_bytes, needles, scratch };
    let mut table = Table { facts: facts(&contest), rows: Vec::new() };
    let mut holds = true;
    let rows = &mut table.rows;
    if args.wants(Part::Sustained) {
        live::sustained(&contest, rows)?;
    }
    if [Part::Store, Part::Skips, Part::Queries].into_iter().any(|part| args.wants(part)) {
        let node = stored::run(&contest, rows)?;
        if args.wants(Part::Skips) {
            skips::run(&contest, &node, rows)?;
        }
        if args.wants(Part::Queries) {
            holds = queries::run(&contest, node, rows)?;
        }
    }
    if args.wants(Part::Arrival) {
        live::arrival(&contest, rows)?;
    }
    if args.wants(Part::Ingest) {
        bursts::run(&contest, rows)?;
    }
    if args.wants(Part::Durable) {
        durable::run(&contest, rows)?;
    }
    if args.wants(Part::Trickle) {
        trickle::run(&contest, rows)?;
    }
    Ok((table, holds))
}

/// The whole path of a program, which a node with a directory of its own is started by.
fn find_program(program: &Path) -> Result<PathBuf> {
    let named = program.components().count() == 1;
    let path = std::env::var_os("PATH").filter(|_| named && !program.exists());
    let found = path.and_then(|path| {
        std::env::split_paths(&path).map(|part| part.join(program)).find(|file| file.is_file())
    });
    fs::canonicalize(found.as_deref().unwrap_or(program))
        .context(|| format!("finding {} (give --oklogd PATH)", program.display()))
}

fn facts(contest: &Contest<'_>) -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = read("/proc/sys/kernel/osrelease");
    vec![
        ("CPU", model.map_or("unknown", |(_, name)| name).to_string()),
        ("cores", cores.to_string()),
        ("kernel", kernel.trim().to_string()),
        ("corpus MB", format!("{:.0}", contest.planted.bytes as f64 / MB)),
        ("records", contest.planted.lines.to_string()),
        ("rounds", contest.args.rounds.to_string()),
    ]
}
