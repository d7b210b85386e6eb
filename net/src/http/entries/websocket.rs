//! A WebSocket on a socket that never waits, and how long a client may keep others waiting with it.
//!
//! All that is done with it is done in turns: what was written is handed to the system, and only where all of
//! that went is something read, a little; then others have their turn. The library answers pings by itself and
//! looks for a message until there is one, so that what bounds it stands below it: `Unblocked` ends a turn
//! after so many bytes, whatever they are.
//!
//! Invariants: what is held for a client is bounded, whatever it sends and however little it takes; so is what
//! is read of it before others go on. What is worth sending, and when a client has had its time, is not known
//! here.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use crate::limits::{
    WEBSOCKET_BUFFER_BYTES, WEBSOCKET_MESSAGE_BYTES_MAX, WEBSOCKET_READS_MAX,
    WEBSOCKET_SENT_BYTES_MAX, WEBSOCKET_TURN_BYTES, WEBSOCKET_UNSENT_BYTES_MAX,
};

/// A socket that never waits, as the library takes it.
pub(super) struct Unblocked {
    socket: Arc<TcpStream>,
    /// What may still be read in this turn.
    left_bytes: usize,
    /// What was read since somebody last began to count.
    sent_bytes: usize,
}

/// What a turn has shown.
pub(super) struct Turn {
    /// All that was written was with the system at some time in it.
    pub(super) has_taken: bool,
    /// Something came.
    pub(super) has_sent: bool,
    pub(super) next: Next,
}

/// What the next turn is to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Room for what was written.
    Room,
    /// Something that comes.
    Input,
    /// Nothing: there may be more than was read.
    Nothing,
}

/// On a socket from which `read` was read already.
pub(super) fn opened(socket: Arc<TcpStream>, read: Vec<u8>) -> WebSocket<Unblocked> {
    let config = WebSocketConfig::default()
        .read_buffer_size(WEBSOCKET_BUFFER_BYTES)
        .write_buffer_size(WEBSOCKET_BUFFER_BYTES)
        .max_write_buffer_size(WEBSOCKET_UNSENT_BYTES_MAX)
        .max_message_size(Some(WEBSOCKET_MESSAGE_BYTES_MAX))
        .max_frame_size(Some(WEBSOCKET_MESSAGE_BYTES_MAX));
    let stream = Unblocked { socket, left_bytes: 0, sent_bytes: read.len() };
    WebSocket::from_partially_read(stream, read, Role::Server, Some(config))
}

/// Writes as much as there is room for, and keeps the rest for the next turn; `false`: the client is gone.
pub(super) fn queue(websocket: &mut WebSocket<Unblocked>, message: Message) -> bool {
    match websocket.write(message) {
        Err(error) => would_block(&error),
        Ok(()) => true,
    }
}

/// Hands on what was written and then takes what has come, a little of it; where that may not be all, others
/// have their turn first. `None`: the client is gone.
pub(super) async fn turn(websocket: &mut WebSocket<Unblocked>) -> Option<Turn> {
    websocket.get_mut().left_bytes = WEBSOCKET_TURN_BYTES;
    let mut turn = Turn { has_taken: false, has_sent: false, next: Next::Nothing };
    for _ in 0..WEBSOCKET_READS_MAX {
        if !flush(websocket)? {
            turn.next = Next::Room;
            return Some(turn);
        }
        turn.has_taken = true;
        match websocket.read() {
            Ok(Message::Close(_)) => {
                let _ = websocket.flush();
                return None;
            }
            Ok(_) => turn.has_sent = true,
            Err(error) if would_block(&error) => {
                if websocket.get_ref().left_bytes > 0 {
                    turn.next = Next::Input;
                    return Some(turn);
                }
                break;
            }
            Err(_) => return None,
        }
    }
    if !flush(websocket)? {
        turn.next = Next::Room;
        return Some(turn);
    }
    tokio::task::yield_now().await;
    Some(turn)
}

/// Until the next turn is worth it.
pub(super) async fn wait(socket: &TcpStream, next: Next) -> io::Result<()> {
    match next {
        Next::Room => socket.writable().await,
        Next::Input => socket.readable().await,
        Next::Nothing => Ok(()),
    }
}

