//! `oklogd query`: asks a node and prints what it answers.
//!
//! Invariants: records are printed as they come and never held back; what could not be searched
//! is told on standard error and by the exit code, behind everything that was found; a closed
//! pipe ends it silently. Times and expressions are judged by the node.

mod answers;
pub(crate) mod client;
pub(crate) mod printer;
pub(crate) mod request;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::pin::pin;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use serde_json::Value;

use self::answers::JsonLines;
use self::printer::{Printer, Style, Terminal, escape};
use crate::exit::Exit;
use crate::settings::{Settings, SettingsError};
use crate::units::Endpoint;

/// Port of a node that names none.
const API_PORT: u16 = 7650;

/// What to ask and how to print it.
#[derive(Debug, Clone)]
pub(crate) struct QueryConfig {
    pub(crate) store: Endpoint,
    pub(crate) from: String,
    pub(crate) to: Option<String>,
    pub(crate) q: String,
    pub(crate) regex: bool,
    pub(crate) ignore_case: bool,
    pub(crate) topics: Vec<String>,
    pub(crate) limit: Option<u64>,
    pub(crate) order: String,
    pub(crate) print: Print,
    pub(crate) fail_empty: bool,
    pub(crate) verbose: bool,
}

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Print {
    /// Records, with these two in front of each.
    Records { ulid: bool, time: bool },
    /// The NDJSON objects of the answer.
    Json,
    /// A table of what the query costs and finds.
    Stats,
    /// The same as the object that the node answers.
    StatsJson,
    /// Nothing.
    Nothing,
}

impl QueryConfig {
    /// Makes it of settings that were resolved with [`crate::flag_table::QUERY`].
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        let (stats, json) = (settings.bool("stats"), settings.bool("json"));
        let (ulid, time) = (settings.bool("ulid"), settings.bool("time"));
        if json && (ulid || time) {
            return Err(SettingsError::Conflict(
                "--json prints ULID and time already: it goes without --ulid and --time".to_owned(),
            ));
        }
        let print = match (settings.bool("nocopy"), stats, json) {
            (true, ..) => Print::Nothing,
            (false, true, false) => Print::Stats,
            (false, true, true) => Print::StatsJson,
            (false, false, true) => Print::Json,
            (false, false, false) => Print::Records { ulid, time },
        };
        Ok(Self {
            store: settings.address("store").or("localhost", API_PORT),
            from: settings.text("from"),
            to: settings.optional_text("to"),
            q: settings.text("q"),
            regex: settings.bool("regex"),
            ignore_case: settings.bool("ignore-case"),
            topics: settings.texts("topic"),
            limit: settings.optional_number("limit"),
            order: settings.text("order"),
            print,
            fail_empty: settings.bool("fail-empty"),
            verbose: settings.bool("verbose"),
        })
    }
}

/// After this long without an answer the operator is told. The wait goes on: a search through
/// everything takes its time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest answer that is read as a whole: a refusal or statistics.
const SHORT_ANSWER_BYTES_MAX: usize = 4 << 20;

/// Where output goes.
struct Streams<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    /// Whether a person looks at `out`.
    out_is_terminal: bool,
    /// How long to wait for an answer without a word.
    patience: Duration,
}

/// How printing an answer ended.
struct Printed {
    records: u64,
    complete: bool,
    /// Why the answer ended early.
    cut_short: Option<hyper::Error>,
}

/// Asks, prints, and says by its exit code how it went.
pub(crate) fn run(config: &QueryConfig) -> Exit {
    let stdout = io::stdout();
    // Not through the standard library's line buffer: output comes in large pieces.
    let mut out: Box<dyn Write> = match stdout.as_fd().try_clone_to_owned() {
        Ok(descriptor) => Box::new(File::from(descriptor)),
        Err(_) => Box::new(io::stdout()),
    };
    let mut err = io::stderr();
    let out_is_terminal = stdout.is_terminal();
    let (out, err, patience) = (&mut out, &mut err, PATIENCE);
    run_with(config, &mut Streams { out, err, out_is_terminal, patience })
}

fn run_with(config: &QueryConfig, streams: &mut Streams<'_>) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tell(streams, Exit::Error, &format!("cannot start: {error}")),
    };
    match runtime.block_on(query(config, streams)) {
        Ok(exit) => exit,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => tell(streams, Exit::Error, &format!("standard output: {error}")),
    }
}

