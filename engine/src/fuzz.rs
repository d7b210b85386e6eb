//! What the fuzz targets have in common: changes of valid bytes, how many cases are run, and the
//! check that nothing allocates what a damaged header claims.
//!
//! A target starts from valid files (its seeds) and changes them: flips, cuts, splices with each
//! other, and lengths set to what hurts. `PROPTEST_CASES` sets how many cases each target runs;
//! a case that fails is made smaller and kept by proptest as any other.

use proptest::prelude::*;
use proptest::sample::Index;

/// One change of some bytes.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Flips one bit.
    Flip(Index, u8),
    /// Sets one byte.
    Set(Index, u8),
    /// Writes a number at a place, little-endian, of 2, 4 or 8 bytes.
    Number(Index, u64, u8),
    /// Cuts the end off.
    Cut(Index),
    /// Takes a span out.
    Remove(Index, Index),
    /// Copies a span of the same bytes over another place.
    Copy(Index, Index, Index),
    /// Puts a span of another seed in place.
    Splice(Index, Index, Index),
    /// Puts bytes in.
    Insert(Index, Vec<u8>),
}

/// Numbers that lengths and counts must survive.
const NUMBERS: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

fn change() -> impl Strategy<Value = Change> {
    let number = prop_oneof![3 => proptest::sample::select(&NUMBERS[..]), 1 => any::<u64>()];
    prop_oneof![
        6 => (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        4 => (any::<Index>(), number, 1..4u8).prop_map(|(at, n, w)| Change::Number(at, n, w)),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => any::<(Index, Index)>().prop_map(|(from, len)| Change::Remove(from, len)),
        2 => any::<(Index, Index, Index)>().prop_map(|(a, b, c)| Change::Copy(a, b, c)),
        2 => any::<(Index, Index, Index)>().prop_map(|(a, b, c)| Change::Splice(a, b, c)),
        1 => (any::<Index>(), proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
    ]
}

/// Which seed, which other one to splice with, and what is changed.
pub(crate) fn changes() -> impl Strategy<Value = (Index, Index, Vec<Change>)> {
    (any::<Index>(), any::<Index>(), proptest::collection::vec(change(), 0..6))
}

/// A seed with its changes.
pub(crate) fn changed(seeds: &[Vec<u8>], plan: &(Index, Index, Vec<Change>)) -> Vec<u8> {
    let (seed, other, changes) = plan;
    let (mut bytes, other) =
        (seeds[seed.index(seeds.len())].clone(), &seeds[other.index(seeds.len())]);
    for change in changes {
        apply(&mut bytes, other, change);
    }
    bytes
}

fn apply(bytes: &mut Vec<u8>, other: &[u8], change: &Change) {
    let len = bytes.len();
    let span = |from: &Index, size: &Index, len: usize| {
        let from = from.index(len);
        from..from + size.index(len - from)
    };
    match change {
        Change::Insert(at, new) => {
            let at = at.index(len + 1);
            bytes.splice(at..at, new.iter().copied());
        }
        _ if len == 0 => {}
        Change::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
        Change::Set(at, byte) => bytes[at.index(len)] = *byte,
        Change::Number(at, number, width) => {
            let new = &number.to_le_bytes()[..1 << width];
            // Fields stand at multiples of their width, mostly.
            let at = at.index(len) / new.len() * new.len();
            let fits = new.len().min(len - at);
            bytes[at..at + fits].copy_from_slice(&new[..fits]);
        }
        Change::Cut(at) => bytes.truncate(at.index(len)),
        Change::Remove(from, size) => drop(bytes.drain(span(from, size, len))),
        Change::Copy(from, size, to) => {
            let from = span(from, size, len);
            let to = to.index(len);
            let fits = from.len().min(len - to);
            bytes.copy_within(from.start..from.start + fits, to);
        }
        Change::Splice(from, size, to) if !other.is_empty() => {
            let new = &other[span(from, size, other.len())];
            let to = to.index(len);
            let fits = new.len().min(len - to);
            bytes[to..to + fits].copy_from_slice(&new[..fits]);
        }
        Change::Splice(..) => {}
    }
}

/// How many cases a target runs: what `PROPTEST_CASES` says, else `cases`.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(cases),
    }
}

