//! Every place where a forwarder calls the disk of its spool × what a disk may do there: no line that it
//! said to have kept or handed over is lost once the fault is over, and what it could not keep is told,
//! with an exit code that is not 0. How to run all of it: [`tests::matrix`].

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ChildStdin;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::faulty_disk::{Call, FaultyDisk};
use tests::forwarder::Forwarder;
use tests::matrix::{self, A_WHILE, Fault, Place};
use tests::node::Node;
use tests::{http, lines, skipped, tools};

/// Forwarders at a time: they mostly wait.
const AT_A_TIME: usize = 16;
/// How long a part of a life waits at most for what a fault keeps from coming.
const PATIENCE: Duration = Duration::from_secs(12);
/// How long all may take to be handed over once the fault is over, generously.
const RECOVERY: Duration = Duration::from_secs(40);
/// Lines before the kill: more than one file of a spool of 1 MiB, whose files hold an eighth of it.
const BEFORE: usize = 1_800;
/// Lines of each later run.
const LATER: usize = 200;
/// Where nobody listens: a reserved port.
const NOBODY: &str = "127.0.0.1:1";

type Outcome = Result<(), String>;

/// A forwarder's life on a faulty disk: a run that is killed, one that is asked to end, and one that ends
/// with its input, once there is an ingester.
struct Life<'a> {
    disk: &'a FaultyDisk,
    node: &'a Node,
    topic: &'a str,
    sent: usize,
    /// Lines that must come.
    kept: Vec<String>,
    /// Logs of all runs.
    logs: String,
}

