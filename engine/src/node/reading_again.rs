//! Tries again to read what could not be read, on both sides of a node, and looks whether segments are
//! where they were.
//!
//! Invariants: nothing is looked at while a directory is not the one that was locked; what fails is told
//! once as long as it lasts; a name that is lost, or back, is told once, and the doors know of it as long
//! as it is. A read may hang: whoever turns this has others do what may not wait.

use std::path::PathBuf;
use std::sync::Arc;

use super::doors::Doors;
use super::names::{IsLost, LostSegments, Names};
use super::{Node, Side};
use crate::damage::Damage;
use crate::ingest::log::Now;
use crate::ingest::registry::{FileError, Look, Registry};
use crate::store::catalogue::Catalogue;
use crate::ulid::Ulid;

/// Time between looks at the ingest side, ms; each of its files has pauses of its own.
const PAUSE_MS: u64 = 1_000;
/// Time between looks at the store, ms: a fault that is over is forgotten within 10 s.
const STORE_PAUSE_MS: u64 = 4_000;

/// What happened in a turn.
#[derive(Debug)]
pub enum Happened {
    /// More segments than before have lost their names; all that have.
    NamesLost(LostSegments),
    /// So many files have their names again, this one among them.
    NamesBack(PathBuf, usize),
    /// A segment of the ingest side can be read again.
    SegmentBack(Ulid),
    /// A tail file can be read again: so many records of it are a segment now.
    TailBack(u64),
    /// Its file was set aside, and somebody took it away: it is forgotten.
    Forgotten(PathBuf),
    /// It was damaged and set aside, and there are too many younger ones: it was removed.
    GivenUp(PathBuf),
    /// What was read, and is damaged.
    Damaged(Vec<Damage>),
    /// A file of the ingest side that fails, and did not in the last turn.
    FileFailed(FileError),
    /// A segment of the store can be read again.
    StoreSegmentBack(PathBuf),
}

/// See the module page.
pub struct ReadingAgain {
    ingest: Option<Arc<Registry>>,
    store: Option<Arc<Catalogue>>,
    doors: Arc<Doors>,
    /// By [`Side`].
    names: [Names; 2],
    /// What is known to fail.
    told: Vec<(&'static str, PathBuf)>,
    next_ms: u64,
    next_store_ms: u64,
    /// As far as is known: it may have been read since the node was opened.
    was_inventory_unread: bool,
}

impl ReadingAgain {
    /// From now on, milliseconds of the monotonic clock.
    pub fn start(node: &Node, doors: Arc<Doors>, now_ms: u64) -> Self {
        Self {
            ingest: node.ingest.as_ref().map(|side| Arc::clone(&side.registry)),
            store: node.store.as_ref().map(|side| Arc::clone(&side.catalogue)),
            doors,
            names: Side::ALL.map(Names::of),
            told: Vec::new(),
            next_ms: now_ms + PAUSE_MS,
            next_store_ms: now_ms + STORE_PAUSE_MS,
            was_inventory_unread: true,
        }
    }

    /// When it is to be turned again, milliseconds of the monotonic clock.
    pub const fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// Looks at what is due; says what happened, in order.
    pub fn turn(&mut self, now: Now, is_lost: IsLost<'_>) -> Vec<Happened> {
        let now_ms = now.monotonic_us / 1000;
        let mut happened = Vec::new();
        if now_ms < self.next_ms {
            return happened;
        }
        self.next_ms = now_ms + PAUSE_MS;
        // What is not there now may be where nobody looks.
        if self.doors.is_ground_lost() {
            return happened;
        }
        self.look_at_names(is_lost, &mut happened);
        if let Some(registry) = &self.ingest {
            let look = registry.look_again(now_ms);
            self.take(look, &mut happened);
        }
        if let Some(catalogue) = self.store.as_ref().filter(|_| now_ms >= self.next_store_ms) {
            self.next_store_ms = now_ms + STORE_PAUSE_MS;
            let back = catalogue.read_again().back;
            let is_unread = catalogue.is_inventory_unread();
            let is_more_known = !back.is_empty() || (self.was_inventory_unread && !is_unread);
            self.was_inventory_unread = is_unread;
            happened.extend(back.into_iter().map(Happened::StoreSegmentBack));
            if let Some(registry) = &self.ingest {
                look_for_missing(registry, catalogue, is_more_known, &mut happened);
            }
        }
        happened
    }

    fn look_at_names(&mut self, is_lost: IsLost<'_>, happened: &mut Vec<Happened>) {
        let [ingest, store] = &mut self.names;
        let of_ingest = self.ingest.as_ref().map(|side| ingest.look_at_ingest(side, is_lost));
        let of_store = self.store.as_ref().map(|side| store.look_at_store(side, is_lost));
        // A directory may have gone meanwhile: then that is what there is to tell.
        if self.doors.is_ground_lost() {
            return;
        }
        let lost = [ingest.lost(), store.lost()];
        for (look, lost) in [of_ingest, of_store].iter().zip(&lost) {
            let Some(look) = look else { continue };
            if !look.lost.is_empty() {
                happened.extend(lost.clone().map(Happened::NamesLost));
            }
            if let Some(path) = look.back.first() {
                happened.push(Happened::NamesBack(path.clone(), look.back.len()));
            }
        }
        self.doors.set_lost_segments(lost);
    }

