//! What is asked of a node so that every record is printed once, over as many answers as it takes.
//!
//! Invariants: an answer is whole only if it says so itself, and counts what came; it is gone on with
//! only where the reader of the output was the reason for its end and records came meanwhile, so that
//! this ends. Decides only; asking and printing are elsewhere.

use hyper::HeaderMap;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::QueryConfig;
use crate::client::http::Broken;
use crate::client::lines::{End, Lines};
use crate::times::{Edge, Zone};

/// The range of the next request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) after: Option<String>,
    pub(super) limit: Option<u64>,
    /// Something of the answer has come before.
    pub(super) is_rest: bool,
}

impl Range {
    /// What was asked for, by this clock. The error is one of usage.
    pub(super) fn of(config: &QueryConfig, now: Timestamp) -> Result<Self, String> {
        let zone = || config.look.zone.as_ref().unwrap_or(&Zone::Local).find();
        let (from, to) = (config.from.as_ref(), config.to.as_ref());
        Ok(Self {
            from: from.map(|time| time.for_node(Edge::From, zone, now)).transpose()?,
            to: to.map(|time| time.for_node(Edge::To, zone, now)).transpose()?,
            after: config.after.clone(),
            limit: config.limit,
            is_rest: false,
        })
    }

    /// Times that count from now are the ones that the node has understood at first.
    pub(super) fn pin(&mut self, headers: &HeaderMap) {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let (false, Some(from)) = (self.is_rest, header("x-oklog-from")) {
            self.from = Some(from.to_owned());
            self.to = header("x-oklog-to").map(str::to_owned).or_else(|| self.to.take());
        }
    }

    /// What is left behind the last record of an answer that had so many.
    pub(super) fn go_on(&mut self, last: &str, records: u64) {
        self.after = Some(last.to_owned());
        self.is_rest = true;
        self.limit = self.limit.map(|limit| limit.saturating_sub(records));
    }

    /// The part that was printed, the last record included.
    pub(super) fn done(&self, last: &str, is_descending: bool) -> Self {
        let mut done = Self { limit: None, after: None, ..self.clone() };
        if is_descending {
            done.from = Some(last.to_owned());
        } else {
            done.to = Some(last.to_owned());
        }
        done
    }
}

/// What an answer was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It says that it is all.
    Ended,
    /// The rest is to be asked for.
    GoOn,
    /// It broke off, for this reason.
    Broken(String),
}

/// What came in the way of an answer's end.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// What broke it off, if anything did.
    pub(super) why: Option<Broken>,
    /// Whether the output took nothing for so long that the node may have ended it.
    pub(super) is_stalled: bool,
}

/// Judges an answer that is over.
pub(super) fn judge(lines: &Lines<'_>, cut: &Cut) -> Verdict {
    let has_moved = lines.records > 0 && lines.last.is_some();
    match &lines.end {
        Some(end) if end.records() != Some(lines.records) => Verdict::Broken(format!(
            "its end counts {} records, and {} came",
            end.object["records"], lines.records
        )),
        Some(end) if end.is_early() && has_moved => Verdict::GoOn,
        Some(_) => Verdict::Ended,
        // A node that does not answer any more is not asked again.
        None if cut.is_stalled && has_moved && !matches!(cut.why, Some(Broken::Silent)) => {
            Verdict::GoOn
        }
        None => Verdict::Broken(
            cut.why.as_ref().map_or_else(|| "its last line is missing".into(), Broken::to_string),
        ),
    }
}

/// What is missing of all answers together.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    pub(super) count: u64,
    listed: Vec<Value>,
}

impl Gaps {
    /// What an answer says of itself.
    pub(super) fn add(&mut self, end: &End) {
        self.count += end.missing_count();
        self.listed.extend_from_slice(end.missing());
    }

    /// The last line of the whole: that of the last answer, with what is true of all.
    pub(super) fn end_of_all(&self, last: &End, records: u64) -> Value {
        let mut object = last.object.clone();
        object["records"] = json!(records);
        object["complete"] = json!(self.count == 0 && last.is_complete());
        object["missing_count"] = json!(self.count + u64::from(last.is_early()));
        object["missing"] = json!(self.listed);
        object
    }
}
