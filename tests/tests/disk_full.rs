//! Full disks, through the real binary on a small file system: nothing that was acknowledged is
//! lost, nothing panics, and everything goes on by itself when space returns.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tests::lines::Random;
use tests::loop_disk::LoopDisk;
use tests::node::Node;
use tests::sender::Acknowledged;
use tests::{http, skipped, wait_until};

/// Small segments, much gathering and compacting.
const RESTLESS: &[&str] = &[
    "--ingest.segment-flush-size",
    "1MiB",
    "--ingest.segment-flush-age",
    "100ms",
    "--store.segment-target-size",
    "2MiB",
    "--store.segment-target-age",
    "100ms",
    "--store.segment-delay",
    "10ms",
];

const LINES_AT_A_TIME: u64 = 50;

/// What nobody can compress, and the test can make again.
fn line(sender: usize, number: u64) -> String {
    let mut random = Random::new((sender as u64) << 40 | number);
    let noise = (0..1000).map(|_| char::from(b'!' + random.below(94) as u8));
    format!("{sender} {number} {}\n", noise.collect::<String>())
}

/// Lines that were acknowledged, by sender; all below the number.
type Acks = Mutex<HashMap<usize, u64>>;

/// Sends until told to stop. A connection that is lost ends it, unless a node is expected to be
/// full for longer than a client waits.
fn send(node: &Node, sender: usize, acks: &Acks, stop: &AtomicBool) {
    let mut connection = Acknowledged::connect(node.durable).expect("the port is listened on");
    let mut number = 0;
    while !stop.load(Ordering::Acquire) {
        let text: String = (number..number + LINES_AT_A_TIME).map(|n| line(sender, n)).collect();
        number += LINES_AT_A_TIME;
        connection.send(text.as_bytes()).expect("the node keeps the connection");
        connection.wait_for(number).expect("the node acknowledges in the end");
        acks.lock().unwrap().insert(sender, number);
    }
}

fn acknowledged(acks: &Acks) -> u64 {
    acks.lock().unwrap().values().sum()
}

/// Every line that was acknowledged is found once, as it was sent.
fn check(node: &Node, acks: &Acks) {
    // What is acknowledged before the query begins is in its answer.
    let before = acks.lock().unwrap().clone();
    let mut found: HashMap<usize, Vec<u64>> = HashMap::new();
    for (_, record) in node.query("") {
        let text = String::from_utf8(record).expect("no byte was altered");
        let mut words = text.split(' ');
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).expect("ours");
        let (sender, number) = (number() as usize, number());
        assert_eq!(text, line(sender, number).trim_end(), "altered");
        found.entry(sender).or_default().push(number);
    }
    for (sender, count) in &before {
        let numbers = found.remove(sender).unwrap_or_default();
        let differs = numbers.iter().zip(0..).position(|(number, expected)| *number != expected);
        if let Some(at) = differs {
            let around = &numbers[at.saturating_sub(3)..numbers.len().min(at + 5)];
            let total = numbers.len();
            panic!("sender {sender}: lost, twice, or in disorder at {at} of {total}: {around:?}");
        }
        assert!(numbers.len() as u64 >= *count, "sender {sender}: lost {count} {}", numbers.len());
    }
}

fn times(node: &Node, words: &str) -> usize {
    node.log().lines().filter(|line| line.contains(words)).count()
}

fn assert_sound(node: &Node) {
    let log = node.log();
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(node.metric("oklog_damage_total"), 0.0, "{log}");
}

