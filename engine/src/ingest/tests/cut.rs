//! Segments that no last frame ends: what their names say of their ends, and what rots there.

use super::unread::{cut_by_a_kill, disk, gathered, recovered_on, segment_files};
use super::*;
use crate::storage::sim::SimStorage;

/// Whether a query for each of these records alone finds it or says that something is missing.
fn check_each_is_found_or_told(registry: &Registry, all: &Records) {
    let pinned = registry.pin();
    let parts: Vec<_> = pinned
        .segments
        .iter()
        .map(|segment| (Part::range(&**segment), read_part(&**segment)))
        .collect();
    let covers =
        |damage: &Damage, ulid| damage.range.is_none_or(|(from, to)| (from..=to).contains(ulid));
    for ulid in all.keys() {
        let is_lost = pinned.lost.iter().any(|damage| covers(damage, ulid));
        let mut met = parts.iter().filter(|((first, last), _)| (first..=last).contains(&ulid));
        let is_answered = met.any(|(_, (records, damage))| {
            records.contains_key(ulid) || damage.iter().any(|damage| covers(damage, ulid))
        });
        assert!(is_lost || is_answered, "{ulid} is missing in silence");
    }
}

/// Each way in which the bytes of a span may rot.
fn rotten(sim: &SimStorage, path: &Path, span: &std::ops::Range<u64>) -> Vec<SimStorage> {
    let spots = [0, 20, HEADER_BYTES as u64 + 5, span.end - span.start - 600];
    let rot = |bytes: &dyn Fn(&mut Vec<u8>)| {
        let copy = sim.kill();
        let mut content = copy.read_file(path).unwrap();
        bytes(&mut content);
        let file = copy.open(path, Open::Write).unwrap();
        file.set_len(content.len() as u64).unwrap();
        file.write_all_at(&content, 0).unwrap();
        file.sync().unwrap();
        copy
    };
    let (start, end) = (span.start as usize, span.end as usize);
    let flipped = spots.iter().map(|&at| rot(&|bytes| bytes[start + at as usize] ^= 0x55));
    let mut all: Vec<_> = flipped.collect();
    all.push(rot(&|bytes| bytes[start..end].fill(0)));
    all.push(rot(&|bytes| bytes.truncate(start)));
    all.push(rot(&|bytes| bytes.truncate(start + 100)));
    all
}

#[test]
fn the_rotten_last_frame_of_a_cut_segment_is_missing_from_no_complete_answer() {
    let (sim, all, path, span) = cut_by_a_kill();
    for (way, sim) in rotten(&sim, &path, &span).into_iter().enumerate() {
        for start in 0..2 {
            let found = recovered_on(&sim);
            check_each_is_found_or_told(&found.registry, &all);
            let segments = found.registry.snapshot();
            let left: usize = segments.iter().map(|segment| read_part(&**segment).0.len()).sum();
            assert!(left > all.len() / 2, "{way}: the others are there");
            let checked = segment_files(&sim).into_iter().flat_map(|path| {
                let name = FileName::parse(path.file_name().unwrap().to_str().unwrap()).unwrap();
                check_segment(&sim, &path, name.id, name.state).unwrap().damage
            });
            assert!(checked.count() > 0, "{way}: fsck finds it at start {start}");
        }
        // And when what is readable is in the store.
        let registry = recovered_on(&sim).registry;
        assert_eq!(gathered(&registry, 0), Some(false), "{way}");
        for registry in [registry, recovered_on(&sim).registry, recovered_on(&sim).registry] {
            registry.look_again(1_000_000);
            assert_eq!(registry.list()[0].state, SegmentState::Damaged);
            assert!(!registry.pin().lost.is_empty(), "{way}");
        }
    }
}

#[test]
fn the_rotten_last_frame_of_a_flushed_segment_is_missing_from_no_complete_answer() {
    let sim = disk();
    let registry = recovered_on(&sim).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    for _ in 0..5 {
        shard.append(&lines(2, 300));
        shard.log.want_durable();
        shard.work(&registry);
    }
    shard.stop(&registry);
    let segment = registry.snapshot().remove(0);
    let bytes = sim.read_file(&segment.path()).unwrap();
    let magic = super::super::frame::MAGIC;
    let starts = (0..bytes.len()).step_by(512).filter(|&at| bytes[at..].starts_with(&magic));
    let starts: Vec<u64> = starts.map(|at| at as u64).collect();
    // The mark of the end may be a frame of its own: from the last one with records on.
    let from = starts[starts.len() - 2];
    for sim in rotten(&sim, &segment.path(), &(from..segment.written_len())) {
        check_each_is_found_or_told(&recovered_on(&sim).registry, &shard.appended);
    }
}

#[test]
fn a_name_says_up_to_where_a_cut_segment_was_on_the_disk() {
    let id = Ulid::from_parts(1_700_000_000_000, 1, 2);
    let name = |cut| FileName { id, state: SegmentState::Flushed, cut };
    for (cut, text) in [
        (None, "flushed"),
        (Some(Cut { end: 4096, sure: 0 }), "4096.flushed"),
        (Some(Cut { end: 4096, sure: 512 }), "512-4096.flushed"),
        (Some(Cut { end: 4096, sure: 4096 }), "4096-4096.flushed"),
    ] {
        assert_eq!(name(cut).to_string(), format!("{id}.{text}"));
        assert_eq!(FileName::parse(&format!("{id}.{text}")), Some(name(cut)));
    }
    for other in ["0-4096", "4096-512", "-4096", "512-", "0512-4096", "+1-4", "1-2-3", ""] {
        assert_eq!(FileName::parse(&format!("{id}.{other}.flushed")), None, "{other}");
    }
}

#[test]
fn what_was_not_synced_of_a_segment_whose_sync_failed_may_be_missing_and_all_else_may_not() {
    let sim = disk();
    let registry = recovered_on(&sim).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    for _ in 0..4 {
        shard.append(&lines(2, 300));
        shard.log.want_durable();
        shard.work(&registry);
    }
    let synced = shard.appended.clone();
    let sure = registry.snapshot()[0].written_len();
    shard.append(&lines(2, 300));
    shard.log.want_durable();
    let segment = shard.fail_next_sync(&registry);
    registry.flush(&segment, segment.written_len(), 1).unwrap();
    let name = FileName::parse(segment.path().file_name().unwrap().to_str().unwrap()).unwrap();
    let end = segment.written_len();
    assert_eq!(name.cut, Some(Cut { end, sure }));
    assert!(end > sure);
    for (way, sim) in rotten(&sim, &segment.path(), &(sure..end)).into_iter().enumerate() {
        let found = recovered_on(&sim);
        assert_eq!(found.registry.pin().lost, [], "{way}: nobody was promised these");
        assert_eq!(read_all(&found.registry), synced, "{way}");
    }
    for sim in rotten(&sim, &segment.path(), &(sure - 1024..sure)) {
        check_each_is_found_or_told(&recovered_on(&sim).registry, &synced);
    }
}
