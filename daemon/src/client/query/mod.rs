//! `oklogd query`: asks a node and prints what it answers.
//!
//! Invariants: records are printed as they come, whole, and never held back unless they are to be turned
//! around (`-n`); an answer is whole only if it says so in its last line, and what could not be searched or
//! did not come is told on standard error and by the exit code, behind everything that was found; an answer
//! that ends because the reader of the output is slow is gone on with; a closed pipe ends it silently.
//! Expressions are judged by the node.

mod answers;
mod config;
mod course;
mod nothing;
mod records;
mod request;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Method, Response, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

pub(crate) use self::config::{Print, QueryConfig};
use self::course::Range;
use crate::client::http::{self, Patience};
use crate::client::look::Output;
use crate::exit::Exit;
use crate::output;
use crate::units::Endpoint;

/// Longest answer that is read as a whole: statistics.
const SHORT_ANSWER_BYTES_MAX: usize = 4 << 20;

/// An output that took nothing for this long may have made the node end its answer: it does so after
/// a minute.
const STALL: Duration = Duration::from_secs(10);

/// Who refuses to answer in part cannot answer before it has searched: as long as a query may run.
const WHOLE_ANSWER_WITHIN: Duration = Duration::from_secs(3600);

/// Where output goes.
pub(crate) struct Streams<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    /// Who looks at `out`.
    output: Output,
    /// Something else is printed behind it.
    is_part: bool,
    /// How the node's silence is borne.
    patience: Patience,
    /// When `out` has kept the node waiting for too long.
    stall: Duration,
}

/// Asks, prints, and says by its exit code how it went.
pub(crate) fn run(config: &QueryConfig) -> Exit {
    let (out, err) = (&mut output::stdout(), &mut output::stderr());
    let output = Output::of_this_process();
    let (patience, stall) = (Patience::USUAL, STALL);
    run_with(config, &mut Streams { out, err, output, is_part: false, patience, stall })
}

fn run_with(config: &QueryConfig, streams: &mut Streams<'_>) -> Exit {
    let asked = match http::block_on(answer(config, streams)) {
        Ok(asked) => asked,
        Err(error) => return tell(streams.err, Exit::Error, &format!("cannot start: {error}")),
    };
    match asked {
        Ok(exit) => exit,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => tell(streams.err, Exit::Error, &format!("standard output: {error}")),
    }
}

/// Prints records that are the beginning of something else. The errors are those of writing the output.
pub(crate) async fn print_part(
    config: &QueryConfig,
    out: &mut dyn Write,
    output: Output,
) -> io::Result<Exit> {
    let err = &mut output::stderr();
    let (patience, stall) = (Patience::USUAL, STALL);
    answer(config, &mut Streams { out, err, output, is_part: true, patience, stall }).await
}

async fn answer(config: &QueryConfig, streams: &mut Streams<'_>) -> io::Result<Exit> {
    let range = match Range::of(config, Timestamp::now()) {
        Ok(range) => range,
        Err(words) => return Ok(tell(streams.err, Exit::Usage, &words)),
    };
    if config.denies_partial {
        streams.patience.head = streams.patience.head.max(WHOLE_ANSWER_WITHIN);
    }
    match config.print {
        Print::Stats | Print::StatsJson | Print::Count => {
            let late = || Ok(tell(&mut output::stderr(), Exit::Error, &records::too_late(config)));
            in_all(config, print_stats(config, range, streams)).await.unwrap_or_else(late)
        }
        Print::Records | Print::Nothing => records::print(config, range, streams).await,
    }
}

/// Awaits it within the time that there is for all; `None`: that was too short.
async fn in_all<T>(config: &QueryConfig, work: impl Future<Output = T>) -> Option<T> {
    match config.timeout {
        None => Some(work.await),
        Some(time) => tokio::time::timeout(time, work).await.ok(),
    }
}

/// An answer to a request for records or statistics.
enum Answer {
    /// It begins.
    Found(Response<Incoming>),
    /// There is none; it was told why.
    Refused(Exit),
}

/// Signs of life behind which somebody who sees nothing is told why.
const SIGNS_UNTOLD: u64 = 2;

/// Tells once that the node takes its time.
struct Waiting<'a> {
    store: &'a Endpoint,
    is_told: bool,
}

impl<'a> Waiting<'a> {
    const fn new(store: &'a Endpoint) -> Self {
        Self { store, is_told: false }
    }

