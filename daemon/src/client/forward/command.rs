//! `oklogd forward`: standard input → ingesters.
//!
//! Flags, words and exit codes; everything else is in the modules beside this one. Invariants: exit code 0 only
//! when an ingester has taken all of standard input, or, after a signal, it is safe in the spool; otherwise
//! how much is not is told on standard error.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::ingest::hello::Secret;
use engine::spool::{Opened, Spool};
use engine::storage::OsStorage;

use super::{ForwardOptions, Outcome, Target, Waiting, address};
use crate::client::store;
use crate::exit::Exit;
use crate::lock::{DirectoryLock, LockError};
use crate::logging::{self, LogConfig};
use crate::released::once_released;
use crate::settings::{Settings, SettingsError};
use crate::signals;
use crate::units::Endpoint;

const FAST_PORT: u16 = 7651;
const DURABLE_PORT: u16 = 7652;
const API_PORT: u16 = 7650;

/// What is done with lines that wait.
#[derive(Debug, Clone, PartialEq, Eq)]
enum OnFull {
    Block,
    DropOldest,
    Spool { path: PathBuf, bytes_max: u64 },
}

/// How to forward.
#[derive(Debug, Clone)]
pub(crate) struct ForwardConfig {
    targets: Vec<Target>,
    durable: bool,
    topic: Option<String>,
    token: Option<Secret>,
    prefix: Vec<u8>,
    record_bytes_max: usize,
    on_full: OnFull,
    buffer_bytes: usize,
    api: Option<Endpoint>,
    dns_server: Option<SocketAddr>,
    backoff_max: Duration,
    shutdown_timeout: Duration,
    log: LogConfig,
}

impl ForwardConfig {
    /// Makes it of settings that were resolved with [`crate::flag_table::FORWARD`].
    pub(crate) fn from_settings(
        settings: &Settings,
        addresses: &[String],
    ) -> Result<Self, SettingsError> {
        let mode = settings.text("mode");
        if mode == "bulk" {
            return Err(SettingsError::Conflict(
                "--mode bulk needs the network part, which is not in this version; use durable"
                    .to_owned(),
            ));
        }
        let durable = mode == "durable";
        let port = if durable { DURABLE_PORT } else { FAST_PORT };
        let targets: Result<Vec<_>, _> =
            addresses.iter().map(|text| address::read(text, port)).collect();
        let on_full = match settings.text("on-full").as_str() {
            "spool" => OnFull::Spool {
                path: settings.text("spool.path").into(),
                bytes_max: settings.number("spool.max-size"),
            },
            "drop-oldest" => OnFull::DropOldest,
            _ => OnFull::Block,
        };
        // Each with a space behind it, as the predecessor did; an empty one is none.
        let mut prefix = String::new();
        for part in settings.texts("prefix").iter().filter(|part| !part.is_empty()) {
            prefix.push_str(part);
            prefix.push(' ');
        }
        if prefix.contains('\n') {
            return Err(SettingsError::Conflict("--prefix: a line has no newline".to_owned()));
        }
        let record_bytes_max = settings.number("ingest.max-record-size") as usize;
        if prefix.len() >= record_bytes_max {
            return Err(SettingsError::Conflict(
                "--prefix leaves no room for lines within --ingest.max-record-size".to_owned(),
            ));
        }
        let dns_server = settings.optional_text("dns-server").map(|text| {
            text.parse().map_err(|_| {
                SettingsError::Conflict(format!("--dns-server: {text:?} is not IP:PORT"))
            })
        });
        let api = settings.address("api");
        let has_api = api.host.is_some() || api.port.is_some();
        Ok(Self {
            targets: targets.map_err(SettingsError::Conflict)?,
            durable,
            topic: settings.optional_text("topic"),
            token: store::token(settings)?,
            prefix: prefix.into_bytes(),
            record_bytes_max,
            on_full,
            buffer_bytes: settings.number("buffer-size") as usize,
            api: has_api.then(|| api.or("127.0.0.1", API_PORT)),
            dns_server: dns_server.transpose()?,
            backoff_max: settings.duration("backoff-max"),
            shutdown_timeout: settings.duration("shutdown-timeout"),
            log: LogConfig::from_settings(settings),
        })
    }
}

/// Forwards standard input.
pub(crate) fn run(config: ForwardConfig, warnings: &[String]) -> Exit {
    logging::start(config.log);
    let exit = forward(config, warnings);
    logging::finish();
    exit
}

