//! `oklogd`: one binary for nodes and for those who ask them.
//!
//! This file only dispatches. [`cli`] turns arguments into one checked command (from
//! [`flag_table`] through [`arguments`], [`settings`] and [`config`]); [`node`] runs a node;
//! [`forward_command`] sends to nodes; [`query_command`], [`testsvc`] and [`fsck_command`] are the
//! rest.

mod arguments;
mod cli;
mod config;
mod exit;
mod flag_table;
mod flags;
mod forward_command;
mod fsck_command;
mod logging;
mod node;
mod query_command;
mod settings;
mod testsvc;
mod units;

use std::io::Write;
use std::process::ExitCode;

use crate::cli::{Command, Role, Stop};
use crate::config::NodeConfig;
use crate::exit::Exit;

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1).map(std::ffi::OsString::into_string);
    let arguments = match arguments.collect::<Result<Vec<_>, _>>() {
        Ok(arguments) => arguments,
        Err(text) => {
            eprintln!("error: argument {} is not UTF-8", text.display());
            return Exit::Usage.into();
        }
    };
    // A variable that is not UTF-8 is none of ours.
    let environment: Vec<_> = std::env::vars_os()
        .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)))
        .collect();
    match cli::parse(&arguments, &environment) {
        Ok((command, warnings)) => run(command, &warnings).into(),
        Err(stop) => tell(&stop).into(),
    }
}

fn run(command: Command, warnings: &[String]) -> Exit {
    if let Command::Node { role: Role::IngestStore, config } = command {
        return run_node(*config, warnings);
    }
    if let Command::Forward(config) = command {
        return forward_command::run(*config, warnings);
    }
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    match command {
        Command::Forward(_) => unreachable!("handled above"),
        Command::Node { role, .. } => {
            let name = if role == Role::Ingest { "ingest" } else { "store" };
            eprintln!(
                "error: `oklogd {name}` alone has no other node to work with in this version; \
                 use `oklogd ingeststore`"
            );
            Exit::Usage
        }
        Command::Query(config) => query_command::run(&config),
        Command::TestService(config) => testsvc::run(&config),
        Command::Fsck { path, json } => fsck_command::run(&path, json),
        Command::Version => {
            println!("oklogd {}", env!("CARGO_PKG_VERSION"));
            Exit::Done
        }
    }
}

fn run_node(config: NodeConfig, warnings: &[String]) -> Exit {
    logging::start(config.log);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    match node::run(config) {
        Ok(()) => Exit::Done,
        Err(error) => {
            tracing::error!("{error}");
            Exit::Error
        }
    }
}

/// Prints help where it was asked for, or what is wrong.
fn tell(stop: &Stop) -> Exit {
    // Where it cannot be printed, the exit code still tells.
    let _ = if stop.exit == Exit::Done {
        std::io::stdout().write_all(stop.text.as_bytes())
    } else {
        std::io::stderr().write_all(stop.text.as_bytes())
    };
    stop.exit
}
