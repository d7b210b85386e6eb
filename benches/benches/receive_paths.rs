//! What receiving costs, by runtime: a plain epoll loop, the shard's ring, and, with
//! `--features glommio`, glommio.
//!
//! Each receiver discards; CPU seconds are those of the receiving thread alone, per gigabyte.
//! Senders are threads of this process on loopback. Two loads: four connections that send as fast
//! as they can, and 64 that send paced chunks of 1,500 bytes, as services do. The evidence behind
//! `docs/decisions/0002-shard-runtime.md`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use net::driver::{Event, Receive};
use net::ring::Ring;

/// One load.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    connections: usize,
    chunk_bytes: usize,
    total_bytes: u64,
    /// Bytes per second of all connections together; `None` is as fast as they can.
    rate: Option<u64>,
}

/// What a receiver reports: CPU seconds of its thread and bytes it took.
type Report = (f64, u64);

fn main() {
    // As criterion takes it: `cargo bench` says `--bench`, `cargo test` does not.
    let is_bench = std::env::args().any(|a| a == "--bench");
    let quick = !is_bench || std::env::args().any(|a| a == "--quick");
    let scale = if quick { 16 } else { 1 };
    let loads = [
        Load {
            name: "4 connections, bulk",
            connections: 4,
            chunk_bytes: 1 << 20,
            total_bytes: (4 << 30) / scale,
            rate: None,
        },
        Load {
            name: "64 connections, paced chunks of 1,500 B",
            connections: 64,
            chunk_bytes: 1500,
            total_bytes: (1 << 30) / scale,
            rate: Some(150_000_000),
        },
    ];
    println!("CPU seconds of the receiving thread per GB (MB/s)");
    for load in loads {
        println!("{}", load.name);
        for (name, receiver) in [
            ("epoll", epoll as fn(TcpListener, usize) -> Report),
            ("ring", ring),
            #[cfg(feature = "glommio")]
            ("glommio", glommio_loop),
        ] {
            let (cpu, bytes, seconds) = run(load, receiver);
            let gigabytes = bytes as f64 / 1e9;
            println!("  {name:8} {:6.3}  ({:.0})", cpu / gigabytes, bytes as f64 / 1e6 / seconds);
        }
    }
}

fn run(load: Load, receiver: fn(TcpListener, usize) -> Report) -> (f64, u64, f64) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let address = listener.local_addr().expect("a bound listener has an address");
    let (done, report) = mpsc::channel();
    std::thread::spawn(move || done.send(receiver(listener, load.connections)));
    let start = Instant::now();
    let senders: Vec<_> = (0..4).map(|_| std::thread::spawn(move || send(address, load))).collect();
    for sender in senders {
        sender.join().expect("a sender does not panic");
    }
    let (cpu, bytes) = report.recv().expect("the receiver reports");
    (cpu, bytes, start.elapsed().as_secs_f64())
}

/// A quarter of a load.
fn send(address: SocketAddr, load: Load) {
    let mut sockets: Vec<TcpStream> = (0..load.connections / 4)
        .map(|_| TcpStream::connect(address).expect("the receiver listens"))
        .collect();
    let chunk = vec![b'x'; load.chunk_bytes];
    let (mut sent, goal, start) = (0u64, load.total_bytes / 4, Instant::now());
    while sent < goal {
        for socket in &mut sockets {
            socket.write_all(&chunk).expect("the receiver takes bytes");
            sent += chunk.len() as u64;
        }
        if let Some(rate) = load.rate {
            let due = Duration::from_secs_f64(sent as f64 * 4.0 / rate as f64);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
}

fn thread_cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn epoll(listener: TcpListener, connections: usize) -> Report {
    use rustix::event::epoll;
    let queue = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll is there");
    let mut sockets: Vec<TcpStream> = Vec::new();
    for index in 0..connections {
        let (socket, _) = listener.accept().expect("a sender connects");
        socket.set_nonblocking(true).expect("a socket can be non-blocking");
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&queue, &socket, data, epoll::EventFlags::IN).expect("a socket can be watched");
        sockets.push(socket);
    }
    let start = thread_cpu_seconds();
    let (mut total, mut open) = (0, connections);
    let mut buffer = vec![0; 64 << 10];
    let mut events = Vec::with_capacity(128);
    while open > 0 {
        events.clear();
        epoll::wait(&queue, rustix::buffer::spare_capacity(&mut events), None)
            .expect("epoll waits");
        for event in &events {
            let socket = &mut sockets[event.data.u64() as usize];
            match socket.read(&mut buffer) {
                Ok(0) => {
                    epoll::delete(&queue, &*socket).expect("it was watched");
                    open -= 1;
                }
                Ok(len) => total += len as u64,
                Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
    }
    (thread_cpu_seconds() - start, total)
}

fn ring(listener: TcpListener, connections: usize) -> Report {
    let wake = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC);
    let mut ring = Ring::new(64, 64 << 10, wake.expect("eventfd is there")).expect("io_uring");
    ring.accept(listener.as_fd(), 0);
    let start = thread_cpu_seconds();
    let mut sockets: Vec<OwnedFd> = Vec::new();
    let (mut total, mut ended) = (0, 0);
    let mut events = Vec::new();
    while ended < connections {
        ring.wait(Duration::from_secs(1), &mut events).expect("the ring waits");
        for event in events.drain(..) {
            match event {
                Event::Accepted { result, .. } => {
                    let socket = result.expect("a sender connects");
                    ring.receive(socket.as_fd(), sockets.len() as u64);
                    sockets.push(socket);
                }
                Event::Received { key, outcome, more } => {
                    match outcome {
                        Receive::Data(received) => {
                            total += ring.received(&received).len() as u64;
                            ring.recycle(received);
                        }
                        Receive::End | Receive::Failed(_) => {
                            ended += 1;
                            continue;
                        }
                        Receive::Stopped => {}
                    }
                    if !more {
                        ring.receive(sockets[key as usize].as_fd(), key);
                    }
                }
                Event::Readable { .. }
                | Event::Written { .. }
                | Event::Synced { .. }
                | Event::Woken => {}
            }
        }
    }
    (thread_cpu_seconds() - start, total)
}

#[cfg(feature = "glommio")]
fn glommio_loop(listener: TcpListener, connections: usize) -> Report {
    use futures_lite::AsyncReadExt;
    use std::os::fd::{FromRawFd, IntoRawFd};
    let executor =
        glommio::LocalExecutorBuilder::default().make().expect("glommio finds its rings");
    executor.run(async move {
        // SAFETY: the descriptor was just given up by its owner.
        #[allow(unsafe_code)]
        let listener = unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) };
        let start = thread_cpu_seconds();
        let mut tasks = Vec::new();
        for _ in 0..connections {
            let mut socket = listener.accept().await.expect("a sender connects");
            tasks.push(glommio::spawn_local(async move {
                let (mut total, mut buffer) = (0, vec![0; 64 << 10]);
                loop {
                    match socket.read(&mut buffer).await {
                        Ok(0) | Err(_) => return total,
                        Ok(len) => total += len as u64,
                    }
                }
            }));
        }
        let mut total = 0;
        for task in tasks {
            total += task.await;
        }
        (thread_cpu_seconds() - start, total)
    })
}
