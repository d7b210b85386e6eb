//! Lines to send and models to compare with.

use std::path::PathBuf;

pub use engine::random::Random;

/// Logs of 13 real systems, where they are at hand: beside the project in `../shared`.
pub fn loghub() -> Option<Vec<PathBuf>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/loghub");
    let mut files: Vec<PathBuf> = std::fs::read_dir(root)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    files.sort();
    (!files.is_empty()).then_some(files)
}

/// The lines of some bytes, without their LFs; a last line without LF counts.
pub fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = bytes.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
    if lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    lines
}

/// Sorted, for comparison as multisets.
pub fn sorted(mut lines: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    lines.sort();
    lines
}

/// Records of a text answer: ULID and record, in the order they came.
pub fn records(body: &[u8]) -> Vec<(String, Vec<u8>)> {
    split(body)
        .into_iter()
        .map(|line| {
            assert!(line.len() >= 27 && line[26] == b' ', "not a record: {line:?}");
            (String::from_utf8_lossy(&line[..26]).into_owned(), line[27..].to_vec())
        })
        .collect()
}
