//! Random lives of a store against a model of a few lines: a hole is told if and only if a record that
//! was published, durable and in the inventory on disk is in no file, and was neither let go nor is too
//! old.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::look::check;
use super::*;
use crate::fuzz::cases;
use crate::storage::Storage;
use crate::storage::sim::SimStorage;
use crate::store::StoreDirectory;
use crate::store::catalogue::Catalogue;
use crate::store::name::IdSource;
use crate::store::recover::recover;
use crate::store::segment::StoreSegment;
use crate::store::testing::{Record, SMALL, record, write};

const STORE: &str = "/store";
const STREAMS: u64 = 3;

#[derive(Debug, Clone)]
enum Act {
    /// A segment of the next records of some streams, so many each.
    Publish(Vec<(u64, u64)>),
    /// Neighbours become one.
    Compact(usize, usize),
    /// The oldest segments go, through the trash and out of it.
    Expire(usize),
    /// Somebody deletes a file while no node runs, or moves it away.
    Vanish(usize),
    /// What was moved away comes back.
    ComeBack,
    /// The inventory is brought to disk.
    Save,
    /// A kill and a start.
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let part = (0..STREAMS, 1u64..6);
    prop_oneof![
        6 => proptest::collection::vec(part, 1..4).prop_map(Act::Publish),
        2 => (any::<usize>(), 2usize..4).prop_map(|(at, count)| Act::Compact(at, count)),
        2 => (1usize..3).prop_map(Act::Expire),
        2 => any::<usize>().prop_map(Act::Vanish),
        1 => Just(Act::ComeBack),
        3 => Just(Act::Save),
        2 => Just(Act::Restart),
    ]
}

type Set = BTreeSet<(u64, u64)>;

/// What is what: the ten lines.
#[derive(Default)]
struct Model {
    /// By file.
    files: BTreeMap<PathBuf, Set>,
    claimed: Set,
    /// Of it, what the file says.
    saved: Set,
    /// By stream of which anything is claimed: what went last, and nothing before it is claimed.
    cuts: BTreeMap<u64, u64>,
}

impl Model {
    fn claim(&mut self, records: &Set) {
        let cuts = &self.cuts;
        let is_new = |(s, c): &&(u64, u64)| cuts.get(s).is_none_or(|cut| c > cut);
        self.claimed.extend(records.iter().filter(is_new));
    }

    fn let_go(&mut self, gone: &Set) {
        for &(stream, counter) in gone {
            let cut = self.cuts.entry(stream).or_default();
            *cut = counter.max(*cut);
        }
        self.claimed.retain(|(s, c)| self.cuts.get(s).is_none_or(|cut| c > cut));
        self.cuts.retain(|stream, _| self.claimed.iter().any(|(s, _)| s == stream));
    }

    fn missing(&self) -> Set {
        let is_there =
            |record: &&(u64, u64)| self.files.values().any(|held| held.contains(*record));
        self.saved.iter().filter(|record| !is_there(record)).copied().collect()
    }
}

struct Life {
    sim: SimStorage,
    ids: u64,
    catalogue: Catalogue,
    next: [u64; STREAMS as usize],
    away: Vec<(PathBuf, Set)>,
    model: Model,
}

fn directory(sim: &SimStorage, seed: u64) -> Arc<StoreDirectory> {
    let storage = Arc::new(sim.clone());
    Arc::new(StoreDirectory::new(storage, PathBuf::from(STORE), IdSource::seeded(seed << 32)))
}

fn set(records: &[Record]) -> Set {
    records.iter().map(|record| (record.ulid.stream(), record.ulid.counter())).collect()
}

fn told(damage: &[Damage]) -> Set {
    let gaps = damage.iter().map(|damage| match damage.kind {
        DamageKind::Missing(_, gap) => gap,
        _ => panic!("{damage}"),
    });
    gaps.flat_map(|gap| (gap.from..=gap.to).map(move |counter| (gap.stream, counter))).collect()
}

fn away(number: usize) -> PathBuf {
    Path::new("/away").join(number.to_string())
}

