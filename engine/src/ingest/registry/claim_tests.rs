//! Claims against the registry's files: who gets a segment, who commits it, and what changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::{ClaimLimits, ClaimToken, Registry, RegistryOptions};
use crate::ingest::segment::{Content, Extent, SegmentFile, SegmentState, file_name};
use crate::storage::sim::{Call, Fault, FaultError, SimStorage};
use crate::storage::{Open, Storage};
use crate::ulid::Ulid;

const ALL: ClaimLimits = ClaimLimits { segments_max: 99, text_bytes_max: u64::MAX };
const TIMEOUT_MS: u64 = 60_000;

fn id(number: u64) -> Ulid {
    Ulid::from_parts(number, 1, 1)
}

/// A registry with so many flushed segments.
fn registry(sim: &SimStorage, seed: u64, segments: u64) -> Registry {
    let directory = Path::new("/ingest");
    sim.create_dir_all(directory).unwrap();
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let options = RegistryOptions::new(storage, PathBuf::from(directory), seed);
    assert_eq!(options.pending_timeout_ms, TIMEOUT_MS);
    let registry = Registry::new(options);
    for number in 0..segments {
        let path = directory.join(file_name(id(number), SegmentState::Flushed));
        sim.open(&path, Open::CreateNew).unwrap();
        registry.adopt(SegmentFile {
            id: id(number),
            cut: None,
            state: SegmentState::Flushed,
            extent: Extent::Found,
            file_len: 512,
            written_len: 512,
            content: Content { records: 1, text_bytes: 10, range: Some((id(number), id(number))) },
        });
    }
    registry
}

fn claim(registry: &Registry, now_ms: u64) -> (ClaimToken, Vec<Ulid>) {
    let claim = registry.claim(ALL, now_ms);
    assert!(claim.errors.is_empty());
    (claim.token, claim.segments.iter().map(|s| s.id()).collect())
}

fn left(registry: &Registry) -> Vec<(Ulid, SegmentState)> {
    registry.list().iter().map(|row| (row.id, row.state)).collect()
}

#[test]
fn a_claim_that_gets_on_does_not_expire_however_long_it_takes() {
    let sim = SimStorage::new(1);
    let registry = registry(&sim, 1, 2);
    let (token, ids) = claim(&registry, 0);
    for minute in 1..600 {
        assert_eq!(registry.renew(token, minute * 59_000).open, 2);
        assert_eq!(registry.expire(minute * 59_000 + 1_000).0, []);
    }
    assert_eq!(registry.commit(token, &registry.all_of(&ids), 0).segments, 2);
    assert!(left(&registry).is_empty() && sim.files().is_empty());
}

#[test]
fn a_claim_that_does_not_get_on_is_free_and_its_late_commit_counts_while_nobody_stored_it() {
    for claimed_again in [false, true] {
        let sim = SimStorage::new(1);
        let registry = registry(&sim, 1, 2);
        let (late, ids) = claim(&registry, 0);
        assert_eq!(registry.expire(TIMEOUT_MS - 1).0, []);
        assert_eq!(registry.expire(TIMEOUT_MS).0, ids);
        let other = claimed_again.then(|| claim(&registry, TIMEOUT_MS).0);
        let committed = registry.commit(late, &registry.all_of(&ids[..1]), 0);
        assert_eq!((committed.segments, committed.text_bytes), (1, 10));
        let Some(other) = other else {
            assert_eq!(left(&registry), [(ids[1], SegmentState::Flushed)]);
            continue;
        };
        assert_eq!(left(&registry), [(ids[1], SegmentState::Pending)]);
        assert_eq!(registry.renew(other, TIMEOUT_MS).open, 1, "the first commit wins");
        assert_eq!(registry.commit(other, &registry.all_of(&ids), 0).segments, 1);
        assert_eq!(registry.renew(late, TIMEOUT_MS).open, 0, "nothing is left to go on for");
        assert_eq!(registry.commit(late, &registry.all_of(&ids), 0).segments, 0);
        assert!(sim.files().is_empty());
    }
}

