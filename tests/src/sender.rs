//! Senders: plain lines as `nc` would, and lines with acknowledgements.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// Sends all bytes, closes its side and waits until the node closes its own: then everything was
/// taken, and on the durable port synced. The node must not send a byte.
pub fn send(port: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(port).expect("the port is listened on");
    stream.set_read_timeout(Some(crate::DEADLINE)).expect("a timeout can be set");
    stream.write_all(bytes).expect("the node takes bytes");
    stream.shutdown(Shutdown::Write).expect("a socket can be shut down");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the node closes its side");
    assert!(answer.is_empty(), "a plain client was sent {answer:?}");
}

/// A client that asked for acknowledgements.
#[derive(Debug)]
pub struct Acknowledged {
    stream: TcpStream,
    reply: Vec<u8>,
    /// Records that the node has acknowledged so far.
    pub acknowledged: u64,
}

impl Acknowledged {
    /// Connects and says hello.
    pub fn connect(port: SocketAddr) -> io::Result<Self> {
        Self::connect_with(port, b"\0OKLOGD-ACK/1\n")
    }

    /// Connects with a hello of one's own.
    pub fn connect_with(port: SocketAddr, hello: &[u8]) -> io::Result<Self> {
        let mut stream = TcpStream::connect(port)?;
        stream.set_read_timeout(Some(crate::DEADLINE))?;
        stream.set_nodelay(true)?;
        stream.write_all(hello)?;
        Ok(Self { stream, reply: Vec::new(), acknowledged: 0 })
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Waits until at least `records` are acknowledged.
    pub fn wait_for(&mut self, records: u64) -> io::Result<()> {
        while self.acknowledged < records {
            let mut chunk = [0; 4096];
            let len = self.stream.read(&mut chunk)?;
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.reply.extend_from_slice(&chunk[..len]);
            while let Some((count, rest)) = self.reply.split_first_chunk::<8>() {
                let count = u64::from_le_bytes(*count);
                assert!(count >= self.acknowledged, "acknowledgements never go back");
                self.acknowledged = count;
                self.reply = rest.to_vec();
            }
        }
        Ok(())
    }

    /// Closes the sending side and reads acknowledgements until the node closes its own.
    pub fn finish(mut self) -> io::Result<u64> {
        self.stream.shutdown(Shutdown::Write)?;
        match self.wait_for(u64::MAX) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(self.acknowledged),
            Err(e) => Err(e),
            Ok(()) => Ok(self.acknowledged),
        }
    }

    /// Closes with a reset instead of an orderly end.
    pub fn reset(self) {
        reset(self.stream);
    }
}

/// Closes a connection with a reset.
pub fn reset(stream: TcpStream) {
    let socket = socket2::SockRef::from(&stream);
    socket.set_linger(Some(std::time::Duration::ZERO)).expect("linger can be set");
    drop(stream);
}
