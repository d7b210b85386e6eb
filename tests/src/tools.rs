//! The programs under test and the tools they are compared with.

use std::path::PathBuf;
use std::process::{Command, Output};

/// A binary of this workspace, built beside the test that runs.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let path = test
        .ancestors()
        .nth(2)
        .map(|directory| directory.join(name))
        .expect("tests run in target/<profile>/deps");
    assert!(path.exists(), "{} is missing: build the workspace's binaries first", path.display());
    path
}

/// Runs `oklogd` to its end.
pub fn oklogd(arguments: &[&str]) -> Output {
    Command::new(binary("oklogd"))
        .args(arguments)
        .env_clear()
        .output()
        .expect("oklogd can be started")
}

/// `rg`, where it is on the path or was installed by the test command.
pub fn ripgrep() -> Option<PathBuf> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let own = workspace.join("target/tools/bin/rg");
    if own.exists() {
        return Some(own);
    }
    let found = Command::new("rg").arg("--version").output();
    found.is_ok_and(|o| o.status.success()).then(|| PathBuf::from("rg"))
}

/// Whether this test runs as root, as it must to mount file systems.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What a program printed, as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
