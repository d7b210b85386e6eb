//! Damage on disk costs the records in it, is told, and nothing is invented.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use tests::forwarder::Forwarder;
use tests::lines::Random;
use tests::node::Node;
use tests::{sender, tools};

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for side in ["ingest", "store"] {
        for entry in std::fs::read_dir(directory.join("data").join(side)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name != "LOCK" && path.metadata().unwrap().len() > 0 {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// About 200 blocks of store segments and a few frames that only a kill left behind.
fn prepare(directory: &Path) -> HashSet<Vec<u8>> {
    let node = Node::start(directory, &[]);
    let mut random = Random::new(7);
    let mut all = HashSet::new();
    for round in 0..3 {
        let mut text = String::new();
        for i in 0..20_000 {
            let line = format!("round {round} line {i} {:016x}", random.next_u64());
            text.push_str(&line);
            text.push('\n');
            all.insert(line.into_bytes());
        }
        sender::send(node.durable, text.as_bytes());
        if round < 2 {
            node.settle();
        }
    }
    node.kill();
    all
}

#[test]
fn thirty_random_flips_and_cuts_cost_only_what_they_hit() {
    let original = tempfile::tempdir().unwrap();
    let sent = prepare(original.path());
    let mut random = Random::new(2026);
    let (mut told, mut lost_runs) = (0, 0);
    for case in 0..30 {
        let copy = tempfile::tempdir().unwrap();
        let status = std::process::Command::new("cp")
            .args(["-a", "--sparse=always"])
            .arg(original.path().join("data"))
            .arg(copy.path())
            .status()
            .unwrap();
        assert!(status.success());
        let candidates = files(copy.path());
        let victim = &candidates[random.below(candidates.len() as u64) as usize];
        let len = victim.metadata().unwrap().len();
        let at = random.below(len);
        if case % 5 == 4 {
            std::fs::OpenOptions::new().write(true).open(victim).unwrap().set_len(at).unwrap();
        } else {
            let mut bytes = std::fs::read(victim).unwrap();
            bytes[at as usize] ^= 1 << random.below(8);
            std::fs::write(victim, bytes).unwrap();
        }
        let data = copy.path().join("data");
        let fsck = tools::oklogd(&["fsck", data.to_str().unwrap()]);
        let node = Node::start(copy.path(), &[]);
        let answer = node.get("/query?from=24h");
        let found = tests::lines::records(&answer.body);
        for (_, record) in &found {
            assert!(sent.contains(record), "invented: {}", String::from_utf8_lossy(record));
        }
        let unique: HashSet<&Vec<u8>> = found.iter().map(|(_, r)| r).collect();
        assert_eq!(unique.len(), found.len(), "case {case}: a record twice");
        let lost = sent.len() - found.len();
        let name = victim.file_name().unwrap().to_string_lossy().into_owned();
        if lost > 0 {
            lost_runs += 1;
            assert_eq!(fsck.status.code(), Some(4), "case {case}: fsck on {name} at {at}");
            assert!(
                tools::text(&fsck.stdout).contains(&name),
                "case {case}: fsck names the file: {}",
                tools::text(&fsck.stdout)
            );
            let log_tells = node.log().contains(&name)
                || !answer.complete
                || answer.headers["x-oklog-complete"] == "false"
                || node.get("/query?from=24h&stats").json()["complete"] == false;
            assert!(log_tells, "case {case}: {lost} records lost in silence from {name} at {at}");
            told += 1;
        }
        if case % 5 != 4 {
            assert!(lost <= 20_000, "case {case}: one flip at {at} of {name} cost {lost} records");
        }
        drop(node);
    }
    assert!(told == lost_runs && lost_runs > 0, "some damage hit records");
}

#[test]
fn a_file_that_is_damaged_under_a_running_node_is_told_by_its_answers() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let text: String = (0..50_000).map(|i| format!("a line of text, number {i}\n")).collect();
    sender::send(node.durable, text.as_bytes());
    node.settle();
    assert_eq!(node.query("q=number").len(), 50_000);
    let segment = files(directory.path())
        .into_iter()
        .find(|p| p.to_string_lossy().contains("store"))
        .unwrap();
    let len = segment.metadata().unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(len / 2).unwrap();
    let answer = node.get("/query?from=24h&q=number&stats");
    assert_eq!(answer.json()["complete"], false, "{}", answer.text());
    assert_eq!(node.get("/health").status, 200, "the process survives");
    let broken = node.get("/query?from=24h&q=number");
    let whole: HashSet<&str> = text.lines().collect();
    for (_, record) in tests::lines::records(&broken.body) {
        assert!(whole.contains(std::str::from_utf8(&record).unwrap()));
    }
}

#[test]
fn files_that_are_not_ours_are_left_alone_and_told_once() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    sender::send(node.durable, b"one\ntwo\n");
    assert!(node.stop().success());
    let mut strangers = Vec::new();
    for side in ["ingest", "store"] {
        let side = directory.path().join("data").join(side);
        for (name, content) in [
            ("notes.txt", "keep me"),
            ("empty.flushed", ""),
            ("01ARZ3NDEKTSV4RRFFQ69G5FAV.flushed", "not a segment"),
            ("01ARZ3NDEKTSV4RRFFQ69G5FAV.active", ""),
            ("weird.active", "zzz"),
            ("x.pending", "\0\0\0"),
        ] {
            let path = side.join(name);
            std::fs::write(&path, content).unwrap();
            strangers.push((path, content));
        }
        std::fs::create_dir(side.join("directory.flushed")).unwrap();
        std::fs::create_dir(side.join("lost+found")).unwrap();
    }
    for _ in 0..2 {
        let node = Node::start(directory.path(), &[]);
        assert_eq!(node.all_lines(), [b"one".to_vec(), b"two".to_vec()]);
        let told = node.log().lines().filter(|l| l.contains("notes.txt")).count();
        assert_eq!(told, 2, "once for each side:\n{}", node.log());
        assert!(node.stop().success());
    }
    for (path, content) in strangers {
        let now = std::fs::read_to_string(&path);
        assert_eq!(now.ok().as_deref(), Some(content), "{} was touched", path.display());
    }
}

/// Everything in a directory, byte for byte.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = entries.map(|p| (p.clone(), std::fs::read(p).unwrap())).collect();
    all.sort();
    all
}

