//! A forwarder's spool that is damaged or cannot be read, through the real binary: what `forward` and
//! `fsck` say of it is the same, and what cannot be read is not lost.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tests::faulty_disk::{Call, Effect, Errno, FaultyDisk, Rule};
use tests::forwarder::Forwarder;
use tests::node::Node;
use tests::{skipped, tools, wait_until};

const LINES: u64 = 6000;

fn line(number: u64) -> String {
    format!("line {number:06} {}\n", "x".repeat(80))
}

/// Fills a spool of several files and leaves it; nobody listens at the reserved port 1.
fn fill(directory: &Path, spool: &Path) {
    let path = spool.to_str().unwrap();
    let flags = ["--on-full", "spool", "--spool.path", path, "--spool.max-size", "1MiB"];
    let flags = [&flags[..], &["--api", "127.0.0.1:0", "127.0.0.1:1"]].concat();
    let mut forwarder = Forwarder::start(directory, &flags);
    forwarder.write((0..LINES).map(line).collect::<String>().as_bytes());
    wait_until("it is in the spool", || {
        forwarder.metric("oklog_forward_spool_records") == LINES as f64
    });
    forwarder.kill();
}

/// A spool on a disk that may fail, and a node to send it to.
struct Filled {
    disk: FaultyDisk,
    directory: tempfile::TempDir,
    spool: PathBuf,
    node: Node,
}

/// `None`, and it is said, where this cannot be had.
fn filled(test: &str) -> Option<Filled> {
    let disk = FaultyDisk::new().map_err(|why| skipped(test, &why)).ok()?;
    let directory = tempfile::tempdir().unwrap();
    let spool = disk.path().join("spool");
    fill(directory.path(), &spool);
    let node = Node::start(directory.path(), &[]);
    Some(Filled { disk, directory, spool, node })
}

fn files(spool: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(spool).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == extension));
    files.sort();
    files
}

/// How to send what a spool holds, and what comes.
fn flags<'a>(spool: &'a Path, address: &'a str) -> Vec<&'a str> {
    let path = spool.to_str().unwrap();
    let flags = ["--mode", "durable", "--on-full", "spool", "--spool.path", path];
    [&flags[..], &["--spool.max-size", "1MiB", "--api", "127.0.0.1:0", address]].concat()
}

fn fsck(path: &Path) -> (Option<i32>, String) {
    let output = tools::oklogd(&["fsck", path.to_str().unwrap()]);
    (output.status.code(), tools::text(&output.stdout) + &tools::text(&output.stderr))
}

