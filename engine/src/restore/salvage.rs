//! Adopts what is readable of a damaged store segment, where the caller asked for that.
//!
//! Invariants: the readable records go into a new segment, of a new name, that claims to replace
//! nothing; each damaged span is in the verdict; salvaging twice adopts nothing twice; a file of which
//! nothing can be read is a total loss, never one whose records are there.

use std::io;

use super::{Restore, Verdict, is_held};
use crate::chunk::{OpenPart, Part};
use crate::damage::{Damage, DamageKind};
use crate::store::footer::Inputs;
use crate::store::merge::{MergeInput, merge};
use crate::store::segment::StoreSegment;
use crate::store::writer::{SegmentWriter, WriterOptions};

impl Restore {
    /// Also adopts, from now on, what is readable of damaged store segments.
    pub const fn salvage_damaged(&mut self) {
        self.salvages = true;
    }

    /// What a damaged file is of which nothing is taken.
    pub(super) const fn refused(&self, damage: Vec<Damage>) -> Verdict {
        if self.salvages { Verdict::Lost(damage) } else { Verdict::Damaged(damage) }
    }

    /// What is to be done with a segment in which this damage was found.
    pub(super) fn on_damaged(
        &mut self,
        segment: &StoreSegment,
        mut damage: Vec<Damage>,
    ) -> io::Result<Verdict> {
        if !self.salvages {
            return Ok(Verdict::Damaged(damage));
        }
        let part = match segment.open_to_move() {
            Ok(part) => part,
            Err(Damage { kind: DamageKind::Unread(refusal), .. }) => return Err(refusal.into()),
            Err(error) => {
                damage.push(error);
                return Ok(Verdict::Lost(damage));
            }
        };
        match self.readable(segment, &*part) {
            Readable::Nothing => return Ok(Verdict::Lost(damage)),
            Readable::Held => return Ok(Verdict::Salvaged { records: 0, damage }),
            Readable::Lacking => {}
        }
        let writer = SegmentWriter::new(&self.directory, WriterOptions::default());
        let mut writer = writer.in_volume(self.volume);
        let input = MergeInput { part, path: segment.path().to_owned() };
        let merged = merge(vec![input], &mut writer, &|| true);
        let report = merged.map_err(|error| io::Error::other(error.to_string()))?;
        if let Some(refusal) = report.damage.iter().find_map(|(_, found)| found.refusal()) {
            return Err(refusal.into());
        }
        for (_, found) in report.damage {
            if damage.iter().all(|known| known.offset != found.offset) {
                damage.push(found);
            }
        }
        let finished = writer.finish(Inputs::default());
        let made = finished.map_err(|error| io::Error::other(error.to_string()))?;
        self.hold_adopted(made);
        Ok(Verdict::Salvaged { records: report.record_count, damage })
    }

    /// What can be read of a part, and whether the store has all of it.
    fn readable(&self, segment: &StoreSegment, part: &dyn OpenPart) -> Readable {
        let near = self.near(segment.range());
        let mut readable = Readable::Nothing;
        for i in 0..part.chunks().len() {
            match part.read(i) {
                Err(damage) if damage.refusal().is_none() => {}
                Ok(_) if is_held(part, i, &near) => readable = Readable::Held,
                // Nor is known to be there what is refused for now.
                _ => return Readable::Lacking,
            }
        }
        readable
    }
}

