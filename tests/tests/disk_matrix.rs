//! Every place where a node calls its disk × what a disk may do there: nothing that was acknowledged
//! is lost once the fault is over, and no answer is `complete` without it meanwhile.
//!
//! Places of a healthy life and those of a start after a kill, where it is decided what is there, get
//! small nodes of their own: the first call there, wherever in the life it comes, fails or hangs, and what
//! follows is held against a plain model. How to run all of it: [`tests::matrix`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use tests::faulty_disk::{FaultyDisk, RuleId};
use tests::matrix::{self, A_WHILE, Cell, Fault, Place};
use tests::node::Node;
use tests::{http, lines, skipped};

/// Nodes at a time.
const AT_A_TIME: usize = 12;
/// How long the node may take to be well after the fault, generously: a slow machine runs a dozen.
const RECOVERY: Duration = Duration::from_secs(40);
/// How long a part of a life waits at most for what a fault keeps from coming.
const PATIENCE: Duration = Duration::from_secs(12);
/// How long a node works before the restart at which a fault comes.
const SETTLED: Duration = Duration::from_secs(1);
/// What expires may be missing so long before its time, and must be so long after.
const SLACK: Duration = Duration::from_secs(3);

/// A way to live: flags and for how long lines come between restarts.
#[derive(Debug, Clone, Copy)]
struct Life {
    name: &'static str,
    retain: Duration,
    busy: Duration,
}

/// Long enough for a compaction, which an eighth of the retention bounds.
const BUSY: Life =
    Life { name: "busy", retain: Duration::from_secs(48), busy: Duration::from_secs(8) };
/// Records expire, wait in the trash and are purged.
const SHORT: Life =
    Life { name: "short", retain: Duration::from_secs(3), busy: Duration::from_secs(7) };

impl Life {
    fn flags(self) -> Vec<String> {
        let retain = format!("{}s", self.retain.as_secs());
        [
            ["--cores", "1"],
            ["--ingest.segment-flush-size", "1MiB"],
            ["--ingest.segment-flush-age", "100ms"],
            ["--store.segment-target-size", "1MiB"],
            ["--store.segment-target-age", "100ms"],
            ["--store.segment-delay", "10ms"],
            ["--store.segment-purge", "1s"],
            ["--store.segment-retain", &retain],
            ["--shutdown-timeout", "5s"],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
    }
}

/// What was acknowledged, by line, and when it was sent; what was only sent may be there or not.
#[derive(Debug, Default)]
struct Model {
    acknowledged: BTreeMap<String, Instant>,
    sent: u64,
}

/// One node's life on a faulty disk.
struct Run<'a> {
    disk: &'a FaultyDisk,
    life: Life,
    node: Mutex<Option<Node>>,
    model: Mutex<Model>,
}

type Outcome = Result<(), String>;

