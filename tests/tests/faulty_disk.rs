//! The faulty disk itself: what a rule does not name behaves as beneath, what it names meets what it
//! says; and a node runs on one.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;
use std::time::{Duration, Instant};

use tests::faulty_disk::{Call, Effect, Errno, FaultyDisk, Rule};
use tests::node::Node;
use tests::{http, skipped, wait_until};

/// One, or a loud word.
fn faulty_disk(test: &str) -> Option<FaultyDisk> {
    FaultyDisk::new().map_err(|why| skipped(test, &why)).ok()
}

const EIO: Effect = Effect::Fail(Errno::IO);

#[test]
fn files_on_it_behave_as_files_do() {
    let Some(disk) = faulty_disk("files_on_it_behave_as_files_do") else { return };
    let (at, beneath) = (disk.path(), disk.beneath());
    std::fs::create_dir_all(at.join("a/b")).unwrap();
    let mut file = std::fs::File::create_new(at.join("a/b/one")).unwrap();
    file.write_all(b"some bytes").unwrap();
    file.sync_all().unwrap();
    std::fs::rename(at.join("a/b/one"), at.join("a/two")).unwrap();
    file.write_all(b" and more").unwrap();
    assert_eq!(std::fs::read(beneath.join("a/two")).unwrap(), b"some bytes and more");
    std::fs::remove_file(at.join("a/two")).unwrap();
    file.write_all(b" of a file without a name").unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    let names: Vec<_> = std::fs::read_dir(at.join("a")).unwrap().map(|e| e.unwrap()).collect();
    assert_eq!(names.len(), 1);
    assert!(names[0].file_type().unwrap().is_dir());
    std::fs::remove_dir(at.join("a/b")).unwrap();
    assert_eq!(std::fs::read_dir(beneath.join("a")).unwrap().count(), 0);
}

#[test]
fn a_rule_meets_what_it_names_and_nothing_else() {
    let Some(disk) = faulty_disk("a_rule_meets_what_it_names_and_nothing_else") else { return };
    let open = |at| std::fs::File::options().create_new(true).write(true).read(true).open(at);
    let (one, two) =
        (open(disk.path().join("1.x")).unwrap(), open(disk.path().join("2.y")).unwrap());
    let rule = disk.add(Rule::new(&[Call::Write, Call::Sync], "*.x", EIO).after(1).times(2));
    one.write_all_at(b"ab", 0).unwrap();
    assert_eq!(one.write_all_at(b"c", 0).unwrap_err().raw_os_error(), Some(5));
    two.write_all_at(b"c", 0).unwrap();
    assert_eq!(one.sync_all().unwrap_err().raw_os_error(), Some(5));
    one.sync_all().unwrap();
    assert!(disk.is_over(rule) && disk.met(rule) == 2);
    disk.add(Rule::new(&[Call::Read], "1.x", Effect::Short(1)));
    let mut buffer = [0; 2];
    assert_eq!((&one).read(&mut buffer).unwrap(), 1);
    disk.heal();
    disk.set_read_only(true);
    let refused = std::fs::rename(disk.path().join("1.x"), disk.path().join("3.x")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(two.write_all_at(b"d", 0).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(std::fs::read(disk.path().join("2.y")).unwrap(), b"c");
}

#[test]
fn one_hanging_call_keeps_no_other_waiting_and_ends_when_released() {
    let test = "one_hanging_call_keeps_no_other_waiting_and_ends_when_released";
    let Some(disk) = faulty_disk(test) else { return };
    for directory in ["a", "b", "c", "d", "e", "f"] {
        std::fs::create_dir(disk.path().join(directory)).unwrap();
    }
    // In processes of their own: one that waits for a file system which it serves cannot be ended.
    let touch = |name: &str| Command::new("touch").arg(disk.path().join(name)).spawn().unwrap();
    let rule = disk.add(Rule::new(&[Call::Create], "*/slow", Effect::Hang));
    let mut slow = ["a/slow", "b/slow", "c/slow", "d/slow", "e/slow"].map(touch);
    wait_until("all of them hang", || disk.hanging() == slow.len());
    assert!(touch("f/other").wait().unwrap().success());
    assert!(slow.iter_mut().all(|process| process.try_wait().unwrap().is_none()));
    disk.remove(rule);
    assert!(slow.iter_mut().all(|process| process.wait().unwrap().success()));
    assert_eq!(disk.hanging(), 0);
    disk.add(Rule::new(&[Call::Sync], "*", Effect::Hang).lasting(Duration::from_millis(200)));
    let start = Instant::now();
    assert!(Command::new("sync").arg(disk.path().join("a/slow")).status().unwrap().success());
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[test]
fn a_node_runs_on_it_and_the_record_of_its_life_names_its_files() {
    let test = "a_node_runs_on_it_and_the_record_of_its_life_names_its_files";
    let Some(disk) = faulty_disk(test) else { return };
    disk.record();
    let node = Node::start(disk.path(), &["--ingest.segment-flush-age", "100ms"]);
    for number in 0..20 {
        let posted =
            http::post(node.api, "/records?mode=durable", format!("{number}\n").as_bytes());
        assert_eq!(posted.status, 200, "{}", posted.text());
    }
    node.settle();
    assert_eq!(node.all_lines().len(), 20);
    assert!(node.stop().success());
    let life = disk.recorded();
    let has = |call, pattern| {
        life.iter().any(|(c, path)| *c == call && tests::faulty_disk::fits(pattern, path))
    };
    assert!(has(Call::Write, "data/ingest/*.active") && has(Call::Sync, "data/ingest/*.active"));
    assert!(has(Call::Rename, "*.active -> *.flushed") && has(Call::SyncDir, "data/store"));
    assert!(has(Call::Space, "*") && has(Call::List, "data/ingest"));
}
