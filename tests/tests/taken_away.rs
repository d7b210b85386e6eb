//! Directories and files that somebody takes away under a running node: nothing is acknowledged that
//! is nowhere, everybody is told, and what is put back goes on.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tests::node::Node;
use tests::{http, sender, tools, wait_until};

fn lines(count: usize) -> String {
    (0..count).map(|i| format!("a line of text, number {i}\n")).collect()
}

fn files(directory: &Path, part: &str) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_string_lossy().contains(part)).collect()
}

/// `/ready` and `POST /records` say in these words that a directory was taken away.
fn wait_until_refused(node: &Node, words: &[&str]) {
    wait_until("/ready tells", || {
        let ready = node.get("/ready");
        let text = ready.text();
        ready.status == 503 && words.iter().all(|word| text.contains(word))
    });
    let posted = http::post(node.api, "/records?mode=durable", b"not taken\n");
    let text = posted.text();
    assert_eq!(posted.status, 503, "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

#[test]
fn a_node_whose_data_was_deleted_acknowledges_nothing_more_and_ends_with_a_true_word() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::start(directory.path(), &["--store.segment-replication-factor", "2"]);
    let mut early = sender::Acknowledged::connect(node.durable).unwrap();
    let mut late = sender::Acknowledged::connect(node.durable).unwrap();
    early.send(lines(700).as_bytes()).unwrap();
    early.wait_for(700).unwrap();
    let data = directory.path().join("data");
    wait_until("it is deleted", || {
        // The node may be making a file in it.
        let _ = std::fs::remove_dir_all(&data);
        !data.exists()
    });
    wait_until_refused(&node, &["data/ingest", "was taken away"]);
    late.send(lines(900).as_bytes()).unwrap();
    assert!(!node.get("/query?from=24h&stats").json()["complete"].as_bool().unwrap());
    node.signal(Signal::TERM);
    wait_until("it ends", || node.ended().is_some());
    assert_eq!(node.ended().unwrap().code(), Some(1), "{}", node.log());
    // Nothing of what came later, and the end of the connection in its place.
    assert_eq!(late.wait_for(1).map_err(|_| late.acknowledged), Err(0));
    let log = node.log();
    let last = log.lines().last().unwrap();
    let count = last.split_once(" records cannot be found").map_or("", |(before, _)| before);
    let count: u64 = count.rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{log}"));
    // With what was taken of the others, and promised to nobody.
    assert!((700..=1600).contains(&count), "{log}");
    assert_eq!(log.matches("nothing is acknowledged meanwhile").count(), 1, "{log}");
    assert!(!log.contains("what waits is on disk"), "{log}");
}

#[test]
fn another_directory_in_the_place_of_a_node_s_is_left_alone_until_its_own_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let (home, away) = (directory.path().join("data/ingest"), directory.path().join("away"));
    let node = Node::start(directory.path(), &[]);
    let mut late = sender::Acknowledged::connect(node.durable).unwrap();
    sender::send(node.durable, lines(500).as_bytes());
    std::fs::rename(&home, &away).unwrap();
    std::fs::create_dir(&home).unwrap();
    wait_until_refused(&node, &["data/ingest", "another one has its name"]);
    late.send(lines(900).as_bytes()).unwrap();
    assert_eq!(files(&home, ""), Vec::<PathBuf>::new());
    std::fs::remove_dir(&home).unwrap();
    std::fs::rename(&away, &home).unwrap();
    wait_until("it is ready", || node.get("/ready").status == 200);
    late.wait_for(900).unwrap();
    drop(late);
    assert_eq!(node.all_lines().len(), 1400);
    let told = node.log().matches("nothing is acknowledged meanwhile").count();
    assert_eq!(told, 1, "{}", node.log());
    node.kill();
    let node = Node::start(directory.path(), &[]);
    assert_eq!(node.all_lines().len(), 1400);
    assert!(node.stop().success());
}

#[test]
fn a_store_directory_that_is_elsewhere_is_told_and_records_wait_until_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let (home, away) = (directory.path().join("data/store"), directory.path().join("away"));
    let node = Node::start(directory.path(), &[]);
    sender::send(node.durable, lines(500).as_bytes());
    node.settle();
    std::fs::rename(&home, &away).unwrap();
    std::fs::create_dir(&home).unwrap();
    wait_until("/ready tells", || {
        let ready = node.get("/ready");
        ready.status == 503 && ready.text().contains("data/store (--store.path) was taken away")
    });
    sender::send(node.durable, lines(500).as_bytes());
    let ingest = directory.path().join("data/ingest");
    wait_until("they wait", || !files(&ingest, ".flushed").is_empty());
    assert_eq!(files(&home, ""), Vec::<PathBuf>::new());
    std::fs::remove_dir(&home).unwrap();
    std::fs::rename(&away, &home).unwrap();
    wait_until("it is ready", || node.get("/ready").status == 200);
    node.settle();
    assert_eq!(node.all_lines().len(), 1000);
    assert!(node.stop().success());
}

