//! What footers say of store segments, against what is in them.

use engine::chunk::Part;
use engine::store::catalogue::Catalogue;
use engine::store::coverage::Coverage;
use engine::store::segment::StoreSegment;

/// The coverage of every segment that can be read is that of its records, and its volume is known.
pub(crate) fn check(catalogue: &Catalogue) {
    for segment in catalogue.snapshot().iter() {
        if segment.is_damaged() || segment.is_unread() {
            continue;
        }
        let loaded = StoreSegment::load(catalogue.directory(), segment.path());
        let Ok(coverage) = loaded.map(|loaded| loaded.coverage.expect("its footer is whole"))
        else {
            continue;
        };
        let Ok(open) = segment.open_to_move() else { continue };
        let tables = (0..open.chunks().len()).map(|index| open.read_table(index).unwrap());
        let held = tables.fold(Coverage::default(), |all, t| all.union(&Coverage::of_table(&t)));
        assert!(
            coverage.is_same(&held),
            "{}: {coverage:?} is not {held:?}",
            segment.path().display()
        );
        assert!(segment.meta().volume.is_some());
    }
}
