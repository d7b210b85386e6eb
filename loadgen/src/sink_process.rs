//! A discard sink in a process of its own, so that its CPU is not the client's.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::failure::{Context, Failure, Result};

/// A running `loadgen sink`; ends when dropped.
#[derive(Debug)]
pub(crate) struct SinkProcess {
    child: Child,
    pub(crate) address: String,
}

impl SinkProcess {
    pub(crate) fn start() -> Result<Self> {
        let starting = || "starting the sink".to_string();
        let program = std::env::current_exe().context(starting)?;
        let child = Command::new(program)
            .args(["sink", "--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context(starting)?;
        let mut sink = Self { child, address: String::new() };
        let mut line = String::new();
        if let Some(output) = sink.child.stdout.take() {
            BufReader::new(output).read_line(&mut line).context(starting)?;
        }
        match line.trim().strip_prefix("listening on ") {
            Some(address) => sink.address = address.to_string(),
            None => return Err(Failure::run("the sink did not say where it listens")),
        }
        Ok(sink)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for SinkProcess {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