fn forward(config: ForwardConfig, warnings: &[String]) -> Exit {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if let Err(error) = signals::survive_others(false) {
        tracing::warn!(%error, "some signals would end this process");
    }
    let outcome = start(config).and_then(|(options, _lock)| {
        super::run(options).map_err(|e| format!("the forwarder cannot run: {e}"))
    });
    match outcome {
        Ok(outcome) => tell(&outcome),
        Err(words) => {
            tracing::error!("{words}");
            Exit::Error
        }
    }
}

fn tell(outcome: &Outcome) -> Exit {
    match outcome {
        Outcome::HandedOver => return Exit::Done,
        Outcome::Spooled { lines } => {
            tracing::info!(
                records = lines,
                "what is not handed over is in the spool: it is sent at the next start"
            );
            return Exit::Done;
        }
        Outcome::NotHandedOver { lines, spooled, has_unread: false } => tracing::error!(
            records = lines,
            spooled,
            "ended before everything was handed over: these records are lost"
        ),
        Outcome::NotHandedOver { lines, spooled, has_unread: true } => tracing::error!(
            records = lines,
            spooled,
            "ended before everything was handed over: at least these records are lost, and what \
             standard input still holds"
        ),
        Outcome::Refused { lines, spooled } => tracing::error!(
            records = lines,
            spooled,
            "given up: standard input has ended, and every address has refused twice in a row; these \
             records are not handed over (spooled ones are kept)"
        ),
        Outcome::Stuck => tracing::error!(
            "ended at once: a disk or the network does not answer; what was not handed over is lost \
             unless it is in the spool"
        ),
        Outcome::InputFailed(error) => tracing::error!(
            "standard input cannot be read: {error}; what was read before is handed over"
        ),
    }
    Exit::Error
}

/// Takes everything that can fail before the first line is read.
fn start(config: ForwardConfig) -> Result<(ForwardOptions, Option<DirectoryLock>), String> {
    let api = match &config.api {
        Some(endpoint) => Some(listen(endpoint)?),
        None => None,
    };
    let bytes_max = config.buffer_bytes;
    let (waiting, lock) = match &config.on_full {
        OnFull::Block => (Waiting::Block { bytes_max }, None),
        OnFull::DropOldest => (Waiting::DropOldest { bytes_max }, None),
        OnFull::Spool { path, bytes_max } => {
            let (spool, lock) = open_spool(path, *bytes_max)?;
            (Waiting::Spool(Box::new(spool)), Some(lock))
        }
    };
    let options = ForwardOptions {
        targets: config.targets,
        durable: config.durable,
        topic: config.topic,
        token: config.token,
        prefix: config.prefix,
        record_bytes_max: config.record_bytes_max,
        waiting,
        shutdown_timeout: config.shutdown_timeout,
        backoff_max: config.backoff_max,
        dns_server: config.dns_server,
        api,
        log: logging::metrics(),
    };
    Ok((options, lock))
}

fn open_spool(path: &Path, bytes_max: u64) -> Result<(Spool, DirectoryLock), String> {
    let failed = |e: std::io::Error| {
        format!("the spool {} (--spool.path) cannot be opened: {e}", path.display())
    };
    let mut lock = DirectoryLock::make(path).map_err(|error| match error {
        LockError::Directory(_, error) => failed(error),
        error => error.to_string(),
    })?;
    let opened = Spool::open(Arc::new(OsStorage), path.to_owned(), bytes_max).map_err(failed)?;
    lock.keep();
    let Opened { spool, unknown, set_aside } = opened;
    if spool.pending_lines() > 0 {
        let (records, bytes) = (spool.pending_lines(), spool.disk_bytes());
        tracing::info!(records, bytes, "the spool holds records of an earlier run: sent first");
    }
    if spool.unread_files() > 0 {
        let files = spool.unread_files();
        tracing::warn!(files, "the spool holds files that cannot be read now: they are read again");
    }
    if set_aside > 0 {
        tracing::warn!(files = set_aside, "the spool holds damaged files that were set aside");
    }
    if !unknown.is_empty() {
        tracing::warn!(names = unknown.join(", "), "unknown files in the spool are left alone");
    }
    Ok((spool, lock))
}

fn listen(endpoint: &Endpoint) -> Result<TcpListener, String> {
    let failed = |e: std::io::Error| format!("cannot listen on {endpoint} (--api): {e}");
    let addresses = endpoint.resolve().map_err(failed)?;
    let listener = once_released(|| TcpListener::bind(&addresses[..])).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!(port = "api", %address, "listening");
    Ok(listener)
}
