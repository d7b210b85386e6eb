//! What a terminal may be sent that a pipe or a file may not: colours, and a line of progress.
//!
//! Invariants: colours only on a terminal, and never with `NO_COLOR` set (<https://no-color.org>)
//! or on a `dumb` one; progress only on standard error and only where that is a terminal; its
//! line is gone before anything else is printed, if [`Progress::clear`] is called first.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Least time between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Whether this stream shows colours.
pub(crate) fn shows_colours(stream: &impl IsTerminal) -> bool {
    let variable = |name| std::env::var_os(name).unwrap_or_default();
    stream.is_terminal() && wants_colours(&variable("NO_COLOR"), &variable("TERM"))
}

/// How many columns standard output has, if it is a terminal that says so.
pub(crate) fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

fn wants_colours(no_color: &std::ffi::OsStr, term: &std::ffi::OsStr) -> bool {
    no_color.is_empty() && term != "dumb"
}

/// One line on standard error that is written over and over.
pub(crate) struct Progress {
    what: &'static str,
    on: bool,
    shown: bool,
    next: Instant,
    files: u64,
    bytes: u64,
}

impl Progress {
    /// Progress of `what`, a participle.
    pub(crate) fn new(what: &'static str) -> Self {
        let on = std::io::stderr().is_terminal();
        Self { what, on, shown: false, next: Instant::now(), files: 0, bytes: 0 }
    }

    /// One more file of so many bytes is done.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
        let (files, mebibytes) = (self.files, self.bytes >> 20);
        self.show(&format!("{} {files} files, {mebibytes} MiB", self.what));
    }

    /// Shows this line, unless one was shown a moment ago.
    pub(crate) fn show(&mut self, line: &str) {
        if !self.on || Instant::now() < self.next {
            return;
        }
        self.shown = true;
        self.next = Instant::now() + PROGRESS_INTERVAL;
        // Progress that cannot be shown is nobody's loss.
        let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_and_dumb_terminals_get_none() {
        for (no_color, term, wants) in [
            ("", "xterm", true),
            ("", "", true),
            ("1", "xterm", false),
            ("0", "xterm", false),
            ("", "dumb", false),
        ] {
            assert_eq!(wants_colours(no_color.as_ref(), term.as_ref()), wants, "{no_color} {term}");
        }
    }
}
