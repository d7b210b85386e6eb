//! Asks a node for records and reads them as a stream of `ULID SP record LF`.

use memchr::memchr;

use crate::failure::{Context, Failure, Result};
use crate::http;

/// Characters of a ULID as text.
const ULID_TEXT_LEN: usize = 26;
const BASE32: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Which records to ask for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    /// `host:port` of the API.
    pub(crate) api: String,
    /// Empty: from the beginning of time.
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) topic: Option<String>,
    /// The expression; `None`: every record.
    pub(crate) expression: Option<String>,
    pub(crate) regex: bool,
}

impl Query {
    pub(crate) fn path(&self) -> String {
        let mut path = String::from("/query?from=");
        path.push_str(&http::escape(self.from.as_deref().unwrap_or(&ulid_of_ms(0))));
        let parameters = [("to", &self.to), ("topic", &self.topic), ("q", &self.expression)];
        for (name, value) in parameters {
            if let Some(value) = value {
                path.extend(["&", name, "=", &http::escape(value)]);
            }
        }
        if self.regex {
            path.push_str("&regex=true");
        }
        path
    }

    /// Hands out ULID and record of everything that is found. An answer that is incomplete, not
    /// in ULID order, or not in the format is an error.
    pub(crate) fn each_record(&self, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let path = self.path();
        let asking = || format!("GET http://{}{path}", self.api);
        let answer = http::get(&self.api, &path)?;
        if answer.header("x-oklog-complete") == Some("false") {
            return Err(Failure::run(format!("{}: the answer is incomplete", asking())));
        }
        let mut lines = Lines::default();
        let mut wrong = None;
        answer
            .read_body(&mut |part| {
                if wrong.is_none() {
                    wrong = lines.push(part, each).err();
                }
            })
            .context(asking)?;
        match wrong.or_else(|| (!lines.rest.is_empty()).then(|| "ends inside a line".into())) {
            Some(wrong) => Err(Failure::run(format!("{}: the answer {wrong}", asking()))),
            None => Ok(()),
        }
    }
}

/// The smallest ULID of a millisecond: ten characters of time, the rest zeros.
pub(crate) fn ulid_of_ms(ms: u64) -> String {
    let mut text = [b'0'; ULID_TEXT_LEN];
    let mut rest = ms;
    for slot in text[..10].iter_mut().rev() {
        *slot = BASE32[(rest & 31) as usize];
        rest >>= 5;
    }
    text.iter().copied().map(char::from).collect()
}

/// Splits the body into ULIDs and records.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
    last: [u8; ULID_TEXT_LEN],
}

impl Lines {
    fn push(
        &mut self,
        mut bytes: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) -> std::result::Result<(), String> {
        while let Some(end) = memchr(b'\n', bytes) {
            if self.rest.is_empty() {
                take_line(&mut self.last, &bytes[..end], each)?;
            } else {
                self.rest.extend_from_slice(&bytes[..end]);
                take_line(&mut self.last, &self.rest, each)?;
                self.rest.clear();
            }
            bytes = &bytes[end + 1..];
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }
}

#[inline]
fn take_line(
    last: &mut [u8; ULID_TEXT_LEN],
    line: &[u8],
    each: &mut dyn FnMut(&[u8], &[u8]),
) -> std::result::Result<(), String> {
    let Some((ulid, [b' ', record @ ..])) = line.split_first_chunk::<ULID_TEXT_LEN>() else {
        let start = String::from_utf8_lossy(&line[..line.len().min(60)]);
        return Err(format!("holds `{start}`, which is no `ULID record`"));
    };
    if ulid <= last {
        let text = String::from_utf8_lossy(ulid);
        return Err(format!("is not in ULID order, or repeats a ULID, at {text}"));
    }
    *last = *ulid;
    each(ulid, record);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_what_is_asked_for() {
        let query = Query {
            topic: Some("web".into()),
            expression: Some("a b".into()),
            regex: true,
            ..Query::default()
        };
        assert_eq!(
            query.path(),
            "/query?from=00000000000000000000000000&topic=web&q=a%20b&regex=true"
        );
    }

    #[test]
    fn a_millisecond_has_its_ulid() {
        // The example of the ULID specification: 1469918176385 is 01ARYZ6S41.
        assert_eq!(ulid_of_ms(1_469_918_176_385), "01ARYZ6S410000000000000000");
    }

    fn read(body: &[u8], step: usize) -> std::result::Result<Vec<Vec<u8>>, String> {
        let mut lines = Lines::default();
        let mut records = Vec::new();
        for part in body.chunks(step) {
            lines.push(part, &mut |_, record| records.push(record.to_vec()))?;
        }
        Ok(records)
    }

    #[test]
    fn records_come_back_byte_for_byte_however_the_answer_is_cut() {
        let mut body = Vec::new();
        let records: [&[u8]; 4] = [b"plain", b"", b" \xff\0\r", b"last"];
        for (index, record) in records.iter().enumerate() {
            body.extend(ulid_of_ms(1 + index as u64).into_bytes());
            body.push(b' ');
            body.extend(*record);
            body.push(b'\n');
        }
        for step in [1, 7, 1000] {
            assert_eq!(read(&body, step).unwrap(), records);
        }
    }

    #[test]
    fn disorder_and_repetition_are_told() {
        let line = |ms| format!("{} x\n", ulid_of_ms(ms));
        assert!(read((line(2) + &line(1)).as_bytes(), 9).unwrap_err().contains("order"));
        assert!(read((line(2) + &line(2)).as_bytes(), 9).unwrap_err().contains("repeats"));
        assert!(read(b"short\n", 9).unwrap_err().contains("short"));
    }
}
