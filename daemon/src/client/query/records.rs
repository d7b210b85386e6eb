//! Records, printed each once, over as many answers as the reader of the output makes of it.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Method, Response};

use super::config::{Print, QueryConfig};
use super::course::{Cut, Gaps, Range, Verdict, judge};
use super::{
    Answer, SIGNS_UNTOLD, Streams, Waiting, answers, ask, conclude, in_all, nothing, request, tell,
};
use crate::client::http::{self, ClientError, Patience};
use crate::client::lines::{End, Form, HELD_BYTES_MAX, Lines, Manner};
use crate::client::printer::Printer;
use crate::exit::Exit;

/// What is told where an answer cannot be gone on with.
const NO_REST: &str = "incomplete: the rest of the answer could not be asked for";

/// How the answers ended.
enum Ended {
    /// There was none; it was told why.
    Refused(Exit),
    /// Before their end, for this reason.
    Broken(String),
    /// All that could be searched has come; what is missing was told.
    Whole(Gaps),
}

/// Prints what is found. The errors are those of writing the output.
pub(super) async fn print(
    config: &QueryConfig,
    range: Range,
    streams: &mut Streams<'_>,
) -> io::Result<Exit> {
    let start = Instant::now();
    let style = match config.look.style(&config.expressions, streams.output) {
        Ok(style) => style,
        Err(words) => return Ok(tell(streams.err, Exit::Usage, &words)),
    };
    let form = if config.look.needs_objects() { Form::Json } else { Form::Text };
    let manner = Manner {
        as_text: form == Form::Json && !config.look.json,
        is_turned: config.is_turned,
        is_part: streams.is_part,
    };
    let mut sink = io::sink();
    let out = if config.print == Print::Nothing { &mut sink } else { &mut *streams.out };
    let mut lines = Lines::new(Printer::new(out, style), form, manner);
    let mut course = Course { config, range, times: (streams.patience, streams.stall), start };
    let taken = in_all(config, course.take_all(&mut lines, streams.err)).await;
    // What has come is printed, whatever became of the rest.
    lines.print_held()?;
    let ended = match taken {
        None if lines.printed == 0 => return Ok(tell(streams.err, Exit::Error, &too_late(config))),
        None => Ended::Broken(format!("incomplete: {}", too_late(config))),
        Some(Err(error)) => match words_of(&error, config) {
            Some(words) => Ended::Broken(words),
            None => return Err(error),
        },
        Some(Ok(ended)) => ended,
    };
    let gaps = match ended {
        Ended::Refused(exit) => return Ok(exit),
        Ended::Broken(words) => return Ok(tell(streams.err, Exit::Incomplete, &words)),
        Ended::Whole(gaps) => gaps,
    };
    let is_complete = gaps.count == 0 && lines.end.as_ref().is_some_and(End::is_complete);
    let of_all = lines.end.as_ref().filter(|_| course.range.is_rest);
    let of_all = of_all.map(|end| gaps.end_of_all(end, lines.printed));
    lines.print_end(of_all)?;
    let is_empty = lines.printed == 0 && is_complete && config.limit != Some(0);
    if is_empty && !streams.is_part && streams.output.is_terminal && config.print == Print::Records
    {
        // Where it cannot be told, nothing is lost.
        let _ = writeln!(streams.err, "{}", nothing::words(config, &course.range));
    }
    Ok(conclude(config, streams.err, (lines.printed, is_complete), start))
}

/// What `--timeout` says.
pub(super) fn too_late(config: &QueryConfig) -> String {
    let time = config.timeout.map(crate::units::format_duration).unwrap_or_default();
    format!("{} has not answered all of it within --timeout {time}", config.store)
}

/// What is told of an error that is not the output's.
fn words_of(error: &io::Error, config: &QueryConfig) -> Option<String> {
    match error.kind() {
        io::ErrorKind::InvalidData => {
            Some(format!("incomplete: {} sent {error}: is this a node?", config.store))
        }
        io::ErrorKind::OutOfMemory => Some(format!(
            "incomplete: these are the newest; so many records as -n asks for hold more than {} MiB: ask \
             for fewer, or use --order desc --limit, which holds none",
            HELD_BYTES_MAX >> 20
        )),
        _ => None,
    }
}

/// One question until all of its answer has come.
struct Course<'a> {
    config: &'a QueryConfig,
    range: Range,
    /// How silence is borne, and when the output has kept the node waiting for too long.
    times: (Patience, Duration),
    start: Instant,
}

impl Course<'_> {
    async fn take_all(&mut self, lines: &mut Lines<'_>, err: &mut dyn Write) -> io::Result<Ended> {
        let (config, patience) = (self.config, self.times.0);
        let (mut gaps, kind) = (Gaps::default(), lines.content_type());
        let mut waiting = Waiting::new(&config.store);
        loop {
            let request = (&self.range, kind);
            let response = match ask(config, request, patience, (&mut waiting, err)).await {
                Answer::Found(response) => response,
                Answer::Refused(exit) if !self.range.is_rest => return Ok(Ended::Refused(exit)),
                Answer::Refused(_) => return Ok(Ended::Broken(NO_REST.to_owned())),
            };
            if config.verbose && !self.range.is_rest {
                let words = answers::verbose(response.headers());
                // Where it cannot be told, the records still are.
                let _ = write!(err, "Response in {:?}\n{words}", self.start.elapsed());
            }
            self.range.pin(response.headers());
            let mut on_wait = || waiting.tell(err);
            let cut = take(self.times, response, lines, &mut on_wait).await?;
            if let Some(end) = &lines.end {
                gaps.add(end);
            }
            match (judge(lines, &cut), lines.last.clone()) {
                (Verdict::GoOn, Some(last)) => {
                    if lines.end.is_none() {
                        match untold_gaps(config, &self.range, &last, patience).await {
                            Ok(count) => gaps.count += count,
                            // Who cannot be asked this cannot be asked for the rest.
                            Err(error) => return Ok(Ended::Broken(format!("{NO_REST}: {error}"))),
                        }
                    }
                    self.range.go_on(&last, lines.records);
                }
                (Verdict::Broken(why), _) => {
                    let store = &config.store;
                    let words = format!("incomplete: the answer of {store} breaks off: {why}");
                    return Ok(Ended::Broken(words));
                }
                _ => return Ok(Ended::Whole(gaps)),
            }
        }
    }
}

/// Prints an answer; says what came in the way of its end. `on_wait` is called while nothing was found
/// for some time.
async fn take(
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
    let done = range.done(last, config.is_descending);
    // Damage is known for whole spans, whatever they hold; a refusal would not count it.
    let all = QueryConfig { topics: Vec::new(), denies_partial: false, ..config.clone() };
    let target = request::target(&all, &done);
    let request = (Method::HEAD, target.as_str(), Form::Text.content_type());
    let answer = http::send(&config.store, request, patience, &mut || ()).await?;
    let count = answer.headers().get("x-oklog-error-count");
    Ok(count.and_then(|count| count.to_str().ok()?.parse().ok()).unwrap_or(1))
}
