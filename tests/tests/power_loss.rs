//! Power loss: what a loop file system's image holds while the node is stopped is all that a
//! sudden loss of power would leave. Everything acknowledged before must be in it.
//!
//! A test that only kills the process proves nothing about syncing, because the page cache stays.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tests::loop_disk::LoopDisk;
use tests::node::Node;
use tests::sender::Acknowledged;
use tests::skipped;

const IMAGE_BYTES: u64 = 320 << 20;
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

/// Sends until told to stop; returns the number of the last line that was acknowledged.
fn send(node: &Node, sender: usize, acknowledged: &Mutex<HashMap<usize, u64>>, stop: &AtomicBool) {
    let mut connection = Acknowledged::connect(node.durable).unwrap();
    let (mut number, padding) = (0u64, "p".repeat(200));
    while !stop.load(Ordering::Acquire) {
        let mut text = String::new();
        for _ in 0..50 {
            text.push_str(&format!("sender {sender} line {number} {padding}\n"));
            number += 1;
        }
        if connection.send(text.as_bytes()).is_err() || connection.wait_for(number).is_err() {
            return;
        }
        acknowledged.lock().unwrap().insert(sender, number);
    }
}

fn check(copy: &Path, acknowledged: &HashMap<usize, u64>, round: usize) {
    let node = Node::start(copy, RESTLESS);
    let mut found: HashMap<usize, Vec<u64>> = HashMap::new();
    for (_, record) in node.query("") {
        let text = String::from_utf8(record).expect("no byte was altered");
        let words: Vec<&str> = text.split(' ').collect();
        assert!(words.len() == 5 && words[4].len() == 200, "round {round}: invented {text:?}");
        found.entry(words[1].parse().unwrap()).or_default().push(words[3].parse().unwrap());
    }
    for (sender, &count) in acknowledged {
        let numbers = found.remove(sender).unwrap_or_default();
        let whole = numbers.iter().copied().eq(0..numbers.len() as u64);
        assert!(
            whole && numbers.len() as u64 >= count,
            "round {round}, sender {sender}: {count} acknowledged, {} found",
            numbers.len()
        );
    }
    assert!(node.stop().success());
}

#[test]
fn power_loss_costs_nothing_that_was_acknowledged() {
    let test = "power_loss_costs_nothing_that_was_acknowledged";
    let disk = match LoopDisk::new(IMAGE_BYTES) {
        Ok(disk) => disk,
        Err(e) => return skipped(test, &e),
    };
    for round in 0..20 {
        let acknowledged = Mutex::new(HashMap::new());
        let stop = AtomicBool::new(false);
        let _ = std::fs::remove_dir_all(disk.path().join("data"));
        let node = Node::start(disk.path(), RESTLESS);
        // Different moments of gathering and compacting: later ones have moved more.
        let goal = 500 + 1_500 * round as u64;
        let (before, image) = std::thread::scope(|scope| {
            for sender in 0..3 {
                let (node, acknowledged, stop) = (&node, &acknowledged, &stop);
                scope.spawn(move || send(node, sender, acknowledged, stop));
            }
            tests::wait_until("enough is acknowledged", || {
                acknowledged.lock().unwrap().values().sum::<u64>() >= goal
            });
            node.signal(rustix::process::Signal::STOP);
            // Read after the stop: what is acknowledged by now was on the disk by then.
            let before = acknowledged.lock().unwrap().clone();
            let image = disk.copy_image().unwrap();
            stop.store(true, Ordering::Release);
            node.signal(rustix::process::Signal::CONT);
            (before, image)
        });
        node.kill();
        let copied = image.mount().unwrap();
        check(copied.path(), &before, round);
    }
}
