//! `oklogd drain`: asks a node to take nothing more and waits until the store has all it held.
//!
//! Invariants: exits with 0 only when the node has said that nothing is left; giving up (or being
//! interrupted) leaves the node draining.

use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::client::http::block_on;
use crate::client::object;
use crate::client::store::Store;
use crate::exit::Exit;
use crate::output;
use crate::settings::{Settings, SettingsError};
use crate::terminal::Progress;

/// Time between questions, and what a node asks for that is asked too often (`--http.rate-limit`).
const PAUSE: Duration = Duration::from_millis(200);
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// Longest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What `drain` is told.
#[derive(Debug)]
pub(crate) struct DrainConfig {
    store: Store,
    timeout: Option<Duration>,
}

impl DrainConfig {
    /// Makes it of settings that were resolved with [`crate::flag_table::DRAIN`].
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        let timeout = settings.duration("timeout");
        Ok(Self {
            store: Store::from_settings(settings)?,
            timeout: (!timeout.is_zero()).then_some(timeout),
        })
    }
}

/// Drains a node.
pub(crate) fn run(config: &DrainConfig) -> Exit {
    let drained = block_on(drain(config)).map_err(|error| format!("cannot start: {error}"));
    match drained.and_then(|drained| drained) {
        Ok(()) => {
            let words = format!(
                "{}: nothing is left on the ingest side; it can be stopped\n",
                config.store
            );
            output::print(words.as_bytes(), Exit::Done)
        }
        Err(words) => output::fail(Exit::Error, words),
    }
}

async fn drain(config: &DrainConfig) -> Result<(), String> {
    let start = Instant::now();
    let mut progress = Progress::new("drained");
    loop {
        let Some(state) = ask(&config.store).await? else {
            if config.timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
                progress.clear();
                return Err(format!(
                    "{}: it is asked too often to say how far it is, and goes on draining if it has begun",
                    config.store
                ));
            }
            tokio::time::sleep(LONG_PAUSE).await;
            continue;
        };
        let left = |name: &str| state["left"][name].as_u64().unwrap_or(0);
        if state["done"] == true {
            progress.clear();
            return Ok(());
        }
        if let Some(why) = state["stuck"].as_str() {
            return Err(format!("{}: {why}", config.store));
        }
        let words = format!(
            "{} shards write out, {} segments ({} MiB) are not in the store yet",
            left("shards"),
            left("segments"),
            left("bytes") >> 20
        );
        if config.timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
            progress.clear();
            return Err(format!("{}: {words}; it goes on draining", config.store));
        }
        progress.show(&words);
        tokio::time::sleep(PAUSE).await;
    }
}

/// How far it is; `None`: it is asked too often.
async fn ask(store: &Store) -> Result<Option<Value>, String> {
    let request = (Method::POST, "/_drain");
    let statuses = [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS];
    let answer = object::ask(store, request, &statuses, ANSWER_BYTES_MAX).await;
    let answer = answer.map_err(|failed| failed.words)?;
    if answer.status != StatusCode::OK {
        return Ok(None);
    }
    let object = answer.object;
    // Whatever else answers so is no node, and would be asked for ever.
    let is_state = object["done"].is_boolean();
    let no_state = || format!("{store} answers with no state: is this the HTTP port of a node?");
    is_state.then_some(Some(object)).ok_or_else(no_state)
}
