//! Looks whether scan threads hang in files, as the system says of threads.
//!
//! Invariants: a thread of which the system says nothing is not taken for one that hangs.

use std::time::Instant;

use engine::search::{Overseer, Standing};

/// To be called every second or so.
pub(super) fn look(overseer: &Overseer) {
    for gone in overseer.look(Instant::now(), &standing) {
        let path = gone.path.map_or_else(|| "(unknown)".into(), |path| path.display().to_string());
        tracing::warn!(
            path,
            "a file does not answer; queries leave it out, and say so, until it does: see whether its \
             file system hangs"
        );
    }
}

/// How a thread of this process stands.
fn standing(thread: i32) -> Option<Standing> {
    parse(&std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).ok()?)
}

fn parse(status: &str) -> Option<Standing> {
    let field = |name: &str| {
        let mut lines = status.lines().filter_map(|line| line.strip_prefix(name));
        lines.next().map(str::trim)
    };
    let is_waiting = field("State:")?.starts_with(['S', 'D']);
    let waits = field("voluntary_ctxt_switches:")?.parse().ok()?;
    Some(Standing { is_waiting, waits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_how_a_thread_stands() {
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        assert!(!standing(own).unwrap().is_waiting, "it runs");
        let status = "Name:\tscan-0\nState:\tD (disk sleep)\nvoluntary_ctxt_switches:\t17\n\
                      nonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(parse(status), Some(Standing { is_waiting: true, waits: 17 }));
        assert_eq!(parse("State:\tS (sleeping)\n"), None);
        assert_eq!(standing(1 << 29), None);
    }
}
