//! A forwarder under test, and a name service that says what the test wants.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::{seccomp, tools, wait_until};

/// A running `oklogd forward`; killed when dropped.
pub struct Forwarder {
    child: Child,
    input: Option<ChildStdin>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Forwarder {
    /// Starts one in `directory` with these arguments.
    pub fn start(directory: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(tools::binary("oklogd"));
        command.arg("forward").args(arguments).current_dir(directory).env_clear();
        Self::from_command(command)
    }

    /// Runs a prepared command.
    pub fn from_command(command: Command) -> Self {
        Self::with_input(command, Stdio::piped())
    }

    /// Runs a prepared command with this standard input.
    pub fn with_input(mut command: Command, input: Stdio) -> Self {
        command.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped());
        seccomp::hearing_hangups(&mut command);
        let mut child = command.spawn().expect("oklogd can be started");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().expect("it was asked for"));
        let copy = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                copy.lock().expect("no test panics while it holds the log").push(line);
            }
        });
        let input = child.stdin.take();
        Self { child, input, log }
    }

    /// Writes to its standard input; blocks as a program would whose output it reads.
    pub fn write(&mut self, bytes: &[u8]) {
        self.input.as_mut().expect("not ended").write_all(bytes).expect("it reads");
    }

    /// Hands its standard input over, to write to it from another thread.
    pub fn take_input(&mut self) -> ChildStdin {
        self.input.take().expect("not ended")
    }

    /// Ends its standard input.
    pub fn end(&mut self) {
        self.input = None;
    }

    /// Ends its standard input and waits for its end.
    pub fn finish(mut self) -> (ExitStatus, String) {
        self.end();
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let mut status = None;
        wait_until("the forwarder ends", || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        wait_until("its log was read", || Arc::strong_count(&self.log) == 1);
        (status.expect("just seen"), self.log())
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no test panics while it holds the log").join("\n")
    }

    /// Waits until it logged this.
    pub fn wait_for_log(&self, part: &str) {
        wait_until(&format!("it logs {part:?}; it logged: {}", self.log()), || {
            self.log().contains(part)
        });
    }

    /// How many lines it logged that hold this.
    pub fn count(&self, part: &str) -> usize {
        self.log().lines().filter(|line| line.contains(part)).count()
    }

    /// Where it serves HTTP.
    pub fn api(&self) -> SocketAddr {
        self.wait_for_log("listening");
        let log = self.log();
        let line = log.lines().find(|l| l.contains("listening")).expect("just seen");
        let at = line.find("address=").expect("it names the address") + "address=".len();
        line[at..].trim().parse().expect("an address")
    }

    /// The value of a metric.
    pub fn metric(&self, name: &str) -> f64 {
        let text = crate::http::get(self.api(), "/metrics").text();
        let line = text.lines().find(|l| l.split(' ').next() == Some(name));
        line.and_then(|l| l.rsplit(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Processor time that it has used, in ticks of 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        let stat = stat.expect("a running process has one");
        let fields = stat.rsplit(')').next().expect("behind its name").split_whitespace();
        fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).expect("a pid is not 0");
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// Kills it without warning.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A record of the name service: addresses of a name, or hosts of a service.
#[derive(Clone)]
pub enum Answer {
    /// IPv4 addresses.
    Addresses(Vec<Ipv4Addr>),
    /// Priority, weight, port, host.
    Services(Vec<(u16, u16, u16, String)>),
    /// No answer at all.
    Silence,
}

/// A name service on 127.0.0.1 that answers as it is told to (RFC 1035, RFC 2782).
pub struct Names {
    /// Where it listens.
    pub address: SocketAddr,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
    asked: Arc<Mutex<u64>>,
}

impl Names {
    /// Starts one that knows no name.
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("it is bound");
        let answers: Arc<Mutex<HashMap<String, Answer>>> = Arc::default();
        let asked: Arc<Mutex<u64>> = Arc::default();
        let (known, count) = (Arc::clone(&answers), Arc::clone(&asked));
        socket.set_read_timeout(Some(Duration::from_secs(600))).expect("a timeout can be set");
        std::thread::spawn(move || {
            let mut packet = [0; 1500];
            while let Ok((len, from)) = socket.recv_from(&mut packet) {
                *count.lock().expect("no panic") += 1;
                let reply = reply(&packet[..len], &known.lock().expect("no panic"));
                if let Some(reply) = reply {
                    let _ = socket.send_to(&reply, from);
                }
            }
        });
        Self { address, answers, asked }
    }

    /// From now on `name` is answered so.
    pub fn set(&self, name: &str, answer: Answer) {
        self.answers.lock().expect("no panic").insert(name.to_owned(), answer);
    }

    /// Questions so far.
    pub fn asked(&self) -> u64 {
        *self.asked.lock().expect("no panic")
    }
}

fn reply(packet: &[u8], known: &HashMap<String, Answer>) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    while let Some(&len) = packet.get(at).filter(|len| **len > 0) {
        labels
            .push(String::from_utf8_lossy(packet.get(at + 1..at + 1 + len as usize)?).into_owned());
        at += 1 + len as usize;
    }
    let question = packet.get(12..at + 5)?;
    let kind = u16::from_be_bytes([packet[at + 1], packet[at + 2]]);
    let answer = known.get(&labels.join(".").to_ascii_lowercase());
    let data: Vec<Vec<u8>> = match (answer, kind) {
        (Some(Answer::Silence), _) => return None,
        (Some(Answer::Addresses(ips)), 1) => ips.iter().map(|ip| ip.octets().to_vec()).collect(),
        (Some(Answer::Services(hosts)), 33) => hosts.iter().map(service).collect(),
        _ => Vec::new(),
    };
    let refused = u8::from(answer.is_none()) * 3;
    let mut out = packet[..2].to_vec();
    out.extend([0x84, 0x80 | refused, 0, 1, 0, data.len() as u8, 0, 0, 0, 0]);
    out.extend(question);
    for data in data {
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 60]);
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
    }
    Some(out)
}

fn service((priority, weight, port, host): &(u16, u16, u16, String)) -> Vec<u8> {
    let mut out: Vec<u8> = [priority, weight, port].iter().flat_map(|n| n.to_be_bytes()).collect();
    for label in host.split('.') {
        out.push(label.len() as u8);
        out.extend(label.bytes());
    }
    out.push(0);
    out
}
