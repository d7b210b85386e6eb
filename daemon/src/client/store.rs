//! The node that a command asks, and what it is shown of who asks.
//!
//! Invariants: a token is read once, when the command line is, and shown nowhere but to what speaks HTTP: an
//! ingest port would keep it as a line; a file that holds none is a usage error.

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::ingest::hello::Secret;
use engine::limits::TOKEN_BYTES_MAX;

use crate::config::API_PORT;
use crate::settings::{Settings, SettingsError, read_text};
use crate::units::Endpoint;

/// See the module page.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    endpoint: Endpoint,
    token: Option<Secret>,
    /// It has answered in HTTP. Clones share it.
    speaks_http: Arc<AtomicBool>,
}

impl Store {
    /// Of `--store` and `--token-file`.
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        let endpoint = settings.address("store").or("localhost", API_PORT);
        Ok(Self { endpoint, token: token(settings)?, speaks_http: Arc::default() })
    }

    /// Where it is.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// What it is shown.
    pub(crate) const fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    /// Whether it has to be found out who listens there before a token is shown.
    pub(crate) fn is_unknown(&self) -> bool {
        self.token.is_some() && !self.speaks_http.load(Ordering::Relaxed)
    }

    /// It has answered in HTTP.
    pub(crate) fn note_http(&self) {
        self.speaks_http.store(true, Ordering::Relaxed);
    }
}

impl Deref for Store {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

/// The token of `--token-file`.
pub(crate) fn token(settings: &Settings) -> Result<Option<Secret>, SettingsError> {
    let Some(path) = settings.optional_text("token-file") else { return Ok(None) };
    let refused = |words: String| SettingsError::Conflict(format!("--token-file {path}: {words}"));
    let text =
        read_text(Path::new(&path)).map_err(|error| refused(format!("cannot be read: {error}")))?;
    let token = Secret::new(text.trim().as_bytes()).ok_or_else(|| {
        refused(format!(
            "holds no token: valid is one line of 1 to {TOKEN_BYTES_MAX} visible ASCII characters"
        ))
    })?;
    Ok(Some(token))
}
