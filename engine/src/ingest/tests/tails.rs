//! Tail files that are damaged, cut, zeroed, something else, or half made: what can be read of them is
//! found, what cannot is told, for as long as the file lies there.

use super::unread::{INGEST, disk};
use super::*;
use crate::damage::DamageKind;
use crate::limits::{TAILS_ASIDE_MAX, UNREAD_PAUSE_MS_MAX};
use crate::storage::sim::{Call, Fault, FaultError, SimStorage, When};

fn found_in(directory: &Path) -> Recovered {
    recover(options(directory), &HashMap::new(), LATER_MS).unwrap()
}

fn found_on(sim: &SimStorage) -> Recovered {
    let storage = Arc::new(sim.clone());
    let options = RegistryOptions { storage, ..options(Path::new(INGEST)) };
    recover(options, &HashMap::new(), LATER_MS).unwrap()
}

/// A shard that was killed with chunks of these records in the first slot of its tail file, and nothing
/// anywhere else; the offsets of the chunks.
fn killed(registry: &Registry, rounds: &[&str]) -> (Records, Vec<u64>) {
    let mut shard = Shard::start(registry, 0, 5);
    let mut offsets = Vec::new();
    for round in rounds {
        let len = shard.log.stats().tail_bytes;
        offsets.push(len - (offsets.len() * tail::END_BYTES) as u64);
        shard.append(round);
        shard.work(registry);
        shard.advance(20_000);
        shard.work(registry);
        assert!(shard.log.stats().tail_bytes > len, "it went to the tail file");
    }
    (shard.appended, offsets)
}

const ROUNDS: [&str; 4] = ["a one\na two\n", "b one\n", "c one\nc two\nc three\n", "d one\n"];

fn killed_in(directory: &Path) -> (Records, Vec<u64>) {
    killed(&found_in(directory).registry, &ROUNDS)
}

fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn aside_in(directory: &Path) -> Vec<PathBuf> {
    let names = names(directory).into_iter();
    let asides = names.filter(|name| tail::parse_aside_file_name(name).is_some());
    asides.map(|name| directory.join(name)).collect()
}

/// What is lacking is told; a shard that starts then is told of nothing.
fn lost_in(found: &Recovered, appended: &Records) -> Vec<Damage> {
    let left = read_all(&found.registry);
    let lost = found.registry.pin().lost;
    for (ulid, record) in appended {
        let is_told = || {
            let mut ranges = lost.iter().filter_map(|damage| damage.range);
            ranges.any(|(from, to)| (from..=to).contains(ulid))
        };
        assert_eq!(left.get(ulid).unwrap_or(record), record);
        assert!(left.contains_key(ulid) || is_told(), "{ulid} is missing in silence: {lost:?}");
        assert!(
            !(left.contains_key(ulid)
                && lost.len() == 1
                && lost[0].records == Some(3)
                && is_told())
        );
    }
    let after = Ulid::from_parts(LATER_MS + 1, 0, 0);
    assert!(lost.iter().all(|damage| damage.range.is_none_or(|(_, to)| to < after)), "{lost:?}");
    lost
}

#[test]
fn a_bad_chunk_costs_its_records_and_is_told_until_its_file_is_taken_away() {
    let directory = scratch();
    let (appended, offsets) = killed_in(directory.path());
    let path = directory.path().join(tail::file_name(0));
    flip(&path, offsets[2] + HEADER_BYTES as u64);
    let bytes = fs::read(&path).unwrap();
    let mut lost = Vec::new();
    for life in 0..3 {
        let found = found_in(directory.path());
        assert_eq!(found.tail_records, 4, "taken again, as copies, at each start");
        assert_eq!(read_all_copies(&found.registry).len(), 4, "what is behind it is found");
        let [aside] = &aside_in(directory.path())[..] else { panic!("it is put aside once") };
        assert_eq!(fs::read(aside).unwrap(), bytes, "as it was");
        let told = lost_in(&found, &appended);
        let [damage] = &told[..] else { panic!("{told:?}") };
        assert_eq!((&damage.path, damage.records), (aside, Some(3)));
        assert_eq!(
            (damage.offset, damage.kind.clone()),
            (offsets[2], DamageKind::Checksum("tail chunk"))
        );
        assert!(life == 0 || lost == told, "the same after every restart");
        assert_eq!((found.report, found.torn.len()), (told.clone(), 0));
        assert_eq!((found.registry.damaged_files(), found.registry.unread_files()), (1, 0));
        assert!(found.registry.prepare_tail(0).is_ok(), "the shard has a fresh one");
        lost = told;
    }
    let found = found_in(directory.path());
    assert_eq!(found.registry.look_again(1).taken_away, Vec::<PathBuf>::new());
    let aside = aside_in(directory.path()).remove(0);
    fs::remove_file(&aside).unwrap();
    let look = found.registry.look_again(1 + UNREAD_PAUSE_MS_MAX);
    assert_eq!(look.taken_away, [aside]);
    assert_eq!((found.registry.pin().lost, found.registry.damaged_files()), (vec![], 0));
    let found = found_in(directory.path());
    assert_eq!((found.report.len(), found.registry.pin().lost.len()), (0, 0));
}

