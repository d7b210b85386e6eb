//! Segments that come back under a running node: files that hold what was told to be missing.
//!
//! Invariants: the directory is looked at only while something is missing; only whole segments under
//! their own names are taken, and only if they hold some of it; none that is on its way out. What is not
//! yet all there has no footer.

use std::path::PathBuf;

use crate::damage::{Damage, DamageKind};

use super::catalogue::Catalogue;
use super::coverage::{Coverage, Interval};
use super::inventory::look::{coverage, segments};
use super::name::Name;
use super::segment::StoreSegment;

impl Catalogue {
    /// Publishes what is back; says which files.
    pub(super) fn take_back(&self) -> Vec<PathBuf> {
        let (holes, mut back) = (self.holes(), Vec::new());
        if holes.is_empty() {
            return back;
        }
        let directory = self.directory();
        // What cannot be listed now is looked for again.
        let names = segments(&*directory.storage, &directory.path).unwrap_or_default();
        let known = self.known_files();
        for (text, _) in names {
            let path = directory.path.join(&text);
            let is_published = matches!(Name::parse(&text), Some(Name::Flushed { .. }));
            if !is_published || known.contains(&*path) {
                continue;
            }
            let held = coverage(&*directory.storage, &path).ok().flatten();
            let is_missed = |held| holes.iter().any(|hole| fills(held, hole));
            if held.as_ref().is_some_and(is_missed)
                && let Ok(loaded) = StoreSegment::load(directory, &path)
                && loaded.damage.is_empty()
                && !loaded.misnamed
                // What is published lasts.
                && directory.sync().is_ok()
            {
                self.publish(vec![loaded.segment], &[]);
                back.push(path);
            }
        }
        back
    }
}

/// Whether some of these records are missing.
fn fills(held: &Coverage, hole: &Damage) -> bool {
    let DamageKind::Missing(_, gap) = hole.kind else { return false };
    let is_of = |held: &Interval| {
        (held.from <= gap.to && gap.from <= held.to)
            && (held.first_ms <= gap.to_ms && gap.from_ms <= held.last_ms)
    };
    held.of_stream(gap.stream).any(is_of)
}
