//! `oklogd stream`: prints records as a node takes them, and before them some that it has (`history`).
//!
//! Invariants: behind a broken connection it goes on behind the last record that it has seen, so
//! that nothing is printed twice and nothing is left out that the node still has; it says when it
//! loses the node and when it has it back, and not for every try; a closed pipe ends it silently.

mod history;

use std::io::{self, Write};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Response, StatusCode};
use rustix::event::{PollFd, PollFlags};
use tokio::sync::oneshot;

use crate::client::expressions::Expressions;
use crate::client::http::{self, Patience, Target};
use crate::client::lines::{Form, LINE_BYTES_MAX, print_object};
use crate::client::look::{Look, Output};
use crate::client::printer::{Printer, escape};
use crate::client::store::Store;
use crate::exit::Exit;
use crate::output;
use crate::settings::{Settings, SettingsError};
use crate::times::Time;
use crate::units::{Endpoint, format_duration};

/// First and longest wait between tries to reach a node that was lost.
const WAIT_FIRST: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What to follow and how to print it.
#[derive(Debug, Clone)]
pub(crate) struct StreamConfig {
    store: Store,
    expressions: Expressions,
    topics: Vec<String>,
    /// Since when what is kept is printed first.
    from: Option<Time>,
    /// How many of the newest of it.
    newest: Option<u64>,
    window: Duration,
    look: Look,
}

impl StreamConfig {
    /// Makes it of settings that were resolved with [`crate::flag_table::STREAM`].
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Self {
            store: Store::from_settings(settings)?,
            expressions: Expressions::from_settings(settings),
            topics: settings.texts("topic"),
            from: settings.time("from")?,
            newest: settings.optional_number("lines"),
            window: settings.duration("window"),
            look: Look::from_settings(settings)?,
        })
    }

    /// Path and query string, percent-encoded.
    fn target(&self, after: Option<&str>) -> String {
        let mut target = Target::new("/stream");
        target.add("window", &format_duration(self.window));
        self.expressions.add_to(&mut target);
        self.topics.iter().for_each(|topic| target.add("topic", topic));
        if let Some(after) = after {
            target.add("after", after);
        }
        target.into_string()
    }
}

/// Follows until the output is closed or the node refuses.
pub(crate) fn run(config: &StreamConfig) -> Exit {
    let output = Output::of_this_process();
    let mut out = output::stdout();
    let closed = output_closed();
    let followed = http::block_on(async {
        tokio::select! {
            ended = follow(config, &mut out, output) => ended,
            // What waits for it may never come.
            () = closed => Err(io::ErrorKind::BrokenPipe.into()),
        }
    });
    let followed = match followed {
        Ok(followed) => followed,
        Err(error) => return output::fail(Exit::Error, format_args!("cannot start: {error}")),
    };
    match followed {
        Ok(exit) => exit,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => output::fail(
            Exit::Error,
            format_args!("{} sent {error}: is this a node?", config.store),
        ),
        Err(error) => output::fail(Exit::Error, format_args!("standard output: {error}")),
    }
}

