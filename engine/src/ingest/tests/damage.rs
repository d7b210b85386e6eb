//! Segments and tail files with any byte flipped, cut anywhere, or torn.

use super::*;

/// Recovers a directory that holds just these bytes; compares with what must be left.
fn check_damaged(specimen: &Specimen, bytes: &[u8], state: SegmentState, what: &str) {
    let directory = specimen.path.parent().unwrap();
    let id = parse_file_name(specimen.path.file_name().unwrap().to_str().unwrap()).unwrap().0;
    fs::write(directory.join(file_name(id, state)), bytes).unwrap();
    let found = recovered(directory);
    let mut damage = found.report;
    damage.extend(found.torn);
    let mut left = Records::new();
    for segment in found.registry.snapshot() {
        let (records, more) = read_part(&*segment);
        left.extend(records);
        damage.extend(more);
    }
    let mut lost = 0;
    for (payload, _, records) in &specimen.frames {
        let is_intact = bytes.get(payload.clone()) == Some(&specimen.bytes[payload.clone()]);
        for (ulid, record) in records {
            if let Some(found) = left.remove(ulid) {
                assert_eq!(&found, record, "{what}");
            } else {
                assert!(!is_intact, "{what}: a record of an undamaged frame is lost");
                lost += 1;
            }
        }
    }
    assert!(left.is_empty(), "{what}: records are invented");
    let is_told = !damage.is_empty() || !found.notes.is_empty();
    assert!(lost == 0 || is_told, "{what}: {lost} records are lost and not told");
    for name in names(directory) {
        fs::remove_file(directory.join(name)).unwrap();
    }
}

#[test]
fn every_flipped_byte_of_a_segment_costs_at_most_its_frame_and_is_told() {
    let directory = scratch();
    let specimen = specimen(directory.path());
    for at in 0..specimen.bytes.len() {
        let mut bytes = specimen.bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        let states = [SegmentState::Flushed, SegmentState::Active, SegmentState::Pending];
        check_damaged(&specimen, &bytes, states[at % 3], &format!("flip at {at}"));
        if at % ALIGNMENT_MIN < HEADER_BYTES {
            check_damaged(&specimen, &bytes, SegmentState::Flushed, &format!("flip at {at}"));
        }
    }
}

#[test]
fn every_cut_of_a_segment_costs_what_is_behind_it_and_is_told() {
    let directory = scratch();
    let specimen = specimen(directory.path());
    for len in 0..specimen.bytes.len() {
        let states = [SegmentState::Flushed, SegmentState::Active];
        for state in states {
            let what = format!("{state:?} cut to {len}");
            check_damaged(&specimen, &specimen.bytes[..len], state, &what);
        }
    }
}

#[test]
fn every_flipped_byte_and_cut_of_a_tail_file_invents_nothing_and_keeps_the_segments() {
    let directory = scratch();
    let registry = recovered(directory.path()).registry;
    let mut shard = Shard::start(&registry, 0, 5);
    for round in ["a", "b"] {
        shard.append(&format!("{round} one\n{round}\n"));
        shard.work(&registry);
        shard.advance(20_000);
        shard.work(&registry);
    }
    let tail_path = directory.path().join(tail::file_name(0));
    let bytes = fs::read(&tail_path).unwrap();
    let chunk_len = |at: usize| FrameHeader::decode(&bytes[at..]).unwrap().len_bytes as usize;
    let chunks = chunk_len(0) + chunk_len(chunk_len(0));
    let used = chunks + tail::END_BYTES;
    for name in names(directory.path()) {
        fs::remove_file(directory.path().join(name)).unwrap();
    }
    for at in 0..2 * used {
        let mut damaged = bytes.clone();
        if at < used {
            damaged[at] ^= 1 << (at % 8);
        } else {
            damaged.truncate(at - used);
        }
        fs::write(&tail_path, &damaged).unwrap();
        let found = recover(options(directory.path()), &HashMap::new(), LATER_MS).unwrap();
        let left = read_all(&found.registry);
        assert!(left.iter().all(|(ulid, record)| shard.appended.get(ulid) == Some(record)));
        let expected = match at {
            _ if at < chunks => 2,
            _ if at < used => 4,
            // The end mark of the second chunk is of no use to the first one.
            _ if at - used < chunk_len(0) => 0,
            _ if at - used < chunks => 2,
            _ => 4,
        };
        assert_eq!(left.len(), expected, "byte {at}");
        let told = [found.report, found.torn].concat();
        assert!(told.iter().any(Damage::loses_records), "{at} is told");
        let is_told = |ulid: &Ulid| {
            let mut ranges = told.iter().filter_map(|damage| damage.range);
            ranges.any(|(from, to)| (from..=to).contains(ulid))
        };
        let lost = shard.appended.keys().filter(|ulid| !left.contains_key(ulid));
        assert!(lost.into_iter().all(is_told), "{at}: {told:?}");
        for name in names(directory.path()) {
            fs::remove_file(directory.path().join(name)).unwrap();
        }
    }
}

