//! What only one can say who knows the inside: other versions, words of those who may not speak, lists.

use super::*;
use crate::message::{Answer, Introduced, Introduction, put_ask};
use crate::testing::{Few, address, settings};

const LATER: Protocol = Protocol { oldest: 8, newest: 9 };

fn introduction(protocol: Protocol, at: u8) -> Introduction {
    let few = Few::of(vec![settings(at)]);
    let member = Member { protocol, ..few.nodes[0].own().clone() };
    let rest = Introduced { is_in: true, lived_ms: 1, member };
    Introduction { protocol, cluster: "oklogd".to_owned(), rest: Some(rest) }
}

fn refusals(few: &Few) -> Vec<String> {
    let refused = few.events.iter().filter(|(_, event)| matches!(event, Event::Refused(_)));
    refused.map(|(_, event)| event.to_string()).collect()
}

#[test]
fn a_version_that_does_not_overlap_is_refused_by_who_is_asked_and_by_who_asks() {
    let mut few = Few::of(vec![settings(1), settings(2)]);
    few.run(500);
    let outside = |kind, to| Outside { kind, from: ProcessId(0x1009), to, number: 1 };
    // It asks us.
    let ask = put_ask(&introduction(LATER, 9));
    let datagram = Secrets::NONE.close(outside(Kind::Ask, ProcessId(0)), &ask);
    few.nodes[0].receive(few.now, address(9), &datagram);
    let answered = few.drain(0);
    let (_, inside) = Secrets::NONE.open(&answered[0].1).unwrap();
    assert_eq!(Answer::read(&inside).unwrap().verdict, Verdict::OtherVersion);
    let line = &refusals(&few)[0];
    assert!(line.contains("10.0.0.9:7659 speaks version 8 to 9"), "{line}");
    assert!(line.contains("(10.0.0.1:7659) version 1"), "{line}");
    // We ask it: it is a seed of the second node, and whatever it says after its versions and name may
    // have any form.
    few.nodes[1].resolved(few.now, 0, vec![address(9)]);
    few.nodes[1].turn(Now { ms: few.now.ms + 250, ..few.now });
    few.now.ms += 250;
    assert!(few.drain(1).iter().any(|(to, _)| *to == address(9)));
    let mut answer = vec![LATER.oldest, LATER.newest, 6];
    answer.extend(b"oklogd\xff\xff\xff");
    let to = few.nodes[1].own().process;
    let datagram = Secrets::NONE.close(outside(Kind::Answer, to), &answer);
    few.nodes[1].receive(few.now, address(9), &datagram);
    few.drain(1);
    let line = &refusals(&few)[1];
    assert!(line.contains("10.0.0.9:7659 speaks version 8 to 9"), "{line}");
    assert!(few.nodes.iter().all(|node| node.members().len() == 1));
}

#[test]
fn an_answer_that_nobody_asked_for_is_not_heard() {
    let mut few = Few::of(vec![settings(1), settings(2)]);
    few.run(500);
    // A copy of the first node that lives for a year, if one believes it.
    let mut introduction = introduction(Protocol::OURS, 1);
    let rest = introduction.rest.as_mut().unwrap();
    (rest.lived_ms, rest.member.process) = (u64::MAX, ProcessId(77));
    let to = few.nodes[0].own().process;
    for asked in 0..100 {
        let introduction = introduction.clone();
        let answer = Answer { introduction, asked, verdict: Verdict::Welcome, claims: Vec::new() };
        let outside = Outside { kind: Kind::Answer, from: ProcessId(77), to, number: 1 + asked };
        let datagram = Secrets::NONE.close(outside, &answer.put());
        few.nodes[0].receive(few.now, address(77), &datagram);
    }
    few.run(5_000);
    assert!(few.nodes[0].is_in() && few.nodes[0].members().len() == 1);
}

