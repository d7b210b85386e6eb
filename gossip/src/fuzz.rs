//! Bytes of strangers: every parser, behind seals and checksums that hold. How targets are run is told in
//! `docs/fuzzing.md`.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::limits::{DATAGRAM_BYTES_MAX, MEMBERS_MAX};
use crate::seal::{INSIDE_BYTES_MAX, Outside};
use crate::testing::{Few, address, settings};
use crate::{Saved, Secrets};

/// One change of some bytes.
#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    /// A number that hurts, little-endian, of 1 to 8 bytes.
    Number(Index, u64, u8),
    Cut(Index),
    /// A span again, at another place.
    Copy(Index, Index, Index),
    Insert(Index, Vec<u8>),
}

const NUMBERS: [u64; 9] =
    [0, 1, 0x7f, 0xff, 0xffff, 0xffff_ffff, 1 << 32, u64::MAX - (1 << 32), u64::MAX];

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let number = prop_oneof![3 => proptest::sample::select(&NUMBERS[..]), 1 => any::<u64>()];
    let change = prop_oneof![
        6 => (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        4 => (any::<Index>(), number, 0..4u8).prop_map(|(at, n, w)| Change::Number(at, n, w)),
        1 => any::<Index>().prop_map(Change::Cut),
        2 => any::<(Index, Index, Index)>().prop_map(|(a, b, c)| Change::Copy(a, b, c)),
        1 => (any::<Index>(), proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
    ];
    proptest::collection::vec(change, 0..5)
}

fn apply(bytes: &mut Vec<u8>, changes: &[Change]) {
    for change in changes {
        let len = bytes.len();
        match change {
            Change::Insert(at, new) => {
                let at = at.index(len + 1);
                bytes.splice(at..at, new.iter().copied());
            }
            _ if len == 0 => {}
            Change::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Change::Number(at, number, width) => {
                let at = at.index(len);
                let number = &number.to_le_bytes()[..1 << width];
                let fits = number.len().min(len - at);
                bytes[at..at + fits].copy_from_slice(&number[..fits]);
            }
            Change::Cut(at) => bytes.truncate(at.index(len)),
            Change::Copy(from, size, to) => {
                let (from, to) = (from.index(len), to.index(len));
                let size = size.index(len - from).min(len - to);
                bytes.copy_within(from..from + size, to);
            }
        }
    }
}

fn cases(cases: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(cases),
    }
}

/// Three nodes that have met, one of which was away for a while, and everything that was said.
fn met() -> Few {
    let mut few = Few::of(vec![settings(1), settings(2), settings(3)]);
    few.run(1_500);
    let away = few.nodes.pop().unwrap();
    few.run(3_000);
    few.nodes.push(away);
    few.run(1_000);
    few
}

proptest! {
    #![proptest_config(cases(300))]

    /// Bytes as they come.
    #[test]
    fn fuzz_datagrams(
        which in any::<Index>(),
        changes in changes(),
        noise in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut few = met();
        let (from, _, mut bytes) = few.sent[which.index(few.sent.len())].clone();
        apply(&mut bytes, &changes);
        for bytes in [bytes, noise] {
            few.nodes[0].receive(few.now, from, &bytes);
            few.drain(0);
        }
    }

    /// What is inside, behind a checksum that holds and from those who were introduced.
    #[test]
    fn fuzz_datagram_insides(
        plans in proptest::collection::vec((any::<Index>(), any::<bool>(), changes()), 1..6),
    ) {
        let mut few = met();
        let to_first: Vec<_> =
            few.sent.iter().filter(|(_, to, _)| *to == address(1)).cloned().collect();
        for (which, is_new, changes) in plans {
            let (from, _, bytes) = &to_first[which.index(to_first.len())];
            let (outside, mut inside) = Secrets::NONE.open(bytes).unwrap();
            apply(&mut inside, &changes);
            inside.truncate(INSIDE_BYTES_MAX);
            let number = if is_new { outside.number + 100_000 } else { outside.number };
            let bytes = Secrets::NONE.close(Outside { number, ..outside }, &inside);
            few.nodes[0].receive(few.now, *from, &bytes);
            // Work for one datagram is bounded.
            let sent = few.drain(0);
            prop_assert!(sent.len() < 40, "{} datagrams for one", sent.len());
            prop_assert!(sent.iter().all(|(_, bytes)| bytes.len() <= DATAGRAM_BYTES_MAX));
        }
        // It goes on.
        few.run(500);
        prop_assert!(few.nodes[0].members().len() <= MEMBERS_MAX);
    }

    /// Lists of members behind a checksum that holds: what is read is what would be written.
    #[test]
    fn fuzz_member_lists(changes in changes(), has_checksum in any::<bool>()) {
        let few = met();
        let mut bytes = few.nodes[0].saved().encode();
        apply(&mut bytes, &changes);
        if has_checksum && bytes.len() >= 8 {
            let crc = crc32fast::hash(&bytes[8..]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        }
        if let Ok(saved) = Saved::decode(&bytes) {
            prop_assert_eq!(saved.encode(), bytes);
            // And a node can start with it.
            let mut node = crate::Gossip::new(settings(1), &saved, few.now);
            node.turn(few.now);
        }
    }
}
