//! `oklogd query`: asks a node and prints what it answers.
//!
//! Invariants: records are printed as they come, whole, and never held back; an answer is whole only
//! if it says so in its last line, and what could not be searched or did not come is told on standard
//! error and by the exit code, behind everything that was found; an answer that ends because the
//! reader of the output is slow is gone on with; a closed pipe ends it silently. Times and expressions
//! are judged by the node.

mod answers;
mod course;
mod request;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Method, Response, StatusCode};
use serde_json::Value;

use self::course::{Cut, Gaps, Range, Verdict, judge};
use crate::client::http::{self, ClientError, Patience};
use crate::client::lines::{End, Form, Lines};
use crate::client::printer::{Printer, Style, Terminal};
use crate::exit::Exit;
use crate::output;
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
    /// What every record has to match, and what it may not.
    pub(crate) q: Vec<String>,
    pub(crate) x: Vec<String>,
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
            q: settings.texts("q"),
            x: settings.texts("x"),
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

/// Longest answer that is read as a whole: statistics.
const SHORT_ANSWER_BYTES_MAX: usize = 4 << 20;

/// An output that took nothing for this long may have made the node end its answer: it does so after
/// a minute.
const STALL: Duration = Duration::from_secs(10);

/// Where output goes.
struct Streams<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    /// Whether a person looks at `out`.
    out_is_terminal: bool,
    /// How the node's silence is borne.
    patience: Patience,
    /// When `out` has kept the node waiting for too long.
    stall: Duration,
}

/// Asks, prints, and says by its exit code how it went.
pub(crate) fn run(config: &QueryConfig) -> Exit {
    let out_is_terminal = io::stdout().is_terminal();
    let (out, err) = (&mut output::stdout(), &mut output::stderr());
    let (patience, stall) = (Patience::USUAL, STALL);
    run_with(config, &mut Streams { out, err, out_is_terminal, patience, stall })
}

