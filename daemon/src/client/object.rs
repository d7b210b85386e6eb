//! One JSON object as an answer, read as a whole.
//!
//! Invariants: bounded; an object that is read to its end is whole, and nothing else is an answer; what a
//! node refuses is told in its own words.

use hyper::{Method, StatusCode};
use serde_json::Value;

use super::http::{Patience, exit_of, read_short, refusal, require, send};
use super::store::Store;
use crate::exit::Exit;
use crate::output;

/// Signs of life behind which somebody who sees nothing is told why.
const SIGNS_UNTOLD: u64 = 2;

/// An answer.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    /// As it came.
    pub(super) text: Vec<u8>,
    pub(super) object: Value,
}

/// Why there is none: one line for the operator.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) exit: Exit,
    pub(super) words: String,
}

impl Failed {
    fn error(words: String) -> Self {
        Self { exit: Exit::Error, words }
    }

    /// Tells it.
    pub(super) fn tell(&self) -> Exit {
        output::fail(self.exit, &self.words)
    }
}

/// Asks for an object of at most so many bytes; one that takes its time is told once.
pub(super) async fn ask(
    store: &Store,
    (method, target): (Method, &str),
    statuses: &[StatusCode],
    bytes_max: usize,
) -> Result<Answered, Failed> {
    let mut is_told = false;
    let mut tell = || {
        if !std::mem::replace(&mut is_told, true) {
            output::tell(format_args!(
                "still waiting for {store}, which is there and may have much to search"
            ));
        }
    };
    let request = (method, target, "application/json");
    let answer = send(store, request, Patience::USUAL, &mut tell).await;
    let mut answer =
        answer.map_err(|error| Failed { exit: error.exit(), words: error.to_string() })?;
    let status = answer.status();
    if !statuses.contains(&status) {
        let words = refusal(store, Patience::USUAL, answer).await;
        return Err(Failed { exit: exit_of(status), words });
    }
    require(store, &answer, "application/json")
        .map_err(|error| Failed::error(error.to_string()))?;
    let mut signs = 0;
    let mut on_sign = || {
        signs += 1;
        if signs >= SIGNS_UNTOLD {
            tell();
        }
    };
    let text = read_short(Patience::USUAL, answer.body_mut(), bytes_max, &mut on_sign).await;
    let breaks_off =
        |why: String| Failed::error(format!("the answer of {store} breaks off: {why}"));
    let text = text.map_err(|why| breaks_off(why.to_string()))?;
    let object: Value = serde_json::from_slice(&text).map_err(|why| breaks_off(why.to_string()))?;
    if !object.is_object() {
        let words = format!("{store} answers with no object: is this the HTTP port of a node?");
        return Err(Failed::error(words));
    }
    Ok(Answered { status, text, object })
}

/// What is told where `complete` is false.
pub(super) fn tell_missing(object: &Value) -> Exit {
    if object["complete"] == true {
        return Exit::Done;
    }
    output::tell("warning: incomplete: part of it could not be searched; --json lists it");
    Exit::Incomplete
}