#[test]
fn who_was_introduced_by_nobody_is_asked_who_he_is_before_he_is_believed() {
    let mut few = Few::of(vec![settings(1), settings(2), settings(3)]);
    few.run(500);
    // What the second says to the third, sent as by a process that the third does not know.
    let to = few.nodes[2].own().process;
    let heard = few.sent.iter().filter_map(|(_, _, bytes)| Secrets::NONE.open(bytes).ok());
    let (outside, inside) =
        heard.into_iter().find(|(o, _)| o.kind == Kind::Swim && o.to == to).unwrap();
    let stranger = Outside { from: ProcessId(0x5555), ..outside };
    let datagram = Secrets::NONE.close(stranger, &inside);
    let before = few.nodes[2].counts().unknown;
    few.nodes[2].receive(few.now, address(50), &datagram);
    assert_eq!(few.nodes[2].counts().unknown, before + 1);
    few.now.ms += 250;
    few.nodes[2].turn(few.now);
    let asked = few.drain(2).into_iter().find(|(to, _)| *to == address(50)).unwrap();
    let (outside, _) = Secrets::NONE.open(&asked.1).unwrap();
    assert_eq!(outside.kind, Kind::Ask);
    assert_eq!(few.nodes[2].members().len(), 2);
}

#[test]
fn a_node_of_which_others_believe_too_much_gets_past_it_in_one_step() {
    let mut few = Few::of(vec![settings(1), settings(2), settings(3)]);
    few.run(1_000);
    let (second, third) = (few.nodes[1].own().clone(), few.nodes[2].own().clone());
    // The second is made to say to the first that the third has come back a million times.
    let first = few.nodes[0].own().clone();
    let mut inside = Vec::new();
    few.nodes[1].said().put(&mut inside);
    let header = foca::Header {
        src: second.clone(),
        src_incarnation: 0,
        dst: first.clone(),
        message: foca::Message::Gossip,
    };
    let far = foca::Member::alive(third.at(third.standing + 1_000_000));
    codec::put_with_update(&header, &far, &mut inside).unwrap();
    let outside =
        Outside { kind: Kind::Swim, from: second.process, to: first.process, number: 1 << 40 };
    few.nodes[0].receive(few.now, address(2), &Secrets::NONE.close(outside, &inside));
    let before = few.sent.len();
    few.run(8_000);
    assert!(few.nodes[2].own().standing > third.standing + 1_000_000);
    let all_up = |node: &Gossip| node.members().iter().all(|v| v.state == crate::State::Up);
    let states: Vec<_> = few
        .nodes
        .iter()
        .map(|n| {
            (
                n.own().standing,
                n.members().into_iter().map(|v| (v.member.standing, v.state)).collect::<Vec<_>>(),
            )
        })
        .collect();
    assert!(few.nodes.iter().all(all_up), "{states:?}");
    assert!(few.sent.len() - before < 400, "{}", few.sent.len() - before);
}

#[test]
fn a_list_of_members_that_is_not_whole_is_an_error_and_never_a_shorter_list() {
    let mut few = Few::of(vec![settings(1), settings(2), settings(3)]);
    few.run(500);
    let whole = few.nodes[0].saved();
    assert_eq!((whole.members(), Saved::decode(&whole.encode())), (2, Ok(whole.clone())));
    let bytes = whole.encode();
    for len in 0..bytes.len() {
        assert!(Saved::decode(&bytes[..len]).is_err(), "cut at {len}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(Saved::decode(&changed).is_err(), "bit {bit}");
    }
    let mut later = bytes;
    later[3] = b'2';
    assert_eq!(Saved::decode(&later), Err(crate::SavedError::OtherVersion));
}

#[test]
fn more_than_there_may_be_are_not_forgotten_either() {
    let mut few = Few::of(vec![settings(1), settings(2)]);
    few.run(500);
    let tombstone = |at: u128| crate::message::Tombstone {
        id: engine::identity::NodeId(1 << 64 | at),
        boot: 1,
    };
    for round in 0..300 {
        let some: Vec<_> = (round * 20..round * 20 + 20).map(tombstone).collect();
        few.nodes[0].handle_tombstones(address(2), &some);
    }
    assert_eq!(few.nodes[0].forgotten().len(), crate::limits::TOMBSTONES_MAX);
    // The other one learns all of them, piece by piece.
    few.run(110_000);
    assert_eq!(few.nodes[1].forgotten(), few.nodes[0].forgotten());
}
