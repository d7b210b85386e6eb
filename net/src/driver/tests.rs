//! The same for both: what a shard relies on, through real sockets and files.

use std::io::{Read, Seek, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use rustix::event::{EventfdFlags, eventfd};

use super::*;

const KINDS: [DriverKind; 2] = [DriverKind::Uring, DriverKind::Posix];
const BUFFER_BYTES: usize = 4096;

struct Bench {
    driver: Driver,
    wake: OwnedFd,
    listener: TcpListener,
}

fn bench(kind: DriverKind, buffers: u16) -> Bench {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let copy = wake.try_clone().unwrap();
    let driver = Driver::new(kind, (buffers, BUFFER_BYTES), copy).unwrap();
    Bench { driver, wake, listener: TcpListener::bind("127.0.0.1:0").unwrap() }
}

impl Bench {
    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Waits until as many events have come as that says.
    fn wait(&mut self, is_enough: impl Fn(&[Event]) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..200 {
            self.driver.wait(Duration::from_millis(50), &mut events).unwrap();
            if is_enough(&events) {
                return events;
            }
        }
        panic!("{events:?}");
    }

    fn next(&mut self) -> Event {
        let mut events = self.wait(|events| !events.is_empty());
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    fn is_quiet(&mut self) -> bool {
        let mut events = Vec::new();
        self.driver.wait(Duration::from_millis(1), &mut events).unwrap();
        self.driver.wait(Duration::ZERO, &mut events).unwrap();
        events.is_empty()
    }

    /// A client, and the other end of it.
    fn connection(&self) -> (TcpStream, Descriptor) {
        let client = TcpStream::connect(self.address()).unwrap();
        (client, Descriptor::new(self.listener.accept().unwrap().0.into()))
    }

    /// What comes on a connection, up to so many bytes.
    fn bytes_of(&mut self, key: u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            for event in self.wait(|events| !events.is_empty()) {
                let Event::Received { key: of, outcome: Receive::Data(received), more } = event
                else {
                    panic!("{event:?}")
                };
                assert!(of == key && more);
                bytes.extend_from_slice(self.driver.received(&received));
                self.driver.recycle(received);
            }
        }
        bytes
    }
}

#[test]
fn connections_are_accepted_until_that_is_stopped() {
    for kind in KINDS {
        let mut bench = bench(kind, 4);
        bench.driver.accept(&bench.listener, 7);
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(bench.address())).collect();
        let events = bench.wait(|events| events.len() == 3);
        for event in events {
            let Event::Accepted { listener: 7, result: Ok(_), more: true } = event else {
                panic!("{kind} {event:?}")
            };
        }
        bench.driver.stop_accepting(&[7]);
        let mut events = Vec::new();
        bench.driver.wait(Duration::ZERO, &mut events).unwrap();
        let is_end =
            |event: &Event| matches!(event, Event::Accepted { result: Err(_), more: false, .. });
        assert!(events.iter().all(is_end), "{kind} {events:?}");
        let _later = TcpStream::connect(bench.address()).unwrap();
        assert!(bench.is_quiet(), "{kind}");
        bench.driver.accept(&bench.listener, 7);
        assert!(matches!(bench.next(), Event::Accepted { listener: 7, result: Ok(_), .. }));
        drop(clients);
    }
}

#[test]
fn bytes_come_in_order_and_then_the_end() {
    for kind in KINDS {
        let mut bench = bench(kind, 4);
        let (mut client, connection) = bench.connection();
        bench.driver.receive(&connection, 5);
        assert!(bench.is_quiet());
        let sent: Vec<u8> = (0..50_000_u32).map(|n| (n * 7 % 251) as u8).collect();
        client.write_all(&sent).unwrap();
        // A buffer that is handed back in a turn may have been wanted in that turn.
        let mut bytes = Vec::new();
        while bytes.len() < sent.len() {
            for event in bench.wait(|events| !events.is_empty()) {
                match event {
                    Event::Received { key: 5, outcome: Receive::Data(received), more } => {
                        bytes.extend_from_slice(bench.driver.received(&received));
                        bench.driver.recycle(received);
                        if !more {
                            bench.driver.receive(&connection, 5);
                        }
                    }
                    Event::Received { key: 5, outcome: Receive::Stopped, more: false } => {
                        bench.driver.receive(&connection, 5);
                    }
                    event => panic!("{kind} {event:?}"),
                }
            }
        }
        assert!(bytes == sent, "{kind}");
        client.shutdown(Shutdown::Write).unwrap();
        let event = bench.next();
        let Event::Received { key: 5, outcome: Receive::End, more: false } = event else {
            panic!("{kind} {event:?}")
        };
        assert!(bench.is_quiet(), "{kind}: told once");
    }
}

#[test]
fn without_a_buffer_a_receive_stops_and_nothing_is_lost() {
    for kind in KINDS {
        let mut bench = bench(kind, 2);
        let (mut client, connection) = bench.connection();
        bench.driver.receive(&connection, 5);
        client.write_all(&[b'x'; 3 * BUFFER_BYTES]).unwrap();
        let is_stopped = |event: &Event| {
            matches!(event, Event::Received { key: 5, outcome: Receive::Stopped, more: false })
        };
        let events = bench.wait(|events| events.iter().any(is_stopped));
        let mut taken = 0;
        for event in events {
            if let Event::Received { outcome: Receive::Data(received), .. } = event {
                taken += bench.driver.received(&received).len();
                bench.driver.recycle(received);
            }
        }
        assert_eq!(taken, 2 * BUFFER_BYTES);
        assert!(bench.is_quiet(), "{kind}: nobody waits for it");
        bench.driver.receive(&connection, 5);
        assert_eq!(bench.bytes_of(5, BUFFER_BYTES).len(), BUFFER_BYTES, "{kind}");
    }
}

