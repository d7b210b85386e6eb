//! Structured log lines on standard error, one event a line.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;

use crate::settings::Settings;

/// What is logged and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogConfig {
    /// This and worse.
    pub(crate) level: LevelFilter,
    /// One JSON object a line in place of text.
    pub(crate) json: bool,
}

impl LogConfig {
    /// Reads `--log-level`, `--log-format` and `--debug`.
    pub(crate) fn from_settings(settings: &Settings) -> Self {
        let level = if settings.bool("debug") {
            LevelFilter::DEBUG
        } else {
            settings.text("log-level").parse().unwrap_or(LevelFilter::INFO)
        };
        Self { level, json: settings.text("log-format") == "json" }
    }
}

/// Starts logging for the rest of the process. A second call changes nothing.
pub(crate) fn start(config: LogConfig) {
    let builder = tracing_subscriber::fmt()
        .with_max_level(config.level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let started = if config.json {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        builder.try_init()
    };
    // Only tests start it twice; whoever was first keeps it.
    drop(started);
}
