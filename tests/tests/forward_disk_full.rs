//! A forwarder's spool on a full disk, through the real binary on a small file system.

use std::net::TcpListener;
use std::path::Path;

use tests::forwarder::Forwarder;
use tests::lines::Random;
use tests::loop_disk::LoopDisk;
use tests::node::Node;
use tests::{http, skipped, wait_until};

/// What nobody can compress, and the test can make again.
fn line(number: u64) -> String {
    let mut random = Random::new(number << 8 | 1);
    let noise = (0..2000).map(|_| char::from(b'!' + random.below(94) as u8));
    format!("{number} {}\n", noise.collect::<String>())
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn start(directory: &Path, disk: &LoopDisk, address: &str) -> Forwarder {
    let path = disk.path().join("spool");
    let path = path.to_str().unwrap();
    let flags = ["--mode", "durable", "--on-full", "spool", "--spool.path", path];
    let more = ["--backoff-max", "100ms", "--api", "127.0.0.1:0", address];
    Forwarder::start(directory, &[&flags[..], &more].concat())
}

/// Writes lines until there are so many, or until the forwarder is gone.
fn write_lines(forwarder: &mut Forwarder, count: u64) -> std::thread::JoinHandle<()> {
    use std::io::Write;
    let mut input = forwarder.take_input();
    std::thread::spawn(move || {
        for number in 0..count {
            if input.write_all(line(number).as_bytes()).is_err() {
                return;
            }
        }
    })
}

fn assert_in_order(node: &Node, count: u64) {
    let lines = node.all_lines();
    assert_eq!(lines.len() as u64, count, "lost, or twice");
    for (number, found) in (0..).zip(&lines) {
        assert!(found == line(number).trim_end().as_bytes(), "line {number} in its place");
    }
}

fn wait_until_full(forwarder: &Forwarder) {
    forwarder.wait_for_log("the spool cannot be written");
    wait_until("it has tried again", || {
        forwarder.metric("oklog_forward_spool_errors_total") >= 3.0
    });
    assert_eq!(forwarder.metric("oklog_forward_input_blocked"), 1.0);
    assert_eq!(forwarder.count("the spool cannot be written"), 1, "{}", forwarder.log());
}

#[test]
fn on_a_full_disk_standard_input_waits_and_nothing_is_lost() {
    let test = "on_a_full_disk_standard_input_waits_and_nothing_is_lost";
    let disk = match LoopDisk::new(32 << 20) {
        Ok(disk) => disk,
        Err(why) => return skipped(test, &why),
    };
    let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
    let mut forwarder = start(directory.path(), &disk, &address);
    let count = (40 << 20) / 2000;
    let writer = write_lines(&mut forwarder, count);
    wait_until_full(&forwarder);
    let health = http::get(forwarder.api(), "/health").text();
    assert!(health.contains("degraded") && health.contains("the spool's disk"), "{health}");
    assert!(!writer.is_finished(), "what does not fit is not taken");

    let node = Node::start(directory.path(), &["--ingest.durable", &address]);
    writer.join().unwrap();
    let (status, log) = forwarder.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_in_order(&node, count);
    let told = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    let (full, again) = (told("the spool cannot be written"), told("the spool takes lines again"));
    // Space comes back file by file.
    assert!(full == again && full <= 6, "once per change of state: {log}");
    assert!(!log.contains("panicked") && !log.contains("damaged"), "{log}");
    assert_eq!(told("cannot note"), told("notes again"), "{log}");
}

#[test]
fn a_forwarder_killed_on_a_full_disk_starts_there_and_sends_what_it_took() {
    let test = "a_forwarder_killed_on_a_full_disk_starts_there_and_sends_what_it_took";
    let disk = match LoopDisk::new(32 << 20) {
        Ok(disk) => disk,
        Err(why) => return skipped(test, &why),
    };
    let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
    let mut forwarder = start(directory.path(), &disk, &address);
    let writer = write_lines(&mut forwarder, u64::MAX);
    wait_until_full(&forwarder);
    let spooled = forwarder.metric("oklog_forward_spool_records") as u64;
    forwarder.kill();
    writer.join().unwrap();
    disk.fill("other");

    let node = Node::start(directory.path(), &["--ingest.durable", &address]);
    let (status, log) = start(directory.path(), &disk, &address).finish();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_in_order(&node, spooled);
    assert!(!log.contains("panicked") && !log.contains("damaged"), "{log}");
}

#[test]
fn a_disk_that_is_full_with_one_file_of_the_spool_is_emptied_and_goes_on() {
    let test = "a_disk_that_is_full_with_one_file_of_the_spool_is_emptied_and_goes_on";
    let disk = match LoopDisk::new(32 << 20) {
        Ok(disk) => disk,
        Err(why) => return skipped(test, &why),
    };
    // Less than one file holds.
    disk.take("ballast", disk.free_bytes() - (3 << 20)).unwrap();
    let (directory, address) = (tempfile::tempdir().unwrap(), free_address());
    let mut forwarder = start(directory.path(), &disk, &address);
    let count = (10 << 20) / 2000;
    let writer = write_lines(&mut forwarder, count);
    wait_until_full(&forwarder);
    let node = Node::start(directory.path(), &["--ingest.durable", &address]);
    writer.join().unwrap();
    let (status, log) = forwarder.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_in_order(&node, count);
    let told = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!(told("cannot note"), told("notes again"), "{log}");
}
