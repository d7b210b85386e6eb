//! Answers that are printed otherwise than record by record: NDJSON, statistics, headers.

use std::io::{self, Write};

use hyper::HeaderMap;
use serde_json::Value;

/// How the last line of an NDJSON answer begins.
const END: &[u8] = b"{\"end\"";
/// A longer last line is not read: what it lists is printed anyway.
const END_BYTES_MAX: usize = 4 << 20;

/// Passes NDJSON on and remembers its last line.
pub(super) struct JsonLines<'a> {
    out: &'a mut dyn Write,
    /// The current line, as long as it may be the last one.
    line: Vec<u8>,
    may_be_end: bool,
    /// Lines that were ended and are not the last one.
    pub(super) records: u64,
    /// The last line.
    pub(super) end: Option<Value>,
}

impl<'a> JsonLines<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, line: Vec::new(), may_be_end: true, records: 0, end: None }
    }

    /// Takes the next bytes of the answer.
    pub(super) fn take(&mut self, piece: &[u8]) -> io::Result<()> {
        self.out.write_all(piece)?;
        for part in piece.split_inclusive(|&b| b == b'\n') {
            if self.may_be_end {
                self.line.extend_from_slice(part);
                let seen = self.line.len().min(END.len());
                self.may_be_end =
                    self.line[..seen] == END[..seen] && self.line.len() <= END_BYTES_MAX;
            }
            if part.ends_with(b"\n") {
                if self.may_be_end {
                    self.end = serde_json::from_slice(&self.line).ok();
                } else {
                    self.records += 1;
                }
                self.line.clear();
                self.may_be_end = true;
            }
        }
        Ok(())
    }

    /// Whether the answer ended and says that nothing is missing.
    pub(super) fn is_complete(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end["end"]["complete"] == true)
    }
}

/// The object of `/query?stats` as a table.
pub(super) fn table(stats: &Value) -> String {
    let Some(object) = stats.as_object() else { return String::new() };
    let figures = object
        .iter()
        .filter(|(_, value)| !value.is_array())
        .map(|(name, value)| format!("{name:<26}{value}\n"));
    let spans = object.get("missing").and_then(Value::as_array).into_iter().flatten().map(|span| {
        let text = |name: &str| span[name].as_str().unwrap_or("?").to_owned();
        let (from, to, node, reason) = (text("from"), text("to"), text("node"), text("reason"));
        format!("missing                   from {from} to {to} on {node}: {reason}\n")
    });
    figures.chain(spans).collect()
}

/// What the headers of an answer say, one line each, as the predecessor told it.
pub(super) fn verbose(headers: &HeaderMap) -> String {
    let header =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("?");
    let kind =
        if header("x-oklog-regex") == "true" { "regular expression" } else { "normal string" };
    format!(
        "Queried from {}\nQueried to {}\nQueried {kind} {:?}\n{} node(s) queried\n\
         {} segment(s) queried\n{} B maximum data set size\n{} error(s)\n\
         {} server-reported duration\n",
        header("x-oklog-from"),
        header("x-oklog-to"),
        header("x-oklog-q"),
        header("x-oklog-nodes-queried"),
        header("x-oklog-segments-queried"),
        header("x-oklog-max-data-set-size"),
        header("x-oklog-error-count"),
        header("x-oklog-duration"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_found_however_the_answer_is_cut() {
        let answer = b"{\"ulid\":\"1\"}\n{\"ulid\":\"{\\\"end\\\"\"}\n\
                       {\"end\":{\"records\":2,\"complete\":true}}\n";
        for piece_len in 1..answer.len() {
            let mut out = Vec::new();
            let mut lines = JsonLines::new(&mut out);
            for piece in answer.chunks(piece_len) {
                lines.take(piece).unwrap();
            }
            assert!(lines.is_complete());
            assert_eq!(lines.records, 2);
            assert_eq!(out, answer);
        }
        let mut out = Vec::new();
        let mut lines = JsonLines::new(&mut out);
        lines.take(&answer[..20]).unwrap();
        assert!(!lines.is_complete());
    }
}