/// From now on it counts anew what the client sends.
pub(super) fn count_anew(websocket: &mut WebSocket<Unblocked>) {
    websocket.get_mut().sent_bytes = 0;
}

/// Whether the client sent more than anybody has to say here.
pub(super) fn is_flooded(websocket: &WebSocket<Unblocked>) -> bool {
    websocket.get_ref().sent_bytes > WEBSOCKET_SENT_BYTES_MAX
}

/// Says that it is over, and waits for the client to say so too, if it does before it has sent too much.
pub(super) async fn close(
    websocket: &mut WebSocket<Unblocked>,
    socket: &TcpStream,
    frame: CloseFrame,
) {
    count_anew(websocket);
    if websocket.close(Some(frame)).is_err_and(|error| !would_block(&error)) {
        return;
    }
    while let Some(turn) = turn(websocket).await {
        if is_flooded(websocket) || wait(socket, turn.next).await.is_err() {
            return;
        }
    }
}

/// Whether all that was written is handed to the system. `None`: the client is gone.
fn flush(websocket: &mut WebSocket<Unblocked>) -> Option<bool> {
    match websocket.flush() {
        Ok(()) => Some(true),
        Err(error) => would_block(&error).then_some(false),
    }
}

fn would_block(error: &tungstenite::Error) -> bool {
    matches!(error, tungstenite::Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl io::Read for Unblocked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(self.left_bytes);
        if len == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = self.socket.try_read(&mut buffer[..len])?;
        self.left_bytes -= bytes;
        self.sent_bytes = self.sent_bytes.saturating_add(bytes);
        Ok(bytes)
    }
}

impl io::Write for Unblocked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn nothing_is_read_while_what_was_written_has_no_room() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = Arc::new(listener.accept().await.unwrap().0);
        let mut websocket = opened(Arc::clone(&socket), Vec::new());
        client.write_all(&[0x89, 0x80, 0, 0, 0, 0].repeat(5_000)).unwrap();
        socket.readable().await.unwrap();
        let entry = "x".repeat(crate::limits::ENTRY_RECORD_BYTES_MAX);
        let mut blocked = 0;
        while blocked < 1_000 {
            let before_bytes = websocket.get_ref().sent_bytes;
            let turn = turn(&mut websocket).await.unwrap();
            if !turn.has_taken {
                blocked += 1;
                assert_eq!(turn.next, Next::Room);
                assert_eq!(websocket.get_ref().sent_bytes, before_bytes);
            } else if turn.next != Next::Room {
                assert!(queue(&mut websocket, Message::text(&*entry)), "the longest has room");
            }
        }
        // Some megabytes, and the system takes none of them.
        let is_refused = (0..1_000).any(|_| !queue(&mut websocket, Message::text(&*entry)));
        assert!(is_refused, "what is held is bounded");
    }

    #[tokio::test]
    async fn what_a_turn_leaves_is_read_in_the_next_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = Arc::new(listener.accept().await.unwrap().0);
        let mut websocket = opened(Arc::clone(&socket), Vec::new());
        // Pieces of a message with nothing in them, twice as many as a turn takes, and its end.
        client.write_all(&[0x01, 0x80, 0, 0, 0, 0]).unwrap();
        let pieces = [0x00, 0x80, 0, 0, 0, 0].repeat(WEBSOCKET_TURN_BYTES / 3);
        client.write_all(&pieces).unwrap();
        client.write_all(&[0x80, 0x80, 0, 0, 0, 0]).unwrap();
        let mut turns = 0;
        loop {
            let before_bytes = websocket.get_ref().sent_bytes;
            let turn = turn(&mut websocket).await.unwrap();
            assert!(websocket.get_ref().sent_bytes - before_bytes <= WEBSOCKET_TURN_BYTES);
            turns += 1;
            if turn.has_sent {
                break;
            }
            wait(&socket, turn.next).await.unwrap();
        }
        assert!(turns > 2, "{turns}");
        assert_eq!(websocket.get_ref().sent_bytes, pieces.len() + 12);
    }
}
