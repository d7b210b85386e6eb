//! `kill -9` at any moment loses nothing that was acknowledged, and a restart needs no help.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tests::http;
use tests::lines::Random;
use tests::node::Node;
use tests::sender::Acknowledged;

/// Lines that were acknowledged, and all that were ever sent.
#[derive(Default)]
struct Ledger {
    acknowledged: Vec<Vec<u8>>,
    sent: HashMap<Vec<u8>, u32>,
}

impl Ledger {
    fn note_sent(&mut self, lines: &[String]) {
        for line in lines {
            *self.sent.entry(line.clone().into_bytes()).or_default() += 1;
        }
    }

    fn note_acknowledged(&mut self, lines: &[String]) {
        self.acknowledged.extend(lines.iter().map(|l| l.clone().into_bytes()));
    }

    fn check(&self, found: &[Vec<u8>], life: usize) {
        let mut counts: HashMap<&[u8], u32> = HashMap::new();
        for record in found {
            *counts.entry(record).or_default() += 1;
        }
        for line in &self.acknowledged {
            let text = String::from_utf8_lossy(line);
            assert!(counts.contains_key(&line[..]), "life {life}: acknowledged and lost: {text}");
        }
        for (record, count) in counts {
            let text = String::from_utf8_lossy(record);
            let sent = self.sent.get(record);
            let sent = sent.unwrap_or_else(|| panic!("life {life}: never sent: {text}"));
            assert!(count <= *sent, "life {life}: found {count} times, sent {sent}: {text}");
        }
    }
}

fn batch(sender: usize, life: usize, number: u64, random: &mut Random) -> Vec<String> {
    (0..1 + random.below(20))
        .map(|i| {
            format!(
                "sender {sender} life {life} batch {number} line {i} {:x}",
                random.clone().next_u64()
            )
        })
        .collect()
}

fn send_over_tcp(node: &Node, sender: usize, life: usize, ledger: &Mutex<Ledger>) {
    let mut random = Random::new((sender * 1000 + life) as u64);
    let Ok(mut connection) = Acknowledged::connect(node.durable) else { return };
    let mut records = 0;
    for number in 0.. {
        let lines = batch(sender, life, number, &mut random);
        ledger.lock().unwrap().note_sent(&lines);
        let text = lines.join("\n") + "\n";
        records += lines.len() as u64;
        if connection.send(text.as_bytes()).is_err() || connection.wait_for(records).is_err() {
            return;
        }
        ledger.lock().unwrap().note_acknowledged(&lines);
    }
}

fn send_over_http(node: &Node, sender: usize, life: usize, ledger: &Mutex<Ledger>) {
    let mut random = Random::new((sender * 1000 + life) as u64);
    for number in 0.. {
        let lines = batch(sender, life, number, &mut random);
        ledger.lock().unwrap().note_sent(&lines);
        let text = lines.join("\n");
        let path = "/records?mode=durable";
        match http::try_request(node.api, "POST", path, &[], text.as_bytes()) {
            Ok(answer) if answer.status == 200 && answer.complete => {
                ledger.lock().unwrap().note_acknowledged(&lines);
            }
            _ => return,
        }
    }
}

fn one_life(directory: &Path, life: usize, ledger: &Mutex<Ledger>) {
    let node = Node::start(
        directory,
        &["--store.segment-target-age", "200ms", "--ingest.segment-flush-age", "150ms"],
    );
    if life % 10 == 9 {
        ledger.lock().unwrap().check(&node.all_lines(), life);
    }
    let mut random = Random::new(life as u64);
    let goal = ledger.lock().unwrap().acknowledged.len() + 20 + random.below(400) as usize;
    std::thread::scope(|scope| {
        for sender in 0..3 {
            scope.spawn({
                let node = &node;
                move || send_over_tcp(node, sender, life, ledger)
            });
        }
        scope.spawn(|| send_over_http(&node, 3, life, ledger));
        tests::wait_until("enough is acknowledged", || {
            ledger.lock().unwrap().acknowledged.len() >= goal
        });
        node.signal(rustix::process::Signal::KILL);
    });
    node.kill();
}

#[test]
fn fifty_kills_lose_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    for life in 0..50 {
        one_life(directory.path(), life, &ledger);
    }
    let node = Node::start(directory.path(), &[]);
    let ledger = ledger.lock().unwrap();
    ledger.check(&node.all_lines(), 50);
    node.settle();
    ledger.check(&node.all_lines(), 50);
    assert!(ledger.acknowledged.len() > 1000, "{}", ledger.acknowledged.len());
}

/// A kill may cost what came in during the last flush interval, and nothing else.
#[test]
fn a_kill_costs_fast_senders_at_most_the_last_flush_interval() {
    use std::io::Write;
    let directory = tempfile::tempdir().unwrap();
    for life in 0..5 {
        let node = Node::start(directory.path(), &[]);
        let mut stream = std::net::TcpStream::connect(node.fast).unwrap();
        let marker = format!("settled in life {life}");
        writeln!(stream, "{marker}").unwrap();
        tests::wait_until("it is found", || {
            node.all_lines().iter().any(|l| l == marker.as_bytes())
        });
        tests::wait_until("the line left the node's memory", || {
            node.metric("oklog_disk_written_bytes_total") > 0.0
        });
        node.kill();
    }
    let node = Node::start(directory.path(), &[]);
    let lines = node.all_lines();
    for life in 0..5 {
        let marker = format!("settled in life {life}").into_bytes();
        assert_eq!(lines.iter().filter(|&l| *l == marker).count(), 1, "life {life}");
    }
}