fn cut(path: &Path, len: u64) {
    std::fs::File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

#[test]
fn forward_and_fsck_say_the_same_of_files_that_were_cut_emptied_or_removed() {
    for harm in ["cut", "emptied", "removed", "last cut", "last emptied"] {
        let directory = tempfile::tempdir().unwrap();
        let spool = directory.path().join("spool");
        fill(directory.path(), &spool);
        let found = files(&spool, "spool");
        let is_last = harm.starts_with("last");
        let path = &found[if is_last { found.len() - 1 } else { 1 }];
        match harm {
            "removed" => std::fs::remove_file(path).unwrap(),
            _ if harm.ends_with("emptied") => cut(path, 0),
            _ => cut(path, path.metadata().unwrap().len() / 2 + 1),
        }
        let (code, checked) = fsck(&spool);
        assert_eq!(code, Some(4), "{harm}: {checked}");

        let node = Node::start(directory.path(), &[]);
        let address = node.durable.to_string();
        let flags = flags(&spool, &address);
        let (status, log) = Forwarder::start(directory.path(), &flags).finish();
        assert_eq!(status.code(), Some(0), "{log}");
        let lost = LINES - node.all_lines().len() as u64;
        assert!(lost > 100, "{harm}");
        let words = if is_last {
            "; records may be lost".to_owned()
        } else {
            format!("; {lost} records are lost")
        };
        assert!(checked.contains(&words), "{harm}: {words}: {checked}");
        assert!(log.contains(&words), "{harm}: {words}: {log}");
        assert!(!log.contains("no record is lost"), "{harm}: {log}");
        assert_eq!(log.matches("the spool is damaged").count(), 1, "{harm}: {log}");
        // What was set aside goes on saying so.
        if harm.ends_with("cut") {
            let (code, checked) = fsck(&spool);
            assert!(code == Some(4) && checked.contains("may be lost"), "{harm}: {checked}");
        }
    }
}

#[test]
fn of_a_spool_that_was_sent_fsck_knows_what_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let spool = directory.path().join("any-name");
    fill(directory.path(), &spool);
    let node = Node::start(directory.path(), &[]);
    let address = node.durable.to_string();
    let (status, log) = Forwarder::start(directory.path(), &flags(&spool, &address)).finish();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(files(&spool, "spool").is_empty());
    let (code, said) = fsck(&spool);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("0 lines wait") && !said.contains("no file of ours"), "{said}");
    let output = tools::oklogd(&["fsck", "--json", spool.to_str().unwrap()]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let kinds = report["files"].as_array().unwrap().iter().map(|file| file["kind"].as_str());
    assert!(kinds.clone().any(|kind| kind == Some("mark of a spool")), "{report}");
    assert!(!kinds.clone().any(|kind| kind == Some("unknown")), "{report}");
}

#[test]
fn what_a_disk_does_not_give_is_passed_over_and_sent_when_it_does() {
    let test = "what_a_disk_does_not_give_is_passed_over_and_sent_when_it_does";
    let Some(Filled { disk, directory, spool, node }) = filled(test) else { return };
    let address = node.durable.to_string();
    let eio = Effect::Fail(Errno::IO);
    disk.add(Rule::new(&[Call::Read], "*0000000002*", eio));
    let (code, said) = fsck(&spool);
    assert!(code != Some(0) && said.contains("cannot be read"), "{said}");
    let flags = flags(&spool, &address);
    let mut forwarder = Forwarder::start(directory.path(), &flags);
    // The files behind it are not kept waiting, and it is there as it was.
    forwarder.wait_for_log("is read again");
    wait_until("the others are handed over", || files(&spool, "unread").len() == 1);
    wait_until("the others are handed over", || files(&spool, "spool").len() <= 1);
    assert!((100..LINES as usize - 100).contains(&node.all_lines().len()));
    disk.heal();
    wait_until("all is handed over", || node.all_lines().len() as u64 == LINES);
    forwarder.write(b"more\n");
    let (status, log) = forwarder.finish();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("damaged") && !log.contains("are lost"), "{log}");
    let mut lines = node.all_lines();
    assert_eq!(lines.pop().unwrap(), b"more");
    lines.sort();
    let expected = (0..LINES).map(|n| line(n).trim_end().as_bytes().to_vec());
    assert!(lines == expected.collect::<Vec<_>>(), "each once");
    assert!(files(&spool, "unread").is_empty() && files(&spool, "damaged").is_empty());
}

#[test]
fn a_moment_of_refusals_at_the_start_costs_nothing() {
    let test = "a_moment_of_refusals_at_the_start_costs_nothing";
    let Some(Filled { disk, directory, spool, node }) = filled(test) else { return };
    let address = node.durable.to_string();
    let flags = flags(&spool, &address);
    let shortage =
        disk.add(Rule::new(&[Call::Open, Call::Read], "*.spool", Effect::Fail(Errno::MFILE)));
    let forwarder = Forwarder::start(directory.path(), &flags);
    forwarder.wait_for_log("connected");
    disk.remove(shortage);
    wait_until("all is handed over", || node.all_lines().len() as u64 == LINES);
    forwarder.signal(Signal::INT);
    let (status, log) = forwarder.finish();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("damaged") && !log.contains("are lost"), "{log}");
    assert!(files(&spool, "unread").is_empty() && files(&spool, "damaged").is_empty());
}