/// The errors are those of writing the output.
async fn query(config: &QueryConfig, streams: &mut Streams<'_>) -> io::Result<Exit> {
    let start = Instant::now();
    let target = request::target(config);
    let accept = if config.print == Print::Json { "application/x-ndjson" } else { "text/plain" };
    let mut asked = pin!(client::ask(&config.store, &target, accept));
    let soon = tokio::time::timeout(streams.patience, &mut asked).await;
    let answered = if let Ok(answered) = soon {
        answered
    } else {
        let _ = writeln!(
            streams.err,
            "still waiting for {}, which may have much to search (--store names the API address \
             of a node, by default port {})",
            config.store,
            crate::config::API_PORT
        );
        asked.await
    };
    let response = match answered {
        Ok(response) => response,
        Err(error) => return Ok(tell(streams, Exit::Error, &error.to_string())),
    };
    if response.status() != StatusCode::OK {
        return Ok(refused(config, streams, response).await);
    }
    if config.verbose {
        let words = answers::verbose(response.headers());
        // Where it cannot be told, the records still are.
        let _ = write!(streams.err, "Response in {:?}\n{words}", start.elapsed());
    }
    let printed = match config.print {
        Print::Stats | Print::StatsJson => print_stats(config, streams, response).await?,
        Print::Json => print_json(streams, response).await?,
        Print::Records { .. } | Print::Nothing => print_records(config, streams, response).await?,
    };
    if config.verbose {
        let _ = writeln!(streams.err, "{} record(s) in {:?}", printed.records, start.elapsed());
    }
    if let Some(error) = &printed.cut_short {
        let words = format!("incomplete: the answer of {} ends early ({error})", config.store);
        return Ok(tell(streams, Exit::Incomplete, &words));
    }
    if !printed.complete {
        let words =
            "incomplete: part of the range could not be searched; --stats or --json lists it";
        return Ok(tell(streams, Exit::Incomplete, words));
    }
    Ok(if printed.records == 0 && config.fail_empty { Exit::Empty } else { Exit::Done })
}

async fn print_records(
    config: &QueryConfig,
    streams: &mut Streams<'_>,
    response: Response<Incoming>,
) -> io::Result<Printed> {
    let complete = says_complete(&response);
    let mut sink = io::sink();
    let (out, style): (&mut dyn Write, _) = match config.print {
        Print::Records { ulid, time } => {
            let terminal = streams
                .out_is_terminal
                .then(|| Terminal::new(&config.q, config.regex, config.ignore_case));
            (&mut *streams.out, Style { ulid, time, terminal })
        }
        _ => (&mut sink, Style { ulid: true, time: false, terminal: None }),
    };
    let mut printer = Printer::new(out, style);
    let mut body = response.into_body();
    let cut_short = loop {
        match client::next(&mut body).await {
            Ok(Some(piece)) => {
                printer.take(&piece)?;
                // What came is shown now: the next piece may be long in coming.
                printer.flush()?;
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    printer.finish()?;
    Ok(Printed { records: printer.records, complete, cut_short })
}

async fn print_json(
    streams: &mut Streams<'_>,
    response: Response<Incoming>,
) -> io::Result<Printed> {
    let mut lines = JsonLines::new(streams.out);
    let mut body = response.into_body();
    let cut_short = loop {
        match client::next(&mut body).await {
            Ok(Some(piece)) => lines.take(&piece)?,
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    Ok(Printed { records: lines.records, complete: lines.is_complete(), cut_short })
}

async fn print_stats(
    config: &QueryConfig,
    streams: &mut Streams<'_>,
    response: Response<Incoming>,
) -> io::Result<Printed> {
    let body = client::read_short(&mut response.into_body(), SHORT_ANSWER_BYTES_MAX).await;
    let stats: Value = serde_json::from_slice(&body).unwrap_or_default();
    if config.print == Print::StatsJson {
        streams.out.write_all(&body)?;
    } else {
        streams.out.write_all(answers::table(&stats).as_bytes())?;
    }
    let records = stats["records"].as_u64().unwrap_or(0);
    Ok(Printed { records, complete: stats["complete"] == true, cut_short: None })
}

/// What the headers say; an answer of somebody else's says nothing.
fn says_complete(response: &Response<Incoming>) -> bool {
    response.headers().get("x-oklog-complete").is_none_or(|value| value != "false")
}

/// Tells why the node refused. A bad value is the user's, whoever found it.
async fn refused(
    config: &QueryConfig,
    streams: &mut Streams<'_>,
    response: Response<Incoming>,
) -> Exit {
    let status = response.status();
    let body = client::read_short(&mut response.into_body(), SHORT_ANSWER_BYTES_MAX).await;
    let object: Value = serde_json::from_slice(&body).unwrap_or_default();
    let words = match object["error"].as_str() {
        Some(words) => words.as_bytes(),
        None => &body[..body.len().min(200)],
    };
    // Lines stay: what is wrong with a regular expression is shown by several.
    let mut reason = Vec::new();
    for line in words.trim_ascii_end().split_inclusive(|&byte| byte == b'\n') {
        let (line, end) = line.strip_suffix(b"\n").map_or((line, &[][..]), |line| (line, b"\n"));
        escape(&mut reason, line);
        reason.extend_from_slice(end);
    }
    let reason = String::from_utf8_lossy(&reason);
    let exit = if status == StatusCode::BAD_REQUEST { Exit::Usage } else { Exit::Error };
    tell(streams, exit, &format!("{} answers {status}: {reason}", config.store))
}

/// One line on standard error.
fn tell(streams: &mut Streams<'_>, exit: Exit, words: &str) -> Exit {
    let kind = if exit == Exit::Incomplete { "warning" } else { "error" };
    // Where it cannot be told, the exit code still says it.
    let _ = writeln!(streams.err, "{kind}: {words}");
    exit
}
