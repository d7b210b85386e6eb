//! The examples of `docs/protocol-cluster.md` are what is sent and kept, byte by byte.

use engine::identity::NodeId;
use engine::ulid::Ulid;
use foca::{Header, Message};

use crate::codec;
use crate::facts::{Facts, Said};
use crate::message::{Answer, Claim, Introduced, Introduction, Tombstone, put_ask, put_tombstones};
use crate::refusal::Verdict;
use crate::saved::Saved;
use crate::seal::{Kind, OUTSIDE_BYTES, Outside};
use crate::testing::{Few, settings};
use crate::{Member, ProcessId, Protocol, Secrets};

const PAGE: &str = include_str!("../../docs/protocol-cluster.md");

/// The bytes of the example under a heading.
fn example(name: &str) -> Vec<u8> {
    let part = PAGE.split("\n### Example: ").find(|part| part.starts_with(name));
    let part = part.unwrap_or_else(|| panic!("the page has no example {name}"));
    let block = part.split("```").nth(1).unwrap();
    let hex = block.lines().skip(1).flat_map(|line| {
        line.split("  ").next().unwrap_or("").split_whitespace().map(str::to_owned)
    });
    hex.map(|byte| u8::from_str_radix(&byte, 16).unwrap()).collect()
}

/// As the page shows it.
fn shown(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        hex.join(" ")
    };
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}

fn assert_is_example(name: &str, bytes: &[u8]) {
    assert!(example(name) == bytes, "{name} is now\n{}", shown(bytes));
}

fn member(at: u8) -> Member {
    Few::of(vec![settings(at)]).nodes[0].own().clone()
}

fn introduction(at: u8) -> Introduction {
    let rest = Introduced { is_in: true, lived_ms: 5_000, member: member(at) };
    Introduction { protocol: Protocol::OURS, cluster: "oklogd".to_owned(), rest: Some(rest) }
}

fn outside(kind: Kind) -> Outside {
    Outside { kind, from: ProcessId(0x1001), to: ProcessId(0x1002), number: 7 }
}

#[test]
fn a_question() {
    let outside = Outside { to: ProcessId(0), ..outside(Kind::Ask) };
    let datagram = Secrets::NONE.close(outside, &put_ask(&introduction(1)));
    assert_eq!(datagram.len(), crate::limits::ASK_BYTES);
    // The rest is padding.
    let end = datagram.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert_is_example("a question", &datagram[..end.next_multiple_of(8)]);
}

#[test]
fn an_answer() {
    let claim = Claim {
        id: NodeId(0x0102),
        process: ProcessId(0x0fff),
        standing: 1 << 32,
        boot: 1,
        is_up: false,
        address: "[fd00::1]:7659".parse().unwrap(),
    };
    let (introduction, claims) = (introduction(1), vec![claim]);
    let answer = Answer { introduction, asked: 3, verdict: Verdict::Welcome, claims };
    assert_eq!(Answer::read(&answer.put()), Some(answer.clone()));
    assert_is_example("an answer", &Secrets::NONE.close(outside(Kind::Answer), &answer.put()));
}

fn probe() -> Vec<u8> {
    let facts = Facts {
        watermark: Ulid(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f),
        disk_free_bytes: 80_530_636_800,
        backlog_bytes: 129_002,
        is_draining: true,
    };
    let mut inside = Vec::new();
    Said { facts, wall_ms: 1_790_000_000_000, tombstones: 0xdead_beef }.put(&mut inside);
    let (src, dst) = (member(1), member(2));
    let message = Message::Ping(5);
    let header = Header { src, src_incarnation: 1, dst, message };
    let update = foca::Member::new(member(3), 2, foca::State::Suspect);
    codec::put_with_update(&header, &update, &mut inside).unwrap();
    inside
}

#[test]
fn a_probe() {
    assert_is_example("a probe", &Secrets::NONE.close(outside(Kind::Swim), &probe()));
}

#[test]
fn a_sealed_probe() {
    let secrets = Secrets::new(&["a secret of this cluster"]).unwrap();
    let datagram = secrets.close(outside(Kind::Swim), &probe());
    assert_is_example("a sealed probe", &datagram);
    assert_eq!(secrets.open(&example("a sealed probe")), Ok((outside(Kind::Swim), probe())));
}

#[test]
fn tombstones() {
    let tombstones = [Tombstone { id: NodeId(0x0401), boot: 3 }];
    let inside = put_tombstones(&tombstones);
    assert_is_example("tombstones", &Secrets::NONE.close(outside(Kind::Tombstones), &inside));
}

#[test]
fn a_refusal() {
    // In the clear, whatever secrets there are.
    let secrets = Secrets::new(&["a secret of this cluster"]).unwrap();
    let inside = [Verdict::Secret.number()];
    let datagram = secrets.close(outside(Kind::Refusal), &inside);
    assert_is_example("a refusal", &datagram);
    assert!(datagram.len() > OUTSIDE_BYTES);
}

#[test]
fn a_list_of_members() {
    let members = vec![(member(2), Ulid(0x42))];
    let tombstones = vec![Tombstone { id: NodeId(0x0401), boot: 3 }];
    let saved = Saved { members, tombstones };
    assert_is_example("a list of members", &saved.encode());
    assert_eq!(Saved::decode(&example("a list of members")), Ok(saved));
}
