//! Copied segments are verified and adopted; copying a running node's segments is a backup.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tests::node::Node;
use tests::{sender, tools};

fn restore(store: &Path, paths: &[&Path]) -> (Option<i32>, String) {
    let store = store.to_str().unwrap();
    let mut line = vec!["restore", "--store.path", store];
    line.extend(paths.iter().map(|path| path.to_str().unwrap()));
    let output = tools::oklogd(&line);
    (output.status.code(), tools::text(&output.stdout) + &tools::text(&output.stderr))
}

fn numbered(what: &str, count: usize) -> String {
    (0..count).map(|i| format!("{what} line {i}\n")).collect()
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "flushed")).collect();
    found.sort();
    found
}

/// What a store directory holds, through a node of its own.
fn found_in(directory: &Path) -> HashSet<Vec<u8>> {
    let node = Node::start(directory, &[]);
    let lines = node.all_lines();
    let unique: HashSet<Vec<u8>> = lines.iter().cloned().collect();
    assert_eq!(unique.len(), lines.len(), "each record once");
    unique
}

#[test]
fn a_dead_nodes_data_comes_back_whole_and_once() {
    let dead = tempfile::tempdir().unwrap();
    let node = Node::start(dead.path(), &[]);
    sender::send(node.durable, numbered("stored", 5_000).as_bytes());
    node.settle();
    sender::send(node.durable, numbered("ingested", 3_000).as_bytes());
    sender::send(node.fast, numbered("young", 20).as_bytes());
    tests::wait_until("all are there", || node.all_lines().len() == 8_020);
    node.kill();
    let data = dead.path().join("data");
    let before = listing(&data);

    let new = tempfile::tempdir().unwrap();
    let store = new.path().join("data/store");
    let (code, said) = restore(&store, &[&data]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(listing(&data), before, "what is given is only read");
    let (code, said) = restore(&store, &[&data]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("already") && said.contains(": 0 files adopted"), "{said}");
    let found = found_in(new.path());
    for line in numbered("stored", 5_000).lines().chain(numbered("ingested", 3_000).lines()) {
        assert!(found.contains(line.as_bytes()), "{line}");
    }
    assert!(!store.join(".oklogd-restore").exists());
}

fn listing(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut all = Vec::new();
    for side in ["ingest", "store"] {
        for entry in std::fs::read_dir(directory.join(side)).unwrap() {
            let entry = entry.unwrap();
            all.push((entry.path(), entry.metadata().unwrap().len()));
        }
    }
    all.sort();
    all
}

#[test]
fn a_damaged_segment_is_refused_with_its_place_and_the_others_are_adopted() {
    let source = tempfile::tempdir().unwrap();
    let node = Node::start(source.path(), &["--store.segment-target-age", "100ms"]);
    for round in 0..2 {
        sender::send(node.durable, numbered(&format!("round {round}"), 2_000).as_bytes());
        node.settle();
        tests::wait_until("it is a segment", || {
            segments(&source.path().join("data/store")).len() > round
        });
    }
    assert!(node.stop().success());
    let copied = source.path().join("data/store");
    let all = segments(&copied);
    let victim = &all[0];
    let mut bytes = std::fs::read(victim).unwrap();
    bytes[300] ^= 8;
    std::fs::write(victim, bytes).unwrap();
    std::fs::write(copied.join("notes.txt"), "mine").unwrap();

    let new = tempfile::tempdir().unwrap();
    let store = new.path().join("data/store");
    let (code, said) = restore(&store, &[&copied]);
    assert_eq!(code, Some(4), "{said}");
    let name = victim.file_name().unwrap().to_str().unwrap();
    assert!(
        said.contains(&format!("{name}: offset")) && said.contains("nothing of it was adopted"),
        "{said}"
    );
    assert!(said.contains("notes.txt: no file of ours"), "{said}");
    assert_eq!(segments(&store).len(), all.len() - 1);
    let (code, said) = restore(&store, &[&copied.join("notes.txt")]);
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = restore(&store, &[&copied.join("absent.flushed")]);
    assert_eq!(code, Some(1), "{said}");
}

/// One store segment of `count` records, in a store directory that no node has any more.
fn one_segment(directory: &Path, count: usize) -> PathBuf {
    let node = Node::start(directory, &["--store.segment-target-age", "100ms"]);
    sender::send(node.durable, numbered("kept", count).as_bytes());
    node.settle();
    let store = directory.join("data/store");
    tests::wait_until("it is a segment", || segments(&store).len() == 1);
    assert!(node.stop().success());
    segments(&store).remove(0)
}

#[test]
fn a_segment_in_the_trash_comes_back_and_it_is_told_when_it_will_go_again() {
    let source = tempfile::tempdir().unwrap();
    let segment = one_segment(source.path(), 2_000);
    let trashed = segment.with_extension("").to_str().unwrap().to_owned() + "-7.trashed";
    let trashed = PathBuf::from(trashed);
    std::fs::rename(&segment, &trashed).unwrap();
    tests::wait_until("it is older than a second", || {
        let written = trashed.metadata().unwrap().modified().unwrap();
        written.elapsed().is_ok_and(|age| age.as_millis() > 1_100)
    });

    let new = tempfile::tempdir().unwrap();
    let store = new.path().join("data/store");
    let line = ["restore", "--store.segment-retain", "1s", "--store.path", store.to_str().unwrap()];
    let output = tools::oklogd(&[&line[..], &[trashed.to_str().unwrap()]].concat());
    let said = tools::text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("adopted out of the trash, 2000 records; a copy"), "{said}");
    assert!(trashed.exists());
    assert!(said.contains("start it with --store.segment-retain 1d or more"), "{said}");
    assert_eq!(segments(&store)[0].file_name(), segment.file_name(), "it is published");
    assert_eq!(found_in(new.path()).len(), 2_000);
    let (code, said) = restore(&store, &[&source.path().join("data")]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("already") && !said.contains("retain"), "{said}");
}

