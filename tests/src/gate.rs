//! What people put before a node: a proxy that wants a token, or gives no turn, below a path prefix or not.
//!
//! Invariants: one request a connection, so that none goes by unseen; the files of the page need no token,
//! as a browser cannot give one for them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What is done with a request for anything but a file of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// It goes on to the node.
    Open,
    /// Only with this token: 401 without any, 403 with another.
    Token(&'static str),
    /// Nobody, 429, for so many seconds, as `Retry-After` tells.
    Wait(u32),
    /// These paths are answered here, with a status and a body; all others go on.
    Answer(Vec<(&'static str, u16, String)>),
}

/// A proxy before a node.
pub struct Gate {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// What answers in the node's place: given a method and target and where to write, it says whether it has.
type Script = dyn Fn(&str, &mut TcpStream) -> bool + Send + Sync;

struct State {
    rule: Rule,
    script: Option<Arc<Script>>,
    seen: Vec<Seen>,
    clients: Vec<TcpStream>,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method and target.
    pub line: String,
    /// Its `Authorization`, if any.
    pub authorization: Option<String>,
    /// Its `Last-Event-ID`: behind which record a stream is to go on.
    pub last_event_id: Option<String>,
}

impl Gate {
    /// Opens one before a node; below a prefix such as `/logs` if that is not empty. It listens until the
    /// process ends.
    pub fn open(node: SocketAddr, prefix: &'static str, rule: Rule) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let state = Arc::new(Mutex::new(State {
            rule,
            script: None,
            seen: Vec::new(),
            clients: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A client that has gone is nobody's fault.
                thread::spawn(move || drop(pass(client, node, prefix, &state)));
            }
        });
        Self { address, state }
    }

    /// Opens one that lets a test answer in the node's place: `script` is given each method and target, and
    /// says whether it has written the whole answer.
    pub fn scripted(
        node: SocketAddr,
        script: impl Fn(&str, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let gate = Self::open(node, "", Rule::Open);
        gate.lock().script = Some(Arc::new(script));
        gate
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on another rule.
    pub fn set(&self, rule: Rule) {
        self.lock().rule = rule;
    }

    /// Ends whatever is under way.
    pub fn cut(&self) {
        for client in std::mem::take(&mut self.lock().clients) {
            // It may have ended by itself.
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// The requests for anything but files of the page, and forgets them.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.lock().seen)
    }
}

/// Takes one request.
fn pass(
    mut client: TcpStream,
    node: SocketAddr,
    prefix: &str,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line == "\r\n" {
            break;
        }
        lines.push(line);
    }
    let line = lines.remove(0);
    let Some(line) = line.strip_suffix(" HTTP/1.1\r\n") else { return Ok(()) };
    let field = |wanted: &str| {
        lines.iter().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim_end().to_owned())
        })
    };
    let (authorization, last_event_id) = (field("authorization"), field("last-event-id"));
    let (method, target) = line.split_once(' ').unwrap_or(("", ""));
    let Some(target) = target.strip_prefix(prefix).filter(|rest| rest.starts_with('/')) else {
        return refuse(&mut client, "404 Not Found", "", "nothing is here");
    };
    if !target.starts_with("/ui") {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let rule = state.rule.clone();
        let is_token = |token: &str| authorization == Some(format!("Bearer {token}"));
        let has_some = authorization.is_some();
        state.seen.push(Seen {
            line: format!("{method} {target}"),
            authorization: authorization.clone(),
            last_event_id,
        });
        let script = state.script.clone();
        drop(state);
        if script.is_some_and(|script| script(&format!("{method} {target}"), &mut client)) {
            return client.shutdown(Shutdown::Write);
        }
        match rule {
            Rule::Token(token) if is_token(token) => {}
            Rule::Token(_) if has_some => {
                return refuse(&mut client, "403 Forbidden", "", "this token may not");
            }
            Rule::Token(_) => {
                let asks = "WWW-Authenticate: Bearer\r\n";
                return refuse(&mut client, "401 Unauthorized", asks, "<h1>Who are you?</h1>");
            }
            Rule::Wait(seconds) => {
                let retry = format!("Retry-After: {seconds}\r\n");
                return refuse(&mut client, "429 Too Many Requests", &retry, "slow down");
            }
            Rule::Answer(all) => {
                let path = target.split('?').next().unwrap_or_default();
                if let Some((_, status, body)) = all.iter().find(|(of, ..)| *of == path) {
                    let status = format!("{status} Told So");
                    return refuse(&mut client, &status, "Retry-After: 1\r\n", body);
                }
            }
            Rule::Open => {}
        }
    }
    let mut to = TcpStream::connect(node)?;
    let copy = client.try_clone()?;
    state.lock().unwrap_or_else(PoisonError::into_inner).clients.push(copy);
    let mut head = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
    for line in lines.iter().filter(|line| !line.to_ascii_lowercase().starts_with("connection:")) {
        head.push_str(line);
    }
    head.push_str("\r\n");
    to.write_all(head.as_bytes())?;
    to.write_all(reader.buffer())?;
    let (mut from_client, mut to_node) = (client.try_clone()?, to.try_clone()?);
    thread::spawn(move || {
        // Its end is that of the client: then nobody waits for the answer any longer.
        let _ = std::io::copy(&mut from_client, &mut to_node);
        let _ = to_node.shutdown(Shutdown::Both);
    });
    let mut room = vec![0; 1 << 16];
    while let Ok(got @ 1..) = to.read(&mut room) {
        client.write_all(&room[..got])?;
    }
    client.shutdown(Shutdown::Both)
}

fn refuse(client: &mut TcpStream, status: &str, more: &str, words: &str) -> std::io::Result<()> {
    let kind = match words.as_bytes().first() {
        Some(b'<') => "text/html",
        Some(b'{') => "application/json",
        _ => "text/plain",
    };
    let length = words.len();
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: {kind}\r\n{more}");
    client.write_all(format!("{head}Content-Length: {length}\r\n\r\n").as_bytes())?;
    client.write_all(words.as_bytes())?;
    client.shutdown(Shutdown::Write)?;
    // What the client still sends is taken, so that it is not reset before it has read.
    std::io::copy(client, &mut std::io::sink()).map(drop)
}