#[test]
fn a_late_failure_changes_nothing_for_those_who_have_claimed_meanwhile() {
    let sim = SimStorage::new(1);
    let registry = registry(&sim, 1, 2);
    let (late, ids) = claim(&registry, 0);
    registry.expire(TIMEOUT_MS);
    let (other, _) = claim(&registry, TIMEOUT_MS);
    assert_eq!(registry.fail(late).segments, 0);
    assert!(!registry.set_aside(late, &registry.all_of(&ids)[0], &[]).unwrap());
    assert!(left(&registry).iter().all(|(_, state)| *state == SegmentState::Pending));
    assert_eq!(registry.commit(late, &registry.all_of(&ids), 0).segments, 0, "it has given up");
    assert_eq!(registry.fail(other).segments, 2);
    assert!(left(&registry).iter().all(|(_, state)| *state == SegmentState::Flushed));
    assert_eq!(registry.fail(other).segments, 0);
}

#[test]
fn after_it_has_lapsed_a_claim_that_gets_on_takes_back_what_nobody_has_claimed() {
    let sim = SimStorage::new(1);
    let registry = registry(&sim, 1, 3);
    let (slow, ids) = claim(&registry, 0);
    registry.expire(TIMEOUT_MS);
    let one = ClaimLimits { segments_max: 1, ..ALL };
    let other = registry.claim(one, TIMEOUT_MS).token;
    assert_eq!(registry.renew(slow, TIMEOUT_MS).open, 3);
    assert!(claim(&registry, TIMEOUT_MS).1.is_empty());
    assert_eq!(registry.expire(2 * TIMEOUT_MS - 1).0, []);
    assert_eq!(registry.renew(slow, 2 * TIMEOUT_MS - 1).open, 3);
    assert_eq!(registry.expire(2 * TIMEOUT_MS).0, ids[..1], "the other's");
    assert_eq!(registry.fail(other).segments, 0);
    assert_eq!(registry.fail(slow).segments, 2);
}

#[test]
fn a_token_of_another_start_is_void() {
    let before = SimStorage::new(1);
    let (old, ids) = claim(&registry(&before, 1, 2), 0);
    let sim = SimStorage::new(1);
    let registry = registry(&sim, 2, 2);
    claim(&registry, 0);
    assert_eq!(registry.renew(old, 1).open, 0);
    assert_eq!(registry.commit(old, &registry.all_of(&ids), 0).segments, 0);
    assert_eq!(registry.fail(old).segments, 0);
    assert!(!registry.set_aside(old, &registry.all_of(&ids)[0], &[]).unwrap());
    assert!(left(&registry).iter().all(|(_, state)| *state == SegmentState::Pending));
}

#[test]
fn a_release_that_fails_is_tried_again_and_its_claim_may_still_commit() {
    let sim = SimStorage::new(1);
    let registry = registry(&sim, 1, 2);
    let (token, ids) = claim(&registry, 0);
    sim.fail(Fault::random(Call::Rename, 1.0, FaultError::Io));
    let (late, errors) = registry.expire(TIMEOUT_MS);
    assert_eq!((late.len(), errors.len()), (2, 2));
    assert_eq!(registry.commit(token, &registry.all_of(&ids[..1]), 0).segments, 1);
    let (late, errors) = registry.expire(TIMEOUT_MS);
    assert_eq!((late.len(), errors.len()), (0, 1));
    sim.clear_faults();
    assert!(registry.expire(TIMEOUT_MS).1.is_empty());
    assert_eq!(left(&registry), [(ids[1], SegmentState::Flushed)]);
}

#[derive(Debug, Clone)]
enum Step {
    Claim(usize),
    Renew(usize),
    Commit(usize, u8),
    Fail(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..4usize).prop_map(Step::Claim),
        (0..9usize).prop_map(Step::Renew),
        (0..9usize, any::<u8>()).prop_map(|(token, which)| Step::Commit(token, which)),
        (0..9usize).prop_map(Step::Fail),
        (0..70_000u64).prop_map(Step::Pass),
    ]
}

/// Who has which segment, without files.
struct Model {
    /// What a claim has been given and has not dealt with, and when it was last renewed.
    given: BTreeMap<usize, (Vec<Ulid>, Option<u64>)>,
    owner: BTreeMap<Ulid, Option<usize>>,
    /// Claims so far.
    claims: usize,
}

impl Model {
    fn of(ids: impl IntoIterator<Item = Ulid>) -> Self {
        let owner = ids.into_iter().map(|id| (id, None)).collect();
        Self { given: BTreeMap::new(), owner, claims: 0 }
    }

