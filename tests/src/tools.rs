//! The programs under test and the tools they are compared with.

use std::path::PathBuf;
use std::process::{Command, Output};

/// A binary of this workspace, built beside the test or tool that runs.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    // A test is in target/<profile>/deps, a tool in target/<profile>.
    let near = own.ancestors().skip(1).take(2).map(|directory| directory.join(name));
    near.into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is missing: build the workspace's binaries first"))
}

/// Runs `oklogd` to its end.
pub fn oklogd(arguments: &[&str]) -> Output {
    Command::new(binary("oklogd"))
        .args(arguments)
        .env_clear()
        .output()
        .expect("oklogd can be started")
}

/// The version of ripgrep that answers are compared with.
const RIPGREP_VERSION: &str = include_str!("../ripgrep-version").trim_ascii();

/// Why a test that compares with it is skipped.
pub const NO_RIPGREP: &str =
    "target/tools/bin/rg is not the version of tests/ripgrep-version: tests/run installs it";

/// `rg` as the test command installed it: of the pinned version, whatever is on the path.
pub fn ripgrep() -> Option<PathBuf> {
    let rg = tool("rg")?;
    let said = Command::new(&rg).arg("--version").output().ok()?;
    let said = text(&said.stdout);
    (said.split_whitespace().nth(1) == Some(RIPGREP_VERSION)).then_some(rg)
}

/// `promtool` as the test command installed it.
pub fn promtool() -> Option<PathBuf> {
    tool("promtool")
}

/// The packages of npm's that tests use, each with its version.
const NPM_VERSIONS: &str = include_str!("../npm-versions");

/// A file of one of npm's packages, as the test command installed it.
pub fn npm(package: &str, file: &str) -> Option<PathBuf> {
    let versions = NPM_VERSIONS.lines().filter_map(|line| line.split_once(' '));
    let (_, version) = versions.into_iter().find(|(name, _)| *name == package)?;
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = workspace.join(format!("target/tools/npm/{package}-{version}")).join(file);
    path.exists().then_some(path)
}

/// What the test command installed under this name.
fn tool(name: &str) -> Option<PathBuf> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = workspace.join("target/tools/bin").join(name);
    path.exists().then_some(path)
}

/// Whether this test runs as root, as it must to mount file systems.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What a program printed, as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
