//! The command line as operators of the predecessor know it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use tests::node::Node;
use tests::terminal::OnTerminal;
use tests::tools::{self, text};

fn run(node: &Node, line: &[&str]) -> (i32, String, String) {
    let api = node.api.to_string();
    let mut arguments = vec!["query", "-store", &api];
    arguments.extend(line);
    let output = tools::oklogd(&arguments);
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn query_lines_of_the_predecessors_readme_run_as_they_stand() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let login = r#"{"path":"/api/v1/login","status_code":500}"#;
    let lines = format!("Hello world\nmyservice: WARN x\nother: ERROR\n{login}\n");
    tests::sender::send(node.durable, lines.as_bytes());
    assert_eq!(run(&node, &["-from", "5m", "-q", "Hello"]), (0, "Hello world\n".into(), "".into()));
    let regex = ["-from", "2h", "-q", "myservice.*(WARN|ERROR)", "-regex"];
    assert_eq!(run(&node, &regex), (0, "myservice: WARN x\n".into(), "".into()));
    let past = ["-from", "2h", "-to", "1h", "-q", "myservice.*(WARN|ERROR)", "-regex"];
    assert_eq!(run(&node, &past), (0, "".into(), "".into()));
    let found = run(&node, &["-from", "1h", "-q", "/api/v1/login"]);
    assert_eq!(found, (0, format!("{login}\n"), "".into()));
}

#[test]
fn flags_of_query_do_what_they_say() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    tests::sender::send(node.durable, b"one\ntwo\nthree\nTWO\n");
    assert_eq!(run(&node, &["--limit", "1", "--order", "desc"]).1, "TWO\n");
    assert_eq!(run(&node, &["-q", "two", "-i"]).1, "two\nTWO\n");
    let with_ulid = run(&node, &["-q", "one", "--ulid"]).1;
    assert!(with_ulid.len() == 31 && with_ulid.ends_with(" one\n"), "{with_ulid}");
    let json = run(&node, &["-q", "one", "--json"]).1;
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&first["record"], &first["topic"]), (&"one".into(), &"default".into()));
    assert!(run(&node, &["--stats"]).1.contains('4'));
    assert_eq!(run(&node, &["-q", "absent"]).0, 0);
    assert_eq!(run(&node, &["-q", "absent", "--fail-empty"]).0, 5);
    assert_eq!(run(&node, &["-q", "(", "--regex"]).0, 2);
    assert_eq!(run(&node, &["-q", "-regex"]), (0, "".into(), "".into()));
    assert_eq!(run(&node, &["--nocopy"]).1, "");
    assert!(run(&node, &["--time", "-q", "one"]).1.contains("one"));
}

#[test]
fn a_closed_pipe_ends_a_query_silently() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    tests::sender::send(node.durable, "a line\n".repeat(200_000).as_bytes());
    let mut child = Command::new(tools::binary("oklogd"))
        .args(["query", "--store", &node.api.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((line.as_str(), text(&output.stderr).as_str()), ("a line\n", ""));
}

#[test]
fn a_store_that_is_not_there_is_one_clear_line() {
    let output = tools::oklogd(&["query", "--store", "127.0.0.1:1"]);
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("127.0.0.1:1"), "{said}");
}

#[test]
fn who_asks_says_what_a_node_refuses_and_names_it_once() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let api = node.api.to_string();
    let bad = ["-q", "(", "--regex", "--store", &api];
    for line in [[&["query"][..], &bad].concat(), [&["stream"][..], &bad].concat()] {
        let output = tools::oklogd(&line);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        // A caret under what is wrong.
        assert!(said.contains("400 Bad Request: q: ") && said.contains("\n    ^\n"), "{said}");
        assert_eq!(said.matches(&api).count(), 1, "{said}");
    }
    // Encoded, the one is more than a node takes, the other more than a request can hold.
    for letters in [10_000, 11_000] {
        let long = "é".repeat(letters);
        for command in ["query", "stream"] {
            let output = tools::oklogd(&[command, "-q", &long, "--store", &api]);
            let said = text(&output.stderr);
            assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
            assert!(said.contains(" bytes") && said.contains("at most"), "{said}");
        }
    }
    node.kill();
    for line in ["query", "stream", "drain"] {
        let output = tools::oklogd(&[line, "--store", &api]);
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert_eq!(said.matches(&api).count(), 1, "{said}");
    }
}