#[test]
fn what_is_deleted_while_it_is_written_is_written_anew() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--store.segment-replication-factor", "2", "--ingest.segment-flush-age", "1h"];
    let node = Node::start(directory.path(), &flags);
    let ingest = directory.path().join("data/ingest");
    let mut sent = 0;
    for round in 1..=3 {
        let mut sender = sender::Acknowledged::connect(node.durable).unwrap();
        sender.send(lines(500).as_bytes()).unwrap();
        sender.wait_for(500).unwrap();
        sent += 500;
        for file in files(&ingest, ".active").iter().chain(&files(&ingest, ".tail")) {
            std::fs::remove_file(file).unwrap();
        }
        wait_until("it is written anew", || files(&ingest, ".flushed").len() == round);
        wait_until("it is ready", || node.get("/ready").status == 200);
        assert_eq!(node.all_lines().len(), sent);
    }
    assert!(node.log().contains("was deleted while it was written"), "{}", node.log());
    sender::send(node.durable, lines(500).as_bytes());
    node.kill();
    let node = Node::start(directory.path(), &flags);
    assert_eq!(node.all_lines().len(), 2000);
    assert!(node.stop().success());
    let data = directory.path().join("data");
    let fsck = tools::oklogd(&["fsck", data.to_str().unwrap()]);
    assert_eq!(fsck.status.code(), Some(0), "{}", tools::text(&fsck.stdout));
}

#[test]
fn what_is_replaced_while_it_is_written_is_written_anew_and_the_other_file_stays() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--store.segment-replication-factor", "2", "--ingest.segment-flush-age", "1h"];
    let mut node = Node::start(directory.path(), &flags);
    let (ingest, other) = (directory.path().join("data/ingest"), directory.path().join("other"));
    let mut sender = sender::Acknowledged::connect(node.durable).unwrap();
    sender.send(lines(500).as_bytes()).unwrap();
    sender.wait_for(500).unwrap();
    // Those that wait for their first use among them.
    let replaced = files(&ingest, ".active");
    for file in &replaced {
        std::fs::write(&other, "another's").unwrap();
        std::fs::rename(&other, file).unwrap();
    }
    wait_until("it is written anew", || files(&ingest, ".flushed").len() == 1);
    wait_until("it is ready", || node.get("/ready").status == 200);
    assert_eq!(node.all_lines().len(), 500);
    sender::send(node.durable, lines(700).as_bytes());
    node.signal(Signal::TERM);
    wait_until("it ends", || node.ended().is_some());
    assert_eq!(node.ended().unwrap().code(), Some(0), "{}", node.log());
    let node = Node::start(directory.path(), &flags);
    assert_eq!(node.all_lines().len(), 1200);
    for file in replaced {
        assert_eq!(std::fs::read_to_string(file).unwrap(), "another's");
    }
    assert!(node.stop().success());
}

#[test]
fn a_directory_whose_lock_file_was_deleted_has_no_second_owner() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    sender::send(node.durable, lines(500).as_bytes());
    let locks = ["ingest", "store"].map(|side| directory.path().join("data").join(side));
    for side in &locks {
        std::fs::remove_file(side.join("LOCK")).unwrap();
    }
    let said = Node::try_start(directory.path(), &[]).err().expect("it is in use");
    assert!(said.contains("is in use by"), "{said}");
    assert_eq!(node.all_lines().len(), 500);
    let fsck = tools::oklogd(&["fsck", locks[0].to_str().unwrap()]);
    let told = tools::text(&fsck.stderr);
    assert!(told.contains(&format!("{}", node.pid())), "{told}");
    assert!(node.stop().success());
}

#[test]
fn segments_that_are_taken_away_are_told_until_they_are_back() {
    for (side, part, flags) in [
        ("data/store", ".flushed", &[][..]),
        // They wait.
        ("data/ingest", ".flushed", &["--store.segment-replication-factor", "2"]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Node::start(directory.path(), flags);
        let (home, away) = (directory.path().join(side), directory.path().join("away"));
        std::fs::create_dir(&away).unwrap();
        sender::send(node.durable, lines(500).as_bytes());
        if flags.is_empty() {
            node.settle();
        }
        wait_until("there are some", || !files(&home, part).is_empty());
        let moved = files(&home, part);
        let move_all = |from: &Path, to: &Path| {
            for file in &moved {
                let name = file.file_name().unwrap();
                std::fs::rename(from.join(name), to.join(name)).unwrap();
            }
        };
        move_all(&home, &away);
        wait_until("/ready tells", || {
            let ready = node.get("/ready");
            let text = ready.text();
            ready.status == 503 && text.contains("taken away, and 500 records with it")
        });
        assert_eq!(node.get("/health").status, 200);
        let stats = node.get("/query?from=24h&stats").json();
        assert_eq!((&stats["complete"], &stats["records"]), (&false.into(), &0.into()));
        // What comes is taken all the same.
        sender::send(node.durable, lines(50).as_bytes());
        assert_eq!(node.all_lines().len(), 50);
        move_all(&away, &home);
        wait_until("it is ready", || node.get("/ready").status == 200);
        wait_until("all is there", || {
            let stats = node.get("/query?from=24h&stats").json();
            stats["complete"] == true && stats["records"] == 550
        });
        assert_eq!(node.log().matches("was taken away").count(), 1, "{}", node.log());

        move_all(&home, &away);
        node.signal(Signal::TERM);
        wait_until("it ends", || node.ended().is_some());
        assert_eq!(node.ended().unwrap().code(), Some(1), "{}", node.log());
        // What it wrote last is read last.
        wait_until("its last word", || node.log().contains("500 records cannot be found"));
        let log = node.log();
        assert!(!log.contains("all is in the store") && !log.contains("what waits is on disk"));
    }
}
