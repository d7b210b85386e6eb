//! What goes in comes back byte for byte, whatever the bytes and however they arrive.

use std::io::Write;
use std::net::TcpStream;

use tests::lines::{Random, sorted, split};
use tests::node::Node;
use tests::sender::{self, Acknowledged};
use tests::{http, wait_until};

fn node() -> (tempfile::TempDir, Node) {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &[]);
    (directory, node)
}

#[test]
fn odd_bytes_survive_every_way_in() {
    let (_directory, node) = node();
    let odd: &[u8] =
        b"nul \0 inside\nends in cr\r\n\n\n\xff\xfe not utf-8 \xc3\n%s %n %d\n\ttab\n \nlast";
    sender::send(node.fast, odd);
    sender::send(node.durable, odd);
    let answer = http::post(node.api, "/records?mode=durable", odd);
    assert_eq!((answer.status, answer.json()["records"].as_u64()), (200, Some(9)));
    let expected: Vec<Vec<u8>> = (0..3).flat_map(|_| split(odd)).collect();
    assert_eq!(sorted(node.all_lines()), sorted(expected.clone()));
    node.settle();
    assert_eq!(sorted(node.all_lines()), sorted(expected), "the same from the store");
}

#[test]
fn order_within_a_connection_is_kept() {
    let (_directory, node) = node();
    let lines: Vec<Vec<u8>> = (0..20_000).map(|i| format!("line {i}").into_bytes()).collect();
    let mut body = lines.join(&b'\n');
    body.push(b'\n');
    sender::send(node.durable, &body);
    assert_eq!(node.all_lines(), lines);
    let mut newest_first = node.query("order=desc&limit=3");
    newest_first.reverse();
    assert_eq!(newest_first, node.query("").split_off(lines.len() - 3));
}

#[test]
fn long_lines_are_cut_and_nothing_of_them_or_their_neighbours_is_lost() {
    let (_directory, node) = node();
    for len in [70_000usize, (1 << 20) + 1, 100_000_000] {
        let long: Vec<u8> = (0..len).map(|i| b'a' + (i % 23) as u8).collect();
        let before = format!("before {len}\n");
        let after = format!("\nafter {len}\n");
        let cut_before = node.metric("oklog_ingest_cut_records_total");
        sender::send(node.durable, &[before.as_bytes(), &long, after.as_bytes()].concat());
        let records = node.query("").into_iter().map(|(_, r)| r);
        let records: Vec<Vec<u8>> =
            records.skip_while(|r| r != before.trim_end().as_bytes()).collect();
        assert_eq!(records.last().unwrap(), after.trim().as_bytes());
        let pieces = &records[1..records.len() - 1];
        assert_eq!(pieces.len(), len.div_ceil(1 << 20), "cut at the record size");
        assert!(pieces.concat() == long, "the pieces of {len} bytes are the line");
        let cut = node.metric("oklog_ingest_cut_records_total") - cut_before;
        assert_eq!(cut > 0.0, len > 1 << 20, "cuts are counted");
    }
}

/// Lines of all lengths: empty ones, ones of several receives, one that has to be cut.
fn mixed_lines(random: &mut Random, bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + (3 << 20));
    while text.len() < bytes {
        let len = match random.below(4000) {
            0 => 300_000 + random.below(300_000),
            1 => (1 << 20) + 7,
            2..10 => 0,
            _ => random.below(400),
        };
        let fill = b'a' + random.below(26) as u8;
        text.resize(text.len() + len as usize, fill);
        writeln!(text, "{:x}", random.next_u64()).unwrap();
    }
    text
}

