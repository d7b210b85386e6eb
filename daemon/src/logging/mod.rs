//! Structured log lines on standard error, one event a line.
//!
//! Invariants: telling never stops, slows or ends the work. A line goes into a bounded [`queue`]
//! that one thread writes; [`flood`] bounds how often each place in the code may say something;
//! what is left out is counted and told. At the end of the process what is queued is waited for,
//! but not long. Does not log for commands that print and end: those write to standard error
//! themselves, through [`crate::output`].

mod flood;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use net::metrics::LogMetrics;
use tracing::Dispatch;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use self::flood::FloodGate;
use self::queue::{LineQueue, StandardError};
use crate::settings::Settings;

/// How long the end of the process waits for lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

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

/// The log of this process, once it has one.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    queue: LineQueue,
    gate: FloodGate,
    metrics: LogMetrics,
}

/// Starts logging for the rest of the process. A second call changes nothing.
pub(crate) fn start(config: LogConfig) {
    let metrics = LogMetrics::default();
    let new = || Log {
        queue: LineQueue::new(metrics.clone()),
        gate: FloodGate::new(metrics.clone()),
        metrics,
    };
    let log = LOG.get_or_init(new);
    let lines = tracing_subscriber::registry().with(config.level).with(&log.gate);
    // Only tests start it twice; whoever was first keeps it.
    let _ = lines.with(layer(config, || ToQueue(&log.queue))).try_init();
    let writer = std::thread::Builder::new().name("log".into());
    // Without a thread nothing else starts, and the last lines are written by who ends.
    let _ = writer.spawn(move || {
        let notes = Notes::new(config);
        log.queue.write_to(&mut StandardError, |count| notes.gap(count), || log.gate.tell(false));
    });
}

/// What is counted about the log of this process.
pub(crate) fn metrics() -> LogMetrics {
    LOG.get().map(|log| log.metrics.clone()).unwrap_or_default()
}

/// To be called before the process ends: has everything written that was said, if standard error
/// takes it in time.
pub(crate) fn finish() {
    if let Some(log) = LOG.get() {
        log.gate.tell(true);
        log.queue.wait_until_written(LAST_LINES);
    }
}

/// A thread that panicked has left its work half done: the process ends and is started again,
/// whether it was compiled to unwind, as for tests, or to abort. That is told, if somebody listens.
pub(crate) fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let mut words = format!("thread {:?} {panic}\n", thread.name().unwrap_or("without a name"));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            words.push_str(&backtrace.to_string());
        }
        match LOG.get() {
            Some(log) => {
                log.queue.push_at_the_end(words.as_bytes());
                log.queue.wait_until_written(LAST_LINES);
            }
            None => crate::output::tell(words.trim_end()),
        }
        std::process::abort();
    }));
}

/// Formats events as they were asked for.
fn layer<S, W>(config: LogConfig, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(io::stderr().is_terminal())
        .log_internal_errors(false)
        .with_target(false);
    if config.json {
        layer.json().flatten_event(true).with_current_span(false).boxed()
    } else {
        layer.boxed()
    }
}

/// Where formatted lines go. Takes everything, always.
struct ToQueue(&'static LineQueue);

impl io::Write for ToQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Words of the writing thread, which cannot queue them: they stand where lines are missing.
struct Notes {
    format: Dispatch,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Notes {
    fn new(config: LogConfig) -> Self {
        let written = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&written);
        let writer = move || ToMemory(Arc::clone(&to));
        let lines = Registry::default().with(LevelFilter::WARN).with(layer(config, writer));
        Self { format: lines.into(), written }
    }

    fn gap(&self, count: u64) -> Vec<u8> {
        tracing::dispatcher::with_default(&self.format, || {
            tracing::warn!(count, "{count} log lines were left out: standard error took none");
        });
        std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct ToMemory(Arc<Mutex<Vec<u8>>>);

impl io::Write for ToMemory {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
