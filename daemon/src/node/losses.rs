//! What is known to be lost: spans of ingest segments that could not be read and were set aside,
//! and segments that could not be read at the start.
//! Every answer over such a span says so, also after a restart, until the operator has looked at
//! the `.damaged` file and taken it away.
//!
//! Invariants: bounded; what does not fit any more is told in the log only.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use engine::damage::Damage;
use engine::ingest::check::check_segment;
use engine::ingest::segment::{SegmentState, parse_file_name};
use engine::search::Missing;
use engine::storage::Storage;
use engine::ulid::Ulid;

/// Spans that answers name.
const LOSSES_MAX: usize = 1024;

/// The spans known to be lost.
#[derive(Debug, Default)]
pub(super) struct Losses(Mutex<Vec<Missing>>);

impl Losses {
    /// Reads what the `.damaged` files of an ingest directory lack.
    pub(super) fn recover(storage: &dyn Storage, directory: &Path) -> Self {
        let losses = Self::default();
        for entry in storage.list(directory).unwrap_or_default() {
            let Some((id, SegmentState::Damaged)) =
                entry.name.as_deref().and_then(parse_file_name).filter(|_| entry.is_file)
            else {
                continue;
            };
            let path = directory.join(entry.name.unwrap_or_default());
            match check_segment(storage, &path, id, SegmentState::Damaged) {
                Ok(checked) => losses.add(id, &checked.damage),
                Err(error) => tracing::warn!("{} cannot be read: {error}", path.display()),
            }
        }
        losses
    }

    /// Adds segments that could not be read at all at the start: nobody tries again until the next.
    pub(super) fn add_unreadable(&self, damages: &[Damage]) {
        for damage in damages {
            let name = damage.path.file_name().and_then(|name| name.to_str());
            let is_whole_file = damage.range.is_none() && damage.len_bytes == 0;
            if let Some((id, _)) = name.and_then(parse_file_name).filter(|_| is_whole_file) {
                self.add(id, std::slice::from_ref(damage));
            }
        }
    }

    /// Adds what a segment that is set aside lacks.
    pub(super) fn add(&self, segment: Ulid, damage: &[Damage]) {
        let mut losses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for damage in damage.iter().filter(|d| d.loses_records()) {
            if losses.len() < LOSSES_MAX {
                // A segment is named before its first record is stamped.
                let from = Ulid::first_of_ms(segment.ms());
                let (from, to) = damage.range.unwrap_or((from, Ulid::MAX));
                let reason = damage.to_string();
                losses.push(Missing { from, to, node: "local".into(), reason, damage: None });
            }
        }
    }

    /// All of them.
    pub(super) fn list(&self) -> Vec<Missing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::damage::DamageKind;
    use engine::storage::Refusal;

    #[test]
    fn a_segment_that_could_not_be_read_at_the_start_is_missing_from_its_beginning_on() {
        let id = Ulid::from_parts(9, 1, 1);
        let name = engine::ingest::segment::file_name(id, SegmentState::Flushed);
        let damage = |name: &str, range| Damage {
            path: Path::new("ingest").join(name),
            offset: 0,
            len_bytes: 0,
            range,
            records: None,
            kind: DamageKind::Unread(Refusal::of_kind(std::io::ErrorKind::Other)),
        };
        let losses = Losses::default();
        losses.add_unreadable(&[
            damage(&name, None),
            // Parts of segments that are there tell it themselves.
            damage(&name, Some((Ulid(1), Ulid(2)))),
            damage("shard-0.tail", None),
        ]);
        let spans: Vec<_> = losses.list().into_iter().map(|m| (m.from, m.to)).collect();
        assert_eq!(spans, [(Ulid::first_of_ms(9), Ulid::MAX)]);
    }

    #[test]
    fn only_what_loses_records_is_kept_and_an_open_span_starts_with_its_segment() {
        let damage = |kind, range| Damage {
            path: "x.damaged".into(),
            offset: 0,
            len_bytes: 1,
            range,
            records: None,
            kind,
        };
        let losses = Losses::default();
        let known = Some((Ulid(5), Ulid(6)));
        losses.add(
            Ulid::first_of_ms(7),
            &[
                damage(DamageKind::Repairable("frame"), None),
                damage(DamageKind::Checksum("frame"), known),
                damage(DamageKind::Truncated("frame"), None),
            ],
        );
        let spans: Vec<_> = losses.list().into_iter().map(|m| (m.from, m.to)).collect();
        assert_eq!(spans, [(Ulid(5), Ulid(6)), (Ulid::first_of_ms(7), Ulid::MAX)]);
    }
}