#[test]
fn senders_in_bulk_are_received_into_the_frame_and_come_back_whole() {
    let (_directory, node) = node();
    let send_bulk = |seed: u64, mut stream: Acknowledged| {
        let mut random = Random::new(seed);
        let mut sent = Vec::new();
        let mut send = |stream: &mut Acknowledged, text: &[u8]| {
            stream.send(text).unwrap();
            sent.extend_from_slice(text);
        };
        // In bulk, then in small pieces, then in bulk again, until the node has noticed.
        wait_until("some are received into the frame", || {
            send(&mut stream, &mixed_lines(&mut random, 2 << 20));
            mixed_lines(&mut random, 60_000).chunks(997).for_each(|c| send(&mut stream, c));
            node.metric("oklog_ingest_direct_bytes_total") > 1e6
        });
        let sent: Vec<Vec<u8>> =
            split(&sent).iter().flat_map(|line| pieces_of(line, 1 << 20)).collect();
        stream.wait_for(sent.len() as u64).unwrap();
        sent
    };
    let sent = std::thread::scope(|scope| {
        let fast = scope.spawn(|| send_bulk(1, Acknowledged::connect(node.fast).unwrap()));
        let hello = b"\0OKLOGD-ACK/1 topic=bulk\n";
        let durable = Acknowledged::connect_with(node.durable, hello).unwrap();
        let sent = [send_bulk(2, durable), fast.join().unwrap()];
        let of_topic: Vec<_> = node.query("topic=bulk").into_iter().map(|(_, line)| line).collect();
        assert!(of_topic == sent[0], "one connection's lines keep their order and topic");
        sent.concat()
    });
    assert!(sorted(node.all_lines()) == sorted(sent), "every line is there once");
}

#[test]
fn long_lines_in_bulk_are_not_copied_before_each_receive() {
    let (_directory, node) = node();
    let mut stream = Acknowledged::connect(node.fast).unwrap();
    let line = [&[b'l'; 1_000_000][..], b"\n"].concat();
    for n in 1..=40 {
        stream.send(&line).unwrap();
        stream.wait_for(n).unwrap();
    }
    let kept = node.all_lines();
    assert!(kept.len() == 40 && kept.iter().all(|kept| kept[..] == line[..1_000_000]));
    let direct = node.metric("oklog_ingest_direct_bytes_total");
    assert!(direct < 10e6, "{direct} of 40 MB were received behind copies of what had come before");
}

/// What becomes of a line that is longer than a record.
fn pieces_of(line: &[u8], record_size_max: usize) -> Vec<Vec<u8>> {
    let pieces: Vec<_> = line.chunks(record_size_max).map(<[u8]>::to_vec).collect();
    if pieces.is_empty() { vec![Vec::new()] } else { pieces }
}

#[test]
fn lines_in_tiny_pieces_from_many_senders_are_whole() {
    let (_directory, node) = node();
    let senders: Vec<_> = (0..8u64)
        .map(|s| {
            let port = node.fast;
            std::thread::spawn(move || {
                let mut random = Random::new(s);
                let mut text = Vec::new();
                for i in 0..500 {
                    writeln!(text, "sender {s} line {i} {:x}", random.next_u64()).unwrap();
                }
                let mut stream = TcpStream::connect(port).unwrap();
                let mut rest = &text[..];
                while !rest.is_empty() {
                    let len = (1 + random.below(70) as usize).min(rest.len());
                    stream.write_all(&rest[..len]).unwrap();
                    rest = &rest[len..];
                }
                text
            })
        })
        .collect();
    let sent: Vec<Vec<u8>> = senders.into_iter().flat_map(|s| split(&s.join().unwrap())).collect();
    wait_until("all lines are there", || node.all_lines().len() == sent.len());
    assert_eq!(sorted(node.all_lines()), sorted(sent));
}

#[test]
fn a_reset_inside_a_line_keeps_what_is_there_and_counts_it() {
    let (_directory, node) = node();
    let mut stream = TcpStream::connect(node.fast).unwrap();
    stream.write_all(b"whole one\nwhole two\nhalf a li").unwrap();
    wait_until("the node has read it", || {
        node.metric("oklog_ingest_writer_records_written_total") == 2.0
            && node.metric("oklog_ingest_partial_line_bytes") > 0.0
    });
    sender::reset(stream);
    wait_until("the partial line is a record", || node.all_lines().len() == 3);
    assert_eq!(node.all_lines()[2], b"half a li");
    assert_eq!(node.metric("oklog_ingest_partial_lines_kept_total"), 1.0);
}

#[test]
fn a_reset_inside_an_acknowledged_line_drops_it_because_its_sender_resends() {
    let (_directory, node) = node();
    let mut sender = Acknowledged::connect(node.durable).unwrap();
    sender.send(b"whole one\nwhole two\nhalf a li").unwrap();
    sender.wait_for(2).unwrap();
    sender.reset();
    wait_until("it is counted", || {
        node.metric("oklog_ingest_partial_lines_discarded_total") == 1.0
    });
    assert_eq!(node.all_lines(), [b"whole one".to_vec(), b"whole two".to_vec()]);
}

