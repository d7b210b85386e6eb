//! The house keeps its rules: licences, file sizes, imports that point down.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Licences that the project accepts in what it links or builds with.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "0BSD",
    "CC0-1.0",
    "BSL-1.0",
];

fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Whether an SPDX expression leaves a choice that is accepted.
fn is_accepted(expression: &str) -> bool {
    expression.replace('/', " OR ").split(" OR ").any(|choice| {
        choice.split(" AND ").all(|part| LICENCES.contains(&part.trim_matches(['(', ')', ' '])))
    })
}

#[test]
fn every_dependency_has_an_accepted_licence() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "packages of other platforms are missing here: run `cargo fetch --locked` once, as \
         tests/run does. {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50);
    // Weak copyleft of its own files; comes with glommio, which a bench measures and nothing ships.
    let is_bench_only = |name: &serde_json::Value| name == "bitmaps";
    let refused: Vec<String> = packages
        .iter()
        .filter(|p| !is_bench_only(&p["name"]))
        .filter(|p| !p["license"].as_str().is_some_and(is_accepted))
        .map(|p| format!("{} {}: {}", p["name"], p["version"], p["license"]))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn licences_are_read_as_choices_and_conjunctions() {
    assert!(is_accepted("MIT OR GPL-3.0"));
    assert!(is_accepted("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(is_accepted("MIT/Apache-2.0"));
    assert!(!is_accepted("GPL-3.0-only"));
    assert!(!is_accepted("MIT AND GPL-2.0"));
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for member in ["engine", "net", "daemon", "loadgen", "benches", "tests"] {
        sources(&workspace().join(member), &mut found);
    }
    found.into_iter().map(|p| (p.clone(), std::fs::read_to_string(p).unwrap())).collect()
}

#[test]
fn every_file_says_what_it_is_for_and_is_not_a_giant() {
    for (path, text) in all_sources() {
        assert!(text.starts_with("//!"), "{} opens without //!", path.display());
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = code.lines().count();
        let is_test = path.to_string_lossy().contains("tests");
        assert!(is_test || lines <= 600, "{} has {lines} lines", path.display());
    }
}

#[test]
fn unsafe_code_stays_in_its_homes() {
    let homes = ["engine/src/storage/map.rs", "net/src/ring/", "tests/src/seccomp.rs"];
    let word = ["uns", "afe"].concat();
    for (path, text) in all_sources() {
        let name = path.to_string_lossy().into_owned();
        let at_home = homes.iter().any(|h| name.contains(h)) || name.contains("benches/benches");
        let uses =
            [" {", " fn", " impl"].iter().any(|next| text.contains(&format!("{word}{next}")));
        assert!(at_home || !uses, "{name} has {word} code");
    }
}

#[test]
fn imports_point_down() {
    for (member, forbidden) in [
        ("engine/src", &["tokio", "net", "io_uring", "axum", "hyper", "daemon"][..]),
        ("net/src", &["daemon", "loadgen", "clap"]),
        ("loadgen/src", &["engine", "net", "daemon"]),
    ] {
        let mut found = Vec::new();
        sources(&workspace().join(member), &mut found);
        for path in found {
            let text = std::fs::read_to_string(&path).unwrap();
            for name in forbidden {
                let used = text.contains(&format!("use {name}::"));
                assert!(!used, "{} imports {name}", path.display());
            }
        }
    }
}

/// The programs of the daemon are rooms with walls: who talks to a node knows it by the protocol alone,
/// and no room imports another one.
#[test]
fn nodes_clients_and_offline_tools_do_not_import_each_other() {
    let of_the_server =
        ["net::shard", "net::http", "net::ring", "net::follow", "net::backend", "use net::{"];
    let rooms: [(&str, &[&str]); 3] = [
        ("node/", &["crate::client", "crate::offline"]),
        ("client/", &["crate::node", "crate::offline"]),
        ("offline/", &["crate::node", "crate::client"]),
    ];
    let code = code_of("daemon/src");
    for (room, forbidden) in rooms {
        let server = if room == "node/" { &[][..] } else { &of_the_server };
        let files: Vec<_> = code.iter().filter(|(name, _)| name.starts_with(room)).collect();
        assert!(files.len() > 2, "{room} has moved");
        for (name, text) in files {
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let used = forbidden.iter().chain(server).find(|path| line.contains(**path));
                assert!(used.is_none(), "{name} uses {used:?}: {line}");
            }
        }
    }
}

fn engine_code() -> Vec<(String, String)> {
    let code = code_of("engine/src");
    assert!(code.len() > 100);
    code
}

/// Code without its tests: file name under `directory`, text.
fn code_of(directory: &str) -> Vec<(String, String)> {
    let root = workspace().join(directory);
    let mut found = Vec::new();
    sources(&root, &mut found);
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
    let is_test = |name: &str| {
        ["tests.rs", "fuzz.rs", "testing.rs"].iter().any(|end| name.ends_with(end))
            || name.contains("tests/")
    };
    let named = found.into_iter().map(|path| (name(&path), path));
    let code = named.filter(|(name, _)| !is_test(name)).map(|(name, path)| {
        let text = std::fs::read_to_string(path).unwrap();
        (name, text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned())
    });
    code.collect()
}

/// Nodes side by side in a process share nothing but what belongs to the process.
#[test]
fn the_engine_keeps_nothing_for_the_whole_process() {
    // The handler of a signal is the process's.
    let home = "storage/map.rs";
    for (name, code) in engine_code().iter().filter(|(name, _)| name != home) {
        for line in code.lines() {
            let is_static = line.split_whitespace().take(2).any(|word| word == "static");
            assert!(!is_static && !line.contains("thread_local!"), "{name} keeps for all: {line}");
        }
    }
}

/// A node is turned by whoever has time, be it a seed: nothing in its room runs by itself, knows what time
/// it is, speaks, counts, or is shared by all nodes of a process.
#[test]
fn a_node_runs_nothing_reads_no_clock_and_tells_by_values() {
    let forbidden = ["thread", "Instant", "SystemTime", "tracing", "metrics", "print", "rand::"];
    let room: Vec<_> =
        engine_code().into_iter().filter(|(name, _)| name.starts_with("node/")).collect();
    assert!(room.len() > 5, "the room has moved");
    for (name, code) in room {
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let used = forbidden.iter().find(|word| line.contains(**word));
            assert!(used.is_none(), "{name} has {used:?}: {line}");
        }
    }
}

/// Time and threads come from outside, so that a simulator can turn all of it.
#[test]
fn the_engine_makes_no_thread_and_reads_no_clock() {
    // The shell of search, which the daemon starts.
    let home = "search/threads.rs";
    let mut seen_at_home = 0;
    for (name, code) in engine_code() {
        for what in ["std::thread", "thread::", "Instant::now", "SystemTime", "clock_gettime"] {
            let is_used = code.contains(what);
            assert!(!is_used || name == home, "{name} uses {what}");
            seen_at_home += usize::from(is_used);
        }
    }
    assert!(seen_at_home > 0, "the search for words finds them where they are");
}
