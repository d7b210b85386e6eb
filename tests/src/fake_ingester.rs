//! An ingester that does what a test says: it reads the hello and leaves the rest to the test.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// What an ingester answers that counts bytes.
const COUNTING_BYTES: [u8; 8] = [0xff; 8];

/// A listener on 127.0.0.1.
pub struct FakeIngester {
    listener: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
}

impl FakeIngester {
    /// Starts one on a port that the kernel chooses.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        Self { listener, address }
    }

    /// The next connection and its hello, without LF; not answered yet.
    pub fn accept(&self) -> io::Result<(TcpStream, String)> {
        let (mut stream, _) = self.listener.accept()?;
        stream.set_read_timeout(Some(crate::DEADLINE))?;
        let mut hello = Vec::new();
        let mut byte = [0];
        loop {
            stream.read_exact(&mut byte)?;
            if byte == *b"\n" {
                return Ok((stream, String::from_utf8_lossy(&hello).into_owned()));
            }
            hello.push(byte[0]);
        }
    }

    /// The next connection, its hello obeyed.
    pub fn take(&self) -> io::Result<TcpStream> {
        let (mut stream, _) = self.accept()?;
        stream.write_all(&COUNTING_BYTES)?;
        Ok(stream)
    }

    /// Takes one connection to its end, acknowledges everything, and gives back its bytes.
    pub fn take_all(&self) -> io::Result<Vec<u8>> {
        let mut stream = self.take()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        acknowledge(&mut stream, bytes.len() as u64)?;
        Ok(bytes)
    }
}

/// Says that so many bytes of this connection are safe.
pub fn acknowledge(stream: &mut TcpStream, count: u64) -> io::Result<()> {
    stream.write_all(&count.to_le_bytes())
}
