//! Coverage against a ten-line model: sets of records.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Stream and counter; the life of the stream comes from the time.
type Records = BTreeSet<(u64, u64)>;

/// When record `counter` of a stream was stamped: several in a millisecond, pauses between, the same
/// for everybody who asks.
const fn ms_of(stream: u64, counter: u64) -> u64 {
    1_000 + stream * 7 + counter / 3 + counter / 10 * 5
}

fn run(stream: u64, counter: u64) -> Interval {
    let ulid = Ulid::from_parts(ms_of(stream, counter), stream, counter);
    Interval::of_run(&Run { first: ulid, count: 1, text_len: 1, topic: 0 })
}

fn coverage(records: &Records) -> Coverage {
    let mut ulids: Vec<_> = records.iter().map(|&(s, c)| (ms_of(s, c), s, c)).collect();
    ulids.sort_unstable();
    let mut builder = CoverageBuilder::default();
    for (_, stream, counter) in ulids {
        builder.add(run(stream, counter));
    }
    builder.finish()
}

fn records(coverage: &Coverage) -> Records {
    let all = |i: &Interval| (i.from..=i.to).map(|c| (i.stream, c)).collect::<Vec<_>>();
    let records: Vec<_> = coverage.intervals().iter().flat_map(all).collect();
    let set: Records = records.iter().copied().collect();
    assert_eq!(set.len(), records.len(), "each once");
    for interval in coverage.intervals() {
        assert_eq!(interval.first_ms, ms_of(interval.stream, interval.from));
        assert_eq!(interval.last_ms, ms_of(interval.stream, interval.to));
    }
    set
}

fn some_records() -> impl Strategy<Value = Records> {
    prop::collection::vec((0..3u64, 0..60u64, 1..15u64), 0..8).prop_map(|spans| {
        spans.iter().flat_map(|&(s, from, len)| (from..from + len).map(move |c| (s, c))).collect()
    })
}

proptest! {
    #[test]
    fn it_is_what_sets_of_records_are(a in some_records(), b in some_records()) {
        let (x, y) = (coverage(&a), coverage(&b));
        prop_assert_eq!(records(&x), a.clone());
        prop_assert_eq!(records(&x.union(&y)), &a | &b);
        prop_assert_eq!(records(&x.intersection(&y)), &a & &b);
        let mut missing = Records::new();
        for gap in x.difference(&y) {
            for counter in gap.from..=gap.to {
                prop_assert!(missing.insert((gap.stream, counter)), "each once");
                let ms = ms_of(gap.stream, counter);
                prop_assert!(gap.from_ms <= ms && ms <= gap.to_ms);
            }
        }
        prop_assert_eq!(missing, &a - &b);
        prop_assert_eq!(x.is_same(&y), a == b);
        prop_assert_eq!(x.digest() == y.digest(), a == b);
        prop_assert_eq!(x.record_count(), a.len() as u64);
    }

    #[test]
    fn it_does_not_depend_on_where_segments_end(a in some_records(), cuts: Vec<prop::sample::Index>) {
        let all: Vec<_> = a.iter().copied().collect();
        let mut parts = vec![Records::new(); 5];
        for (number, record) in all.iter().enumerate() {
            let part = cuts.get(number % cuts.len().max(1)).map_or(0, |cut| cut.index(5));
            parts[part].insert(*record);
            // Some are there twice.
            parts[(part + number) % 5].insert(*record);
        }
        let union = parts.iter().fold(Coverage::default(), |union, p| union.union(&coverage(p)));
        prop_assert!(union.is_same(&coverage(&a)));
        prop_assert_eq!(union.digest(), coverage(&a).digest());
    }

    #[test]
    fn another_life_of_a_stream_is_not_the_same_records(a in some_records(), b in some_records()) {
        let later = |i: &Interval| {
            let ms = |ms| ms + 1_000_000;
            Interval { first_ms: ms(i.first_ms), last_ms: ms(i.last_ms), ..*i }
        };
        let (x, y) = (coverage(&a), coverage(&b));
        let y = Coverage::of(y.intervals().iter().map(later).collect());
        prop_assert_eq!(x.intersection(&y).record_count(), 0);
        let missing: u64 = x.difference(&y).iter().map(Gap::record_count).sum();
        prop_assert_eq!(missing, a.len() as u64);
        prop_assert!(!x.is_same(&y) || (a.is_empty() && b.is_empty()));
        // Both are there, unless the one begins just where the other ended.
        prop_assert_eq!(x.union(&y).record_count(), (a.len() + b.len()) as u64);
    }

    #[test]
    fn it_comes_back_from_its_bytes(a in some_records(), is_partial: bool) {
        let coverage = Coverage { is_partial, ..coverage(&a) };
        let mut put = Put::default();
        coverage.put(&mut put);
        let mut take = Take(&put.0);
        let back = Coverage::take(&mut take).unwrap();
        prop_assert!(take.0.is_empty());
        prop_assert_eq!(back.intervals(), coverage.intervals());
        prop_assert_eq!(back.is_known_in_full(), !is_partial);
    }

    #[test]
    fn no_bytes_make_it_panic_and_none_make_it_ambiguous(bytes: Vec<u8>) {
        let mut put = Put::default();
        put.u32(2).u32(1).bytes(&bytes);
        if let Some(taken) = Coverage::take(&mut Take(&put.0)) {
            prop_assert!(taken.union(&taken).is_same(&taken));
        }
    }
}

