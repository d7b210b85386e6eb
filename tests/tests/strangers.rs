//! Something else under the name of a file that had records: told by the log, answers, a metric and
//! `fsck`, at each start anew, never followed and never removed.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tests::node::Node;
use tests::{sender, tools, wait_until};

fn lines(count: usize) -> String {
    (0..count).map(|i| format!("a line of text, number {i}\n")).collect()
}

fn file(directory: &Path, part: &str) -> PathBuf {
    let mut paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.find(|path| path.to_string_lossy().ends_with(part)).expect("there is one")
}

/// Where records are, and how a node is left that has them there.
#[derive(Clone, Copy, Debug)]
enum Place {
    Active,
    Flushed,
    Store,
}

/// A file with records, of a node that does not run.
fn with_records(directory: &Path, place: Place) -> PathBuf {
    let flags: &[&str] = match place {
        Place::Active => &["--ingest.segment-flush-age", "1h"],
        Place::Flushed => &["--store.segment-replication-factor", "2"],
        Place::Store => &[],
    };
    let node = Node::start(directory, flags);
    sender::send(node.durable, lines(500).as_bytes());
    let data = directory.join("data");
    if matches!(place, Place::Active) {
        let path = node.get("/query?from=24h&stats");
        assert_eq!(path.json()["records"], 500);
        node.kill();
        // Of the prepared ones it is the one that holds something.
        let files = std::fs::read_dir(data.join("ingest")).unwrap().map(|e| e.unwrap().path());
        let mut active = files.filter(|path| path.extension().is_some_and(|e| e == "active"));
        return active.find(|path| std::fs::read(path).unwrap().iter().any(|&b| b != 0)).unwrap();
    }
    if matches!(place, Place::Store) {
        node.settle();
    }
    assert!(node.stop().success());
    match place {
        Place::Store => file(&data.join("store"), ".flushed"),
        _ => file(&data.join("ingest"), ".flushed"),
    }
}

/// What comes in the place of the file, which goes elsewhere.
fn replace(path: &Path, elsewhere: &Path, what: &str) {
    std::fs::rename(path, elsewhere).unwrap();
    match what {
        "bytes" => std::fs::write(path, "what somebody keeps here\n".repeat(99)).unwrap(),
        "a directory" => std::fs::create_dir(path).unwrap(),
        "a link" => symlink(elsewhere, path).unwrap(),
        _ => mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap(),
    }
}

fn is_told(place: Place, what: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = with_records(directory.path(), place);
    let elsewhere = directory.path().join("elsewhere");
    replace(&path, &elsewhere, what);
    let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
    let name = path.file_name().unwrap().to_str().unwrap();
    let data = directory.path().join("data");
    for _ in 0..2 {
        let fsck = tools::oklogd(&["fsck", data.to_str().unwrap()]);
        let said = tools::text(&fsck.stdout);
        assert_eq!(fsck.status.code(), Some(4), "{place:?} {what}: {said}");
        assert!(said.contains(name), "{said}");
        let node = Node::start(directory.path(), &[]);
        let stats = node.get("/query?from=24h&stats").json();
        assert_eq!(stats["complete"], false, "{place:?} {what}: {stats}");
        assert_eq!(stats["records"], 0, "{place:?} {what}: {stats}");
        assert!(stats["missing"].to_string().contains(name), "{stats}");
        assert!(node.log().contains(name), "{}", node.log());
        assert!(node.metric("oklog_damage_total") >= 1.0, "{place:?} {what}");
        assert_eq!(node.get("/ready").status, 200, "{}", node.get("/ready").text());
        assert!(node.stop().success(), "{place:?} {what}");
    }
    assert_eq!(std::fs::symlink_metadata(&path).unwrap().file_type(), kind, "it is still there");
    if what == "bytes" {
        return;
    }
    // With its own file in its place everything is there.
    let remove = if kind.is_dir() { std::fs::remove_dir } else { std::fs::remove_file };
    remove(&path).unwrap();
    std::fs::rename(&elsewhere, &path).unwrap();
    let node = Node::start(directory.path(), &[]);
    wait_until("nothing is missing", || {
        let stats = node.get("/query?from=24h&stats").json();
        stats["complete"] == true && stats["records"] == 500
    });
    assert!(node.stop().success());
}

#[test]
fn what_is_no_file_of_ours_under_a_segment_s_name_is_told_and_left_alone() {
    std::thread::scope(|scope| {
        for place in [Place::Active, Place::Flushed, Place::Store] {
            for what in ["bytes", "a directory", "a link", "a fifo"] {
                scope.spawn(move || is_told(place, what));
            }
        }
    });
}
