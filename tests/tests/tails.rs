//! Damage in a tail file, after `kill -9`: what is behind it is found, what is in it is missing from every
//! answer and told, until somebody takes the file away.

use std::io::Write;
use std::path::{Path, PathBuf};

use tests::node::Node;
use tests::{tools, wait_until};

/// Young records stay in the tail file.
const FLAGS: [&str; 2] = ["--ingest.segment-flush-age", "1d"];

fn tails(data: &Path, part: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data.join("ingest")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("shard-") && name.ends_with(part)
    });
    paths
}

fn fsck(data: &Path) -> (Option<i32>, String) {
    let output = tools::oklogd(&["fsck", data.to_str().unwrap()]);
    (output.status.code(), tools::text(&output.stdout).clone())
}

/// Sends lines over one connection, each of which is a chunk of its own.
fn send_slowly(node: &Node, lines: &[&str]) {
    let mut stream = std::net::TcpStream::connect(node.fast).unwrap();
    for line in lines {
        let before = node.metric("oklog_disk_written_bytes_total");
        writeln!(stream, "{line}").unwrap();
        wait_until("it is in the tail file", || {
            node.metric("oklog_disk_written_bytes_total") > before
        });
    }
}

/// The tail file with chunks in it, and where they start.
fn chunks(data: &Path) -> (PathBuf, Vec<usize>) {
    let mut found = tails(data, ".tail").into_iter().filter_map(|path| {
        let bytes = std::fs::read(&path).unwrap();
        let mut starts = Vec::new();
        let mut at = 0;
        while bytes[at..].starts_with(b"OKLF") {
            starts.push(at);
            at += u32::from_le_bytes(std::array::from_fn(|i| bytes[at + 36 + i])) as usize;
        }
        (!starts.is_empty()).then_some((path, starts))
    });
    let one = found.next().expect("a shard took them");
    assert!(found.next().is_none(), "and no other");
    one
}

#[test]
fn a_flipped_chunk_costs_its_record_and_is_told_until_the_file_is_taken_away() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let node = Node::start(directory.path(), &FLAGS);
    send_slowly(&node, &["chunk zero", "chunk one", "chunk two", "chunk three"]);
    node.kill();
    assert_eq!(fsck(&data).0, Some(0), "{}", fsck(&data).1);

    let (path, starts) = chunks(&data);
    assert_eq!(starts.len(), 4);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[starts[1] + 96] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (code, told) = fsck(&data);
    assert!(code == Some(4) && told.contains("1 records are lost"), "{told}");

    for life in 0..3 {
        let node = Node::start(directory.path(), &FLAGS);
        let found = node.query("");
        let lines: Vec<&[u8]> = found.iter().map(|(_, line)| &line[..]).collect();
        assert_eq!(lines, [&b"chunk zero"[..], b"chunk two", b"chunk three"], "life {life}");
        let stats = node.get("/query?from=24h&stats").json();
        assert_eq!((&stats["complete"], &stats["records"]), (&false.into(), &3.into()), "{stats}");
        let missing = &stats["missing"][0];
        let [from, to] = [&missing["from"], &missing["to"]].map(|ulid| ulid.as_str().unwrap());
        assert!(found[0].0.as_str() < from && from <= to && to < found[1].0.as_str(), "{stats}");
        assert!(missing["reason"].as_str().unwrap().contains(".damaged"), "{stats}");
        assert_eq!(node.get("/ready").status, 200);
        assert_eq!(node.metric("oklog_ingest_damaged_segments"), 1.0);
        assert_eq!(tails(&data, ".damaged").len(), 1);
        assert!(node.log().contains("1 records are lost"), "{}", node.log());
        if life < 2 {
            node.kill();
            let (code, told) = fsck(&data);
            assert!(code == Some(4) && told.contains("set aside"), "{told}");
            continue;
        }
        std::fs::remove_file(&tails(&data, ".damaged")[0]).unwrap();
        wait_until("it is forgotten", || {
            node.get("/query?from=24h&stats").json()["complete"] == true
        });
        assert!(node.log().contains("taken away and is forgotten"), "{}", node.log());
        assert_eq!(node.metric("oklog_ingest_damaged_segments"), 0.0);
        assert!(node.stop().success());
    }
    assert_eq!(fsck(&data).0, Some(0), "{}", fsck(&data).1);
    let node = Node::start(directory.path(), &FLAGS);
    assert_eq!(node.all_lines().len(), 3);
    assert_eq!(node.get("/query?from=24h&stats").json()["complete"], true);
}