fn fsck(arguments: &[&str]) -> (Option<i32>, String) {
    let output = tools::oklogd(&[&["fsck"], arguments].concat());
    (output.status.code(), tools::text(&output.stdout) + &tools::text(&output.stderr))
}

#[test]
fn fsck_reads_a_forwarders_spool_names_its_damage_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    // Nobody listens at the reserved port 1.
    let flags = ["--on-full", "spool", "--api", "127.0.0.1:0", "127.0.0.1:1"];
    let mut forwarder = Forwarder::start(directory.path(), &flags);
    for number in 0..3 {
        forwarder.write(format!("line {number}\nand another\n").as_bytes());
        tests::wait_until("it is in the spool", || {
            forwarder.metric("oklog_forward_spool_records") == f64::from(2 * (number + 1))
        });
    }
    forwarder.kill();
    let (data, spool) = (directory.path().join("data"), directory.path().join("data/spool"));
    for path in [&data, &spool] {
        let (code, said) = fsck(&[path.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("6 lines wait to be sent"), "{said}");
        assert!(!said.contains("no file of ours"), "{said}");
    }
    let file = contents(&spool).into_iter().find(|(p, _)| p.extension().is_some()).unwrap().0;
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(6).position(|window| window == b"line 1").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let before = contents(&spool);
    for path in [&data, &spool, &file] {
        let (code, said) = fsck(&[path.to_str().unwrap()]);
        assert_eq!(code, Some(4), "{said}");
        let place = format!("{}: offset {}", file.display(), at - 48);
        assert!(said.contains(&place) && said.contains("2 records are lost"), "{said}");
        let (code, said) = fsck(&["--json", path.to_str().unwrap()]);
        let report: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            (code, &report["clean"], &report["records"]),
            (Some(4), &false.into(), &4.into())
        );
        let files = report["files"].as_array().unwrap();
        let damaged = files.iter().find(|f| f["kind"] == "spool file").unwrap();
        assert_eq!(damaged["damage"][0]["offset"], at - 48);
        assert_eq!(report["spools"].as_array().unwrap().len(), usize::from(*path != file));
    }
    let (code, said) = fsck(&["--repair", spool.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("a forwarder needs none for its spool"), "{said}");
    assert_eq!(contents(&spool), before, "nothing is changed");
}
