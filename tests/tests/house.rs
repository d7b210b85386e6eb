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
    // Weak copyleft of its own files: `foca`, which is used as it is published (decision 0018).
    "MPL-2.0",
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
    for member in ["engine", "net", "gossip", "daemon", "loadgen", "benches", "tests"] {
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
        ("gossip/src", &["tokio", "net", "io_uring", "hyper", "tracing", "daemon", "loadgen"]),
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

/// Who is in the cluster is decided from datagrams, names and times that are handed in, so that a seed can
/// turn any number of nodes.
#[test]
fn membership_has_no_socket_no_clock_no_thread_and_no_dice_of_its_own() {
    let code = code_of("gossip/src");
    assert!(code.len() > 15, "the crate has moved");
    let forbidden = [
        "UdpSocket",
        "std::thread",
        "Instant",
        "SystemTime",
        "SystemRandom",
        "rand::rng",
        "thread_local!",
    ];
    for (name, text) in code {
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let used = forbidden.iter().find(|word| line.contains(**word));
            assert!(used.is_none(), "{name} has {used:?}: {line}");
            let is_static = line.split_whitespace().take(2).any(|word| word == "static");
            assert!(!is_static, "{name} keeps for all: {line}");
        }
    }
}

/// What a row of the code map has between backticks: its first column, as paths under `crate/src`, and
/// its second.
struct MapRow {
    paths: Vec<String>,
    words: Vec<String>,
}

fn in_backticks(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split('`')
        .scan(0, |at, part| {
            let start = *at;
            *at += part.len() + 1;
            Some((start, part))
        })
        .skip(1)
        .step_by(2)
}

/// A module's file, or the room of one.
fn has_module(root: &Path, path: &str) -> bool {
    root.join(format!("{path}.rs")).exists() || root.join(path).is_dir()
}

/// Names stand in the room of the one before them, or at the top; in brackets, in that one's own.
fn map_row(root: &Path, row: &str) -> MapRow {
    let mut columns = row.split('|').skip(1);
    let (first, second) = (columns.next().unwrap_or(""), columns.next().unwrap_or(""));
    let (mut room, mut before, mut paths) = (String::new(), String::new(), Vec::new());
    for (at, name) in in_backticks(first) {
        let bracket = |c| first[..at].matches(c).count();
        let is_inside = bracket('(') > bracket(')');
        if let Some((its_room, _)) = name.rsplit_once('/').filter(|_| !is_inside) {
            room = format!("{its_room}/");
        }
        let of_room = if name.contains('/') { name.to_owned() } else { format!("{room}{name}") };
        let candidates = match is_inside {
            true => vec![format!("{before}/{name}"), of_room],
            false => vec![of_room, name.to_owned()],
        };
        let found = candidates.iter().find(|path| has_module(root, path)).unwrap_or(&candidates[0]);
        paths.push(found.clone());
        if !is_inside {
            before.clone_from(found);
        }
    }
    let words = in_backticks(second).map(|(_, word)| word.to_owned()).collect();
    MapRow { paths, words }
}

/// Modules at the top of a crate, and rooms of it at any depth; tests apart.
fn rooms_of(root: &Path, under: &str, rooms: &mut Vec<String>) {
    for entry in std::fs::read_dir(root.join(under)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_code = !name.contains("test") && !["lib", "main", "fuzz"].contains(&&*name);
        let room = if under.is_empty() { name } else { format!("{under}/{name}") };
        if is_code && (path.is_dir() || under.is_empty()) {
            rooms.push(room.clone());
        }
        if is_code && path.is_dir() {
            rooms_of(root, &room, rooms);
        }
    }
}

/// The map of the code is the code's: what it names is there, and no room is left out.
#[test]
fn the_code_map_names_every_room_that_there_is_and_none_that_is_not() {
    let page = std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let map = page.split("\n## ").find(|part| part.starts_with("Code map")).unwrap();
    for krate in ["engine", "net", "gossip", "daemon"] {
        let part = map.split("\n### ").find(|part| part.starts_with(krate)).unwrap();
        let root = workspace().join(krate).join("src");
        let rows = part.lines().filter(|line| line.starts_with("| `"));
        let rows: Vec<MapRow> = rows.map(|row| map_row(&root, row)).collect();
        assert!(rows.len() > 10, "the map of {krate} has moved");
        for path in rows.iter().flat_map(|row| &row.paths) {
            let is_there = has_module(&root, path) || workspace().join(krate).join(path).is_dir();
            assert!(is_there, "the code map of {krate} names {path}, which is not there");
        }
        let is_named = |room: &String| {
            let inside = format!("{room}/");
            rows.iter().any(|row| {
                let is_of_row = |path: &String| {
                    let words = row.words.iter().map(|word| format!("{path}/{word}"));
                    path == room
                        || path.starts_with(&inside)
                        || words.into_iter().any(|w| w == *room)
                };
                row.paths.iter().any(is_of_row)
            })
        };
        let mut rooms = Vec::new();
        rooms_of(&root, "", &mut rooms);
        rooms.sort();
        rooms.dedup();
        let left_out: Vec<_> = rooms.iter().filter(|room| !is_named(room)).collect();
        assert!(left_out.is_empty(), "the code map of {krate} leaves out {left_out:?}");
    }
}