fn run_with(config: &QueryConfig, streams: &mut Streams<'_>) -> Exit {
    let asked = http::block_on(async {
        match config.print {
            Print::Stats | Print::StatsJson => print_stats(config, streams).await,
            _ => print_records(config, streams).await,
        }
    });
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return tell(streams.err, Exit::Error, &format!("cannot start: {error}")),
    };
    match asked {
        Ok(exit) => exit,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => tell(streams.err, Exit::Error, &format!("standard output: {error}")),
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

impl Waiting<'_> {
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

/// What is told where an answer cannot be gone on with.
const NO_REST: &str = "incomplete: the rest of the answer could not be asked for";

/// Prints every record once, over as many answers as the reader of the output makes of it. The errors
/// are those of writing the output.
async fn print_records(config: &QueryConfig, streams: &mut Streams<'_>) -> io::Result<Exit> {
    let start = Instant::now();
    let Streams { out, err, out_is_terminal, patience, stall } = streams;
    let form = if config.print == Print::Json { Form::Json } else { Form::Text };
    let mut sink = io::sink();
    let out = if config.print == Print::Nothing { &mut sink } else { &mut **out };
    let mut lines = Lines::new(Printer::new(out, style(config, *out_is_terminal)), form);
    let (mut range, mut gaps) = (Range::of(config), Gaps::default());
    let mut waiting = Waiting { store: &config.store, is_told: false };
    loop {
        let request = (&range, form.content_type());
        let response = match ask(config, request, *patience, (&mut waiting, *err)).await {
            Answer::Found(response) => response,
            Answer::Refused(exit) if range.after.is_none() => return Ok(exit),
            Answer::Refused(_) => return Ok(tell(*err, Exit::Incomplete, NO_REST)),
        };
        if config.verbose && range.after.is_none() {
            let words = answers::verbose(response.headers());
            // Where it cannot be told, the records still are.
            let _ = write!(err, "Response in {:?}\n{words}", start.elapsed());
        }
        range.pin(response.headers());
        let mut on_wait = || waiting.tell(*err);
        let times = (*patience, *stall);
        let cut = take_all(times, response, &mut lines, &mut on_wait).await?;
        if let Some(end) = &lines.end {
            gaps.add(end);
        }
        match (judge(&lines, &cut), lines.last.clone()) {
            (Verdict::GoOn, Some(last)) => {
                if lines.end.is_none() {
                    match untold_gaps(config, &range, &last, *patience).await {
                        Ok(count) => gaps.count += count,
                        // Who cannot be asked this cannot be asked for the rest.
                        Err(error) => {
                            let words = format!("{NO_REST}: {error}");
                            return Ok(tell(*err, Exit::Incomplete, &words));
                        }
                    }
                }
                range.go_on(&last, lines.records);
            }
            (Verdict::Broken(why), _) => {
                let words = format!("incomplete: the answer of {} breaks off: {why}", config.store);
                return Ok(tell(*err, Exit::Incomplete, &words));
            }
            _ => break,
        }
    }
    let is_complete = gaps.count == 0 && lines.end.as_ref().is_some_and(End::is_complete);
    let of_all = lines.end.as_ref().filter(|_| range.after.is_some());
    let of_all = of_all.map(|end| gaps.end_of_all(end, lines.printed));
    lines.print_end(of_all)?;
    Ok(conclude(config, *err, (lines.printed, is_complete), start))
}

/// What stands before records and how they look.
fn style(config: &QueryConfig, is_terminal: bool) -> Style {
    let Print::Records { ulid, time } = config.print else {
        return Style { ulid: true, time: false, terminal: None };
    };
    let terminal = || Terminal::new(&config.q, config.regex, config.ignore_case);
    Style { ulid, time, terminal: is_terminal.then(terminal) }
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

/// Prints an answer; says what came in the way of its end. `on_wait` is called while nothing was found
/// for some time.
async fn take_all(
    (patience, stall): (Patience, Duration),
    response: Response<Incoming>,
    lines: &mut Lines<'_>,
    on_wait: &mut dyn FnMut(),
) -> io::Result<Cut> {
    lines.begin();
    let mut body = response.into_body();
    let mut cut = Cut::default();
    loop {
        match http::next(patience, &mut body).await {
            Ok(Some(piece)) => {
                let start = Instant::now();
                lines.take(&piece)?;
                cut.is_stalled |= start.elapsed() >= stall;
                if lines.printed == 0 && lines.signs >= SIGNS_UNTOLD {
                    on_wait();
                }
            }
            Ok(None) => return Ok(cut),
            Err(why) => {
                cut.why = Some(why);
                return Ok(cut);
            }
        }
    }
}

/// What an answer that was cut off could not tell any more: whether something is missing between the
/// records that it had. Where that cannot be learned, something may be.
async fn untold_gaps(
    config: &QueryConfig,
    range: &Range,
    last: &str,
    patience: Patience,
) -> Result<u64, ClientError> {
    let done = range.done(last, config.order == "desc");
    // Damage is known for whole spans, whatever they hold.
    let all = QueryConfig { topics: Vec::new(), ..config.clone() };
    let target = request::target(&all, &done);
    let request = (Method::HEAD, target.as_str(), Form::Text.content_type());
    let answer = http::send(&config.store, request, patience, &mut || ()).await?;
    let count = answer.headers().get("x-oklog-error-count");
    Ok(count.and_then(|count| count.to_str().ok()?.parse().ok()).unwrap_or(1))
}

async fn print_stats(config: &QueryConfig, streams: &mut Streams<'_>) -> io::Result<Exit> {
    let start = Instant::now();
    let request = (&Range::of(config), "application/json");
    let mut waiting = Waiting { store: &config.store, is_told: false };
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
    if config.print == Print::StatsJson {
        streams.out.write_all(&text)?;
    } else {
        streams.out.write_all(answers::table(&stats).as_bytes())?;
    }
    let records = stats["records"].as_u64().unwrap_or(0);
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
