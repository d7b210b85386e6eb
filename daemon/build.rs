//! Says which commit the binary is made of, for `oklogd version`.
//!
//! `BUILT_FROM` is ` (COMMIT, DATE)`, with a `+` behind the commit where the sources differ from it, or
//! empty where nothing is known. It comes from git, if this workspace is the top of a working copy, else
//! from `SOURCE`, which `git archive` fills in. The same sources give the same words: the date is the
//! commit's. It is asked for again when the commit or a source changes, in which case `oklogd` is compiled
//! anew anyway. A build never fails for want of it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What the binary is made of, as paths in the workspace.
const SOURCES: [&str; 12] = [
    "Cargo.lock",
    "Cargo.toml",
    "daemon/Cargo.toml",
    "daemon/src",
    "engine/Cargo.toml",
    "engine/src",
    "gossip/Cargo.toml",
    "gossip/src",
    "net/Cargo.toml",
    "net/build.rs",
    "net/src",
    "net/ui",
];

/// Hexadecimal digits of a commit that are shown.
const COMMIT_DIGITS: usize = 12;

fn main() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    println!("cargo::rerun-if-changed=build.rs");
    let from = of_git(&root).or_else(|| of_archive(&root));
    println!("cargo::rustc-env=BUILT_FROM={}", from.unwrap_or_default());
}

/// What git says, and what it depends on.
fn of_git(root: &Path) -> Option<String> {
    let top = PathBuf::from(git(root, &["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != root.canonicalize().ok()? {
        // Unpacked inside another project's working copy.
        return None;
    }
    for name in ["HEAD", "logs/HEAD", "packed-refs"] {
        watch(&root.join(git(root, &["rev-parse", "--git-path", name])?));
    }
    if let Some(branch) = git(root, &["symbolic-ref", "--quiet", "HEAD"]) {
        watch(&root.join(git(root, &["rev-parse", "--git-path", &branch])?));
    }
    for path in SOURCES {
        watch(&root.join(path));
    }
    let commit = git(root, &["log", "-1", "--format=%H %cs"])?;
    let status = ["status", "--porcelain", "--"];
    let changes = git(root, &[&status[..], &SOURCES].concat())?;
    said(&commit, if changes.is_empty() { "" } else { "+" })
}

/// What `git archive` wrote down.
fn of_archive(root: &Path) -> Option<String> {
    let path = root.join("daemon/SOURCE");
    watch(&path);
    said(std::fs::read_to_string(path).ok()?.trim(), "")
}

/// Of `HASH DATE`.
fn said(commit: &str, mark: &str) -> Option<String> {
    let (hash, date) = commit.split_once(' ')?;
    let is_hash = hash.len() >= COMMIT_DIGITS && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| format!(" ({}{mark}, {date})", &hash[..COMMIT_DIGITS]))
}

/// Only what is there: a path that is not would have this run at every build.
fn watch(path: &Path) {
    if path.exists() {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

/// What git answers about the repository of the workspace, whatever a hook that builds has set.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"] {
        command.env_remove(variable);
    }
    command.args(["--no-optional-locks", "-C"]).arg(root).args(arguments);
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