impl Life<'_> {
    /// Starts one, again and again while the disk keeps it from that; `None`: for too long.
    fn start(&mut self, address: &str) -> Option<Forwarder> {
        let flags = ["--mode", "durable", "--topic", self.topic, "--api", "127.0.0.1:0"];
        let spool = ["--on-full", "spool", "--spool.path", "spool", "--spool.max-size", "1MiB"];
        let rest = ["--shutdown-timeout", "2s", "--backoff-max", "100ms", address];
        let flags = [&flags[..], &spool, &rest].concat();
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let mut forwarder = Forwarder::start(self.disk.path(), &flags);
            // It answers once it has opened its spool.
            if wait(PATIENCE, || forwarder.ended() || metric(&forwarder, "spool_records").is_some())
                && !forwarder.ended()
            {
                return Some(forwarder);
            }
            let (_, log) = forwarder.wait();
            self.logs += &log;
        }
        None
    }

    /// Writes so many new lines from a thread of their own: a fault may keep them waiting.
    fn write(&mut self, forwarder: &mut Forwarder, count: usize) -> (Vec<String>, Writer) {
        let numbers = self.sent..self.sent + count;
        self.sent = numbers.end;
        let new: Vec<String> =
            numbers.map(|n| format!("{} {n:05} {}", self.topic, "x".repeat(80))).collect();
        let text = new.iter().flat_map(|line| [line, "\n"]).collect::<String>();
        let mut input = forwarder.take_input();
        let writer = std::thread::spawn(move || {
            // It may be killed meanwhile.
            let _ = input.write_all(text.as_bytes());
            input
        });
        (new, writer)
    }

    /// What is in the spool when it is killed is kept.
    fn until_it_is_killed(&mut self) -> Outcome {
        let Some(mut forwarder) = self.start(NOBODY) else { return Ok(()) };
        let (mut new, writer) = self.write(&mut forwarder, BEFORE);
        let mut spooled = 0;
        wait(PATIENCE, || {
            spooled = metric(&forwarder, "spool_records").map_or(spooled, |n| n as usize);
            spooled == BEFORE || forwarder.ended()
        });
        let ended = forwarder.ended();
        self.logs += &forwarder.log();
        forwarder.kill();
        drop(writer.join());
        new.truncate(spooled);
        self.kept.extend(new);
        if ended { Err("it ended by itself".to_owned()) } else { Ok(()) }
    }

    /// Ends a run; what it says by its exit code and its log holds.
    fn finish(&mut self, forwarder: Forwarder, new: Vec<String>) -> Outcome {
        let (status, log) = forwarder.wait();
        let told = log.lines().rev().find(|line| line.contains("ERROR")).map(str::to_owned);
        self.logs += &log;
        match (status.code(), told) {
            (Some(0), _) => self.kept.extend(new),
            // Which of them, it cannot say.
            (Some(1), Some(told)) if told.contains("lost") || told.contains("not handed over") => {}
            (code, _) => return Err(format!("it ends with {code:?} and says nothing of it")),
        }
        Ok(())
    }

    /// `arm` is called before the first start, or before the first restart.
    fn live(&mut self, at_restart: bool, arm: &mut dyn FnMut()) -> Outcome {
        if !at_restart {
            arm();
        }
        self.until_it_is_killed()?;
        if at_restart {
            arm();
        }
        if let Some(mut forwarder) = self.start(NOBODY) {
            let (new, writer) = self.write(&mut forwarder, LATER);
            let bytes: usize = new.iter().map(|line| line.len() + 1).sum();
            let read = "input_bytes_total";
            wait(PATIENCE, || metric(&forwarder, read).is_some_and(|n| n as usize >= bytes));
            forwarder.signal(Signal::TERM);
            // Its input ends once all of it was written, or it has ended.
            let ends = std::thread::spawn(move || drop(writer.join()));
            self.finish(forwarder, new)?;
            drop(ends.join());
        }
        let address = self.node.durable.to_string();
        if let Some(mut forwarder) = self.start(&address) {
            let (new, writer) = self.write(&mut forwarder, LATER);
            let ends = std::thread::spawn(move || drop(writer.join()));
            if !wait(PATIENCE, || forwarder.ended()) {
                forwarder.signal(Signal::TERM);
            }
            self.finish(forwarder, new)?;
            drop(ends.join());
        }
        Ok(())
    }

    /// The fault is over: everything that was kept is handed over, and the spool is whole.
    fn recover(&mut self) -> Outcome {
        let address = self.node.durable.to_string();
        let mut code = None;
        let begun = Instant::now();
        while code != Some(0) && begun.elapsed() < RECOVERY {
            let mut forwarder = self.start(&address).ok_or("it does not start any more")?;
            forwarder.end();
            let (status, log) = forwarder.wait();
            self.logs += &log;
            code = status.code();
        }
        if code != Some(0) {
            return Err(format!("it ends with {code:?} after the fault is over"));
        }
        let answer = self.node.get(&format!("/query?from=1h&topic={}", self.topic));
        if answer.status != 200 || !answer.complete {
            return Err(format!("the node answers {}", answer.status));
        }
        let found = lines::records(&answer.body).into_iter();
        let found: BTreeSet<String> =
            found.map(|(_, record)| String::from_utf8_lossy(&record).into_owned()).collect();
        if let Some(line) = found.iter().find(|line| !self.has_sent(line)) {
            return Err(format!("invented {line:?}"));
        }
        let lost: Vec<_> = self.kept.iter().filter(|line| !found.contains(*line)).collect();
        if let Some(line) = lost.first() {
            let (lost, kept) = (lost.len(), self.kept.len());
            return Err(format!("{lost} of {kept} lines are lost, first {:?}", &line[..20]));
        }
        let spool = self.disk.beneath().join("spool");
        let checked = tools::oklogd(&["fsck", spool.to_str().unwrap_or_default()]);
        let said = tools::text(&checked.stdout);
        // A kill may come upon lines that are being written, or copied after a sync that failed.
        let is_torn_end = |line: &str| line.contains("is unfinished");
        match said.lines().filter(|line| line.contains(": offset ")).find(|l| !is_torn_end(l)) {
            None => Ok(()),
            Some(_) => Err(format!("fsck: {said}")),
        }
    }

    fn has_sent(&self, line: &str) -> bool {
        let number = line.strip_prefix(self.topic).and_then(|rest| rest.get(1..6)?.parse().ok());
        number.is_some_and(|number: usize| number < self.sent) && line.ends_with(&"x".repeat(80))
    }
}

/// Gives the input back, which ends when that is dropped.
type Writer = JoinHandle<ChildStdin>;

