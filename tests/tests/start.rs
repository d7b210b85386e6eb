//! What is wrong at the start is told in one clear line, with exit code 1 or 2.

use std::process::{Command, Stdio};

use tests::node::Node;
use tests::tools::{self, text};

/// Runs a node that must end by itself; its exit code and what it said.
fn refused(directory: &std::path::Path, flags: &[&str]) -> (i32, String) {
    let output = Command::new(tools::binary("oklogd"))
        .args(["ingeststore", "--store.segment-replication-factor", "1"])
        .args(["--api", ":0", "--ingest.fast", ":0", "--ingest.durable", ":0"])
        .args(flags)
        .current_dir(directory)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output.status.code().unwrap_or(-1), text(&output.stderr))
}

/// The one line at error level (or the usage error).
fn is_one_clear_line(said: &str, needles: &[&str]) {
    let errors: Vec<&str> =
        said.lines().filter(|l| l.contains("ERROR") || l.starts_with("error")).collect();
    assert_eq!(errors.len(), 1, "{said}");
    for needle in needles {
        assert!(errors[0].contains(needle), "{needle:?} is not in {:?}", errors[0]);
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_second_process_is_told_the_pid_of_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let (code, said) = refused(directory.path(), &[]);
    assert_eq!(code, 1);
    is_one_clear_line(&said, &["in use", &format!("pid {}", node.pid())]);
    assert_eq!(node.get("/health").status, 200);
}

#[test]
fn a_taken_port_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--api", "--ingest.fast", "--ingest.durable"] {
        let (code, said) = refused(directory.path(), &[flag, &address]);
        assert_eq!(code, 1);
        is_one_clear_line(&said, &[&address, flag]);
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a-file");
    std::fs::write(&file, "x").unwrap();
    let below = file.join("below");
    for flag in ["--ingest.path", "--store.path"] {
        let (code, said) = refused(directory.path(), &[flag, below.to_str().unwrap()]);
        assert_eq!(code, 1);
        is_one_clear_line(&said, &["a-file/below", flag]);
    }
}

#[test]
fn bad_flags_are_usage_errors_that_name_the_flag() {
    let directory = tempfile::tempdir().unwrap();
    for (flags, needle) in [
        (&["--no-such-flag"][..], "no-such-flag"),
        (&["--ingest.max-record-size", "huge"], "ingest.max-record-size"),
        (&["--ingest.flush-interval", "20"], "ingest.flush-interval"),
        (&["--ingest.topic", "not a topic"], "ingest.topic"),
        (&["--store.segment-replication-factor", "0"], "store.segment-replication-factor"),
        (&["--cores", "-1"], "cores"),
        (&["--api", "host:port:port"], "api"),
        (&["surplus"], "surplus"),
    ] {
        let (code, said) = refused(directory.path(), flags);
        assert_eq!(code, 2, "{flags:?}: {said}");
        assert!(said.contains(needle) && !said.contains("panicked"), "{flags:?}: {said}");
    }
    for line in [&[][..], &["frobnicate"], &["query", "--order", "sideways"]] {
        assert_eq!(tools::oklogd(line).status.code(), Some(2), "{line:?}");
    }
}

#[test]
fn little_locked_memory_is_enough() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -l 0; exec \"$0\" \"$@\""])
        .arg(tools::binary("oklogd"))
        .args(["ingeststore", "--store.segment-replication-factor", "1"])
        .args(["--api", "127.0.0.1:0", "--ingest.fast", "127.0.0.1:0"])
        .args(["--ingest.durable", "127.0.0.1:0"])
        .current_dir(directory.path());
    let node = Node::from_command(command).unwrap();
    tests::sender::send(node.durable, b"fits\n");
    assert_eq!(node.all_lines(), [b"fits".to_vec()]);
}

#[test]
fn too_few_descriptors_are_told_with_the_limit_to_raise() {
    let directory = tempfile::tempdir().unwrap();
    for descriptors in ["10", "20", "400"] {
        let output = Command::new("sh")
            .args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"")])
            .arg(tools::binary("oklogd"))
            .args(["ingeststore", "--store.segment-replication-factor", "1"])
            .args(["--api", ":0", "--ingest.fast", ":0", "--ingest.durable", ":0"])
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        is_one_clear_line(&text(&output.stderr), &["open files", descriptors, "ulimit -n"]);
    }
}