    fn take(&mut self, look: Look, happened: &mut Vec<Happened>) {
        happened.extend(look.returned.into_iter().map(Happened::SegmentBack));
        if look.tail_records > 0 {
            happened.push(Happened::TailBack(look.tail_records));
        }
        happened.extend(look.taken_away.into_iter().map(Happened::Forgotten));
        happened.extend(look.given_up.into_iter().map(Happened::GivenUp));
        if !look.damage.is_empty() {
            happened.push(Happened::Damaged(look.damage));
        }
        let mut failing = Vec::with_capacity(look.errors.len());
        for error in look.errors {
            let what = (error.operation, error.path.clone());
            if !self.told.contains(&what) {
                happened.push(Happened::FileFailed(error));
            }
            failing.push(what);
        }
        self.told = failing;
    }
}

/// Asks the store about what is missing on the ingest side, once more of it can be read.
fn look_for_missing(
    registry: &Registry,
    catalogue: &Catalogue,
    is_more_known: bool,
    happened: &mut Vec<Happened>,
) {
    if is_more_known {
        registry.set_missing_stale();
    }
    if registry.is_missing_stale() {
        // Where that fails it is asked again the next time.
        let holdings = catalogue.look_for_holdings().ok();
        let holes = holdings.map(|holdings| registry.compare_missing(holdings));
        happened.extend(holes.filter(|holes| !holes.is_empty()).map(Happened::Damaged));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::NodeId;
    use crate::ingest::registry::RegistryOptions;
    use crate::node::opening::{self, NodeOptions, TopicOptions};
    use crate::storage::Storage;
    use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
    use crate::store::StoreDirectory;
    use crate::store::name::IdSource;
    use crate::store::testing::{SMALL, record, write};
    use std::path::Path;

    const INGEST: &str = "/ingest";
    const STORE: &str = "/store";

    /// A node with one published segment, which cannot be opened for now if `is_unread`.
    fn node(sim: &SimStorage, is_unread: bool) -> Node {
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        for path in [INGEST, STORE] {
            sim.create_dir_all(Path::new(path)).unwrap();
        }
        let (path, ids) = (PathBuf::from(STORE), IdSource::seeded(3));
        let store = Arc::new(StoreDirectory::new(Arc::clone(&storage), path, ids));
        write(&store, SMALL, &[record(1, 1), record(1, 2)]);
        if is_unread {
            sim.fail(Fault::random(Call::Open, 1.0, FaultError::Io).of(".flushed"));
        }
        let ingest = RegistryOptions::new(storage, PathBuf::from(INGEST), 5);
        let options = NodeOptions {
            ingest: Some(ingest),
            topics: TopicOptions::default(),
            store: Some(store),
            new_ingester: NodeId(1),
            new_store: NodeId(2),
        };
        opening::open(options, 1_000, &mut |_| {}).unwrap().node
    }

    struct Fixture {
        sim: SimStorage,
        node: Node,
        doors: Arc<Doors>,
        reading: ReadingAgain,
    }

    fn fixture(is_unread: bool) -> Fixture {
        let sim = SimStorage::new(1);
        let (node, doors) = (node(&sim, is_unread), Arc::new(Doors::default()));
        let reading = ReadingAgain::start(&node, Arc::clone(&doors), 0);
        Fixture { sim, node, doors, reading }
    }

    impl Fixture {
        fn turn(&mut self, now_ms: u64, is_lost: bool) -> Vec<Happened> {
            let now = Now { monotonic_us: 1000 * now_ms, wall_ms: 1_000 };
            self.reading.turn(now, &|_, _| is_lost)
        }
    }

    #[test]
    fn a_segment_that_could_not_be_read_is_tried_every_few_seconds_until_it_can() {
        let mut fixture = fixture(true);
        let store = fixture.node.store.clone().unwrap();
        assert_eq!(store.catalogue.totals().unread_count, 1);
        assert!(fixture.turn(4_000, false).is_empty(), "it still fails");
        fixture.sim.clear_faults();
        assert_eq!(fixture.reading.next_ms(), 5_000);
        assert!(fixture.turn(7_999, false).is_empty(), "the store waits longer");
        let happened = fixture.turn(9_000, false);
        assert!(matches!(&happened[..], [Happened::StoreSegmentBack(_)]), "{happened:?}");
        assert_eq!(store.catalogue.totals().unread_count, 0);
    }

    #[test]
    fn a_lost_name_is_told_once_and_keeps_the_node_from_being_ready_until_it_is_back() {
        let mut fixture = fixture(false);
        assert!(fixture.turn(999, true).is_empty(), "it is not time");
        let happened = fixture.turn(1_000, true);
        let [Happened::NamesLost(lost)] = &happened[..] else { panic!("{happened:?}") };
        assert_eq!((lost.side, lost.files, lost.records), (Side::Store, 1, 2));
        assert!(!fixture.doors.is_ready());
        assert!(fixture.turn(2_000, true).is_empty(), "told once");
        assert!(!fixture.doors.is_ready());
        let happened = fixture.turn(3_000, false);
        assert!(matches!(&happened[..], [Happened::NamesBack(_, 1)]), "{happened:?}");
        assert!(fixture.doors.is_ready());
    }

    #[test]
    fn nothing_is_looked_at_in_a_directory_that_was_taken_away() {
        let mut fixture = fixture(false);
        fixture.doors.set_taken_away([None, Some("gone".into())]);
        assert!(fixture.turn(1_000, true).is_empty());
        fixture.doors.set_taken_away([None, None]);
        assert_eq!(fixture.turn(2_000, true).len(), 1);
    }
}
