//! Which damaged spans were counted.
//!
//! Invariants: memory is bounded; when it is full everything is forgotten, and counted again.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use engine::damage::{Damage, DamageKind};

/// Spans remembered at a time.
const SEEN_MAX: usize = 64 * 1024;

/// See the page of the module.
#[derive(Debug, Default)]
pub(super) struct DamageSeen {
    hasher: RandomState,
    seen: Mutex<HashSet<u64>>,
}

impl DamageSeen {
    /// Whether this is the first time that the span is seen. A file's extension is its state:
    /// it may have changed since.
    pub(super) fn is_new(&self, damage: &Damage) -> bool {
        // Holes of a store all have the same file.
        let hole = match damage.kind {
            DamageKind::Missing(_, gap) => Some((gap.stream, gap.from)),
            _ => None,
        };
        let span = (damage.path.file_stem(), damage.offset, damage.range, hole);
        let span = self.hasher.hash_one(span);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= SEEN_MAX {
            seen.clear();
        }
        seen.insert(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_new_once_whatever_state_its_file_is_in_and_memory_is_bounded() {
        let damage = |path: &str, offset| Damage {
            path: path.into(),
            offset,
            len_bytes: 1,
            range: None,
            records: None,
            kind: DamageKind::Checksum("frame"),
        };
        let seen = DamageSeen::default();
        assert!(seen.is_new(&damage("ingest/A.pending", 512)));
        assert!(!seen.is_new(&damage("ingest/A.damaged", 512)));
        assert!(seen.is_new(&damage("ingest/A.pending", 1024)));
        assert!(seen.is_new(&damage("ingest/B.pending", 512)));
        for offset in 0..3 * SEEN_MAX as u64 {
            seen.is_new(&damage("ingest/C.flushed", offset));
        }
        assert!(seen.seen.lock().unwrap().len() <= SEEN_MAX);
    }
}