#[test]
fn below_the_reserve_new_records_are_refused_and_everything_else_goes_on() {
    let test = "below_the_reserve_new_records_are_refused_and_everything_else_goes_on";
    let disk = match LoopDisk::new(160 << 20) {
        Ok(disk) => disk,
        Err(why) => return skipped(test, &why),
    };
    disk.take("ballast", 64 << 20).unwrap();
    let flags = [RESTLESS, &["--disk.free-min", "24MiB"]].concat();
    let node = Node::start(disk.path(), &flags);
    let (acks, stop) = (Acks::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for sender in 0..3 {
            let (node, acks, stop) = (&node, &acks, &stop);
            scope.spawn(move || send(node, sender, acks, stop));
        }
        wait_until("records are refused", || node.metric("oklog_disk_refusing") == 1.0);
        // What was taken goes to the store, which has the reserve for it. Compaction takes and gives
        // space meanwhile, so records may be taken again for a moment.
        let (mut steady, mut seen) = (0, 0);
        wait_until("everything has come to rest", || {
            let before = std::mem::replace(&mut seen, acknowledged(&acks));
            let waits = ["oklog_unindexed_bytes", "oklog_ingest_backlog_bytes"];
            let at_rest = node.metric("oklog_disk_refusing") == 1.0
                && waits.iter().all(|name| node.metric(name) == 0.0);
            steady = if at_rest && before == seen { steady + 1 } else { 0 };
            steady > 50
        });
        let ready = node.get("/ready");
        assert_eq!(ready.status, 503);
        assert!(ready.text().contains("--disk.free-min"), "{}", ready.text());
        assert_eq!(node.get("/health").status, 200);
        let refused = http::post(node.api, "/records?mode=durable", b"no\n");
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.headers.contains_key("retry-after"));
        assert_eq!(refused.json()["kept"], 0);
        assert!(refused.json()["error"].as_str().unwrap().contains("disk"));
        assert!(disk.free_bytes() > 12 << 20, "the reserve is left alone: {}", disk.free_bytes());
        assert_eq!(node.metric("oklog_disk_until_refusal_bytes"), 0.0);
        let before = acknowledged(&acks);
        check(&node, &acks);
        assert_eq!(acknowledged(&acks), before, "senders wait");
        // Fast senders feel it, too: the node reads no more than its buffers hold.
        let mut fast = std::net::TcpStream::connect(node.fast).unwrap();
        fast.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let piece = vec![b'\n'; 1 << 20];
        let stuck = (0..200).any(|_| fast.write_all(&piece).is_err());
        assert!(stuck, "a fast sender is not stopped");
        drop(fast);

        disk.give_back("ballast");
        wait_until("records are taken again", || acknowledged(&acks) > before + 3000);
        assert_eq!(node.get("/ready").status, 200);
        stop.store(true, Ordering::Release);
    });
    // However often it changes until the store has grown into what is left: each change is one line.
    let log = node.log();
    let told = log.lines().filter_map(|line| {
        let is_over = line.contains("there is room on the disk again");
        (is_over || line.contains("new records are refused")).then_some(is_over)
    });
    let told: Vec<bool> = told.collect();
    let alternates = told.chunks(2).all(|pair| pair == [false, true]);
    assert!(alternates && !told.is_empty(), "told per change of state: {log}");
    assert_sound(&node);
    assert!(node.stop().success());
}

#[test]
fn a_disk_on_which_refused_records_could_never_be_taken_again_is_told_at_the_start() {
    let test = "a_disk_on_which_refused_records_could_never_be_taken_again_is_told_at_the_start";
    let disk = match LoopDisk::new(64 << 20) {
        Ok(disk) => disk,
        Err(why) => return skipped(test, &why),
    };
    let is_told = |node: &Node| times(node, "is too small") == 1;
    let node = Node::start_any(disk.path(), &[]);
    assert!(is_told(&node) && node.log().contains("--ingest.segment-flush-size"), "{}", node.log());
    assert!(node.stop().success());
    let node = Node::start(disk.path(), &["--ingest.segment-flush-size", "1MiB"]);
    assert!(!is_told(&node), "{}", node.log());
    assert!(node.stop().success());
}

#[test]
fn a_disk_that_others_fill_costs_nothing_that_was_acknowledged() {
    let test = "a_disk_that_others_fill_costs_nothing_that_was_acknowledged";
    let disk = match LoopDisk::new(192 << 20) {
        Ok(disk) => disk,
        Err(why) => return skipped(test, &why),
    };
    // Without a reserve everything meets the full disk: ingest, gathering, compaction.
    let flags = [RESTLESS, &["--disk.free-min", "0"]].concat();
    let node = Node::start(disk.path(), &flags);
    let (acks, stop) = (Acks::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for sender in 0..3 {
            let (node, acks, stop) = (&node, &acks, &stop);
            scope.spawn(move || send(node, sender, acks, stop));
        }
        for round in 1..=5 {
            let goal = acknowledged(&acks) + 4_000;
            wait_until("work goes on", || acknowledged(&acks) >= goal);
            disk.fill("other");
            wait_until("the node feels it", || {
                disk.fill("other");
                node.metric("oklog_disk_refusing") == 1.0
            });
            assert_eq!(node.get("/ready").status, 503, "round {round}");
            disk.give_back("other");
        }
        let goal = acknowledged(&acks) + 4_000;
        wait_until("work goes on to the end", || acknowledged(&acks) >= goal);
        stop.store(true, Ordering::Release);
    });
    node.settle();
    check(&node, &acks);
    let told = times(&node, "new records are refused");
    assert!((1..=15).contains(&told), "told per change of state: {told}\n{}", node.log());
    assert_sound(&node);
    assert!(node.stop().success());
    let node = Node::start(disk.path(), &flags);
    check(&node, &acks);
}