impl Life {
    fn new() -> Self {
        let sim = SimStorage::new(1);
        for path in [STORE, "/away"] {
            sim.create_dir_all(Path::new(path)).unwrap();
        }
        sim.sync_dir(Path::new("/")).unwrap();
        let catalogue = recover(&directory(&sim, 1), 0).unwrap().catalogue;
        let (next, away, model) = ([0; STREAMS as usize], Vec::new(), Model::default());
        Self { sim, ids: 1, catalogue, next, away, model }
    }

    fn write(&mut self, mut records: Vec<Record>, remove: &[Arc<StoreSegment>]) {
        records.sort();
        records.dedup();
        let segment = write(self.catalogue.directory(), SMALL, &records);
        self.model.files.insert(segment.path().to_owned(), set(&records));
        self.model.claim(&set(&records));
        self.catalogue.publish(vec![segment], remove);
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Publish(parts) => {
                let mut records = Vec::new();
                for (stream, count) in parts {
                    let next = &mut self.next[stream as usize];
                    records.extend((*next..*next + count).map(|n| record(stream, n)));
                    *next += count;
                }
                self.write(records, &[]);
            }
            Act::Compact(at, count) => {
                let snapshot = self.catalogue.snapshot();
                if snapshot.is_empty() {
                    return;
                }
                let at = at % snapshot.len();
                let inputs: Vec<_> = snapshot.iter().skip(at).take(count).cloned().collect();
                drop(snapshot);
                let held = inputs.iter().flat_map(|input| &self.model.files[input.path()]);
                let records = held.map(|&(stream, n)| record(stream, n)).collect();
                for input in &inputs {
                    self.model.files.remove(input.path());
                }
                self.write(records, &inputs);
                drop(inputs);
                self.catalogue.remove_replaced();
            }
            Act::Expire(count) => self.expire(count),
            Act::Vanish(at) => {
                // A node that runs tells of it by itself.
                let Some(path) = self.model.files.keys().nth(at % (self.model.files.len() + 1))
                else {
                    return;
                };
                let path = path.clone();
                self.sim.rename(&path, &away(self.away.len())).unwrap();
                let held = self.model.files.remove(&path).unwrap();
                self.away.push((path, held));
                self.restart();
            }
            Act::ComeBack => {
                while let Some((path, held)) = self.away.pop() {
                    self.sim.rename(&away(self.away.len()), &path).unwrap();
                    self.model.files.insert(path, held);
                }
                self.restart();
            }
            Act::Save => self.save(),
            Act::Restart => self.restart(),
        }
    }

    fn save(&mut self) {
        self.catalogue.save_inventory().unwrap();
        self.model.saved = self.model.claimed.clone();
    }

    fn expire(&mut self, count: usize) {
        let mut segments = self.catalogue.snapshot().to_vec();
        segments.sort_by_key(|segment| segment.meta().last);
        segments.truncate(count);
        for segment in &segments {
            let gone = self.model.files.remove(segment.path()).unwrap();
            self.model.let_go(&gone);
        }
        self.catalogue.retire(&segments);
        let count = segments.len();
        drop(segments);
        assert!(self.catalogue.is_settled() || self.catalogue.move_to_trash(0).done.is_empty());
        if count > 0 {
            self.save();
            let trashed = self.catalogue.move_to_trash(0).done;
            assert_eq!(trashed.len(), count);
            assert_eq!(self.catalogue.purge(&trashed).done.len(), count);
        }
    }

    /// A kill; then the model knows what the file said, and what there is.
    fn restart(&mut self) {
        self.ids += 1;
        let recovered = recover(&directory(&self.sim, self.ids), 0).unwrap();
        let missing = self.model.missing();
        assert_eq!(told(&recovered.damage), missing);
        assert_eq!(told(&recovered.catalogue.holes()), missing);
        let there = self.model.files.values().flatten().copied().collect();
        self.model.claimed = self.model.saved.clone();
        self.model.claim(&there);
        self.catalogue = recovered.catalogue;
    }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn a_hole_is_told_if_and_only_if_a_durable_record_is_missing(
        acts in proptest::collection::vec(act(), 1..40),
    ) {
        let mut life = Life::new();
        for act in acts {
            life.act(act);
            let damage = check(&life.sim, &Path::new(STORE).join(INVENTORY_FILE));
            let found = damage.map_or_else(|_| Set::new(), |damage| told(&damage));
            prop_assert_eq!(found, life.model.missing());
        }
        life.restart();
    }
}