#[test]
fn a_damaged_tail_file_goes_when_all_that_it_may_have_held_has_expired_or_when_it_is_mended() {
    let directory = scratch();
    let (appended, offsets) = killed_in(directory.path());
    let path = directory.path().join(tail::file_name(0));
    flip(&path, offsets[1] + 50);
    let found = found_in(directory.path());
    let aside = aside_in(directory.path());
    assert_eq!(found.registry.expire_unread(LATER_MS).0, Vec::<PathBuf>::new());
    flip(&aside[0], offsets[1] + 50);
    let found = found_in(directory.path());
    assert!(matches!(&found.notes[..], [Note::Mended(path)] if *path == aside[0]));
    assert_eq!((read_all_copies(&found.registry), found.registry.pin().lost), (appended, vec![]));

    let directory = scratch();
    killed_in(directory.path());
    let path = directory.path().join(tail::file_name(0));
    flip(&path, offsets[1] + 50);
    let found = found_in(directory.path());
    let aside = aside_in(directory.path());
    let (gone, errors) = found.registry.expire_unread(LATER_MS + 1);
    assert_eq!((gone, errors.len()), (aside, 0));
    assert_eq!((found.registry.pin().lost, aside_in(directory.path())), (vec![], vec![]));
}

#[test]
fn bytes_behind_a_tail_file_are_told_once_and_cost_nothing() {
    let directory = scratch();
    let (appended, _) = killed_in(directory.path());
    let path = directory.path().join(tail::file_name(0));
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..], &[b'x'; 5000]].concat()).unwrap();
    let found = found_in(directory.path());
    let [damage] = &found.report[..] else { panic!("{:?}", found.report) };
    assert_eq!((damage.len_bytes, damage.records), (5000, Some(0)));
    assert_eq!(read_all(&found.registry), appended);
    assert_eq!(found_in(directory.path()).report, []);
    assert_eq!(fs::metadata(&path).unwrap().len(), tail::FILE_BYTES);
}

/// Bytes that come back one by one: what is told gets less only with what is taken.
#[test]
fn what_comes_back_of_a_damaged_tail_file_is_taken_though_it_is_not_whole() {
    let directory = scratch();
    let (appended, offsets) = killed_in(directory.path());
    let path = directory.path().join(tail::file_name(0));
    let whole = fs::read(&path).unwrap();
    fs::write(&path, vec![0; whole.len()]).unwrap();
    let found = found_in(directory.path());
    assert_eq!(read_all_copies(&found.registry).len(), 0);
    let aside = aside_in(directory.path()).remove(0);
    fs::write(&aside, &whole).unwrap();
    flip(&aside, offsets[1] + 50);
    for _ in 0..2 {
        let found = found_in(directory.path());
        let [damage] = &found.report[..] else { panic!("{:?}", found.report) };
        let lost = damage.records.unwrap() as usize;
        assert!(lost > 0 && lost < appended.len());
        assert_eq!(read_all_copies(&found.registry).len() + lost, appended.len());
    }
}

/// As [`read_all`], where a record may be in several segments.
fn read_all_copies(registry: &Registry) -> Records {
    let mut all = Records::new();
    for segment in registry.snapshot() {
        let (records, damage) = read_part(&*segment);
        assert_eq!(damage, []);
        all.extend(records);
    }
    all
}

#[test]
fn a_file_that_is_zeroed_cut_or_scribbled_over_is_damaged_and_not_empty() {
    let zero = |bytes: &mut Vec<u8>| bytes.fill(0);
    let cut_to_nothing = |bytes: &mut Vec<u8>| bytes.clear();
    let cut_and_extended = |bytes: &mut Vec<u8>| {
        bytes.truncate(40);
        bytes.resize(2 * TAIL_SLOT_BYTES, 0);
    };
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(TAIL_SLOT_BYTES);
    let scribble = |bytes: &mut Vec<u8>| bytes[..150].copy_from_slice(&[b'x'; 150]);
    let changes: [(&dyn Fn(&mut Vec<u8>), usize); 5] =
        [(&zero, 0), (&cut_to_nothing, 0), (&cut_and_extended, 0), (&cut, 7), (&scribble, 4)];
    for (change, least) in changes {
        let directory = scratch();
        let (appended, _) = killed_in(directory.path());
        let path = directory.path().join(tail::file_name(0));
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let checked = super::super::check::check_tail(&OsStorage, &path).unwrap();
        assert!(checked.damage.iter().any(Damage::loses_records), "{checked:?}");
        for _ in 0..2 {
            let found = found_in(directory.path());
            assert!(!lost_in(&found, &appended).is_empty());
            assert!(read_all(&found.registry).len() >= least);
            assert_eq!(fs::read(&aside_in(directory.path())[0]).unwrap(), bytes);
            found.registry.prepare_tail(0).unwrap();
        }
    }
}

