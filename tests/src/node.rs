//! A node under test.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use crate::http::{self, Answer};
use crate::{outlet, tools, wait_until};

/// A running `oklogd ingeststore`; killed when dropped.
pub struct Node {
    child: Child,
    /// HTTP.
    pub api: SocketAddr,
    /// Fast port.
    pub fast: SocketAddr,
    /// Durable port.
    pub durable: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Node {
    /// Starts a node on `directory/data` with further flags, and waits until it is ready.
    pub fn start(directory: &Path, flags: &[&str]) -> Self {
        Self::try_start(directory, flags).unwrap_or_else(|log| panic!("the node ended: {log}"))
    }

    /// The same, without waiting until it takes records: it may not be able to.
    pub fn start_any(directory: &Path, flags: &[&str]) -> Self {
        Self::try_start_any(directory, flags).unwrap_or_else(|log| panic!("the node ended: {log}"))
    }

    /// The same; the error is what the node printed before it ended by itself.
    pub fn try_start_any(directory: &Path, flags: &[&str]) -> Result<Self, String> {
        Self::from_command_until(command(directory, flags), "/health")
    }

    /// The same; the error is what the node printed before it ended by itself.
    pub fn try_start(directory: &Path, flags: &[&str]) -> Result<Self, String> {
        Self::from_command(command(directory, flags))
    }

    /// Starts a node that listens on the usual ports of a host of its own, so that it is found at the same
    /// place after a restart.
    pub fn start_at(directory: &Path, host: IpAddr) -> Self {
        let mut command = Command::new(tools::binary("oklogd"));
        command.args(["ingeststore", "--store.segment-replication-factor", "1"]);
        command.args(["--listen", &host.to_string()]);
        command.current_dir(directory).env_clear();
        Self::from_command(command).unwrap_or_else(|log| panic!("the node ended: {log}"))
    }

    /// Runs a prepared command that starts a node.
    pub fn from_command(command: Command) -> Result<Self, String> {
        Self::from_command_until(command, "/ready")
    }

    /// The same, without waiting until it takes records: it may not be able to.
    pub fn from_command_any(command: Command) -> Result<Self, String> {
        Self::from_command_until(command, "/health")
    }

    /// Starts a node on `directory/data` whose standard error goes there, so that its log cannot be
    /// seen, and waits until it is ready.
    pub fn start_unheard(directory: &Path, stderr: Stdio, flags: &[&str]) -> Self {
        let host = outlet::own_address(0).ip();
        let (api, fast, durable) = ((host, 7650).into(), (host, 7651).into(), (host, 7652).into());
        let mut command = Command::new(tools::binary("oklogd"));
        command.args(["ingeststore", "--store.segment-replication-factor", "1"]);
        command.args(["--listen", &host.to_string()]).args(flags);
        command.current_dir(directory).env_clear();
        choose_io(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let child = command.spawn().expect("oklogd can be started");
        let mut node = Self { child, api, fast, durable, log: Arc::default() };
        wait_until("the node answers", || {
            let ended = node.child.try_wait().ok().flatten();
            assert!(ended.is_none(), "the node ended: {ended:?}");
            http::try_request(api, "GET", "/ready", &[], b"").is_ok_and(|a| a.status == 200)
        });
        node
    }

    fn from_command_until(mut command: Command, path: &str) -> Result<Self, String> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| e.to_string())?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().ok_or("no standard error")?);
        let copy = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                copy.lock().expect("no test panics while it holds the log").push(line);
            }
        });
        let unknown: SocketAddr = ([127, 0, 0, 1], 0).into();
        let mut node = Self { child, api: unknown, fast: unknown, durable: unknown, log };
        let mut ended = false;
        wait_until("the node is ready or ends", || {
            ended = node.child.try_wait().is_ok_and(|status| status.is_some());
            ended || node.find_ports()
        });
        if ended && !node.find_ports() {
            // The reader may lag behind the end of the process.
            wait_until("its log was read", || Arc::strong_count(&node.log) == 1);
            return Err(node.log());
        }
        wait_until("the node answers", || {
            http::try_request(node.api, "GET", path, &[], b"").is_ok_and(|a| a.status == 200)
        });
        Ok(node)
    }

    fn find_ports(&mut self) -> bool {
        let log = self.log();
        let port = |name: &str| {
            let line = log.lines().find(|l| l.contains("listening") && l.contains(name))?;
            let at = line.find("address=")? + "address=".len();
            line[at..].split_whitespace().next()?.trim_matches('"').parse().ok()
        };
        let found = (port("port=\"api\""), port("port=\"fast\""), port("port=\"durable\""));
        let (Some(api), Some(fast), Some(durable)) = found else { return false };
        (self.api, self.fast, self.durable) = (api, fast, durable);
        true
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no test panics while it holds the log").join("\n")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `GET`.
    pub fn get(&self, path: &str) -> Answer {
        http::get(self.api, path)
    }

    /// All records of the last hours that match, in ULID order; the answer must be complete.
    pub fn query(&self, parameters: &str) -> Vec<(String, Vec<u8>)> {
        let answer = self.get(&format!("/query?from=24h&{parameters}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.complete, "the answer was cut short; log:\n{}", self.log());
        crate::lines::records(&answer.body)
    }

    /// All records without their ULIDs.
    pub fn all_lines(&self) -> Vec<Vec<u8>> {
        self.query("").into_iter().map(|(_, record)| record).collect()
    }

    /// The value of a metric (all label sets added up), 0 where it is missing.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let lines = text.lines().filter(|l| {
            l.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{'))
        });
        lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Its anonymous memory, bytes.
    pub fn anonymous_bytes(&self) -> u64 {
        anonymous_bytes(self.pid())
    }

    /// Its open descriptors.
    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.pid());
        std::fs::read_dir(path).expect("a running process has descriptors").count()
    }

    /// Waits until all shards turn: a node tells where it listens before its threads have all that they need,
    /// descriptors among them.
    pub fn until_all_turn(&self) {
        const TURNS: &str = "oklog_shard_loop_lag_seconds_count{";
        wait_until("every shard turns", || {
            let text = self.get("/metrics").text();
            let mut turns = text.lines().filter(|line| line.starts_with(TURNS)).peekable();
            turns.peek().is_some() && turns.all(|line| !line.ends_with(" 0"))
        });
    }

    /// Waits until everything is in the store.
    pub fn settle(&self) {
        wait_until("everything is in the store", || self.metric("oklog_unindexed_bytes") == 0.0);
    }

    /// Kills it without warning.
    pub fn kill(mut self) {
        self.signal(rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }

    /// Asks it to end and waits.
    pub fn stop(self) -> ExitStatus {
        self.stop_and_tell().0
    }

    /// The same, with what it has logged.
    pub fn stop_and_tell(mut self) -> (ExitStatus, String) {
        self.signal(rustix::process::Signal::TERM);
        let mut status = None;
        wait_until("the node ends", || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        (status.expect("just seen"), self.log())
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).expect("a pid is not 0");
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// A process' anonymous memory, bytes.
pub fn anonymous_bytes(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(path).expect("a running process has a status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("the kernel tells RssAnon") * 1024
}

fn command(directory: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(tools::binary("oklogd"));
    command.args(["ingeststore", "--store.segment-replication-factor", "1"]);
    command.args(["--api", "127.0.0.1:0", "--ingest.fast", "127.0.0.1:0"]);
    command.args(["--ingest.durable", "127.0.0.1:0"]).args(flags);
    command.current_dir(directory).env_clear();
    choose_io(&mut command);
    command
}

/// What shards are to wait on (`--io`), where `tests/run` says so: the same tests pass on both.
fn choose_io(command: &mut Command) {
    if let Ok(io) = std::env::var("OKLOGD_TEST_IO") {
        command.env("OKLOGD_IO", io);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
