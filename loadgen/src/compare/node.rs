//! A node that the comparison starts and ends.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::scratch::{ORDINARY_USER, is_root};
use crate::failure::{Context, Failure, Result};
use crate::http;

const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(60);
/// Between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Whether a node only ingests, or stores too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// More copies are asked for than a node on its own can make: all stays on the ingest side.
    Ingest,
    IngestStore,
}

/// A running `oklogd ingeststore`; killed when dropped.
#[derive(Debug)]
pub(super) struct Node {
    child: Child,
    directory: PathBuf,
    pub(super) api: String,
    pub(super) fast: String,
    pub(super) durable: String,
}

impl Node {
    /// Starts a node on `directory/data` and waits until it takes records.
    pub(super) fn start(
        program: &Path,
        directory: &Path,
        role: Role,
        flags: &[&str],
    ) -> Result<Self> {
        let copies = if role == Role::Ingest { "2" } else { "1" };
        let mut command = Command::new(program);
        command.args(["ingeststore", "--store.segment-replication-factor", copies]);
        for listener in ["--api", "--ingest.fast", "--ingest.durable"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        command.args(flags).current_dir(directory).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if is_root() {
            command.uid(ORDINARY_USER).gid(ORDINARY_USER);
        }
        let mut child = command
            .spawn()
            .context(|| format!("starting {} (give --oklogd PATH)", program.display()))?;
        let log = child.stderr.take().map(follow);
        let unknown = String::new();
        let mut node = Self {
            child,
            directory: directory.to_path_buf(),
            api: unknown.clone(),
            fast: unknown.clone(),
            durable: unknown,
        };
        node.find_ports(&log.ok_or_else(|| Failure::run("the node has no standard error"))?)?;
        let path = if role == Role::Ingest { "/health" } else { "/ready" };
        wait_until("the node to be ready", START_MAX, || Ok(http::get(&node.api, path).is_ok()))?;
        Ok(node)
    }

    fn find_ports(&mut self, log: &Receiver<String>) -> Result<()> {
        let until = Instant::now() + START_MAX;
        let mut said = Vec::new();
        while [&self.api, &self.fast, &self.durable].iter().any(|port| port.is_empty()) {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = log.recv_timeout(left) else {
                let said = said.join("\n");
                return Err(Failure::run(format!("the node did not say where it listens: {said}")));
            };
            if let Some((port, address)) = listening(&line) {
                match port {
                    "api" => self.api = address,
                    "fast" => self.fast = address,
                    "durable" => self.durable = address,
                    _ => {}
                }
            }
            said.push(line);
        }
        Ok(())
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it keeps its data.
    pub(super) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The sum of a metric over its labels; 0 where it is missing.
    pub(super) fn metric(&self, name: &str) -> Result<f64> {
        let text = self.text("/metrics")?;
        Ok(sum_of_metric(&text, name))
    }

    /// The body of an answer.
    pub(super) fn text(&self, path: &str) -> Result<String> {
        let mut body = Vec::new();
        http::get(&self.api, path)?
            .read_body(&mut |part| body.extend_from_slice(part))
            .context(|| format!("reading {path}"))?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Asks it to end, and waits.
    pub(super) fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .context(|| "ending the node".into())?;
        }
        wait_until("the node to end", STOP_MAX, || {
            Ok(self.child.try_wait().context(|| "waiting for the node".into())?.is_some())
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a node's log for as long as it runs, so that it never waits; hands on what is wanted.
fn follow(log: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(std::result::Result::ok) {
            // Nobody listens any more once the ports are known.
            let _ = sender.send(line);
        }
    });
    receiver
}

/// Port name and address in a line of a node's log.
fn listening(line: &str) -> Option<(&str, String)> {
    let field = |name: &str| {
        let (_, rest) = line.split_once(name)?;
        Some(rest.split_ascii_whitespace().next()?.trim_matches('"'))
    };
    if !line.contains("listening") {
        return None;
    }
    Some((field("port=")?, field("address=")?.to_string()))
}

fn sum_of_metric(text: &str, name: &str) -> f64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let is_it = rest.starts_with(' ') || rest.starts_with('{');
        is_it.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
    });
    // From zero, because the empty sum of floats is -0.
    values.fold(0.0, |sum, value| sum + value)
}

/// Waits for a condition; an error when it takes longer than `most`.
pub(super) fn wait_until(
    what: &str,
    most: Duration,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let until = Instant::now() + most;
    while !holds()? {
        if Instant::now() > until {
            return Err(Failure::run(format!("waited {} s for {what}", most.as_secs())));
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_in_the_log() {
        let line = r#"2026-01-01T00:00:00Z  INFO listening port="fast" address=127.0.0.1:4321"#;
        assert_eq!(listening(line), Some(("fast", "127.0.0.1:4321".into())));
        assert_eq!(listening("INFO stopping signal=\"SIGTERM\""), None);
    }

    #[test]
    fn metrics_are_summed_over_their_labels() {
        let text = "# HELP a x\na{k=\"1\"} 2\na{k=\"2\"} 3\nab 7\nc 4.5\n";
        let sums = ["a", "c", "d"].map(|name| sum_of_metric(text, name).to_string());
        assert_eq!(sums, ["5", "4.5", "0"]);
    }
}
