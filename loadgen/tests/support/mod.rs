//! A stand-in for a node: keeps the lines it is sent in memory and answers `/query` with them,
//! whole or with a fault. One thread per connection; only as much HTTP as loadgen speaks.

// Test code; clippy only knows functions marked as tests.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

/// What the node does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    LoseOne,
    DoubleOne,
    AlterOne,
    /// Closes each connection behind this many acknowledged records.
    CloseAfter(usize),
}

/// The node and its addresses.
pub(crate) struct Node {
    pub(crate) ingest: String,
    pub(crate) api: String,
    pub(crate) records: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Node {
    pub(crate) fn start(fault: Fault, record_bytes_max: usize) -> Self {
        let records = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&records);
        let ingest = serve(move |stream| keep(stream, &kept, fault, record_bytes_max));
        let kept = Arc::clone(&records);
        let api = serve(move |stream| answer(stream, &kept.lock().unwrap(), fault));
        Self { ingest, api, records }
    }
}

fn serve(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let handle = Arc::new(handle);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let handle = Arc::clone(&handle);
            thread::spawn(move || handle(stream.unwrap()));
        }
    });
    address
}

fn keep(mut stream: TcpStream, kept: &Mutex<Vec<Vec<u8>>>, fault: Fault, record_bytes_max: usize) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut count, mut acks, mut line) = (0u64, false, Vec::new());
    while reader.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
        if count == 0 && line.starts_with(b"\0OKLOGD-ACK/1") {
            acks = true;
            line.clear();
            continue;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let mut kept = kept.lock().unwrap();
        if line.is_empty() {
            kept.push(Vec::new());
            count += 1;
        }
        for record in line.chunks(record_bytes_max) {
            kept.push(record.to_vec());
            count += 1;
        }
        drop(kept);
        line.clear();
        if acks && stream.write_all(&count.to_le_bytes()).is_err() {
            return;
        }
        if matches!(fault, Fault::CloseAfter(records) if count >= records as u64) {
            return;
        }
    }
}

fn answer(mut stream: TcpStream, kept: &[Vec<u8>], fault: Fault) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 2 {
        line.clear();
    }
    let mut records = kept.to_vec();
    let middle = records.len() / 2;
    match fault {
        Fault::None | Fault::CloseAfter(_) => {}
        Fault::LoseOne => drop(records.remove(middle)),
        Fault::DoubleOne => records.push(records[middle].clone()),
        Fault::AlterOne => records[middle].push(b'!'),
    }
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Oklog-Complete: true\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for (batch, part) in records.chunks(500).enumerate() {
        let mut body = Vec::new();
        for (index, record) in part.iter().enumerate() {
            write!(body, "{:026} ", batch * 500 + index + 1).unwrap();
            body.extend_from_slice(record);
            body.push(b'\n');
        }
        write!(stream, "{:x}\r\n", body.len()).unwrap();
        stream.write_all(&body).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
}

/// A `loadgen sink` process; ends with this value.
pub(crate) struct Sink {
    child: std::process::Child,
    pub(crate) address: String,
}

impl Sink {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args(["sink", "--port", "0"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().to_string();
        Self { child, address }
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Runs loadgen with `--json`; exit code and report.
pub(crate) fn loadgen(args: &[&str]) -> (i32, serde_json::Value) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_loadgen")).args(args).arg("--json").output().unwrap();
    let mut stdout = String::new();
    output.stdout.as_slice().read_to_string(&mut stdout).unwrap();
    let report = serde_json::from_str(&stdout).unwrap_or_else(|_| {
        serde_json::Value::String(String::from_utf8_lossy(&output.stderr).into_owned())
    });
    (output.status.code().unwrap(), report)
}