#[test]
fn a_file_of_another_length_whose_slots_are_whole_loses_nothing_and_is_told() {
    for len in [TAIL_SLOT_BYTES + 500, 2 * TAIL_SLOT_BYTES + 9] {
        let directory = scratch();
        let (appended, _) = killed_in(directory.path());
        let path = directory.path().join(tail::file_name(0));
        let mut bytes = fs::read(&path).unwrap();
        bytes.resize(len, b'x');
        fs::write(&path, &bytes).unwrap();
        let found = found_in(directory.path());
        assert_eq!((read_all(&found.registry), found.registry.pin().lost), (appended, vec![]));
        let [damage] = &found.report[..] else { panic!("{:?}", found.report) };
        assert!(!damage.loses_records() && damage.records == Some(0));
        found.registry.prepare_tail(0).unwrap();
        assert!(fs::metadata(&path).unwrap().len() >= tail::FILE_BYTES);
        assert_eq!(aside_in(directory.path()).len(), 0);
    }
}

#[test]
fn what_is_no_file_is_told_and_its_shard_does_without() {
    for is_link in [false, true] {
        let directory = scratch();
        let path = directory.path().join(tail::file_name(0));
        let target = directory.path().join("elsewhere");
        fs::write(&target, "somebody's").unwrap();
        if is_link {
            std::os::unix::fs::symlink(&target, &path).unwrap();
        } else {
            fs::create_dir(&path).unwrap();
        }
        let found = found_in(directory.path());
        let lost = lost_in(&found, &Records::new());
        assert_eq!((lost.len(), lost[0].kind.clone()), (1, DamageKind::NotAFile));
        assert!(found.registry.prepare_tail(0).is_err() && found.registry.prepare_tail(1).is_ok());
        assert!(found.registry.look_again(1).errors.is_empty());
        assert_eq!(found.registry.pin().lost.len(), 1);
        if is_link { fs::remove_file(&path) } else { fs::remove_dir(&path) }.unwrap();
        assert_eq!(found.registry.look_again(2 * UNREAD_PAUSE_MS_MAX).taken_away, [path]);
        assert_eq!(fs::read(&target).unwrap(), b"somebody's");
        assert!(found.registry.pin().lost.is_empty() && found.registry.prepare_tail(0).is_ok());
    }
}

#[test]
fn a_write_that_a_kill_cut_short_is_told_once_with_what_its_header_says() {
    let directory = scratch();
    let (appended, offsets) = killed_in(directory.path());
    let path = directory.path().join(tail::file_name(0));
    let mut bytes = fs::read(&path).unwrap();
    let last = offsets[3] as usize;
    bytes[last + HEADER_BYTES + 2..last + 200].fill(0x55);
    fs::write(&path, &bytes).unwrap();
    let found = found_in(directory.path());
    let [torn] = &found.torn[..] else { panic!("{:?}", found.torn) };
    assert_eq!((torn.kind.clone(), torn.records), (DamageKind::Unfinished, Some(1)));
    assert_eq!((read_all(&found.registry).len(), found.report.len()), (appended.len() - 1, 0));
    assert_eq!((found.registry.pin().lost, aside_in(directory.path())), (vec![], vec![]));
    let again = found_in(directory.path());
    assert_eq!((again.torn, again.report), (vec![], vec![]));
}