/// Fails when the process has ever asked for more address space than any of these tests needs:
/// somebody allocated what a damaged length claimed.
pub(crate) fn assert_little_was_allocated() {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return };
    let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let peak = peak.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let gib = peak.unwrap_or(0) >> 20;
    assert!(gib < 16, "{gib} GiB of address space were asked for");
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn fuzz_time_expressions(
        from in "(now|[0-9]{0,20}(ms|s|m|h|d|y)?|[0-9TZ:.+ -]{0,30}|[0-9A-Z]{26}|\\PC{0,20}){0,2}",
        to in "(now|-?[0-9]{1,4}(ms|s|m|h|d)[0-9]{0,4}[a-z]?|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]{0,12}Z?)?",
        now_ms: u64,
    ) {
        use crate::search::Window;
        let now_ms = now_ms >> 8;
        if let Ok(window) = Window::parse(Some(&from), Some(&to), now_ms) {
            prop_assert!(window.from <= window.to);
        }
        let _ = crate::search::window::parse_duration_ms(&from);
    }

    /// A name that is read as ours is the name that we would write.
    #[test]
    fn fuzz_file_names(
        name in "([0-9A-HJKMNP-TV-Z]{26}(-[0-9A-HJKMNP-TV-Z]{26})?(-[0-9a-f]{16})?(-[0-9]{1,20})?|\
                  [0-9a-f]{16}|shard-[0-9]{1,20}|LOCK|\\PC{0,20})\
                 (\\.(active|flushed|pending|damaged|trashed|writing|tail|\\PC{0,8})){0,2}",
    ) {
        use crate::ingest::segment::FileName;
        use crate::store::name::Name;
        if let Some(parsed) = FileName::parse(&name) {
            prop_assert_eq!(parsed.to_string(), name.clone());
        }
        if let Some(parsed) = Name::parse(&name) {
            prop_assert_eq!(parsed.to_string(), name.clone());
        }
        let _ = crate::ingest::tail::is_file_name(&name);
        let _ = crate::restore::Given::of(std::path::Path::new(&name));
    }

    /// What compiles matches without panic, and a match lies in its record.
    #[test]
    fn fuzz_expressions(
        text in "([a-zA-Z0-9 ]{0,6}|[\\[\\](){}|*+?.^$\\\\-]{0,4}|\\(\\?[imsxuU-]{0,3}:?|\\{[0-9]{0,9},?[0-9]{0,9}\\}|\\\\[a-zA-Z]|\\PC{0,4}){0,8}",
        regex in any::<bool>(),
        ignore_case in any::<bool>(),
    ) {
        use crate::search::Expression;
        match Expression::new(&text, regex, ignore_case) {
            Ok(expression) => prop_assert_eq!(expression.text(), text),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
        assert_little_was_allocated();
    }

    #[test]
    fn fuzz_handshake(
        plan in changes(),
        tail in proptest::collection::vec(any::<u8>(), 0..600),
        at in any::<Index>(),
    ) {
        use crate::ingest::hello::{Opening, read};
        let seeds = [
            b"\0OKLOGD-ACK/1\nline\n".to_vec(),
            b"\0OKLOGD-ACK/1 topic=web session=a-1 seq=18446744073709551615\n".to_vec(),
            b"\0OKLOGD-ACK/2 x=y\n".to_vec(),
            b"plain\n".to_vec(),
        ];
        let mut bytes = changed(&seeds, &plan);
        bytes.extend_from_slice(&tail);
        let whole = read(&bytes);
        if let Opening::Hello { used, .. } = &whole {
            prop_assert!(*used <= bytes.len() && bytes[*used - 1] == b'\n');
        }
        // What a prefix decides stays decided, however the rest arrives.
        let prefix = read(&bytes[..at.index(bytes.len() + 1)]);
        prop_assert!(prefix == Opening::Undecided || prefix == whole);
        prop_assert!(bytes.len() < 600 || whole != Opening::Undecided);
    }

    #[test]
    fn fuzz_ingest_framing(
        bytes in proptest::collection::vec(prop_oneof![4 => any::<u8>(), 1 => Just(b'\n')], 0..2_000),
        cuts in proptest::collection::vec(any::<Index>(), 0..20),
        max in 1usize..200,
        discards in any::<bool>(),
    ) {
        use crate::ingest::lines::LineSplitter;
        let mut splitter = LineSplitter::new(max);
        let mut out = Vec::new();
        let mut sink = |batch: &[u8]| {
            assert_eq!(batch.last(), Some(&b'\n'));
            assert!(batch.split(|&b| b == b'\n').all(|line| line.len() <= max));
            out.extend_from_slice(batch);
        };
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        places.push(bytes.len());
        places.sort_unstable();
        let mut start = 0;
        for end in places {
            splitter.feed(&bytes[start..end], &mut sink);
            assert!(splitter.partial_len() <= max);
            start = end;
        }
        let partial = splitter.partial_len();
        if discards {
            assert_eq!(splitter.discard(), partial);
        } else {
            splitter.finish(&mut sink);
        }
        // Every byte comes out once and in order; what is added is the LFs of cuts and of the end.
        let text = |bytes: &[u8]| bytes.iter().copied().filter(|&b| b != b'\n').collect::<Vec<_>>();
        let expected = text(&bytes);
        let kept = if discards { expected.len() - partial } else { expected.len() };
        prop_assert_eq!(text(&out), &expected[..kept]);
    }
}
