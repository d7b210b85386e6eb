//! What queries keep in memory on the real binary, however long the records are.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZero;

use tests::node::Node;
use tests::{sender, wait_until};

const RECORD_BYTES: usize = (16 << 20) - 1;

/// A record that compresses well, so that each query needs memory of its own for its text.
fn record(number: usize) -> Vec<u8> {
    let words = format!("record {number} goes on and on; ");
    let mut record: Vec<u8> = words.bytes().cycle().take(RECORD_BYTES).collect();
    record[RECORD_BYTES - 1] = b'.';
    record
}

/// Asks for everything and reads it with an old client, for whom an answer that is not whole ends in a
/// reset; says how many of the records came, each whole and in order.
fn read_all(api: SocketAddr, records: &[Vec<u8>]) -> usize {
    let mut stream = TcpStream::connect(api).unwrap();
    stream.write_all(b"GET /query HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    while answer.read_line(&mut line).unwrap() > 2 {}
    assert!(line.starts_with("HTTP/1.0 200"), "{line}");
    let mut piece = vec![0; 1 << 20];
    for record in records {
        answer.read_exact(&mut piece[..27]).unwrap();
        assert_eq!(piece[26], b' ', "behind a ULID");
        for expected in record.chunks(piece.len()) {
            let piece = &mut piece[..expected.len()];
            answer.read_exact(piece).unwrap();
            assert!(piece == expected);
        }
        answer.read_exact(&mut piece[..1]).unwrap();
        assert_eq!(piece[0], b'\n');
    }
    assert_eq!(answer.read(&mut piece).unwrap(), 0, "nothing comes behind the last record");
    records.len()
}

#[test]
fn thirty_queries_over_compressed_records_of_16_mib_stay_within_the_bound() {
    const QUERIES: usize = 30;
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), &["--ingest.max-record-size", "16MiB"]);
    let records: Vec<Vec<u8>> = (0..4).map(record).collect();
    for record in &records {
        sender::send(node.durable, &[&record[..], b"\n"].concat());
    }
    node.settle();
    let before = node.anonymous_bytes();
    let mut peak = before;
    std::thread::scope(|scope| {
        let ask = || read_all(node.api, &records);
        let asking: Vec<_> = (0..QUERIES).map(|_| scope.spawn(ask)).collect();
        wait_until("all have their answers", || {
            peak = peak.max(node.anonymous_bytes());
            asking.iter().all(std::thread::ScopedJoinHandle::is_finished)
        });
        for answer in asking {
            assert_eq!(answer.join().unwrap(), records.len());
        }
    });
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
    // What tuning.md says: kept between turns, what scan threads have at hand, what is output; and
    // what their connections buffer.
    let (output, connection) = (512 << 10, 128 << 10);
    let bound = (64 << 20) + cores * (64 << 20) + QUERIES as u64 * (output + connection);
    let used = peak - before;
    assert!(used <= bound, "{} MiB of {} MiB", used >> 20, bound >> 20);
}