#[test]
fn damage_of_a_frame_that_is_whole_in_its_segment_is_none() {
    let directory = scratch();
    let registry = found_in(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    for round in ROUNDS {
        shard.append(round);
        shard.work(&registry);
        shard.advance(20_000);
        shard.work(&registry);
    }
    shard.log.want_durable();
    shard.work(&registry);
    let path = directory.path().join(tail::file_name(0));
    for at in [10, 100, 200] {
        flip(&path, at);
    }
    let checked = super::super::check::check_tail(&OsStorage, &path).unwrap();
    assert_eq!(checked.damage, []);
    let found = found_in(directory.path());
    assert_eq!((found.report, found.torn, found.tail_records), (vec![], vec![], 0));
    assert_eq!((read_all(&found.registry), found.registry.pin().lost), (shard.appended, vec![]));
}

#[test]
fn a_bounded_number_of_damaged_files_is_kept_and_the_oldest_is_told_and_given_up() {
    let directory = scratch();
    for number in 0..TAILS_ASIDE_MAX + 2 {
        fs::write(directory.path().join(tail::file_name(number)), "zero").unwrap();
    }
    let found = found_in(directory.path());
    let given_up = found.notes.iter().filter(|note| matches!(note, Note::GivenUp(_)));
    assert_eq!((given_up.count(), found.notes.len()), (2, 2));
    assert_eq!(aside_in(directory.path()).len(), TAILS_ASIDE_MAX);
    assert_eq!(found.registry.damaged_files(), TAILS_ASIDE_MAX);
}

#[test]
fn a_damaged_file_that_cannot_be_put_aside_is_told_where_it_is_and_put_aside_later() {
    let sim = disk();
    let (appended, offsets) = killed(&found_on(&sim).registry, &ROUNDS);
    let sim = sim.kill();
    let path = Path::new(INGEST).join(tail::file_name(0));
    sim.flip(&path, offsets[2] + HEADER_BYTES as u64, 0).unwrap();
    sim.fail(Fault::random(Call::Rename, 1.0, FaultError::Io));
    let found = found_on(&sim);
    assert!(found.registry.prepare_tail(0).is_err());
    assert!(!found.registry.pin().lost.is_empty());
    assert_eq!(found.registry.look_again(1).errors.len(), 1);
    sim.clear_faults();
    let look = found.registry.look_again(1 + UNREAD_PAUSE_MS_MAX);
    assert_eq!((look.errors.len(), look.damage.len()), (0, 1));
    assert!(found.registry.prepare_tail(0).is_ok());
    let lost = found.registry.pin().lost;
    assert_eq!((lost.len(), lost[0].records), (1, Some(3)));
    assert_eq!(read_all_copies(&found.registry).len(), appended.len() - 3);
}

#[test]
fn a_name_that_the_disk_may_not_have_is_not_given_again() {
    let sim = disk();
    let (_, offsets) = killed(&found_on(&sim).registry, &ROUNDS);
    let sim = sim.kill();
    sim.flip(&Path::new(INGEST).join(tail::file_name(0)), offsets[1] + 9, 0).unwrap();
    // The first one is that of what is saved.
    let second = When::Nth(2);
    sim.fail(Fault { when: second, ..Fault::random(Call::SyncDir, 1.0, FaultError::Io) });
    let found = found_on(&sim);
    assert!(matches!(&found.notes[..], [Note::Failed(_)]), "{:?}", found.notes);
    assert_eq!(found.registry.pin().lost.len(), 1);
    assert!(found.registry.prepare_tail(0).is_err() && found.registry.prepare_tail(1).is_ok());
    let found = found_on(&sim);
    assert_eq!((found.notes.len(), found.registry.pin().lost.len()), (0, 1));
    assert!(found.registry.prepare_tail(0).is_ok());
}

/// A node that stops at any call of its first start, or of one after a kill, and the power with it.
#[test]
fn a_start_that_ends_anywhere_leaves_no_damage_behind() {
    let mut calls = 0;
    for call in 1.. {
        let sim = disk();
        sim.crash_at(call);
        let start = || {
            let storage = Arc::new(sim.clone());
            let options = RegistryOptions { storage, ..options(Path::new(INGEST)) };
            let found = recover(options, &HashMap::new(), LATER_MS).ok()?;
            (0..2).try_for_each(|shard| found.registry.prepare_tail(shard).map(drop)).ok()
        };
        let is_over = start().is_some();
        for seed in 0..9 {
            let after = if seed == 0 { sim.kill() } else { sim.crash(seed) };
            for _ in 0..2 {
                let found = found_on(&after);
                assert_eq!((found.report.len(), found.torn.len(), found.notes.len()), (0, 0, 0));
                found.registry.prepare_tail(0).unwrap();
                let new = after.files().into_iter().filter(|path| path.ends_with(".new"));
                assert_eq!(new.count(), 0);
            }
        }
        calls = call;
        if is_over {
            break;
        }
    }
    assert!(calls > 8, "{calls} calls");
}

#[test]
fn tail_files_of_more_shards_than_there_are_now_are_emptied_and_stay() {
    let directory = scratch();
    let (appended, _) = killed_in(directory.path());
    fs::rename(
        directory.path().join(tail::file_name(0)),
        directory.path().join(tail::file_name(7)),
    )
    .unwrap();
    let found = found_in(directory.path());
    assert_eq!(read_all(&found.registry), appended);
    found.registry.prepare_tail(0).unwrap();
    let again = found_in(directory.path());
    assert_eq!((again.report, again.tail_records), (vec![], 0));
    assert!(directory.path().join(tail::file_name(7)).exists());
}
