//! What `oklogd stream` prints before it follows: records that are kept already.
//!
//! Invariants: nothing stands between history and what comes, and nothing is in both. Everything up to the
//! boundary that a node names when it begins to follow is in a query that is asked behind that, and
//! everything behind it in a stream that goes on behind it, however long the query takes.

use std::io::{self, Write};

use engine::search::window::Window;
use engine::ulid::Ulid;
use hyper::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;

use super::StreamConfig;
use crate::client::http::{self, Patience, Target};
use crate::client::look::Output;
use crate::client::query::{self, Print, QueryConfig};
use crate::exit::Exit;
use crate::output;
use crate::times::{Edge, Time, Zone};

/// What a stream goes on behind, or why there is none, which was told.
pub(super) type Begun = Result<Option<String>, Exit>;

/// Prints the newest records, where some are wanted; says what is to be followed behind them.
pub(super) async fn print(
    config: &StreamConfig,
    out: &mut dyn Write,
    output: Output,
) -> io::Result<Begun> {
    let from = match first(config).await {
        Ok(from) => from,
        Err(exit) => return Ok(Err(exit)),
    };
    let Some(newest) = config.newest else {
        // Replayed by the node.
        return Ok(Ok(from.map(|from| before(from).to_string())));
    };
    let boundary = match boundary(config).await {
        Ok(boundary) => boundary,
        Err(exit) => return Ok(Err(exit)),
    };
    let from = from.unwrap_or(Ulid::MIN);
    if newest > 0 && from <= boundary {
        let question = question(config, (from, boundary), newest);
        match query::print_part(&question, out, output).await? {
            // What is missing was told, and does not come any more.
            Exit::Done | Exit::Incomplete => {}
            exit => return Ok(Err(exit)),
        }
    }
    Ok(Ok(Some(boundary.to_string())))
}

/// Everything of a range that is followed, the newest of it.
fn question(config: &StreamConfig, (from, to): (Ulid, Ulid), newest: u64) -> QueryConfig {
    QueryConfig {
        store: config.store.clone(),
        from: Some(Time::Plain(from.to_string())),
        to: Some(Time::Plain(to.to_string())),
        expressions: config.expressions.clone(),
        topics: config.topics.clone(),
        limit: Some(newest),
        is_descending: true,
        is_turned: true,
        after: None,
        denies_partial: false,
        timeout: None,
        print: Print::Records,
        look: config.look.clone(),
        fail_empty: false,
        verbose: false,
    }
}

/// The first ULID of the history, as the node understands `--from`: durations count from its clock.
async fn first(config: &StreamConfig) -> Result<Option<Ulid>, Exit> {
    let Some(from) = &config.from else { return Ok(None) };
    let zone = || config.look.zone.as_ref().unwrap_or(&Zone::Local).find();
    let from = from.for_node(Edge::From, zone, Timestamp::now());
    let from = from.map_err(|words| output::fail(Exit::Usage, words))?;
    let mut target = Target::new("/query");
    target.add("from", &from);
    let headers = head(config, Method::HEAD, &target.into_string()).await?;
    read(config, &headers, "x-oklog-from").map(Some)
}

/// The last ULID before what is followed from now on.
async fn boundary(config: &StreamConfig) -> Result<Ulid, Exit> {
    let headers = head(config, Method::GET, &config.target(None)).await?;
    read(config, &headers, "x-oklog-after")
}

/// The head of an answer; its body is not waited for.
async fn head(config: &StreamConfig, method: Method, target: &str) -> Result<HeaderMap, Exit> {
    let request = (method, target, "text/plain");
    let answer = http::send(&config.store, request, Patience::USUAL, &mut || ()).await;
    let answer = answer.map_err(|error| output::fail(error.exit(), error))?;
    if answer.status() != StatusCode::OK {
        let exit = http::exit_of(answer.status());
        let words = http::refusal(&config.store, Patience::USUAL, answer).await;
        return Err(output::fail(exit, words));
    }
    Ok(answer.headers().clone())
}

/// A point in time of a head, as `from` takes it.
fn read(config: &StreamConfig, headers: &HeaderMap, name: &str) -> Result<Ulid, Exit> {
    let text = headers.get(name).and_then(|value| value.to_str().ok());
    let window = text.and_then(|text| Window::parse(Some(text), None, 0).ok());
    window.map(|window| window.from).ok_or_else(|| {
        let words =
            format!("{} answers without {name}, as no node of this version does", config.store);
        output::fail(Exit::Error, words)
    })
}

/// The ULID before this one; none is before the first.
fn before(id: Ulid) -> Ulid {
    Ulid::from_bytes(u128::from_be_bytes(id.to_bytes()).saturating_sub(1).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ulid_before_another_one_is_the_largest_smaller_one() {
        assert_eq!(before(Ulid::first_of_ms(7)), Ulid::last_of_ms(6));
        assert_eq!(before(Ulid::from_parts(5, 1, 9)), Ulid::from_parts(5, 1, 8));
        assert_eq!(before(Ulid::MIN), Ulid::MIN);
    }
}