#[test]
fn without_io_uring_a_node_says_what_to_change_and_runs_all_the_same() {
    for refuse in [tests::seccomp::without_io_uring, tests::seccomp::without_io_uring_enter] {
        let directory = tempfile::tempdir().unwrap();
        let start = |io: &str| {
            let mut command = Command::new(tools::binary("oklogd"));
            command
                .args(["ingeststore", "--store.segment-replication-factor", "1", "--io", io])
                .args(["--api", "127.0.0.1:0", "--ingest.fast", "127.0.0.1:0"])
                .args(["--ingest.durable", "127.0.0.1:0"])
                .current_dir(directory.path())
                .env_clear();
            refuse(&mut command);
            command
        };
        let output = start("uring").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        is_one_clear_line(&said, &["io_uring", "kernel.io_uring_disabled", "seccomp"]);
        assert!(!said.contains("listening"), "{said}");

        for (io, is_told) in [("auto", true), ("posix", false)] {
            let node = Node::from_command(start(io)).unwrap();
            let log = node.log();
            assert_eq!(log.contains("kernel.io_uring_disabled"), is_told, "{log}");
            assert!(log.lines().any(|line| line.contains("io=posix")), "{log}");
            tests::sender::send(node.durable, format!("taken by {io}\n").as_bytes());
            assert_eq!(node.all_lines().last().unwrap(), format!("taken by {io}").as_bytes());
            assert!(node.stop().success());
        }
    }
}

#[test]
fn without_replicas_a_node_says_so_and_answers_from_what_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--store.segment-replication-factor", "2"];
    let mut command = Command::new(tools::binary("oklogd"));
    command.args(["ingeststore", "--api", "127.0.0.1:0", "--ingest.fast", "127.0.0.1:0"]);
    command.args(["--ingest.durable", "127.0.0.1:0"]).args(flags).current_dir(directory.path());
    let node = Node::from_command(command).unwrap();
    tests::sender::send(node.durable, b"kept\n");
    assert_eq!(node.all_lines(), [b"kept".to_vec()]);
    tests::wait_until("it says so", || node.log().contains("replica"));
    assert!(node.get("/ready").text().contains("replica"));
    assert_eq!(node.get("/query?from=1h").headers["x-oklog-complete"], "true");
}

#[test]
fn a_node_says_who_it_is_keeps_that_and_does_not_start_as_somebody_else() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut known = None;
    for boot in 1..=2 {
        let node = Node::start(directory.path(), &[]);
        let state = node.get("/_segmentstate").json();
        assert_eq!(
            (&state["ingest"]["boot"], &state["store"]["boot"]),
            (&boot.into(), &boot.into())
        );
        let ids = ["ingest", "store"].map(|side| state[side]["id"].as_str().unwrap().to_owned());
        assert!(ids[0] != ids[1] && ids.iter().all(|id| id.len() == 32), "{ids:?}");
        assert!(ids.iter().all(|id| node.log().contains(id)), "{}", node.log());
        assert_eq!(known.get_or_insert_with(|| ids.clone()), &ids);
        let fsck = tools::oklogd(&["fsck", data.to_str().unwrap()]);
        let words = text(&fsck.stdout);
        assert!(words.contains(&format!("ingester {}, boot {boot}", ids[0])), "{words}");
        assert!(words.contains(&format!("store {}, boot {boot}", ids[1])), "{words}");
        assert!(node.stop().success());
    }
    for side in ["ingest", "store"] {
        let path = data.join(side).join("IDENTITY");
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, b"a stranger's").unwrap();
        let (code, said) = refused(directory.path(), &[]);
        assert_eq!(code, 1);
        is_one_clear_line(&said, &["IDENTITY is damaged", "move", "away"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"a stranger's");
        std::fs::write(&path, good).unwrap();
    }
    let node = Node::start(directory.path(), &[]);
    assert_eq!(node.get("/_segmentstate").json()["ingest"]["boot"], 3);
    assert!(node.stop().success());
}
