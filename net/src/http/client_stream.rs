//! A client's socket as the HTTP library sees it, with five things that the library cannot do.
//!
//! It tells when everything written so far has been handed to the system ([`Flushes`]): a body
//! that must end with an error waits for that, because the library drops what it still buffers.
//! It holds back the bare answers that the library gives to requests it cannot parse, so that
//! `bad_head` can say what is wrong. It ends a connection whose unfinished head finds no room
//! (`head_bytes`). It ends a connection whose client takes nothing of its answer. And it tells a
//! client that is gone from one that has only said all it had to say ([`until_gone`]).
//!
//! Either closes its side of the connection, and TCP shows no difference until something is sent:
//! then one who is gone answers with a reset. So whoever has closed his side gets his whole answer;
//! a query that is silent begins its answer early, a stream says that it is alive
//! ([`Flushes::until_half_closed_for_long`]); and where nothing can be sent, probes of the system find out, within some twenty-five seconds where the
//! host is gone, and within what a client's system remembers a closed connection for (a minute
//! on Linux) otherwise.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Sleep;

use super::answer::Refusal;
use super::head_bytes::HeadAccount;
use crate::limits::{
    HALF_CLOSED_PROBE_INTERVAL, HALF_CLOSED_PROBE_TIME, HALF_CLOSED_PROBES, HALF_CLOSED_SILENCE,
    HTTP_WRITE_STALL_MAX,
};

/// Bytes read at a time: little enough for the stack, and for thousands of bodies that wait.
const READ_BYTES: usize = 16 << 10;

/// How often everything written was handed on. Shared by a connection and its answers.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    count: AtomicU64,
    waiting: Mutex<Option<Waker>>,
    /// A request of this connection was parsed.
    served: AtomicBool,
    /// What is being written is not worth waiting for any longer.
    given_up: AtomicBool,
    /// The client has closed its side.
    half_closed: AtomicBool,
    on_half_closed: Notify,
}

impl Flushes {
    /// A number that has grown once all bytes that were written before are handed on.
    pub(super) fn count(&self) -> u64 {
        self.count.load(SeqCst)
    }

    /// Ready once the count is beyond `seen`.
    pub(super) fn poll_beyond(&self, seen: u64, cx: &Context<'_>) -> Poll<()> {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if self.count() > seen { Poll::Ready(()) } else { Poll::Pending }
    }

    /// From here on the library's answers are those of our service.
    pub(super) fn serve(&self) {
        self.served.store(true, SeqCst);
    }

    /// From here on a write that has to wait fails.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, SeqCst);
    }

    /// Ready once the client has closed its side: it is gone, or wants its answer and nothing more.
    async fn until_half_closed(&self) {
        let told = self.on_half_closed.notified();
        if !self.half_closed.load(SeqCst) {
            told.await;
        }
    }

    /// Ready when such a client has been there for a little: time to send it what shows whether it
    /// is gone.
    pub(super) async fn until_half_closed_for_long(&self) {
        self.until_half_closed().await;
        tokio::time::sleep(HALF_CLOSED_SILENCE).await;
    }

    fn half_close(&self) {
        self.half_closed.store(true, SeqCst);
        self.on_half_closed.notify_waiters();
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(SeqCst)
    }

    fn flushed(&self) {
        self.count.fetch_add(1, SeqCst);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

/// Ready once the connection has failed: its client, or the way to it, is gone.
pub(super) async fn until_gone(stream: &TcpStream, flushes: &Flushes) {
    // Of these, only the end of what the client sends is ever there.
    if stream.ready(Interest::PRIORITY).await.is_ok() {
        flushes.half_close();
        let probes = TcpKeepalive::new()
            .with_time(HALF_CLOSED_PROBE_TIME)
            .with_interval(HALF_CLOSED_PROBE_INTERVAL)
            .with_retries(HALF_CLOSED_PROBES);
        // Without probes the next write finds out.
        let _ = SockRef::from(stream).set_tcp_keepalive(&probes);
    }
    let _ = stream.ready(Interest::ERROR).await;
}

/// See the module page.
pub(super) struct ClientStream {
    stream: Arc<TcpStream>,
    flushes: Arc<Flushes>,
    /// Runs out when the client has taken nothing for too long; there while it takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
    held_back: Option<[u8; 3]>,
    /// Why its head was not read on.
    refusal: Option<Refusal>,
    heads: Arc<HeadAccount>,
}

impl ClientStream {
    pub(super) fn new(
        stream: Arc<TcpStream>,
        flushes: Arc<Flushes>,
        heads: Arc<HeadAccount>,
    ) -> Self {
        Self { stream, flushes, stall: None, held_back: None, refusal: None, heads }
    }

    /// Ends a write that waits for too long, or whose answer was given up.
    fn limit_stall(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let stall =
            self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(HTTP_WRITE_STALL_MAX)));
        if stall.as_mut().poll(cx).is_ready() || self.flushes.is_given_up() {
            let words = "the client took nothing of its answer for too long";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, words)));
        }
        Poll::Pending
    }

    /// The status of the library's own answer, which was not sent.
    pub(super) const fn held_back(&self) -> Option<[u8; 3]> {
        self.held_back
    }

    /// Why the connection was ended, if that was its head.
    pub(super) const fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// Whether something is written that the client does not take.
    pub(super) const fn is_stalled(&self) -> bool {
        self.stall.is_some()
    }

    /// Writes once there is room.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        send: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let sent = loop {
            match self.stream.poll_write_ready(cx) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
            match send(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => break Poll::Ready(sent),
            }
        };
        self.limit_stall(cx, sent)
    }

    /// Whether these bytes are the library's own answer, which is then held back.
    fn holds_back(&mut self, bytes: &[u8]) -> bool {
        if self.flushes.served.load(SeqCst) {
            return false;
        }
        // Behind "HTTP/1.1 ".
        let status = bytes.get(9..12).and_then(|status| status.try_into().ok());
        self.held_back = self.held_back.or(status);
        true
    }
}