    /// The oldest that nobody has.
    fn claim(&mut self, count: usize, now_ms: u64) -> Vec<Ulid> {
        let free = self.owner.iter().filter(|(_, owner)| owner.is_none());
        let ids: Vec<Ulid> = free.map(|(&id, _)| id).take(count).collect();
        for id in &ids {
            self.owner.insert(*id, Some(self.claims));
        }
        if !ids.is_empty() {
            self.given.insert(self.claims, (ids.clone(), Some(now_ms)));
        }
        self.claims += 1;
        ids
    }

    /// How many of its segments are there. A claim that has lapsed takes back what is free.
    fn renew(&mut self, at: usize, now_ms: u64) -> usize {
        let Some((given, progress)) = self.given.get_mut(&at) else { return 0 };
        let open = given.iter().filter(|id| self.owner.contains_key(id)).count();
        let mut is_live = progress.is_some();
        for id in given.iter().filter(|_| progress.is_none()) {
            if let Some(owner) = self.owner.get_mut(id).filter(|owner| owner.is_none()) {
                *owner = Some(at);
                is_live = true;
            }
        }
        *progress = is_live.then_some(now_ms);
        open
    }

    /// How many go.
    fn commit(&mut self, at: usize, ids: &[Ulid]) -> u64 {
        let Some((given, _)) = self.given.get_mut(&at) else { return 0 };
        let mut gone = 0;
        for id in ids {
            if given.contains(id) {
                given.retain(|other| other != id);
                gone += u64::from(self.owner.remove(id).is_some());
            }
        }
        if given.is_empty() {
            self.given.remove(&at);
        }
        gone
    }

    /// How many are free again.
    fn fail(&mut self, at: usize) -> u64 {
        self.given.remove(&at);
        self.free(at)
    }

    fn free(&mut self, at: usize) -> u64 {
        let mut freed = 0;
        for owner in self.owner.values_mut().filter(|owner| **owner == Some(at)) {
            (*owner, freed) = (None, freed + 1);
        }
        freed
    }

    fn pass(&mut self, now_ms: u64) {
        let mut late = Vec::new();
        for (at, (_, progress)) in &mut self.given {
            if progress.take_if(|since| now_ms >= *since + TIMEOUT_MS).is_some() {
                late.push(*at);
            }
        }
        for at in late {
            self.free(at);
        }
    }

    fn states(&self) -> Vec<(Ulid, SegmentState)> {
        let state = |owner: &Option<usize>| match owner {
            Some(_) => SegmentState::Pending,
            None => SegmentState::Flushed,
        };
        self.owner.iter().map(|(&id, owner)| (id, state(owner))).collect()
    }
}

proptest! {
    /// Against a model that knows no files: segments are had by one claim at a time, the oldest first,
    /// go once, and only by a commit of somebody who was given them.
    #[test]
    fn any_order_of_steps_ends_as_in_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let sim = SimStorage::new(1);
        let registry = registry(&sim, 1, 6);
        let mut model = Model::of((0..6).map(id));
        let (mut tokens, mut now_ms) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Claim(count) => {
                    let found = registry.claim(ClaimLimits { segments_max: count, ..ALL }, now_ms);
                    let ids: Vec<Ulid> = found.segments.iter().map(|s| s.id()).collect();
                    prop_assert_eq!(ids, model.claim(count, now_ms));
                    tokens.push(found.token);
                }
                Step::Renew(at) if at < tokens.len() => {
                    let open = registry.renew(tokens[at], now_ms).open;
                    prop_assert_eq!(open, model.renew(at, now_ms));
                }
                Step::Commit(at, which) if at < tokens.len() => {
                    let ids: Vec<Ulid> = (0..6).filter(|n| which >> n & 1 == 1).map(id).collect();
                    let gone = registry.commit(tokens[at], &registry.all_of(&ids), now_ms).segments;
                    prop_assert_eq!(gone, model.commit(at, &ids));
                }
                Step::Fail(at) if at < tokens.len() => {
                    prop_assert_eq!(registry.fail(tokens[at]).segments, model.fail(at));
                }
                Step::Pass(ms) => {
                    now_ms += ms;
                    registry.expire(now_ms);
                    model.pass(now_ms);
                }
                _ => {}
            }
            prop_assert_eq!(left(&registry), model.states());
            prop_assert_eq!(sim.files().len(), model.owner.len());
        }
    }
}