/// See [`Restore::readable`].
enum Readable {
    /// No chunk is.
    Nothing,
    /// Some are, and the store has every record of them.
    Held,
    /// The store lacks some.
    Lacking,
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fixture, records};
    use super::*;
    use crate::fsck::check;
    use crate::storage::OsStorage;
    use crate::store::testing::{SMALL, directory, write};
    use std::fs;

    #[test]
    fn what_is_readable_is_adopted_once_when_asked_for_and_the_loss_is_told() {
        let f = fixture();
        let segment = write(&directory(&f.source), SMALL, &records(0, 40));
        let whole = fs::read(segment.path()).unwrap();
        let mut bytes = whole.clone();
        for at in (whole.len() / 3..).step_by(16) {
            bytes.clone_from(&whole);
            bytes[at] ^= 4;
            fs::write(segment.path(), &bytes).unwrap();
            if check(&OsStorage, segment.path()).unwrap().damage().any(Damage::loses_records) {
                break;
            }
        }
        assert!(matches!(f.open().store_segment(segment.path()), Verdict::Damaged(_)));
        let mut restore = f.open();
        restore.salvage_damaged();
        let verdict = restore.store_segment(segment.path());
        let Verdict::Salvaged { records: salvaged, damage } = verdict else {
            panic!("{verdict:?}")
        };
        let lost: u64 = damage.iter().filter_map(|d| d.records).sum();
        assert!(lost > 0 && salvaged > 0 && salvaged + lost == 40, "{salvaged}: {damage:?}");
        assert_eq!(f.stored().len() as u64, salvaged);
        assert!(f.stored().iter().all(|record| records(0, 40).contains(record)));
        for mut again in [restore, f.open()] {
            again.salvage_damaged();
            let verdict = again.store_segment(segment.path());
            assert!(matches!(verdict, Verdict::Salvaged { records: 0, .. }), "{verdict:?}");
        }
        assert_eq!(fs::read(segment.path()).unwrap(), bytes, "what is given is only read");
        assert_eq!(fs::read_dir(&f.target).unwrap().count(), 1);
    }

    #[test]
    fn damage_that_hides_no_record_costs_none() {
        let f = fixture();
        let segment = write(&directory(&f.source), SMALL, &records(0, 40));
        let mut bytes = fs::read(segment.path()).unwrap();
        bytes[0] ^= 4;
        fs::write(segment.path(), &bytes).unwrap();
        let mut restore = f.open();
        restore.salvage_damaged();
        let verdict = restore.store_segment(segment.path());
        let Verdict::Salvaged { records: 40, damage } = verdict else { panic!("{verdict:?}") };
        assert!(!damage.is_empty() && damage.iter().all(|d| !d.loses_records()));
        assert_eq!(f.stored(), records(0, 40));
    }

    #[test]
    fn a_segment_whose_every_block_is_damaged_is_a_loss_and_not_there_already() {
        let f = fixture();
        let segment = write(&directory(&f.source), SMALL, &records(0, 40));
        let path = segment.path();
        let whole = fs::read(path).unwrap();
        let lost = || {
            let checked = check(&OsStorage, path).unwrap();
            checked.damage().filter_map(|damage| damage.records).sum::<u64>()
        };
        // Here and there, as far as the segment is still known for one, until no record is left.
        let mut bytes = whole.clone();
        let mut most = 0;
        for at in (0..whole.len()).step_by(5) {
            bytes[at] ^= 4;
            fs::write(path, &bytes).unwrap();
            let loads = StoreSegment::load(&directory(&f.source), path).is_ok();
            let now = if loads { lost() } else { 0 };
            if now > most {
                most = now;
            } else {
                bytes[at] ^= 4;
            }
            if most == 40 {
                break;
            }
        }
        fs::write(path, &bytes).unwrap();
        assert_eq!(lost(), 40, "all is lost");
        assert!(matches!(f.open().store_segment(path), Verdict::Damaged(_)));
        let mut restore = f.open();
        restore.salvage_damaged();
        let verdict = restore.store_segment(path);
        assert!(matches!(&verdict, Verdict::Lost(damage) if !damage.is_empty()), "{verdict:?}");
        assert_eq!(fs::read_dir(&f.target).unwrap().count(), 0);
        assert!(restore.adopted().is_empty());
    }

    #[test]
    fn a_file_with_nothing_readable_is_refused() {
        let f = fixture();
        let segment = write(&directory(&f.source), SMALL, &records(0, 40));
        fs::write(segment.path(), vec![7; 5000]).unwrap();
        let mut restore = f.open();
        restore.salvage_damaged();
        assert!(matches!(restore.store_segment(segment.path()), Verdict::Lost(_)));
        assert_eq!(fs::read_dir(&f.target).unwrap().count(), 0);
    }
}
