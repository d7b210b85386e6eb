//! The gate of the search pool against a model of queries that take and give back memory.

use proptest::prelude::*;

use super::fair_queue::FairQueue;

/// Largest block, bytes.
const BLOCK: usize = 17;
const THREADS: usize = 2;

/// What a query does with its blocks, one group after the other: it needs all blocks of a group in
/// memory before it can hand any of them out. Then its reader takes so many turns of others to come
/// back, if it comes back before what it waits for has to be read again.
#[derive(Debug, Clone)]
struct Group {
    blocks: Vec<usize>,
    reader_turns: usize,
}

/// A query of the model.
#[derive(Debug)]
struct Query {
    groups: Vec<Group>,
    /// Blocks of the first group that are in memory.
    kept: usize,
    /// FairQueue until its reader comes back.
    behind: usize,
}

impl Query {
    fn kept_bytes(&self) -> usize {
        self.groups.first().map_or(0, |group| group.blocks[..self.kept].iter().sum())
    }
}

fn groups() -> impl Strategy<Value = Vec<Group>> {
    let blocks = prop::collection::vec(1..=BLOCK, 1..5);
    let group = (blocks, 0..4_usize);
    let group = group.prop_map(|(blocks, reader_turns)| Group { blocks, reader_turns });
    prop::collection::vec(group, 0..5)
}

/// Takes up to as many blocks as there are threads: what is at work when the gate closes.
fn turn(turns: &mut FairQueue, queries: &mut [Query], id: u64, kept: usize, max: usize) {
    let query = &mut queries[id as usize];
    let Some(group) = query.groups.first() else { return turns.leave(id) };
    if query.kept == group.blocks.len() {
        // It hands out, up to where its reader is.
        if group.reader_turns > 0 {
            query.behind = group.reader_turns;
            query.groups[0].reader_turns = 0;
            return turns.park(id);
        }
        query.groups.remove(0);
        query.kept = 0;
        turns.keeps_nothing(id);
        turns.ready(id);
    } else if turns.may_take_memory(id, kept <= max) {
        turns.charge(id, group.blocks[query.kept] as u64);
        query.kept += 1;
        turns.ready(id);
    } else {
        turns.wait(id, query.kept > 0);
    }
}

proptest! {
    #[test]
    fn every_query_comes_to_its_end_within_the_bound(
        queries in prop::collection::vec(groups(), 1..12),
        max in 0..100_usize,
    ) {
        let blocks = |groups: &[Group]| groups.iter().map(|g| g.blocks.iter().sum()).max();
        let largest: usize = queries.iter().filter_map(|groups| blocks(groups)).max().unwrap_or(0);
        let steps: usize = queries.iter().flatten().map(|g| 2 * g.blocks.len() + 8).sum();
        let new = |groups| Query { groups, kept: 0, behind: 0 };
        let mut queries: Vec<Query> = queries.into_iter().map(new).collect();
        let mut turns = FairQueue::default();
        for id in 0..queries.len() as u64 {
            turns.join(id);
            turns.ready(id);
        }
        let kept = |queries: &[Query]| queries.iter().map(Query::kept_bytes).sum::<usize>();
        for _ in 0..50 * (steps + queries.len()) {
            // Each thread decides by what was kept before any of them went to work.
            let before = kept(&queries);
            let taken: Vec<u64> = (0..THREADS).map_while(|_| turns.take(before <= max)).collect();
            let idle = taken.is_empty();
            for id in taken {
                turn(&mut turns, &mut queries, id, before, max);
            }
            let bound = max + THREADS * BLOCK + largest;
            prop_assert!(kept(&queries) <= bound, "{} of {bound}", kept(&queries));
            for (id, query) in queries.iter_mut().enumerate().filter(|(_, q)| q.behind > 0) {
                // One that is behind for long gives back where others wait.
                if idle && before > max && query.kept > 0 {
                    query.kept = 0;
                    turns.keeps_nothing(id as u64);
                }
                query.behind -= 1;
                if query.behind == 0 {
                    turns.ready(id as u64);
                }
            }
            if queries.iter().all(|query| query.groups.is_empty()) {
                return Ok(());
            }
        }
        prop_assert!(false, "some never end: {queries:?}");
    }
}