#[test]
fn testsvc_speaks_until_nobody_listens() {
    let mut child = Command::new(tools::binary("oklogd"))
        .args(["testsvc", "-id", "svc", "-size", "100", "-rate", "1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..10 {
        assert!(lines.next().unwrap().unwrap().contains("svc"));
    }
    drop(lines);
    let mut ended = false;
    tests::wait_until("testsvc ends", || {
        ended = child.try_wait().unwrap().is_some();
        ended
    });
}

#[test]
fn fsck_finds_nothing_wrong_with_a_healthy_directory() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    tests::sender::send(node.durable, b"one\ntwo\n");
    node.settle();
    let mut stream = std::net::TcpStream::connect(node.fast).unwrap();
    stream.write_all(b"still in an ingest segment\n").unwrap();
    tests::wait_until("it is there", || node.all_lines().len() == 3);
    node.kill();
    let data = directory.path().join("data");
    let output = tools::oklogd(&["fsck", data.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let json = tools::oklogd(&["fsck", data.to_str().unwrap(), "--json"]);
    serde_json::from_slice::<serde_json::Value>(&json.stdout).expect("fsck --json prints JSON");
    assert_eq!(tools::oklogd(&["fsck", "/no/such/place"]).status.code(), Some(1));
}

#[test]
fn completions_are_scripts_that_their_shells_read() {
    for shell in ["bash", "zsh", "fish", "elvish"] {
        let output = tools::oklogd(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(text(&output.stdout).contains("ingest.flush-interval"), "{shell}");
        let here = Command::new(shell).arg("--version").output().is_ok_and(|o| o.status.success());
        if shell == "elvish" || !here {
            tests::skipped("completions_are_scripts…", &format!("{shell} cannot be asked here"));
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("completions");
        std::fs::write(&script, &output.stdout).unwrap();
        let read = Command::new(shell).arg("-n").arg(&script).output().unwrap();
        assert!(read.status.success(), "{shell}: {}", text(&read.stderr));
    }
    assert_eq!(tools::oklogd(&["completions", "tcsh"]).status.code(), Some(2));
    let manual = tools::oklogd(&["man"]);
    assert!(text(&manual.stdout).contains(".SH COMMANDS"));
    assert_eq!(manual.status.code(), Some(0));
    let page = tools::oklogd(&["man", "query"]);
    assert!(text(&page.stdout).contains(".SH EXAMPLES"));
    let version = text(&tools::oklogd(&["version"]).stdout);
    let behind = version.strip_prefix(concat!("oklogd ", env!("CARGO_PKG_VERSION"))).unwrap();
    assert!(behind == "\n" || behind.starts_with(" (") && behind.ends_with(")\n"), "{version}");
    for line in ["-version", "--version", "-V"] {
        assert_eq!(text(&tools::oklogd(&[line]).stdout), version);
    }
}

#[test]
fn a_shell_completes_values_too() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("completions");
    std::fs::write(&script, tools::oklogd(&["completions", "bash"]).stdout).unwrap();
    for (line, expected) in [
        (&["query", "--order", ""][..], "asc desc"),
        (&["query", "--color", "a"], "auto always"),
        (&["stream", "--sinc"], "--since"),
        (&["man", "hist"], "histogram"),
        (&["help", "topi"], "topics"),
        (&["forward", "--mode", "d"], "durable"),
    ] {
        let words = [&["oklogd"], line].concat();
        let asks = format!(
            "source '{}'; COMP_WORDS=({}); COMP_CWORD={}; _oklogd oklogd '{}' '{}'; echo \"${{COMPREPLY[*]}}\"",
            script.display(),
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words.len() - 1,
            words[words.len() - 1],
            words[words.len() - 2],
        );
        let output = Command::new("bash").args(["--norc", "-c", &asks]).output().unwrap();
        assert_eq!(text(&output.stdout).trim(), expected, "{line:?}: {}", text(&output.stderr));
    }
}

/// All that a command prints on a terminal.
fn on_a_terminal(line: &[&str], no_color: bool) -> String {
    let variables = [("NO_COLOR", if no_color { "1" } else { "" })];
    OnTerminal::start(line, &variables).finish().1
}

#[test]
fn help_is_coloured_on_a_terminal_only_and_long_commands_show_progress_there() {
    assert!(!text(&tools::oklogd(&["query", "--help"]).stdout).contains('\x1b'));
    assert!(on_a_terminal(&["query", "--help"], false).contains("\x1b["));
    assert!(!on_a_terminal(&["query", "--help"], true).contains('\x1b'));
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a file"), "x").unwrap();
    let path = directory.path().to_str().unwrap();
    let said = on_a_terminal(&["fsck", path], true);
    assert!(said.contains("checked 1 files"), "{said:?}");
    assert!(!text(&tools::oklogd(&["fsck", path]).stderr).contains("checked"));
}

#[test]
fn an_output_that_does_not_block_gets_every_line() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    let lines: String = (0..50_000).map(|n| format!("line {n} of a long answer\n")).collect();
    tests::sender::send(node.durable, lines.as_bytes());
    let api = node.api.to_string();
    for arguments in [&["query", "--store", &api][..], &["query", "--store", &api, "--json"]] {
        let (mut reader, writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let mut command = Command::new(tools::binary("oklogd"));
        command.args(arguments).stdout(writer).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        drop(command);
        let mut printed = Vec::new();
        // In small pieces, so that the pipe is full now and then.
        std::io::copy(&mut BufReader::with_capacity(4096, &mut reader), &mut printed).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
        let printed = text(&printed);
        if arguments.contains(&"--json") {
            assert_eq!(printed.lines().count(), 50_001);
        } else {
            assert!(printed == lines, "{} of 50,000 lines", printed.lines().count());
        }
    }
}
