//! A client of `/stream` that reads along.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

/// An open stream; its connection is closed when dropped.
pub struct Follower {
    stream: TcpStream,
    body: Arc<Mutex<Vec<u8>>>,
    reader: Option<BufReader<TcpStream>>,
}

impl Follower {
    /// Opens `/stream` with these parameters and reads along.
    pub fn start(api: SocketAddr, parameters: &str, headers: &str) -> Self {
        let mut follower = Self::open(api, parameters, headers);
        follower.read();
        follower
    }

    /// Opens it; the node has said that it follows, nothing of the body is read.
    pub fn open(api: SocketAddr, parameters: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(api).expect("the port is listened on");
        stream.set_read_timeout(Some(crate::DEADLINE)).expect("a timeout can be set");
        let request =
            format!("GET /stream?{parameters} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).expect("the node takes the request");
        let mut reader = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
        let mut line = String::new();
        reader.read_line(&mut line).expect("the node answers");
        assert!(line.contains(" 200 "), "{line}");
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).expect("the head is whole");
        }
        Self { stream, body: Arc::default(), reader: Some(reader) }
    }

    /// Begins to read.
    pub fn read(&mut self) {
        let Some(mut reader) = self.reader.take() else { return };
        // Silence is no error.
        self.stream.set_read_timeout(None).expect("a timeout can be unset");
        let body = Arc::clone(&self.body);
        std::thread::spawn(move || {
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|len| len > 0) {
                let len = usize::from_str_radix(line.trim(), 16).expect("a chunk has a length");
                let mut chunk = vec![0; len + 2];
                if len == 0 || reader.read_exact(&mut chunk).is_err() {
                    return;
                }
                chunk.truncate(len);
                body.lock().expect("no reader panics").extend(chunk);
                line.clear();
            }
        });
    }

    /// Everything so far.
    pub fn body(&self) -> Vec<u8> {
        self.body.lock().expect("no reader panics").clone()
    }

    /// How much that is, bytes.
    pub fn received_bytes(&self) -> usize {
        self.body.lock().expect("no reader panics").len()
    }

    /// The same as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body()).expect("the records of this test are text")
    }

    /// Waits until what came satisfies the condition, and returns it.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let mut text = String::new();
        let came = crate::comes_true(|| {
            text = self.text();
            condition(&text)
        });
        assert!(came, "gave up waiting until {what}; what came ends in {:?}", crate::tail(&text));
        text
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