/// Waits as long as it is worth; a fault may keep it from coming.
fn wait(at_most: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > at_most {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(60));
    }
    true
}

/// A metric, if it can be had.
fn metric(forwarder: &Forwarder, name: &str) -> Option<f64> {
    let log = forwarder.log();
    let line = log.lines().find(|line| line.contains("listening"))?;
    let api = line.split("address=").nth(1)?.trim().parse().ok()?;
    let text = http::try_request(api, "GET", "/metrics", &[], b"").ok()?.text();
    let line = text.lines().find(|line| {
        line.split(' ').next().and_then(|n| n.strip_prefix("oklog_forward_")) == Some(name)
    });
    line?.rsplit(' ').next()?.parse().ok()
}

/// Lives once, with what `arm` does.
fn live<'a>(
    disk: &'a FaultyDisk,
    (node, topic): (&'a Node, &'a str),
    at_restart: bool,
    arm: &mut dyn FnMut(),
) -> (Life<'a>, Outcome) {
    let mut life = Life { disk, node, topic, sent: 0, kept: Vec::new(), logs: String::new() };
    let lived = life.live(at_restart, arm);
    (life, lived)
}

/// The places of a healthy life, from its beginning or from its first restart on.
fn places(node: &Node, at_restart: bool) -> Result<BTreeSet<Place>, String> {
    let disk = FaultyDisk::new()?;
    let topic = if at_restart { "healthy-later" } else { "healthy" };
    let (mut life, lived) = live(&disk, (node, topic), at_restart, &mut || disk.record());
    lived.and_then(|()| life.recover()).map_err(|why| format!("{why}; logs:\n{}", life.logs))?;
    assert_eq!(life.kept.len(), BEFORE + 2 * LATER, "a healthy life keeps everything");
    Ok(Place::recorded(&disk, "spool"))
}

/// Lives once with a fault at a place. `Ok(false)`: the place was not met.
fn cell(of: &matrix::Cell<bool>, node: &Node, topic: &str) -> Result<bool, String> {
    let disk = FaultyDisk::new()?;
    let mut rule = None;
    let arm = &mut || rule = Some(disk.add(of.fault.rule(&of.place)));
    let (mut life, lived) = live(&disk, (node, topic), of.moment, arm);
    let told = |why, life: &Life<'_>| format!("{why}; logs:\n{}", life.logs);
    lived.map_err(|why| told(why, &life))?;
    let Some(rule) = rule else { return Ok(false) };
    if disk.met(rule) == 0 {
        // Some calls are those of a start after all was handed over.
        let _ = life.recover();
    }
    if disk.met(rule) == 0 {
        return Ok(false);
    }
    if of.fault == Fault::Forever {
        disk.heal();
    }
    // A fault that came late may not be over yet.
    wait(2 * A_WHILE, || disk.hanging() == 0 && disk.is_over(rule));
    life.recover().map_err(|why| told(why, &life))?;
    Ok(true)
}

#[test]
fn no_line_that_was_kept_is_lost_whatever_call_fails_or_hangs() {
    let test = "no_line_that_was_kept_is_lost_whatever_call_fails_or_hangs";
    if let Err(why) = FaultyDisk::new() {
        return skipped(test, &why);
    }
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let (first, later) = std::thread::scope(|scope| {
        let later = scope.spawn(|| places(&node, true).unwrap());
        (places(&node, false).unwrap(), later.join().unwrap())
    });
    assert!(first.len() >= 12, "a spool calls its disk in many places: {first:#?}");
    let first = first.into_iter().map(|place| (false, "life", place));
    // What is there is decided at a restart; what is changed then is as before.
    let reads = |place: &Place| matches!(place.call, Call::Open | Call::Read | Call::List);
    let later = later.into_iter().filter(reads).map(|place| (true, "restart", place));
    let cells = matrix::cells(first.chain(later));
    eprintln!("{} cells", cells.len());
    let number = std::sync::atomic::AtomicUsize::new(0);
    matrix::try_all(&cells, AT_A_TIME, |of| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        cell(of, &node, &format!("cell{number}"))
    });
}
