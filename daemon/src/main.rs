//! `oklogd`: one binary for nodes and for those who ask them.
//!
//! This file only dispatches. [`cli`] turns arguments into one checked command (from
//! [`commands`] and [`flag_table`] through [`arguments`], [`settings`] and [`config`]). Three rooms do what was asked:
//! [`node`] is a node, [`client`] are the programs that talk to one, [`offline`] those that work on its
//! files while it is stopped; [`testsvc`] only speaks. For all of them: [`help`] adds to what the parser
//! says, [`pages`] prints completions and the manual, [`output`] writes what commands print, [`terminal`]
//! knows what a terminal may be sent; [`lock`] keeps a directory for one process, [`released`] waits for
//! what another lets go of; [`logging`] and [`signals`] keep what happens around the process from ending it.

// The macros end the process when nobody reads: `output` and `tracing` do not.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod arguments;
mod cli;
mod client;
mod commands;
mod config;
mod exit;
mod flag_table;
mod flags;
mod habits;
mod help;
mod lock;
mod logging;
mod node;
mod offline;
mod output;
mod pages;
mod released;
mod settings;
mod shell;
#[cfg(test)]
mod shown_tests;
mod signals;
mod terminal;
mod testsvc;
mod times;
mod units;

use std::io::Write;
use std::process::ExitCode;

use crate::cli::{Command, Role, Stop};
use crate::config::NodeConfig;
use crate::exit::Exit;

fn main() -> ExitCode {
    logging::abort_on_panic();
    if let Err(error) = signals::unblock().and_then(|()| signals::hold_ends()) {
        output::tell(format_args!("warning: signals may be blocked here: {error}"));
    }
    if let Err(error) = signals::survive_file_size_limit() {
        output::tell(format_args!(
            "warning: a limit of file sizes would end this process: {error}"
        ));
    }
    let arguments = std::env::args_os().skip(1).map(std::ffi::OsString::into_string);
    let arguments = match arguments.collect::<Result<Vec<_>, _>>() {
        Ok(arguments) => arguments,
        Err(text) => {
            let words = format_args!("argument {} is not UTF-8", text.display());
            return output::fail(Exit::Usage, words).into();
        }
    };
    let environment = match cli::environment(&arguments, std::env::vars_os()) {
        Ok(environment) => environment,
        Err(stop) => return tell(&stop).into(),
    };
    match cli::parse(&arguments, &environment) {
        Ok((command, warnings)) => run(command, &warnings).into(),
        Err(stop) => tell(&stop).into(),
    }
}

fn run(command: Command, warnings: &[String]) -> Exit {
    if let Command::Node { role: Role::IngestStore, config } = command {
        return run_node(*config, warnings);
    }
    if let Err(error) = signals::let_ends_arrive() {
        output::tell(format_args!("warning: SIGINT and SIGTERM will not end this: {error}"));
    }
    if let Command::Forward(config) = command {
        keep_files_private();
        return client::forward::command::run(*config, warnings);
    }
    if let Err(error) = signals::end_as_first_process() {
        output::tell(format_args!("warning: SIGINT and SIGTERM will not end this: {error}"));
    }
    for warning in warnings {
        output::tell(format_args!("warning: {warning}"));
    }
    match command {
        Command::Forward(_) => unreachable!("handled above"),
        Command::Node { role, .. } => {
            let name = if role == Role::Ingest { "ingest" } else { "store" };
            let words = format_args!(
                "`oklogd {name}` alone has no other node to work with in this version; \
                 use `oklogd ingeststore`"
            );
            output::fail(Exit::Usage, words)
        }
        Command::Query(config) => client::query::run(&config),
        Command::Stream(config) => client::stream::run(&config),
        Command::Histogram(config) => client::histogram::run(&config),
        Command::Topics(config) => client::topics::run(&config),
        Command::Status(config) => client::status::run(&config),
        Command::TestService(config) => testsvc::run(&config),
        Command::Drain(config) => client::drain::run(&config),
        Command::Restore(config) => {
            keep_files_private();
            offline::restore::run(&config)
        }
        Command::Fsck { path, json } => offline::fsck::run(&path, json),
        Command::Completions(shell) => output::print(&pages::completions(shell), Exit::Done),
        Command::Manual(None) => output::print(&pages::manual(), Exit::Done),
        Command::Manual(Some(name)) => {
            let page = commands::CommandRow::named(name).map(pages::manual_of);
            output::print(&page.unwrap_or_default(), Exit::Done)
        }
        Command::Version => {
            output::print(format!("oklogd {}\n", cli::VERSION).as_bytes(), Exit::Done)
        }
    }
}

/// Everything that this process makes is for its user alone: logs hold secrets.
fn keep_files_private() {
    use rustix::fs::Mode;
    use rustix::process::umask;
    let others = Mode::RWXG | Mode::RWXO;
    // The mask can only be read by setting it; nothing is made meanwhile.
    let given = umask(others);
    umask(given | others);
}

fn run_node(config: NodeConfig, warnings: &[String]) -> Exit {
    keep_files_private();
    logging::start(config.log);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let exit = match node::run(config) {
        Ok(()) => Exit::Done,
        Err(error) => {
            tracing::error!("{error}");
            error.exit()
        }
    };
    logging::finish();
    exit
}

/// Prints help where it was asked for, or what is wrong; in colours where they are seen.
fn tell(stop: &Stop) -> Exit {
    let choose = |coloured| if coloured { &stop.coloured } else { &stop.text };
    if stop.exit == Exit::Done {
        return output::print(
            choose(terminal::shows_colours(&std::io::stdout())).as_bytes(),
            stop.exit,
        );
    }
    // Where it cannot be told, the exit code still says it.
    let words = choose(terminal::shows_colours(&std::io::stderr()));
    let _ = output::stderr().write_all(words.as_bytes());
    stop.exit
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    const CHILD: &str = "TEST_PANICS_HERE";

    /// A pipe that takes nothing, and its reader, who does not read.
    fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
        let (reader, writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        for len in [4096, 1] {
            while rustix::io::write(&writer, &b"x".repeat(len)).is_ok() {}
        }
        rustix::io::ioctl_fionbio(&writer, false).unwrap();
        (reader, writer)
    }

    #[test]
    fn a_panic_of_any_thread_ends_the_process_whoever_listens() {
        if let Some(way) = std::env::var_os(CHILD) {
            crate::logging::abort_on_panic();
            if way == "logging" {
                let level = tracing::level_filters::LevelFilter::INFO;
                crate::logging::start(crate::logging::LogConfig { level, json: true });
            }
            let _ = std::thread::spawn(|| panic!("as it is meant to")).join();
            return;
        }
        for way in ["printing", "logging"] {
            let name = "tests::a_panic_of_any_thread_ends_the_process_whoever_listens";
            let child = || {
                let mut child = Command::new(std::env::current_exe().unwrap());
                child.args(["--exact", name, "--nocapture"]).env(CHILD, way);
                child
            };
            let output = child().output().unwrap();
            assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{way}: {output:?}");
            assert!(String::from_utf8_lossy(&output.stderr).contains("as it is meant to"), "{way}");
            let (_reader, writer) = full_pipe();
            let status = child().stderr(writer).status().unwrap();
            assert_eq!(status.signal(), Some(libc::SIGABRT), "{way}: {status:?}");
        }
    }
}
