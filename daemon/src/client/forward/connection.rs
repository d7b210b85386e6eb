//! One connection to an ingester: the hello and its answer, then bytes one way and counts the other.
//!
//! Invariants: no line is sent before the ingester has said that it takes them and makes the promise
//! that was asked for, so whoever is none gets nothing but the hello; every wait has an end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use engine::ingest::hello::{Answer, Promise, Secret, may_hold_token, read_answer};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::limits::{
    FORWARD_ANSWER_TIMEOUT, FORWARD_CONNECT_TIMEOUT, FORWARD_UNSENT_BYTES, FORWARD_USER_TIMEOUT,
};
use super::progress::Progress;

/// Bytes of a stranger's answer that are shown.
const SHOWN_BYTES: usize = 48;

/// Why a connection was not made or did not last.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    why: String,
    pub(crate) verdict: Verdict,
}

/// What a failure says about the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may be better in a moment.
    Passing,
    /// Somebody is there and does not say a word, or gets no further: frozen, full, or none of ours.
    Silent,
    /// What is there does not take these lines: it says so, or is no ingester.
    Refusal,
}

impl Failure {
    pub(crate) fn passing(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), verdict: Verdict::Passing }
    }

    pub(crate) fn silent(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), verdict: Verdict::Silent }
    }

    fn refusal(why: String) -> Self {
        Self { why, verdict: Verdict::Refusal }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// A connection that an ingester has taken.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    /// Bytes of a count that is not whole.
    reply: Vec<u8>,
    /// Whether everything is sent and the ingester knows that.
    pub(crate) is_finished: bool,
    pub(crate) progress: Progress,
}

impl Connection {
    /// Connects to `address`, says hello, and waits for the answer.
    pub(crate) async fn make(address: SocketAddr, hello: &[u8]) -> Result<Self, Failure> {
        let stream = timeout(FORWARD_CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let mut stream = stream
            .map_err(|_| Failure::passing("connecting took too long"))?
            .map_err(Failure::passing)?;
        set_options(&stream);
        let greeted = timeout(FORWARD_ANSWER_TIMEOUT, greet(&mut stream, hello)).await;
        let reply = greeted.map_err(|_| {
            Failure::silent(
                "it accepts connections and does not answer: it is stuck, full, or no ingester",
            )
        })??;
        let progress = Progress::new(Instant::now());
        Ok(Self { stream, reply, is_finished: false, progress })
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        let socket = SockRef::from(&self.stream);
        socket.shutdown(std::net::Shutdown::Write).map_err(Failure::passing)?;
        self.is_finished = true;
        Ok(())
    }

    /// Writes what the socket takes of `bytes`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        match self.stream.try_write(bytes) {
            Ok(sent) => {
                self.progress.on_written(Instant::now());
                Ok(sent)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(e) => Err(Failure::passing(e)),
        }
    }

    /// The counts that have come.
    pub(crate) fn read_counts(&mut self) -> Result<Vec<u64>, Failure> {
        let mut bytes = [0; 4096];
        match self.stream.try_read(&mut bytes) {
            Ok(0) => return Err(Failure::passing("the ingester closed the connection")),
            Ok(len) => self.reply.extend_from_slice(&bytes[..len]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(Failure::passing(e)),
        }
        let whole = self.reply.len() / 8 * 8;
        let counts = self.reply.drain(..whole).collect::<Vec<u8>>();
        let count = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        Ok(counts.chunks_exact(8).map(count).collect())
    }
}

/// What is sent first: counts of bytes are asked for, since those of records depend on where the
/// ingester cuts long lines.
pub(crate) fn hello(promise: Promise, topic: Option<&str>, token: Option<&Secret>) -> Vec<u8> {
    let topic = topic.map_or_else(String::new, |topic| format!(" topic={topic}"));
    let token = token.map_or_else(String::new, |token| format!(" token={}", token.as_str()));
    let promise = promise.name();
    format!("\0OKLOGD-ACK/1 promise={promise}{topic}{token} count=bytes\n").into_bytes()
}

/// Sends the hello and reads the answer; gives back what came behind it.
async fn greet(stream: &mut TcpStream, hello: &[u8]) -> Result<Vec<u8>, Failure> {
    stream.write_all(hello).await.map_err(Failure::passing)?;
    let mut answer = Vec::new();
    loop {
        let mut bytes = [0; 512];
        let len = stream.read(&mut bytes).await.map_err(Failure::passing)?;
        if len == 0 {
            return Err(Failure::passing("it closed the connection without an answer"));
        }
        answer.extend_from_slice(&bytes[..len]);
        match read_answer(&answer) {
            Answer::Undecided => {}
            Answer::Taken => return Ok(answer.split_off(8)),
            Answer::Refused(reason) => {
                let reason = reason.escape_debug();
                return Err(Failure::refusal(format!("the ingester refuses: {reason}")));
            }
            // It may be the token.
            Answer::Foreign if may_hold_token(&answer) => {
                return Err(Failure::refusal(
                    "what listens there is no ingester's port: it sent back what it was sent"
                        .to_owned(),
                ));
            }
            Answer::Foreign => {
                let shown = answer[..answer.len().min(SHOWN_BYTES)].escape_ascii();
                return Err(Failure::refusal(format!(
                    "what listens there is no ingester's port: it sent \"{shown}\""
                )));
            }
        }
    }
}

/// A host that is gone is noticed; small writes are not held back; what the socket takes is soon on
/// the wire, so that taking it means getting on. Where an option cannot be set the connection works
/// without it.
fn set_options(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(FORWARD_USER_TIMEOUT));
    let _ = socket.set_tcp_notsent_lowat(FORWARD_UNSENT_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::ingest::hello::{Opening, read};

    #[test]
    fn the_hello_is_one_that_ingesters_obey() {
        let token = Secret::new(b"s3cret");
        for (promise, topic, token) in
            [(Promise::Fast, None, None), (Promise::Durable, Some("web"), token.as_ref())]
        {
            let bytes = hello(promise, topic, token);
            let Opening::Hello { hello, used } = read(&bytes) else { panic!("{bytes:?}") };
            assert_eq!(
                (hello.promise, hello.counts_bytes, used),
                (Some(promise), true, bytes.len())
            );
            assert_eq!(hello.token.as_ref(), token);
            assert_eq!(hello.topic.map(|t| t.as_str().to_owned()).as_deref(), topic);
        }
    }
}