impl Run<'_> {
    /// Whether the node could be started; a fault may keep it from that.
    fn start(&self, healthy: bool) -> Outcome {
        let flags = self.life.flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let at = if healthy { self.disk.beneath() } else { self.disk.path() };
        let node = Node::try_start_any(at, &flags)?;
        *self.node.lock().unwrap() = Some(node);
        Ok(())
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Option<http::Answer> {
        let api = self.node.lock().unwrap().as_ref()?.api;
        http::try_request(api, method, path, &[], body).ok()
    }

    fn log(&self) -> String {
        self.node.lock().unwrap().as_ref().map(Node::log).unwrap_or_default()
    }

    /// Sends one line; says whether it was acknowledged.
    fn send(&self, mode: &str) -> bool {
        let mut model = self.model.lock().unwrap();
        model.sent += 1;
        let line = format!("line {} {}", model.sent, "x".repeat(100));
        drop(model);
        let start = Instant::now();
        let path = format!("/records?mode={mode}");
        let answer = self.ask("POST", &path, format!("{line}\n").as_bytes());
        let is_acknowledged = answer.is_some_and(|answer| answer.status == 200);
        if is_acknowledged && mode == "durable" {
            self.model.lock().unwrap().acknowledged.insert(line, start);
        }
        is_acknowledged
    }

    /// Compares an answer with the model. `Ok(false)`: it says that something is missing.
    fn check(&self) -> Result<bool, String> {
        let before = Instant::now();
        let must: BTreeSet<String> = {
            let model = self.model.lock().unwrap();
            let lasts = |at: &Instant| before.duration_since(*at) + SLACK < self.life.retain;
            model.acknowledged.iter().filter(|(_, at)| lasts(at)).map(|(l, _)| l.clone()).collect()
        };
        let Some(answer) = self.ask("GET", "/query?from=1h", b"") else { return Ok(false) };
        let says_complete = answer.headers.get("x-oklog-complete").is_some_and(|v| v == "true");
        if answer.status != 200 || !answer.complete {
            return Ok(false);
        }
        let took_long = before.elapsed() + SLACK > self.life.retain;
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        for (_, record) in lines::records(&answer.body) {
            *found.entry(String::from_utf8_lossy(&record).into_owned()).or_default() += 1;
        }
        if let Some((line, count)) = found.iter().find(|(_, count)| **count > 1) {
            return Err(format!("{count} times {line:?}"));
        }
        if let Some(line) = found.keys().find(|line| !line.starts_with("line ")) {
            return Err(format!("invented {line:?}"));
        }
        let missing: Vec<&String> = must.iter().filter(|line| !found.contains_key(*line)).collect();
        match missing.first() {
            Some(line) if says_complete && !took_long => Err(format!(
                "an answer is complete without {} of {} acknowledged, first {:?}",
                missing.len(),
                must.len(),
                &line[..line.len().min(12)]
            )),
            _ => Ok(says_complete && missing.is_empty()),
        }
    }

    /// Lines come and questions are asked for so long.
    fn work(&self, duration: Duration) -> Outcome {
        let (start, done) = (Instant::now(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            // Two that send, so that one that waits for a hanging disk keeps no line from coming.
            for mode in ["durable", "fast"] {
                let done = &done;
                scope.spawn(move || {
                    while !done.load(Ordering::Acquire) {
                        self.send(mode);
                        std::thread::park_timeout(Duration::from_millis(60));
                    }
                });
            }
            let mut outcome = Ok(());
            while start.elapsed() < duration && outcome.is_ok() {
                std::thread::park_timeout(Duration::from_millis(200));
                outcome = self.check().map(drop);
            }
            done.store(true, Ordering::Release);
            outcome
        })
    }

    fn kill(&self) {
        if let Some(node) = self.node.lock().unwrap().take() {
            node.kill();
        }
    }

    /// Waits as long as it is worth; a fault may keep it from coming.
    fn wait(&self, at_most: Duration, mut condition: impl FnMut(&Self) -> bool) -> bool {
        let start = Instant::now();
        while !condition(self) {
            if start.elapsed() > at_most {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        true
    }

    /// Starts, again and again while that fails.
    fn start_in_time(&self, at_most: Duration) -> bool {
        self.wait(at_most, |run| run.start(false).is_ok())
    }

    /// Kills it while its newest lines are in no other file than the one that is being written.
    fn kill_at_work(&self) {
        for _ in 0..3 {
            self.send("durable");
        }
        self.kill();
    }

    /// The life: a start, work, a kill, a start, work, an orderly end, a start. `arm` is called before
    /// the first start, or before the first restart.
    fn live(&self, at_restart: bool, arm: &dyn Fn()) -> Outcome {
        if !at_restart {
            arm();
        }
        if !self.start_in_time(PATIENCE) {
            return Ok(());
        }
        self.work(if at_restart { SETTLED } else { self.life.busy })?;
        self.kill_at_work();
        if at_restart {
            arm();
        }
        if !self.start_in_time(PATIENCE) {
            return Ok(());
        }
        self.check()?;
        self.work(self.life.busy / 4)?;
        if let Some(node) = self.node.lock().unwrap().take() {
            node.stop();
        }
        if self.start_in_time(PATIENCE) {
            self.check()?;
            self.work(self.life.busy / 4)?;
        }
        Ok(())
    }

    /// The fault is over: within a time everything acknowledged is found, and lines are taken.
    fn recover(&self, on_healthy_disk: bool) -> Outcome {
        if on_healthy_disk {
            self.disk.heal();
            self.kill();
            self.start(true).map_err(|log| format!("no start on the healthy disk: {log}"))?;
        } else if self.node.lock().unwrap().is_none() && !self.start_in_time(RECOVERY) {
            return Err("does not start after the fault is over".to_owned());
        }
        let mut last = Ok(false);
        if !self.wait(RECOVERY, |run| run.send("durable")) {
            return Err(format!("takes no lines after the fault is over; log:\n{}", self.log()));
        }
        let is_ready = |run: &Self| run.ask("GET", "/ready", b"").is_some_and(|a| a.status == 200);
        if !self.wait(RECOVERY, is_ready) {
            return Err(format!("not ready after the fault is over; log:\n{}", self.log()));
        }
        let whole = self.wait(RECOVERY, |run| {
            last = run.check();
            last != Ok(false)
        });
        last?;
        if whole {
            return Ok(());
        }
        let answer = self.ask("GET", "/query?from=1h&stats", b"").map(|a| a.text());
        Err(format!("no answer is complete again: {answer:?}; log:\n{}", self.log()))
    }
}

/// Lives once with a fault at a place. `Ok(false)`: the place was not met.
fn cell(life: Life, at_restart: bool, place: &Place, fault: Fault) -> Result<bool, String> {
    let disk = FaultyDisk::new()?;
    let rule = OnceLock::new();
    let arm = || {
        rule.get_or_init(|| disk.add(fault.rule(place)));
    };
    let run = Run { disk: &disk, life, node: Mutex::default(), model: Mutex::default() };
    run.live(at_restart, &arm).map_err(|e| format!("{e}; log:\n{}", run.log()))?;
    let Some(&rule) = rule.get() else { return Ok(false) };
    let met = disk.met(rule);
    if met == 0 {
        return Ok(false);
    }
    // A fault that came late may not be over yet.
    let is_over =
        |run: &Run<'_>| disk.hanging() == 0 && (fault == Fault::Forever || over(run, rule));
    run.wait(2 * A_WHILE, is_over);
    run.recover(fault == Fault::Forever)?;
    Ok(true)
}

fn over(run: &Run<'_>, rule: RuleId) -> bool {
    run.disk.is_over(rule)
}

/// The places of a healthy life.
fn places(life: Life) -> Result<BTreeSet<Place>, String> {
    let disk = FaultyDisk::new()?;
    disk.record();
    let run = Run { disk: &disk, life, node: Mutex::default(), model: Mutex::default() };
    run.live(false, &|| ())?;
    run.recover(false)?;
    run.kill();
    Ok(recorded(&disk))
}

/// The places of a start after a kill.
fn places_of_a_restart() -> Result<BTreeSet<Place>, String> {
    let disk = FaultyDisk::new()?;
    let run = Run { disk: &disk, life: BUSY, node: Mutex::default(), model: Mutex::default() };
    run.start(false)?;
    run.work(SETTLED)?;
    run.kill_at_work();
    disk.record();
    run.start(false)?;
    let found = recorded(&disk);
    run.kill();
    Ok(found)
}

fn recorded(disk: &FaultyDisk) -> BTreeSet<Place> {
    Place::recorded(disk, "data/")
}

/// When in a life a fault comes: how it is lived, and whether at its first restart.
type Moment = (Life, bool);

/// Every cell of the matrix.
fn cells() -> Vec<Cell<Moment>> {
    let restart = places_of_a_restart().unwrap();
    let (busy, short) = std::thread::scope(|scope| {
        let short = scope.spawn(|| places(SHORT).unwrap());
        (places(BUSY).unwrap(), short.join().unwrap())
    });
    let of_short = short.difference(&busy).map(|place| ((SHORT, false), SHORT.name, place));
    let of_busy = busy.iter().map(|place| ((BUSY, false), BUSY.name, place));
    let of_restart = restart.iter().map(|place| ((BUSY, true), "restart", place));
    let all: Vec<_> = of_busy.chain(of_short).chain(of_restart).collect();
    assert!(all.len() >= 30, "a life calls its disk in many places: {all:#?}");
    eprintln!("{} places", all.len());
    matrix::cells(all.into_iter().map(|(moment, name, place)| (moment, name, place.clone())))
}

#[test]
fn nothing_acknowledged_is_lost_whatever_call_fails_or_hangs() {
    let test = "nothing_acknowledged_is_lost_whatever_call_fails_or_hangs";
    if let Err(why) = FaultyDisk::new() {
        return skipped(test, &why);
    }
    matrix::try_all(&cells(), AT_A_TIME, |of| {
        let (life, at_restart) = of.moment;
        cell(life, at_restart, &of.place, of.fault)
    });
}