    fn tell(&mut self, err: &mut dyn Write) {
        if !std::mem::replace(&mut self.is_told, true) {
            // Where it cannot be told, the answer still comes.
            let _ = writeln!(
                err,
                "still waiting for {}, which is there and may have much to search",
                self.store
            );
        }
    }
}

/// Sends a request for an answer of this form.
async fn ask(
    config: &QueryConfig,
    (range, content_type): (&Range, &'static str),
    patience: Patience,
    (waiting, err): (&mut Waiting<'_>, &mut dyn Write),
) -> Answer {
    let target = request::target(config, range);
    let request = (Method::GET, target.as_str(), content_type);
    let mut on_silence = || waiting.tell(err);
    let answered = http::send(&config.store, request, patience, &mut on_silence).await;
    let checked = match answered {
        Ok(response) if response.status() != StatusCode::OK => {
            return Answer::Refused(refused(config, patience, err, response).await);
        }
        Ok(response) => http::require(&config.store, &response, content_type).map(|()| response),
        Err(error) => Err(error),
    };
    match checked {
        Ok(response) => Answer::Found(response),
        Err(error) => Answer::Refused(tell(err, error.exit(), &error.to_string())),
    }
}

/// The exit code of an answer that says how it ended.
fn conclude(
    config: &QueryConfig,
    err: &mut dyn Write,
    (records, is_complete): (u64, bool),
    start: Instant,
) -> Exit {
    if config.verbose {
        let _ = writeln!(err, "{records} record(s) in {:?}", start.elapsed());
    }
    match (is_complete, records) {
        (false, _) => tell(
            err,
            Exit::Incomplete,
            "incomplete: part of the range could not be searched; --stats or --json lists it",
        ),
        (true, 0) if config.fail_empty => Exit::Empty,
        (true, _) => Exit::Done,
    }
}

async fn print_stats(
    config: &QueryConfig,
    range: Range,
    streams: &mut Streams<'_>,
) -> io::Result<Exit> {
    let start = Instant::now();
    let request = (&range, "application/json");
    let mut waiting = Waiting::new(&config.store);
    let asked = ask(config, request, streams.patience, (&mut waiting, streams.err)).await;
    let response = match asked {
        Answer::Found(response) => response,
        Answer::Refused(exit) => return Ok(exit),
    };
    if config.verbose {
        let words = answers::verbose(response.headers());
        let _ = write!(streams.err, "Response in {:?}\n{words}", start.elapsed());
    }
    let mut body = response.into_body();
    let patience = streams.patience;
    let mut signs = 0;
    let mut on_sign = || {
        signs += 1;
        if signs >= SIGNS_UNTOLD {
            waiting.tell(streams.err);
        }
    };
    let text = http::read_short(patience, &mut body, SHORT_ANSWER_BYTES_MAX, &mut on_sign).await;
    // An object that is read to its end is whole.
    let read = text.map_err(|why| why.to_string()).and_then(|text| {
        let stats = serde_json::from_slice::<Value>(&text).map_err(|why| why.to_string())?;
        Ok((text, stats))
    });
    let (text, stats) = match read {
        Ok(read) => read,
        Err(why) => {
            let words = format!("the answer of {} breaks off: {why}", config.store);
            return Ok(tell(streams.err, Exit::Error, &words));
        }
    };
    // A limit says how many are wanted, and a count how many there would be.
    let records = stats["records"].as_u64().unwrap_or(0);
    let records = config.limit.map_or(records, |limit| limit.min(records));
    match config.print {
        Print::StatsJson => streams.out.write_all(&text)?,
        Print::Count => streams.out.write_all(format!("{records}\n").as_bytes())?,
        _ => streams.out.write_all(answers::table(&stats).as_bytes())?,
    }
    Ok(conclude(config, streams.err, (records, stats["complete"] == true), start))
}

/// Tells why the node refused.
async fn refused(
    config: &QueryConfig,
    patience: Patience,
    err: &mut dyn Write,
    response: Response<Incoming>,
) -> Exit {
    let exit = http::exit_of(response.status());
    tell(err, exit, &http::refusal(&config.store, patience, response).await)
}

/// One line on standard error.
fn tell(err: &mut dyn Write, exit: Exit, words: &str) -> Exit {
    let kind = if exit == Exit::Incomplete { "warning" } else { "error" };
    // Where it cannot be told, the exit code still says it.
    let _ = err.write_all(format!("{kind}: {words}\n").as_bytes());
    exit
}