#[test]
fn a_tail_slot_counts_when_its_frame_got_no_further_than_its_header() {
    let directory = scratch();
    let specimen = specimen(directory.path());
    let (_, span, records) = &specimen.frames[1];
    let mut bytes = specimen.bytes.clone();
    let header = FrameHeader::decode(&bytes[span.clone()]).unwrap();
    let table = header.check_payload(&bytes[span.clone()]).unwrap();
    let text = bytes[span.clone()][header.text_span()].to_vec();
    bytes[span.start + HEADER_BYTES] ^= 1;
    fs::write(&specimen.path, &bytes).unwrap();
    let (incarnation, frame_number) = (header.incarnation, header.number);
    let place = tail::ChunkPlace { incarnation, frame_number, chunk_number: 0 };
    let tail_path = directory.path().join(tail::file_name(0));
    let chunk = tail::encode_chunk(&place, &table, &text);
    fs::write(&tail_path, tail_file(chunk, (incarnation, frame_number))).unwrap();
    let found = recovered(directory.path());
    assert_eq!(found.tail_records, records.len() as u64);
    let mut left = Records::new();
    for segment in found.registry.snapshot() {
        left.extend(read_part(&*segment).0);
    }
    let all: Records = specimen.frames.iter().flat_map(|(_, _, own)| own.clone()).collect();
    assert_eq!(left, all);
}

#[test]
fn a_tail_slot_full_of_runs_is_saved_whole() {
    let directory = scratch();
    let mut table = RunTable::default();
    let mut text = Vec::new();
    for i in 0..14_000u64 {
        let name = format!("t{}", i % 700);
        let topic = table.topic_index(&Topic::new(name.as_bytes()).unwrap()).unwrap();
        // Each from a stream of its own: no shard does that, but a file may say so.
        table.push(Run { first: Ulid::from_parts(5, i, 0), count: 1, text_len: 1, topic });
        text.push(b'\n');
    }
    let place = tail::ChunkPlace { incarnation: 1, frame_number: 0, chunk_number: 0 };
    let chunk = tail::encode_chunk(&place, &table, &text);
    assert!(chunk.len() > FRAME_TABLE_BYTES_MAX && chunk.len() < TAIL_SLOT_BYTES);
    fs::write(directory.path().join(tail::file_name(3)), tail_file(chunk, (1, 0))).unwrap();
    let found = recovered(directory.path());
    assert_eq!(found.tail_records, 14_000);
    assert_eq!(read_all(&found.registry).len(), 14_000);
}

#[test]
fn a_torn_tail_is_cut_at_the_last_whole_frame_and_frames_of_an_earlier_life_stay_gone() {
    let directory = scratch();
    let specimen = specimen(directory.path());
    let id = parse_file_name(specimen.path.file_name().unwrap().to_str().unwrap()).unwrap().0;
    let second = &specimen.frames[1].1;
    let mut bytes = specimen.bytes[..second.end].to_vec();
    // The second frame is torn at a sector; behind it lies an earlier life.
    bytes[second.start + 120..].fill(0x55);
    let mut earlier = specimen.bytes[specimen.frames[2].1.clone()].to_vec();
    let mut header = FrameHeader::decode(&earlier).unwrap();
    header.incarnation ^= 1;
    earlier[..HEADER_BYTES].copy_from_slice(&header.encode());
    bytes.extend_from_slice(&earlier);
    fs::write(directory.path().join(file_name(id, SegmentState::Active)), &bytes).unwrap();
    let found = recovered(directory.path());
    assert_eq!(found.report, []);
    assert_eq!(found.torn_bytes(), second.len() as u64);
    assert_eq!(read_all(&found.registry), specimen.frames[0].2);
    // Nothing was written to it: its name says where it ends.
    let end = second.start as u64;
    let name = FileName { id, state: SegmentState::Flushed, cut: Some(Cut { end, sure: end }) };
    assert_eq!(names(directory.path()), [name.to_string()]);
    let again = recovered(directory.path());
    assert_eq!((again.report.len(), again.torn.len()), (0, 0), "told once");
    assert_eq!(read_all(&again.registry), specimen.frames[0].2);
}

#[test]
fn a_torn_frame_whose_records_a_tail_file_has_loses_nothing() {
    for (more, expected) in [("", Some(0)), ("not flushed\nto it\n", Some(2))] {
        let directory = scratch();
        let registry = recovered(directory.path()).registry;
        let mut shard = Shard::start(&registry, 0, 5);
        shard.append("one\ntwo\nthree\n");
        shard.work(&registry);
        shard.advance(20_000);
        shard.work(&registry);
        let saved = shard.appended.clone();
        if !more.is_empty() {
            shard.append(more);
        }
        shard.log.want_durable();
        shard.work(&registry);
        drop(shard);
        let id = registry.snapshot()[0].id();
        let path = directory.path().join(file_name(id, SegmentState::Active));
        let mut bytes = fs::read(&path).unwrap();
        bytes[HEADER_BYTES] ^= 1;
        fs::write(&path, bytes).unwrap();

        let checked = check_segment(&OsStorage, &path, id, SegmentState::Active).unwrap();
        let found = recovered(directory.path());
        assert_eq!(checked.damage, found.torn);
        assert_eq!(found.torn.iter().map(|t| t.records).collect::<Vec<_>>(), [expected]);
        assert_eq!(found.torn[0].loses_records(), expected != Some(0));
        assert_eq!(read_all(&found.registry), saved);
        assert_eq!(recovered(directory.path()).torn, [], "told once");
    }
}