#[test]
fn with_fewer_buffers_than_senders_each_has_its_turn_without_a_ring() {
    for kind in [DriverKind::Posix] {
        let mut bench = bench(kind, 2);
        let connections: Vec<_> = (0..7).map(|_| bench.connection()).collect();
        for (key, (client, connection)) in connections.iter().enumerate() {
            let mut client = client;
            client.write_all(&vec![b'x'; 12 * BUFFER_BYTES]).unwrap();
            bench.driver.receive(connection, key as u64);
        }
        let mut taken = [0; 7];
        while taken.contains(&0) {
            let most = *taken.iter().max().unwrap();
            assert!(most < 11, "{kind}: some have it all: {taken:?}");
            let mut events = Vec::new();
            bench.driver.wait(Duration::from_millis(100), &mut events).unwrap();
            let mut stopped = Vec::new();
            for event in events {
                let Event::Received { key, outcome, more } = event else { panic!("{event:?}") };
                if let Receive::Data(received) = outcome {
                    taken[key as usize] += 1;
                    bench.driver.recycle(received);
                }
                if !more {
                    stopped.push(key);
                }
            }
            for key in stopped {
                bench.driver.receive(&connections[key as usize].1, key);
            }
        }
    }
}

#[test]
fn a_receive_that_is_stopped_says_so_once_and_polls_tell_once() {
    for kind in KINDS {
        let mut bench = bench(kind, 4);
        let (mut client, connection) = bench.connection();
        bench.driver.receive(&connection, 5);
        assert!(bench.is_quiet());
        bench.driver.stop_receiving(5);
        let event = bench.next();
        let Event::Received { key: 5, outcome: Receive::Stopped, more: false } = event else {
            panic!("{kind} {event:?}")
        };
        client.write_all(b"bytes").unwrap();
        assert!(bench.is_quiet(), "{kind}: nobody waits for them");
        bench.driver.poll(&connection, 5);
        assert!(matches!(bench.next(), Event::Readable { key: 5 }), "{kind}");
        assert!(bench.is_quiet(), "{kind}: once");
        bench.driver.receive(&connection, 5);
        assert_eq!(bench.bytes_of(5, 5), b"bytes", "{kind}");
    }
}

#[test]
fn a_reset_is_told_and_so_is_what_is_shut_here_and_let_go() {
    for kind in KINDS {
        let mut bench = bench(kind, 4);
        let (client, connection) = bench.connection();
        bench.driver.receive(&connection, 1);
        assert!(bench.is_quiet());
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        let event = bench.next();
        let Event::Received { key: 1, outcome: Receive::Failed(_), more: false } = event else {
            panic!("{kind} {event:?}")
        };
        for is_polled in [false, true] {
            let (mut client, connection) = bench.connection();
            if is_polled {
                bench.driver.poll(&connection, 2);
            } else {
                bench.driver.receive(&connection, 2);
            }
            assert!(bench.is_quiet());
            rustix::net::shutdown(&connection, rustix::net::Shutdown::Both).unwrap();
            drop(connection);
            let event = bench.next();
            let is_told = match event {
                Event::Readable { key: 2 } => is_polled,
                Event::Received { key: 2, outcome: Receive::End, more: false } => !is_polled,
                _ => false,
            };
            assert!(is_told, "{kind} {event:?}");
            // Nobody holds it any more.
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "{kind}");
        }
    }
}

#[test]
fn what_is_written_and_synced_is_there_and_what_fails_says_so() {
    for kind in KINDS {
        let mut bench = bench(kind, 2);
        let mut file = tempfile::tempfile().unwrap();
        let descriptor = Descriptor::new(file.try_clone().unwrap().into());
        for (token, text) in [(1, b"first"), (2, b"other")] {
            let bytes: WriteBytes = Arc::new(text.to_vec());
            bench.driver.write(&descriptor, token * 5 - 5, bytes, token);
        }
        let mut tokens = Vec::new();
        for event in bench.wait(|events| events.len() == 2) {
            let Event::Written { token, result: Ok(5) } = event else { panic!("{event:?}") };
            tokens.push(token);
        }
        tokens.sort_unstable();
        assert_eq!(tokens, [1, 2]);
        bench.driver.fetch(&descriptor, 0, 10);
        bench.driver.sync(&descriptor, 3);
        let event = bench.next();
        let Event::Synced { token: 3, result: Ok(()) } = event else { panic!("{kind} {event:?}") };
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "firstother", "{kind}");

        let read_only = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let read_only = Descriptor::new(read_only.into());
        bench.driver.write(&read_only, 0, Arc::new(vec![1]), 4);
        let event = bench.next();
        let Event::Written { token: 4, result: Err(error) } = event else {
            panic!("{kind} {event:?}")
        };
        assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{kind}");
    }
}

#[test]
fn it_is_woken_and_waits_no_longer_than_it_is_told() {
    for kind in KINDS {
        let mut bench = bench(kind, 2);
        assert!(bench.is_quiet());
        for _ in 0..2 {
            rustix::io::write(&bench.wake, &1_u64.to_ne_bytes()).unwrap();
            assert!(matches!(bench.next(), Event::Woken), "{kind}");
            assert!(bench.is_quiet(), "{kind}");
        }
    }
}

#[test]
fn nothing_but_a_ring_means_a_ring_and_no_ring_means_none() {
    assert_eq!(choose(Wanted::Posix).unwrap().0, DriverKind::Posix);
    assert_eq!(choose(Wanted::Uring).unwrap().0, DriverKind::Uring);
    assert_eq!(choose(Wanted::Auto).unwrap().0, DriverKind::Uring);
}