#[test]
fn acknowledgements_count_every_record_of_the_connection() {
    let (_directory, node) = node();
    for port in [node.fast, node.durable] {
        let mut sender = Acknowledged::connect_with(port, b"\0OKLOGD-ACK/1 topic=web-1\n").unwrap();
        for i in 0..10 {
            sender.send(format!("a {i}\nb {i}\n").as_bytes()).unwrap();
            sender.wait_for(2 * (i + 1)).unwrap();
        }
        sender.send(b"no line feed at the end").unwrap();
        assert_eq!(sender.finish().unwrap(), 21);
    }
    assert_eq!(node.query("topic=web-1").len(), 42);
    assert_eq!(node.query("topic=other").len(), 0);
}

#[test]
fn first_words_are_topics_in_dynamic_mode() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(
        directory.path(),
        &["--ingest.topic-mode", "dynamic", "--ingest.topics-max", "3"],
    );
    sender::send(
        node.durable,
        b"web one\ndb two\nweb three\n.bad four\n\nweb\ncache x\nfourth y\n",
    );
    let topic = |name: &str| -> Vec<Vec<u8>> {
        node.query(&format!("topic={name}")).into_iter().map(|(_, r)| r).collect()
    };
    assert_eq!(topic("web"), [b"web one".to_vec(), b"web three".to_vec(), b"web".to_vec()]);
    assert_eq!(topic("db"), [b"db two".to_vec()]);
    assert_eq!(topic("invalid").len() + topic("cache").len() + topic("fourth").len(), 4);
    assert!(topic("invalid").contains(&b".bad four".to_vec()));
    assert!(node.metric("oklog_ingest_invalid_topic_records_total") >= 2.0);
    let topics = node.get("/topics").json();
    assert!(topics.to_string().contains("\"web\""), "{topics}");
}

#[test]
fn a_hello_that_cannot_be_obeyed_is_answered_with_the_reason_and_hung_up_on() {
    let (_directory, node) = node();
    let durable = "durable was asked for: use the durable port (7652)";
    for (port, hello, reason) in [
        (node.durable, "\0OKLOGD-ACK/2\n", "the version of the handshake is not 1"),
        (node.fast, "\0OKLOGD-ACK/1 promise=durable count=bytes\n", durable),
        (node.durable, "\0OKLOGD-ACK/1 promise=fast\n", "fast was asked for"),
        (node.durable, "\0OKLOGD-ACK/1 color=red\nlost\n", "unknown field"),
    ] {
        let mut stream = TcpStream::connect(port).unwrap();
        stream.set_read_timeout(Some(tests::DEADLINE)).unwrap();
        stream.write_all(hello.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A reset is as good an end as an orderly one.
        let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("\0OKLOGD-NO/1 ") && answer.ends_with('\n'), "{answer:?}");
        assert!(answer.contains(reason), "{hello:?}: {answer:?}");
    }
    for promise in ["fast", "durable"] {
        let open = format!("oklog_connected_clients{{modality=\"{promise}\"}}");
        wait_until("its place is free", || node.metric(&open) == 0.0);
    }
    assert!(node.all_lines().is_empty());
    for (port, promise) in [(node.fast, "fast"), (node.durable, "durable")] {
        let hello = format!("\0OKLOGD-ACK/1 promise={promise}\n");
        let mut sender = Acknowledged::connect_with(port, hello.as_bytes()).unwrap();
        sender.send(promise.as_bytes()).unwrap();
        assert_eq!(sender.finish().unwrap(), 1);
    }
    assert_eq!(tests::lines::sorted(node.all_lines()), [b"durable".to_vec(), b"fast".to_vec()]);
}

#[test]
fn a_node_that_stops_still_acknowledges_what_it_took() {
    let (_directory, node) = node();
    let mut sender = Acknowledged::connect(node.durable).unwrap();
    sender.send(b"one\ntwo\nhalf").unwrap();
    sender.wait_for(2).unwrap();
    sender.send(b" a line\nfour\n").unwrap();
    wait_until("it is taken", || node.all_lines().len() == 4);
    assert!(node.stop().success());
    assert_eq!(sender.finish().unwrap(), 4);
}