#[test]
fn salvaging_adopts_what_is_readable_once_and_says_what_is_not() {
    let source = tempfile::tempdir().unwrap();
    let segment = one_segment(source.path(), 150_000);
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[300] ^= 8;
    std::fs::write(&segment, &bytes).unwrap();
    let new = tempfile::tempdir().unwrap();
    let store = new.path().join("data/store");
    let (code, said) = restore(&store, &[&segment]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("nothing of it was adopted; with --salvage"), "{said}");
    assert!(!store.exists(), "nothing is made for nothing");
    let salvage = || {
        let (store, segment) = (store.to_str().unwrap(), segment.to_str().unwrap());
        let output =
            tools::oklogd(&["restore", "--salvage", "--json", "--store.path", store, segment]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), report)
    };
    let (code, report) = salvage();
    assert_eq!((code, &report["salvaged"]), (Some(4), &1.into()), "{report}");
    let file = &report["files"][0];
    let lost = file["damage"][0]["records"].as_u64().unwrap();
    let salvaged = report["records"].as_u64().unwrap();
    assert!(salvaged > 0 && lost > 0 && salvaged + lost == 150_000, "{report}");
    let (_, again) = salvage();
    assert_eq!((&again["records"], &again["salvaged"]), (&0.into(), &0.into()), "{again}");
    assert_eq!(found_in(new.path()).len() as u64, salvaged);
}

#[test]
fn wrong_paths_and_directories_without_segments_are_errors_that_make_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("data/store");
    let empty = directory.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    for (path, words) in
        [(directory.path().join("absent"), "No such file"), (empty, "there is no segment in it")]
    {
        let (code, said) = restore(&store, &[&path]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(words) && said.contains(path.to_str().unwrap()), "{said}");
        assert!(!store.exists(), "{said}");
    }
}

#[test]
fn a_running_node_keeps_its_directory_to_itself() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let (code, said) =
        restore(&directory.path().join("data/store"), &[&directory.path().join("data")]);
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("pid {}", node.pid())), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// The procedure of docs/operate.md: the ingest side four times, then the store side until a pass
/// brings nothing new, and no inventory. Files may go while they are copied.
fn back_up(data: &Path, to: &Path) {
    let copy = |side: &str| {
        let status = Command::new("cp")
            .args(["-r", "--sparse=always"])
            .arg(data.join(side))
            .arg(to)
            .output()
            .unwrap();
        status.status.success()
    };
    for _ in 0..4 {
        copy("ingest");
    }
    let mut known = Vec::new();
    tests::wait_until("a pass brings nothing new", || {
        let whole = copy("store");
        let now = segments(&to.join("store"));
        let same = now == known;
        known = now;
        whole && same
    });
    let _ = std::fs::remove_file(to.join("store/INVENTORY"));
}

#[test]
fn a_copy_of_a_loaded_nodes_files_has_everything_that_was_acknowledged_before() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--ingest.segment-flush-age", "200ms", "--store.segment-target-age", "100ms"];
    let node = Node::start(directory.path(), &flags);
    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let (stop, durable) = (Arc::clone(&stop), node.durable);
        std::thread::spawn(move || {
            let mut round = 0;
            while !stop.load(Ordering::Acquire) {
                sender::send(durable, numbered(&format!("load {round}"), 5_000).as_bytes());
                round += 1;
            }
        })
    };
    for round in 0..3 {
        let mut expected: HashSet<Vec<u8>> = HashSet::new();
        for batch in 0..4 {
            let text = numbered(&format!("round {round} batch {batch}"), 500);
            sender::send(node.durable, text.as_bytes());
            expected.extend(text.lines().map(|line| line.as_bytes().to_vec()));
        }
        let backup = tempfile::tempdir().unwrap();
        back_up(&directory.path().join("data"), backup.path());
        let new = tempfile::tempdir().unwrap();
        let (code, said) = restore(&new.path().join("data/store"), &[backup.path()]);
        // A file that was used anew while it was copied is refused: the store has its records.
        assert!(matches!(code, Some(0 | 4)), "{code:?}: {said}");
        let found = found_in(new.path());
        let lost = expected.iter().filter(|line| !found.contains(*line)).count();
        assert_eq!(lost, 0, "round {round}: of {} records; {said}", expected.len());
    }
    stop.store(true, Ordering::Release);
    load.join().unwrap();
}