impl Read for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut chunk = [0; READ_BYTES];
        let len = buffer.remaining().min(READ_BYTES);
        let filled = loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read(&mut chunk[..len]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                filled => break filled?,
            }
        };
        if !self.heads.read(filled) {
            self.refusal = Some(self.heads.refusal());
            let words = "there is no room for its head";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::OutOfMemory, words)));
        }
        buffer.put_slice(&chunk[..filled]);
        Poll::Ready(Ok(()))
    }
}

impl Write for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.holds_back(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_send(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        if self.holds_back(first) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        self.poll_send(cx, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.stream).shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use super::super::HttpOptions;
    use super::super::ledger::Ledger;
    use super::*;
    use crate::metrics::NodeMetrics;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    /// Writes until the client's side is full.
    async fn fill(stream: &mut ClientStream) -> io::Error {
        let piece = vec![0; 64 << 10];
        loop {
            let written = poll_fn(|cx| Pin::new(&mut *stream).poll_write(cx, &piece)).await;
            if let Err(error) = written {
                return error;
            }
        }
    }

    async fn connected() -> (ClientStream, Arc<Flushes>, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let flushes = Arc::new(Flushes::default());
        flushes.serve();
        let stream = listener.accept().await.unwrap().0;
        let ledger = Ledger::new(&HttpOptions::default(), 1 << 20, &NodeMetrics::new(1));
        let heads = Arc::new(HeadAccount::new(&Arc::new(ledger)));
        (ClientStream::new(Arc::new(stream), Arc::clone(&flushes), heads), flushes, client)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_cut_off_in_time() {
        let (mut stream, _, mut client) = connected().await;
        let start = Instant::now();
        assert_eq!(fill(&mut stream).await.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= HTTP_WRITE_STALL_MAX);
        // Once it takes something it has all its time again.
        let mut taken = vec![0; 8 << 20];
        // How much that has to be is the kernel's decision.
        let takes = async { while client.read(&mut taken).await.is_ok() {} };
        tokio::select! {
            writable = stream.stream.writable() => writable.unwrap(),
            () = takes => panic!("the stream is there"),
        }
        let start = Instant::now();
        assert_eq!(fill(&mut stream).await.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= HTTP_WRITE_STALL_MAX);
    }

    #[tokio::test]
    async fn a_client_that_closes_its_side_is_not_gone_before_something_cannot_be_sent() {
        let (mut stream, flushes, mut client) = connected().await;
        let socket = Arc::clone(&stream.stream);
        let mut gone = std::pin::pin!(until_gone(&socket, &flushes));
        client.write_all(b"unread").await.unwrap();
        client.shutdown().await.unwrap();
        tokio::select! {
            biased;
            () = &mut gone => panic!("it is there"),
            () = flushes.until_half_closed() => {}
        }
        assert!(SockRef::from(&*socket).keepalive().unwrap());
        assert!(poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, b"x")).await.is_ok());
        tokio::select! {
            biased;
            () = &mut gone => panic!("it is there"),
            read = client.read_u8() => assert_eq!(read.unwrap(), b'x'),
        }
        drop(client);
        assert!(poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, b"y")).await.is_ok());
        gone.await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_given_up_waits_no_longer() {
        let (mut stream, flushes, _client) = connected().await;
        flushes.give_up();
        let start = Instant::now();
        assert_eq!(fill(&mut stream).await.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < HTTP_WRITE_STALL_MAX);
    }
}