#[test]
fn a_spool_that_is_taken_away_is_no_safe_place_and_the_last_word_says_so() {
    type Harm = fn(&Path, &Path);
    let all_files: Harm = |spool, _| {
        files(spool, "spool").into_iter().for_each(|path| std::fs::remove_file(path).unwrap());
    };
    let harms: [Harm; 3] = [
        |spool, _| std::fs::remove_dir_all(spool).unwrap(),
        |spool, elsewhere| std::fs::rename(spool, elsewhere).unwrap(),
        all_files,
    ];
    for harm in harms {
        let directory = tempfile::tempdir().unwrap();
        let spool = directory.path().join("spool");
        let mut forwarder = Forwarder::start(directory.path(), &flags(&spool, "127.0.0.1:1"));
        forwarder.write(b"one\ntwo\nthree\n");
        wait_until("they are in the spool", || {
            forwarder.metric("oklog_forward_spool_records") == 3.0
        });
        harm(&spool, &directory.path().join("elsewhere"));
        forwarder.signal(Signal::TERM);
        forwarder.end();
        let (status, log) = forwarder.wait();
        // Where it was not synced yet there is time to write it again.
        let is_kept = spool.is_dir() && !files(&spool, "spool").is_empty();
        assert_eq!(status.code(), Some(i32::from(!is_kept)), "{log}");
        assert_eq!(log.contains("is in the spool: it is sent"), is_kept, "{log}");
        if !is_kept {
            assert!(log.contains("these records are lost"), "{log}");
        }
    }
}

#[test]
fn a_spool_that_is_taken_away_from_an_idle_forwarder_is_told_until_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, elsewhere) = (directory.path().join("spool"), directory.path().join("elsewhere"));
    // Of an earlier life: no file of it is open.
    fill(directory.path(), &spool);
    let mut forwarder = Forwarder::start(directory.path(), &flags(&spool, "127.0.0.1:1"));
    wait_until("it has found them", || {
        forwarder.metric("oklog_forward_spool_records") == LINES as f64
    });
    std::fs::rename(&spool, &elsewhere).unwrap();
    forwarder.wait_for_log("the spool was taken away");
    let degraded = tests::http::get(forwarder.api(), "/health").text();
    assert!(degraded.contains("the spool was taken away"), "{degraded}");
    std::fs::rename(&elsewhere, &spool).unwrap();
    forwarder.wait_for_log("the spool is where it was");
    assert!(!tests::http::get(forwarder.api(), "/health").text().contains("taken away"));
    let log = forwarder.log();
    assert_eq!(log.matches("was taken away").count(), 1, "{log}");
    forwarder.signal(Signal::TERM);
    forwarder.end();
    let (status, log) = forwarder.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn what_is_taken_away_while_it_is_open_is_written_again_though_nothing_comes() {
    let directory = tempfile::tempdir().unwrap();
    let spool = directory.path().join("spool");
    let mut forwarder = Forwarder::start(directory.path(), &flags(&spool, "127.0.0.1:1"));
    forwarder.write(b"one\ntwo\nthree\n");
    wait_until("they are in the spool", || forwarder.metric("oklog_forward_spool_records") == 3.0);
    let before = files(&spool, "spool");
    for path in &before {
        std::fs::remove_file(path).unwrap();
    }
    wait_until("they are written again", || {
        files(&spool, "spool").iter().any(|path| !before.contains(path))
    });
    forwarder.signal(Signal::TERM);
    forwarder.end();
    let (status, log) = forwarder.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let node = Node::start(directory.path(), &[]);
    let address = node.durable.to_string();
    let (status, log) = Forwarder::start(directory.path(), &flags(&spool, &address)).finish();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(node.all_lines().len(), 3);
}