#[test]
fn a_node_starts_on_a_full_disk_and_answers() {
    let test = "a_node_starts_on_a_full_disk_and_answers";
    let disk = match LoopDisk::new(96 << 20) {
        Ok(disk) => disk,
        Err(why) => return skipped(test, &why),
    };
    let node = Node::start(disk.path(), RESTLESS);
    let (acks, stop) = (Acks::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("some are acknowledged", || acknowledged(&acks) >= 2_000);
            stop.store(true, Ordering::Release);
        });
        send(&node, 0, &acks, &stop);
    });
    node.kill();
    disk.fill("other");
    let node = Node::start_any(disk.path(), RESTLESS);
    wait_until("it is as full as it can be", || {
        disk.fill("other");
        node.metric("oklog_disk_refusing") == 1.0
    });
    assert_eq!(node.get("/ready").status, 503);
    check(&node, &acks);
    disk.give_back("other");
    wait_until("it is ready by itself", || node.get("/ready").status == 200);
    node.settle();
    check(&node, &acks);
    assert_sound(&node);
}

#[test]
fn a_node_on_a_full_disk_stops_soon_and_keeps_what_it_acknowledged() {
    let test = "a_node_on_a_full_disk_stops_soon_and_keeps_what_it_acknowledged";
    let disk = match LoopDisk::new(96 << 20) {
        Ok(disk) => disk,
        Err(why) => return skipped(test, &why),
    };
    let flags = [RESTLESS, &["--disk.free-min", "0"]].concat();
    let node = Node::start(disk.path(), &flags);
    let acks = Acks::default();
    let mut connection = Acknowledged::connect(node.durable).unwrap();
    let text = |from: u64, to: u64| (from..to).map(|n| line(0, n)).collect::<String>();
    connection.send(text(0, 1_000).as_bytes()).unwrap();
    connection.wait_for(1_000).unwrap();
    acks.lock().unwrap().insert(0, 1_000);
    std::thread::scope(|scope| {
        // More than the node can write, until it closes the connection.
        scope.spawn(move || {
            let mut number = 1_000;
            while connection.send(text(number, number + 100).as_bytes()).is_ok() {
                number += 100;
            }
        });
        wait_until("records wait in memory", || {
            disk.fill("other");
            let is_full = node.metric("oklog_disk_refusing") == 1.0;
            let waits = is_full && node.metric("oklog_shard_memory_bytes") > 0.0;
            if is_full && !waits {
                // All that it took had found its place: it is to take more.
                disk.give_back("other");
                wait_until("records are taken", || node.metric("oklog_disk_refusing") == 0.0);
            }
            waits
        });
        let age = node.metric("oklog_unstored_age_seconds");
        assert!(age > 0.0, "what only memory holds has an age");
        let start = std::time::Instant::now();
        let (status, log) = node.stop_and_tell();
        assert!(status.success(), "nothing is lost that its sender takes for safe:\n{log}");
        let spent = start.elapsed();
        assert!(spent < Duration::from_secs(15), "half of --shutdown-timeout: {spent:?}");
    });
    disk.give_back("other");
    let node = Node::start(disk.path(), &flags);
    check(&node, &acks);
    assert_sound(&node);
}

#[test]
fn each_of_two_file_systems_keeps_its_reserve() {
    let test = "each_of_two_file_systems_keeps_its_reserve";
    for flag in ["--store.path", "--ingest.path"] {
        let directory = tempfile::tempdir().unwrap();
        let disk = match LoopDisk::new(96 << 20) {
            Ok(disk) => disk,
            Err(why) => return skipped(test, &why),
        };
        let path = disk.path().join("data");
        let own = [flag, path.to_str().unwrap(), "--disk.free-min", "16MiB"];
        let node = Node::start(directory.path(), &[RESTLESS, &own].concat());
        assert_eq!(http::post(node.api, "/records", b"one\n").status, 200);
        disk.take("ballast", disk.free_bytes() - (8 << 20)).unwrap();
        wait_until("records are refused", || node.get("/ready").status == 503);
        assert!(node.get("/ready").text().contains(flag), "{}", node.get("/ready").text());
        let refused = http::post(node.api, "/records", b"no\n");
        assert_eq!((refused.status, &refused.json()["kept"]), (503, &0.into()));
        disk.give_back("ballast");
        wait_until("records are taken again", || node.get("/ready").status == 200);
        assert_eq!(http::post(node.api, "/records", b"two\n").status, 200);
        assert_eq!(node.all_lines(), [b"one", b"two"]);
        assert_sound(&node);
    }
}
