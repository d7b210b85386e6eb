//! Which commit `oklogd version` names: `daemon/build.rs` alone, compiled and run on workspaces made for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::tools::text;

/// The build script, and a workspace that it is to look at.
struct Build {
    directory: tempfile::TempDir,
    script: PathBuf,
}

impl Build {
    /// With one source, and no git.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("build-script");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemon/build.rs");
        let compiler = std::env::var_os("RUSTC").unwrap_or("rustc".into());
        let mut command = Command::new(compiler);
        let output = command.args(["--edition", "2024", "-o"]).arg(&script).arg(source).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let build = Self { directory, script };
        build.write("daemon/src/main.rs", "fn main() {}");
        build.write("daemon/SOURCE", "$Format:%H %cs$\n");
        build
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("outside/workspace")
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// In `root` or around it; the commit's date is given, so that it can be told again.
    fn git(root: &Path, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.current_dir(root).env_remove("GIT_DIR").env_remove("GIT_INDEX_FILE");
        command.env("GIT_COMMITTER_DATE", "2026-05-01T12:00:00Z");
        let output = command.args(["-c", "user.name=T", "-c", "user.email=t@example.org"]);
        let output = output.args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    /// A repository of what is there, with one commit: its hash.
    fn commit(root: &Path) -> String {
        Self::git(root, &["init", "--quiet"]);
        Self::git(root, &["add", "--all"]);
        Self::git(root, &["commit", "--quiet", "--message", "One"]);
        Self::git(root, &["rev-parse", "HEAD"])
    }

    /// What it tells cargo.
    fn run(&self) -> String {
        let manifest = self.root().join("daemon");
        let output = Command::new(&self.script).env("CARGO_MANIFEST_DIR", manifest).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// What `oklogd version` shows behind the version.
    fn built_from(&self) -> String {
        let told = self.run();
        let mut values = told.lines().filter_map(|line| line.split_once("BUILT_FROM="));
        values.next().unwrap().1.to_owned()
    }
}

fn has_git() -> bool {
    let is_there = Command::new("git").arg("--version").output().is_ok();
    if !is_there {
        eprintln!("SKIPPED: no git here: which commit a build names is not tested");
    }
    is_there
}

#[test]
fn a_build_without_git_names_no_commit_or_that_of_the_archive() {
    let build = Build::new();
    assert_eq!(build.built_from(), "");
    // `cargo run` hands it to the node, which warns of variables that it does not know.
    assert!(!build.run().contains("rustc-env=OKLOGD_"), "{}", build.run());
    build.write("daemon/SOURCE", "0123456789abcdef0123456789abcdef01234567 2026-05-01\n");
    assert_eq!(build.built_from(), " (0123456789ab, 2026-05-01)");
}

#[test]
fn a_build_names_its_commit_and_whether_the_sources_differ_from_it() {
    if !has_git() {
        return;
    }
    let build = Build::new();
    let hash = Build::commit(&build.root());
    let clean = format!(" ({}, 2026-05-01)", &hash[..12]);
    assert_eq!(build.built_from(), clean);
    build.write("NOTES.md", "not of the binary");
    assert_eq!(build.built_from(), clean);
    build.write("daemon/src/new.rs", "");
    assert_eq!(build.built_from(), format!(" ({}+, 2026-05-01)", &hash[..12]));
}

#[test]
fn a_build_inside_another_projects_working_copy_does_not_name_its_commit() {
    if !has_git() {
        return;
    }
    let build = Build::new();
    Build::commit(build.root().parent().unwrap());
    assert_eq!(build.built_from(), "");
}

#[test]
fn an_archive_that_git_makes_brings_its_commit_along() {
    if !has_git() {
        return;
    }
    let build = Build::new();
    build.write(".gitattributes", include_str!("../../.gitattributes"));
    let hash = Build::commit(&build.root());
    let archive = build.directory.path().join("archive.tar");
    Build::git(&build.root(), &["archive", "-o", archive.to_str().unwrap(), "HEAD"]);
    std::fs::remove_dir_all(build.root()).unwrap();
    std::fs::create_dir(build.root()).unwrap();
    let mut unpack = Command::new("tar");
    assert!(unpack.arg("-xf").arg(archive).current_dir(build.root()).status().unwrap().success());
    assert_eq!(build.built_from(), format!(" ({}, 2026-05-01)", &hash[..12]));
}

/// A path that is not there would have cargo run it, and compile `oklogd`, each time.
#[test]
fn a_build_is_asked_again_only_for_files_that_are_there() {
    let build = Build::new();
    if has_git() {
        Build::commit(&build.root());
    }
    let told = build.run();
    let prefix = "cargo::rerun-if-changed=";
    let watched: Vec<_> = told.lines().filter_map(|line| line.strip_prefix(prefix)).collect();
    assert!(watched.contains(&"build.rs"), "{told}");
    for path in watched.iter().filter(|path| **path != "build.rs") {
        assert!(Path::new(path).exists(), "{path}");
    }
}
