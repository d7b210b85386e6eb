//! The node as a service: what it tells its supervisor, and the unit file.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::node::Node;
use tests::tools;

fn start(directory: &Path, notify: &str, watchdog: bool) -> Node {
    let mut command = Command::new(tools::binary("oklogd"));
    command.args(["ingeststore", "--store.segment-replication-factor", "1"]);
    command.args(["--api", "127.0.0.1:0", "--ingest.fast", "127.0.0.1:0"]);
    command.args(["--ingest.durable", "127.0.0.1:0"]);
    command.current_dir(directory).env_clear().env("NOTIFY_SOCKET", notify);
    if watchdog {
        command.env("WATCHDOG_USEC", "400000");
    }
    Node::from_command(command).unwrap()
}

fn hear(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let len = socket.recv(&mut bytes).expect("the node tells something in time");
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

#[test]
fn the_supervisor_hears_of_ready_turning_and_stopping() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let by_path = UnixDatagram::bind(&path).unwrap();
    let name = format!("oklogd-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
    let abstract_one = UnixDatagram::bind_addr(&address).unwrap();
    for (socket, notify) in
        [(by_path, path.to_str().unwrap().to_owned()), (abstract_one, format!("@{name}"))]
    {
        socket.set_read_timeout(Some(tests::DEADLINE)).unwrap();
        let node = start(directory.path(), &notify, true);
        assert!(hear(&socket).starts_with("READY=1\n"));
        for _ in 0..3 {
            assert_eq!(hear(&socket), "WATCHDOG=1");
        }
        assert!(node.stop().success());
        let mut said = hear(&socket);
        while said == "WATCHDOG=1" {
            said = hear(&socket);
        }
        assert!(said.starts_with("STOPPING=1\n"), "{said}");
    }
}

#[test]
fn a_supervisor_that_is_gone_is_no_reason_to_fail() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), "/nowhere/notify", true);
    tests::sender::send(node.durable, b"kept\n");
    assert_eq!(node.all_lines(), [b"kept".to_vec()]);
    assert!(node.stop().success());
}

#[test]
fn the_unit_verifies() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/oklogd.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    for line in ["Type=notify", "ProtectSystem=strict", "LimitNOFILE=", "LimitMEMLOCK=", "User="] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line}");
    }
    // The command line of the unit is one that the binary takes.
    let start = text.lines().find_map(|l| l.strip_prefix("ExecStart=")).unwrap();
    let flags: Vec<&str> = start.split_whitespace().skip(1).chain(["--help"]).collect();
    assert!(tools::oklogd(&flags).status.success());
    let Some(analyze) = find("systemd-analyze") else {
        return tests::skipped("the_unit_verifies", "there is no systemd-analyze here");
    };
    let directory = tempfile::tempdir().unwrap();
    let here = tools::binary("oklogd").display().to_string();
    let copy = directory.path().join("oklogd.service");
    std::fs::write(&copy, text.replace("/usr/local/bin/oklogd", &here)).unwrap();
    // The manual page is not installed here; see below.
    let output = Command::new(analyze).args(["verify", "--man=no"]).arg(&copy).output().unwrap();
    let said = tools::text(&output.stderr);
    assert!(output.status.success() && !said.contains("oklogd.service"), "{said}");
}

#[test]
fn the_install_lines_put_completions_and_the_manual_where_they_are_looked_for() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let text = std::fs::read_to_string(deploy.join("README.md")).unwrap();
    let root = tempfile::tempdir().unwrap();
    let at_root = |path: &str| format!("{}{path}", root.path().display());
    let under = |directory: &str| format!(" {}{directory}", root.path().display());
    let binary = format!("{} ", tools::binary("oklogd").display());
    let lines = text.lines().filter(|line| line.starts_with("oklogd ")).map(|line| {
        let line = line.replace(" /usr/", &under("/usr/")).replace(" /etc/", &under("/etc/"));
        line.replacen("oklogd ", &binary, 1)
    });
    for line in lines {
        let status = Command::new("sh").args(["-ec", &line]).status().unwrap();
        assert!(status.success(), "{line}");
    }
    let completions = std::fs::read_to_string(at_root("/etc/bash_completion.d/oklogd")).unwrap();
    assert!(completions.contains("ingeststore"));
    // What the unit points to is what is installed: section 1, in a directory that man(1) searches.
    let page = std::fs::read_to_string(at_root("/usr/local/share/man/man1/oklogd.1")).unwrap();
    assert!(page.contains(".TH oklogd 1"), "{}", &page[..200]);
    let unit = std::fs::read_to_string(deploy.join("oklogd.service")).unwrap();
    assert!(unit.lines().any(|line| line == "Documentation=man:oklogd(1)"));
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(tool)).find(|tool| tool.is_file())
}