/// Resolves once nobody will read standard output any more, also while nothing is written to it.
async fn output_closed() {
    let (tell, closed) = oneshot::channel();
    let watching = std::thread::Builder::new().name("output".into()).spawn(move || {
        let stdout = io::stdout();
        loop {
            let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
            match rustix::event::poll(&mut watched, None) {
                Ok(_) if watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // Then the next write tells.
                Err(_) => return,
            }
        }
        // Who waits for it may have ended.
        let _ = tell.send(());
    });
    if watching.is_err() || closed.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The errors are those of writing the output.
async fn follow(config: &StreamConfig, out: &mut dyn Write, output: Output) -> io::Result<Exit> {
    let style = match config.look.style(&config.expressions, output) {
        Ok(style) => style,
        Err(words) => return Ok(output::fail(Exit::Usage, words)),
    };
    let after = match history::print(config, out, output).await? {
        Ok(after) => after,
        Err(exit) => return Ok(exit),
    };
    let mut lines = Lines {
        printer: Printer::new(out, style),
        form: if config.look.needs_objects() { Form::Json } else { Form::Text },
        as_text: !config.look.json,
        line: Vec::new(),
        after,
    };
    let accept = if lines.form == Form::Json { "application/x-ndjson" } else { "text/plain" };
    let (mut has_followed, mut is_lost, mut wait) = (false, false, WAIT_FIRST);
    loop {
        let target = config.target(lines.after.as_deref());
        let request = (Method::GET, target.as_str(), accept);
        let asked = http::send(&config.store, request, Patience::USUAL, &mut || ()).await;
        let asked = asked.and_then(|response| match response.status() {
            StatusCode::OK => http::require(&config.store, &response, accept).map(|()| response),
            _ => Ok(response),
        });
        let reason = match asked {
            Ok(response) if response.status() == StatusCode::OK => {
                if std::mem::take(&mut is_lost) {
                    output::tell(format_args!("following {} again", config.store));
                }
                (has_followed, wait) = (true, WAIT_FIRST);
                lines.take_all(&config.store, response).await?
            }
            Ok(response) => {
                let status = response.status();
                let words = http::refusal(&config.store, Patience::USUAL, response).await;
                if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
                    return Ok(output::fail(http::exit_of(status), &words));
                }
                words
            }
            Err(error) if error.exit() == Exit::Usage => {
                return Ok(output::fail(Exit::Usage, error));
            }
            Err(error) => error.to_string(),
        };
        if !has_followed {
            return Ok(output::fail(Exit::Error, &reason));
        }
        if !std::mem::replace(&mut is_lost, true) {
            output::tell(format_args!("lost the node: {reason}; trying again until it is back"));
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// Takes a stream apart by lines.
struct Lines<'a> {
    printer: Printer<'a>,
    form: Form,
    /// Objects are printed as text.
    as_text: bool,
    /// A line that has not ended; at most one record.
    line: Vec<u8>,
    /// What to go on behind.
    after: Option<String>,
}

impl Lines<'_> {
    /// Prints what comes; says what ended, and why.
    async fn take_all(
        &mut self,
        store: &Endpoint,
        response: Response<Incoming>,
    ) -> io::Result<String> {
        // Where no record was seen yet it goes on behind what was there before the first one.
        let boundary = response.headers().get("x-oklog-after").and_then(|id| id.to_str().ok());
        self.after = self.after.take().or_else(|| boundary.map(str::to_owned));
        self.line.clear();
        let mut body = response.into_body();
        loop {
            match http::next(Patience::USUAL, &mut body).await {
                Ok(Some(piece)) => self.take(&piece)?,
                Ok(None) => return Ok(format!("the stream of {store} ended")),
                Err(why) => return Ok(format!("the stream of {store} ended: {why}")),
            }
        }
    }

    fn take(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut rest = piece;
        while let Some(lf) = memchr::memchr(b'\n', rest) {
            let (line, behind) = rest.split_at(lf + 1);
            rest = behind;
            if self.line.is_empty() {
                self.end(line)?;
            } else {
                self.line.extend_from_slice(line);
                let line = std::mem::take(&mut self.line);
                self.end(&line)?;
            }
        }
        self.line.extend_from_slice(rest);
        if self.line.len() > LINE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line longer than any record",
            ));
        }
        // Nothing waits for more to come.
        self.printer.flush()
    }

    fn end(&mut self, line: &[u8]) -> io::Result<()> {
        if line == self.form.sign_of_life() {
            return Ok(());
        }
        let id = line.strip_prefix(self.form.before_ulid());
        let id = id.filter(|_| !line.starts_with(b"#")).and_then(|line| line.get(..26));
        let Some(id) = id.and_then(|id| std::str::from_utf8(id).ok()) else {
            let mut shown = Vec::new();
            escape(&mut shown, line.trim_ascii_end());
            output::tell(String::from_utf8_lossy(&shown));
            return Ok(());
        };
        self.after = Some(id.to_owned());
        match (self.form, self.as_text) {
            (Form::Text, _) => self.printer.take(line),
            (Form::Json, true) => print_object(&mut self.printer, line),
            (Form::Json, false) => self.printer.json(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};
    use crate::client::printer::Style;

    fn config(line: &[&str]) -> StreamConfig {
        let arguments: Vec<_> = ["stream"].iter().chain(line).map(|&s| s.to_owned()).collect();
        match parse(&arguments, &[]) {
            Ok((Command::Stream(config), _)) => config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_asked_for_is_what_was_said() {
        let all =
            config(&["-q", "a b", "-regex", "-i", "--topic", "x", "--topic=y", "-x", "c", "d"]);
        assert_eq!(
            all.target(Some("01")),
            "/stream?window=3s&q=a%20b&q=d&x=c&regex=true&i=true&topic=x&topic=y&after=01"
        );
        assert_eq!(config(&["-window", "1m"]).target(None), "/stream?window=1m");
    }

    #[test]
    fn records_are_printed_and_the_last_one_is_gone_on_behind() {
        let mut out = Vec::new();
        let mut lines = Lines {
            printer: Printer::new(&mut out, Style::default()),
            form: Form::Text,
            as_text: true,
            line: Vec::new(),
            after: None,
        };
        lines.take(b"01HF7YAT00000000000000000A one\n# missed {\"records\":3}\n01HF7").unwrap();
        assert_eq!(lines.after.as_deref(), Some("01HF7YAT00000000000000000A"));
        lines.take(b"YAT00000000000000000B two\n01HF7YAT00000000000000000C thr").unwrap();
        assert_eq!(lines.after.as_deref(), Some("01HF7YAT00000000000000000B"));
        assert_eq!(out, b"one\ntwo\n", "a record is printed once it is whole");
    }
}
