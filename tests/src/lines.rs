//! Lines to send and models to compare with.

use std::path::PathBuf;

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

/// A deterministic stream of numbers (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }
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
