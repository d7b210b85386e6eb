//! `loadgen`: sends log lines to a node, measures what that costs, and proves that each record is
//! there exactly once.
//!
//! The folders: [`corpus`] makes the lines, [`send`] sends them, [`sink`] is what a node is
//! measured against, [`verify`] asks for everything back, [`probe`] sends one record at a time and
//! looks for it, [`post_log`] sends entries as JSON and
//! follows them, [`ask_logs`] asks for them, [`procfs`] looks at the node's process, [`compare`] does all of it in one run and
//! prints the table of `docs/figures.md`.
//! [`commands`] joins them, one function per subcommand.
//!
//! Invariants: what is sent is a function of the command line (seed included), so verifying needs
//! no memory of sending; memory is bounded; nothing is allocated per record while sending; blocking
//! threads and epoll, no runtime.

mod ask_logs;
mod cli;
mod commands;
mod compare;
mod corpus;
mod digest;
mod failure;
mod http;
mod idle;
mod post_log;
mod probe;
mod procfs;
mod query;
mod query_bench;
mod report;
mod rng;
mod send;
mod sink;
mod sink_process;
mod units;
mod verify;

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    raise_open_files_limit();
    match commands::run(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(failure::EXIT_FAILED),
        Err(failure) => {
            eprintln!("loadgen: {failure}");
            ExitCode::from(failure.exit_code)
        }
    }
}

/// A connection is an open file: takes as many as the system allows this user.
fn raise_open_files_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, opening a connection fails with a message of its own.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