#[test]
fn counters_that_agree_with_milliseconds_that_do_not_are_not_covered() {
    let interval =
        |from, to, first_ms, last_ms| Interval { stream: 1, first_ms, from, to, last_ms };
    let own = Coverage::of(vec![interval(10, 20, 100, 200)]);
    let held = [(interval(10, 20, 100, 200), true), (interval(0, 30, 90, 210), true)];
    let other = [
        interval(10, 20, 101, 200),
        interval(10, 20, 100, 199),
        interval(0, 30, 101, 210),
        interval(0, 30, 90, 199),
        interval(0, 20, 90, 201),
        interval(10, 30, 99, 210),
        interval(20, 20, 199, 199),
        interval(20, 30, 199, 210),
    ];
    for (interval, is_held) in held.into_iter().chain(other.map(|interval| (interval, false))) {
        let other = Coverage::of(vec![interval]);
        assert_eq!(own.difference(&other).is_empty(), is_held, "{interval:?}");
        assert_eq!(own.intersection(&other).is_same(&own), is_held, "{interval:?}");
    }
}

#[test]
fn a_chunk_is_one_interval_only_if_its_records_can_only_be_consecutive() {
    let ulid = |stream, counter| Ulid::from_parts(5, stream, counter);
    let one = Interval { stream: 1, first_ms: 5, from: 3, to: 7, last_ms: 5 };
    assert_eq!(Interval::of_range(ulid(1, 3), ulid(1, 7), 5), Some(one));
    assert_eq!(Interval::of_range(ulid(1, 3), ulid(1, 7), 4), None, "one is not there");
    assert_eq!(Interval::of_range(ulid(1, 3), ulid(2, 7), 5), None, "of two streams");
    assert_eq!(Interval::of_range(ulid(1, 7), ulid(1, 3), 5), None);
    let later = Ulid::from_parts(6, 1, 3);
    assert_eq!(Interval::of_range(ulid(1, 3), later, 1), None, "one record was stamped once");
}

#[test]
fn beyond_its_bound_it_says_that_it_is_not_all_and_equals_nothing() {
    let mut builder = CoverageBuilder::default();
    for n in 0..COVERAGE_INTERVALS_MAX as u64 + 2 {
        builder.add(run(1, 2 * n));
    }
    let coverage = builder.finish();
    assert_eq!(coverage.intervals().len(), COVERAGE_INTERVALS_MAX);
    assert!(!coverage.is_known_in_full() && !coverage.is_same(&coverage.clone()));
    assert_eq!(coverage.digest(), None);
    assert_eq!(coverage.intersection(&coverage).record_count(), coverage.record_count());
}

#[test]
fn the_digest_of_a_known_coverage_is_pinned() {
    let interval = Interval {
        stream: 7,
        first_ms: 1_700_000_000_000,
        from: 1,
        to: 2,
        last_ms: 1_700_000_000_005,
    };
    assert_eq!(
        Coverage::default().digest(),
        Some(Digest(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d))
    );
    assert_eq!(
        Coverage::of(vec![interval]).digest(),
        Some(Digest(0x516e_2ea2_d098_617c_03f2_cda2_2333_dfc8))
    );
}
