//! Commands on a terminal: a pseudo-terminal whose other side is read here.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::tools;

/// A command whose standard output and error are a terminal; killed when dropped.
pub struct OnTerminal {
    child: Child,
    other_side: File,
    said: Vec<u8>,
}

impl OnTerminal {
    /// Starts `oklogd` with these arguments, `TERM=xterm`, and these variables alone.
    pub fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&terminal).expect("it is ours");
        unlockpt(&terminal).expect("it is ours");
        let name = ptsname(&terminal, Vec::new()).expect("it has a name");
        let open = || {
            let path = name.to_str().expect("its name is a path");
            OpenOptions::new().read(true).write(true).open(path).expect("it can be opened")
        };
        let mut command = Command::new(tools::binary("oklogd"));
        command.args(arguments).env_clear().env("TERM", "xterm");
        command.envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(open()).stderr(open());
        let child = command.spawn().expect("oklogd can be started");
        // Its own descriptors of the terminal go with the command.
        drop(command);
        Self { child, other_side: File::from(terminal), said: Vec::new() }
    }

    /// Reads until this was said; all that was.
    pub fn read_until(&mut self, part: &str) -> String {
        while !tools::text(&self.said).contains(part) {
            let mut bytes = [0; 4096];
            // The terminal is gone, as an error, when its last process is.
            let len = self.other_side.read(&mut bytes).unwrap_or(0);
            assert!(len > 0, "it ended before it said {part:?}: {}", tools::text(&self.said));
            self.said.extend_from_slice(&bytes[..len]);
        }
        tools::text(&self.said)
    }

    /// How it ends, and all that it said; ends of lines as in a pipe.
    pub fn finish(mut self) -> (ExitStatus, String) {
        let _ = self.other_side.read_to_end(&mut self.said);
        let status = self.child.wait().expect("it is a child of this process");
        (status, tools::text(&self.said).replace("\r\n", "\n"))
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
